/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file attend.h
 * The contract of an attention kernel: what one launch reads, walks and writes.
 *
 * One launch computes one step of the ring for one rank: the rank's queries against one chunk of
 * keys and values, walking lists of key blocks. It knows nothing of patterns, layouts or ranks.
 * Plain data, C linkage; the same for CPU and GPU.
 */
#ifndef BSATTN_KERNELS_ATTEND_H
#define BSATTN_KERNELS_ATTEND_H

#include <stddef.h>
#include <stdint.h>

#include "bsattn.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A run of key blocks in a chunk: blocks at places slot .. slot + count - 1. A partial entry has
 *  count 1 and is masked by row: query row r of the block sees the keys 0 .. min(r, keys - 1) of it
 *  (the causal diagonal). Full entries have no mask but the end of the sequence: the last block may
 *  hold fewer than B keys. Partial entries come first in a list. */
typedef struct bsattn_key_run {
    int32_t slot;
    int32_t count; /**< >= 1 */
} bsattn_key_run_t;

/** Query blocks have their state in aligned groups of so many rows, one after the other; alone where
 *  they are larger. */
enum { BSATTN_STATE_ROWS = 64 };

/** One query block with work in this launch, for one list class. */
typedef struct bsattn_work_item {
    int32_t row;            /**< local query block: its tokens are row*B .. of the rank's tokens */
    uint16_t partial_count; /**< leading entries of the list that are partial (0, or 1 per
                                 branch) */
    uint8_t first;          /**< nonzero: no earlier launch touched these rows: start from the empty
                                state */
    uint8_t last;           /**< nonzero: no later launch touches them: write O and LSE instead of
                                the state */
    int32_t run_count;      /**< entries of the list, >= 1 */
    int32_t state_block;    /**< where its state is, among those of a head; meaningless if first
                                 and last */
    int64_t run_first;      /**< into runs[] */
    int64_t block_count;    /**< key blocks in the list: the cost of the item */
} bsattn_work_item_t;

/** The lists of one class of query heads: heads of a class share masks and the place of their keys
 *  in a chunk. */
typedef struct bsattn_work_list {
    const bsattn_work_item_t *items; /**< longest first */
    int64_t item_count;
    const bsattn_key_run_t *runs;
} bsattn_work_list_t;

/** Where the keys of one key head lie in a chunk. */
typedef struct bsattn_chunk_head {
    int64_t token_first; /**< first token row of the head in each batch item of the chunk */
    int64_t token_count; /**< token rows of the head; slot s is the rows s*B .. min(s*B + B,
                              token_count) - 1 */
} bsattn_chunk_head_t;

typedef struct bsattn_attend_params {
    /* shapes */
    int64_t batch;
    int heads_q;
    int heads_kv;
    int head_dim;
    int block;
    bsattn_dtype_t dtype;
    float scale;

    /* queries and results of this rank; n = tokens */
    int64_t tokens;
    const void *q; /**< [b, n, Hq, D] of dtype */
    void *o;       /**< [b, n, Hq, D] of dtype: written for rows of items marked last */
    float *lse;    /**< [b, Hq, n]: the same; may be NULL */

    /* one chunk of keys and values */
    const void *k;                    /**< [b, tokens_kv, D] of dtype, heads one after the other
                                          within a batch item */
    const void *v;                    /**< [b, tokens_kv, D] of dtype */
    int64_t tokens_kv;                /**< token rows of one batch item, summed over key heads */
    const bsattn_chunk_head_t *heads; /**< [Hk] */

    /* lists */
    const int *list_of_head;         /**< [Hq] -> index into lists */
    const bsattn_work_list_t *lists; /**< [list_count] */
    int list_count;

    /* the state (O, m, l) carried between launches: [b, Hq, state_blocks, B * (D + 2)] in fp32, the
     * order within a block being the kernel's own; NULL if every item is first and last */
    float *state;
    int64_t state_blocks;

    /* per-thread scratch, bsattn_attend_cpu_scratch_bytes() for each thread, 64-byte aligned */
    void *scratch;
    int threads;
} bsattn_attend_params_t;

/** @return bytes of scratch for one thread, a multiple of 64. */
size_t bsattn_attend_cpu_scratch_bytes(int head_dim, int block);

/** Run the items lists[*].items[item_begin .. item_end) of every head and batch item on `threads`
 *  threads. Item ranges let the caller make progress on messages between slices; they refer to each
 *  list separately and are clipped to it. */
void bsattn_attend_cpu(const bsattn_attend_params_t *params, int64_t item_begin, int64_t item_end);

/** @return the instruction set bsattn_attend_cpu() uses here: "generic", "avx2", "avx512" or
 *  "amx" (bf16; other types as avx512). Chosen once from the processor, or from the environment
 *  variable BSATTN_ISA if the processor has it. */
const char *bsattn_attend_cpu_isa(void);

#ifdef __cplusplus
}
#endif

#endif
