/* SPDX-License-Identifier: Apache-2.0 */
/** @file ptx_sm90.cuh  The instructions of sm_90a that CUDA C++ has no name for, one function each:
 *  mbarriers, bulk copies (TMA), warpgroup products (wgmma). Shared memory is named by 32-bit
 *  addresses. */
#ifndef BSATTN_KERNELS_CUDA_PTX_SM90_CUH
#define BSATTN_KERNELS_CUDA_PTX_SM90_CUH

#include "kernels/cuda/fragment.cuh"

#include <cuda.h>

namespace bsattn {

/* ------------------------------------------------------------------------------------- mbarriers */

__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

/** Make initialised barriers visible to the copy engine. */
__device__ __forceinline__ void barrier_init_fence()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/** Arrive, and expect so many bytes of copies before the phase ends. */
__device__ __forceinline__ void barrier_arrive_expect(uint32_t barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

/** Wait for the end of the phase of this parity. */
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra over;\n"
                 "bra again;\n"
                 "over:\n"
                 "}\n" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

/** True in one thread of a converged warp, always the same. Inside `if (elect_one())` the
 *  compiler knows that there is one thread only: what copies need in uniform registers is put there at
 *  once, where a branch on a lane's number would make it loop over the lanes that might be different. */
__device__ __forceinline__ bool elect_one()
{
    uint32_t elected;

    asm volatile("{\n"
                 ".reg .pred one;\n"
                 "elect.sync _|one, 0xffffffff;\n"
                 "selp.u32 %0, 1, 0, one;\n"
                 "}\n"
                 : "=r"(elected));
    return elected != 0;
}

/** Barriers of some warps of the CTA, by number. */
__device__ __forceinline__ void named_sync(int number, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

__device__ __forceinline__ void named_arrive(int number, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

/* ------------------------------------------------------------------------------------------ copies */

/** What the L2 is told of bytes that are used once: to give their place away first (the policy that
 *  createpolicy.fractional.L2::evict_first makes for all of an access). */
constexpr uint64_t ONCE = 0x12F0000000000000;

/** Copy the box at {0, row, head, batch, slab} of a 5-dimensional map into shared memory.
 *  @param USED_ONCE  nobody else reads it */
template <bool USED_ONCE = false>
__device__ __forceinline__ void tensor_load(uint32_t to, const CUtensorMap *map, uint32_t barrier,
                                            int row, int head, int batch, int slab)
{
    if constexpr (USED_ONCE) {
        asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
                     ".L2::cache_hint [%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(to),
                     "l"(map), "r"(barrier), "r"(0), "r"(row), "r"(head), "r"(batch), "r"(slab),
                     "l"(ONCE)
                     : "memory");
    } else {
        asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes "
                     "[%0], [%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(to),
                     "l"(map), "r"(barrier), "r"(0), "r"(row), "r"(head), "r"(batch), "r"(slab)
                     : "memory");
    }
}

/** Bring the box of a 5-dimensional map at {0, row, head, batch, 0} into the L2. */
__device__ __forceinline__ void tensor_prefetch(const CUtensorMap *map, int row, int head, int batch)
{
    asm volatile("cp.async.bulk.prefetch.tensor.5d.L2.global [%0, {%1, %2, %3, %4, %1}];" ::"l"(map),
                 "r"(0), "r"(row), "r"(head), "r"(batch)
                 : "memory");
}

/** Copy bytes (a multiple of 16) into shared memory. */
__device__ __forceinline__ void bulk_load(uint32_t to, const void *from, uint32_t bytes,
                                          uint32_t barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

/** Store four 8 x 8 matrices of 16 bits: lanes 8i .. 8i+7 name the rows of matrix i, and word i of lane
 *  4g + t is M_i[g][2t], M_i[g][2t + 1]. */
__device__ __forceinline__ void store_matrices(uint32_t address, const uint32_t (&words)[4])
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
                 "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
                 : "memory");
}

/** Make this thread's writes to shared memory visible to the copy engine. */
__device__ __forceinline__ void shared_written_fence()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/** Bring a map, a parameter of the kernel, near. */
__device__ __forceinline__ void tensor_map_prefetch(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/** A map in global memory that was written before the launch: before this thread's first use. */
__device__ __forceinline__ void tensor_map_acquire(const CUtensorMap *map)
{
    asm volatile("fence.proxy.tensormap::generic.acquire.sys [%0], 128;" ::"l"(map) : "memory");
}

/** Copy a box of a 5-dimensional map out of shared memory, to {0, row, head, batch, 0}.
 *  @param USED_ONCE  nobody reads it soon */
template <bool USED_ONCE>
__device__ __forceinline__ void tensor_store(const CUtensorMap *map, uint32_t from, int row, int head,
                                             int batch)
{
    if constexpr (USED_ONCE) {
        asm volatile("cp.async.bulk.tensor.5d.global.shared::cta.bulk_group.L2::cache_hint "
                     "[%0, {%2, %3, %4, %5, %2}], [%1], %6;" ::"l"(map),
                     "r"(from), "r"(0), "r"(row), "r"(head), "r"(batch), "l"(ONCE)
                     : "memory");
    } else {
        asm volatile("cp.async.bulk.tensor.5d.global.shared::cta.bulk_group "
                     "[%0, {%2, %3, %4, %5, %2}], [%1];" ::"l"(map),
                     "r"(from), "r"(0), "r"(row), "r"(head), "r"(batch)
                     : "memory");
    }
}

__device__ __forceinline__ void store_commit()
{
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/** Wait until this thread's copies out of shared memory have read it. */
__device__ __forceinline__ void store_wait_read()
{
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

/** Wait until they are done. */
__device__ __forceinline__ void store_wait()
{
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

/** Bring a line of global memory near. Any address will do. */
__device__ __forceinline__ void prefetch(const void *from)
{
    asm volatile("prefetch.global.L1 [%0];" ::"l"(from));
}

/** Bring global memory into the L2. @param bytes  a multiple of 16, as is the address */
__device__ __forceinline__ void bulk_prefetch(const void *from, uint32_t bytes)
{
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}

/* --------------------------------------------------------------------------------------- registers */

template <int COUNT> __device__ __forceinline__ void registers_grow()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT> __device__ __forceinline__ void registers_shrink()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

/* ------------------------------------------------------------------------------ warpgroup products */

/** Order register accesses before the products that follow. */
__device__ __forceinline__ void product_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void product_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/** Wait until at most PENDING committed groups are under way. */
template <int PENDING> __device__ __forceinline__ void product_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/** Keep the compiler from moving uses of registers across this place. */
template <int COUNT> __device__ __forceinline__ void pin(float (&x)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        asm volatile("" : "+f"(x[i])::"memory");
    }
}

enum : uint64_t { SWIZZLE_128 = (uint64_t)1 << 62 };

/** Describe a matrix in shared memory, 64 elements of 16 bits (128 bytes) wide and swizzled by 128.
 *  @param group_bytes  from 8 rows to the next 8: 1024
 *  @param slab_bytes   from 64 columns to the next 64; only where columns are the outer dimension of
 *                      the product (V) */
__device__ __forceinline__ uint64_t matrix_descriptor(uint32_t address, uint32_t slab_bytes)
{
    return SWIZZLE_128 | ((uint64_t)(1024 >> 4) << 32) | ((uint64_t)(slab_bytes >> 4) << 16) |
           (uint64_t)((address & 0x3FFFF) >> 4);
}

/** C[64][N] = (add ? C : 0) + A[64][16] * B[16][N] by a warpgroup, fp32 sums in registers: element
 *  4j + 2h + e of a thread is row 16 * warp + lane / 4 + 8h, column 8j + 2 * (lane % 4) + e.
 *  ss: A and B^T (N rows of 16) lie in shared memory. rs: A in registers (rows as in C; a[0], a[1]:
 *  columns 0..7 of h = 0, 1; a[2], a[3]: columns 8..15), B lies as it is, 16 rows of N; always adds. */
template <typename T, int N> struct Product;

#define SUMS_8(_c, _i)                                                                             \
    "+f"((_c)[(_i)]), "+f"((_c)[(_i) + 1]), "+f"((_c)[(_i) + 2]), "+f"((_c)[(_i) + 3]),            \
        "+f"((_c)[(_i) + 4]), "+f"((_c)[(_i) + 5]), "+f"((_c)[(_i) + 6]), "+f"((_c)[(_i) + 7])
#define SUMS_32(_c) SUMS_8(_c, 0), SUMS_8(_c, 8), SUMS_8(_c, 16), SUMS_8(_c, 24)
#define SUMS_64(_c) SUMS_32(_c), SUMS_8(_c, 32), SUMS_8(_c, 40), SUMS_8(_c, 48), SUMS_8(_c, 56)

#define OPERANDS_32                                                                                \
    "%0, %1, %2, %3, %4, %5, %6, %7, "                                                             \
    "%8, %9, %10, %11, %12, %13, %14, %15, "                                                       \
    "%16, %17, %18, %19, %20, %21, %22, %23, "                                                     \
    "%24, %25, %26, %27, %28, %29, %30, %31"
#define OPERANDS_64                                                                                \
    OPERANDS_32 ", "                                                                               \
                "%32, %33, %34, %35, %36, %37, %38, %39, "                                         \
                "%40, %41, %42, %43, %44, %45, %46, %47, "                                         \
                "%48, %49, %50, %51, %52, %53, %54, %55, "                                         \
                "%56, %57, %58, %59, %60, %61, %62, %63"

/* The instruction as far as its sums. */
#define PRODUCT(_name, _n, _sums)                                                                  \
    "wgmma.mma_async.sync.aligned.m64n" #_n "k16.f32." _name "." _name " {" OPERANDS_##_sums "}, "

/* Product<_type, _n>: _name is the type's name in the instruction, _sums = _n / 2, and the operands
 * behind the sums are _0 and so on. */
#define DEFINE_PRODUCT(_type, _name, _n, _sums, _0, _1, _2, _3, _4)                                \
    template <> struct Product<_type, _n> {                                                        \
        static __device__ __forceinline__ void ss(float (&c)[_sums], uint64_t a, uint64_t b,       \
                                                  bool add)                                        \
        {                                                                                          \
            asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #_2                                    \
                         ", 0;\n" PRODUCT(_name, _n, _sums) "%" #_0 ", %" #_1 ", p, 1, 1, 0, 0; }" \
                         : SUMS_##_sums(c)                                                         \
                         : "l"(a), "l"(b), "r"((int)add));                                         \
        }                                                                                          \
                                                                                                   \
        static __device__ __forceinline__ void rs(float (&c)[_sums], const uint32_t *a,            \
                                                  uint64_t b)                                      \
        {                                                                                          \
            asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0;\n" PRODUCT(                         \
                             _name, _n, _sums) "{%" #_0 ", %" #_1 ", %" #_2 ", %" #_3 "}, %" #_4   \
                                               ", p, 1, 1, 1; }"                                   \
                         : SUMS_##_sums(c)                                                         \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                    \
        }                                                                                          \
    }

DEFINE_PRODUCT(__nv_bfloat16, "bf16", 64, 32, 32, 33, 34, 35, 36);
DEFINE_PRODUCT(__nv_bfloat16, "bf16", 128, 64, 64, 65, 66, 67, 68);
DEFINE_PRODUCT(__half, "f16", 64, 32, 32, 33, 34, 35, 36);
DEFINE_PRODUCT(__half, "f16", 128, 64, 64, 65, 66, 67, 68);

#undef DEFINE_PRODUCT
#undef PRODUCT
#undef OPERANDS_64
#undef OPERANDS_32
#undef SUMS_64
#undef SUMS_32
#undef SUMS_8

} // namespace bsattn

#endif
