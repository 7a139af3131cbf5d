/* SPDX-License-Identifier: Apache-2.0 */
/** @file reference.h  Slow and obvious attention of one query row in fp64: what every result is
 * compared with. */
#ifndef BSATTN_KERNELS_REFERENCE_H
#define BSATTN_KERNELS_REFERENCE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { BSATTN_REFERENCE_HEAD_DIM_MAX = 256 };

/** One query row on its way through its keys. */
typedef struct bsattn_reference {
    int head_dim;
    double scale;
    double max; /**< m: largest score so far; -inf before the first key */
    double sum; /**< l: sum of exp(score - m) */
    double query[BSATTN_REFERENCE_HEAD_DIM_MAX];
    double out[BSATTN_REFERENCE_HEAD_DIM_MAX]; /**< sum of exp(score - m) v */
} bsattn_reference_t;

/** Start a row. @param q [D] */
void bsattn_reference_begin(bsattn_reference_t *reference, int head_dim, double scale,
                            const float *q);

/** Add keys, all of them unmasked. @param k, v [count, D] */
void bsattn_reference_add(bsattn_reference_t *reference, const float *k, const float *v,
                          int64_t count);

/** Finish a row: out[] becomes the result, 0 if there were no keys.
 *  @return LSE = m + ln l, -inf if there were no keys */
double bsattn_reference_end(bsattn_reference_t *reference);

#ifdef __cplusplus
}
#endif

#endif
