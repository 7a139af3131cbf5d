/* SPDX-License-Identifier: Apache-2.0 */
/* Attention for Ampere and everything later: products of a warp (mma) out of shared memory that
 * asynchronous copies fill.
 *
 * A CTA stays on its multiprocessor and takes unit after unit from a counter. Its warps have 16 or
 * 32 query rows each and walk the unit's key tiles together. With two stages the keys and values of
 * the next tile arrive while one is worked on; with one stage, where that lets more CTAs share a
 * multiprocessor, values arrive under the scores and the next keys under the rest. Several CTAs on
 * a multiprocessor run the exponentials of one under the products of the other. */
#include "kernels/attend_cuda.h"
#include "kernels/cuda/mma_sm80.cuh"
#include "kernels/cuda/unit.cuh"

#include <atomic>
#include <cuda_runtime.h>
#include <math.h>

using namespace bsattn;

namespace {

/* Probabilities are relative to a reference score of their row. Where the maximum of a tile is computed, it
 * becomes the new reference if it exceeds the old one by more than this (in log2). With two stages it is
 * computed only if a thread's sum of probabilities passes SUM_MAX. */
constexpr float MAX_LAG = 8.0f;

constexpr int KEYS = 64;                       /* of a tile */
constexpr int SQUARES = KEYS / 16;             /* in a row of squares of a tile */
constexpr uint32_t ALL_SQUARES = (1u << SQUARES) - 1;
constexpr int RING = 4;                        /* descriptions of tiles and runs at hand */
constexpr int DEVICES_MAX = 64;

/* A unit of work. Tile t of the list is tile_ring[t % RING], run r is run_ring[r % RING]. */
struct Slot {
    alignas(16) bsattn_key_tile_t tile_ring[RING];
    alignas(16) bsattn_tile_run_t run_ring[RING];
    const bsattn_key_tile_t *tiles;
    const bsattn_tile_run_t *runs;
    int64_t key_offset; /* elements from the start of K and V to row 0 of the key head */
    int64_t key_rows;
    int32_t row[2];
    int32_t state_row[2];
    int32_t head[2];
    int32_t batch;
    int32_t tile_count;
    int32_t run_count;
    int32_t key_tiles; /* 0: no more units */
    uint8_t active;
    uint8_t first;
    uint8_t last;
};

/* D: elements of a row in shared memory; those behind head_dim are zeros. BANDS: of 16 query rows,
 * of a warp. STAGES: 1 or 2. CTAS: at least, as far as registers go, on a multiprocessor. */
template <typename T, int D_, int BANDS_, int STAGES_, int CTAS_> struct Config {
    using Element = T;
    static constexpr int D = D_, BANDS = BANDS_, STAGES = STAGES_, CTAS = CTAS_;
    static constexpr int WARPS = 4;
    static constexpr int THREADS = 32 * WARPS;
    static constexpr int ROWS = 16 * WARPS * BANDS;
    static constexpr int PITCH = 2 * D;       /* bytes of a row */
    static constexpr int CHUNKS = PITCH / 16; /* of a row */
    static constexpr int PASS = THREADS / CHUNKS; /* rows that all threads copy at a time */
    static constexpr int Q_BYTES = ROWS * PITCH;
    static constexpr int TILE_BYTES = KEYS * PITCH;

    static constexpr int BYTES = Q_BYTES + STAGES * 2 * TILE_BYTES;

    static_assert((16 % PASS == 0) && (D % 64 == 0), "the copies assume it");
};

/* Chunks of 16 bytes in eight neighbouring rows swap places, so that a column of chunks touches all
 * banks: chunk c of row r is at place c ^ (r % 8). */
__device__ __forceinline__ constexpr uint32_t chunk_offset(int pitch, int row, int chunk)
{
    return (uint32_t)(row * pitch + ((chunk ^ (row & 7)) << 4));
}

/* From the address of chunk c (0 or 1) of a row to that of chunk c + 2 * step. The low bits of the
 * step flip address bits, because c ^ (r % 8) ^ 2s is (c + 2s) ^ (r % 8) for s < 4. */
__device__ __forceinline__ uint32_t step_address(uint32_t address, int step)
{
    return (address ^ (uint32_t)((step & 3) << 5)) + (uint32_t)((step >> 2) * 128);
}

/* -------------------------------------------------------------------------------- fetching work */

__device__ void read_unit(const bsattn_attend_cuda_params_t &params, uint32_t unit, Slot &slot)
{
    if (unit >= params.unit_count) {
        slot.key_tiles = 0;
        return;
    }
    bsattn_unit_t found = bsattn_unit_at(params, unit);
    bsattn_tile_item_t item = found.list->items[found.item];
    bsattn_key_head_t keys = params.key_heads[found.head[0] / (params.heads_q / params.heads_kv)];

    slot.tiles = found.list->tiles + item.tile_first;
    slot.runs = found.list->runs + item.run_first;
    slot.key_offset = found.batch * params.key_batch_stride + keys.offset;
    slot.key_rows = keys.rows;
    for (int h = 0; h < 2; ++h) {
        slot.row[h] = item.row[h];
        slot.state_row[h] = item.state_row[h];
        slot.head[h] = found.head[h];
    }
    slot.batch = found.batch;
    slot.tile_count = item.tile_count;
    slot.run_count = item.run_count;
    slot.key_tiles = item.key_tiles;
    slot.active = item.active;
    slot.first = item.first;
    slot.last = item.last;
    if (item.tile_count > 0) {
        slot.tile_ring[0] = slot.tiles[0];
    }
    for (int r = 0; (r < item.run_count) && (r < 2); ++r) {
        slot.run_ring[r] = slot.runs[r];
    }
}

/* -------------------------------------------------------------------------------------- loading */

/* What one thread copies: one chunk of every PASS-th row. */
template <class C> struct Lane {
    int row; /* in a pass */
    int chunk;

    __device__ __forceinline__ Lane()
    {
        int thread = thread_index();

        row = thread / C::CHUNKS;
        chunk = thread % C::CHUNKS;
    }

    __device__ __forceinline__ uint32_t place(int pass) const
    {
        return chunk_offset(C::PITCH, row + pass * C::PASS, chunk);
    }
};

template <class C> struct Loader {
    const bsattn_attend_cuda_params_t &params;
    uint32_t memory; /* Q, then K and V of each stage */
    int run;     /* of the unit, that the next tile of a run belongs to */
    int run_at;  /* tile of that run */
    int run_row; /* of the last tile of a run whose keys were asked for */

    __device__ __forceinline__ uint32_t keys_at(int stage) const
    {
        return memory + C::Q_BYTES + stage * 2 * C::TILE_BYTES;
    }

    __device__ __forceinline__ uint32_t values_at(int stage) const
    {
        return keys_at(stage) + C::TILE_BYTES;
    }

    /* What copies never write must read as zeros. */
    __device__ void clear() const
    {
        Lane<C> lane;

        if (8 * lane.chunk >= params.head_dim) {
            for (int i = 0; i < (C::ROWS + C::STAGES * 2 * KEYS) / C::PASS; ++i) {
                copy_16(memory + lane.place(i), params.q, 0);
            }
        }
    }

    __device__ __forceinline__ void load_queries(const Slot &slot) const
    {
        int64_t stride = (int64_t)params.heads_q * params.head_dim;
        Lane<C> lane;

        if (8 * lane.chunk >= params.head_dim) {
            return;
        }
#pragma unroll
        for (int half = 0; half < C::ROWS / BSATTN_TILE_HALF; ++half) {
            int first = slot.row[half] + lane.row;
            const uint16_t *from = static_cast<const uint16_t *>(params.q) +
                                   slot.batch * params.tokens * stride +
                                   slot.head[half] * params.head_dim + 8 * lane.chunk;
#pragma unroll
            for (int i = 0; i < BSATTN_TILE_HALF / C::PASS; ++i) {
                int64_t at = first + i * C::PASS;
                bool real = at < params.tokens;
                copy_16(memory + lane.place(half * (BSATTN_TILE_HALF / C::PASS) + i),
                        from + (real ? at : 0) * stride, real ? 16 : 0);
            }
        }
    }

    /* Scores of a negative scale: change the sign of what this thread copied. */
    __device__ void negate_queries() const
    {
        constexpr uint32_t SIGNS = 0x80008000;
        Lane<C> lane;

        for (int i = 0; i < C::ROWS / C::PASS; ++i) {
            uint4 x = shared_load_16(memory + lane.place(i));
            x.x ^= SIGNS;
            x.y ^= SIGNS;
            x.z ^= SIGNS;
            x.w ^= SIGNS;
            shared_store_16(memory + lane.place(i), x);
        }
    }

    /* Of a masked tile: 16 rows each from where it says, and zeros for what does not exist. */
    __device__ __forceinline__ void load_masked(const Slot &slot, uint32_t to, const void *from,
                                                int tile) const
    {
        Lane<C> lane;
        int4 first = *reinterpret_cast<const int4 *>(slot.tile_ring[tile % RING].key_row);
        int first_of[SQUARES] = {first.x, first.y, first.z, first.w};
        const uint16_t *base =
            static_cast<const uint16_t *>(from) + slot.key_offset + 8 * lane.chunk;
        int rows = (int)((slot.key_rows < BSATTN_TILE_NO_KEYS) ? slot.key_rows
                                                               : BSATTN_TILE_NO_KEYS);
#pragma unroll
        for (int i = 0; i < KEYS / C::PASS; ++i) {
            int at = first_of[i * C::PASS / 16] + (i * C::PASS) % 16 + lane.row;
            bool real = at < rows;
            copy_16(to + lane.place(i), base + (int64_t)(real ? at : 0) * params.key_row_stride,
                    real ? 16 : 0);
        }
    }

    /* Of a tile of a run: all its rows exist, one after the other. */
    __device__ __forceinline__ void load_full(const Slot &slot, uint32_t to, const void *from) const
    {
        Lane<C> lane;
        const uint16_t *at = static_cast<const uint16_t *>(from) + slot.key_offset +
                             8 * lane.chunk + (run_row + lane.row) * params.key_row_stride;
        int64_t step = C::PASS * params.key_row_stride;

#pragma unroll
        for (int i = 0; i < KEYS / C::PASS; ++i) {
            copy_16(to + lane.place(i), at, 16);
            at += step;
        }
    }

    __device__ __forceinline__ void load_rows(const Slot &slot, uint32_t to, const void *from,
                                              int tile) const
    {
        Lane<C> lane;

        if (8 * lane.chunk >= params.head_dim) {
            return;
        }
        if (tile < slot.tile_count) {
            load_masked(slot, to, from, tile);
        } else {
            load_full(slot, to, from);
        }
    }

    /* Ask for the keys of a tile. Tiles must be asked for in order. */
    __device__ __forceinline__ void load_keys(Slot &slot, int tile, int stage)
    {
        if (tile >= slot.tile_count) {
            bsattn_tile_run_t now = slot.run_ring[run % RING];
            run_row = now.key_row + run_at * KEYS;
            ++run_at;
            if (run_at == now.tile_count) {
                run_at = 0;
                ++run;
                if ((thread_index() == 0) && (run + 1 < slot.run_count)) {
                    copy_8(shared_address(&slot.run_ring[(run + 1) % RING]), slot.runs + run + 1);
                }
            }
        }
        load_rows(slot, keys_at(stage), params.k, tile);
    }

    /* Ask for the values of the tile whose keys were asked for last, and what the next needs. */
    __device__ __forceinline__ void load_values(Slot &slot, int tile, int stage)
    {
        int next = tile + 1;

        if (next < slot.tile_count) {
            int thread = thread_index();
            if (thread < (int)sizeof(bsattn_key_tile_t) / 16) {
                copy_16(shared_address(&slot.tile_ring[next % RING]) + 16 * thread,
                        reinterpret_cast<const char *>(slot.tiles + next) + 16 * thread, 16);
            }
        }
        load_rows(slot, values_at(stage), params.v, tile);
    }

    /* Ask for all that the first tile of a unit needs before its first barrier. */
    __device__ __forceinline__ void begin(Slot &slot)
    {
        run = 0;
        run_at = 0;
        load_queries(slot);
        load_keys(slot, 0, 0);
        if (C::STAGES == 2) {
            load_values(slot, 0, 0);
        }
    }
};

/* ------------------------------------------------------------------------------------ computing */

/* How much of a key tile a warp sees. */
enum Sight { SIGHT_NONE, SIGHT_PART, SIGHT_FULL };

/* What a warp sees of a masked key tile: bit j of band b's masks is for keys 16j ... */
template <int BANDS> struct View {
    uint32_t visible[BANDS];
    uint32_t mixed[BANDS]; /* squares that are visible in part */
    uint32_t diagonal[BANDS];
    int limit;
};

/* One warp and its query rows of the unit at hand. Index h of a thread's rows: lane / 4 and 8 more
 * in a band. */
template <class C> struct Worker {
    using T = typename C::Element;
    static constexpr int BANDS = C::BANDS;
    static constexpr int STEPS = C::D / 16; /* along a row */

    const bsattn_attend_cuda_params_t &params;
    uint32_t memory; /* Q */

    float m[BANDS][2]; /* the rows' references; -inf: no key yet */
    float l[BANDS][2]; /* this thread's columns only, until the end */
    float o[BANDS][C::D / 8][4];

    /* Of one tile; not members, so that they are known to end with it. */
    using Scores = float[BANDS][KEYS / 8][4];
    using Weights = uint32_t[BANDS][SQUARES][4]; /* fragments A */
    using Sums = float[BANDS][2];

    __device__ __forceinline__ int lane() const
    {
        return thread_index() % 32;
    }

    /* Of the query tile's bands, this warp's first. */
    __device__ __forceinline__ int band_first() const
    {
        return thread_index() / 32 * BANDS;
    }

    /* What this lane gives to ldmatrix, so that its four matrices are
     * of Q (and of V): rows 0..7 and 8..15 of the first chunk, then of the second; */
    __device__ __forceinline__ uint32_t q_address() const
    {
        int lane = this->lane();

        return memory + chunk_offset(C::PITCH, 16 * band_first() + lane % 16, lane / 16);
    }

    __device__ __forceinline__ uint32_t v_address(uint32_t values) const
    {
        int lane = this->lane();

        return values + chunk_offset(C::PITCH, lane % 16, lane / 16);
    }

    /* of K: both chunks of keys 0..7, then both of keys 8..15. */
    __device__ __forceinline__ uint32_t k_address(uint32_t keys) const
    {
        int lane = this->lane();

        return keys + chunk_offset(C::PITCH, lane % 8 + lane / 16 * 8, lane / 8 % 2);
    }

    __device__ __forceinline__ void add(const Sums &sums)
    {
#pragma unroll
        for (int b = 0; b < BANDS; ++b) {
            l[b][0] += sums[b][0];
            l[b][1] += sums[b][1];
        }
    }

    __device__ __forceinline__ View<C::BANDS> view(const Slot &slot, int tile) const;
    __device__ __forceinline__ Sight sight(const Slot &slot, int tile) const;
    __device__ __forceinline__ void scores_full(Scores &s, uint32_t keys);
    __device__ __forceinline__ void scores_part(Scores &s, uint32_t keys,
                                                const View<BANDS> &view);
    __device__ __forceinline__ void hide(Scores &s, int band, int square,
                                         const View<BANDS> &view);
    __device__ __forceinline__ bool lacks_reference() const;
    __device__ __forceinline__ void take_references(const Scores &s);
    __device__ __forceinline__ void weigh(const Scores &s, Weights &p, Sums &sums) const;
    __device__ __forceinline__ bool outgrown(const Sums &sums) const;
    __device__ __forceinline__ void results_full(const Weights &p, uint32_t values);
    __device__ __forceinline__ void results_part(const Weights &p, uint32_t values,
                                                 const View<BANDS> &view);
    __device__ __forceinline__ bool square_is_finite(uint32_t values, int square) const;
    __device__ __forceinline__ void add_square(const Weights &p, uint32_t values, int band,
                                               int square, const View<BANDS> &view);
    __device__ __forceinline__ void begin(const Slot &slot);
    __device__ __forceinline__ void write_state(const Slot &slot, int band, int h);
    __device__ __forceinline__ void write_result(const Slot &slot, int band, int h);
    __device__ __forceinline__ void write(const Slot &slot);

    /* Of tokens: this thread's first row of a band. */
    __device__ __forceinline__ int row_of(const Slot &slot, int band) const
    {
        int tile_row = 16 * (band_first() + band);

        return slot.row[tile_row / BSATTN_TILE_HALF] + tile_row % BSATTN_TILE_HALF + lane() / 4;
    }

    /* Where the state of that row + 8 * h is, among all of [b, Hq, state_rows]. */
    __device__ __forceinline__ int64_t state_of(const Slot &slot, int band, int h) const
    {
        int tile_row = 16 * (band_first() + band);
        int64_t stream = (int64_t)slot.batch * params.heads_q + head_of(slot, band);

        return stream * params.state_rows + slot.state_row[tile_row / BSATTN_TILE_HALF] +
               tile_row % BSATTN_TILE_HALF + lane() / 4 + 8 * h;
    }

    __device__ __forceinline__ int head_of(const Slot &slot, int band) const
    {
        return slot.head[16 * (band_first() + band) / BSATTN_TILE_HALF];
    }
};

template <class C>
__device__ __forceinline__ View<C::BANDS> Worker<C>::view(const Slot &slot, int tile) const
{
    const bsattn_key_tile_t &at = slot.tile_ring[tile % RING];
    View<BANDS> result;
    int band_first = this->band_first();

    result.limit = at.key_limit;
    int squares = max(result.limit, 0) / 16; /* that are not cut by the limit */
    uint32_t whole = (squares < SQUARES) ? (1u << squares) - 1 : ALL_SQUARES;
#pragma unroll
    for (int b = 0; b < BANDS; ++b) {
        int shift = 8 * (band_first + b);
        result.visible[b] = (uint32_t)(at.visible >> shift) & ALL_SQUARES;
        result.diagonal[b] = (uint32_t)(at.diagonal >> shift) & ALL_SQUARES;
        result.mixed[b] = result.visible[b] & (result.diagonal[b] | ~whole);
    }
    return result;
}

/* The same for all lanes. */
template <class C>
__device__ __forceinline__ Sight Worker<C>::sight(const Slot &slot, int tile) const
{
    uint32_t seen = 0;
    bool full = true;

    if (((slot.active >> band_first()) & ((1u << BANDS) - 1)) == 0) {
        return SIGHT_NONE;
    }
    if (tile >= slot.tile_count) {
        return SIGHT_FULL;
    }
    View<BANDS> at = view(slot, tile);
#pragma unroll
    for (int b = 0; b < BANDS; ++b) {
        full = full && (at.visible[b] == ALL_SQUARES) && (at.mixed[b] == 0);
        seen |= at.visible[b];
    }
    return full ? SIGHT_FULL : (seen != 0) ? SIGHT_PART : SIGHT_NONE;
}

template <class C>
__device__ __forceinline__ void Worker<C>::scores_full(Scores &s, uint32_t keys)
{
    uint32_t q_lane = q_address();
    uint32_t k_lane = k_address(keys);

#pragma unroll
    for (int b = 0; b < BANDS; ++b) {
#pragma unroll
        for (int i = 0; i < KEYS / 8; ++i) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                s[b][i][e] = 0.0f;
            }
        }
    }
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        uint32_t q[BANDS][4];
        uint32_t at = step_address(k_lane, step);
#pragma unroll
        for (int b = 0; b < BANDS; ++b) {
            load_matrices(q[b], step_address(q_lane, step) + b * 16 * C::PITCH);
        }
#pragma unroll
        for (int j = 0; j < SQUARES; ++j) {
            uint32_t k[4];
            load_matrices(k, at + j * 16 * C::PITCH);
#pragma unroll
            for (int b = 0; b < BANDS; ++b) {
                Half<T>::product(s[b][2 * j], q[b], k[0], k[1]);
                Half<T>::product(s[b][2 * j + 1], q[b], k[2], k[3]);
            }
        }
    }
}

/* Scores of a square that is seen in part, or not at all. */
template <class C>
__device__ __forceinline__ void Worker<C>::hide(Scores &s, int band, int square,
                                                const View<BANDS> &view)
{
    bool diagonal = ((view.diagonal[band] >> square) & 1) != 0;
    int lane = this->lane();
    int column = 2 * (lane % 4);
    int end = view.limit - 16 * square; /* columns from here on are hidden */

    if (((view.visible[band] >> square) & 1) == 0) {
        end = 0;
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        int row_end = diagonal ? min(end, lane / 4 + 8 * h + 1) : end;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float *x = &s[band][2 * square + i][2 * h + e];
                *x = (8 * i + column + e < row_end) ? *x : -INFINITY;
            }
        }
    }
}

/* Squares that no band sees are left out. */
template <class C>
__device__ __forceinline__ void Worker<C>::scores_part(Scores &s, uint32_t keys,
                                                       const View<BANDS> &view)
{
    uint32_t q_lane = q_address();
    uint32_t k_lane = k_address(keys);
    uint32_t seen = 0;

#pragma unroll
    for (int b = 0; b < BANDS; ++b) {
        seen |= view.visible[b];
    }
#pragma unroll
    for (int j = 0; j < SQUARES; ++j) {
#pragma unroll
        for (int b = 0; b < BANDS; ++b) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                s[b][2 * j][e] = 0.0f;
                s[b][2 * j + 1][e] = 0.0f;
            }
        }
        if (((seen >> j) & 1) != 0) {
#pragma unroll
            for (int step = 0; step < STEPS; ++step) {
                uint32_t k[4];
                load_matrices(k, step_address(k_lane, step) + j * 16 * C::PITCH);
#pragma unroll
                for (int b = 0; b < BANDS; ++b) {
                    uint32_t q[4];
                    load_matrices(q, step_address(q_lane, step) + b * 16 * C::PITCH);
                    Half<T>::product(s[b][2 * j], q, k[0], k[1]);
                    Half<T>::product(s[b][2 * j + 1], q, k[2], k[3]);
                }
            }
        }
#pragma unroll
        for (int b = 0; b < BANDS; ++b) {
            hide(s, b, j, view);
        }
    }
}

/* Of a score to what is taken 2 to the power of. */
__device__ __forceinline__ float scale_of(const bsattn_attend_cuda_params_t &params)
{
    return fmaxf(fabsf(unknown(params.scale)) * LOG2_E, LEAST_FACTOR);
}

/* Whether any row of the warp has had no key yet. */
template <class C> __device__ __forceinline__ bool Worker<C>::lacks_reference() const
{
    bool lacks = false;

#pragma unroll
    for (int b = 0; b < BANDS; ++b) {
        lacks = lacks || (m[b][0] == -INFINITY) || (m[b][1] == -INFINITY);
    }
    return __any_sync(~0u, lacks) != 0;
}

/* Rows whose scores have outgrown their reference take the maximum for a new one; what was summed
 * with the old one is rescaled. */
template <class C> __device__ __forceinline__ void Worker<C>::take_references(const Scores &s)
{
    float scale_log2 = scale_of(params);

#pragma unroll
    for (int b = 0; b < BANDS; ++b) {
        float factor[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float top = fmaxf(s[b][0][2 * h], s[b][0][2 * h + 1]);
#pragma unroll
            for (int i = 1; i < KEYS / 8; ++i) {
                top = fmaxf(top, fmaxf(s[b][i][2 * h], s[b][i][2 * h + 1]));
            }
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2)) * scale_log2;
            float now = (top > m[b][h] + MAX_LAG) ? top : m[b][h];
            factor[h] = exp2_approx(m[b][h] - ((now == -INFINITY) ? 0.0f : now));
            m[b][h] = now;
            l[b][h] *= factor[h];
        }
        if (__any_sync(~0u, (factor[0] != 1.0f) || (factor[1] != 1.0f))) {
#pragma unroll
            for (int i = 0; i < C::D / 8; ++i) {
                o[b][i][0] *= factor[0];
                o[b][i][1] *= factor[0];
                o[b][i][2] *= factor[1];
                o[b][i][3] *= factor[1];
            }
        }
    }
}

/* Turn scores into probabilities. sums: of this thread's. */
template <class C>
__device__ __forceinline__ void Worker<C>::weigh(const Scores &s, Weights &p, Sums &sums) const
{
    float scale_log2 = scale_of(params);

#pragma unroll
    for (int b = 0; b < BANDS; ++b) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float base = (m[b][h] == -INFINITY) ? 0.0f : m[b][h];
            float sum0 = 0.0f;
            float sum1 = 0.0f;
#pragma unroll
            for (int i = 0; i < KEYS / 8; ++i) {
                float x0 = exp2_approx(fmaf(s[b][i][2 * h], scale_log2, -base));
                float x1 = exp2_approx(fmaf(s[b][i][2 * h + 1], scale_log2, -base));
                sum0 += x0;
                sum1 += x1;
                p[b][i / 2][2 * (i % 2) + h] = pack<T>(x0, x1);
            }
            sums[b][h] = sum0 + sum1;
        }
    }
}

template <class C> __device__ __forceinline__ bool Worker<C>::outgrown(const Sums &sums) const
{
    bool large = false;

#pragma unroll
    for (int b = 0; b < BANDS; ++b) {
        large = large || (sums[b][0] > SUM_MAX) || (sums[b][1] > SUM_MAX);
    }
    return __any_sync(~0u, large) != 0;
}

template <class C>
__device__ __forceinline__ void Worker<C>::results_full(const Weights &p, uint32_t values)
{
    uint32_t v_lane = v_address(values);

#pragma unroll
    for (int j = 0; j < SQUARES; ++j) {
#pragma unroll
        for (int step = 0; step < STEPS; ++step) {
            uint32_t v[4];
            load_matrices_transposed(v, step_address(v_lane, step) + j * 16 * C::PITCH);
#pragma unroll
            for (int b = 0; b < BANDS; ++b) {
                Half<T>::product(o[b][2 * step], p[b][j], v[0], v[1]);
                Half<T>::product(o[b][2 * step + 1], p[b][j], v[2], v[3]);
            }
        }
    }
}

/* Whether all values of the square's 16 keys are finite. */
template <class C>
__device__ __forceinline__ bool Worker<C>::square_is_finite(uint32_t values, int square) const
{
    constexpr uint32_t LOW = Half<T>::EXPONENT;
    constexpr uint32_t HIGH = LOW << 16;
    uint32_t at = values + square * 16 * C::PITCH + lane() * 16;
    bool finite = true;

#pragma unroll
    for (int i = 0; i < C::PITCH / 32; ++i) {
        uint4 x = shared_load_16(at + i * 512);
        uint32_t words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            finite = finite && ((words[k] & LOW) != LOW) && ((words[k] & HIGH) != HIGH);
        }
    }
    return __all_sync(~0u, finite) != 0;
}

/* One key after the other, each for the rows that see it only: zero times a value that is not
 * finite would not be zero. Slow and rare. */
template <class C>
__device__ __forceinline__ void Worker<C>::add_square(const Weights &p, uint32_t values,
                                                      int band, int square,
                                                      const View<BANDS> &view)
{
    bool diagonal = ((view.diagonal[band] >> square) & 1) != 0;
    int end = min(view.limit - 16 * square, 16);
    int lane = this->lane();
    uint32_t words[4] = {};

#pragma unroll
    for (int j = 0; j < SQUARES; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            words[e] = (j == square) ? p[band][j][e] : words[e];
        }
    }
#pragma unroll 1
    for (int key = 0; key < end; ++key) {
        int row = 16 * square + key;
        int from = (lane & ~3) | (key % 8 / 2);
        uint32_t p0 = __shfl_sync(~0u, (key < 8) ? words[0] : words[2], from);
        uint32_t p1 = __shfl_sync(~0u, (key < 8) ? words[1] : words[3], from);
        float x0 = Half<T>::unpack(((key & 1) != 0) ? p0 >> 16 : p0 & 0xFFFF);
        float x1 = Half<T>::unpack(((key & 1) != 0) ? p1 >> 16 : p1 & 0xFFFF);
        bool sees0 = !diagonal || (key <= lane / 4);
        bool sees1 = !diagonal || (key <= lane / 4 + 8);
#pragma unroll
        for (int i = 0; i < C::D / 8; ++i) {
            uint32_t at = values + chunk_offset(C::PITCH, row, i) + 4 * (lane % 4);
            uint32_t pair = shared_load_4(at);
            float y0 = Half<T>::unpack(pair & 0xFFFF);
            float y1 = Half<T>::unpack(pair >> 16);
            o[band][i][0] = sees0 ? fmaf(x0, y0, o[band][i][0]) : o[band][i][0];
            o[band][i][1] = sees0 ? fmaf(x0, y1, o[band][i][1]) : o[band][i][1];
            o[band][i][2] = sees1 ? fmaf(x1, y0, o[band][i][2]) : o[band][i][2];
            o[band][i][3] = sees1 ? fmaf(x1, y1, o[band][i][3]) : o[band][i][3];
        }
    }
}

/* Squares that a band does not see are left out: their values may be anything. */
template <class C>
__device__ __forceinline__ void Worker<C>::results_part(const Weights &p, uint32_t values,
                                                        const View<BANDS> &view)
{
    uint32_t v_lane = v_address(values);
    uint32_t careful = 0; /* squares */
    uint32_t mixed = 0;

#pragma unroll
    for (int b = 0; b < BANDS; ++b) {
        mixed |= view.mixed[b];
    }
#pragma unroll 1
    for (int j = 0; (mixed >> j) != 0; ++j) {
        if ((((mixed >> j) & 1) != 0) && !square_is_finite(values, j)) {
            careful |= 1u << j;
        }
    }
#pragma unroll
    for (int b = 0; b < BANDS; ++b) {
        uint32_t plain = view.visible[b] & ~(view.mixed[b] & careful);
#pragma unroll
        for (int j = 0; j < SQUARES; ++j) {
            if (((plain >> j) & 1) == 0) {
                continue;
            }
#pragma unroll
            for (int step = 0; step < STEPS; ++step) {
                uint32_t v[4];
                load_matrices_transposed(v, step_address(v_lane, step) + j * 16 * C::PITCH);
                Half<T>::product(o[b][2 * step], p[b][j], v[0], v[1]);
                Half<T>::product(o[b][2 * step + 1], p[b][j], v[2], v[3]);
            }
        }
        if ((view.mixed[b] & careful) == 0) {
            continue;
        }
#pragma unroll 1
        for (int j = 0; j < SQUARES; ++j) {
            if (((view.mixed[b] & careful) >> j & 1) != 0) {
                add_square(p, values, b, j, view);
            }
        }
    }
}

/* --------------------------------------------------------------------------- the ends of a unit */

template <class C> __device__ __forceinline__ void Worker<C>::begin(const Slot &slot)
{
    int band_first = this->band_first();
    int lane = this->lane();

#pragma unroll
    for (int b = 0; b < BANDS; ++b) {
        int bit = band_first + b;
        bool fresh = (((slot.first >> bit) & 1) != 0) || (((slot.active >> bit) & 1) == 0);
#pragma unroll
        for (int i = 0; i < C::D / 8; ++i) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                o[b][i][e] = 0.0f;
            }
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            int row = row_of(slot, b) + 8 * h;
            m[b][h] = -INFINITY;
            l[b][h] = 0.0f;
            if (fresh || (row >= params.tokens)) {
                continue;
            }
            int64_t at = state_of(slot, b, h);
            float2 ml = reinterpret_cast<const float2 *>(params.state_ml)[at];
            m[b][h] = ml.x;
            l[b][h] = (lane % 4 == 0) ? ml.y : 0.0f;
            const float *from = params.state_o + at * params.head_dim + 2 * (lane % 4);
#pragma unroll
            for (int i = 0; i < C::D / 8; ++i) {
                if (8 * i < params.head_dim) {
                    float2 pair = *reinterpret_cast<const float2 *>(from + 8 * i);
                    o[b][i][2 * h] = pair.x;
                    o[b][i][2 * h + 1] = pair.y;
                }
            }
        }
    }
}

template <class C>
__device__ __forceinline__ void Worker<C>::write_state(const Slot &slot, int band, int h)
{
    int lane = this->lane();
    int64_t at = state_of(slot, band, h);
    float *to = params.state_o + at * params.head_dim + 2 * (lane % 4);

    if (row_of(slot, band) + 8 * h >= params.tokens) {
        return;
    }
#pragma unroll
    for (int i = 0; i < C::D / 8; ++i) {
        if (8 * i < params.head_dim) {
            *reinterpret_cast<float2 *>(to + 8 * i) =
                make_float2(o[band][i][2 * h], o[band][i][2 * h + 1]);
        }
    }
    if (lane % 4 == 0) {
        reinterpret_cast<float2 *>(params.state_ml)[at] = make_float2(m[band][h], l[band][h]);
    }
}

template <class C>
__device__ __forceinline__ void Worker<C>::write_result(const Slot &slot, int band, int h)
{
    int64_t row = row_of(slot, band) + 8 * h;
    int lane = this->lane();
    bool real = row < params.tokens;
    int head = head_of(slot, band);
    float sum = l[band][h];
    float inverse = (sum == 0.0f) ? 0.0f : 1.0f / sum;
    T *to = static_cast<T *>(params.o) +
            (((int64_t)slot.batch * params.tokens + row) * params.heads_q + head) *
                params.head_dim;

#pragma unroll
    for (int i = 0; i < C::D / 8; i += 4) {
        uint32_t words[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            words[k] = pack<T>(o[band][i + k][2 * h] * inverse,
                                     o[band][i + k][2 * h + 1] * inverse);
        }
        uint4 chunk = quad_transpose(words, lane % 4);
        int column = 8 * (i + lane % 4);
        if (real && (column < params.head_dim)) {
            *reinterpret_cast<uint4 *>(to + column) = chunk;
        }
    }
    if (real && (lane % 4 == 0) && (params.lse != nullptr)) {
        params.lse[((int64_t)slot.batch * params.heads_q + head) * params.tokens + row] =
            (sum == 0.0f) ? -INFINITY : (m[band][h] + log2f(sum)) * LN_2;
    }
}

template <class C> __device__ __forceinline__ void Worker<C>::write(const Slot &slot)
{
#pragma unroll
    for (int b = 0; b < BANDS; ++b) {
        int bit = band_first() + b;
        if (((slot.active >> bit) & 1) == 0) {
            continue;
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            l[b][h] += __shfl_xor_sync(~0u, l[b][h], 1);
            l[b][h] += __shfl_xor_sync(~0u, l[b][h], 2);
            if (((slot.last >> bit) & 1) != 0) {
                write_result(slot, b, h);
            } else {
                write_state(slot, b, h);
            }
        }
    }
}

/* --------------------------------------------------------------------------------------- kernel */

/* With one stage: the tile's values are there and its keys are no longer needed. Warps come here
 * from different places. */
template <class C>
__device__ __forceinline__ void turn_stage(Loader<C> &loader, Slot &slot, int tile)
{
    if (C::STAGES == 1) {
        copy_wait();
        barrier();
        if (tile + 1 < slot.key_tiles) {
            loader.load_keys(slot, tile + 1, 0);
        }
    }
}

/* One tile for one warp, which sees all of it if FULL, else some. A row's reference is the maximum of
 * the first tile with keys for it, and stays. Whether that is good enough for another tile is told by
 * the sums of its exponentials; if it is not, the tile is scored once more. With one stage its keys
 * are gone by then, and the maximum is looked for in every tile. */
template <bool FULL, class C>
__device__ __forceinline__ void attend_tile(Worker<C> &worker, Loader<C> &loader, Slot &slot,
                                            int tile)
{
    int stage = tile % C::STAGES;
    bool look = C::STAGES == 1;
    typename Worker<C>::Weights p;
    typename Worker<C>::Sums sums;

#pragma unroll 1
    for (;;) {
        typename Worker<C>::Scores s;
        if (FULL) {
            worker.scores_full(s, loader.keys_at(stage));
        } else {
            worker.scores_part(s, loader.keys_at(stage), worker.view(slot, tile));
        }
        turn_stage(loader, slot, tile);
        if (look || worker.lacks_reference()) {
            worker.take_references(s);
        }
        worker.weigh(s, p, sums);
        if (look || !worker.outgrown(sums)) {
            break;
        }
        look = true;
    }
    worker.add(sums);
    if (FULL) {
        worker.results_full(p, loader.values_at(stage));
    } else {
        worker.results_part(p, loader.values_at(stage), worker.view(slot, tile));
    }
}

/* The key tiles of a unit whose first copies are under way. Leaves when all threads' copies are
 * complete, but not all warps need be done with them.
 * @return thread 0: the number of the unit after this one, asked for under the last tile */
template <class C>
__device__ __forceinline__ uint32_t walk(Worker<C> &worker, Loader<C> &loader, Slot &slot,
                                         const bsattn_dealing_t &dealing)
{
    uint32_t taken = 0;

#pragma unroll 1
    for (int t = 0; t < slot.key_tiles; ++t) {
        copy_wait();
        if ((t == 0) && (loader.params.scale < 0.0f)) {
            loader.negate_queries();
        }
        __syncthreads();
        if (C::STAGES == 1) {
            loader.load_values(slot, t, 0);
        } else if (t + 1 < slot.key_tiles) {
            loader.load_keys(slot, t + 1, (t + 1) % C::STAGES);
            loader.load_values(slot, t + 1, (t + 1) % C::STAGES);
        }
        if ((t + 1 == slot.key_tiles) && (thread_index() == 0)) {
            taken = bsattn_units_take(loader.params.counters, dealing);
        }
        Sight sight = worker.sight(slot, t);
        if (sight == SIGHT_FULL) {
            attend_tile<true>(worker, loader, slot, t);
        } else if (sight == SIGHT_PART) {
            attend_tile<false>(worker, loader, slot, t);
        } else {
            turn_stage(loader, slot, t);
        }
    }
    return taken;
}

struct Arguments {
    bsattn_attend_cuda_params_t params;
    bsattn_dealing_t dealing;
};

template <class C>
__global__ void __launch_bounds__(C::THREADS, C::CTAS)
    attend_kernel(const __grid_constant__ Arguments arguments)
{
    extern __shared__ __align__(1024) uint8_t memory[];
    const bsattn_attend_cuda_params_t &params = arguments.params;
    const bsattn_dealing_t &dealing = arguments.dealing;
    __shared__ Slot slots[2];
    Loader<C> loader = {params, shared_address(memory)};
    Worker<C> worker = {params, shared_address(memory)};

    if (thread_index() == 0) {
        read_unit(params,
                  bsattn_units_dealt(dealing, 1) ? blockIdx.x
                                                 : bsattn_units_take(params.counters, dealing),
                  slots[0]);
    }
    __syncthreads();
    bool more = slots[0].key_tiles != 0;
    if (more) {
        loader.clear();
        loader.begin(slots[0]);
    }
#pragma unroll 1
    for (int turn = 0; more; turn ^= 1) {
        worker.begin(slots[turn]);
        uint32_t unit = walk(worker, loader, slots[turn], dealing);
        if (thread_index() == 0) {
            read_unit(params, unit, slots[turn ^ 1]);
        }
        __syncthreads();
        more = slots[turn ^ 1].key_tiles != 0;
        if (more) {
            loader.begin(slots[turn ^ 1]);
        }
        worker.write(slots[turn]);
    }
    if (thread_index() == 0) {
        bsattn_units_end(params.counters, dealing);
    }
}

/* ----------------------------------------------------------------------------------------- host */

/* How many CTAs of a kernel are resident at a time, on one multiprocessor and on all; 0 if one does not
 * fit. */
template <class C> cudaError_t count_places(int device, int *per_multiprocessor_p, int *all_p)
{
    int bytes_max = 0;
    int multiprocessors = 0;
    cudaError_t error =
        cudaDeviceGetAttribute(&bytes_max, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);

    *per_multiprocessor_p = 0;
    *all_p = 0;
    if (error == cudaSuccess) {
        error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
    }
    if ((error != cudaSuccess) || (C::BYTES + (int)sizeof(Slot) * 2 + 1024 > bytes_max)) {
        return error;
    }
    error = cudaFuncSetAttribute(attend_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 C::BYTES);
    if (error == cudaSuccess) {
        error = cudaFuncSetAttribute(attend_kernel<C>,
                                     cudaFuncAttributePreferredSharedMemoryCarveout,
                                     cudaSharedmemCarveoutMaxShared);
    }
    if (error == cudaSuccess) {
        error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
            per_multiprocessor_p, attend_kernel<C>, C::THREADS, C::BYTES);
    }
    *all_p = multiprocessors * *per_multiprocessor_p;
    return error;
}

/* Places for CTAs on a device, and whether it is B that has them; 0: not known yet. */
struct Plan {
    int places;
    uint16_t per_multiprocessor;
    uint16_t is_b;
};

/* A, or B if that lets more CTAs share a multiprocessor. */
template <class A, class B>
int prepare(const bsattn_attend_cuda_params_t *params, int spare, bsattn_cuda_launch_t *launch)
{
    /* By device. Whoever comes first finds out, several at a time find the same. */
    static std::atomic<Plan> plans[DEVICES_MAX];
    int device = 0;
    cudaError_t error = cudaGetDevice(&device);

    if (error != cudaSuccess) {
        return error;
    }
    Plan plan = {};
    if (device < DEVICES_MAX) {
        plan = plans[device].load(std::memory_order_acquire);
    }
    if (plan.places == 0) {
        int a, a_all, b, b_all;
        error = count_places<A>(device, &a, &a_all);
        if (error == cudaSuccess) {
            error = count_places<B>(device, &b, &b_all);
        }
        if (error != cudaSuccess) {
            return error;
        }
        plan = (b > a) ? Plan{b_all, (uint16_t)b, 1} : Plan{a_all, (uint16_t)a, 0};
        if (plan.places == 0) {
            return cudaErrorLaunchOutOfResources;
        }
        if (device < DEVICES_MAX) {
            plans[device].store(plan, std::memory_order_release);
        }
    }
    bool is_b = plan.is_b != 0;
    static_assert(sizeof(Arguments) <= sizeof(launch->argument), "room for them");
    Arguments *arguments = reinterpret_cast<Arguments *>(launch->argument);
    arguments->params = *params;
    /* Where CTAs share multiprocessors the GPU spreads them, and fewer leave none free. */
    arguments->dealing = bsattn_deal(params->unit_count, plan.places,
                                     (plan.per_multiprocessor == 1) ? spare : 0, 1, launch);
    launch->function = is_b ? reinterpret_cast<const void *>(attend_kernel<B>)
                            : reinterpret_cast<const void *>(attend_kernel<A>);
    launch->threads = is_b ? B::THREADS : A::THREADS;
    launch->shared_bytes = is_b ? B::BYTES : A::BYTES;
    return cudaSuccess;
}

template <class A>
int prepare(const bsattn_attend_cuda_params_t *params, int spare, bsattn_cuda_launch_t *launch)
{
    return prepare<A, A>(params, spare, launch);
}

template <typename T>
int prepare_type(const bsattn_attend_cuda_params_t *params, int spare, bsattn_cuda_launch_t *launch)
{
    bool wide = params->shape.halves == 2;

    if (params->head_dim <= 64) {
        return wide ? prepare<Config<T, 64, 2, 2, 3>>(params, spare, launch)
                    : prepare<Config<T, 64, 1, 2, 4>>(params, spare, launch);
    }
    if (params->head_dim <= 128) {
        return wide ? prepare<Config<T, 128, 2, 2, 2>, Config<T, 128, 2, 1, 2>>(params, spare, launch)
                    : prepare<Config<T, 128, 1, 1, 3>>(params, spare, launch);
    }
    return wide ? (int)cudaErrorInvalidValue : prepare<Config<T, 256, 1, 1, 2>>(params, spare, launch);
}

int attend_sm80_prepare(const bsattn_attend_cuda_params_t *params, int spare,
                        bsattn_cuda_launch_t *launch)
{
    if ((params->head_dim % 8 != 0) || (params->head_dim < 16) || (params->head_dim > 256) ||
        (params->shape.key_tile != KEYS)) {
        return cudaErrorInvalidValue;
    }
    return (params->dtype == BSATTN_BF16)  ? prepare_type<__nv_bfloat16>(params, spare, launch)
           : (params->dtype == BSATTN_F16) ? prepare_type<__half>(params, spare, launch)
                                           : (int)cudaErrorInvalidValue;
}

/* As for Hopper (attend_sm90.cu), with one warp's rows instead of a warpgroup's: halves that see
 * different keys would leave half of the warps idle. */
bsattn_tile_shape_t attend_sm80_shape(const bsattn_problem_t *problem, bool pairs, double spread)
{
    bsattn_tile_shape_t wide = {2, KEYS, 0, 0};
    bsattn_tile_shape_t paired = {2, KEYS, 1, 0};
    bsattn_tile_shape_t narrow = {1, KEYS, 0, 0};

    if (problem->head_dim > 128) {
        return narrow;
    }
    if (problem->block >= 128) {
        return wide;
    }
    if (pairs) {
        return paired;
    }
    return (spread < 1.1) ? wide : narrow;
}

} // namespace

extern "C" {

const bsattn_cuda_kernel_t bsattn_attend_sm80 = {"sm80", attend_sm80_shape, attend_sm80_prepare};
}
