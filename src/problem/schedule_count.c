/* SPDX-License-Identifier: Apache-2.0 */
/* What a rank's schedule will hold, without building it. */
#include "problem/problem.h"
#include "problem/schedule.h"

#include <stdlib.h>

static int heads_in_list(const bsattn_demand_t *demand, int list_class)
{
    int heads = 0;

    for (int head = 0; head < demand->pattern->problem.heads_q; ++head) {
        heads += (demand->list_class_of_head[head] == list_class) ? 1 : 0;
    }
    return heads;
}

/* The row at hand, by hop. Where it has most in common with the row before it, it is counted by what
 * comes and what goes. */
typedef struct tally {
    int64_t *runs;   /* [P] */
    int64_t *tokens; /* [P], of keys */
    int32_t *active; /* [P]: hops with runs, in any order */
    int32_t *place;  /* [P], in active, of those */
    int active_count;
    int64_t run_count;
    int64_t token_count;
    bsattn_row_work_t row_work;
    bsattn_spans_t row;    /* without the diagonal */
    bsattn_spans_t before; /* the row that is counted */
    bsattn_span_t home;    /* the run of the rank's own blocks that the row's is in */
} tally_t;

static void tally_free(tally_t *tally)
{
    bsattn_row_work_free(&tally->row_work);
    bsattn_spans_free(&tally->row);
    bsattn_spans_free(&tally->before);
    free(tally->runs);
    free(tally->tokens);
    free(tally->active);
    free(tally->place);
}

static bsattn_status_t tally_alloc(tally_t *tally, int ranks)
{
    tally->runs = calloc((size_t)ranks, sizeof(*tally->runs));
    tally->tokens = calloc((size_t)ranks, sizeof(*tally->tokens));
    tally->active = calloc((size_t)ranks, sizeof(*tally->active));
    tally->place = calloc((size_t)ranks, sizeof(*tally->place));
    return ((tally->runs == NULL) || (tally->tokens == NULL) || (tally->active == NULL) ||
            (tally->place == NULL))
               ? bsattn_fail(BSATTN_ERR_MEMORY, "no memory to count the work of a rank")
               : BSATTN_OK;
}

static void tally_piece(tally_t *tally, int hop, int64_t runs, int64_t tokens)
{
    if (tally->runs[hop] == 0) {
        tally->place[hop] = tally->active_count;
        tally->active[tally->active_count++] = hop;
    }
    tally->runs[hop] += runs;
    tally->tokens[hop] += tokens;
    tally->run_count += runs;
    tally->token_count += tokens;
    if (tally->runs[hop] == 0) {
        int32_t moved = tally->active[--tally->active_count];
        tally->active[tally->place[hop]] = moved;
        tally->place[moved] = tally->place[hop];
    }
}

static void tally_clear(tally_t *tally)
{
    for (int k = 0; k < tally->active_count; ++k) {
        tally->runs[tally->active[k]] = 0;
        tally->tokens[tally->active[k]] = 0;
    }
    tally->active_count = 0;
    tally->run_count = 0;
    tally->token_count = 0;
}

/* @param sign  1: spans come, -1: they go */
static void tally_spans(tally_t *tally, const bsattn_demand_t *demand, int rank,
                        const bsattn_spans_t *spans, int sign)
{
    for (size_t s = 0; s < spans->count; ++s) {
        bsattn_span_t span = spans->items[s];
        bsattn_piece_walk_t walk;
        bsattn_piece_t piece;

        /* Most are at home in most patterns. */
        if ((span.first >= tally->home.first) && (span.last <= tally->home.last)) {
            tally_piece(tally, 0, sign,
                        sign * bsattn_problem_span_tokens(&demand->pattern->problem, span.first,
                                                          span.last));
            continue;
        }
        bsattn_piece_begin(&walk, &demand->layout, span);
        while (bsattn_piece_next(&walk, &piece)) {
            tally_piece(
                tally, bsattn_demand_hop(demand, rank, piece.owner), sign,
                sign * bsattn_demand_slot_tokens(demand, piece.owner, piece.slot, piece.count));
        }
    }
}

/* Take the diagonal block of a row out of its spans. @return how often it was there */
static int64_t remove_diagonal(bsattn_spans_t *row, int64_t block)
{
    int64_t removed = 0;
    size_t kept = 0;

    for (size_t s = 0; s < row->count; ++s) {
        bsattn_span_t span = row->items[s];
        if (span.last == block + 1) {
            --span.last;
            ++removed;
        }
        row->items[kept] = span;
        kept += (span.first < span.last) ? 1 : 0;
    }
    row->count = kept;
    return removed;
}

/* Count a row of a list class.
 * @param diagonals_p  receives its diagonal blocks, which are in the rank's own chunk and not in the
 *                     tally */
static bsattn_status_t tally_row(tally_t *tally, const bsattn_demand_t *demand, int rank,
                                 int list_class, int64_t local_row, int64_t *diagonals_p)
{
    int64_t i = bsattn_layout_block(&demand->layout, rank, local_row);
    size_t first;
    size_t last;

    BSATTN_TRY(bsattn_pattern_class_row(demand->pattern,
                                        demand->list_classes[list_class].pattern_class, i,
                                        &tally->row_work, &tally->row));
    *diagonals_p = demand->pattern->problem.causal ? remove_diagonal(&tally->row, i) : 0;
    if ((i < tally->home.first) || (i >= tally->home.last)) {
        tally->home =
            (bsattn_span_t){(int32_t)i, (int32_t)bsattn_layout_run_end(&demand->layout, i)};
    }
    bsattn_spans_common(&tally->before, &tally->row, &first, &last);
    if (2 * (first + last) < tally->before.count) {
        tally_clear(tally);
        tally_spans(tally, demand, rank, &tally->row, 1);
    } else {
        bsattn_spans_t come = bsattn_spans_inner(&tally->row, first, last);
        bsattn_spans_t gone = bsattn_spans_inner(&tally->before, first, last);
        tally_spans(tally, demand, rank, &come, 1);
        tally_spans(tally, demand, rank, &gone, -1);
    }
    bsattn_spans_swap(&tally->before, &tally->row);
    return BSATTN_OK;
}

static void add_pairs(double pairs, int hop, double *pairs_of_hop, bsattn_schedule_counts_t *counts)
{
    counts->pairs_token += pairs;
    if (pairs_of_hop != NULL) {
        pairs_of_hop[hop] += pairs;
    }
}

/* What the row at hand adds.
 * @param queries  tokens of the query block
 * @return its items */
static int64_t add_row(const tally_t *tally, double queries, int heads, int64_t diagonals,
                       double *pairs_of_hop, bsattn_schedule_counts_t *counts)
{
    bool diagonal_alone = (diagonals > 0) && (tally->runs[0] == 0);
    int64_t items = tally->active_count + (diagonal_alone ? 1 : 0);

    for (int k = 0; k < tally->active_count; ++k) {
        int hop = tally->active[k];
        add_pairs(heads * queries * (double)tally->tokens[hop], hop, pairs_of_hop, counts);
    }
    add_pairs(heads * (double)diagonals * queries * (queries + 1.0) / 2.0, 0, pairs_of_hop, counts);
    counts->items += items;
    counts->runs += tally->run_count + diagonals;
    counts->empty_rows += (items == 0) ? 1 : 0;
    return items;
}

/* Note the row at hand if it is longer than all before.
 * @param queries   tokens of the query block, summed over query heads
 * @param branches  a key may be in all of them, and comes once */
static void note_longest(const tally_t *tally, double queries, int kv_heads, int branches,
                         bsattn_schedule_counts_t *counts)
{
    double pairs = queries * (double)tally->token_count;

    if (pairs > counts->longest_pairs) {
        counts->longest_pairs = pairs;
        counts->longest_keys = kv_heads * (tally->token_count / branches);
    }
}

static int branches_of(const bsattn_demand_t *demand, int list_class)
{
    const bsattn_pattern_t *pattern = demand->pattern;
    int head = pattern->head_of_class[demand->list_classes[list_class].pattern_class];

    return pattern->masks[pattern->mask_of_head[head]].branch_count;
}

bsattn_status_t bsattn_schedule_count(const bsattn_demand_t *demand, int rank, double *pairs_of_hop,
                                      bsattn_schedule_counts_t *counts_p)
{
    int64_t rows = bsattn_layout_count(&demand->layout, rank);
    bsattn_schedule_counts_t counts = {0};
    tally_t tally = {0};
    int32_t *states = calloc((size_t)rows + 1, sizeof(*states));
    bsattn_status_t status =
        (states == NULL) ? bsattn_fail(BSATTN_ERR_MEMORY, "no memory to count the work of a rank")
                         : tally_alloc(&tally, demand->layout.ranks);

    for (int c = 0; (c < demand->list_class_count) && (status == BSATTN_OK); ++c) {
        int heads = heads_in_list(demand, c);
        int kv_heads = bsattn_demand_kv_heads(demand, demand->list_classes[c].kv_class);
        int branches = branches_of(demand, c);
        for (int64_t r = 0; (r < rows) && (status == BSATTN_OK); ++r) {
            double queries = (double)bsattn_demand_slot_tokens(demand, rank, r, 1);
            int64_t diagonals = 0;
            status = tally_row(&tally, demand, rank, c, r, &diagonals);
            if (status == BSATTN_OK) {
                int64_t items = add_row(&tally, queries, heads, diagonals, pairs_of_hop, &counts);
                states[r] |= (items > 1) ? 1 : 0;
                note_longest(&tally, queries * heads, kv_heads, branches, &counts);
            }
        }
    }
    if (status == BSATTN_OK) {
        counts.state_blocks = bsattn_schedule_place_states(demand, rows, states);
    }
    free(states);
    tally_free(&tally);
    BSATTN_TRY(status);
    *counts_p = counts;
    return BSATTN_OK;
}

int64_t bsattn_schedule_bytes(const bsattn_demand_t *demand, int steps,
                              const bsattn_schedule_counts_t *counts)
{
    int64_t per_step = (int64_t)sizeof(bsattn_step_t) +
                       demand->pattern->problem.heads_kv * (int64_t)sizeof(bsattn_chunk_head_t) +
                       demand->list_class_count * (int64_t)sizeof(bsattn_work_list_t);

    return counts->items * (int64_t)sizeof(bsattn_work_item_t) +
           counts->runs * (int64_t)sizeof(bsattn_key_run_t) +
           counts->empty_rows * (int64_t)sizeof(int32_t) + steps * per_step;
}
