/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file mpi_watch.h
 * Waiting for MPI without hanging.
 *
 * Every completion is polled against a deadline. A rank that has waited too long tells rank 0 what
 * it waits for; rank 0 gathers these words, names the ranks that sent none, and ends the job with
 * exit code 124. A process that was stopped in between has not waited meanwhile (base/clock.h).
 */
#ifndef BSATTN_TRANSPORT_MPI_WATCH_H
#define BSATTN_TRANSPORT_MPI_WATCH_H

#include <mpi.h>

#include "base/status.h"
#include "transport/control.h"

#include <stdbool.h>

typedef struct bsattn_mpi_watch {
    MPI_Comm side;    /**< for words about waiting, failures and letters */
    double timeout_s; /**< 0: wait for ever */
    double last_ms;   /**< end of the last wait */
    double busy_ms;   /**< how long this rank itself was away between waits of late: others may need
                           as long */
    const double *unevenness; /**< bsattn_transport_t.unevenness; NULL: 1 */
    bool told;        /**< bsattn_mpi_watch_stalled() has told rank 0 */
    double told_late_ms; /**< late_ms of the last bsattn_mpi_watch_stalled() */
} bsattn_mpi_watch_t;

/** Collective over comm: duplicate it. Does not return if the deadline passes: the job is ended.
 *  @param timeout_s  0: wait for ever
 *  @return BSATTN_OK or BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_mpi_duplicate(MPI_Comm comm, double timeout_s, MPI_Comm *copy_p);

/** Start a watch: duplicate comm for its words. Collective over comm, with the same deadline.
 *  @return BSATTN_OK or BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_mpi_watch_init(bsattn_mpi_watch_t *watch, MPI_Comm comm, double timeout_s);
void bsattn_mpi_watch_free(bsattn_mpi_watch_t *watch);

/** Wait for requests. Does not return if the deadline passes, timeout_s or unevenness times four times
 *  busy_ms: the job is ended.
 *  @param what  what is waited for, e.g. "at step 2 for the chunk of rank 1 from rank 3"
 *  @return BSATTN_OK, or BSATTN_ERR_ENVIRONMENT if MPI reports an error */
bsattn_status_t bsattn_mpi_watch_wait(bsattn_mpi_watch_t *watch, int count, MPI_Request *requests,
                                      const char *what);

/** Collective over comm, with that deadline: whether it is so on all ranks.
 *  @return BSATTN_OK or BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_mpi_watch_all(bsattn_mpi_watch_t *watch, MPI_Comm comm, bool mine,
                                     bool *all_p);

/** Wait as bsattn_mpi_watch_wait() does, until a look that is repeated says done. @return the status of
 *  a look that failed, else BSATTN_OK */
bsattn_status_t bsattn_mpi_watch_until(bsattn_mpi_watch_t *watch, bsattn_look_t *look, void *arg,
                                       const char *what);

/** What happens when a deadline passes, for a caller that keeps its own: rank 0 ends the job, the
 *  others tell it what they wait for and leave it some time. Called again and again.
 *  @param late_ms  since the deadline */
void bsattn_mpi_watch_stalled(bsattn_mpi_watch_t *watch, const char *what, double waited_ms,
                              double late_ms);

/** End the job with a status on all ranks; no partial file of this rank is left. */
__attribute__((noreturn)) void bsattn_mpi_end_job(MPI_Comm comm, bsattn_status_t status);

/** Record an MPI error. @return BSATTN_OK if code is MPI_SUCCESS, else BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_mpi_check(int code, const char *what);

#endif
