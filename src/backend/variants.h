/* SPDX-License-Identifier: Apache-2.0 */
/** @file variants.h  The backends there are. See backend.h for what the functions do. */
#ifndef BSATTN_BACKEND_VARIANTS_H
#define BSATTN_BACKEND_VARIANTS_H

#include "backend/backend.h"

/** @return BSATTN_OK, or BSATTN_ERR_INPUT if BSATTN_ISA asks for what the processor has not */
bsattn_status_t bsattn_backend_cpu_check(void);
bsattn_status_t bsattn_backend_cpu_create(int threads, bsattn_backend_t **backend_p);
bsattn_machine_t bsattn_backend_cpu_machine(int threads);

/* Only in builds with CUDA. */
int bsattn_backend_cuda_gpus(char *reason, size_t size);
bsattn_status_t bsattn_backend_cuda_gpu(int index, bsattn_gpu_t *gpu_p);
const char *bsattn_backend_cuda_versions(void);
bool bsattn_backend_cuda_reaches_all(const bsattn_backend_t *backend);
bsattn_status_t bsattn_backend_cuda_create(int device, int threads, bsattn_backend_t **backend_p);

/** What a CUDA context holds of a GPU's memory, where that cannot be measured (BENCHMARKS.md, memory). */
extern const int64_t bsattn_cuda_context_bytes;

/** The same in every build: an H200. */
bsattn_machine_t bsattn_backend_cuda_machine(int threads);

#endif
