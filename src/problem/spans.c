/* SPDX-License-Identifier: Apache-2.0 */
#include "problem/spans.h"

#include "base/array.h"

#include <stdlib.h>
#include <string.h>

void bsattn_spans_free(bsattn_spans_t *spans)
{
    free(spans->items);
    *spans = (bsattn_spans_t){0};
}

void bsattn_spans_clear(bsattn_spans_t *spans)
{
    spans->count = 0;
}

bsattn_status_t bsattn_spans_reserve(bsattn_spans_t *spans, size_t more)
{
    return bsattn_array_reserve(&spans->items, &spans->capacity, spans->count + more,
                                sizeof(*spans->items));
}

bsattn_status_t bsattn_spans_add_strided(bsattn_spans_t *spans, int64_t first, int64_t last,
                                         int64_t stride)
{
    if (first >= last) {
        return BSATTN_OK;
    }
    BSATTN_ASSERT((first >= 0) && (last <= INT32_MAX) && (stride >= 2));
    BSATTN_TRY(bsattn_spans_reserve(spans, (size_t)((last - first - 1) / stride + 1)));
    for (int64_t x = first; x < last; x += stride) {
        spans->items[spans->count++] = (bsattn_span_t){(int32_t)x, (int32_t)(x + 1)};
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_spans_append(bsattn_spans_t *spans, const bsattn_spans_t *other)
{
    if (other->count > 0) {
        BSATTN_TRY(bsattn_spans_reserve(spans, other->count));
        memcpy(spans->items + spans->count, other->items, other->count * sizeof(*spans->items));
        spans->count += other->count;
    }
    return BSATTN_OK;
}

void bsattn_spans_swap(bsattn_spans_t *a, bsattn_spans_t *b)
{
    bsattn_spans_t swap = *a;

    *a = *b;
    *b = swap;
}

static bool same_spans(const bsattn_span_t *a, const bsattn_span_t *b, size_t count)
{
    return memcmp(a, b, count * sizeof(*a)) == 0;
}

void bsattn_spans_common(const bsattn_spans_t *a, const bsattn_spans_t *b, size_t *first_p,
                         size_t *last_p)
{
    size_t shorter = (a->count < b->count) ? a->count : b->count;
    size_t first = 0;
    size_t last = 0;

    /* Many at a time, then one by one. */
    for (size_t step = 64; step > 0; step = (step == 64) ? 1 : 0) {
        while ((step <= shorter - first) && same_spans(a->items + first, b->items + first, step)) {
            first += step;
        }
    }
    for (size_t step = 64; step > 0; step = (step == 64) ? 1 : 0) {
        while ((step <= shorter - first - last) &&
               same_spans(a->items + a->count - last - step, b->items + b->count - last - step,
                          step)) {
            last += step;
        }
    }
    *first_p = first;
    *last_p = last;
}

bsattn_spans_t bsattn_spans_inner(const bsattn_spans_t *spans, size_t first, size_t last)
{
    size_t count = spans->count - first - last;

    return (bsattn_spans_t){.items = (count == 0) ? NULL : spans->items + first, .count = count};
}

/* Of count ascending spans, how many end before x, without touching it. */
static size_t count_before(const bsattn_span_t *items, size_t count, int32_t x)
{
    size_t low = 0;
    size_t high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (items[middle].last < x) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Append spans of a set, of which the first ones may touch or overlap the last of out, which has
 * room. */
static void take(bsattn_spans_t *out, const bsattn_span_t *items, size_t count)
{
    size_t joined = 0;

    while ((joined < count) && (out->count > 0) &&
           (items[joined].first <= out->items[out->count - 1].last)) {
        bsattn_span_t *tail = &out->items[out->count - 1];
        tail->last = (items[joined].last > tail->last) ? items[joined].last : tail->last;
        ++joined;
    }
    if (joined < count) {
        memcpy(out->items + out->count, items + joined, (count - joined) * sizeof(*items));
        out->count += count - joined;
    }
}

/* Merge two sets into an empty list that has room: as much at a time as comes before the other's
 * next. */
static void spans_merge(const bsattn_spans_t *a, const bsattn_spans_t *b, bsattn_spans_t *out)
{
    size_t i = 0;
    size_t j = 0;

    while ((i < a->count) && (j < b->count)) {
        bool from_a = a->items[i].first <= b->items[j].first;
        const bsattn_spans_t *from = from_a ? a : b;
        size_t *at = from_a ? &i : &j;
        int32_t next = from_a ? b->items[j].first : a->items[i].first;
        size_t count = count_before(from->items + *at, from->count - *at, next);

        count = (count == 0) ? 1 : count;
        take(out, from->items + *at, count);
        *at += count;
    }
    take(out, a->items + i, a->count - i);
    take(out, b->items + j, b->count - j);
}

bsattn_status_t bsattn_spans_unite(bsattn_spans_t *set, bsattn_spans_t *other,
                                   bsattn_spans_t *buffer)
{
    if (set->count == 0) {
        bsattn_spans_swap(set, other);
        return BSATTN_OK;
    }
    if (other->count == 0) {
        return BSATTN_OK;
    }
    bsattn_spans_clear(buffer);
    BSATTN_TRY(bsattn_spans_reserve(buffer, set->count + other->count));
    spans_merge(set, other, buffer);
    bsattn_spans_swap(set, buffer);
    return BSATTN_OK;
}

static int span_compare(const void *a, const void *b)
{
    const bsattn_span_t *x = a;
    const bsattn_span_t *y = b;

    return (x->first > y->first) - (x->first < y->first);
}

static bool is_sorted(const bsattn_spans_t *spans)
{
    for (size_t i = 1; i < spans->count; ++i) {
        if (spans->items[i - 1].first > spans->items[i].first) {
            return false;
        }
    }
    return true;
}

void bsattn_spans_normalize(bsattn_spans_t *spans)
{
    size_t kept = 0;

    if (spans->count == 0) {
        return;
    }
    if (!is_sorted(spans)) {
        qsort(spans->items, spans->count, sizeof(*spans->items), span_compare);
    }
    for (size_t i = 1; i < spans->count; ++i) {
        bsattn_span_t *tail = &spans->items[kept];
        bsattn_span_t next = spans->items[i];
        if (next.first <= tail->last) {
            tail->last = (next.last > tail->last) ? next.last : tail->last;
        } else {
            spans->items[++kept] = next;
        }
    }
    spans->count = kept + 1;
}
