/* SPDX-License-Identifier: Apache-2.0 */
#include "problem/pattern.h"

#include "base/bits.h"
#include "base/philox.h"
#include "problem/problem.h"

#include <stdlib.h>
#include <string.h>

/* A row under construction: query block i of a mask with nb blocks; keys j < end are candidates. */
typedef struct row_args {
    const bsattn_term_t *term;
    int head;
    int64_t i;
    int64_t nb;
    int64_t end;
} row_args_t;

void bsattn_row_work_free(bsattn_row_work_t *work)
{
    bsattn_spans_free(&work->term);
    bsattn_spans_free(&work->branch);
    bsattn_spans_free(&work->level);
    bsattn_spans_free(&work->buffer);
}

static int64_t max64(int64_t a, int64_t b)
{
    return (a > b) ? a : b;
}

/* low <= j < high with j mod stride == phase, clipped to the candidates. */
static bsattn_status_t add_progression(const row_args_t *args, int64_t low, int64_t high,
                                       int64_t stride, int64_t phase, bsattn_spans_t *out)
{
    int64_t first = max64(low, 0);

    high = bsattn_min64(high, args->end);
    if (stride == 1) {
        return bsattn_spans_add(out, first, high);
    }
    first += (phase + stride - first % stride) % stride;
    return bsattn_spans_add_strided(out, first, high, stride);
}

static bsattn_status_t row_dilated(const row_args_t *args, bsattn_spans_t *out)
{
    const bsattn_term_t *term = args->term;

    for (int r = term->rate_count - 1; r >= 0; --r) {
        int64_t j = args->i - term->rates[r];
        if ((j >= 0) && (j < args->end)) {
            BSATTN_TRY(bsattn_spans_add(out, j, j + 1));
        }
    }
    BSATTN_TRY(bsattn_spans_add(out, args->i, args->i + 1));
    for (int r = 0; r < term->rate_count; ++r) {
        int64_t j = args->i + term->rates[r];
        if (j < args->end) {
            BSATTN_TRY(bsattn_spans_add(out, j, j + 1));
        }
    }
    return BSATTN_OK;
}

static bsattn_status_t row_hierarchical(const row_args_t *args, bsattn_row_work_t *work,
                                        bsattn_spans_t *out)
{
    const bsattn_term_t *term = args->term;

    for (int l = 0; l < term->level_count; ++l) {
        int64_t stride = term->levels[l].stride;
        int64_t half = term->levels[l].half;

        if (term->rows && (args->i % stride != 0)) {
            continue;
        }
        bsattn_spans_clear(&work->level);
        BSATTN_TRY(add_progression(args, args->i - half, args->i + half + 1,
                                   term->rows ? 1 : stride, 0, &work->level));
        BSATTN_TRY(bsattn_spans_unite(out, &work->level, &work->buffer));
    }
    return BSATTN_OK;
}

/* Uniform over 0 .. bound - 1: the draw-th number of (seed, head, row). */
static int64_t random_draw(const row_args_t *args, int64_t draw, int64_t bound)
{
    uint32_t key[2] = {(uint32_t)args->term->seed, (uint32_t)(args->term->seed >> 32)};
    uint32_t counter[4] = {(uint32_t)draw, (uint32_t)args->i, (uint32_t)args->head, 0x6d61736b};
    uint32_t out[4];
    uint64_t bits;

    bsattn_philox4x32(counter, key, out);
    bits = ((uint64_t)out[0] << 32) | out[1];
    return (int64_t)(((unsigned __int128)bits * (uint64_t)bound) >> 64);
}

/* A set of distinct draws: bits where they are no more than a few words per draw, else a sorted
 * list. */
typedef struct draw_set {
    uint64_t *bits;
    size_t words;
    int32_t *list;
    size_t count;
} draw_set_t;

/* @return false if j was there already */
static bool draw_set_insert(draw_set_t *set, int64_t j)
{
    size_t low = 0;
    size_t high = set->count;

    if (set->bits != NULL) {
        bool fresh = ((set->bits[j / 64] >> (j % 64)) & 1) == 0;
        set->bits[j / 64] |= UINT64_C(1) << (j % 64);
        return fresh;
    }
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (set->list[middle] < j) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if ((low < set->count) && (set->list[low] == j)) {
        return false;
    }
    memmove(&set->list[low + 1], &set->list[low], (set->count - low) * sizeof(*set->list));
    set->list[low] = (int32_t)j;
    ++set->count;
    return true;
}

static bsattn_status_t draw_set_spans(const draw_set_t *set, bsattn_spans_t *out)
{
    for (size_t i = 0; i < set->count; ++i) {
        BSATTN_TRY(bsattn_spans_add(out, set->list[i], set->list[i] + 1));
    }
    for (size_t w = 0; w < set->words; ++w) {
        for (uint64_t bits = set->bits[w]; bits != 0; bits &= bits - 1) {
            int64_t j = (int64_t)w * 64 + __builtin_ctzll(bits);
            BSATTN_TRY(bsattn_spans_add(out, j, j + 1));
        }
    }
    return BSATTN_OK;
}

/* Robert Floyd's sample of k distinct values of 0 .. end - 1. */
static bsattn_status_t row_random(const row_args_t *args, bsattn_spans_t *out)
{
    int64_t k = bsattn_min64(args->term->count, args->end);
    draw_set_t set = {0};
    bsattn_status_t status;

    if (k == args->end) {
        return bsattn_spans_add(out, 0, args->end);
    }
    if (args->end / 64 <= 16 * k) {
        set.words = (size_t)(args->end + 63) / 64;
        set.bits = calloc(set.words, sizeof(*set.bits));
    } else {
        set.list = malloc((size_t)k * sizeof(*set.list));
    }
    if ((set.bits == NULL) && (set.list == NULL)) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to draw a row of %lld blocks",
                           (long long)k);
    }
    for (int64_t top = args->end - k; top < args->end; ++top) {
        if (!draw_set_insert(&set, random_draw(args, top, top + 1))) {
            (void)draw_set_insert(&set, top);
        }
    }
    status = draw_set_spans(&set, out);
    free(set.list);
    free(set.bits);
    return status;
}

static bsattn_status_t row_blocks(const row_args_t *args, bsattn_spans_t *out)
{
    int64_t head = (args->term->mask_heads == 1) ? 0 : args->head;
    const unsigned char *mask = args->term->mask + (head * args->nb + args->i) * args->nb;

    for (int64_t j = 0; j < args->end; ++j) {
        if (mask[j] != 0) {
            BSATTN_TRY(bsattn_spans_add(out, j, j + 1));
        }
    }
    return BSATTN_OK;
}

static bsattn_status_t row_term(const row_args_t *args, bsattn_row_work_t *work,
                                bsattn_spans_t *out)
{
    const bsattn_term_t *term = args->term;

    bsattn_spans_clear(out);
    switch (term->kind) {
    case BSATTN_TERM_DENSE:
        return bsattn_spans_add(out, 0, args->end);
    case BSATTN_TERM_LOCAL:
        return add_progression(args, args->i - term->half, args->i + term->half + 1, 1, 0, out);
    case BSATTN_TERM_DILATED:
        return row_dilated(args, out);
    case BSATTN_TERM_STRIDED:
        return add_progression(args, 0, args->nb, term->count, args->i % term->count, out);
    case BSATTN_TERM_GLOBAL:
        return bsattn_spans_add(
            out, 0, (args->i < term->count) ? args->end : bsattn_min64(term->count, args->end));
    case BSATTN_TERM_SINK:
        return bsattn_spans_add(out, 0, bsattn_min64(term->count, args->end));
    case BSATTN_TERM_HIERARCHICAL:
        return row_hierarchical(args, work, out);
    case BSATTN_TERM_RANDOM:
        return row_random(args, out);
    case BSATTN_TERM_BLOCKS:
        return row_blocks(args, out);
    }
    BSATTN_ASSERT(!"term kind");
    return BSATTN_OK;
}

static bsattn_status_t row_branch(const bsattn_branch_t *branch, row_args_t *args,
                                  bsattn_row_work_t *work, bsattn_spans_t *out)
{
    args->term = &branch->terms[0];
    BSATTN_TRY(row_term(args, work, out));
    for (int t = 1; t < branch->term_count; ++t) {
        args->term = &branch->terms[t];
        BSATTN_TRY(row_term(args, work, &work->term));
        BSATTN_TRY(bsattn_spans_unite(out, &work->term, &work->buffer));
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_pattern_class_row(const bsattn_pattern_t *pattern, int class_index,
                                         int64_t row, bsattn_row_work_t *work, bsattn_spans_t *out)
{
    int head = pattern->head_of_class[class_index];
    const bsattn_head_mask_t *mask = &pattern->masks[pattern->mask_of_head[head]];
    row_args_t args = {
        .head = head,
        .i = row,
        .nb = pattern->blocks,
        .end = pattern->problem.causal ? row + 1 : pattern->blocks,
    };

    BSATTN_TRY(row_branch(&mask->branches[0], &args, work, out));
    for (int b = 1; b < mask->branch_count; ++b) {
        BSATTN_TRY(row_branch(&mask->branches[b], &args, work, &work->branch));
        BSATTN_TRY(bsattn_spans_append(out, &work->branch));
    }
    return BSATTN_OK;
}
