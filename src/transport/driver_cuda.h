/* SPDX-License-Identifier: Apache-2.0 */
/** @file driver_cuda.h  The few functions of the CUDA driver that the runtime library lacks, found
 *  at run time so that no driver need be there to link. */
#ifndef BSATTN_TRANSPORT_DRIVER_CUDA_H
#define BSATTN_TRANSPORT_DRIVER_CUDA_H

#include "base/status.h"

#include <cuda_runtime.h>

/** Find them, and how this GPU waits. @return BSATTN_OK or BSATTN_ERR_ENVIRONMENT, naming what is missing */
bsattn_status_t bsattn_driver_init(int device);

/** The allocation that memory of a GPU is part of.
 *  @param offset_p  receives how far inside it the memory begins */
bsattn_status_t bsattn_driver_allocation(void *memory, void **base_p, size_t *offset_p);

/** Enqueue: write a number, after all writes before it. @param flag  of this GPU or another's that
 *  is mapped */
bsattn_status_t bsattn_driver_write(cudaStream_t stream, uint32_t *flag, uint32_t value);

/** Enqueue: wait until a number has reached a value, counting around past 2^32. What was written before
 *  the number is there then, too. @param flag  of this GPU */
bsattn_status_t bsattn_driver_wait(cudaStream_t stream, const uint32_t *flag, uint32_t value);

#endif
