/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file attend_vec.h
 * Vectors of VEC_LANES floats. The including variant defines VEC_LANES before, and after it what
 * vector extensions lack:
 *
 *     vec_t vec_max(vec_t a, vec_t b)          lane by lane; b where either is NaN
 *     int vec_any_greater(vec_t a, vec_t b)    whether a > b in any lane
 */
#include <stdint.h>
#include <string.h>

typedef float vec_t __attribute__((vector_size(4 * VEC_LANES)));
typedef int32_t vec_int_t __attribute__((vector_size(4 * VEC_LANES)));
typedef float vec_unaligned_t __attribute__((vector_size(4 * VEC_LANES), aligned(4), may_alias));

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Before a loop of constant bound over vectors that are to stay in registers. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

ALWAYS_INLINE vec_t vec_load(const float *from)
{
    return *(const vec_unaligned_t *)from;
}

ALWAYS_INLINE void vec_store(float *to, vec_t value)
{
    *(vec_unaligned_t *)to = value;
}

ALWAYS_INLINE vec_t vec_splat(float value)
{
    return value - (vec_t){0};
}
