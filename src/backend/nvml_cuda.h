/* SPDX-License-Identifier: Apache-2.0 */
/** @file nvml_cuda.h  What is held on a GPU, as the driver's own library tells it. */
#ifndef BSATTN_BACKEND_NVML_CUDA_H
#define BSATTN_BACKEND_NVML_CUDA_H

#include <stdint.h>

typedef struct bsattn_nvml bsattn_nvml_t;

/** Open the library for one GPU. @param pci  e.g. "0000:1b:00.0"  @return NULL if it cannot tell */
bsattn_nvml_t *bsattn_nvml_open(const char *pci);
/** @param nvml  may be NULL */
void bsattn_nvml_close(bsattn_nvml_t *nvml);

/** @return bytes held by all processes and the driver; -1: not known (nvml may be NULL) */
int64_t bsattn_nvml_used(const bsattn_nvml_t *nvml);

/** @return bytes held by this process; -1: not known, as in containers that hide process numbers */
int64_t bsattn_nvml_used_here(const bsattn_nvml_t *nvml);

#endif
