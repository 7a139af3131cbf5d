/* SPDX-License-Identifier: Apache-2.0 */
#include "report/record.h"

#include <math.h>

static bsattn_stats_t no_stats(void)
{
    return bsattn_stats_of(NULL, 0);
}

void bsattn_record_init(bsattn_record_t *record)
{
    *record = (bsattn_record_t){
        .verb = "",
        .status = "ok",
        .launcher = "none",
        .backend = "",
        .backend_reason = "",
        .backend_variant = "",
        .transport = "",
        .transport_reason = "",
        .pattern = "",
        .total_ms = no_stats(),
        .attend_ms = no_stats(),
        .exchange_ms = no_stats(),
        .exposed_ms = no_stats(),
        .check = {.rows = -1, .error_out = NAN, .error_lse = NAN, .passed = 0},
        .out_sum = NAN,
        .out_abs_sum = NAN,
    };
    bsattn_problem_init(&record->problem);
}

static void spread_begin(bsattn_spread_t *spread)
{
    *spread = (bsattn_spread_t){.min = INT64_MAX, .mean = 0, .max = 0};
}

/* The mean is kept as a sum of rounded shares: exact to P bytes and never overflowing. */
static void spread_add(bsattn_spread_t *spread, int64_t bytes, int ranks)
{
    spread->min = (bytes < spread->min) ? bytes : spread->min;
    spread->max = (bytes > spread->max) ? bytes : spread->max;
    spread->mean += bytes / ranks;
}

void bsattn_record_set_estimate(bsattn_record_t *record, const bsattn_estimate_t *estimate)
{
    const bsattn_estimate_totals_t *totals = bsattn_estimate_totals(estimate);
    bsattn_memory_record_t *memory = &record->memory;

    record->plan = *totals;
    spread_begin(&memory->inputs);
    spread_begin(&memory->outputs);
    spread_begin(&memory->chunks);
    spread_begin(&memory->state);
    spread_begin(&memory->lists);
    spread_begin(&memory->scratch);
    spread_begin(&memory->staging);
    spread_begin(&memory->libraries);
    spread_begin(&memory->total);
    spread_begin(&memory->host);
    for (int rank = 0; rank < totals->ranks; ++rank) {
        const bsattn_memory_t *of_rank = &bsattn_estimate_rank(estimate, rank)->memory;
        spread_add(&memory->inputs, of_rank->inputs, totals->ranks);
        spread_add(&memory->outputs, of_rank->outputs, totals->ranks);
        spread_add(&memory->chunks, of_rank->chunks, totals->ranks);
        spread_add(&memory->state, of_rank->state, totals->ranks);
        spread_add(&memory->lists, of_rank->lists, totals->ranks);
        spread_add(&memory->scratch, of_rank->scratch, totals->ranks);
        spread_add(&memory->staging, of_rank->staging, totals->ranks);
        spread_add(&memory->libraries, of_rank->libraries, totals->ranks);
        spread_add(&memory->total, of_rank->total, totals->ranks);
        spread_add(&memory->host, of_rank->host, totals->ranks);
    }
}

double bsattn_record_tflops(const bsattn_record_t *record)
{
    return record->stats.flops / (record->total_ms.median * 1e9);
}

double bsattn_record_tokens_per_s(const bsattn_record_t *record)
{
    return (double)record->problem.batch * (double)record->problem.seq_len /
           (record->total_ms.median * 1e-3);
}
