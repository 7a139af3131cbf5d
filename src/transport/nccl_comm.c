/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/nccl_comm.h"

void bsattn_nccl_abort(bsattn_nccl_comm_t *comm)
{
    if (comm->handle != NULL) {
        (void)ncclCommAbort(comm->handle);
        comm->handle = NULL;
    }
}

bsattn_status_t bsattn_nccl_check(bsattn_nccl_comm_t *comm, ncclResult_t result, const char *call)
{
    bsattn_status_t status;
    const char *detail;

    if ((result == ncclSuccess) || (result == ncclInProgress)) {
        return BSATTN_OK;
    }
    detail = ncclGetLastError(comm->handle);
    status = bsattn_fail(
        BSATTN_ERR_ENVIRONMENT, "NCCL: %s: %s%s%s", call, ncclGetErrorString(result),
        ((detail != NULL) && (detail[0] != '\0')) ? ": " : "", (detail != NULL) ? detail : "");
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

    return bsattn_control_until(comm->control, look_at_comm, &at, what);
}
