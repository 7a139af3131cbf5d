/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file device_cuda.h
 * The GPU that a bench or a test runs on, and how such a program ends when it cannot go on: CUDA
 * fails, there is no memory, a pattern cannot be read.
 */
#ifndef BSATTN_BENCH_DEVICE_CUDA_H
#define BSATTN_BENCH_DEVICE_CUDA_H

#include <cuda_runtime.h>

#include "base/status.h"
#include "kernels/attend_cuda.h"

/** End the program with a message and an exit code of bsattn_status_t. */
__attribute__((noreturn)) void bsattn_gpu_end(int code, const char *what, const char *why);

/** End it unless there is no error. */
void bsattn_gpu_check(cudaError_t error, const char *what);
void bsattn_gpu_check_status(bsattn_status_t status, const char *what);

#define BSATTN_GPU_TRY(_call) bsattn_gpu_check((_call), #_call)

/** @return zeroed host memory, for the caller to free(); never NULL */
void *bsattn_gpu_host_new(size_t count, size_t size);

/** @return the text of an error of CUDA */
const char *bsattn_gpu_error_text(int error);

/** @return NULL, or why there is no GPU to run on */
const char *bsattn_gpu_missing(void);

/** @return 10 * major + minor of the GPU's compute capability */
int bsattn_gpu_capability(void);

/** @return the name of the GPU */
const char *bsattn_gpu_name(void);

/** @return the kernel of a name: "sm90", "sm80", "plain"; NULL if there is none */
const bsattn_cuda_kernel_t *bsattn_gpu_kernel(const char *name);

/** @return whether a kernel can do a problem on this GPU */
bool bsattn_gpu_kernel_can(const bsattn_cuda_kernel_t *kernel, bsattn_dtype_t dtype, int head_dim);

/** @return bytes that the GPU's memory reads and writes in a second, of a large copy */
double bsattn_gpu_memory_rate(void);

#endif
