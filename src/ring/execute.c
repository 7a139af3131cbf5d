/* SPDX-License-Identifier: Apache-2.0 */
/* The double-buffered step loop: while the kernel works on one chunk, the next one is on its way
 * into the other buffer. On a GPU the loop only enqueues, and what follows it waits. */
#include "base/clock.h"
#include "base/partial.h"
#include "base/text.h"
#include "ring/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* How long to look without pause for an execution to be done, and the pauses after that. */
static const double spin_ms = 0.2;
static const long pause_us = 30;

static const bsattn_backend_ops_t *backend_of(const bsattn_local_t *local)
{
    return local->plan->context->backend->ops;
}

static const bsattn_transport_ops_t *transport_of(const bsattn_local_t *local)
{
    return local->plan->context->transport->ops;
}

/* ------------------------------------------------------------------------------------- one step */

static bsattn_status_t start_exchange(bsattn_local_t *local, int step)
{
    bsattn_exchange_t *exchange = local->exchanges[step];
    bsattn_status_t status;

    if (exchange == NULL) {
        return BSATTN_OK;
    }
    local->exchange_start_ms = bsattn_clock_ms();
    local->exchange_seen_done = false;
    backend_of(local)->mark(BSATTN_MARK_EXCHANGE);
    status = backend_of(local)->exchange_begin(local->work, step);
    if (status == BSATTN_OK) {
        status = transport_of(local)->start(exchange);
    }
    backend_of(local)->unmark();
    return status;
}

static void note_exchange_done(bsattn_local_t *local)
{
    if (!local->exchange_seen_done) {
        local->exchange_seen_done = true;
        local->timings.exchange_ms += bsattn_clock_ms() - local->exchange_start_ms;
    }
}

/* What a rank does between slices of an attend. */
typedef struct meanwhile {
    bsattn_local_t *local;
    bsattn_exchange_t *exchange;
} meanwhile_t;

static bsattn_status_t test_exchange(void *arg)
{
    meanwhile_t *meanwhile = arg;
    bool done = false;

    if (!meanwhile->local->exchange_seen_done) {
        BSATTN_TRY(transport_of(meanwhile->local)->test(meanwhile->exchange, &done));
    }
    if (done) {
        note_exchange_done(meanwhile->local);
    }
    return BSATTN_OK;
}

static bsattn_status_t attend_step(bsattn_local_t *local, int step)
{
    meanwhile_t meanwhile = {.local = local, .exchange = local->exchanges[step]};
    bsattn_between_t between = {.call = test_exchange, .arg = &meanwhile};
    double start_ms = bsattn_clock_ms();
    bsattn_status_t status;

    backend_of(local)->mark(BSATTN_MARK_ATTEND);
    status = backend_of(local)->attend(local->work, step,
                                       (meanwhile.exchange != NULL) ? &between : NULL);
    backend_of(local)->unmark();
    local->timings.attend_ms += bsattn_clock_ms() - start_ms;
    return status;
}

static bsattn_status_t wait_exchange(bsattn_local_t *local, int step)
{
    bsattn_exchange_t *exchange = local->exchanges[step];
    double start_ms = bsattn_clock_ms();
    bsattn_status_t status;

    if (exchange == NULL) {
        return BSATTN_OK;
    }
    backend_of(local)->mark(BSATTN_MARK_WAIT);
    status = transport_of(local)->wait(exchange);
    if (status == BSATTN_OK) {
        status = backend_of(local)->exchange_end(local->work, step);
    }
    backend_of(local)->unmark();
    local->timings.exposed_ms += bsattn_clock_ms() - start_ms;
    note_exchange_done(local);
    return status;
}

/* All local ranks do one phase of a step before any does the next: with loop they depend on one
 * another. */
static bsattn_status_t run_step(bsattn_local_t *locals, int local_count, int step)
{
    for (int i = 0; i < local_count; ++i) {
        BSATTN_TRY(start_exchange(&locals[i], step));
    }
    for (int i = 0; i < local_count; ++i) {
        BSATTN_TRY(attend_step(&locals[i], step));
    }
    for (int i = 0; i < local_count; ++i) {
        BSATTN_TRY(wait_exchange(&locals[i], step));
    }
    return BSATTN_OK;
}

/* ----------------------------------------------------------------------------------- the device */

/* Waiting for a device: only what it waits for itself counts against the time allowed, its own work
 * may take as long as it takes. */
typedef struct watch {
    bsattn_progress_t last;
    bsattn_wait_clock_t wait; /* for the next mark */
} watch_t;

/* A step begins on the GPU when the exchange of the step before is done. */
static void describe_wait(const bsattn_local_t *local, int step, bsattn_strbuf_t *buf)
{
    const bsattn_exchange_t *exchange = (step > 0) ? local->exchanges[step - 1] : NULL;

    bsattn_strbuf_add(buf, "for its GPU at step %d of %d", step, local->schedule.step_count);
    if ((exchange != NULL) && (exchange->params.receive.rows > 0)) {
        bsattn_strbuf_add(buf, ", for rank %d to send", exchange->params.from);
    }
    if ((exchange != NULL) && (exchange->params.send.run_count > 0)) {
        bsattn_strbuf_add(buf, ", for rank %d to receive", exchange->params.to);
    }
}

/* Others may need as long for an attend as this rank, or longer by as much as the plan is uneven. */
static void look_after(bsattn_local_t *local, const bsattn_progress_t *progress, watch_t *watch)
{
    const bsattn_context_t *context = local->plan->context;
    double waited_ms = bsattn_wait_clock_ms(&watch->wait);
    double allowed_ms = 4.0 * local->busy_ms * context->transport->unevenness;
    char what[128];
    bsattn_strbuf_t buf;

    if (progress->marks != watch->last.marks) {
        if (!watch->last.waiting && (waited_ms > local->busy_ms)) {
            local->busy_ms = waited_ms;
        }
        watch->last = *progress;
        bsattn_wait_clock_start(&watch->wait);
        return;
    }
    allowed_ms = fmax(allowed_ms, 1e3 * context->timeout_s);
    if ((context->timeout_s <= 0.0) || !progress->waiting || (waited_ms <= allowed_ms)) {
        return;
    }
    bsattn_strbuf_init(&buf, what, sizeof(what));
    describe_wait(local, progress->step, &buf);
    if (context->transport->ops->stalled != NULL) {
        context->transport->ops->stalled(context->transport, what, waited_ms,
                                         waited_ms - allowed_ms);
        return;
    }
    (void)fprintf(stderr, "bsattn_ring: error: no progress for %.3g s: rank %d waits %s\n",
                  1e-3 * waited_ms, local->schedule.rank, what);
    (void)fflush(NULL);
    bsattn_partial_remove_all();
    _Exit(BSATTN_ERR_TIMEOUT);
}

/* Wait until the device is past a step, or done. */
static bsattn_status_t wait_for_step(bsattn_local_t *local, int step)
{
    bsattn_transport_t *transport = local->plan->context->transport;
    struct timespec pause = {.tv_nsec = pause_us * 1000};
    double start_ms = bsattn_clock_ms();
    bsattn_progress_t progress = {.done = false};
    watch_t watch = {.last = {.waiting = true}};

    bsattn_wait_clock_start(&watch.wait);
    for (;;) {
        BSATTN_TRY(backend_of(local)->poll(local->work, &progress));
        if (progress.done || (progress.step > step)) {
            return BSATTN_OK;
        }
        if (transport->ops->poll != NULL) {
            BSATTN_TRY(transport->ops->poll(transport));
        }
        if (bsattn_clock_ms() - start_ms > spin_ms) {
            look_after(local, &progress, &watch);
            (void)nanosleep(&pause, NULL);
        }
    }
}

/* -------------------------------------------------------------------------------------- execute */

static bsattn_status_t run(bsattn_plan_t *plan, const bsattn_tensors_t *tensors)
{
    const bsattn_backend_ops_t *backend = plan->context->backend->ops;
    int local_count = plan->context->transport->local_count;
    int ahead = plan->steps_ahead;
    bsattn_status_t status = BSATTN_OK;

    for (int i = 0; i < local_count; ++i) {
        plan->locals[i].timings = (bsattn_timings_t){0};
        plan->locals[i].busy_ms = 0.0;
        BSATTN_TRY(backend->begin(plan->locals[i].work, &tensors[i]));
    }
    for (int step = 0; (step < plan->demand.route.step_count) && (status == BSATTN_OK); ++step) {
        backend->mark(BSATTN_MARK_STEP);
        status = run_step(plan->locals, local_count, step);
        backend->unmark();
        for (int i = 0; (step >= ahead) && (i < local_count) && (status == BSATTN_OK); ++i) {
            status = wait_for_step(&plan->locals[i], step - ahead);
        }
    }
    BSATTN_TRY(status);
    for (int i = 0; i < local_count; ++i) {
        BSATTN_TRY(wait_for_step(&plan->locals[i], plan->demand.route.step_count));
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_execute(bsattn_plan_t *plan, const bsattn_tensors_t *tensors)
{
    const bsattn_backend_ops_t *backend = plan->context->backend->ops;
    double start_ms = bsattn_clock_ms();

    BSATTN_TRY(run(plan, tensors));
    for (int i = 0; i < plan->context->transport->local_count; ++i) {
        bsattn_local_t *local = &plan->locals[i];
        if (!backend->timings(local->work, &local->timings)) {
            local->timings.total_ms = bsattn_clock_ms() - start_ms;
        }
    }
    return BSATTN_OK;
}
