/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/launch_cuda.h"

#include "backend/queue_cuda.h"

/* The node of a launch. What it points to is read while a function is called with it. */
typedef struct launch_node {
    bsattn_cuda_launch_t launch;
    void *argument;
    struct cudaKernelNodeParams params;
} launch_node_t;

static bsattn_status_t node_init(launch_node_t *node, const bsattn_cuda_kernel_t *kernel,
                                 const bsattn_attend_cuda_params_t *params)
{
    const bsattn_cuda_launch_t *launch = &node->launch;

    BSATTN_TRY(
        bsattn_cuda_check((cudaError_t)kernel->prepare(params, 0, &node->launch), kernel->name));
    node->argument = node->launch.argument;
    node->params = (struct cudaKernelNodeParams){
        .func = (void *)launch->function,
        .gridDim = {launch->ctas, 1, 1},
        .blockDim = {launch->threads, 1, 1},
        .sharedMemBytes = (unsigned)launch->shared_bytes,
        .kernelParams = &node->argument,
    };
    return BSATTN_OK;
}

bsattn_status_t bsattn_ready_launch_make(bsattn_ready_launch_t *launch,
                                         const bsattn_cuda_kernel_t *kernel,
                                         const bsattn_attend_cuda_params_t *params,
                                         cudaStream_t stream)
{
    launch_node_t node;

    BSATTN_TRY(node_init(&node, kernel, params));
    BSATTN_TRY(bsattn_cuda_check(cudaGraphCreate(&launch->graph, 0), "cudaGraphCreate"));
    BSATTN_TRY(bsattn_cuda_check(
        cudaGraphAddKernelNode(&launch->node, launch->graph, NULL, 0, &node.params),
        "cudaGraphAddKernelNode"));
    BSATTN_TRY(bsattn_cuda_check(cudaGraphInstantiate(&launch->exec, launch->graph, 0),
                                 "cudaGraphInstantiate"));
    /* Its memory is taken now, not when it is started first. */
    return bsattn_cuda_check(cudaGraphUpload(launch->exec, stream), "cudaGraphUpload");
}

bsattn_status_t bsattn_ready_launch_set(const bsattn_ready_launch_t *launch,
                                        const bsattn_cuda_kernel_t *kernel,
                                        const bsattn_attend_cuda_params_t *params)
{
    launch_node_t node;

    BSATTN_TRY(node_init(&node, kernel, params));
    return bsattn_cuda_check(
        cudaGraphExecKernelNodeSetParams(launch->exec, launch->node, &node.params),
        "cudaGraphExecKernelNodeSetParams");
}

bsattn_status_t bsattn_ready_launch_start(const bsattn_ready_launch_t *launch, cudaStream_t stream)
{
    return bsattn_cuda_check(cudaGraphLaunch(launch->exec, stream), "cudaGraphLaunch");
}

void bsattn_ready_launch_destroy(bsattn_ready_launch_t *launch)
{
    if (launch->exec != NULL) {
        (void)cudaGraphExecDestroy(launch->exec);
    }
    if (launch->graph != NULL) {
        (void)cudaGraphDestroy(launch->graph);
    }
    *launch = (bsattn_ready_launch_t){.exec = NULL};
}
