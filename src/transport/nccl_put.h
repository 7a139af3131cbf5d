/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file nccl_put.h
 * Messages by one-sided puts: copy engines within a host, the network beyond it, and no kernel of NCCL
 * in either.
 *
 * NCCL puts from and into windows alone, and a window is memory that NCCL can map into other
 * processes, registered by all ranks together. The buffers of a plan are neither (cudaMalloc, and
 * ranks need not have the same number of them), so a message goes in pieces through a window that
 * lives as long as the transport: a copy on the GPU at either end.
 */
#ifndef BSATTN_TRANSPORT_NCCL_PUT_H
#define BSATTN_TRANSPORT_NCCL_PUT_H

#include "transport/nccl_comm.h"

/** What one rank needs to put and to be put to. */
typedef struct bsattn_nccl_put bsattn_nccl_put_t;

/** Can this build, with this NCCL and this driver?
 *  @param version  of NCCL, as it says itself
 *  @return BSATTN_OK or BSATTN_ERR_ENVIRONMENT, naming what is missing */
bsattn_status_t bsattn_nccl_put_check(int version);

/** Allocate. @param comm  outlives it
 *  @return BSATTN_OK, BSATTN_ERR_MEMORY or BSATTN_ERR_ENVIRONMENT, holding nothing then */
bsattn_status_t bsattn_nccl_put_create(bsattn_nccl_comm_t *comm, bsattn_nccl_put_t **put_p);

/** Collective: register the window. */
bsattn_status_t bsattn_nccl_put_open(bsattn_nccl_put_t *put);

/** Before the communicator is finalized, or after it was given up. @param put  may be NULL */
void bsattn_nccl_put_destroy(bsattn_nccl_put_t *put);

/** @return stream operations of a message, about as many as NCCL's calls come to */
int64_t bsattn_nccl_put_operations(size_t out_bytes, size_t in_bytes);

/** Enqueue a message, in the order of the stream. Who it is for and who it is from do the same. */
bsattn_status_t bsattn_nccl_put_move(bsattn_nccl_put_t *put, const bsattn_nccl_message_t *message,
                                     cudaStream_t stream);

#endif
