/* SPDX-License-Identifier: Apache-2.0 */
/* Attention for Hopper: warpgroup products (wgmma) out of shared memory that the tensor copy engine
 * (TMA) fills.
 *
 * A CTA has one or two warpgroups that compute, 64 query rows each, a warp that loads and a warp that
 * fetches work. It stays on its multiprocessor and takes unit after unit from a counter. Keys and
 * values stream through two rings of stages, across units without a break; two warpgroups take turns
 * at the tensor cores, so that the exponentials of one run under the products of the other, and each
 * issues the scores of tile n before the products of tile n - 1 with V. */
#include "kernels/attend_cuda.h"
#include "kernels/cuda/ptx_sm90.cuh"
#include "kernels/cuda/unit.cuh"

#include <cuda_runtime.h>
#include <math.h>
#include <string.h>

using namespace bsattn;

namespace {

enum { MAP_K_RUN, MAP_V_RUN, MAP_K_TILE, MAP_V_TILE, MAPS_PER_HEAD };

/* The maximum of a row may lag this much (in log2) behind its scores before results are rescaled. */
constexpr float MAX_LAG = 8.0f;
constexpr float LOG2_E = 1.44269504088896341f;
constexpr float LN_2 = 0.69314718055994531f;

struct Arguments {
    CUtensorMap q;
    CUtensorMap keys[MAPS_PER_HEAD];
    const CUtensorMap *head_maps; /* [Hk, MAPS_PER_HEAD], or NULL: keys, with the head a coordinate */
    bsattn_attend_cuda_params_t params;
};

/* What a warpgroup must know of a unit. */
struct Slot {
    const bsattn_key_tile_t *tiles;
    const bsattn_tile_run_t *runs;
    int32_t row[2];
    int32_t head[2];
    int32_t batch;
    int32_t tile_count;
    int32_t key_tiles; /* 0: no more units */
    uint8_t active;
    uint8_t first;
    uint8_t last;
};

/* HEAD_DIM, warpgroups, keys of a tile, stages of K and of V, buffers of Q, CTAs on a
 * multiprocessor. */
template <typename T, int D_, int GROUPS_, int KEYS_, int STAGES_, int Q_BUFFERS_, int CTAS_>
struct Config {
    using Element = T;
    static constexpr int D = D_, GROUPS = GROUPS_, KEYS = KEYS_, STAGES = STAGES_;
    static constexpr int Q_BUFFERS = Q_BUFFERS_, CTAS = CTAS_;
    static constexpr int SLABS = D / 64;
    static constexpr int Q_BYTES = 64 * D * 2; /* of one warpgroup */
    static constexpr int TILE_BYTES = KEYS * D * 2;
    static constexpr int SLAB_BYTES = KEYS * 128;
    static constexpr int CONSUMERS = GROUPS * 128;
    /* Registers move between whole warpgroups only; a lone one keeps what it has. */
    static constexpr int THREADS = CONSUMERS + ((GROUPS > 1) ? 128 : 32);
};

template <class C> struct Shared {
    alignas(1024) uint8_t q[C::Q_BUFFERS][C::GROUPS][C::Q_BYTES];
    alignas(1024) uint8_t k[C::STAGES][C::TILE_BYTES];
    alignas(1024) uint8_t v[C::STAGES][C::TILE_BYTES];
    alignas(16) bsattn_key_tile_t masks[C::STAGES];
    Slot slots[2];
    uint64_t slot_full[2], slot_empty[2];
    uint64_t q_full[C::Q_BUFFERS], q_empty[C::Q_BUFFERS];
    uint64_t k_full[C::STAGES], k_empty[C::STAGES];
    uint64_t v_full[C::STAGES], v_empty[C::STAGES];
};

/* A place in a ring of COUNT, and the parity of its phase. */
template <int COUNT> struct Turn {
    int index = 0;
    uint32_t parity = 0;

    __device__ __forceinline__ void next()
    {
        ++index;
        if (index == COUNT) {
            index = 0;
            parity ^= 1;
        }
    }
};

/* --------------------------------------------------------------------------------- fetching work */

__device__ Slot read_unit(const bsattn_attend_cuda_params_t &params, int64_t unit)
{
    Slot slot = {};

    if (unit < params.unit_count) {
        bsattn_unit_t found = bsattn_unit_at(params, unit);
        bsattn_tile_item_t item = found.list->items[found.item];
        slot.tiles = found.list->tiles + item.tile_first;
        slot.runs = found.list->runs + item.run_first;
        for (int h = 0; h < 2; ++h) {
            slot.row[h] = item.row[h];
            slot.head[h] = found.head[h];
        }
        slot.batch = found.batch;
        slot.tile_count = item.tile_count;
        slot.key_tiles = item.key_tiles;
        slot.active = item.active;
        slot.first = item.first;
        slot.last = item.last;
    }
    return slot;
}

template <class C> struct Fetcher {
    const Arguments &arguments;
    Shared<C> &shared;
    Turn<2> turn;

    /* Give a unit to those who wait for it. */
    __device__ void publish(const Slot &slot)
    {
        barrier_wait(shared_address(&shared.slot_empty[turn.index]), turn.parity ^ 1);
        shared.slots[turn.index] = slot;
        barrier_arrive(shared_address(&shared.slot_full[turn.index]));
        turn.next();
    }

    /* The last CTA to come here leaves the counters as the next launch wants them. */
    __device__ void end()
    {
        uint32_t *counters = arguments.params.counters;

        __threadfence();
        if (atomicAdd(counters + 1, 1u) == gridDim.x - 1) {
            counters[0] = 0;
            counters[1] = 0;
        }
    }
};

__device__ __forceinline__ int64_t next_unit(const bsattn_attend_cuda_params_t &params)
{
    return gridDim.x + (int64_t)atomicAdd(params.counters, 1u);
}

template <class C> __device__ void fetch_units(const Arguments &arguments, Shared<C> &shared)
{
    Fetcher<C> fetcher = {arguments, shared, {}};
    int64_t unit = blockIdx.x;

    for (;;) {
        Slot slot = read_unit(arguments.params, unit);
        fetcher.publish(slot);
        if (slot.key_tiles == 0) {
            break;
        }
        /* Not before the next slot is free: a CTA holds one unit in reserve, not two. */
        barrier_wait(shared_address(&shared.slot_empty[fetcher.turn.index]),
                     fetcher.turn.parity ^ 1);
        unit = next_unit(arguments.params);
    }
    fetcher.end();
}

/* ---------------------------------------------------------------------------------------- loading */

/* Where the key tiles of a unit come from. */
struct KeySource {
    const CUtensorMap *maps;
    int head;
    int batch;
};

template <class C>
__device__ __forceinline__ void load_run_tile(const KeySource &source, int map, uint32_t to,
                                              uint32_t full, int row)
{
    tensor_load(to, source.maps + map, full, row, source.head, source.batch, 0);
}

/* A tile out of granules; where a granule is a tile, it is as good as one of a run. */
template <class C>
__device__ __forceinline__ void load_masked_tile(const KeySource &source, int map, uint32_t to,
                                                 uint32_t full, const int32_t *rows, int granule)
{
    if (granule == C::KEYS) {
        load_run_tile<C>(source, map + MAP_K_RUN - MAP_K_TILE, to, full, rows[0]);
        return;
    }
#pragma unroll 1
    for (int key = 0; key < C::KEYS; key += granule) {
        int row = rows[key / 16];
#pragma unroll
        for (int slab = 0; slab < C::SLABS; ++slab) {
            tensor_load(to + slab * C::SLAB_BYTES + key * 128, source.maps + map, full, row,
                        source.head, source.batch, slab);
        }
    }
}

template <class C> struct Loader {
    const Arguments &arguments;
    Shared<C> &shared;
    Turn<C::STAGES> stage;

    __device__ void masked_tiles(const Slot &slot, const KeySource &source)
    {
        int granule = arguments.params.granule;

        for (int t = 0; t < slot.tile_count; ++t) {
            const bsattn_key_tile_t *tile = slot.tiles + t;
            uint32_t k_full = shared_address(&shared.k_full[stage.index]);
            uint32_t v_full = shared_address(&shared.v_full[stage.index]);

            prefetch(tile + 1); /* may be another item's, or nobody's: an address is all it takes */
            barrier_wait(shared_address(&shared.k_empty[stage.index]), stage.parity ^ 1);
            barrier_arrive_expect(k_full, C::TILE_BYTES + sizeof(bsattn_key_tile_t));
            bulk_load(shared_address(&shared.masks[stage.index]), tile, sizeof(bsattn_key_tile_t),
                      k_full);
            load_masked_tile<C>(source, MAP_K_TILE, shared_address(shared.k[stage.index]), k_full,
                                tile->key_row, granule);
            barrier_wait(shared_address(&shared.v_empty[stage.index]), stage.parity ^ 1);
            barrier_arrive_expect(v_full, C::TILE_BYTES);
            load_masked_tile<C>(source, MAP_V_TILE, shared_address(shared.v[stage.index]), v_full,
                                tile->key_row, granule);
            stage.next();
        }
    }

    __device__ void runs(const Slot &slot, const KeySource &source)
    {
        int left = slot.key_tiles - slot.tile_count;
        const bsattn_tile_run_t *at = slot.runs;
        bsattn_tile_run_t next = {};

        if (left > 0) {
            next = *at;
        }
        while (left > 0) {
            bsattn_tile_run_t run = next;
            left -= run.tile_count;
            if (left > 0) {
                next = *++at;
            }
            for (int t = 0; t < run.tile_count; ++t) {
                uint32_t k_full = shared_address(&shared.k_full[stage.index]);
                uint32_t v_full = shared_address(&shared.v_full[stage.index]);
                int row = run.key_row + t * C::KEYS;

                barrier_wait(shared_address(&shared.k_empty[stage.index]), stage.parity ^ 1);
                barrier_arrive_expect(k_full, C::TILE_BYTES);
                load_run_tile<C>(source, MAP_K_RUN, shared_address(shared.k[stage.index]), k_full,
                                 row);
                barrier_wait(shared_address(&shared.v_empty[stage.index]), stage.parity ^ 1);
                barrier_arrive_expect(v_full, C::TILE_BYTES);
                load_run_tile<C>(source, MAP_V_RUN, shared_address(shared.v[stage.index]), v_full,
                                 row);
                stage.next();
            }
        }
    }
};

template <class C>
__device__ __forceinline__ void load_unit(Loader<C> &loader, Turn<C::Q_BUFFERS> &q,
                                          const Slot &slot)
{
    const Arguments &arguments = loader.arguments;
    Shared<C> &shared = loader.shared;
    uint32_t q_full = shared_address(&shared.q_full[q.index]);
    int head = slot.head[0] / (arguments.params.heads_q / arguments.params.heads_kv);
    KeySource source = {arguments.keys, head, slot.batch};

    if (arguments.head_maps != nullptr) {
        source.maps = arguments.head_maps + head * MAPS_PER_HEAD;
        source.head = 0;
    }
    barrier_wait(shared_address(&shared.q_empty[q.index]), q.parity ^ 1);
    barrier_arrive_expect(q_full, C::GROUPS * C::Q_BYTES);
#pragma unroll
    for (int g = 0; g < C::GROUPS; ++g) {
        tensor_load(shared_address(shared.q[q.index][g]), &arguments.q, q_full, slot.row[g],
                    slot.head[g], slot.batch, 0);
    }
    q.next();
    loader.masked_tiles(slot, source);
    loader.runs(slot, source);
}

/* Load the units that another warp fetches. */
template <class C> __device__ void load_units(const Arguments &arguments, Shared<C> &shared)
{
    Loader<C> loader = {arguments, shared, {}};
    Turn<C::Q_BUFFERS> q;
    Turn<2> turn;

    for (;;) {
        barrier_wait(shared_address(&shared.slot_full[turn.index]), turn.parity);
        Slot slot = shared.slots[turn.index];
        barrier_arrive(shared_address(&shared.slot_empty[turn.index]));
        turn.next();
        if (slot.key_tiles == 0) {
            break;
        }
        load_unit(loader, q, slot);
    }
}

/* Fetch and load: where several CTAs share a multiprocessor, the others cover the wait for a unit. */
template <class C>
__device__ void fetch_and_load_units(const Arguments &arguments, Shared<C> &shared)
{
    Fetcher<C> fetcher = {arguments, shared, {}};
    Loader<C> loader = {arguments, shared, {}};
    Turn<C::Q_BUFFERS> q;
    int64_t unit = blockIdx.x;

    for (;;) {
        Slot slot = read_unit(arguments.params, unit);
        fetcher.publish(slot);
        if (slot.key_tiles == 0) {
            break;
        }
        unit = next_unit(arguments.params);
        load_unit(loader, q, slot);
    }
    fetcher.end();
}

/* --------------------------------------------------------------------------------------- computing */

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

/* Every lane of a quad has words[j] of columns 8j + 2 * lane; give lane l all four words of column
 * 8l. */
__device__ __forceinline__ uint4 quad_transpose(const uint32_t (&words)[4], int lane)
{
    bool odd = (lane & 1) != 0;
    bool high = (lane & 2) != 0;
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

/* One warpgroup: its 64 query rows of the unit at hand. Arrays of two are a thread's rows, lane / 4
 * and 8 more. */
template <class C> struct Consumer {
    using T = typename C::Element;
    static constexpr int SCORES = C::KEYS / 2; /* accumulators of a thread */
    static constexpr int RESULTS = C::D / 2;

    const Arguments &arguments;
    Shared<C> &shared;
    int group; /* of the CTA's warpgroups */
    int warp;  /* of the warpgroup */
    int lane;
    float scale_log2;
    bool negative; /* scale < 0: scores change sign, for the maximum's sake */
    Turn<C::STAGES> k_stage, v_stage;

    float m[2];
    float l[2]; /* this thread's columns only, until the end */
    float o[RESULTS];
    uint32_t p[SCORES / 2];

    /* Warpgroups take turns: one may issue its products once the other has issued its own. */
    __device__ __forceinline__ void turn_begin()
    {
        if (C::GROUPS == 2) {
            named_sync(1 + group, 256);
        }
    }

    __device__ __forceinline__ void turn_end()
    {
        if (C::GROUPS == 2) {
            named_arrive(1 + (group ^ 1), 256);
        }
    }

    __device__ __forceinline__ void release(uint64_t *barrier)
    {
        if (lane == 0) {
            barrier_arrive(shared_address(barrier));
        }
    }

    __device__ __forceinline__ void issue_scores(float (&s)[SCORES], uint64_t q_matrix)
    {
        uint64_t k_matrix = matrix_descriptor(shared_address(shared.k[k_stage.index]), 0);

#pragma unroll
        for (int slab = 0; slab < C::SLABS; ++slab) {
#pragma unroll
            for (int step = 0; step < 4; ++step) {
                Product<T, C::KEYS>::ss(s, q_matrix + (slab * 64 * 128 + step * 32) / 16,
                                        k_matrix + (slab * C::SLAB_BYTES + step * 32) / 16,
                                        (slab > 0) || (step > 0));
            }
        }
        product_commit();
    }

    __device__ __forceinline__ void issue_results()
    {
        uint64_t v_matrix =
            matrix_descriptor(shared_address(shared.v[v_stage.index]), C::SLAB_BYTES);

#pragma unroll
        for (int step = 0; step < C::KEYS / 16; ++step) {
            Product<T, C::D>::rs(o, p + 4 * step, v_matrix + step * 16 * 128 / 16, true);
        }
        product_commit();
    }

    /* Hide what the tile's squares hide. */
    __device__ __forceinline__ void mask(float (&s)[SCORES])
    {
        const bsattn_key_tile_t &tile = shared.masks[k_stage.index];
        int shift = 8 * (4 * group + warp);
        uint32_t visible = (uint32_t)(tile.visible >> shift) & 0xFF;
        uint32_t diagonal = (uint32_t)(tile.diagonal >> shift) & 0xFF;
        int row = lane / 4;
        int column = 2 * (lane % 4);

        if ((visible == ((1u << (C::KEYS / 16)) - 1)) && (diagonal == 0) &&
            (tile.key_limit >= C::KEYS)) {
            return;
        }
#pragma unroll
        for (int g = 0; g < C::KEYS / 16; ++g) {
            int end = tile.key_limit - 16 * g; /* columns of the square from here on are hidden */
            int end0 = ((diagonal >> g) & 1) ? min(end, row + 1) : end;
            int end1 = ((diagonal >> g) & 1) ? min(end, row + 9) : end;
            if (((visible >> g) & 1) == 0) {
                end0 = 0;
                end1 = 0;
            }
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                float *x = s + 8 * g + 4 * j;
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    x[e] = (8 * j + column + e < end0) ? x[e] : -INFINITY;
                    x[2 + e] = (8 * j + column + e < end1) ? x[2 + e] : -INFINITY;
                }
            }
        }
    }

    /* Turn scores into probabilities relative to the rows' maxima. factor: what earlier results must
     * be multiplied with. */
    __device__ __forceinline__ void softmax(float (&s)[SCORES], float (&factor)[2])
    {
        if (negative) {
#pragma unroll
            for (int i = 0; i < SCORES; ++i) {
                s[i] = (s[i] == -INFINITY) ? s[i] : -s[i];
            }
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float top = fmaxf(s[2 * h], s[2 * h + 1]);
#pragma unroll
            for (int i = 4; i < SCORES; i += 4) {
                top = fmaxf(top, fmaxf(s[i + 2 * h], s[i + 2 * h + 1]));
            }
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2)) * scale_log2;
            float now = (top > m[h] + MAX_LAG) ? top : m[h];
            float base = (now == -INFINITY) ? 0.0f : now;
            factor[h] = exp2_approx(m[h] - base);
            m[h] = now;
            float sum0 = 0.0f;
            float sum1 = 0.0f;
#pragma unroll
            for (int i = 0; i < SCORES; i += 4) {
                s[i + 2 * h] = exp2_approx(fmaf(s[i + 2 * h], scale_log2, -base));
                s[i + 2 * h + 1] = exp2_approx(fmaf(s[i + 2 * h + 1], scale_log2, -base));
                sum0 += s[i + 2 * h];
                sum1 += s[i + 2 * h + 1];
            }
            l[h] = fmaf(l[h], factor[h], sum0 + sum1);
        }
    }

    __device__ __forceinline__ void pack_scores(const float (&s)[SCORES])
    {
#pragma unroll
        for (int i = 0; i < SCORES; i += 2) {
            p[i / 2] = pack<T>(s[i], s[i + 1]);
        }
    }

    __device__ __forceinline__ void rescale(const float (&factor)[2])
    {
        if (__any_sync(~0u, (factor[0] != 1.0f) || (factor[1] != 1.0f))) {
#pragma unroll
            for (int i = 0; i < RESULTS; i += 4) {
                o[i] *= factor[0];
                o[i + 1] *= factor[0];
                o[i + 2] *= factor[1];
                o[i + 3] *= factor[1];
            }
        }
    }

    /* The unit at hand. */
    int row; /* of the rank's tokens: this thread's first */
    int head;
    int batch;
    bool active, first, last; /* this warp's rows */

    __device__ __forceinline__ void begin(const Slot &slot)
    {
        int bit = 4 * group + warp;

        row = slot.row[group] + 16 * warp + lane / 4;
        head = slot.head[group];
        batch = slot.batch;
        active = ((slot.active >> bit) & 1) != 0;
        first = ((slot.first >> bit) & 1) != 0;
        last = ((slot.last >> bit) & 1) != 0;
    }

    __device__ __forceinline__ void state_read();
    __device__ __forceinline__ void compute(int tile_count, int key_tiles, uint32_t q_address,
                                            uint64_t *q_empty);
    __device__ __forceinline__ void write();
};

template <class C> __device__ __forceinline__ void Consumer<C>::state_read()
{
    const bsattn_attend_cuda_params_t &params = arguments.params;

#pragma unroll
    for (int i = 0; i < RESULTS; ++i) {
        o[i] = 0.0f;
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        int64_t at = ((int64_t)batch * params.heads_q + head) * params.tokens + row + 8 * h;
        m[h] = -INFINITY;
        l[h] = 0.0f;
        if (first || !active || (row + 8 * h >= params.tokens)) {
            continue;
        }
        float2 ml = reinterpret_cast<const float2 *>(params.state_ml)[at];
        m[h] = ml.x;
        l[h] = (lane % 4 == 0) ? ml.y : 0.0f;
        const float *from = params.state_o + at * C::D + 2 * (lane % 4);
#pragma unroll
        for (int j = 0; j < C::D / 8; ++j) {
            float2 pair = *reinterpret_cast<const float2 *>(from + 8 * j);
            o[4 * j + 2 * h] = pair.x;
            o[4 * j + 2 * h + 1] = pair.y;
        }
    }
}

template <class C> __device__ __forceinline__ void Consumer<C>::write()
{
    const bsattn_attend_cuda_params_t &params = arguments.params;
    int quad_lane = lane % 4;

    if (!active) {
        return;
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        bool real = row + 8 * h < params.tokens;
        int64_t at = ((int64_t)batch * params.heads_q + head) * params.tokens + row + 8 * h;
        l[h] += __shfl_xor_sync(~0u, l[h], 1);
        l[h] += __shfl_xor_sync(~0u, l[h], 2);
        if (!last) {
            if (!real) {
                continue;
            }
            float *to = params.state_o + at * C::D + 2 * quad_lane;
#pragma unroll
            for (int j = 0; j < C::D / 8; ++j) {
                *reinterpret_cast<float2 *>(to + 8 * j) =
                    make_float2(o[4 * j + 2 * h], o[4 * j + 2 * h + 1]);
            }
            if (quad_lane == 0) {
                reinterpret_cast<float2 *>(params.state_ml)[at] = make_float2(m[h], l[h]);
            }
            continue;
        }
        float inverse = (l[h] == 0.0f) ? 0.0f : 1.0f / l[h];
        T *to = static_cast<T *>(params.o) +
                (((int64_t)batch * params.tokens + row + 8 * h) * params.heads_q + head) * C::D;
#pragma unroll
        for (int j = 0; j < C::D / 8; j += 4) {
            uint32_t words[4];
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                words[k] = pack<T>(o[4 * (j + k) + 2 * h] * inverse,
                                   o[4 * (j + k) + 2 * h + 1] * inverse);
            }
            uint4 wide = quad_transpose(words, quad_lane);
            if (real) {
                *reinterpret_cast<uint4 *>(to + 8 * (j + quad_lane)) = wide;
            }
        }
        if (real && (quad_lane == 0) && (params.lse != nullptr)) {
            params.lse[at] = (l[h] == 0.0f) ? -INFINITY : (m[h] + log2f(l[h])) * LN_2;
        }
    }
}

template <class C>
__device__ __forceinline__ void Consumer<C>::compute(int tile_count, int key_tiles,
                                                     uint32_t q_address, uint64_t *q_empty)
{
    uint64_t q_matrix = matrix_descriptor(q_address, 0);
    float s[SCORES];
    float factor[2];

    state_read();
    barrier_wait(shared_address(&shared.k_full[k_stage.index]), k_stage.parity);
    turn_begin();
    product_fence();
    issue_scores(s, q_matrix);
    turn_end();
    product_wait<0>();
    pin(s);
    if (tile_count > 0) {
        mask(s);
    }
    release(&shared.k_empty[k_stage.index]);
    k_stage.next();
    softmax(s, factor);
    rescale(factor);
    pack_scores(s);
#pragma unroll 1
    for (int t = 1; t < key_tiles; ++t) {
        barrier_wait(shared_address(&shared.k_full[k_stage.index]), k_stage.parity);
        barrier_wait(shared_address(&shared.v_full[v_stage.index]), v_stage.parity);
        turn_begin();
        product_fence();
        issue_scores(s, q_matrix);
        issue_results();
        turn_end();
        product_wait<1>();
        pin(s);
        if (t < tile_count) {
            mask(s);
        }
        release(&shared.k_empty[k_stage.index]);
        k_stage.next();
        softmax(s, factor);
        product_wait<0>();
        pin(o);
        release(&shared.v_empty[v_stage.index]);
        v_stage.next();
        rescale(factor);
        pack_scores(s);
    }
    release(q_empty);
    barrier_wait(shared_address(&shared.v_full[v_stage.index]), v_stage.parity);
    product_fence();
    issue_results();
    product_wait<0>();
    pin(o);
    release(&shared.v_empty[v_stage.index]);
    v_stage.next();
}

template <class C> __device__ void compute_units(const Arguments &arguments, Shared<C> &shared)
{
    int thread = threadIdx.x;
    float scale = arguments.params.scale;
    Consumer<C> consumer = {arguments, shared, thread / 128, thread % 128 / 32, thread % 32};
    Turn<C::Q_BUFFERS> q;
    Turn<2> turn;

    /* Hidden scores are -inf and must stay so: no product with 0. */
    consumer.scale_log2 = fmaxf(fabsf(scale) * LOG2_E, 1e-37f);
    consumer.negative = scale < 0.0f;
    if ((C::GROUPS == 2) && (consumer.group == 1)) {
        consumer.turn_end();
    }
    for (;;) {
        barrier_wait(shared_address(&shared.slot_full[turn.index]), turn.parity);
        const Slot &slot = shared.slots[turn.index];
        /* The compiler must know that all threads go the same way between products. */
        int key_tiles = __shfl_sync(~0u, slot.key_tiles, 0);
        int tile_count = __shfl_sync(~0u, slot.tile_count, 0);
        if (key_tiles == 0) {
            break;
        }
        consumer.begin(slot);
        barrier_wait(shared_address(&shared.q_full[q.index]), q.parity);
        consumer.compute(tile_count, key_tiles,
                         shared_address(shared.q[q.index][consumer.group]),
                         &shared.q_empty[q.index]);
        consumer.release(&shared.slot_empty[turn.index]);
        consumer.write();
        turn.next();
        q.next();
    }
}

/* ------------------------------------------------------------------------------------------ kernel */

template <class C> __device__ __forceinline__ void init_barriers(Shared<C> &shared)
{
    const int warps = C::GROUPS * 4;

    for (int i = 0; i < 2; ++i) {
        barrier_init(shared_address(&shared.slot_full[i]), 1);
        barrier_init(shared_address(&shared.slot_empty[i]), warps + ((C::GROUPS > 1) ? 1 : 0));
    }
    for (int i = 0; i < C::Q_BUFFERS; ++i) {
        barrier_init(shared_address(&shared.q_full[i]), 1);
        barrier_init(shared_address(&shared.q_empty[i]), warps);
    }
    for (int i = 0; i < C::STAGES; ++i) {
        barrier_init(shared_address(&shared.k_full[i]), 1);
        barrier_init(shared_address(&shared.k_empty[i]), warps);
        barrier_init(shared_address(&shared.v_full[i]), 1);
        barrier_init(shared_address(&shared.v_empty[i]), warps);
    }
    barrier_init_fence();
}

template <class C>
__global__ void __launch_bounds__(C::THREADS, C::CTAS)
    attend_kernel(const __grid_constant__ Arguments arguments)
{
    extern __shared__ __align__(1024) uint8_t memory[];
    Shared<C> &shared = *reinterpret_cast<Shared<C> *>(memory);
    int warp = threadIdx.x / 32;

    if (threadIdx.x == 0) {
        init_barriers(shared);
    }
    __syncthreads();
    if (warp >= C::GROUPS * 4) {
        if constexpr (C::GROUPS > 1) {
            registers_shrink<40>();
            if (threadIdx.x == C::CONSUMERS) {
                load_units(arguments, shared);
            } else if (threadIdx.x == C::CONSUMERS + 32) {
                fetch_units(arguments, shared);
            }
        } else if (threadIdx.x == C::CONSUMERS) {
            fetch_and_load_units(arguments, shared);
        }
    } else {
        if constexpr (C::GROUPS > 1) {
            registers_grow<232>();
        }
        compute_units(arguments, shared);
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
    static const EncodeTiled function = [] {
        void *found = nullptr;
        cudaDriverEntryPointQueryResult result;
        cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                             cudaEnableDefault, &result);
        return ((error == cudaSuccess) && (result == cudaDriverEntryPointSuccess))
                   ? reinterpret_cast<EncodeTiled>(found)
                   : nullptr;
    }();

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
                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
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
        if (error == cudaSuccess) {
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

template <class C> int launch(const bsattn_attend_cuda_params_t *params, cudaStream_t stream)
{
    static int multiprocessors = 0; /* of the devices of a process, which are alike; 0: not asked */
    Arguments arguments;
    int error = make_arguments(params, &arguments);

    if (error != cudaSuccess) {
        return error;
    }
    if (multiprocessors == 0) {
        int device;
        int count;
        cudaError_t status = cudaGetDevice(&device);
        if (status == cudaSuccess) {
            status = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
        }
        if (status == cudaSuccess) {
            status = cudaFuncSetAttribute(attend_kernel<C>,
                                          cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          (int)sizeof(Shared<C>));
        }
        if (status != cudaSuccess) {
            return status;
        }
        multiprocessors = count;
    }
    int64_t places = (int64_t)multiprocessors * C::CTAS;
    unsigned ctas = (unsigned)((params->unit_count < places) ? params->unit_count : places);
    attend_kernel<C><<<ctas, C::THREADS, sizeof(Shared<C>), stream>>>(arguments);
    return cudaGetLastError();
}

template <typename T>
int launch_type(const bsattn_attend_cuda_params_t *params, cudaStream_t stream)
{
    bool wide = params->shape.halves == 2;

    if (params->head_dim == 64) {
        return wide ? launch<Config<T, 64, 2, 128, 4, 2, 1>>(params, stream)
                    : launch<Config<T, 64, 1, 64, 4, 1, 3>>(params, stream);
    }
    return wide ? launch<Config<T, 128, 2, 128, 2, 2, 1>>(params, stream)
                : launch<Config<T, 128, 1, 64, 3, 1, 2>>(params, stream);
}

int attend_sm90_launch(const bsattn_attend_cuda_params_t *params, struct CUstream_st *stream)
{
    if ((params->head_dim != 64) && (params->head_dim != 128)) {
        return cudaErrorInvalidValue;
    }
    if (params->unit_count == 0) {
        return cudaSuccess;
    }
    return (params->dtype == BSATTN_BF16) ? launch_type<__nv_bfloat16>(params, stream)
           : (params->dtype == BSATTN_F16) ? launch_type<__half>(params, stream)
                                           : cudaErrorInvalidValue;
}

/* Blocks of 64 and less fill two warpgroups with two heads of a key head, or with two rows of blocks
 * where these see mostly the same keys; else each warpgroup goes its own way. */
bsattn_tile_shape_t attend_sm90_shape(const bsattn_problem_t *problem, double blocks)
{
    bsattn_tile_shape_t wide = {2, 128, 0};
    bsattn_tile_shape_t pairs = {2, 128, 1};
    bsattn_tile_shape_t narrow = {1, 64, 0};
    double all = (double)((problem->seq_len + problem->block - 1) / problem->block);

    if (problem->block >= 128) {
        return wide;
    }
    if (problem->heads_q / problem->heads_kv % 2 == 0) {
        return pairs;
    }
    return (blocks > 0.4 * all) ? wide : narrow;
}

} // namespace

extern "C" {

const bsattn_cuda_kernel_t bsattn_attend_sm90 = {"sm90", attend_sm90_shape, attend_sm90_launch};

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
        memcpy(static_cast<CUtensorMap *>(maps) + head * MAPS_PER_HEAD, made, sizeof(made));
    }
    return cudaSuccess;
}
}
