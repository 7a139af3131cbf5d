/* SPDX-License-Identifier: Apache-2.0 */
/** @file queue_cuda.h  The streams of one rank on a GPU, shared by its backend and its transport. */
#ifndef BSATTN_BACKEND_QUEUE_CUDA_H
#define BSATTN_BACKEND_QUEUE_CUDA_H

#include "base/status.h"

#include <cuda_runtime.h>

/** Order is kept by events alone; the host never waits inside a step loop. At step s the loop calls
 *  the transport's start(s), enqueues attend(s) on compute, then calls wait(s).
 *  start(s): the transport makes `exchange` wait for what is on `compute` so far (attend(s-1): its
 *  chunk's buffer is now free), and moves chunk s on `exchange`.
 *  wait(s): the transport makes `compute` wait for that. */
typedef struct bsattn_cuda_queue {
    int device;
    cudaStream_t compute;
    cudaStream_t exchange; /**< high priority */
    cudaEvent_t computed;  /**< to make exchange wait for compute; no timing */
    cudaEvent_t exchanged; /**< to make compute wait for exchange; no timing */
} bsattn_cuda_queue_t;

/** Say what CUDA call failed. @return BSATTN_OK, BSATTN_ERR_MEMORY (cudaErrorMemoryAllocation) or
 *  BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_cuda_check(cudaError_t error, const char *call);

/** Make exchange wait for all that compute holds now. */
bsattn_status_t bsattn_cuda_queue_exchange_after_compute(bsattn_cuda_queue_t *queue);

/** Make compute wait for all that exchange holds now. */
bsattn_status_t bsattn_cuda_queue_compute_after_exchange(bsattn_cuda_queue_t *queue);

#endif
