/* SPDX-License-Identifier: Apache-2.0 */
/** @file plan.h  What a plan holds; see bsattn.h for what it does. */
#ifndef BSATTN_RING_PLAN_H
#define BSATTN_RING_PLAN_H

#include "problem/schedule.h"
#include "ring/context.h"

/** A rank of this process. */
typedef struct bsattn_local {
    const struct bsattn_plan *plan; /**< it belongs to */
    int64_t tokens;                 /**< n */
    bsattn_token_run_t *runs;
    size_t run_count;
    bsattn_schedule_t schedule;
    bsattn_work_t *work;
    bsattn_exchange_t **exchanges; /**< [step_count]: what moves during each step; NULL: nothing */

    /* during an execute */
    double exchange_start_ms;
    bool exchange_seen_done;
    double busy_ms; /**< the longest attend that was waited for on a device */
    bsattn_timings_t timings;
} bsattn_local_t;

struct bsattn_plan {
    bsattn_context_t *context;
    bsattn_problem_t problem;
    bsattn_pattern_t *pattern;
    bsattn_demand_t demand;
    bsattn_estimate_t *estimate;
    bsattn_local_t *locals; /**< [local_count] */
    int steps_ahead;        /**< >= 1: so many steps are enqueued ahead of a device */
};

/** @return the kernels that compute: they may depend on the problem */
const char *bsattn_plan_variant(const bsattn_plan_t *plan);

#endif
