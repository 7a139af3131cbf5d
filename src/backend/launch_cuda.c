/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/launch_cuda.h"

#include "backend/queue_cuda.h"

/* What the kernel would have launched. */
static bsattn_status_t capture(const bsattn_cuda_kernel_t *kernel,
                               const bsattn_attend_cuda_params_t *params, cudaStream_t stream,
                               cudaGraph_t *graph_p)
{
    cudaError_t launched;
    cudaError_t ended;

    BSATTN_TRY(bsattn_cuda_check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                                 "cudaStreamBeginCapture"));
    launched = (cudaError_t)kernel->launch(params, stream);
    ended = cudaStreamEndCapture(stream, graph_p); /* whatever came before */
    BSATTN_TRY(bsattn_cuda_check(launched, kernel->name));
    return bsattn_cuda_check(ended, "cudaStreamEndCapture");
}

static bsattn_status_t instantiate(cudaGraph_t graph, cudaStream_t stream,
                                   cudaGraphExec_t *launch_p)
{
    bsattn_status_t status;

    BSATTN_TRY(bsattn_cuda_check(cudaGraphInstantiate(launch_p, graph, 0), "cudaGraphInstantiate"));
    /* Its memory is taken now, not when it is started first. */
    status = bsattn_cuda_check(cudaGraphUpload(*launch_p, stream), "cudaGraphUpload");
    if (status != BSATTN_OK) {
        bsattn_cuda_launch_destroy(launch_p);
    }
    return status;
}

bsattn_status_t bsattn_cuda_launch_make(const bsattn_cuda_kernel_t *kernel,
                                        const bsattn_attend_cuda_params_t *params,
                                        cudaStream_t stream, cudaGraphExec_t *launch_p)
{
    cudaGraphExecUpdateResultInfo result;
    cudaGraph_t graph = NULL;
    bsattn_status_t status = capture(kernel, params, stream, &graph);

    if (status == BSATTN_OK) {
        status = (*launch_p == NULL)
                     ? instantiate(graph, stream, launch_p)
                     : bsattn_cuda_check(cudaGraphExecUpdate(*launch_p, graph, &result),
                                         "cudaGraphExecUpdate");
    }
    if (graph != NULL) {
        (void)cudaGraphDestroy(graph);
    }
    return status;
}

void bsattn_cuda_launch_destroy(cudaGraphExec_t *launch_p)
{
    if (*launch_p != NULL) {
        (void)cudaGraphExecDestroy(*launch_p);
        *launch_p = NULL;
    }
}
