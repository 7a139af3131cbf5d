/* SPDX-License-Identifier: Apache-2.0 */
/* Every rank has its own streams. Rows move on the exchange stream of the rank that receives them;
 * two events of each exchange keep both sides in order. */
#include "transport/loop_cuda.h"

#include "backend/queue_cuda.h"
#include "transport/outgoing_cuda.h"

#include <stdlib.h>

struct bsattn_loop_cuda {
    bsattn_cuda_queue_t *queue;
    bsattn_receive_t receive;
    bsattn_outgoing_t outgoing;
    cudaEvent_t ready;   /* rows can be taken from one buffer and written to the other */
    cudaEvent_t arrived; /* rows were written */
    bool moved;          /* since the start */
};

bsattn_status_t bsattn_loop_cuda_prepare(bsattn_exchange_t *exchange, bsattn_loop_cuda_t **half_p)
{
    bsattn_loop_cuda_t *half = calloc(1, sizeof(*half));
    bsattn_status_t status;

    if (half == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to prepare an exchange");
    }
    half->queue = exchange->params.queue;
    half->receive = exchange->params.receive;
    status = bsattn_cuda_event_create(&half->ready);
    if (status == BSATTN_OK) {
        status = bsattn_cuda_event_create(&half->arrived);
    }
    if (status == BSATTN_OK) {
        status = bsattn_outgoing_init(&half->outgoing, &exchange->params);
    }
    if (status != BSATTN_OK) {
        bsattn_loop_cuda_release(half);
        return status;
    }
    exchange->device_bytes = half->outgoing.device_bytes;
    exchange->operations = bsattn_outgoing_operations(&half->outgoing);
    *half_p = half;
    return BSATTN_OK;
}

void bsattn_loop_cuda_release(bsattn_loop_cuda_t *half)
{
    if (half == NULL) {
        return;
    }
    bsattn_cuda_event_destroy(&half->ready);
    bsattn_cuda_event_destroy(&half->arrived);
    bsattn_outgoing_free(&half->outgoing);
    free(half);
}

bsattn_status_t bsattn_loop_cuda_start(bsattn_loop_cuda_t *half)
{
    half->moved = false;
    BSATTN_TRY(bsattn_cuda_queue_exchange_after_compute(half->queue));
    return bsattn_cuda_event_record(half->ready, half->queue->exchange);
}

bsattn_status_t bsattn_loop_cuda_move(const bsattn_loop_cuda_t *from, bsattn_loop_cuda_t *to)
{
    cudaStream_t stream = to->queue->exchange;

    if (to->moved) {
        return BSATTN_OK;
    }
    BSATTN_ASSERT(from->outgoing.bytes == (size_t)to->receive.rows * from->outgoing.row_bytes);
    to->moved = true;
    BSATTN_TRY(bsattn_cuda_event_await(stream, from->ready));
    BSATTN_TRY(bsattn_outgoing_write(&from->outgoing, to->receive.base, stream));
    return bsattn_cuda_event_record(to->arrived, stream);
}

bsattn_status_t bsattn_loop_cuda_wait(bsattn_loop_cuda_t *half, const bsattn_loop_cuda_t *reader)
{
    if (reader != NULL) {
        BSATTN_TRY(bsattn_cuda_event_await(half->queue->exchange, reader->arrived));
    }
    return bsattn_cuda_queue_compute_after_exchange(half->queue);
}
