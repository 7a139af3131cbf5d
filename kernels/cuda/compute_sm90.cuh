/* SPDX-License-Identifier: Apache-2.0 */
/** @file compute_sm90.cuh  The warpgroups of attend_sm90.cu that compute: products, softmax, results. */
#ifndef BSATTN_KERNELS_CUDA_COMPUTE_SM90_CUH
#define BSATTN_KERNELS_CUDA_COMPUTE_SM90_CUH

#include "kernels/cuda/config_sm90.cuh"
#include "kernels/cuda/mma_sm80.cuh"
#include "kernels/cuda/ptx_sm90.cuh"

#include <math.h>

namespace bsattn {

/* Probabilities are relative to a reference score of their row. A thread's share of a tile may sum to
 * this much before the row takes a new reference; f16 must hold it. */
constexpr float SUM_MAX = 32768.0f;
constexpr float LOG2_E = 1.44269504088896341f;
constexpr float LN_2 = 0.69314718055994531f;

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
            if (lane == 0) { /* which sent them: only who sends can wait for it */
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

    /* Products FIRST .. LAST - 1, of 16 keys each. */
    template <int FIRST, int LAST> __device__ __forceinline__ void issue_results()
    {
        uint64_t v_matrix =
            matrix_descriptor(shared_address(stages.v[v_stage.index]), C::SLAB_BYTES);

#pragma unroll
        for (int step = FIRST; step < LAST; ++step) {
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

    /* Scores of row h to probabilities. @return the sum of this thread's */
    __device__ __forceinline__ float exponentials(int h)
    {
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
        return sum0 + sum1;
    }

    /* A row's reference is the maximum of the first tile with keys for it, and stays. Whether that is
     * good enough for another tile is told by the sums: settle() looks at them later. */
    __device__ __forceinline__ void references()
    {
        if (__any_sync(~0u, (m[0] == -INFINITY) || (m[1] == -INFINITY))) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                float top = row_max(h);
                m[h] = (m[h] == -INFINITY) ? top : m[h];
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
            sums[0] = exponentials(0);
            sums[1] = exponentials(1);
            if (C::WAITS_HALFWAY) {
                pack_row(0);
            }
        }
        l[0] += sums[0];
        l[1] += sums[1];
        release(&shared.k_empty[k_stage.index]);
        k_stage.next();
    }

    /* The assembler would move the exponentials behind the wait for products that they are meant to
     * run beside. A branch on their sum, never taken, keeps them before it. */
    __device__ __forceinline__ void hold(float sum)
    {
        if (__any_sync(~0u, sum == -1.0f)) {
            asm volatile("nanosleep.u32 0;");
        }
    }

    /* Where the state of a row of the warp is. */
    __device__ __forceinline__ int64_t state_row(const Part &part, int row) const
    {
        return part.state_row + 16 * warp + row;
    }

    /* This thread's results in the state of the warp's rows: RESULTS / 4 places, 32 apart. */
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
        const float4 *from = state_o(part);
#pragma unroll
        for (int i = 0; i < RESULTS / 4; ++i) {
            float4 four = from[32 * i];
            o[4 * i] = four.x;
            o[4 * i + 1] = four.y;
            o[4 * i + 2] = four.z;
            o[4 * i + 3] = four.w;
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
    float4 *to = state_o(part);

#pragma unroll
    for (int i = 0; i < RESULTS / 4; ++i) {
        to[32 * i] = make_float4(o[4 * i], o[4 * i + 1], o[4 * i + 2], o[4 * i + 3]);
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
        tensor_store<C::KEYS_STAY>(&arguments.o, rows, part.row + 16 * warp, part.head, batch);
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
        float sum = (lane % 2 == 0) ? ending.sum[0] : ending.sum[1];
        if (!last) {
            reinterpret_cast<float2 *>(params.state_ml)[state_row(part, at)] =
                make_float2(ending.m, sum);
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
    self.references();
    sums[0] = self.exponentials(0);
    sums[1] = self.exponentials(1);
    self.settle(tile_count > 0, shared_address(stages.q[0][self.group]), sums);
    self.pack_row(0);
    self.pack_row(1);

#pragma unroll 1
    for (;;) {
        bool fresh = (++t == key_tiles);
        if (fresh) {
            ending = self.finish_sums();
            self.leave(); /* the place may be where the next queries are to come */
            /* All lanes have read it, and each says so: racecheck knows of no other way. */
            barrier_arrive(shared_address(&shared.slot_empty[turn.barrier.index]));
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
        self.template issue_results<0, C::VALUES_AHEAD>();
        self.leave();
        if (fresh) {
            self.next_sums(shared.slots[turn.slot.index].parts[self.group]);
            self.queries_done();
        }
        product_wait<1>();
        if (C::VALUES_AHEAD < C::KEYS / 16) {
            product_fence();
            self.template issue_results<C::VALUES_AHEAD, C::KEYS / 16>();
        }
        self.turn_end();
        self.scores_done(t < tile_count);
        self.references();
        sums[0] = self.exponentials(0);
        if (!C::WAITS_HALFWAY) {
            sums[1] = self.exponentials(1);
        }
        if (C::HOLD) {
            self.hold(C::WAITS_HALFWAY ? sums[0] : sums[0] + sums[1]);
        }
        product_wait<0>();
        self.results_done();
        if (C::WAITS_HALFWAY) {
            sums[1] = self.exponentials(1);
            self.pack_row(0);
        }
        if (passed) {
            self.pass_values();
        }
        if (fresh) {
            self.write_results(shared.slots[ended], ending);
            self.read_results(shared.slots[turn.slot.index].parts[self.group]);
            self.stored = true;
            if (key_tiles <= SHORT_UNIT) {
                self.leave();
            }
        }
        self.settle(t < tile_count, shared_address(stages.q[q.index][self.group]), sums);
        if (!C::WAITS_HALFWAY) {
            self.pack_row(0);
        }
        self.pack_row(1);
    }
    self.wait_values();
    product_fence();
    self.template issue_results<0, C::KEYS / 16>();
    product_wait<0>();
    pin(self.o);
    self.queries_done();
    self.write_results(shared.slots[ended], ending);
    store_wait();
}

} // namespace bsattn

#endif
