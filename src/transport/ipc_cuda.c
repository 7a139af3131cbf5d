/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks of one host write into one another's chunks, which CUDA maps into their process, by copy
 * engine. Two numbers per pair of ranks, in the memory of the one that waits for them, keep order:
 * `ready` says for how many messages the receiver's buffer has been free, `arrived` how many
 * messages are in it. They only grow, also from one execution to the next.
 *
 * Each rank's exchange stream holds, for a step: write ready to the rank that sends, wait for ready
 * of the rank that receives, copy, write arrived to it, wait for arrived of the rank that sends. All
 * write ready before they wait for anything in this step, so there is no circle. Both ranks of a
 * pair go through their steps in the same order, so messages need no other names. */
#include "backend/queue_cuda.h"
#include "base/clock.h"
#include "base/host.h"
#include "transport/control.h"
#include "transport/driver_cuda.h"
#include "transport/outgoing_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    TAG_PLACE,
    TAG_CLOSED,
    HOST_SIZE = 64,
    PCI_SIZE = 16,
    FLAG_BYTES = 2 << 20 /* an allocation that is shared with nothing else */
};

/* How long a rank that frees memory waits for others to let go of it, all in all. */
static const double patience_ms = 2000.0;

/* Where memory of a rank is found by others. */
typedef struct ipc_place {
    cudaIpcMemHandle_t handle;
    uint64_t offset; /* inside what the handle stands for */
    uint64_t bytes;
    uint32_t serial; /* told to the owner when it is let go of; 0: its flags */
} ipc_place_t;

/* What a rank tells all others. */
typedef struct ipc_card {
    char host[HOST_SIZE];
    char pci[PCI_SIZE]; /* of its GPU */
    ipc_place_t flags;
} ipc_card_t;

/* Memory of another rank, mapped into this process. */
typedef struct ipc_mapping {
    struct ipc_mapping *next;
    cudaIpcMemHandle_t handle;
    char *base;
    int rank;
    int uses;
} ipc_mapping_t;

typedef struct ipc_exchange {
    bsattn_exchange_t super;
    bsattn_outgoing_t outgoing;
    bool uses_outbox;
    /* The rank that receives: */
    ipc_mapping_t *mapping;
    char *target;
    uint32_t target_serial;
    /* The rank that sends: */
    struct ipc_exchange *next; /* whose buffers others may have mapped */
    uint32_t serial;
    bool closed; /* it has let go */
} ipc_exchange_t;

typedef struct ipc_transport {
    bsattn_control_t control;
    int device;
    bsattn_outbox_t outbox;
    ipc_card_t *cards;        /* [P] */
    uint32_t *flags;          /* [2, P] device memory: ready, arrived; written by rank p at p */
    ipc_mapping_t **flags_of; /* [P]; NULL: not mapped so far */
    uint32_t *sent;           /* [P] messages so far */
    uint32_t *received;       /* [P] */
    ipc_mapping_t *mappings;
    ipc_exchange_t *offered;
    uint32_t serial;
    double patience_left_ms;
    bool *flags_closed; /* [P] the rank has let go of the flags, or never had them */
} ipc_transport_t;

/* ------------------------------------------------------------------------------------- mappings */

static bsattn_status_t place_of(void *memory, size_t bytes, uint32_t serial, ipc_place_t *place_p)
{
    void *base;
    size_t offset;

    *place_p = (ipc_place_t){.bytes = bytes, .serial = serial};
    BSATTN_TRY(bsattn_driver_allocation(memory, &base, &offset));
    place_p->offset = offset;
    return bsattn_cuda_check(cudaIpcGetMemHandle(&place_p->handle, base), "cudaIpcGetMemHandle");
}

static bsattn_status_t mapping_open(ipc_transport_t *ipc, int rank, const ipc_place_t *place,
                                    ipc_mapping_t **mapping_p)
{
    int self = ipc->control.super.first_rank;
    ipc_mapping_t *mapping;
    cudaError_t error;

    for (mapping = ipc->mappings; mapping != NULL; mapping = mapping->next) {
        if ((mapping->rank == rank) &&
            (memcmp(&mapping->handle, &place->handle, sizeof(place->handle)) == 0)) {
            ++mapping->uses;
            *mapping_p = mapping;
            return BSATTN_OK;
        }
    }
    mapping = malloc(sizeof(*mapping));
    if (mapping == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the ipc transport");
    }
    *mapping =
        (ipc_mapping_t){.next = ipc->mappings, .handle = place->handle, .rank = rank, .uses = 1};
    error = cudaIpcOpenMemHandle((void **)&mapping->base, place->handle,
                                 cudaIpcMemLazyEnablePeerAccess);
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        free(mapping);
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                           "transport ipc: rank %d (GPU %s) cannot map memory of rank %d (GPU %s): "
                           "%s; take transport nccl or mpi",
                           self, ipc->cards[self].pci, rank, ipc->cards[rank].pci,
                           cudaGetErrorString(error));
    }
    ipc->mappings = mapping;
    *mapping_p = mapping;
    return BSATTN_OK;
}

/* Let go, and tell the owner. */
static void mapping_close(ipc_transport_t *ipc, ipc_mapping_t *mapping, uint32_t serial)
{
    ipc_mapping_t **link = &ipc->mappings;
    int rank = mapping->rank;

    --mapping->uses;
    if (mapping->uses == 0) {
        while (*link != mapping) {
            link = &(*link)->next;
        }
        *link = mapping->next;
        (void)cudaIpcCloseMemHandle(mapping->base);
        free(mapping);
    }
    (void)bsattn_control_post(&ipc->control, rank, TAG_CLOSED, &serial, sizeof(serial));
}

/* The GPU of another rank, if it is another one: this one must reach it. */
static bsattn_status_t check_peer(const ipc_transport_t *ipc, int rank)
{
    const ipc_card_t *mine = &ipc->cards[ipc->control.super.first_rank];
    const ipc_card_t *other = &ipc->cards[rank];
    int reaches = 0;
    int device;

    if (strcmp(mine->host, other->host) != 0) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                           "transport ipc: ranks are on hosts %s and %s, and it works on one host "
                           "only; take transport nccl or mpi",
                           mine->host, other->host);
    }
    if (strcmp(mine->pci, other->pci) == 0) {
        return BSATTN_OK;
    }
    if (cudaDeviceGetByPCIBusId(&device, other->pci) != cudaSuccess) {
        (void)cudaGetLastError(); /* not visible to this process: mapping its memory will tell */
        return BSATTN_OK;
    }
    BSATTN_TRY(bsattn_cuda_check(cudaDeviceCanAccessPeer(&reaches, ipc->device, device),
                                 "cudaDeviceCanAccessPeer"));
    if (!reaches) {
        return bsattn_fail(
            BSATTN_ERR_ENVIRONMENT,
            "transport ipc: GPU %s cannot reach the memory of GPU %s; take transport "
            "nccl or mpi",
            mine->pci, other->pci);
    }
    return BSATTN_OK;
}

static bsattn_status_t flags_map(ipc_transport_t *ipc, int rank)
{
    if (ipc->flags_of[rank] != NULL) {
        return BSATTN_OK;
    }
    BSATTN_TRY(check_peer(ipc, rank));
    BSATTN_TRY(mapping_open(ipc, rank, &ipc->cards[rank].flags, &ipc->flags_of[rank]));
    ipc->flags_closed[rank] = false; /* what one rank maps of another, that maps of it */
    return BSATTN_OK;
}

/* Where this rank writes in the flags of another. */
static uint32_t *flag_of(const ipc_transport_t *ipc, int rank, bool arrived)
{
    const bsattn_transport_t *transport = &ipc->control.super;
    uint32_t *flags =
        (uint32_t *)(void *)(ipc->flags_of[rank]->base + ipc->cards[rank].flags.offset);

    return flags + (arrived ? transport->ranks : 0) + transport->first_rank;
}

/* Where another rank writes in the flags of this one. */
static const uint32_t *own_flag(const ipc_transport_t *ipc, int rank, bool arrived)
{
    return ipc->flags + (arrived ? ipc->control.super.ranks : 0) + rank;
}

/* Read what a rank says it has let go of. */
static void hear_closed(ipc_transport_t *ipc, int rank)
{
    uint32_t serial;
    bool there = false;

    while ((bsattn_control_take(&ipc->control, rank, TAG_CLOSED, &serial, sizeof(serial), &there) ==
            BSATTN_OK) &&
           there) {
        ipc->patience_left_ms = patience_ms;
        ipc->flags_closed[rank] = ipc->flags_closed[rank] || (serial == 0);
        for (ipc_exchange_t *x = ipc->offered; x != NULL; x = x->next) {
            x->closed = x->closed || (x->serial == serial);
        }
    }
}

/* Memory must not be freed while another rank has it mapped, says CUDA. A rank that failed may
 * never let go; then it does not matter any more. */
static void wait_closed(ipc_transport_t *ipc, int rank, const bool *closed)
{
    double start_ms = bsattn_clock_ms();
    struct timespec pause = {.tv_nsec = 20000};
    double waited_ms;

    hear_closed(ipc, rank);
    while (!*closed) {
        waited_ms = bsattn_clock_ms() - start_ms;
        if (waited_ms > ipc->patience_left_ms) {
            ipc->patience_left_ms = 0.0;
            return;
        }
        (void)nanosleep(&pause, NULL);
        (void)bsattn_control_poll(&ipc->control.super);
        hear_closed(ipc, rank);
    }
}

/* ------------------------------------------------------------------------------------ exchanges */

static void forget_offer(ipc_transport_t *ipc, ipc_exchange_t *x)
{
    ipc_exchange_t **link = &ipc->offered;

    wait_closed(ipc, x->super.params.from, &x->closed);
    while (*link != x) {
        link = &(*link)->next;
    }
    *link = x->next;
}

static void ipc_release(bsattn_exchange_t *exchange)
{
    ipc_transport_t *ipc = (ipc_transport_t *)exchange->transport;
    ipc_exchange_t *x = (ipc_exchange_t *)exchange;

    (void)cudaSetDevice(ipc->device); /* mappings are its own */
    if (x->mapping != NULL) {
        mapping_close(ipc, x->mapping, x->target_serial);
    }
    if (x->serial != 0) {
        forget_offer(ipc, x);
    }
    if (x->uses_outbox) {
        bsattn_outbox_drop(&ipc->outbox);
    }
    bsattn_outgoing_free(&x->outgoing);
    free(x);
}

static bsattn_status_t ipc_prepare(bsattn_transport_t *transport,
                                   const bsattn_exchange_params_t *params,
                                   bsattn_exchange_t **exchange_p)
{
    ipc_transport_t *ipc = (ipc_transport_t *)transport;
    ipc_exchange_t *x = calloc(1, sizeof(*x));
    bsattn_status_t status;
    int64_t grown = 0;

    if (x == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to prepare an exchange");
    }
    BSATTN_ASSERT(params->queue != NULL);
    x->super.transport = transport;
    x->super.params = *params;
    status = bsattn_outgoing_init(&x->outgoing, params);
    if ((status == BSATTN_OK) && !bsattn_outgoing_is_few(&x->outgoing)) {
        status = bsattn_outbox_reserve(&ipc->outbox, x->outgoing.bytes, &grown);
        x->uses_outbox = (status == BSATTN_OK);
    }
    if ((status == BSATTN_OK) && (params->receive.rows > 0)) {
        status = flags_map(ipc, params->from);
    }
    if ((status == BSATTN_OK) && (params->send.run_count > 0)) {
        status = flags_map(ipc, params->to);
    }
    if (status != BSATTN_OK) {
        ipc_release(&x->super);
        return status;
    }
    x->super.device_bytes = x->outgoing.device_bytes + grown;
    x->super.operations = bsattn_outgoing_operations(&x->outgoing);
    *exchange_p = &x->super;
    return BSATTN_OK;
}

/* Who sends has to know where to write. It gets a letter even if there is no telling: an empty one. */
static bsattn_status_t ipc_offer(bsattn_exchange_t *exchange)
{
    ipc_transport_t *ipc = (ipc_transport_t *)exchange->transport;
    ipc_exchange_t *x = (ipc_exchange_t *)exchange;
    const bsattn_exchange_params_t *params = &exchange->params;
    size_t in_bytes = (size_t)params->receive.rows * params->row_bytes;
    uint32_t serial = (ipc->serial == UINT32_MAX) ? 1 : ipc->serial + 1;
    ipc_place_t place;
    bsattn_status_t status;

    if (in_bytes == 0) {
        return BSATTN_OK;
    }
    status = place_of(params->receive.base, in_bytes, serial, &place);
    if (status != BSATTN_OK) {
        place = (ipc_place_t){.bytes = 0};
    }
    BSATTN_TRY(bsattn_control_post(&ipc->control, params->from, TAG_PLACE, &place, sizeof(place)));
    if (status != BSATTN_OK) {
        return status;
    }
    ipc->serial = serial;
    x->serial = serial;
    x->next = ipc->offered;
    ipc->offered = x;
    return BSATTN_OK;
}

/* Hear from the rank that receives where to write. */
static bsattn_status_t ipc_bind(bsattn_exchange_t *exchange)
{
    ipc_transport_t *ipc = (ipc_transport_t *)exchange->transport;
    ipc_exchange_t *x = (ipc_exchange_t *)exchange;
    const bsattn_exchange_params_t *params = &exchange->params;
    ipc_place_t place;
    char what[96];

    if (x->outgoing.bytes == 0) {
        return BSATTN_OK;
    }
    (void)snprintf(what, sizeof(what), "for rank %d to say where its buffer of step %d is",
                   params->to, params->step);
    BSATTN_TRY(bsattn_control_await(&ipc->control, params->to, TAG_PLACE, &place, sizeof(place),
                                    what));
    if (place.bytes == 0) {
        return BSATTN_ERR_ENVIRONMENT; /* why, that rank has said when all agreed on the offers */
    }
    BSATTN_ASSERT(place.bytes == x->outgoing.bytes);
    BSATTN_TRY(mapping_open(ipc, params->to, &place, &x->mapping));
    x->target = x->mapping->base + place.offset;
    x->target_serial = place.serial;
    return BSATTN_OK;
}

/* Enqueue: rows into the other rank's buffer, as soon as it is free. */
static bsattn_status_t push(ipc_transport_t *ipc, const ipc_exchange_t *x,
                            bsattn_cuda_queue_t *queue)
{
    cudaStream_t stream = queue->exchange;
    int to = x->super.params.to;
    uint32_t message = ++ipc->sent[to];

    if (x->uses_outbox) {
        /* The copy out of it before this one is done: it was on this stream. */
        BSATTN_TRY(bsattn_outbox_fill(&ipc->outbox, &x->outgoing, queue));
    }
    BSATTN_TRY(bsattn_driver_wait(stream, own_flag(ipc, to, false), message));
    if (x->uses_outbox) {
        BSATTN_TRY(bsattn_cuda_check(cudaMemcpyAsync(x->target, ipc->outbox.memory,
                                                     x->outgoing.bytes, cudaMemcpyDefault, stream),
                                     "cudaMemcpyAsync"));
    } else {
        BSATTN_TRY(bsattn_outgoing_write(&x->outgoing, x->target, stream));
    }
    return bsattn_driver_write(stream, flag_of(ipc, to, true), message);
}

static bsattn_status_t ipc_start(bsattn_exchange_t *exchange)
{
    ipc_transport_t *ipc = (ipc_transport_t *)exchange->transport;
    ipc_exchange_t *x = (ipc_exchange_t *)exchange;
    const bsattn_exchange_params_t *params = &exchange->params;
    bsattn_cuda_queue_t *queue = params->queue;
    bool receives = (params->receive.rows > 0);
    uint32_t message = 0;

    BSATTN_TRY(bsattn_cuda_queue_exchange_after_compute(queue));
    if (receives) {
        message = ++ipc->received[params->from];
        BSATTN_TRY(
            bsattn_driver_write(queue->exchange, flag_of(ipc, params->from, false), message));
    }
    if (x->outgoing.bytes > 0) {
        BSATTN_TRY(push(ipc, x, queue));
    }
    if (receives) {
        BSATTN_TRY(bsattn_driver_wait(queue->exchange, own_flag(ipc, params->from, true), message));
    }
    return BSATTN_OK;
}

static bsattn_status_t ipc_test(bsattn_exchange_t *exchange, bool *done_p)
{
    (void)exchange;
    *done_p = false;
    return BSATTN_OK;
}

static bsattn_status_t ipc_wait(bsattn_exchange_t *exchange)
{
    return bsattn_cuda_queue_compute_after_exchange(exchange->params.queue);
}

/* -------------------------------------------------------------------------------- start and end */

static void ipc_destroy(bsattn_transport_t *transport)
{
    ipc_transport_t *ipc = (ipc_transport_t *)transport;
    bool allocated = (ipc->flags_of != NULL) && (ipc->flags_closed != NULL);

    (void)cudaSetDevice(ipc->device);
    for (int r = 0; allocated && (r < transport->ranks); ++r) {
        if (ipc->flags_of[r] != NULL) {
            mapping_close(ipc, ipc->flags_of[r], 0);
        }
    }
    for (int r = 0; allocated && (r < transport->ranks); ++r) {
        wait_closed(ipc, r, &ipc->flags_closed[r]);
    }
    (void)cudaFree(ipc->flags);
    (void)cudaFree(ipc->outbox.memory);
    free(ipc->cards);
    free(ipc->flags_of);
    free(ipc->flags_closed);
    free(ipc->sent);
    free(ipc->received);
    bsattn_control_free(&ipc->control);
    free(ipc);
}

static const bsattn_transport_ops_t ipc_ops = {
    .name = "ipc",
    .destroy = ipc_destroy,
    .prepare = ipc_prepare,
    .release = ipc_release,
    .offer = ipc_offer,
    .bind = ipc_bind,
    .start = ipc_start,
    .test = ipc_test,
    .wait = ipc_wait,
    .poll = bsattn_control_poll,
    .stalled = bsattn_control_stalled,
    .gather = bsattn_control_gather,
    .broadcast = bsattn_control_broadcast,
};

/* The driver can let streams write and wait for numbers: try it. */
static bsattn_status_t try_flags(ipc_transport_t *ipc)
{
    cudaStream_t stream;
    bsattn_status_t status;

    BSATTN_TRY(bsattn_cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                                 "cudaStreamCreateWithFlags"));
    status = bsattn_driver_write(stream, ipc->flags, 1);
    if (status == BSATTN_OK) {
        status = bsattn_driver_wait(stream, ipc->flags, 1);
    }
    if (status == BSATTN_OK) {
        status = bsattn_cuda_check(cudaMemsetAsync(ipc->flags, 0, FLAG_BYTES, stream),
                                   "cudaMemsetAsync");
    }
    if (status == BSATTN_OK) {
        status = bsattn_cuda_check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    }
    (void)cudaStreamDestroy(stream);
    return status;
}

/* What a rank needs by itself. */
static bsattn_status_t ipc_init_local(ipc_transport_t *ipc, ipc_card_t *card)
{
    size_t ranks = (size_t)ipc->control.super.ranks;
    size_t flag_bytes = 2 * ranks * sizeof(*ipc->flags);

    ipc->cards = calloc(ranks, sizeof(*ipc->cards));
    ipc->flags_of = calloc(ranks, sizeof(*ipc->flags_of));
    ipc->flags_closed = malloc(ranks * sizeof(*ipc->flags_closed));
    ipc->sent = calloc(ranks, sizeof(*ipc->sent));
    ipc->received = calloc(ranks, sizeof(*ipc->received));
    if ((ipc->cards == NULL) || (ipc->flags_of == NULL) || (ipc->flags_closed == NULL) ||
        (ipc->sent == NULL) || (ipc->received == NULL)) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the ipc transport");
    }
    for (size_t r = 0; r < ranks; ++r) {
        ipc->flags_closed[r] = true;
    }
    if (flag_bytes > FLAG_BYTES) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT, "transport ipc: %zu ranks are too many", ranks);
    }
    BSATTN_TRY(bsattn_cuda_check(cudaSetDevice(ipc->device), "cudaSetDevice"));
    BSATTN_TRY(bsattn_driver_init(ipc->device));
    BSATTN_TRY(bsattn_cuda_malloc(FLAG_BYTES, " for the flags of transport ipc", &ipc->flags));
    BSATTN_TRY(try_flags(ipc));
    bsattn_host_name(card->host, sizeof(card->host));
    BSATTN_TRY(bsattn_cuda_check(cudaDeviceGetPCIBusId(card->pci, PCI_SIZE, ipc->device),
                                 "cudaDeviceGetPCIBusId"));
    return place_of(ipc->flags, flag_bytes, 0, &card->flags);
}

/* So that what cannot be is told at the start. Other pairs follow when exchanges are prepared. */
static bsattn_status_t map_neighbours(ipc_transport_t *ipc)
{
    int ranks = ipc->control.super.ranks;
    int rank = ipc->control.super.first_rank;
    int neighbours[2] = {(rank + 1) % ranks, (rank + ranks - 1) % ranks};

    for (int i = 0; (ranks > 1) && (i < 2); ++i) {
        BSATTN_TRY(flags_map(ipc, neighbours[i]));
    }
    return BSATTN_OK;
}

/* Collective, step by step: no rank goes on where another cannot. */
static bsattn_status_t ipc_init(ipc_transport_t *ipc)
{
    bsattn_transport_t *transport = &ipc->control.super;
    ipc_card_t card = {.host = ""};

    BSATTN_TRY(bsattn_transport_agree(transport, ipc_init_local(ipc, &card)));
    BSATTN_TRY(bsattn_control_gather(transport, &card, sizeof(card), ipc->cards));
    return bsattn_transport_agree(transport, map_neighbours(ipc));
}

bsattn_status_t bsattn_transport_ipc_create(const void *comm, double timeout_s, int device,
                                            bsattn_transport_t **transport_p)
{
    ipc_transport_t *ipc = calloc(1, sizeof(*ipc));
    bsattn_status_t status;

    if (ipc == NULL) {
        return bsattn_control_decline(&ipc_ops, comm, timeout_s);
    }
    status = bsattn_control_init(&ipc->control, &ipc_ops, comm, timeout_s);
    if (status != BSATTN_OK) {
        free(ipc);
        return status;
    }
    ipc->device = device;
    ipc->patience_left_ms = patience_ms;
    status = ipc_init(ipc);
    if (status != BSATTN_OK) {
        ipc_destroy(&ipc->control.super);
        return status;
    }
    *transport_p = &ipc->control.super;
    return BSATTN_OK;
}
