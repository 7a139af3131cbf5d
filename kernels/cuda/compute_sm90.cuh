/* SPDX-License-Identifier: Apache-2.0 */
/** @file compute_sm90.cuh  The warpgroups of attend_sm90.cu that compute: products, softmax, results. */
#ifndef BSATTN_KERNELS_CUDA_COMPUTE_SM90_CUH
#define BSATTN_KERNELS_CUDA_COMPUTE_SM90_CUH

#include "kernels/cuda/config_sm90.cuh"
#include "kernels/cuda/mma_sm80.cuh"
#include "kernels/cuda/ptx_sm90.cuh"

#include <math.h>

namespace bsattn {

/* The reference of a row that has seen no key: the exponential of a score relative to it is infinite,
 * of a hidden one 0. */
constexpr float NO_REFERENCE = -3.0e38f;

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
    Turn<C::Q_BUFFERS> q;
    SlotTurn turn;
    int t; /* tile of the unit */
    int masked_count;
    int key_tiles;
    int ended; /* slot of the unit whose results are in o */

    float m[2];      /* the rows' references, or NO_REFERENCE */
    float l[2];      /* this thread's columns only, until the end */
    float sums[2];   /* of the tile at hand, the same columns */
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
            if (lane == 0) { /* which sent them: only who sends can wait for it */
                store_wait_read();
                barrier_arrive(shared_address(&shared.q_empty[leaving.index]));
            }
            leaving.next();
            stored = false;
        }
    }

    __device__ __forceinline__ uint32_t queries() const
    {
        return shared_address(stages.q[q.index][group]);
    }

    __device__ __forceinline__ void issue_scores()
    {
        uint64_t q_matrix = matrix_descriptor(queries(), 0);
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

    /* Products FIRST .. LAST - 1, of 16 keys each. */
    template <int FIRST, int LAST> __device__ __forceinline__ void issue_results()
    {
        uint64_t v_matrix =
            matrix_descriptor(shared_address(stages.v[v_stage.index]), C::SLAB_BYTES);

#pragma unroll
        for (int step = FIRST; step < LAST; ++step) {
            Product<T, C::D>::rs(o, p + 4 * step, v_matrix + step * 16 * 128 / 16);
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

    /* The largest of a row's scaled scores in the tile: of this thread's first COUNT / 2, and of those of
     * the three that share the row. */
    template <int COUNT> __device__ __forceinline__ float row_max(int h) const
    {
        float top = s[2 * h] * scale_log2;

#pragma unroll
        for (int i = 0; i < COUNT; i += 4) {
            top = fmaxf(top, fmaxf(s[i + 2 * h] * scale_log2, s[i + 2 * h + 1] * scale_log2));
        }
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        return fmaxf(fmaxf(top, __shfl_xor_sync(~0u, top, 2)), NO_REFERENCE);
    }

    /* Scores of row h to probabilities. */
    __device__ __forceinline__ void exponentials(int h)
    {
#pragma unroll
        for (int i = 0; i < SCORES; i += 4) {
            s[i + 2 * h] = exp2_approx(fmaf(s[i + 2 * h], scale_log2, -m[h]));
            s[i + 2 * h + 1] = exp2_approx(fmaf(s[i + 2 * h + 1], scale_log2, -m[h]));
        }
    }

    /* The sum of this thread's probabilities of row h: not along with the exponentials, which would then
     * wait for additions. */
    __device__ __forceinline__ float row_sum(int h) const
    {
        float sum[4] = {};

#pragma unroll
        for (int i = 0; i < SCORES; i += 8) {
            sum[0] += s[i + 2 * h];
            sum[1] += s[i + 2 * h + 1];
            sum[2] += s[i + 2 * h + 4];
            sum[3] += s[i + 2 * h + 5];
        }
        return (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }

    /* Scores of row 1 to probabilities, as those of row 0 are, and the sums of both. */
    __device__ __forceinline__ void second_row()
    {
        exponentials(1);
        sums[0] = row_sum(0);
        sums[1] = row_sum(1);
    }

    /* A row's reference is the maximum of the first tile with keys for it, and stays; of a tile that
     * hides nothing, the maximum of a quarter. Whether that is good enough is told by the sums, which
     * finish_tile() looks at. */
    __device__ __forceinline__ void references(bool masked)
    {
        if (__any_sync(~0u, (m[0] == NO_REFERENCE) || (m[1] == NO_REFERENCE))) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                float top = masked ? row_max<SCORES>(h) : row_max<SCORES / 4>(h);
                m[h] = (m[h] == NO_REFERENCE) ? top : m[h];
            }
        }
    }

    /* Row h as the products with V take it. */
    __device__ __forceinline__ void pack_row(int h)
    {
#pragma unroll
        for (int i = 2 * h; i < SCORES; i += 4) {
            p[i / 2] = pack<T>(s[i], s[i + 1]);
        }
    }

    /* The scores of the tile once more, by this warp alone: settle() needs what exponentials() overwrote. */
    __device__ __forceinline__ void score_again()
    {
        uint32_t q_row = queries() + (16 * warp + lane % 16) * 128;
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

    /* Rows whose scores have outgrown their reference take the maximum for a new one; o is rescaled. */
    __device__ __forceinline__ void settle()
    {
        score_again();
        if (t < masked_count) {
            mask();
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float now = fmaxf(m[h], row_max<SCORES>(h));
            float factor = exp2_approx(m[h] - now);
            m[h] = now;
            l[h] *= factor;
#pragma unroll
            for (int i = 0; i < RESULTS; i += 4) {
                o[i + 2 * h] *= factor;
                o[i + 2 * h + 1] *= factor;
            }
            exponentials(h);
            sums[h] = row_sum(h);
            pack_row(h);
        }
    }

    /* The tile's probabilities are there. Where some are too large to stay, settle() does them anew; then
     * the keys are no longer needed. */
    __device__ __forceinline__ void finish_tile()
    {
        if (__any_sync(~0u, (sums[0] > SUM_MAX) || (sums[1] > SUM_MAX))) {
            settle();
        }
        l[0] += sums[0];
        l[1] += sums[1];
        release(&shared.k_empty[k_stage.index]);
        k_stage.next();
    }

    /* The assembler would move the exponentials behind the wait for products that they are meant to
     * run beside. A branch on one of the last, never taken, keeps them before it. */
    __device__ __forceinline__ void hold(float probability)
    {
        if (__any_sync(~0u, probability == -1.0f)) {
            asm volatile("nanosleep.u32 0;");
        }
    }

    /* And it would mix them with the last products issued, whose end the other warpgroup waits for.
     * What they depend on changes in a branch that is never taken, so that they stay behind it. */
    __device__ __forceinline__ void hold_back()
    {
        if (key_tiles == -1) {
            asm volatile("nanosleep.u32 0;\n"
                         "neg.f32 %0, %0;\n"
                         "neg.f32 %1, %1;\n"
                         : "+f"(m[0]), "+f"(m[1]));
        }
    }

    /* Where the state of a row of the warp is. */
    __device__ __forceinline__ int64_t state_row(const Part &part, int row) const
    {
        return part.state_row + 16 * warp + row;
    }

    /* This thread's results in the state of the warp's rows: RESULTS / 4 places, 32 apart. They are read
     * and written once in a launch, and the first to leave the L2. */
    __device__ __forceinline__ float4 *state_o(const Part &part) const
    {
        return reinterpret_cast<float4 *>(arguments.params.state_o + state_row(part, 0) * C::D) +
               lane;
    }

    /* Whether rows of this warp have a state of earlier launches. */
    __device__ __forceinline__ bool carried(const Part &part) const
    {
        return (((part.active & ~part.first) >> warp) & 1) != 0;
    }

    /* Of the unit that ends: the sums of both rows, and the reference of one, lane / 4 + 8 * (lane % 4)
     * for lane % 4 < 2. */
    struct {
        float sum[2];
        float m;
    } ending;

    __device__ __forceinline__ void next_sums(const Part &part);
    __device__ __forceinline__ void read_results(const Part &part);
    __device__ __forceinline__ void finish_sums();
    __device__ __forceinline__ void write_state(const Part &part);
    __device__ __forceinline__ void send_results(const Part &part, int batch);
    __device__ __forceinline__ void write_results();
    __device__ __forceinline__ void scores_done(bool masked);
    __device__ __forceinline__ void results_done();
    __device__ __forceinline__ void start_unit();
    __device__ __forceinline__ void next_unit();
    __device__ __forceinline__ bool first_tile();
    template <bool PLAIN> __device__ __forceinline__ void tile();
    __device__ __forceinline__ void last_results();

    /* The next tile is one of the same unit and hides nothing, as did one before it. */
    __device__ __forceinline__ bool next_is_plain() const
    {
        return (t + 1 < key_tiles) && (t + 1 > masked_count);
    }
};

/* m and l of the unit that comes next: of earlier launches, or of no key. */
template <class C> __device__ __forceinline__ void Consumer<C>::next_sums(const Part &part)
{
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        m[h] = NO_REFERENCE;
        l[h] = 0.0f;
    }
    if (carried(part)) {
        const float2 *from = reinterpret_cast<const float2 *>(arguments.params.state_ml);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            int at = lane / 4 + 8 * h;
            if (16 * warp + at < part.rows) {
                float2 ml = from[state_row(part, at)];
                m[h] = fmaxf(ml.x, NO_REFERENCE);
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
        const float4 *from = state_o(part);
#pragma unroll
        for (int i = 0; i < RESULTS / 4; ++i) {
            float4 four = __ldcs(from + 32 * i);
            o[4 * i] = four.x;
            o[4 * i + 1] = four.y;
            o[4 * i + 2] = four.z;
            o[4 * i + 3] = four.w;
        }
    }
}

/* The sums of the unit are complete. */
template <class C> __device__ __forceinline__ void Consumer<C>::finish_sums()
{
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float sum = l[h] + __shfl_xor_sync(~0u, l[h], 1);
        ending.sum[h] = sum + __shfl_xor_sync(~0u, sum, 2);
    }
    ending.m = (lane % 2 == 0) ? m[0] : m[1];
}

template <class C> __device__ __forceinline__ void Consumer<C>::write_state(const Part &part)
{
    float4 *to = state_o(part);

#pragma unroll
    for (int i = 0; i < RESULTS / 4; ++i) {
        __stcs(to + 32 * i,
               make_float4(o[4 * i], o[4 * i + 1], o[4 * i + 2], o[4 * i + 3]));
    }
}

/* Final results go out through the place of the unit's queries, a warp's 16 rows by one copy, which is
 * under way when this returns. */
template <class C>
__device__ __forceinline__ void Consumer<C>::send_results(const Part &part, int batch)
{
    const float(&sum)[2] = ending.sum;
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
        tensor_store<C::KEYS_STAY>(&arguments.o, rows, part.row + 16 * warp, part.head, batch);
        store_commit();
    }
}

template <class C> __device__ __forceinline__ void Consumer<C>::write_results()
{
    const Slot &slot = shared.slots[ended];
    const bsattn_attend_cuda_params_t &params = arguments.params;
    const Part &part = slot.parts[group];
    bool last = ((part.last >> warp) & 1) != 0;
    int at = lane / 4 + 8 * (lane % 4);

    if (((part.active >> warp) & 1) == 0) {
        return;
    }
    if (last) {
        send_results(part, slot.batch);
    } else {
        write_state(part);
    }
    /* Behind the results, whose way out waits for all that was written before. */
    if ((lane % 4 < 2) && (16 * warp + at < part.rows)) {
        float sum = (lane % 2 == 0) ? ending.sum[0] : ending.sum[1];
        if (!last) {
            reinterpret_cast<float2 *>(params.state_ml)[state_row(part, at)] =
                make_float2((ending.m == NO_REFERENCE) ? -INFINITY : ending.m, sum);
        } else if (part.lse != nullptr) {
            part.lse[16 * warp + at] =
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

/* Read a unit's length. */
template <class C> __device__ __forceinline__ void Consumer<C>::start_unit()
{
    const Slot &slot = shared.slots[turn.slot.index];

    barrier_wait(shared_address(&shared.slot_full[turn.barrier.index]), turn.barrier.parity);
    /* The compiler must know that all threads go the same way between products. */
    key_tiles = __shfl_sync(~0u, slot.key_tiles, 0);
    masked_count = __shfl_sync(~0u, slot.masked_count, 0);
    t = 0;
}

/* @return false if there is no unit at all */
template <class C> __device__ __forceinline__ bool Consumer<C>::first_tile()
{
    start_unit();
    if (key_tiles == 0) {
        return false;
    }
    next_sums(shared.slots[0].parts[group]);
    read_results(shared.slots[0].parts[group]);
    barrier_wait(shared_address(&shared.q_full[0]), 0);
    barrier_wait(shared_address(&shared.k_full[0]), 0);
    turn_begin();
    product_fence();
    issue_scores();
    turn_end();
    product_wait<0>();
    scores_done(masked_count > 0);
    references(masked_count > 0);
    exponentials(0);
    second_row();
    pack_row(0);
    pack_row(1);
    finish_tile();
    return true;
}

/* On to the unit after. */
template <class C> __device__ __forceinline__ void Consumer<C>::next_unit()
{
    leave(); /* the place may be where the next queries are to come */
    /* All lanes have read it, and each says so: racecheck knows of no other way. */
    barrier_arrive(shared_address(&shared.slot_empty[turn.barrier.index]));
    ended = turn.slot.index;
    turn.next();
    q.next();
    start_unit();
    if (key_tiles != 0) {
        barrier_wait(shared_address(&shared.q_full[q.index]), q.parity);
    }
}

/* Scores of the next tile, results of the one before, probabilities. Behind the last tile of all there
 * is a unit without tiles.
 * @param PLAIN  next_is_plain(): nothing is to be done for a unit, a mask or the first reference */
template <class C>
template <bool PLAIN>
__device__ __forceinline__ void Consumer<C>::tile()
{
    bool fresh = false;
    bool passed = false;

    ++t;
    if (!PLAIN) {
        fresh = (t == key_tiles);
        if (fresh) {
            next_unit();
            if (key_tiles == 0) {
                return;
            }
        }
    }
    barrier_wait(shared_address(&shared.k_full[k_stage.index]), k_stage.parity);
    if (!PLAIN) {
        /* One tile at a time: further on, the loader may wait for values that are still in use. A
         * unit's last is never left out. */
        passed = C::PASSES && (t < masked_count) && (t + 1 < key_tiles) && !sees();
        if (passed) {
            ++t;
            pass_keys();
            barrier_wait(shared_address(&shared.k_full[k_stage.index]), k_stage.parity);
        }
    }
    if (!C::VALUES_LATE) {
        wait_values();
    }
    turn_begin();
    product_fence();
    issue_scores();
    if (C::VALUES_LATE) {
        wait_values();
        product_fence();
    }
    issue_results<0, C::VALUES_AHEAD>();
    leave();
    if (fresh) {
        finish_sums();
        next_sums(shared.slots[turn.slot.index].parts[group]);
        queries_done();
    }
    product_wait<1>();
    if (C::VALUES_AHEAD < C::KEYS / 16) {
        product_fence();
        issue_results<C::VALUES_AHEAD, C::KEYS / 16>();
    }
    turn_end();
    scores_done(!PLAIN && (t < masked_count));
    if (PLAIN) {
        hold_back();
    } else {
        references(t < masked_count);
    }
    exponentials(0);
    if (!C::WAITS_HALFWAY) {
        second_row();
    }
    if (C::HOLD) {
        hold(s[SCORES - (C::WAITS_HALFWAY ? 3 : 1)]);
    }
    product_wait<0>();
    results_done();
    if (C::WAITS_HALFWAY) {
        second_row();
    }
    pack_row(0);
    pack_row(1);
    if (passed) {
        pass_values();
    }
    if (fresh) {
        write_results();
        read_results(shared.slots[turn.slot.index].parts[group]);
        stored = true;
        if (key_tiles <= SHORT_UNIT) {
            leave();
        }
    }
    finish_tile();
}

/* Those of the last unit. */
template <class C> __device__ __forceinline__ void Consumer<C>::last_results()
{
    wait_values();
    product_fence();
    issue_results<0, C::KEYS / 16>();
    product_wait<0>();
    pin(o);
    queries_done();
    finish_sums();
    write_results();
    store_wait();
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
    /* That all lanes have the same the compiler must be told: descriptors are in uniform registers. */
    int group = __shfl_sync(~0u, thread / 128, 0);
    Consumer<C> self = {arguments, stages, shared, team, group, thread % 128 / 32, thread % 32};

    self.scale_log2 = copysignf(fmaxf(fabsf(scale) * LOG2_E, LEAST_FACTOR), scale);
    if (C::TURNS && (self.group == 1)) {
        self.turn_end();
    }
    if (!self.first_tile()) {
        return;
    }
    /* Most tiles are plain and have a loop of their own: instructions that are passed over must be
     * fetched all the same, and that takes longer than what they would do. */
    for (;;) {
        if (self.next_is_plain()) {
            self.template tile<true>();
        } else {
            self.template tile<false>();
            if (self.key_tiles == 0) {
                break;
            }
        }
    }
    self.last_results();
}

} // namespace bsattn

#endif
