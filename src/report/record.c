/* SPDX-License-Identifier: Apache-2.0 */
#include "report/record.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

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

/* Of one purpose over all ranks. The sum is kept as quotient and remainder: it cannot overflow.
 * @param member  offset of an int64_t in bsattn_memory_t */
static bsattn_spread_t spread_of(const bsattn_estimate_t *estimate, size_t member)
{
    int64_t ranks = bsattn_estimate_totals(estimate)->ranks;
    bsattn_spread_t spread = {.min = INT64_MAX};
    int64_t rest = 0;

    for (int rank = 0; rank < ranks; ++rank) {
        const bsattn_memory_t *memory = &bsattn_estimate_rank(estimate, rank)->memory;
        int64_t bytes;

        memcpy(&bytes, (const char *)memory + member, sizeof(bytes));
        spread.min = (bytes < spread.min) ? bytes : spread.min;
        spread.max = (bytes > spread.max) ? bytes : spread.max;
        spread.mean += bytes / ranks;
        rest += bytes % ranks;
    }
    spread.mean += rest / ranks;
    return spread;
}

void bsattn_record_set_estimate(bsattn_record_t *record, const bsattn_estimate_t *estimate)
{
    record->plan = *bsattn_estimate_totals(estimate);
    record->memory = (bsattn_memory_record_t){
        .inputs = spread_of(estimate, offsetof(bsattn_memory_t, inputs)),
        .outputs = spread_of(estimate, offsetof(bsattn_memory_t, outputs)),
        .chunks = spread_of(estimate, offsetof(bsattn_memory_t, chunks)),
        .state = spread_of(estimate, offsetof(bsattn_memory_t, state)),
        .lists = spread_of(estimate, offsetof(bsattn_memory_t, lists)),
        .scratch = spread_of(estimate, offsetof(bsattn_memory_t, scratch)),
        .staging = spread_of(estimate, offsetof(bsattn_memory_t, staging)),
        .libraries = spread_of(estimate, offsetof(bsattn_memory_t, libraries)),
        .total = spread_of(estimate, offsetof(bsattn_memory_t, total)),
        .host = spread_of(estimate, offsetof(bsattn_memory_t, host)),
    };
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
