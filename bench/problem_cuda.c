/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/problem_cuda.h"

#include <cuda_runtime.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/launch_cuda.h"
#include "backend/lists.h"
#include "backend/tiles.h"
#include "base/array.h"
#include "base/bits.h"
#include "base/clock.h"
#include "base/half.h"
#include "base/philox.h"
#include "bench/device_cuda.h"
#include "problem/pattern.h"
#include "problem/problem.h"

enum {
    POOL_COUNT = 1048573, /* a prime, so that rows of a tensor differ */
    DEAL_RUN_MAX = 4,
};

/* --------------------------------------------------------------------------------------- memory */

static void *device_new(bsattn_gpu_case_t *gpu, size_t bytes)
{
    void *memory = NULL;

    BSATTN_GPU_TRY(cudaMalloc(&memory, (bytes == 0) ? 16 : bytes));
    bsattn_gpu_check_status(bsattn_array_reserve(&gpu->memory, &gpu->memory_capacity,
                                                 gpu->memory_count + 1, sizeof(*gpu->memory)),
                            "case");
    gpu->memory[gpu->memory_count++] = memory;
    return memory;
}

/* What lies behind a tensor is NaN: a kernel that reads too far shows it. */
static void *tensor_new(bsattn_gpu_case_t *gpu, size_t bytes)
{
    char *memory = device_new(gpu, bytes + BSATTN_GPU_GUARD_BYTES);

    BSATTN_GPU_TRY(cudaMemset(memory, 0xff, bytes + BSATTN_GPU_GUARD_BYTES));
    return memory;
}

static void *device_copy(bsattn_gpu_case_t *gpu, const void *from, size_t bytes)
{
    void *memory = device_new(gpu, bytes);

    if (bytes > 0) {
        BSATTN_GPU_TRY(cudaMemcpy(memory, from, bytes, cudaMemcpyHostToDevice));
    }
    return memory;
}

static size_t element_size(const bsattn_gpu_case_t *gpu)
{
    return bsattn_dtype_size(gpu->params.problem.dtype);
}

int64_t bsattn_gpu_q_count(const bsattn_problem_t *problem)
{
    return problem->batch * problem->seq_len * problem->heads_q * problem->head_dim;
}

static int64_t k_count(const bsattn_problem_t *problem)
{
    return problem->batch * problem->seq_len * problem->heads_kv * problem->head_dim;
}

size_t bsattn_gpu_lse_bytes(const bsattn_problem_t *problem)
{
    return (size_t)(problem->batch * problem->heads_q * problem->seq_len) * sizeof(float);
}

double bsattn_gpu_set_bytes(const bsattn_problem_t *problem)
{
    return (double)bsattn_dtype_size(problem->dtype) * 2.0 *
           (double)(bsattn_gpu_q_count(problem) + k_count(problem));
}

/* --------------------------------------------------------------------------------------- inputs */

/* Random normal values of a type in device memory, made once. */
static const char *pool_of(bsattn_dtype_t dtype)
{
    static char *pools[3];

    if (pools[dtype] == NULL) {
        float *values = bsattn_gpu_host_new(POOL_COUNT, sizeof(*values));
        void *rounded = bsattn_gpu_host_new(POOL_COUNT, bsattn_dtype_size(dtype));
        size_t bytes = POOL_COUNT * bsattn_dtype_size(dtype);

        bsattn_philox_normal(20, 5, 0, POOL_COUNT, values);
        bsattn_convert_from_f32(dtype, values, POOL_COUNT, rounded);
        BSATTN_GPU_TRY(cudaMalloc((void **)&pools[dtype], bytes));
        BSATTN_GPU_TRY(cudaMemcpy(pools[dtype], rounded, bytes, cudaMemcpyHostToDevice));
        free(values);
        free(rounded);
    }
    return pools[dtype];
}

static void fill_random(void *tensor, int64_t count, bsattn_dtype_t dtype, uint64_t seed)
{
    const char *pool = pool_of(dtype);
    size_t size = bsattn_dtype_size(dtype);
    int64_t from = (int64_t)(bsattn_mix(seed) % POOL_COUNT);

    for (int64_t done = 0; done < count;) {
        int64_t part = bsattn_min64(POOL_COUNT - from, count - done);
        BSATTN_GPU_TRY(cudaMemcpy((char *)tensor + (size_t)done * size, pool + (size_t)from * size,
                                  (size_t)part * size, cudaMemcpyDeviceToDevice));
        done += part;
        from = 0;
    }
}

static void sets_init(bsattn_gpu_case_t *gpu)
{
    const bsattn_problem_t *problem = &gpu->params.problem;
    size_t q_bytes = (size_t)bsattn_gpu_q_count(problem) * element_size(gpu);
    size_t k_bytes = (size_t)k_count(problem) * element_size(gpu);

    gpu->sets = bsattn_gpu_host_new((size_t)gpu->params.sets, sizeof(*gpu->sets));
    for (int s = 0; s < gpu->params.sets; ++s) {
        bsattn_gpu_set_t *set = &gpu->sets[s];
        uint64_t seed = (gpu->params.seed + (uint64_t)s) * 3;

        set->q = tensor_new(gpu, q_bytes);
        set->k = tensor_new(gpu, k_bytes);
        set->v = tensor_new(gpu, k_bytes);
        set->o = tensor_new(gpu, q_bytes);
        set->lse = tensor_new(gpu, bsattn_gpu_lse_bytes(problem));
        fill_random(set->q, bsattn_gpu_q_count(problem), problem->dtype, seed);
        fill_random(set->k, k_count(problem), problem->dtype, seed + 1);
        fill_random(set->v, k_count(problem), problem->dtype, seed + 2);
    }
}

void bsattn_gpu_case_fill(bsattn_gpu_case_t *gpu, bsattn_tensor_t tensor, int64_t first,
                          int64_t count, float value)
{
    const bsattn_problem_t *problem = &gpu->params.problem;
    int heads = (tensor == BSATTN_Q) ? problem->heads_q : problem->heads_kv;
    int64_t row = (int64_t)heads * problem->head_dim;
    float *values = bsattn_gpu_host_new((size_t)(row * count), sizeof(*values));
    void *rounded = bsattn_gpu_host_new((size_t)(row * count), element_size(gpu));

    for (int64_t i = 0; i < row * count; ++i) {
        values[i] = value;
    }
    bsattn_convert_from_f32(problem->dtype, values, row * count, rounded);
    for (int s = 0; s < gpu->params.sets; ++s) {
        const bsattn_gpu_set_t *set = &gpu->sets[s];
        char *to = (tensor == BSATTN_Q) ? set->q : (tensor == BSATTN_K) ? set->k : set->v;
        for (int64_t b = 0; b < problem->batch; ++b) {
            BSATTN_GPU_TRY(cudaMemcpy(
                to + (size_t)((b * problem->seq_len + first) * row) * element_size(gpu), rounded,
                (size_t)(row * count) * element_size(gpu), cudaMemcpyHostToDevice));
        }
    }
    free(values);
    free(rounded);
}

/* ---------------------------------------------------------------- which launch sees which block */

static int64_t block_tokens(const bsattn_problem_t *problem, int64_t block)
{
    return bsattn_problem_span_tokens(problem, block, block + 1);
}

static int key_class_of(const bsattn_gpu_case_t *gpu, int head_q)
{
    const bsattn_problem_t *problem = &gpu->params.problem;

    return gpu->params.heads_differ ? head_q / (problem->heads_q / problem->heads_kv) : 0;
}

static int list_class_of(const bsattn_gpu_case_t *gpu, int head_q)
{
    return gpu->pattern->class_of_head[head_q] * gpu->key_classes + key_class_of(gpu, head_q);
}

/* Blocks that a query head of a key class uses. */
static void mark_used(const bsattn_gpu_case_t *gpu, unsigned char *used)
{
    const bsattn_pattern_t *pattern = gpu->pattern;
    bsattn_row_work_t work = {0};
    bsattn_spans_t row = {0};

    for (int head = 0; head < gpu->params.problem.heads_q; ++head) {
        unsigned char *mine = used + (size_t)key_class_of(gpu, head) * (size_t)pattern->blocks;
        for (int64_t i = 0; i < pattern->blocks; ++i) {
            bsattn_gpu_check_status(
                bsattn_pattern_class_row(pattern, pattern->class_of_head[head], i, &work, &row),
                "pattern");
            for (size_t s = 0; s < row.count; ++s) {
                memset(mine + row.items[s].first, 1,
                       (size_t)(row.items[s].last - row.items[s].first));
            }
        }
    }
    bsattn_row_work_free(&work);
    bsattn_spans_free(&row);
}

/* Runs of a few neighbours go together, as blocks of one owner do. */
static void deal_class(bsattn_gpu_case_t *gpu, int key_class, const unsigned char *used)
{
    int64_t nb = gpu->pattern->blocks;
    int32_t *launch_of = gpu->launch_of + (size_t)key_class * (size_t)nb;
    int32_t *place = gpu->place + (size_t)key_class * (size_t)nb;
    int launches = gpu->params.launches;
    int32_t *next = bsattn_gpu_host_new((size_t)launches, sizeof(*next));
    uint64_t lot = bsattn_mix(gpu->params.seed * 977 + (uint64_t)key_class);
    int run = 0;
    int32_t launch = 0;

    for (int64_t j = 0; j < nb; ++j) {
        lot = bsattn_mix(lot + BSATTN_MIX_STEP);
        if (run-- == 0) {
            launch = (int32_t)(lot % (uint64_t)launches);
            run = (int)((lot >> 32) % DEAL_RUN_MAX);
        }
        launch_of[j] = launch;
        if (gpu->params.heads_differ && (used[(int64_t)key_class * nb + j] == 0)) {
            launch_of[j] = -1;
            continue;
        }
        place[j] = next[launch]++;
        gpu->key_tokens[(int64_t)launch * gpu->key_classes + key_class] +=
            block_tokens(&gpu->params.problem, j);
    }
    free(next);
}

static void deal(bsattn_gpu_case_t *gpu)
{
    size_t nb = (size_t)gpu->pattern->blocks;
    size_t classes = (size_t)(gpu->params.heads_differ ? gpu->params.problem.heads_kv : 1);
    unsigned char *used = NULL;

    gpu->key_classes = (int)classes;
    gpu->launch_of = bsattn_gpu_host_new(classes * nb, sizeof(*gpu->launch_of));
    gpu->place = bsattn_gpu_host_new(classes * nb, sizeof(*gpu->place));
    gpu->key_tokens =
        bsattn_gpu_host_new(classes * (size_t)gpu->params.launches, sizeof(*gpu->key_tokens));
    if (gpu->params.heads_differ) {
        used = bsattn_gpu_host_new(classes * nb, 1);
        mark_used(gpu, used);
    }
    for (int c = 0; c < gpu->key_classes; ++c) {
        deal_class(gpu, c, used);
    }
    free(used);
}

/* ---------------------------------------------------------------------------------------- lists */

/* The work of one list class in one launch, growing. */
typedef struct list_build {
    bsattn_work_item_t *items;
    size_t item_count;
    size_t item_capacity;
    bsattn_key_run_t *runs;
    size_t run_count;
    size_t run_capacity;
} list_build_t;

static void list_free(list_build_t *list)
{
    free(list->items);
    free(list->runs);
}

/* Groups of blocks have their states in the reverse order, with as much between them that is
 * nobody's: a kernel that takes another place is found out. */
static int64_t state_blocks(const bsattn_gpu_case_t *gpu)
{
    int64_t group = bsattn_problem_state_group(&gpu->params.problem);

    return 2 * group * ((gpu->pattern->blocks + group - 1) / group);
}

static int32_t state_block(const bsattn_gpu_case_t *gpu, int64_t row)
{
    int64_t group = bsattn_problem_state_group(&gpu->params.problem);

    return (int32_t)(state_blocks(gpu) - 2 * group * (row / group + 1) + row % group);
}

/* Add a key block to the item of a row, which is the last item of the list once it is there. */
static void list_add(const bsattn_gpu_case_t *gpu, list_build_t *list, int64_t row, int32_t slot,
                     bool partial)
{
    bsattn_work_item_t *item = (list->item_count > 0) ? &list->items[list->item_count - 1] : NULL;
    bsattn_key_run_t *run = NULL;

    if ((item == NULL) || (item->row != row)) {
        bsattn_gpu_check_status(bsattn_array_reserve(&list->items, &list->item_capacity,
                                                     list->item_count + 1, sizeof(*list->items)),
                                "lists");
        item = &list->items[list->item_count++];
        *item = (bsattn_work_item_t){.row = (int32_t)row,
                                     .state_block = state_block(gpu, row),
                                     .run_first = (int64_t)list->run_count};
    }
    ++item->block_count;
    if (item->run_count > item->partial_count) {
        run = &list->runs[list->run_count - 1];
        if (run->slot + run->count == slot) {
            ++run->count;
            return;
        }
    }
    bsattn_gpu_check_status(bsattn_array_reserve(&list->runs, &list->run_capacity,
                                                 list->run_count + 1, sizeof(*list->runs)),
                            "lists");
    list->runs[list->run_count++] = (bsattn_key_run_t){.slot = slot, .count = 1};
    ++item->run_count;
    item->partial_count = (uint16_t)(item->partial_count + (partial ? 1 : 0));
}

/* Partial entries first, which is the diagonal of each branch. */
static void add_row(const bsattn_gpu_case_t *gpu, int key_class, int64_t row,
                    const bsattn_spans_t *spans, list_build_t *lists)
{
    int64_t nb = gpu->pattern->blocks;
    const int32_t *launch_of = gpu->launch_of + (int64_t)key_class * nb;
    const int32_t *place = gpu->place + (int64_t)key_class * nb;
    bool causal = gpu->params.problem.causal != 0;

    for (int pass = causal ? 0 : 1; pass < 2; ++pass) {
        for (size_t s = 0; s < spans->count; ++s) {
            for (int64_t j = spans->items[s].first; j < spans->items[s].last; ++j) {
                bool partial = causal && (j == row);
                if (partial == (pass == 0)) {
                    list_add(gpu, &lists[launch_of[j]], row, place[j], partial);
                }
            }
        }
    }
}

/* First and last among the launches with work for a row. @return whether there is any */
static bool mark_ends(list_build_t *lists, int launches, int64_t row)
{
    bsattn_work_item_t *last = NULL;

    for (int s = 0; s < launches; ++s) {
        list_build_t *list = &lists[s];
        if ((list->item_count > 0) && (list->items[list->item_count - 1].row == row)) {
            bsattn_work_item_t *item = &list->items[list->item_count - 1];
            item->first = (last == NULL) ? 1 : 0;
            last = item;
        }
    }
    if (last != NULL) {
        last->last = 1;
    }
    return last != NULL;
}

/* The order of items in attend.h: longest first. */
static int item_compare(const void *a, const void *b)
{
    const bsattn_work_item_t *x = a;
    const bsattn_work_item_t *y = b;

    if (x->block_count != y->block_count) {
        return (x->block_count < y->block_count) ? 1 : -1;
    }
    return (x->row > y->row) - (x->row < y->row);
}

/* @param lists  [launches], empty
 * @param empty  [nb]: rows without keys
 * @return their number */
static int64_t build_class(const bsattn_gpu_case_t *gpu, int list_class, list_build_t *lists,
                           int32_t *empty)
{
    bsattn_row_work_t work = {0};
    bsattn_spans_t spans = {0};
    int64_t empty_count = 0;
    bool wanted = false;

    /* Not every pair of a pattern class and a key class has a head. */
    for (int head = 0; head < gpu->params.problem.heads_q; ++head) {
        wanted = wanted || (list_class_of(gpu, head) == list_class);
    }
    for (int64_t row = 0; wanted && (row < gpu->pattern->blocks); ++row) {
        bsattn_gpu_check_status(bsattn_pattern_class_row(gpu->pattern,
                                                         list_class / gpu->key_classes, row, &work,
                                                         &spans),
                                "pattern");
        add_row(gpu, list_class % gpu->key_classes, row, &spans, lists);
        if (!mark_ends(lists, gpu->params.launches, row)) {
            empty[empty_count++] = (int32_t)row;
        }
    }
    for (int s = 0; s < gpu->params.launches; ++s) {
        if (lists[s].item_count > 1) {
            qsort(lists[s].items, lists[s].item_count, sizeof(*lists[s].items), item_compare);
        }
    }
    bsattn_row_work_free(&work);
    bsattn_spans_free(&spans);
    return empty_count;
}

/* ------------------------------------------------------------------------------------- launches */

/* Cut a class's list of one launch and put it on the device. */
static void add_tile_list(bsattn_gpu_case_t *gpu, int launch, int list_class,
                          const list_build_t *built, bsattn_tile_list_t *lists)
{
    bsattn_attend_cuda_params_t *params = &gpu->launches[launch].params[0];
    const bsattn_problem_t *problem = &gpu->params.problem;
    int64_t key_tokens = gpu->key_tokens[launch * gpu->key_classes + list_class % gpu->key_classes];
    bsattn_work_list_t work = {built->items, (int64_t)built->item_count, built->runs};
    bsattn_tiles_params_t cut = {params->shape, problem->block, problem->seq_len, key_tokens,
                                 &work};
    int32_t(*heads)[2] = bsattn_gpu_host_new((size_t)problem->heads_q, sizeof(*heads));
    bsattn_tile_list_t *list = &lists[params->list_count++];
    bsattn_tiles_t tiles;

    bsattn_gpu_check_status(bsattn_tiles_init(&tiles, &cut), "tiles");
    list->items = device_copy(gpu, tiles.items, tiles.item_count * sizeof(*tiles.items));
    list->tiles = device_copy(gpu, tiles.tiles, tiles.tile_count * sizeof(*tiles.tiles));
    list->runs = device_copy(gpu, tiles.runs, tiles.run_count * sizeof(*tiles.runs));
    list->item_count = (int32_t)tiles.item_count;
    list->stream_heads = bsattn_lists_streams(problem, gpu->list_of_head, list_class,
                                              params->shape.pair_heads != 0, heads);
    list->stream_group = bsattn_lists_stream_group(problem, (const int32_t(*)[2])heads,
                                                   list->stream_heads, tiles.reach);
    list->heads = device_copy(gpu, heads, (size_t)list->stream_heads * sizeof(*heads));
    list->unit_first = params->unit_count;
    params->unit_count += problem->batch * list->stream_heads * list->item_count;
    bsattn_tiles_free(&tiles);
    free(heads);
}

/* Where the keys lie. */
static void place_keys(bsattn_gpu_case_t *gpu, int launch)
{
    const bsattn_problem_t *problem = &gpu->params.problem;
    bsattn_attend_cuda_params_t *params = &gpu->launches[launch].params[0];
    bsattn_key_head_t *heads = bsattn_gpu_host_new((size_t)problem->heads_kv, sizeof(*heads));
    int64_t rows = 0;

    params->key_heads_alike = true;
    for (int h = 0; h < problem->heads_kv; ++h) {
        int key_class = gpu->params.heads_differ ? h : 0;
        heads[h].rows = gpu->key_tokens[launch * gpu->key_classes + key_class];
        heads[h].offset = (gpu->params.packed ? rows : h) * problem->head_dim;
        rows += heads[h].rows;
        params->key_heads_alike = params->key_heads_alike && (heads[h].rows == heads[0].rows);
    }
    params->key_rows = heads[0].rows;
    params->key_head_stride = problem->head_dim * (gpu->params.packed ? heads[0].rows : 1);
    params->key_row_stride =
        (int64_t)problem->head_dim * (gpu->params.packed ? 1 : problem->heads_kv);
    params->key_batch_stride =
        problem->head_dim *
        (gpu->params.packed ? rows : problem->seq_len * (int64_t)problem->heads_kv);
    params->key_heads = device_copy(gpu, heads, (size_t)problem->heads_kv * sizeof(*heads));
    gpu->key_heads[launch] = heads;
    gpu->launches[launch].tokens_kv = rows;
}

/* Sets differ in their tensors and in the descriptors made from these. */
static void launch_sets(bsattn_gpu_case_t *gpu, int launch)
{
    bsattn_gpu_launch_t *made = &gpu->launches[launch];
    const bsattn_problem_t *problem = &gpu->params.problem;
    size_t chunk_bytes =
        (size_t)(problem->batch * made->tokens_kv * problem->head_dim) * element_size(gpu);
    size_t maps_bytes = made->params[0].key_heads_alike
                            ? 0
                            : bsattn_attend_cuda_maps_bytes(gpu->params.kernel, problem->heads_kv);
    void *maps = bsattn_gpu_host_new(maps_bytes + 1, 1);

    for (int s = 0; s < gpu->params.sets; ++s) {
        bsattn_attend_cuda_params_t *params = &made->params[s];
        *params = made->params[0];
        params->q = gpu->sets[s].q;
        params->o = gpu->sets[s].o;
        params->lse = gpu->sets[s].lse;
        params->k = gpu->params.packed ? tensor_new(gpu, chunk_bytes) : gpu->sets[s].k;
        params->v = gpu->params.packed ? tensor_new(gpu, chunk_bytes) : gpu->sets[s].v;
        if (maps_bytes > 0) {
            bsattn_gpu_check(
                (cudaError_t)bsattn_attend_cuda_maps(params, gpu->key_heads[launch], maps),
                "bsattn_attend_cuda_maps");
            params->key_maps = device_copy(gpu, maps, maps_bytes);
        }
    }
    free(maps);
}

/* Rows without keys: once, before the first launch. */
static void add_clear(bsattn_gpu_case_t *gpu, int list_class, const int32_t *rows, int64_t count)
{
    bsattn_clear_cuda_params_t *clear = &gpu->clears[list_class];
    const bsattn_problem_t *problem = &gpu->params.problem;
    int32_t *heads = bsattn_gpu_host_new((size_t)problem->heads_q, sizeof(*heads));

    for (int h = 0; h < problem->heads_q; ++h) {
        if (gpu->list_of_head[h] == list_class) {
            heads[clear->head_count++] = h;
        }
    }
    clear->block = problem->block;
    clear->row_count = count;
    clear->rows = device_copy(gpu, rows, (size_t)count * sizeof(*rows));
    clear->heads = device_copy(gpu, heads, (size_t)clear->head_count * sizeof(*heads));
    free(heads);
}

static bsattn_tile_shape_t find_shape(const bsattn_gpu_case_t *gpu, const list_build_t *built,
                                      size_t count)
{
    const bsattn_problem_t *problem = &gpu->params.problem;
    bsattn_tiles_spread_t spread = {0.0, 0.0};

    for (size_t i = 0; i < count; ++i) {
        bsattn_work_list_t list = {built[i].items, (int64_t)built[i].item_count, built[i].runs};
        bsattn_tiles_params_t params = {
            .block = problem->block, .tokens = problem->seq_len, .list = &list};
        bsattn_gpu_check_status(bsattn_tiles_add_spread(&params, &spread), "tiles");
    }
    return gpu->params.kernel->shape(problem, bsattn_lists_pairs(problem, gpu->list_of_head),
                                     bsattn_tiles_spread(&spread));
}

static void launch_init(bsattn_gpu_case_t *gpu, int launch, bsattn_tile_shape_t shape,
                        const list_build_t *built)
{
    const bsattn_problem_t *problem = &gpu->params.problem;
    bsattn_tile_list_t *lists = bsattn_gpu_host_new((size_t)gpu->list_count, sizeof(*lists));
    bsattn_attend_cuda_params_t *params;

    gpu->launches[launch].params = bsattn_gpu_host_new((size_t)gpu->params.sets, sizeof(*params));
    params = &gpu->launches[launch].params[0];
    params->batch = problem->batch;
    params->heads_q = problem->heads_q;
    params->heads_kv = problem->heads_kv;
    params->head_dim = problem->head_dim;
    params->dtype = problem->dtype;
    params->scale = (float)bsattn_problem_scale(problem);
    params->shape = shape;
    params->granule = (int)bsattn_min64(problem->block, shape.key_tile);
    params->tokens = problem->seq_len;
    params->state_rows = state_blocks(gpu) * problem->block;
    params->state_o = gpu->state_o;
    params->state_ml = gpu->state_ml;
    params->counters = gpu->counters;
    place_keys(gpu, launch);
    for (int c = 0; c < gpu->list_count; ++c) {
        const list_build_t *list = &built[c * gpu->params.launches + launch];
        if ((list->item_count > 0) && (gpu->clears[c].head_count > 0)) {
            add_tile_list(gpu, launch, c, list, lists);
        }
    }
    params->lists = device_copy(gpu, lists, (size_t)params->list_count * sizeof(*lists));
    launch_sets(gpu, launch);
    free(lists);
}

static size_t state_bytes(const bsattn_gpu_case_t *gpu, int row_floats)
{
    return gpu->state_rows * (size_t)row_floats * sizeof(float);
}

static void state_init(bsattn_gpu_case_t *gpu)
{
    const bsattn_problem_t *problem = &gpu->params.problem;

    gpu->state_group_rows = (size_t)(bsattn_problem_state_group(problem) * problem->block);
    gpu->state_rows =
        (size_t)(problem->batch * problem->heads_q * state_blocks(gpu) * problem->block);
    gpu->counters = device_new(gpu, 2 * sizeof(uint32_t));
    BSATTN_GPU_TRY(cudaMemset(gpu->counters, 0, 2 * sizeof(uint32_t)));
    if (gpu->params.launches > 1) {
        gpu->state_o = device_new(gpu, state_bytes(gpu, problem->head_dim));
        gpu->state_ml = device_new(gpu, state_bytes(gpu, 2));
    }
}

static void lists_init(bsattn_gpu_case_t *gpu)
{
    int launches = gpu->params.launches;
    size_t count = (size_t)gpu->list_count * (size_t)launches;
    list_build_t *built = bsattn_gpu_host_new(count, sizeof(*built));
    int32_t *empty = bsattn_gpu_host_new((size_t)gpu->pattern->blocks, sizeof(*empty));
    bsattn_tile_shape_t shape;

    for (int c = 0; c < gpu->list_count; ++c) {
        int64_t rows = build_class(gpu, c, built + (size_t)c * (size_t)launches, empty);
        add_clear(gpu, c, empty, rows);
    }
    shape = find_shape(gpu, built, count);
    for (int s = 0; s < launches; ++s) {
        launch_init(gpu, s, shape, built);
    }
    for (size_t i = 0; i < count; ++i) {
        list_free(&built[i]);
    }
    free(built);
    free(empty);
}

void bsattn_gpu_case_init(bsattn_gpu_case_t *gpu, const bsattn_gpu_params_t *params)
{
    bsattn_pattern_stats_t stats;
    int heads_q = params->problem.heads_q;

    *gpu = (bsattn_gpu_case_t){.params = *params};
    gpu->params.packed = params->packed || params->heads_differ || (params->launches > 1);
    bsattn_gpu_check_status(bsattn_pattern_create(params->pattern, &params->problem, &gpu->pattern),
                            "pattern");
    bsattn_gpu_check_status(bsattn_pattern_stats(gpu->pattern, 1, &stats), "pattern");
    gpu->flops = stats.flops;
    deal(gpu);
    gpu->list_count = gpu->pattern->class_count * gpu->key_classes;
    gpu->list_of_head = bsattn_gpu_host_new((size_t)heads_q, sizeof(int));
    for (int h = 0; h < heads_q; ++h) {
        gpu->list_of_head[h] = list_class_of(gpu, h);
    }
    gpu->launches = bsattn_gpu_host_new((size_t)params->launches, sizeof(*gpu->launches));
    gpu->key_heads = bsattn_gpu_host_new((size_t)params->launches, sizeof(*gpu->key_heads));
    gpu->clears = bsattn_gpu_host_new((size_t)gpu->list_count, sizeof(*gpu->clears));
    if (params->spare > 0) {
        BSATTN_GPU_TRY(cudaStreamCreateWithFlags(&gpu->queue.exchange, cudaStreamNonBlocking));
        bsattn_gpu_check_status(bsattn_cuda_event_create(&gpu->queue.computed), "an event");
        bsattn_gpu_check_status(bsattn_cuda_event_create(&gpu->queue.exchanged), "an event");
    }
    sets_init(gpu);
    state_init(gpu);
    lists_init(gpu);
    bsattn_gpu_case_pack(gpu);
    bsattn_gpu_case_poison(gpu);
    BSATTN_GPU_TRY(cudaDeviceSynchronize());
}

void bsattn_gpu_case_free(bsattn_gpu_case_t *gpu)
{
    for (size_t i = 0; i < gpu->memory_count; ++i) {
        BSATTN_GPU_TRY(cudaFree(gpu->memory[i]));
    }
    if (gpu->queue.exchange != NULL) {
        BSATTN_GPU_TRY(cudaStreamDestroy(gpu->queue.exchange));
    }
    bsattn_cuda_event_destroy(&gpu->queue.computed);
    bsattn_cuda_event_destroy(&gpu->queue.exchanged);
    for (int s = 0; s < gpu->params.launches; ++s) {
        free(gpu->launches[s].params);
        free(gpu->key_heads[s]);
    }
    free(gpu->launches);
    free(gpu->key_heads);
    free(gpu->clears);
    free(gpu->list_of_head);
    free(gpu->launch_of);
    free(gpu->place);
    free(gpu->key_tokens);
    free(gpu->sets);
    free(gpu->memory);
    bsattn_pattern_destroy(gpu->pattern);
    *gpu = (bsattn_gpu_case_t){0};
}

/* ---------------------------------------------------------------------------------------- masks */

/* Distinct, ascending: Knuth's selection sampling. */
static void mask_row(unsigned char *row, int64_t nb, int64_t wanted, uint64_t *lot)
{
    for (int64_t j = 0; j < nb; ++j) {
        *lot += BSATTN_MIX_STEP;
        row[j] = (bsattn_mix(*lot) % (uint64_t)(nb - j) < (uint64_t)wanted) ? 1 : 0;
        wanted -= row[j];
    }
}

void bsattn_gpu_write_mask(const char *path, int masks, int64_t nb, int64_t least, int64_t most,
                           uint64_t seed)
{
    char header[128];
    char first_axis[24] = "";
    FILE *file = fopen(path, "wb");
    unsigned char *row = bsattn_gpu_host_new((size_t)nb, 1);
    uint64_t lot = bsattn_mix(seed);
    bool good = file != NULL;
    int length;

    if (masks > 1) {
        (void)snprintf(first_axis, sizeof(first_axis), "%d, ", masks);
    }
    /* Version 1.0 and the length of what follows, 118. */
    length = snprintf(header, sizeof(header),
                      "\x93NUMPY\x01%c\x76%c{'descr': '|b1', 'fortran_order': False, "
                      "'shape': (%s%lld, %lld), }",
                      '\0', '\0', first_axis, (long long)nb, (long long)nb);
    memset(header + length, ' ', sizeof(header) - (size_t)length);
    header[sizeof(header) - 1] = '\n';
    good = good && (fwrite(header, sizeof(header), 1, file) == 1);
    for (int64_t i = 0; good && (i < masks * nb); ++i) {
        lot += BSATTN_MIX_STEP;
        mask_row(
            row, nb,
            bsattn_min64(nb, least + (int64_t)(bsattn_mix(~lot) % (uint64_t)(most - least + 1))),
            &lot);
        good = fwrite(row, (size_t)nb, 1, file) == 1;
    }
    if ((file != NULL) && (fclose(file) != 0)) {
        good = false;
    }
    free(row);
    if (!good) {
        bsattn_gpu_end(BSATTN_ERR_FILE, path, "cannot be written");
    }
}

/* ------------------------------------------------------------------------------------------ run */

/* Copy the blocks of one head and batch item to their places, neighbours together. */
static void pack_head(const bsattn_gpu_case_t *gpu, int set, int64_t b, int head)
{
    const bsattn_problem_t *problem = &gpu->params.problem;
    int64_t nb = gpu->pattern->blocks;
    int64_t at = (int64_t)(gpu->params.heads_differ ? head : 0) * nb;
    size_t row_bytes = bsattn_problem_row_bytes(problem);
    size_t token_bytes = row_bytes * (size_t)problem->heads_kv;
    size_t from = (size_t)(b * problem->seq_len) * token_bytes + (size_t)head * row_bytes;

    for (int64_t j = 0, next; j < nb; j = next) {
        int32_t launch = gpu->launch_of[at + j];
        for (next = j + 1; (next < nb) && (gpu->launch_of[at + next] == launch); ++next) {
        }
        if (launch >= 0) {
            const bsattn_attend_cuda_params_t *params = &gpu->launches[launch].params[set];
            const bsattn_gpu_set_t *in = &gpu->sets[set];
            size_t rows = (size_t)bsattn_problem_span_tokens(problem, j, next);
            size_t skip = from + (size_t)(j * problem->block) * token_bytes;
            size_t to =
                (size_t)(b * params->key_batch_stride + gpu->key_heads[launch][head].offset +
                         gpu->place[at + j] * (int64_t)problem->block * params->key_row_stride) *
                element_size(gpu);
            BSATTN_GPU_TRY(cudaMemcpy2D((char *)params->k + to, row_bytes, (char *)in->k + skip,
                                        token_bytes, row_bytes, rows, cudaMemcpyDeviceToDevice));
            BSATTN_GPU_TRY(cudaMemcpy2D((char *)params->v + to, row_bytes, (char *)in->v + skip,
                                        token_bytes, row_bytes, rows, cudaMemcpyDeviceToDevice));
        }
    }
}

void bsattn_gpu_case_pack(bsattn_gpu_case_t *gpu)
{
    const bsattn_problem_t *problem = &gpu->params.problem;

    for (int set = 0; gpu->params.packed && (set < gpu->params.sets); ++set) {
        for (int64_t b = 0; b < problem->batch; ++b) {
            for (int head = 0; head < problem->heads_kv; ++head) {
                pack_head(gpu, set, b, head);
            }
        }
    }
}

void bsattn_gpu_case_poison(bsattn_gpu_case_t *gpu)
{
    const bsattn_problem_t *problem = &gpu->params.problem;

    for (int s = 0; s < gpu->params.sets; ++s) {
        BSATTN_GPU_TRY(cudaMemset(gpu->sets[s].o, 0xff,
                                  (size_t)bsattn_gpu_q_count(problem) * element_size(gpu)));
        BSATTN_GPU_TRY(cudaMemset(gpu->sets[s].lse, 0xff, bsattn_gpu_lse_bytes(problem)));
    }
    if (gpu->state_o != NULL) {
        BSATTN_GPU_TRY(cudaMemset(gpu->state_o, 0xff, state_bytes(gpu, problem->head_dim)));
        BSATTN_GPU_TRY(cudaMemset(gpu->state_ml, 0xff, state_bytes(gpu, 2)));
    }
}

/* Longer than a launch of the other stream takes. */
static void CUDART_CB wait_a_while(void *unused)
{
    struct timespec time = {.tv_nsec = 1000000};

    (void)unused;
    (void)nanosleep(&time, NULL);
}

static int launch(bsattn_gpu_case_t *gpu, const bsattn_attend_cuda_params_t *params)
{
    bsattn_cuda_queue_t *queue = &gpu->queue;
    int error;

    if (gpu->params.spare == 0) {
        return bsattn_attend_cuda(gpu->params.kernel, params, 0, queue->compute, NULL);
    }
    bsattn_gpu_check_status(bsattn_cuda_queue_exchange_after_compute(queue), "a divided launch");
    if (gpu->params.order != BSATTN_GPU_TOGETHER) {
        bool last = (gpu->params.order == BSATTN_GPU_LATE_LAST);
        BSATTN_GPU_TRY(
            cudaLaunchHostFunc(last ? queue->exchange : queue->compute, wait_a_while, NULL));
    }
    error = bsattn_attend_cuda(gpu->params.kernel, params, gpu->params.spare, queue->compute,
                               queue->exchange);
    bsattn_gpu_check_status(bsattn_cuda_queue_compute_after_exchange(queue), "a divided launch");
    return error;
}

bool bsattn_gpu_case_divided(const bsattn_gpu_case_t *gpu)
{
    bsattn_cuda_launch_t launch;

    for (int s = 0; s < gpu->params.launches; ++s) {
        const bsattn_attend_cuda_params_t *params = &gpu->launches[s].params[0];
        if ((params->unit_count > 0) &&
            (gpu->params.kernel->prepare(params, gpu->params.spare, &launch) == 0) &&
            (launch.late_ctas > 0)) {
            return true;
        }
    }
    return false;
}

static int launch_all(bsattn_gpu_case_t *gpu, int set)
{
    for (int s = 0; s < gpu->params.launches; ++s) {
        int error = launch(gpu, &gpu->launches[s].params[set]);
        if (error != 0) {
            return error;
        }
    }
    return 0;
}

static int clear_rows(const bsattn_gpu_case_t *gpu, int set)
{
    for (int c = 0; c < gpu->list_count; ++c) {
        bsattn_clear_cuda_params_t clear = gpu->clears[c];
        clear.attend = &gpu->launches[0].params[set];
        if ((clear.row_count > 0) && (clear.head_count > 0)) {
            int error = bsattn_clear_cuda(&clear, NULL);
            if (error != 0) {
                return error;
            }
        }
    }
    return 0;
}

int bsattn_gpu_case_run(bsattn_gpu_case_t *gpu, int set)
{
    uint32_t counters[2];
    int error = clear_rows(gpu, set);

    error = (error != 0) ? error : launch_all(gpu, set);
    error = (error != 0) ? error : (int)cudaDeviceSynchronize();
    if (error != 0) {
        return error;
    }
    BSATTN_GPU_TRY(cudaMemcpy(counters, gpu->counters, sizeof(counters), cudaMemcpyDeviceToHost));
    if ((counters[0] != 0) || (counters[1] != 0)) {
        bsattn_gpu_end(BSATTN_ERR_RESULT, gpu->params.kernel->name,
                       "the counters are not zero after a run");
    }
    return 0;
}

/* --------------------------------------------------------------------------------------- timing */

/* What timed launches do not write is not there. */
static void poison_or_end(bsattn_gpu_case_t *gpu)
{
    bsattn_gpu_case_poison(gpu);
    for (int set = 0; set < gpu->params.sets; ++set) {
        bsattn_gpu_check((cudaError_t)clear_rows(gpu, set), "rows without keys");
    }
}

static void run_or_end(bsattn_gpu_case_t *gpu, int set)
{
    bsattn_gpu_check((cudaError_t)launch_all(gpu, set), gpu->params.kernel->name);
}

/* Short runs are timed several at a time: an event is good to about a microsecond. */
bsattn_stats_t bsattn_gpu_case_time(bsattn_gpu_case_t *gpu, int repeats)
{
    static const double least_ms = 0.3;
    double *times_ms = bsattn_gpu_host_new((size_t)repeats, sizeof(*times_ms));
    bsattn_stats_t stats;
    cudaEvent_t begin;
    cudaEvent_t done;
    float ms = 0.0f;
    int inner = 3;
    int set = 0;

    BSATTN_GPU_TRY(cudaEventCreate(&begin));
    BSATTN_GPU_TRY(cudaEventCreate(&done));
    poison_or_end(gpu);
    for (int first = 0; first < gpu->params.sets; ++first) {
        run_or_end(gpu, first);
    }
    for (int r = -2; r < repeats; ++r) {
        BSATTN_GPU_TRY(cudaEventRecord(begin, NULL));
        for (int i = 0; i < inner; ++i) {
            run_or_end(gpu, set);
            set = (set + 1) % gpu->params.sets;
        }
        BSATTN_GPU_TRY(cudaEventRecord(done, NULL));
        BSATTN_GPU_TRY(cudaEventSynchronize(done));
        BSATTN_GPU_TRY(cudaEventElapsedTime(&ms, begin, done));
        if (r < 0) {
            inner = (int)fmax(1.0, ceil(least_ms / fmax(1e-3, (double)ms / inner)));
        } else {
            times_ms[r] = (double)ms / inner;
        }
    }
    stats = bsattn_stats_of(times_ms, (size_t)repeats);
    BSATTN_GPU_TRY(cudaEventDestroy(begin));
    BSATTN_GPU_TRY(cudaEventDestroy(done));
    free(times_ms);
    return stats;
}

/* Launches made ready for a set, in the order of their steps. */
static void make_launches(const bsattn_gpu_case_t *gpu, int set, cudaStream_t stream,
                          bsattn_ready_launch_t *launches)
{
    for (int s = 0; s < gpu->params.launches; ++s) {
        bsattn_gpu_check_status(bsattn_ready_launch_make(&launches[s], gpu->params.kernel,
                                                         &gpu->launches[s].params[set], stream),
                                gpu->params.kernel->name);
    }
}

void bsattn_gpu_case_time_host(bsattn_gpu_case_t *gpu, int repeats, bsattn_stats_t *launch_us_p,
                               bsattn_stats_t *total_us_p)
{
    const int warm_up = 20 + gpu->params.sets; /* all of them */
    int per_set = gpu->params.launches;
    size_t count = (size_t)gpu->params.sets * (size_t)per_set;
    bsattn_ready_launch_t *launches = bsattn_gpu_host_new(count, sizeof(*launches));
    double *launch_us = bsattn_gpu_host_new((size_t)repeats, sizeof(*launch_us));
    double *total_us = bsattn_gpu_host_new((size_t)repeats, sizeof(*total_us));
    cudaStream_t stream;

    BSATTN_GPU_TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (int set = 0; set < gpu->params.sets; ++set) {
        make_launches(gpu, set, stream, &launches[set * per_set]);
    }
    poison_or_end(gpu);
    BSATTN_GPU_TRY(cudaDeviceSynchronize());
    for (int r = -warm_up; r < repeats; ++r) {
        const bsattn_ready_launch_t *now = &launches[(r + warm_up) % gpu->params.sets * per_set];
        double start_ms = bsattn_clock_ms();
        double launched_ms;

        for (int s = 0; s < per_set; ++s) {
            bsattn_gpu_check_status(bsattn_ready_launch_start(&now[s], stream),
                                    gpu->params.kernel->name);
        }
        launched_ms = bsattn_clock_ms();
        BSATTN_GPU_TRY(cudaStreamSynchronize(stream));
        if (r >= 0) {
            launch_us[r] = 1e3 * (launched_ms - start_ms);
            total_us[r] = 1e3 * (bsattn_clock_ms() - start_ms);
        }
    }
    *launch_us_p = bsattn_stats_of(launch_us, (size_t)repeats);
    *total_us_p = bsattn_stats_of(total_us, (size_t)repeats);
    for (size_t i = 0; i < count; ++i) {
        bsattn_ready_launch_destroy(&launches[i]);
    }
    BSATTN_GPU_TRY(cudaStreamDestroy(stream));
    free(launches);
    free(launch_us);
    free(total_us);
}
