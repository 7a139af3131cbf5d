/* SPDX-License-Identifier: Apache-2.0 */
/* Attention for Hopper: warpgroup products (wgmma) out of shared memory that the tensor copy engine
 * (TMA) fills.
 *
 * A CTA holds teams of one or two warpgroups that compute, 64 query rows each, and for every team a
 * thread that loads and one that fetches units from a counter. It stays on its multiprocessor. Keys
 * and values stream through two rings of stages, across units without a break; the two warpgroups of
 * a team take turns at the tensor cores, so that the exponentials of one run under the products of
 * the other, and each issues the scores of a tile before the products of the tile before with V. */
#include "kernels/attend_cuda.h"
#include "kernels/cuda/mma_sm80.cuh"
#include "kernels/cuda/ptx_sm90.cuh"
#include "kernels/cuda/unit.cuh"

#include <cuda_runtime.h>
#include <math.h>
#include <string.h>

using namespace bsattn;

namespace {

enum { MAP_K_RUN, MAP_V_RUN, MAP_K_TILE, MAP_V_TILE, MAPS_PER_HEAD };

/* Probabilities are relative to a reference score of their row. A thread's share of a tile may sum to
 * this much before the row takes a new reference; f16 must hold it. */
constexpr float SUM_MAX = 32768.0f;
constexpr float LOG2_E = 1.44269504088896341f;
constexpr float LN_2 = 0.69314718055994531f;

struct Arguments {
    CUtensorMap q;
    CUtensorMap o;
    CUtensorMap keys[MAPS_PER_HEAD];
    const CUtensorMap *head_maps; /* [Hk, MAPS_PER_HEAD], or NULL: keys, with the head a coordinate */
    bsattn_attend_cuda_params_t params;
};

/* The rows of a unit that one warpgroup works on. */
struct Part {
    int64_t state_row; /* of row, among all of [b, Hq, n] */
    int32_t row;
    int32_t head;
    int32_t rows;   /* from row on; the rest do not exist */
    uint8_t active; /* bit per warp; not set for a copy of the other half */
    uint8_t first;
    uint8_t last;
};

/* What must be known of a unit. */
struct Slot {
    Part parts[2];
    const bsattn_key_tile_t *tiles;
    const bsattn_tile_run_t *runs;
    int32_t batch;
    int32_t key_head;
    int32_t tile_count;
    int32_t key_tiles; /* 0: no more units */
};

/* A team works on one unit and holds one in reserve. What the one before left is still to be written
 * when the next has begun. */
enum { SLOTS = 3 };

/* A team is one or two warpgroups that work on a unit together; teams of a CTA have nothing in common
 * but the multiprocessor. */
template <typename T, int D_, int TEAMS_, int GROUPS_, int KEYS_, int K_STAGES_, int V_STAGES_,
          int Q_BUFFERS_, bool PASSES_ = false>
struct Config {
    using Element = T;
    static constexpr int D = D_;
    static constexpr int TEAMS = TEAMS_;
    static constexpr int GROUPS = GROUPS_; /* warpgroups of a team */
    static constexpr int KEYS = KEYS_;     /* of a tile */
    static constexpr int K_STAGES = K_STAGES_;
    static constexpr int V_STAGES = V_STAGES_;
    static constexpr int Q_BUFFERS = Q_BUFFERS_;
    static constexpr int SLABS = D / 64;
    static constexpr int Q_BYTES = 64 * D * 2; /* of one warpgroup */
    static constexpr int TILE_BYTES = KEYS * D * 2;
    static constexpr int SLAB_BYTES = KEYS * 128;
    static constexpr int CONSUMERS = TEAMS * GROUPS * 128;
    static constexpr int THREADS = CONSUMERS + 128;
    /* Registers of a thread that loads and of one that computes, out of what all start with. */
    static constexpr int LOADER_REGISTERS = (TEAMS * GROUPS == 4) ? 32 : 40;
    static constexpr int CONSUMER_REGISTERS = (TEAMS * GROUPS == 4) ? 112 : 232;
    /* Fetching units has a warp of its own where there is one to spare. */
    static constexpr bool FETCHER = TEAMS <= 2;
    /* With four warpgroups there is always other work beside the products. */
    static constexpr bool TURNS = (GROUPS == 2) && (TEAMS == 1);
    /* A warpgroup passes over a tile that it sees nothing of. Those that take turns must not. */
    static constexpr bool PASSES = PASSES_;
    static_assert(!PASSES || ((GROUPS == 2) && !TURNS), "two that need not wait for each other");
    /* With two, exponentials must not wait for products. */
    static constexpr bool HOLD = TEAMS * GROUPS == 2;
    /* Values are loaded a tile behind the keys, and waited for under the product of the scores. */
    static constexpr bool VALUES_LATE = K_STAGES > V_STAGES;
    static_assert(K_STAGES - V_STAGES <= 1, "the loader has one tile without values");
};

/* Where a team's tiles lie. */
template <class C> struct Stages {
    alignas(1024) uint8_t q[C::Q_BUFFERS][C::GROUPS][C::Q_BYTES];
    alignas(1024) uint8_t k[C::K_STAGES][C::TILE_BYTES];
    alignas(1024) uint8_t v[C::V_STAGES][C::TILE_BYTES];
};

/* What else a team shares. */
template <class C> struct Shared {
    alignas(16) bsattn_key_tile_t masks[C::K_STAGES];
    Slot slots[SLOTS];
    uint64_t slot_full[2], slot_empty[2];
    uint64_t q_full[C::Q_BUFFERS], q_empty[C::Q_BUFFERS];
    uint64_t k_full[C::K_STAGES], k_empty[C::K_STAGES];
    uint64_t v_full[C::V_STAGES], v_empty[C::V_STAGES];
};

/* All of a CTA's shared memory. */
template <class C> struct Memory {
    Stages<C> stages[C::TEAMS];
    Shared<C> shared[C::TEAMS];

    /* Without what would round its size up to its alignment. */
    static constexpr size_t BYTES = C::TEAMS * (sizeof(Stages<C>) + sizeof(Shared<C>));
    static_assert(BYTES <= 227 * 1024, "all that a CTA may have");
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

/* A unit's slot, and the barriers that tell of it. */
struct SlotTurn {
    Turn<2> barrier;
    Turn<SLOTS> slot;

    __device__ __forceinline__ void next()
    {
        barrier.next();
        slot.next();
    }
};

/* --------------------------------------------------------------------------------- fetching work */

__device__ Part read_part(const bsattn_attend_cuda_params_t &params, const bsattn_unit_t &unit,
                          const bsattn_tile_item_t &item, int h)
{
    Part part;
    bool copy = (h == 1) && (unit.head[0] == unit.head[1]) && (item.row[0] == item.row[1]);
    int64_t rows = params.tokens - item.row[h];

    part.row = item.row[h];
    part.head = unit.head[h];
    part.state_row = ((int64_t)unit.batch * params.heads_q + part.head) * params.tokens + part.row;
    part.rows = (int32_t)((rows < BSATTN_TILE_HALF) ? rows : BSATTN_TILE_HALF);
    part.active = copy ? 0 : (item.active >> 4 * h) & 0xF;
    part.first = (item.first >> 4 * h) & 0xF;
    part.last = (item.last >> 4 * h) & 0xF;
    return part;
}

__device__ void read_unit(const bsattn_attend_cuda_params_t &params, uint32_t unit, Slot &slot)
{
    if (unit >= params.unit_count) {
        slot.key_tiles = 0;
        return;
    }
    bsattn_unit_t found = bsattn_unit_at(params, unit);
    bsattn_tile_item_t item = found.list->items[found.item];
    slot.tiles = found.list->tiles + item.tile_first;
    slot.runs = found.list->runs + item.run_first;
    for (int h = 0; h < 2; ++h) {
        slot.parts[h] = read_part(params, found, item, h);
    }
    slot.batch = found.batch;
    slot.key_head = found.head[0] / (params.heads_q / params.heads_kv);
    slot.tile_count = item.tile_count;
    slot.key_tiles = item.key_tiles;
}

/* ---------------------------------------------------------------------------------------- loading */

/* A key tile, and where it comes from. */
struct TileSource {
    int head; /* key head */
    int batch;
    const int32_t *rows; /* of each 16 keys, where the tile comes in granules, else NULL */
    int row;             /* of all, then */
};

/* Its keys or values. */
template <class C>
__device__ __forceinline__ void load_tile(const Arguments &arguments, const TileSource &tile,
                                          int run_map, uint32_t to, uint32_t full)
{
    bool alike = arguments.head_maps == nullptr;
    const CUtensorMap *maps =
        alike ? arguments.keys : arguments.head_maps + tile.head * MAPS_PER_HEAD;
    int head = alike ? tile.head : 0;
    int granule = arguments.params.granule;

    if (tile.rows == nullptr) {
        tensor_load(to, maps + run_map, full, tile.row, head, tile.batch, 0);
        return;
    }
#pragma unroll 1
    for (int key = 0; key < C::KEYS; key += granule) {
        int row = tile.rows[key / 16];
#pragma unroll
        for (int slab = 0; slab < C::SLABS; ++slab) {
            tensor_load(to + slab * C::SLAB_BYTES + key * 128,
                        maps + run_map + MAP_K_TILE - MAP_K_RUN, full, row, head,
                        tile.batch, slab);
        }
    }
}

/* Hands units to a team. */
template <class C> struct Fetcher {
    const Arguments &arguments;
    Shared<C> &shared;
    SlotTurn turn; /* of the slot to be filled next */

    __device__ __forceinline__ void wait_for_slot()
    {
        barrier_wait(shared_address(&shared.slot_empty[turn.barrier.index]),
                     turn.barrier.parity ^ 1);
    }

    /* @return false at the end of all units */
    __device__ __forceinline__ bool publish(uint32_t unit)
    {
        Slot &slot = shared.slots[turn.slot.index];

        read_unit(arguments.params, unit, slot);
        barrier_arrive(shared_address(&shared.slot_full[turn.barrier.index]));
        turn.next();
        return unit < arguments.params.unit_count;
    }

    __device__ __forceinline__ bool publish_first(int team)
    {
        /* The first teams of all CTAs come first: few units spread over all multiprocessors. */
        return publish((uint32_t)team * gridDim.x + blockIdx.x);
    }

    /* A unit is taken once there is room for it: a team holds one in reserve, not two. */
    __device__ __forceinline__ bool publish_next()
    {
        wait_for_slot();
        return publish(gridDim.x * C::TEAMS + atomicAdd(arguments.params.counters, 1u));
    }

    /* The last team to come here leaves the counters as the next launch wants them. */
    __device__ __forceinline__ void end()
    {
        uint32_t *counters = arguments.params.counters;

        __threadfence();
        if (atomicAdd(counters + 1, 1u) == gridDim.x * C::TEAMS - 1) {
            counters[0] = 0;
            counters[1] = 0;
        }
    }
};

template <class C>
__device__ void fetch_units(const Arguments &arguments, Shared<C> &shared, int team)
{
    Fetcher<C> fetcher = {arguments, shared};
    bool more = fetcher.publish_first(team);

    while (more) {
        more = fetcher.publish_next();
    }
    fetcher.end();
}

/* Loads the tiles of a team's units. */
template <class C> struct Loader {
    const Arguments &arguments;
    Stages<C> &stages;
    Shared<C> &shared;
    Fetcher<C> fetcher; /* without a fetcher's warp */
    Turn<C::K_STAGES> k_stage;
    Turn<C::V_STAGES> v_stage;
    Turn<C::Q_BUFFERS> q;
    int until_fetch; /* tiles to load before the next unit is fetched */
    int maps_head;   /* whose maps were acquired last */
    TileSource behind; /* its keys are loaded, its values not */
    bool waiting;      /* there is one */

    /* @param mask  of a masked tile, else NULL */
    __device__ __forceinline__ void keys(const TileSource &tile, const bsattn_key_tile_t *mask)
    {
        uint32_t full = shared_address(&shared.k_full[k_stage.index]);

        barrier_wait(shared_address(&shared.k_empty[k_stage.index]), k_stage.parity ^ 1);
        barrier_arrive_expect(full, C::TILE_BYTES + ((mask != nullptr) ? sizeof(*mask) : 0));
        if (mask != nullptr) {
            bulk_load(shared_address(&shared.masks[k_stage.index]), mask, sizeof(*mask), full);
        }
        load_tile<C>(arguments, tile, MAP_K_RUN,
                     shared_address(stages.k[k_stage.index]), full);
        k_stage.next();
    }

    __device__ __forceinline__ void values(const TileSource &tile)
    {
        uint32_t full = shared_address(&shared.v_full[v_stage.index]);

        barrier_wait(shared_address(&shared.v_empty[v_stage.index]), v_stage.parity ^ 1);
        barrier_arrive_expect(full, C::TILE_BYTES);
        load_tile<C>(arguments, tile, MAP_V_RUN,
                     shared_address(stages.v[v_stage.index]), full);
        v_stage.next();
    }

    /* A tile's values come behind the next one's keys where keys have a stage more: that is the order in
     * which stages become free. The next unit is fetched once they are full: what that takes is then
     * covered. */
    __device__ __forceinline__ void load(const TileSource &tile, const bsattn_key_tile_t *mask)
    {
        keys(tile, mask);
        if (C::VALUES_LATE) {
            flush();
            behind = tile;
            waiting = true;
        } else {
            values(tile);
        }
        if (!C::FETCHER && (--until_fetch == 0)) {
            (void)fetcher.publish_next();
        }
    }

    /* Load the values that are behind. */
    __device__ __forceinline__ void flush()
    {
        if (C::VALUES_LATE && waiting) {
            values(behind);
            waiting = false;
        }
    }

    __device__ __forceinline__ void masked_tiles(const Slot &slot, TileSource tile)
    {
#pragma unroll 1
        for (int t = 0; t < slot.tile_count; ++t) {
            const bsattn_key_tile_t *mask = slot.tiles + t;

            prefetch(mask + 1); /* may be another item's, or nobody's: an address is all it takes */
            if (arguments.params.granule == C::KEYS) {
                tile.row = mask->key_row[0];
            } else {
                tile.rows = mask->key_row;
            }
            load(tile, mask);
        }
    }

    /* {key_row, tile_count} */
    __device__ __forceinline__ static int2 read_run(const bsattn_tile_run_t *run)
    {
        static_assert(sizeof(*run) == sizeof(int2), "one load for both");
        return *reinterpret_cast<const int2 *>(run);
    }

    /* The next run is read while the tiles of one are waited for. */
    __device__ __forceinline__ void runs(const Slot &slot, TileSource tile)
    {
        int left = slot.key_tiles - slot.tile_count;
        const bsattn_tile_run_t *at = slot.runs;
        int2 next = {0, 0};
        int in_run = 0;

        if (left > 0) {
            next = read_run(at);
        }
#pragma unroll 1
        for (; left > 0; --left) {
            if (in_run == 0) {
                tile.row = next.x;
                in_run = next.y;
                if (left > in_run) {
                    next = read_run(++at);
                }
            }
            load(tile, nullptr);
            tile.row += C::KEYS;
            --in_run;
        }
    }

    __device__ __forceinline__ void acquire_maps(const CUtensorMap *maps, int head)
    {
        if (head != maps_head) {
            for (int map = 0; map < MAPS_PER_HEAD; ++map) {
                tensor_map_acquire(maps + map);
            }
            maps_head = head;
        }
    }

    __device__ __forceinline__ void unit(const Slot &slot)
    {
        uint32_t q_full = shared_address(&shared.q_full[q.index]);
        TileSource tile = {slot.key_head, slot.batch, nullptr, 0};

        if (arguments.head_maps != nullptr) {
            acquire_maps(arguments.head_maps + slot.key_head * MAPS_PER_HEAD, slot.key_head);
        }
        barrier_wait(shared_address(&shared.q_empty[q.index]), q.parity ^ 1);
        barrier_arrive_expect(q_full, C::GROUPS * C::Q_BYTES);
#pragma unroll
        for (int g = 0; g < C::GROUPS; ++g) {
            tensor_load(shared_address(stages.q[q.index][g]), &arguments.q, q_full,
                        slot.parts[g].row, slot.parts[g].head, slot.batch, 0);
        }
        q.next();
        until_fetch = min(C::V_STAGES, slot.key_tiles);
        masked_tiles(slot, tile);
        runs(slot, tile);
    }
};

template <class C>
__device__ void load_units(const Arguments &arguments, Memory<C> &memory, int team)
{
    Shared<C> &shared = memory.shared[team];
    Loader<C> loader = {arguments, memory.stages[team], shared, {arguments, shared}};
    SlotTurn turn;

    loader.maps_head = -1;
    loader.waiting = false;

    if (!C::FETCHER) {
        (void)loader.fetcher.publish_first(team);
    }
    for (;;) {
        const Slot &slot = shared.slots[turn.slot.index];
        barrier_wait(shared_address(&shared.slot_full[turn.barrier.index]), turn.barrier.parity);
        if (slot.key_tiles == 0) {
            loader.flush();
            break;
        }
        loader.unit(slot);
        if (C::FETCHER) {
            barrier_arrive(shared_address(&shared.slot_empty[turn.barrier.index]));
        }
        turn.next();
    }
    if (!C::FETCHER) {
        loader.fetcher.end();
    }
}

/* --------------------------------------------------------------------------------------- computing */

/* One warpgroup: its 64 query rows of the unit at hand. Arrays of two are a thread's rows, lane / 4
 * and 8 more. */
template <class C> struct Consumer {
    using T = typename C::Element;
    static constexpr int SCORES = C::KEYS / 2; /* accumulators of a thread */
    static constexpr int RESULTS = C::D / 2;

    const Arguments &arguments;
    Stages<C> &stages;
    Shared<C> &shared;
    int team;
    int group; /* of the team's warpgroups */
    int warp;  /* of the warpgroup */
    int lane;
    float scale_log2; /* of a score to what is taken 2 to the power of; never 0 */
    Turn<C::K_STAGES> k_stage;
    Turn<C::V_STAGES> v_stage;
    Turn<C::Q_BUFFERS> leaving; /* of the unit whose results are in o */
    bool stored; /* those of the unit before are on their way */

    float m[2]; /* the rows' references; -inf: no key yet */
    float l[2];      /* this thread's columns only, until the end */
    float s[SCORES]; /* scores, then probabilities */
    float o[RESULTS];
    uint32_t p[SCORES / 2];

    /* Warpgroups take turns: one may issue its products once the other has issued its own. */
    __device__ __forceinline__ void turn_begin()
    {
        if (C::TURNS) {
            named_sync(1 + 2 * team + group, 256);
        }
    }

    __device__ __forceinline__ void turn_end()
    {
        if (C::TURNS) {
            named_arrive(1 + 2 * team + (group ^ 1), 256);
        }
    }

    /* This warp has read what the barrier guards. */
    __device__ __forceinline__ void release(uint64_t *barrier)
    {
        __syncwarp();
        if (lane == 0) {
            barrier_arrive(shared_address(barrier));
        }
    }

    /* No product of the warpgroup reads the queries of the unit before any more. */
    __device__ __forceinline__ void queries_done()
    {
        named_sync(8 + C::GROUPS * team + group, 128);
    }

    /* Where the results of the unit before go out is free for queries again. */
    __device__ __forceinline__ void leave()
    {
        if (stored) {
            if (lane == 0) {
                store_wait_read();
                barrier_arrive(shared_address(&shared.q_empty[leaving.index]));
            }
            leaving.next();
            stored = false;
        }
    }

    __device__ __forceinline__ void issue_scores(uint32_t q_address)
    {
        uint64_t q_matrix = matrix_descriptor(q_address, 0);
        uint64_t k_matrix = matrix_descriptor(shared_address(stages.k[k_stage.index]), 0);

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

    __device__ __forceinline__ void wait_values()
    {
        barrier_wait(shared_address(&shared.v_full[v_stage.index]), v_stage.parity);
    }

    __device__ __forceinline__ void issue_results()
    {
        uint64_t v_matrix =
            matrix_descriptor(shared_address(stages.v[v_stage.index]), C::SLAB_BYTES);

#pragma unroll
        for (int step = 0; step < C::KEYS / 16; ++step) {
            Product<T, C::D>::rs(o, p + 4 * step, v_matrix + step * 16 * 128 / 16, true);
        }
        product_commit();
    }

    /* Whether this warpgroup sees any of the masked tile at hand. */
    __device__ __forceinline__ bool sees() const
    {
        const uint64_t *visible = &shared.masks[k_stage.index].visible;
        uint32_t seen = (lane == 0) ? reinterpret_cast<const uint32_t *>(visible)[group] : 0;

        return __shfl_sync(~0u, seen, 0) != 0;
    }

    /* The tile is not for this warpgroup: done with its keys. */
    __device__ __forceinline__ void pass_keys()
    {
        release(&shared.k_empty[k_stage.index]);
        k_stage.next();
    }

    /* And, once those of the tile before have been used, with its values. */
    __device__ __forceinline__ void pass_values()
    {
        wait_values();
        release(&shared.v_empty[v_stage.index]);
        v_stage.next();
    }

    /* Hide what the tile's squares hide. */
    __device__ __forceinline__ void mask()
    {
        const bsattn_key_tile_t &tile = shared.masks[k_stage.index];
        const float hidden = copysignf(INFINITY, -scale_log2); /* -infinity once it is scaled */
        uint32_t packed = 0; /* 8 bits of each, and the limit */
        int row = lane / 4;
        int column = 2 * (lane % 4);

        if (lane == 0) { /* which gives the place back, too */
            int shift = 8 * (4 * group + warp);
            packed = ((uint32_t)(tile.visible >> shift) & 0xFF) |
                     ((uint32_t)(tile.diagonal >> shift) & 0xFF) << 8 |
                     (uint32_t)tile.key_limit << 16;
        }
        packed = __shfl_sync(~0u, packed, 0);
        uint32_t visible = packed & 0xFF;
        uint32_t diagonal = packed >> 8 & 0xFF;
        int key_limit = (int)(packed >> 16);
        if ((visible == ((1u << (C::KEYS / 16)) - 1)) && (diagonal == 0) && (key_limit >= C::KEYS)) {
            return;
        }
#pragma unroll
        for (int g = 0; g < C::KEYS / 16; ++g) {
            int end = key_limit - 16 * g; /* columns of the square from here on are hidden */
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
                    x[e] = (8 * j + column + e < end0) ? x[e] : hidden;
                    x[2 + e] = (8 * j + column + e < end1) ? x[2 + e] : hidden;
                }
            }
        }
    }

    /* The largest of a row's scaled scores in the tile. */
    __device__ __forceinline__ float row_max(int h) const
    {
        float top = s[2 * h] * scale_log2;

#pragma unroll
        for (int i = 0; i < SCORES; i += 4) {
            top = fmaxf(top, fmaxf(s[i + 2 * h] * scale_log2, s[i + 2 * h + 1] * scale_log2));
        }
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        return fmaxf(top, __shfl_xor_sync(~0u, top, 2));
    }

    /* Scores to probabilities. sums: of this thread's. */
    __device__ __forceinline__ void exponentials(float (&sums)[2])
    {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float base = (m[h] == -INFINITY) ? 0.0f : m[h];
            float sum0 = 0.0f;
            float sum1 = 0.0f;
#pragma unroll
            for (int i = 0; i < SCORES; i += 4) {
                s[i + 2 * h] = exp2_approx(fmaf(s[i + 2 * h], scale_log2, -base));
                s[i + 2 * h + 1] = exp2_approx(fmaf(s[i + 2 * h + 1], scale_log2, -base));
                sum0 += s[i + 2 * h];
                sum1 += s[i + 2 * h + 1];
            }
            sums[h] = sum0 + sum1;
        }
    }

    /* A row's reference is the maximum of the first tile with keys for it, and stays. Whether that is
     * good enough for another tile is told by the sums: settle() looks at them later. */
    __device__ __forceinline__ void softmax(float (&sums)[2])
    {
        if (__any_sync(~0u, (m[0] == -INFINITY) || (m[1] == -INFINITY))) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                float top = row_max(h);
                m[h] = (m[h] == -INFINITY) ? top : m[h];
            }
        }
        exponentials(sums);
    }

    /* The scores of the tile once more, by this warp alone: settle() needs what softmax() overwrote. */
    __device__ __forceinline__ void score_again(uint32_t q_address)
    {
        uint32_t q_row = q_address + (16 * warp + lane % 16) * 128;
        uint32_t k_row = shared_address(stages.k[k_stage.index]) + lane % 8 * 128;

#pragma unroll
        for (int j = 0; j < SCORES / 4; ++j) {
            float c[4] = {};
#pragma unroll 1
            for (int step = 0; step < C::D / 32; ++step) {
                int slab = step / 2;
                int chunk = step % 2 * 4; /* of 16 bytes */
                uint32_t a[4];
                uint32_t b[4];
                load_matrices(b, k_row + slab * C::SLAB_BYTES + j * 8 * 128 +
                                     (((chunk + lane / 8) ^ (lane % 8)) << 4));
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    load_matrices(a, q_row + slab * 64 * 128 +
                                         (((chunk + 2 * i + lane / 16) ^ (lane % 8)) << 4));
                    Half<T>::product(c, a, b[2 * i], b[2 * i + 1]);
                }
            }
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                s[4 * j + e] = c[e];
            }
        }
    }

    /* Rows whose scores have outgrown their reference take the maximum for a new one; o is rescaled.
     * Then the keys of the tile are no longer needed. */
    __device__ __forceinline__ void settle(bool masked, uint32_t q_address, float (&sums)[2])
    {
        if (__any_sync(~0u, (sums[0] > SUM_MAX) || (sums[1] > SUM_MAX))) {
            score_again(q_address);
            if (masked) {
                mask();
            }
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                float now = fmaxf(m[h], row_max(h));
                float factor = exp2_approx(m[h] - ((now == -INFINITY) ? 0.0f : now));
                m[h] = now;
                l[h] *= factor;
#pragma unroll
                for (int i = 0; i < RESULTS; i += 4) {
                    o[i + 2 * h] *= factor;
                    o[i + 2 * h + 1] *= factor;
                }
            }
            exponentials(sums);
        }
        l[0] += sums[0];
        l[1] += sums[1];
        release(&shared.k_empty[k_stage.index]);
        k_stage.next();
    }

    /* The assembler would move the exponentials behind the wait for products that they are meant to
     * run beside. A branch on their sums, never taken, keeps them before it. */
    __device__ __forceinline__ void hold(const float (&sums)[2])
    {
        if (__any_sync(~0u, sums[0] + sums[1] == -1.0f)) {
            asm volatile("nanosleep.u32 0;");
        }
    }

    __device__ __forceinline__ void pack_scores()
    {
#pragma unroll
        for (int i = 0; i < SCORES; i += 2) {
            p[i / 2] = pack<T>(s[i], s[i + 1]);
        }
    }

    /* A row of the warp in [b, Hq, n]. */
    __device__ __forceinline__ int64_t state_row(const Part &part, int row) const
    {
        return part.state_row + 16 * warp + row;
    }

    /* Whether rows of this warp have a state of earlier launches. */
    __device__ __forceinline__ bool carried(const Part &part) const
    {
        return (((part.active & ~part.first) >> warp) & 1) != 0;
    }

    /* Of the unit that ends: the sums of both rows, and the reference of one, lane / 4 + 8 * (lane % 4)
     * for lane % 4 < 2. */
    struct Ending {
        float sum[2];
        float m;
    };

    __device__ __forceinline__ void next_sums(const Part &part);
    __device__ __forceinline__ void read_results(const Part &part);
    __device__ __forceinline__ Ending finish_sums() const;
    __device__ __forceinline__ void write_state(const Part &part);
    __device__ __forceinline__ void send_results(const Part &part, int batch,
                                                 const float (&sum)[2]);
    __device__ __forceinline__ void write_results(const Slot &slot, const Ending &ending);
    __device__ __forceinline__ void scores_done(bool masked);
    __device__ __forceinline__ void results_done();
};

/* m and l of the unit that comes next: of earlier launches, or of no key. */
template <class C> __device__ __forceinline__ void Consumer<C>::next_sums(const Part &part)
{
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        m[h] = -INFINITY;
        l[h] = 0.0f;
    }
    if (carried(part)) {
        const float2 *from = reinterpret_cast<const float2 *>(arguments.params.state_ml);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            int at = lane / 4 + 8 * h;
            if (16 * warp + at < part.rows) {
                float2 ml = from[state_row(part, at)];
                m[h] = ml.x;
                l[h] = (lane % 4 == 0) ? ml.y : 0.0f;
            }
        }
    }
}

template <class C> __device__ __forceinline__ void Consumer<C>::read_results(const Part &part)
{
#pragma unroll
    for (int i = 0; i < RESULTS; ++i) {
        o[i] = 0.0f;
    }
    if (carried(part)) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            int at = lane / 4 + 8 * h;
            const float *from =
                arguments.params.state_o + state_row(part, at) * C::D + 2 * (lane % 4);
            if (16 * warp + at < part.rows) {
#pragma unroll
                for (int j = 0; j < C::D / 8; ++j) {
                    float2 pair = *reinterpret_cast<const float2 *>(from + 8 * j);
                    o[4 * j + 2 * h] = pair.x;
                    o[4 * j + 2 * h + 1] = pair.y;
                }
            }
        }
    }
}

/* The sums of the unit are complete. */
template <class C>
__device__ __forceinline__ typename Consumer<C>::Ending Consumer<C>::finish_sums() const
{
    Ending ending;

#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float sum = l[h] + __shfl_xor_sync(~0u, l[h], 1);
        ending.sum[h] = sum + __shfl_xor_sync(~0u, sum, 2);
    }
    ending.m = (lane % 2 == 0) ? m[0] : m[1];
    return ending;
}

template <class C> __device__ __forceinline__ void Consumer<C>::write_state(const Part &part)
{
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        int at = lane / 4 + 8 * h;
        float *to = arguments.params.state_o + state_row(part, at) * C::D + 2 * (lane % 4);
        if (16 * warp + at < part.rows) {
#pragma unroll
            for (int j = 0; j < C::D / 8; ++j) {
                *reinterpret_cast<float2 *>(to + 8 * j) =
                    make_float2(o[4 * j + 2 * h], o[4 * j + 2 * h + 1]);
            }
        }
    }
}

/* Final results go out through the place of the unit's queries, a warp's 16 rows by one copy, which is
 * under way when this returns. */
template <class C>
__device__ __forceinline__ void Consumer<C>::send_results(const Part &part, int batch,
                                                          const float (&sum)[2])
{
    float factor[2] = {(sum[0] == 0.0f) ? 0.0f : reciprocal(sum[0]),
                       (sum[1] == 0.0f) ? 0.0f : reciprocal(sum[1])};
    uint32_t rows = shared_address(stages.q[leaving.index][group]) + warp * 16 * C::D * 2;
    uint32_t to = rows + lane % 16 * 128;

#pragma unroll
    for (int j = 0; j < C::D / 8; j += 2) {
        uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            words[i] = pack<T>(o[4 * j + 2 * i] * factor[i % 2],
                               o[4 * j + 2 * i + 1] * factor[i % 2]);
        }
        store_matrices(to + j / 8 * 16 * 128 + (((j % 8 + lane / 16) ^ (lane % 8)) << 4), words);
    }
    shared_written_fence();
    __syncwarp();
    if (lane == 0) {
        tensor_store(&arguments.o, rows, part.row + 16 * warp, part.head, batch);
        store_commit();
    }
}

template <class C>
__device__ __forceinline__ void Consumer<C>::write_results(const Slot &slot, const Ending &ending)
{
    const bsattn_attend_cuda_params_t &params = arguments.params;
    const Part &part = slot.parts[group];
    bool last = ((part.last >> warp) & 1) != 0;
    int at = lane / 4 + 8 * (lane % 4);

    if (((part.active >> warp) & 1) == 0) {
        return;
    }
    if (last) {
        send_results(part, slot.batch, ending.sum);
    } else {
        write_state(part);
    }
    /* Behind the results, whose way out waits for all that was written before. */
    if ((lane % 4 < 2) && (16 * warp + at < part.rows)) {
        int64_t to = state_row(part, at);
        float sum = (lane % 2 == 0) ? ending.sum[0] : ending.sum[1];
        if (!last) {
            reinterpret_cast<float2 *>(params.state_ml)[to] = make_float2(ending.m, sum);
        } else if (params.lse != nullptr) {
            params.lse[to] =
                (sum == 0.0f) ? -INFINITY : (ending.m + log2_approx(sum)) * LN_2;
        }
    }
}

/* The scores of a tile are there. */
template <class C> __device__ __forceinline__ void Consumer<C>::scores_done(bool masked)
{
    pin(s);
    if (masked) {
        mask();
    }
}

template <class C> __device__ __forceinline__ void Consumer<C>::results_done()
{
    pin(o);
    release(&shared.v_empty[v_stage.index]);
    v_stage.next();
}

/* The tiles of all units are one sequence: the scores of a unit's first tile are issued beside the
 * last products of the unit before, whose results are written while the next scores wait. */
template <class C>
__device__ void compute_units(const Arguments &arguments, Memory<C> &memory, int team)
{
    Stages<C> &stages = memory.stages[team];
    Shared<C> &shared = memory.shared[team];
    int thread = threadIdx.x % (C::GROUPS * 128);
    float scale = arguments.params.scale;
    Consumer<C> self = {arguments, stages, shared, team, thread / 128, thread % 128 / 32, thread % 32};
    Turn<C::Q_BUFFERS> q;
    SlotTurn turn;
    int ended = 0; /* slot of the unit whose results are in o */
    float sums[2];
    typename Consumer<C>::Ending ending;
    /* The compiler must know that all threads go the same way between products. */
    int key_tiles;
    int tile_count;
    int t = 0;

    /* Hidden scores are infinite and must stay so: no product with 0. */
    self.scale_log2 = copysignf(fmaxf(fabsf(scale) * LOG2_E, 1e-37f), scale);
    if (C::TURNS && (self.group == 1)) {
        self.turn_end();
    }

    barrier_wait(shared_address(&shared.slot_full[0]), 0);
    key_tiles = __shfl_sync(~0u, shared.slots[0].key_tiles, 0);
    tile_count = __shfl_sync(~0u, shared.slots[0].tile_count, 0);
    if (key_tiles == 0) {
        return;
    }
    self.next_sums(shared.slots[0].parts[self.group]);
    self.read_results(shared.slots[0].parts[self.group]);
    barrier_wait(shared_address(&shared.q_full[0]), 0);
    barrier_wait(shared_address(&shared.k_full[0]), 0);
    self.turn_begin();
    product_fence();
    self.issue_scores(shared_address(stages.q[0][self.group]));
    self.turn_end();
    product_wait<0>();
    self.scores_done(tile_count > 0);
    self.softmax(sums);
    self.settle(tile_count > 0, shared_address(stages.q[0][self.group]), sums);
    self.pack_scores();

#pragma unroll 1
    for (;;) {
        bool fresh = (++t == key_tiles);
        if (fresh) {
            ending = self.finish_sums();
            self.leave(); /* the place may be where the next queries are to come */
            self.release(&shared.slot_empty[turn.barrier.index]);
            ended = turn.slot.index;
            turn.next();
            q.next();
            barrier_wait(shared_address(&shared.slot_full[turn.barrier.index]),
                         turn.barrier.parity);
            key_tiles = __shfl_sync(~0u, shared.slots[turn.slot.index].key_tiles, 0);
            tile_count = __shfl_sync(~0u, shared.slots[turn.slot.index].tile_count, 0);
            if (key_tiles == 0) {
                break;
            }
            t = 0;
            barrier_wait(shared_address(&shared.q_full[q.index]), q.parity);
        }
        barrier_wait(shared_address(&shared.k_full[self.k_stage.index]), self.k_stage.parity);
        /* One tile at a time: further on, the loader may wait for values that are still in use. A
         * unit's last is never left out. */
        bool passed = C::PASSES && (t < tile_count) && (t + 1 < key_tiles) && !self.sees();
        if (passed) {
            ++t;
            self.pass_keys();
            barrier_wait(shared_address(&shared.k_full[self.k_stage.index]), self.k_stage.parity);
        }
        if (!C::VALUES_LATE) {
            self.wait_values();
        }
        self.turn_begin();
        product_fence();
        self.issue_scores(shared_address(stages.q[q.index][self.group]));
        if (C::VALUES_LATE) {
            self.wait_values();
            product_fence();
        }
        self.issue_results();
        self.turn_end();
        self.leave();
        if (fresh) {
            self.next_sums(shared.slots[turn.slot.index].parts[self.group]);
            self.queries_done();
        }
        product_wait<1>();
        self.scores_done(t < tile_count);
        self.softmax(sums);
        if (C::HOLD) {
            self.hold(sums);
        }
        product_wait<0>();
        self.results_done();
        if (passed) {
            self.pass_values();
        }
        if (fresh) {
            self.write_results(shared.slots[ended], ending);
            self.read_results(shared.slots[turn.slot.index].parts[self.group]);
            self.stored = true;
        }
        self.settle(t < tile_count, shared_address(stages.q[q.index][self.group]), sums);
        self.pack_scores();
    }
    self.wait_values();
    product_fence();
    self.issue_results();
    product_wait<0>();
    pin(self.o);
    self.queries_done();
    self.write_results(shared.slots[ended], ending);
    store_wait();
}

/* ------------------------------------------------------------------------------------------ kernel */

template <class C> __device__ __forceinline__ void init_barriers(Shared<C> &shared)
{
    const int warps = C::GROUPS * 4;

    for (int i = 0; i < 2; ++i) {
        barrier_init(shared_address(&shared.slot_full[i]), 1);
        barrier_init(shared_address(&shared.slot_empty[i]), warps + (C::FETCHER ? 1 : 0));
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

/* What a launch asks for. Small problems are launched again and again with the same parameters, and a
 * map takes the host about as long as the launch: the last ones are kept. */
int find_arguments(const bsattn_attend_cuda_params_t *params, const Arguments **arguments_p)
{
    static thread_local bsattn_attend_cuda_params_t known;
    static thread_local Arguments arguments;

    *arguments_p = &arguments;
    if (memcmp(&known, params, sizeof(known)) == 0) {
        return cudaSuccess;
    }
    memset(&known, 0, sizeof(known));
    int error = make_arguments(params, &arguments);
    if (error == cudaSuccess) {
        memcpy(&known, params, sizeof(known));
    }
    return error;
}

template <class C> int launch(const bsattn_attend_cuda_params_t *params, cudaStream_t stream)
{
    static thread_local int ready_device = -1; /* that was asked and told last */
    static thread_local int multiprocessors;
    const Arguments *arguments;
    int device;
    int error = find_arguments(params, &arguments);

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
    unsigned grid = (unsigned)((params->unit_count < multiprocessors) ? params->unit_count
                                                                      : multiprocessors);
    attend_kernel<C><<<grid, C::THREADS, Memory<C>::BYTES, stream>>>(*arguments);
    return cudaGetLastError();
}

template <typename T>
int launch_type(const bsattn_attend_cuda_params_t *params, cudaStream_t stream)
{
    bool wide = params->shape.halves == 2;

    if (params->head_dim == 64) {
        return (params->shape.passes != 0) ? launch<Config<T, 64, 2, 2, 64, 4, 4, 2, true>>(params, stream)
               : wide                      ? launch<Config<T, 64, 2, 2, 64, 4, 4, 2>>(params, stream)
                                           : launch<Config<T, 64, 4, 1, 64, 3, 2, 2>>(params, stream);
    }
    return wide ? launch<Config<T, 128, 1, 2, 128, 3, 2, 2>>(params, stream)
                : launch<Config<T, 128, 2, 1, 64, 3, 2, 2>>(params, stream);
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

/* Blocks of 64 and less fill two warpgroups with two heads of a key head, or with neighbouring rows
 * where these see mostly the same keys: the same but for a few tiles, which both work on, or for
 * some, which one passes over. Else each warpgroup goes its own way. */
bsattn_tile_shape_t attend_sm90_shape(const bsattn_problem_t *problem, double spread)
{
    int keys = (problem->head_dim == 64) ? 64 : 128;
    bsattn_tile_shape_t wide = {2, keys, 0, 0};
    bsattn_tile_shape_t passing = {2, keys, 0, 1};
    bsattn_tile_shape_t pairs = {2, keys, 1, 0};
    bsattn_tile_shape_t narrow = {1, 64, 0, 0};

    if (problem->block >= 128) {
        return wide;
    }
    if (problem->heads_q / problem->heads_kv % 2 == 0) {
        return pairs;
    }
    return (spread < 1.1)                                    ? wide
           : ((spread < 1.3) && (problem->head_dim == 64)) ? passing
                                                             : narrow;
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
