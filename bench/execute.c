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
 * before, and on a GPU its launch is given them. Results are poisoned before what counts, and
 * every set's last is compared with the fp64 reference: exit code 1 if one is off; 77 for --backend
 * cuda without a GPU.
 */
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "base/clock.h"
#include "base/stats.h"
#include "base/text.h"
#include "cli/trial.h"
#include "problem/problem.h"
#include "ring/plan.h"

enum { WARM_UP = 20, CHECK_ROWS = 200, SETS_MAX = 16, SKIPPED = 77 };

/* Tensors and where they come from. The plan of the first set executes all. */
typedef struct set {
    bsattn_source_t *source;
    bsattn_trial_t trial;
} set_t;

typedef struct bench {
    bsattn_problem_t problem;
    const char *pattern_text;
    bsattn_context_params_t params;
    int repeats;
    int set_count;

    bsattn_context_t *context;
    bsattn_pattern_t *pattern;
    set_t sets[SETS_MAX];
} bench_t;

static void must(bsattn_status_t status)
{
    if (status != BSATTN_OK) {
        (void)fprintf(stderr, "execute: %s\n", bsattn_last_error());
        exit(status);
    }
}

/* ------------------------------------------------------------------------------------------ sets */

static void make_set(bench_t *bench, int index)
{
    static const bsattn_job_t job = {.comm = NULL, .rank = 0, .size = 1};
    set_t *set = &bench->sets[index];
    bsattn_trial_params_t params = {
        .job = &job,
        .context = bench->context,
        .problem = &bench->problem,
        .pattern = bench->pattern,
        .iterations = 1,
    };

    must(bsattn_source_open_synthetic(&bench->problem, (uint64_t)index, &set->source));
    params.source = set->source;
    must(bsattn_trial_create(&params, &set->trial));
}

static void free_set(set_t *set)
{
    bsattn_trial_destroy(&set->trial);
    bsattn_source_close(set->source);
}

static bool check(bench_t *bench, int index)
{
    set_t *set = &bench->sets[index];
    bsattn_check_result_t result;

    must(bsattn_plan_check(bench->sets[0].trial.plan, set->trial.tensors, CHECK_ROWS, 1,
                           bsattn_source_rows, set->source, &result));
    if (!result.passed) {
        printf("set %d is wrong: error %.3g, LSE %.3g\n", index, result.error_out,
               result.error_lse);
    }
    return result.passed != 0;
}

/* ----------------------------------------------------------------------------------------- times */

/* Of the slowest rank, in us. */
static double total_us(const bsattn_trial_t *trial)
{
    double most = 0.0;

    for (int local = 0; local < trial->info.local_count; ++local) {
        most = fmax(most, 1e3 * bsattn_plan_timings(trial->plan, local).total_ms);
    }
    return most;
}

static void execute(bench_t *bench, int r)
{
    const set_t *set = &bench->sets[r % bench->set_count];

    must(bsattn_execute(bench->sets[0].trial.plan, set->trial.tensors));
}

/* wall and total: [repeats], in us. */
static void measure(bench_t *bench, double *wall, double *total)
{
    const bsattn_trial_t *trial = &bench->sets[0].trial;
    bsattn_stats_t walls;
    bsattn_stats_t totals;

    for (int r = 0; r < WARM_UP; ++r) {
        execute(bench, r);
    }
    for (int set = 0; set < bench->set_count; ++set) {
        must(bsattn_trial_poison(&bench->sets[set].trial));
    }
    for (int r = 0; r < bench->repeats; ++r) {
        double start_ms = bsattn_clock_ms();
        execute(bench, r);
        wall[r] = 1e3 * (bsattn_clock_ms() - start_ms);
        total[r] = total_us(trial);
    }
    walls = bsattn_stats_of(wall, (size_t)bench->repeats);
    totals = bsattn_stats_of(total, (size_t)bench->repeats);
    printf("%s, %s, %d ranks, N %" PRId64 ", %d heads of %d, %s, %s, %d sets of tensors\n",
           trial->info.backend, bsattn_plan_variant(trial->plan), trial->info.ranks,
           bench->problem.seq_len, bench->problem.heads_q, bench->problem.head_dim,
           bsattn_dtype_name(bench->problem.dtype), bench->pattern_text, bench->set_count);
    printf("wall %.2f us (p95 %.2f), total %.2f us, beside it %.2f us\n", walls.median, walls.p95,
           totals.median, walls.median - totals.median);
}

static bool run(bench_t *bench)
{
    double *times = calloc(2 * (size_t)bench->repeats, sizeof(*times));
    bool right = true;

    if (times == NULL) {
        (void)fprintf(stderr, "execute: no memory for %d times\n", bench->repeats);
        exit(BSATTN_ERR_MEMORY);
    }
    must(bsattn_pattern_create(bench->pattern_text, &bench->problem, &bench->pattern));
    must(bsattn_context_create(&bench->params, &bench->context));
    for (int set = 0; set < bench->set_count; ++set) {
        make_set(bench, set);
    }
    measure(bench, times, times + bench->repeats);
    for (int set = 0; set < bench->set_count; ++set) {
        right = check(bench, set) && right;
    }
    for (int set = 0; set < bench->set_count; ++set) {
        free_set(&bench->sets[set]);
    }
    bsattn_context_destroy(bench->context);
    bsattn_pattern_destroy(bench->pattern);
    free(times);
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
        if (!bsattn_dtype_find(value, &problem->dtype)) {
            usage("--dtype", value);
        }
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
