/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file npy_mpi.h
 * Parallel .npy files through MPI-IO: every rank reads or writes the rows of its own token runs.
 *
 * An array is seen as [outer][N][row_bytes] in the file and [outer][n][row_bytes] in memory, where
 * n is the number of tokens in the runs: O is outer = b, row_bytes = Hq * D * 4; LSE, [b, Hq, N],
 * is outer = b * Hq, row_bytes = 4.
 *
 * Every function with a job or a writer is collective over the job and returns the same status on
 * every rank, with a message on every rank; MPI is started even for a job without a communicator.
 * A process that holds several ranks calls read_rows and write_rows once for each; all processes
 * hold the same number of them.
 */
#ifndef BSATTN_IO_NPY_MPI_H
#define BSATTN_IO_NPY_MPI_H

#include "base/npy.h"
#include "base/status.h"
#include "transport/mpi_job.h"

#include <stddef.h>
#include <stdint.h>

/** How the elements of a file are seen. */
typedef struct bsattn_npy_view {
    int64_t outer;    /**< >= 1 */
    int64_t seq_len;  /**< N >= 1 */
    size_t row_bytes; /**< >= 1, at most INT_MAX */
} bsattn_npy_view_t;

/** Rank 0 reads a header and gives it to all.
 *  @return as bsattn_npy_read_header() */
bsattn_status_t bsattn_npy_mpi_read_header(const bsattn_job_t *job, const char *path,
                                           bsattn_npy_t *npy_p);

/** Read the rows of some token runs.
 *  @param npy   the file's header, the same on all ranks; its bytes are outer * N * row_bytes
 *  @param runs  [run_count], ascending and disjoint, within 0 .. N - 1; run_count may be 0
 *  @param rows  [outer][n][row_bytes], filled
 *  @return BSATTN_OK, BSATTN_ERR_FILE, BSATTN_ERR_ENVIRONMENT (MPI not started) or
 *          BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_npy_mpi_read_rows(const bsattn_job_t *job, const char *path,
                                         const bsattn_npy_t *npy, const bsattn_npy_view_t *view,
                                         const bsattn_token_run_t *runs, size_t run_count,
                                         void *rows);

/** Receives rows first .. first + count - 1 of the [outer * n] of bsattn_npy_mpi_read_each(). */
typedef void (*bsattn_npy_rows_sink_t)(void *arg, int64_t first, int64_t count, const void *rows);

/** The same, through a buffer of at most 16 MiB (or one row): sink is called for consecutive
 *  pieces, in order. For readers that convert. */
bsattn_status_t bsattn_npy_mpi_read_each(const bsattn_job_t *job, const char *path,
                                         const bsattn_npy_t *npy, const bsattn_npy_view_t *view,
                                         const bsattn_token_run_t *runs, size_t run_count,
                                         bsattn_npy_rows_sink_t sink, void *arg);

/** A file being written: complete or absent. Its bytes go to PATH.part until
 *  bsattn_npy_writer_commit() renames it. */
typedef struct bsattn_npy_writer bsattn_npy_writer_t;

/** Create PATH.part with its header and its full size, replacing an earlier one.
 *  @param job          copied; its communicator outlives the writer
 *  @param path         copied
 *  @param descr        of the elements, e.g. "<f4"
 *  @param dims, shape  as written in the header; their bytes are outer * N * row_bytes
 *  @param writer_p     receives the writer, released by commit or abort
 *  @return BSATTN_OK, BSATTN_ERR_FILE (naming path and cause: directory missing, disk full, ..),
 *          BSATTN_ERR_ENVIRONMENT or BSATTN_ERR_MEMORY; nothing is left behind on failure */
bsattn_status_t bsattn_npy_writer_create(const bsattn_job_t *job, const char *path,
                                         const char *descr, int dims, const int64_t *shape,
                                         const bsattn_npy_view_t *view,
                                         bsattn_npy_writer_t **writer_p);

/** Write the rows of some token runs and read them back; no other rank writes them. Takes a buffer
 *  of at most 32 MiB.
 *  @param runs  as for bsattn_npy_mpi_read_rows()
 *  @param rows  [outer][n][row_bytes]
 *  @return BSATTN_OK, BSATTN_ERR_FILE or BSATTN_ERR_MEMORY; after a failure call
 *          bsattn_npy_writer_abort() */
bsattn_status_t bsattn_npy_writer_rows(bsattn_npy_writer_t *writer, const bsattn_token_run_t *runs,
                                       size_t run_count, const void *rows);

/** Bring everything to the disk, check the size, rename PATH.part to PATH. Releases the writer in
 *  every case.
 *  @return BSATTN_OK or BSATTN_ERR_FILE; PATH.part is gone in both */
bsattn_status_t bsattn_npy_writer_commit(bsattn_npy_writer_t *writer);

/** Remove PATH.part and release the writer; an earlier PATH stays as it was. NULL (on all ranks) is
 *  allowed. Leaves bsattn_last_error() alone. */
void bsattn_npy_writer_abort(bsattn_npy_writer_t *writer);

#endif
