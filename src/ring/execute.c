/* SPDX-License-Identifier: Apache-2.0 */
/* The double-buffered step loop: while the kernel works on one chunk, the next one is on its way
 * into the other buffer. */
#include "base/clock.h"
#include "problem/problem.h"
#include "ring/plan.h"

enum { SLICES_MAX = 16, UNITS_PER_THREAD_AND_SLICE = 64 };

static const bsattn_backend_ops_t *backend_of(const bsattn_local_t *local)
{
    return local->plan->context->backend;
}

static const bsattn_transport_ops_t *transport_of(const bsattn_local_t *local)
{
    return local->plan->context->transport->ops;
}

static char *values_of(const bsattn_local_t *local, char *chunk, int64_t tokens_kv)
{
    const bsattn_problem_t *problem = &local->plan->problem;

    return chunk + (size_t)(problem->batch * tokens_kv) * bsattn_problem_row_bytes(problem);
}

static void pack_own_chunk(const bsattn_local_t *local, const bsattn_tensors_t *tensors)
{
    const bsattn_problem_t *problem = &local->plan->problem;
    const bsattn_schedule_t *schedule = &local->schedule;
    const bsattn_step_t *step = &schedule->steps[0];
    bsattn_pack_params_t params = {
        .batch = problem->batch,
        .tokens = local->tokens,
        .heads_kv = problem->heads_kv,
        .row_bytes = bsattn_problem_row_bytes(problem),
        .in = tensors->k,
        .out = local->chunks[0],
        .tokens_kv = step->tokens_kv,
        .heads = step->heads,
        .runs = schedule->own,
        .runs_first = schedule->own_first,
        .class_of_head = schedule->kv_class_of_head,
        .threads = local->plan->context->threads,
    };

    backend_of(local)->pack(&params);
    params.in = tensors->v;
    params.out = values_of(local, local->chunks[0], step->tokens_kv);
    backend_of(local)->pack(&params);
}

static void clear_empty_rows(const bsattn_local_t *local)
{
    const bsattn_schedule_t *schedule = &local->schedule;

    for (int head = 0; head < local->plan->problem.heads_q; ++head) {
        const bsattn_empty_rows_t *empty = &schedule->empty[schedule->list_of_head[head]];
        bsattn_clear_params_t params = {
            .attend = &local->attend,
            .head = head,
            .rows = empty->rows,
            .row_count = empty->count,
        };
        backend_of(local)->clear(&params);
    }
}

static void local_begin(bsattn_local_t *local, const bsattn_tensors_t *tensors)
{
    const bsattn_problem_t *problem = &local->plan->problem;

    local->attend = (bsattn_attend_params_t){
        .batch = problem->batch,
        .heads_q = problem->heads_q,
        .heads_kv = problem->heads_kv,
        .head_dim = problem->head_dim,
        .block = problem->block,
        .dtype = problem->dtype,
        .scale = (float)bsattn_problem_scale(problem),
        .tokens = local->tokens,
        .q = tensors->q,
        .o = tensors->o,
        .lse = tensors->lse,
        .list_of_head = local->schedule.list_of_head,
        .list_count = local->schedule.list_count,
        .state = local->state,
        .scratch = local->scratch,
        .threads = local->plan->context->threads,
    };
    local->timings = (bsattn_timings_t){0};
    pack_own_chunk(local, tensors);
    clear_empty_rows(local);
}

static bsattn_status_t start_exchange(bsattn_local_t *local, int step)
{
    bsattn_exchange_t *exchange = local->exchanges[step];

    if (exchange == NULL) {
        return BSATTN_OK;
    }
    local->exchange_start_ms = bsattn_clock_ms();
    local->exchange_seen_done = false;
    return transport_of(local)->start(exchange);
}

static void note_exchange_done(bsattn_local_t *local)
{
    if (!local->exchange_seen_done) {
        local->exchange_seen_done = true;
        local->timings.exchange_ms += bsattn_clock_ms() - local->exchange_start_ms;
    }
}

/* Messages move only while MPI is called, so a step with an exchange under way is cut in slices. */
static int64_t slice_items(const bsattn_local_t *local, const bsattn_step_t *step, bool exchanging)
{
    const bsattn_problem_t *problem = &local->plan->problem;
    int64_t units = step->item_count_max * problem->batch * problem->heads_q;
    int64_t slices = units / (UNITS_PER_THREAD_AND_SLICE * (int64_t)local->attend.threads);

    slices = !exchanging ? 1 : (slices > SLICES_MAX) ? SLICES_MAX : (slices < 1) ? 1 : slices;
    return (step->item_count_max + slices - 1) / slices;
}

static bsattn_status_t attend_step(bsattn_local_t *local, int step_index)
{
    const bsattn_step_t *step = &local->schedule.steps[step_index];
    bsattn_exchange_t *exchange = local->exchanges[step_index];
    char *chunk = local->chunks[step_index % 2];
    double start_ms = bsattn_clock_ms();
    int64_t slice = slice_items(local, step, exchange != NULL);

    local->attend.k = chunk;
    local->attend.v = values_of(local, chunk, step->tokens_kv);
    local->attend.tokens_kv = step->tokens_kv;
    local->attend.heads = step->heads;
    local->attend.lists = step->lists;
    for (int64_t item = 0; item < step->item_count_max; item += slice) {
        backend_of(local)->attend(&local->attend, item, item + slice);
        if ((exchange != NULL) && !local->exchange_seen_done) {
            bool done = false;
            BSATTN_TRY(transport_of(local)->test(exchange, &done));
            if (done) {
                note_exchange_done(local);
            }
        }
    }
    local->timings.attend_ms += bsattn_clock_ms() - start_ms;
    return BSATTN_OK;
}

static bsattn_status_t wait_exchange(bsattn_local_t *local, int step)
{
    bsattn_exchange_t *exchange = local->exchanges[step];
    double start_ms = bsattn_clock_ms();

    if (exchange == NULL) {
        return BSATTN_OK;
    }
    BSATTN_TRY(transport_of(local)->wait(exchange));
    local->timings.exposed_ms += bsattn_clock_ms() - start_ms;
    note_exchange_done(local);
    return BSATTN_OK;
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

bsattn_status_t bsattn_execute(bsattn_plan_t *plan, const bsattn_tensors_t *tensors)
{
    int local_count = plan->context->transport->local_count;
    double start_ms = bsattn_clock_ms();

    for (int i = 0; i < local_count; ++i) {
        local_begin(&plan->locals[i], &tensors[i]);
    }
    for (int step = 0; step < plan->demand.steps; ++step) {
        BSATTN_TRY(run_step(plan->locals, local_count, step));
    }
    for (int i = 0; i < local_count; ++i) {
        plan->locals[i].timings.total_ms = bsattn_clock_ms() - start_ms;
    }
    return BSATTN_OK;
}
