/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file execute.c
 * What does an execution cost its caller, beside its kernels?
 *
 *     execute [--pattern TEXT] [--seq N] [--heads H] [--head-dim D] [--block B]
 *             [--dtype f16|bf16|f32] [--backend auto|cuda|cpu] [--ranks P] [--repeats R]
 *             [--tensors T]
 *
 * One plan of P virtual ranks is executed R times as a library's user would, after some executions
 * that do not count. `wall` is the time of bsattn_execute() by the host's clock, `total` what
 * bsattn_plan_timings() tells of it (on a GPU by the GPU's clock; of the slowest rank), both medians
 * in us. T sets of tensors take turns: with more than one, every execution is of others than the one
 * before, and on a GPU its launch is put together anew. Results are poisoned before what counts, and every set's last is compared with the fp64
 * reference: exit code 1 if one is off; 77 for --backend cuda without a GPU.
 */
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/half.h"
#include "base/philox.h"
#include "base/stats.h"
#include "base/text.h"
#include "bsattn.h"
#include "ring/context.h"

enum { WARM_UP = 20, CHECK_ROWS = 200, SETS_MAX = 16, SKIPPED = 77 };

/* The global tensors of a set, fp32 with the type's precision: [N, heads, D] of one batch item. */
typedef struct global_set {
    float *values[3];
} global_set_t;

typedef struct bench {
    bsattn_problem_t problem;
    const char *pattern_text;
    bsattn_context_params_t params;
    int repeats;
    int set_count;

    bsattn_context_t *context;
    bsattn_context_info_t info;
    bsattn_pattern_t *pattern;
    bsattn_plan_t *plan;
    global_set_t sets[SETS_MAX];
    bsattn_tensors_t *tensors[SETS_MAX]; /* [P] */
} bench_t;

static void must(bsattn_status_t status)
{
    if (status != BSATTN_OK) {
        (void)fprintf(stderr, "execute: %s\n", bsattn_last_error());
        exit(status);
    }
}

static void *host_new(size_t count, size_t size)
{
    void *memory = calloc(count + 1, size);

    if (memory == NULL) {
        (void)fprintf(stderr, "execute: no memory\n");
        exit(BSATTN_ERR_MEMORY);
    }
    return memory;
}

/* --------------------------------------------------------------------------------------- tensors */

static int heads_of(const bench_t *bench, bsattn_tensor_t tensor)
{
    return (tensor == BSATTN_Q) ? bench->problem.heads_q : bench->problem.heads_kv;
}

static float *make_global(const bench_t *bench, int set, bsattn_tensor_t tensor)
{
    bsattn_dtype_t dtype = bench->problem.dtype;
    int64_t count = bench->problem.seq_len * heads_of(bench, tensor) * bench->problem.head_dim;
    float *values = host_new((size_t)count, sizeof(*values));
    void *rounded = host_new((size_t)count, bsattn_dtype_size(dtype));

    bsattn_philox_normal((uint64_t)set, (uint32_t)tensor, 0, count, values);
    bsattn_convert_from_f32(dtype, values, count, rounded);
    bsattn_convert_to_f32(dtype, rounded, count, values);
    free(rounded);
    return values;
}

/* A rank's part of a global tensor, where its backend computes. */
static void *make_local(const bench_t *bench, const float *global, int heads, int local)
{
    bsattn_dtype_t dtype = bench->problem.dtype;
    int64_t row = (int64_t)heads * bench->problem.head_dim;
    size_t row_bytes = (size_t)row * bsattn_dtype_size(dtype);
    size_t run_count;
    const bsattn_token_run_t *runs = bsattn_plan_runs(bench->plan, local, &run_count);
    size_t bytes = (size_t)bsattn_plan_tokens(bench->plan, local) * row_bytes;
    char *rounded = host_new(bytes, 1);
    char *at = rounded;
    void *memory;

    for (size_t r = 0; r < run_count; ++r) {
        bsattn_convert_from_f32(dtype, global + runs[r].first * row, runs[r].count * row, at);
        at += (size_t)runs[r].count * row_bytes;
    }
    must(bsattn_context_alloc(bench->context, bytes, &memory));
    must(bsattn_context_write(bench->context, &(bsattn_rows_t){.from = rounded,
                                                               .from_stride = bytes,
                                                               .to = memory,
                                                               .to_stride = bytes,
                                                               .row_bytes = bytes,
                                                               .row_count = 1}));
    free(rounded);
    return memory;
}

static void *make_results(const bench_t *bench, size_t bytes)
{
    void *memory;

    must(bsattn_context_alloc(bench->context, bytes, &memory));
    return memory;
}

static size_t lse_bytes(const bench_t *bench, int local)
{
    return (size_t)bsattn_plan_tokens(bench->plan, local) * (size_t)bench->problem.heads_q *
           sizeof(float);
}

static size_t out_bytes(const bench_t *bench, int local)
{
    return lse_bytes(bench, local) / sizeof(float) * (size_t)bench->problem.head_dim *
           bsattn_dtype_size(bench->problem.dtype);
}

/* NaN in all that an execution must write. */
static void poison(const bench_t *bench)
{
    for (int set = 0; set < bench->set_count; ++set) {
        for (int local = 0; local < bench->info.local_count; ++local) {
            const bsattn_tensors_t *tensors = &bench->tensors[set][local];
            must(bsattn_context_fill(bench->context, tensors->o, 0xff, out_bytes(bench, local)));
            must(bsattn_context_fill(bench->context, tensors->lse, 0xff, lse_bytes(bench, local)));
        }
    }
}

static void make_set(bench_t *bench, int set)
{
    const bsattn_problem_t *problem = &bench->problem;
    float **global = bench->sets[set].values;

    for (int t = BSATTN_Q; t <= BSATTN_V; ++t) {
        global[t] = make_global(bench, set, (bsattn_tensor_t)t);
    }
    bench->tensors[set] = host_new((size_t)bench->info.local_count, sizeof(bsattn_tensors_t));
    for (int local = 0; local < bench->info.local_count; ++local) {
        bench->tensors[set][local] = (bsattn_tensors_t){
            .q = make_local(bench, global[BSATTN_Q], problem->heads_q, local),
            .k = make_local(bench, global[BSATTN_K], problem->heads_kv, local),
            .v = make_local(bench, global[BSATTN_V], problem->heads_kv, local),
            .o = make_results(bench, out_bytes(bench, local)),
            .lse = make_results(bench, lse_bytes(bench, local)),
        };
    }
}

static void free_set(bench_t *bench, int set)
{
    for (int local = 0; local < bench->info.local_count; ++local) {
        bsattn_tensors_t *tensors = &bench->tensors[set][local];
        bsattn_context_free(bench->context, (void *)tensors->q);
        bsattn_context_free(bench->context, (void *)tensors->k);
        bsattn_context_free(bench->context, (void *)tensors->v);
        bsattn_context_free(bench->context, tensors->o);
        bsattn_context_free(bench->context, tensors->lse);
    }
    free(bench->tensors[set]);
    for (int t = BSATTN_Q; t <= BSATTN_V; ++t) {
        free(bench->sets[set].values[t]);
    }
}

/* ----------------------------------------------------------------------------------------- check */

typedef struct reader {
    const bench_t *bench;
    int set;
} reader_t;

static bsattn_status_t read_rows(void *arg, bsattn_tensor_t tensor, int64_t batch, int head,
                                 int64_t first, int64_t count, float *out)
{
    const reader_t *reader = arg;
    const bench_t *bench = reader->bench;
    int64_t head_dim = bench->problem.head_dim;
    int64_t row = heads_of(bench, tensor) * head_dim;
    const float *from = bench->sets[reader->set].values[tensor] + first * row + head * head_dim;

    (void)batch; /* there is one */
    for (int64_t r = 0; r < count; ++r) {
        memcpy(out + r * head_dim, from + r * row, (size_t)head_dim * sizeof(*out));
    }
    return BSATTN_OK;
}

static bool check(bench_t *bench, int set)
{
    reader_t reader = {bench, set};
    bsattn_check_result_t result;

    must(bsattn_plan_check(bench->plan, bench->tensors[set], CHECK_ROWS, 1, read_rows, &reader,
                           &result));
    if (!result.passed) {
        printf("set %d is wrong: error %.3g, LSE %.3g\n", set, result.error_out, result.error_lse);
    }
    return result.passed != 0;
}

/* ----------------------------------------------------------------------------------------- times */

/* Of the slowest rank, in us. */
static double total_us(const bench_t *bench)
{
    double most = 0.0;

    for (int local = 0; local < bench->info.local_count; ++local) {
        most = fmax(most, 1e3 * bsattn_plan_timings(bench->plan, local).total_ms);
    }
    return most;
}

static void measure(bench_t *bench)
{
    double *wall = host_new((size_t)bench->repeats, sizeof(*wall));
    double *total = host_new((size_t)bench->repeats, sizeof(*total));
    bsattn_stats_t walls;
    bsattn_stats_t totals;

    for (int r = 0; r < WARM_UP; ++r) {
        must(bsattn_execute(bench->plan, bench->tensors[r % bench->set_count]));
    }
    poison(bench);
    for (int r = 0; r < bench->repeats; ++r) {
        double start_ms = bsattn_clock_ms();
        must(bsattn_execute(bench->plan, bench->tensors[r % bench->set_count]));
        wall[r] = 1e3 * (bsattn_clock_ms() - start_ms);
        total[r] = total_us(bench);
    }
    walls = bsattn_stats_of(wall, (size_t)bench->repeats);
    totals = bsattn_stats_of(total, (size_t)bench->repeats);
    printf("%s, %s, %d ranks, N %" PRId64 ", %d heads of %d, %s, %s, %d sets of tensors\n",
           bench->info.backend, bench->info.backend_variant, bench->info.ranks,
           bench->problem.seq_len, bench->problem.heads_q, bench->problem.head_dim,
           bsattn_dtype_name(bench->problem.dtype), bench->pattern_text, bench->set_count);
    printf("wall %.2f us (p95 %.2f), total %.2f us, beside it %.2f us\n", walls.median, walls.p95,
           totals.median, walls.median - totals.median);
    free(wall);
    free(total);
}

static bool run(bench_t *bench)
{
    bool right = true;

    must(bsattn_pattern_create(bench->pattern_text, &bench->problem, &bench->pattern));
    must(bsattn_context_create(&bench->params, &bench->context));
    bsattn_context_info(bench->context, &bench->info);
    must(bsattn_plan_create(bench->context, &bench->problem, bench->pattern, NULL, &bench->plan));
    for (int set = 0; set < bench->set_count; ++set) {
        make_set(bench, set);
    }
    measure(bench);
    for (int set = 0; set < bench->set_count; ++set) {
        right = check(bench, set) && right;
        free_set(bench, set);
    }
    bsattn_plan_destroy(bench->plan);
    bsattn_context_destroy(bench->context);
    bsattn_pattern_destroy(bench->pattern);
    return right;
}

/* --------------------------------------------------------------------------------------- options */

__attribute__((noreturn)) static void usage(const char *name, const char *value)
{
    (void)fprintf(stderr,
                  "execute: %s '%s'\nusage: execute [--pattern TEXT] [--seq N] [--heads H] "
                  "[--head-dim D] [--block B] [--dtype f16|bf16|f32] [--backend auto|cuda|cpu] "
                  "[--ranks P] [--repeats R] [--tensors T]\n",
                  name, value);
    exit(BSATTN_ERR_INPUT);
}

static int number(const char *name, const char *text, int64_t most)
{
    int64_t value = 0;

    if (!bsattn_text_size(text, &value) || (value < 1) || (value > most)) {
        usage(name, text);
    }
    return (int)value;
}

static bsattn_dtype_t read_dtype(const char *name)
{
    for (int dtype = BSATTN_F32; dtype <= BSATTN_BF16; ++dtype) {
        if (strcmp(name, bsattn_dtype_name((bsattn_dtype_t)dtype)) == 0) {
            return (bsattn_dtype_t)dtype;
        }
    }
    usage("--dtype", name);
}

static void read_option(bench_t *bench, int option, const char *value)
{
    bsattn_problem_t *problem = &bench->problem;

    switch (option) {
    case 'p':
        bench->pattern_text = value;
        break;
    case 'n':
        problem->seq_len = number("--seq", value, INT32_MAX);
        break;
    case 'h':
        problem->heads_q = number("--heads", value, INT32_MAX);
        problem->heads_kv = problem->heads_q;
        break;
    case 'd':
        problem->head_dim = number("--head-dim", value, INT32_MAX);
        break;
    case 'B':
        problem->block = number("--block", value, INT32_MAX);
        break;
    case 't':
        problem->dtype = read_dtype(value);
        break;
    case 'b':
        bench->params.backend = value;
        break;
    case 'P':
        bench->params.virtual_ranks = number("--ranks", value, 1024);
        break;
    case 'r':
        bench->repeats = number("--repeats", value, INT32_MAX);
        break;
    case 'T':
        bench->set_count = number("--tensors", value, SETS_MAX);
        break;
    default:
        usage("unknown option", "");
    }
}

static bool is_cuda(const char *backend)
{
    return (backend != NULL) && (strcmp(backend, "cuda") == 0);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"pattern", required_argument, NULL, 'p'},
                                            {"seq", required_argument, NULL, 'n'},
                                            {"heads", required_argument, NULL, 'h'},
                                            {"head-dim", required_argument, NULL, 'd'},
                                            {"block", required_argument, NULL, 'B'},
                                            {"dtype", required_argument, NULL, 't'},
                                            {"backend", required_argument, NULL, 'b'},
                                            {"ranks", required_argument, NULL, 'P'},
                                            {"repeats", required_argument, NULL, 'r'},
                                            {"tensors", required_argument, NULL, 'T'},
                                            {NULL, 0, NULL, 0}};
    static bench_t bench = {.pattern_text = "local(window=256)", .repeats = 200, .set_count = 1};
    char reason[256];
    int option;

    bsattn_problem_init(&bench.problem);
    bench.problem.seq_len = 2048;
    bench.problem.dtype = BSATTN_BF16;
    bsattn_context_params_init(&bench.params);
    bench.params.transport = "loop";
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        read_option(&bench, option, optarg);
    }
    if (optind < argc) {
        usage("unexpected", argv[optind]);
    }
    if (bench.repeats < bench.set_count) {
        (void)fprintf(stderr, "execute: --tensors %d: at most --repeats, %d\n", bench.set_count,
                      bench.repeats);
        return BSATTN_ERR_INPUT;
    }
    if (is_cuda(bench.params.backend) && (bsattn_backend_gpus(reason, sizeof(reason)) == 0)) {
        printf("skipped: %s\n", reason);
        return SKIPPED;
    }
    return run(&bench) ? BSATTN_OK : BSATTN_ERR_RESULT;
}
