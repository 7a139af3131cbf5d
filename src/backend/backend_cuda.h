/* SPDX-License-Identifier: Apache-2.0 */
/** @file backend_cuda.h  The GPU of a process: shared by the files of the backend cuda. */
#ifndef BSATTN_BACKEND_BACKEND_CUDA_H
#define BSATTN_BACKEND_BACKEND_CUDA_H

#include "backend/backend.h"
#include "backend/nvml_cuda.h"
#include "backend/queue_cuda.h"

/** A piece of device memory, so that what we hold can be told from what libraries do. */
typedef struct bsattn_cuda_piece {
    void *memory;
    size_t bytes;
} bsattn_cuda_piece_t;

typedef struct bsattn_backend_cuda {
    bsattn_backend_t super;
    int capability; /**< 10 * major + minor */
    bsattn_nvml_t *nvml;
    int64_t used_before; /**< on the GPU, before this process held anything there; -1: not known */
    bsattn_cuda_piece_t *pieces;
    size_t piece_count;
    size_t piece_capacity;
    int64_t allocated; /**< sum of the pieces */
    int64_t peak;
} bsattn_backend_cuda_t;

/** Make the backend's GPU the calling thread's current one. */
bsattn_status_t bsattn_cuda_enter(const bsattn_backend_t *backend);

/** Allocate device memory. @param bytes  0 gives NULL
 *  @return BSATTN_OK, BSATTN_ERR_ENVIRONMENT, or BSATTN_ERR_MEMORY saying what was needed and what
 *          there was */
bsattn_status_t bsattn_cuda_alloc(bsattn_backend_t *backend, size_t bytes, void *memory_p);
/** @param memory  of bsattn_cuda_alloc(), or NULL */
void bsattn_cuda_free(bsattn_backend_t *backend, void *memory);

/* Slots of bsattn_backend_ops_t: what a rank holds. */
bsattn_status_t bsattn_work_cuda_prepare(bsattn_backend_t *backend,
                                         const bsattn_work_params_t *params,
                                         bsattn_work_t **work_p);
void bsattn_work_cuda_release(bsattn_work_t *work);
void bsattn_work_cuda_movement(const bsattn_work_t *work, int step, bsattn_movement_t *movement_p);
bsattn_status_t bsattn_work_cuda_begin(bsattn_work_t *work, const bsattn_tensors_t *tensors);
bsattn_status_t bsattn_work_cuda_exchange_begin(bsattn_work_t *work, int step);
bsattn_status_t bsattn_work_cuda_exchange_end(bsattn_work_t *work, int step);
bsattn_status_t bsattn_work_cuda_attend(bsattn_work_t *work, int step,
                                        const bsattn_between_t *between);
bsattn_status_t bsattn_work_cuda_poll(bsattn_work_t *work, bsattn_progress_t *progress_p);
bool bsattn_work_cuda_timings(const bsattn_work_t *work, bsattn_timings_t *timings_p);

#endif
