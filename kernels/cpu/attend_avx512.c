/* SPDX-License-Identifier: Apache-2.0 */
#if defined(__x86_64__)

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512VL__) ||                   \
    !defined(__AVX512DQ__)
#error "compile this file with -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c"
#endif

#include <immintrin.h>

#define VEC_LANES 16
#define TILE_ROWS 8
#define TILE_VARIANT bsattn_attend_avx512
#define TILE_NAME "avx512"

#include "kernels/cpu/attend_vec.h"

static inline vec_t vec_max(vec_t a, vec_t b)
{
    return (vec_t)_mm512_max_ps((__m512)a, (__m512)b);
}

static inline int vec_any_greater(vec_t a, vec_t b)
{
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ) != 0;
}

#include "kernels/cpu/attend_tile.h"

#endif
