/* SPDX-License-Identifier: Apache-2.0 */
/** @file context.h  Transport and backend of a set of ranks, and what their command needs of them
 *  beside bsattn.h. */
#ifndef BSATTN_RING_CONTEXT_H
#define BSATTN_RING_CONTEXT_H

#include "backend/backend.h"
#include "transport/transport.h"

struct bsattn_context {
    bsattn_transport_t *transport;
    const bsattn_backend_ops_t *backend;
    int threads;
    const char *transport_reason;
    int *host_of_rank; /**< [P]: number of the host of each rank */
    int hosts;
};

/** Collective: wait for all ranks. @return BSATTN_OK or BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_context_barrier(bsattn_context_t *context);

/** Collective: bring one item of every rank to every process.
 *  @param local_items  [local_count, item_bytes]
 *  @param all_items    [P, item_bytes], in rank order */
bsattn_status_t bsattn_context_gather(bsattn_context_t *context, const void *local_items,
                                      size_t item_bytes, void *all_items);

/** Collective: agree on a status; see bsattn_transport_agree(). */
bsattn_status_t bsattn_context_agree(bsattn_context_t *context, bsattn_status_t status);

#endif
