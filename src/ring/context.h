/* SPDX-License-Identifier: Apache-2.0 */
/** @file context.h  Transport and backend of a set of ranks, and what their command needs of them
 *  beside bsattn.h. */
#ifndef BSATTN_RING_CONTEXT_H
#define BSATTN_RING_CONTEXT_H

#include "backend/backend.h"
#include "place/place.h"
#include "transport/transport.h"

struct bsattn_context {
    bsattn_transport_t *transport;
    bsattn_backend_t *backend;
    bsattn_backend_choice_t choice;
    int threads;
    double timeout_s;
    char transport_reason[160];
    bsattn_place_seat_t *seats;      /**< [P] */
    bsattn_place_choice_t *places;   /**< [P] */
    bsattn_place_machine_t *machine; /**< NULL: not looked at, for virtual ranks on CPUs */
    bsattn_place_cores_t cores;      /**< of this process */
    int *host_of_rank;               /**< [P]: number of the host of each rank */
    int hosts;
    bool gpus_apart; /**< ranks may be on GPUs of a host that cannot use one another's memory */
};

/** @return whether two ranks compute in the same memory: of their host, or of their GPU */
bool bsattn_context_same_memory(const bsattn_context_t *context, int rank, int other);

/** Collective: wait for all ranks. @return BSATTN_OK or BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_context_barrier(bsattn_context_t *context);

/** Collective: bring one item of every rank to every process.
 *  @param local_items  [local_count, item_bytes]
 *  @param all_items    [P, item_bytes], in rank order */
bsattn_status_t bsattn_context_gather(bsattn_context_t *context, const void *local_items,
                                      size_t item_bytes, void *all_items);

/** Collective: agree on a status; see bsattn_transport_agree(). */
bsattn_status_t bsattn_context_agree(bsattn_context_t *context, bsattn_status_t status);

/** Tensors of this process, in the memory that its backend computes in: see bsattn_backend_ops_t.
 *  Not collective. */
bsattn_status_t bsattn_context_alloc(bsattn_context_t *context, size_t bytes, void **memory_p);
void bsattn_context_free(bsattn_context_t *context, void *memory);
bsattn_status_t bsattn_context_fill(bsattn_context_t *context, void *memory, unsigned char byte,
                                    size_t bytes);
bsattn_status_t bsattn_context_read(bsattn_context_t *context, const bsattn_rows_t *rows);
bsattn_status_t bsattn_context_write(bsattn_context_t *context, const bsattn_rows_t *rows);

#endif
