/* SPDX-License-Identifier: Apache-2.0 */
/** @file fragment.cuh  What kernels with tensor cores do to the numbers that a lane holds, whatever
 *  the instructions of the products. */
#ifndef BSATTN_KERNELS_CUDA_FRAGMENT_CUH
#define BSATTN_KERNELS_CUDA_FRAGMENT_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

namespace bsattn {

constexpr float LOG2_E = 1.44269504088896341f;
constexpr float LN_2 = 0.69314718055994531f;

/** Least factor of scores: hidden ones are -inf and must stay so, where 0 would make them NaN. */
constexpr float LEAST_FACTOR = 1e-37f;

/** Probabilities relative to a reference that was not looked for: a thread's sum of a row in a tile beyond
 *  this has the tile scored again. f16 must hold it. */
constexpr float SUM_MAX = 32768.0f;

__device__ __forceinline__ uint32_t shared_address(const void *pointer)
{
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

/** 2^x by the special function unit; 0 for -inf. */
__device__ __forceinline__ float exp2_approx(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/** log2(x) by the special function unit; of normal numbers. */
__device__ __forceinline__ float log2_approx(float x)
{
    float y;

    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/** 1 / x by the special function unit. */
__device__ __forceinline__ float reciprocal(float x)
{
    float y;

    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/** Two numbers rounded to T, the first in the lower half. */
template <typename T> __device__ __forceinline__ uint32_t pack(float low, float high);

template <> __device__ __forceinline__ uint32_t pack<__nv_bfloat16>(float low, float high)
{
    uint32_t packed;

    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

template <> __device__ __forceinline__ uint32_t pack<__half>(float low, float high)
{
    uint32_t packed;

    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

} // namespace bsattn

#endif
