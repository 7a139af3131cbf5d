/* SPDX-License-Identifier: Apache-2.0 */
/** @file load_sm90.cuh  The threads of attend_sm90.cu that fetch units of work and load their tiles. */
#ifndef BSATTN_KERNELS_CUDA_LOAD_SM90_CUH
#define BSATTN_KERNELS_CUDA_LOAD_SM90_CUH

#include "kernels/cuda/config_sm90.cuh"
#include "kernels/cuda/ptx_sm90.cuh"
#include "kernels/cuda/unit.cuh"

namespace bsattn {

/* --------------------------------------------------------------------------------- fetching work */

static __device__ Part read_part(const bsattn_attend_cuda_params_t &params,
                                 const bsattn_unit_t &unit, const bsattn_tile_item_t &item, int h)
{
    Part part;
    int64_t rows = params.tokens - item.row[h];

    part.row = item.row[h];
    part.head = unit.head[h];
    int64_t stream = (int64_t)unit.batch * params.heads_q + part.head;
    part.lse = (params.lse == nullptr) ? nullptr : params.lse + stream * params.tokens + part.row;
    part.state_row = stream * params.state_rows + item.state_row[h];
    part.rows = (int32_t)((rows < BSATTN_TILE_HALF) ? rows : BSATTN_TILE_HALF);
    part.active = (item.active >> 4 * h) & 0xF;
    part.first = (item.first >> 4 * h) & 0xF;
    part.last = (item.last >> 4 * h) & 0xF;
    return part;
}

static __device__ void read_unit(const bsattn_attend_cuda_params_t &params, uint32_t unit, Slot &slot)
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
    slot.masked_count = item.masked_count;
    slot.key_tiles = item.key_tiles;
}

/* ---------------------------------------------------------------------------------------- loading */

/* Bring near the results of earlier launches that a unit goes on from: as late as its first keys, since
 * much of what comes earlier has left the L2 again before it is read. */
template <class C>
__device__ __forceinline__ void prefetch_state(const bsattn_attend_cuda_params_t &params,
                                               const Slot &slot)
{
#pragma unroll 1
    for (int g = 0; g < C::GROUPS; ++g) {
        const Part &part = slot.parts[g];
        if (((part.active & ~part.first) != 0) && (part.rows > 0)) {
            uint32_t groups = (part.rows + BSATTN_TILE_GROUP - 1) / BSATTN_TILE_GROUP;
            uint32_t rows = groups * BSATTN_TILE_GROUP;
            bulk_prefetch(params.state_o + part.state_row * C::D, rows * C::D * sizeof(float));
        }
    }
}

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
                        maps + run_map + MAP_K_TILE - MAP_K_RUN, full, row, head, tile.batch, slab);
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

    /* Queries come from memory, and where units are short they cannot come before they are wanted. */
    __device__ __forceinline__ void prefetch_queries(const Slot &slot)
    {
        if (C::FETCHER && (slot.key_tiles > 0) && (slot.key_tiles <= NEAR_UNIT)) {
#pragma unroll 1
            for (int g = 0; g < C::GROUPS; ++g) {
                tensor_prefetch(&arguments.q, slot.parts[g].row, slot.parts[g].head, slot.batch);
            }
        }
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

    __device__ __forceinline__ uint32_t take()
    {
        return bsattn_units_take(arguments.params.counters, arguments.dealing);
    }

    __device__ __forceinline__ bool publish_first(int team)
    {
        /* The first teams of all CTAs come first: few units spread over all multiprocessors. */
        return publish(bsattn_units_dealt(arguments.dealing, C::TEAMS)
                           ? (uint32_t)team * gridDim.x + blockIdx.x
                           : take());
    }

    /* A unit is taken once there is room for it: a team holds one in reserve, not two. */
    __device__ __forceinline__ bool publish_next()
    {
        const Slot &slot = shared.slots[turn.slot.index];

        wait_for_slot();
        bool more = publish(take());
        prefetch_queries(slot);
        return more;
    }

    __device__ __forceinline__ void end()
    {
        bsattn_units_end(arguments.params.counters, arguments.dealing);
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
    const Slot *late;  /* the unit whose queries come behind its first keys, or NULL */
    bool short_before; /* the unit before was short */

    /* @param mask  of a tile whose mask is looked at, else NULL */
    __device__ __forceinline__ void keys(const TileSource &tile, const bsattn_key_tile_t *mask)
    {
        uint32_t full = shared_address(&shared.k_full[k_stage.index]);

        barrier_wait(shared_address(&shared.k_empty[k_stage.index]), k_stage.parity ^ 1);
        barrier_arrive_expect(full, C::TILE_BYTES + ((mask != nullptr) ? sizeof(*mask) : 0));
        if (mask != nullptr) {
            bulk_load(shared_address(&shared.masks[k_stage.index]), mask, sizeof(*mask), full);
        }
        load_tile<C>(arguments, tile, MAP_K_RUN, shared_address(stages.k[k_stage.index]), full);
        k_stage.next();
    }

    __device__ __forceinline__ void values(const TileSource &tile)
    {
        uint32_t full = shared_address(&shared.v_full[v_stage.index]);

        barrier_wait(shared_address(&shared.v_empty[v_stage.index]), v_stage.parity ^ 1);
        barrier_arrive_expect(full, C::TILE_BYTES);
        load_tile<C>(arguments, tile, MAP_V_RUN, shared_address(stages.v[v_stage.index]), full);
        v_stage.next();
    }

    /* A tile's values come behind the next one's keys where keys have a stage more: that is the order in
     * which stages become free. The next unit is fetched once they are full: what that takes is then
     * covered. */
    __device__ __forceinline__ void load(const TileSource &tile, const bsattn_key_tile_t *mask)
    {
        keys(tile, mask);
        if (C::TURNS && (late != nullptr)) {
            flush();
            queries(*late);
            late = nullptr;
        }
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

    __device__ __forceinline__ void gathered_tiles(const Slot &slot, TileSource tile)
    {
#pragma unroll 1
        for (int t = 0; t < slot.tile_count; ++t) {
            const bsattn_key_tile_t *from = slot.tiles + t;

            prefetch(from + 1); /* may be another item's, or nobody's: an address is all it takes */
            if (arguments.params.granule == C::KEYS) {
                tile.row = from->key_row[0];
            } else {
                tile.rows = from->key_row;
            }
            load(tile, (t < slot.masked_count) ? from : nullptr);
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

    __device__ __forceinline__ void queries(const Slot &slot)
    {
        uint32_t full = shared_address(&shared.q_full[q.index]);

        barrier_wait(shared_address(&shared.q_empty[q.index]), q.parity ^ 1);
        barrier_arrive_expect(full, C::GROUPS * C::Q_BYTES);
#pragma unroll
        for (int g = 0; g < C::GROUPS; ++g) {
            tensor_load<C::KEYS_STAY>(shared_address(stages.q[q.index][g]), &arguments.q, full,
                                      slot.parts[g].row, slot.parts[g].head, slot.batch, 0);
        }
        q.next();
        prefetch_state<C>(arguments.params, slot);
    }

    /* After a short unit the place of queries becomes free later than the stages of the first keys and of the
     * late values, since results are still stored out of it: those are loaded first. */
    __device__ __forceinline__ void unit(const Slot &slot)
    {
        TileSource tile = {slot.key_head, slot.batch, nullptr, 0};

        if (arguments.head_maps != nullptr) {
            acquire_maps(arguments.head_maps + slot.key_head * MAPS_PER_HEAD, slot.key_head);
        }
        if (C::TURNS && short_before) {
            late = &slot;
        } else {
            queries(slot);
        }
        short_before = slot.key_tiles <= SHORT_UNIT;
        until_fetch = min(C::V_STAGES, slot.key_tiles);
        gathered_tiles(slot, tile);
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
    loader.late = nullptr;
    loader.short_before = false;

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

} // namespace bsattn

#endif
