/* SPDX-License-Identifier: Apache-2.0 */
#include "problem/demand.h"

#include "base/array.h"
#include "problem/problem.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* A span of an owner's slots that the rank `user` needs. */
typedef struct need {
    int32_t owner;
    int32_t user;
    int32_t slot;
    int32_t count;
} need_t;

typedef struct need_list {
    need_t *items;
    size_t count;
    size_t capacity;
} need_list_t;

/* Buffers of one thread. */
typedef struct work {
    bsattn_row_work_t row_work;
    bsattn_spans_t row;
    bsattn_spans_t before; /* the row before it, all of which is in run or used */
    bsattn_spans_t run;    /* blocks used by the run of rows at hand */
    bsattn_spans_t used;   /* the same of the rank at hand */
    int32_t *edge;         /* [nb + 1] difference array, zero between uses */
} work_t;

/* Buffers of one build. */
typedef struct build {
    int threads;
    int64_t spans_left;     /* that may still be kept */
    int64_t bytes_left;     /* that may still be needed, or it is given up */
    work_t *works;          /* [threads] */
    need_list_t needs;      /* of more than a few blocks, by user, ascending */
    size_t *first_of_owner; /* [P + 1] into by_owner */
    need_t *by_owner;
    int32_t *next_unset; /* [slots + 1] */
} build_t;

/* So few blocks are noted one by one: to keep and sort them takes longer. */
enum { FEW_BLOCKS = 4 };

static int32_t *class_far_of(bsattn_demand_t *demand, int kv_class)
{
    return demand->far + (size_t)kv_class * (size_t)demand->layout.blocks;
}

static bsattn_status_t fail_memory(void)
{
    return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to plan who needs which key blocks");
}

static void build_free(build_t *build)
{
    for (int t = 0; (build->works != NULL) && (t < build->threads); ++t) {
        bsattn_row_work_free(&build->works[t].row_work);
        bsattn_spans_free(&build->works[t].row);
        bsattn_spans_free(&build->works[t].before);
        bsattn_spans_free(&build->works[t].run);
        bsattn_spans_free(&build->works[t].used);
        free(build->works[t].edge);
    }
    free(build->works);
    free(build->needs.items);
    free(build->first_of_owner);
    free(build->by_owner);
    free(build->next_unset);
}

static bsattn_status_t need_add(need_list_t *list, need_t need)
{
    BSATTN_TRY(
        bsattn_array_reserve(&list->items, &list->capacity, list->count + 1, sizeof(*list->items)));
    list->items[list->count++] = need;
    return BSATTN_OK;
}

int bsattn_demand_hop(const bsattn_demand_t *demand, int rank, int owner)
{
    int hop = rank - owner;

    return (hop < 0) ? hop + demand->layout.ranks : hop;
}

int bsattn_demand_owner(const bsattn_demand_t *demand, int rank, int hop)
{
    int owner = rank - hop;

    return (owner < 0) ? owner + demand->layout.ranks : owner;
}

const int32_t *bsattn_demand_far(const bsattn_demand_t *demand, int kv_class, int owner)
{
    return demand->far + (size_t)kv_class * (size_t)demand->layout.blocks +
           demand->owner_first[owner];
}

int bsattn_demand_kv_heads(const bsattn_demand_t *demand, int kv_class)
{
    int heads = 0;

    for (int head = 0; head < demand->pattern->problem.heads_kv; ++head) {
        heads += (demand->kv_class_of_head[head] == kv_class) ? 1 : 0;
    }
    return heads;
}

int64_t bsattn_demand_slot_tokens(const bsattn_demand_t *demand, int owner, int64_t slot,
                                  int64_t count)
{
    int64_t tokens = count * demand->pattern->problem.block;
    int64_t slots = demand->owner_first[owner + 1] - demand->owner_first[owner];

    if ((owner == demand->last_owner) && (count > 0) && (slot + count == slots)) {
        tokens -= demand->last_missing;
    }
    return tokens;
}

/* -------------------------------------------------------------------------------------- classes */

/* Do two key heads see the same set of pattern classes, head by head? */
static bool kv_heads_alike(const bsattn_pattern_t *pattern, int a, int b)
{
    int group = pattern->problem.heads_q / pattern->problem.heads_kv;

    return memcmp(&pattern->class_of_head[a * group], &pattern->class_of_head[b * group],
                  (size_t)group * sizeof(int)) == 0;
}

static void classify_kv_heads(bsattn_demand_t *demand)
{
    const bsattn_pattern_t *pattern = demand->pattern;

    for (int head = 0; head < pattern->problem.heads_kv; ++head) {
        int same = 0;
        while ((same < head) && !kv_heads_alike(pattern, same, head)) {
            ++same;
        }
        demand->kv_class_of_head[head] =
            (same < head) ? demand->kv_class_of_head[same] : demand->kv_class_count++;
    }
}

static void classify_lists(bsattn_demand_t *demand)
{
    const bsattn_pattern_t *pattern = demand->pattern;
    int group = pattern->problem.heads_q / pattern->problem.heads_kv;

    for (int head = 0; head < pattern->problem.heads_q; ++head) {
        bsattn_list_class_t wanted = {
            .pattern_class = pattern->class_of_head[head],
            .kv_class = demand->kv_class_of_head[head / group],
        };
        int c = 0;
        while ((c < demand->list_class_count) &&
               ((demand->list_classes[c].pattern_class != wanted.pattern_class) ||
                (demand->list_classes[c].kv_class != wanted.kv_class))) {
            ++c;
        }
        if (c == demand->list_class_count) {
            demand->list_classes[demand->list_class_count++] = wanted;
        }
        demand->list_class_of_head[head] = c;
    }
}

/* ------------------------------------------------------------------------ blocks used by a rank */

/* The blocks that a list of spans reaches from the lowest to the highest. */
static bsattn_span_t range_of(const bsattn_spans_t *spans)
{
    bsattn_span_t range = {INT32_MAX, 0};

    for (size_t s = 0; s < spans->count; ++s) {
        bsattn_span_t span = spans->items[s];
        range.first = (span.first < range.first) ? span.first : range.first;
        range.last = (span.last > range.last) ? span.last : range.last;
    }
    return range;
}

/* The union of many overlapping spans, by counting where they begin and end. */
static bsattn_status_t union_by_edges(work_t *work, bsattn_span_t range, bsattn_spans_t *spans)
{
    int64_t depth = 0;
    int32_t first = 0;

    for (size_t s = 0; s < spans->count; ++s) {
        ++work->edge[spans->items[s].first];
        --work->edge[spans->items[s].last];
    }
    bsattn_spans_clear(spans);
    for (int32_t x = range.first; x <= range.last; ++x) {
        int64_t before = depth;
        depth += work->edge[x];
        work->edge[x] = 0;
        if ((before == 0) && (depth > 0)) {
            first = x;
        } else if ((before > 0) && (depth == 0)) {
            BSATTN_TRY(bsattn_spans_add(spans, first, x));
        }
    }
    return BSATTN_OK;
}

/* Make a list a set, whichever way is cheaper: sorting its spans or scanning the blocks they
 * reach. */
static bsattn_status_t make_set(work_t *work, bsattn_spans_t *spans)
{
    bsattn_span_t range = range_of(spans);

    if ((int64_t)range.last - range.first > 16 * (int64_t)spans->count) {
        bsattn_spans_normalize(spans);
        return BSATTN_OK;
    }
    return union_by_edges(work, range, spans);
}

/* Have a list that has grown far beyond the blocks there are be a set. */
static bsattn_status_t keep_short(const bsattn_demand_t *demand, work_t *work,
                                  bsattn_spans_t *spans)
{
    return (spans->count > 4 * (size_t)demand->layout.blocks + 1024) ? make_set(work, spans)
                                                                     : BSATTN_OK;
}

/* Add to work->run what the row has and the one before it has not: neighbours have most in common. */
static bsattn_status_t use_row(work_t *work)
{
    bsattn_spans_t fresh;
    size_t first;
    size_t last;

    bsattn_spans_common(&work->before, &work->row, &first, &last);
    fresh = bsattn_spans_inner(&work->row, first, last);
    BSATTN_TRY(bsattn_spans_append(&work->run, &fresh));
    bsattn_spans_swap(&work->before, &work->row);
    return BSATTN_OK;
}

/* Add to work->used what neighbouring rows of a list class touch: as a set, since runs that lie apart mostly
 * touch blocks that follow one another, and there is little left to be sorted. */
static bsattn_status_t collect_run(const bsattn_demand_t *demand, work_t *work, int list_class,
                                   int64_t first, int64_t end)
{
    bsattn_spans_clear(&work->run);
    for (int64_t i = first; i < end; ++i) {
        BSATTN_TRY(bsattn_pattern_class_row(demand->pattern,
                                            demand->list_classes[list_class].pattern_class, i,
                                            &work->row_work, &work->row));
        BSATTN_TRY(use_row(work));
        BSATTN_TRY(keep_short(demand, work, &work->run));
    }
    BSATTN_TRY(make_set(work, &work->run));
    return bsattn_spans_append(&work->used, &work->run);
}

/* Collect in work->used the blocks that a rank's rows touch through the query heads of a kv
 * class. */
static bsattn_status_t collect_used(const bsattn_demand_t *demand, work_t *work, int kv_class,
                                    int rank)
{
    int64_t rows = bsattn_layout_count(&demand->layout, rank);
    int64_t count;

    bsattn_spans_clear(&work->used);
    bsattn_spans_clear(&work->before);
    for (int c = 0; c < demand->list_class_count; ++c) {
        if (demand->list_classes[c].kv_class != kv_class) {
            continue;
        }
        for (int64_t r = 0; r < rows; r += count) {
            int64_t first = bsattn_layout_block(&demand->layout, rank, r);
            int64_t end = bsattn_layout_run_end(&demand->layout, first);
            count = end - first;
            BSATTN_TRY(collect_run(demand, work, c, first, end));
            BSATTN_TRY(keep_short(demand, work, &work->used));
        }
    }
    return make_set(work, &work->used);
}

static int32_t larger(int32_t a, int32_t b)
{
    return (a > b) ? a : b;
}

void bsattn_demand_forget_used(bsattn_demand_t *demand)
{
    size_t count = (size_t)demand->kv_class_count * (size_t)demand->layout.ranks;

    for (size_t i = 0; (demand->used != NULL) && (i < count); ++i) {
        bsattn_spans_free(&demand->used[i]);
    }
    free(demand->used);
    demand->used = NULL;
}

static bsattn_spans_t *used_of(const bsattn_demand_t *demand, int kv_class, int rank)
{
    return &demand->used[(size_t)kv_class * (size_t)demand->layout.ranks + (size_t)rank];
}

/* Keep what a rank uses, or forget all where that would be too much. */
static bsattn_status_t keep_used(bsattn_demand_t *demand, build_t *build,
                                 const bsattn_spans_t *used, int kv_class, int rank)
{
    build->spans_left -= (int64_t)used->count;
    if (build->spans_left < 0) {
        bsattn_demand_forget_used(demand);
    }
    if (demand->used == NULL) {
        return BSATTN_OK;
    }
    return bsattn_spans_append(used_of(demand, kv_class, rank), used);
}

/* Note what a rank uses, owner by owner: a few blocks at once in far, more to be brought in order. */
static bsattn_status_t note_used(bsattn_demand_t *demand, build_t *build,
                                 const bsattn_spans_t *used, int kv_class, int rank)
{
    const bsattn_problem_t *problem = &demand->pattern->problem;
    int32_t *far = class_far_of(demand, kv_class);
    int64_t token_bytes = 2 * problem->batch * (int64_t)bsattn_problem_row_bytes(problem) *
                          bsattn_demand_kv_heads(demand, kv_class);
    int64_t tokens = 0; /* of others */

    for (size_t s = 0; s < used->count; ++s) {
        bsattn_piece_walk_t walk;
        bsattn_piece_t piece;

        bsattn_piece_begin(&walk, &demand->layout, used->items[s]);
        while (bsattn_piece_next(&walk, &piece)) {
            need_t need = {piece.owner, rank, piece.slot, piece.count};
            demand->hop_used[bsattn_demand_hop(demand, rank, piece.owner)] = true;
            if (piece.count > FEW_BLOCKS) {
                BSATTN_TRY(need_add(&build->needs, need));
            } else {
                int32_t *at = far + demand->owner_first[piece.owner] + piece.slot;
                int hop = bsattn_demand_hop(demand, rank, piece.owner);
                for (int32_t b = 0; b < piece.count; ++b) {
                    at[b] = larger(at[b], hop);
                }
            }
            if (piece.owner != rank) {
                tokens +=
                    bsattn_demand_slot_tokens(demand, piece.owner, piece.slot, piece.count);
            }
        }
    }
    demand->bytes_needed[rank] += token_bytes * tokens;
#pragma omp atomic
    build->bytes_left -= token_bytes * tokens;
    return BSATTN_OK;
}

/* Rows are generated by all threads; what comes of them is noted rank after rank, until it is too
 * much. */
static bsattn_status_t collect_needs(bsattn_demand_t *demand, build_t *build, int kv_class)
{
    int ranks = demand->layout.ranks;
    bool failed = false;

    build->needs.count = 0;
#pragma omp parallel for num_threads(build->threads) schedule(dynamic) ordered reduction(||        \
                                                                                         : failed)
    for (int rank = 0; rank < ranks; ++rank) {
        work_t *work = &build->works[omp_get_thread_num()];
        int64_t left;
#pragma omp atomic read
        left = build->bytes_left;
        if (left <= 0) {
            continue;
        }
        failed = (collect_used(demand, work, kv_class, rank) != BSATTN_OK) || failed;
#pragma omp ordered
        failed = (note_used(demand, build, &work->used, kv_class, rank) != BSATTN_OK) ||
                 (keep_used(demand, build, &work->used, kv_class, rank) != BSATTN_OK) || failed;
    }
    demand->given_up = build->bytes_left <= 0;
    return failed ? fail_memory() : BSATTN_OK;
}

/* ------------------------------------------------------------------------------------- farthest */

/* Bucket the needs by owner; within one owner users stay ascending. */
static bsattn_status_t sort_by_owner(const bsattn_demand_t *demand, build_t *build)
{
    int ranks = demand->layout.ranks;
    need_t *sorted = realloc(build->by_owner, (build->needs.count + 1) * sizeof(*sorted));
    size_t sum = 0;

    if (sorted == NULL) {
        return fail_memory();
    }
    build->by_owner = sorted;
    memset(build->first_of_owner, 0, ((size_t)ranks + 1) * sizeof(*build->first_of_owner));
    for (size_t i = 0; i < build->needs.count; ++i) {
        ++build->first_of_owner[build->needs.items[i].owner];
    }
    for (int rank = 0; rank <= ranks; ++rank) {
        size_t count = build->first_of_owner[rank];
        build->first_of_owner[rank] = sum;
        sum += count;
    }
    for (size_t i = 0; i < build->needs.count; ++i) {
        need_t need = build->needs.items[i];
        sorted[build->first_of_owner[need.owner]++] = need;
    }
    for (int rank = ranks; rank > 0; --rank) {
        build->first_of_owner[rank] = build->first_of_owner[rank - 1];
    }
    build->first_of_owner[0] = 0;
    return BSATTN_OK;
}

static int32_t find_unset(int32_t *next, int32_t slot)
{
    int32_t root = slot;

    while (next[root] != root) {
        root = next[root];
    }
    while (next[slot] != root) {
        int32_t after = next[slot];
        next[slot] = root;
        slot = after;
    }
    return root;
}

/* Needs come by descending hop, so the first to reach a slot is the farthest user among them; slots
 * that they have reached are jumped over. */
static void mark_far(int32_t *far, int32_t *next, const need_t *need, int hop)
{
    int32_t end = need->slot + need->count;

    for (int32_t slot = find_unset(next, need->slot); slot < end; slot = find_unset(next, slot)) {
        far[slot] = larger(far[slot], hop);
        next[slot] = slot + 1;
    }
}

static void owner_far(bsattn_demand_t *demand, build_t *build, int owner, int32_t *far)
{
    size_t begin = build->first_of_owner[owner];
    size_t end = build->first_of_owner[owner + 1];
    size_t wrap = begin; /* users from here on are at or after the owner */
    int32_t slots = (int32_t)bsattn_layout_count(&demand->layout, owner);

    for (int32_t s = 0; s <= slots; ++s) {
        build->next_unset[s] = s;
    }
    while ((wrap < end) && (build->by_owner[wrap].user < owner)) {
        ++wrap;
    }
    for (size_t i = wrap; i > begin; --i) {
        const need_t *need = &build->by_owner[i - 1];
        mark_far(far, build->next_unset, need, bsattn_demand_hop(demand, need->user, owner));
    }
    for (size_t i = end; i > wrap; --i) {
        const need_t *need = &build->by_owner[i - 1];
        mark_far(far, build->next_unset, need, bsattn_demand_hop(demand, need->user, owner));
    }
}

static bsattn_status_t class_far(bsattn_demand_t *demand, build_t *build, int kv_class)
{
    int32_t *far = class_far_of(demand, kv_class);

    for (int64_t x = 0; x < demand->layout.blocks; ++x) {
        far[x] = -1;
    }
    BSATTN_TRY(collect_needs(demand, build, kv_class));
    if (demand->given_up) {
        return BSATTN_OK;
    }
    BSATTN_TRY(sort_by_owner(demand, build));
    for (int owner = 0; owner < demand->layout.ranks; ++owner) {
        owner_far(demand, build, owner, far + demand->owner_first[owner]);
    }
    for (int64_t x = 0; x < demand->layout.blocks; ++x) {
        demand->farthest = larger(demand->farthest, far[x]);
    }
    return BSATTN_OK;
}

/* -------------------------------------------------------------------------------------- routes */

const char *const bsattn_exchange_names[BSATTN_EXCHANGE_COUNT] = {"ring", "direct"};

const bsattn_spans_t *bsattn_demand_used(const bsattn_demand_t *demand, int kv_class, int rank)
{
    return used_of(demand, kv_class, rank);
}

bsattn_status_t bsattn_route_init(bsattn_route_t *route, const bsattn_demand_t *demand,
                                  bsattn_exchange_kind_t kind)
{
    int ranks = demand->layout.ranks;

    *route = (bsattn_route_t){.kind = kind};
    route->hops = malloc((size_t)ranks * sizeof(*route->hops));
    route->step_of_hop = malloc((size_t)ranks * sizeof(*route->step_of_hop));
    if ((route->hops == NULL) || (route->step_of_hop == NULL)) {
        bsattn_route_free(route);
        return fail_memory();
    }
    for (int hop = 0; hop < ranks; ++hop) {
        /* On the ring as far as any block goes, whether or not it is used at each hop. */
        bool step = (kind == BSATTN_EXCHANGE_RING) ? (hop <= demand->farthest)
                                                   : ((hop == 0) || demand->hop_used[hop]);
        route->step_of_hop[hop] = step ? route->step_count : -1;
        if (step) {
            route->hops[route->step_count++] = hop;
        }
    }
    return BSATTN_OK;
}

void bsattn_route_free(bsattn_route_t *route)
{
    free(route->hops);
    free(route->step_of_hop);
    *route = (bsattn_route_t){0};
}

bsattn_status_t bsattn_demand_take(bsattn_demand_t *demand, bsattn_exchange_kind_t kind)
{
    bsattn_route_t route;

    BSATTN_ASSERT((kind != BSATTN_EXCHANGE_DIRECT) || (demand->used != NULL));
    BSATTN_TRY(bsattn_route_init(&route, demand, kind));
    bsattn_route_free(&demand->route);
    demand->route = route;
    if (kind == BSATTN_EXCHANGE_RING) {
        bsattn_demand_forget_used(demand);
    }
    return BSATTN_OK;
}

/* ------------------------------------------------------------------------------- life and death */

void bsattn_demand_free(bsattn_demand_t *demand)
{
    free(demand->kv_class_of_head);
    free(demand->list_classes);
    free(demand->list_class_of_head);
    free(demand->owner_first);
    free(demand->far);
    free(demand->bytes_needed);
    free(demand->hop_used);
    bsattn_demand_forget_used(demand);
    bsattn_route_free(&demand->route);
    *demand = (bsattn_demand_t){0};
}

static bsattn_status_t demand_alloc(bsattn_demand_t *demand)
{
    size_t heads_q = (size_t)demand->pattern->problem.heads_q;
    size_t heads_kv = (size_t)demand->pattern->problem.heads_kv;
    size_t ranks = (size_t)demand->layout.ranks;

    demand->kv_class_of_head = calloc(heads_kv, sizeof(*demand->kv_class_of_head));
    demand->list_classes = calloc(heads_q, sizeof(*demand->list_classes));
    demand->list_class_of_head = calloc(heads_q, sizeof(*demand->list_class_of_head));
    demand->owner_first = calloc(ranks + 1, sizeof(*demand->owner_first));
    demand->bytes_needed = calloc(ranks, sizeof(*demand->bytes_needed));
    demand->hop_used = calloc(ranks, sizeof(*demand->hop_used));
    if ((demand->kv_class_of_head == NULL) || (demand->list_classes == NULL) ||
        (demand->list_class_of_head == NULL) || (demand->owner_first == NULL) ||
        (demand->bytes_needed == NULL) || (demand->hop_used == NULL)) {
        return fail_memory();
    }
    classify_kv_heads(demand);
    classify_lists(demand);
    for (size_t rank = 0; rank < ranks; ++rank) {
        demand->owner_first[rank + 1] =
            demand->owner_first[rank] + bsattn_layout_count(&demand->layout, (int)rank);
    }
    BSATTN_ASSERT(demand->owner_first[ranks] == demand->layout.blocks);
    demand->last_owner = bsattn_layout_owner(&demand->layout, demand->layout.blocks - 1);
    demand->last_missing =
        demand->layout.blocks * demand->pattern->problem.block - demand->pattern->problem.seq_len;
    demand->far = malloc((size_t)demand->kv_class_count * (size_t)demand->layout.blocks *
                         sizeof(*demand->far));
    return (demand->far == NULL) ? fail_memory() : BSATTN_OK;
}

static bsattn_status_t build_alloc(build_t *build, const bsattn_layout_t *layout)
{
    size_t blocks = (size_t)layout->blocks;
    bool complete;

    build->works = calloc((size_t)build->threads, sizeof(*build->works));
    build->first_of_owner = calloc((size_t)layout->ranks + 1, sizeof(*build->first_of_owner));
    build->next_unset = malloc((blocks + 1) * sizeof(*build->next_unset));
    complete =
        (build->works != NULL) && (build->first_of_owner != NULL) && (build->next_unset != NULL);
    for (int t = 0; complete && (t < build->threads); ++t) {
        build->works[t].edge = calloc(blocks + 1, sizeof(int32_t));
        complete = (build->works[t].edge != NULL);
    }
    return complete ? BSATTN_OK : fail_memory();
}

bsattn_status_t bsattn_demand_init(bsattn_demand_t *demand, const bsattn_pattern_t *pattern,
                                   const bsattn_layout_t *layout, int threads, int64_t spans_max,
                                   int64_t bytes_max)
{
    build_t build = {.threads = threads, .spans_left = spans_max, .bytes_left = bytes_max};
    bsattn_status_t status;

    *demand = (bsattn_demand_t){.pattern = pattern, .layout = *layout};
    status = demand_alloc(demand);
    if ((status == BSATTN_OK) && (spans_max > 0)) {
        demand->used =
            calloc((size_t)demand->kv_class_count * (size_t)layout->ranks, sizeof(*demand->used));
        status = (demand->used == NULL) ? fail_memory() : BSATTN_OK;
    }
    if (status == BSATTN_OK) {
        status = build_alloc(&build, layout);
    }
    for (int c = 0; (c < demand->kv_class_count) && (status == BSATTN_OK) && !demand->given_up;
         ++c) {
        status = class_far(demand, &build, c);
    }
    if (status == BSATTN_OK) {
        status = bsattn_route_init(&demand->route, demand, BSATTN_EXCHANGE_RING);
    }
    build_free(&build);
    if (status != BSATTN_OK) {
        bsattn_demand_free(demand);
    }
    return status;
}
