/* SPDX-License-Identifier: Apache-2.0 */
/* All ranks live in this process and are driven in turn, so nothing is ever in flight: waiting for
 * an exchange copies the rows straight from the sender's buffer, which its owner leaves alone until
 * every local rank has waited. */
#include "transport/transport.h"

#include <stdlib.h>
#include <string.h>

typedef struct loop_transport {
    bsattn_transport_t super;
    bsattn_exchange_t **started; /* [P]: what each rank started last */
} loop_transport_t;

static void loop_destroy(bsattn_transport_t *transport)
{
    loop_transport_t *loop = (loop_transport_t *)transport;

    free(loop->super.outcomes);
    free(loop->started);
    free(loop);
}

static bsattn_status_t loop_prepare(bsattn_transport_t *transport,
                                    const bsattn_exchange_params_t *params,
                                    bsattn_exchange_t **exchange_p)
{
    bsattn_exchange_t *exchange = malloc(sizeof(*exchange));

    if (exchange == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to prepare an exchange");
    }
    *exchange = (bsattn_exchange_t){.transport = transport, .params = *params};
    *exchange_p = exchange;
    return BSATTN_OK;
}

static void loop_release(bsattn_exchange_t *exchange)
{
    free(exchange);
}

static bsattn_status_t loop_start(bsattn_exchange_t *exchange)
{
    loop_transport_t *loop = (loop_transport_t *)exchange->transport;

    loop->started[exchange->params.local] = exchange;
    return BSATTN_OK;
}

static bsattn_status_t loop_test(bsattn_exchange_t *exchange, bool *done_p)
{
    (void)exchange;
    *done_p = false;
    return BSATTN_OK;
}

static bsattn_status_t loop_wait(bsattn_exchange_t *exchange)
{
    loop_transport_t *loop = (loop_transport_t *)exchange->transport;
    const bsattn_exchange_params_t *to = &exchange->params;
    const bsattn_exchange_params_t *from;
    size_t row_bytes = to->row_bytes;
    char *out = to->receive.base;
    int64_t rows = 0;

    if (to->receive.rows == 0) {
        return BSATTN_OK;
    }
    BSATTN_ASSERT(loop->started[to->from] != NULL);
    from = &loop->started[to->from]->params;
    BSATTN_ASSERT((from->step == to->step) && (from->to == to->local));
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
    loop->super = (bsattn_transport_t){.ops = &loop_ops, .ranks = ranks, .local_count = ranks};
    loop->super.outcomes = calloc(2 * (size_t)ranks, sizeof(*loop->super.outcomes));
    loop->started = calloc((size_t)ranks, sizeof(*loop->started));
    if ((loop->super.outcomes == NULL) || (loop->started == NULL)) {
        loop_destroy(&loop->super);
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for %d virtual ranks", ranks);
    }
    *transport_p = &loop->super;
    return BSATTN_OK;
}
