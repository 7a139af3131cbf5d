/* SPDX-License-Identifier: Apache-2.0 */
/* What a rank holds on its GPU, and an execution: everything is enqueued on the rank's two streams,
 * whose order events keep. Times are those of events, too. */
#include "backend/backend_cuda.h"
#include "backend/launch_cuda.h"
#include "backend/lists.h"
#include "problem/problem.h"

#include <stdlib.h>
#include <string.h>

typedef struct cuda_step {
    bsattn_attend_cuda_params_t attend; /* but for the tensors of an execution */
    cudaEvent_t begin;                  /* around attend, on compute; see begin_of() */
    cudaEvent_t end;
    cudaEvent_t exchange_begin; /* around the exchange, on exchange */
    cudaEvent_t exchange_end;
    bool exchanging; /* in this execution */
} cuda_step_t;

/* Rows gathered out of the tensors. */
typedef struct cuda_packing {
    const bsattn_packing_t *packing;  /* NULL: nothing is gathered */
    bsattn_rows_cuda_params_t params; /* but for the tensors */
    char *to;                         /* K's, then V's */
} cuda_packing_t;

typedef struct cuda_work {
    bsattn_work_t super;
    bsattn_cuda_queue_t queue;
    const bsattn_cuda_kernel_t *kernel;
    bsattn_ready_launch_t launch;    /* of the only step; none: there are more, or nothing to do */
    bsattn_tensors_t launch_tensors; /* that it is for */
    bool in_place; /* keys of step 0 are read in the caller's tensors */
    cuda_step_t *steps;
    char *chunks[2];
    char *outgoing_buffer; /* NULL: what is sent is in the chunks */
    float *state_o;
    float *state_ml;
    char *image; /* lists and whatever else launches read */

    cuda_packing_t own;          /* the chunk of step 0, unless it is read in place */
    cuda_packing_t outgoing;     /* what others use, where that is not sent from the chunk */
    bsattn_token_run_t send_all; /* on the ring: all of it */
    bsattn_tensors_t tensors;    /* of this execution */
    bool outgoing_packed;        /* in it */
    bsattn_clear_cuda_params_t *clears;
    int clear_count;
    cudaEvent_t start; /* on compute */

    int64_t recorded; /* events begin and end of this execution */
    int64_t seen;     /* of these, found done */
} cuda_work_t;

/* -------------------------------------------------------------------------------------- buffers */

static int64_t chunk_rows(const cuda_work_t *cuda, int step)
{
    return cuda->super.params.schedule->steps[step].tokens_kv;
}

/* Bytes of K and V of so many rows of each batch item. */
static int64_t rows_bytes(const cuda_work_t *cuda, int64_t rows)
{
    const bsattn_problem_t *problem = cuda->super.params.problem;

    return 2 * problem->batch * rows * (int64_t)bsattn_problem_row_bytes(problem);
}

static char *values_of(const cuda_work_t *cuda, char *chunk, int64_t rows)
{
    return chunk + rows_bytes(cuda, rows) / 2;
}

/* Allocate one buffer of a rank and count it. */
static bsattn_status_t work_alloc(cuda_work_t *cuda, int64_t bytes, void *memory_p)
{
    BSATTN_TRY(bsattn_cuda_alloc(cuda->super.backend, (size_t)bytes, memory_p));
    cuda->super.bytes += bytes;
    return BSATTN_OK;
}

static bsattn_status_t work_buffers(cuda_work_t *cuda)
{
    const bsattn_work_params_t *params = &cuda->super.params;
    const bsattn_schedule_t *schedule = params->schedule;
    bool direct = (schedule->exchange == BSATTN_EXCHANGE_DIRECT);
    int64_t outgoing_bytes = rows_bytes(cuda, schedule->outgoing.tokens);
    int64_t largest[2] = {!cuda->in_place ? rows_bytes(cuda, schedule->own.tokens)
                          : direct        ? 0
                                          : outgoing_bytes,
                          0};
    int64_t state_bytes =
        (int64_t)bsattn_problem_state_bytes(params->problem, schedule->state_blocks);

    for (int s = 1; s < schedule->step_count; ++s) {
        int64_t bytes = rows_bytes(cuda, chunk_rows(cuda, s));
        largest[s % 2] = (bytes > largest[s % 2]) ? bytes : largest[s % 2];
    }
    BSATTN_TRY(work_alloc(cuda, largest[0], &cuda->chunks[0]));
    BSATTN_TRY(work_alloc(cuda, largest[1], &cuda->chunks[1]));
    if (direct) {
        BSATTN_TRY(work_alloc(cuda, outgoing_bytes, &cuda->outgoing_buffer));
    }
    cuda->own.to = cuda->chunks[0];
    cuda->outgoing.to = direct ? cuda->outgoing_buffer : cuda->chunks[0];
    if (state_bytes > 0) {
        int64_t head_dim = params->problem->head_dim;
        int64_t ml_bytes = state_bytes / (head_dim + 2) * 2;
        BSATTN_TRY(work_alloc(cuda, state_bytes - ml_bytes, &cuda->state_o));
        BSATTN_TRY(work_alloc(cuda, ml_bytes, &cuda->state_ml));
    }
    return BSATTN_OK;
}

static bsattn_status_t create_timer(cudaEvent_t *event_p)
{
    return bsattn_cuda_check(cudaEventCreate(event_p), "cudaEventCreate");
}

static bsattn_status_t work_queue(cuda_work_t *cuda)
{
    bsattn_cuda_queue_t *queue = &cuda->queue;
    int least = 0;
    int greatest = 0;

    BSATTN_TRY(bsattn_cuda_check(cudaDeviceGetStreamPriorityRange(&least, &greatest),
                                 "cudaDeviceGetStreamPriorityRange"));
    BSATTN_TRY(bsattn_cuda_check(
        cudaStreamCreateWithPriority(&queue->compute, cudaStreamNonBlocking, least),
        "cudaStreamCreateWithPriority"));
    BSATTN_TRY(bsattn_cuda_check(
        cudaStreamCreateWithPriority(&queue->exchange, cudaStreamNonBlocking, greatest),
        "cudaStreamCreateWithPriority"));
    BSATTN_TRY(bsattn_cuda_event_create(&queue->computed));
    BSATTN_TRY(bsattn_cuda_event_create(&queue->exchanged));
    BSATTN_TRY(create_timer(&cuda->start));
    for (int s = 0; s < cuda->super.params.schedule->step_count; ++s) {
        cuda_step_t *step = &cuda->steps[s];
        BSATTN_TRY(create_timer(&step->begin));
        BSATTN_TRY(create_timer(&step->end));
        BSATTN_TRY(create_timer(&step->exchange_begin));
        BSATTN_TRY(create_timer(&step->exchange_end));
    }
    return BSATTN_OK;
}

/* --------------------------------------------------------------------------- arguments of steps */

/* Where the keys of step 0 lie in the caller's tensors, [b, n, Hk, D]. */
static void keys_in_place(const cuda_work_t *cuda, bsattn_attend_cuda_params_t *attend,
                          bsattn_key_head_t *heads)
{
    const bsattn_problem_t *problem = cuda->super.params.problem;

    attend->key_row_stride = (int64_t)problem->heads_kv * problem->head_dim;
    attend->key_batch_stride = cuda->super.params.tokens * attend->key_row_stride;
    attend->key_heads_alike = true;
    attend->key_head_stride = problem->head_dim;
    attend->key_rows = cuda->super.params.tokens;
    for (int h = 0; h < problem->heads_kv; ++h) {
        heads[h] =
            (bsattn_key_head_t){.offset = (int64_t)h * problem->head_dim, .rows = attend->key_rows};
    }
}

/* Where they lie in a chunk: [b, tokens_kv, D], head after head. */
static void keys_in_chunk(const cuda_work_t *cuda, int step, bsattn_attend_cuda_params_t *attend,
                          bsattn_key_head_t *heads)
{
    const bsattn_problem_t *problem = cuda->super.params.problem;
    const bsattn_chunk_head_t *places = cuda->super.params.schedule->steps[step].heads;

    attend->k = cuda->chunks[step % 2];
    attend->v = values_of(cuda, cuda->chunks[step % 2], chunk_rows(cuda, step));
    attend->key_row_stride = problem->head_dim;
    attend->key_batch_stride = chunk_rows(cuda, step) * problem->head_dim;
    attend->key_heads_alike = true;
    attend->key_rows = places[0].token_count;
    attend->key_head_stride = attend->key_rows * problem->head_dim;
    for (int h = 0; h < problem->heads_kv; ++h) {
        heads[h] = (bsattn_key_head_t){.offset = places[h].token_first * problem->head_dim,
                                       .rows = places[h].token_count};
        attend->key_heads_alike = attend->key_heads_alike && (heads[h].rows == attend->key_rows) &&
                                  (heads[h].offset == h * attend->key_head_stride);
    }
}

/* Descriptors for heads that no single one can describe. */
static bsattn_status_t add_maps(const cuda_work_t *cuda, const bsattn_attend_cuda_params_t *attend,
                                const bsattn_key_head_t *heads, bsattn_image_t *image,
                                bsattn_lists_step_t *place)
{
    size_t bytes = bsattn_attend_cuda_maps_bytes(cuda->kernel, attend->heads_kv);
    bsattn_status_t status;
    void *maps;

    place->maps = 0;
    if (attend->key_heads_alike || (bytes == 0) || (place->unit_count == 0)) {
        return BSATTN_OK;
    }
    maps = malloc(bytes);
    if (maps == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the description of keys");
    }
    status = bsattn_cuda_check((cudaError_t)bsattn_attend_cuda_maps(attend, heads, maps),
                               "the description of keys");
    if (status == BSATTN_OK) {
        status = bsattn_image_add(image, maps, bytes, &place->maps);
    }
    free(maps);
    return status;
}

static bsattn_status_t describe_step(cuda_work_t *cuda, const bsattn_tile_shape_t *shape, int s,
                                     bsattn_image_t *image, bsattn_lists_step_t *place)
{
    const bsattn_problem_t *problem = cuda->super.params.problem;
    size_t head_bytes = (size_t)problem->heads_kv * sizeof(bsattn_key_head_t);
    bsattn_key_head_t *heads = malloc(head_bytes);
    bsattn_attend_cuda_params_t *attend = &cuda->steps[s].attend;
    bsattn_status_t status;

    if (heads == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the key heads of a step");
    }
    *attend = (bsattn_attend_cuda_params_t){
        .batch = problem->batch,
        .heads_q = problem->heads_q,
        .heads_kv = problem->heads_kv,
        .head_dim = problem->head_dim,
        .dtype = problem->dtype,
        .scale = (float)bsattn_problem_scale(problem),
        .shape = *shape,
        .granule = (problem->block < shape->key_tile) ? problem->block : shape->key_tile,
        .tokens = cuda->super.params.tokens,
        .list_count = cuda->super.params.schedule->list_count,
        .unit_count = place->unit_count,
        .state_rows = cuda->super.params.schedule->state_blocks * problem->block,
        .state_o = cuda->state_o,
        .state_ml = cuda->state_ml,
    };
    if ((s == 0) && cuda->in_place) {
        keys_in_place(cuda, attend, heads);
    } else {
        keys_in_chunk(cuda, s, attend, heads);
    }
    status = bsattn_image_add(image, heads, head_bytes, &place->key_heads);
    if (status == BSATTN_OK) {
        status = add_maps(cuda, attend, heads, image, place);
    }
    free(heads);
    return status;
}

/* ---------------------------------------------------------------------------------------- image */

/* Where everything lies in the image: offsets. */
typedef struct places {
    bsattn_lists_step_t *steps;
    size_t counters;
    size_t own;          /* copies that gather it */
    size_t outgoing;     /* the same */
    size_t *clear_rows;  /* [clear_count] */
    size_t *clear_heads; /* [clear_count] */
} places_t;

static bsattn_status_t add_clear(cuda_work_t *cuda, int list, bsattn_image_t *image,
                                 places_t *places)
{
    const bsattn_problem_t *problem = cuda->super.params.problem;
    const bsattn_schedule_t *schedule = cuda->super.params.schedule;
    const bsattn_empty_rows_t *empty = &schedule->empty[list];
    bsattn_clear_cuda_params_t *clear = &cuda->clears[cuda->clear_count];
    int32_t *heads = calloc((size_t)problem->heads_q, sizeof(*heads));
    bsattn_status_t status;

    if (heads == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the heads of a list");
    }
    *clear = (bsattn_clear_cuda_params_t){
        .attend = &cuda->steps[0].attend,
        .block = problem->block,
        .row_count = empty->count,
    };
    for (int head = 0; head < problem->heads_q; ++head) {
        if (schedule->list_of_head[head] == list) {
            heads[clear->head_count++] = head;
        }
    }
    status = bsattn_image_add(image, empty->rows, (size_t)empty->count * sizeof(*empty->rows),
                              &places->clear_rows[cuda->clear_count]);
    if (status == BSATTN_OK) {
        status = bsattn_image_add(image, heads, (size_t)clear->head_count * sizeof(*heads),
                                  &places->clear_heads[cuda->clear_count]);
    }
    ++cuda->clear_count;
    free(heads);
    return status;
}

static bsattn_status_t add_copies(const cuda_work_t *cuda, cuda_packing_t *rows,
                                  bsattn_image_t *image, size_t *place_p)
{
    return (rows->packing == NULL)
               ? BSATTN_OK
               : bsattn_lists_add_copies(&cuda->super.params, rows->packing, image, place_p,
                                         &rows->params.copy_count);
}

static bsattn_status_t fill_image(cuda_work_t *cuda, bsattn_image_t *image, places_t *places)
{
    const bsattn_work_params_t *params = &cuda->super.params;
    const bsattn_schedule_t *schedule = params->schedule;
    bsattn_tile_shape_t shape;

    BSATTN_TRY(bsattn_lists_shape(params, cuda->kernel, &shape));
    BSATTN_TRY(bsattn_image_add(image, NULL, 2 * sizeof(uint32_t), &places->counters));
    BSATTN_TRY(
        bsattn_lists_add(params, &shape, cuda->super.backend->threads, image, places->steps));
    for (int s = 0; s < schedule->step_count; ++s) {
        BSATTN_TRY(describe_step(cuda, &shape, s, image, &places->steps[s]));
    }
    BSATTN_TRY(add_copies(cuda, &cuda->own, image, &places->own));
    BSATTN_TRY(add_copies(cuda, &cuda->outgoing, image, &places->outgoing));
    for (int l = 0; l < schedule->list_count; ++l) {
        if (schedule->empty[l].count > 0) {
            BSATTN_TRY(add_clear(cuda, l, image, places));
        }
    }
    return BSATTN_OK;
}

/* Tell the arguments where everything lies now. */
static void point_into_image(cuda_work_t *cuda, const bsattn_image_t *image, const places_t *places)
{
    const bsattn_schedule_t *schedule = cuda->super.params.schedule;
    const char *base = cuda->image;

    for (int s = 0; s < schedule->step_count; ++s) {
        bsattn_attend_cuda_params_t *attend = &cuda->steps[s].attend;
        const bsattn_lists_step_t *place = &places->steps[s];
        bsattn_lists_relocate(image, place, schedule->list_count, base);
        attend->lists = (const bsattn_tile_list_t *)(base + place->lists);
        attend->key_heads = (const bsattn_key_head_t *)(base + place->key_heads);
        attend->key_maps = (place->maps != 0) ? base + place->maps : NULL;
        attend->counters = (uint32_t *)(cuda->image + places->counters);
    }
    cuda->own.params.copies = (const bsattn_row_copy_t *)(base + places->own);
    cuda->outgoing.params.copies = (const bsattn_row_copy_t *)(base + places->outgoing);
    for (int i = 0; i < cuda->clear_count; ++i) {
        cuda->clears[i].rows = (const int32_t *)(base + places->clear_rows[i]);
        cuda->clears[i].heads = (const int32_t *)(base + places->clear_heads[i]);
    }
}

static bsattn_status_t upload_image(cuda_work_t *cuda, const bsattn_image_t *image,
                                    const places_t *places)
{
    BSATTN_TRY(work_alloc(cuda, (int64_t)image->count, &cuda->image));
    point_into_image(cuda, image, places);
    return bsattn_cuda_upload(cuda->image, image->data, image->count);
}

static bsattn_status_t work_image(cuda_work_t *cuda)
{
    const bsattn_schedule_t *schedule = cuda->super.params.schedule;
    size_t lists = (size_t)schedule->list_count;
    bsattn_image_t image = {.data = NULL};
    places_t places = {
        .steps = calloc((size_t)schedule->step_count, sizeof(*places.steps)),
        .clear_rows = calloc(lists, sizeof(size_t)),
        .clear_heads = calloc(lists, sizeof(size_t)),
    };
    bsattn_status_t status;

    cuda->clears = calloc(lists, sizeof(*cuda->clears));
    if ((places.steps == NULL) || (places.clear_rows == NULL) || (places.clear_heads == NULL) ||
        (cuda->clears == NULL)) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the lists of a rank");
    } else {
        status = fill_image(cuda, &image, &places);
    }
    if (status == BSATTN_OK) {
        status = upload_image(cuda, &image, &places);
    }
    free(image.data);
    free(places.steps);
    free(places.clear_rows);
    free(places.clear_heads);
    return status;
}

/* --------------------------------------------------------------------------------------- launches */

/* Plans of one step start their attend as a graph; among several steps it would not be seen. The
 * tensors are not known yet: the address of the image stands in for them and is never read. */
static bsattn_status_t work_launch(cuda_work_t *cuda)
{
    bsattn_attend_cuda_params_t attend = cuda->steps[0].attend;

    if ((cuda->super.params.schedule->step_count > 1) || (attend.unit_count == 0)) {
        return BSATTN_OK;
    }
    attend.q = cuda->image;
    attend.o = cuda->image;
    attend.k = (attend.k != NULL) ? attend.k : cuda->image;
    attend.v = (attend.v != NULL) ? attend.v : cuda->image;
    return bsattn_ready_launch_make(&cuda->launch, cuda->kernel, &attend, cuda->queue.compute);
}

static bool same_tensors(const bsattn_tensors_t *a, const bsattn_tensors_t *b)
{
    return (a->q == b->q) && (a->k == b->k) && (a->v == b->v) && (a->o == b->o) &&
           (a->lse == b->lse);
}

/* Have the launch that was made ready, if there is one, take the tensors of this execution. */
static bsattn_status_t ready_launch(cuda_work_t *cuda)
{
    if ((cuda->launch.exec == NULL) || same_tensors(&cuda->launch_tensors, &cuda->tensors)) {
        return BSATTN_OK;
    }
    BSATTN_TRY(bsattn_ready_launch_set(&cuda->launch, cuda->kernel, &cuda->steps[0].attend));
    cuda->launch_tensors = cuda->tensors;
    return BSATTN_OK;
}

/* ----------------------------------------------------------------------------------------- life */

static cuda_packing_t gather(const cuda_work_t *cuda, const bsattn_packing_t *packing)
{
    const bsattn_work_params_t *params = &cuda->super.params;
    int64_t row_bytes = (int64_t)bsattn_problem_row_bytes(params->problem);

    return (cuda_packing_t){
        .packing = packing,
        .params =
            {
                .parts = params->problem->batch,
                .from_part = params->tokens * params->problem->heads_kv * row_bytes,
                .to_part = packing->tokens * row_bytes,
                .from_stride = params->problem->heads_kv * row_bytes,
                .to_stride = row_bytes,
                .row_bytes = row_bytes,
            },
    };
}

/* What is brought together out of the tensors: keys that are not read in place, and what is sent
 * but not out of a chunk. */
static void work_packings(cuda_work_t *cuda)
{
    const bsattn_schedule_t *schedule = cuda->super.params.schedule;

    cuda->in_place = bsattn_lists_in_place(&cuda->super.params);
    if (!cuda->in_place) {
        cuda->own = gather(cuda, &schedule->own);
    }
    if (cuda->in_place || (schedule->exchange == BSATTN_EXCHANGE_DIRECT)) {
        cuda->outgoing = gather(cuda, &schedule->outgoing);
    }
    cuda->send_all = (bsattn_token_run_t){.first = 0, .count = schedule->outgoing.tokens};
}

static bsattn_status_t work_init(cuda_work_t *cuda)
{
    const bsattn_backend_cuda_t *backend = (const bsattn_backend_cuda_t *)cuda->super.backend;
    const bsattn_problem_t *problem = cuda->super.params.problem;

    BSATTN_TRY(bsattn_cuda_enter(&backend->super));
    BSATTN_TRY(bsattn_cuda_kernel_find(backend->capability, problem->dtype, problem->head_dim,
                                       &cuda->kernel));
    cuda->super.variant = cuda->kernel->name;
    cuda->steps = calloc((size_t)cuda->super.params.schedule->step_count, sizeof(*cuda->steps));
    if (cuda->steps == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the steps of a rank");
    }
    work_packings(cuda);
    BSATTN_TRY(work_queue(cuda));
    BSATTN_TRY(work_buffers(cuda));
    BSATTN_TRY(work_image(cuda));
    return work_launch(cuda);
}

static void destroy_queue(bsattn_cuda_queue_t *queue)
{
    if (queue->compute != NULL) {
        (void)cudaStreamDestroy(queue->compute);
    }
    if (queue->exchange != NULL) {
        (void)cudaStreamDestroy(queue->exchange);
    }
    bsattn_cuda_event_destroy(&queue->computed);
    bsattn_cuda_event_destroy(&queue->exchanged);
}

void bsattn_work_cuda_release(bsattn_work_t *work)
{
    cuda_work_t *cuda = (cuda_work_t *)work;
    bsattn_backend_t *backend = work->backend;

    (void)cudaSetDevice(backend->device);
    for (int s = 0; (cuda->steps != NULL) && (s < work->params.schedule->step_count); ++s) {
        bsattn_cuda_event_destroy(&cuda->steps[s].begin);
        bsattn_cuda_event_destroy(&cuda->steps[s].end);
        bsattn_cuda_event_destroy(&cuda->steps[s].exchange_begin);
        bsattn_cuda_event_destroy(&cuda->steps[s].exchange_end);
    }
    bsattn_cuda_event_destroy(&cuda->start);
    bsattn_ready_launch_destroy(&cuda->launch);
    destroy_queue(&cuda->queue);
    bsattn_cuda_free(backend, cuda->chunks[0]);
    bsattn_cuda_free(backend, cuda->chunks[1]);
    bsattn_cuda_free(backend, cuda->outgoing_buffer);
    bsattn_cuda_free(backend, cuda->state_o);
    bsattn_cuda_free(backend, cuda->state_ml);
    bsattn_cuda_free(backend, cuda->image);
    (void)cudaGetLastError();
    free(cuda->steps);
    free(cuda->clears);
    free(cuda);
}

bsattn_status_t bsattn_work_cuda_prepare(bsattn_backend_t *backend,
                                         const bsattn_work_params_t *params, bsattn_work_t **work_p)
{
    cuda_work_t *cuda = calloc(1, sizeof(*cuda));
    bsattn_status_t status;

    if (cuda == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the work of a rank");
    }
    cuda->super = (bsattn_work_t){.backend = backend, .params = *params, .queue = &cuda->queue};
    status = work_init(cuda);
    if (status != BSATTN_OK) {
        bsattn_work_cuda_release(&cuda->super);
        return status;
    }
    *work_p = &cuda->super;
    return BSATTN_OK;
}

void bsattn_work_cuda_movement(const bsattn_work_t *work, int step, bsattn_movement_t *movement_p)
{
    const cuda_work_t *cuda = (const cuda_work_t *)work;
    const bsattn_schedule_t *schedule = work->params.schedule;
    const bsattn_step_t *now = &schedule->steps[step];
    bool direct = (schedule->exchange == BSATTN_EXCHANGE_DIRECT);
    int64_t parts = 2 * work->params.problem->batch;

    *movement_p = (bsattn_movement_t){
        .send = direct ? cuda->outgoing_buffer : cuda->chunks[step % 2],
        .send_parts = parts,
        .send_part_rows = direct ? schedule->outgoing.tokens : now->tokens_kv,
        .send_runs = now->forward,
        .send_run_count = now->forward_count,
        .receive = cuda->chunks[(step + 1) % 2],
        .receive_rows = parts * chunk_rows(cuda, step + 1),
    };
    if (!direct && cuda->in_place && (step == 0)) {
        movement_p->send_part_rows = schedule->outgoing.tokens;
        movement_p->send_runs = &cuda->send_all;
        movement_p->send_run_count = (schedule->outgoing.tokens > 0) ? 1 : 0;
    }
}

/* --------------------------------------------------------------------------------- an execution */

/* When a step's attend begins: an event takes a small problem a tenth of its time, so where an attend is
 * all there is to an execution there is one for both. */
static cudaEvent_t begin_of(const cuda_work_t *cuda, int step)
{
    bool all = (cuda->super.params.schedule->step_count == 1) &&
               (cuda->own.params.copy_count == 0) && (cuda->clear_count == 0);

    return all ? cuda->start : cuda->steps[step].begin;
}

/* Gather keys and values out of the tensors. */
static bsattn_status_t pack(const cuda_work_t *cuda, cuda_packing_t *rows, cudaStream_t stream)
{
    bsattn_rows_cuda_params_t *params = &rows->params;

    if (params->copy_count == 0) {
        return BSATTN_OK;
    }
    params->from = cuda->tensors.k;
    params->to = rows->to;
    BSATTN_TRY(bsattn_cuda_check((cudaError_t)bsattn_rows_cuda(params, stream), "packing keys"));
    params->from = cuda->tensors.v;
    params->to = values_of(cuda, rows->to, rows->packing->tokens);
    return bsattn_cuda_check((cudaError_t)bsattn_rows_cuda(params, stream), "packing values");
}

static void take_tensors(cuda_work_t *cuda, const bsattn_tensors_t *tensors)
{
    cuda->tensors = *tensors;
    cuda->outgoing_packed = false;
    for (int s = 0; s < cuda->super.params.schedule->step_count; ++s) {
        cuda->steps[s].attend.q = tensors->q;
        cuda->steps[s].attend.o = tensors->o;
        cuda->steps[s].attend.lse = tensors->lse;
        cuda->steps[s].exchanging = false;
    }
    if (cuda->in_place) {
        cuda->steps[0].attend.k = tensors->k;
        cuda->steps[0].attend.v = tensors->v;
    }
}

/* Kernels read 16 bytes at a time; what is not so aligned would end the use of the GPU. */
static bsattn_status_t check_alignment(const bsattn_tensors_t *tensors)
{
    uintptr_t bits = (uintptr_t)tensors->q | (uintptr_t)tensors->k | (uintptr_t)tensors->v |
                     (uintptr_t)tensors->o | (uintptr_t)tensors->lse;

    if (bits % 16 != 0) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "tensors of the backend cuda must be aligned to 16 bytes");
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_work_cuda_begin(bsattn_work_t *work, const bsattn_tensors_t *tensors)
{
    cuda_work_t *cuda = (cuda_work_t *)work;
    cudaStream_t compute = cuda->queue.compute;

    BSATTN_TRY(check_alignment(tensors));
    BSATTN_TRY(bsattn_cuda_enter(work->backend));
    take_tensors(cuda, tensors);
    BSATTN_TRY(ready_launch(cuda));
    cuda->recorded = 0;
    cuda->seen = 0;
    BSATTN_TRY(bsattn_cuda_event_record(cuda->start, compute));
    BSATTN_TRY(pack(cuda, &cuda->own, compute));
    for (int i = 0; i < cuda->clear_count; ++i) {
        BSATTN_TRY(bsattn_cuda_check((cudaError_t)bsattn_clear_cuda(&cuda->clears[i], compute),
                                     "writing rows without keys"));
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_work_cuda_exchange_begin(bsattn_work_t *work, int step)
{
    cuda_work_t *cuda = (cuda_work_t *)work;
    bool packs = (cuda->outgoing.params.copy_count > 0) && !cuda->outgoing_packed;

    BSATTN_TRY(bsattn_cuda_enter(work->backend));
    /* At first what others use is packed: every execution ends with both streams done, so there is
     * nothing to wait for. */
    if (!packs || (step > 0)) {
        BSATTN_TRY(bsattn_cuda_queue_exchange_after_compute(&cuda->queue));
    }
    BSATTN_TRY(bsattn_cuda_event_record(cuda->steps[step].exchange_begin, cuda->queue.exchange));
    cuda->outgoing_packed = true;
    cuda->steps[step].exchanging = true;
    if (!packs) {
        return BSATTN_OK;
    }
    BSATTN_TRY(pack(cuda, &cuda->outgoing, cuda->queue.exchange));
    return bsattn_cuda_queue_compute_after_exchange(&cuda->queue);
}

/* The multiprocessors that a step's attend leaves to its exchange: an attend holds those it has to its end, and
 * would take all. What is left of it when the exchange is through comes there, too, on the exchange stream. */
static int spare_of(const cuda_work_t *cuda, const cuda_step_t *step)
{
    return (step->exchanging && (step->attend.unit_count > 0)) ? cuda->queue.spare : 0;
}

bsattn_status_t bsattn_work_cuda_exchange_end(bsattn_work_t *work, int step)
{
    cuda_work_t *cuda = (cuda_work_t *)work;

    BSATTN_TRY(bsattn_cuda_enter(work->backend));
    if (spare_of(cuda, &cuda->steps[step]) > 0) {
        return BSATTN_OK; /* recorded ahead of the attend's part behind it */
    }
    return bsattn_cuda_event_record(cuda->steps[step].exchange_end, cuda->queue.exchange);
}

/* Start a step, which has work. */
static bsattn_status_t start_attend(cuda_work_t *cuda, const cuda_step_t *step)
{
    const bsattn_cuda_queue_t *queue = &cuda->queue;
    int spare = spare_of(cuda, step);

    if (cuda->launch.exec != NULL) {
        return bsattn_ready_launch_start(&cuda->launch, queue->compute);
    }
    if (spare > 0) {
        BSATTN_TRY(bsattn_cuda_event_record(step->exchange_end, queue->exchange));
    }
    return bsattn_cuda_check((cudaError_t)bsattn_attend_cuda(cuda->kernel, &step->attend, spare,
                                                             queue->compute, queue->exchange),
                             cuda->kernel->name);
}

bsattn_status_t bsattn_work_cuda_attend(bsattn_work_t *work, int step_index,
                                        const bsattn_between_t *between)
{
    cuda_work_t *cuda = (cuda_work_t *)work;
    cuda_step_t *step = &cuda->steps[step_index];

    (void)between; /* nothing is waited for, so there is no between */
    BSATTN_TRY(bsattn_cuda_enter(work->backend));
    if (begin_of(cuda, step_index) == step->begin) {
        BSATTN_TRY(bsattn_cuda_event_record(step->begin, cuda->queue.compute));
    }
    if (step->attend.unit_count > 0) {
        BSATTN_TRY(start_attend(cuda, step));
    }
    BSATTN_TRY(bsattn_cuda_event_record(step->end, cuda->queue.compute));
    cuda->recorded += 2;
    return BSATTN_OK;
}

/* ----------------------------------------------------------------------------- looking after it */

bsattn_status_t bsattn_work_cuda_poll(bsattn_work_t *work, bsattn_progress_t *progress_p)
{
    cuda_work_t *cuda = (cuda_work_t *)work;
    int64_t all = 2 * (int64_t)work->params.schedule->step_count;
    bool done = true;

    BSATTN_TRY(bsattn_cuda_enter(work->backend));
    /* Events that this execution has not recorded yet are those of the one before, long done. */
    while (done && (cuda->seen < cuda->recorded)) {
        int step = (int)(cuda->seen / 2);
        BSATTN_TRY(bsattn_cuda_look(cudaEventQuery((cuda->seen % 2 == 0) ? begin_of(cuda, step)
                                                                         : cuda->steps[step].end),
                                    "an execution", &done));
        cuda->seen += done ? 1 : 0;
    }
    done = done && (cuda->seen == all);
    if (done) {
        BSATTN_TRY(bsattn_cuda_look(cudaStreamQuery(cuda->queue.exchange), "an execution", &done));
    }
    *progress_p = (bsattn_progress_t){
        .done = done,
        .waiting = (cuda->seen % 2 == 0),
        .step = (int)((cuda->seen < all) ? cuda->seen / 2 : (all - 1) / 2),
        .marks = cuda->seen,
    };
    return BSATTN_OK;
}

/* ms from one event to another; both are done. */
static double elapsed_ms(cudaEvent_t from, cudaEvent_t to)
{
    float ms = 0.0f;

    if (cudaEventElapsedTime(&ms, from, to) != cudaSuccess) {
        (void)cudaGetLastError(); /* else the next launch would report it */
        return 0.0;
    }
    return (double)ms;
}

bool bsattn_work_cuda_timings(const bsattn_work_t *work, bsattn_timings_t *timings_p)
{
    const cuda_work_t *cuda = (const cuda_work_t *)work;
    int steps = work->params.schedule->step_count;
    bsattn_timings_t timings = {.total_ms = elapsed_ms(cuda->start, cuda->steps[steps - 1].end)};

    for (int s = 0; s < steps; ++s) {
        const cuda_step_t *step = &cuda->steps[s];
        timings.attend_ms += elapsed_ms(begin_of(cuda, s), step->end);
        if (step->exchanging) {
            timings.exchange_ms += elapsed_ms(step->exchange_begin, step->exchange_end);
            timings.exposed_ms += elapsed_ms(step->end, cuda->steps[s + 1].begin);
        }
    }
    *timings_p = timings;
    return true;
}
