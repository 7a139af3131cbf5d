/* SPDX-License-Identifier: Apache-2.0 */
#include "ring/plan.h"

#include "base/array.h"
#include "base/host.h"
#include "base/text.h"
#include "problem/problem.h"

#include <math.h>
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
    bsattn_backend_choice_t choice;
    bsattn_machine_t machine;
    bsattn_demand_t demand;

    BSATTN_TRY(bsattn_problem_check(problem));
    BSATTN_TRY(check_same_problem(problem, &pattern->problem));
    BSATTN_TRY(bsattn_host_check_threads(threads));
    BSATTN_TRY(bsattn_backend_choose_planned((params != NULL) ? params->backend : NULL, &choice));
    machine = bsattn_backend_machine(&choice, threads);
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
    if (local->work != NULL) {
        context->backend->ops->release(local->work);
    }
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

static bsattn_exchange_params_t exchange_params(const bsattn_plan_t *plan, int index,
                                                const bsattn_local_t *local, int step)
{
    const bsattn_step_t *now = &local->schedule.steps[step];
    bsattn_movement_t movement;

    plan->context->backend->ops->movement(local->work, step, &movement);
    return (bsattn_exchange_params_t){
        .local = index,
        .step = step,
        .origin = local->schedule.steps[step + 1].origin,
        .row_bytes = bsattn_problem_row_bytes(&plan->problem),
        .to = now->to,
        .send = {.base = movement.send,
                 .part_count = movement.send_parts,
                 .part_rows = movement.send_part_rows,
                 .runs = movement.send_runs,
                 .run_count = movement.send_run_count},
        .from = now->from,
        .receive = {.base = movement.receive, .rows = movement.receive_rows},
        .queue = local->work->queue,
    };
}

/* A stream holds so many operations: enqueuing more blocks in a CUDA call, which watches no deadline. */
enum { OPERATIONS_AHEAD = 1024, OPERATIONS_OF_STEP = 16 };

static int steps_ahead(const bsattn_plan_t *plan)
{
    int64_t most = 0;

    for (int i = 0; i < plan->context->transport->local_count; ++i) {
        const bsattn_local_t *local = &plan->locals[i];
        for (int s = 0; s < local->schedule.step_count; ++s) {
            const bsattn_exchange_t *exchange = local->exchanges[s];
            if ((exchange != NULL) && (exchange->operations > most)) {
                most = exchange->operations;
            }
        }
    }
    most = OPERATIONS_AHEAD / (OPERATIONS_OF_STEP + most);
    return (most > 1) ? (int)most : 1;
}

static bsattn_status_t local_exchanges(const bsattn_plan_t *plan, int index, bsattn_local_t *local)
{
    bsattn_transport_t *transport = plan->context->transport;
    const bsattn_schedule_t *schedule = &local->schedule;

    local->exchanges = calloc((size_t)schedule->step_count, sizeof(*local->exchanges));
    if (local->exchanges == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the exchanges of a rank");
    }
    for (int s = 0; s + 1 < schedule->step_count; ++s) {
        bsattn_exchange_params_t params = exchange_params(plan, index, local, s);
        if ((params.send.run_count > 0) || (params.receive.rows > 0)) {
            BSATTN_TRY(transport->ops->prepare(transport, &params, &local->exchanges[s]));
        }
    }
    return BSATTN_OK;
}

static bsattn_status_t local_init(bsattn_plan_t *plan, int index)
{
    bsattn_local_t *local = &plan->locals[index];
    bsattn_backend_t *backend = plan->context->backend;
    int rank = plan->context->transport->first_rank + index;
    bsattn_work_params_t params = {.problem = &plan->problem, .schedule = &local->schedule};

    local->plan = plan;
    BSATTN_TRY(local_runs(plan, rank, local));
    BSATTN_TRY(bsattn_schedule_init(&local->schedule, &plan->demand, rank));
    params.tokens = local->tokens;
    return backend->ops->prepare(backend, &params, &local->work);
}

/* ------------------------------------------------------------------------------------- the plan */

/* What ranks that share a memory need together, and what there is. */
typedef struct account {
    double needed;
    double available;
    int ranks;
    bool on_host; /* else on the GPU of this process */
} account_t;

/* Refuse what cannot be held, before anything large is allocated. */
static bsattn_status_t check_account(const bsattn_context_t *context, const account_t *account,
                                     const char *of_what)
{
    char name[64];
    char need_text[32];
    char have_text[32];
    char place_text[192];
    bsattn_strbuf_t place;

    if (account->needed <= account->available) {
        return BSATTN_OK;
    }
    bsattn_host_name(name, sizeof(name));
    bsattn_strbuf_init(&place, place_text, sizeof(place_text));
    if (!account->on_host) {
        bsattn_strbuf_add(&place, "GPU %s (%s) of ", context->backend->pci, context->backend->name);
    }
    bsattn_strbuf_add(&place, "host %s", name);
    return bsattn_fail(
        BSATTN_ERR_MEMORY,
        "out of memory: %d rank%s on %s would need %s%s, %s is available; take "
        "a shorter sequence, fewer heads, a 16-bit dtype or more %s",
        account->ranks, (account->ranks == 1) ? "" : "s", place_text,
        bsattn_text_bytes(need_text, sizeof(need_text), account->needed), of_what,
        bsattn_text_bytes(have_text, sizeof(have_text), account->available),
        account->on_host ? "hosts" : "GPUs");
}

/* Does this rank draw on the account? */
static bool in_account(const bsattn_context_t *context, int rank, bool on_host)
{
    int first = context->transport->first_rank;

    return on_host ? (context->host_of_rank[rank] == context->host_of_rank[first])
                   : bsattn_context_same_memory(context, rank, first);
}

static account_t open_account(const bsattn_context_t *context, bool on_host)
{
    account_t account = {.on_host = on_host};

    for (int rank = 0; rank < context->transport->ranks; ++rank) {
        account.ranks += in_account(context, rank, on_host) ? 1 : 0;
    }
    account.available = on_host
                            ? (double)bsattn_host_memory_available()
                            : (double)context->backend->ops->memory(context->backend).available;
    return account;
}

/* The tensors alone, known without a plan: hopeless lengths are refused at once. */
static bsattn_status_t check_tensor_memory(const bsattn_plan_t *plan)
{
    const bsattn_problem_t *problem = &plan->problem;
    const bsattn_context_t *context = plan->context;
    double heads = 2.0 * ((double)problem->heads_q + problem->heads_kv);
    double bytes = (double)problem->batch * (double)problem->seq_len * heads *
                   (double)bsattn_problem_row_bytes(problem);
    account_t account = open_account(context, context->backend->in_host_memory);

    account.needed = bytes * account.ranks / context->transport->ranks;
    return check_account(context, &account, " for Q, K, V and O alone");
}

/* @param held  bytes of what was predicted that are held already: by libraries */
static bsattn_status_t check_memory(const bsattn_plan_t *plan, int64_t held)
{
    const bsattn_context_t *context = plan->context;
    bool in_host_memory = context->backend->in_host_memory;
    account_t account = open_account(context, in_host_memory);
    account_t beside = open_account(context, true);

    for (int rank = 0; rank < context->transport->ranks; ++rank) {
        const bsattn_memory_t *memory = &bsattn_estimate_rank(plan->estimate, rank)->memory;
        if (in_account(context, rank, in_host_memory)) {
            account.needed += (double)(memory->total - held);
        }
        if (in_account(context, rank, true)) {
            beside.needed += (double)memory->host;
        }
    }
    BSATTN_TRY(check_account(context, &account, ""));
    return check_account(context, &beside, " for the schedules");
}

/* What a rank computes with, as the estimate wants it. Collective: rates are rank 0's, so that ranks
 * that differ in theirs predict the same times and rarely choose differently. */
static bsattn_status_t find_machine(bsattn_context_t *context, bsattn_machine_t *machine_p)
{
    bsattn_transport_t *transport = context->transport;
    bsattn_machine_t mine = context->backend->ops->machine(context->backend);
    bsattn_machine_t first = mine;

    BSATTN_TRY(transport->ops->broadcast(transport, &first, sizeof(first), 0));
    mine.flops_per_s = first.flops_per_s;
    mine.flops_f32_per_s = first.flops_f32_per_s;
    mine.link_bytes_per_s = first.link_bytes_per_s;
    mine.link_latency_s = first.link_latency_s;
    mine.hides_exchange = first.hides_exchange;
    mine.hop_bytes = (transport->connected != NULL) ? mine.hop_bytes : 0;
    mine.connected = transport->connected;
    /* Ranks of one process read from one another's chunks. */
    mine.stages_sends = mine.stages_sends && (transport->local_count == 1);
    *machine_p = mine;
    return BSATTN_OK;
}

static bsattn_status_t plan_predict(bsattn_plan_t *plan, const bsattn_machine_t *machine,
                                    const bsattn_plan_params_t *params)
{
    BSATTN_TRY(bsattn_problem_check(&plan->problem));
    BSATTN_TRY(check_same_problem(&plan->problem, &plan->pattern->problem));
    BSATTN_TRY(check_tensor_memory(plan));
    return bsattn_estimate_choose(plan->pattern, plan->context->transport->ranks, params, machine,
                                  &plan->demand, &plan->estimate);
}

/* Collective: layout and exchange of rank 0 for all. They may differ where they were chosen, by
 * what a rank's own threads and libraries hold. */
static bsattn_status_t follow_first(bsattn_plan_t *plan, const bsattn_machine_t *machine)
{
    bsattn_transport_t *transport = plan->context->transport;
    bsattn_estimate_totals_t first = *bsattn_estimate_totals(plan->estimate);
    const bsattn_estimate_totals_t *mine = bsattn_estimate_totals(plan->estimate);
    bsattn_plan_params_t params = {.layout = first.layout, .exchange = first.exchange};

    BSATTN_TRY(transport->ops->broadcast(transport, &first, sizeof(first), 0));
    if ((strcmp(first.layout, mine->layout) == 0) &&
        (strcmp(first.exchange, mine->exchange) == 0)) {
        return BSATTN_OK;
    }
    bsattn_estimate_destroy(plan->estimate);
    plan->estimate = NULL;
    bsattn_demand_free(&plan->demand);
    return bsattn_estimate_choose(plan->pattern, transport->ranks, &params, machine, &plan->demand,
                                  &plan->estimate);
}

/* Collective: connect the ranks that will exchange, and count what that takes. */
static bsattn_status_t plan_connect(bsattn_plan_t *plan)
{
    bsattn_context_t *context = plan->context;
    bsattn_transport_t *transport = context->transport;
    const bsattn_route_t *route = &plan->demand.route;
    int64_t libraries;

    if ((transport->ops->connect == NULL) || (route->kind == BSATTN_EXCHANGE_RING)) {
        return BSATTN_OK;
    }
    BSATTN_TRY(transport->ops->connect(transport, route->hops, route->step_count));
    libraries = context->backend->ops->memory(context->backend).libraries;
    bsattn_estimate_set_libraries(plan->estimate, libraries);
    return bsattn_context_agree(context, check_memory(plan, libraries));
}

/* How long another process may need beside this one, by what they have to compute. A process without work
 * is taken to have a little. */
static void expect_others(const bsattn_plan_t *plan)
{
    static const double least_share = 0.01;
    bsattn_transport_t *transport = plan->context->transport;
    double most_ms = 0.0;
    double mine_ms = 0.0;

    for (int rank = 0; rank < transport->ranks; ++rank) {
        double attend_ms = bsattn_estimate_rank(plan->estimate, rank)->time_attend_ms;
        most_ms = fmax(most_ms, attend_ms);
        if ((rank >= transport->first_rank) &&
            (rank < transport->first_rank + transport->local_count)) {
            mine_ms = fmax(mine_ms, attend_ms);
        }
    }
    if (most_ms > 0.0) {
        transport->unevenness =
            fmax(transport->unevenness, most_ms / fmax(mine_ms, least_share * most_ms));
    }
}

static bsattn_status_t build_works(bsattn_plan_t *plan)
{
    for (int i = 0; i < plan->context->transport->local_count; ++i) {
        BSATTN_TRY(local_init(plan, i));
    }
    bsattn_demand_forget_used(&plan->demand); /* the schedules are made */
    return BSATTN_OK;
}

static bsattn_status_t build_exchanges(bsattn_plan_t *plan)
{
    for (int i = 0; i < plan->context->transport->local_count; ++i) {
        BSATTN_TRY(local_exchanges(plan, i, &plan->locals[i]));
    }
    plan->steps_ahead = steps_ahead(plan);
    return BSATTN_OK;
}

/* All of them, whichever fail: neighbours count on each call. @return the first failure */
static bsattn_status_t each_exchange(bsattn_plan_t *plan,
                                     bsattn_status_t (*call)(bsattn_exchange_t *exchange))
{
    bsattn_status_t first = BSATTN_OK;

    for (int i = 0; i < plan->context->transport->local_count; ++i) {
        bsattn_local_t *local = &plan->locals[i];
        for (int s = 0; s < local->schedule.step_count; ++s) {
            if (local->exchanges[s] != NULL) {
                bsattn_status_t status = call(local->exchanges[s]);
                first = (first == BSATTN_OK) ? status : first;
            }
        }
    }
    return first;
}

/* Ranks talk to one another here, so all must have come so far at each point. */
static bsattn_status_t plan_build(bsattn_plan_t *plan)
{
    const bsattn_transport_ops_t *transport = plan->context->transport->ops;
    bsattn_status_t offered;
    bsattn_status_t bound;

    BSATTN_TRY(bsattn_context_agree(plan->context, build_works(plan)));
    BSATTN_TRY(bsattn_context_agree(plan->context, build_exchanges(plan)));
    if (transport->bind == NULL) {
        return BSATTN_OK;
    }
    /* What was offered is taken even if some rank had nothing to offer: no letter is left over. */
    offered = bsattn_context_agree(plan->context, each_exchange(plan, transport->offer));
    bound = each_exchange(plan, transport->bind);
    return (offered != BSATTN_OK) ? offered : bsattn_context_agree(plan->context, bound);
}

bsattn_status_t bsattn_plan_create(bsattn_context_t *context, const bsattn_problem_t *problem,
                                   bsattn_pattern_t *pattern, const bsattn_plan_params_t *params,
                                   bsattn_plan_t **plan_p)
{
    bsattn_plan_t *plan = calloc(1, sizeof(*plan));
    bsattn_machine_t machine;
    bsattn_status_t status = find_machine(context, &machine);

    if (plan != NULL) {
        plan->locals = calloc((size_t)context->transport->local_count, sizeof(*plan->locals));
    }
    if ((plan == NULL) || (plan->locals == NULL)) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no memory for a plan");
    } else {
        plan->context = context;
        plan->problem = *problem;
        plan->pattern = pattern;
        status = (status == BSATTN_OK) ? plan_predict(plan, &machine, params) : status;
    }
    status = bsattn_context_agree(context, status);
    if (status == BSATTN_OK) {
        status = follow_first(plan, &machine);
        status = (status == BSATTN_OK) ? check_memory(plan, machine.libraries_bytes) : status;
        status = bsattn_context_agree(context, status);
    }
    if (status == BSATTN_OK) {
        expect_others(plan);
        status = plan_connect(plan);
    }
    if (status == BSATTN_OK) {
        status = plan_build(plan);
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
    const bsattn_local_t *own = &plan->locals[local];
    bool in_host_memory = plan->context->backend->in_host_memory;
    int64_t bytes = own->work->bytes + (in_host_memory ? own->schedule.bytes : 0);

    for (int s = 0; s < own->schedule.step_count; ++s) {
        const bsattn_exchange_t *exchange = own->exchanges[s];
        if (exchange != NULL) {
            bytes += in_host_memory ? exchange->host_bytes : exchange->device_bytes;
        }
    }
    return bytes;
}

const char *bsattn_plan_variant(const bsattn_plan_t *plan)
{
    return plan->locals[0].work->variant;
}

bsattn_timings_t bsattn_plan_timings(const bsattn_plan_t *plan, int local)
{
    return plan->locals[local].timings;
}
