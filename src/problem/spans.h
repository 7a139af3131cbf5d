/* SPDX-License-Identifier: Apache-2.0 */
/** @file spans.h  Growable lists of block spans: rows of a mask, sets of blocks to send. */
#ifndef BSATTN_PROBLEM_SPANS_H
#define BSATTN_PROBLEM_SPANS_H

#include "base/status.h"

#include <stdbool.h>

/** A list of spans. A *set* is a list whose spans are disjoint, ascending and do not touch.
 *  Zero-initialise; owns items. */
typedef struct bsattn_spans {
    bsattn_span_t *items;
    size_t count;
    size_t capacity;
} bsattn_spans_t;

/** Release the items; the list is empty and usable again. */
void bsattn_spans_free(bsattn_spans_t *spans);

/** Forget the items, keep the memory. */
void bsattn_spans_clear(bsattn_spans_t *spans);

/** Make room for more spans. @return BSATTN_OK or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_spans_reserve(bsattn_spans_t *spans, size_t more);

/** Append first <= x < last; nothing if empty. Joins the last span if it touches or overlaps it
 *  from the right. Here, since rows are made of it.
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY */
static inline bsattn_status_t bsattn_spans_add(bsattn_spans_t *spans, int64_t first, int64_t last)
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
    if (spans->count == spans->capacity) {
        BSATTN_TRY(bsattn_spans_reserve(spans, 1));
    }
    BSATTN_ASSERT(spans->items != NULL);
    spans->items[spans->count++] = (bsattn_span_t){(int32_t)first, (int32_t)last};
    return BSATTN_OK;
}

/** Append the single blocks first, first + stride, .. below last; stride >= 2, and first beyond the
 *  last span.
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_spans_add_strided(bsattn_spans_t *spans, int64_t first, int64_t last,
                                         int64_t stride);

/** Append all spans of other as they are. */
bsattn_status_t bsattn_spans_append(bsattn_spans_t *spans, const bsattn_spans_t *other);

/** Exchange two lists. */
void bsattn_spans_swap(bsattn_spans_t *a, bsattn_spans_t *b);

/** How many spans two lists have in common at their ends: only what bsattn_spans_inner() leaves of one
 *  may be missing in the other. */
void bsattn_spans_common(const bsattn_spans_t *a, const bsattn_spans_t *b, size_t *first_p,
                         size_t *last_p);

/** What is left of a list without so many spans at its ends: a view of its items, not to be freed. */
bsattn_spans_t bsattn_spans_inner(const bsattn_spans_t *spans, size_t first, size_t last);

/** Unite a set with another, which is used up. @param buffer  overwritten; neither of them */
bsattn_status_t bsattn_spans_unite(bsattn_spans_t *set, bsattn_spans_t *other,
                                   bsattn_spans_t *buffer);

/** Make a list a set: sort and join. */
void bsattn_spans_normalize(bsattn_spans_t *spans);

#endif
