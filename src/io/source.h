/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file source.h
 * Where Q, K and V come from: a seed or three .npy files.
 *
 * Synthetic: element x of the flattened global tensor [b, N, H, D] is value x of
 * bsattn_philox_normal(seed, tensor), rounded to the problem's type: the same tensors for every
 * number of ranks and every layout. Files: C order, [b, N, H, D] or [N, H, D], "<f4", "<f2", or
 * bf16 as "<u2" or "|V2"; converted where the problem's type differs.
 */
#ifndef BSATTN_IO_SOURCE_H
#define BSATTN_IO_SOURCE_H

#include "base/status.h"
#include "transport/mpi_job.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bsattn_source bsattn_source_t;

/** The shapes and type that a source sets. */
typedef struct bsattn_source_info {
    bool synthetic;
    bool batched; /**< shapes are [b, N, H, D]; else [N, H, D] with b 1, and outputs likewise */
    int64_t batch;
    int64_t seq_len;
    int heads_q;
    int heads_kv;
    int head_dim;
    bsattn_dtype_t dtype; /**< the problem's if synthetic; the files' if they agree, else f32 */
} bsattn_source_info_t;

/** Open the synthetic source of a problem.
 *  @param problem  checked by the caller; copied, so that no bsattn_source_bind() is needed
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_source_open_synthetic(const bsattn_problem_t *problem, uint64_t seed,
                                             bsattn_source_t **source_p);

/** Open three files and check that their shapes fit each other. Collective. What shapes a problem
 *  may have is bsattn_problem_check()'s to say.
 *  @param job  copied; its communicator outlives the source
 *  @return the same on every rank: BSATTN_OK; BSATTN_ERR_FILE; BSATTN_ERR_INPUT naming a file, its
 *          shape or type and what is expected; BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_source_open_files(const bsattn_job_t *job, const char *q_path,
                                         const char *k_path, const char *v_path,
                                         bsattn_source_t **source_p);

/** What the source holds: set the problem's batch, seq_len, heads_q, heads_kv and head_dim from it,
 *  and its dtype if that is to be chosen automatically. */
void bsattn_source_info(const bsattn_source_t *source, bsattn_source_info_t *info_p);

/** Say which problem the rows are for, before the first load or rows. A synthetic source takes any
 *  problem, files take one of their shapes and any dtype.
 *  @param problem  checked by the caller; copied
 *  @return BSATTN_OK or BSATTN_ERR_INPUT */
bsattn_status_t bsattn_source_bind(bsattn_source_t *source, const bsattn_problem_t *problem);

/** Load one tensor for one rank of this process. Collective for files: called once for each local
 *  rank.
 *  @param runs     tokens of the rank, ascending and disjoint; n is their number
 *  @param threads  to generate or convert with; < 1: 1
 *  @param rows     [b, n, H, D] of the problem's type, filled
 *  @return the same on every rank for files: BSATTN_OK, BSATTN_ERR_FILE or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_source_load(bsattn_source_t *source, bsattn_tensor_t tensor,
                                   const bsattn_token_run_t *runs, size_t run_count, int threads,
                                   void *rows);

/** A bsattn_rows_func_t; arg is the bsattn_source_t. Not collective.
 *  @param out  fp32 [count, D], rounded to the problem's type
 *  @return BSATTN_OK; BSATTN_ERR_FILE if a file can no longer be read */
bsattn_status_t bsattn_source_rows(void *arg, bsattn_tensor_t tensor, int64_t batch, int head,
                                   int64_t first, int64_t count, float *out);

/** Close a source; not collective; NULL is allowed. */
void bsattn_source_close(bsattn_source_t *source);

#endif
