/* SPDX-License-Identifier: Apache-2.0 */
#include "problem/layout.h"

#include "base/text.h"

#include <inttypes.h>
#include <string.h>

bsattn_status_t bsattn_layout_parse(const char *text, int64_t blocks, int ranks,
                                    bsattn_layout_t *layout_p)
{
    bsattn_layout_t layout = {.ranks = ranks, .blocks = blocks, .run = 1};

    if (strcmp(text, "contiguous") == 0) {
        layout.kind = BSATTN_LAYOUT_CONTIGUOUS;
    } else if (strcmp(text, "zigzag") == 0) {
        layout.kind = BSATTN_LAYOUT_ZIGZAG;
    } else if (strcmp(text, "cyclic") == 0) {
        layout.kind = BSATTN_LAYOUT_CYCLIC;
    } else if ((strncmp(text, "cyclic:", 7) == 0) && bsattn_text_size(text + 7, &layout.run) &&
               (layout.run >= 1) && (layout.run <= INT32_MAX)) {
        layout.kind = BSATTN_LAYOUT_CYCLIC;
    } else {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "layout '%s': must be auto, contiguous, zigzag or cyclic[:k] with a "
                           "run of k >= 1 blocks",
                           text);
    }
    *layout_p = layout;
    return BSATTN_OK;
}

void bsattn_layout_format(const bsattn_layout_t *layout, char *out, size_t size)
{
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, size);
    switch (layout->kind) {
    case BSATTN_LAYOUT_CONTIGUOUS:
        bsattn_strbuf_add(&buf, "contiguous");
        break;
    case BSATTN_LAYOUT_ZIGZAG:
        bsattn_strbuf_add(&buf, "zigzag");
        break;
    case BSATTN_LAYOUT_CYCLIC:
        bsattn_strbuf_add(&buf, "cyclic:%" PRId64, layout->run);
        break;
    }
}

/* The sequence cut in `parts` even runs, the first blocks % parts of them one longer. */
static int64_t part_first(int64_t blocks, int64_t parts, int64_t part)
{
    int64_t extra = blocks % parts;

    return part * (blocks / parts) + ((part < extra) ? part : extra);
}

static int64_t part_of(int64_t blocks, int64_t parts, int64_t block)
{
    int64_t size = blocks / parts;
    int64_t extra = blocks % parts;
    int64_t long_end = extra * (size + 1);

    return (block < long_end) ? block / (size + 1) : extra + (block - long_end) / size;
}

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return (x < low) ? low : (x > high) ? high : x;
}

/* Blocks below `block` in one part. */
static int64_t part_lower(const bsattn_layout_t *layout, int64_t parts, int64_t part, int64_t block)
{
    int64_t first = part_first(layout->blocks, parts, part);
    int64_t last = part_first(layout->blocks, parts, part + 1);

    return clamp(block, first, last) - first;
}

int bsattn_layout_owner(const bsattn_layout_t *layout, int64_t block)
{
    int64_t parts = 2 * (int64_t)layout->ranks;
    int64_t part;

    switch (layout->kind) {
    case BSATTN_LAYOUT_CONTIGUOUS:
        return (int)part_of(layout->blocks, layout->ranks, block);
    case BSATTN_LAYOUT_ZIGZAG:
        part = part_of(layout->blocks, parts, block);
        return (int)((part < layout->ranks) ? part : parts - 1 - part);
    case BSATTN_LAYOUT_CYCLIC:
        return (int)((block / layout->run) % layout->ranks);
    }
    BSATTN_ASSERT(!"layout kind");
    return 0;
}

int64_t bsattn_layout_lower(const bsattn_layout_t *layout, int rank, int64_t block)
{
    int64_t parts = 2 * (int64_t)layout->ranks;
    int64_t run;
    int64_t place;

    switch (layout->kind) {
    case BSATTN_LAYOUT_CONTIGUOUS:
        return part_lower(layout, layout->ranks, rank, block);
    case BSATTN_LAYOUT_ZIGZAG:
        return part_lower(layout, parts, rank, block) +
               part_lower(layout, parts, parts - 1 - rank, block);
    case BSATTN_LAYOUT_CYCLIC:
        run = block / layout->run;
        place = run % layout->ranks;
        return run / layout->ranks * layout->run + ((place > rank)    ? layout->run
                                                    : (place == rank) ? block % layout->run
                                                                      : 0);
    }
    BSATTN_ASSERT(!"layout kind");
    return 0;
}

int64_t bsattn_layout_count(const bsattn_layout_t *layout, int rank)
{
    return bsattn_layout_lower(layout, rank, layout->blocks);
}

int64_t bsattn_layout_block(const bsattn_layout_t *layout, int rank, int64_t slot)
{
    int64_t parts = 2 * (int64_t)layout->ranks;
    int64_t first;
    int64_t size;

    switch (layout->kind) {
    case BSATTN_LAYOUT_CONTIGUOUS:
        return part_first(layout->blocks, layout->ranks, rank) + slot;
    case BSATTN_LAYOUT_ZIGZAG:
        first = part_first(layout->blocks, parts, rank);
        size = part_first(layout->blocks, parts, rank + 1) - first;
        return (slot < size) ? first + slot
                             : part_first(layout->blocks, parts, parts - 1 - rank) + slot - size;
    case BSATTN_LAYOUT_CYCLIC:
        return (slot / layout->run * layout->ranks + rank) * layout->run + slot % layout->run;
    }
    BSATTN_ASSERT(!"layout kind");
    return 0;
}

int64_t bsattn_layout_run_end(const bsattn_layout_t *layout, int64_t block)
{
    int64_t parts = layout->ranks;
    int64_t end;

    switch (layout->kind) {
    case BSATTN_LAYOUT_CONTIGUOUS:
        return part_first(layout->blocks, parts, part_of(layout->blocks, parts, block) + 1);
    case BSATTN_LAYOUT_ZIGZAG:
        parts *= 2;
        return part_first(layout->blocks, parts, part_of(layout->blocks, parts, block) + 1);
    case BSATTN_LAYOUT_CYCLIC:
        if (layout->ranks == 1) {
            return layout->blocks;
        }
        end = (block / layout->run + 1) * layout->run;
        return (end < layout->blocks) ? end : layout->blocks;
    }
    BSATTN_ASSERT(!"layout kind");
    return 0;
}

/* Owner runs in a span where they may be more than ranks; 1 for layouts that are walked run by run. */
static int64_t cyclic_runs(const bsattn_layout_t *layout, bsattn_span_t span)
{
    if (layout->kind == BSATTN_LAYOUT_CYCLIC) {
        return (span.last - 1) / layout->run - span.first / layout->run + 1;
    }
    return 1;
}

void bsattn_piece_begin(bsattn_piece_walk_t *walk, const bsattn_layout_t *layout,
                        bsattn_span_t span)
{
    bool by_owner = cyclic_runs(layout, span) > layout->ranks;

    *walk = (bsattn_piece_walk_t){
        .layout = layout,
        .span = span,
        .at = by_owner ? 0 : span.first,
        .by_owner = by_owner,
    };
}

static bool next_by_owner(bsattn_piece_walk_t *walk, bsattn_piece_t *piece)
{
    while (walk->at < walk->layout->ranks) {
        int rank = (int)walk->at++;
        int64_t first = bsattn_layout_lower(walk->layout, rank, walk->span.first);
        int64_t last = bsattn_layout_lower(walk->layout, rank, walk->span.last);
        if (first < last) {
            *piece = (bsattn_piece_t){
                .owner = rank, .slot = (int32_t)first, .count = (int32_t)(last - first)};
            return true;
        }
    }
    return false;
}

bool bsattn_piece_next(bsattn_piece_walk_t *walk, bsattn_piece_t *piece)
{
    int64_t end;
    int owner;

    if (walk->by_owner) {
        return next_by_owner(walk, piece);
    }
    if (walk->at >= walk->span.last) {
        return false;
    }
    end = bsattn_layout_run_end(walk->layout, walk->at);
    end = (end < walk->span.last) ? end : walk->span.last;
    owner = bsattn_layout_owner(walk->layout, walk->at);
    *piece = (bsattn_piece_t){
        .owner = owner,
        .slot = (int32_t)bsattn_layout_lower(walk->layout, owner, walk->at),
        .count = (int32_t)(end - walk->at),
    };
    walk->at = end;
    return true;
}
