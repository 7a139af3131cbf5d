/* SPDX-License-Identifier: Apache-2.0 */
#include "ring/plan.h"

#include "base/array.h"
#include "base/host.h"
#include "base/text.h"
#include "problem/problem.h"

#include <stdlib.h>
#include <string.h>

/* Masks depend on shapes and causality, not on type and scale. */
static bsattn_status_t check_same_problem(const bsattn_problem_t *a, const bsattn_problem_t *b)
{
    if ((a->batch != b->batch) || (a->seq_len != b->seq_len) || (a->heads_q != b->heads_q) ||
        (a->heads_kv != b->heads_kv) || (a->head_dim != b->head_dim) || (a->block != b->block) ||
        (!a->causal != !b->causal)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "the pattern was made for another problem");
    }
    return BSATTN_OK;
}

/* ------------------------------------------------------------------------------------- estimate */

bsattn_status_t bsattn_estimate_create(const bsattn_problem_t *problem, bsattn_pattern_t *pattern,
                                       int ranks, int threads, const bsattn_plan_params_t *params,
                                       bsattn_estimate_t **estimate_p)
{
    const bsattn_backend_ops_t *backend;
    bsattn_machine_t machine;
    bsattn_demand_t demand;

    BSATTN_TRY(bsattn_problem_check(problem));
    BSATTN_TRY(check_same_problem(problem, &pattern->problem));
    if (threads < 1) {
        return bsattn_fail(BSATTN_ERR_INPUT, "threads %d: must be 1 or more", threads);
    }
    BSATTN_TRY(bsattn_backend_find(NULL, &backend));
    machine = backend->machine(threads);
    BSATTN_TRY(bsattn_estimate_choose(pattern, ranks, params, &machine, &demand, estimate_p));
    bsattn_demand_free(&demand);
    return BSATTN_OK;
}

/* --------------------------------------------------------------------------------- a local rank */

static void local_free(const bsattn_context_t *context, bsattn_local_t *local)
{
    const bsattn_transport_ops_t *transport = context->transport->ops;

    for (int s = 0; (local->exchanges != NULL) && (s < local->schedule.step_count); ++s) {
        if (local->exchanges[s] != NULL) {
            transport->release(local->exchanges[s]);
        }
    }
    free(local->exchanges);
    context->backend->free(local->chunks[0]);
    context->backend->free(local->chunks[1]);
    context->backend->free(local->state);
    context->backend->free(local->scratch);
    free(local->runs);
    bsattn_schedule_free(&local->schedule);
}

static bsattn_status_t local_runs(const bsattn_plan_t *plan, int rank, bsattn_local_t *local)
{
    const bsattn_layout_t *layout = &plan->demand.layout;
    int64_t slots = bsattn_layout_count(layout, rank);
    size_t capacity = 0;

    for (int64_t s = 0; s < slots;) {
        int64_t block = bsattn_layout_block(layout, rank, s);
        int64_t end = bsattn_layout_run_end(layout, block);

        BSATTN_TRY(bsattn_array_reserve(&local->runs, &capacity, local->run_count + 1,
                                        sizeof(*local->runs)));
        local->runs[local->run_count++] = (bsattn_token_run_t){
            .first = block * plan->problem.block,
            .count = bsattn_problem_span_tokens(&plan->problem, block, end),
        };
        local->tokens += local->runs[local->run_count - 1].count;
        s += end - block;
    }
    return BSATTN_OK;
}

static int64_t chunk_rows(const bsattn_plan_t *plan, int64_t tokens_kv)
{
    return 2 * plan->problem.batch * tokens_kv;
}

/* Allocate one buffer of a rank and count it. */
static bsattn_status_t local_alloc(const bsattn_plan_t *plan, bsattn_local_t *local, int64_t bytes,
                                   void *memory_p)
{
    void *memory = plan->context->backend->alloc((size_t)bytes);
    char need_text[32];
    char have_text[32];

    if (memory == NULL) {
        return bsattn_fail(
            BSATTN_ERR_MEMORY, "out of memory: %s were refused on %s, %s seemed available",
            bsattn_text_bytes(need_text, sizeof(need_text), (double)bytes),
            plan->context->backend->name,
            bsattn_text_bytes(have_text, sizeof(have_text), (double)bsattn_host_memory_available()));
    }
    *(void **)memory_p = memory;
    local->bytes += bytes;
    return BSATTN_OK;
}

static bsattn_status_t local_buffers(const bsattn_plan_t *plan, bsattn_local_t *local)
{
    const bsattn_problem_t *problem = &plan->problem;
    bsattn_machine_t machine = plan->context->backend->machine(plan->context->threads);
    int64_t largest[2] = {0, 0};

    for (int s = 0; s < local->schedule.step_count; ++s) {
        int64_t bytes = chunk_rows(plan, local->schedule.steps[s].tokens_kv) *
                        (int64_t)bsattn_problem_row_bytes(problem);
        largest[s % 2] = (bytes > largest[s % 2]) ? bytes : largest[s % 2];
    }
    BSATTN_TRY(local_alloc(plan, local, largest[0], &local->chunks[0]));
    BSATTN_TRY(local_alloc(plan, local, largest[1], &local->chunks[1]));
    if (local->schedule.needs_state) {
        BSATTN_TRY(local_alloc(plan, local,
                               (int64_t)machine.state_bytes(problem->batch, problem->heads_q,
                                                            local->tokens, problem->head_dim,
                                                            problem->block),
                               &local->state));
    }
    return local_alloc(plan, local,
                       machine.threads *
                           (int64_t)machine.scratch_bytes(problem->head_dim, problem->block),
                       &local->scratch);
}

static bsattn_status_t local_exchanges(const bsattn_plan_t *plan, int index, bsattn_local_t *local)
{
    bsattn_transport_t *transport = plan->context->transport;
    bsattn_schedule_t *schedule = &local->schedule;
    int rank = schedule->rank;

    local->exchanges = calloc((size_t)schedule->step_count, sizeof(*local->exchanges));
    if (local->exchanges == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the exchanges of a rank");
    }
    for (int s = 0; s + 1 < schedule->step_count; ++s) {
        const bsattn_step_t *now = &schedule->steps[s];
        const bsattn_step_t *next = &schedule->steps[s + 1];
        bsattn_exchange_params_t params = {
            .local = index,
            .step = s,
            .origin = next->origin,
            .row_bytes = bsattn_problem_row_bytes(&plan->problem),
            .to = (rank + 1) % transport->ranks,
            .send = {.base = local->chunks[s % 2],
                     .part_count = 2 * plan->problem.batch,
                     .part_rows = now->tokens_kv,
                     .runs = now->forward,
                     .run_count = now->forward_count},
            .from = (rank + transport->ranks - 1) % transport->ranks,
            .receive = {.base = local->chunks[(s + 1) % 2],
                        .rows = chunk_rows(plan, next->tokens_kv)},
        };
        if ((now->forward_count > 0) || (next->tokens_kv > 0)) {
            BSATTN_TRY(transport->ops->prepare(transport, &params, &local->exchanges[s]));
        }
    }
    return BSATTN_OK;
}

static bsattn_status_t local_init(bsattn_plan_t *plan, int index)
{
    bsattn_local_t *local = &plan->locals[index];
    int rank = plan->context->transport->first_rank + index;

    local->plan = plan;
    BSATTN_TRY(local_runs(plan, rank, local));
    BSATTN_TRY(bsattn_schedule_init(&local->schedule, &plan->demand, rank));
    local->bytes = local->schedule.bytes;
    BSATTN_TRY(local_buffers(plan, local));
    return local_exchanges(plan, index, local);
}

/* ------------------------------------------------------------------------------------- the plan */

/* Refuse what the ranks of this host cannot hold together, before anything large is allocated. */
static bsattn_status_t check_host_memory(int ranks, double needed, const char *of_what)
{
    double available = (double)bsattn_host_memory_available();
    char name[64];
    char need_text[32];
    char have_text[32];

    if (needed <= available) {
        return BSATTN_OK;
    }
    bsattn_host_name(name, sizeof(name));
    return bsattn_fail(BSATTN_ERR_MEMORY,
                       "out of memory: %d rank%s on host %s would need %s%s, %s is available; take "
                       "a shorter sequence, fewer heads, a 16-bit dtype or more hosts",
                       ranks, (ranks == 1) ? "" : "s", name,
                       bsattn_text_bytes(need_text, sizeof(need_text), needed), of_what,
                       bsattn_text_bytes(have_text, sizeof(have_text), available));
}

static int ranks_on_this_host(const bsattn_context_t *context)
{
    int host = context->host_of_rank[context->transport->first_rank];
    int ranks = 0;

    for (int rank = 0; rank < context->transport->ranks; ++rank) {
        ranks += (context->host_of_rank[rank] == host) ? 1 : 0;
    }
    return ranks;
}

/* The tensors alone, known without a plan: hopeless lengths are refused at once. */
static bsattn_status_t check_tensor_memory(const bsattn_plan_t *plan)
{
    const bsattn_problem_t *problem = &plan->problem;
    int ranks = ranks_on_this_host(plan->context);
    double heads = 2.0 * ((double)problem->heads_q + problem->heads_kv);
    double bytes = (double)problem->batch * (double)problem->seq_len * heads *
                   (double)bsattn_problem_row_bytes(problem);

    return check_host_memory(ranks, bytes * ranks / plan->context->transport->ranks,
                             " for Q, K, V and O alone");
}

static bsattn_status_t check_memory(const bsattn_plan_t *plan)
{
    const bsattn_context_t *context = plan->context;
    int host = context->host_of_rank[context->transport->first_rank];
    double needed = 0.0;

    for (int rank = 0; rank < context->transport->ranks; ++rank) {
        if (context->host_of_rank[rank] == host) {
            needed += (double)bsattn_estimate_rank(plan->estimate, rank)->memory.total;
        }
    }
    return check_host_memory(ranks_on_this_host(context), needed, "");
}

static bsattn_status_t plan_predict(bsattn_plan_t *plan, const bsattn_plan_params_t *params)
{
    bsattn_machine_t machine = plan->context->backend->machine(plan->context->threads);

    BSATTN_TRY(bsattn_problem_check(&plan->problem));
    BSATTN_TRY(check_same_problem(&plan->problem, &plan->pattern->problem));
    BSATTN_TRY(check_tensor_memory(plan));
    BSATTN_TRY(bsattn_estimate_choose(plan->pattern, plan->context->transport->ranks, params,
                                      &machine, &plan->demand, &plan->estimate));
    return check_memory(plan);
}

static bsattn_status_t plan_build(bsattn_plan_t *plan)
{
    for (int i = 0; i < plan->context->transport->local_count; ++i) {
        BSATTN_TRY(local_init(plan, i));
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_plan_create(bsattn_context_t *context, const bsattn_problem_t *problem,
                                   bsattn_pattern_t *pattern, const bsattn_plan_params_t *params,
                                   bsattn_plan_t **plan_p)
{
    bsattn_plan_t *plan = calloc(1, sizeof(*plan));
    bsattn_status_t status = BSATTN_OK;

    if (plan != NULL) {
        plan->locals = calloc((size_t)context->transport->local_count, sizeof(*plan->locals));
    }
    if ((plan == NULL) || (plan->locals == NULL)) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no memory for a plan");
    } else {
        plan->context = context;
        plan->problem = *problem;
        plan->pattern = pattern;
        status = plan_predict(plan, params);
    }
    status = bsattn_context_agree(context, status);
    if (status == BSATTN_OK) {
        status = bsattn_context_agree(context, plan_build(plan));
    }
    if (status != BSATTN_OK) {
        bsattn_plan_destroy(plan);
        return status;
    }
    *plan_p = plan;
    return BSATTN_OK;
}

void bsattn_plan_destroy(bsattn_plan_t *plan)
{
    if (plan == NULL) {
        return;
    }
    for (int i = 0; (plan->locals != NULL) && (i < plan->context->transport->local_count); ++i) {
        local_free(plan->context, &plan->locals[i]);
    }
    free(plan->locals);
    bsattn_estimate_destroy(plan->estimate);
    bsattn_demand_free(&plan->demand);
    free(plan);
}

int64_t bsattn_plan_tokens(const bsattn_plan_t *plan, int local)
{
    return plan->locals[local].tokens;
}

const bsattn_token_run_t *bsattn_plan_runs(const bsattn_plan_t *plan, int local, size_t *count_p)
{
    *count_p = plan->locals[local].run_count;
    return plan->locals[local].runs;
}

const bsattn_estimate_t *bsattn_plan_estimate(const bsattn_plan_t *plan)
{
    return plan->estimate;
}

int64_t bsattn_plan_allocated(const bsattn_plan_t *plan, int local)
{
    return plan->locals[local].bytes;
}

bsattn_timings_t bsattn_plan_timings(const bsattn_plan_t *plan, int local)
{
    return plan->locals[local].timings;
}
