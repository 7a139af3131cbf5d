/* SPDX-License-Identifier: Apache-2.0 */
#include "problem/spans.h"

#include <stdlib.h>

void bsattn_spans_free(bsattn_spans_t *spans)
{
    free(spans->items);
    *spans = (bsattn_spans_t){0};
}

void bsattn_spans_clear(bsattn_spans_t *spans)
{
    spans->count = 0;
}

static bsattn_status_t spans_push(bsattn_spans_t *spans, bsattn_span_t span)
{
    if (spans->count == spans->capacity) {
        size_t capacity = (spans->capacity == 0) ? 16 : 2 * spans->capacity;
        bsattn_span_t *items = realloc(spans->items, capacity * sizeof(*items));
        if (items == NULL) {
            return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for a list of %zu block spans",
                               capacity);
        }
        spans->items = items;
        spans->capacity = capacity;
    }
    spans->items[spans->count++] = span;
    return BSATTN_OK;
}

bsattn_status_t bsattn_spans_add(bsattn_spans_t *spans, int64_t first, int64_t last)
{
    bsattn_span_t *tail = (spans->count == 0) ? NULL : &spans->items[spans->count - 1];

    if (first >= last) {
        return BSATTN_OK;
    }
    BSATTN_ASSERT((first >= 0) && (last <= INT32_MAX));
    if ((tail != NULL) && (tail->first <= first) && (first <= tail->last)) {
        tail->last = (last > tail->last) ? (int32_t)last : tail->last;
        return BSATTN_OK;
    }
    return spans_push(spans, (bsattn_span_t){.first = (int32_t)first, .last = (int32_t)last});
}

bsattn_status_t bsattn_spans_append(bsattn_spans_t *spans, const bsattn_spans_t *other)
{
    for (size_t i = 0; i < other->count; ++i) {
        BSATTN_TRY(spans_push(spans, other->items[i]));
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_spans_union(const bsattn_spans_t *a, const bsattn_spans_t *b,
                                   bsattn_spans_t *out)
{
    size_t i = 0;
    size_t j = 0;

    bsattn_spans_clear(out);
    while ((i < a->count) || (j < b->count)) {
        bool from_a = (j == b->count) ||
                      ((i < a->count) && (a->items[i].first <= b->items[j].first));
        const bsattn_span_t *next = from_a ? &a->items[i++] : &b->items[j++];
        BSATTN_TRY(bsattn_spans_add(out, next->first, next->last));
    }
    return BSATTN_OK;
}

static int span_compare(const void *a, const void *b)
{
    const bsattn_span_t *x = a;
    const bsattn_span_t *y = b;

    return (x->first > y->first) - (x->first < y->first);
}

void bsattn_spans_normalize(bsattn_spans_t *spans)
{
    size_t kept = 0;

    if (spans->count == 0) {
        return;
    }
    qsort(spans->items, spans->count, sizeof(*spans->items), span_compare);
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

int64_t bsattn_spans_total(const bsattn_spans_t *spans)
{
    int64_t total = 0;

    for (size_t i = 0; i < spans->count; ++i) {
        total += spans->items[i].last - spans->items[i].first;
    }
    return total;
}
