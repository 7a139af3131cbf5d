/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file backend.h
 * Where the work is done: memory, kernels and their order. A table of functions per backend.
 *
 * A backend is what a process computes with; a work is what it holds for one rank of a plan:
 * chunks, state, lists. An execution is begun, attends step after step, and is polled until it is
 * done.
 * Between attends the caller has the transport move chunks. On the CPU every function does what it
 * says before it returns; on a GPU it enqueues, and nothing waits before the poll.
 */
#ifndef BSATTN_BACKEND_BACKEND_H
#define BSATTN_BACKEND_BACKEND_H

#include "base/status.h"
#include "problem/estimate.h"

#include <stdbool.h>

enum { BSATTN_BACKEND_NAME_SIZE = 64, BSATTN_BACKEND_PCI_SIZE = 16, BSATTN_BACKEND_UUID_SIZE = 16 };

typedef struct bsattn_backend bsattn_backend_t;
typedef struct bsattn_work bsattn_work_t;

/** What a rank of a plan computes. Pointers outlive the work. */
typedef struct bsattn_work_params {
    const bsattn_problem_t *problem;
    const bsattn_schedule_t *schedule;
    int64_t tokens; /**< n */
} bsattn_work_params_t;

/** What moves during a step. */
typedef struct bsattn_movement {
    const void *send; /**< [send_parts, send_part_rows, D] */
    int64_t send_parts;
    int64_t send_part_rows;
    const bsattn_token_run_t *send_runs; /**< rows of each part; outlive the work's exchanges */
    size_t send_run_count;
    void *receive; /**< [receive_rows, D] */
    int64_t receive_rows;
} bsattn_movement_t;

/** Called now and then while a step is computed. */
typedef struct bsattn_between {
    bsattn_status_t (*call)(void *arg);
    void *arg;
} bsattn_between_t;

/** How far an execution has come. */
typedef struct bsattn_progress {
    bool done;
    bool waiting;  /**< the kernels stand still: for a chunk */
    int step;      /**< computed on or waited for */
    int64_t marks; /**< grows with all that happens */
} bsattn_progress_t;

/** Parts of an execution, for people who look at its time line. */
typedef enum bsattn_mark {
    BSATTN_MARK_STEP,
    BSATTN_MARK_ATTEND,
    BSATTN_MARK_EXCHANGE,
    BSATTN_MARK_WAIT,
} bsattn_mark_t;

/** Rows moved between host memory and the backend's. */
typedef struct bsattn_rows {
    const void *from;
    size_t from_stride; /**< bytes */
    void *to;
    size_t to_stride;
    size_t row_bytes;
    size_t row_count;
} bsattn_rows_t;

/** Bytes in the memory that a backend computes in. */
typedef struct bsattn_backend_memory {
    int64_t available; /**< that can still be allocated; INT64_MAX: not known */
    int64_t libraries; /**< held by libraries */
    int64_t peak;      /**< the most seen that this process held, libraries too; 0 on the CPU */
} bsattn_backend_memory_t;

typedef struct bsattn_backend_ops {
    const char *name;
    void (*destroy)(bsattn_backend_t *backend);
    /** What a prediction must know. */
    bsattn_machine_t (*machine)(bsattn_backend_t *backend);

    /** Memory for tensors, aligned to 64 bytes at least. 0 bytes are fine.
     *  @return BSATTN_OK, or BSATTN_ERR_MEMORY saying what was needed and what there was */
    bsattn_status_t (*alloc)(bsattn_backend_t *backend, size_t bytes, void **memory_p);
    /** @param memory  may be NULL */
    void (*free)(bsattn_backend_t *backend, void *memory);
    /** Set all bytes. */
    bsattn_status_t (*fill)(bsattn_backend_t *backend, void *memory, unsigned char byte,
                            size_t bytes);
    /** Copy from the backend's memory to the host's, or the other way. Any thread may. */
    bsattn_status_t (*read)(bsattn_backend_t *backend, const bsattn_rows_t *rows);
    bsattn_status_t (*write)(bsattn_backend_t *backend, const bsattn_rows_t *rows);
    bsattn_backend_memory_t (*memory)(bsattn_backend_t *backend);

    /** Allocate and prepare all that a rank needs to execute.
     *  @return BSATTN_OK, BSATTN_ERR_MEMORY, BSATTN_ERR_INPUT or BSATTN_ERR_ENVIRONMENT */
    bsattn_status_t (*prepare)(bsattn_backend_t *backend, const bsattn_work_params_t *params,
                               bsattn_work_t **work_p);
    void (*release)(bsattn_work_t *work);
    /** @param movement_p  buffers fixed for the life of the work */
    void (*movement)(const bsattn_work_t *work, int step, bsattn_movement_t *movement_p);

    /** Begin an execution: pack the rank's own keys where that is needed, write the rows of queries
     *  without a key. */
    bsattn_status_t (*begin)(bsattn_work_t *work, const bsattn_tensors_t *tensors);
    /** Around an exchange: before its start, and after its wait. */
    bsattn_status_t (*exchange_begin)(bsattn_work_t *work, int step);
    bsattn_status_t (*exchange_end)(bsattn_work_t *work, int step);
    /** Compute a step. @param between  NULL if nothing moves meanwhile */
    bsattn_status_t (*attend)(bsattn_work_t *work, int step, const bsattn_between_t *between);
    /** Look how far the execution has come; never waits. @return BSATTN_OK or
     *  BSATTN_ERR_ENVIRONMENT: the device failed */
    bsattn_status_t (*poll)(bsattn_work_t *work, bsattn_progress_t *progress_p);
    /** The times of an execution that is done, if the backend measures them.
     *  @return false, leaving *timings_p: by the host's clock, the caller's */
    bool (*timings)(const bsattn_work_t *work, bsattn_timings_t *timings_p);

    /** Begin a part of the time line, and end the part begun last. */
    void (*mark)(bsattn_mark_t mark);
    void (*unmark)(void);
} bsattn_backend_ops_t;

/** What every backend begins with. */
struct bsattn_backend {
    const bsattn_backend_ops_t *ops;
    const char *variant; /**< of the kernels; a work may have another */
    int threads;         /**< of a rank */
    bool in_host_memory; /**< tensors and chunks */
    bool shared;         /**< with other processes of the job: set by the caller */
    int device;          /**< index of the GPU among those visible; -1: none */
    char name[BSATTN_BACKEND_NAME_SIZE]; /**< of the GPU, "" */
    char pci[BSATTN_BACKEND_PCI_SIZE];   /**< its address, "" */
};

/** What every work begins with. */
struct bsattn_work {
    bsattn_backend_t *backend;
    bsattn_work_params_t params;
    const char *variant; /**< of the kernels */
    void *queue;         /**< bsattn_cuda_queue_t; NULL: everything is in host memory */
    int64_t bytes;       /**< allocated in the backend's memory */
};

/* --------------------------------------------------------------------------------------- choice */

/** A GPU that this process sees and the backend cuda can use. */
typedef struct bsattn_gpu {
    int device; /**< index among all visible ones */
    char name[BSATTN_BACKEND_NAME_SIZE];
    char pci[BSATTN_BACKEND_PCI_SIZE]; /**< "0000:1b:00.0", lower case */
    unsigned char uuid[BSATTN_BACKEND_UUID_SIZE];
    int capability; /**< 10 * major + minor */
    int64_t memory_bytes;
} bsattn_gpu_t;

/** Which backend, and why. */
typedef struct bsattn_backend_choice {
    bool cuda;
    char reason[160];
} bsattn_backend_choice_t;

/** @return how many GPUs the backend cuda can use here
 *  @param reason  receives why there is none; may be NULL */
int bsattn_backend_gpus(char *reason, size_t size);

/** @param index  0 .. bsattn_backend_gpus() - 1 */
bsattn_status_t bsattn_backend_gpu(int index, bsattn_gpu_t *gpu_p);

/** @return whether a backend's GPU can use the memory of all others that this process sees; true for
 *  the CPU */
bool bsattn_backend_reaches_all(const bsattn_backend_t *backend);

/** @return the CUDA of this build and of the driver, e.g. "13.0, driver for 13.0" or "13.0, no
 *  driver"; "not in this build" without CUDA */
const char *bsattn_backend_cuda_library(void);

/** Decide what computes, without starting it.
 *  @param name  "auto", "cuda", "cpu" or NULL for auto
 *  @return BSATTN_OK; BSATTN_ERR_INPUT for another name; BSATTN_ERR_ENVIRONMENT for cuda where it
 *          cannot work, saying what is missing */
bsattn_status_t bsattn_backend_choose(const char *name, bsattn_backend_choice_t *choice_p);

/** The same for a job that is only planned, perhaps for other machines: cuda needs no GPU here. */
bsattn_status_t bsattn_backend_choose_planned(const char *name, bsattn_backend_choice_t *choice_p);

/** Start a backend.
 *  @param device   of the GPU among those visible; not looked at for the CPU
 *  @param threads  of each rank, >= 1
 *  @return BSATTN_OK, BSATTN_ERR_MEMORY or BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_backend_create(const bsattn_backend_choice_t *choice, int device,
                                      int threads, bsattn_backend_t **backend_p);

/** What a prediction must know of a machine that need not be this one: nominal figures.
 *  @param threads  of each rank */
bsattn_machine_t bsattn_backend_machine(const bsattn_backend_choice_t *choice, int threads);

#endif
