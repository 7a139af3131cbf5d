/* SPDX-License-Identifier: Apache-2.0 */
/* The tiles of random lists, expanded to how often each query token sees each key token, against
 * the lists expanded block by block; and what the tiles promise besides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "backend/tiles.h"
#include "base/array.h"

enum { GROUP = BSATTN_TILE_GROUP };

static const int blocks[] = {16, 32, 64, 128, 256};

static const bsattn_tile_shape_t shapes[] = {
    {.halves = 1, .key_tile = 64},
    {.halves = 1, .key_tile = 128},
    {.halves = 2, .key_tile = 64},
    {.halves = 2, .key_tile = 128},
    {.halves = 2, .key_tile = 64, .pair_heads = 1},
    {.halves = 2, .key_tile = 128, .pair_heads = 1},
    {.halves = 2, .key_tile = 64, .passes = 1},
    {.halves = 2, .key_tile = 128, .passes = 1},
};

enum {
    BLOCK_KINDS = sizeof(blocks) / sizeof(blocks[0]),
    SHAPE_KINDS = sizeof(shapes) / sizeof(shapes[0]),
};

/* How a random list is made. */
typedef struct recipe {
    int item_percent; /* query blocks with an item */
    int key_percent;  /* key blocks in a list */
    int own_percent;  /* lists of their own; others are alike */
    int branches;     /* > 1: blocks may be in a list more than once */
    bool diagonal;
} recipe_t;

static const recipe_t recipes[] = {
    {100, 100, 0, 1, false}, {100, 60, 0, 1, true},   {80, 50, 50, 1, true},
    {60, 10, 100, 1, false}, {100, 95, 20, 2, false}, {70, 70, 60, 3, true},
    {100, 2, 100, 1, true},
};

enum { RECIPES = sizeof(recipes) / sizeof(recipes[0]) };

typedef struct made_list {
    bsattn_work_list_t list;
    bsattn_work_item_t *items;
    bsattn_key_run_t *runs;
    size_t run_count;
    size_t run_capacity;
} made_list_t;

static uint64_t random_state = 1;

static int random_below(int end)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (int)((random_state >> 33) % (uint64_t)end);
}

static void add_run(made_list_t *made, bsattn_work_item_t *item, int slot, int count)
{
    assert_int_equal(bsattn_array_reserve(&made->runs, &made->run_capacity, made->run_count + 1,
                                          sizeof(*made->runs)),
                     BSATTN_OK);
    made->runs[made->run_count++] = (bsattn_key_run_t){slot, count};
    ++item->run_count;
    item->block_count += count;
}

/* Key blocks that a list holds; runs end where a coin says so, too. */
static void add_branch(made_list_t *made, bsattn_work_item_t *item, const recipe_t *recipe,
                       const bool *common, int slots)
{
    bool own = random_below(100) < recipe->own_percent;
    int begin = -1;

    for (int slot = 0; slot <= slots; ++slot) {
        bool in = (slot < slots) &&
                  (own ? random_below(100) < recipe->key_percent : common[slot]);
        if ((begin >= 0) && (!in || (random_below(20) == 0))) {
            add_run(made, item, begin, slot - begin);
            begin = -1;
        }
        begin = (in && (begin < 0)) ? slot : begin;
    }
}

/* Groups of blocks in the reverse order, and places that nobody has between them. */
static int state_block(int block, int rows, int row)
{
    int group = (block < BSATTN_STATE_ROWS) ? BSATTN_STATE_ROWS / block : 1;

    return 2 * group * ((rows - 1) / group - row / group) + row % group;
}

static void make_item(made_list_t *made, bsattn_work_item_t *item, const recipe_t *recipe,
                      const bool *common, int slots, int row, int state)
{
    int branches = 1 + random_below(recipe->branches);
    bool diagonal = recipe->diagonal && (random_below(2) == 0);

    *item = (bsattn_work_item_t){.row = row,
                                 .first = (uint8_t)random_below(2),
                                 .last = (uint8_t)random_below(2),
                                 .state_block = state,
                                 .run_first = (int64_t)made->run_count};
    if (diagonal) {
        int slot = (random_below(2) == 0) ? row % slots : random_below(slots);
        item->partial_count = (uint16_t)(1 + random_below(branches));
        for (int i = 0; i < item->partial_count; ++i) {
            add_run(made, item, slot, 1);
        }
    }
    for (int branch = 0; branch < branches; ++branch) {
        add_branch(made, item, recipe, common, slots);
    }
    if (item->run_count == 0) {
        add_run(made, item, random_below(slots), 1);
    }
}

static void make_list(made_list_t *made, const recipe_t *recipe, int block, int tokens,
                      int key_tokens)
{
    int rows = (tokens + block - 1) / block;
    int slots = (key_tokens + block - 1) / block;
    bool *common = calloc((size_t)slots, sizeof(*common));

    *made = (made_list_t){.items = calloc((size_t)rows, sizeof(*made->items))};
    for (int slot = 0; slot < slots; ++slot) {
        common[slot] = random_below(100) < recipe->key_percent;
    }
    for (int row = 0; row < rows; ++row) {
        if (random_below(100) < recipe->item_percent) {
            /* Lists are in no order that tiles could know of. */
            int at = random_below((int)made->list.item_count + 1);
            made->items[made->list.item_count++] = made->items[at];
            make_item(made, &made->items[at], recipe, common, slots, row,
                      state_block(block, rows, row));
        }
    }
    made->list.items = made->items;
    made->list.runs = made->runs;
    free(common);
}

static void free_list(made_list_t *made)
{
    free(made->items);
    free(made->runs);
}

/* ------------------------------------------------------------------------------ the brute force */

static void expand_list(const bsattn_tiles_params_t *params, uint8_t *times)
{
    const bsattn_work_list_t *list = params->list;

    for (int64_t i = 0; i < list->item_count; ++i) {
        const bsattn_work_item_t *item = &list->items[i];
        for (int32_t e = 0; e < item->run_count; ++e) {
            const bsattn_key_run_t *run = &list->runs[item->run_first + e];
            for (int64_t r = 0; r < params->block; ++r) {
                int64_t row = (int64_t)item->row * params->block + r;
                int64_t begin = (int64_t)run->slot * params->block;
                int64_t end = begin + (int64_t)run->count * params->block;
                end = (e < item->partial_count) ? begin + r + 1 : end;
                end = (end < params->key_tokens) ? end : params->key_tokens;
                for (int64_t key = begin; (key < end) && (row < params->tokens); ++key) {
                    ++times[row * params->key_tokens + key];
                }
            }
        }
    }
}

/* ------------------------------------------------------------------------------ the tiles' word */

static int query_groups(const bsattn_tiles_params_t *params)
{
    return params->shape.halves * BSATTN_TILE_HALF / GROUP;
}

static int64_t query_row(const bsattn_tile_item_t *item, int w)
{
    int half_groups = BSATTN_TILE_HALF / GROUP;

    return item->row[w / half_groups] + (w % half_groups) * GROUP;
}

static void expand_tile(const bsattn_tiles_params_t *params, const bsattn_tile_item_t *item,
                        const bsattn_key_tile_t *tile, int w, uint8_t *times)
{
    for (int64_t row = query_row(item, w); row < query_row(item, w) + GROUP; ++row) {
        for (int p = 0; (p < tile->key_limit) && (row < params->tokens); ++p) {
            int bit = 8 * w + p / GROUP;
            bool visible = ((tile->visible >> bit) & 1u) != 0;
            bool diagonal = ((tile->diagonal >> bit) & 1u) != 0;
            if (visible && (!diagonal || (p % GROUP <= row % GROUP))) {
                int64_t key = (int64_t)tile->key_row[p / GROUP] + p % GROUP;
                assert_true(key < params->key_tokens);
                ++times[row * params->key_tokens + key];
            }
        }
    }
}

static void expand_run(const bsattn_tiles_params_t *params, const bsattn_tile_item_t *item,
                       const bsattn_tile_run_t *run, int w, uint8_t *times)
{
    int64_t keys = (int64_t)run->tile_count * params->shape.key_tile;

    for (int64_t row = query_row(item, w); row < query_row(item, w) + GROUP; ++row) {
        for (int64_t key = run->key_row; (key < run->key_row + keys) && (row < params->tokens);
             ++key) {
            ++times[row * params->key_tokens + key];
        }
    }
}

/* Groups group_begin .. group_end - 1 of every item. */
static void expand_tiles(const bsattn_tiles_params_t *params, const bsattn_tiles_t *tiles,
                         int group_begin, int group_end, uint8_t *times)
{
    for (size_t i = 0; i < tiles->item_count; ++i) {
        const bsattn_tile_item_t *item = &tiles->items[i];
        for (int w = group_begin; w < group_end; ++w) {
            if (((item->active >> w) & 1) == 0) {
                continue;
            }
            for (int32_t t = 0; t < item->tile_count; ++t) {
                expand_tile(params, item, &tiles->tiles[item->tile_first + t], w, times);
            }
            for (int32_t r = 0; r < item->run_count; ++r) {
                expand_run(params, item, &tiles->runs[item->run_first + r], w, times);
            }
        }
    }
}

/* --------------------------------------------------------------------------------------- checks */

static void check_times(const bsattn_tiles_params_t *params, const bsattn_tiles_t *tiles)
{
    size_t size = (size_t)(params->tokens * params->key_tokens);
    uint8_t *wanted = calloc(size, 1);
    int groups = query_groups(params);
    int group_step = (params->shape.pair_heads != 0) ? groups / 2 : groups;

    expand_list(params, wanted);
    for (int group = 0; group < groups; group += group_step) {
        uint8_t *got = calloc(size, 1);
        expand_tiles(params, tiles, group, group + group_step, got);
        assert_memory_equal(got, wanted, size);
        free(got);
    }
    free(wanted);
}

static const bsattn_work_item_t *item_of_row(const bsattn_tiles_params_t *params, int64_t row)
{
    for (int64_t i = 0; i < params->list->item_count; ++i) {
        if (params->list->items[i].row == row / params->block) {
            return &params->list->items[i];
        }
    }
    return NULL;
}

static void check_flags(const bsattn_tiles_params_t *params, const bsattn_tile_item_t *item)
{
    for (int w = 0; w < 8; ++w) {
        const bsattn_work_item_t *of = item_of_row(params, query_row(item, w));
        bool active = ((item->active >> w) & 1) != 0;
        if (w >= query_groups(params)) {
            assert_false(active);
        } else if (query_row(item, w) < params->tokens) {
            assert_int_equal(active, of != NULL);
        }
        if (active) {
            assert_int_equal(item->state_row[w / 4] + w % 4 * GROUP,
                             (int64_t)of->state_block * params->block +
                                 query_row(item, w) % params->block);
        }
        assert_int_equal((item->first >> w) & 1, active && (of->first != 0));
        assert_int_equal((item->last >> w) & 1, active && (of->last != 0));
    }
}

static int granule_of(const bsattn_tiles_params_t *params)
{
    return (params->block < params->shape.key_tile) ? params->block : params->shape.key_tile;
}

static uint64_t column(int group)
{
    return (uint64_t)0x0101010101010101u << group;
}

/* One granule of a masked tile: contiguous rows; nothing is seen past the end. */
static void check_granule(const bsattn_tiles_params_t *params, const bsattn_key_tile_t *tile,
                          int place)
{
    int granule = granule_of(params);
    int group_first = place * granule / GROUP;
    int64_t first_row = tile->key_row[group_first];
    int64_t left = params->key_tokens - first_row;

    for (int g = 0; g < granule / GROUP; ++g) {
        bool any = (first_row != BSATTN_TILE_NO_KEYS) && (g * GROUP < left);
        assert_int_equal(tile->key_row[group_first + g],
                         any ? first_row + g * GROUP : BSATTN_TILE_NO_KEYS);
        assert_true(any || ((tile->visible & column(group_first + g)) == 0));
    }
    if (first_row != BSATTN_TILE_NO_KEYS) {
        assert_int_equal(first_row % granule, 0);
        assert_true(left > 0);
    }
}

/* @return granules in use, which come first */
static int check_tile(const bsattn_tiles_params_t *params, const bsattn_key_tile_t *tile)
{
    int granule = granule_of(params);
    int places = params->shape.key_tile / granule;
    int used = 0;
    int limit = params->shape.key_tile;

    while ((used < places) && (tile->key_row[used * granule / GROUP] != BSATTN_TILE_NO_KEYS)) {
        ++used;
    }
    assert_true(used > 0);
    for (int place = 0; place < places; ++place) {
        int64_t row = tile->key_row[place * granule / GROUP];
        check_granule(params, tile, place);
        assert_true((place < used) || (row == BSATTN_TILE_NO_KEYS));
        if ((place < used) && (row + granule > params->key_tokens)) {
            assert_int_equal(place, used - 1);
            limit = place * granule + (int)(params->key_tokens - row);
        }
    }
    for (int g = params->shape.key_tile / GROUP; g < BSATTN_TILE_KEYS / GROUP; ++g) {
        assert_int_equal(tile->key_row[g], BSATTN_TILE_NO_KEYS);
        assert_true((tile->visible & column(g)) == 0);
    }
    assert_int_equal(tile->key_limit, limit);
    assert_true((tile->diagonal & ~tile->visible) == 0);
    if (params->shape.pair_heads != 0) {
        assert_true((tile->visible >> 32) == (tile->visible & 0xffffffffu));
        assert_true((tile->diagonal >> 32) == (tile->diagonal & 0xffffffffu));
    }
    return used;
}

static bool sees_all(const bsattn_tiles_params_t *params, const bsattn_tile_item_t *item,
                     const bsattn_key_tile_t *tile, int place)
{
    int granule = granule_of(params);
    int64_t row = tile->key_row[place * granule / GROUP];

    for (int p = place * granule; p < (place + 1) * granule; p += GROUP) {
        for (int w = 0; w < 8; ++w) {
            uint64_t bit = (uint64_t)1 << (8 * w + p / GROUP);
            if ((((item->active >> w) & 1) != 0) &&
                (((tile->visible & bit) == 0) || ((tile->diagonal & bit) != 0))) {
                return false;
            }
        }
    }
    return row + granule <= params->key_tokens;
}

/* A bit for each half that sees any of these columns. */
static unsigned halves_of(const bsattn_key_tile_t *tile, uint64_t columns)
{
    uint64_t visible = tile->visible & columns;

    return ((visible & UINT32_MAX) != 0 ? 1u : 0u) | ((visible >> 32) != 0 ? 2u : 0u);
}

/* What one half sees and what both see is in tiles of its own: a tile of each half in turn, as long
 * as both have some, then those of both. */
static void check_apart(const bsattn_tiles_params_t *params, const bsattn_tiles_t *tiles,
                        const bsattn_tile_item_t *item)
{
    int granule = granule_of(params);
    int count[4] = {0};
    int seen[4] = {0};

    for (int32_t t = 0; t < item->tile_count; ++t) {
        ++count[halves_of(&tiles->tiles[item->tile_first + t], UINT64_MAX)];
    }
    for (int32_t t = 0; t < item->tile_count; ++t) {
        const bsattn_key_tile_t *tile = &tiles->tiles[item->tile_first + t];
        unsigned halves = halves_of(tile, UINT64_MAX);
        unsigned other = 3u - halves;

        for (int place = 0; place < params->shape.key_tile; place += granule) {
            uint64_t columns = 0;
            for (int p = place; p < place + granule; p += GROUP) {
                columns |= column(p / GROUP);
            }
            if (tile->key_row[place / GROUP] != BSATTN_TILE_NO_KEYS) {
                assert_int_equal(halves_of(tile, columns), halves);
            }
        }
        if (halves == 3) {
            assert_int_equal(seen[1] + seen[2], count[1] + count[2]);
        } else {
            assert_true((seen[halves] <= seen[other]) || (seen[other] == count[other]));
        }
        ++seen[halves];
    }
}

/* Gathered tiles are those that hide something and then the others. Each of the two are full but for
 * the last that hides something, in ascending order, and hold no stretch of keys that could be a tile
 * of a run; where blocks may be there twice, such stretches may come about. What all rows see is not
 * among what hides something if it could fill a tile. Where halves pass over tiles, all that goes for
 * the tiles of each half and of both.
 * @param halves  those whose tiles are meant; 0: all tiles */
static void check_density(const bsattn_tiles_params_t *params, const bsattn_tiles_t *tiles,
                          const bsattn_tile_item_t *item, bool twice, unsigned halves)
{
    int granule = granule_of(params);
    int places = params->shape.key_tile / granule;
    int64_t row_before = -1;
    int stretch = 0;
    int whole = 0;
    bool ended = false;

    for (int32_t t = 0; t < item->tile_count; ++t) {
        const bsattn_key_tile_t *tile = &tiles->tiles[item->tile_first + t];
        int used = check_tile(params, tile);

        if (t == item->masked_count) {
            row_before = -1;
            stretch = 0;
            ended = false;
        }
        if ((halves != 0) && (halves_of(tile, UINT64_MAX) != halves)) {
            continue;
        }
        assert_false(ended);
        ended = (used < places) && (tile->key_limit == params->shape.key_tile);
        for (int place = 0; place < used; ++place) {
            int64_t row = tile->key_row[place * granule / GROUP];
            bool next = (row == row_before + granule);
            bool all = sees_all(params, item, tile, place);
            assert_true((row > row_before) || (twice && (row == row_before)));
            stretch = !all ? 0 : (next ? stretch + 1 : 1);
            assert_true(twice || (stretch < places));
            row_before = row;
            whole += (all && (t < item->masked_count)) ? 1 : 0;
            assert_true(all || (t < item->masked_count));
        }
        assert_true((used == places) || (t < item->masked_count));
    }
    assert_true(whole < places);
}

/* The last masked tile hides something. */
static void check_masked_count(const bsattn_tiles_params_t *params, const bsattn_tiles_t *tiles,
                               const bsattn_tile_item_t *item)
{
    int places = params->shape.key_tile / granule_of(params);
    bool all = true;

    assert_in_range(item->masked_count, 0, item->tile_count);
    if (item->masked_count > 0) {
        const bsattn_key_tile_t *tile = &tiles->tiles[item->tile_first + item->masked_count - 1];
        all = (check_tile(params, tile) == places);
        for (int place = 0; all && (place < places); ++place) {
            all = sees_all(params, item, tile, place);
        }
        assert_false(all);
    }
}

/* From the first granule of keys that an item loads to the last. */
static int64_t reach_of(const bsattn_tiles_params_t *params, const bsattn_tiles_t *tiles,
                        const bsattn_tile_item_t *item)
{
    int granule = granule_of(params);
    int64_t first = INT64_MAX;
    int64_t end = 0;

    for (int32_t t = 0; t < item->tile_count; ++t) {
        const bsattn_key_tile_t *tile = &tiles->tiles[item->tile_first + t];
        for (int place = 0; place < params->shape.key_tile; place += granule) {
            int64_t row = tile->key_row[place / GROUP];
            if (row != BSATTN_TILE_NO_KEYS) {
                first = (row < first) ? row : first;
                end = (row + granule > end) ? row + granule : end;
            }
        }
    }
    for (int32_t r = 0; r < item->run_count; ++r) {
        const bsattn_tile_run_t *run = &tiles->runs[item->run_first + r];
        int64_t run_end = run->key_row + (int64_t)run->tile_count * params->shape.key_tile;
        first = (run->key_row < first) ? run->key_row : first;
        end = (run_end > end) ? run_end : end;
    }
    return end - first;
}

static void check_items(const bsattn_tiles_params_t *params, const bsattn_tiles_t *tiles,
                        bool twice)
{
    bool pair = params->shape.pair_heads != 0;
    int rows = BSATTN_TILE_HALF * (pair ? 1 : params->shape.halves);
    size_t tile_count = 0;
    size_t run_count = 0;
    int64_t reach = 0;

    for (size_t i = 0; i < tiles->item_count; ++i) {
        const bsattn_tile_item_t *item = &tiles->items[i];
        int64_t key_tiles = item->tile_count;
        int64_t item_reach = reach_of(params, tiles, item);

        reach = (item_reach > reach) ? item_reach : reach;

        assert_true((item->row[0] % rows == 0) && (item->row[0] < params->tokens));
        assert_int_equal(item->row[1], item->row[0] + (pair ? 0 : BSATTN_TILE_HALF));
        check_flags(params, item);
        check_masked_count(params, tiles, item);
        if (params->shape.passes != 0) {
            check_apart(params, tiles, item);
            for (unsigned halves = 1; halves <= 3; ++halves) {
                check_density(params, tiles, item, twice, halves);
            }
        } else {
            check_density(params, tiles, item, twice, 0);
        }
        for (int32_t r = 0; r < item->run_count; ++r) {
            const bsattn_tile_run_t *run = &tiles->runs[item->run_first + r];
            assert_true(run->tile_count >= 1);
            assert_int_equal(run->key_row % granule_of(params), 0);
            assert_true(run->key_row + (int64_t)run->tile_count * params->shape.key_tile <=
                        params->key_tokens);
            key_tiles += run->tile_count;
        }
        assert_int_equal(item->key_tiles, key_tiles);
        assert_true((item->active != 0) && (key_tiles >= 1));
        if (i > 0) {
            const bsattn_tile_item_t *before = &tiles->items[i - 1];
            assert_true((before->key_tiles > item->key_tiles) ||
                        ((before->key_tiles == item->key_tiles) &&
                         (before->row[0] < item->row[0])));
        }
        tile_count += (size_t)item->tile_count;
        run_count += (size_t)item->run_count;
    }
    assert_int_equal(tile_count, tiles->tile_count);
    assert_int_equal(run_count, tiles->run_count);
    assert_int_equal(reach, tiles->reach);
}

static void random_lists_are_cut_exactly(void **state)
{
    (void)state;
    for (int round = 0; round < 6 * BLOCK_KINDS * SHAPE_KINDS * RECIPES; ++round) {
        const recipe_t *recipe = &recipes[round % RECIPES];
        int kind = round / RECIPES;
        bsattn_tiles_params_t params = {.shape = shapes[kind % SHAPE_KINDS],
                                        .block = blocks[kind / SHAPE_KINDS % BLOCK_KINDS],
                                        .tokens = 1 + random_below(700),
                                        .key_tokens = 1 + random_below(900)};
        made_list_t made;
        bsattn_tiles_t tiles;

        make_list(&made, recipe, params.block, (int)params.tokens, (int)params.key_tokens);
        params.list = &made.list;
        assert_int_equal(bsattn_tiles_init(&tiles, &params), BSATTN_OK);
        check_times(&params, &tiles);
        check_items(&params, &tiles, (recipe->branches > 1) || recipe->diagonal);
        bsattn_tiles_free(&tiles);
        assert_null(tiles.items);
        free_list(&made);
    }
}

/* Every query block sees all of a long chunk: its blocks must not be looked at one by one. */
static void dense_lists_are_runs(void **state)
{
    enum { ROWS = 4096, KEY_TOKENS = (1 << 28) + 5 };
    static bsattn_work_item_t items[ROWS];

    (void)state;
    for (int round = 0; round < BLOCK_KINDS * SHAPE_KINDS; ++round) {
        int block = blocks[round % BLOCK_KINDS];
        bsattn_key_run_t run = {.slot = 0, .count = (KEY_TOKENS + block - 1) / block};
        bsattn_work_list_t list = {.items = items, .item_count = ROWS, .runs = &run};
        bsattn_tiles_params_t params = {.shape = shapes[round / BLOCK_KINDS],
                                        .block = block,
                                        .tokens = (int64_t)ROWS * block,
                                        .key_tokens = KEY_TOKENS,
                                        .list = &list};
        bsattn_tiles_t tiles;

        for (int32_t i = 0; i < ROWS; ++i) {
            items[i] = (bsattn_work_item_t){.row = i,
                                            .state_block = i,
                                            .first = 1,
                                            .last = 1,
                                            .run_count = 1,
                                            .block_count = run.count};
        }
        assert_int_equal(bsattn_tiles_init(&tiles, &params), BSATTN_OK);
        check_items(&params, &tiles, false);
        assert_int_equal(tiles.tile_count, tiles.item_count);
        assert_int_equal(tiles.run_count, tiles.item_count);
        for (size_t i = 0; i < tiles.item_count; ++i) {
            assert_int_equal(tiles.items[i].key_tiles, KEY_TOKENS / params.shape.key_tile + 1);
        }
        bsattn_tiles_free(&tiles);
    }
}

/* The causal diagonal of a chunk of its own: block i sees blocks 0 .. i - 1 and its own in part. */
static void causal_lists_have_few_masked_tiles(void **state)
{
    enum { TOKENS = 2048 };

    (void)state;
    for (int round = 0; round < BLOCK_KINDS * SHAPE_KINDS; ++round) {
        int block = blocks[round % BLOCK_KINDS];
        bsattn_work_item_t items[TOKENS / 16];
        bsattn_key_run_t runs[2 * TOKENS / 16];
        bsattn_work_list_t list = {.items = items, .item_count = TOKENS / block, .runs = runs};
        bsattn_tiles_params_t params = {.shape = shapes[round / BLOCK_KINDS],
                                        .block = block,
                                        .tokens = TOKENS,
                                        .key_tokens = TOKENS,
                                        .list = &list};
        bsattn_tiles_t tiles;

        for (int32_t i = 0; i < TOKENS / block; ++i) {
            items[i] = (bsattn_work_item_t){.row = i,
                                            .state_block = i,
                                            .partial_count = 1,
                                            .first = 1,
                                            .run_count = (i > 0) ? 2 : 1,
                                            .run_first = 2 * (int64_t)i,
                                            .block_count = i + 1};
            runs[2 * i] = (bsattn_key_run_t){i, 1};
            runs[2 * i + 1] = (bsattn_key_run_t){0, i};
        }
        assert_int_equal(bsattn_tiles_init(&tiles, &params), BSATTN_OK);
        check_times(&params, &tiles);
        check_items(&params, &tiles, false);
        for (size_t i = 0; i < tiles.item_count; ++i) {
            bool pair = params.shape.pair_heads != 0;
            int rows = BSATTN_TILE_HALF * (pair ? 1 : params.shape.halves);
            int most = (rows + params.shape.key_tile - 1) / params.shape.key_tile;
            assert_true(tiles.items[i].run_count <= 1);
            most += (granule_of(&params) < rows) ? 1 : 0;
            most += (params.shape.passes != 0) ? 1 : 0; /* of what both see in part */
            assert_true(tiles.items[i].tile_count <= most);
        }
        bsattn_tiles_free(&tiles);
    }
}

enum { SPREAD_KEYS = 900 };

/* Key blocks that a half of a tile visits, as often as any of its query blocks does. */
static double half_blocks(const bsattn_tiles_params_t *params, int64_t row, uint8_t *times)
{
    uint8_t of_item[SPREAD_KEYS];
    double sum = 0.0;

    memset(times, 0, (size_t)params->key_tokens);
    for (int64_t at = row; at < row + BSATTN_TILE_HALF; at += GROUP) {
        const bsattn_work_item_t *item = item_of_row(params, at);

        memset(of_item, 0, sizeof(of_item));
        for (int32_t r = 0; (item != NULL) && (r < item->run_count); ++r) {
            const bsattn_key_run_t *run = &params->list->runs[item->run_first + r];
            for (int32_t slot = run->slot; slot < run->slot + run->count; ++slot) {
                ++of_item[slot];
            }
        }
        for (int64_t slot = 0; slot < params->key_tokens; ++slot) {
            times[slot] = (of_item[slot] > times[slot]) ? of_item[slot] : times[slot];
        }
    }
    for (int64_t slot = 0; slot < params->key_tokens; ++slot) {
        sum += times[slot];
    }
    return sum;
}

static void spread_is_what_halves_have_in_common(void **state)
{
    (void)state;
    for (int round = 0; round < 4 * BLOCK_KINDS * RECIPES; ++round) {
        bsattn_tiles_params_t params = {.block = blocks[round % BLOCK_KINDS],
                                        .tokens = 1 + random_below(900)};
        int key_tokens = 1 + random_below(SPREAD_KEYS); /* more than slots: room for any */
        bsattn_tiles_spread_t wanted = {0.0, 0.0};
        bsattn_tiles_spread_t got = {0.0, 0.0};
        uint8_t times[2][SPREAD_KEYS];
        made_list_t made;

        make_list(&made, &recipes[round / BLOCK_KINDS % RECIPES], params.block,
                  (int)params.tokens, key_tokens);
        params.list = &made.list;
        assert_int_equal(bsattn_tiles_add_spread(&params, &got), BSATTN_OK);
        params.key_tokens = key_tokens;
        for (int64_t row = 0; row < params.tokens; row += 2 * (int64_t)BSATTN_TILE_HALF) {
            wanted.half += half_blocks(&params, row, times[0]) / 2.0;
            wanted.half += half_blocks(&params, row + BSATTN_TILE_HALF, times[1]) / 2.0;
            for (int slot = 0; slot < key_tokens; ++slot) {
                wanted.tile +=
                    (times[0][slot] > times[1][slot]) ? times[0][slot] : times[1][slot];
            }
        }
        assert_true((got.half == wanted.half) && (got.tile == wanted.tile));
        free_list(&made);
    }
}

static void no_items_no_tiles(void **state)
{
    bsattn_work_list_t list = {0};
    bsattn_tiles_params_t params = {
        .shape = shapes[0], .block = 64, .tokens = 100, .key_tokens = 0, .list = &list};
    bsattn_tiles_t tiles;

    (void)state;
    assert_int_equal(bsattn_tiles_init(&tiles, &params), BSATTN_OK);
    assert_int_equal(tiles.item_count, 0);
    bsattn_tiles_free(&tiles);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_items_no_tiles),
        cmocka_unit_test(random_lists_are_cut_exactly),
        cmocka_unit_test(dense_lists_are_runs),
        cmocka_unit_test(causal_lists_have_few_masked_tiles),
        cmocka_unit_test(spread_is_what_halves_have_in_common),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
