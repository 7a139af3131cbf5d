/* SPDX-License-Identifier: Apache-2.0 */
/* The processor: tensors and chunks in host memory, kernels on the threads of the rank. */
#include "backend/variants.h"
#include "base/host.h"
#include "base/text.h"
#include "problem/problem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64, SLICES_MAX = 16, UNITS_PER_THREAD_AND_SLICE = 64 };

/* Nominal figures of one core and of messages between processes of one host, for the model of
 * bsattn_machine_t only. */
static const double core_flops_per_s = 60e9;
static const double link_bytes_per_s = 8e9;
static const double link_latency_s = 10e-6;

typedef struct cpu_work {
    bsattn_work_t super;
    char *chunks[2]; /* the chunk computed on and the one arriving, in turn */
    char *outgoing;  /* what is sent to each user; NULL on the ring, which sends chunks */
    float *state;    /* NULL if no row needs it */
    void *scratch;
    bsattn_attend_params_t attend; /* of an execution */
} cpu_work_t;

bsattn_machine_t bsattn_backend_cpu_machine(int threads)
{
    return (bsattn_machine_t){
        .scratch_bytes = bsattn_attend_cpu_scratch_bytes,
        .threads = threads,
        .flops_per_s = core_flops_per_s * threads,
        .link_bytes_per_s = link_bytes_per_s,
        .link_latency_s = link_latency_s,
    };
}

static bsattn_machine_t cpu_machine(bsattn_backend_t *backend)
{
    return bsattn_backend_cpu_machine(backend->threads);
}

static void cpu_destroy(bsattn_backend_t *backend)
{
    free(backend);
}

/* --------------------------------------------------------------------------------------- memory */

static bsattn_status_t cpu_alloc(bsattn_backend_t *backend, size_t bytes, void **memory_p)
{
    size_t rounded = bytes / ALIGNMENT * ALIGNMENT + ALIGNMENT; /* never 0 */
    void *memory = (bytes < rounded) ? aligned_alloc(ALIGNMENT, rounded) : NULL;
    double available;
    char need_text[32];
    char have_text[32];

    if (memory == NULL) {
        available = (double)bsattn_host_memory_available();
        return bsattn_fail(BSATTN_ERR_MEMORY,
                           "out of memory: %s were refused on %s, %s seemed available",
                           bsattn_text_bytes(need_text, sizeof(need_text), (double)bytes),
                           backend->ops->name,
                           bsattn_text_bytes(have_text, sizeof(have_text), available));
    }
    *memory_p = memory;
    return BSATTN_OK;
}

static void cpu_free(bsattn_backend_t *backend, void *memory)
{
    (void)backend;
    free(memory);
}

static bsattn_status_t cpu_fill(bsattn_backend_t *backend, void *memory, unsigned char byte,
                                size_t bytes)
{
    (void)backend;
    memset(memory, byte, bytes);
    return BSATTN_OK;
}

static bsattn_status_t cpu_move(bsattn_backend_t *backend, const bsattn_rows_t *rows)
{
    (void)backend;
    for (size_t row = 0; row < rows->row_count; ++row) {
        memcpy((char *)rows->to + row * rows->to_stride,
               (const char *)rows->from + row * rows->from_stride, rows->row_bytes);
    }
    return BSATTN_OK;
}

static bsattn_backend_memory_t cpu_memory(bsattn_backend_t *backend)
{
    (void)backend;
    return (bsattn_backend_memory_t){.available = bsattn_host_memory_available()};
}

/* ----------------------------------------------------------------------------------------- work */

/* Bytes of the keys, or of the values, of so many tokens of each batch item. */
static int64_t half_bytes(const cpu_work_t *cpu, int64_t tokens)
{
    const bsattn_problem_t *problem = cpu->super.params.problem;

    return problem->batch * tokens * (int64_t)bsattn_problem_row_bytes(problem);
}

/* Allocate one buffer of a rank and count it. */
static bsattn_status_t work_alloc(cpu_work_t *cpu, int64_t bytes, void *memory_p)
{
    void *memory = NULL;

    BSATTN_TRY(cpu_alloc(cpu->super.backend, (size_t)bytes, &memory));
    *(void **)memory_p = memory;
    cpu->super.bytes += bytes;
    return BSATTN_OK;
}

static bsattn_status_t work_buffers(cpu_work_t *cpu)
{
    const bsattn_problem_t *problem = cpu->super.params.problem;
    const bsattn_schedule_t *schedule = cpu->super.params.schedule;
    int64_t largest[2] = {0, 0};

    for (int s = 0; s < schedule->step_count; ++s) {
        int64_t bytes = 2 * half_bytes(cpu, schedule->steps[s].tokens_kv);
        largest[s % 2] = (bytes > largest[s % 2]) ? bytes : largest[s % 2];
    }
    BSATTN_TRY(work_alloc(cpu, largest[0], &cpu->chunks[0]));
    BSATTN_TRY(work_alloc(cpu, largest[1], &cpu->chunks[1]));
    if (schedule->exchange == BSATTN_EXCHANGE_DIRECT) {
        BSATTN_TRY(work_alloc(cpu, 2 * half_bytes(cpu, schedule->outgoing.tokens), &cpu->outgoing));
    }
    if (schedule->state_blocks > 0) {
        BSATTN_TRY(work_alloc(
            cpu, (int64_t)bsattn_problem_state_bytes(problem, schedule->state_blocks), &cpu->state));
    }
    return work_alloc(
        cpu,
        cpu->super.backend->threads *
            (int64_t)bsattn_attend_cpu_scratch_bytes(problem->head_dim, problem->block),
        &cpu->scratch);
}

static void cpu_release(bsattn_work_t *work)
{
    cpu_work_t *cpu = (cpu_work_t *)work;

    free(cpu->chunks[0]);
    free(cpu->chunks[1]);
    free(cpu->outgoing);
    free(cpu->state);
    free(cpu->scratch);
    free(cpu);
}

static bsattn_status_t cpu_prepare(bsattn_backend_t *backend, const bsattn_work_params_t *params,
                                   bsattn_work_t **work_p)
{
    cpu_work_t *cpu = calloc(1, sizeof(*cpu));
    bsattn_status_t status;

    if (cpu == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the work of a rank");
    }
    cpu->super =
        (bsattn_work_t){.backend = backend, .params = *params, .variant = backend->variant};
    status = work_buffers(cpu);
    if (status != BSATTN_OK) {
        cpu_release(&cpu->super);
        return status;
    }
    *work_p = &cpu->super;
    return BSATTN_OK;
}

static void cpu_movement(const bsattn_work_t *work, int step, bsattn_movement_t *movement_p)
{
    const cpu_work_t *cpu = (const cpu_work_t *)work;
    const bsattn_schedule_t *schedule = work->params.schedule;
    const bsattn_step_t *now = &schedule->steps[step];
    bool direct = (schedule->exchange == BSATTN_EXCHANGE_DIRECT);

    *movement_p = (bsattn_movement_t){
        .send = direct ? cpu->outgoing : cpu->chunks[step % 2],
        .send_parts = 2 * work->params.problem->batch,
        .send_part_rows = direct ? schedule->outgoing.tokens : now->tokens_kv,
        .send_runs = now->forward,
        .send_run_count = now->forward_count,
        .receive = cpu->chunks[(step + 1) % 2],
        .receive_rows = 2 * work->params.problem->batch * schedule->steps[step + 1].tokens_kv,
    };
}

/* --------------------------------------------------------------------------------- an execution */

/* Gather the rows of one head. */
static void pack_head(const cpu_work_t *cpu, const bsattn_packing_t *packing, const void *in,
                      char *out, int64_t b, int head)
{
    const bsattn_problem_t *problem = cpu->super.params.problem;
    size_t row_bytes = bsattn_problem_row_bytes(problem);
    size_t token_bytes = row_bytes * (size_t)problem->heads_kv;
    const char *shard = (const char *)in + (size_t)(b * cpu->super.params.tokens) * token_bytes +
                        (size_t)head * row_bytes;
    int c = cpu->super.params.schedule->kv_class_of_head[head];

    out += (size_t)(b * packing->tokens + packing->token_first[head]) * row_bytes;
    for (size_t r = packing->first[c]; r < packing->first[c + 1]; ++r) {
        const char *row = shard + (size_t)packing->runs[r].first * token_bytes;
        for (int64_t t = 0; t < packing->runs[r].count; ++t) {
            memcpy(out, row, row_bytes);
            out += row_bytes;
            row += token_bytes;
        }
    }
}

/* Keys, then values. */
static void pack(const cpu_work_t *cpu, const bsattn_packing_t *packing,
                 const bsattn_tensors_t *tensors, char *out)
{
    int heads = cpu->super.params.problem->heads_kv;
    int64_t pieces = cpu->super.params.problem->batch * heads;
    char *values = out + half_bytes(cpu, packing->tokens);

#pragma omp parallel for num_threads(cpu->super.backend->threads) schedule(static)
    for (int64_t p = 0; p < pieces; ++p) {
        pack_head(cpu, packing, tensors->k, out, p / heads, (int)(p % heads));
        pack_head(cpu, packing, tensors->v, values, p / heads, (int)(p % heads));
    }
}

/* O = 0 and LSE = -inf for the rows of one head without a single key. */
static void clear_head(const bsattn_attend_params_t *attend, int head,
                       const bsattn_empty_rows_t *empty)
{
    size_t row_bytes = (size_t)attend->head_dim * bsattn_dtype_size(attend->dtype);

    for (int64_t b = 0; b < attend->batch; ++b) {
        for (int64_t r = 0; r < empty->count; ++r) {
            int64_t first = (int64_t)empty->rows[r] * attend->block;
            int64_t end = first + attend->block;
            for (int64_t t = first; (t < end) && (t < attend->tokens); ++t) {
                int64_t row = (b * attend->tokens + t) * attend->heads_q + head;
                memset((char *)attend->o + (size_t)row * row_bytes, 0, row_bytes);
                if (attend->lse != NULL) {
                    attend->lse[(b * attend->heads_q + head) * attend->tokens + t] = -INFINITY;
                }
            }
        }
    }
}

static bsattn_status_t cpu_begin(bsattn_work_t *work, const bsattn_tensors_t *tensors)
{
    cpu_work_t *cpu = (cpu_work_t *)work;
    const bsattn_problem_t *problem = work->params.problem;
    const bsattn_schedule_t *schedule = work->params.schedule;

    cpu->attend = (bsattn_attend_params_t){
        .batch = problem->batch,
        .heads_q = problem->heads_q,
        .heads_kv = problem->heads_kv,
        .head_dim = problem->head_dim,
        .block = problem->block,
        .dtype = problem->dtype,
        .scale = (float)bsattn_problem_scale(problem),
        .tokens = work->params.tokens,
        .q = tensors->q,
        .o = tensors->o,
        .lse = tensors->lse,
        .list_of_head = schedule->list_of_head,
        .list_count = schedule->list_count,
        .state = cpu->state,
        .state_blocks = schedule->state_blocks,
        .scratch = cpu->scratch,
        .threads = work->backend->threads,
    };
    pack(cpu, &schedule->own, tensors, cpu->chunks[0]);
    if (schedule->exchange == BSATTN_EXCHANGE_DIRECT) {
        pack(cpu, &schedule->outgoing, tensors, cpu->outgoing);
    }
    for (int head = 0; head < problem->heads_q; ++head) {
        clear_head(&cpu->attend, head, &schedule->empty[schedule->list_of_head[head]]);
    }
    return BSATTN_OK;
}

/* Messages move only while MPI is called, so a step with an exchange under way is cut in slices. */
static int64_t slice_items(const cpu_work_t *cpu, const bsattn_step_t *step, bool exchanging)
{
    const bsattn_problem_t *problem = cpu->super.params.problem;
    int64_t units = step->item_count_max * problem->batch * problem->heads_q;
    int64_t slices = units / (UNITS_PER_THREAD_AND_SLICE * (int64_t)cpu->attend.threads);

    slices = !exchanging ? 1 : (slices > SLICES_MAX) ? SLICES_MAX : (slices < 1) ? 1 : slices;
    return (step->item_count_max + slices - 1) / slices;
}

static bsattn_status_t cpu_attend(bsattn_work_t *work, int step_index,
                                  const bsattn_between_t *between)
{
    cpu_work_t *cpu = (cpu_work_t *)work;
    const bsattn_step_t *step = &work->params.schedule->steps[step_index];
    int64_t slice = slice_items(cpu, step, between != NULL);

    cpu->attend.k = cpu->chunks[step_index % 2];
    cpu->attend.v = cpu->chunks[step_index % 2] + half_bytes(cpu, step->tokens_kv);
    cpu->attend.tokens_kv = step->tokens_kv;
    cpu->attend.heads = step->heads;
    cpu->attend.lists = step->lists;
    for (int64_t item = 0; item < step->item_count_max; item += slice) {
        bsattn_attend_cpu(&cpu->attend, item, item + slice);
        if (between != NULL) {
            BSATTN_TRY(between->call(between->arg));
        }
    }
    return BSATTN_OK;
}

static bsattn_status_t cpu_exchange(bsattn_work_t *work, int step)
{
    (void)work, (void)step;
    return BSATTN_OK;
}

static bsattn_status_t cpu_poll(bsattn_work_t *work, bsattn_progress_t *progress_p)
{
    *progress_p = (bsattn_progress_t){.done = true, .step = work->params.schedule->step_count};
    return BSATTN_OK;
}

static bool cpu_timings(const bsattn_work_t *work, bsattn_timings_t *timings_p)
{
    (void)work, (void)timings_p;
    return false;
}

static void cpu_mark(bsattn_mark_t mark)
{
    (void)mark;
}

static void cpu_unmark(void)
{
}

static const bsattn_backend_ops_t cpu_ops = {
    .name = "cpu",
    .destroy = cpu_destroy,
    .machine = cpu_machine,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .fill = cpu_fill,
    .read = cpu_move,
    .write = cpu_move,
    .memory = cpu_memory,
    .prepare = cpu_prepare,
    .release = cpu_release,
    .movement = cpu_movement,
    .begin = cpu_begin,
    .exchange_begin = cpu_exchange,
    .exchange_end = cpu_exchange,
    .attend = cpu_attend,
    .poll = cpu_poll,
    .timings = cpu_timings,
    .mark = cpu_mark,
    .unmark = cpu_unmark,
};

/* The kernel takes the best set it can if the one asked for is not there; a user must be told. */
bsattn_status_t bsattn_backend_cpu_check(void)
{
    const char *wanted = getenv("BSATTN_ISA");

    if ((wanted != NULL) && (strcmp(wanted, bsattn_attend_cpu_isa()) != 0)) {
        return bsattn_fail(
            BSATTN_ERR_INPUT,
            "BSATTN_ISA '%s': must be generic, avx2, avx512 or amx and be supported by "
            "this processor, which would take %s",
            wanted, bsattn_attend_cpu_isa());
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_backend_cpu_create(int threads, bsattn_backend_t **backend_p)
{
    bsattn_backend_t *backend = calloc(1, sizeof(*backend));

    if (backend == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for a backend");
    }
    *backend = (bsattn_backend_t){
        .ops = &cpu_ops,
        .variant = bsattn_attend_cpu_isa(),
        .threads = threads,
        .in_host_memory = true,
        .device = -1,
    };
    *backend_p = backend;
    return BSATTN_OK;
}
