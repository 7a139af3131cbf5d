/* SPDX-License-Identifier: Apache-2.0 */
#include "problem/estimate.h"

#include "base/host.h"
#include "base/text.h"
#include "problem/problem.h"
#include "problem/schedule.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* Work arrays of one prediction. */
typedef struct build {
    const bsattn_demand_t *demand;
    const bsattn_machine_t *machine;
    bsattn_estimate_t *estimate;
    int64_t *chunk_tokens; /* [P, steps]: tokens of an owner's chunk at each hop, summed over key
                            * heads */
    double *pairs_of_hop;  /* [threads, P] */
} build_t;

static bsattn_status_t fail_memory(void)
{
    return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the estimate of a job");
}

void bsattn_estimate_destroy(bsattn_estimate_t *estimate)
{
    if (estimate != NULL) {
        free(estimate->ranks);
        free(estimate);
    }
}

const bsattn_estimate_totals_t *bsattn_estimate_totals(const bsattn_estimate_t *estimate)
{
    return &estimate->totals;
}

const bsattn_rank_estimate_t *bsattn_estimate_rank(const bsattn_estimate_t *estimate, int rank)
{
    return ((rank < 0) || (rank >= estimate->totals.ranks)) ? NULL : &estimate->ranks[rank];
}

/* Tokens of an owner's slots by the farthest hop they go to. */
static void count_far(const bsattn_demand_t *demand, int kv_class, int owner, int heads,
                      int64_t *tokens)
{
    const int32_t *far = bsattn_demand_far(demand, kv_class, owner);
    int64_t slots = bsattn_layout_count(&demand->layout, owner);
    int64_t block = demand->pattern->problem.block;

    for (int64_t s = 0; s < slots; ++s) {
        if (far[s] >= 0) {
            tokens[far[s]] += heads * block;
        }
    }
    if ((slots > 0) && (far[slots - 1] >= 0)) {
        tokens[far[slots - 1]] -=
            heads * (block - bsattn_demand_slot_tokens(demand, owner, slots - 1, 1));
    }
}

/* Tokens of every chunk at every hop: a block with far f is there at the hops 0 .. f. */
static void count_chunks(build_t *build)
{
    const bsattn_demand_t *demand = build->demand;
    int steps = demand->steps;

    for (int owner = 0; owner < demand->layout.ranks; ++owner) {
        int64_t *tokens = build->chunk_tokens + (size_t)owner * (size_t)steps;

        for (int c = 0; c < demand->kv_class_count; ++c) {
            count_far(demand, c, owner, bsattn_demand_kv_heads(demand, c), tokens);
        }
        for (int h = steps - 2; h >= 0; --h) {
            tokens[h] += tokens[h + 1];
        }
    }
}

static int64_t chunk_bytes(const build_t *build, int owner, int hop)
{
    const bsattn_problem_t *problem = &build->demand->pattern->problem;

    return 2 * problem->batch * (int64_t)bsattn_problem_row_bytes(problem) *
           build->chunk_tokens[(size_t)owner * (size_t)build->demand->steps + (size_t)hop];
}

/* What a rank keeps of its own shard at step 0: its chunk, or of keys read in place only what goes
 * on. */
static int64_t own_chunk_bytes(const build_t *build, int rank, int64_t tokens)
{
    const bsattn_demand_t *demand = build->demand;
    int64_t whole = tokens * demand->pattern->problem.heads_kv;

    if (!build->machine->keys_in_place ||
        (build->chunk_tokens[(size_t)rank * (size_t)demand->steps] != whole)) {
        return chunk_bytes(build, rank, 0);
    }
    return (demand->steps > 1) ? chunk_bytes(build, rank, 1) : 0;
}

/* The two chunk buffers: chunks of even steps in one, of odd steps in the other. */
static int64_t chunk_memory(const build_t *build, int rank, int64_t tokens)
{
    int64_t largest[2] = {own_chunk_bytes(build, rank, tokens), 0};

    for (int s = 1; s < build->demand->steps; ++s) {
        int64_t bytes = chunk_bytes(build, bsattn_demand_owner(build->demand, rank, s), s);
        largest[s % 2] = (bytes > largest[s % 2]) ? bytes : largest[s % 2];
    }
    return largest[0] + largest[1];
}

/* Whether the chunk of step 0 is packed to be sent rather than to be read. */
static bool packs_sends(const build_t *build, int rank, int64_t tokens)
{
    return own_chunk_bytes(build, rank, tokens) != chunk_bytes(build, rank, 0);
}

/* The one buffer that rows are brought together in: as large as the most that goes on in pieces. */
static int64_t staging_memory(const build_t *build, int rank, int64_t tokens)
{
    int64_t largest = 0;

    for (int s = packs_sends(build, rank, tokens) ? 1 : 0; s + 1 < build->demand->steps; ++s) {
        int owner = bsattn_demand_owner(build->demand, rank, s);
        int64_t here = chunk_bytes(build, owner, s);
        int64_t sent = chunk_bytes(build, owner, s + 1);
        largest = ((sent < here) && (sent > largest)) ? sent : largest;
    }
    return build->machine->stages_sends ? largest : 0;
}

static void predict_memory(const build_t *build, const bsattn_schedule_counts_t *counts, int rank,
                           bsattn_rank_estimate_t *out)
{
    const bsattn_problem_t *problem = &build->demand->pattern->problem;
    const bsattn_machine_t *machine = build->machine;
    int64_t rows = problem->batch * out->tokens;
    int64_t row_bytes = (int64_t)bsattn_problem_row_bytes(problem);
    bsattn_memory_t *memory = &out->memory;

    memory->inputs = rows * row_bytes * (problem->heads_q + 2 * (int64_t)problem->heads_kv);
    memory->outputs = rows * problem->heads_q * (row_bytes + (int64_t)sizeof(float));
    memory->chunks = chunk_memory(build, rank, out->tokens);
    memory->state = (int64_t)bsattn_problem_state_bytes(problem, counts->state_blocks);
    memory->lists = bsattn_schedule_bytes(build->demand, counts);
    if (machine->list_bytes != NULL) {
        memory->host = memory->lists;
        memory->lists = machine->list_bytes(build->demand, counts);
    }
    memory->scratch =
        machine->threads * (int64_t)machine->scratch_bytes(problem->head_dim, problem->block);
    memory->staging = staging_memory(build, rank, out->tokens);
    memory->libraries = machine->libraries_bytes +
                        ((build->demand->layout.ranks > 1) ? machine->exchange_bytes : 0);
    memory->total = memory->inputs + memory->outputs + memory->chunks + memory->state +
                    memory->lists + memory->scratch + memory->staging + memory->libraries;
}

/* At every step the rank computes on one chunk while the next one comes in, at the cost of compute
 * time or not. */
static void predict_time(const build_t *build, int rank, const double *pairs_of_hop,
                         bsattn_rank_estimate_t *out)
{
    const bsattn_problem_t *problem = &build->demand->pattern->problem;
    const bsattn_machine_t *machine = build->machine;
    double flops_per_pair = 4.0 * problem->head_dim * (double)problem->batch;
    double flops_per_s = ((problem->dtype == BSATTN_F32) && (machine->flops_f32_per_s > 0.0))
                             ? machine->flops_f32_per_s
                             : machine->flops_per_s;

    for (int s = 0; s < build->demand->steps; ++s) {
        double attend_s = flops_per_pair * pairs_of_hop[s] / flops_per_s;
        double exchange_s = 0.0;

        if (s + 1 < build->demand->steps) {
            int64_t received =
                chunk_bytes(build, bsattn_demand_owner(build->demand, rank, s + 1), s + 1);
            int64_t sent = chunk_bytes(build, bsattn_demand_owner(build->demand, rank, s), s + 1);
            int64_t more = (received > sent) ? received : sent;
            out->bytes_received += received;
            out->bytes_sent += sent;
            exchange_s = (more > 0)
                             ? (double)more / machine->link_bytes_per_s + machine->link_latency_s
                             : 0.0;
        }
        out->time_attend_ms += 1e3 * attend_s;
        out->time_total_ms += 1e3 * (!machine->hides_exchange  ? attend_s + exchange_s
                                     : (attend_s > exchange_s) ? attend_s
                                                               : exchange_s);
    }
}

/* Whether some rank's exchanges alone, with nothing to compute, take longer. */
static bool exchange_exceeds(const build_t *build, double limit_ms)
{
    int ranks = build->demand->layout.ranks;
    bool exceeds = false;

    for (int rank = 0; !exceeds && (rank < ranks); ++rank) {
        bsattn_rank_estimate_t idle = {0};
        predict_time(build, rank, build->pairs_of_hop, &idle);
        exceeds = (idle.time_total_ms > limit_ms);
    }
    return exceeds;
}

/* @param pairs_of_hop  [P], for this call alone */
static bsattn_status_t predict_rank(const build_t *build, int rank, double *pairs_of_hop)
{
    const bsattn_demand_t *demand = build->demand;
    bsattn_rank_estimate_t *out = &build->estimate->ranks[rank];
    bsattn_schedule_counts_t counts;

    memset(pairs_of_hop, 0, (size_t)demand->layout.ranks * sizeof(double));
    BSATTN_TRY(bsattn_schedule_count(demand, rank, pairs_of_hop, &counts));
    out->tokens =
        bsattn_demand_slot_tokens(demand, rank, 0, bsattn_layout_count(&demand->layout, rank));
    out->pairs_token = counts.pairs_token * (double)demand->pattern->problem.batch;
    out->bytes_needed = demand->bytes_needed[rank];
    predict_memory(build, &counts, rank, out);
    predict_time(build, rank, pairs_of_hop, out);
    return BSATTN_OK;
}

static bsattn_status_t predict_ranks(const build_t *build)
{
    int ranks = build->demand->layout.ranks;
    bool failed = false;

#pragma omp parallel for num_threads(build->machine->threads) schedule(dynamic)                    \
    reduction(||                                                                                   \
              : failed)
    for (int rank = 0; rank < ranks; ++rank) {
        double *pairs_of_hop = build->pairs_of_hop + (size_t)omp_get_thread_num() * (size_t)ranks;
        failed = (predict_rank(build, rank, pairs_of_hop) != BSATTN_OK) || failed;
    }
    return failed ? fail_memory() : BSATTN_OK;
}

static void sum_up(bsattn_estimate_t *estimate)
{
    bsattn_estimate_totals_t *totals = &estimate->totals;

    for (int rank = 0; rank < totals->ranks; ++rank) {
        const bsattn_rank_estimate_t *one = &estimate->ranks[rank];
        totals->bytes_sent += one->bytes_sent;
        totals->bytes_needed += one->bytes_needed;
        totals->memory_max =
            (one->memory.total > totals->memory_max) ? one->memory.total : totals->memory_max;
        totals->time_ms =
            (one->time_total_ms > totals->time_ms) ? one->time_total_ms : totals->time_ms;
    }
}

static double imbalance(const bsattn_estimate_t *estimate)
{
    double sum = 0.0;
    double largest = 0.0;

    for (int rank = 0; rank < estimate->totals.ranks; ++rank) {
        double pairs = estimate->ranks[rank].pairs_token;
        sum += pairs;
        largest = (pairs > largest) ? pairs : largest;
    }
    return (sum > 0.0) ? largest * estimate->totals.ranks / sum : 1.0;
}

/* What the chunk of each rank is at each step is the only thing that grows with the ranks' square. */
static bsattn_status_t chunks_alloc(build_t *build)
{
    size_t ranks = (size_t)build->demand->layout.ranks;
    size_t count = ranks * (size_t)build->demand->steps;
    double needed = (double)count * sizeof(*build->chunk_tokens);
    double available = (double)bsattn_host_memory_available();
    char need_text[32];
    char have_text[32];

    if (needed <= available) {
        build->chunk_tokens = calloc(count, sizeof(*build->chunk_tokens));
    }
    if (build->chunk_tokens == NULL) {
        return bsattn_fail(
            BSATTN_ERR_MEMORY,
            "out of memory: to plan %zu ranks needs %s for their chunks at each step, %s is "
            "available",
            ranks, bsattn_text_bytes(need_text, sizeof(need_text), needed),
            bsattn_text_bytes(have_text, sizeof(have_text), available));
    }
    return BSATTN_OK;
}

static bsattn_status_t build_alloc(build_t *build)
{
    size_t ranks = (size_t)build->demand->layout.ranks;

    BSATTN_TRY(chunks_alloc(build));
    build->pairs_of_hop = calloc(ranks * (size_t)build->machine->threads, sizeof(double));
    build->estimate = calloc(1, sizeof(*build->estimate));
    if (build->estimate != NULL) {
        build->estimate->ranks = calloc(ranks, sizeof(*build->estimate->ranks));
    }
    if ((build->pairs_of_hop == NULL) || (build->estimate == NULL) ||
        (build->estimate->ranks == NULL)) {
        return fail_memory();
    }
    return BSATTN_OK;
}

/* @param limit_ms    of interest only if it does not take longer
 * @param estimate_p  receives NULL if it clearly does */
static bsattn_status_t compute(const bsattn_demand_t *demand, const bsattn_machine_t *machine,
                               double limit_ms, bsattn_estimate_t **estimate_p)
{
    build_t build = {.demand = demand, .machine = machine};
    bsattn_status_t status = build_alloc(&build);
    bool exceeds = false;

    *estimate_p = NULL;
    if (status == BSATTN_OK) {
        bsattn_estimate_totals_t *totals = &build.estimate->totals;
        totals->ranks = demand->layout.ranks;
        totals->steps = demand->steps;
        bsattn_layout_format(&demand->layout, totals->layout, sizeof(totals->layout));
        (void)bsattn_text_copy(totals->exchange, sizeof(totals->exchange), "ring");
        count_chunks(&build);
        exceeds = isfinite(limit_ms) && exchange_exceeds(&build, limit_ms);
    }
    if ((status == BSATTN_OK) && !exceeds) {
        status = predict_ranks(&build);
    }
    free(build.chunk_tokens);
    free(build.pairs_of_hop);
    if ((status != BSATTN_OK) || exceeds) {
        bsattn_estimate_destroy(build.estimate);
        return status;
    }
    sum_up(build.estimate);
    build.estimate->totals.imbalance = imbalance(build.estimate);
    *estimate_p = build.estimate;
    return BSATTN_OK;
}

bsattn_status_t bsattn_estimate_compute(const bsattn_demand_t *demand,
                                        const bsattn_machine_t *machine,
                                        bsattn_estimate_t **estimate_p)
{
    return compute(demand, machine, INFINITY, estimate_p);
}

/* --------------------------------------------------------------------------------------- choice */

/* The model's times are good to a few percent at best. */
static const double clearly_faster = 0.97;

/* Faster by more than the model may be wrong about, or else sending less. */
static bool clearly_better(const bsattn_estimate_totals_t *a, const bsattn_estimate_totals_t *b)
{
    if (a->time_ms < clearly_faster * b->time_ms) {
        return true;
    }
    return (b->time_ms >= clearly_faster * a->time_ms) && (a->bytes_sent < b->bytes_sent);
}

/* A layout tried. */
typedef struct trial {
    bsattn_demand_t demand;
    bsattn_estimate_t *estimate; /* NULL: given up, clearly slower than another */
} trial_t;

static void trial_free(trial_t *trial)
{
    bsattn_demand_free(&trial->demand);
    bsattn_estimate_destroy(trial->estimate);
    trial->estimate = NULL;
}

static bsattn_status_t trial_init(trial_t *trial, const bsattn_pattern_t *pattern, int ranks,
                                  const char *name, const bsattn_machine_t *machine,
                                  double limit_ms)
{
    bsattn_layout_t layout;
    bsattn_status_t status;

    *trial = (trial_t){0};
    BSATTN_TRY(bsattn_layout_parse(name, pattern->blocks, ranks, &layout));
    BSATTN_TRY(bsattn_demand_init(&trial->demand, pattern, &layout, machine->threads));
    status = compute(&trial->demand, machine, limit_ms, &trial->estimate);
    if (status != BSATTN_OK) {
        trial_free(trial);
    }
    return status;
}

/* Replace the best trial by another layout's if that is better. */
static bsattn_status_t try_layout(trial_t *best, const bsattn_pattern_t *pattern, int ranks,
                                  const char *name, const bsattn_machine_t *machine)
{
    double limit_ms;
    trial_t other;

    BSATTN_ASSERT(best->estimate != NULL);
    limit_ms = best->estimate->totals.time_ms / clearly_faster;
    BSATTN_TRY(trial_init(&other, pattern, ranks, name, machine, limit_ms));
    if ((other.estimate != NULL) &&
        clearly_better(&other.estimate->totals, &best->estimate->totals)) {
        trial_t worse = *best;
        *best = other;
        other = worse;
    }
    trial_free(&other);
    return BSATTN_OK;
}

bsattn_status_t bsattn_estimate_choose(const bsattn_pattern_t *pattern, int ranks,
                                       const bsattn_plan_params_t *params,
                                       const bsattn_machine_t *machine, bsattn_demand_t *demand_p,
                                       bsattn_estimate_t **estimate_p)
{
    const char *exchange = (params == NULL) ? NULL : params->exchange;
    const char *layout = (params == NULL) ? NULL : params->layout;
    trial_t best;
    bsattn_status_t status = BSATTN_OK;

    if (ranks < 1) {
        return bsattn_fail(BSATTN_ERR_INPUT, "ranks %d: must be 1 or more", ranks);
    }
    if (!bsattn_text_is_auto(exchange) && (strcmp(exchange, "ring") != 0)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "exchange '%s': must be auto or ring", exchange);
    }
    BSATTN_TRY(trial_init(&best, pattern, ranks,
                          bsattn_text_is_auto(layout) ? "contiguous" : layout, machine, INFINITY));
    if (bsattn_text_is_auto(layout) && (ranks > 1)) {
        status = try_layout(&best, pattern, ranks, "zigzag", machine);
        if (status == BSATTN_OK) {
            status = try_layout(&best, pattern, ranks, "cyclic", machine);
        }
    }
    if (status != BSATTN_OK) {
        trial_free(&best);
        return status;
    }
    *demand_p = best.demand;
    *estimate_p = best.estimate;
    return BSATTN_OK;
}
