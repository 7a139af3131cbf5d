/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/device_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------- failures */

void bsattn_gpu_end(int code, const char *what, const char *why)
{
    (void)fflush(stdout);
    (void)fprintf(stderr, "%s: %s\n", what, why);
    exit(code);
}

void bsattn_gpu_check(cudaError_t error, const char *what)
{
    if (error != cudaSuccess) {
        bsattn_gpu_end((error == cudaErrorMemoryAllocation) ? BSATTN_ERR_MEMORY
                                                            : BSATTN_ERR_ENVIRONMENT,
                       what, cudaGetErrorString(error));
    }
}

void bsattn_gpu_check_status(bsattn_status_t status, const char *what)
{
    if (status != BSATTN_OK) {
        bsattn_gpu_end((int)status, what, bsattn_last_error());
    }
}

void *bsattn_gpu_host_new(size_t count, size_t size)
{
    void *memory = calloc(count + 1, size);

    if (memory == NULL) {
        bsattn_gpu_end(BSATTN_ERR_MEMORY, "calloc", "out of memory");
    }
    return memory;
}

const char *bsattn_gpu_error_text(int error)
{
    return cudaGetErrorString((cudaError_t)error);
}

/* ------------------------------------------------------------------------------------------ GPU */

const char *bsattn_gpu_missing(void)
{
    int driver = 0;
    int count = 0;
    cudaError_t error;

    if ((cudaDriverGetVersion(&driver) == cudaSuccess) && (driver == 0)) {
        return "there is no GPU driver";
    }
    error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) {
        return cudaGetErrorString(error);
    }
    return (count > 0) ? NULL : "no GPU is visible";
}

int bsattn_gpu_capability(void)
{
    int major = 0;
    int minor = 0;

    BSATTN_GPU_TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    BSATTN_GPU_TRY(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
    return 10 * major + minor;
}

const char *bsattn_gpu_name(void)
{
    static struct cudaDeviceProp properties;

    BSATTN_GPU_TRY(cudaGetDeviceProperties(&properties, 0));
    return properties.name;
}

const bsattn_cuda_kernel_t *bsattn_gpu_kernel(const char *name)
{
    for (int i = 0; i < BSATTN_CUDA_KERNEL_COUNT; ++i) {
        if (strcmp(bsattn_cuda_kernels[i]->name, name) == 0) {
            return bsattn_cuda_kernels[i];
        }
    }
    return NULL;
}

bool bsattn_gpu_kernel_can(const bsattn_cuda_kernel_t *kernel, bsattn_dtype_t dtype, int head_dim)
{
    return bsattn_cuda_kernel_can(kernel, bsattn_gpu_capability(), dtype, head_dim);
}

double bsattn_gpu_memory_rate(void)
{
    const size_t bytes = (size_t)1 << 29;
    const int repeats = 10;
    void *memory[2];
    cudaEvent_t begin;
    cudaEvent_t done;
    float ms = 0.0f;

    BSATTN_GPU_TRY(cudaMalloc(&memory[0], bytes));
    BSATTN_GPU_TRY(cudaMalloc(&memory[1], bytes));
    BSATTN_GPU_TRY(cudaEventCreate(&begin));
    BSATTN_GPU_TRY(cudaEventCreate(&done));
    for (int r = -2; r < repeats; ++r) {
        if (r == 0) {
            BSATTN_GPU_TRY(cudaEventRecord(begin, NULL));
        }
        BSATTN_GPU_TRY(
            cudaMemcpyAsync(memory[1], memory[0], bytes, cudaMemcpyDeviceToDevice, NULL));
    }
    BSATTN_GPU_TRY(cudaEventRecord(done, NULL));
    BSATTN_GPU_TRY(cudaEventSynchronize(done));
    BSATTN_GPU_TRY(cudaEventElapsedTime(&ms, begin, done));
    BSATTN_GPU_TRY(cudaEventDestroy(begin));
    BSATTN_GPU_TRY(cudaEventDestroy(done));
    BSATTN_GPU_TRY(cudaFree(memory[0]));
    BSATTN_GPU_TRY(cudaFree(memory[1]));
    return 2.0 * (double)bytes * repeats / (1e-3 * (double)ms);
}
