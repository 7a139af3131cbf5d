/* SPDX-License-Identifier: Apache-2.0 */
/** @file outputs.h  The files of --out and --lse: opened before a run, written and named after. */
#ifndef BSATTN_CLI_OUTPUTS_H
#define BSATTN_CLI_OUTPUTS_H

#include "cli/trial.h"
#include "io/npy_mpi.h"

typedef struct bsattn_outputs {
    bsattn_npy_writer_t *out; /**< NULL: not wanted */
    bsattn_npy_writer_t *lse;
} bsattn_outputs_t;

typedef struct bsattn_outputs_params {
    const bsattn_job_t *job; /**< of the processes; copied */
    const char *out_path;    /**< NULL: not wanted */
    const char *lse_path;
    const bsattn_problem_t *problem;
    bool batched; /**< O is written as [b, N, H, D], LSE as [b, H, N]; else without b, which is 1 */
} bsattn_outputs_params_t;

/** Collective: create the temporary files.
 *  @param outputs  to be given to commit or abort whatever is returned */
bsattn_status_t bsattn_outputs_open(const bsattn_outputs_params_t *params,
                                    bsattn_outputs_t *outputs);

/** Collective: write O and LSE of all ranks as fp32 and give the files their names. Releases the
 *  writers. */
bsattn_status_t bsattn_outputs_commit(bsattn_outputs_t *outputs, const bsattn_trial_t *trial);

/** Collective: remove the temporary files, if there are any. Leaves bsattn_last_error() alone. */
void bsattn_outputs_abort(bsattn_outputs_t *outputs);

#endif
