/* SPDX-License-Identifier: Apache-2.0 */
/* An H200 as predictions see it; in every build: a job can be planned where there is none. */
#include "backend/variants.h"
#include "kernels/attend_cuda.h"

/* Nominal: 16-bit products of the fast kernels, fp32 ones of the plain kernel, one direction of
 * NVLink, and what NCCL holds (BENCHMARKS.md, memory). */
static const double flops_per_s = 600e12;
static const double flops_f32_per_s = 4e12;
static const double link_bytes_per_s = 400e9;
static const double link_latency_s = 10e-6;
static const int64_t exchange_bytes = INT64_C(1040) << 20;
static const int64_t hop_bytes = INT64_C(24) << 20;

const int64_t bsattn_cuda_context_bytes = INT64_C(520) << 20;

static size_t scratch_bytes(int head_dim, int block)
{
    (void)head_dim, (void)block;
    return 0;
}

/* What the lists will be is known once they are cut; this is good to about a third for lists of
 * some length. A query tile of two halves takes its share of query blocks. Blocks as large as a key
 * tile make runs, and a masked tile for the diagonal; smaller ones share masked tiles, about as
 * many as would fit in one. */
static int64_t list_bytes(const bsattn_demand_t *demand, const bsattn_schedule_counts_t *counts)
{
    const int64_t rows = 2 * (int64_t)BSATTN_TILE_HALF;
    const bsattn_problem_t *problem = &demand->pattern->problem;
    int64_t items = (counts->items * problem->block + rows - 1) / rows;
    int64_t masked = counts->runs * problem->block / BSATTN_TILE_KEYS;
    int64_t runs = counts->runs;

    if (problem->block >= BSATTN_TILE_KEYS) {
        masked = problem->causal ? items : 0;
        runs = runs * problem->block / rows;
    }
    return items * (int64_t)sizeof(bsattn_tile_item_t) +
           masked * (int64_t)sizeof(bsattn_key_tile_t) +
           runs * (int64_t)sizeof(bsattn_tile_run_t) +
           counts->empty_rows * (int64_t)sizeof(int32_t);
}

bsattn_machine_t bsattn_backend_cuda_machine(int threads)
{
    return (bsattn_machine_t){
        .scratch_bytes = scratch_bytes,
        .list_bytes = list_bytes,
        .threads = threads,
        .keys_in_place = true,
        .stages_sends = true,
        .libraries_bytes = bsattn_cuda_context_bytes,
        .exchange_bytes = exchange_bytes,
        .hop_bytes = hop_bytes,
        .flops_per_s = flops_per_s,
        .flops_f32_per_s = flops_f32_per_s,
        .link_bytes_per_s = link_bytes_per_s,
        .link_latency_s = link_latency_s,
        .hides_exchange = true,
    };
}
