/* SPDX-License-Identifier: Apache-2.0 */
/** @file launch_cuda.h  A kernel's launch as a graph of one node, which the driver starts in a third of
 *  the time that it takes to put a launch together. */
#ifndef BSATTN_BACKEND_LAUNCH_CUDA_H
#define BSATTN_BACKEND_LAUNCH_CUDA_H

#include "base/status.h"
#include "kernels/attend_cuda.h"

#include <cuda_runtime.h>

/** Zeros: there is none. */
typedef struct bsattn_ready_launch {
    cudaGraph_t graph;
    cudaGraphNode_t node;
    cudaGraphExec_t exec;
} bsattn_ready_launch_t;

/** Make a launch ready; about 0.1 MB of the GPU are its own.
 *  @param params   unit_count > 0
 *  @param stream   where it will be started first
 *  @param launch   zeros; to be destroyed whatever comes back
 *  @return BSATTN_OK, BSATTN_ERR_MEMORY or BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_ready_launch_make(bsattn_ready_launch_t *launch,
                                         const bsattn_cuda_kernel_t *kernel,
                                         const bsattn_attend_cuda_params_t *params,
                                         cudaStream_t stream);

/** Give it other arguments; starts of it that are still under way keep theirs.
 *  @param kernel  that it was made with */
bsattn_status_t bsattn_ready_launch_set(const bsattn_ready_launch_t *launch,
                                        const bsattn_cuda_kernel_t *kernel,
                                        const bsattn_attend_cuda_params_t *params);

bsattn_status_t bsattn_ready_launch_start(const bsattn_ready_launch_t *launch, cudaStream_t stream);

/** Zeros are allowed, and are there afterwards. */
void bsattn_ready_launch_destroy(bsattn_ready_launch_t *launch);

#endif
