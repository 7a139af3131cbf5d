/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks move by ncclSend and ncclRecv, or by one-sided puts, on the exchange stream of the rank's
 * queue; everything else goes over MPI. */
#include "backend/queue_cuda.h"
#include "base/clock.h"
#include "base/text.h"
#include "transport/nccl_put.h"
#include "transport/outgoing_cuda.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* An attend leaves one multiprocessor of so many to NCCL's kernel, or to the copies around puts, until that is through.
 * Measured on two H100s: with 8 of 132 an exchange is slower, with more than 16 hardly faster. */
enum { SPARE_OF = 8 };

/* How long a healthy communicator may take to be finalized before it is aborted. */
static const double finalize_ms = 5000.0;

typedef struct nccl_transport {
    bsattn_control_t control;
    bsattn_nccl_comm_t comm;
    int device;
    int version;
    int spare; /* multiprocessors that an attend leaves to an exchange */
    bsattn_outbox_t outbox;
    bsattn_nccl_put_t *put; /* NULL: by ncclSend and ncclRecv */
} nccl_transport_t;

typedef struct nccl_exchange {
    bsattn_exchange_t super;
    bsattn_outgoing_t outgoing;
    bool uses_outbox;
    char what[96];
} nccl_exchange_t;

static bsattn_status_t check_alive(const nccl_transport_t *nccl)
{
    if (nccl->comm.handle == NULL) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                           "NCCL: the transport was given up after an earlier error");
    }
    return BSATTN_OK;
}

/* ------------------------------------------------------------------------------------ exchanges */

static void nccl_release(bsattn_exchange_t *exchange)
{
    nccl_transport_t *nccl = (nccl_transport_t *)exchange->transport;
    nccl_exchange_t *x = (nccl_exchange_t *)exchange;

    if (x->uses_outbox) {
        bsattn_outbox_drop(&nccl->outbox);
    }
    bsattn_outgoing_free(&x->outgoing);
    free(x);
}

static void describe(nccl_exchange_t *x)
{
    const bsattn_exchange_params_t *params = &x->super.params;
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, x->what, sizeof(x->what));
    bsattn_strbuf_add(&buf, "at step %d", params->step);
    if (params->receive.rows > 0) {
        bsattn_strbuf_add(&buf, " for rank %d to send", params->from);
    }
    if (params->send.run_count > 0) {
        bsattn_strbuf_add(&buf, "%s for rank %d to receive",
                          (params->receive.rows > 0) ? " and" : "", params->to);
    }
}

static bsattn_status_t nccl_prepare(bsattn_transport_t *transport,
                                    const bsattn_exchange_params_t *params,
                                    bsattn_exchange_t **exchange_p)
{
    nccl_transport_t *nccl = (nccl_transport_t *)transport;
    bsattn_cuda_queue_t *queue = params->queue;
    nccl_exchange_t *x = calloc(1, sizeof(*x));
    bsattn_status_t status;
    int64_t grown = 0;

    if (x == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to prepare an exchange");
    }
    BSATTN_ASSERT(queue != NULL);
    x->super.transport = transport;
    x->super.params = *params;
    describe(x);
    status = bsattn_outgoing_init(&x->outgoing, params);
    if ((status == BSATTN_OK) && (x->outgoing.bytes > 0) && (x->outgoing.range == NULL)) {
        status = bsattn_outbox_reserve(&nccl->outbox, x->outgoing.bytes, &grown);
        x->uses_outbox = (status == BSATTN_OK);
    }
    if (status != BSATTN_OK) {
        nccl_release(&x->super);
        return status;
    }
    x->super.device_bytes = x->outgoing.device_bytes + grown;
    x->super.operations = bsattn_outgoing_operations(&x->outgoing);
    if (nccl->put != NULL) {
        x->super.operations += bsattn_nccl_put_operations(
            x->outgoing.bytes, (size_t)params->receive.rows * params->row_bytes);
    }
    queue->spare = nccl->spare;
    *exchange_p = &x->super;
    return BSATTN_OK;
}

static ncclResult_t ask_for(const bsattn_nccl_comm_t *comm, const bsattn_nccl_message_t *message,
                            cudaStream_t stream)
{
    ncclResult_t result = ncclSuccess;

    if (message->out_bytes > 0) {
        result = ncclSend(message->rows, message->out_bytes, ncclInt8, message->to, comm->handle,
                          stream);
    }
    if ((message->in_bytes > 0) && ((result == ncclSuccess) || (result == ncclInProgress))) {
        result = ncclRecv(message->base, message->in_bytes, ncclInt8, message->from, comm->handle,
                          stream);
    }
    return result;
}

/* Both directions in one group, so that neither waits for the other. The group ends whatever comes:
 * a communicator cannot be given up inside one. */
static bsattn_status_t send_and_receive(bsattn_nccl_comm_t *comm,
                                        const bsattn_nccl_message_t *message, cudaStream_t stream)
{
    ncclResult_t asked;
    ncclResult_t ended;

    BSATTN_TRY(bsattn_nccl_check(comm, ncclGroupStart(), "ncclGroupStart"));
    asked = ask_for(comm, message, stream);
    ended = ncclGroupEnd();
    BSATTN_TRY(bsattn_nccl_check(comm, asked, "ncclSend and ncclRecv"));
    BSATTN_TRY(bsattn_nccl_check(comm, ended, "ncclGroupEnd"));
    return bsattn_nccl_settle(comm, message->what);
}

static bsattn_status_t move(nccl_transport_t *nccl, const bsattn_nccl_message_t *message,
                            cudaStream_t stream)
{
    return (nccl->put != NULL) ? bsattn_nccl_put_move(nccl->put, message, stream)
                               : send_and_receive(&nccl->comm, message, stream);
}

static bsattn_status_t nccl_start(bsattn_exchange_t *exchange)
{
    nccl_transport_t *nccl = (nccl_transport_t *)exchange->transport;
    const nccl_exchange_t *x = (const nccl_exchange_t *)exchange;
    const bsattn_exchange_params_t *params = &exchange->params;
    bsattn_cuda_queue_t *queue = params->queue;
    bsattn_nccl_message_t message = {
        .rows = x->outgoing.range,
        .out_bytes = x->outgoing.bytes,
        .to = params->to,
        .base = params->receive.base,
        .in_bytes = (size_t)params->receive.rows * params->row_bytes,
        .from = params->from,
        .what = x->what,
    };

    BSATTN_TRY(check_alive(nccl));
    BSATTN_TRY(bsattn_cuda_queue_exchange_after_compute(queue));
    if (x->uses_outbox) {
        /* Sends leave in the order of the stream: the message before this one has been taken. */
        message.rows = nccl->outbox.memory;
        BSATTN_TRY(bsattn_outbox_fill(&nccl->outbox, &x->outgoing, queue));
    }
    return move(nccl, &message, queue->exchange);
}

static bsattn_status_t nccl_test(bsattn_exchange_t *exchange, bool *done_p)
{
    (void)exchange;
    *done_p = false;
    return BSATTN_OK;
}

static bsattn_status_t nccl_wait(bsattn_exchange_t *exchange)
{
    return bsattn_cuda_queue_compute_after_exchange(exchange->params.queue);
}

static bsattn_status_t nccl_poll(bsattn_transport_t *transport)
{
    nccl_transport_t *nccl = (nccl_transport_t *)transport;
    char what[48];
    bool done = false;
    bsattn_strbuf_t buf;

    BSATTN_TRY(check_alive(nccl));
    bsattn_strbuf_init(&buf, what, sizeof(what));
    bsattn_strbuf_add(&buf, "rank %d, exchanging chunks", transport->first_rank);
    BSATTN_TRY(bsattn_nccl_look(&nccl->comm, what, &done));
    return bsattn_control_poll(transport);
}

/* --------------------------------------------------------------------------------- connections */

enum { GREETING_SIZE = 16 };

/* One small message so many places on: connections are made here, not in the first execution, and
 * what does not work is found before anything large is allocated. */
static bsattn_status_t greet(nccl_transport_t *nccl, int hop, char *memory, cudaStream_t stream)
{
    const bsattn_transport_t *transport = &nccl->control.super;
    int ranks = transport->ranks;
    int rank = transport->first_rank;
    char *heard = memory + GREETING_SIZE;
    bsattn_nccl_message_t message = {
        .rows = memory,
        .out_bytes = GREETING_SIZE,
        .to = (rank + hop) % ranks,
        .base = heard,
        .in_bytes = GREETING_SIZE,
        .from = (rank + ranks - hop) % ranks,
        .what = "for its peers to be connected by NCCL",
    };

    return move(nccl, &message, stream);
}

typedef struct greeting {
    nccl_transport_t *nccl;
    cudaStream_t stream;
} greeting_t;

/* A network that does not work shows in NCCL's errors, not in the stream. */
static bsattn_status_t look_at_greeting(void *arg, bool *done_p)
{
    const greeting_t *greeting = arg;
    bool settled = false;

    BSATTN_TRY(bsattn_nccl_look(&greeting->nccl->comm, "the first message", &settled));
    BSATTN_TRY(bsattn_cuda_look(cudaStreamQuery(greeting->stream), "cudaStreamQuery", done_p));
    *done_p = *done_p && settled;
    return BSATTN_OK;
}

/* The hops that are not connected, one after the other. */
static bsattn_status_t greet_all(nccl_transport_t *nccl, const int *hops, int hop_count,
                                 char *memory, cudaStream_t stream)
{
    greeting_t greeting = {.nccl = nccl, .stream = stream};

    for (int i = 0; i < hop_count; ++i) {
        if (!nccl->control.super.connected[hops[i]]) {
            BSATTN_TRY(greet(nccl, hops[i], memory, stream));
            BSATTN_TRY(bsattn_control_until(&nccl->control, look_at_greeting, &greeting,
                                            "for its peers to be heard by NCCL"));
            nccl->control.super.connected[hops[i]] = true;
        }
    }
    return BSATTN_OK;
}

static bsattn_status_t nccl_connect(bsattn_transport_t *transport, const int *hops, int hop_count)
{
    nccl_transport_t *nccl = (nccl_transport_t *)transport;
    cudaStream_t stream = NULL;
    char *memory = NULL;
    bsattn_status_t status = check_alive(nccl);

    if (status == BSATTN_OK) {
        status = bsattn_cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                                   "cudaStreamCreateWithFlags");
    }
    if (status == BSATTN_OK) {
        status = bsattn_cuda_malloc(2 * GREETING_SIZE, " for a first message", &memory);
    }
    if (status == BSATTN_OK) {
        status = greet_all(nccl, hops, hop_count, memory, stream);
    }
    if (status != BSATTN_OK) {
        status = bsattn_control_tell_failure(&nccl->control, status);
        bsattn_nccl_abort(&nccl->comm); /* else freeing waits for a message that never comes */
    }
    (void)cudaFree(memory);
    if (stream != NULL) {
        (void)cudaStreamDestroy(stream);
    }
    status = bsattn_transport_agree(transport, status);
    if (status != BSATTN_OK) {
        bsattn_nccl_abort(&nccl->comm);
        bsattn_control_forget_failures(&nccl->control);
    }
    return status;
}

/* Next to each other from the start. */
static bsattn_status_t connect_ring(nccl_transport_t *nccl)
{
    const int hop = 1;

    return (nccl->control.super.ranks > 1) ? nccl_connect(&nccl->control.super, &hop, 1)
                                           : BSATTN_OK;
}

/* -------------------------------------------------------------------------------- start and end */

/* Wait for the communicator's end without ending the job if a rank is gone. */
static void finalize(nccl_transport_t *nccl)
{
    ncclComm_t comm = nccl->comm.handle;
    double end_ms = bsattn_clock_ms() + finalize_ms;
    ncclResult_t state = ncclCommFinalize(comm);

    while ((state == ncclInProgress) && (bsattn_clock_ms() < end_ms)) {
        (void)sched_yield();
        (void)bsattn_control_poll(&nccl->control.super);
        if (ncclCommGetAsyncError(comm, &state) != ncclSuccess) {
            break;
        }
    }
    if (state == ncclSuccess) {
        (void)ncclCommDestroy(comm);
        nccl->comm.handle = NULL;
    } else {
        bsattn_nccl_abort(&nccl->comm);
    }
}

static void nccl_destroy(bsattn_transport_t *transport)
{
    nccl_transport_t *nccl = (nccl_transport_t *)transport;

    (void)cudaSetDevice(nccl->device);
    bsattn_nccl_put_destroy(nccl->put);
    if (nccl->comm.handle != NULL) {
        finalize(nccl);
    }
    (void)cudaFree(nccl->outbox.memory);
    free(transport->connected);
    bsattn_control_free(&nccl->control);
    free(nccl);
}

static const bsattn_transport_ops_t nccl_ops = {
    .name = "nccl",
    .destroy = nccl_destroy,
    .connect = nccl_connect,
    .prepare = nccl_prepare,
    .release = nccl_release,
    .start = nccl_start,
    .test = nccl_test,
    .wait = nccl_wait,
    .poll = nccl_poll,
    .stalled = bsattn_control_stalled,
    .gather = bsattn_control_gather,
    .broadcast = bsattn_control_broadcast,
};

int bsattn_nccl_version(void)
{
    int version = 0;

    return (ncclGetVersion(&version) == ncclSuccess) ? version : 0;
}

/* How chunks are asked to move. Puts only by name: they were measured to be slower, but for ranks that share
 * a GPU where the computation does not cover the exchange. */
typedef enum nccl_mode { MODE_AUTO, MODE_SENDRECV, MODE_PUT } nccl_mode_t;

static const char *const ways[] = {
    [MODE_AUTO] = "send and receive, the default",
    [MODE_SENDRECV] = "send and receive, as BSATTN_NCCL_MODE says",
    [MODE_PUT] = "one-sided put, as BSATTN_NCCL_MODE says",
};

static bsattn_status_t read_mode(nccl_mode_t *mode_p)
{
    const char *wanted = getenv("BSATTN_NCCL_MODE");

    if ((wanted == NULL) || (wanted[0] == '\0') || (strcmp(wanted, "auto") == 0)) {
        *mode_p = MODE_AUTO;
    } else if (strcmp(wanted, "sendrecv") == 0) {
        *mode_p = MODE_SENDRECV;
    } else if (strcmp(wanted, "put") == 0) {
        *mode_p = MODE_PUT;
    } else {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "BSATTN_NCCL_MODE is \"%s\"; there are auto, sendrecv and put", wanted);
    }
    return BSATTN_OK;
}

/* The identity that rank 0 makes up, and whether it could. Its mode is everybody's. */
typedef struct nccl_invitation {
    ncclUniqueId id;
    int result;
    int version;
    nccl_mode_t mode;
} nccl_invitation_t;

static bsattn_status_t invite(nccl_transport_t *nccl, nccl_invitation_t *invitation)
{
    bsattn_transport_t *transport = &nccl->control.super;

    invitation->version = nccl->version;
    if (transport->first_rank == 0) {
        invitation->result = (int)ncclGetUniqueId(&invitation->id);
    }
    BSATTN_TRY(bsattn_control_broadcast(transport, invitation, sizeof(*invitation), 0));
    if (invitation->result != (int)ncclSuccess) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT, "NCCL: ncclGetUniqueId: %s",
                           ncclGetErrorString((ncclResult_t)invitation->result));
    }
    if (invitation->version != nccl->version) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                           "transport nccl: NCCL is %d.%d.%d and %d.%d.%d on rank 0; take the same "
                           "everywhere",
                           nccl->version / 10000, nccl->version / 100 % 100, nccl->version % 100,
                           invitation->version / 10000, invitation->version / 100 % 100,
                           invitation->version % 100);
    }
    return (invitation->mode == MODE_PUT) ? bsattn_nccl_put_check(nccl->version) : BSATTN_OK;
}

static bsattn_status_t join(nccl_transport_t *nccl, const nccl_invitation_t *invitation)
{
    const bsattn_transport_t *transport = &nccl->control.super;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;

    config.blocking = 0;
    /* A cluster finds no place on multiprocessors that are left free here and there. */
    config.cgaClusterSize = 0;
    BSATTN_TRY(bsattn_nccl_check(&nccl->comm,
                                 ncclCommInitRankConfig(&nccl->comm.handle, transport->ranks,
                                                        invitation->id, transport->first_rank,
                                                        &config),
                                 "ncclCommInitRankConfig"));
    return bsattn_nccl_settle(&nccl->comm, "for NCCL to start on all ranks");
}

static bsattn_status_t open_put(nccl_transport_t *nccl)
{
    bsattn_transport_t *transport = &nccl->control.super;

    BSATTN_TRY(
        bsattn_transport_agree(transport, bsattn_nccl_put_create(&nccl->comm, &nccl->put)));
    return bsattn_transport_agree(transport, bsattn_nccl_put_open(nccl->put));
}

static bsattn_status_t nccl_alloc(bsattn_transport_t *transport)
{
    transport->connected = calloc((size_t)transport->ranks, sizeof(*transport->connected));
    if (transport->connected == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the nccl transport");
    }
    transport->connected[0] = true;
    return BSATTN_OK;
}

static bsattn_status_t nccl_device(nccl_transport_t *nccl)
{
    int multiprocessors = 0;

    BSATTN_TRY(bsattn_cuda_check(cudaSetDevice(nccl->device), "cudaSetDevice"));
    BSATTN_TRY(bsattn_cuda_check(
        cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, nccl->device),
        "cudaDeviceGetAttribute"));
    nccl->spare = multiprocessors / SPARE_OF;
    return BSATTN_OK;
}

/* Collective, step by step: no rank goes on where another cannot. */
static bsattn_status_t nccl_init(nccl_transport_t *nccl)
{
    bsattn_transport_t *transport = &nccl->control.super;
    nccl_invitation_t invitation = {.mode = MODE_AUTO};

    BSATTN_TRY(bsattn_transport_agree(transport, nccl_alloc(transport)));
    BSATTN_TRY(bsattn_transport_agree(transport, read_mode(&invitation.mode)));
    nccl->version = bsattn_nccl_version();
    BSATTN_TRY(bsattn_transport_agree(transport, nccl_device(nccl)));
    BSATTN_TRY(bsattn_transport_agree(transport, invite(nccl, &invitation)));
    BSATTN_TRY(bsattn_transport_agree(transport, join(nccl, &invitation)));
    transport->way = ways[invitation.mode];
    if ((invitation.mode == MODE_PUT) && (transport->ranks > 1)) {
        BSATTN_TRY(open_put(nccl));
    }
    return connect_ring(nccl);
}

bsattn_status_t bsattn_transport_nccl_create(const void *comm, double timeout_s, int device,
                                             bsattn_transport_t **transport_p)
{
    nccl_transport_t *nccl = calloc(1, sizeof(*nccl));
    bsattn_status_t status;

    if (nccl == NULL) {
        return bsattn_control_decline(&nccl_ops, comm, timeout_s);
    }
    status = bsattn_control_init(&nccl->control, &nccl_ops, comm, timeout_s);
    if (status != BSATTN_OK) {
        free(nccl);
        return status;
    }
    nccl->device = device;
    nccl->comm.control = &nccl->control;
    status = nccl_init(nccl);
    if (status != BSATTN_OK) {
        bsattn_nccl_abort(&nccl->comm);
        bsattn_control_forget_failures(&nccl->control);
        nccl_destroy(&nccl->control.super);
        return status;
    }
    *transport_p = &nccl->control.super;
    return BSATTN_OK;
}
