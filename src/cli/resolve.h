/* SPDX-License-Identifier: Apache-2.0 */
/** @file resolve.h  From options to what the library is asked. */
#ifndef BSATTN_CLI_RESOLVE_H
#define BSATTN_CLI_RESOLVE_H

#include "backend/backend.h"
#include "cli/options.h"
#include "io/source.h"
#include "transport/mpi_job.h"

/** Describe the problem.
 *  @param info  shapes and type of input files, or NULL; an option given that contradicts them is
 *               an error
 *  @return BSATTN_OK, BSATTN_ERR_INPUT, or BSATTN_ERR_ENVIRONMENT: without the backend asked for */
bsattn_status_t bsattn_resolve_problem(const bsattn_options_t *options,
                                       const bsattn_source_info_t *info,
                                       bsattn_problem_t *problem_p);

/** Which backend computes, or would for a plan. @return see bsattn_backend_choose() */
bsattn_status_t bsattn_resolve_backend(const bsattn_options_t *options,
                                       bsattn_backend_choice_t *choice_p);

/** Layout and exchange, and the backend of an estimate. */
bsattn_plan_params_t bsattn_resolve_plan(const bsattn_options_t *options);

/** @return the threads of each rank of a job that is only planned: as asked for, else
 *          OMP_NUM_THREADS, else the cores of this process */
int bsattn_resolve_threads(const bsattn_options_t *options);

/** @return whether a transport between processes was asked for by its name */
bool bsattn_resolve_names_transport(const bsattn_options_t *options);

/** Ranks, transport, backend, threads. */
bsattn_context_params_t bsattn_resolve_context(const bsattn_options_t *options,
                                               const bsattn_job_t *job);

#endif
