/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file attend_gpu.c
 * How fast is a GPU attention kernel, dense and sparse, beside what others reach and beside itself?
 *
 *     attend_gpu [--kernel sm90|sm80|plain] [--cases dense,sparse,lists,presets,small|all]
 *                [--seq 16K,32K] [--repeats R] [--csv FILE] [--packed] [--launches L]
 *                [--mask-dir DIR]
 *     attend_gpu --pattern TEXT --seq N [--heads H] [--kv-heads H] [--head-dim D] [--block B]
 *                [--causal] [--batch b] [--dtype f16|bf16|f32]
 *
 *   dense    every key, full and causal
 *   sparse   random 128-blocks; bar: FlexAttention's rate on an H200
 *   presets  local, dilated, ultra_sparse; bar: FlexAttention's rate
 *   lists    L blocks in every row's list; bar: a share of the roof
 *   small    the host's time to start a launch that was made ready, and the time until its end
 *
 * One launch of one rank. Inputs are random normal numbers, several sets taking turns where they
 * would stay in the L2. A rate counts 4 * D floating point operations per unmasked token pair.
 * --mask-dir keeps the random masks, boolean [nb, nb], as DIR/<N>_<block>_<L>.npy.
 * `share` is the rate beside the dense rate of the same heads, D and type at N = 16K in this run;
 * `roof` is the rate beside that, or beside what moving Q, K, V and O once allows where that is
 * less: the memory's rate is that of a large copy in this run. `ratio` is the figure beside its bar. Sampled rows are compared with the fp64 reference: exit
 * code 1 if one is off or an output was not written; 77 without a GPU.
 */
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"
#include "base/text.h"
#include "bench/compare_cuda.h"
#include "bench/device_cuda.h"
#include "bench/problem_cuda.h"
#include "problem/problem.h"

enum { CASES_MAX = 256, SEQS_MAX = 16, DENSE_MAX = 16, SETS_MAX = 16 };

static const double l2_bytes_to_fill = 200e6; /* of the inputs and outputs of all sets */
static const double check_pairs = 5e6;
static const double small_bar_us = 20.0;

typedef struct bench_case {
    const char *group;
    char name[32];
    bsattn_problem_t problem;
    char pattern[256];
    int64_t list_blocks; /* random key blocks in a row's list; 0: the pattern */
    double table_tflops; /* bar; 0: none */
    double share_bar;    /* bar; 0: none */
} bench_case_t;

/* The dense rate that shares are taken of. */
typedef struct dense_rate {
    bsattn_problem_t problem;
    double tflops;
} dense_rate_t;

typedef struct bench {
    const bsattn_cuda_kernel_t *kernel; /* NULL: the fastest for each problem */
    const char *groups;
    int64_t seqs[SEQS_MAX];
    int seq_count;
    int repeats;
    bool packed;
    int launches;
    const char *pattern; /* a case of the user's own */
    bsattn_problem_t problem;
    FILE *csv;
    const char *mask_dir; /* NULL: masks are not kept */
    char mask_path[200];
    bench_case_t cases[CASES_MAX];
    int case_count;
    double memory_rate; /* bytes a second */
    dense_rate_t dense[DENSE_MAX];
    int dense_count;
    int failed;
} bench_t;

/* ---------------------------------------------------------------------------------------- cases */

static bool wants_seq(const bench_t *bench, int64_t seq_len)
{
    for (int i = 0; i < bench->seq_count; ++i) {
        if (bench->seqs[i] == seq_len) {
            return true;
        }
    }
    return bench->seq_count == 0;
}

static bool wants_group(const bench_t *bench, const char *group)
{
    size_t length = strlen(group);

    if (strcmp(bench->groups, "all") == 0) {
        return true;
    }
    for (const char *at = bench->groups; *at != '\0'; at += (*at == ',') ? 1 : 0) {
        size_t word = strcspn(at, ",");
        if ((word == length) && (strncmp(at, group, length) == 0)) {
            return true;
        }
        at += word;
    }
    return false;
}

/* @return the new case, or NULL if its length is not wanted */
static bench_case_t *add_case(bench_t *bench, const char *group, const char *name, int64_t seq_len,
                              int heads, int head_dim, int block, const char *pattern)
{
    bench_case_t *added = &bench->cases[bench->case_count];

    if (!wants_seq(bench, seq_len) || (bench->case_count == CASES_MAX)) {
        return NULL;
    }
    ++bench->case_count;
    added->group = group;
    (void)snprintf(added->name, sizeof(added->name), "%s", name);
    (void)snprintf(added->pattern, sizeof(added->pattern), "%s", pattern);
    added->problem = bench->problem;
    added->problem.seq_len = seq_len;
    added->problem.heads_q = heads;
    added->problem.heads_kv = heads;
    added->problem.head_dim = head_dim;
    added->problem.block = block;
    added->problem.causal = 0;
    return added;
}

static void add_dense(bench_t *bench)
{
    for (int dim = 128; dim >= 64; dim -= 64) {
        for (int64_t n = 4096; n <= 65536; n *= 2) {
            for (int causal = 0; causal < 2; ++causal) {
                bench_case_t *added = add_case(bench, "dense", causal ? "causal" : "full", n, 16,
                                               dim, 128, "dense");
                if (added != NULL) {
                    added->problem.causal = causal;
                }
            }
        }
    }
}

/* FlexAttention on an H200: TFLOP/s by length and density. */
static void add_sparse(bench_t *bench)
{
    static const double densities[] = {0.10, 0.05, 0.02, 0.01};
    static const double table[][4] = {{309, 245, 130, 0},
                                      {380, 329, 261, 143},
                                      {412, 387, 322, 272},
                                      {422, 409, 379, 329},
                                      {431, 423, 407, 379}};

    for (int i = 0; i < 5; ++i) {
        int64_t n = INT64_C(8192) << i;
        for (int d = 0; d < 4; ++d) {
            char name[32];
            bench_case_t *added;

            (void)snprintf(name, sizeof(name), "density %g %%", 100.0 * densities[d]);
            added = (table[i][d] > 0.0) ? add_case(bench, "sparse", name, n, 16, 128, 128, "")
                                        : NULL;
            if (added != NULL) {
                added->list_blocks = (int64_t)fmax(1.0, rint(densities[d] * (double)n / 128.0));
                added->table_tflops = table[i][d];
            }
        }
    }
}

typedef struct preset {
    const char *name;
    const char *pattern;
    int block;
    double table[2][3]; /* H 8, D 64 at 16K, 64K, 1M; H 16, D 128 at 16K, 64K, 256K */
} preset_t;

static const preset_t presets[] = {
    {"local", "local(window=256)", 64, {{120, 265, 280}, {202, 213, 210}}},
    {"dilated", "dilated(rates=1:2:4:8)", 64, {{277, 313, 325}, {233, 235, 229}}},
    {"ultra_sparse", "dilated(rates=1:2:4)", 128, {{299, 334, 343}, {340, 357, 361}}},
};

enum { PRESET_COUNT = sizeof(presets) / sizeof(presets[0]) };

static void add_presets(bench_t *bench)
{
    static const int64_t seqs[2][3] = {{16384, 65536, 1048576}, {16384, 65536, 262144}};

    for (int p = 0; p < PRESET_COUNT; ++p) {
        for (int shape = 0; shape < 2; ++shape) {
            for (int i = 0; i < 3; ++i) {
                bench_case_t *added =
                    add_case(bench, "presets", presets[p].name, seqs[shape][i], 8 << shape,
                             64 << shape, presets[p].block, presets[p].pattern);
                if (added != NULL) {
                    added->table_tflops = presets[p].table[shape][i];
                }
            }
        }
    }
}

static void add_lists(bench_t *bench)
{
    static const int lengths[] = {4, 8, 16, 32};
    static const double bars[] = {0.80, 0.90, 0.95, 0.95};

    for (int grouped = 0; grouped < 2; ++grouped) {
        for (int dim = 128; dim >= 64; dim -= 64) {
            for (int l = 0; l < 4; ++l) {
                char name[32];
                bench_case_t *added;

                (void)snprintf(name, sizeof(name), "L = %d%s", lengths[l],
                               grouped ? " grouped" : "");
                added = add_case(bench, "lists", name, 32768, 16, dim, grouped ? 64 : 128, "");
                if (added != NULL) {
                    added->problem.heads_kv = grouped ? 4 : 16;
                    added->list_blocks = lengths[l];
                    added->share_bar = bars[l];
                }
            }
        }
    }
}

static void add_small(bench_t *bench)
{
    for (int64_t n = 2048; n <= 8192; n *= 2) {
        for (int shape = 0; shape < 2; ++shape) {
            for (int p = 0; p < PRESET_COUNT; ++p) {
                (void)add_case(bench, "small", presets[p].name, n, 8 << shape, 64 << shape,
                               presets[p].block, presets[p].pattern);
            }
            (void)add_case(bench, "small", "dense", n, 8 << shape, 64 << shape, 128, "dense");
        }
    }
}

static void add_cases(bench_t *bench)
{
    static const struct {
        const char *name;
        void (*add)(bench_t *bench);
    } groups[] = {{"dense", add_dense},
                  {"sparse", add_sparse},
                  {"lists", add_lists},
                  {"presets", add_presets},
                  {"small", add_small}};

    for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); ++g) {
        if ((bench->pattern == NULL) && wants_group(bench, groups[g].name)) {
            groups[g].add(bench);
        }
    }
    for (int i = 0; (bench->pattern != NULL) && (i < bench->seq_count); ++i) {
        bench_case_t *added =
            add_case(bench, "own", "own", bench->seqs[i], bench->problem.heads_q,
                     bench->problem.head_dim, bench->problem.block, bench->pattern);
        if (added != NULL) {
            added->problem.heads_kv = bench->problem.heads_kv;
            added->problem.causal = bench->problem.causal;
        }
    }
}

/* -------------------------------------------------------------------------------------- running */

typedef struct outcome {
    bsattn_stats_t ms;
    bsattn_stats_t launch_us;
    bsattn_stats_t total_us;
    double tflops;
    double memory_tflops; /* what the memory allows */
    double share;         /* of the dense rate; NAN: not asked for */
    double roof_share;
    bsattn_gpu_errors_t errors;
} outcome_t;

static const bsattn_cuda_kernel_t *kernel_for(const bench_t *bench, const bsattn_problem_t *problem)
{
    const bsattn_cuda_kernel_t *kernel = bench->kernel;

    if ((kernel == NULL) &&
        (bsattn_cuda_kernel_find(bsattn_gpu_capability(), problem->dtype, problem->head_dim,
                                 &kernel) != BSATTN_OK)) {
        (void)fprintf(stderr, "attend_gpu: %s\n", bsattn_last_error());
        exit(BSATTN_ERR_ENVIRONMENT);
    }
    return bsattn_gpu_kernel_can(kernel, problem->dtype, problem->head_dim) ? kernel : NULL;
}

static bool run_right(const outcome_t *outcome)
{
    return (outcome->errors.bad_rows == 0) && (outcome->errors.nonfinite == 0) &&
           (outcome->errors.spills == 0);
}

static void explain(const char *name, const outcome_t *outcome)
{
    char text[320];

    bsattn_gpu_errors_text(&outcome->errors, "the reference", text, sizeof(text));
    printf("    %s: %s\n", name, text);
}

static outcome_t run_problem(const bench_t *bench, const bsattn_cuda_kernel_t *kernel,
                             const bsattn_problem_t *problem, const char *pattern, bool small)
{
    double sets = ceil(l2_bytes_to_fill / bsattn_gpu_set_bytes(problem));
    bsattn_gpu_params_t params = {
        .problem = *problem,
        .pattern = pattern,
        .kernel = kernel,
        .launches = bench->launches,
        .packed = bench->packed,
        .sets = (int)fmin(SETS_MAX, fmax(1.0, sets)),
        .seed = 1,
    };
    outcome_t outcome = {0};
    bsattn_gpu_case_t gpu;
    int error;

    bsattn_gpu_case_init(&gpu, &params);
    error = bsattn_gpu_case_run(&gpu, 0);
    if (error != 0) {
        (void)fprintf(stderr, "attend_gpu: %s: %s\n", kernel->name, bsattn_gpu_error_text(error));
        exit(BSATTN_ERR_ENVIRONMENT);
    }
    outcome.ms = bsattn_gpu_case_time(&gpu, bench->repeats);
    outcome.errors = bsattn_gpu_case_compare_sets(&gpu, check_pairs);
    if (small) {
        bsattn_gpu_errors_t ready;
        bsattn_gpu_case_time_host(&gpu, 10 * bench->repeats, &outcome.launch_us,
                                  &outcome.total_us);
        ready = bsattn_gpu_case_compare_sets(&gpu, check_pairs);
        bsattn_gpu_errors_merge(&outcome.errors, &ready);
    }
    outcome.tflops = gpu.flops / outcome.ms.median * 1e-9;
    outcome.memory_tflops =
        1e-12 * gpu.flops * bench->memory_rate / bsattn_gpu_set_bytes(problem);
    bsattn_gpu_case_free(&gpu);
    return outcome;
}

/* The dense rate of the same heads, head dimension and type, measured once. */
static double dense_tflops(bench_t *bench, const bsattn_cuda_kernel_t *kernel,
                           const bsattn_problem_t *problem)
{
    bsattn_problem_t dense = *problem;
    outcome_t outcome;

    dense.batch = 1;
    dense.seq_len = 16384;
    dense.block = 128;
    dense.causal = 0;
    for (int i = 0; i < bench->dense_count; ++i) {
        const bsattn_problem_t *known = &bench->dense[i].problem;
        if ((known->heads_q == dense.heads_q) && (known->heads_kv == dense.heads_kv) &&
            (known->head_dim == dense.head_dim) && (known->dtype == dense.dtype)) {
            return bench->dense[i].tflops;
        }
    }
    outcome = run_problem(bench, kernel, &dense, "dense", false);
    if (!run_right(&outcome)) {
        explain("the dense run that shares are of", &outcome);
        ++bench->failed;
    }
    if (bench->dense_count < DENSE_MAX) {
        bench->dense[bench->dense_count++] = (dense_rate_t){dense, outcome.tflops};
    }
    return outcome.tflops;
}

/* --------------------------------------------------------------------------------------- output */

static void print_head(const bench_t *bench)
{
    printf("%-8s %-16s %8s %3s %3s %4s %4s %2s %-5s %10s %10s %9s %6s %6s %6s %6s %9s %9s %s\n",
           "group", "case", "N", "Hq", "Hk", "D", "B", "c", "type", "median ms", "p95 ms",
           "TFLOP/s", "share", "roof", "bar", "ratio", "launch us", "total us", "error");
    if (bench->csv != NULL) {
        (void)fprintf(bench->csv, "group,name,kernel,seq,heads,kv_heads,head_dim,block,causal,"
                                  "dtype,list_blocks,pattern,ms,ms_p95,tflops,dense_share,"
                                  "roof_share,bar,"
                                  "ratio,launch_us,total_us,error,right\n");
    }
}

/* @param bar    what the figure is measured by, 0: nothing
 *  @param ratio  figure / bar, or bar / figure where less is better */
static void print_case(const bench_t *bench, const bench_case_t *spec,
                       const bsattn_cuda_kernel_t *kernel, const outcome_t *outcome, double bar,
                       double ratio)
{
    const bsattn_problem_t *p = &spec->problem;
    bool small = outcome->total_us.count > 0;

    printf("%-8s %-16s %8" PRId64 " %3d %3d %4d %4d %2s %-5s %10.4f %10.4f %9.1f %6.3f %6.3f ",
           spec->group, spec->name, p->seq_len, p->heads_q, p->heads_kv, p->head_dim, p->block,
           (p->causal != 0) ? "c" : "-", bsattn_dtype_name(p->dtype), outcome->ms.median,
           outcome->ms.p95, outcome->tflops, outcome->share, outcome->roof_share);
    if (bar > 0.0) {
        printf("%6.4g %6.2f ", bar, ratio);
    } else {
        printf("%6s %6s ", "-", "-");
    }
    if (small) {
        printf("%9.2f %9.2f ", outcome->launch_us.median, outcome->total_us.median);
    } else {
        printf("%9s %9s ", "-", "-");
    }
    printf("%.1e%s\n", outcome->errors.out, run_right(outcome) ? "" : " WRONG");
    (void)fflush(stdout);
    if (bench->csv != NULL) {
        (void)fprintf(bench->csv, "%s,%s,%s,%" PRId64 ",%d,%d,%d,%d,%d,%s,%" PRId64 ",\"%s\",",
                      spec->group, spec->name, kernel->name, p->seq_len, p->heads_q, p->heads_kv,
                      p->head_dim, p->block, p->causal, bsattn_dtype_name(p->dtype),
                      spec->list_blocks, (spec->list_blocks > 0) ? "" : spec->pattern);
        (void)fprintf(bench->csv, "%.6f,%.6f,%.2f,%.4f,%.4f,%g,%.4f,%.3f,%.3f,%.3g,%d\n",
                      outcome->ms.median, outcome->ms.p95, outcome->tflops, outcome->share,
                      outcome->roof_share, bar, ratio,
                      small ? outcome->launch_us.median : 0.0,
                      small ? outcome->total_us.median : 0.0, outcome->errors.out,
                      run_right(outcome) ? 1 : 0);
        (void)fflush(bench->csv);
    }
}

static void run_case(bench_t *bench, bench_case_t *spec)
{
    const bsattn_cuda_kernel_t *kernel = kernel_for(bench, &spec->problem);
    bool small = strcmp(spec->group, "small") == 0;
    double bar = spec->table_tflops;
    double dense = NAN;
    double figure;
    outcome_t outcome;

    if (kernel == NULL) {
        printf("%-8s %-16s skipped: %s has no %s at D = %d here\n", spec->group, spec->name,
               bench->kernel->name, bsattn_dtype_name(spec->problem.dtype),
               spec->problem.head_dim);
        return;
    }
    if (spec->list_blocks > 0) {
        if (bench->mask_dir != NULL) {
            (void)snprintf(bench->mask_path, sizeof(bench->mask_path),
                           "%s/%" PRId64 "_%d_%" PRId64 ".npy", bench->mask_dir,
                           spec->problem.seq_len, spec->problem.block, spec->list_blocks);
        }
        bsattn_gpu_write_mask(bench->mask_path, 1, spec->problem.seq_len / spec->problem.block,
                              spec->list_blocks, spec->list_blocks, 11);
        (void)snprintf(spec->pattern, sizeof(spec->pattern), "blocks(file=%s)", bench->mask_path);
    }
    if (!small && (bench->pattern == NULL)) {
        dense = dense_tflops(bench, kernel, &spec->problem);
    }
    outcome = run_problem(bench, kernel, &spec->problem, spec->pattern, small);
    outcome.share = outcome.tflops / dense;
    outcome.roof_share =
        isnan(dense) ? NAN : outcome.tflops / fmin(dense, outcome.memory_tflops);
    figure = outcome.tflops;
    if (spec->share_bar > 0.0) {
        bar = spec->share_bar;
        figure = outcome.roof_share;
    }
    if (small && (spec->problem.seq_len == 2048) && (strcmp(spec->name, "local") == 0)) {
        bar = small_bar_us;
        figure = bar * bar / outcome.total_us.median;
    }
    print_case(bench, spec, kernel, &outcome, bar, (bar > 0.0) ? figure / bar : 0.0);
    if (!run_right(&outcome)) {
        explain(spec->name, &outcome);
        ++bench->failed;
    }
}

/* -------------------------------------------------------------------------------------- options */

__attribute__((noreturn)) static void usage(const char *what, const char *value)
{
    (void)fprintf(stderr,
                  "attend_gpu: %s '%s'\nusage: attend_gpu [--kernel sm90|sm80|plain] [--cases "
                  "dense,sparse,lists,presets,small|all] [--seq N,..] [--repeats R] [--csv FILE] "
                  "[--packed] [--launches L] [--mask-dir DIR] [--pattern TEXT] [--heads H] "
                  "[--kv-heads H] [--head-dim D] [--block B] [--causal] [--batch b] "
                  "[--dtype f16|bf16|f32]\n",
                  what, value);
    exit(BSATTN_ERR_INPUT);
}

static int64_t size(const char *name, const char *text)
{
    int64_t value = 0;

    if (!bsattn_text_size(text, &value) || (value < 1)) {
        usage(name, text);
    }
    return value;
}

static int count(const char *name, const char *text)
{
    int64_t value = size(name, text);

    if (value > INT_MAX) {
        usage(name, text);
    }
    return (int)value;
}

static void read_seqs(bench_t *bench, char *list)
{
    char *item;

    while ((item = strsep(&list, ",")) != NULL) {
        if (bench->seq_count == SEQS_MAX) {
            usage("--seq has too many lengths, from", item);
        }
        bench->seqs[bench->seq_count++] = size("--seq", item);
    }
}

static void read_option(bench_t *bench, int option, char *value)
{
    bsattn_problem_t *p = &bench->problem;

    switch (option) {
    case 'k':
        bench->kernel = bsattn_gpu_kernel(value);
        if (bench->kernel == NULL) {
            usage("--kernel", value);
        }
        break;
    case 'c':
        bench->groups = value;
        break;
    case 's':
        read_seqs(bench, value);
        break;
    case 'r':
        bench->repeats = count("--repeats", value);
        break;
    case 'o':
        bench->csv = fopen(value, "w");
        if (bench->csv == NULL) {
            bsattn_gpu_end(BSATTN_ERR_FILE, value, "cannot be written");
        }
        break;
    case 'p':
        bench->packed = true;
        break;
    case 'l':
        bench->launches = count("--launches", value);
        break;
    case 'm':
        bench->mask_dir = value;
        break;
    case 't':
        if (strlen(value) >= sizeof(bench->cases[0].pattern)) {
            usage("--pattern is too long:", value);
        }
        bench->pattern = value;
        break;
    case 'h':
        p->heads_q = count("--heads", value);
        break;
    case 'g':
        p->heads_kv = count("--kv-heads", value);
        break;
    case 'd':
        p->head_dim = count("--head-dim", value);
        break;
    case 'b':
        p->block = count("--block", value);
        break;
    case 'C':
        p->causal = 1;
        break;
    case 'n':
        p->batch = size("--batch", value);
        break;
    case 'y':
        if (!bsattn_dtype_find(value, &p->dtype)) {
            usage("--dtype", value);
        }
        break;
    default:
        usage("unknown option", "");
    }
}

static void read_options(bench_t *bench, int argc, char **argv)
{
    static const struct option options[] = {
        {"kernel", required_argument, NULL, 'k'},   {"cases", required_argument, NULL, 'c'},
        {"seq", required_argument, NULL, 's'},      {"repeats", required_argument, NULL, 'r'},
        {"csv", required_argument, NULL, 'o'},      {"packed", no_argument, NULL, 'p'},
        {"launches", required_argument, NULL, 'l'}, {"pattern", required_argument, NULL, 't'},
        {"heads", required_argument, NULL, 'h'},    {"kv-heads", required_argument, NULL, 'g'},
        {"head-dim", required_argument, NULL, 'd'}, {"block", required_argument, NULL, 'b'},
        {"causal", no_argument, NULL, 'C'},         {"batch", required_argument, NULL, 'n'},
        {"dtype", required_argument, NULL, 'y'},    {"mask-dir", required_argument, NULL, 'm'},
        {NULL, 0, NULL, 0}};
    int option;

    bsattn_problem_init(&bench->problem);
    bench->problem.dtype = BSATTN_BF16;
    bench->problem.heads_q = 16;
    bench->problem.heads_kv = 0;
    bench->problem.head_dim = 128;
    bench->problem.block = 128;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        read_option(bench, option, optarg);
    }
    if (bench->problem.heads_kv == 0) {
        bench->problem.heads_kv = bench->problem.heads_q;
    }
    if ((bench->pattern != NULL) && (bench->seq_count == 0)) {
        bench->seqs[bench->seq_count++] = 16384;
    }
}

int main(int argc, char **argv)
{
    static bench_t bench = {.groups = "all", .repeats = 25, .launches = 1};
    const char *missing;
    int mask_file;

    read_options(&bench, argc, argv);
    missing = bsattn_gpu_missing();
    if (missing != NULL) {
        printf("skipped: %s\n", missing);
        return 77;
    }
    if (bench.mask_dir == NULL) {
        (void)snprintf(bench.mask_path, sizeof(bench.mask_path), "/tmp/attend_gpu_XXXXXX");
        mask_file = mkstemp(bench.mask_path);
        if (mask_file < 0) {
            bsattn_gpu_end(BSATTN_ERR_FILE, bench.mask_path, "cannot be made");
        }
        (void)close(mask_file);
    }
    add_cases(&bench);
    if (bench.case_count == 0) {
        usage("no case of these lengths in --cases", bench.groups);
    }
    bench.memory_rate = bsattn_gpu_memory_rate();
    printf("%s, %s, %d repeats; a copy moves %.2f TB/s\n", bsattn_gpu_name(),
           (bench.kernel != NULL) ? bench.kernel->name : "the fastest kernel", bench.repeats,
           1e-12 * bench.memory_rate);
    print_head(&bench);
    for (int i = 0; i < bench.case_count; ++i) {
        run_case(&bench, &bench.cases[i]);
    }
    if (bench.mask_dir == NULL) {
        (void)unlink(bench.mask_path);
    }
    if (bench.csv != NULL) {
        (void)fclose(bench.csv);
    }
    printf("%d cases, %d wrong\n", bench.case_count, bench.failed);
    return (bench.failed > 0) ? 1 : 0;
}
