/* SPDX-License-Identifier: Apache-2.0 */
/* One rank per process. Exchanges are persistent requests on derived types counted in rows, so that
 * neither the number of pieces nor 2 GiB matter. Those of a rank with a queue are mpi_device.h's.
 * */
#include "transport/mpi_control.h"

#include "base/text.h"
#include "transport/mpi_device.h"
#include "transport/mpi_rows.h"

#include <limits.h>
#include <stdlib.h>

typedef struct mpi_transport {
    bsattn_control_t control;
#ifdef BSATTN_HAVE_CUDA
    bsattn_mpi_device_t *device;
#endif
} mpi_transport_t;

typedef struct mpi_exchange {
    bsattn_exchange_t super;
    MPI_Datatype send_type;
    MPI_Datatype receive_type;
    MPI_Request requests[2];
    int request_count;
#ifdef BSATTN_HAVE_CUDA
    bsattn_mpi_message_t *message; /* if the rank has a queue: instead of the above */
#endif
    char what[128];
} mpi_exchange_t;

static void mpi_destroy(bsattn_transport_t *transport)
{
    mpi_transport_t *mpi = (mpi_transport_t *)transport;

#ifdef BSATTN_HAVE_CUDA
    bsattn_mpi_device_destroy(mpi->device);
#endif
    bsattn_control_free(&mpi->control);
    free(mpi);
}

/* Everything sent: the same runs of each part, or plain rows where they leave no gap. */
static bsattn_status_t send_type(const bsattn_send_t *send, size_t row_bytes, MPI_Datatype *type_p)
{
    bsattn_token_run_t all = {.first = 0, .count = send->part_count * send->part_rows};
    MPI_Datatype part = MPI_DATATYPE_NULL;
    bsattn_status_t status;

    if ((send->run_count == 1) && (send->runs[0].first == 0) &&
        (send->runs[0].count == send->part_rows)) {
        return bsattn_mpi_rows_type(&all, 1, row_bytes, type_p);
    }
    BSATTN_ASSERT(send->part_count <= INT_MAX);
    BSATTN_TRY(bsattn_mpi_rows_type(send->runs, send->run_count, row_bytes, &part));
    status = bsattn_mpi_check(
        MPI_Type_create_hvector((int)send->part_count, 1,
                                (MPI_Aint)send->part_rows * (MPI_Aint)row_bytes, part, type_p),
        "MPI_Type_create_hvector");
    (void)MPI_Type_free(&part);
    return status;
}

static void mpi_release(bsattn_exchange_t *exchange)
{
    mpi_exchange_t *x = (mpi_exchange_t *)exchange;

    for (int r = 0; r < x->request_count; ++r) {
        (void)MPI_Request_free(&x->requests[r]);
    }
    if (x->send_type != MPI_DATATYPE_NULL) {
        (void)MPI_Type_free(&x->send_type);
    }
    if (x->receive_type != MPI_DATATYPE_NULL) {
        (void)MPI_Type_free(&x->receive_type);
    }
#ifdef BSATTN_HAVE_CUDA
    bsattn_mpi_message_release(x->message);
#endif
    free(x);
}

static bsattn_status_t prepare_receive(mpi_exchange_t *x, MPI_Comm comm)
{
    const bsattn_exchange_params_t *params = &x->super.params;
    bsattn_token_run_t all = {.first = 0, .count = params->receive.rows};

    if (params->receive.rows == 0) {
        return BSATTN_OK;
    }
    BSATTN_TRY(bsattn_mpi_rows_type(&all, 1, params->row_bytes, &x->receive_type));
    BSATTN_TRY(bsattn_mpi_check(MPI_Type_commit(&x->receive_type), "MPI_Type_commit"));
    BSATTN_TRY(
        bsattn_mpi_check(MPI_Recv_init(params->receive.base, 1, x->receive_type, params->from,
                                       params->step, comm, &x->requests[x->request_count]),
                         "MPI_Recv_init"));
    ++x->request_count;
    return BSATTN_OK;
}

static bsattn_status_t prepare_send(mpi_exchange_t *x, MPI_Comm comm)
{
    const bsattn_exchange_params_t *params = &x->super.params;

    if (params->send.run_count == 0) {
        return BSATTN_OK;
    }
    BSATTN_TRY(send_type(&params->send, params->row_bytes, &x->send_type));
    BSATTN_TRY(bsattn_mpi_check(MPI_Type_commit(&x->send_type), "MPI_Type_commit"));
    BSATTN_TRY(bsattn_mpi_check(MPI_Send_init(params->send.base, 1, x->send_type, params->to,
                                              params->step, comm, &x->requests[x->request_count]),
                                "MPI_Send_init"));
    ++x->request_count;
    return BSATTN_OK;
}

/* What a person is told if this exchange never ends. */
static void describe(mpi_exchange_t *x)
{
    const bsattn_exchange_params_t *params = &x->super.params;
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, x->what, sizeof(x->what));
    bsattn_strbuf_add(&buf, "at step %d", params->step);
    if (params->receive.rows > 0) {
        bsattn_strbuf_add(&buf, " for the chunk of rank %d from rank %d", params->origin,
                          params->from);
    }
    if (params->send.run_count > 0) {
        bsattn_strbuf_add(&buf, "%s for rank %d to take its chunk",
                          (params->receive.rows > 0) ? " and" : "", params->to);
    }
}

static bsattn_status_t prepare_requests(mpi_exchange_t *x, MPI_Comm comm)
{
    BSATTN_TRY(prepare_receive(x, comm));
    return prepare_send(x, comm);
}

static bsattn_status_t mpi_prepare(bsattn_transport_t *transport,
                                   const bsattn_exchange_params_t *params,
                                   bsattn_exchange_t **exchange_p)
{
    mpi_transport_t *mpi = (mpi_transport_t *)transport;
    mpi_exchange_t *x = malloc(sizeof(*x));
    bsattn_status_t status;

    if (x == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to prepare an exchange");
    }
    *x = (mpi_exchange_t){
        .super = {.transport = transport, .params = *params},
        .send_type = MPI_DATATYPE_NULL,
        .receive_type = MPI_DATATYPE_NULL,
    };
    describe(x);
#ifdef BSATTN_HAVE_CUDA
    status = (params->queue != NULL)
                 ? bsattn_mpi_message_prepare(mpi->device, &x->super, &x->message)
                 : prepare_requests(x, mpi->control.mpi->comm);
#else
    BSATTN_ASSERT(params->queue == NULL);
    status = prepare_requests(x, mpi->control.mpi->comm);
#endif
    if (status != BSATTN_OK) {
        mpi_release(&x->super);
        return status;
    }
    *exchange_p = &x->super;
    return BSATTN_OK;
}

static bsattn_status_t mpi_start(bsattn_exchange_t *exchange)
{
    mpi_exchange_t *x = (mpi_exchange_t *)exchange;

#ifdef BSATTN_HAVE_CUDA
    if (x->message != NULL) {
        return bsattn_mpi_message_start(x->message);
    }
#endif
    return bsattn_mpi_check(MPI_Startall(x->request_count, x->requests), "MPI_Startall");
}

static bsattn_status_t mpi_test(bsattn_exchange_t *exchange, bool *done_p)
{
    mpi_exchange_t *x = (mpi_exchange_t *)exchange;
    int done = 1;

#ifdef BSATTN_HAVE_CUDA
    if (x->message != NULL) {
        return bsattn_mpi_message_test(x->message, done_p);
    }
#endif
    BSATTN_TRY(bsattn_mpi_check(
        MPI_Testall(x->request_count, x->requests, &done, MPI_STATUSES_IGNORE), "MPI_Testall"));
    *done_p = (done != 0);
    return BSATTN_OK;
}

static bsattn_status_t mpi_wait(bsattn_exchange_t *exchange)
{
    mpi_transport_t *mpi = (mpi_transport_t *)exchange->transport;
    mpi_exchange_t *x = (mpi_exchange_t *)exchange;

#ifdef BSATTN_HAVE_CUDA
    if (x->message != NULL) {
        return bsattn_mpi_message_wait(x->message, x->what);
    }
#endif
    return bsattn_mpi_watch_wait(&mpi->control.mpi->watch, x->request_count, x->requests, x->what);
}

static const bsattn_transport_ops_t mpi_ops = {
    .name = "mpi",
    .destroy = mpi_destroy,
    .prepare = mpi_prepare,
    .release = mpi_release,
    .start = mpi_start,
    .test = mpi_test,
    .wait = mpi_wait,
    .poll = bsattn_control_poll,
    .stalled = bsattn_control_stalled,
    .gather = bsattn_control_gather,
    .broadcast = bsattn_control_broadcast,
};

bsattn_status_t bsattn_transport_mpi_create(const void *comm, double timeout_s,
                                            bsattn_transport_t **transport_p)
{
    mpi_transport_t *mpi = calloc(1, sizeof(*mpi));
    bsattn_status_t status;

    if (mpi == NULL) {
        return bsattn_control_decline(&mpi_ops, comm, timeout_s);
    }
    status = bsattn_control_init(&mpi->control, &mpi_ops, comm, timeout_s);
    if (status != BSATTN_OK) {
        free(mpi);
        return status;
    }
#ifdef BSATTN_HAVE_CUDA
    status = bsattn_transport_agree(&mpi->control.super,
                                    bsattn_mpi_device_create(&mpi->control, &mpi->device));
    if (status != BSATTN_OK) {
        mpi_destroy(&mpi->control.super);
        return status;
    }
    mpi->control.super.way = bsattn_mpi_device_way(mpi->device);
#endif
    *transport_p = &mpi->control.super;
    return BSATTN_OK;
}
