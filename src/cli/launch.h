/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file launch.h
 * What the environment says of how this process was launched.
 *
 * Pure functions of a getenv(), so that every launcher can be tested. Of several variables that say
 * the same thing the innermost launcher's counts: a job of one rank started by mpirun inside a
 * Slurm allocation of eight tasks is a job of one.
 */
#ifndef BSATTN_CLI_LAUNCH_H
#define BSATTN_CLI_LAUNCH_H

#include "base/status.h"

/** @return the value of an environment variable or NULL, as getenv() */
typedef char *(*bsattn_getenv_func_t)(const char *name);

/** @return this process's rank by OMPI_COMM_WORLD_RANK, PMIX_RANK, PMI_RANK or SLURM_PROCID; -1 if
 *          none is set */
int bsattn_launch_rank(bsattn_getenv_func_t env);

/** @return the number of ranks by OMPI_COMM_WORLD_SIZE, PMI_SIZE, SLURM_STEP_NUM_TASKS or
 *          SLURM_NTASKS; 0 if none is set */
int bsattn_launch_size(bsattn_getenv_func_t env);

/** @return the launcher's name, for the report: "mpirun (Open MPI)", "srun", "mpiexec (PMI)" or
 *          "none" */
const char *bsattn_launch_name(bsattn_getenv_func_t env);

/** Find out whether the processes of one job each believe to be alone.
 *  @param size  ranks that MPI knows of
 *  @return BSATTN_OK or BSATTN_ERR_ENVIRONMENT saying how to launch */
bsattn_status_t bsattn_launch_check(bsattn_getenv_func_t env, int size);

#endif
