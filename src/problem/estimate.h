/* SPDX-License-Identifier: Apache-2.0 */
/** @file estimate.h  Memory, bytes, balance and time of every rank, predicted from the demand. */
#ifndef BSATTN_PROBLEM_ESTIMATE_H
#define BSATTN_PROBLEM_ESTIMATE_H

#include "problem/schedule.h"

/** What the prediction must know of the machine a rank computes on. Rates are nominal: predicted
 *  times are a model. What is 0, NULL or false need not be set. */
typedef struct bsattn_machine {
    /** @return bytes of scratch of one thread */
    size_t (*scratch_bytes)(int head_dim, int block);
    /** @return bytes of the lists that kernels walk, where these are not the schedule's own: the
     *  schedule is then beside them, in host memory. NULL: they are */
    int64_t (*list_bytes)(const bsattn_demand_t *demand, const bsattn_schedule_counts_t *counts);
    int threads;
    bool keys_in_place;        /**< a rank that needs its whole shard reads it where it lies, and
                                    its chunk of step 0 is only what it sends */
    bool stages_sends;         /**< the transport brings rows together before it sends them, but
                                    for chunks that go on whole */
    int64_t libraries_bytes;   /**< what libraries hold where the tensors are */
    int64_t exchange_bytes;    /**< what those for the exchange hold beside, with several ranks */
    int64_t hop_bytes;         /**< and that for each further number of places between ranks that
                                    exchange */
    const bool *connected;     /**< [P]: numbers of places that are held already; NULL: 0 and 1 */
    double flops_per_s;        /**< of one rank */
    double flops_f32_per_s;    /**< for fp32 problems; 0: the same */
    double link_bytes_per_s; /**< from a rank to the next */
    double link_latency_s;
    bool hides_exchange; /**< something else than the compute units moves the bytes */
} bsattn_machine_t;

struct bsattn_estimate {
    bsattn_exchange_kind_t exchange; /**< that totals.exchange names */
    bsattn_estimate_totals_t totals;
    bsattn_rank_estimate_t *ranks; /**< [totals.ranks] */
    double longest_row_ms; /**< the longest that one query block under one list takes, to attend
                                        or to have its keys come: some rank's under every layout */
};

/** An exchange that is still to be chosen. */
enum { BSATTN_EXCHANGE_AUTO = BSATTN_EXCHANGE_COUNT };

/** Predict under a known demand, for an exchange or for the better one.
 *  @param wanted      bsattn_exchange_kind_t, DIRECT only if the demand has `used`, or
 *                     BSATTN_EXCHANGE_AUTO
 *  @param limit_ms    an exchange whose messages alone clearly take longer is not predicted;
 *                     INFINITY: all are
 *  @param estimate_p  receives NULL if none was predicted
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY; release with bsattn_estimate_destroy() */
bsattn_status_t bsattn_estimate_best(const bsattn_demand_t *demand, const bsattn_machine_t *machine,
                                     int wanted, double limit_ms, bsattn_estimate_t **estimate_p);

/** @return whether a modelled time is shorter by more than the model may be wrong about */
bool bsattn_clearly_faster(double a_ms, double b_ms);

/** Choose a layout ("auto": the fastest; where the model cannot tell, the one that sends least;
 *  contiguous where equal) and an exchange ("auto": direct where it sends at most three quarters
 *  of what the ring would and is clearly faster holding at most twice as much, or as fast holding at
 *  most 5 % more), compute demand and estimate.
 *  @param params  NULL: everything automatic
 *  @return BSATTN_OK, BSATTN_ERR_INPUT or BSATTN_ERR_MEMORY; release both results */
bsattn_status_t bsattn_estimate_choose(const bsattn_pattern_t *pattern, int ranks,
                                       const bsattn_plan_params_t *params,
                                       const bsattn_machine_t *machine, bsattn_demand_t *demand_p,
                                       bsattn_estimate_t **estimate_p);

/** Put what libraries hold, now that it is known, in place of what was predicted. */
void bsattn_estimate_set_libraries(bsattn_estimate_t *estimate, int64_t bytes);

#endif
