/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file transport.h
 * How ranks exchange chunks and agree: a table of functions, one set per transport.
 *
 * A process holds local_count ranks: one over MPI, all of them with loop. An exchange is one rank's
 * part in one step: rows to a rank, rows from a rank (on the ring the next and the previous one),
 * buffers fixed for its life. It is prepared once and carried out as often as wanted: start, then
 * wait; test in between lets messages move on. The caller starts the exchanges of all its local
 * ranks before it waits for any.
 *
 * The buffers of a rank with a queue are on its GPU, and its exchanges are carried out in the order
 * of the queue (backend/queue_cuda.h): start and wait enqueue, the host waits for nothing. What a
 * rank sends at step s is ready when all that its compute *and exchange* streams hold at start(s)
 * is done: rows may have been packed on either. After wait(s) both buffers are the rank's own
 * again, in the order of both of its streams: rows have arrived, and the rows sent have been taken.
 */
#ifndef BSATTN_TRANSPORT_TRANSPORT_H
#define BSATTN_TRANSPORT_TRANSPORT_H

#include "base/status.h"
#include "transport/agree.h"

#include <stdbool.h>

/** Rows to send: the same runs out of each of part_count parts, part_rows apart. */
typedef struct bsattn_send {
    const void *base; /**< [part_count, part_rows, row_bytes] */
    int64_t part_count;
    int64_t part_rows;
    const bsattn_token_run_t *runs; /**< [run_count] rows of each part; outlives the exchange */
    size_t run_count;               /**< 0: nothing to send */
} bsattn_send_t;

/** Rows to receive, one after the other. */
typedef struct bsattn_receive {
    void *base;   /**< [rows, row_bytes] */
    int64_t rows; /**< 0: nothing to receive */
} bsattn_receive_t;

typedef struct bsattn_exchange_params {
    int local;        /**< rank of this process, 0 .. local_count - 1 */
    int step;         /**< tells messages apart: both ranks count the same */
    int origin;       /**< owner of the chunk received, for messages to people */
    size_t row_bytes; /**< at most INT_MAX */
    int to;           /**< rank that receives */
    bsattn_send_t send;
    int from; /**< rank that sends */
    bsattn_receive_t receive;
    void *queue; /**< bsattn_cuda_queue_t of the rank; NULL: buffers are in host memory */
} bsattn_exchange_params_t;

typedef struct bsattn_transport bsattn_transport_t;
typedef struct bsattn_exchange bsattn_exchange_t;

typedef struct bsattn_transport_ops {
    const char *name;
    void (*destroy)(bsattn_transport_t *transport);

    /** Collective, with the same hops everywhere: make the connections that exchanges with the ranks
     *  so many places after and before need, so that no execution has to. NULL, like
     *  connected: nothing to be done.
     *  @param hops  [hop_count], 0 .. P - 1; 0, and what is connected already, is passed over
     *  @return BSATTN_OK, BSATTN_ERR_MEMORY or BSATTN_ERR_ENVIRONMENT, the same on all ranks */
    bsattn_status_t (*connect)(bsattn_transport_t *transport, const int *hops, int hop_count);

    /** Prepare an exchange; what attends of its queue have to mind is written there.
     *  @return BSATTN_OK, BSATTN_ERR_MEMORY, BSATTN_ERR_ENVIRONMENT or BSATTN_ERR_INPUT (more runs than
     *          MPI counts) */
    bsattn_status_t (*prepare)(bsattn_transport_t *transport,
                               const bsattn_exchange_params_t *params,
                               bsattn_exchange_t **exchange_p);
    void (*release)(bsattn_exchange_t *exchange);
    /** Tell neighbours what they need to know of a prepared exchange, or that there is nothing to tell
     *  because it failed. All ranks have prepared theirs by then. NULL, together with bind: nothing to
     *  be done. @return BSATTN_OK, BSATTN_ERR_MEMORY or BSATTN_ERR_ENVIRONMENT */
    bsattn_status_t (*offer)(bsattn_exchange_t *exchange);
    /** Take what a neighbour has let know, in the order of its offers. All ranks have offered
     *  theirs by then. Due even where an offer or another's bind failed. @return BSATTN_OK,
     *  BSATTN_ERR_MEMORY or BSATTN_ERR_ENVIRONMENT */
    bsattn_status_t (*bind)(bsattn_exchange_t *exchange);
    bsattn_status_t (*start)(bsattn_exchange_t *exchange);
    /** Let messages move on. *done_p tells if the exchange is complete; wait is due all the
     *  same. */
    bsattn_status_t (*test)(bsattn_exchange_t *exchange, bool *done_p);
    /** @return BSATTN_OK or BSATTN_ERR_ENVIRONMENT. Waiting longer than the timeout ends the
     *  job. */
    bsattn_status_t (*wait)(bsattn_exchange_t *exchange);

    /** While the device works: let messages move on and look for errors that arrived meanwhile.
     *  Never waits. NULL: nothing to be done. @return BSATTN_OK or BSATTN_ERR_ENVIRONMENT */
    bsattn_status_t (*poll)(bsattn_transport_t *transport);
    /** The device has made no progress for as long as is allowed: say so and end the job with
     *  BSATTN_ERR_TIMEOUT. Called again and again, like poll; may return while others are heard.
     *  NULL: the caller ends its own process.
     *  @param what       what is waited for, e.g. "for its GPU at step 2 of 8"
     *  @param waited_ms  so long
     *  @param late_ms    of these beyond what is allowed */
    void (*stalled)(bsattn_transport_t *transport, const char *what, double waited_ms,
                    double late_ms);

    /** Collective. @param local_items [local_count, item_bytes]  @param all_items [P, item_bytes],
     *  in rank order */
    bsattn_status_t (*gather)(bsattn_transport_t *transport, const void *local_items,
                              size_t item_bytes, void *all_items);
    /** Collective: data of the process that holds rank `root` for all. @param bytes  at most
     *  INT_MAX */
    bsattn_status_t (*broadcast)(bsattn_transport_t *transport, void *data, size_t bytes, int root);
} bsattn_transport_ops_t;

/** What every transport begins with. */
struct bsattn_transport {
    const bsattn_transport_ops_t *ops;
    int ranks; /**< P */
    int local_count;
    int first_rank;
    const char *way; /**< nccl, mpi: how it moves chunks on GPUs, and why so; NULL: in one way */
    bool *connected; /**< [P]: with the ranks so many places after and before; owned. NULL: there is
                          nothing to connect */
    bsattn_outcome_t *outcomes; /**< [P + local_count], for agreeing; owned */
    /** At least 1: so many times this process's own work another's may take, by the plans there were.
     *  Who waits for another allows for it. */
    double unevenness;
};

/** What every exchange begins with. */
struct bsattn_exchange {
    bsattn_transport_t *transport;
    bsattn_exchange_params_t params;
    int64_t device_bytes; /**< allocated by the transport for it on the GPU */
    int64_t host_bytes;   /**< the same in host memory */
    int64_t operations;   /**< of a stream, that its start takes where they are many; else 0 */
};

/** P ranks inside this process, driven one after the other.
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_transport_loop_create(int ranks, bsattn_transport_t **transport_p);

/** One rank per process over MPI, messages of any size. Collective. Buffers on a GPU are handed to
 *  an MPI that can take them, else staged in host memory.
 *  @param comm       address of an MPI_Comm; duplicated
 *  @param timeout_s  longest wait without progress; 0: for ever
 *  @return BSATTN_OK, BSATTN_ERR_MEMORY or BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_transport_mpi_create(const void *comm, double timeout_s,
                                            bsattn_transport_t **transport_p);

/** One rank per process and GPUs, over NCCL. Collective. Chunks go by send and receive; with the
 *  environment variable BSATTN_NCCL_MODE=put on rank 0 by one-sided puts (nccl_put.h).
 *  @param comm       address of an MPI_Comm; duplicated: for starting, agreeing and gathering
 *  @param timeout_s  longest wait without progress; 0: for ever
 *  @param device     GPU of this rank; shared with another rank only where NCCL can and may do that
 *  @return BSATTN_OK, BSATTN_ERR_MEMORY, BSATTN_ERR_INPUT (BSATTN_NCCL_MODE) or
 *          BSATTN_ERR_ENVIRONMENT (also if this build has none) */
bsattn_status_t bsattn_transport_nccl_create(const void *comm, double timeout_s, int device,
                                             bsattn_transport_t **transport_p);

/** @return NCCL's version as it says itself, e.g. 23004; 0: not in this build */
int bsattn_nccl_version(void);

/** One rank per process of one host, each writing into the GPU memory of those that it sends to. Collective.
 *  Parameters and results as for bsattn_transport_nccl_create(). */
bsattn_status_t bsattn_transport_ipc_create(const void *comm, double timeout_s, int device,
                                            bsattn_transport_t **transport_p);

/** Collective: agree on a status. @return the status of the lowest failing rank, BSATTN_OK if none;
 *  bsattn_last_error() of every process is then that rank's message. */
bsattn_status_t bsattn_transport_agree(bsattn_transport_t *transport, bsattn_status_t status);

/** Collective: wait for all ranks. */
bsattn_status_t bsattn_transport_barrier(bsattn_transport_t *transport);

#endif
