/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/nccl_comm.h"

#include "backend/queue_cuda.h"

#include <string.h>

void bsattn_nccl_abort(bsattn_nccl_comm_t *comm)
{
    if (comm->handle != NULL) {
        (void)ncclCommAbort(comm->handle);
        comm->handle = NULL;
    }
}

/* NCCL has no code of its own for memory that it was refused: its last warning tells. */
static bool refused_memory(ncclResult_t result, const char *detail)
{
    return (result == ncclUnhandledCudaError) &&
           ((strstr(detail, "out of memory") != NULL) ||
            (strstr(detail, "Failed to CUDA malloc") != NULL) ||
            (strstr(detail, "Failed to CUDA calloc") != NULL));
}

bsattn_status_t bsattn_nccl_check(bsattn_nccl_comm_t *comm, ncclResult_t result, const char *call)
{
    bsattn_status_t status;
    const char *detail;
    char free_text[BSATTN_CUDA_FREE_TEXT_SIZE];

    if ((result == ncclSuccess) || (result == ncclInProgress)) {
        return BSATTN_OK;
    }
    detail = ncclGetLastError(comm->handle);
    detail = (detail == NULL) ? "" : detail;
    if (refused_memory(result, detail)) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "out of memory: NCCL: %s: %s; %s", call, detail,
                             bsattn_cuda_free_text(free_text, sizeof(free_text)));
    } else {
        status = bsattn_fail(BSATTN_ERR_ENVIRONMENT, "NCCL: %s: %s%s%s", call,
                             ncclGetErrorString(result), (detail[0] != '\0') ? ": " : "", detail);
    }
    /* First, since giving up may wait for ranks that wait for this one. */
    status = bsattn_control_tell_failure(comm->control, status);
    bsattn_nccl_abort(comm);
    return status;
}

bsattn_status_t bsattn_nccl_look(bsattn_nccl_comm_t *comm, const char *what, bool *done_p)
{
    ncclResult_t state = ncclSuccess;
    ncclResult_t result = ncclCommGetAsyncError(comm->handle, &state);

    BSATTN_TRY(bsattn_nccl_check(comm, (result == ncclSuccess) ? state : result, what));
    *done_p = (state == ncclSuccess);
    return BSATTN_OK;
}

typedef struct look_at {
    bsattn_nccl_comm_t *comm;
    const char *what;
} look_at_t;

static bsattn_status_t look_at_comm(void *arg, bool *done_p)
{
    const look_at_t *at = arg;

    return bsattn_nccl_look(at->comm, at->what, done_p);
}

bsattn_status_t bsattn_nccl_settle(bsattn_nccl_comm_t *comm, const char *what)
{
    look_at_t at = {.comm = comm, .what = what};

    bsattn_status_t status = bsattn_control_until(comm->control, look_at_comm, &at, what);

    if (status != BSATTN_OK) {
        bsattn_nccl_abort(comm); /* the failure of another rank ends it, too */
    }
    return status;
}
