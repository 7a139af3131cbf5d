/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/trial.h"

#include "base/host.h"
#include "base/text.h"
#include "cli/window.h"
#include "ring/plan.h"

#include <stdlib.h>
#include <string.h>

static const unsigned char nan_byte = 0xFF; /* all ones are a NaN in fp32, fp16 and bf16 */

/* -------------------------------------------------------------------------------------- tensors */

/* elements * size bytes where the backend computes, touched, NaN. */
static bsattn_status_t allocate(bsattn_trial_t *trial, int64_t elements, size_t size,
                                void *memory_p)
{
    void *memory = NULL;
    size_t bytes;

    if (__builtin_mul_overflow((size_t)elements, size, &bytes)) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "out of memory: %lld elements of %zu bytes",
                           (long long)elements, size);
    }
    BSATTN_TRY(bsattn_context_alloc(trial->context, bytes, &memory));
    *(void **)memory_p = memory;
    return bsattn_context_fill(trial->context, memory, nan_byte, bytes);
}

static int64_t token_elements(const bsattn_trial_t *trial, int local)
{
    return trial->problem.batch * bsattn_plan_tokens(trial->plan, local);
}

static int64_t query_elements(const bsattn_trial_t *trial, int local)
{
    return token_elements(trial, local) * trial->problem.heads_q * trial->problem.head_dim;
}

static int64_t key_elements(const bsattn_trial_t *trial, int local)
{
    return token_elements(trial, local) * trial->problem.heads_kv * trial->problem.head_dim;
}

static bsattn_status_t allocate_local(bsattn_trial_t *trial, int local)
{
    size_t size = bsattn_dtype_size(trial->problem.dtype);
    bsattn_tensors_t *tensors = &trial->tensors[local];

    BSATTN_TRY(allocate(trial, query_elements(trial, local), size, &tensors->q));
    BSATTN_TRY(allocate(trial, key_elements(trial, local), size, &tensors->k));
    BSATTN_TRY(allocate(trial, key_elements(trial, local), size, &tensors->v));
    BSATTN_TRY(allocate(trial, query_elements(trial, local), size, &tensors->o));
    return allocate(trial, token_elements(trial, local) * trial->problem.heads_q, sizeof(float),
                    &tensors->lse);
}

static bsattn_status_t allocate_all(bsattn_trial_t *trial)
{
    size_t local_count = (size_t)trial->info.local_count;
    size_t ranks = (size_t)trial->info.ranks;
    size_t iterations = (size_t)trial->iterations;

    trial->tensors = calloc(local_count, sizeof(*trial->tensors));
    trial->timings = calloc(local_count * iterations, sizeof(*trial->timings));
    trial->rank_records = calloc(ranks, sizeof(*trial->rank_records));
    trial->placement = calloc(ranks, sizeof(*trial->placement));
    if ((trial->tensors == NULL) || (trial->timings == NULL) || (trial->rank_records == NULL) ||
        (trial->placement == NULL)) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the times of %zu ranks", ranks);
    }
    for (int local = 0; local < trial->info.local_count; ++local) {
        BSATTN_TRY(allocate_local(trial, local));
    }
    return BSATTN_OK;
}

/* One window of a tensor, loaded and written where the backend computes. */
static bsattn_status_t load_window(bsattn_trial_t *trial, int local, bsattn_tensor_t tensor,
                                   const bsattn_window_t *window, void *page, void *tensor_rows)
{
    const bsattn_problem_t *problem = &trial->problem;
    int heads = (tensor == BSATTN_Q) ? problem->heads_q : problem->heads_kv;
    size_t token_bytes =
        (size_t)heads * (size_t)problem->head_dim * bsattn_dtype_size(problem->dtype);
    bsattn_rows_t rows = {
        .from = page,
        .from_stride = (size_t)window->count * token_bytes,
        .to = (char *)tensor_rows + (size_t)window->first * token_bytes,
        .to_stride = (size_t)bsattn_plan_tokens(trial->plan, local) * token_bytes,
        .row_bytes = (size_t)window->count * token_bytes,
        .row_count = (size_t)problem->batch,
    };
    bsattn_status_t status = BSATTN_OK;

    BSATTN_TRY(bsattn_source_load(trial->source, tensor, window->runs, window->run_count,
                                  trial->info.threads, page));
    if (window->count > 0) {
        status = bsattn_context_write(trial->context, &rows);
    }
    return bsattn_context_agree(trial->context, status);
}

/* Load a tensor window by window: host memory need not hold it. */
static bsattn_status_t load_windows(bsattn_trial_t *trial, int local, bsattn_tensor_t tensor,
                                    void *tensor_rows)
{
    const bsattn_problem_t *problem = &trial->problem;
    int heads = (tensor == BSATTN_Q) ? problem->heads_q : problem->heads_kv;
    int64_t token_bytes = problem->batch * heads * problem->head_dim *
                          (int64_t)bsattn_dtype_size(problem->dtype);
    bsattn_window_t window;
    bsattn_status_t status = bsattn_window_init(&window, trial, local, token_bytes);
    void *page = malloc((size_t)(window.tokens_max * token_bytes));

    if ((status == BSATTN_OK) && (page == NULL)) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "out of memory: no room to load a tensor through");
    }
    status = bsattn_context_agree(trial->context, status);
    for (int64_t i = 0; (status == BSATTN_OK) && (i < window.windows); ++i) {
        bsattn_window_move(&window, i);
        status = load_window(trial, local, tensor, &window, page, tensor_rows);
    }
    free(page);
    bsattn_window_free(&window);
    return status;
}

static bsattn_status_t load_local(bsattn_trial_t *trial, int local)
{
    const void *rows[] = {
        [BSATTN_Q] = trial->tensors[local].q,
        [BSATTN_K] = trial->tensors[local].k,
        [BSATTN_V] = trial->tensors[local].v,
    };
    size_t run_count;
    const bsattn_token_run_t *runs = bsattn_plan_runs(trial->plan, local, &run_count);

    for (int tensor = BSATTN_Q; tensor <= BSATTN_V; ++tensor) {
        if (!trial->context->backend->in_host_memory) {
            BSATTN_TRY(load_windows(trial, local, (bsattn_tensor_t)tensor, (void *)rows[tensor]));
            continue;
        }
        BSATTN_TRY(bsattn_source_load(trial->source, (bsattn_tensor_t)tensor, runs, run_count,
                                      trial->info.threads, (void *)rows[tensor]));
    }
    return BSATTN_OK;
}

static bsattn_status_t load_all(bsattn_trial_t *trial)
{
    bsattn_status_t status = BSATTN_OK;

    /* Collective for files: a rank that failed at one tensor has, like all others, stopped there.
     */
    for (int local = 0; (local < trial->info.local_count) && (status == BSATTN_OK); ++local) {
        status = load_local(trial, local);
    }
    return status;
}

/* ------------------------------------------------------------------------------------ placement */

static void fill_placement(const bsattn_trial_t *trial, bsattn_placement_t *place)
{
    const bsattn_place_choice_t *choice = &trial->context->places[trial->info.first_rank];
    const bsattn_place_cores_t *cores = &trial->context->cores;

    bsattn_host_name(place->host, sizeof(place->host));
    (void)bsattn_text_copy(place->cpus, sizeof(place->cpus), cores->cpus);
    (void)bsattn_text_copy(place->nic, sizeof(place->nic), cores->nic);
    bsattn_place_decided_text(choice, cores, place->decided, sizeof(place->decided));
    if (trial->info.device[0] == '\0') {
        bsattn_host_processor(place->device, sizeof(place->device));
        return;
    }
    (void)bsattn_text_copy(place->device, sizeof(place->device), trial->info.device);
    (void)bsattn_text_copy(place->pci, sizeof(place->pci), trial->info.device_pci);
}

static bsattn_status_t gather_placement(bsattn_trial_t *trial)
{
    size_t local_count = (size_t)trial->info.local_count;
    bsattn_placement_t *places = calloc(local_count, sizeof(*places));
    bsattn_status_t status;

    status = bsattn_context_agree(
        trial->context,
        (places != NULL) ? BSATTN_OK : bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the ranks"));
    for (size_t i = 0; (status == BSATTN_OK) && (i < local_count); ++i) {
        fill_placement(trial, &places[i]);
    }
    if (status == BSATTN_OK) {
        status = bsattn_context_gather(trial->context, places, sizeof(*places), trial->placement);
    }
    free(places);
    return status;
}

/* ----------------------------------------------------------------------------------------- life */

bsattn_status_t bsattn_trial_create(const bsattn_trial_params_t *params, bsattn_trial_t *trial)
{
    *trial = (bsattn_trial_t){
        .job = params->job,
        .context = params->context,
        .problem = *params->problem,
        .source = params->source,
        .iterations = params->iterations,
    };
    bsattn_context_info(params->context, &trial->info);
    BSATTN_TRY(bsattn_plan_create(params->context, params->problem, params->pattern, &params->plan,
                                  &trial->plan));
    BSATTN_TRY(bsattn_context_agree(trial->context, allocate_all(trial)));
    BSATTN_TRY(gather_placement(trial));
    return bsattn_context_agree(trial->context, load_all(trial));
}

void bsattn_trial_destroy(bsattn_trial_t *trial)
{
    for (int local = 0; (trial->tensors != NULL) && (local < trial->info.local_count); ++local) {
        bsattn_tensors_t *tensors = &trial->tensors[local];
        bsattn_context_free(trial->context, (void *)tensors->q);
        bsattn_context_free(trial->context, (void *)tensors->k);
        bsattn_context_free(trial->context, (void *)tensors->v);
        bsattn_context_free(trial->context, tensors->o);
        bsattn_context_free(trial->context, tensors->lse);
    }
    free(trial->tensors);
    free(trial->timings);
    free(trial->rank_records);
    free(trial->placement);
    bsattn_plan_destroy(trial->plan);
    *trial = (bsattn_trial_t){0};
}

bsattn_status_t bsattn_trial_poison(bsattn_trial_t *trial)
{
    size_t size = bsattn_dtype_size(trial->problem.dtype);
    bsattn_status_t status = BSATTN_OK;

    for (int local = 0; (local < trial->info.local_count) && (status == BSATTN_OK); ++local) {
        bsattn_tensors_t *tensors = &trial->tensors[local];
        size_t lse_count = (size_t)(token_elements(trial, local) * trial->problem.heads_q);
        status = bsattn_context_fill(trial->context, tensors->o, nan_byte,
                                     (size_t)query_elements(trial, local) * size);
        if (status == BSATTN_OK) {
            status = bsattn_context_fill(trial->context, tensors->lse, nan_byte,
                                         lse_count * sizeof(float));
        }
    }
    return bsattn_context_agree(trial->context, status);
}

bsattn_status_t bsattn_trial_execute(bsattn_trial_t *trial, int iteration)
{
    bsattn_status_t status;

    BSATTN_ASSERT(iteration < trial->iterations);
    BSATTN_TRY(bsattn_context_barrier(trial->context));
    status = bsattn_execute(trial->plan, trial->tensors);
    if (status != BSATTN_OK) {
        bsattn_job_give_up(trial->job, status);
        return status;
    }
    for (int local = 0; (iteration >= 0) && (local < trial->info.local_count); ++local) {
        trial->timings[(size_t)local * (size_t)trial->iterations + (size_t)iteration] =
            bsattn_plan_timings(trial->plan, local);
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_trial_check(bsattn_trial_t *trial, int64_t rows, uint64_t seed,
                                   bsattn_check_result_t *result_p)
{
    return bsattn_plan_check(trial->plan, trial->tensors, rows, seed, bsattn_source_rows,
                             trial->source, result_p);
}

/* -------------------------------------------------------------------------------------- results */

typedef enum time_kind { TIME_TOTAL, TIME_ATTEND, TIME_EXCHANGE, TIME_EXPOSED } time_kind_t;

static double time_of(const bsattn_timings_t *timings, time_kind_t kind)
{
    switch (kind) {
    case TIME_TOTAL:
        return timings->total_ms;
    case TIME_ATTEND:
        return timings->attend_ms;
    case TIME_EXCHANGE:
        return timings->exchange_ms;
    default:
        return timings->exposed_ms;
    }
}

/* times: [iterations], for the work. */
static double rank_median(const bsattn_trial_t *trial, const bsattn_timings_t *of_rank,
                          time_kind_t kind, double *times)
{
    for (int i = 0; i < trial->iterations; ++i) {
        times[i] = time_of(&of_rank[i], kind);
    }
    return bsattn_stats_median(times, (size_t)trial->iterations);
}

/* An iteration takes as long as its slowest rank. all: [P, iterations]. */
static bsattn_stats_t job_stats(const bsattn_trial_t *trial, const bsattn_timings_t *all,
                                time_kind_t kind, double *times)
{
    size_t iterations = (size_t)trial->iterations;

    for (size_t i = 0; i < iterations; ++i) {
        times[i] = time_of(&all[i], kind);
        for (size_t rank = 1; rank < (size_t)trial->info.ranks; ++rank) {
            double time = time_of(&all[rank * iterations + i], kind);
            times[i] = (time > times[i]) ? time : times[i];
        }
    }
    return bsattn_stats_of(times, iterations);
}

/* The most memory that a rank's process held. */
typedef struct peak {
    int64_t host;
    int64_t device;
} peak_t;

static void fill_ranks(bsattn_trial_t *trial, const bsattn_timings_t *all, const peak_t *peaks,
                       double *times)
{
    const bsattn_estimate_t *estimate = bsattn_plan_estimate(trial->plan);

    for (int rank = 0; rank < trial->info.ranks; ++rank) {
        const bsattn_timings_t *of_rank = all + (size_t)rank * (size_t)trial->iterations;
        const bsattn_rank_estimate_t *planned = bsattn_estimate_rank(estimate, rank);
        trial->rank_records[rank] = (bsattn_rank_record_t){
            .time_total_ms = rank_median(trial, of_rank, TIME_TOTAL, times),
            .time_attend_ms = rank_median(trial, of_rank, TIME_ATTEND, times),
            .time_exchange_ms = rank_median(trial, of_rank, TIME_EXCHANGE, times),
            .time_exposed_ms = rank_median(trial, of_rank, TIME_EXPOSED, times),
            .bytes_sent = planned->bytes_sent,
            .bytes_received = planned->bytes_received,
            .memory_device_peak = peaks[rank].device,
            .memory_host_peak = peaks[rank].host,
        };
    }
}

/* What is gathered, in one allocation each. */
typedef struct gathered {
    bsattn_timings_t *timings; /* [P, iterations] */
    peak_t *peaks;             /* [local_count] of this process, then [P] */
    double *times;             /* [iterations] */
} gathered_t;

static bsattn_status_t gather_all(bsattn_trial_t *trial, gathered_t *gathered)
{
    size_t local_count = (size_t)trial->info.local_count;
    size_t ranks = (size_t)trial->info.ranks;
    size_t iterations = (size_t)trial->iterations;
    bsattn_backend_t *backend = trial->context->backend;
    bsattn_status_t status = BSATTN_OK;

    gathered->timings = calloc(ranks * iterations, sizeof(*gathered->timings));
    gathered->peaks = calloc(local_count + ranks, sizeof(*gathered->peaks));
    gathered->times = calloc(iterations, sizeof(*gathered->times));
    if ((gathered->timings == NULL) || (gathered->peaks == NULL) || (gathered->times == NULL)) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the times of %zu ranks", ranks);
    }
    BSATTN_TRY(bsattn_context_agree(trial->context, status));
    for (size_t i = 0; i < local_count; ++i) {
        gathered->peaks[i] = (peak_t){
            .host = bsattn_host_memory_peak(),
            .device = backend->ops->memory(backend).peak,
        };
    }
    BSATTN_TRY(bsattn_context_gather(trial->context, trial->timings,
                                     iterations * sizeof(*trial->timings), gathered->timings));
    return bsattn_context_gather(trial->context, gathered->peaks, sizeof(*gathered->peaks),
                                 gathered->peaks + local_count);
}

bsattn_status_t bsattn_trial_gather(bsattn_trial_t *trial, bsattn_record_t *record)
{
    gathered_t gathered = {0};
    bsattn_status_t status = gather_all(trial, &gathered);

    if (status == BSATTN_OK) {
        fill_ranks(trial, gathered.timings, gathered.peaks + trial->info.local_count,
                   gathered.times);
        record->total_ms = job_stats(trial, gathered.timings, TIME_TOTAL, gathered.times);
        record->attend_ms = job_stats(trial, gathered.timings, TIME_ATTEND, gathered.times);
        record->exchange_ms = job_stats(trial, gathered.timings, TIME_EXCHANGE, gathered.times);
        record->exposed_ms = job_stats(trial, gathered.timings, TIME_EXPOSED, gathered.times);
        record->rank_records = trial->rank_records;
    }
    free(gathered.timings);
    free(gathered.peaks);
    free(gathered.times);
    return status;
}

void bsattn_trial_describe(const bsattn_trial_t *trial, bsattn_record_t *record)
{
    record->ranks = trial->info.ranks;
    record->hosts = trial->info.hosts;
    record->threads = trial->info.threads;
    record->backend = trial->info.backend;
    record->backend_reason = trial->info.backend_reason;
    record->backend_variant = bsattn_plan_variant(trial->plan);
    record->transport = trial->info.transport;
    record->transport_reason = trial->info.transport_reason;
    record->problem = trial->problem;
    record->placement = trial->placement;
    bsattn_record_set_estimate(record, bsattn_plan_estimate(trial->plan));
}
