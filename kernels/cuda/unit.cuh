/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file unit.cuh
 * The order in which units of work are numbered (attend_cuda.h): within a list by groups of
 * stream_group streams, within a group item by item, longest first, streams of the group together.
 * Units with near numbers run at the same time and share their keys through the L2. And how they are
 * dealt to those that take them.
 */
#ifndef BSATTN_KERNELS_CUDA_UNIT_CUH
#define BSATTN_KERNELS_CUDA_UNIT_CUH

#include "kernels/attend_cuda.h"

/** One item for one stream. */
typedef struct bsattn_unit {
    const bsattn_tile_list_t *list; /**< device memory */
    int item;                       /**< into list->items */
    int batch;                      /**< batch item */
    int head[2];                    /**< query head of each half; the same twice if not paired */
} bsattn_unit_t;

/** @param unit  0 .. params.unit_count - 1 */
static __device__ __forceinline__ bsattn_unit_t
bsattn_unit_at(const bsattn_attend_cuda_params_t &params, uint32_t unit)
{
    /* In 32 bits, and divisions that are known beforehand are left out: who fetches units is waited
     * for. */
    bsattn_unit_t result;
    int at = 0;

    while ((at + 1 < params.list_count) && (unit >= params.lists[at + 1].unit_first)) {
        ++at;
    }
    const bsattn_tile_list_t *list = &params.lists[at];
    uint32_t batch_count = (uint32_t)params.batch;
    uint32_t stream_heads = (uint32_t)list->stream_heads;
    uint32_t streams = batch_count * stream_heads;
    uint32_t group_streams = min((uint32_t)list->stream_group, streams);
    uint32_t group_units = group_streams * (uint32_t)list->item_count;
    uint32_t in_list = unit - (uint32_t)list->unit_first;
    uint32_t group = (in_list < group_units) ? 0 : in_list / group_units;
    uint32_t stream_first = group * group_streams;
    uint32_t in_group = min(streams - stream_first, group_streams);
    uint32_t rest = in_list - group * group_units;
    uint32_t item = rest / in_group;
    uint32_t stream = stream_first + (rest - item * in_group);
    uint32_t batch = (batch_count == 1) ? 0 : stream / stream_heads;
    uint32_t pair = stream - batch * stream_heads;

    result.list = list;
    result.item = (int)item;
    result.batch = (int)batch;
    result.head[0] = list->heads[2 * pair];
    result.head[1] = list->heads[2 * pair + 1];
    return result;
}

/** How units come to those that take them: a CTA, or a team of one. */
typedef struct bsattn_dealing {
    uint32_t dealt;  /**< the first units, one to each taker of the first launch by its number; all others
                          by the counter */
    uint32_t takers; /**< of both launches where there are two */
} bsattn_dealing_t;

/** Divide the places that a device has for CTAs.
 *  @param places  CTAs that are resident at a time
 *  @param spare   of these, to be left to others at first; less than half are
 *  @param teams   takers of a CTA
 *  @param launch  receives ctas and late_ctas */
static inline bsattn_dealing_t bsattn_deal(int64_t unit_count, int places, int spare, int teams,
                                           bsattn_cuda_launch_t *launch)
{
    bsattn_dealing_t dealing;
    int most_spare = (places - 1) / 2; /* the first launch is told by its size from the second */
    unsigned most = (unsigned)(places - ((spare < most_spare) ? spare : most_spare));
    unsigned all = (unsigned)((unit_count < places) ? unit_count : places);

    launch->ctas = (all < most) ? all : most;
    dealing.dealt = launch->ctas * (unsigned)teams;
    launch->late_ctas = (unit_count > dealing.dealt) ? all - launch->ctas : 0;
    dealing.takers = (launch->ctas + launch->late_ctas) * (unsigned)teams;
    return dealing;
}

/** @param teams  takers of a CTA
 *  @return whether this CTA is of the first launch */
static __device__ __forceinline__ bool bsattn_units_dealt(const bsattn_dealing_t &dealing,
                                                          uint32_t teams)
{
    return gridDim.x * teams == dealing.dealt;
}

/** @return the number of the next unit; there may be no such unit */
static __device__ __forceinline__ uint32_t bsattn_units_take(uint32_t *counters,
                                                             const bsattn_dealing_t &dealing)
{
    return dealing.dealt + atomicAdd(counters, 1u);
}

/** For one thread of each that takes units, when there are none left: the last leaves the counters as the
 *  next launch wants them. */
static __device__ __forceinline__ void bsattn_units_end(uint32_t *counters,
                                                        const bsattn_dealing_t &dealing)
{
    __threadfence();
    if (atomicAdd(counters + 1, 1u) == dealing.takers - 1) {
        __threadfence(); /* what the others took is taken */
        counters[0] = 0;
        counters[1] = 0;
    }
}

#endif
