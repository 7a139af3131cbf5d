/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file attend_cpu.c
 * How fast is the CPU attention kernel beside the machine's sgemm, and what does sparsity cost?
 *
 *     attend_cpu [--threads T] [--repeats R] [--dtype f32|f16|bf16]
 *
 * Every case is timed in turns with its base, so that other load hits both: dense cases with a
 * large OpenBLAS sgemm on as many threads, the others with the dense case of the same type, head
 * dimension and block. A rate counts 4 * D floating point operations per unmasked pair; the ratio
 * is the median over the turns of rate / base rate. Outputs are poisoned before every run and
 * sampled rows of the last one compared with the fp64 reference: exit code 1 if one is off, or 0.
 */
#include <cblas.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/attend.h"
#include "kernels/reference.h"
#include "problem/problem.h"

enum { TOKENS = 4096, SGEMM_SIZE = 2048, REPEATS_MAX = 101, CHECK_ROWS = 24 };

typedef enum base { BASE_SGEMM, BASE_DENSE } base_t;

enum { LIST_DENSE = 0, LIST_CAUSAL = -1 };

typedef struct bench_case {
    const char *name;
    base_t base;
    bsattn_dtype_t dtype;
    int head_dim;
    int block;
    int list_blocks; /* random key blocks of each query block, or LIST_DENSE, LIST_CAUSAL */
    double bar;      /* least ratio, 0: none */
} bench_case_t;

static const bench_case_t bench_cases[] = {
    {"dense", BASE_SGEMM, BSATTN_F32, 64, 64, LIST_DENSE, 0.75},
    {"dense", BASE_SGEMM, BSATTN_F32, 128, 64, LIST_DENSE, 0.75},
    {"dense", BASE_SGEMM, BSATTN_F32, 64, 128, LIST_DENSE, 0.75},
    {"dense", BASE_SGEMM, BSATTN_F32, 128, 128, LIST_DENSE, 0.75},
    {"dense", BASE_SGEMM, BSATTN_F32, 256, 64, LIST_DENSE, 0},
    {"dense", BASE_SGEMM, BSATTN_F32, 64, 16, LIST_DENSE, 0},
    {"dense", BASE_SGEMM, BSATTN_BF16, 64, 64, LIST_DENSE, 0},
    {"dense", BASE_SGEMM, BSATTN_BF16, 128, 64, LIST_DENSE, 0},
    {"dense", BASE_SGEMM, BSATTN_BF16, 64, 128, LIST_DENSE, 0},
    {"dense", BASE_SGEMM, BSATTN_BF16, 64, 16, LIST_DENSE, 0},
    {"dense", BASE_SGEMM, BSATTN_F16, 64, 64, LIST_DENSE, 0},
    {"dense", BASE_SGEMM, BSATTN_F16, 128, 64, LIST_DENSE, 0},
    {"causal", BASE_DENSE, BSATTN_F32, 64, 64, LIST_CAUSAL, 0},
    {"sparse", BASE_DENSE, BSATTN_F32, 64, 64, 4, 0},
    {"sparse", BASE_DENSE, BSATTN_F32, 64, 64, 8, 0.85},
    {"sparse", BASE_DENSE, BSATTN_F32, 64, 64, 16, 0.85},
    {"sparse", BASE_DENSE, BSATTN_F32, 128, 64, 4, 0},
    {"sparse", BASE_DENSE, BSATTN_F32, 128, 64, 8, 0.85},
    {"sparse", BASE_DENSE, BSATTN_F32, 128, 64, 16, 0.85},
    {"sparse", BASE_DENSE, BSATTN_F32, 64, 128, 4, 0},
    {"sparse", BASE_DENSE, BSATTN_F32, 64, 128, 8, 0.85},
    {"sparse", BASE_DENSE, BSATTN_F32, 128, 128, 4, 0},
    {"sparse", BASE_DENSE, BSATTN_F32, 128, 128, 8, 0.85},
    {"sparse", BASE_DENSE, BSATTN_F32, 64, 16, 16, 0},
    {"causal", BASE_DENSE, BSATTN_BF16, 64, 64, LIST_CAUSAL, 0},
    {"sparse", BASE_DENSE, BSATTN_BF16, 64, 64, 4, 0},
    {"sparse", BASE_DENSE, BSATTN_BF16, 64, 64, 8, 0.85},
    {"sparse", BASE_DENSE, BSATTN_BF16, 64, 64, 16, 0.85},
    {"sparse", BASE_DENSE, BSATTN_BF16, 128, 64, 8, 0.85},
    {"sparse", BASE_DENSE, BSATTN_BF16, 128, 64, 16, 0.85},
    {"sparse", BASE_DENSE, BSATTN_BF16, 64, 128, 8, 0.85},
    {"sparse", BASE_DENSE, BSATTN_BF16, 64, 16, 16, 0},
};

static double now_s(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static uint64_t random_bits(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 32;
}

static float random_normal(uint64_t *state)
{
    double u = ((double)random_bits(state) + 1.0) * 0x1p-32;
    double angle = (double)random_bits(state) * 0x1p-32 * 6.283185307179586;

    return (float)(sqrt(-2.0 * log(u)) * cos(angle));
}

static void *memory_new(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);

    if (memory == NULL) {
        (void)fprintf(stderr, "attend_cpu: out of memory\n");
        exit(4);
    }
    memset(memory, 0, bytes);
    return memory;
}

static size_t element_size(bsattn_dtype_t dtype)
{
    return dtype == BSATTN_F32 ? 4 : 2;
}

/* -------------------------------------------------------------------------------------- tensors */

/* Values that all three types hold exactly, so that one fp32 copy serves the check: 5 bits of
 * fraction. */
static float coarse(float value)
{
    int exponent;
    float fraction = frexpf(value, &exponent);

    return ldexpf(rintf(fraction * 32.0f) / 32.0f, exponent < -8 ? -8 : exponent);
}

static void encode(void *to, int64_t index, float value, bsattn_dtype_t dtype)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    if (dtype == BSATTN_F32) {
        ((float *)to)[index] = value;
    } else if (dtype == BSATTN_BF16) {
        ((uint16_t *)to)[index] = (uint16_t)(bits >> 16);
    } else if (value == 0.0f) {
        ((uint16_t *)to)[index] = 0;
    } else {
        uint32_t magnitude = (bits & 0x7fffffffu) - (112u << 23);

        ((uint16_t *)to)[index] = (uint16_t)((bits >> 16 & 0x8000u) | magnitude >> 13);
    }
}

static float decode(const void *from, int64_t index, bsattn_dtype_t dtype)
{
    uint32_t bits;
    float value;

    if (dtype == BSATTN_F32) {
        return ((const float *)from)[index];
    }
    bits = ((const uint16_t *)from)[index];
    if (dtype == BSATTN_BF16) {
        bits <<= 16;
        memcpy(&value, &bits, sizeof(value));
        return value;
    }
    value = ldexpf((float)((bits & 0x3ffu) | ((bits & 0x7c00u) != 0 ? 0x400u : 0)),
                   (int)((bits & 0x7c00u) != 0 ? bits >> 10 & 31u : 1) - 25);
    value = (bits & 0x7c00u) == 0x7c00u ? NAN : value;
    return (bits & 0x8000u) != 0 ? -value : value;
}

/* One problem of one head, and everything a launch needs. */
typedef struct launch {
    const bench_case_t *spec;
    int list_blocks;
    bsattn_attend_params_t params;
    float *values[3]; /* q, k, v in fp32 */
    void *tensors[4]; /* q, k, v, o */
    bsattn_work_item_t *items;
    bsattn_key_run_t *runs;
    bsattn_work_list_t list;
    bsattn_chunk_head_t head;
    int list_of_head;
    double flops;
} launch_t;

static void launch_tensors(launch_t *launch, int threads)
{
    bsattn_attend_params_t *p = &launch->params;
    int64_t count = (int64_t)TOKENS * p->head_dim;
    uint64_t random = 7;

    for (int t = 0; t < 4; t++) {
        launch->tensors[t] = memory_new((size_t)count * element_size(p->dtype));
    }
    for (int t = 0; t < 3; t++) {
        launch->values[t] = memory_new((size_t)count * sizeof(float));
        for (int64_t i = 0; i < count; i++) {
            launch->values[t][i] = coarse(random_normal(&random));
            encode(launch->tensors[t], i, launch->values[t][i], p->dtype);
        }
    }
    p->q = launch->tensors[0];
    p->k = launch->tensors[1];
    p->v = launch->tensors[2];
    p->o = launch->tensors[3];
    p->lse = memory_new(TOKENS * sizeof(float));
    p->threads = threads;
    p->scratch =
        memory_new((size_t)threads * bsattn_attend_cpu_scratch_bytes(p->head_dim, p->block));
}

static void runs_dense(launch_t *launch, int row, int block_count)
{
    bsattn_work_item_t *item = &launch->items[row];
    bsattn_key_run_t *runs = &launch->runs[item->run_first];

    if (launch->list_blocks == LIST_DENSE) {
        runs[0] = (bsattn_key_run_t){0, block_count};
        item->run_count = 1;
        item->block_count = block_count;
        return;
    }
    runs[0] = (bsattn_key_run_t){item->row, 1};
    runs[1] = (bsattn_key_run_t){0, item->row};
    item->partial_count = 1;
    item->run_count = item->row > 0 ? 2 : 1;
    item->block_count = item->row + 1;
}

/* Distinct, ascending: Knuth's selection sampling. */
static void runs_random(launch_t *launch, int row, int block_count, uint64_t *random)
{
    bsattn_work_item_t *item = &launch->items[row];
    int wanted = launch->list_blocks;

    for (int slot = 0; slot < block_count && wanted > 0; slot++) {
        if (random_bits(random) % (uint64_t)(block_count - slot) < (uint64_t)wanted) {
            launch->runs[item->run_first + item->run_count++] = (bsattn_key_run_t){slot, 1};
            wanted--;
        }
    }
    item->block_count = item->run_count;
}

static void launch_lists(launch_t *launch)
{
    bsattn_attend_params_t *p = &launch->params;
    int block_count = TOKENS / p->block;
    uint64_t random = 11;
    double pairs = 0.0;

    launch->items = memory_new((size_t)block_count * sizeof(*launch->items));
    launch->runs = memory_new((size_t)block_count * (size_t)block_count * sizeof(*launch->runs));
    for (int row = 0; row < block_count; row++) {
        launch->items[row] = (bsattn_work_item_t){.row = block_count - 1 - row,
                                                  .first = 1,
                                                  .last = 1,
                                                  .run_first = (int64_t)row * block_count};
        if (launch->list_blocks > 0) {
            runs_random(launch, row, block_count, &random);
        } else {
            runs_dense(launch, row, block_count);
        }
        pairs += (double)launch->items[row].block_count * p->block * p->block;
        pairs -= launch->items[row].partial_count * 0.5 * p->block * (p->block - 1);
    }
    launch->flops = 4.0 * pairs * p->head_dim;
    launch->list = (bsattn_work_list_t){launch->items, block_count, launch->runs};
    p->lists = &launch->list;
    p->list_count = 1;
    p->list_of_head = &launch->list_of_head;
}

static launch_t *launch_new(const bench_case_t *spec, int list_blocks, int threads)
{
    launch_t *launch = memory_new(sizeof(*launch));
    bsattn_attend_params_t *p = &launch->params;

    launch->spec = spec;
    launch->list_blocks = list_blocks;
    launch->head = (bsattn_chunk_head_t){0, TOKENS};
    p->batch = 1;
    p->heads_q = 1;
    p->heads_kv = 1;
    p->head_dim = spec->head_dim;
    p->block = spec->block;
    p->dtype = spec->dtype;
    p->scale = (float)(1.0 / sqrt(spec->head_dim));
    p->tokens = TOKENS;
    p->tokens_kv = TOKENS;
    p->heads = &launch->head;
    launch_tensors(launch, threads);
    launch_lists(launch);
    return launch;
}

static void launch_free(launch_t *launch)
{
    for (int t = 0; t < 3; t++) {
        free(launch->values[t]);
    }
    for (int t = 0; t < 4; t++) {
        free(launch->tensors[t]);
    }
    free(launch->params.lse);
    free(launch->params.scratch);
    free(launch->items);
    free(launch->runs);
    free(launch);
}

/** @return FLOP/s of so many runs as make up a dense one, outputs poisoned before each. */
static double launch_time(launch_t *launch)
{
    bsattn_attend_params_t *p = &launch->params;
    double dense_flops = 4.0 * TOKENS * TOKENS * p->head_dim;
    int run_count = (int)fmax(1.0, dense_flops / launch->flops);
    double time_s = 0.0;

    for (int i = 0; i < run_count; i++) {
        double start;

        memset(p->o, 0xff, (size_t)TOKENS * (size_t)p->head_dim * element_size(p->dtype));
        memset(p->lse, 0xff, TOKENS * sizeof(float));
        start = now_s();
        bsattn_attend_cpu(p, 0, INT64_MAX);
        time_s += now_s() - start;
    }
    return run_count * launch->flops / time_s;
}

/* ---------------------------------------------------------------------------------------- check */

static double row_reference(const launch_t *launch, int64_t token, bsattn_reference_t *reference)
{
    const bsattn_attend_params_t *p = &launch->params;
    const bsattn_work_item_t *item = &launch->items[TOKENS / p->block - 1 - token / p->block];

    bsattn_reference_begin(reference, p->head_dim, p->scale,
                           launch->values[0] + token * p->head_dim);
    for (int r = 0; r < item->run_count; r++) {
        bsattn_key_run_t run = launch->runs[item->run_first + r];
        int64_t first = (int64_t)run.slot * p->block * p->head_dim;
        int64_t count = (int64_t)run.count * p->block;

        bsattn_reference_add(reference, launch->values[1] + first, launch->values[2] + first,
                             r < item->partial_count ? token % p->block + 1 : count);
    }
    return bsattn_reference_end(reference);
}

static int launch_check(const launch_t *launch)
{
    const bsattn_attend_params_t *p = &launch->params;
    double bound = p->dtype == BSATTN_F32 ? 1e-5 : p->dtype == BSATTN_F16 ? 2e-3 : 1e-2;
    double error = 0.0;
    double norm = 0.0;
    double lse_error = 0.0;

    for (int64_t i = 0; i < CHECK_ROWS; i++) {
        int64_t token = i * (TOKENS - 1) / (CHECK_ROWS - 1);
        bsattn_reference_t reference;

        lse_error = fmax(lse_error, fabs(p->lse[token] - row_reference(launch, token, &reference)));
        for (int d = 0; d < p->head_dim; d++) {
            double out = decode(p->o, token * p->head_dim + d, p->dtype);

            error += (out - reference.out[d]) * (out - reference.out[d]);
            norm += reference.out[d] * reference.out[d];
        }
    }
    for (int64_t i = 0; i < (int64_t)TOKENS * p->head_dim; i++) {
        error += decode(p->o, i, p->dtype) * 0.0;
    }
    return sqrt(error / norm) <= bound && lse_error <= 1e-4;
}

/* --------------------------------------------------------------------------------------- timing */

typedef struct sgemm {
    float *a;
    float *b;
    float *c;
} sgemm_t;

static sgemm_t sgemm_new(void)
{
    size_t count = (size_t)SGEMM_SIZE * SGEMM_SIZE;
    sgemm_t sgemm = {memory_new(count * sizeof(float)), memory_new(count * sizeof(float)),
                     memory_new(count * sizeof(float))};
    uint64_t random = 3;

    for (size_t i = 0; i < count; i++) {
        sgemm.a[i] = random_normal(&random);
        sgemm.b[i] = random_normal(&random);
    }
    return sgemm;
}

static double sgemm_time(const sgemm_t *sgemm)
{
    double start = now_s();
    const int n = SGEMM_SIZE;

    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, 1.0f, sgemm->a, n, sgemm->b, n,
                0.0f, sgemm->c, n);
    return 2.0 * n * n * n / (now_s() - start);
}

static int double_compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof(double), double_compare);
    return values[count / 2];
}

/** Time one case in turns with its base and print its row. @return whether the results were right
 */
static int case_run(const bench_case_t *spec, const sgemm_t *sgemm, int threads, int repeats)
{
    static const char *const base_names[] = {"sgemm", "dense"};
    double rates[REPEATS_MAX];
    double bases[REPEATS_MAX];
    double ratios[REPEATS_MAX];
    launch_t *launch = launch_new(spec, spec->list_blocks, threads);
    launch_t *dense = spec->base == BASE_DENSE ? launch_new(spec, LIST_DENSE, threads) : NULL;
    char list[16] = "all";
    const char *verdict = "-";
    int right;

    for (int i = -1; i < repeats; i++) {
        double rate = launch_time(launch);
        double base = dense != NULL ? launch_time(dense) : sgemm_time(sgemm);

        if (i >= 0) {
            rates[i] = rate * 1e-9;
            bases[i] = base * 1e-9;
            ratios[i] = rate / base;
        }
    }
    right = launch_check(launch);
    if (spec->list_blocks > 0) {
        (void)snprintf(list, sizeof(list), "%d", spec->list_blocks);
    }
    double ratio = median(ratios, repeats);
    if (spec->bar > 0) {
        verdict = ratio >= spec->bar ? "PASS" : "MISS";
    }
    printf("%-7s %-8s %7d %-5s %8d %5d %5s %9.1f %-5s %9.1f %6.3f %5.2f %-4s %s\n", spec->name,
           bsattn_attend_cpu_isa(), threads, bsattn_dtype_name(spec->dtype), spec->head_dim,
           spec->block, list, median(rates, repeats), base_names[spec->base],
           median(bases, repeats), ratio, spec->bar, verdict, right ? "right" : "WRONG");
    (void)fflush(stdout);
    launch_free(launch);
    if (dense != NULL) {
        launch_free(dense);
    }
    return right;
}

static int option_number(const char *text, int max)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (*text == '\0' || *end != '\0' || value < 1 || value > max) {
        (void)fprintf(stderr, "attend_cpu: \"%s\" is not a number from 1 to %d\n", text, max);
        exit(2);
    }
    return (int)value;
}

static int option_dtype(const char *text)
{
    bsattn_dtype_t dtype = BSATTN_F32;

    if (!bsattn_dtype_find(text, &dtype)) {
        (void)fprintf(stderr, "attend_cpu: \"%s\" is not f32, f16 or bf16\n", text);
        exit(2);
    }
    return (int)dtype;
}

int main(int argc, char **argv)
{
    int threads = 1;
    int repeats = 9;
    int only_dtype = -1;
    int right = 1;
    sgemm_t sgemm;

    for (int i = 1; i < argc; i += 2) {
        if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            threads = option_number(argv[i + 1], 1024);
        } else if (strcmp(argv[i], "--repeats") == 0 && i + 1 < argc) {
            repeats = option_number(argv[i + 1], REPEATS_MAX);
        } else if (strcmp(argv[i], "--dtype") == 0 && i + 1 < argc) {
            only_dtype = option_dtype(argv[i + 1]);
        } else {
            (void)fprintf(stderr,
                          "usage: attend_cpu [--threads T] [--repeats R] [--dtype f32|f16|bf16]\n");
            return 2;
        }
    }
    openblas_set_num_threads(threads);
    sgemm = sgemm_new();
    printf("# attention of %d tokens, one head, random normal; sgemm %d^3 by OpenBLAS, kernel %s\n",
           TOKENS, SGEMM_SIZE, openblas_get_corename());
    printf("# medians of %d turns; rates in GFLOP/s; list is key blocks per query block\n",
           repeats);
    printf("# case  isa      threads dtype head_dim block  list      rate base  base_rate  ratio"
           "   bar met  check\n");
    for (size_t i = 0; i < sizeof(bench_cases) / sizeof(bench_cases[0]); i++) {
        if (only_dtype < 0 || only_dtype == (int)bench_cases[i].dtype) {
            right &= case_run(&bench_cases[i], &sgemm, threads, repeats);
        }
    }
    free(sgemm.a);
    free(sgemm.b);
    free(sgemm.c);
    return right ? 0 : 1;
}
