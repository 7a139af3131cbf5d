/* SPDX-License-Identifier: Apache-2.0 */
/** @file loop_cuda.h  Exchanges of ranks in one process whose buffers are on one GPU. */
#ifndef BSATTN_TRANSPORT_LOOP_CUDA_H
#define BSATTN_TRANSPORT_LOOP_CUDA_H

#include "transport/transport.h"

typedef struct bsattn_loop_cuda bsattn_loop_cuda_t;

/** @return BSATTN_OK, BSATTN_ERR_MEMORY or BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_loop_cuda_prepare(bsattn_exchange_t *exchange, bsattn_loop_cuda_t **half_p);
/** @param half  may be NULL */
void bsattn_loop_cuda_release(bsattn_loop_cuda_t *half);

/** Enqueue: the rank's buffers are ready for the exchange. */
bsattn_status_t bsattn_loop_cuda_start(bsattn_loop_cuda_t *half);

/** Enqueue, after both have started and once for each start (more calls do nothing): the rows of
 *  one rank move into the buffer of another. */
bsattn_status_t bsattn_loop_cuda_move(const bsattn_loop_cuda_t *from, bsattn_loop_cuda_t *to);

/** Enqueue: the rank goes on when its rows have been taken and have arrived.
 *  @param reader  has taken them; NULL: nothing was sent */
bsattn_status_t bsattn_loop_cuda_wait(bsattn_loop_cuda_t *half, const bsattn_loop_cuda_t *reader);

#endif
