/* SPDX-License-Identifier: Apache-2.0 */
/* What a build without a GPU library says of its transports. */
#include "transport/transport.h"

#ifndef BSATTN_HAVE_NCCL
bsattn_status_t bsattn_transport_nccl_create(const void *comm, double timeout_s, int device,
                                             bsattn_transport_t **transport_p)
{
    (void)comm, (void)timeout_s, (void)device, (void)transport_p;
    return bsattn_fail(BSATTN_ERR_ENVIRONMENT, "transport nccl: this build has no NCCL");
}

int bsattn_nccl_version(void)
{
    return 0;
}
#endif

#ifndef BSATTN_HAVE_CUDA
bsattn_status_t bsattn_transport_ipc_create(const void *comm, double timeout_s, int device,
                                            bsattn_transport_t **transport_p)
{
    (void)comm, (void)timeout_s, (void)device, (void)transport_p;
    return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                       "transport ipc: this build has no CUDA; take another transport, or build "
                       "where CMake finds CUDA");
}
#endif
