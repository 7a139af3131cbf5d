/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* fallocate */
#endif
#include "io/npy_mpi.h"

#include "base/partial.h"
#include "base/text.h"
#include "transport/mpi_rows.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of one call: MPI libraries have had trouble with transfers of 2 GiB. The last two need a buffer
 * as large. */
enum { READ_BYTES = 256 << 20, WRITE_BYTES = 32 << 20, SINK_BYTES = 16 << 20 };

static bsattn_status_t check_started(void)
{
    int initialized = 0;

    if ((MPI_Initialized(&initialized) != MPI_SUCCESS) || !initialized) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                           "files are read and written through MPI-IO, but MPI is not started");
    }
    return BSATTN_OK;
}

static MPI_Comm comm_of(const bsattn_job_t *job)
{
    return (job->comm != NULL) ? *(const MPI_Comm *)job->comm : MPI_COMM_SELF;
}

static bsattn_status_t mpi_failed(const char *path, const char *what, int error)
{
    char text[MPI_MAX_ERROR_STRING + 1] = "";
    int length = 0;

    if (MPI_Error_string(error, text, &length) != MPI_SUCCESS) {
        length = 0;
    }
    text[length] = '\0';
    return bsattn_fail(BSATTN_ERR_FILE, "%s: %s failed: %s", path, what, text);
}

bsattn_status_t bsattn_npy_mpi_read_header(const bsattn_job_t *job, const char *path,
                                           bsattn_npy_t *npy_p)
{
    bsattn_status_t status = BSATTN_OK;
    bsattn_npy_t npy = {.dims = 0};

    BSATTN_TRY(check_started());
    if (job->rank == 0) {
        status = bsattn_npy_read_header(path, &npy);
    }
    BSATTN_TRY(bsattn_job_agree(job, status));
    if (MPI_Bcast(&npy, (int)sizeof(npy), MPI_BYTE, 0, comm_of(job)) != MPI_SUCCESS) {
        return bsattn_fail(BSATTN_ERR_FILE, "%s: its header could not be broadcast", path);
    }
    *npy_p = npy;
    return BSATTN_OK;
}

/* What one rank transfers: the file type tiles the file once per outer index, so that the rank's
 * view of the file is exactly its memory, [outer][n][row_bytes]. */
typedef struct transfer {
    MPI_Datatype row;
    MPI_Datatype tile;
    int64_t rows;       /* outer * n */
    int64_t rows_piece; /* of one call */
    int64_t pieces;     /* the same on all ranks */
    size_t row_bytes;
} transfer_t;

static void transfer_free(transfer_t *transfer)
{
    if (transfer->tile != MPI_DATATYPE_NULL) {
        (void)MPI_Type_free(&transfer->tile);
    }
    if (transfer->row != MPI_DATATYPE_NULL) {
        (void)MPI_Type_free(&transfer->row);
    }
}

/* What this rank's rows are of a file's, again and again. */
static bsattn_status_t describe_runs(const char *path, const bsattn_npy_view_t *view,
                                     const bsattn_token_run_t *runs, size_t run_count,
                                     transfer_t *transfer)
{
    MPI_Datatype bare;
    int error;

    BSATTN_TRY(bsattn_mpi_rows_type(runs, run_count, transfer->row_bytes, &bare));
    error = MPI_Type_create_resized(bare, 0, (MPI_Aint)view->seq_len * (MPI_Aint)view->row_bytes,
                                    &transfer->tile);
    (void)MPI_Type_free(&bare);
    error = (error == MPI_SUCCESS) ? MPI_Type_commit(&transfer->tile) : error;
    return (error == MPI_SUCCESS) ? BSATTN_OK
                                  : mpi_failed(path, "describing its token runs", error);
}

/* The local part: types and counts. */
static bsattn_status_t transfer_describe(const char *path, const bsattn_npy_view_t *view,
                                         const bsattn_token_run_t *runs, size_t run_count,
                                         transfer_t *transfer)
{
    int error = MPI_Type_contiguous((int)transfer->row_bytes, MPI_BYTE, &transfer->row);

    if (error == MPI_SUCCESS) {
        error = MPI_Type_commit(&transfer->row);
    }
    if (error != MPI_SUCCESS) {
        return mpi_failed(path, "describing its rows", error);
    }
    return (transfer->rows > 0) ? describe_runs(path, view, runs, run_count, transfer) : BSATTN_OK;
}

/* Collective. On failure there is nothing to free. */
static bsattn_status_t transfer_create(const bsattn_job_t *job, const char *path,
                                       const bsattn_npy_view_t *view,
                                       const bsattn_token_run_t *runs, size_t run_count,
                                       int64_t bytes_piece, transfer_t *transfer_p)
{
    int64_t row_bytes = (int64_t)view->row_bytes;
    transfer_t transfer = {.row = MPI_DATATYPE_NULL,
                           .tile = MPI_DATATYPE_NULL,
                           .rows_piece = (row_bytes < bytes_piece) ? bytes_piece / row_bytes : 1,
                           .row_bytes = view->row_bytes};
    int64_t end = 0;
    int64_t pieces;
    bsattn_status_t status;

    for (size_t r = 0; r < run_count; ++r) {
        BSATTN_ASSERT((runs[r].first >= end) && (runs[r].count >= 0) &&
                      (runs[r].count <= view->seq_len - runs[r].first));
        end = runs[r].first + runs[r].count;
        transfer.rows += runs[r].count;
    }
    transfer.rows *= view->outer;
    status = transfer_describe(path, view, runs, run_count, &transfer);
    status = bsattn_job_agree(job, status);
    pieces = (transfer.rows + transfer.rows_piece - 1) / transfer.rows_piece;
    if ((status == BSATTN_OK) && (MPI_Allreduce(&pieces, &transfer.pieces, 1, MPI_INT64_T, MPI_MAX,
                                                comm_of(job)) != MPI_SUCCESS)) {
        status = bsattn_fail(BSATTN_ERR_FILE, "%s: ranks could not agree on its pieces", path);
    }
    if (status != BSATTN_OK) {
        transfer_free(&transfer);
        return status;
    }
    *transfer_p = transfer;
    return BSATTN_OK;
}

/* Bytes of the largest piece of this rank. */
static size_t piece_bytes(const transfer_t *transfer)
{
    int64_t rows = (transfer->rows < transfer->rows_piece) ? transfer->rows : transfer->rows_piece;

    return (size_t)rows * transfer->row_bytes;
}

/* Rows of one piece; none once this rank is done and takes part for the others only. */
static int piece_rows(const transfer_t *transfer, int64_t piece, int64_t *first_p)
{
    int64_t first = piece * transfer->rows_piece;
    int64_t left = (transfer->rows > first) ? transfer->rows - first : 0;

    *first_p = (left > 0) ? first : 0;
    return (int)((left < transfer->rows_piece) ? left : transfer->rows_piece);
}

/* Collective. The file handle belongs to the caller only on success: where one rank could not open,
 * the others' handles cannot be closed, since closing is collective too. */
static bsattn_status_t open_all(const bsattn_job_t *job, const char *path, int mode,
                                MPI_File *file_p)
{
    MPI_File file = MPI_FILE_NULL;
    bsattn_status_t status = BSATTN_OK;
    int error;

    (void)MPI_File_set_errhandler(MPI_FILE_NULL, MPI_ERRORS_RETURN);
    error = MPI_File_open(comm_of(job), path, mode, MPI_INFO_NULL, &file);
    if (error != MPI_SUCCESS) {
        status = mpi_failed(path, "opening through MPI", error);
    }
    BSATTN_TRY(bsattn_job_agree(job, status));
    (void)MPI_File_set_errhandler(file, MPI_ERRORS_RETURN);
    *file_p = file;
    return BSATTN_OK;
}

static int set_view(MPI_File file, int64_t data_offset, const transfer_t *transfer)
{
    return MPI_File_set_view(file, (MPI_Offset)data_offset, transfer->row,
                             (transfer->tile != MPI_DATATYPE_NULL) ? transfer->tile : transfer->row,
                             "native", MPI_INFO_NULL);
}

/* Before the collective opening: each rank by itself, with the system's own words, and with the
 * size as this rank sees it. */
static bsattn_status_t check_readable(const char *path, int64_t size_expected)
{
    struct stat file;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return bsattn_fail(BSATTN_ERR_FILE, "%s: cannot be opened: %s", path, strerror(errno));
    }
    if (fstat(fd, &file) != 0) {
        (void)close(fd);
        return bsattn_fail(BSATTN_ERR_FILE, "%s: cannot be examined", path);
    }
    (void)close(fd);
    if ((int64_t)file.st_size < size_expected) {
        return bsattn_fail(BSATTN_ERR_FILE,
                           "%s: %" PRId64 " bytes expected by its header, %" PRId64 " there", path,
                           size_expected, (int64_t)file.st_size);
    }
    return BSATTN_OK;
}

static int64_t view_bytes(const bsattn_npy_view_t *view)
{
    int64_t rows;
    int64_t bytes;

    BSATTN_ASSERT((view->outer >= 1) && (view->seq_len >= 1));
    BSATTN_ASSERT((view->row_bytes >= 1) && (view->row_bytes <= INT_MAX));
    BSATTN_ASSERT(!__builtin_mul_overflow(view->outer, view->seq_len, &rows));
    BSATTN_ASSERT(!__builtin_mul_overflow(rows, (int64_t)view->row_bytes, &bytes));
    return bytes;
}

/* Where a piece goes: straight to its place in rows, or through a buffer to the sink. */
typedef struct destination {
    char *rows;
    char *buffer;
    bsattn_npy_rows_sink_t sink;
    void *arg;
} destination_t;

/* All pieces are gone through even after an error: the other ranks wait in the same calls. */
static bsattn_status_t read_pieces(MPI_File file, const char *path, int64_t data_offset,
                                   const transfer_t *transfer, const destination_t *destination)
{
    bsattn_status_t status = BSATTN_OK;
    int error = set_view(file, data_offset, transfer);

    for (int64_t piece = 0; piece < transfer->pieces; ++piece) {
        int64_t first;
        int count = piece_rows(transfer, piece, &first);
        char *out = (destination->sink != NULL)
                        ? destination->buffer
                        : destination->rows + (size_t)first * transfer->row_bytes;
        MPI_Status result;
        int got = count;
        int call =
            MPI_File_read_at_all(file, (MPI_Offset)first, out, count, transfer->row, &result);

        if ((call == MPI_SUCCESS) && (count > 0)) {
            (void)MPI_Get_count(&result, transfer->row, &got);
        }
        if ((call == MPI_SUCCESS) && (got != count) && (status == BSATTN_OK)) {
            status = bsattn_fail(BSATTN_ERR_FILE, "%s: a read of %d rows of %zu bytes came short",
                                 path, count, transfer->row_bytes);
        }
        error = (error != MPI_SUCCESS) ? error : call;
        if ((error == MPI_SUCCESS) && (status == BSATTN_OK) && (count > 0) &&
            (destination->sink != NULL)) {
            destination->sink(destination->arg, first, count, destination->buffer);
        }
    }
    return (error != MPI_SUCCESS) ? mpi_failed(path, "reading", error) : status;
}

static bsattn_status_t read_open(const bsattn_job_t *job, const char *path, const bsattn_npy_t *npy,
                                 const transfer_t *transfer, const destination_t *destination)
{
    MPI_File file;
    bsattn_status_t status;

    status = check_readable(path, npy->data_offset + npy->bytes);
    BSATTN_TRY(bsattn_job_agree(job, status));
    BSATTN_TRY(open_all(job, path, MPI_MODE_RDONLY, &file));
    status = read_pieces(file, path, npy->data_offset, transfer, destination);
    (void)MPI_File_close(&file);
    return bsattn_job_agree(job, status);
}

bsattn_status_t bsattn_npy_mpi_read_rows(const bsattn_job_t *job, const char *path,
                                         const bsattn_npy_t *npy, const bsattn_npy_view_t *view,
                                         const bsattn_token_run_t *runs, size_t run_count,
                                         void *rows)
{
    destination_t destination = {.rows = rows};
    bsattn_status_t status;
    transfer_t transfer;

    BSATTN_ASSERT(view_bytes(view) == npy->bytes);
    BSATTN_TRY(check_started());
    BSATTN_TRY(transfer_create(job, path, view, runs, run_count, READ_BYTES, &transfer));
    status = read_open(job, path, npy, &transfer, &destination);
    transfer_free(&transfer);
    return status;
}

bsattn_status_t bsattn_npy_mpi_read_each(const bsattn_job_t *job, const char *path,
                                         const bsattn_npy_t *npy, const bsattn_npy_view_t *view,
                                         const bsattn_token_run_t *runs, size_t run_count,
                                         bsattn_npy_rows_sink_t sink, void *arg)
{
    destination_t destination = {.sink = sink, .arg = arg};
    bsattn_status_t status = BSATTN_OK;
    transfer_t transfer;

    BSATTN_ASSERT(view_bytes(view) == npy->bytes);
    BSATTN_TRY(check_started());
    BSATTN_TRY(transfer_create(job, path, view, runs, run_count, SINK_BYTES, &transfer));
    destination.buffer = malloc(piece_bytes(&transfer) + 1);
    if (destination.buffer == NULL) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no %zu bytes to read %s through",
                             piece_bytes(&transfer), path);
    }
    status = bsattn_job_agree(job, status);
    if (status == BSATTN_OK) {
        status = read_open(job, path, npy, &transfer, &destination);
    }
    free(destination.buffer);
    transfer_free(&transfer);
    return status;
}

struct bsattn_npy_writer {
    bsattn_job_t job;
    bsattn_npy_view_t view;
    MPI_File file; /* MPI_FILE_NULL while not open */
    int64_t data_offset;
    int64_t size; /* of the whole file */
    char *part;   /* PATH.part */
    char path[];
};

static void writer_free(bsattn_npy_writer_t *writer)
{
    free(writer->part);
    free(writer);
}

/* Not collective. */
static bsattn_status_t writer_allocate(const bsattn_job_t *job, const char *path,
                                       const bsattn_npy_view_t *view,
                                       bsattn_npy_writer_t **writer_p)
{
    size_t size = strlen(path) + sizeof(".part");
    bsattn_npy_writer_t *writer = calloc(1, sizeof(*writer) + size);
    bsattn_strbuf_t buf;

    if (writer != NULL) {
        writer->part = malloc(size);
    }
    if ((writer == NULL) || (writer->part == NULL)) {
        free(writer);
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to write %s", path);
    }
    writer->job = *job;
    writer->view = *view;
    writer->file = MPI_FILE_NULL;
    (void)bsattn_text_copy(writer->path, size, path);
    bsattn_strbuf_init(&buf, writer->part, size);
    bsattn_strbuf_add(&buf, "%s.part", path);
    *writer_p = writer;
    return BSATTN_OK;
}

static bsattn_status_t write_exactly(int fd, const char *path, const void *data, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t put = pwrite(fd, (const char *)data + done, size - done, (off_t)done);

        if ((put < 0) && (errno == EINTR)) {
            continue;
        }
        if (put <= 0) {
            return bsattn_fail(BSATTN_ERR_FILE, "%s: cannot be written: %s", path,
                               (put < 0) ? strerror(errno) : "nothing was taken");
        }
        done += (size_t)put;
    }
    return BSATTN_OK;
}

/* Take the space now, so that a full disk is known before anything is computed or half written.
 * File systems that cannot reserve get the size alone. */
static bsattn_status_t reserve(int fd, const char *path, int64_t size)
{
    int error;

    do {
        error = (fallocate(fd, 0, 0, (off_t)size) == 0) ? 0 : errno;
    } while (error == EINTR);
    if ((error == EOPNOTSUPP) || (error == ENOSYS) || (error == EINVAL)) {
        error = (ftruncate(fd, (off_t)size) == 0) ? 0 : errno;
    }
    if (error != 0) {
        return bsattn_fail(BSATTN_ERR_FILE, "%s: %" PRId64 " bytes cannot be had for it: %s", path,
                           size, strerror(error));
    }
    return BSATTN_OK;
}

/* Rank 0 alone. */
static void drop_part(const bsattn_npy_writer_t *writer)
{
    (void)unlink(writer->part);
    bsattn_partial_forget(writer->part);
}

/* Rank 0 alone. Leaves no file on failure. */
static bsattn_status_t create_part(const bsattn_npy_writer_t *writer, const void *header)
{
    struct stat old;
    bsattn_status_t status;
    int fd;

    if ((stat(writer->path, &old) == 0) && !S_ISREG(old.st_mode)) {
        return bsattn_fail(BSATTN_ERR_FILE, "%s: exists and is not a regular file", writer->path);
    }
    fd = open(writer->part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        return bsattn_fail(BSATTN_ERR_FILE, "%s: cannot be created: %s", writer->part,
                           strerror(errno));
    }
    bsattn_partial_add(writer->part);
    status = reserve(fd, writer->part, writer->size);
    if (status == BSATTN_OK) {
        status = write_exactly(fd, writer->part, header, (size_t)writer->data_offset);
    }
    if ((close(fd) != 0) && (status == BSATTN_OK)) {
        status = bsattn_fail(BSATTN_ERR_FILE, "%s: cannot be written: %s", writer->part,
                             strerror(errno));
    }
    if (status != BSATTN_OK) {
        drop_part(writer);
    }
    return status;
}

bsattn_status_t bsattn_npy_writer_create(const bsattn_job_t *job, const char *path,
                                         const char *descr, int dims, const int64_t *shape,
                                         const bsattn_npy_view_t *view,
                                         bsattn_npy_writer_t **writer_p)
{
    unsigned char header[512];
    size_t header_size = bsattn_npy_format(descr, dims, shape, header, sizeof(header));
    bsattn_npy_writer_t *writer = NULL;
    bsattn_npy_t npy;
    bsattn_status_t status;

    BSATTN_ASSERT(header_size > 0);
    BSATTN_TRY(bsattn_npy_parse(path, header, header_size, &npy));
    BSATTN_ASSERT(view_bytes(view) == npy.bytes);
    BSATTN_TRY(check_started());

    status = writer_allocate(job, path, view, &writer);
    if (status == BSATTN_OK) {
        writer->data_offset = npy.data_offset;
        writer->size = npy.data_offset + npy.bytes;
    }
    status = bsattn_job_agree(job, status);
    if ((status == BSATTN_OK) && (job->rank == 0)) {
        status = create_part(writer, header);
    }
    /* Also keeps the others from opening before the file is there. */
    status = bsattn_job_agree(job, status);
    if (status == BSATTN_OK) {
        status = open_all(job, writer->part, MPI_MODE_RDWR, &writer->file);
        if ((status != BSATTN_OK) && (job->rank == 0)) {
            drop_part(writer);
        }
    }
    if (status != BSATTN_OK) {
        if (writer != NULL) {
            writer_free(writer);
        }
        return status;
    }
    *writer_p = writer;
    return BSATTN_OK;
}

static bsattn_status_t write_pieces(const bsattn_npy_writer_t *writer, const transfer_t *transfer,
                                    const char *rows)
{
    bsattn_status_t status = BSATTN_OK;
    int error = set_view(writer->file, writer->data_offset, transfer);

    for (int64_t piece = 0; piece < transfer->pieces; ++piece) {
        int64_t first;
        int count = piece_rows(transfer, piece, &first);
        MPI_Status result;
        int put = count;
        int call = MPI_File_write_at_all(writer->file, (MPI_Offset)first,
                                         rows + (size_t)first * transfer->row_bytes, count,
                                         transfer->row, &result);

        if ((call == MPI_SUCCESS) && (count > 0)) {
            (void)MPI_Get_count(&result, transfer->row, &put);
        }
        if ((call == MPI_SUCCESS) && (put != count) && (status == BSATTN_OK)) {
            status = bsattn_fail(BSATTN_ERR_FILE, "%s: a write of %d rows of %zu bytes came short",
                                 writer->part, count, transfer->row_bytes);
        }
        error = (error != MPI_SUCCESS) ? error : call;
    }
    return (error != MPI_SUCCESS) ? mpi_failed(writer->part, "writing", error) : status;
}

/* Compares what comes back with what was given. */
typedef struct comparison {
    const char *rows;
    size_t row_bytes;
    int64_t differing; /* first row of the first piece that differs, -1: none */
} comparison_t;

static void compare_rows(void *arg, int64_t first, int64_t count, const void *rows)
{
    comparison_t *comparison = arg;
    const char *want = comparison->rows + (size_t)first * comparison->row_bytes;

    if ((comparison->differing < 0) &&
        (memcmp(want, rows, (size_t)count * comparison->row_bytes) != 0)) {
        comparison->differing = first;
    }
}

/* Collective writes of Open MPI 4.1 with three or more ranks return success although write(2)
 * failed: only reading back tells. */
static bsattn_status_t read_back(const bsattn_npy_writer_t *writer, const transfer_t *transfer,
                                 const void *rows)
{
    comparison_t comparison = {rows, transfer->row_bytes, -1};
    destination_t destination = {.sink = compare_rows, .arg = &comparison};
    bsattn_status_t status = BSATTN_OK;
    int error = MPI_File_sync(writer->file);

    destination.buffer = malloc(piece_bytes(transfer) + 1);
    if (error != MPI_SUCCESS) {
        status = mpi_failed(writer->part, "bringing it to the disk", error);
    } else if (destination.buffer == NULL) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no memory to read %s back", writer->part);
    }
    status = bsattn_job_agree(&writer->job, status);
    if (status == BSATTN_OK) {
        status =
            read_pieces(writer->file, writer->part, writer->data_offset, transfer, &destination);
        if ((status == BSATTN_OK) && (comparison.differing >= 0)) {
            status = bsattn_fail(BSATTN_ERR_FILE,
                                 "%s: not what was written is read back: the disk may be full or "
                                 "failing",
                                 writer->part);
        }
        status = bsattn_job_agree(&writer->job, status);
    }
    free(destination.buffer);
    return status;
}

bsattn_status_t bsattn_npy_writer_rows(bsattn_npy_writer_t *writer, const bsattn_token_run_t *runs,
                                       size_t run_count, const void *rows)
{
    bsattn_status_t status;
    transfer_t transfer;

    BSATTN_TRY(transfer_create(&writer->job, writer->part, &writer->view, runs, run_count,
                               WRITE_BYTES, &transfer));
    status = write_pieces(writer, &transfer, rows);
    status = bsattn_job_agree(&writer->job, status);
    if (status == BSATTN_OK) {
        status = read_back(writer, &transfer, rows);
    }
    transfer_free(&transfer);
    return status;
}

/* Rank 0 alone. */
static bsattn_status_t rename_part(const bsattn_npy_writer_t *writer)
{
    struct stat file;

    if (stat(writer->part, &file) != 0) {
        return bsattn_fail(BSATTN_ERR_FILE, "%s: vanished before it was complete: %s", writer->part,
                           strerror(errno));
    }
    if ((int64_t)file.st_size != writer->size) {
        return bsattn_fail(BSATTN_ERR_FILE, "%s: %" PRId64 " bytes expected, %" PRId64 " there",
                           writer->part, writer->size, (int64_t)file.st_size);
    }
    if (rename(writer->part, writer->path) != 0) {
        return bsattn_fail(BSATTN_ERR_FILE, "%s: cannot be renamed to %s: %s", writer->part,
                           writer->path, strerror(errno));
    }
    bsattn_partial_forget(writer->part);
    return BSATTN_OK;
}

bsattn_status_t bsattn_npy_writer_commit(bsattn_npy_writer_t *writer)
{
    const bsattn_job_t *job = &writer->job;
    bsattn_status_t status = BSATTN_OK;
    int error = MPI_File_sync(writer->file);
    int closed = MPI_File_close(&writer->file);

    error = (error != MPI_SUCCESS) ? error : closed;
    if (error != MPI_SUCCESS) {
        status = mpi_failed(writer->part, "bringing it to the disk", error);
    }
    status = bsattn_job_agree(job, status);
    if ((status == BSATTN_OK) && (job->rank == 0)) {
        status = rename_part(writer);
    }
    status = bsattn_job_agree(job, status);
    if ((status != BSATTN_OK) && (job->rank == 0)) {
        drop_part(writer);
    }
    writer_free(writer);
    return status;
}

void bsattn_npy_writer_abort(bsattn_npy_writer_t *writer)
{
    if (writer == NULL) {
        return;
    }
    (void)MPI_File_close(&writer->file);
    if (writer->job.rank == 0) {
        drop_part(writer);
    }
    writer_free(writer);
}
