/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file control.h
 * What transports with one rank per process have in common: their ranks meet, agree, send one
 * another small letters and wait with a deadline, all over MPI, whatever moves the chunks.
 *
 * Such a transport begins with a bsattn_control_t and takes the functions named below for its
 * table.
 */
#ifndef BSATTN_TRANSPORT_CONTROL_H
#define BSATTN_TRANSPORT_CONTROL_H

#include "transport/transport.h"

/** Letters hold at most so many bytes. */
enum { BSATTN_LETTER_SIZE = 192 };

typedef struct bsattn_control {
    bsattn_transport_t super;
    struct bsattn_mpi_control *mpi; /**< mpi_control.h */
} bsattn_control_t;

/** Look, without waiting, whether something has happened. *done_p is false before. */
typedef bsattn_status_t bsattn_look_t(void *arg, bool *done_p);

/** Collective: all ranks get one, or none.
 *  @param comm       address of an MPI_Comm; duplicated
 *  @param timeout_s  longest wait without progress; 0: for ever
 *  @return BSATTN_OK, BSATTN_ERR_MEMORY or BSATTN_ERR_ENVIRONMENT, holding nothing then */
bsattn_status_t bsattn_control_init(bsattn_control_t *control, const bsattn_transport_ops_t *ops,
                                    const void *comm, double timeout_s);
void bsattn_control_free(bsattn_control_t *control);

/** Instead of bsattn_control_init(), on a rank that has no memory for a transport: no rank gets one then.
 *  @return BSATTN_ERR_MEMORY or BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_control_decline(const bsattn_transport_ops_t *ops, const void *comm,
                                       double timeout_s);

/* For the table of functions of a transport. */
bsattn_status_t bsattn_control_gather(bsattn_transport_t *transport, const void *local_items,
                                      size_t item_bytes, void *all_items);
bsattn_status_t bsattn_control_broadcast(bsattn_transport_t *transport, void *data, size_t bytes,
                                         int root);
bsattn_status_t bsattn_control_poll(bsattn_transport_t *transport);
void bsattn_control_stalled(bsattn_transport_t *transport, const char *what, double waited_ms,
                            double late_ms);

/** Wait until a look says done, letting messages move on. Does not return if the deadline passes:
 *  the job is ended.
 *  @param what  what is waited for, e.g. "for NCCL to start"
 *  @return the status of a look that failed, or of a rank that told of a failure, else BSATTN_OK */
bsattn_status_t bsattn_control_until(bsattn_control_t *control, bsattn_look_t *look, void *arg,
                                     const char *what);

/** Tell all other ranks that this one has failed, with bsattn_last_error(): those that wait in
 *  bsattn_control_until(), maybe for this one and by other means than MPI, return with it. A rank tells
 *  once, and not of what it was told: where another has told already, that is the cause. It still has
 *  to meet the others (bsattn_transport_agree()).
 *  @return the status to go on with, bsattn_last_error() being its: this one, or the other's */
bsattn_status_t bsattn_control_tell_failure(bsattn_control_t *control, bsattn_status_t status);

/** Collective, after ranks have failed and before bsattn_control_free(): take what they told and nobody
 *  has heard, which some MPIs do not forgive. bsattn_last_error() stays. */
void bsattn_control_forget_failures(bsattn_control_t *control);

/** Send a letter, without waiting for anyone. Letters with the same tag arrive in order.
 *  @param tag    0 .. 99
 *  @param bytes  at most BSATTN_LETTER_SIZE; copied */
bsattn_status_t bsattn_control_post(bsattn_control_t *control, int to, int tag, const void *data,
                                    size_t bytes);

/** Take a letter if there is one. @param data  [bytes], as many as were sent */
bsattn_status_t bsattn_control_take(bsattn_control_t *control, int from, int tag, void *data,
                                    size_t bytes, bool *there_p);

/** Wait for a letter and take it, as bsattn_control_until(). */
bsattn_status_t bsattn_control_await(bsattn_control_t *control, int from, int tag, void *data,
                                     size_t bytes, const char *what);

#endif
