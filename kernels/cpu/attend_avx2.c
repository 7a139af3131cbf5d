/* SPDX-License-Identifier: Apache-2.0 */
#if defined(__x86_64__)

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile this file with -mavx2 -mfma -mf16c"
#endif

#include <immintrin.h>

/* 12 sums of 8 lanes, 2 rows of lanes and 1 broadcast fill the 16 registers. */
#define VEC_LANES 8
#define TILE_ROWS 6
#define TILE_VARIANT bsattn_attend_avx2
#define TILE_NAME "avx2"

#include "kernels/cpu/attend_vec.h"

static inline vec_t vec_max(vec_t a, vec_t b)
{
    return (vec_t)_mm256_max_ps((__m256)a, (__m256)b);
}

static inline int vec_any_greater(vec_t a, vec_t b)
{
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GT_OQ)) != 0;
}

#include "kernels/cpu/attend_float.h"

#endif
