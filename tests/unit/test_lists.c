/* SPDX-License-Identifier: Apache-2.0 */
/* What a GPU's launches read, put together from schedules: streams of heads, offsets, and the
 * copies that make up what a rank sends of a shard. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/lists.h"
#include "problem/problem.h"

enum { RANKS = 3, TILE_KEYS = 128 };

static bsattn_tile_shape_t shape_wanted;
static double spread_told;
static bool pairs_told;

static bsattn_tile_shape_t tell_shape(const bsattn_problem_t *problem, bool pairs, double spread)
{
    (void)problem;
    pairs_told = pairs;
    spread_told = spread;
    return shape_wanted;
}

static const bsattn_cuda_kernel_t kernel = {.name = "none", .shape = tell_shape};

/* A pattern cut over three ranks, and what the middle one computes. */
typedef struct world {
    bsattn_problem_t problem;
    bsattn_pattern_t *pattern;
    bsattn_demand_t demand;
    bsattn_schedule_t schedule;
    bsattn_work_params_t params;
} world_t;

static void open_world(world_t *world, const char *pattern, int64_t seq_len)
{
    bsattn_layout_t layout;
    int rank = 1;

    bsattn_problem_init(&world->problem);
    world->problem.batch = 2;
    world->problem.seq_len = seq_len;
    world->problem.heads_q = 8;
    world->problem.heads_kv = 2;
    world->problem.head_dim = 16;
    world->problem.block = 64;
    assert_int_equal(bsattn_pattern_create(pattern, &world->problem, &world->pattern), 0);
    assert_int_equal(bsattn_layout_parse("contiguous", world->pattern->blocks, RANKS, &layout), 0);
    assert_int_equal(
        bsattn_demand_init(&world->demand, world->pattern, &layout, 1, 0, INT64_MAX), 0);
    assert_int_equal(bsattn_schedule_init(&world->schedule, &world->demand, rank), 0);
    world->params = (bsattn_work_params_t){
        .problem = &world->problem,
        .schedule = &world->schedule,
        .tokens = bsattn_demand_slot_tokens(&world->demand, rank, 0,
                                            bsattn_layout_count(&layout, rank)),
    };
}

static void close_world(world_t *world)
{
    bsattn_schedule_free(&world->schedule);
    bsattn_demand_free(&world->demand);
    bsattn_pattern_destroy(world->pattern);
}

/* The kernel hears whether heads are pairs, which they are where both have the same lists, and how alike
 * the lists of neighbours are; its word is taken. */
static void test_shape(void **state)
{
    bsattn_tile_shape_t shape;
    world_t world;

    (void)state;
    shape_wanted = (bsattn_tile_shape_t){.halves = 2, .key_tile = TILE_KEYS, .pair_heads = 1};
    open_world(&world, "dense", 960);
    assert_int_equal(bsattn_lists_shape(&world.params, &kernel, &shape), BSATTN_OK);
    assert_memory_equal(&shape, &shape_wanted, sizeof(shape));
    assert_true(pairs_told);
    assert_true(spread_told == 6.0 / 5.0); /* of five query blocks, the last is alone in its tile */
    close_world(&world);
    open_world(&world, "0-2@dense;3-7@local(window=128)", 960);
    assert_int_equal(bsattn_lists_shape(&world.params, &kernel, &shape), BSATTN_OK);
    assert_false(pairs_told);
    close_world(&world);
}

/* What 32 bits cannot name is refused, not wrapped. */
static void test_too_many_rows(void **state)
{
    bsattn_tile_shape_t shape = {.halves = 2, .key_tile = TILE_KEYS};
    bsattn_image_t image = {.data = NULL};
    bsattn_lists_step_t steps[RANKS];
    world_t world;

    (void)state;
    open_world(&world, "dense", 960);
    world.params.tokens = (int64_t)BSATTN_TILE_NO_KEYS + 1;
    assert_int_equal(bsattn_lists_add(&world.params, &shape, 1, &image, steps), BSATTN_ERR_INPUT);
    assert_null(image.data);
    close_world(&world);
}

/* Streams go together as far as their keys fit 16 MiB; those of a key head take no more than one. */
static void test_stream_group(void **state)
{
    static const int32_t pairs[4][2] = {{0, 1}, {2, 3}, {4, 5}, {6, 7}};
    static const int32_t each[4][2] = {{0, 0}, {4, 4}, {8, 8}, {12, 12}};
    bsattn_problem_t problem;

    (void)state;
    bsattn_problem_init(&problem);
    problem.batch = 2;
    problem.heads_q = 16;
    problem.heads_kv = 4;
    problem.head_dim = 128;
    problem.dtype = BSATTN_BF16; /* 512 bytes of K and V for a token */
    assert_int_equal(bsattn_lists_stream_group(&problem, each, 4, 0), 8);
    assert_int_equal(bsattn_lists_stream_group(&problem, each, 4, 320), 8);
    assert_int_equal(bsattn_lists_stream_group(&problem, each, 4, 8192), 4);
    assert_int_equal(bsattn_lists_stream_group(&problem, each, 4, 16384), 2);
    assert_int_equal(bsattn_lists_stream_group(&problem, each, 4, 1 << 20), 1);
    assert_int_equal(bsattn_lists_stream_group(&problem, pairs, 4, 16384), 4);
    assert_int_equal(bsattn_lists_stream_group(&problem, pairs, 4, 1 << 20), 2);
}

/* What goes together follows from how far the lists of each step reach: a window takes all streams
 * along, the whole of another rank's keys does not. */
static void test_groups_of_steps(void **state)
{
    enum { BLOCKS = 1562 }; /* of a rank: 128 bytes of K and V for a token, 12.8 MB in all */
    bsattn_tile_shape_t shape = {.halves = 2, .key_tile = TILE_KEYS};
    bsattn_image_t image = {.data = NULL};
    bsattn_lists_step_t *steps;
    world_t world;

    (void)state;
    open_world(&world, "sink(tokens=99968)+local(window=128)", (int64_t)RANKS * BLOCKS * 64);
    steps = calloc((size_t)world.schedule.step_count, sizeof(*steps));
    assert_int_equal(bsattn_lists_add(&world.params, &shape, 1, &image, steps), 0);
    assert_int_equal(world.schedule.step_count, 3);
    for (int s = 0; s < world.schedule.step_count; ++s) {
        const bsattn_tile_list_t *list;
        bsattn_lists_relocate(&image, &steps[s], world.schedule.list_count, image.data);
        list = (const bsattn_tile_list_t *)(image.data + steps[s].lists);
        assert_int_equal(list->stream_heads, 8);
        assert_int_equal(list->stream_group, (world.schedule.steps[s].origin == 0) ? 4 : 16);
    }
    free(image.data);
    free(steps);
    close_world(&world);
}

/* Lists and streams lie where their addresses say, and the units of lists follow one another. */
static void check_lists(const char *pattern, int pair_heads)
{
    bsattn_tile_shape_t shape = {.halves = 2, .key_tile = TILE_KEYS, .pair_heads = pair_heads};
    bsattn_image_t image = {.data = NULL};
    bsattn_lists_step_t *steps;
    world_t world;

    open_world(&world, pattern, 1000);
    steps = calloc((size_t)world.schedule.step_count, sizeof(*steps));
    assert_int_equal(bsattn_lists_add(&world.params, &shape, 1, &image, steps), 0);
    for (int s = 0; s < world.schedule.step_count; ++s) {
        const bsattn_tile_list_t *lists;
        int64_t units = 0;
        int heads = 0;
        bsattn_lists_relocate(&image, &steps[s], world.schedule.list_count, image.data);
        lists = (const bsattn_tile_list_t *)(image.data + steps[s].lists);
        for (int l = 0; l < world.schedule.list_count; ++l) {
            assert_int_equal(lists[l].unit_first, units);
            assert_true((lists[l].stream_group >= 1) &&
                        (lists[l].stream_group <= 2 * lists[l].stream_heads));
            units += 2 * (int64_t)lists[l].stream_heads * lists[l].item_count;
            heads += lists[l].stream_heads * (pair_heads ? 2 : 1);
            for (int i = 0; i < lists[l].stream_heads; ++i) {
                assert_int_equal(world.schedule.list_of_head[lists[l].heads[2 * i]], l);
                assert_int_equal(lists[l].heads[2 * i + 1] - lists[l].heads[2 * i], pair_heads);
            }
            for (int i = 0; i < lists[l].item_count; ++i) {
                assert_true(lists[l].items[i].key_tiles >= 1);
                assert_true((lists[l].items[i].row[0] >= 0) &&
                            (lists[l].items[i].row[0] < world.params.tokens));
            }
        }
        assert_int_equal(steps[s].unit_count, units);
        assert_int_equal(heads, world.problem.heads_q);
    }
    free(image.data);
    free(steps);
    close_world(&world);
}

static void test_lists(void **state)
{
    (void)state;
    check_lists("dense", 1);
    check_lists("local(window=256)", 0);
    check_lists("0-2@dense;3-7@local(window=128)", 0);
    check_lists("0-3@local(window=64);4-7@strided(stride=3)", 1);
    check_lists("random(density=0.3)", 0);
}

/* Where a row of a packing lies in the shard, [n, Hk]. */
static int64_t row_of_packing(const world_t *world, const bsattn_packing_t *packing, int64_t row)
{
    int head = world->problem.heads_kv - 1;
    int c;

    while (row < packing->token_first[head]) {
        --head;
    }
    row -= packing->token_first[head];
    c = world->schedule.kv_class_of_head[head];
    for (size_t r = packing->first[c]; r < packing->first[c + 1]; ++r) {
        if (row < packing->runs[r].count) {
            return (packing->runs[r].first + row) * world->problem.heads_kv + head;
        }
        row -= packing->runs[r].count;
    }
    fail();
    return -1;
}

/* The copies bring the rows of a packing, in order. */
static void check_packing(const world_t *world, const bsattn_packing_t *packing)
{
    int64_t row_bytes = (int64_t)bsattn_problem_row_bytes(&world->problem);
    bsattn_image_t image = {.data = NULL};
    const bsattn_row_copy_t *copies;
    int64_t rows = 0;
    int64_t count;
    size_t offset;

    assert_int_equal(bsattn_lists_add_copies(&world->params, packing, &image, &offset, &count), 0);
    copies = (const bsattn_row_copy_t *)(image.data + offset);
    for (int64_t i = 0; i < count; ++i) {
        assert_true((copies[i].rows >= 1) && (copies[i].rows <= BSATTN_ROW_COPY_MAX));
        assert_int_equal(copies[i].to, rows * row_bytes);
        for (int64_t r = 0; r < copies[i].rows; ++r, ++rows) {
            assert_int_equal(copies[i].from / row_bytes + r * world->problem.heads_kv,
                             row_of_packing(world, packing, rows));
        }
    }
    assert_int_equal(rows, packing->tokens);
    free(image.data);
}

static void check_copies(const char *pattern, bool in_place)
{
    world_t world;

    open_world(&world, pattern, 3000);
    assert_int_equal(bsattn_lists_in_place(&world.params), in_place);
    assert_true(world.schedule.outgoing.tokens > 0);
    check_packing(&world, &world.schedule.own);
    check_packing(&world, &world.schedule.outgoing);
    close_world(&world);
}

static void test_copies(void **state)
{
    (void)state;
    check_copies("local(window=256)", true);
    check_copies("dense", true);
    check_copies("0-3@dense;4-7@local(window=384)", true);
    check_copies("strided(stride=8)", true);
    check_copies("sink(tokens=1500)", false);
    check_copies("0-3@dense;4-7@sink(tokens=1300)", false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shape),        cmocka_unit_test(test_too_many_rows),
        cmocka_unit_test(test_stream_group), cmocka_unit_test(test_groups_of_steps),
        cmocka_unit_test(test_lists),        cmocka_unit_test(test_copies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
