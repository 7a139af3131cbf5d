/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/lists.h"

#include "backend/tiles.h"
#include "base/array.h"
#include "problem/problem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGE_ALIGNMENT = 256 };

/* Keys and values of the streams worked on together. Half of a Hopper's L2 of 50 MB is near to a
 * multiprocessor; what all of them read settles in both halves, and others' data pass through. */
static const int64_t group_bytes = INT64_C(16) << 20;

bsattn_status_t bsattn_image_add(bsattn_image_t *image, const void *from, size_t bytes,
                                 size_t *offset_p)
{
    size_t offset = (image->count + IMAGE_ALIGNMENT - 1) / IMAGE_ALIGNMENT * IMAGE_ALIGNMENT;

    BSATTN_TRY(bsattn_array_reserve(&image->data, &image->capacity, offset + bytes + 1, 1));
    memset(image->data + image->count, 0, offset - image->count);
    if (from != NULL) {
        memcpy(image->data + offset, from, bytes);
    } else {
        memset(image->data + offset, 0, bytes);
    }
    image->count = offset + bytes;
    *offset_p = offset;
    return BSATTN_OK;
}

/* ---------------------------------------------------------------------------------------- shape */

static int group_size(const bsattn_problem_t *problem)
{
    return problem->heads_q / problem->heads_kv;
}

bool bsattn_lists_pairs(const bsattn_problem_t *problem, const int *list_of_head)
{
    bool alike = (group_size(problem) % 2 == 0);

    for (int head = 0; alike && (head + 1 < problem->heads_q); head += 2) {
        alike = (list_of_head[head] == list_of_head[head + 1]);
    }
    return alike;
}

bsattn_status_t bsattn_lists_shape(const bsattn_work_params_t *params,
                                   const bsattn_cuda_kernel_t *kernel, bsattn_tile_shape_t *shape)
{
    const bsattn_schedule_t *schedule = params->schedule;
    bsattn_tiles_spread_t spread = {0.0, 0.0};

    for (int s = 0; s < schedule->step_count; ++s) {
        for (int l = 0; l < schedule->list_count; ++l) {
            bsattn_tiles_params_t tiles = {.block = params->problem->block,
                                           .tokens = params->tokens,
                                           .list = &schedule->steps[s].lists[l]};
            BSATTN_TRY(bsattn_tiles_add_spread(&tiles, &spread));
        }
    }
    *shape =
        kernel->shape(params->problem, bsattn_lists_pairs(params->problem, schedule->list_of_head),
                      bsattn_tiles_spread(&spread));
    return BSATTN_OK;
}

/* -------------------------------------------------------------------------------------- streams */

int bsattn_lists_streams(const bsattn_problem_t *problem, const int *list_of_head, int list,
                         bool pairs, int32_t (*heads)[2])
{
    int step = pairs ? 2 : 1;
    int count = 0;

    for (int head = 0; head < problem->heads_q; head += step) {
        if (list_of_head[head] == list) {
            heads[count][0] = head;
            heads[count][1] = head + step - 1;
            ++count;
        }
    }
    return count;
}

int32_t bsattn_lists_stream_group(const bsattn_problem_t *problem, const int32_t (*heads)[2],
                                  int streams, int64_t reach)
{
    int64_t bytes = 2 * reach * (int64_t)bsattn_problem_row_bytes(problem);
    int64_t key_heads = group_bytes / ((bytes > 0) ? bytes : 1);
    int64_t most = problem->batch * streams;
    int64_t group;
    int distinct = 1; /* key heads; neighbours share them */

    BSATTN_ASSERT(streams > 0);
    for (int i = 1; i < streams; ++i) {
        int key_head = heads[i][0] / group_size(problem);
        distinct += (key_head != heads[i - 1][0] / group_size(problem)) ? 1 : 0;
    }
    key_heads = (key_heads < 1) ? 1 : key_heads;
    group = key_heads * ((streams + distinct - 1) / distinct);
    return (int32_t)((group < most) ? group : most);
}

/* ---------------------------------------------------------------------------------------- lists */

/* The first query head of a list; every list has one. */
static int head_of_list(const bsattn_schedule_t *schedule, int list)
{
    int head = 0;

    while (schedule->list_of_head[head] != list) {
        ++head;
    }
    return head;
}

static int64_t key_tokens_of(const bsattn_work_params_t *params, int step, int list)
{
    int head = head_of_list(params->schedule, list);

    return params->schedule->steps[step].heads[head / group_size(params->problem)].token_count;
}

/* Cut all lists of all steps. tiles: [step_count * list_count] */
static bsattn_status_t cut_all(const bsattn_work_params_t *params,
                               const bsattn_tile_shape_t *shape, int threads, bsattn_tiles_t *tiles)
{
    const bsattn_schedule_t *schedule = params->schedule;
    int count = schedule->step_count * schedule->list_count;
    bool failed = false;

#pragma omp parallel for num_threads(threads) schedule(dynamic) reduction(|| : failed)
    for (int i = 0; i < count; ++i) {
        int step = i / schedule->list_count;
        int list = i % schedule->list_count;
        bsattn_tiles_params_t tiles_params = {
            .shape = *shape,
            .block = params->problem->block,
            .tokens = params->tokens,
            .key_tokens = key_tokens_of(params, step, list),
            .list = &schedule->steps[step].lists[list],
        };
        failed = (bsattn_tiles_init(&tiles[i], &tiles_params) != BSATTN_OK) || failed;
    }
    return failed ? bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the tiles of a rank") : BSATTN_OK;
}

/* Append one list. An offset stands where the address of the image will be added. */
static bsattn_status_t add_list(const bsattn_tiles_t *tiles, bsattn_image_t *image,
                                bsattn_tile_list_t *list)
{
    size_t items;
    size_t masked;
    size_t runs;

    BSATTN_TRY(
        bsattn_image_add(image, tiles->items, tiles->item_count * sizeof(*tiles->items), &items));
    BSATTN_TRY(
        bsattn_image_add(image, tiles->tiles, tiles->tile_count * sizeof(*tiles->tiles), &masked));
    BSATTN_TRY(
        bsattn_image_add(image, tiles->runs, tiles->run_count * sizeof(*tiles->runs), &runs));
    BSATTN_ASSERT(tiles->item_count <= INT32_MAX);
    list->items = (const bsattn_tile_item_t *)items;
    list->tiles = (const bsattn_key_tile_t *)masked;
    list->runs = (const bsattn_tile_run_t *)runs;
    list->item_count = (int32_t)tiles->item_count;
    return BSATTN_OK;
}

/* Append the lists of a step. tiles: [list_count], of this step; streams: [step_count, list_count], of which
 * heads (an offset), stream_heads and stream_group are taken. */
static bsattn_status_t add_step(const bsattn_work_params_t *params, const bsattn_tiles_t *tiles,
                                const bsattn_tile_list_t *streams, int step_index,
                                bsattn_image_t *image, bsattn_lists_step_t *step)
{
    int list_count = params->schedule->list_count;
    bsattn_tile_list_t *lists = calloc((size_t)list_count, sizeof(*lists));
    bsattn_status_t status = BSATTN_OK;

    if (lists == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the lists of a step");
    }
    step->unit_count = 0;
    for (int l = 0; (l < list_count) && (status == BSATTN_OK); ++l) {
        lists[l] = streams[step_index * list_count + l];
        lists[l].unit_first = step->unit_count;
        status = add_list(&tiles[l], image, &lists[l]);
        step->unit_count += params->problem->batch * lists[l].stream_heads * lists[l].item_count;
    }
    BSATTN_ASSERT(step->unit_count <= INT32_MAX); /* so many would not fit the memory of a GPU */
    if (status == BSATTN_OK) {
        status = bsattn_image_add(image, lists, (size_t)list_count * sizeof(*lists), &step->lists);
    }
    free(lists);
    return status;
}

/* The heads of every list, the same at all steps, and how many streams go together at each.
 * tiles, streams: [step_count, list_count] */
static bsattn_status_t add_streams(const bsattn_work_params_t *params,
                                   const bsattn_tile_shape_t *shape, const bsattn_tiles_t *tiles,
                                   bsattn_image_t *image, bsattn_tile_list_t *streams)
{
    const bsattn_schedule_t *schedule = params->schedule;
    int32_t(*heads)[2] = calloc((size_t)params->problem->heads_q, sizeof(*heads));
    bsattn_status_t status = BSATTN_OK;

    if (heads == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the heads of a rank");
    }
    for (int l = 0; (l < schedule->list_count) && (status == BSATTN_OK); ++l) {
        int count = bsattn_lists_streams(params->problem, schedule->list_of_head, l,
                                         shape->pair_heads != 0, heads);
        size_t offset = 0;
        status = bsattn_image_add(image, heads, (size_t)count * sizeof(*heads), &offset);
        for (int s = 0; s < schedule->step_count; ++s) {
            int at = s * schedule->list_count + l;
            streams[at] = (bsattn_tile_list_t){
                .heads = (const int32_t *)offset,
                .stream_heads = count,
                .stream_group = bsattn_lists_stream_group(
                    params->problem, (const int32_t(*)[2])heads, count, tiles[at].reach),
            };
        }
    }
    free(heads);
    return status;
}

/* Rows have numbers of 32 bits, and one of them means that there is none. */
static bsattn_status_t check_rows(const bsattn_work_params_t *params)
{
    int64_t most = params->tokens;

    for (int s = 0; s < params->schedule->step_count; ++s) {
        for (int head = 0; head < params->problem->heads_kv; ++head) {
            int64_t tokens = params->schedule->steps[s].heads[head].token_count;
            most = (tokens > most) ? tokens : most;
        }
    }
    if (most > BSATTN_TILE_NO_KEYS) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "%" PRId64 " tokens on a rank; a GPU's lists can name %d", most,
                           (int)BSATTN_TILE_NO_KEYS);
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_lists_add(const bsattn_work_params_t *params,
                                 const bsattn_tile_shape_t *shape, int threads,
                                 bsattn_image_t *image, bsattn_lists_step_t *steps)
{
    const bsattn_schedule_t *schedule = params->schedule;
    size_t count = (size_t)schedule->step_count * (size_t)schedule->list_count;
    bsattn_tiles_t *tiles;
    bsattn_tile_list_t *streams;
    bsattn_status_t status;

    BSATTN_TRY(check_rows(params));
    tiles = calloc(count, sizeof(*tiles));
    streams = calloc(count, sizeof(*streams));
    if ((tiles == NULL) || (streams == NULL)) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the lists of a rank");
    } else {
        status = cut_all(params, shape, threads, tiles);
    }
    if (status == BSATTN_OK) {
        status = add_streams(params, shape, tiles, image, streams);
    }
    for (int s = 0; (s < schedule->step_count) && (status == BSATTN_OK); ++s) {
        status = add_step(params, tiles + (size_t)s * (size_t)schedule->list_count, streams, s,
                          image, &steps[s]);
    }
    for (size_t i = 0; (tiles != NULL) && (i < count); ++i) {
        bsattn_tiles_free(&tiles[i]);
    }
    free(tiles);
    free(streams);
    return status;
}

void bsattn_lists_relocate(const bsattn_image_t *image, const bsattn_lists_step_t *step,
                           int list_count, const char *base)
{
    bsattn_tile_list_t *lists = (bsattn_tile_list_t *)(image->data + step->lists);

    for (int l = 0; l < list_count; ++l) {
        lists[l].items = (const bsattn_tile_item_t *)(base + (size_t)lists[l].items);
        lists[l].tiles = (const bsattn_key_tile_t *)(base + (size_t)lists[l].tiles);
        lists[l].runs = (const bsattn_tile_run_t *)(base + (size_t)lists[l].runs);
        lists[l].heads = (const int32_t *)(base + (size_t)lists[l].heads);
    }
}

/* --------------------------------------------------------------------------------------- copies */

typedef struct copies {
    bsattn_row_copy_t *items;
    size_t count;
    size_t capacity;
} copies_t;

/* Rows token .. token + rows - 1 of a key head, to the rows of a part from `to` on. */
static bsattn_status_t add_rows(const bsattn_problem_t *problem, int head, int64_t token,
                                int64_t rows, int64_t to, copies_t *copies)
{
    int64_t row_bytes = (int64_t)bsattn_problem_row_bytes(problem);

    while (rows > 0) {
        int64_t now = (rows < BSATTN_ROW_COPY_MAX) ? rows : BSATTN_ROW_COPY_MAX;
        BSATTN_TRY(bsattn_array_reserve(&copies->items, &copies->capacity, copies->count + 1,
                                        sizeof(*copies->items)));
        copies->items[copies->count++] = (bsattn_row_copy_t){
            .from = (token * problem->heads_kv + head) * row_bytes,
            .to = to * row_bytes,
            .rows = (int32_t)now,
        };
        token += now;
        to += now;
        rows -= now;
    }
    return BSATTN_OK;
}

bool bsattn_lists_in_place(const bsattn_work_params_t *params)
{
    /* A chunk holds every token of a head at most once, in the order of the shard. */
    return params->schedule->steps[0].tokens_kv == params->tokens * params->problem->heads_kv;
}

/* Head after head. */
static bsattn_status_t copy_packing(const bsattn_work_params_t *params,
                                    const bsattn_packing_t *packing, copies_t *copies)
{
    for (int head = 0; head < params->problem->heads_kv; ++head) {
        int c = params->schedule->kv_class_of_head[head];
        int64_t to = packing->token_first[head];

        for (size_t r = packing->first[c]; r < packing->first[c + 1]; ++r) {
            const bsattn_token_run_t *run = &packing->runs[r];
            BSATTN_TRY(add_rows(params->problem, head, run->first, run->count, to, copies));
            to += run->count;
        }
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_lists_add_copies(const bsattn_work_params_t *params,
                                        const bsattn_packing_t *packing, bsattn_image_t *image,
                                        size_t *offset_p, int64_t *count_p)
{
    copies_t copies = {.items = NULL};
    bsattn_status_t status = copy_packing(params, packing, &copies);

    if (status == BSATTN_OK) {
        status = bsattn_image_add(image, copies.items, copies.count * sizeof(*copies.items),
                                  offset_p);
    }
    *count_p = (int64_t)copies.count;
    free(copies.items);
    return status;
}
