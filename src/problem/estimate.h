/* SPDX-License-Identifier: Apache-2.0 */
/** @file estimate.h  Memory, bytes, balance and time of every rank, predicted from the demand. */
#ifndef BSATTN_PROBLEM_ESTIMATE_H
#define BSATTN_PROBLEM_ESTIMATE_H

#include "problem/demand.h"

/** What the prediction must know of the machine a rank computes on. Rates are nominal: predicted
 *  times are a model. */
typedef struct bsattn_machine {
    /** @return bytes of the state of a rank with these rows */
    size_t (*state_bytes)(int64_t batch, int heads_q, int64_t tokens, int head_dim, int block);
    /** @return bytes of scratch of one thread */
    size_t (*scratch_bytes)(int head_dim, int block);
    int threads;
    double flops_per_s;      /**< of one rank */
    double link_bytes_per_s; /**< from a rank to the next */
    double link_latency_s;
    bool hides_exchange; /**< something else than the compute units moves the bytes */
} bsattn_machine_t;

struct bsattn_estimate {
    bsattn_estimate_totals_t totals;
    bsattn_rank_estimate_t *ranks; /**< [totals.ranks] */
};

/** Predict under a known demand.
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY; release with bsattn_estimate_destroy() */
bsattn_status_t bsattn_estimate_compute(const bsattn_demand_t *demand,
                                        const bsattn_machine_t *machine,
                                        bsattn_estimate_t **estimate_p);

/** Choose a layout ("auto": the fastest; where the model cannot tell, the one that sends least;
 *  contiguous where equal), compute demand and estimate.
 *  @param params  NULL: everything automatic
 *  @return BSATTN_OK, BSATTN_ERR_INPUT or BSATTN_ERR_MEMORY; release both results */
bsattn_status_t bsattn_estimate_choose(const bsattn_pattern_t *pattern, int ranks,
                                       const bsattn_plan_params_t *params,
                                       const bsattn_machine_t *machine, bsattn_demand_t *demand_p,
                                       bsattn_estimate_t **estimate_p);

#endif
