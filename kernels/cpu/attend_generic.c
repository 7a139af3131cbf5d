/* SPDX-License-Identifier: Apache-2.0 */
/* Any processor with a C compiler; on x86-64 the compiler uses SSE2. */
#define VEC_LANES 4
#define TILE_ROWS 4
#define TILE_VARIANT bsattn_attend_generic
#define TILE_NAME "generic"

#include "kernels/cpu/attend_vec.h"

static inline vec_t vec_max(vec_t a, vec_t b)
{
    vec_int_t greater = (vec_int_t)(a > b);

    return (vec_t)(((vec_int_t)a & greater) | ((vec_int_t)b & ~greater));
}

static inline int vec_any_greater(vec_t a, vec_t b)
{
    vec_int_t greater = (vec_int_t)(a > b);

    return (greater[0] | greater[1] | greater[2] | greater[3]) != 0;
}

#include "kernels/cpu/attend_float.h"
