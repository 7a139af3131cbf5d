/* SPDX-License-Identifier: Apache-2.0 */
/** @file verbs.h  What the command can do: one function per verb. */
#ifndef BSATTN_CLI_VERBS_H
#define BSATTN_CLI_VERBS_H

#include "cli/options.h"
#include "transport/mpi_job.h"

/** What a verb is given. */
typedef struct bsattn_cli {
    bsattn_job_t job; /**< comm NULL for verbs that start no MPI */
    const bsattn_options_t *options;
    bool speaks; /**< this process prints: rank 0, also where every process thinks it is alone */
} bsattn_cli_t;

/** Carry out a verb. run and verify are collective over the job, and every rank returns the same
 *  status; the message is bsattn_last_error(), on every rank.
 *  @return BSATTN_OK, or what main returns to the shell */
bsattn_status_t bsattn_verb_run(const bsattn_cli_t *cli);
bsattn_status_t bsattn_verb_plan(const bsattn_cli_t *cli);
bsattn_status_t bsattn_verb_verify(const bsattn_cli_t *cli);
bsattn_status_t bsattn_verb_mask(const bsattn_cli_t *cli);
bsattn_status_t bsattn_verb_info(const bsattn_cli_t *cli);
bsattn_status_t bsattn_verb_help(const bsattn_cli_t *cli);

#endif
