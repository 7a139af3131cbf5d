/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file trial.h
 * One problem being computed: plan, tensors of the ranks of this process, input, executions and
 * their times.
 *
 * All functions but destroy are collective over the context and return the same status on every
 * rank.
 */
#ifndef BSATTN_CLI_TRIAL_H
#define BSATTN_CLI_TRIAL_H

#include "bsattn.h"
#include "io/source.h"
#include "report/record.h"
#include "transport/mpi_job.h"

typedef struct bsattn_trial_params {
    const bsattn_job_t *job;         /**< outlives the trial */
    bsattn_context_t *context;       /**< outlives the trial */
    const bsattn_problem_t *problem; /**< copied */
    bsattn_pattern_t *pattern;       /**< outlives the trial */
    bsattn_plan_params_t plan;
    bsattn_source_t *source; /**< bound to the problem; outlives the trial */
    int iterations;          /**< timed ones, >= 1 */
} bsattn_trial_params_t;

typedef struct bsattn_trial {
    const bsattn_job_t *job;
    bsattn_context_t *context;
    bsattn_context_info_t info;
    bsattn_problem_t problem;
    bsattn_source_t *source;
    bsattn_plan_t *plan;
    bsattn_tensors_t *tensors; /**< [local_count] */
    bsattn_timings_t *timings; /**< [local_count, iterations] */
    int iterations;
    bsattn_rank_record_t *rank_records; /**< [P], filled by bsattn_trial_gather() */
    bsattn_placement_t *placement;      /**< [P], filled by bsattn_trial_create() */
} bsattn_trial_t;

/** Plan, allocate and load.
 *  @param trial  to be released with bsattn_trial_destroy() whatever is returned
 *  @return BSATTN_OK, BSATTN_ERR_INPUT, BSATTN_ERR_MEMORY, BSATTN_ERR_FILE or
 *          BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_trial_create(const bsattn_trial_params_t *params, bsattn_trial_t *trial);

/** Release what a trial owns; not collective. */
void bsattn_trial_destroy(bsattn_trial_t *trial);

/** Fill O and LSE with NaN: nothing left from before can pass for a result. */
bsattn_status_t bsattn_trial_poison(bsattn_trial_t *trial);

/** Wait for all ranks, then execute. An error within is told, and ends the job on all ranks: they
 *  wait for one another by then.
 *  @param iteration  0 .. iterations - 1 to keep the times; -1 not to */
bsattn_status_t bsattn_trial_execute(bsattn_trial_t *trial, int iteration);

/** Compare rows with the reference. @param rows  0: all */
bsattn_status_t bsattn_trial_check(bsattn_trial_t *trial, int64_t rows, uint64_t seed,
                                   bsattn_check_result_t *result_p);

/** Bring the times and memory of all ranks into the record and the trial's rank_records. */
bsattn_status_t bsattn_trial_gather(bsattn_trial_t *trial, bsattn_record_t *record);

/** Set the job, problem, plan and placement of a record. Not collective. */
void bsattn_trial_describe(const bsattn_trial_t *trial, bsattn_record_t *record);

#endif
