/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/queue_cuda.h"

bsattn_status_t bsattn_cuda_check(cudaError_t error, const char *call)
{
    if (error == cudaSuccess) {
        return BSATTN_OK;
    }
    (void)cudaGetLastError(); /* what can be recovered from must not be found again later */
    return bsattn_fail((error == cudaErrorMemoryAllocation) ? BSATTN_ERR_MEMORY
                                                            : BSATTN_ERR_ENVIRONMENT,
                       "CUDA: %s: %s (%s)", call, cudaGetErrorString(error),
                       cudaGetErrorName(error));
}

/* Make one stream wait for all that another holds now. */
static bsattn_status_t follow(cudaStream_t follower, cudaStream_t leader, cudaEvent_t event)
{
    BSATTN_TRY(bsattn_cuda_check(cudaEventRecord(event, leader), "cudaEventRecord"));
    return bsattn_cuda_check(cudaStreamWaitEvent(follower, event, 0), "cudaStreamWaitEvent");
}

bsattn_status_t bsattn_cuda_queue_exchange_after_compute(bsattn_cuda_queue_t *queue)
{
    return follow(queue->exchange, queue->compute, queue->computed);
}

bsattn_status_t bsattn_cuda_queue_compute_after_exchange(bsattn_cuda_queue_t *queue)
{
    return follow(queue->compute, queue->exchange, queue->exchanged);
}
