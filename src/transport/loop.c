/* SPDX-License-Identifier: Apache-2.0 */
/* All ranks live in this process and are driven in turn, so nothing is ever in flight: waiting for
 * an exchange copies the rows straight from the sender's buffer, which its owner leaves alone until
 * every local rank has waited. On a GPU the first wait that an exchange matters to enqueues the
 * same (loop_cuda.h). */
#include "transport/transport.h"

#include <stdlib.h>
#include <string.h>

#ifdef BSATTN_HAVE_CUDA
#include "transport/loop_cuda.h"
#endif

typedef struct loop_transport {
    bsattn_transport_t super;
    bsattn_exchange_t **started; /* [P]: what each rank started last */
} loop_transport_t;

typedef struct loop_exchange {
    bsattn_exchange_t super;
#ifdef BSATTN_HAVE_CUDA
    bsattn_loop_cuda_t *cuda; /* if the rank has a queue, else NULL */
#endif
} loop_exchange_t;

static void loop_destroy(bsattn_transport_t *transport)
{
    loop_transport_t *loop = (loop_transport_t *)transport;

    free(loop->super.outcomes);
    free(loop->started);
    free(loop);
}

static void loop_release(bsattn_exchange_t *exchange)
{
#ifdef BSATTN_HAVE_CUDA
    bsattn_loop_cuda_release(((loop_exchange_t *)exchange)->cuda);
#endif
    free(exchange);
}

static bsattn_status_t loop_prepare(bsattn_transport_t *transport,
                                    const bsattn_exchange_params_t *params,
                                    bsattn_exchange_t **exchange_p)
{
    loop_exchange_t *x = calloc(1, sizeof(*x));

    if (x == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to prepare an exchange");
    }
    x->super.transport = transport;
    x->super.params = *params;
#ifdef BSATTN_HAVE_CUDA
    if (params->queue != NULL) {
        bsattn_status_t status = bsattn_loop_cuda_prepare(&x->super, &x->cuda);
        if (status != BSATTN_OK) {
            loop_release(&x->super);
            return status;
        }
    }
#else
    BSATTN_ASSERT(params->queue == NULL);
#endif
    *exchange_p = &x->super;
    return BSATTN_OK;
}

static bsattn_status_t loop_start(bsattn_exchange_t *exchange)
{
    loop_transport_t *loop = (loop_transport_t *)exchange->transport;

    loop->started[exchange->params.local] = exchange;
#ifdef BSATTN_HAVE_CUDA
    if (exchange->params.queue != NULL) {
        return bsattn_loop_cuda_start(((loop_exchange_t *)exchange)->cuda);
    }
#endif
    return BSATTN_OK;
}

static bsattn_status_t loop_test(bsattn_exchange_t *exchange, bool *done_p)
{
    (void)exchange;
    *done_p = false;
    return BSATTN_OK;
}

/* The other side of an exchange, from the rank that receives or from the one that sends. */
static bsattn_exchange_t *sender_of(const bsattn_exchange_t *exchange)
{
    const loop_transport_t *loop = (const loop_transport_t *)exchange->transport;
    const bsattn_exchange_params_t *to = &exchange->params;
    bsattn_exchange_t *sender = loop->started[to->from];

    BSATTN_ASSERT((sender != NULL) && (sender->params.step == to->step) &&
                  (sender->params.to == to->local));
    return sender;
}

#ifdef BSATTN_HAVE_CUDA
static bsattn_exchange_t *receiver_of(const bsattn_exchange_t *exchange)
{
    const loop_transport_t *loop = (const loop_transport_t *)exchange->transport;
    const bsattn_exchange_params_t *from = &exchange->params;
    bsattn_exchange_t *receiver = loop->started[from->to];

    BSATTN_ASSERT((receiver != NULL) && (receiver->params.step == from->step) &&
                  (receiver->params.from == from->local));
    return receiver;
}

/* Whoever waits first has the rows moved that it gives and that it gets: its buffers are its own
 * only after both. */
static bsattn_status_t wait_cuda(bsattn_exchange_t *exchange)
{
    loop_exchange_t *x = (loop_exchange_t *)exchange;
    loop_exchange_t *receiver = NULL;

    if (exchange->params.receive.rows > 0) {
        BSATTN_TRY(bsattn_loop_cuda_move(((loop_exchange_t *)sender_of(exchange))->cuda, x->cuda));
    }
    if (exchange->params.send.run_count > 0) {
        receiver = (loop_exchange_t *)receiver_of(exchange);
        BSATTN_TRY(bsattn_loop_cuda_move(x->cuda, receiver->cuda));
    }
    return bsattn_loop_cuda_wait(x->cuda, (receiver != NULL) ? receiver->cuda : NULL);
}
#endif

static bsattn_status_t loop_wait(bsattn_exchange_t *exchange)
{
    const bsattn_exchange_params_t *to = &exchange->params;
    const bsattn_exchange_params_t *from;
    size_t row_bytes = to->row_bytes;
    char *out = to->receive.base;
    int64_t rows = 0;

#ifdef BSATTN_HAVE_CUDA
    if (to->queue != NULL) {
        return wait_cuda(exchange);
    }
#endif
    if (to->receive.rows == 0) {
        return BSATTN_OK;
    }
    from = &sender_of(exchange)->params;
    for (int64_t part = 0; part < from->send.part_count; ++part) {
        const char *base =
            (const char *)from->send.base + (size_t)(part * from->send.part_rows) * row_bytes;
        for (size_t r = 0; r < from->send.run_count; ++r) {
            const bsattn_token_run_t *run = &from->send.runs[r];
            BSATTN_ASSERT(rows + run->count <= to->receive.rows);
            memcpy(out + (size_t)rows * row_bytes, base + (size_t)run->first * row_bytes,
                   (size_t)run->count * row_bytes);
            rows += run->count;
        }
    }
    BSATTN_ASSERT(rows == to->receive.rows);
    return BSATTN_OK;
}

static bsattn_status_t loop_gather(bsattn_transport_t *transport, const void *local_items,
                                   size_t item_bytes, void *all_items)
{
    memcpy(all_items, local_items, (size_t)transport->ranks * item_bytes);
    return BSATTN_OK;
}

static bsattn_status_t loop_broadcast(bsattn_transport_t *transport, void *data, size_t bytes,
                                      int root)
{
    (void)transport, (void)data, (void)bytes, (void)root;
    return BSATTN_OK;
}

static const bsattn_transport_ops_t loop_ops = {
    .name = "loop",
    .destroy = loop_destroy,
    .prepare = loop_prepare,
    .release = loop_release,
    .start = loop_start,
    .test = loop_test,
    .wait = loop_wait,
    .gather = loop_gather,
    .broadcast = loop_broadcast,
};

bsattn_status_t bsattn_transport_loop_create(int ranks, bsattn_transport_t **transport_p)
{
    loop_transport_t *loop = calloc(1, sizeof(*loop));

    if (loop == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for %d virtual ranks", ranks);
    }
    loop->super = (bsattn_transport_t){
        .ops = &loop_ops, .ranks = ranks, .local_count = ranks, .unevenness = 1.0};
    loop->super.outcomes = calloc(2 * (size_t)ranks, sizeof(*loop->super.outcomes));
    loop->started = calloc((size_t)ranks, sizeof(*loop->started));
    if ((loop->super.outcomes == NULL) || (loop->started == NULL)) {
        loop_destroy(&loop->super);
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for %d virtual ranks", ranks);
    }
    *transport_p = &loop->super;
    return BSATTN_OK;
}
