/* SPDX-License-Identifier: Apache-2.0 */
/** @file queue_cuda.h  The streams of one rank on a GPU, shared by its backend and its transport. */
#ifndef BSATTN_BACKEND_QUEUE_CUDA_H
#define BSATTN_BACKEND_QUEUE_CUDA_H

#include "base/status.h"

#include <cuda_runtime.h>
#include <stdbool.h>
#include <stdint.h>

/** Order is kept by events alone. Inside the step loop the host waits where more is enqueued ahead of the GPU than
 *  its streams hold, where NCCL takes its time to enqueue, and for messages that MPI carries. At step s:
 *  1. the beginning of the exchange makes `exchange` wait for what `compute` holds so far (attend(s-1), after
 *     which its chunk's buffer is free); what the plan has for step s is sent and chunk s+1 received on `exchange`;
 *  2. attend(s) is enqueued on `compute`, behind kernels that bring rows together for another rank; where it leaves
 *     multiprocessors to the exchange, a second part of it, to take these over, on `exchange`;
 *  3. the transport's wait(s) makes `compute` wait for the exchange. */
typedef struct bsattn_cuda_queue {
    cudaStream_t compute;
    cudaStream_t exchange; /**< high priority */
    cudaEvent_t computed;  /**< to make exchange wait for compute; no timing */
    cudaEvent_t exchanged; /**< to make compute wait for exchange; no timing */
    int spare; /**< multiprocessors that an attend leaves to the exchange until that is through; not 0 only where
                    an exchange is enqueued whole at its start. Set by the transport when it prepares */
} bsattn_cuda_queue_t;

/** Say what CUDA call failed. @return BSATTN_OK, BSATTN_ERR_MEMORY (cudaErrorMemoryAllocation) or
 *  BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_cuda_check(cudaError_t error, const char *call);

/** An event for order alone, without timing. @param event_p  NULL if it fails */
bsattn_status_t bsattn_cuda_event_create(cudaEvent_t *event_p);
/** @param event_p  *event_p may be NULL, and is afterwards */
void bsattn_cuda_event_destroy(cudaEvent_t *event_p);
bsattn_status_t bsattn_cuda_event_record(cudaEvent_t event, cudaStream_t stream);
/** Make a stream wait for what was recorded last. */
bsattn_status_t bsattn_cuda_event_await(cudaStream_t stream, cudaEvent_t event);

/** Whether an event or a stream that was queried is done. @return BSATTN_OK, or an error as above */
bsattn_status_t bsattn_cuda_look(cudaError_t error, const char *what, bool *done_p);

/** Bytes from one row to the next that copies of rows take on every GPU. */
enum { BSATTN_CUDA_PITCH_MAX = INT32_MAX };

enum { BSATTN_CUDA_FREE_TEXT_SIZE = 384 };

/** How much memory the current GPU has left, e.g. "on GPU 0 (NVIDIA H100), 1.0 GB of 80 GB were free".
 *  @return buf */
const char *bsattn_cuda_free_text(char *buf, size_t size);

/** The same of any GPU, as the caller knows it. @param available  bytes; negative: not known */
const char *bsattn_cuda_free_text_of(char *buf, size_t size, int device, const char *name,
                                     int64_t available, int64_t total);

/** Say that memory on the current GPU was refused, how much there was, and what for.
 *  @param purpose  "", or e.g. " for bringing a message together"
 *  @return BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_cuda_fail_memory(size_t bytes, const char *purpose);

/** Memory on the current GPU, to be released with cudaFree(). Backends count what they allocate; this
 *  is for transports.
 *  @param memory_p  address of a pointer; NULL if it fails
 *  @return BSATTN_OK, BSATTN_ERR_MEMORY as above, or BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_cuda_malloc(size_t bytes, const char *purpose, void *memory_p);

/** Copy from pageable host memory; every stream finds it there afterwards. */
bsattn_status_t bsattn_cuda_upload(void *to, const void *from, size_t bytes);

/** Make exchange wait for all that compute holds now. */
bsattn_status_t bsattn_cuda_queue_exchange_after_compute(bsattn_cuda_queue_t *queue);

/** Make compute wait for all that exchange holds now: at the end of an exchange, and behind kernels that bring
 *  rows together, since an attend that is started before them holds every multiprocessor to its end. */
bsattn_status_t bsattn_cuda_queue_compute_after_exchange(bsattn_cuda_queue_t *queue);

#endif
