/* SPDX-License-Identifier: Apache-2.0 */
#include "problem/schedule.h"

#include "base/array.h"
#include "problem/problem.h"

#include <stdlib.h>
#include <string.h>

enum { ABSENT = -1 };

/* A run of key blocks of one query block, before it has a place in a chunk. */
typedef struct raw_run {
    int32_t row;  /* local query block */
    int32_t step; /* at which the owner's chunk is here */
    int32_t slot; /* at the owner; later the place in the chunk */
    int32_t count;
    int32_t owner;
    int32_t partial;
} raw_run_t;

typedef struct raw_list {
    raw_run_t *items;
    size_t count;
    size_t capacity;
} raw_list_t;

typedef struct run_list {
    bsattn_token_run_t *items;
    size_t count;
    size_t capacity;
} run_list_t;

/* Buffers of one build. */
typedef struct build {
    const bsattn_demand_t *demand;
    int rank;
    bsattn_row_work_t row_work;
    bsattn_spans_t row;
    raw_list_t raw;
    raw_run_t *by_step;  /* raw, bucketed by step */
    size_t *step_first;  /* [steps + 2] */
    int32_t *place;      /* [kv_class_count, nb]: place of a slot in the chunk as it is here, or
                          * ABSENT */
    int32_t *out_place;  /* [kv_class_count, rows]: place of an own slot among what others use */
    int32_t *step_range; /* [rows, 2]: first and last step of a row */
    run_list_t forward;
    size_t *forward_first; /* [steps + 1] */
    run_list_t *used_here; /* [kv_class_count]: rows of a class that a rank uses of this one's, from
                            * where those of a head begin */
} build_t;

static bsattn_status_t fail_memory(void)
{
    return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the schedule of a rank");
}

static bsattn_status_t raw_add(raw_list_t *list, raw_run_t run)
{
    BSATTN_TRY(
        bsattn_array_reserve(&list->items, &list->capacity, list->count + 1, sizeof(*list->items)));
    list->items[list->count++] = run;
    return BSATTN_OK;
}

/* Append rows, joining the last run if they follow it. joinable: first entry of this list that may
 * be joined. */
static bsattn_status_t run_add(run_list_t *list, size_t joinable, int64_t first, int64_t count)
{
    if ((list->count > joinable) &&
        (list->items[list->count - 1].first + list->items[list->count - 1].count == first)) {
        list->items[list->count - 1].count += count;
        return BSATTN_OK;
    }
    BSATTN_TRY(
        bsattn_array_reserve(&list->items, &list->capacity, list->count + 1, sizeof(*list->items)));
    list->items[list->count++] = (bsattn_token_run_t){.first = first, .count = count};
    return BSATTN_OK;
}

static void build_free(build_t *build)
{
    bsattn_row_work_free(&build->row_work);
    bsattn_spans_free(&build->row);
    free(build->raw.items);
    free(build->by_step);
    free(build->step_first);
    free(build->place);
    free(build->out_place);
    free(build->step_range);
    free(build->forward.items);
    free(build->forward_first);
    for (int c = 0; (build->used_here != NULL) && (c < build->demand->kv_class_count); ++c) {
        free(build->used_here[c].items);
    }
    free(build->used_here);
}

/* ------------------------------------------------------------------------------ runs of one row */

/* Append the runs of one query block: each span cut by owner, the causal diagonal apart. */
static bsattn_status_t collect_row(build_t *build, int list_class, int64_t local_row)
{
    const bsattn_demand_t *demand = build->demand;
    int rank = build->rank;
    int64_t i = bsattn_layout_block(&demand->layout, rank, local_row);
    bool causal = demand->pattern->problem.causal != 0;

    BSATTN_TRY(bsattn_pattern_class_row(demand->pattern,
                                        demand->list_classes[list_class].pattern_class, i,
                                        &build->row_work, &build->row));
    for (size_t s = 0; s < build->row.count; ++s) {
        bsattn_span_t span = build->row.items[s];
        bsattn_piece_walk_t walk;
        bsattn_piece_t piece;

        if (causal && (span.last == i + 1)) {
            raw_run_t diagonal = {(int32_t)local_row, 0, (int32_t)local_row, 1, rank, 1};
            BSATTN_TRY(raw_add(&build->raw, diagonal));
            --span.last;
        }
        bsattn_piece_begin(&walk, &demand->layout, span);
        while ((span.first < span.last) && bsattn_piece_next(&walk, &piece)) {
            int hop = bsattn_demand_hop(demand, rank, piece.owner);
            raw_run_t run = {(int32_t)local_row, demand->route.step_of_hop[hop],
                             piece.slot,         piece.count,
                             piece.owner,        0};
            BSATTN_TRY(raw_add(&build->raw, run));
        }
    }
    return BSATTN_OK;
}

/* ---------------------------------------------------------------------------------------- state */

int64_t bsattn_schedule_place_states(const bsattn_demand_t *demand, int64_t rows, int32_t *places)
{
    int64_t group = bsattn_problem_state_group(&demand->pattern->problem);
    int64_t count = 0;

    for (int64_t first = 0; first < rows; first += group) {
        int64_t end = (first + group < rows) ? first + group : rows;
        bool needed = false;

        for (int64_t r = first; r < end; ++r) {
            needed = needed || (places[r] != 0);
            places[r] = (int32_t)(count + r - first);
        }
        count += needed ? group : 0;
    }
    return count;
}

/* -------------------------------------------------------------------------------------- packing */

/* The rows of a kv class whose blocks some rank uses, or some rank that far away.
 * places: [rows] of each slot among them; NULL: of no interest. tokens: receives their number */
static bsattn_status_t pack_class(const build_t *build, int kv_class, int32_t nearest,
                                  run_list_t *runs, int32_t *places, int64_t *tokens)
{
    const bsattn_demand_t *demand = build->demand;
    const int32_t *far = bsattn_demand_far(demand, kv_class, build->rank);
    int64_t slots = bsattn_layout_count(&demand->layout, build->rank);
    size_t joinable = runs->count;
    int32_t next = 0;

    *tokens = 0;
    for (int64_t s = 0; s < slots; ++s) {
        int64_t count = bsattn_demand_slot_tokens(demand, build->rank, s, 1);
        if (places != NULL) {
            places[s] = next;
        }
        if (far[s] >= nearest) {
            BSATTN_TRY(run_add(runs, joinable, s * demand->pattern->problem.block, count));
            *tokens += count;
            ++next;
        }
    }
    return BSATTN_OK;
}

/* Heads one after the other. class_tokens: [kv_class_count] */
static void place_heads(const bsattn_demand_t *demand, const int64_t *class_tokens,
                        bsattn_packing_t *packing)
{
    for (int head = 0; head < demand->pattern->problem.heads_kv; ++head) {
        packing->token_first[head] = packing->tokens;
        packing->tokens += class_tokens[demand->kv_class_of_head[head]];
    }
}

/* @param places  [kv_class_count, rows] or NULL */
static bsattn_status_t build_packing(const build_t *build, int32_t nearest,
                                     bsattn_packing_t *packing, int32_t *places)
{
    const bsattn_demand_t *demand = build->demand;
    int64_t slots = bsattn_layout_count(&demand->layout, build->rank);
    int64_t *class_tokens = calloc((size_t)demand->kv_class_count, sizeof(*class_tokens));
    bsattn_status_t status = (class_tokens == NULL) ? fail_memory() : BSATTN_OK;
    run_list_t runs = {0};

    for (int c = 0; (c < demand->kv_class_count) && (status == BSATTN_OK); ++c) {
        status = pack_class(build, c, nearest, &runs, (places == NULL) ? NULL : places + c * slots,
                            &class_tokens[c]);
        packing->first[c + 1] = runs.count;
    }
    packing->runs = runs.items; /* the schedule's from here on, also where this fails */
    if (status == BSATTN_OK) {
        place_heads(demand, class_tokens, packing);
    }
    free(class_tokens);
    return status;
}

/* What is packed from the rank's own shard: its chunk of step 0, and what others use. */
static bsattn_status_t build_packings(build_t *build, bsattn_schedule_t *schedule)
{
    const bsattn_demand_t *demand = build->demand;
    int classes = demand->kv_class_count;

    BSATTN_TRY(build_packing(build, 0, &schedule->own, NULL));
    BSATTN_TRY(build_packing(build, 1, &schedule->outgoing, build->out_place));
    schedule->bytes +=
        (int64_t)((schedule->own.first[classes] + schedule->outgoing.first[classes]) *
                  sizeof(bsattn_token_run_t));
    memcpy(schedule->kv_class_of_head, demand->kv_class_of_head,
           (size_t)demand->pattern->problem.heads_kv * sizeof(int));
    return BSATTN_OK;
}

/* --------------------------------------------------------------------------------------- chunks */

/* What an owner's chunk holds on the ring when it is here: blocks that are needed here or further on. */
static void mark_ring(const build_t *build, int kv_class, int32_t *place)
{
    const bsattn_demand_t *demand = build->demand;

    for (int owner = 0; owner < demand->layout.ranks; ++owner) {
        const int32_t *far = bsattn_demand_far(demand, kv_class, owner);
        int64_t first = demand->owner_first[owner];
        int64_t slots = bsattn_layout_count(&demand->layout, owner);
        int hop = bsattn_demand_hop(demand, build->rank, owner);

        for (int64_t s = 0; s < slots; ++s) {
            place[first + s] = (far[s] >= hop) ? 0 : ABSENT;
        }
    }
}

/* What owners send here: blocks that are used here; and of the rank's own what anyone uses. */
static void mark_direct(const build_t *build, int kv_class, int32_t *place)
{
    const bsattn_demand_t *demand = build->demand;
    const bsattn_spans_t *used = bsattn_demand_used(demand, kv_class, build->rank);
    const int32_t *far = bsattn_demand_far(demand, kv_class, build->rank);
    int64_t own = demand->owner_first[build->rank];
    int64_t slots = bsattn_layout_count(&demand->layout, build->rank);

    for (int64_t x = 0; x < demand->layout.blocks; ++x) {
        place[x] = ABSENT;
    }
    for (size_t s = 0; s < used->count; ++s) {
        bsattn_piece_walk_t walk;
        bsattn_piece_t piece;

        bsattn_piece_begin(&walk, &demand->layout, used->items[s]);
        while (bsattn_piece_next(&walk, &piece)) {
            int64_t first = demand->owner_first[piece.owner] + piece.slot;
            for (int64_t x = first; x < first + piece.count; ++x) {
                place[x] = 0;
            }
        }
    }
    for (int64_t s = 0; s < slots; ++s) {
        place[own + s] = (far[s] >= 0) ? 0 : ABSENT;
    }
}

/* The place of every slot in its owner's chunk as it arrives here: the number of lower slots that
 * came along. */
static void fill_places(build_t *build)
{
    const bsattn_demand_t *demand = build->demand;

    for (int c = 0; c < demand->kv_class_count; ++c) {
        int32_t *place = build->place + (int64_t)c * demand->layout.blocks;

        if (demand->route.kind == BSATTN_EXCHANGE_RING) {
            mark_ring(build, c, place);
        } else {
            mark_direct(build, c, place);
        }
        for (int owner = 0; owner < demand->layout.ranks; ++owner) {
            int32_t next = 0;
            for (int64_t x = demand->owner_first[owner]; x < demand->owner_first[owner + 1]; ++x) {
                place[x] = (place[x] == ABSENT) ? ABSENT : next++;
            }
        }
    }
}

/* The places of an owner's slots for a key head. */
static const int32_t *places_of(const build_t *build, int head, int owner)
{
    const bsattn_demand_t *demand = build->demand;

    return build->place + (int64_t)demand->kv_class_of_head[head] * demand->layout.blocks +
           demand->owner_first[owner];
}

static void fill_chunk_heads(build_t *build, bsattn_step_t *step)
{
    const bsattn_demand_t *demand = build->demand;
    int64_t slots = bsattn_layout_count(&demand->layout, step->origin);

    for (int head = 0; head < demand->pattern->problem.heads_kv; ++head) {
        const int32_t *place = places_of(build, head, step->origin);
        int64_t tokens = 0;

        for (int64_t s = 0; s < slots; ++s) {
            if (place[s] != ABSENT) {
                tokens += bsattn_demand_slot_tokens(demand, step->origin, s, 1);
            }
        }
        step->heads[head] =
            (bsattn_chunk_head_t){.token_first = step->tokens_kv, .token_count = tokens};
        step->tokens_kv += tokens;
    }
}

/* The next rank gets what is needed there or further on. */
static bsattn_status_t forward_ring(build_t *build, int step_index, const bsattn_step_t *step,
                                    int head, size_t joinable)
{
    const bsattn_demand_t *demand = build->demand;
    const int32_t *far = bsattn_demand_far(demand, demand->kv_class_of_head[head], step->origin);
    const int32_t *place = places_of(build, head, step->origin);
    int64_t slots = bsattn_layout_count(&demand->layout, step->origin);
    int block = demand->pattern->problem.block;

    for (int64_t s = 0; s < slots; ++s) {
        if (far[s] > step_index) {
            BSATTN_TRY(run_add(&build->forward, joinable,
                               step->heads[head].token_first + (int64_t)place[s] * block,
                               bsattn_demand_slot_tokens(demand, step->origin, s, 1)));
        }
    }
    return BSATTN_OK;
}

/* Find what a rank uses of this one's blocks through one kv class. */
static bsattn_status_t find_used_here(build_t *build, int kv_class, int user)
{
    const bsattn_demand_t *demand = build->demand;
    const bsattn_spans_t *used = bsattn_demand_used(demand, kv_class, user);
    const int32_t *place =
        build->out_place + kv_class * bsattn_layout_count(&demand->layout, build->rank);
    int64_t block = demand->pattern->problem.block;
    run_list_t *runs = &build->used_here[kv_class];

    runs->count = 0;
    for (size_t s = 0; s < used->count; ++s) {
        bsattn_piece_walk_t walk;
        bsattn_piece_t piece;

        bsattn_piece_begin(&walk, &demand->layout, used->items[s]);
        while (bsattn_piece_next(&walk, &piece)) {
            if (piece.owner == build->rank) {
                BSATTN_TRY(run_add(
                    runs, 0, place[piece.slot] * block,
                    bsattn_demand_slot_tokens(demand, piece.owner, piece.slot, piece.count)));
            }
        }
    }
    return BSATTN_OK;
}

/* A user gets what it uses of this rank's blocks. */
static bsattn_status_t forward_direct(build_t *build, const bsattn_packing_t *outgoing, int head,
                                      size_t joinable)
{
    const run_list_t *runs = &build->used_here[build->demand->kv_class_of_head[head]];

    for (size_t r = 0; r < runs->count; ++r) {
        BSATTN_TRY(run_add(&build->forward, joinable,
                           outgoing->token_first[head] + runs->items[r].first,
                           runs->items[r].count));
    }
    return BSATTN_OK;
}

/* What moves during a step but the last: from here, and to here. */
static bsattn_status_t collect_forward(build_t *build, const bsattn_schedule_t *schedule,
                                       int step_index)
{
    const bsattn_demand_t *demand = build->demand;
    bool ring = (demand->route.kind == BSATTN_EXCHANGE_RING);
    bsattn_step_t *step = &schedule->steps[step_index];
    size_t joinable = build->forward.count;
    int ranks = demand->layout.ranks;
    int hops = ring ? 1 : demand->route.hops[step_index + 1];

    step->to = (build->rank + hops) % ranks;
    step->from = (build->rank + ranks - hops) % ranks;
    for (int c = 0; !ring && (c < demand->kv_class_count); ++c) {
        BSATTN_TRY(find_used_here(build, c, step->to));
    }
    for (int head = 0; head < demand->pattern->problem.heads_kv; ++head) {
        BSATTN_TRY(ring ? forward_ring(build, step_index, step, head, joinable)
                        : forward_direct(build, &schedule->outgoing, head, joinable));
    }
    step->forward_count = build->forward.count - joinable;
    return BSATTN_OK;
}

static bsattn_status_t build_chunks(build_t *build, bsattn_schedule_t *schedule)
{
    const bsattn_demand_t *demand = build->demand;
    int heads_kv = demand->pattern->problem.heads_kv;

    fill_places(build);
    for (int s = 0; s < schedule->step_count; ++s) {
        bsattn_step_t *step = &schedule->steps[s];

        step->origin = bsattn_demand_owner(demand, build->rank, demand->route.hops[s]);
        step->heads = schedule->chunk_heads + (size_t)s * (size_t)heads_kv;
        step->lists = schedule->work_lists + (size_t)s * (size_t)schedule->list_count;
        fill_chunk_heads(build, step);
        build->forward_first[s] = build->forward.count;
        if (s + 1 < schedule->step_count) {
            BSATTN_TRY(collect_forward(build, schedule, s));
        }
    }
    schedule->forwards = build->forward.items;
    build->forward = (run_list_t){0};
    for (int s = 0; s < schedule->step_count; ++s) {
        schedule->steps[s].forward = schedule->forwards + build->forward_first[s];
        schedule->bytes += (int64_t)(schedule->steps[s].forward_count * sizeof(bsattn_token_run_t));
    }
    return BSATTN_OK;
}

/* ---------------------------------------------------------------------------------------- lists */

/* Sort the raw runs of a list class by step; rows stay in order within a step. */
static bsattn_status_t bucket_by_step(build_t *build, int steps)
{
    raw_run_t *sorted = realloc(build->by_step, (build->raw.count + 1) * sizeof(*sorted));
    size_t sum = 0;

    if (sorted == NULL) {
        return fail_memory();
    }
    build->by_step = sorted;
    memset(build->step_first, 0, ((size_t)steps + 2) * sizeof(*build->step_first));
    for (size_t k = 0; k < build->raw.count; ++k) {
        ++build->step_first[build->raw.items[k].step + 2];
    }
    for (int s = 0; s < steps + 2; ++s) {
        sum += build->step_first[s];
        build->step_first[s] = sum;
    }
    for (size_t k = 0; k < build->raw.count; ++k) {
        sorted[build->step_first[build->raw.items[k].step + 1]++] = build->raw.items[k];
    }
    return BSATTN_OK;
}

/* Collect the runs of all rows of a list class, resolve their places, note empty rows and the steps
 * of each row. */
static bsattn_status_t collect_list(build_t *build, bsattn_schedule_t *schedule, int list_class,
                                    bsattn_empty_rows_t *empty)
{
    const bsattn_demand_t *demand = build->demand;
    const int32_t *place = build->place + (size_t)demand->list_classes[list_class].kv_class *
                                              (size_t)demand->layout.blocks;

    build->raw.count = 0;
    for (int64_t r = 0; r < schedule->rows; ++r) {
        size_t begin = build->raw.count;
        int32_t *range = &build->step_range[2 * r];

        BSATTN_TRY(collect_row(build, list_class, r));
        range[0] = INT32_MAX;
        range[1] = -1;
        for (size_t k = begin; k < build->raw.count; ++k) {
            raw_run_t *run = &build->raw.items[k];
            run->slot = place[demand->owner_first[run->owner] + run->slot];
            range[0] = (run->step < range[0]) ? run->step : range[0];
            range[1] = (run->step > range[1]) ? run->step : range[1];
        }
        if (begin == build->raw.count) {
            empty->rows[empty->count++] = (int32_t)r;
        }
    }
    return bucket_by_step(build, schedule->step_count);
}

/* Write the runs of one item, partial ones first, joining full neighbours. @return the number
 * written */
static int32_t write_runs(const raw_run_t *raw, size_t count, bsattn_key_run_t *out,
                          bsattn_work_item_t *item)
{
    int32_t written = 0;

    for (size_t k = 0; k < count; ++k) {
        if (raw[k].partial) {
            out[written++] = (bsattn_key_run_t){.slot = raw[k].slot, .count = 1};
            ++item->block_count;
        }
    }
    item->partial_count = (uint16_t)written;
    for (size_t k = 0; k < count; ++k) {
        if (raw[k].partial) {
            continue;
        }
        item->block_count += raw[k].count;
        if ((written > item->partial_count) &&
            (out[written - 1].slot + out[written - 1].count == raw[k].slot)) {
            out[written - 1].count += raw[k].count;
        } else {
            out[written++] = (bsattn_key_run_t){.slot = raw[k].slot, .count = raw[k].count};
        }
    }
    return written;
}

static int item_compare(const void *a, const void *b)
{
    const bsattn_work_item_t *x = a;
    const bsattn_work_item_t *y = b;

    if (x->block_count != y->block_count) {
        return (x->block_count < y->block_count) ? 1 : -1;
    }
    return (x->row > y->row) - (x->row < y->row);
}

/* Turn the runs of one step into items; *items and *runs are the free ends of the arenas. */
static void build_list(const build_t *build, int step, bsattn_work_list_t *list,
                       bsattn_work_item_t **items, bsattn_key_run_t **runs)
{
    const raw_run_t *raw = build->by_step + build->step_first[step];
    size_t count = build->step_first[step + 1] - build->step_first[step];
    bsattn_work_item_t *first_item = *items;
    bsattn_key_run_t *first_run = *runs;

    for (size_t begin = 0; begin < count;) {
        int32_t row = raw[begin].row;
        bsattn_work_item_t *item = (*items)++;
        size_t end = begin;

        while ((end < count) && (raw[end].row == row)) {
            ++end;
        }
        *item = (bsattn_work_item_t){
            .row = row,
            .first = (step == build->step_range[2 * row]),
            .last = (step == build->step_range[2 * row + 1]),
            .run_first = *runs - first_run,
        };
        item->run_count = write_runs(raw + begin, end - begin, *runs, item);
        *runs += item->run_count;
        begin = end;
    }
    list->items = first_item;
    list->item_count = *items - first_item;
    list->runs = first_run;
    qsort(first_item, (size_t)list->item_count, sizeof(*first_item), item_compare);
}

/* Heads have their states in the same places, whichever of them need one. */
static bsattn_status_t build_states(const build_t *build, bsattn_schedule_t *schedule,
                                    const bsattn_work_item_t *items_end)
{
    int32_t *places = calloc((size_t)schedule->rows + 1, sizeof(*places));

    if (places == NULL) {
        return fail_memory();
    }
    for (const bsattn_work_item_t *item = schedule->items; item < items_end; ++item) {
        places[item->row] |= (item->first && item->last) ? 0 : 1;
    }
    schedule->state_blocks = bsattn_schedule_place_states(build->demand, schedule->rows, places);
    for (bsattn_work_item_t *item = schedule->items; item < items_end; ++item) {
        item->state_block = places[item->row];
    }
    free(places);
    return BSATTN_OK;
}

static bsattn_status_t build_lists(build_t *build, bsattn_schedule_t *schedule)
{
    bsattn_work_item_t *items = schedule->items;
    bsattn_key_run_t *runs = schedule->runs;
    int32_t *empty = schedule->empty_rows;

    for (int c = 0; c < schedule->list_count; ++c) {
        schedule->empty[c].rows = empty;
        BSATTN_TRY(collect_list(build, schedule, c, &schedule->empty[c]));
        empty += schedule->empty[c].count;
        for (int s = 0; s < schedule->step_count; ++s) {
            bsattn_step_t *step = &schedule->steps[s];
            build_list(build, s, &step->lists[c], &items, &runs);
            if (step->lists[c].item_count > step->item_count_max) {
                step->item_count_max = step->lists[c].item_count;
            }
        }
    }
    return build_states(build, schedule, items);
}

/* ------------------------------------------------------------------------------- life and death */

static void packing_free(bsattn_packing_t *packing)
{
    free(packing->runs);
    free(packing->first);
    free(packing->token_first);
}

void bsattn_schedule_free(bsattn_schedule_t *schedule)
{
    free(schedule->list_of_head);
    free(schedule->steps);
    free(schedule->empty);
    packing_free(&schedule->own);
    packing_free(&schedule->outgoing);
    free(schedule->kv_class_of_head);
    free(schedule->items);
    free(schedule->runs);
    free(schedule->chunk_heads);
    free(schedule->work_lists);
    free(schedule->empty_rows);
    free(schedule->forwards);
    *schedule = (bsattn_schedule_t){0};
}

/* Arrays of length 0 are allocated too, so that NULL always means failure. */
static void *array_alloc(int64_t count, size_t size)
{
    return calloc((size_t)count + 1, size);
}

static bsattn_status_t packing_alloc(bsattn_packing_t *packing, const bsattn_demand_t *demand)
{
    packing->first = array_alloc(demand->kv_class_count + 1, sizeof(*packing->first));
    packing->token_first =
        array_alloc(demand->pattern->problem.heads_kv, sizeof(*packing->token_first));
    return ((packing->first == NULL) || (packing->token_first == NULL)) ? fail_memory() : BSATTN_OK;
}

static bsattn_status_t schedule_alloc(bsattn_schedule_t *schedule, const bsattn_demand_t *demand,
                                      const bsattn_schedule_counts_t *counts)
{
    const bsattn_problem_t *problem = &demand->pattern->problem;
    int64_t steps = schedule->step_count;

    schedule->list_of_head = array_alloc(problem->heads_q, sizeof(int));
    schedule->kv_class_of_head = array_alloc(problem->heads_kv, sizeof(int));
    schedule->steps = array_alloc(steps, sizeof(*schedule->steps));
    schedule->empty = array_alloc(schedule->list_count, sizeof(*schedule->empty));
    schedule->items = array_alloc(counts->items, sizeof(*schedule->items));
    schedule->runs = array_alloc(counts->runs, sizeof(*schedule->runs));
    schedule->chunk_heads = array_alloc(steps * problem->heads_kv, sizeof(*schedule->chunk_heads));
    schedule->work_lists = array_alloc(steps * schedule->list_count, sizeof(*schedule->work_lists));
    schedule->empty_rows = array_alloc(counts->empty_rows, sizeof(*schedule->empty_rows));
    if ((schedule->list_of_head == NULL) || (schedule->kv_class_of_head == NULL) ||
        (schedule->steps == NULL) || (schedule->empty == NULL) || (schedule->items == NULL) ||
        (schedule->runs == NULL) || (schedule->chunk_heads == NULL) ||
        (schedule->work_lists == NULL) || (schedule->empty_rows == NULL)) {
        return fail_memory();
    }
    BSATTN_TRY(packing_alloc(&schedule->own, demand));
    BSATTN_TRY(packing_alloc(&schedule->outgoing, demand));
    schedule->bytes = bsattn_schedule_bytes(demand, demand->route.step_count, counts);
    memcpy(schedule->list_of_head, demand->list_class_of_head,
           (size_t)problem->heads_q * sizeof(int));
    return BSATTN_OK;
}

static bsattn_status_t build_alloc(build_t *build, const bsattn_schedule_t *schedule)
{
    const bsattn_demand_t *demand = build->demand;

    build->place = array_alloc(demand->kv_class_count * demand->layout.blocks, sizeof(int32_t));
    build->out_place = array_alloc(demand->kv_class_count * schedule->rows, sizeof(int32_t));
    build->step_range = array_alloc(2 * schedule->rows, sizeof(int32_t));
    build->step_first = array_alloc(schedule->step_count + 2, sizeof(size_t));
    build->forward_first = array_alloc(schedule->step_count + 1, sizeof(size_t));
    build->used_here = array_alloc(demand->kv_class_count, sizeof(*build->used_here));
    if ((build->place == NULL) || (build->out_place == NULL) || (build->step_range == NULL) ||
        (build->step_first == NULL) || (build->forward_first == NULL) ||
        (build->used_here == NULL)) {
        return fail_memory();
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_schedule_init(bsattn_schedule_t *schedule, const bsattn_demand_t *demand,
                                     int rank)
{
    bsattn_schedule_counts_t counts;
    build_t build = {.demand = demand, .rank = rank};
    bsattn_status_t status;

    BSATTN_TRY(bsattn_schedule_count(demand, rank, NULL, &counts));
    *schedule = (bsattn_schedule_t){
        .rank = rank,
        .exchange = demand->route.kind,
        .rows = bsattn_layout_count(&demand->layout, rank),
        .list_count = demand->list_class_count,
        .step_count = demand->route.step_count,
    };
    status = schedule_alloc(schedule, demand, &counts);
    if (status == BSATTN_OK) {
        status = build_alloc(&build, schedule);
    }
    if (status == BSATTN_OK) {
        status = build_packings(&build, schedule);
    }
    if (status == BSATTN_OK) {
        status = build_chunks(&build, schedule);
    }
    if (status == BSATTN_OK) {
        status = build_lists(&build, schedule);
    }
    build_free(&build);
    if (status != BSATTN_OK) {
        bsattn_schedule_free(schedule);
    }
    return status;
}
