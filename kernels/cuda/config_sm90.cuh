/* SPDX-License-Identifier: Apache-2.0 */
/** @file config_sm90.cuh  How a CTA of attend_sm90.cu is laid out: what a launch is given, what a team
 *  knows of a unit, the kernel's variants, shared memory, rings. */
#ifndef BSATTN_KERNELS_CUDA_CONFIG_SM90_CUH
#define BSATTN_KERNELS_CUDA_CONFIG_SM90_CUH

#include "kernels/attend_cuda.h"
#include "kernels/cuda/unit.cuh"

#include <cuda.h>

namespace bsattn {

enum { MAP_K_RUN, MAP_V_RUN, MAP_K_TILE, MAP_V_TILE, MAPS_PER_HEAD };

struct Arguments {
    CUtensorMap q;
    CUtensorMap o;
    CUtensorMap keys[MAPS_PER_HEAD];
    const CUtensorMap *head_maps; /* [Hk, MAPS_PER_HEAD], or NULL: keys, with the head a coordinate */
    bsattn_attend_cuda_params_t params;
    bsattn_dealing_t dealing;
};

/* The rows of a unit that one warpgroup works on. */
struct Part {
    float *lse;        /* of row; may be NULL */
    int64_t state_row; /* of row, among all of [b, Hq, state_rows] */
    int32_t row;
    int32_t head;
    int32_t rows;   /* from row on; the rest do not exist */
    uint8_t active; /* bit per warp */
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
    int32_t masked_count; /* of them, those whose masks count */
    int32_t key_tiles; /* 0: no more units */
};

/* A unit of at most SHORT_UNIT key tiles ends before the next unit's queries can be there, unless the results
 * before it give their place back at once. Those of a unit of at most NEAR_UNIT key tiles are prefetched into
 * the L2 when it is fetched. */
enum { SHORT_UNIT = 2, NEAR_UNIT = 4 };

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
    /* The products with V are waited for between the exponentials of a thread's two rows: V is given back
     * earlier, and the first row is packed under the second's exponentials. With four warpgroups of which
     * none passes that was measured to be slower. */
    static constexpr bool WAITS_HALFWAY = (TEAMS * GROUPS == 2) || PASSES;
    /* Exponentials must not wait for products; where two halves go their own ways it makes no odds. */
    static constexpr bool HOLD = !PASSES;
    /* How many of the KEYS / 16 products of probabilities and values are issued right behind those of
     * queries and keys. The queue is short: issuing all of them would last until after the scores are
     * there. */
    static constexpr int VALUES_AHEAD = TURNS ? 6 : KEYS / 16;
    /* Queries and results are to leave the L2 before keys and values do; where halves pass, that was
     * measured to be slower. */
    static constexpr bool KEYS_STAY = !PASSES;
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

} // namespace bsattn

#endif
