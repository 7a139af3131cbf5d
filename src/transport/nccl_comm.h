/* SPDX-License-Identifier: Apache-2.0 */
/** @file nccl_comm.h  A communicator of NCCL that never blocks the host, so that a rank that died is
 *  found by a deadline and not by nobody. */
#ifndef BSATTN_TRANSPORT_NCCL_COMM_H
#define BSATTN_TRANSPORT_NCCL_COMM_H

#include "transport/control.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wstrict-prototypes" /* its header is C++ at heart */
#include <nccl.h>
#pragma GCC diagnostic pop

typedef struct bsattn_nccl_comm {
    bsattn_control_t *control;
    ncclComm_t handle; /**< NULL: not started, or given up after an error */
} bsattn_nccl_comm_t;

/** What one rank has to do in one step, all buffers on its GPU. */
typedef struct bsattn_nccl_message {
    const void *rows; /**< [out_bytes] */
    size_t out_bytes; /**< 0: nothing to send */
    int to;
    void *base;      /**< [in_bytes] */
    size_t in_bytes; /**< 0: nothing to receive */
    int from;
    const char *what; /**< what is waited for, e.g. "at step 2 for rank 1 to send" */
} bsattn_nccl_message_t;

/** Say what call of NCCL failed. That ends the communicator: kernels that wait for a peer are told
 *  to give up.
 *  @return BSATTN_OK (also if the call is under way), BSATTN_ERR_MEMORY if NCCL was refused memory on
 *          the GPU, or BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_nccl_check(bsattn_nccl_comm_t *comm, ncclResult_t result, const char *call);

/** Look, without waiting, for an error and whether all that was asked for is under way on the GPU.
 */
bsattn_status_t bsattn_nccl_look(bsattn_nccl_comm_t *comm, const char *what, bool *done_p);

/** Wait until all that was asked for is under way on the GPU: due after each call or group. A failure,
 *  of this rank or told by another, ends the communicator. */
bsattn_status_t bsattn_nccl_settle(bsattn_nccl_comm_t *comm, const char *what);

/** Give the communicator up, if there is one. */
void bsattn_nccl_abort(bsattn_nccl_comm_t *comm);

#endif
