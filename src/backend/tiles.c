/* SPDX-License-Identifier: Apache-2.0 */
/* A query tile sees what its query blocks ("parts") see, each of them some rows of the tile. Keys
 * are counted in granules. The intervals of granules that the parts see become events, sorted once;
 * a sweep over them knows how often each part sees each stretch of granules. What all parts see is
 * a run and costs nothing per granule; the rest becomes pieces, one for a granule and a set of
 * rows, which are sorted, laid one over the other where they are of one granule, and packed.
 *
 * Events and pieces are numbers, so that sorting is cheap:
 *   event  granule << 4 | part << 1 | 1 where the interval begins, 0 where it ends
 *   piece  granule << 16 | diagonal << 12 | part << 8 | rows, bit w for rows 16w.. of the tile */
#include "backend/tiles.h"

#include "base/array.h"

#include <stdlib.h>
#include <string.h>

enum {
    PARTS_MAX = 2 * BSATTN_TILE_HALF / BSATTN_TILE_GROUP, /* query blocks in a query tile */
    GROUPS = BSATTN_TILE_KEYS / BSATTN_TILE_GROUP,        /* a row of squares in a mask */
};

typedef struct keys {
    uint64_t *at;
    size_t count;
    size_t capacity;
} keys_t;

/* The rows of a query block that lie in the tile at hand. */
typedef struct part {
    const bsattn_work_item_t *item;
    int row_in_block; /* of the first */
    int group_first;  /* of 16 rows, in the tile */
    int group_count;
} part_t;

/* The halves of a query tile that see something. */
typedef enum seen_by {
    SEEN_BY_FIRST = 1,
    SEEN_BY_SECOND = 2,
    SEEN_BY_BOTH = 4,
    SEEN_BY_ANY = 7,
} seen_by_t;

/* A granule of a masked tile; squares are as if it came first in the tile. */
typedef struct entry {
    int64_t granule;
    unsigned rows; /* those that see any of it */
    uint64_t visible;
    uint64_t diagonal;
} entry_t;

typedef struct cutter {
    const bsattn_tiles_params_t *params;
    bsattn_tiles_t *out;
    size_t item_capacity;
    size_t tile_capacity;
    size_t run_capacity;

    int64_t tile_rows;   /* rows of a head in a query tile */
    int granule;         /* keys */
    int block_granules;  /* in a key block */
    int tile_granules;   /* in a key tile */
    int64_t granule_end; /* granules with any key */
    int64_t full_end;    /* granules with all their keys */

    int64_t *item_of_block; /* by local query block; -1 for none */
    int64_t block_count;

    /* of the query tile at hand */
    part_t parts[PARTS_MAX];
    int part_count;
    unsigned rows; /* of all parts */
    uint64_t granule_squares; /* of a granule that all of them see */
    keys_t events;
    keys_t pieces;
    keys_t depths; /* granules where the runs that are open began, outermost first */
    entry_t *entries;
    size_t entry_count;
    size_t entry_capacity;

    keys_t spare; /* for sorting */
    bsattn_key_tile_t *spare_tiles;
    size_t spare_tile_capacity;
} cutter_t;

/* ----------------------------------------------------------------------------------------- keys */

static bsattn_status_t push(keys_t *keys, uint64_t key)
{
    BSATTN_TRY(bsattn_array_reserve(&keys->at, &keys->capacity, keys->count + 1, sizeof(key)));
    keys->at[keys->count++] = key;
    return BSATTN_OK;
}

static size_t ascent_end(const keys_t *keys, size_t at)
{
    while ((at < keys->count) && ((at + 1 == keys->count) || (keys->at[at] <= keys->at[at + 1]))) {
        ++at;
    }
    return (at < keys->count) ? at + 1 : at;
}

/* Merge neighbouring ascents: every list is ascending already, so few passes do. */
static bsattn_status_t sort(keys_t *keys, keys_t *spare)
{
    BSATTN_TRY(
        bsattn_array_reserve(&spare->at, &spare->capacity, keys->count + 1, sizeof(uint64_t)));
    while (ascent_end(keys, 0) < keys->count) {
        keys_t from = *keys;
        size_t out = 0;

        while (out < from.count) {
            size_t left = out;
            size_t middle = ascent_end(&from, out);
            size_t end = ascent_end(&from, middle);
            size_t right = middle;
            while ((left < middle) || (right < end)) {
                bool take_left =
                    (right == end) || ((left < middle) && (from.at[left] <= from.at[right]));
                spare->at[out++] = from.at[take_left ? left++ : right++];
            }
        }
        spare->count = from.count;
        *keys = *spare;
        *spare = from;
    }
    return BSATTN_OK;
}

/* --------------------------------------------------------------------------------------- events */

static unsigned rows_of(const part_t *part)
{
    return ((1u << part->group_count) - 1u) << part->group_first;
}

/* The squares of rows (a bit each) by the first `groups` 16 keys of a tile. */
static uint64_t squares_of(unsigned rows, int groups)
{
    uint64_t squares = 0;

    for (int w = 0; w < PARTS_MAX; ++w) {
        uint64_t row = ((uint64_t)1 << groups) - 1;
        squares |= (((rows >> w) & 1u) != 0) ? row << (GROUPS * w) : 0;
    }
    return squares;
}

static bsattn_status_t push_interval(cutter_t *cutter, int part, int64_t begin, int64_t end)
{
    end = (end < cutter->granule_end) ? end : cutter->granule_end;
    if (begin < end) {
        BSATTN_TRY(push(&cutter->events, ((uint64_t)begin << 4) | ((uint64_t)part << 1) | 1u));
        BSATTN_TRY(push(&cutter->events, ((uint64_t)end << 4) | ((uint64_t)part << 1)));
    }
    return BSATTN_OK;
}

static bsattn_status_t push_piece(cutter_t *cutter, int64_t granule, unsigned flags, unsigned rows)
{
    return push(&cutter->pieces, ((uint64_t)granule << 16) | (flags << 8) | rows);
}

/* A block on the diagonal: granules before the part's first row are seen in full. */
static bsattn_status_t push_diagonal(cutter_t *cutter, int p, int64_t block_begin)
{
    const part_t *part = &cutter->parts[p];
    int last_row = part->row_in_block + (part->group_count - 1) * BSATTN_TILE_GROUP;
    int64_t full_end = block_begin + part->row_in_block / cutter->granule;
    int64_t end = block_begin + last_row / cutter->granule + 1;

    end = (end < cutter->granule_end) ? end : cutter->granule_end;
    BSATTN_TRY(push_interval(cutter, p, block_begin, full_end));
    for (int64_t granule = full_end; granule < end; ++granule) {
        BSATTN_TRY(push_piece(cutter, granule, (1u << 4) | (unsigned)p, rows_of(part)));
    }
    return BSATTN_OK;
}

static bsattn_status_t push_part(cutter_t *cutter, int p)
{
    const bsattn_work_item_t *item = cutter->parts[p].item;
    const bsattn_key_run_t *runs = cutter->params->list->runs + item->run_first;

    for (int32_t r = 0; r < item->run_count; ++r) {
        int64_t begin = (int64_t)runs[r].slot * cutter->block_granules;
        int64_t end = begin + (int64_t)runs[r].count * cutter->block_granules;
        if (r < item->partial_count) {
            BSATTN_TRY(push_diagonal(cutter, p, begin));
        } else {
            BSATTN_TRY(push_interval(cutter, p, begin, end));
        }
    }
    return BSATTN_OK;
}

/* ---------------------------------------------------------------------------------------- sweep */

/* What all parts see, once, from begin to end. */
static bsattn_status_t push_run(cutter_t *cutter, int64_t begin, int64_t end)
{
    bsattn_tiles_t *out = cutter->out;
    int64_t full_end = (end < cutter->full_end) ? end : cutter->full_end;
    int64_t tiles = (full_end > begin) ? (full_end - begin) / cutter->tile_granules : 0;

    if (tiles > 0) {
        BSATTN_TRY(bsattn_array_reserve(&out->runs, &cutter->run_capacity, out->run_count + 1,
                                        sizeof(*out->runs)));
        out->runs[out->run_count++] = (bsattn_tile_run_t){
            .key_row = (int32_t)(begin * cutter->granule), .tile_count = (int32_t)tiles};
    }
    for (int64_t granule = begin + tiles * cutter->tile_granules; granule < end; ++granule) {
        BSATTN_TRY(push_piece(cutter, granule, 0, cutter->rows));
    }
    return BSATTN_OK;
}

/* From this granule on, all parts see everything at least `depth` times. */
static bsattn_status_t set_depth(cutter_t *cutter, int64_t granule, size_t depth)
{
    keys_t *depths = &cutter->depths;

    while (depths->count > depth) {
        --depths->count;
        BSATTN_TRY(push_run(cutter, (int64_t)depths->at[depths->count], granule));
    }
    while (depths->count < depth) {
        BSATTN_TRY(push(depths, (uint64_t)granule));
    }
    return BSATTN_OK;
}

/* What some parts see more often than all do. */
static bsattn_status_t push_rest(cutter_t *cutter, int64_t begin, int64_t end, const size_t *seen,
                                 size_t by_all)
{
    for (size_t times = by_all + 1;; ++times) {
        unsigned rows = 0;
        for (int p = 0; p < cutter->part_count; ++p) {
            rows |= (seen[p] >= times) ? rows_of(&cutter->parts[p]) : 0;
        }
        if (rows == 0) {
            return BSATTN_OK;
        }
        for (int64_t granule = begin; granule < end; ++granule) {
            BSATTN_TRY(push_piece(cutter, granule, 0, rows));
        }
    }
}

static bsattn_status_t sweep(cutter_t *cutter)
{
    const keys_t *events = &cutter->events;
    size_t seen[PARTS_MAX] = {0};
    size_t at = 0;

    while (at < events->count) {
        uint64_t granule = events->at[at] >> 4;
        size_t by_all = SIZE_MAX;

        for (; (at < events->count) && (events->at[at] >> 4 == granule); ++at) {
            size_t *times = &seen[(events->at[at] >> 1) & 7u];
            *times = ((events->at[at] & 1u) != 0) ? *times + 1 : *times - 1;
        }
        for (int p = 0; p < cutter->part_count; ++p) {
            by_all = (seen[p] < by_all) ? seen[p] : by_all;
        }
        BSATTN_TRY(set_depth(cutter, (int64_t)granule, by_all));
        if (at < events->count) {
            BSATTN_TRY(push_rest(cutter, (int64_t)granule, (int64_t)(events->at[at] >> 4), seen,
                                 by_all));
        }
    }
    return BSATTN_OK;
}

/* ------------------------------------------------------------------------------- gathered tiles */

static void add_squares(const cutter_t *cutter, entry_t *entry, uint64_t piece)
{
    const part_t *part = &cutter->parts[(piece >> 8) & 7u];
    bool diagonal = ((piece >> 12) & 1u) != 0;
    unsigned rows = (unsigned)(piece & 0xffu);
    int key_in_block = (int)(entry->granule % cutter->block_granules) * cutter->granule;
    int64_t keys_left = cutter->params->key_tokens - entry->granule * cutter->granule;
    int64_t keys = (keys_left < cutter->granule) ? keys_left : cutter->granule;

    for (int w = 0; w < PARTS_MAX; ++w) {
        int row = part->row_in_block + (w - part->group_first) * BSATTN_TILE_GROUP;
        if (((rows >> w) & 1u) == 0) {
            continue;
        }
        for (int key = 0; key < keys; key += BSATTN_TILE_GROUP) {
            uint64_t bit = (uint64_t)1 << (GROUPS * w + key / BSATTN_TILE_GROUP);
            entry->visible |= (!diagonal || (key_in_block + key <= row)) ? bit : 0;
            entry->diagonal |= (diagonal && (key_in_block + key == row)) ? bit : 0;
        }
    }
    entry->rows |= rows;
}

/* Pieces of one granule share an entry unless rows would see it twice there. */
static bsattn_status_t lay_pieces(cutter_t *cutter)
{
    size_t granule_first = 0;

    cutter->entry_count = 0;
    for (size_t i = 0; i < cutter->pieces.count; ++i) {
        uint64_t piece = cutter->pieces.at[i];
        int64_t granule = (int64_t)(piece >> 16);
        size_t e = granule_first;

        if ((e < cutter->entry_count) && (cutter->entries[e].granule != granule)) {
            e = granule_first = cutter->entry_count;
        }
        while ((e < cutter->entry_count) && ((cutter->entries[e].rows & piece) != 0)) {
            ++e;
        }
        if (e == cutter->entry_count) {
            BSATTN_TRY(bsattn_array_reserve(&cutter->entries, &cutter->entry_capacity, e + 1,
                                            sizeof(*cutter->entries)));
            cutter->entries[cutter->entry_count++] = (entry_t){.granule = granule};
        }
        add_squares(cutter, &cutter->entries[e], piece);
    }
    return BSATTN_OK;
}

/* All rows of the tile see all of it. */
static bool is_whole(const cutter_t *cutter, const entry_t *entry)
{
    return (entry->granule < cutter->full_end) && (entry->diagonal == 0) &&
           (entry->visible == cutter->granule_squares);
}

static seen_by_t seen_by(uint64_t visible)
{
    return ((visible >> 32) == 0)          ? SEEN_BY_FIRST
           : ((visible & UINT32_MAX) == 0) ? SEEN_BY_SECOND
                                           : SEEN_BY_BOTH;
}

static void place_entry(const cutter_t *cutter, bsattn_key_tile_t *tile, int place,
                        const entry_t *entry)
{
    int group_first = place * cutter->granule / BSATTN_TILE_GROUP;
    int64_t row = entry->granule * cutter->granule;
    int64_t keys_left = cutter->params->key_tokens - row;
    uint64_t visible = entry->visible << group_first;
    uint64_t diagonal = entry->diagonal << group_first;

    for (int key = 0; (key < cutter->granule) && (key < keys_left); key += BSATTN_TILE_GROUP) {
        tile->key_row[group_first + key / BSATTN_TILE_GROUP] = (int32_t)(row + key);
    }
    if (cutter->params->shape.pair_heads != 0) {
        visible |= visible << (GROUPS * PARTS_MAX / 2);
        diagonal |= diagonal << (GROUPS * PARTS_MAX / 2);
    }
    tile->visible |= visible;
    tile->diagonal |= diagonal;
    if (keys_left < cutter->granule) {
        tile->key_limit = (int32_t)(place * cutter->granule + keys_left);
    }
}

static bsattn_status_t begin_tile(cutter_t *cutter)
{
    bsattn_tiles_t *out = cutter->out;
    bsattn_key_tile_t *tile;

    BSATTN_TRY(bsattn_array_reserve(&out->tiles, &cutter->tile_capacity, out->tile_count + 1,
                                    sizeof(*out->tiles)));
    tile = &out->tiles[out->tile_count++];
    *tile = (bsattn_key_tile_t){.key_limit = cutter->params->shape.key_tile};
    for (int g = 0; g < GROUPS; ++g) {
        tile->key_row[g] = BSATTN_TILE_NO_KEYS;
    }
    return BSATTN_OK;
}

static bool is_seen(const entry_t *entry, seen_by_t halves)
{
    return (seen_by(entry->visible) & halves) != 0;
}

/* The first entry from which on whole ones fill tiles to the end. */
static size_t find_rest(const cutter_t *cutter, seen_by_t halves)
{
    size_t rest = cutter->entry_count;
    int place = 0; /* whole ones from the end, in their tile */

    for (size_t e = cutter->entry_count; e-- > 0;) {
        const entry_t *entry = &cutter->entries[e];
        if (is_seen(entry, halves) && is_whole(cutter, entry) && (++place == cutter->tile_granules)) {
            rest = e;
            place = 0;
        }
    }
    return rest;
}

/* Tiles of the entries that these halves see: of whole ones from `rest` on, or of the others. */
static bsattn_status_t pack_entries(cutter_t *cutter, seen_by_t halves, size_t rest, bool whole)
{
    int place = cutter->tile_granules;

    for (size_t e = 0; e < cutter->entry_count; ++e) {
        const entry_t *entry = &cutter->entries[e];
        if (!is_seen(entry, halves) || (((e >= rest) && is_whole(cutter, entry)) != whole)) {
            continue;
        }
        if (place == cutter->tile_granules) {
            BSATTN_TRY(begin_tile(cutter));
            place = 0;
        }
        place_entry(cutter, &cutter->out->tiles[cutter->out->tile_count - 1], place, entry);
        /* What follows the end of the keys in a tile would lie behind its limit. */
        place = (entry->granule >= cutter->full_end) ? cutter->tile_granules : place + 1;
    }
    return BSATTN_OK;
}

/* Tiles that hide something come first and are few: kernels need not look at the masks of others. */
static bsattn_status_t pack_halves(cutter_t *cutter, seen_by_t halves)
{
    size_t rest = find_rest(cutter, halves);

    BSATTN_TRY(pack_entries(cutter, halves, rest, false));
    return pack_entries(cutter, halves, rest, true);
}

/* Two sequences of tiles, one after the other from `first` on, become one: a tile of each in turn. */
static bsattn_status_t interleave(cutter_t *cutter, size_t first, size_t second)
{
    bsattn_tiles_t *out = cutter->out;
    size_t count = out->tile_count - first;
    size_t a = first;
    size_t b = second;
    bsattn_key_tile_t *tiles;

    BSATTN_TRY(bsattn_array_reserve(&cutter->spare_tiles, &cutter->spare_tile_capacity, count + 1,
                                    sizeof(*cutter->spare_tiles)));
    for (size_t i = 0; i < count; ++i) {
        bool from_a = (b == out->tile_count) || ((a < second) && (a - first <= b - second));
        cutter->spare_tiles[i] = out->tiles[from_a ? a++ : b++];
    }
    tiles = out->tiles + first;
    memcpy(tiles, cutter->spare_tiles, count * sizeof(*tiles));
    return BSATTN_OK;
}

/* Where a half passes over tiles that only the other sees, those of each come in turn, so that both
 * have work, and what both see comes last. */
static bsattn_status_t pack_tiles(cutter_t *cutter)
{
    size_t first = cutter->out->tile_count;
    size_t second;

    if (cutter->params->shape.passes == 0) {
        return pack_halves(cutter, SEEN_BY_ANY);
    }
    BSATTN_TRY(pack_halves(cutter, SEEN_BY_FIRST));
    second = cutter->out->tile_count;
    BSATTN_TRY(pack_halves(cutter, SEEN_BY_SECOND));
    if ((second > first) && (cutter->out->tile_count > second)) {
        BSATTN_TRY(interleave(cutter, first, second));
    }
    return pack_halves(cutter, SEEN_BY_BOTH);
}

/* ---------------------------------------------------------------------------------------- items */

static void find_parts(cutter_t *cutter, int64_t row)
{
    int block = cutter->params->block;
    int rows = (block < cutter->tile_rows) ? block : (int)cutter->tile_rows;

    cutter->part_count = 0;
    cutter->rows = 0;
    for (int64_t at = row; (at < row + cutter->tile_rows) && (at < cutter->params->tokens);
         at += rows) {
        int64_t item = cutter->item_of_block[at / block];
        if (item >= 0) {
            part_t *part = &cutter->parts[cutter->part_count++];
            *part = (part_t){.item = &cutter->params->list->items[item],
                             .row_in_block = (int)(at % block),
                             .group_first = (int)(at - row) / BSATTN_TILE_GROUP,
                             .group_count = rows / BSATTN_TILE_GROUP};
            cutter->rows |= rows_of(part);
        }
    }
    cutter->granule_squares = squares_of(cutter->rows, cutter->granule / BSATTN_TILE_GROUP);
}

/* Where the state of a half's first row is: known from any of its parts. */
static int32_t state_row(const cutter_t *cutter, int half)
{
    int groups = PARTS_MAX / 2;

    for (int p = 0; p < cutter->part_count; ++p) {
        const part_t *part = &cutter->parts[p];
        int group = half * groups; /* the half's first */
        if ((part->group_first < group + groups) &&
            (part->group_first + part->group_count > group)) {
            return part->item->state_block * cutter->params->block + part->row_in_block +
                   (group - part->group_first) * BSATTN_TILE_GROUP;
        }
    }
    return 0;
}

/* Of the tiles from tile_first on, those up to the last that hides anything from the rows. */
static int32_t masked_count(const cutter_t *cutter, size_t tile_first, unsigned rows)
{
    const bsattn_tiles_t *out = cutter->out;
    int key_tile = cutter->params->shape.key_tile;
    uint64_t all = squares_of(rows, key_tile / BSATTN_TILE_GROUP);
    size_t end = out->tile_count;

    while ((end > tile_first) && (out->tiles[end - 1].key_limit == key_tile) &&
           (out->tiles[end - 1].diagonal == 0) && ((out->tiles[end - 1].visible & all) == all)) {
        --end;
    }
    return (int32_t)(end - tile_first);
}

static bsattn_status_t push_item(cutter_t *cutter, int64_t row, size_t tile_first, size_t run_first)
{
    bsattn_tiles_t *out = cutter->out;
    bool pair = cutter->params->shape.pair_heads != 0;
    int64_t key_tiles = (int64_t)(out->tile_count - tile_first);
    unsigned first = 0;
    unsigned last = 0;
    unsigned copies = pair ? 0x11u : 0x1u; /* of the rows' bits */

    for (int p = 0; p < cutter->part_count; ++p) {
        first |= (cutter->parts[p].item->first != 0) ? rows_of(&cutter->parts[p]) : 0;
        last |= (cutter->parts[p].item->last != 0) ? rows_of(&cutter->parts[p]) : 0;
    }
    for (size_t r = run_first; r < out->run_count; ++r) {
        key_tiles += out->runs[r].tile_count;
    }
    BSATTN_ASSERT(key_tiles >= 1);
    BSATTN_TRY(bsattn_array_reserve(&out->items, &cutter->item_capacity, out->item_count + 1,
                                    sizeof(*out->items)));
    out->items[out->item_count++] = (bsattn_tile_item_t){
        .tile_first = (int64_t)tile_first,
        .run_first = (int64_t)run_first,
        .row = {(int32_t)row, (int32_t)(pair ? row : row + BSATTN_TILE_HALF)},
        .state_row = {state_row(cutter, 0), state_row(cutter, pair ? 0 : 1)},
        .tile_count = (int32_t)(out->tile_count - tile_first),
        .masked_count = masked_count(cutter, tile_first, cutter->rows * copies),
        .run_count = (int32_t)(out->run_count - run_first),
        .key_tiles = (int32_t)key_tiles,
        .active = (uint8_t)(cutter->rows * copies),
        .first = (uint8_t)(first * copies),
        .last = (uint8_t)(last * copies),
    };
    return BSATTN_OK;
}

/* Events and pieces are in order. What is seen in full is among the events, the rest among the
 * pieces. */
static void note_reach(cutter_t *cutter)
{
    const keys_t *events = &cutter->events;
    const keys_t *pieces = &cutter->pieces;
    int64_t first = INT64_MAX;
    int64_t end = 0;

    if (events->count > 0) {
        first = (int64_t)(events->at[0] >> 4);
        end = (int64_t)(events->at[events->count - 1] >> 4);
    }
    if (pieces->count > 0) {
        int64_t piece_first = (int64_t)(pieces->at[0] >> 16);
        int64_t piece_end = (int64_t)(pieces->at[pieces->count - 1] >> 16) + 1;
        first = (piece_first < first) ? piece_first : first;
        end = (piece_end > end) ? piece_end : end;
    }
    if ((end - first) * cutter->granule > cutter->out->reach) {
        cutter->out->reach = (end - first) * cutter->granule;
    }
}

static bsattn_status_t cut_tile(cutter_t *cutter, int64_t row)
{
    size_t tile_first = cutter->out->tile_count;
    size_t run_first = cutter->out->run_count;

    find_parts(cutter, row);
    if (cutter->part_count == 0) {
        return BSATTN_OK;
    }
    cutter->events.count = 0;
    cutter->pieces.count = 0;
    for (int p = 0; p < cutter->part_count; ++p) {
        BSATTN_TRY(push_part(cutter, p));
    }
    BSATTN_TRY(sort(&cutter->events, &cutter->spare));
    BSATTN_TRY(sweep(cutter));
    BSATTN_TRY(sort(&cutter->pieces, &cutter->spare));
    note_reach(cutter);
    BSATTN_TRY(lay_pieces(cutter));
    BSATTN_TRY(pack_tiles(cutter));
    return push_item(cutter, row, tile_first, run_first);
}

static int longer_first(const void *a, const void *b)
{
    const bsattn_tile_item_t *x = a;
    const bsattn_tile_item_t *y = b;

    if (x->key_tiles != y->key_tiles) {
        return (x->key_tiles > y->key_tiles) ? -1 : 1;
    }
    return (x->row[0] > y->row[0]) - (x->row[0] < y->row[0]);
}

static bsattn_status_t find_items(cutter_t *cutter)
{
    const bsattn_tiles_params_t *params = cutter->params;
    size_t blocks = (size_t)cutter->block_count;

    cutter->item_of_block = malloc((blocks + 1) * sizeof(*cutter->item_of_block));
    if (cutter->item_of_block == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the items of %zu query blocks",
                           blocks);
    }
    memset(cutter->item_of_block, 0xff, blocks * sizeof(*cutter->item_of_block));
    for (int64_t i = 0; i < params->list->item_count; ++i) {
        cutter->item_of_block[params->list->items[i].row] = i;
    }
    return BSATTN_OK;
}

static bsattn_status_t cut(cutter_t *cutter)
{
    BSATTN_TRY(find_items(cutter));
    for (int64_t row = 0; row < cutter->params->tokens; row += cutter->tile_rows) {
        BSATTN_TRY(cut_tile(cutter, row));
    }
    if (cutter->out->item_count > 0) {
        qsort(cutter->out->items, cutter->out->item_count, sizeof(*cutter->out->items),
              longer_first);
    }
    return BSATTN_OK;
}

static void free_cutter(cutter_t *cutter)
{
    free(cutter->item_of_block);
    free(cutter->events.at);
    free(cutter->pieces.at);
    free(cutter->depths.at);
    free(cutter->entries);
    free(cutter->spare.at);
    free(cutter->spare_tiles);
}

bsattn_status_t bsattn_tiles_init(bsattn_tiles_t *tiles, const bsattn_tiles_params_t *params)
{
    const bsattn_tile_shape_t *shape = &params->shape;
    int granule = (params->block < shape->key_tile) ? params->block : shape->key_tile;
    cutter_t cutter = {
        .params = params,
        .out = tiles,
        .tile_rows = BSATTN_TILE_HALF * ((shape->pair_heads != 0) ? 1 : shape->halves),
        .granule = granule,
        .block_granules = params->block / granule,
        .tile_granules = shape->key_tile / granule,
        .granule_end = (params->key_tokens + granule - 1) / granule,
        .full_end = params->key_tokens / granule,
        .block_count = (params->tokens + params->block - 1) / params->block,
    };
    bsattn_status_t status;

    *tiles = (bsattn_tiles_t){0};
    status = cut(&cutter);
    free_cutter(&cutter);
    if (status != BSATTN_OK) {
        bsattn_tiles_free(tiles);
    }
    return status;
}

void bsattn_tiles_free(bsattn_tiles_t *tiles)
{
    free(tiles->items);
    free(tiles->tiles);
    free(tiles->runs);
    *tiles = (bsattn_tiles_t){0};
}

/* --------------------------------------------------------------------------------------- spread */

enum { SPREAD_TILES = 512 }; /* of a list, at most about as many are looked at */

/* Intervals of key blocks, whole ones, that the parts of a query tile see. */
static bsattn_status_t push_blocks(cutter_t *cutter)
{
    for (int p = 0; p < cutter->part_count; ++p) {
        const bsattn_work_item_t *item = cutter->parts[p].item;
        const bsattn_key_run_t *runs = cutter->params->list->runs + item->run_first;
        for (int32_t r = 0; r < item->run_count; ++r) {
            BSATTN_TRY(push_interval(cutter, p, runs[r].slot, runs[r].slot + runs[r].count));
        }
    }
    return BSATTN_OK;
}

/* A half sees a block as often as the part of it that sees it most often. */
static void count_blocks(const cutter_t *cutter, bsattn_tiles_spread_t *spread)
{
    const keys_t *events = &cutter->events;
    size_t seen[PARTS_MAX] = {0};

    for (size_t at = 0; at + 1 < events->count; ++at) {
        uint64_t event = events->at[at];
        double blocks = (double)((events->at[at + 1] >> 4) - (event >> 4));
        size_t times[2] = {0, 0};

        seen[(event >> 1) & 7u] += ((event & 1u) != 0) ? 1 : SIZE_MAX;
        for (int p = 0; p < cutter->part_count; ++p) {
            unsigned rows = rows_of(&cutter->parts[p]);
            for (int h = 0; h < 2; ++h) {
                bool in_half = ((rows >> (PARTS_MAX / 2 * h)) & 0xfu) != 0;
                times[h] = (in_half && (seen[p] > times[h])) ? seen[p] : times[h];
            }
        }
        spread->half += blocks * (double)(times[0] + times[1]) / 2.0;
        spread->tile += blocks * (double)((times[0] > times[1]) ? times[0] : times[1]);
    }
}

static bsattn_status_t measure(cutter_t *cutter, bsattn_tiles_spread_t *spread)
{
    int64_t tokens = cutter->params->tokens;
    int64_t tiles = (tokens + cutter->tile_rows - 1) / cutter->tile_rows;
    int64_t step = (tiles / SPREAD_TILES) | 1; /* odd: strides of patterns are often even */

    BSATTN_TRY(find_items(cutter));
    for (int64_t row = 0; row < tokens; row += step * cutter->tile_rows) {
        find_parts(cutter, row);
        cutter->events.count = 0;
        BSATTN_TRY(push_blocks(cutter));
        BSATTN_TRY(sort(&cutter->events, &cutter->spare));
        count_blocks(cutter, spread);
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_tiles_add_spread(const bsattn_tiles_params_t *params,
                                        bsattn_tiles_spread_t *spread)
{
    cutter_t cutter = {
        .params = params,
        .tile_rows = 2 * (int64_t)BSATTN_TILE_HALF,
        .granule_end = INT32_MAX,
        .block_count = (params->tokens + params->block - 1) / params->block,
    };
    bsattn_status_t status = measure(&cutter, spread);

    free_cutter(&cutter);
    return status;
}

double bsattn_tiles_spread(const bsattn_tiles_spread_t *spread)
{
    return (spread->half > 0.0) ? spread->tile / spread->half : 1.0;
}
