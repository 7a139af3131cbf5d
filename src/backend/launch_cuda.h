/* SPDX-License-Identifier: Apache-2.0 */
/** @file launch_cuda.h  A kernel's launch as a graph of one node, which the driver starts in a third of
 *  the time that it takes to put a launch together. */
#ifndef BSATTN_BACKEND_LAUNCH_CUDA_H
#define BSATTN_BACKEND_LAUNCH_CUDA_H

#include "base/status.h"
#include "kernels/attend_cuda.h"

#include <cuda_runtime.h>

/** Make a launch ready, or give it other arguments; starts of it that are still under way keep theirs.
 *  While this is done no thread may wait for the whole device (cudaDeviceSynchronize()): CUDA lets neither
 *  succeed.
 *  @param params    unit_count > 0
 *  @param stream    made with cudaStreamNonBlocking; what it holds does not change
 *  @param launch_p  NULL in it: a new one is made, which takes about 0.1 MB of the GPU. Otherwise one
 *                   that was made by the same kernel
 *  @return BSATTN_OK, BSATTN_ERR_MEMORY or BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_cuda_launch_make(const bsattn_cuda_kernel_t *kernel,
                                        const bsattn_attend_cuda_params_t *params,
                                        cudaStream_t stream, cudaGraphExec_t *launch_p);

/** @param launch_p  NULL in it is allowed, and is there afterwards */
void bsattn_cuda_launch_destroy(cudaGraphExec_t *launch_p);

#endif
