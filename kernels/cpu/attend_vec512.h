/* SPDX-License-Identifier: Apache-2.0 */
/** @file attend_vec512.h  Vectors of AVX-512. */
#include <immintrin.h>

#define VEC_LANES 16

#include "kernels/cpu/attend_vec.h"

static inline vec_t vec_max(vec_t a, vec_t b)
{
    return (vec_t)_mm512_max_ps((__m512)a, (__m512)b);
}

static inline int vec_any_greater(vec_t a, vec_t b)
{
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ) != 0;
}
