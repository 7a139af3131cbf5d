/* SPDX-License-Identifier: Apache-2.0 */
/** @file backend.h  Where the work is done: memory, moving rows into chunks, kernels. A table of
 *  functions per backend. */
#ifndef BSATTN_BACKEND_BACKEND_H
#define BSATTN_BACKEND_BACKEND_H

#include "base/status.h"
#include "kernels/attend.h"
#include "problem/estimate.h"

/** Gathers the rows of one head that a chunk is made of. */
typedef struct bsattn_pack_params {
    int64_t batch;
    int64_t tokens;   /**< n */
    int heads_kv;     /**< Hk */
    size_t row_bytes; /**< of one head: D elements */
    const void *in;   /**< [b, n, Hk, D] */
    void *out;        /**< [b, tokens_kv, D] */
    int64_t tokens_kv;
    const bsattn_chunk_head_t *heads; /**< [Hk]: where each head goes */
    const bsattn_token_run_t *runs;   /**< rows of the shard, by class */
    const size_t *runs_first;         /**< [classes + 1] into runs */
    const int *class_of_head;         /**< [Hk] */
    int threads;
} bsattn_pack_params_t;

/** Rows of one head without a single key. */
typedef struct bsattn_clear_params {
    const bsattn_attend_params_t *attend; /**< shapes, o and lse */
    int head;
    const int32_t *rows; /**< [row_count] local query blocks */
    int64_t row_count;
} bsattn_clear_params_t;

typedef struct bsattn_backend_ops {
    const char *name;
    const char *(*variant)(void);
    /** What a prediction must know. @param threads per rank */
    bsattn_machine_t (*machine)(int threads);
    /** @return memory for chunks, state and scratch, aligned to 64 bytes; NULL if there is none */
    void *(*alloc)(size_t bytes);
    void (*free)(void *memory);
    void (*pack)(const bsattn_pack_params_t *params);
    /** O = 0 and LSE = -inf */
    void (*clear)(const bsattn_clear_params_t *params);
    void (*attend)(const bsattn_attend_params_t *params, int64_t item_begin, int64_t item_end);
} bsattn_backend_ops_t;

extern const bsattn_backend_ops_t bsattn_backend_cpu;

/** Choose a backend. @param name  "auto", "cpu", or NULL for auto
 *  @return BSATTN_OK or BSATTN_ERR_INPUT */
bsattn_status_t bsattn_backend_find(const char *name, const bsattn_backend_ops_t **ops_p);

#endif
