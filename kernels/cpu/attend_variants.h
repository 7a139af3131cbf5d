/* SPDX-License-Identifier: Apache-2.0 */
/** @file attend_variants.h  One CPU kernel per instruction set, for the dispatcher and the tests.
 */
#ifndef BSATTN_KERNELS_CPU_ATTEND_VARIANTS_H
#define BSATTN_KERNELS_CPU_ATTEND_VARIANTS_H

#include "kernels/attend.h"

enum {
    BSATTN_TILE_KEYS_MAX = 128, /**< most keys that are scored before their values are added */
    BSATTN_TILE_STRIP_MAX = 32, /**< most queries side by side in vector lanes */
};

/** One work item of one query head of one batch item. */
typedef struct bsattn_attend_task {
    const bsattn_attend_params_t *params;
    int64_t batch;
    int head; /**< query head */
    const bsattn_work_item_t *item;
    const bsattn_key_run_t *runs; /**< the item's: run_count of them */
} bsattn_attend_task_t;

typedef struct bsattn_attend_variant {
    const char *name; /**< "generic", "avx2", "avx512" or "amx" */

    /** Do one item. @param scratch bsattn_attend_cpu_scratch_bytes() bytes, 64-byte aligned */
    void (*attend)(const bsattn_attend_task_t *task, void *scratch);

    /** y = 2^x as the softmax computes it, for x <= 64: within 2 ulp for x >= -126, exactly 0 for
     *  x <= -127, between the two at most 2^-125; exactly 1 at 0; NaN stays NaN.
     *  @param count a multiple of 16 */
    void (*exp2)(const float *x, float *y, int64_t count);
} bsattn_attend_variant_t;

/** @return the variant of that name, or NULL if there is none or this processor cannot run it. */
const bsattn_attend_variant_t *bsattn_attend_variant_find(const char *name);

/** bsattn_attend_cpu() with the variant given. */
void bsattn_attend_variant_run(const bsattn_attend_variant_t *variant,
                               const bsattn_attend_params_t *params, int64_t item_begin,
                               int64_t item_end);

extern const bsattn_attend_variant_t bsattn_attend_generic;
#if defined(__x86_64__)
extern const bsattn_attend_variant_t bsattn_attend_avx2;
extern const bsattn_attend_variant_t bsattn_attend_avx512;
extern const bsattn_attend_variant_t bsattn_attend_amx;
#endif

#endif
