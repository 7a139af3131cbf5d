/* SPDX-License-Identifier: Apache-2.0 */
#include "report/report_file.h"

#include "base/partial.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char part_suffix[] = ".part";

struct bsattn_report_file {
    char *path;
    char *part;
    FILE *stream; /* written straight; NULL for a regular file */
    bool owns_stream;
    bool begun; /* something was appended */
    char *text; /* all rows so far */
    size_t length;
};

static bsattn_status_t fail_errno(const char *path)
{
    return bsattn_fail(BSATTN_ERR_FILE, "cannot write %s: %s", path, strerror(errno));
}

static bsattn_status_t set_paths(bsattn_report_file_t *file, const char *path)
{
    size_t length = strlen(path);

    file->path = strdup(path);
    file->part = malloc(length + sizeof(part_suffix));
    if ((file->path == NULL) || (file->part == NULL)) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to write %s", path);
    }
    memcpy(file->part, path, length);
    memcpy(file->part + length, part_suffix, sizeof(part_suffix));
    return BSATTN_OK;
}

/* Open the temporary file, watched over until it is dropped or renamed. */
static FILE *open_part(const bsattn_report_file_t *file)
{
    FILE *stream;

    bsattn_partial_add(file->part);
    stream = fopen(file->part, "w");
    if (stream == NULL) {
        int reason = errno;
        bsattn_partial_forget(file->part);
        errno = reason;
    }
    return stream;
}

static bool drop_part(const bsattn_report_file_t *file)
{
    bool removed = (remove(file->part) == 0);

    bsattn_partial_forget(file->part);
    return removed;
}

/* The temporary file is made and removed: whether a folder allows it is known only by trying. */
static bsattn_status_t try_part(const bsattn_report_file_t *file)
{
    FILE *stream = open_part(file);

    if (stream == NULL) {
        return fail_errno(file->path);
    }
    (void)fclose(stream);
    return drop_part(file) ? BSATTN_OK : fail_errno(file->path);
}

static bsattn_status_t open_target(bsattn_report_file_t *file)
{
    struct stat info;

    if (strcmp(file->path, "-") == 0) {
        file->stream = stdout;
        return BSATTN_OK;
    }
    if (stat(file->path, &info) != 0) {
        return (errno == ENOENT) ? try_part(file) : fail_errno(file->path);
    }
    if (S_ISDIR(info.st_mode)) {
        errno = EISDIR;
        return fail_errno(file->path);
    }
    if (S_ISREG(info.st_mode)) {
        return (access(file->path, W_OK) == 0) ? try_part(file) : fail_errno(file->path);
    }
    file->stream = fopen(file->path, "w");
    file->owns_stream = true;
    return (file->stream != NULL) ? BSATTN_OK : fail_errno(file->path);
}

bsattn_status_t bsattn_report_file_open(const char *path, bsattn_report_file_t **file_p)
{
    bsattn_report_file_t *file = calloc(1, sizeof(*file));
    bsattn_status_t status;

    if (file == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to write %s", path);
    }
    status = set_paths(file, path);
    if (status == BSATTN_OK) {
        status = open_target(file);
    }
    if (status != BSATTN_OK) {
        bsattn_report_file_close(file);
        return status;
    }
    *file_p = file;
    return BSATTN_OK;
}

static bsattn_status_t write_straight(const bsattn_report_file_t *file, const char *text)
{
    errno = 0;
    if ((fputs(text, file->stream) < 0) || (fflush(file->stream) != 0)) {
        return fail_errno(file->path);
    }
    return BSATTN_OK;
}

static bsattn_status_t replace_file(const bsattn_report_file_t *file)
{
    FILE *stream = open_part(file);
    bool written;

    if (stream == NULL) {
        return fail_errno(file->path);
    }
    written = (fwrite(file->text, 1, file->length, stream) == file->length) &&
              (fflush(stream) == 0) && (fsync(fileno(stream)) == 0);
    written = (fclose(stream) == 0) && written;
    if (!written || (rename(file->part, file->path) != 0)) {
        bsattn_status_t status = fail_errno(file->path);
        (void)drop_part(file);
        return status;
    }
    bsattn_partial_forget(file->part);
    return BSATTN_OK;
}

bsattn_status_t bsattn_report_file_append(bsattn_report_file_t *file, const char *text)
{
    size_t length = strlen(text);
    char *grown;

    file->begun = true;
    if (file->stream != NULL) {
        return write_straight(file, text);
    }
    if (length >= SIZE_MAX - file->length) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to write %s", file->path);
    }
    grown = realloc(file->text, file->length + length + 1);
    if (grown == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to write %s", file->path);
    }
    memcpy(grown + file->length, text, length + 1);
    file->text = grown;
    file->length += length;
    return replace_file(file);
}

bool bsattn_report_file_is_empty(const bsattn_report_file_t *file)
{
    return !file->begun;
}

void bsattn_report_file_close(bsattn_report_file_t *file)
{
    if (file == NULL) {
        return;
    }
    if (file->owns_stream && (file->stream != NULL)) {
        (void)fclose(file->stream);
    }
    free(file->path);
    free(file->part);
    free(file->text);
    free(file);
}
