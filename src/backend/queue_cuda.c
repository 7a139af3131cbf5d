/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/queue_cuda.h"

#include "base/text.h"

bsattn_status_t bsattn_cuda_check(cudaError_t error, const char *call)
{
    if (error == cudaSuccess) {
        return BSATTN_OK;
    }
    (void)cudaGetLastError(); /* what can be recovered from must not be found again later */
    return bsattn_fail(
        (error == cudaErrorMemoryAllocation) ? BSATTN_ERR_MEMORY : BSATTN_ERR_ENVIRONMENT,
        "CUDA: %s: %s (%s)", call, cudaGetErrorString(error), cudaGetErrorName(error));
}

bsattn_status_t bsattn_cuda_event_create(cudaEvent_t *event_p)
{
    *event_p = NULL;
    return bsattn_cuda_check(cudaEventCreateWithFlags(event_p, cudaEventDisableTiming),
                             "cudaEventCreateWithFlags");
}

void bsattn_cuda_event_destroy(cudaEvent_t *event_p)
{
    if (*event_p != NULL) {
        (void)cudaEventDestroy(*event_p);
        *event_p = NULL;
    }
}

bsattn_status_t bsattn_cuda_event_record(cudaEvent_t event, cudaStream_t stream)
{
    return bsattn_cuda_check(cudaEventRecord(event, stream), "cudaEventRecord");
}

bsattn_status_t bsattn_cuda_event_await(cudaStream_t stream, cudaEvent_t event)
{
    return bsattn_cuda_check(cudaStreamWaitEvent(stream, event, 0), "cudaStreamWaitEvent");
}

bsattn_status_t bsattn_cuda_look(cudaError_t error, const char *what, bool *done_p)
{
    *done_p = (error == cudaSuccess);
    if (error == cudaErrorNotReady) {
        (void)cudaGetLastError();
        return BSATTN_OK;
    }
    return bsattn_cuda_check(error, what);
}

const char *bsattn_cuda_free_text_of(char *buf, size_t size, int device, const char *name,
                                     int64_t available, int64_t total)
{
    char have_text[32];
    char total_text[32];
    bsattn_strbuf_t text;

    bsattn_strbuf_init(&text, buf, size);
    bsattn_strbuf_add(&text, "on GPU %d (%s)", device, name);
    if (available >= 0) {
        bsattn_strbuf_add(&text, ", %s of %s were free",
                          bsattn_text_bytes(have_text, sizeof(have_text), (double)available),
                          bsattn_text_bytes(total_text, sizeof(total_text), (double)total));
    }
    return buf;
}

const char *bsattn_cuda_free_text(char *buf, size_t size)
{
    struct cudaDeviceProp properties = {.name = "unknown"};
    size_t available = 0;
    size_t total = 0;
    int device = -1;

    (void)cudaGetDevice(&device);
    (void)cudaGetDeviceProperties(&properties, device);
    (void)cudaMemGetInfo(&available, &total);
    (void)cudaGetLastError();
    return bsattn_cuda_free_text_of(buf, size, device, properties.name, (int64_t)available,
                                    (int64_t)total);
}

bsattn_status_t bsattn_cuda_fail_memory(size_t bytes, const char *purpose)
{
    char need_text[32];
    char free_text[BSATTN_CUDA_FREE_TEXT_SIZE];

    return bsattn_fail(BSATTN_ERR_MEMORY, "out of memory: %s%s were refused %s",
                       bsattn_text_bytes(need_text, sizeof(need_text), (double)bytes), purpose,
                       bsattn_cuda_free_text(free_text, sizeof(free_text)));
}

bsattn_status_t bsattn_cuda_malloc(size_t bytes, const char *purpose, void *memory_p)
{
    void *memory = NULL;
    cudaError_t error = cudaMalloc(&memory, bytes);

    *(void **)memory_p = (error == cudaSuccess) ? memory : NULL;
    return (error == cudaErrorMemoryAllocation) ? bsattn_cuda_fail_memory(bytes, purpose)
                                                : bsattn_cuda_check(error, "cudaMalloc");
}

bsattn_status_t bsattn_cuda_upload(void *to, const void *from, size_t bytes)
{
    BSATTN_TRY(
        bsattn_cuda_check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy"));
    /* From pageable memory the copy may end later, and other streams do not wait for it. */
    return bsattn_cuda_check(cudaStreamSynchronize(cudaStreamLegacy), "cudaStreamSynchronize");
}

/* Make one stream wait for all that another holds now. */
static bsattn_status_t follow(cudaStream_t follower, cudaStream_t leader, cudaEvent_t event)
{
    BSATTN_TRY(bsattn_cuda_event_record(event, leader));
    return bsattn_cuda_event_await(follower, event);
}

bsattn_status_t bsattn_cuda_queue_exchange_after_compute(bsattn_cuda_queue_t *queue)
{
    return follow(queue->exchange, queue->compute, queue->computed);
}

bsattn_status_t bsattn_cuda_queue_compute_after_exchange(bsattn_cuda_queue_t *queue)
{
    return follow(queue->compute, queue->exchange, queue->exchanged);
}
