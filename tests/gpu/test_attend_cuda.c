/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GPU kernels against the fp64 reference and against one another, over problems chosen by lot:
 *
 *     test_attend_cuda [KERNEL|all [COUNT [SEED [FIRST]]]]
 *
 * runs the problems FIRST .. FIRST + COUNT - 1 of a seed with one kernel, or with each that can
 * work here. A failure is told with the arguments that repeat it. Launches of attend_sm80 are divided only
 * where one of its CTAs fills a multiprocessor, which none does on Hopper.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/text.h"
#include "bench/compare_cuda.h"
#include "bench/device_cuda.h"
#include "bench/problem_cuda.h"
#include "cli/random_problem.h"

#define COUNT_OF(_array) (sizeof(_array) / sizeof((_array)[0]))

enum { LAUNCHES_MAX = 4, SPARE_MAX = 100, COUNT_DEFAULT = 200 };

static const double check_pairs = 2e6;

typedef enum plant {
    PLANT_NOTHING,
    PLANT_ONES,       /* all values 1: results 1 */
    PLANT_NAN_QUERY,  /* must stay in its row */
    PLANT_NAN_KEY,    /* must reach those that see it, and no others */
    PLANT_NAN_UNSEEN, /* keys and values of blocks that nobody sees: must reach nobody */
    PLANT_NAN_VALUE,  /* with sm90 told, not judged: 0 * NaN is NaN in a matrix product */
    PLANT_COUNT
} plant_t;

static const char *const plant_names[] = {"",           ", values 1",    ", a NaN query",
                                          ", a NaN key", ", NaN unseen", ", a NaN value"};

typedef struct test_case {
    const char *kernel_name;
    uint64_t seed;
    int64_t index;
    uint64_t lot;
    bsattn_random_problem_t drawn;
    bsattn_gpu_params_t params;
    plant_t plant;
    int64_t token; /* where the NaN is */
    bool without_lse;
} test_case_t;

static char mask_path[64];
static int64_t value_leaks;
static int64_t value_cases;

static int below(test_case_t *test, int count)
{
    test->lot += BSATTN_MIX_STEP;
    return (int)(bsattn_mix(test->lot) % (uint64_t)count);
}

static bool one_in(test_case_t *test, int count)
{
    return below(test, count) == 0;
}

/* ---------------------------------------------------------------------------------------- draws */

static void draw_shapes(test_case_t *test, const bsattn_cuda_kernel_t *kernel)
{
    static const int groups[] = {1, 2, 2, 3, 4, 8};
    /* Large ones: rows outgrow the reference of their first tile. */
    static const double scales[] = {-12.0, -0.2, 0.0, 1.0, 12.0};
    bsattn_problem_t *problem = &test->drawn.problem;

    if (kernel == &bsattn_attend_sm90) {
        problem->head_dim = one_in(test, 2) ? 64 : 128;
    }
    if (kernel != &bsattn_attend_plain) {
        problem->dtype = one_in(test, 2) ? BSATTN_F16 : BSATTN_BF16;
    }
    if (strchr(test->drawn.pattern, '@') == NULL) {
        problem->heads_q = problem->heads_kv * groups[below(test, COUNT_OF(groups))];
    }
    if (one_in(test, 4)) {
        problem->seq_len = 1 + below(test, 3000);
    }
    if (one_in(test, 4)) {
        problem->scale = scales[below(test, COUNT_OF(scales))];
    }
}

/* Masks without any structure, rows without keys among them. */
static void draw_mask_file(test_case_t *test)
{
    bsattn_problem_t *problem = &test->drawn.problem;
    int64_t nb = bsattn_problem_blocks(problem);
    int masks = one_in(test, 2) ? 1 : problem->heads_q;

    bsattn_gpu_write_mask(mask_path, masks, nb, 0, bsattn_min64(nb, 1 + below(test, 12)),
                          test->drawn.seed);
    (void)snprintf(test->drawn.pattern, sizeof(test->drawn.pattern), "blocks(file=%s)%s",
                   mask_path, one_in(test, 4) ? " | sink(tokens=40)" : "");
}

static void draw(test_case_t *test, const bsattn_cuda_kernel_t *kernel)
{
    bsattn_random_problem_draw(test->seed, test->index, &test->drawn);
    test->lot = bsattn_mix(test->drawn.seed);
    draw_shapes(test, kernel);
    if (one_in(test, 6)) {
        draw_mask_file(test);
    }
    test->params = (bsattn_gpu_params_t){
        .problem = test->drawn.problem,
        .pattern = test->drawn.pattern,
        .kernel = kernel,
        .sets = 1,
        .seed = test->drawn.seed,
    };
    test->params.launches = one_in(test, 2) ? 1 : 1 + below(test, LAUNCHES_MAX);
    test->params.packed = one_in(test, 3);
    test->params.heads_differ = one_in(test, 3);
    test->params.spare = one_in(test, 3) ? 1 + below(test, SPARE_MAX) : 0;
    test->params.order = (bsattn_gpu_order_t)below(test, BSATTN_GPU_ORDER_COUNT);
    test->plant = one_in(test, 2) ? PLANT_NOTHING : (plant_t)below(test, PLANT_COUNT);
    test->token = below(test, (int)test->drawn.problem.seq_len);
    test->without_lse = one_in(test, 6);
}

/* --------------------------------------------------------------------------------------- plants */

/* NaN in all blocks that no head of any query block uses. */
static void plant_unseen(bsattn_gpu_case_t *gpu)
{
    const bsattn_problem_t *problem = &gpu->params.problem;
    int64_t nb = bsattn_problem_blocks(problem);
    unsigned char *seen = bsattn_gpu_host_new((size_t)nb, 1);

    for (int h = 0; h < problem->heads_q; ++h) {
        for (int64_t i = 0; i < nb; ++i) {
            const bsattn_span_t *spans = NULL;
            size_t count = 0;
            bsattn_gpu_check_status(bsattn_pattern_row(gpu->pattern, h, i, &spans, &count),
                                    "pattern");
            for (size_t s = 0; s < count; ++s) {
                memset(seen + spans[s].first, 1, (size_t)(spans[s].last - spans[s].first));
            }
        }
    }
    for (int64_t j = 0; j < nb; ++j) {
        int64_t first = j * problem->block;
        if (seen[j] == 0) {
            int64_t count = bsattn_min64(problem->block, problem->seq_len - first);
            bsattn_gpu_case_fill(gpu, BSATTN_K, first, count, NAN);
            bsattn_gpu_case_fill(gpu, BSATTN_V, first, count, NAN);
        }
    }
    free(seen);
}

static void plant(const test_case_t *test, bsattn_gpu_case_t *gpu)
{
    switch (test->plant) {
    case PLANT_ONES:
        bsattn_gpu_case_fill(gpu, BSATTN_V, 0, gpu->params.problem.seq_len, 1.0f);
        break;
    case PLANT_NAN_QUERY:
        bsattn_gpu_case_fill(gpu, BSATTN_Q, test->token, 1, NAN);
        break;
    case PLANT_NAN_KEY:
        bsattn_gpu_case_fill(gpu, BSATTN_K, test->token, 1, NAN);
        break;
    case PLANT_NAN_VALUE:
        bsattn_gpu_case_fill(gpu, BSATTN_V, test->token, 1, NAN);
        break;
    case PLANT_NAN_UNSEEN:
        plant_unseen(gpu);
        break;
    default:
        break;
    }
    bsattn_gpu_case_pack(gpu);
}

/* --------------------------------------------------------------------------------------- checks */

static bool fails(const test_case_t *test, const char *what)
{
    const bsattn_problem_t *p = &test->drawn.problem;

    printf("FAILED: %s\n    test_attend_cuda %s 1 %" PRIu64 " %" PRId64 ": b %" PRId64 " N %" PRId64
           " Hq %d Hk %d D %d B %d %s%s scale %g, '%s', %d launches, %d spare in order %d%s%s%s\n",
           what, test->kernel_name, test->seed, test->index, p->batch, p->seq_len, p->heads_q,
           p->heads_kv, p->head_dim, p->block, bsattn_dtype_name(p->dtype),
           (p->causal != 0) ? " causal" : "", p->scale, test->drawn.pattern, test->params.launches,
           test->params.spare, (int)test->params.order, test->params.packed ? ", packed" : "",
           test->params.heads_differ ? ", heads differ" : "", plant_names[test->plant]);
    (void)fflush(stdout);
    return false;
}

static bool right(const test_case_t *test, const bsattn_gpu_errors_t *e, const char *with)
{
    char text[320];
    bool nan_planted = (test->plant == PLANT_NAN_QUERY) || (test->plant == PLANT_NAN_KEY) ||
                       (test->plant == PLANT_NAN_VALUE);

    if ((e->bad_rows == 0) && (e->spills == 0) && (nan_planted || (e->nonfinite == 0))) {
        return true;
    }
    bsattn_gpu_errors_text(e, with, text, sizeof(text));
    return fails(test, text);
}

/* Results of a run in host memory. */
typedef struct results {
    size_t o_count;
    size_t lse_count;
    float *o;
    float *lse;
} results_t;

static results_t results_of(const bsattn_gpu_case_t *gpu)
{
    const bsattn_problem_t *p = &gpu->params.problem;
    results_t results = {.lse_count = (size_t)(p->batch * p->heads_q * p->seq_len)};

    results.o_count = results.lse_count * (size_t)p->head_dim;
    results.o = bsattn_gpu_host_new(results.o_count, sizeof(float));
    results.lse = bsattn_gpu_host_new(results.lse_count, sizeof(float));
    bsattn_gpu_case_results(gpu, 0, results.o, results.lse);
    return results;
}

static void results_free(results_t *results)
{
    free(results->o);
    free(results->lse);
}

/* Bit for bit the same again, and without LSE: O the same, LSE not touched. */
static bool check_again(const test_case_t *test, bsattn_gpu_case_t *gpu)
{
    results_t first = results_of(gpu);
    results_t second;
    bool same;
    int error;

    for (int l = 0; test->without_lse && (l < test->params.launches); ++l) {
        gpu->launches[l].params[0].lse = NULL;
    }
    bsattn_gpu_case_poison(gpu);
    error = bsattn_gpu_case_run(gpu, 0);
    second = results_of(gpu);
    same = (error == 0) && (memcmp(first.o, second.o, first.o_count * sizeof(float)) == 0);
    for (size_t i = 0; i < first.lse_count; ++i) {
        if (test->without_lse) {
            same = same && isnan(second.lse[i]);
        } else {
            same = same && (bsattn_bits_of(first.lse[i]) == bsattn_bits_of(second.lse[i]));
        }
    }
    results_free(&first);
    results_free(&second);
    return same || fails(test, test->without_lse ? "another result without LSE"
                                                 : "another result the second time");
}

static bool check_ones(const test_case_t *test, const bsattn_gpu_case_t *gpu)
{
    double bound = (test->drawn.problem.dtype == BSATTN_F32)   ? 1e-5
                   : (test->drawn.problem.dtype == BSATTN_F16) ? 1e-3
                                                               : 8e-3;
    results_t results = results_of(gpu);
    bool good = true;

    for (size_t i = 0; i < results.o_count; ++i) {
        /* 0: a row without keys, which the reference has checked */
        good = good && ((fabs(results.o[i] - 1.0) <= bound) || (results.o[i] == 0.0f));
    }
    results_free(&results);
    return good || fails(test, "a mean of ones that is not 1");
}

/* The same in one pass, in place, by the obvious kernel: every row, where the reference samples. */
static bool check_plain(const test_case_t *test, const bsattn_gpu_case_t *gpu)
{
    bsattn_gpu_params_t params = test->params;
    bsattn_gpu_case_t other;
    bsattn_gpu_errors_t errors;
    int error;

    params.kernel = &bsattn_attend_plain;
    params.launches = 1;
    params.spare = 0;
    params.packed = false;
    params.heads_differ = false;
    bsattn_gpu_case_init(&other, &params);
    plant(test, &other);
    error = bsattn_gpu_case_run(&other, 0);
    if (error != 0) {
        bsattn_gpu_case_free(&other);
        return fails(test, bsattn_gpu_error_text(error));
    }
    errors = bsattn_gpu_case_compare_cases(gpu, &other);
    bsattn_gpu_case_free(&other);
    return right(test, &errors, "plain in one pass");
}

static bool check_case(const test_case_t *test, bsattn_gpu_case_t *gpu)
{
    bsattn_gpu_errors_t errors;
    int error;

    plant(test, gpu);
    bsattn_gpu_case_poison(gpu);
    error = bsattn_gpu_case_run(gpu, 0);
    if (error != 0) {
        (void)fails(test, bsattn_gpu_error_text(error));
        exit(1); /* nothing works in this process after a fault */
    }
    errors = bsattn_gpu_case_compare(gpu, 0, check_pairs);
    if ((test->plant == PLANT_NAN_VALUE) && (test->params.kernel == &bsattn_attend_sm90)) {
        ++value_cases;
        value_leaks += (errors.bad_rows > 0) ? 1 : 0;
        return ((errors.spills == 0) && (errors.bad_lse == 0)) ||
               right(test, &errors, "the reference");
    }
    if (!right(test, &errors, "the reference") || !check_plain(test, gpu) ||
        ((test->plant == PLANT_ONES) && !check_ones(test, gpu))) {
        return false;
    }
    return ((test->plant != PLANT_NOTHING) && (test->plant != PLANT_ONES)) ||
           check_again(test, gpu);
}

/* ----------------------------------------------------------------------------------------- main */

static int run_kernel(const char *name, int64_t count, uint64_t seed, int64_t first)
{
    const bsattn_cuda_kernel_t *kernel = bsattn_gpu_kernel(name);
    int failed = 0;
    int divided = 0;

    for (int64_t i = first; i < first + count; ++i) {
        test_case_t test = {.kernel_name = name, .seed = seed, .index = i};
        bsattn_gpu_case_t gpu;

        draw(&test, kernel);
        bsattn_gpu_case_init(&gpu, &test.params);
        divided += bsattn_gpu_case_divided(&gpu) ? 1 : 0;
        failed += check_case(&test, &gpu) ? 0 : 1;
        bsattn_gpu_case_free(&gpu);
    }
    printf("%s: %" PRId64 " cases, launches divided in %d, %d failed\n", name, count, divided,
           failed);
    if ((kernel == &bsattn_attend_sm90) && (divided == 0) && (count >= COUNT_DEFAULT)) {
        printf("FAILED: sm90: no launch was divided\n");
        ++failed;
    }
    return failed;
}

static int64_t argument(int argc, char **argv, int at, int64_t otherwise)
{
    int64_t value = otherwise;

    if ((argc > at) && (!bsattn_text_int64(argv[at], &value) || (value < 0))) {
        (void)fprintf(stderr, "test_attend_cuda: '%s' is not a count, a seed or a case\n",
                      argv[at]);
        exit(BSATTN_ERR_INPUT);
    }
    return value;
}

int main(int argc, char **argv)
{
    const char *wanted = (argc > 1) ? argv[1] : "all";
    const char *missing = bsattn_gpu_missing();
    int64_t count = argument(argc, argv, 2, COUNT_DEFAULT);
    uint64_t seed = (uint64_t)argument(argc, argv, 3, 1);
    int64_t first = argument(argc, argv, 4, 0);
    int failed = 0;
    int run = 0;
    int mask_file;

    if (missing != NULL) {
        printf("skipped: %s\n", missing);
        return 77;
    }
    (void)snprintf(mask_path, sizeof(mask_path), "/tmp/test_attend_cuda_XXXXXX");
    mask_file = mkstemp(mask_path);
    if (mask_file >= 0) {
        (void)close(mask_file);
    }
    for (int k = 0; k < BSATTN_CUDA_KERNEL_COUNT; ++k) {
        const char *name = bsattn_cuda_kernels[k]->name;
        if ((strcmp(wanted, "all") != 0) && (strcmp(wanted, name) != 0)) {
            continue;
        }
        if (bsattn_gpu_kernel_can(bsattn_cuda_kernels[k], BSATTN_BF16, 64)) {
            failed += run_kernel(name, count, seed, first);
            ++run;
        } else {
            printf("%s: left out, it is not in this build or not for this GPU\n", name);
        }
    }
    (void)unlink(mask_path);
    if (value_cases > 0) {
        printf("sm90: a NaN among the values reached rows that do not see it in %" PRId64
               " of %" PRId64 " cases\n",
               value_leaks, value_cases);
    }
    if (run == 0) {
        printf("skipped: no kernel '%s' works on this GPU\n", wanted);
        return 77;
    }
    return (failed > 0) ? 1 : 0;
}
