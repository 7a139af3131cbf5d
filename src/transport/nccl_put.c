/* SPDX-License-Identifier: Apache-2.0 */
/* The window holds slots that pieces arrive in and slots that they leave from, piece i of a message
 * in slot i modulo their number. Signals are counted per sender and come in the order they were
 * sent in: for each piece a rank first tells the rank that sends that its slot is free, then waits
 * for the same word of the rank that receives, puts, and waits for what is put here. Both ranks of a
 * pair go through their messages in the same order, so even where each sends to the other a signal
 * cannot be taken for another; and as all say "free" before they wait for anything, there is no
 * circle.
 *
 * Calls of NCCL are on the rank's exchange stream, the copies beside it, one piece ahead and one
 * behind. */
#include "transport/nccl_put.h"

#include "backend/queue_cuda.h"

#include <stdlib.h>

#if NCCL_VERSION_CODE >= 22900

/* An older NCCL may be there when the program starts: it must start all the same. */
#pragma weak ncclMemAlloc
#pragma weak ncclMemFree
#pragma weak ncclCommWindowRegister
#pragma weak ncclCommWindowDeregister
#pragma weak ncclPutSignal
#pragma weak ncclSignal
#pragma weak ncclWaitSignal

/* The first NCCL that can put, and the first driver that lets it. */
enum { FIRST_VERSION = 22900, FIRST_DRIVER = 12050 };

/* Large, since the host needs some ten microseconds for each of the calls of a piece. */
enum { SLOTS = 2, PIECE = 32 << 20, OPERATIONS_OF_PIECE = 20 };

struct bsattn_nccl_put {
    bsattn_nccl_comm_t *comm;
    char *memory;        /* [2, SLOTS, PIECE]: pieces that arrive, pieces that leave */
    ncclWindow_t window; /* over all of it */
    cudaStream_t copies;
    cudaEvent_t reached; /* by the exchange stream, for copies to begin */
    cudaEvent_t filled;  /* the slot that leaves next */
    cudaEvent_t emptied[SLOTS];
};

bsattn_status_t bsattn_nccl_put_check(int version)
{
    int driver = 0;

    if (version < FIRST_VERSION) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                           "BSATTN_NCCL_MODE=put needs NCCL 2.29 or later and this is %d.%d.%d",
                           version / 10000, version / 100 % 100, version % 100);
    }
    BSATTN_TRY(bsattn_cuda_check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion"));
    if (driver < FIRST_DRIVER) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                           "BSATTN_NCCL_MODE=put needs a driver for CUDA 12.5 or later and this is "
                           "for %d.%d",
                           driver / 1000, driver % 1000 / 10);
    }
    return BSATTN_OK;
}

/* -------------------------------------------------------------------------------- start and end */

void bsattn_nccl_put_destroy(bsattn_nccl_put_t *put)
{
    if (put == NULL) {
        return;
    }
    if ((put->window != NULL) && (put->comm->handle != NULL)) {
        (void)ncclCommWindowDeregister(put->comm->handle, put->window);
    }
    if (put->memory != NULL) {
        (void)ncclMemFree(put->memory);
    }
    if (put->copies != NULL) {
        (void)cudaStreamDestroy(put->copies);
    }
    bsattn_cuda_event_destroy(&put->reached);
    bsattn_cuda_event_destroy(&put->filled);
    for (int i = 0; i < SLOTS; ++i) {
        bsattn_cuda_event_destroy(&put->emptied[i]);
    }
    free(put);
}

static bsattn_status_t put_init(bsattn_nccl_put_t *put)
{
    BSATTN_TRY(bsattn_cuda_check(cudaStreamCreateWithFlags(&put->copies, cudaStreamNonBlocking),
                                 "cudaStreamCreateWithFlags"));
    BSATTN_TRY(bsattn_cuda_event_create(&put->reached));
    BSATTN_TRY(bsattn_cuda_event_create(&put->filled));
    for (int i = 0; i < SLOTS; ++i) {
        BSATTN_TRY(bsattn_cuda_event_create(&put->emptied[i]));
    }
    if (ncclMemAlloc((void **)&put->memory, (size_t)2 * SLOTS * PIECE) != ncclSuccess) {
        put->memory = NULL;
        return bsattn_cuda_fail_memory((size_t)2 * SLOTS * PIECE, " for BSATTN_NCCL_MODE=put");
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_nccl_put_create(bsattn_nccl_comm_t *comm, bsattn_nccl_put_t **put_p)
{
    bsattn_nccl_put_t *put = calloc(1, sizeof(*put));
    bsattn_status_t status;

    if (put == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the nccl transport");
    }
    put->comm = comm;
    status = put_init(put);
    if (status != BSATTN_OK) {
        bsattn_nccl_put_destroy(put);
        return status;
    }
    *put_p = put;
    return BSATTN_OK;
}

bsattn_status_t bsattn_nccl_put_open(bsattn_nccl_put_t *put)
{
    bsattn_nccl_comm_t *comm = put->comm;

    BSATTN_TRY(bsattn_nccl_check(
        comm,
        ncclCommWindowRegister(comm->handle, put->memory, (size_t)2 * SLOTS * PIECE, &put->window,
                               NCCL_WIN_COLL_SYMMETRIC),
        "BSATTN_NCCL_MODE=put: ncclCommWindowRegister"));
    BSATTN_TRY(bsattn_nccl_settle(comm, "for NCCL to register memory on all ranks"));
    if (put->window == NULL) {
        /* No error for NCCL: collective operations would do without. */
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                           "BSATTN_NCCL_MODE=put: NCCL cannot map memory between these ranks; it "
                           "needs GPUs of a host that reach one another, cuMem (not "
                           "NCCL_CUMEM_ENABLE=0 or NCCL_WIN_ENABLE=0) and, between hosts, GIN");
    }
    return BSATTN_OK;
}

/* ------------------------------------------------------------------------------------- messages */

static bsattn_status_t copy(bsattn_nccl_put_t *put, void *to, const void *from, size_t bytes)
{
    return bsattn_cuda_check(
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, put->copies), "cudaMemcpyAsync");
}

static int64_t count_pieces(size_t bytes)
{
    return (int64_t)((bytes + PIECE - 1) / PIECE);
}

static size_t piece_bytes(size_t bytes, int64_t piece)
{
    size_t left = bytes - (size_t)piece * PIECE;

    return (left < PIECE) ? left : PIECE;
}

static size_t in_offset(int64_t piece)
{
    return (size_t)(piece % SLOTS) * PIECE;
}

static size_t out_offset(int64_t piece)
{
    return (size_t)(SLOTS + piece % SLOTS) * PIECE;
}

/* Beside the exchange stream: a piece into its slot, if there is such a piece. What the slot held
 * has left before what the stream holds now. */
static bsattn_status_t fill(bsattn_nccl_put_t *put, const bsattn_nccl_message_t *message,
                            int64_t piece, cudaStream_t stream)
{
    if (piece >= count_pieces(message->out_bytes)) {
        return BSATTN_OK;
    }
    BSATTN_TRY(bsattn_cuda_event_record(put->reached, stream));
    BSATTN_TRY(bsattn_cuda_event_await(put->copies, put->reached));
    BSATTN_TRY(copy(put, put->memory + out_offset(piece),
                    (const char *)message->rows + (size_t)piece * PIECE,
                    piece_bytes(message->out_bytes, piece)));
    return bsattn_cuda_event_record(put->filled, put->copies);
}

/* Tell the rank that sends that the slot of a piece is free. */
static bsattn_status_t allow(bsattn_nccl_put_t *put, const bsattn_nccl_message_t *message,
                             int64_t piece, cudaStream_t stream)
{
    BSATTN_TRY(bsattn_cuda_event_await(stream, put->emptied[piece % SLOTS]));
    BSATTN_TRY(bsattn_nccl_check(
        put->comm, ncclSignal(message->from, 0, 0, 0, put->comm->handle, stream), "ncclSignal"));
    return bsattn_nccl_settle(put->comm, message->what);
}

static bsattn_status_t wait_signal(bsattn_nccl_put_t *put, int peer, const char *what,
                                   cudaStream_t stream)
{
    ncclWaitSignalDesc_t signal = {.opCnt = 1, .peer = peer};

    BSATTN_TRY(bsattn_nccl_check(
        put->comm, ncclWaitSignal(1, &signal, put->comm->handle, stream), "ncclWaitSignal"));
    return bsattn_nccl_settle(put->comm, what);
}

/* Put a piece as soon as the rank that receives allows it, filling the next slot meanwhile. */
static bsattn_status_t send(bsattn_nccl_put_t *put, const bsattn_nccl_message_t *message,
                            int64_t piece, cudaStream_t stream)
{
    BSATTN_TRY(bsattn_cuda_event_await(stream, put->filled));
    BSATTN_TRY(fill(put, message, piece + 1, stream));
    BSATTN_TRY(wait_signal(put, message->to, message->what, stream));
    BSATTN_TRY(bsattn_nccl_check(put->comm,
                                 ncclPutSignal(put->memory + out_offset(piece),
                                               piece_bytes(message->out_bytes, piece), ncclInt8,
                                               message->to, put->window, in_offset(piece), 0, 0, 0,
                                               put->comm->handle, stream),
                                 "ncclPutSignal"));
    return bsattn_nccl_settle(put->comm, message->what);
}

/* Wait for a piece, and beside the exchange stream bring it where it belongs. */
static bsattn_status_t receive(bsattn_nccl_put_t *put, const bsattn_nccl_message_t *message,
                               int64_t piece, cudaStream_t stream)
{
    BSATTN_TRY(wait_signal(put, message->from, message->what, stream));
    BSATTN_TRY(bsattn_cuda_event_record(put->reached, stream));
    BSATTN_TRY(bsattn_cuda_event_await(put->copies, put->reached));
    BSATTN_TRY(copy(put, (char *)message->base + (size_t)piece * PIECE,
                    put->memory + in_offset(piece), piece_bytes(message->in_bytes, piece)));
    return bsattn_cuda_event_record(put->emptied[piece % SLOTS], put->copies);
}

int64_t bsattn_nccl_put_operations(size_t out_bytes, size_t in_bytes)
{
    return OPERATIONS_OF_PIECE * count_pieces((out_bytes > in_bytes) ? out_bytes : in_bytes);
}

bsattn_status_t bsattn_nccl_put_move(bsattn_nccl_put_t *put, const bsattn_nccl_message_t *message,
                                     cudaStream_t stream)
{
    int64_t out_count = count_pieces(message->out_bytes);
    int64_t in_count = count_pieces(message->in_bytes);

    BSATTN_TRY(fill(put, message, 0, stream));
    for (int64_t piece = 0; (piece < out_count) || (piece < in_count); ++piece) {
        if (piece < in_count) {
            BSATTN_TRY(allow(put, message, piece, stream));
        }
        if (piece < out_count) {
            BSATTN_TRY(send(put, message, piece, stream));
        }
        if (piece < in_count) {
            BSATTN_TRY(receive(put, message, piece, stream));
        }
    }
    BSATTN_TRY(bsattn_cuda_event_record(put->reached, put->copies));
    return bsattn_cuda_event_await(stream, put->reached);
}

#else

bsattn_status_t bsattn_nccl_put_check(int version)
{
    (void)version;
    return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                       "BSATTN_NCCL_MODE=put needs a build with NCCL 2.29 or later and this one is "
                       "with %d.%d.%d",
                       NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH);
}

bsattn_status_t bsattn_nccl_put_create(bsattn_nccl_comm_t *comm, bsattn_nccl_put_t **put_p)
{
    (void)comm, (void)put_p;
    return bsattn_nccl_put_check(0);
}

bsattn_status_t bsattn_nccl_put_open(bsattn_nccl_put_t *put)
{
    (void)put;
    return bsattn_nccl_put_check(0);
}

void bsattn_nccl_put_destroy(bsattn_nccl_put_t *put)
{
    (void)put;
}

int64_t bsattn_nccl_put_operations(size_t out_bytes, size_t in_bytes)
{
    (void)out_bytes, (void)in_bytes;
    return 0;
}

bsattn_status_t bsattn_nccl_put_move(bsattn_nccl_put_t *put, const bsattn_nccl_message_t *message,
                                     cudaStream_t stream)
{
    (void)put, (void)message, (void)stream;
    return bsattn_nccl_put_check(0);
}

#endif
