/* SPDX-License-Identifier: Apache-2.0 */
/* What leaves the GPU does so on the exchange stream; what arrives has a stream of its own, so that
 * both directions of the bus are used. */
#include "transport/staging_cuda.h"

#include "backend/queue_cuda.h"
#include "base/host.h"
#include "base/text.h"
#include "transport/outgoing_cuda.h"

#include <stdlib.h>

/* The slots of one direction. */
typedef struct slots {
    char *memory; /* pinned */
    cudaEvent_t passed[BSATTN_STAGING_SLOTS];
    int uses;
} slots_t;

struct bsattn_staging {
    bsattn_outbox_t outbox;
    slots_t out;
    slots_t in;
    cudaStream_t stream; /* for what arrives */
    cudaEvent_t arrived; /* all of a message */
};

struct bsattn_staged {
    bsattn_staging_t *staging;
    bsattn_cuda_queue_t *queue;
    char *receive;
    bsattn_outgoing_t outgoing;
    cudaEvent_t ready;
    bool uses_outbox;
    bool uses_out;
    bool uses_in;
};

bsattn_status_t bsattn_staging_create(bsattn_staging_t **staging_p)
{
    *staging_p = calloc(1, sizeof(**staging_p));
    return (*staging_p != NULL) ? BSATTN_OK
                                : bsattn_fail(BSATTN_ERR_MEMORY, "no memory for messages of a GPU");
}

static void slots_free(slots_t *slots)
{
    for (int i = 0; i < BSATTN_STAGING_SLOTS; ++i) {
        bsattn_cuda_event_destroy(&slots->passed[i]);
    }
    (void)cudaFreeHost(slots->memory);
    slots->memory = NULL;
}

static void slots_drop(slots_t *slots)
{
    --slots->uses;
    if (slots->uses == 0) {
        slots_free(slots);
    }
}

static bsattn_status_t slots_use(slots_t *slots, int64_t *host_bytes)
{
    size_t bytes = (size_t)BSATTN_STAGING_SLOTS * BSATTN_STAGING_PIECE;
    char need_text[32];
    char have_text[32];

    if (slots->uses > 0) {
        ++slots->uses;
        return BSATTN_OK;
    }
    for (int i = 0; i < BSATTN_STAGING_SLOTS; ++i) {
        bsattn_status_t status = bsattn_cuda_event_create(&slots->passed[i]);
        if (status != BSATTN_OK) {
            slots_free(slots);
            return status;
        }
    }
    if (cudaMallocHost((void **)&slots->memory, bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        slots->memory = NULL;
        slots_free(slots);
        return bsattn_fail(BSATTN_ERR_MEMORY,
                           "out of memory: %s of pinned host memory for messages were refused, %s "
                           "were free",
                           bsattn_text_bytes(need_text, sizeof(need_text), (double)bytes),
                           bsattn_text_bytes(have_text, sizeof(have_text),
                                             (double)bsattn_host_memory_available()));
    }
    *host_bytes += (int64_t)bytes;
    ++slots->uses;
    return BSATTN_OK;
}

void bsattn_staging_destroy(bsattn_staging_t *staging)
{
    if (staging == NULL) {
        return;
    }
    if (staging->stream != NULL) {
        (void)cudaStreamDestroy(staging->stream);
    }
    bsattn_cuda_event_destroy(&staging->arrived);
    free(staging);
}

static bsattn_status_t staging_stream(bsattn_staging_t *staging)
{
    if (staging->stream != NULL) {
        return BSATTN_OK;
    }
    if (staging->arrived == NULL) {
        BSATTN_TRY(bsattn_cuda_event_create(&staging->arrived));
    }
    return bsattn_cuda_check(cudaStreamCreateWithFlags(&staging->stream, cudaStreamNonBlocking),
                             "cudaStreamCreateWithFlags");
}

static bsattn_status_t staged_init(bsattn_staged_t *staged, bsattn_exchange_t *exchange, bool slots)
{
    bsattn_staging_t *staging = staged->staging;
    int64_t grown = 0;

    BSATTN_TRY(bsattn_cuda_event_create(&staged->ready));
    BSATTN_TRY(bsattn_outgoing_init(&staged->outgoing, &exchange->params));
    if ((staged->outgoing.bytes > 0) && (staged->outgoing.range == NULL)) {
        BSATTN_TRY(bsattn_outbox_reserve(&staging->outbox, staged->outgoing.bytes, &grown));
        staged->uses_outbox = true;
    }
    if (slots && (staged->outgoing.bytes > 0)) {
        BSATTN_TRY(slots_use(&staging->out, &exchange->host_bytes));
        staged->uses_out = true;
    }
    if (slots && (exchange->params.receive.rows > 0)) {
        BSATTN_TRY(staging_stream(staging));
        BSATTN_TRY(slots_use(&staging->in, &exchange->host_bytes));
        staged->uses_in = true;
    }
    exchange->device_bytes = staged->outgoing.device_bytes + grown;
    return BSATTN_OK;
}

bsattn_status_t bsattn_staged_prepare(bsattn_staging_t *staging, bsattn_exchange_t *exchange,
                                      bool slots, bsattn_staged_t **staged_p)
{
    bsattn_staged_t *staged = calloc(1, sizeof(*staged));
    bsattn_status_t status;

    if (staged == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to prepare an exchange");
    }
    staged->staging = staging;
    staged->queue = exchange->params.queue;
    staged->receive = exchange->params.receive.base;
    status = staged_init(staged, exchange, slots);
    if (status != BSATTN_OK) {
        bsattn_staged_release(staged);
        return status;
    }
    *staged_p = staged;
    return BSATTN_OK;
}

void bsattn_staged_release(bsattn_staged_t *staged)
{
    if (staged == NULL) {
        return;
    }
    if (staged->uses_outbox) {
        bsattn_outbox_drop(&staged->staging->outbox);
    }
    if (staged->uses_out) {
        slots_drop(&staged->staging->out);
    }
    if (staged->uses_in) {
        slots_drop(&staged->staging->in);
    }
    bsattn_cuda_event_destroy(&staged->ready);
    bsattn_outgoing_free(&staged->outgoing);
    free(staged);
}

size_t bsattn_staged_bytes(const bsattn_staged_t *staged)
{
    return staged->outgoing.bytes;
}

static bsattn_status_t query(cudaEvent_t event, bool *done_p)
{
    return bsattn_cuda_look(cudaEventQuery(event), "cudaEventQuery", done_p);
}

bsattn_status_t bsattn_staged_start(bsattn_staged_t *staged)
{
    cudaStream_t stream = staged->queue->exchange;

    BSATTN_TRY(bsattn_cuda_queue_exchange_after_compute(staged->queue));
    if (staged->uses_outbox) {
        BSATTN_TRY(bsattn_outbox_fill(&staged->staging->outbox, &staged->outgoing, staged->queue));
    }
    BSATTN_TRY(bsattn_cuda_event_record(staged->ready, stream));
    if (staged->uses_in) {
        BSATTN_TRY(bsattn_cuda_event_await(staged->staging->stream, staged->ready));
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_staged_ready(const bsattn_staged_t *staged, bool *done_p)
{
    return query(staged->ready, done_p);
}

const void *bsattn_staged_rows(const bsattn_staged_t *staged)
{
    return staged->uses_outbox ? staged->staging->outbox.memory : staged->outgoing.range;
}

static size_t slot_of(int64_t piece)
{
    return (size_t)(piece % BSATTN_STAGING_SLOTS);
}

static size_t offset_of(int64_t piece)
{
    return (size_t)piece * BSATTN_STAGING_PIECE;
}

void *bsattn_staged_out_slot(const bsattn_staged_t *staged, int64_t piece)
{
    return staged->staging->out.memory + slot_of(piece) * BSATTN_STAGING_PIECE;
}

void *bsattn_staged_in_slot(const bsattn_staged_t *staged, int64_t piece)
{
    return staged->staging->in.memory + slot_of(piece) * BSATTN_STAGING_PIECE;
}

bsattn_status_t bsattn_staged_take(bsattn_staged_t *staged, int64_t piece, size_t bytes)
{
    const char *rows = bsattn_staged_rows(staged);
    cudaStream_t stream = staged->queue->exchange;

    BSATTN_TRY(bsattn_cuda_check(cudaMemcpyAsync(bsattn_staged_out_slot(staged, piece),
                                                 rows + offset_of(piece), bytes,
                                                 cudaMemcpyDeviceToHost, stream),
                                 "cudaMemcpyAsync"));
    return bsattn_cuda_event_record(staged->staging->out.passed[slot_of(piece)], stream);
}

bsattn_status_t bsattn_staged_taken(const bsattn_staged_t *staged, int64_t piece, bool *done_p)
{
    return query(staged->staging->out.passed[slot_of(piece)], done_p);
}

bsattn_status_t bsattn_staged_give(bsattn_staged_t *staged, int64_t piece, size_t bytes)
{
    cudaStream_t stream = staged->staging->stream;

    BSATTN_TRY(bsattn_cuda_check(cudaMemcpyAsync(staged->receive + offset_of(piece),
                                                 bsattn_staged_in_slot(staged, piece), bytes,
                                                 cudaMemcpyHostToDevice, stream),
                                 "cudaMemcpyAsync"));
    return bsattn_cuda_event_record(staged->staging->in.passed[slot_of(piece)], stream);
}

bsattn_status_t bsattn_staged_given(const bsattn_staged_t *staged, int64_t piece, bool *done_p)
{
    return query(staged->staging->in.passed[slot_of(piece)], done_p);
}

bsattn_status_t bsattn_staged_finish(bsattn_staged_t *staged)
{
    bsattn_staging_t *staging = staged->staging;

    if (staged->uses_in) {
        BSATTN_TRY(bsattn_cuda_event_record(staging->arrived, staging->stream));
        BSATTN_TRY(
            bsattn_cuda_event_await(staged->queue->exchange, staging->arrived));
    }
    return bsattn_cuda_queue_compute_after_exchange(staged->queue);
}
