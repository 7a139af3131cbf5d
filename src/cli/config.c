/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/config.h"

#include "base/text.h"
#include "cli/option.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FILE_MAX = 1 << 20,
    VALUE_SIZE = 8192,
    NAME_SIZE = 64, /* inih itself cuts names at 49 characters */
    WHERE_SIZE = 512,
};

/* inih hands over a value as soon as its first line is read; it is kept here until the next key
 * shows that it is whole. */
typedef struct reader {
    const char *name;
    const char *text;
    size_t length;
    size_t at;
    int line;
    bool continues; /* the line handed to inih last was marked as a continuation */
    bsattn_status_t status;
    bsattn_config_func_t func;
    void *arg;
    bool pending;
    char section[NAME_SIZE];
    char key[NAME_SIZE];
    char value[VALUE_SIZE];
    char where[WHERE_SIZE];
} reader_t;

static void flush(reader_t *reader)
{
    bsattn_config_item_t item = {reader->section, reader->key, reader->value, reader->where};

    if (reader->pending && (reader->status == BSATTN_OK)) {
        reader->status = reader->func(reader->arg, &item);
    }
    reader->pending = false;
}

static void fail(reader_t *reader, const char *message)
{
    if (reader->status == BSATTN_OK) {
        reader->status =
            bsattn_fail(BSATTN_ERR_INPUT, "%s:%d: %s", reader->name, reader->line, message);
    }
}

/* Whether an indented line is a key of its own rather than the rest of a value such as
 * "global(tokens=64)". */
static bool begins_with_option(const char *line)
{
    char name[NAME_SIZE];
    size_t length = strcspn(line, "= \t");
    bsattn_option_t option;

    if ((length == 0) || (length >= sizeof(name))) {
        return false;
    }
    memcpy(name, line, length);
    name[length] = '\0';
    line += length + strspn(line + length, " \t");
    return (*line == '=') && bsattn_option_find(name, &option);
}

/* A '#' after white space begins a comment. */
static void drop_comment(char *line)
{
    for (char *c = line; *c != '\0'; ++c) {
        if ((*c == '#') && ((c == line) || isspace((unsigned char)c[-1]))) {
            *c = '\0';
            return;
        }
    }
}

/* inih would take a ';' after white space for a comment, but in a pattern it separates heads: close
 * the gap. A line that begins with it is a comment. */
static void close_gaps(char *line)
{
    char *out = line;

    if (line[strspn(line, " \t")] == ';') {
        *line = '\0';
        return;
    }
    for (const char *c = line; *c != '\0'; ++c) {
        if (*c == ';') {
            while ((out > line) && isspace((unsigned char)out[-1])) {
                --out;
            }
        }
        *out++ = *c;
    }
    *out = '\0';
}

static bool next_line(reader_t *reader, char *line, size_t size)
{
    const char *start = reader->text + reader->at;
    size_t left = reader->length - reader->at;
    const char *end = memchr(start, '\n', left);
    size_t length = (end == NULL) ? left : (size_t)(end - start);

    if ((left == 0) || (reader->status != BSATTN_OK)) {
        return false;
    }
    reader->at += length + ((end == NULL) ? 0 : 1);
    ++reader->line;
    if ((length > 0) && (start[length - 1] == '\r')) {
        --length;
    }
    if ((length > BSATTN_CONFIG_LINE_MAX) || (length >= size)) {
        fail(reader, "the line is longer than 196 characters; go on with the value on an indented "
                     "line");
        return false;
    }
    if (memchr(start, '\0', length) != NULL) {
        fail(reader, "a zero byte; this is no config file");
        return false;
    }
    memcpy(line, start, length);
    line[length] = '\0';
    return true;
}

/* The ini_reader. */
static char *read_line(char *out, int size, void *stream)
{
    reader_t *reader = stream;
    char line[BSATTN_CONFIG_LINE_MAX + 1] = "";
    size_t indent;
    bool bom;

    if (!next_line(reader, line, sizeof(line))) {
        return NULL;
    }
    drop_comment(line);
    close_gaps(line);
    bom = (reader->line == 1) && (strncmp(line, "\xEF\xBB\xBF", 3) == 0);
    indent = bom ? 3 : strspn(line, " \t");
    if (line[indent] == '[') {
        flush(reader); /* nothing goes on across a section */
    }
    reader->continues = !bom && (indent > 0) && (line[indent] != '\0') && reader->pending &&
                        !begins_with_option(line + indent);
    if (!bsattn_text_copy(out, (size_t)size, line + (reader->continues ? 0 : indent))) {
        fail(reader, "the line is too long");
        return NULL;
    }
    return out;
}

static void append(reader_t *reader, const char *value)
{
    size_t length = strlen(reader->value);

    if (!bsattn_text_copy(reader->value + length, sizeof(reader->value) - length, value)) {
        fail(reader, "the value is longer than 8191 characters");
    }
}

/* The ini_handler; returns nonzero to go on. */
static int take_item(void *user, const char *section, const char *key, const char *value)
{
    reader_t *reader = user;
    bsattn_strbuf_t where;

    if (reader->continues) {
        append(reader, value);
        return reader->status == BSATTN_OK;
    }
    flush(reader);
    (void)bsattn_text_copy(reader->section, sizeof(reader->section), section);
    (void)bsattn_text_copy(reader->key, sizeof(reader->key), key);
    reader->value[0] = '\0';
    append(reader, value);
    bsattn_strbuf_init(&where, reader->where, sizeof(reader->where));
    bsattn_strbuf_add(&where, "%s:%d", reader->name, reader->line);
    reader->pending = true;
    return reader->status == BSATTN_OK;
}

bsattn_status_t bsattn_config_parse(const char *name, const char *text, size_t length,
                                    bsattn_config_func_t func, void *arg)
{
    reader_t *reader = calloc(1, sizeof(*reader));
    bsattn_status_t status;
    int bad_line;

    if (reader == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to read %s", name);
    }
    reader->name = name;
    reader->text = text;
    reader->length = length;
    reader->func = func;
    reader->arg = arg;
    bad_line = ini_parse_stream(read_line, reader, take_item, reader);
    flush(reader);
    if ((bad_line != 0) && (reader->status == BSATTN_OK)) {
        reader->line = bad_line;
        fail(reader, "neither a [section] nor a key = value line");
    }
    status = reader->status;
    free(reader);
    return status;
}

bsattn_status_t bsattn_config_read(const char *path, bsattn_config_func_t func, void *arg)
{
    FILE *file = fopen(path, "r");
    char *text = NULL;
    bsattn_status_t status;
    size_t length;

    if (file == NULL) {
        return bsattn_fail(BSATTN_ERR_FILE, "config file %s: %s", path, strerror(errno));
    }
    text = malloc(FILE_MAX);
    if (text == NULL) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no memory to read %s", path);
        goto err_file;
    }
    length = fread(text, 1, FILE_MAX, file);
    if (ferror(file) != 0) {
        status = bsattn_fail(BSATTN_ERR_FILE, "config file %s: %s", path, strerror(errno));
    } else if (length == FILE_MAX) {
        status = bsattn_fail(BSATTN_ERR_INPUT, "config file %s is larger than 1 MiB", path);
    } else {
        status = bsattn_config_parse(path, text, length, func, arg);
    }
    free(text);
err_file:
    (void)fclose(file);
    return status;
}
