/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file staging_cuda.h
 * Messages of a GPU through pinned host memory, piece by piece.
 *
 * The pieces of a message pass through BSATTN_STAGING_SLOTS slots in turn, piece i through slot
 * i modulo that, and so do the pieces of the message that arrives. Only slots that are through may
 * be used again: the caller asks. Nothing here waits.
 */
#ifndef BSATTN_TRANSPORT_STAGING_CUDA_H
#define BSATTN_TRANSPORT_STAGING_CUDA_H

#include "transport/transport.h"

/** Large enough for the bandwidth of a network, small enough for the slots of several ranks to stay in a processor's
 *  cache from one copy to the next. */
enum { BSATTN_STAGING_SLOTS = 4, BSATTN_STAGING_PIECE = 2 << 20 /**< bytes of a slot */ };

/** What the exchanges of a rank share; they are carried out one after the other. */
typedef struct bsattn_staging bsattn_staging_t;

/** One exchange. */
typedef struct bsattn_staged bsattn_staged_t;

/** @return BSATTN_OK or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_staging_create(bsattn_staging_t **staging_p);
/** @param staging  may be NULL */
void bsattn_staging_destroy(bsattn_staging_t *staging);

/** Allocate what an exchange needs and count it in the exchange.
 *  @param slots  through host memory; else rows are only brought together on the GPU
 *  @return BSATTN_OK, BSATTN_ERR_MEMORY or BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_staged_prepare(bsattn_staging_t *staging, bsattn_exchange_t *exchange,
                                      bool slots, bsattn_staged_t **staged_p);
/** @param staged  may be NULL */
void bsattn_staged_release(bsattn_staged_t *staged);

/** @return bytes to send */
size_t bsattn_staged_bytes(const bsattn_staged_t *staged);

/** Enqueue: the exchange begins after all that the rank's queue holds, with bringing its rows
 *  together. */
bsattn_status_t bsattn_staged_start(bsattn_staged_t *staged);

/** Has it begun and are the rows together? */
bsattn_status_t bsattn_staged_ready(const bsattn_staged_t *staged, bool *done_p);

/** @return the rows to send, in GPU memory, once they are together */
const void *bsattn_staged_rows(const bsattn_staged_t *staged);

/** @return the host memory of slot piece % BSATTN_STAGING_SLOTS */
void *bsattn_staged_out_slot(const bsattn_staged_t *staged, int64_t piece);
void *bsattn_staged_in_slot(const bsattn_staged_t *staged, int64_t piece);

/** Enqueue: a piece of the rows to send into its slot. */
bsattn_status_t bsattn_staged_take(bsattn_staged_t *staged, int64_t piece, size_t bytes);
/** Is it there? */
bsattn_status_t bsattn_staged_taken(const bsattn_staged_t *staged, int64_t piece, bool *done_p);

/** Enqueue: a piece of the rows received out of its slot. */
bsattn_status_t bsattn_staged_give(bsattn_staged_t *staged, int64_t piece, size_t bytes);
/** Is what the piece's slot held before out of it? */
bsattn_status_t bsattn_staged_given(const bsattn_staged_t *staged, int64_t piece, bool *done_p);

/** Enqueue: the rank goes on after the exchange. */
bsattn_status_t bsattn_staged_finish(bsattn_staged_t *staged);

#endif
