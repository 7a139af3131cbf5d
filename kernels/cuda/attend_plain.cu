/* SPDX-License-Identifier: Apache-2.0 */
/* Attention without tensor cores: any type, any head dimension, fp32 arithmetic throughout. What
 * the fast kernels are compared with on a GPU, and the only one for f32.
 *
 * A CTA of eight warps has one unit at a time: 64 query rows, 8 to a warp. Keys come 16 at a time
 * (a square of the masks is 16 wide, so that a warp sees all of them, none, or a diagonal), first K
 * and then V, into one buffer in shared memory. */
#include "kernels/attend_cuda.h"
#include "kernels/cuda/unit.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <limits.h>
#include <math.h>
#include <string.h>

namespace {

enum {
    WARPS = 8,
    THREADS = 32 * WARPS,
    ROWS = BSATTN_TILE_HALF, /* query rows of a unit */
    WARP_ROWS = ROWS / WARPS,
    KEYS = BSATTN_TILE_GROUP,  /* at a time */
    LANE_ROWS = WARP_ROWS / 2, /* a lane has one key, and every row of its half of the warp's */
    KEY_TILE = 64,
    VECTOR = 8, /* elements that are loaded together */
    PAD = 4,    /* floats between rows in shared memory, against bank conflicts */
};

constexpr float LOG2_E = 1.44269504088896341f;
constexpr float LN_2 = 0.69314718055994531f;

template <int WIDTH> struct Shared {
    float q[ROWS][WIDTH + PAD];
    float keys[KEYS][WIDTH + PAD]; /* K, then V */
    float weights[WARPS][WARP_ROWS][KEYS];
};

/* Keys key_row .. key_row + 15, of which `count` exist. */
struct KeyGroup {
    int64_t key_row;
    int count;
};

/* -------------------------------------------------------------------------------------- vectors */

__device__ void load_vector(const float *from, float (&to)[VECTOR])
{
#pragma unroll
    for (int i = 0; i < VECTOR; i += 4) {
        float4 four = *reinterpret_cast<const float4 *>(from + i);
        to[i] = four.x;
        to[i + 1] = four.y;
        to[i + 2] = four.z;
        to[i + 3] = four.w;
    }
}

__device__ float2 widen(__half2 pair)
{
    return __half22float2(pair);
}

__device__ float2 widen(__nv_bfloat162 pair)
{
    return __bfloat1622float2(pair);
}

template <typename Pair, typename T> __device__ void load_pairs(const T *from, float (&to)[VECTOR])
{
    union {
        uint4 bits;
        Pair pairs[VECTOR / 2];
    } loaded;

    loaded.bits = *reinterpret_cast<const uint4 *>(from);
#pragma unroll
    for (int i = 0; i < VECTOR / 2; ++i) {
        float2 two = widen(loaded.pairs[i]);
        to[2 * i] = two.x;
        to[2 * i + 1] = two.y;
    }
}

__device__ void load_vector(const __half *from, float (&to)[VECTOR])
{
    load_pairs<__half2>(from, to);
}

__device__ void load_vector(const __nv_bfloat16 *from, float (&to)[VECTOR])
{
    load_pairs<__nv_bfloat162>(from, to);
}

__device__ void store_pair(float *to, float2 pair)
{
    *reinterpret_cast<float2 *>(to) = pair;
}

__device__ void store_pair(__half *to, float2 pair)
{
    *reinterpret_cast<__half2 *>(to) = __float22half2_rn(pair);
}

__device__ void store_pair(__nv_bfloat16 *to, float2 pair)
{
    *reinterpret_cast<__nv_bfloat162 *>(to) = __float22bfloat162_rn(pair);
}

/* Rows of global memory, row_stride elements apart; zeros from row count and place head_dim on. */
template <typename T, int COUNT, int WIDTH>
__device__ void load_rows(float (&to)[COUNT][WIDTH + PAD], const T *from, int64_t row_stride,
                          int64_t count, int head_dim)
{
#pragma unroll 2
    for (int i = (int)threadIdx.x; i < COUNT * (WIDTH / VECTOR); i += THREADS) {
        int row = i / (WIDTH / VECTOR);
        int place = i % (WIDTH / VECTOR) * VECTOR;
        float values[VECTOR] = {};
        if ((row < count) && (place < head_dim)) {
            load_vector(from + row * row_stride + place, values);
        }
        float4 *out = reinterpret_cast<float4 *>(&to[row][place]);
        out[0] = make_float4(values[0], values[1], values[2], values[3]);
        out[1] = make_float4(values[4], values[5], values[6], values[7]);
    }
}

/* ----------------------------------------------------------------------------- a warp's results */

/* The 8 rows of a warp. Scores are in units of scale * log2(e). */
template <int WIDTH> struct WarpRows {
    float2 sums[WARP_ROWS][WIDTH / 64]; /* columns 64 c + 2 lane, + 1 */
    float most[LANE_ROWS];              /* of the rows of the lane's half */
    float total[LANE_ROWS];             /* of the lane's keys; the row's is the sum over 16 lanes */

    __device__ void clear();
    __device__ void read_state(const bsattn_attend_cuda_params_t &params, int64_t state_row,
                               int rows);
    __device__ void write_state(const bsattn_attend_cuda_params_t &params, int64_t state_row,
                                int rows) const;
    __device__ void add_weights(const float (&scores)[LANE_ROWS],
                                float (&weights)[WARP_ROWS][KEYS]);
    template <bool DIAGONAL>
    __device__ void add_values(const float (&weights)[WARP_ROWS][KEYS],
                               const float (&values)[KEYS][WIDTH + PAD], int row_in_group);
    __device__ void reduce_totals();

    /* What the lanes of row r's half know of it. */
    __device__ float of_row(const float (&known)[LANE_ROWS], int r) const
    {
        return __shfl_sync(0xffffffffu, known[r % LANE_ROWS], r / LANE_ROWS * 16);
    }
};

__device__ int lane_id()
{
    return (int)threadIdx.x % 32;
}

template <int WIDTH> __device__ void WarpRows<WIDTH>::clear()
{
#pragma unroll
    for (int r = 0; r < WARP_ROWS; ++r) {
#pragma unroll
        for (int c = 0; c < WIDTH / 64; ++c) {
            sums[r][c] = make_float2(0.0f, 0.0f);
        }
    }
#pragma unroll
    for (int i = 0; i < LANE_ROWS; ++i) {
        most[i] = -INFINITY;
        total[i] = 0.0f;
    }
}

template <int WIDTH>
__device__ void WarpRows<WIDTH>::read_state(const bsattn_attend_cuda_params_t &params,
                                            int64_t state_row, int rows)
{
    int lane = lane_id();

#pragma unroll
    for (int i = 0; i < LANE_ROWS; ++i) {
        int r = lane / 16 * LANE_ROWS + i;
        if (r < rows) {
            const float *ml = params.state_ml + 2 * (state_row + r);
            most[i] = ml[0];
            total[i] = (lane % 16 == 0) ? ml[1] : 0.0f;
        }
    }
#pragma unroll
    for (int r = 0; r < WARP_ROWS; ++r) {
#pragma unroll
        for (int c = 0; c < WIDTH / 64; ++c) {
            int column = 64 * c + 2 * lane;
            if ((r < rows) && (column < params.head_dim)) {
                const float *from = params.state_o + (state_row + r) * params.head_dim + column;
                sums[r][c] = *reinterpret_cast<const float2 *>(from);
            }
        }
    }
}

template <int WIDTH> __device__ void WarpRows<WIDTH>::reduce_totals()
{
#pragma unroll
    for (int i = 0; i < LANE_ROWS; ++i) {
#pragma unroll
        for (int step = 8; step > 0; step /= 2) {
            total[i] += __shfl_xor_sync(0xffffffffu, total[i], step);
        }
    }
}

template <int WIDTH>
__device__ void WarpRows<WIDTH>::write_state(const bsattn_attend_cuda_params_t &params,
                                             int64_t state_row, int rows) const
{
    int lane = lane_id();

#pragma unroll
    for (int i = 0; i < LANE_ROWS; ++i) {
        int r = lane / 16 * LANE_ROWS + i;
        if ((r < rows) && (lane % 16 == 0)) {
            float *ml = params.state_ml + 2 * (state_row + r);
            ml[0] = most[i];
            ml[1] = total[i];
        }
    }
#pragma unroll
    for (int r = 0; r < WARP_ROWS; ++r) {
#pragma unroll
        for (int c = 0; c < WIDTH / 64; ++c) {
            int column = 64 * c + 2 * lane;
            if ((r < rows) && (column < params.head_dim)) {
                store_pair(params.state_o + (state_row + r) * params.head_dim + column, sums[r][c]);
            }
        }
    }
}

/* Scores to weights; what was summed so far is scaled to the new maximum. A hidden key's score is
 * -infinity, and so is the maximum of a row that has seen no key: its weights are 0. */
template <int WIDTH>
__device__ void WarpRows<WIDTH>::add_weights(const float (&scores)[LANE_ROWS],
                                             float (&weights)[WARP_ROWS][KEYS])
{
    int lane = lane_id();
    float shrink[LANE_ROWS];

#pragma unroll
    for (int i = 0; i < LANE_ROWS; ++i) {
        float top = scores[i];
#pragma unroll
        for (int step = 8; step > 0; step /= 2) {
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, step));
        }
        top = fmaxf(top, most[i]);
        float base = (top == -INFINITY) ? 0.0f : top;
        float weight = exp2f(scores[i] - base);
        shrink[i] = exp2f(most[i] - base);
        most[i] = top;
        total[i] = total[i] * shrink[i] + weight;
        weights[lane / 16 * LANE_ROWS + i][lane % 16] = weight;
    }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < WARP_ROWS; ++r) {
        float factor = of_row(shrink, r);
#pragma unroll
        for (int c = 0; c < WIDTH / 64; ++c) {
            sums[r][c].x *= factor;
            sums[r][c].y *= factor;
        }
    }
}

/* A weight of 0 does not hide a value that is no number: on the diagonal, hidden values are left
 * out. */
template <int WIDTH>
template <bool DIAGONAL>
__device__ void WarpRows<WIDTH>::add_values(const float (&weights)[WARP_ROWS][KEYS],
                                            const float (&values)[KEYS][WIDTH + PAD],
                                            int row_in_group)
{
    int lane = lane_id();

#pragma unroll 1
    for (int key = 0; key < KEYS; key += 4) {
        float2 value[4][WIDTH / 64];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
#pragma unroll
            for (int c = 0; c < WIDTH / 64; ++c) {
                value[k][c] =
                    *reinterpret_cast<const float2 *>(&values[key + k][64 * c + 2 * lane]);
            }
        }
#pragma unroll
        for (int r = 0; r < WARP_ROWS; ++r) {
            float4 four = *reinterpret_cast<const float4 *>(&weights[r][key]);
            float weight[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                if (DIAGONAL && (key + k > row_in_group + r)) {
                    continue;
                }
#pragma unroll
                for (int c = 0; c < WIDTH / 64; ++c) {
                    sums[r][c].x = fmaf(weight[k], value[k][c].x, sums[r][c].x);
                    sums[r][c].y = fmaf(weight[k], value[k][c].y, sums[r][c].y);
                }
            }
        }
    }
    __syncwarp(); /* weights may be overwritten */
}

/* --------------------------------------------------------------------------------------- a unit */

/* Where a warp's rows are, and the keys of their head. */
template <typename T> struct WarpUnit {
    const bsattn_attend_cuda_params_t &params;
    const T *k;
    const T *v;
    int64_t key_rows;
    int warp;
    int head_dim;
    float score_scale;
    bool active;
};

template <int WIDTH>
__device__ void score_keys(const Shared<WIDTH> &shared, int warp, int head_dim,
                           float (&dots)[LANE_ROWS])
{
    int lane = lane_id();
    const float *key = shared.keys[lane % 16];
    int row_first = warp * WARP_ROWS + lane / 16 * LANE_ROWS;

#pragma unroll
    for (int i = 0; i < LANE_ROWS; ++i) {
        dots[i] = 0.0f;
    }
#pragma unroll 2
    for (int place = 0; place < head_dim; place += 4) {
        float4 k = *reinterpret_cast<const float4 *>(key + place);
#pragma unroll
        for (int i = 0; i < LANE_ROWS; ++i) {
            float4 q = *reinterpret_cast<const float4 *>(&shared.q[row_first + i][place]);
            dots[i] = fmaf(q.x, k.x, dots[i]);
            dots[i] = fmaf(q.y, k.y, dots[i]);
            dots[i] = fmaf(q.z, k.z, dots[i]);
            dots[i] = fmaf(q.w, k.w, dots[i]);
        }
    }
}

/* The whole CTA: 16 keys, against the rows of those warps that see them. */
template <typename T, int WIDTH>
__device__ void attend_group(const WarpUnit<T> &unit, Shared<WIDTH> &shared, WarpRows<WIDTH> &rows,
                             KeyGroup group, bool visible, bool diagonal)
{
    int64_t stride = unit.params.key_row_stride;
    int row_in_group = unit.warp * WARP_ROWS % BSATTN_TILE_GROUP;
    float(&weights)[WARP_ROWS][KEYS] = shared.weights[unit.warp];
    int64_t left = unit.key_rows - group.key_row;
    int64_t count = (left < group.count) ? left : group.count;

    __syncthreads();
    load_rows<T, KEYS, WIDTH>(shared.keys, unit.k + group.key_row * stride, stride, count,
                              unit.head_dim);
    __syncthreads();
    if (visible) {
        int key = lane_id() % 16;
        float scores[LANE_ROWS];
        score_keys(shared, unit.warp, unit.head_dim, scores);
#pragma unroll
        for (int i = 0; i < LANE_ROWS; ++i) {
            int row = row_in_group + lane_id() / 16 * LANE_ROWS + i;
            bool seen = (key < group.count) && (!diagonal || (key <= row));
            scores[i] = seen ? scores[i] * unit.score_scale : -INFINITY;
        }
        rows.add_weights(scores, weights);
    }
    __syncthreads();
    load_rows<T, KEYS, WIDTH>(shared.keys, unit.v + group.key_row * stride, stride, count,
                              unit.head_dim);
    __syncthreads();
    if (visible && diagonal) {
        rows.template add_values<true>(weights, shared.keys, row_in_group);
    } else if (visible) {
        rows.template add_values<false>(weights, shared.keys, row_in_group);
    }
}

template <typename T, int WIDTH>
__device__ void attend_masked_tile(const WarpUnit<T> &unit, Shared<WIDTH> &shared,
                                   WarpRows<WIDTH> &rows, const bsattn_key_tile_t &tile)
{
    int w = unit.warp * WARP_ROWS / BSATTN_TILE_GROUP;

#pragma unroll 1
    for (int g = 0; g < KEY_TILE / KEYS; ++g) {
        uint64_t by_any = (uint64_t)0x0101010101010101u << g;
        uint64_t bit = (uint64_t)1 << (8 * w + g);
        if ((tile.visible & by_any) != 0) {
            int left = tile.key_limit - g * KEYS;
            KeyGroup group = {tile.key_row[g], (left < KEYS) ? left : KEYS};
            attend_group(unit, shared, rows, group, unit.active && ((tile.visible & bit) != 0),
                         (tile.diagonal & bit) != 0);
        }
    }
}

template <typename T, int WIDTH>
__device__ void write_result(const WarpUnit<T> &unit, const WarpRows<WIDTH> &rows, T *o, float *lse,
                             int count)
{
    int lane = lane_id();
    int64_t row_stride = (int64_t)unit.params.heads_q * unit.head_dim;

#pragma unroll
    for (int r = 0; r < WARP_ROWS; ++r) {
        float most = rows.of_row(rows.most, r);
        float total = rows.of_row(rows.total, r);
        float factor = (total == 0.0f) ? 0.0f : 1.0f / total;
        if (r >= count) {
            continue;
        }
#pragma unroll
        for (int c = 0; c < WIDTH / 64; ++c) {
            int column = 64 * c + 2 * lane;
            float2 sum = rows.sums[r][c];
            if (column < unit.head_dim) {
                store_pair(o + r * row_stride + column,
                           make_float2(sum.x * factor, sum.y * factor));
            }
        }
        if ((lse != NULL) && (lane == 0)) {
            lse[r] = (total == 0.0f) ? -INFINITY : most * LN_2 + logf(total);
        }
    }
}

template <typename T, int WIDTH>
__device__ void attend_unit(const bsattn_attend_cuda_params_t &params, Shared<WIDTH> &shared,
                            const bsattn_unit_t &found)
{
    const bsattn_tile_item_t item = found.list->items[found.item];
    const bsattn_key_head_t key_head =
        params.key_heads[found.head[0] / (params.heads_q / params.heads_kv)];
    int64_t keys_at = found.batch * params.key_batch_stride + key_head.offset;
    int warp = (int)threadIdx.x / 32;
    unsigned bit = 1u << (warp * WARP_ROWS / BSATTN_TILE_GROUP);
    int64_t row = item.row[0] + warp * WARP_ROWS; /* the warp's first */
    int64_t left = params.tokens - row;
    int count = (int)((left < 0) ? 0 : (left < WARP_ROWS) ? left : WARP_ROWS);
    int64_t q_stride = (int64_t)params.heads_q * params.head_dim;
    int64_t q_at = (found.batch * params.tokens * params.heads_q + found.head[0]) * params.head_dim;
    int64_t stream = (int64_t)found.batch * params.heads_q + found.head[0];
    int64_t state_row = stream * params.state_rows + item.state_row[0] + warp * WARP_ROWS;
    WarpUnit<T> unit = {params,
                        (const T *)params.k + keys_at,
                        (const T *)params.v + keys_at,
                        key_head.rows,
                        warp,
                        params.head_dim,
                        params.scale * LOG2_E,
                        ((item.active & bit) != 0) && (count > 0)};
    WarpRows<WIDTH> rows;

    load_rows<T, ROWS, WIDTH>(shared.q, (const T *)params.q + q_at + item.row[0] * q_stride,
                              q_stride, params.tokens - item.row[0], params.head_dim);
    rows.clear();
    if (unit.active && ((item.first & bit) == 0)) {
        rows.read_state(params, state_row, count);
    }
    for (int t = 0; t < item.tile_count; ++t) {
        attend_masked_tile(unit, shared, rows, found.list->tiles[item.tile_first + t]);
    }
    for (int r = 0; r < item.run_count; ++r) {
        bsattn_tile_run_t run = found.list->runs[item.run_first + r];
        int64_t end = run.key_row + (int64_t)run.tile_count * KEY_TILE;
#pragma unroll 1
        for (int64_t key_row = run.key_row; key_row < end; key_row += KEYS) {
            attend_group(unit, shared, rows, {key_row, KEYS}, unit.active, false);
        }
    }
    if (unit.active) {
        rows.reduce_totals();
        if ((item.last & bit) == 0) {
            rows.write_state(params, state_row, count);
        } else {
            write_result(unit, rows, (T *)params.o + q_at + row * q_stride,
                         (params.lse == NULL) ? NULL : params.lse + stream * params.tokens + row,
                         count);
        }
    }
    __syncthreads(); /* Q may be overwritten */
}

template <typename T, int WIDTH>
__global__ void __launch_bounds__(THREADS)
    attend_plain(const __grid_constant__ bsattn_attend_cuda_params_t params)
{
    extern __shared__ __align__(16) unsigned char memory[];
    Shared<WIDTH> &shared = *reinterpret_cast<Shared<WIDTH> *>(memory);

    for (uint32_t unit = blockIdx.x; unit < params.unit_count; unit += gridDim.x) {
        attend_unit<T, WIDTH>(params, shared, bsattn_unit_at(params, unit));
    }
}

/* ----------------------------------------------------------------------------------------- host */

template <typename T, int WIDTH>
int prepare_width(const bsattn_attend_cuda_params_t *params, bsattn_cuda_launch_t *launch)
{
    int shared_bytes = (int)sizeof(Shared<WIDTH>);
    int64_t units = params->unit_count;
    cudaError_t error = cudaFuncSetAttribute(
        attend_plain<T, WIDTH>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);

    if (error != cudaSuccess) {
        return (int)error;
    }
    static_assert(sizeof(*params) <= sizeof(launch->argument), "room for them");
    memcpy(launch->argument, params, sizeof(*params));
    launch->function = reinterpret_cast<const void *>(attend_plain<T, WIDTH>);
    /* A CTA for each unit where the grid may be that large: the GPU hands them out in order. */
    launch->ctas = (unsigned)((units < INT_MAX) ? units : INT_MAX);
    launch->late_ctas = 0;
    launch->threads = THREADS;
    launch->shared_bytes = (size_t)shared_bytes;
    return (int)cudaSuccess;
}

template <typename T>
int prepare_type(const bsattn_attend_cuda_params_t *params, bsattn_cuda_launch_t *launch)
{
    return (params->head_dim <= 64)    ? prepare_width<T, 64>(params, launch)
           : (params->head_dim <= 128) ? prepare_width<T, 128>(params, launch)
                                       : prepare_width<T, 256>(params, launch);
}

int prepare(const bsattn_attend_cuda_params_t *params, int, bsattn_cuda_launch_t *launch)
{
    if ((params->head_dim % VECTOR != 0) || (params->head_dim > 256) ||
        (params->shape.halves != 1) || (params->shape.key_tile != KEY_TILE)) {
        return (int)cudaErrorInvalidValue;
    }
    switch (params->dtype) {
    case BSATTN_F32:
        return prepare_type<float>(params, launch);
    case BSATTN_F16:
        return prepare_type<__half>(params, launch);
    case BSATTN_BF16:
        return prepare_type<__nv_bfloat16>(params, launch);
    default:
        return (int)cudaErrorInvalidValue;
    }
}

bsattn_tile_shape_t shape(const bsattn_problem_t *problem, bool pairs, double spread)
{
    bsattn_tile_shape_t result = {1, KEY_TILE, 0, 0};

    (void)problem;
    (void)pairs;
    (void)spread;
    return result;
}

} /* namespace */

extern "C" const bsattn_cuda_kernel_t bsattn_attend_plain = {"plain", shape, prepare};
