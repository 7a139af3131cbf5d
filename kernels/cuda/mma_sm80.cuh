/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file mma_sm80.cuh
 * The instructions of sm_80 that CUDA C++ has no name for: copies into shared memory that run on
 * their own (cp.async), matrix loads (ldmatrix) and products of a warp (mma). Shared memory is
 * named by 32-bit addresses.
 *
 * Fragments of mma.m16n8k16, for lane 4g + t (g = 0..7, t = 0..3); a word holds two neighbours,
 * the one of the lower index in its lower half:
 *
 *   A [16][16]  a[0] = A[g][2t], a[1] = A[g + 8][2t], a[2] = A[g][2t + 8], a[3] = A[g + 8][2t + 8]
 *   B [16][8]   b[0] = B[2t][g], b[1] = B[2t + 8][g]     (neighbours are in the same column)
 *   C [16][8]   c[0], c[1] = C[g][2t], C[g][2t + 1]; c[2], c[3] = C[g + 8][2t], C[g + 8][2t + 1]
 *
 * ldmatrix.x4 reads four 8 x 8 matrices; lanes 8i .. 8i+7 name the rows of matrix i, and word i of
 * lane 4g + t is M_i[g][2t], M_i[g][2t + 1], or with .trans M_i[2t][g], M_i[2t + 1][g].
 */
#ifndef BSATTN_KERNELS_CUDA_MMA_SM80_CUH
#define BSATTN_KERNELS_CUDA_MMA_SM80_CUH

#include "kernels/cuda/fragment.cuh"

namespace bsattn {

/* --------------------------------------------------------------------------------------- registers
 * Values that the compiler may not know to be the same as before: what follows from them is made
 * anew where it is needed, which costs a few instructions there, instead of registers all along. */

__device__ __forceinline__ int thread_index()
{
    int thread;

    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

__device__ __forceinline__ float unknown(float x)
{
    float y;

    asm volatile("mov.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* -------------------------------------------------------------------------------- shared memory */

__device__ __forceinline__ uint32_t shared_load_4(uint32_t from)
{
    uint32_t x;

    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(from));
    return x;
}

__device__ __forceinline__ uint4 shared_load_16(uint32_t from)
{
    uint4 x;

    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "r"(from));
    return x;
}

__device__ __forceinline__ void shared_store_16(uint32_t to, uint4 x)
{
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z),
                 "r"(x.w)
                 : "memory");
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

/* --------------------------------------------------------------------------------------- copies */

/* Whoever reads what copies wrote comes after a wait and a barrier, and that is where the compiler
 * is told that memory has changed. */

/** Copy 16 bytes, or write 16 zeros if bytes is 0. */
__device__ __forceinline__ void copy_16(uint32_t to, const void *from, int bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}

/** Copy 8 bytes. */
__device__ __forceinline__ void copy_8(uint32_t to, const void *from)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(from));
}

/** Wait for all copies of this thread. */
__device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/** All threads of the CTA wait for one another, whole warps coming from wherever they are: unlike
 *  __syncthreads(), which is for all at one place. */
__device__ __forceinline__ void barrier()
{
    asm volatile("bar.sync 0;" ::: "memory");
}

/* ------------------------------------------------------------------------------------- products */

__device__ __forceinline__ void load_matrices(uint32_t (&words)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(address));
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&words)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(address));
}

/** A type of 16 bits. */
template <typename T> struct Half;

template <> struct Half<__nv_bfloat16> {
    static constexpr uint32_t EXPONENT = 0x7F80; /* all ones: infinite or not a number */

    static __device__ __forceinline__ float unpack(uint32_t bits)
    {
        return __uint_as_float(bits << 16);
    }

    /** c += a * b */
    static __device__ __forceinline__ void product(float (&c)[4], const uint32_t (&a)[4],
                                                   uint32_t b0, uint32_t b1)
    {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                     "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
};

template <> struct Half<__half> {
    static constexpr uint32_t EXPONENT = 0x7C00;

    static __device__ __forceinline__ float unpack(uint32_t bits)
    {
        return __half2float(__ushort_as_half((unsigned short)bits));
    }

    static __device__ __forceinline__ void product(float (&c)[4], const uint32_t (&a)[4],
                                                   uint32_t b0, uint32_t b1)
    {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                     "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
};

} // namespace bsattn

#endif
