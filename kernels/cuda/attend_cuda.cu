/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel for which problem on which GPU, and its launch. */
#include "kernels/attend_cuda.h"

extern "C" {
#include "base/status.h"
}

#include <cuda_runtime.h>
#include <stdlib.h>
#include <string.h>

extern "C" {

const bsattn_cuda_kernel_t *const bsattn_cuda_kernels[BSATTN_CUDA_KERNEL_COUNT] = {
    &bsattn_attend_sm90, &bsattn_attend_sm80, &bsattn_attend_plain};

#ifndef BSATTN_HAVE_SM90
/* attend_sm90.cu is left out of this build. */
const bsattn_cuda_kernel_t bsattn_attend_sm90 = {"sm90", nullptr, nullptr};

size_t bsattn_attend_cuda_maps_bytes(const bsattn_cuda_kernel_t *, int)
{
    return 0;
}

int bsattn_attend_cuda_maps(const bsattn_attend_cuda_params_t *, const bsattn_key_head_t *, void *)
{
    return cudaErrorNotSupported;
}
#endif

bool bsattn_cuda_kernel_can(const bsattn_cuda_kernel_t *kernel, int capability,
                            bsattn_dtype_t dtype, int head_dim)
{
    if (kernel == &bsattn_attend_sm90) {
        /* Its instructions are those of compute capability 9.0 alone. */
        return (kernel->prepare != nullptr) && (capability == 90) && (dtype != BSATTN_F32) &&
               ((head_dim == 64) || (head_dim == 128));
    }
    return (capability >= 80) && ((kernel == &bsattn_attend_plain) || (dtype != BSATTN_F32));
}

bsattn_status_t bsattn_cuda_kernel_find(int capability, bsattn_dtype_t dtype, int head_dim,
                                        const bsattn_cuda_kernel_t **kernel_p)
{
    const char *wanted = getenv("BSATTN_CUDA_KERNEL");
    bool any = (wanted == NULL) || (wanted[0] == '\0');
    bool known = false;

    if (capability < 80) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                           "the GPU has compute capability %d.%d; 8.0 or later is needed",
                           capability / 10, capability % 10);
    }
    for (const bsattn_cuda_kernel_t *kernel : bsattn_cuda_kernels) {
        bool named = any || (strcmp(kernel->name, wanted) == 0);
        known = known || named;
        if (named && bsattn_cuda_kernel_can(kernel, capability, dtype, head_dim)) {
            *kernel_p = kernel;
            return BSATTN_OK;
        }
    }
    if (!known) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "BSATTN_CUDA_KERNEL is \"%s\"; there are sm90, sm80 and plain", wanted);
    }
    return bsattn_fail(BSATTN_ERR_INPUT,
                       "BSATTN_CUDA_KERNEL: %s cannot do %s with head_dim %d on compute capability "
                       "%d.%d; plain can",
                       wanted, bsattn_dtype_name(dtype), head_dim, capability / 10,
                       capability % 10);
}

static int start(bsattn_cuda_launch_t *launch, unsigned ctas, cudaStream_t stream)
{
    void *argument = launch->argument;

    return (ctas == 0) ? cudaSuccess
                       : cudaLaunchKernel(launch->function, ctas, launch->threads, &argument,
                                          launch->shared_bytes, stream);
}

int bsattn_attend_cuda(const bsattn_cuda_kernel_t *kernel,
                       const bsattn_attend_cuda_params_t *params, int spare, cudaStream_t stream,
                       cudaStream_t later)
{
    bsattn_cuda_launch_t launch;
    int error;

    if (params->unit_count == 0) {
        return cudaSuccess;
    }
    error = kernel->prepare(params, spare, &launch);
    if (error == cudaSuccess) {
        error = start(&launch, launch.ctas, stream);
    }
    return (error == cudaSuccess) ? start(&launch, launch.late_ctas, later) : error;
}
}
