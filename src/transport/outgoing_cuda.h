/* SPDX-License-Identifier: Apache-2.0 */
/** @file outgoing_cuda.h  Rows that a rank sends from its GPU, brought together where they are not.
 *  */
#ifndef BSATTN_TRANSPORT_OUTGOING_CUDA_H
#define BSATTN_TRANSPORT_OUTGOING_CUDA_H

#include "backend/queue_cuda.h"
#include "transport/transport.h"

#include <cuda_runtime.h>

struct bsattn_row_copy;

/** One exchange's rows. */
typedef struct bsattn_outgoing {
    bsattn_send_t send;
    size_t row_bytes;
    int64_t rows;                   /**< chosen of each part */
    size_t period;                  /**< the runs of a part are these, again and again */
    int64_t stride;                 /**< rows from one time to the next */
    size_t bytes;                   /**< of all parts; 0: nothing to send */
    const char *range;              /**< all of them where they lie in one range, else NULL */
    struct bsattn_row_copy *copies; /**< [copy_count] device memory, owned; NULL: few ranges */
    int64_t copy_count;
    int64_t device_bytes; /**< allocated here */
} bsattn_outgoing_t;

/** @return BSATTN_OK, BSATTN_ERR_MEMORY or BSATTN_ERR_ENVIRONMENT, holding nothing then */
bsattn_status_t bsattn_outgoing_init(bsattn_outgoing_t *outgoing,
                                     const bsattn_exchange_params_t *params);
void bsattn_outgoing_free(bsattn_outgoing_t *outgoing);

/** Enqueue: copy all of them, in order.
 *  @param to  [bytes], this GPU's memory, or another's if bsattn_outgoing_is_few() */
bsattn_status_t bsattn_outgoing_write(const bsattn_outgoing_t *outgoing, void *to,
                                      cudaStream_t stream);

/** @return stream operations that the writing takes, where they are more than a few; else 0 */
int64_t bsattn_outgoing_operations(const bsattn_outgoing_t *outgoing);

/** @return whether copy engines do the writing, for which the rows lie in few enough ranges, or in
 *          ranges that recur at even distances */
bool bsattn_outgoing_is_few(const bsattn_outgoing_t *outgoing);

/** Device memory that the exchanges of one rank bring their rows together in, one after the other.
 *  */
typedef struct bsattn_outbox {
    void *memory;
    size_t bytes;
    int uses;
} bsattn_outbox_t;

/** Have room for so many bytes. What was inside is lost, and memory may be elsewhere.
 *  @param grown_p  receives by how many bytes it grew
 *  @return BSATTN_OK, BSATTN_ERR_MEMORY or BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_outbox_reserve(bsattn_outbox_t *outbox, size_t bytes, int64_t *grown_p);

/** Enqueue on the exchange stream: bring rows together in the outbox. Where a kernel does that, compute waits for
 *  it, as queue_cuda.h says.
 *  @return BSATTN_OK, BSATTN_ERR_ENVIRONMENT, or BSATTN_ERR_MEMORY if the outbox was lost when it could not
 *          grow */
bsattn_status_t bsattn_outbox_fill(const bsattn_outbox_t *outbox, const bsattn_outgoing_t *outgoing,
                                   bsattn_cuda_queue_t *queue);

/** The end of a use that was reserved for; the last frees. */
void bsattn_outbox_drop(bsattn_outbox_t *outbox);

#endif
