/* SPDX-License-Identifier: Apache-2.0 */
/** @file fragment.cuh  What kernels with tensor cores do to the numbers that a lane holds, whatever
 *  the instructions of the products. */
#ifndef BSATTN_KERNELS_CUDA_FRAGMENT_CUH
#define BSATTN_KERNELS_CUDA_FRAGMENT_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

namespace bsattn {

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

/** Lanes 4g .. 4g+3 have each a word of four vectors of four words; give each lane a vector: lane
 *  4g + t has word t of vector j in words[j] and gets vector t.
 *  @param t  lane % 4 */
__device__ __forceinline__ uint4 quad_transpose(const uint32_t (&words)[4], int t)
{
    bool odd = (t & 1) != 0;
    bool high = (t & 2) != 0;
    uint32_t x_in = __shfl_xor_sync(~0u, odd ? words[0] : words[1], 1);
    uint32_t y_in = __shfl_xor_sync(~0u, odd ? words[2] : words[3], 1);
    uint32_t x0 = odd ? x_in : words[0];
    uint32_t x1 = odd ? words[1] : x_in;
    uint32_t y0 = odd ? y_in : words[2];
    uint32_t y1 = odd ? words[3] : y_in;
    uint32_t in0 = __shfl_xor_sync(~0u, high ? x0 : y0, 2);
    uint32_t in1 = __shfl_xor_sync(~0u, high ? x1 : y1, 2);

    return high ? make_uint4(in0, in1, y0, y1) : make_uint4(x0, x1, in0, in1);
}

} // namespace bsattn

#endif
