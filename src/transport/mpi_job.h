/* SPDX-License-Identifier: Apache-2.0 */
/** @file mpi_job.h  The MPI job this process belongs to: start, agreement on a status, end. */
#ifndef BSATTN_TRANSPORT_MPI_JOB_H
#define BSATTN_TRANSPORT_MPI_JOB_H

#include "base/status.h"

/** A process without MPI is a job of one rank: comm NULL, rank 0, size 1. */
typedef struct bsattn_job {
    const void *comm; /**< address of an MPI_Comm of all ranks, or NULL */
    int rank;
    int size;
} bsattn_job_t;

/** Start MPI (if it is not already) and learn who we are. */
bsattn_status_t bsattn_job_start(bsattn_job_t *job);

/** Longest wait for another rank in the functions below, in seconds; 0, the default: for ever. */
void bsattn_job_set_timeout(double timeout_s);

/** Collective. @return the status of the lowest failing rank, BSATTN_OK if none fails;
 *  bsattn_last_error() of every rank is then that rank's message, prefixed "rank R: " if R is not 0
 *  and not all ranks failed alike. Works without MPI. */
bsattn_status_t bsattn_job_agree(const bsattn_job_t *job, bsattn_status_t status);

/** Collective: compare a text with rank 0's. @return BSATTN_OK if equal on all ranks;
 *  BSATTN_ERR_INPUT, agreed by all, naming the first rank and line that differ. The text holds
 *  "name = value" lines. */
bsattn_status_t bsattn_job_same_text(const bsattn_job_t *job, const char *text);

/** Not collective: after an error in the midst of something where other ranks cannot be met, such as
 *  an execution, say it and end the job with this status on all ranks. Returns only where this
 *  process is the whole job. */
void bsattn_job_give_up(const bsattn_job_t *job, bsattn_status_t status);

/** @return the name and version of the MPI library, one line; needs no started MPI */
const char *bsattn_job_mpi_library(void);

/** Collective: end MPI if bsattn_job_start() started it. */
void bsattn_job_finish(const bsattn_job_t *job);

#endif
