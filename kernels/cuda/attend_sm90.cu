/* SPDX-License-Identifier: Apache-2.0 */
/* Attention for Hopper: warpgroup products (wgmma) out of shared memory that the tensor copy engine
 * (TMA) fills.
 *
 * A CTA holds teams of one or two warpgroups that compute, 64 query rows each, and for every team a
 * thread that loads. Units come from a counter; a thread of its own fetches them where there is a warp
 * to spare. The CTA stays on its multiprocessor. Keys and values stream through two rings of stages,
 * across units without a break. The exponentials of one warpgroup run under the products of another:
 * where there are only two they take turns at the tensor cores. Each issues the scores of a tile
 * before the products of the tile before with V. */
#include "kernels/attend_cuda.h"
#include "kernels/cuda/compute_sm90.cuh"
#include "kernels/cuda/load_sm90.cuh"

#include <atomic>
#include <cuda_runtime.h>
#include <string.h>

using namespace bsattn;

namespace {

/* ------------------------------------------------------------------------------------------ kernel */

template <class C> __device__ __forceinline__ void init_barriers(Shared<C> &shared)
{
    const int warps = C::GROUPS * 4;

    for (int i = 0; i < 2; ++i) {
        barrier_init(shared_address(&shared.slot_full[i]), 1);
        barrier_init(shared_address(&shared.slot_empty[i]), 32 * warps + (C::FETCHER ? 1 : 0));
    }
    for (int i = 0; i < C::Q_BUFFERS; ++i) {
        barrier_init(shared_address(&shared.q_full[i]), 1);
        barrier_init(shared_address(&shared.q_empty[i]), warps);
    }
    for (int i = 0; i < C::K_STAGES; ++i) {
        barrier_init(shared_address(&shared.k_full[i]), 1);
        barrier_init(shared_address(&shared.k_empty[i]), warps);
    }
    for (int i = 0; i < C::V_STAGES; ++i) {
        barrier_init(shared_address(&shared.v_full[i]), 1);
        barrier_init(shared_address(&shared.v_empty[i]), warps);
    }
}

/* Those that are parameters: a copy's first use of one waits for it. */
__device__ __forceinline__ void prefetch_maps(const Arguments &arguments)
{
    tensor_map_prefetch(&arguments.q);
    tensor_map_prefetch(&arguments.o);
    if (arguments.head_maps == nullptr) {
        tensor_map_prefetch(&arguments.keys[MAP_K_RUN]);
        tensor_map_prefetch(&arguments.keys[MAP_V_RUN]);
    }
}

template <class C>
__global__ void __launch_bounds__(C::THREADS, 1)
    attend_kernel(const __grid_constant__ Arguments arguments)
{
    extern __shared__ __align__(1024) uint8_t shared_memory[];
    Memory<C> &memory = *reinterpret_cast<Memory<C> *>(shared_memory);

    if (threadIdx.x == 0) {
        for (int team = 0; team < C::TEAMS; ++team) {
            init_barriers(memory.shared[team]);
        }
        barrier_init_fence();
    } else if (threadIdx.x == 32) {
        prefetch_maps(arguments);
    }
    __syncthreads();
    if (threadIdx.x >= C::CONSUMERS) {
        registers_shrink<C::LOADER_REGISTERS>();
        int role = __shfl_sync(~0u, (threadIdx.x - C::CONSUMERS) / 32, 0);
        int team = role % C::TEAMS;
        if (elect_one()) {
            if (role < C::TEAMS) {
                load_units(arguments, memory, team);
            } else if (C::FETCHER && (role < 2 * C::TEAMS)) {
                fetch_units(arguments, memory.shared[team], team);
            }
        }
    } else {
        registers_grow<C::CONSUMER_REGISTERS>();
        int team = __shfl_sync(~0u, threadIdx.x / (C::GROUPS * 128), 0);
        compute_units(arguments, memory, team);
    }
}

/* --------------------------------------------------------------------------------------------- host */

using EncodeTiled = CUresult (*)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                 const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                 const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                 CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* The driver's library is not linked, so that a machine without one can start the program. */
EncodeTiled encode_tiled()
{
    static std::atomic<EncodeTiled> known; /* whoever comes first asks, several at a time the same */
    EncodeTiled function = known.load(std::memory_order_acquire);

    if (function == nullptr) {
        void *found = nullptr;
        cudaDriverEntryPointQueryResult result;
        cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                             cudaEnableDefault, &result);
        if ((error == cudaSuccess) && (result == cudaDriverEntryPointSuccess)) {
            function = reinterpret_cast<EncodeTiled>(found);
            known.store(function, std::memory_order_release);
        }
    }
    return function;
}

/* A tensor as the copy engine sees it, in elements. */
struct Rows {
    const void *base;
    int64_t rows, row_stride;
    int64_t heads, head_stride;
    int64_t batch, batch_stride;
};

/* A map of {64 columns, rows, heads, batch, D / 64}, with boxes of box_rows rows of one head and
 * box_slabs slabs of 64 columns. */
int make_map(const bsattn_attend_cuda_params_t *params, const Rows &tensor, int box_rows,
             int box_slabs, CUtensorMap *map)
{
    int slabs = params->head_dim / 64;
    cuuint64_t sizes[5] = {64, (cuuint64_t)tensor.rows, (cuuint64_t)tensor.heads,
                           (cuuint64_t)tensor.batch, (cuuint64_t)slabs};
    cuuint64_t strides[4] = {2 * (cuuint64_t)tensor.row_stride, 2 * (cuuint64_t)tensor.head_stride,
                             2 * (cuuint64_t)tensor.batch_stride, 128};
    cuuint32_t box[5] = {64, (cuuint32_t)box_rows, 1, 1, (cuuint32_t)box_slabs};
    cuuint32_t steps[5] = {1, 1, 1, 1, 1};
    CUtensorMapDataType type = (params->dtype == BSATTN_BF16) ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                              : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    EncodeTiled encode = encode_tiled();

    if (encode == nullptr) {
        return cudaErrorNotSupported;
    }
    return (encode(map, type, 5, const_cast<void *>(tensor.base), sizes, strides, box, steps,
                   CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                   CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS)
               ? cudaSuccess
               : cudaErrorInvalidValue;
}

int make_key_maps(const bsattn_attend_cuda_params_t *params, Rows tensor, CUtensorMap *maps)
{
    const int slabs = params->head_dim / 64;
    const void *bases[2] = {tensor.base, static_cast<const char *>(tensor.base) +
                                             (static_cast<const char *>(params->v) -
                                              static_cast<const char *>(params->k))};

    for (int i = 0; i < 2; ++i) {
        tensor.base = bases[i];
        int error = make_map(params, tensor, params->shape.key_tile, slabs, &maps[MAP_K_RUN + i]);
        if ((error == cudaSuccess) && (params->granule < params->shape.key_tile)) {
            error = make_map(params, tensor, params->granule, 1, &maps[MAP_K_TILE + i]);
        }
        if (error != cudaSuccess) {
            return error;
        }
    }
    return cudaSuccess;
}

int make_arguments(const bsattn_attend_cuda_params_t *params, Arguments *arguments)
{
    Rows queries = {params->q,
                    params->tokens,
                    (int64_t)params->heads_q * params->head_dim,
                    params->heads_q,
                    params->head_dim,
                    params->batch,
                    params->tokens * params->heads_q * params->head_dim};
    int error;

    arguments->params = *params;
    arguments->head_maps = nullptr;
    error = make_map(params, queries, BSATTN_TILE_HALF, params->head_dim / 64, &arguments->q);
    if (error == cudaSuccess) {
        queries.base = params->o;
        error = make_map(params, queries, BSATTN_TILE_GROUP, params->head_dim / 64, &arguments->o);
    }
    if (error != cudaSuccess) {
        return error;
    }
    if (!params->key_heads_alike) {
        arguments->head_maps = static_cast<const CUtensorMap *>(params->key_maps);
        return cudaSuccess;
    }
    Rows keys = {params->k,        params->key_rows,        params->key_row_stride,
                 params->heads_kv, params->key_head_stride, params->batch,
                 params->key_batch_stride};
    return make_key_maps(params, keys, arguments->keys);
}

template <class C>
int prepare(const bsattn_attend_cuda_params_t *params, int spare, bsattn_cuda_launch_t *launch)
{
    static thread_local int ready_device = -1; /* that was asked and told last */
    static thread_local int multiprocessors;
    int device;
    static_assert(sizeof(Arguments) <= sizeof(launch->argument), "room for it");
    Arguments *arguments = reinterpret_cast<Arguments *>(launch->argument);
    int error = ((params->shape.key_tile == C::KEYS) && (params->shape.halves == C::GROUPS))
                    ? make_arguments(params, arguments)
                    : (int)cudaErrorInvalidValue;

    if (error == cudaSuccess) {
        error = cudaGetDevice(&device);
    }
    if (error != cudaSuccess) {
        return error;
    }
    if (device != ready_device) {
        cudaError_t status = cudaDeviceGetAttribute(&multiprocessors,
                                                    cudaDevAttrMultiProcessorCount, device);
        if (status == cudaSuccess) {
            status = cudaFuncSetAttribute(attend_kernel<C>,
                                          cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          (int)Memory<C>::BYTES);
        }
        if (status != cudaSuccess) {
            return status;
        }
        ready_device = device;
    }
    arguments->dealing =
        bsattn_deal(params->unit_count, multiprocessors, spare, C::TEAMS, launch);
    launch->function = reinterpret_cast<const void *>(attend_kernel<C>);
    launch->threads = C::THREADS;
    launch->shared_bytes = Memory<C>::BYTES;
    return cudaSuccess;
}

template <typename T>
int prepare_type(const bsattn_attend_cuda_params_t *params, int spare, bsattn_cuda_launch_t *launch)
{
    using Wide128 = Config<T, 128, 1, 2, 128, 3, 2, 2>;
    using Narrow128 = Config<T, 128, 2, 1, 64, 3, 2, 2>;
    using Wide64 = Config<T, 64, 2, 2, 64, 4, 4, 2>;
    using Passing64 = Config<T, 64, 2, 2, 64, 4, 4, 2, true>;
    using Narrow64 = Config<T, 64, 4, 1, 64, 3, 2, 2>;
    bool wide = params->shape.halves == 2;

    if (params->head_dim == 64) {
        return (params->shape.passes != 0) ? prepare<Passing64>(params, spare, launch)
               : wide                      ? prepare<Wide64>(params, spare, launch)
                                           : prepare<Narrow64>(params, spare, launch);
    }
    return wide ? prepare<Wide128>(params, spare, launch) : prepare<Narrow128>(params, spare, launch);
}

int attend_sm90_prepare(const bsattn_attend_cuda_params_t *params, int spare,
                        bsattn_cuda_launch_t *launch)
{
    if ((params->head_dim != 64) && (params->head_dim != 128)) {
        return cudaErrorInvalidValue;
    }
    return (params->dtype == BSATTN_BF16)  ? prepare_type<__nv_bfloat16>(params, spare, launch)
           : (params->dtype == BSATTN_F16) ? prepare_type<__half>(params, spare, launch)
                                           : (int)cudaErrorInvalidValue;
}

/* Blocks of 64 and less fill two warpgroups with two heads of a key head, or with neighbouring rows
 * where these see mostly the same keys: the same but for a few tiles, which both work on, or for
 * some, which one passes over. Else each warpgroup goes its own way. */
bsattn_tile_shape_t attend_sm90_shape(const bsattn_problem_t *problem, bool pairs, double spread)
{
    int keys = (problem->head_dim == 64) ? 64 : 128;
    bsattn_tile_shape_t wide = {2, keys, 0, 0};
    bsattn_tile_shape_t passing = {2, keys, 0, 1};
    bsattn_tile_shape_t paired = {2, keys, 1, 0};
    bsattn_tile_shape_t narrow = {1, 64, 0, 0};

    if (problem->block >= 128) {
        return wide;
    }
    if (pairs) {
        return paired;
    }
    if ((spread < 1.1) || ((spread < 1.3) && (problem->head_dim == 128))) {
        return wide;
    }
    return (spread < 1.3) ? passing : narrow;
}

} // namespace

extern "C" {

const bsattn_cuda_kernel_t bsattn_attend_sm90 = {"sm90", attend_sm90_shape, attend_sm90_prepare};

size_t bsattn_attend_cuda_maps_bytes(const bsattn_cuda_kernel_t *kernel, int heads_kv)
{
    return (kernel == &bsattn_attend_sm90)
               ? (size_t)heads_kv * MAPS_PER_HEAD * sizeof(CUtensorMap)
               : 0;
}

int bsattn_attend_cuda_maps(const bsattn_attend_cuda_params_t *params,
                            const bsattn_key_head_t *heads, void *maps)
{
    for (int head = 0; head < params->heads_kv; ++head) {
        CUtensorMap made[MAPS_PER_HEAD];
        int64_t rows = (heads[head].rows > 0) ? heads[head].rows : 1; /* maps have no size 0 */
        Rows keys = {static_cast<const char *>(params->k) + 2 * heads[head].offset,
                     rows,
                     params->key_row_stride,
                     1,
                     params->key_row_stride,
                     params->batch,
                     params->key_batch_stride};
        int error = make_key_maps(params, keys, made);
        if (error != cudaSuccess) {
            return error;
        }
        memcpy(static_cast<char *>(maps) + head * sizeof(made), made, sizeof(made));
    }
    return cudaSuccess;
}
}
