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

/* One way that chunks may travel. */
typedef struct way {
    bsattn_route_t route;
    int64_t *chunk_tokens; /* [P, steps], summed over key heads. Ring: of an owner's chunk at each
                            * hop. Direct: of a rank's chunk at each step */
    bsattn_estimate_t *estimate; /* NULL: of no interest */
} way_t;

/* Work arrays of one prediction. */
typedef struct build {
    const bsattn_demand_t *demand;
    const bsattn_machine_t *machine;
    way_t ways[BSATTN_EXCHANGE_COUNT];
    int64_t *outgoing_tokens; /* [P]: of a rank's own, what others use, summed over key heads */
    double *pairs_of_hop;     /* [threads, P] */
} build_t;

/* The model's times are good to a few percent at best. */
bool bsattn_clearly_faster(double a_ms, double b_ms)
{
    return a_ms < 0.97 * b_ms;
}

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
static void count_ring(const build_t *build, way_t *way)
{
    const bsattn_demand_t *demand = build->demand;
    int steps = way->route.step_count;

    for (int owner = 0; owner < demand->layout.ranks; ++owner) {
        int64_t *tokens = way->chunk_tokens + (size_t)owner * (size_t)steps;

        for (int c = 0; c < demand->kv_class_count; ++c) {
            count_far(demand, c, owner, bsattn_demand_kv_heads(demand, c), tokens);
        }
        for (int h = steps - 2; h >= 0; --h) {
            tokens[h] += tokens[h + 1];
        }
    }
}

/* Tokens that a rank uses, by the step at which they are there. */
static void count_used(const build_t *build, const way_t *way, int rank, int64_t *tokens)
{
    const bsattn_demand_t *demand = build->demand;

    for (int c = 0; c < demand->kv_class_count; ++c) {
        const bsattn_spans_t *used = bsattn_demand_used(demand, c, rank);
        int heads = bsattn_demand_kv_heads(demand, c);

        for (size_t s = 0; s < used->count; ++s) {
            bsattn_piece_walk_t walk;
            bsattn_piece_t piece;

            bsattn_piece_begin(&walk, &demand->layout, used->items[s]);
            while (bsattn_piece_next(&walk, &piece)) {
                int hop = bsattn_demand_hop(demand, rank, piece.owner);
                tokens[way->route.step_of_hop[hop]] +=
                    heads * bsattn_demand_slot_tokens(demand, piece.owner, piece.slot, piece.count);
            }
        }
    }
}

/* Tokens of every rank's chunk at every step; its own at step 0 holds what anyone uses. */
static void count_direct(const build_t *build, way_t *way)
{
    const way_t *ring = &build->ways[BSATTN_EXCHANGE_RING];
    int ranks = build->demand->layout.ranks;

#pragma omp parallel for num_threads(build->machine->threads) schedule(dynamic)
    for (int rank = 0; rank < ranks; ++rank) {
        int64_t *tokens = way->chunk_tokens + (size_t)rank * (size_t)way->route.step_count;
        count_used(build, way, rank, tokens);
        tokens[0] = ring->chunk_tokens[(size_t)rank * (size_t)ring->route.step_count];
    }
}

static int64_t token_bytes(const build_t *build)
{
    const bsattn_problem_t *problem = &build->demand->pattern->problem;

    return 2 * problem->batch * (int64_t)bsattn_problem_row_bytes(problem);
}

/* Bytes of the chunk that a rank holds at a step. */
static int64_t chunk_bytes(const build_t *build, const way_t *way, int rank, int step)
{
    bool ring = (way->route.kind == BSATTN_EXCHANGE_RING);
    int whose = ring ? bsattn_demand_owner(build->demand, rank, step) : rank;

    return token_bytes(build) *
           way->chunk_tokens[(size_t)whose * (size_t)way->route.step_count + (size_t)step];
}

/* Bytes that a rank sends during a step: the next chunk of whoever gets them. */
static int64_t sent_bytes(const build_t *build, const way_t *way, int rank, int step)
{
    bool ring = (way->route.kind == BSATTN_EXCHANGE_RING);
    int hops = ring ? 1 : way->route.hops[step + 1];

    return chunk_bytes(build, way, (rank + hops) % build->demand->layout.ranks, step + 1);
}

/* Whether keys of step 0 are read where they lie, not packed. */
static bool reads_in_place(const build_t *build, const way_t *way, int rank, int64_t tokens)
{
    int64_t whole = tokens * build->demand->pattern->problem.heads_kv;

    return build->machine->keys_in_place &&
           (chunk_bytes(build, way, rank, 0) == whole * token_bytes(build));
}

/* The two chunk buffers: chunks of even steps in one, of odd steps in the other; and what others
 * use of the rank's own, unless that is the chunk of step 0 on its way round. */
static int64_t chunk_memory(const build_t *build, const way_t *way, int rank, int64_t tokens)
{
    bool ring = (way->route.kind == BSATTN_EXCHANGE_RING);
    bool in_place = reads_in_place(build, way, rank, tokens);
    int64_t outgoing = build->outgoing_tokens[rank] * token_bytes(build);
    int64_t largest[2] = {in_place ? (ring ? outgoing : 0) : chunk_bytes(build, way, rank, 0), 0};

    for (int s = 1; s < way->route.step_count; ++s) {
        int64_t bytes = chunk_bytes(build, way, rank, s);
        largest[s % 2] = (bytes > largest[s % 2]) ? bytes : largest[s % 2];
    }
    return largest[0] + largest[1] + (ring ? 0 : outgoing);
}

/* The one buffer that rows are brought together in: as large as the most that goes on in pieces. */
static int64_t staging_memory(const build_t *build, const way_t *way, int rank, int64_t tokens)
{
    bool ring = (way->route.kind == BSATTN_EXCHANGE_RING);
    int first = (ring && reads_in_place(build, way, rank, tokens)) ? 1 : 0;
    int64_t outgoing = build->outgoing_tokens[rank] * token_bytes(build);
    int64_t largest = 0;

    for (int s = first; s + 1 < way->route.step_count; ++s) {
        int64_t whole = ring ? chunk_bytes(build, way, rank, s) : outgoing;
        int64_t sent = sent_bytes(build, way, rank, s);
        largest = ((sent < whole) && (sent > largest)) ? sent : largest;
    }
    return build->machine->stages_sends ? largest : 0;
}

/* Neighbours on the ring are connected from the start; other distances come to that. */
static int64_t connection_memory(const build_t *build, const way_t *way)
{
    const bool *connected = build->machine->connected;
    bool direct = (way->route.kind == BSATTN_EXCHANGE_DIRECT);
    int64_t further = 0;

    for (int s = 0; direct && (s < way->route.step_count); ++s) {
        int hop = way->route.hops[s];
        further += ((connected != NULL) ? connected[hop] : (hop <= 1)) ? 0 : 1;
    }
    return ((build->demand->layout.ranks > 1) ? build->machine->exchange_bytes : 0) +
           further * build->machine->hop_bytes;
}

static void predict_memory(const build_t *build, const way_t *way,
                           const bsattn_schedule_counts_t *counts, int rank,
                           bsattn_rank_estimate_t *out)
{
    const bsattn_problem_t *problem = &build->demand->pattern->problem;
    const bsattn_machine_t *machine = build->machine;
    int64_t rows = problem->batch * out->tokens;
    int64_t row_bytes = (int64_t)bsattn_problem_row_bytes(problem);
    bsattn_memory_t *memory = &out->memory;

    memory->inputs = rows * row_bytes * (problem->heads_q + 2 * (int64_t)problem->heads_kv);
    memory->outputs = rows * problem->heads_q * (row_bytes + (int64_t)sizeof(float));
    memory->chunks = chunk_memory(build, way, rank, out->tokens);
    memory->state = (int64_t)bsattn_problem_state_bytes(problem, counts->state_blocks);
    memory->lists = bsattn_schedule_bytes(build->demand, way->route.step_count, counts);
    if (machine->list_bytes != NULL) {
        memory->host = memory->lists;
        memory->lists = machine->list_bytes(build->demand, counts);
    }
    memory->scratch =
        machine->threads * (int64_t)machine->scratch_bytes(problem->head_dim, problem->block);
    memory->staging = staging_memory(build, way, rank, out->tokens);
    memory->libraries = machine->libraries_bytes + connection_memory(build, way);
    memory->total = memory->inputs + memory->outputs + memory->chunks + memory->state +
                    memory->lists + memory->scratch + memory->staging + memory->libraries;
}

/* @param pairs  of tokens, summed over query heads, of one batch item */
static double attend_time_s(const build_t *build, double pairs)
{
    const bsattn_problem_t *problem = &build->demand->pattern->problem;
    const bsattn_machine_t *machine = build->machine;
    double flops_per_pair = 4.0 * problem->head_dim * (double)problem->batch;
    double flops_per_s = ((problem->dtype == BSATTN_F32) && (machine->flops_f32_per_s > 0.0))
                             ? machine->flops_f32_per_s
                             : machine->flops_per_s;

    return flops_per_pair * pairs / flops_per_s;
}

/* At every step the rank computes on one chunk while the next one comes in, at the cost of compute
 * time or not. */
static void predict_time(const build_t *build, const way_t *way, int rank,
                         const double *pairs_of_hop, bsattn_rank_estimate_t *out)
{
    const bsattn_machine_t *machine = build->machine;

    for (int s = 0; s < way->route.step_count; ++s) {
        double attend_s = attend_time_s(build, pairs_of_hop[way->route.hops[s]]);
        double exchange_s = 0.0;

        if (s + 1 < way->route.step_count) {
            int64_t received = chunk_bytes(build, way, rank, s + 1);
            int64_t sent = sent_bytes(build, way, rank, s);
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

/* Whether some rank's exchanges alone, with nothing to compute, clearly take longer. */
static bool exchange_exceeds(const build_t *build, const way_t *way, double limit_ms)
{
    int ranks = build->demand->layout.ranks;
    bool exceeds = false;

    for (int rank = 0; !exceeds && (rank < ranks); ++rank) {
        bsattn_rank_estimate_t idle = {0};
        predict_time(build, way, rank, build->pairs_of_hop, &idle);
        exceeds = bsattn_clearly_faster(limit_ms, idle.time_total_ms);
    }
    return exceeds;
}

/* What the longest query block takes wherever it is: its attend, and its keys but for those of a shard. */
static double longest_row_s(const build_t *build, const bsattn_schedule_counts_t *counts)
{
    const bsattn_problem_t *problem = &build->demand->pattern->problem;
    const bsattn_layout_t *layout = &build->demand->layout;
    int64_t shard = (layout->blocks / layout->ranks + 1) * problem->block * problem->heads_kv;
    double remote = fmax(0.0, (double)(counts->longest_keys - shard));
    double bytes =
        2.0 * (double)problem->batch * (double)bsattn_problem_row_bytes(problem) * remote;
    double exchange_s = bytes / build->machine->link_bytes_per_s;
    double attend_s = attend_time_s(build, counts->longest_pairs);

    return build->machine->hides_exchange ? fmax(attend_s, exchange_s) : attend_s + exchange_s;
}

/* @param pairs_of_hop  [P], for this call alone
 * @param row_s         receives what its longest query block takes */
static bsattn_status_t predict_rank(const build_t *build, int rank, double *pairs_of_hop,
                                    double *row_s)
{
    const bsattn_demand_t *demand = build->demand;
    bsattn_schedule_counts_t counts;

    memset(pairs_of_hop, 0, (size_t)demand->layout.ranks * sizeof(double));
    BSATTN_TRY(bsattn_schedule_count(demand, rank, pairs_of_hop, &counts));
    *row_s = longest_row_s(build, &counts);
    for (int w = 0; w < BSATTN_EXCHANGE_COUNT; ++w) {
        const way_t *way = &build->ways[w];
        if (way->estimate != NULL) {
            bsattn_rank_estimate_t *out = &way->estimate->ranks[rank];
            out->tokens = bsattn_demand_slot_tokens(demand, rank, 0,
                                                    bsattn_layout_count(&demand->layout, rank));
            out->pairs_token = counts.pairs_token * (double)demand->pattern->problem.batch;
            out->bytes_needed = demand->bytes_needed[rank];
            predict_memory(build, way, &counts, rank, out);
            predict_time(build, way, rank, pairs_of_hop, out);
        }
    }
    return BSATTN_OK;
}

static bsattn_status_t predict_ranks(const build_t *build)
{
    int ranks = build->demand->layout.ranks;
    bool failed = false;
    double longest_s = 0.0;

#pragma omp parallel for num_threads(build->machine->threads) schedule(dynamic)                    \
    reduction(||                                                                                   \
              : failed) reduction(max                                                              \
                                  : longest_s)
    for (int rank = 0; rank < ranks; ++rank) {
        double *pairs_of_hop = build->pairs_of_hop + (size_t)omp_get_thread_num() * (size_t)ranks;
        double row_s = 0.0;
        failed = (predict_rank(build, rank, pairs_of_hop, &row_s) != BSATTN_OK) || failed;
        longest_s = fmax(longest_s, row_s);
    }
    for (int w = 0; w < BSATTN_EXCHANGE_COUNT; ++w) {
        if (build->ways[w].estimate != NULL) {
            build->ways[w].estimate->longest_row_ms = 1e3 * longest_s;
        }
    }
    return failed ? fail_memory() : BSATTN_OK;
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

void bsattn_estimate_set_libraries(bsattn_estimate_t *estimate, int64_t bytes)
{
    int64_t more = bytes - estimate->ranks[0].memory.libraries; /* the same for all */

    for (int rank = 0; rank < estimate->totals.ranks; ++rank) {
        estimate->ranks[rank].memory.libraries += more;
        estimate->ranks[rank].memory.total += more;
    }
    estimate->totals.memory_max += more;
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
    totals->imbalance = imbalance(estimate);
}

/* What the chunk of each rank is at each step is the only thing that grows with the ranks' square. */
static bsattn_status_t chunks_alloc(const build_t *build, way_t *way)
{
    size_t ranks = (size_t)build->demand->layout.ranks;
    size_t count = ranks * (size_t)way->route.step_count;
    double needed = (double)count * sizeof(*way->chunk_tokens);
    double available = (double)bsattn_host_memory_available();
    char need_text[32];
    char have_text[32];

    if (needed <= available) {
        way->chunk_tokens = calloc(count, sizeof(*way->chunk_tokens));
    }
    if (way->chunk_tokens == NULL) {
        return bsattn_fail(
            BSATTN_ERR_MEMORY,
            "out of memory: to plan %zu ranks needs %s for their chunks at each step, %s is "
            "available",
            ranks, bsattn_text_bytes(need_text, sizeof(need_text), needed),
            bsattn_text_bytes(have_text, sizeof(have_text), available));
    }
    return BSATTN_OK;
}

static void way_free(way_t *way)
{
    bsattn_route_free(&way->route);
    free(way->chunk_tokens);
    bsattn_estimate_destroy(way->estimate);
    *way = (way_t){0};
}

/* The steps of a way and what is there at each. */
static bsattn_status_t way_open(build_t *build, bsattn_exchange_kind_t kind)
{
    way_t *way = &build->ways[kind];

    BSATTN_TRY(bsattn_route_init(&way->route, build->demand, kind));
    BSATTN_TRY(chunks_alloc(build, way));
    if (kind == BSATTN_EXCHANGE_RING) {
        count_ring(build, way);
    } else {
        count_direct(build, way);
    }
    return BSATTN_OK;
}

/* Have an estimate made of a way, but where its exchanges alone take longer than is of interest. */
static bsattn_status_t way_consider(build_t *build, bsattn_exchange_kind_t kind, double limit_ms)
{
    way_t *way = &build->ways[kind];
    bsattn_estimate_totals_t *totals;

    if (isfinite(limit_ms) && exchange_exceeds(build, way, limit_ms)) {
        return BSATTN_OK;
    }
    way->estimate = calloc(1, sizeof(*way->estimate));
    if (way->estimate == NULL) {
        return fail_memory();
    }
    way->estimate->exchange = kind;
    totals = &way->estimate->totals;
    totals->ranks = build->demand->layout.ranks;
    totals->steps = way->route.step_count;
    bsattn_layout_format(&build->demand->layout, totals->layout, sizeof(totals->layout));
    (void)bsattn_text_copy(totals->exchange, sizeof(totals->exchange), bsattn_exchange_names[kind]);
    way->estimate->ranks = calloc((size_t)totals->ranks, sizeof(*way->estimate->ranks));
    return (way->estimate->ranks == NULL) ? fail_memory() : BSATTN_OK;
}

/* What others use of each rank's own goes at least one hop. */
static void count_outgoing(const build_t *build)
{
    const way_t *ring = &build->ways[BSATTN_EXCHANGE_RING];
    size_t steps = (size_t)ring->route.step_count;

    for (int rank = 0; (steps > 1) && (rank < build->demand->layout.ranks); ++rank) {
        build->outgoing_tokens[rank] = ring->chunk_tokens[(size_t)rank * steps + 1];
    }
}

static bsattn_status_t build_init(build_t *build)
{
    size_t ranks = (size_t)build->demand->layout.ranks;

    build->pairs_of_hop = calloc(ranks * (size_t)build->machine->threads, sizeof(double));
    build->outgoing_tokens = calloc(ranks, sizeof(*build->outgoing_tokens));
    if ((build->pairs_of_hop == NULL) || (build->outgoing_tokens == NULL)) {
        return fail_memory();
    }
    BSATTN_TRY(way_open(build, BSATTN_EXCHANGE_RING));
    count_outgoing(build);
    return BSATTN_OK;
}

static void build_free(build_t *build)
{
    for (int w = 0; w < BSATTN_EXCHANGE_COUNT; ++w) {
        way_free(&build->ways[w]);
    }
    free(build->outgoing_tokens);
    free(build->pairs_of_hop);
}

/* ---------------------------------------------------------------------------- choice of exchange */

/* When owners send to each user: rows are then brought together one by one, where chunks of the ring
 * mostly go on whole, so it must save bytes. Of what the ring sends, and of what a rank holds then
 * where that is clearly faster, and where it is as fast: */
static const double direct_bytes = 0.75;
static const double memory_if_faster = 2.0;
static const double memory_if_as_fast = 1.05;

static bool direct_is_better(const bsattn_estimate_totals_t *direct,
                             const bsattn_estimate_totals_t *ring)
{
    double memory = (double)direct->memory_max / (double)ring->memory_max;

    if (bsattn_clearly_faster(direct->time_ms, ring->time_ms)) {
        return memory <= memory_if_faster;
    }
    return !bsattn_clearly_faster(ring->time_ms, direct->time_ms) && (memory <= memory_if_as_fast);
}

/* Whether owners that send to each user send enough less: they send what is needed. */
static bool direct_saves(const build_t *build)
{
    const way_t *ring = &build->ways[BSATTN_EXCHANGE_RING];
    int64_t sent = 0;
    int64_t needed = 0;

    for (int rank = 0; rank < build->demand->layout.ranks; ++rank) {
        for (int s = 1; s < ring->route.step_count; ++s) {
            sent += chunk_bytes(build, ring, rank, s);
        }
        needed += build->demand->bytes_needed[rank];
    }
    return (needed < sent) && ((double)needed <= direct_bytes * (double)sent);
}

/* Have estimates made of the ways that may be the answer; beside one of the other, the ring's is
 * wanted whatever it takes. */
static bsattn_status_t consider(build_t *build, int wanted, double limit_ms)
{
    bool both = false;

    if ((wanted == BSATTN_EXCHANGE_DIRECT) ||
        ((wanted == BSATTN_EXCHANGE_AUTO) && (build->demand->used != NULL) && direct_saves(build))) {
        BSATTN_TRY(way_open(build, BSATTN_EXCHANGE_DIRECT));
        BSATTN_TRY(way_consider(build, BSATTN_EXCHANGE_DIRECT, limit_ms));
        both = (build->ways[BSATTN_EXCHANGE_DIRECT].estimate != NULL);
    }
    return (wanted == BSATTN_EXCHANGE_DIRECT)
               ? BSATTN_OK
               : way_consider(build, BSATTN_EXCHANGE_RING, both ? INFINITY : limit_ms);
}

/* The best of the ways looked at; NULL: none was of interest. */
static way_t *best_way(build_t *build)
{
    way_t *ring = &build->ways[BSATTN_EXCHANGE_RING];
    way_t *direct = &build->ways[BSATTN_EXCHANGE_DIRECT];

    if ((ring->estimate == NULL) || (direct->estimate == NULL)) {
        return (ring->estimate != NULL) ? ring : (direct->estimate != NULL) ? direct : NULL;
    }
    return direct_is_better(&direct->estimate->totals, &ring->estimate->totals) ? direct : ring;
}

bsattn_status_t bsattn_estimate_best(const bsattn_demand_t *demand, const bsattn_machine_t *machine,
                                     int wanted, double limit_ms, bsattn_estimate_t **estimate_p)
{
    build_t build = {.demand = demand, .machine = machine};
    bsattn_status_t status = build_init(&build);
    way_t *best;

    *estimate_p = NULL;
    if (status == BSATTN_OK) {
        status = consider(&build, wanted, limit_ms);
    }
    if ((status == BSATTN_OK) && (best_way(&build) != NULL)) {
        status = predict_ranks(&build);
        for (int w = 0; w < BSATTN_EXCHANGE_COUNT; ++w) {
            if (build.ways[w].estimate != NULL) {
                sum_up(build.ways[w].estimate);
            }
        }
    }
    best = best_way(&build);
    if ((status == BSATTN_OK) && (best != NULL)) {
        *estimate_p = best->estimate;
        best->estimate = NULL;
    }
    build_free(&build);
    return status;
}
