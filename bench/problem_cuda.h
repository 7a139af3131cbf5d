/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file problem_cuda.h
 * One attention problem on one GPU, ready for a kernel of kernels/attend_cuda.h, without ranks or
 * plans: random inputs, lists made straight from the pattern, and timing. Shared by bench/attend_gpu.c and
 * tests/gpu/. What fails ends the program (device_cuda.h).
 */
#ifndef BSATTN_BENCH_PROBLEM_CUDA_H
#define BSATTN_BENCH_PROBLEM_CUDA_H

#include "backend/queue_cuda.h"
#include "base/stats.h"
#include "kernels/attend_cuda.h"

/** How the two parts of a divided launch come: as they may; the second a millisecond later, mostly when the
 *  first is done; or the first a millisecond later. */
typedef enum bsattn_gpu_order {
    BSATTN_GPU_TOGETHER,
    BSATTN_GPU_LATE_LAST,
    BSATTN_GPU_LATE_FIRST,
    BSATTN_GPU_ORDER_COUNT
} bsattn_gpu_order_t;

/** What to make. */
typedef struct bsattn_gpu_params {
    bsattn_problem_t problem;
    const char *pattern;
    const bsattn_cuda_kernel_t *kernel;
    int launches;      /**< >= 1: key blocks are dealt by lot to so many launches, one after the
                            other, the state carried along. More than 1: packed */
    bool packed;       /**< keys gathered in chunks [b, head, rows, D]; else in place,
                            [b, N, Hk, D] */
    bool heads_differ; /**< packed: each key head has places of its own, and no blocks that its
                            query heads do not see */
    int spare; /**< multiprocessors that are left to a second part of each launch, 0: none */
    bsattn_gpu_order_t order; /**< of the two parts */
    int sets;          /**< >= 1: inputs and outputs that take turns */
    uint64_t seed;
} bsattn_gpu_params_t;

/** So many bytes behind O and behind LSE are poisoned and nobody's. */
enum { BSATTN_GPU_GUARD_BYTES = 65536 };

/** Device memory of one set. */
typedef struct bsattn_gpu_set {
    void *q;    /**< [b, N, Hq, D] */
    void *k;    /**< [b, N, Hk, D] */
    void *v;    /**< [b, N, Hk, D] */
    void *o;    /**< [b, N, Hq, D] */
    float *lse; /**< [b, Hq, N] */
} bsattn_gpu_set_t;

/** One launch; the sets share lists and state. */
typedef struct bsattn_gpu_launch {
    bsattn_attend_cuda_params_t *params; /**< [sets] */
    int64_t tokens_kv;                   /**< packed: rows of a batch item of the chunk */
} bsattn_gpu_launch_t;

typedef struct bsattn_gpu_case {
    bsattn_gpu_params_t params;
    bsattn_pattern_t *pattern;
    double flops; /**< of one execution: 4 * unmasked token pairs * D */
    bsattn_gpu_set_t *sets;
    bsattn_gpu_launch_t *launches;          /**< [params.launches] */
    bsattn_clear_cuda_params_t *clears;     /**< [list_count] rows without keys */
    int list_count;
    int *list_of_head;                      /**< [Hq] */
    int key_classes;
    int32_t *launch_of;                     /**< [key_classes, nb] of a key block, -1: none */
    int32_t *place;                         /**< [key_classes, nb] in the chunk of its launch */
    int64_t *key_tokens;                    /**< [launches, key_classes] */
    bsattn_key_head_t **key_heads;          /**< [launches] in host memory */
    float *state_o;          /**< [state_rows, D]; NULL with one launch */
    float *state_ml;         /**< [state_rows, 2] */
    size_t state_rows;       /**< of all heads and batch items */
    size_t state_group_rows; /**< every second group of so many rows is nobody's */
    uint32_t *counters;
    bsattn_cuda_queue_t queue; /**< compute: the stream NULL; exchange: for second parts */
    void **memory; /**< all that is to be released, in device memory */
    size_t memory_count;
    size_t memory_capacity;
} bsattn_gpu_case_t;

/** Write random block masks, [nb, nb] or [masks, nb, nb], as .npy for the term blocks(file=..).
 *  @param least, most  key blocks of a row are chosen by lot from this range, then so many of nb */
void bsattn_gpu_write_mask(const char *path, int masks, int64_t nb, int64_t least, int64_t most,
                           uint64_t seed);

/** Make a case, its inputs packed, outputs poisoned. Release with bsattn_gpu_case_free(). */
void bsattn_gpu_case_init(bsattn_gpu_case_t *gpu, const bsattn_gpu_params_t *params);
void bsattn_gpu_case_free(bsattn_gpu_case_t *gpu);

/** @return bytes of Q, K, V and O of a problem */
double bsattn_gpu_set_bytes(const bsattn_problem_t *problem);

/** @return elements of Q, or of O */
int64_t bsattn_gpu_q_count(const bsattn_problem_t *problem);

/** @return bytes of the LSE */
size_t bsattn_gpu_lse_bytes(const bsattn_problem_t *problem);

/** Give rows of one input tensor a value, in all heads, batch items and sets.
 *  Follow with bsattn_gpu_case_pack(). */
void bsattn_gpu_case_fill(bsattn_gpu_case_t *gpu, bsattn_tensor_t tensor, int64_t first,
                          int64_t count, float value);

/** Gather the keys of a packed case again. */
void bsattn_gpu_case_pack(bsattn_gpu_case_t *gpu);

/** NaN in all that a run must write. */
void bsattn_gpu_case_poison(bsattn_gpu_case_t *gpu);

/** @return whether any launch of the case comes in two parts on this GPU */
bool bsattn_gpu_case_divided(const bsattn_gpu_case_t *gpu);

/** Run everything once and wait. @return the error of CUDA, 0 for success */
int bsattn_gpu_case_run(bsattn_gpu_case_t *gpu, int set);

/** Times of runs without the rows without keys, in ms of one run, by events on the GPU. Outputs are
 *  poisoned before; afterwards every set has the results of launches like those timed. */
bsattn_stats_t bsattn_gpu_case_time(bsattn_gpu_case_t *gpu, int repeats);

/** Times in us of starting launches that were made ready, and of that until their completion. Outputs are
 *  poisoned before; afterwards every set has the results of such launches. */
void bsattn_gpu_case_time_host(bsattn_gpu_case_t *gpu, int repeats, bsattn_stats_t *launch_us_p,
                               bsattn_stats_t *total_us_p);

#endif
