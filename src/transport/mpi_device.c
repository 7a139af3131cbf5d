/* SPDX-License-Identifier: Apache-2.0 */
#ifdef BSATTN_HAVE_CUDA

#include "transport/mpi_control.h"

#if __has_include(<mpi-ext.h>)
#include <mpi-ext.h>
#endif

#include "base/clock.h"
#include "transport/mpi_device.h"
#include "transport/staging_cuda.h"

#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Once a piece has moved, the next is looked for so long without a pause: pauses add up to a tenth of the time. */
static const double busy_ms = 1.0;

struct bsattn_mpi_device {
    bsattn_control_t *control;
    bsattn_staging_t *staging;
    bool direct;
};

/* How far one direction of a staged message has come, in pieces. */
typedef struct pieces {
    size_t bytes;
    int64_t count;
    int64_t staged; /* out: on the way from the GPU; in: received and on the way to it */
    int64_t posted; /* handed to MPI */
    int64_t done;   /* sent */
    MPI_Request requests[BSATTN_STAGING_SLOTS];
} pieces_t;

struct bsattn_mpi_message {
    bsattn_mpi_device_t *device;
    bsattn_exchange_params_t params;
    bsattn_staged_t *staged;
    pieces_t out;
    pieces_t in;
    double moved_ms;  /* when a piece last moved */
    MPI_Datatype row; /* device pointers: */
    MPI_Request requests[2];
    bool posted;
};

/* ----------------------------------------------------------------------------------- which way */

static bool staging_asked_for(void)
{
    const char *staged = getenv("BSATTN_MPI_STAGED");

    return (staged != NULL) && (strcmp(staged, "0") != 0) && (staged[0] != '\0');
}

static bool takes_device_pointers(void)
{
    if (staging_asked_for()) {
        return false;
    }
#if defined(MPIX_CUDA_AWARE_SUPPORT)
    return MPIX_Query_cuda_support() == 1;
#elif defined(MPIX_GPU_SUPPORT_CUDA)
    {
        int supported = 0;
        return (MPIX_GPU_query_support(MPIX_GPU_SUPPORT_CUDA, &supported) == MPI_SUCCESS) &&
               (supported != 0);
    }
#else
    return false;
#endif
}

bsattn_status_t bsattn_mpi_device_create(bsattn_control_t *control, bsattn_mpi_device_t **device_p)
{
    bsattn_mpi_control_t *mpi = control->mpi;
    bool all = false;
    bsattn_mpi_device_t *device;
    bsattn_status_t status;

    BSATTN_TRY(bsattn_mpi_watch_all(&mpi->watch, mpi->comm, takes_device_pointers(), &all));
    device = calloc(1, sizeof(*device));
    if (device == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the mpi transport");
    }
    device->control = control;
    device->direct = all;
    status = bsattn_staging_create(&device->staging);
    if (status != BSATTN_OK) {
        free(device);
        return status;
    }
    *device_p = device;
    return BSATTN_OK;
}

void bsattn_mpi_device_destroy(bsattn_mpi_device_t *device)
{
    if (device != NULL) {
        bsattn_staging_destroy(device->staging);
        free(device);
    }
}

const char *bsattn_mpi_device_way(const bsattn_mpi_device_t *device)
{
    return device->direct        ? "device pointers, which this MPI takes"
           : staging_asked_for() ? "staged through pinned memory, as BSATTN_MPI_STAGED says"
                                 : "staged through pinned memory: some rank's MPI takes no device "
                                   "pointers, or it has BSATTN_MPI_STAGED set";
}

/* ------------------------------------------------------------------------------------- messages */

static void pieces_init(pieces_t *pieces, size_t bytes)
{
    pieces->bytes = bytes;
    pieces->count = (int64_t)((bytes + BSATTN_STAGING_PIECE - 1) / BSATTN_STAGING_PIECE);
    for (int i = 0; i < BSATTN_STAGING_SLOTS; ++i) {
        pieces->requests[i] = MPI_REQUEST_NULL;
    }
}

static int piece_bytes(const pieces_t *pieces, int64_t piece)
{
    size_t left = pieces->bytes - (size_t)piece * BSATTN_STAGING_PIECE;

    return (left < BSATTN_STAGING_PIECE) ? (int)left : BSATTN_STAGING_PIECE;
}

bsattn_status_t bsattn_mpi_message_prepare(bsattn_mpi_device_t *device, bsattn_exchange_t *exchange,
                                           bsattn_mpi_message_t **message_p)
{
    bsattn_mpi_message_t *message = calloc(1, sizeof(*message));
    const bsattn_exchange_params_t *params = &exchange->params;
    bsattn_status_t status;

    if (message == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to prepare an exchange");
    }
    message->device = device;
    message->params = *params;
    message->row = MPI_DATATYPE_NULL;
    message->requests[0] = MPI_REQUEST_NULL;
    message->requests[1] = MPI_REQUEST_NULL;
    pieces_init(&message->out, 0); /* until it is known what is staged */
    pieces_init(&message->in, (size_t)params->receive.rows * params->row_bytes);
    BSATTN_ASSERT(params->row_bytes <= INT_MAX);
    status = bsattn_mpi_check(MPI_Type_contiguous((int)params->row_bytes, MPI_BYTE, &message->row),
                              "MPI_Type_contiguous");
    if (status == BSATTN_OK) {
        status = bsattn_mpi_check(MPI_Type_commit(&message->row), "MPI_Type_commit");
    }
    if (status == BSATTN_OK) {
        status =
            bsattn_staged_prepare(device->staging, exchange, !device->direct, &message->staged);
    }
    if (status != BSATTN_OK) {
        bsattn_mpi_message_release(message);
        return status;
    }
    pieces_init(&message->out, bsattn_staged_bytes(message->staged));
    *message_p = message;
    return BSATTN_OK;
}

static void drop_request(MPI_Request *request)
{
    if (*request != MPI_REQUEST_NULL) {
        (void)MPI_Cancel(request);
        (void)MPI_Request_free(request);
    }
}

void bsattn_mpi_message_release(bsattn_mpi_message_t *message)
{
    if (message == NULL) {
        return;
    }
    for (int i = 0; i < BSATTN_STAGING_SLOTS; ++i) {
        drop_request(&message->out.requests[i]);
        drop_request(&message->in.requests[i]);
    }
    drop_request(&message->requests[0]);
    drop_request(&message->requests[1]);
    if (message->row != MPI_DATATYPE_NULL) {
        (void)MPI_Type_free(&message->row);
    }
    bsattn_staged_release(message->staged);
    free(message);
}

static bsattn_status_t test_request(MPI_Request *request, bool *done_p)
{
    int done = 0;

    BSATTN_TRY(bsattn_mpi_check(MPI_Test(request, &done, MPI_STATUS_IGNORE), "MPI_Test"));
    *done_p = (done != 0);
    return BSATTN_OK;
}

/* From the GPU to a slot, and from there to the rank that receives. */
static bsattn_status_t advance_out(bsattn_mpi_message_t *message)
{
    MPI_Comm comm = message->device->control->mpi->comm;
    const bsattn_exchange_params_t *params = &message->params;
    pieces_t *out = &message->out;
    bool done = true;

    while (done && (out->done < out->posted)) {
        BSATTN_TRY(test_request(&out->requests[out->done % BSATTN_STAGING_SLOTS], &done));
        out->done += done;
    }
    while ((out->staged < out->count) && (out->staged - out->done < BSATTN_STAGING_SLOTS)) {
        BSATTN_TRY(bsattn_staged_take(message->staged, out->staged,
                                      (size_t)piece_bytes(out, out->staged)));
        ++out->staged;
    }
    while (out->posted < out->staged) {
        BSATTN_TRY(bsattn_staged_taken(message->staged, out->posted, &done));
        if (!done) {
            break;
        }
        BSATTN_TRY(bsattn_mpi_check(MPI_Isend(bsattn_staged_out_slot(message->staged, out->posted),
                                              piece_bytes(out, out->posted), MPI_BYTE, params->to,
                                              params->step, comm,
                                              &out->requests[out->posted % BSATTN_STAGING_SLOTS]),
                                    "MPI_Isend"));
        ++out->posted;
    }
    return BSATTN_OK;
}

/* From the rank that sends to a slot, and from there to the GPU. */
static bsattn_status_t advance_in(bsattn_mpi_message_t *message)
{
    MPI_Comm comm = message->device->control->mpi->comm;
    const bsattn_exchange_params_t *params = &message->params;
    pieces_t *in = &message->in;
    bool done = true;

    while (done && (in->staged < in->posted)) {
        BSATTN_TRY(test_request(&in->requests[in->staged % BSATTN_STAGING_SLOTS], &done));
        if (done) {
            BSATTN_TRY(bsattn_staged_give(message->staged, in->staged,
                                          (size_t)piece_bytes(in, in->staged)));
            ++in->staged;
        }
    }
    while ((in->posted < in->count) && (in->posted - in->staged < BSATTN_STAGING_SLOTS)) {
        BSATTN_TRY(bsattn_staged_given(message->staged, in->posted, &done));
        if (!done) {
            break;
        }
        BSATTN_TRY(bsattn_mpi_check(MPI_Irecv(bsattn_staged_in_slot(message->staged, in->posted),
                                              piece_bytes(in, in->posted), MPI_BYTE, params->from,
                                              params->step, comm,
                                              &in->requests[in->posted % BSATTN_STAGING_SLOTS]),
                                    "MPI_Irecv"));
        ++in->posted;
    }
    return BSATTN_OK;
}

/* MPI is given the GPU's addresses as soon as both buffers are free. */
static bsattn_status_t advance_direct(bsattn_mpi_message_t *message, bool *done_p)
{
    MPI_Comm comm = message->device->control->mpi->comm;
    const bsattn_exchange_params_t *params = &message->params;
    size_t out_rows = message->out.bytes / params->row_bytes;
    int done = 0;

    *done_p = false;
    if (!message->posted) {
        BSATTN_TRY(bsattn_staged_ready(message->staged, &message->posted));
        if (!message->posted) {
            return BSATTN_OK;
        }
        BSATTN_ASSERT((params->receive.rows <= INT_MAX) && (out_rows <= INT_MAX));
        if (params->receive.rows > 0) {
            BSATTN_TRY(bsattn_mpi_check(MPI_Irecv(params->receive.base, (int)params->receive.rows,
                                                  message->row, params->from, params->step, comm,
                                                  &message->requests[0]),
                                        "MPI_Irecv"));
        }
        if (out_rows > 0) {
            BSATTN_TRY(bsattn_mpi_check(MPI_Isend(bsattn_staged_rows(message->staged),
                                                  (int)out_rows, message->row, params->to,
                                                  params->step, comm, &message->requests[1]),
                                        "MPI_Isend"));
        }
    }
    BSATTN_TRY(bsattn_mpi_check(MPI_Testall(2, message->requests, &done, MPI_STATUSES_IGNORE),
                                "MPI_Testall"));
    *done_p = (done != 0);
    return BSATTN_OK;
}

static bsattn_status_t advance(void *arg, bool *done_p)
{
    bsattn_mpi_message_t *message = arg;

    if (message->device->direct) {
        return advance_direct(message, done_p);
    }
    BSATTN_TRY(advance_in(message));
    BSATTN_TRY(advance_out(message));
    *done_p =
        (message->in.staged == message->in.count) && (message->out.done == message->out.count);
    return BSATTN_OK;
}

static int64_t moves(const bsattn_mpi_message_t *message)
{
    const pieces_t *out = &message->out;
    const pieces_t *in = &message->in;

    return out->staged + out->posted + out->done + in->posted + in->staged;
}

/* The same, on and on while pieces move. */
static bsattn_status_t advance_busily(void *arg, bool *done_p)
{
    bsattn_mpi_message_t *message = arg;

    for (;;) {
        int64_t before = moves(message);
        double now_ms;
        BSATTN_TRY(advance(message, done_p));
        now_ms = bsattn_clock_ms();
        if (moves(message) != before) {
            message->moved_ms = now_ms;
        }
        if (*done_p || (now_ms - message->moved_ms > busy_ms)) {
            return BSATTN_OK;
        }
        (void)sched_yield();
    }
}

bsattn_status_t bsattn_mpi_message_start(bsattn_mpi_message_t *message)
{
    bool done;

    message->posted = false;
    message->out.staged = message->out.posted = message->out.done = 0;
    message->in.staged = message->in.posted = message->in.done = 0;
    BSATTN_TRY(bsattn_staged_start(message->staged));
    return advance(message, &done);
}

bsattn_status_t bsattn_mpi_message_test(bsattn_mpi_message_t *message, bool *done_p)
{
    return advance(message, done_p);
}

/* Wait for what this rank's GPU does before the exchange: that may take as long as it takes, and
 * only what comes after is other ranks' doing. */
static bsattn_status_t wait_own(bsattn_mpi_message_t *message)
{
    struct timespec pause = {.tv_nsec = 20000};
    bool ready = false;
    bool done;

    for (;;) {
        BSATTN_TRY(bsattn_staged_ready(message->staged, &ready));
        if (ready) {
            return BSATTN_OK;
        }
        BSATTN_TRY(advance(message, &done));
        (void)nanosleep(&pause, NULL);
    }
}

bsattn_status_t bsattn_mpi_message_wait(bsattn_mpi_message_t *message, const char *what)
{
    bsattn_mpi_watch_t *watch = &message->device->control->mpi->watch;

    BSATTN_TRY(wait_own(message));
    BSATTN_TRY(bsattn_mpi_watch_until(watch, advance_busily, message, what));
    return bsattn_staged_finish(message->staged);
}

#else
typedef int bsattn_mpi_device_unused_t; /* a source must hold something */
#endif
