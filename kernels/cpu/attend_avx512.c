/* SPDX-License-Identifier: Apache-2.0 */
#if defined(__x86_64__)

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512VL__) ||                   \
    !defined(__AVX512DQ__)
#error "compile this file with -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c"
#endif

#define TILE_ROWS 8
#define TILE_VARIANT bsattn_attend_avx512
#define TILE_NAME "avx512"

#include "kernels/cpu/attend_vec512.h"
#include "kernels/cpu/attend_float.h"

#endif
