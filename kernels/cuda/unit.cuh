/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file unit.cuh
 * The order in which units of work are numbered (attend_cuda.h): within a list by groups of
 * stream_group streams, within a group item by item, longest first, streams of the group together.
 * Units with near numbers run at the same time and share their keys through the L2.
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

/** For one thread of each that takes units, when there are none left: the last leaves the counters as the
 *  next launch wants them.
 *  @param takers  how many take units in this launch */
static __device__ __forceinline__ void bsattn_units_end(uint32_t *counters, uint32_t takers)
{
    __threadfence();
    if (atomicAdd(counters + 1, 1u) == takers - 1) {
        counters[0] = 0;
        counters[1] = 0;
    }
}

#endif
