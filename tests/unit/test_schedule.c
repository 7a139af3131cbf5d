/* SPDX-License-Identifier: Apache-2.0 */
/* The schedule's promises, checked by carrying chunks from rank to rank block by block: every active
 * pair is computed exactly once, every block needed is there when it is used, and no block goes
 * where nobody further on needs it, or, straight from its owner, where it is not used. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "masks.h"
#include "problem/estimate.h"
#include "problem/problem.h"
#include "problem/schedule.h"

enum { HEADS_Q = 4, HEADS_KV = 2 };

static const char *const layouts[] = {"contiguous", "zigzag", "cyclic", "cyclic:3"};

typedef struct world {
    bsattn_problem_t problem;
    bsattn_pattern_t *pattern;
    bsattn_demand_t demand;
    bsattn_schedule_t *schedules; /* [P] */
    int64_t nb;
    int ranks;
    /* [P][tokens_kv at the step at hand]: which global token row of which head lies there */
    int64_t **chunks;
    int64_t **outgoing; /* [P][outgoing.tokens]: the same of what others use */
    int *used;          /* [Hq, nb, nb]: how often a pair was computed */
    bool *wanted;       /* [P, Hk, nb]: does a rank's mask touch a block */
} world_t;

static size_t wanted_at(const world_t *world, int rank, int head_kv, int64_t block)
{
    return ((size_t)rank * HEADS_KV + (size_t)head_kv) * (size_t)world->nb + (size_t)block;
}

static int mask_uses(const world_t *world, const mask_case_t *mask, int head, int64_t i, int64_t j)
{
    return (world->problem.causal && (j > i))
               ? 0
               : mask->uses(head, i, j, world->nb, world->problem.block);
}

static bool is_direct(const world_t *world)
{
    return world->demand.route.kind == BSATTN_EXCHANGE_DIRECT;
}

static void world_init(world_t *world, const mask_case_t *mask, int64_t seq_len, int block,
                       int causal, int ranks, const char *layout_text,
                       bsattn_exchange_kind_t exchange)
{
    bsattn_layout_t layout;
    size_t nb;

    *world = (world_t){.ranks = ranks};
    bsattn_problem_init(&world->problem);
    world->problem.seq_len = seq_len;
    world->problem.block = block;
    world->problem.causal = causal;
    world->problem.heads_q = HEADS_Q;
    world->problem.heads_kv = HEADS_KV;
    world->nb = bsattn_problem_blocks(&world->problem);
    nb = (size_t)world->nb;
    assert_int_equal(bsattn_pattern_create(mask->text, &world->problem, &world->pattern), 0);
    assert_int_equal(bsattn_layout_parse(layout_text, world->nb, ranks, &layout), 0);
    assert_int_equal(
        bsattn_demand_init(&world->demand, world->pattern, &layout, 2, INT64_MAX, INT64_MAX), 0);
    assert_int_equal(bsattn_demand_take(&world->demand, exchange), 0);
    world->schedules = calloc((size_t)ranks, sizeof(*world->schedules));
    world->chunks = calloc((size_t)ranks, sizeof(*world->chunks));
    world->outgoing = calloc((size_t)ranks, sizeof(*world->outgoing));
    world->used = calloc(HEADS_Q * nb * nb, sizeof(*world->used));
    world->wanted = calloc((size_t)ranks * HEADS_KV * nb, sizeof(*world->wanted));
    for (int rank = 0; rank < ranks; ++rank) {
        assert_int_equal(bsattn_schedule_init(&world->schedules[rank], &world->demand, rank), 0);
    }
    for (int head = 0; head < HEADS_Q; ++head) {
        for (int64_t i = 0; i < world->nb; ++i) {
            int rank = bsattn_layout_owner(&layout, i);
            for (int64_t j = 0; j < world->nb; ++j) {
                if (mask_uses(world, mask, head, i, j) > 0) {
                    world->wanted[wanted_at(world, rank, head / (HEADS_Q / HEADS_KV), j)] = true;
                }
            }
        }
    }
}

static void world_free(world_t *world)
{
    for (int rank = 0; rank < world->ranks; ++rank) {
        bsattn_schedule_free(&world->schedules[rank]);
        free(world->chunks[rank]);
        free(world->outgoing[rank]);
    }
    free(world->schedules);
    free(world->chunks);
    free(world->outgoing);
    free(world->used);
    free(world->wanted);
    bsattn_demand_free(&world->demand);
    bsattn_pattern_destroy(world->pattern);
}

/* A key row of a chunk: which token of which head. */
static int64_t key_id(const world_t *world, int head, int64_t token)
{
    return (int64_t)head * world->problem.seq_len + token;
}

static int64_t local_token(const world_t *world, int rank, int64_t row)
{
    int block = world->problem.block;

    return bsattn_layout_block(&world->demand.layout, rank, row / block) * block + row % block;
}

/* Rows of a rank's shard as a packing brings them together. */
static int64_t *pack(const world_t *world, int rank, const bsattn_packing_t *packing)
{
    const bsattn_schedule_t *schedule = &world->schedules[rank];
    int64_t *rows = calloc((size_t)packing->tokens + 1, sizeof(*rows));
    int64_t at = 0;

    for (int head = 0; head < HEADS_KV; ++head) {
        int c = schedule->kv_class_of_head[head];
        assert_int_equal(at, packing->token_first[head]);
        for (size_t r = packing->first[c]; r < packing->first[c + 1]; ++r) {
            for (int64_t t = 0; t < packing->runs[r].count; ++t) {
                rows[at++] =
                    key_id(world, head, local_token(world, rank, packing->runs[r].first + t));
            }
        }
    }
    assert_int_equal(at, packing->tokens);
    return rows;
}

static void pack_own(world_t *world, int rank)
{
    const bsattn_schedule_t *schedule = &world->schedules[rank];

    world->chunks[rank] = pack(world, rank, &schedule->own);
    world->outgoing[rank] = pack(world, rank, &schedule->outgoing);
    assert_int_equal(schedule->own.tokens, schedule->steps[0].tokens_kv);
    for (int head = 0; head < HEADS_KV; ++head) {
        assert_int_equal(schedule->own.token_first[head],
                         schedule->steps[0].heads[head].token_first);
    }
}

/* Whether a block may be here: at step 0 if any rank uses it, later if this one does or, on the
 * ring, one further on. */
static bool may_be_here(const world_t *world, int rank, int s, int head, int64_t block)
{
    int origin = world->schedules[rank].steps[s].origin;
    int first = (rank - origin + world->ranks) % world->ranks;
    int end = (is_direct(world) && (s > 0)) ? first + 1 : world->ranks;
    bool wanted = false;

    for (int h = first; h < end; ++h) {
        wanted =
            wanted || world->wanted[wanted_at(world, (origin + h) % world->ranks, head, block)];
    }
    return wanted;
}

/* Every block here is wanted, and is complete and in order. */
static void check_chunk(const world_t *world, int rank, int s)
{
    const bsattn_step_t *step = &world->schedules[rank].steps[s];
    int block = world->problem.block;

    for (int head = 0; head < HEADS_KV; ++head) {
        for (int64_t t = 0; t < step->heads[head].token_count; ++t) {
            int64_t id = world->chunks[rank][step->heads[head].token_first + t];
            int64_t j = (id - key_id(world, head, 0)) / block;

            assert_int_equal(id - key_id(world, head, j * block), t % block);
            assert_int_equal(bsattn_layout_owner(&world->demand.layout, j), step->origin);
            assert_true(may_be_here(world, rank, s, head, j));
        }
    }
}

/* Carry out the items of a step: find the key blocks where the lists say they are. */
static void compute(world_t *world, int rank, int s, int *touched)
{
    const bsattn_schedule_t *schedule = &world->schedules[rank];
    const bsattn_step_t *step = &schedule->steps[s];
    int block = world->problem.block;

    for (int head = 0; head < HEADS_Q; ++head) {
        int kv = head / (HEADS_Q / HEADS_KV);
        const bsattn_work_list_t *list = &step->lists[schedule->list_of_head[head]];

        assert_true(list->item_count <= step->item_count_max);
        for (int64_t n = 0; n < list->item_count; ++n) {
            const bsattn_work_item_t *item = &list->items[n];
            int64_t i = bsattn_layout_block(&world->demand.layout, rank, item->row);
            int *steps_of_row = &touched[(head * world->nb + i) * 3];
            int64_t blocks = 0;

            assert_true((n == 0) || (list->items[n - 1].block_count >= item->block_count));
            assert_int_equal(item->first, steps_of_row[0] == 0);
            assert_int_equal(steps_of_row[1], 0);
            ++steps_of_row[0];
            steps_of_row[1] = item->last;
            for (int32_t k = 0; k < item->run_count; ++k) {
                const bsattn_key_run_t *run = &list->runs[item->run_first + k];
                for (int32_t slot = run->slot; slot < run->slot + run->count; ++slot) {
                    int64_t row = step->heads[kv].token_first + (int64_t)slot * block;
                    int64_t j = (world->chunks[rank][row] - key_id(world, kv, 0)) / block;
                    assert_true((int64_t)slot * block < step->heads[kv].token_count);
                    assert_int_equal(k < item->partial_count, world->problem.causal && (j == i));
                    ++world->used[(head * world->nb + i) * world->nb + j];
                    ++blocks;
                }
            }
            assert_int_equal(blocks, item->block_count);
        }
    }
}

static int64_t forward_tokens(const bsattn_step_t *step)
{
    int64_t tokens = 0;

    for (size_t r = 0; r < step->forward_count; ++r) {
        tokens += step->forward[r].count;
    }
    return tokens;
}

/* Hand every rank's forward rows to the rank that they are for. */
static void forward(world_t *world, int s)
{
    int64_t **next = calloc((size_t)world->ranks, sizeof(*next));

    for (int rank = 0; rank < world->ranks; ++rank) {
        const bsattn_schedule_t *schedule = &world->schedules[rank];
        const bsattn_step_t *step = &schedule->steps[s];
        const int64_t *rows = is_direct(world) ? world->outgoing[rank] : world->chunks[rank];
        int64_t row_count = is_direct(world) ? schedule->outgoing.tokens : step->tokens_kv;
        const bsattn_step_t *then = &world->schedules[step->to].steps[s + 1];
        int64_t at = 0;

        assert_int_equal(world->schedules[step->to].steps[s].from, rank);
        assert_int_equal(forward_tokens(step), then->tokens_kv);
        assert_true(!is_direct(world) || (then->origin == rank));
        assert_null(next[step->to]);
        next[step->to] = calloc((size_t)then->tokens_kv + 1, sizeof(int64_t));
        for (size_t r = 0; r < step->forward_count; ++r) {
            assert_true((step->forward[r].first >= 0) && (step->forward[r].count > 0));
            assert_true(step->forward[r].first + step->forward[r].count <= row_count);
            memcpy(next[step->to] + at, rows + step->forward[r].first,
                   (size_t)step->forward[r].count * sizeof(int64_t));
            at += step->forward[r].count;
        }
        assert_int_equal(at, then->tokens_kv);
    }
    for (int rank = 0; rank < world->ranks; ++rank) {
        free(world->chunks[rank]);
        world->chunks[rank] = next[rank];
    }
    free(next);
}

static void check_used(const world_t *world, const mask_case_t *mask, const int *touched)
{
    for (int head = 0; head < HEADS_Q; ++head) {
        for (int64_t i = 0; i < world->nb; ++i) {
            int rank = bsattn_layout_owner(&world->demand.layout, i);
            const bsattn_schedule_t *schedule = &world->schedules[rank];
            const bsattn_empty_rows_t *empty = &schedule->empty[schedule->list_of_head[head]];
            const int *steps_of_row = &touched[(head * world->nb + i) * 3];
            bool said_empty = false;

            for (int64_t j = 0; j < world->nb; ++j) {
                assert_int_equal(world->used[(head * world->nb + i) * world->nb + j],
                                 mask_uses(world, mask, head, i, j));
            }
            for (int64_t r = 0; r < empty->count; ++r) {
                said_empty = said_empty || (bsattn_layout_block(&world->demand.layout, rank,
                                                                empty->rows[r]) == i);
            }
            assert_int_equal(said_empty, steps_of_row[0] == 0);
            assert_int_equal(steps_of_row[1], steps_of_row[0] > 0);
        }
    }
}

/* Only groups of query blocks with one that has work in more than one step have a state, each its own;
 * the blocks of a group have theirs one after the other. */
static void check_states(const world_t *world, int rank)
{
    const bsattn_schedule_t *schedule = &world->schedules[rank];
    int64_t group = (world->problem.block < 64) ? 64 / world->problem.block : 1;
    int64_t *place = calloc((size_t)schedule->rows + 1, sizeof(*place)); /* of a group, and 1 */
    bool *taken = calloc((size_t)schedule->state_blocks + 1, sizeof(*taken));
    bool *needed = calloc((size_t)schedule->rows + 1, sizeof(*needed));
    int64_t count = 0;

    for (int s = 0; s < schedule->step_count; ++s) {
        for (int l = 0; l < schedule->list_count; ++l) {
            const bsattn_work_list_t *list = &schedule->steps[s].lists[l];
            for (int64_t n = 0; n < list->item_count; ++n) {
                const bsattn_work_item_t *item = &list->items[n];
                int64_t first = item->state_block - item->row % group;
                int64_t *of_group = &place[item->row / group];
                assert_true((*of_group == 0) || (*of_group == first + 1));
                *of_group = first + 1;
                needed[item->row / group] =
                    needed[item->row / group] || !item->first || !item->last;
            }
        }
    }
    for (int64_t g = 0; g * group < schedule->rows; ++g) {
        if (needed[g]) {
            assert_int_equal((place[g] - 1) % group, 0);
            assert_true((place[g] > 0) && (place[g] - 1 + group <= schedule->state_blocks));
            assert_false(taken[place[g] - 1]);
            taken[place[g] - 1] = true;
            count += group;
        }
    }
    assert_int_equal(count, schedule->state_blocks);
    free(place);
    free(taken);
    free(needed);
}

static size_t no_scratch(int head_dim, int block)
{
    return (size_t)(head_dim * block);
}

/* The runs of a rank's rows, each by itself: where an owner's blocks end a run ends. */
static int64_t count_runs(const world_t *world, int rank)
{
    const bsattn_demand_t *demand = &world->demand;
    bsattn_row_work_t work = {0};
    bsattn_spans_t row = {0};
    int64_t runs = 0;

    for (int c = 0; c < demand->list_class_count; ++c) {
        for (int64_t r = 0; r < bsattn_layout_count(&demand->layout, rank); ++r) {
            int64_t i = bsattn_layout_block(&demand->layout, rank, r);
            assert_int_equal(bsattn_pattern_class_row(world->pattern,
                                                      demand->list_classes[c].pattern_class, i,
                                                      &work, &row),
                             0);
            for (size_t s = 0; s < row.count; ++s) {
                bsattn_span_t span = row.items[s];
                bsattn_piece_walk_t walk;
                bsattn_piece_t piece;
                if (world->problem.causal && (span.last == i + 1)) {
                    --span.last; /* the diagonal is a run of its own */
                    ++runs;
                }
                bsattn_piece_begin(&walk, &demand->layout, span);
                while ((span.first < span.last) && bsattn_piece_next(&walk, &piece)) {
                    ++runs;
                }
            }
        }
    }
    bsattn_spans_free(&row);
    bsattn_row_work_free(&work);
    return runs;
}

/* Tokens that chunks and what is sent have room for. */
static int64_t chunk_tokens(const world_t *world, int rank, bool keys_in_place)
{
    const bsattn_schedule_t *schedule = &world->schedules[rank];
    int64_t whole = bsattn_demand_slot_tokens(&world->demand, rank, 0, schedule->rows) * HEADS_KV;
    bool in_place = keys_in_place && (schedule->own.tokens == whole);
    int64_t largest[2] = {0, 0};

    for (int s = in_place ? 1 : 0; s < schedule->step_count; ++s) {
        int64_t tokens = schedule->steps[s].tokens_kv;
        largest[s % 2] = (tokens > largest[s % 2]) ? tokens : largest[s % 2];
    }
    if (is_direct(world)) {
        return largest[0] + largest[1] + schedule->outgoing.tokens;
    }
    if (in_place) {
        int64_t tokens = forward_tokens(&schedule->steps[0]);
        assert_int_equal(tokens, schedule->outgoing.tokens);
        largest[0] = (tokens > largest[0]) ? tokens : largest[0];
    }
    return largest[0] + largest[1];
}

/* The estimate says what the schedules do. */
static void check_estimate(const world_t *world, bool keys_in_place)
{
    bsattn_machine_t machine = {.scratch_bytes = no_scratch,
                                .threads = 2,
                                .keys_in_place = keys_in_place,
                                .flops_per_s = 1e9,
                                .link_bytes_per_s = 1e9};
    bsattn_estimate_t *estimate;
    int64_t row_bytes = 2 * (int64_t)bsattn_problem_row_bytes(&world->problem);
    double pairs = 0;
    bsattn_pattern_stats_t stats;

    assert_int_equal(bsattn_estimate_best(&world->demand, &machine, (int)world->demand.route.kind,
                                          INFINITY, &estimate),
                     0);
    assert_int_equal(bsattn_pattern_stats(world->pattern, 2, &stats), 0);
    for (int rank = 0; rank < world->ranks; ++rank) {
        const bsattn_rank_estimate_t *predicted = bsattn_estimate_rank(estimate, rank);
        const bsattn_schedule_t *schedule = &world->schedules[rank];
        bsattn_schedule_counts_t counts;
        int64_t sent = 0;
        int64_t received = 0;
        int64_t needed = 0;

        for (int s = 0; s < schedule->step_count; ++s) {
            sent += forward_tokens(&schedule->steps[s]);
            received += (s > 0) ? schedule->steps[s].tokens_kv : 0;
        }
        for (int head = 0; head < HEADS_KV; ++head) {
            for (int64_t j = 0; j < world->nb; ++j) {
                if (world->wanted[wanted_at(world, rank, head, j)] &&
                    (bsattn_layout_owner(&world->demand.layout, j) != rank)) {
                    needed += bsattn_problem_span_tokens(&world->problem, j, j + 1);
                }
            }
        }
        assert_int_equal(predicted->bytes_sent, sent * row_bytes);
        assert_int_equal(predicted->bytes_received, received * row_bytes);
        assert_int_equal(predicted->bytes_needed, needed * row_bytes);
        assert_true(predicted->bytes_received >= predicted->bytes_needed);
        assert_true(!is_direct(world) || (predicted->bytes_received == predicted->bytes_needed));
        assert_int_equal(predicted->memory.chunks,
                         chunk_tokens(world, rank, keys_in_place) * row_bytes);
        assert_int_equal(predicted->memory.state,
                         bsattn_problem_state_bytes(&world->problem, schedule->state_blocks));
        assert_true(schedule->bytes >= predicted->memory.lists);
        assert_int_equal(bsattn_schedule_count(&world->demand, rank, NULL, &counts), 0);
        assert_int_equal(counts.runs, count_runs(world, rank));
        pairs += predicted->pairs_token;
    }
    assert_true(pairs == stats.pairs_token * HEADS_Q);
    bsattn_estimate_destroy(estimate);
}

static void check_world(const mask_case_t *mask, int64_t seq_len, int block, int causal, int ranks,
                        const char *layout, bsattn_exchange_kind_t exchange)
{
    world_t world;
    int *touched; /* [Hq, nb, 3]: steps with work, last seen, unused */

    world_init(&world, mask, seq_len, block, causal, ranks, layout, exchange);
    touched = calloc(HEADS_Q * (size_t)world.nb * 3, sizeof(*touched));
    for (int rank = 0; rank < ranks; ++rank) {
        pack_own(&world, rank);
    }
    for (int s = 0; s < world.demand.route.step_count; ++s) {
        for (int rank = 0; rank < ranks; ++rank) {
            check_chunk(&world, rank, s);
            compute(&world, rank, s, touched);
        }
        if (s + 1 < world.demand.route.step_count) {
            forward(&world, s);
        } else {
            for (int rank = 0; rank < ranks; ++rank) {
                assert_int_equal(forward_tokens(&world.schedules[rank].steps[s]), 0);
            }
        }
    }
    check_used(&world, mask, touched);
    for (int rank = 0; rank < ranks; ++rank) {
        check_states(&world, rank);
    }
    check_estimate(&world, false);
    check_estimate(&world, true);
    free(touched);
    world_free(&world);
}

static void every_pair_once_and_nothing_in_vain(void **state)
{
    static const int64_t lengths[] = {1, 16, 33, 500, 777};
    static const int ranks[] = {1, 2, 3, 4, 7, 8};

    (void)state;
    for (size_t c = 0; c < MASK_CASE_COUNT; ++c) {
        for (size_t n = 0; n < sizeof(lengths) / sizeof(lengths[0]); ++n) {
            for (size_t p = 0; p < sizeof(ranks) / sizeof(ranks[0]); ++p) {
                for (size_t l = 0; l < sizeof(layouts) / sizeof(layouts[0]); ++l) {
                    int block = ((n + p + l) % 4 == 0) ? 64 : 16;
                    for (int kind = 0; kind < BSATTN_EXCHANGE_COUNT; ++kind) {
                        check_world(&mask_cases[c], lengths[n], block, (int)(n + p + l + c) % 2,
                                    ranks[p], layouts[l], (bsattn_exchange_kind_t)kind);
                    }
                }
            }
        }
    }
}

/* Sets of used blocks are kept whole or not at all, and the ring can do without. */
static void too_many_spans_are_forgotten(void **state)
{
    static const int64_t limits[] = {0, 1, 3, INT64_MAX};
    bsattn_problem_t problem;
    bsattn_pattern_t *pattern;
    bsattn_layout_t layout;

    (void)state;
    bsattn_problem_init(&problem);
    problem.seq_len = 4096;
    assert_int_equal(bsattn_pattern_create("dilated(rates=1:7)", &problem, &pattern), 0);
    assert_int_equal(bsattn_layout_parse("contiguous", pattern->blocks, 4, &layout), 0);
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); ++i) {
        bsattn_demand_t demand;
        assert_int_equal(bsattn_demand_init(&demand, pattern, &layout, 2, limits[i], INT64_MAX), 0);
        assert_int_equal(demand.used != NULL, limits[i] == INT64_MAX);
        assert_int_equal(demand.route.kind, BSATTN_EXCHANGE_RING);
        assert_int_equal(demand.route.step_count, 4);
        assert_true(demand.hop_used[1] && !demand.hop_used[2] && demand.hop_used[3]);
        bsattn_demand_free(&demand);
    }
    bsattn_pattern_destroy(pattern);
}

/* Asked only whether ranks need less than so much, it is given up where they do not. */
static void too_much_is_given_up(void **state)
{
    bsattn_problem_t problem;
    bsattn_pattern_t *pattern;

    (void)state;
    bsattn_problem_init(&problem);
    problem.seq_len = 4096;
    assert_int_equal(bsattn_pattern_create("dilated(rates=1:7)", &problem, &pattern), 0);
    for (size_t l = 0; l < sizeof(layouts) / sizeof(layouts[0]); ++l) {
        bsattn_layout_t layout;
        bsattn_demand_t whole;
        int64_t needed = 0;

        assert_int_equal(bsattn_layout_parse(layouts[l], pattern->blocks, 5, &layout), 0);
        assert_int_equal(bsattn_demand_init(&whole, pattern, &layout, 2, 0, INT64_MAX), 0);
        assert_false(whole.given_up);
        for (int rank = 0; rank < 5; ++rank) {
            needed += whole.bytes_needed[rank];
        }
        for (int more = 0; more < 2; ++more) {
            bsattn_demand_t demand;
            assert_int_equal(bsattn_demand_init(&demand, pattern, &layout, 2, 0, needed + more), 0);
            assert_int_equal(demand.given_up, more == 0);
            assert_true(demand.given_up || (demand.farthest == whole.farthest));
            bsattn_demand_free(&demand);
        }
        bsattn_demand_free(&whole);
    }
    bsattn_pattern_destroy(pattern);
}

/* The layout taken, and its totals. The estimate is the caller's to destroy. */
static bsattn_estimate_t *choose(const bsattn_pattern_t *pattern, int ranks, const char *layout,
                                 const bsattn_machine_t *machine)
{
    bsattn_plan_params_t params = {.layout = layout, .exchange = "auto"};
    bsattn_demand_t demand;
    bsattn_estimate_t *estimate;

    assert_int_equal(bsattn_estimate_choose(pattern, ranks, &params, machine, &demand, &estimate),
                     0);
    bsattn_demand_free(&demand);
    return estimate;
}

/* Of a pattern and a machine, the layout that "auto" takes is what comparing all of them gives. */
static void check_choice(const bsattn_pattern_t *pattern, int ranks,
                         const bsattn_machine_t *machine)
{
    static const char *const tried[] = {"contiguous", "zigzag", "cyclic"};
    bsattn_estimate_t *taken = choose(pattern, ranks, "auto", machine);
    bsattn_estimate_t *best = NULL;

    for (size_t i = 0; i < sizeof(tried) / sizeof(tried[0]); ++i) {
        bsattn_estimate_t *other = choose(pattern, ranks, tried[i], machine);
        const bsattn_estimate_totals_t *a = &other->totals;
        const bsattn_estimate_totals_t *b = (best != NULL) ? &best->totals : NULL;
        if ((b == NULL) || bsattn_clearly_faster(a->time_ms, b->time_ms) ||
            (!bsattn_clearly_faster(b->time_ms, a->time_ms) && (a->bytes_sent < b->bytes_sent))) {
            bsattn_estimate_destroy(best);
            best = other;
        } else {
            bsattn_estimate_destroy(other);
        }
    }
    assert_string_equal(taken->totals.layout, best->totals.layout);
    assert_true(taken->totals.time_ms == best->totals.time_ms);
    assert_int_equal(taken->totals.bytes_sent, best->totals.bytes_sent);
    bsattn_estimate_destroy(best);
    bsattn_estimate_destroy(taken);
}

static void layouts_given_up_are_no_better(void **state)
{
    static const char *const patterns[] = {
        "dense",
        "dense | dense",
        "local(window=256)+global(tokens=64)",
        "hierarchical(levels=1:256/4:1024/16:all,orient=rows)",
        "global(tokens=64) | local(window=512) | sink(tokens=2000)",
        "0@global(tokens=128);1-3@local(window=256)",
    };
    static const int rank_counts[] = {2, 5, 24};

    (void)state;
    for (size_t p = 0; p < sizeof(patterns) / sizeof(patterns[0]); ++p) {
        for (int causal = 0; causal < 2; ++causal) {
            bsattn_problem_t problem;
            bsattn_pattern_t *pattern;

            bsattn_problem_init(&problem);
            problem.seq_len = 12000;
            problem.causal = causal;
            problem.heads_q = HEADS_Q;
            problem.heads_kv = HEADS_KV;
            assert_int_equal(bsattn_pattern_create(patterns[p], &problem, &pattern), 0);
            /* From all exchange to all computation, one covering the other or not. */
            for (int c = 0; c < 3 * 2 * 12; ++c) {
                bsattn_machine_t machine = {.scratch_bytes = no_scratch,
                                            .threads = 2,
                                            .flops_per_s = 1e9,
                                            .link_bytes_per_s = 1e4 * pow(4.0, c / 6),
                                            .hides_exchange = (c / 3 % 2 != 0)};
                check_choice(pattern, rank_counts[c % 3], &machine);
            }
            bsattn_pattern_destroy(pattern);
        }
    }
}

static void layouts_are_one_to_one(void **state)
{
    static const int64_t counts[] = {1, 2, 5, 16, 97};

    (void)state;
    for (size_t n = 0; n < sizeof(counts) / sizeof(counts[0]); ++n) {
        for (int ranks = 1; ranks < 12; ++ranks) {
            for (size_t l = 0; l < sizeof(layouts) / sizeof(layouts[0]); ++l) {
                bsattn_layout_t layout;
                int64_t sum = 0;
                int64_t most = 0;
                int64_t least = INT64_MAX;

                assert_int_equal(bsattn_layout_parse(layouts[l], counts[n], ranks, &layout), 0);
                for (int rank = 0; rank < ranks; ++rank) {
                    int64_t count = bsattn_layout_count(&layout, rank);
                    int64_t before = -1;
                    for (int64_t s = 0; s < count; ++s) {
                        int64_t block = bsattn_layout_block(&layout, rank, s);
                        assert_true((block > before) && (block < counts[n]));
                        assert_int_equal(bsattn_layout_owner(&layout, block), rank);
                        assert_int_equal(bsattn_layout_lower(&layout, rank, block), s);
                        assert_true(bsattn_layout_run_end(&layout, block) > block);
                        before = block;
                    }
                    sum += count;
                    most = (count > most) ? count : most;
                    least = (count < least) ? count : least;
                }
                assert_int_equal(sum, counts[n]);
                assert_true((most - least <= 2) || (layout.run > 1));
            }
        }
    }
}

static void bad_layouts_are_refused(void **state)
{
    static const char *const bad[] = {"", "zig", "cyclic:", "cyclic:0", "cyclic:-1", "cyclic:x"};
    bsattn_layout_t layout;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); ++i) {
        assert_int_equal(bsattn_layout_parse(bad[i], 10, 2, &layout), BSATTN_ERR_INPUT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts_are_one_to_one),
        cmocka_unit_test(bad_layouts_are_refused),
        cmocka_unit_test(every_pair_once_and_nothing_in_vain),
        cmocka_unit_test(too_many_spans_are_forgotten),
        cmocka_unit_test(too_much_is_given_up),
        cmocka_unit_test(layouts_given_up_are_no_better),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
