/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/compare_cuda.h"

#include "base/bits.h"
#include "base/half.h"
#include "bench/device_cuda.h"
#include "kernels/reference.h"
#include "problem/pattern.h"
#include "problem/problem.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS_SAMPLED = 3, ROWS_SAMPLED_MIN = 12 };

/* SPEC's of ||O - R|| / ||R||, here for every row, and without what fp32 scores may be off, which is added
 * to it. */
static double bound_of(bsattn_dtype_t dtype)
{
    return (dtype == BSATTN_F32) ? 1e-5 : (dtype == BSATTN_F16) ? 2e-3 : 1e-2;
}

static const double lse_bound = 1e-4;

/* One head's rows of a tensor [b, N, H, D] in host memory. */
static void *fetch_head(const bsattn_gpu_case_t *gpu, const void *tensor, int heads, int64_t b,
                        int head)
{
    const bsattn_problem_t *problem = &gpu->params.problem;
    size_t row_bytes = bsattn_problem_row_bytes(problem);
    size_t token_bytes = row_bytes * (size_t)heads;
    void *rows = bsattn_gpu_host_new((size_t)problem->seq_len, row_bytes);

    BSATTN_GPU_TRY(
        cudaMemcpy2D(rows, row_bytes,
                     (const char *)tensor + (size_t)(b * problem->seq_len) * token_bytes +
                         (size_t)head * row_bytes,
                     token_bytes, row_bytes, (size_t)problem->seq_len, cudaMemcpyDeviceToHost));
    return rows;
}

/* What a head's rows are compared from. */
typedef struct head_data {
    const bsattn_gpu_case_t *gpu;
    int64_t batch;
    int head;
    char *q;
    char *k;
    char *v;
    char *o;
    float *lse;
} head_data_t;

static head_data_t head_fetch(const bsattn_gpu_case_t *gpu, int set, int64_t b, int head)
{
    const bsattn_problem_t *problem = &gpu->params.problem;
    const bsattn_gpu_set_t *from = &gpu->sets[set];
    int head_kv = head / (problem->heads_q / problem->heads_kv);
    head_data_t data = {.gpu = gpu, .batch = b, .head = head};

    data.q = fetch_head(gpu, from->q, problem->heads_q, b, head);
    data.o = fetch_head(gpu, from->o, problem->heads_q, b, head);
    data.k = fetch_head(gpu, from->k, problem->heads_kv, b, head_kv);
    data.v = fetch_head(gpu, from->v, problem->heads_kv, b, head_kv);
    data.lse = bsattn_gpu_host_new((size_t)problem->seq_len, sizeof(float));
    BSATTN_GPU_TRY(cudaMemcpy(data.lse,
                              from->lse + (b * problem->heads_q + head) * problem->seq_len,
                              (size_t)problem->seq_len * sizeof(float), cudaMemcpyDeviceToHost));
    return data;
}

static void head_release(head_data_t *data)
{
    free(data->q);
    free(data->k);
    free(data->v);
    free(data->o);
    free(data->lse);
}

/* Keys first .. last - 1, a few at a time. */
static void reference_span(const head_data_t *data, bsattn_reference_t *reference, int64_t first,
                           int64_t last)
{
    enum { PART = 64 };
    const bsattn_problem_t *problem = &data->gpu->params.problem;
    size_t row_bytes = bsattn_problem_row_bytes(problem);
    float k[PART * BSATTN_REFERENCE_HEAD_DIM_MAX];
    float v[PART * BSATTN_REFERENCE_HEAD_DIM_MAX];

    for (int64_t at = first; at < last; at += PART) {
        int64_t count = bsattn_min64(PART, last - at);
        bsattn_convert_to_f32(problem->dtype, data->k + (size_t)at * row_bytes,
                              count * problem->head_dim, k);
        bsattn_convert_to_f32(problem->dtype, data->v + (size_t)at * row_bytes,
                              count * problem->head_dim, v);
        bsattn_reference_add(reference, k, v, count);
    }
}

static double reference_row(const head_data_t *data, int64_t row, bsattn_row_work_t *work,
                            bsattn_spans_t *spans, bsattn_reference_t *reference)
{
    const bsattn_problem_t *problem = &data->gpu->params.problem;
    const bsattn_pattern_t *pattern = data->gpu->pattern;
    float query[BSATTN_REFERENCE_HEAD_DIM_MAX];

    bsattn_convert_to_f32(problem->dtype, data->q + (size_t)row * bsattn_problem_row_bytes(problem),
                          problem->head_dim, query);
    bsattn_reference_begin(reference, problem->head_dim, (float)bsattn_problem_scale(problem),
                           query);
    bsattn_gpu_check_status(bsattn_pattern_class_row(pattern, pattern->class_of_head[data->head],
                                                     row / problem->block, work, spans),
                            "pattern");
    for (size_t s = 0; s < spans->count; ++s) {
        int64_t last = bsattn_min64(spans->items[s].last * (int64_t)problem->block,
                                    problem->causal ? row + 1 : problem->seq_len);
        reference_span(data, reference, spans->items[s].first * (int64_t)problem->block, last);
    }
    return bsattn_reference_end(reference);
}

/* What is NaN in the reference must be NaN in the result, and nothing else is. @return whether it is
 * right */
static bool row_right(bsattn_dtype_t dtype, int head_dim, const double *expected,
                      double expected_lse, const float *out, double lse,
                      bsattn_gpu_errors_t *errors)
{
    double error = 0.0;
    double norm = 0.0;
    bool lse_same = (expected_lse == lse) || (isnan(expected_lse) && isnan(lse));
    double lse_error = lse_same ? 0.0 : fabs(expected_lse - lse);
    /* Scores, of which the LSE is about the largest, are sums of D products: good to some ten units
     * in their last place. By as much as a score is off, probabilities are off relatively. */
    double score_error = isfinite(expected_lse) ? 2e-6 * fabs(expected_lse) : 0.0;
    bool lse_right;

    for (int d = 0; d < head_dim; ++d) {
        if (isnan(expected[d])) {
            error += isnan(out[d]) ? 0.0 : INFINITY;
        } else {
            error += (out[d] - expected[d]) * (out[d] - expected[d]);
            norm += expected[d] * expected[d];
        }
    }
    error = (error == 0.0) ? 0.0 : (norm == 0.0) ? INFINITY : sqrt(error / norm);
    errors->out = (error > errors->out) || isnan(error) ? error : errors->out;
    errors->lse = (lse_error > errors->lse) || isnan(lse_error) ? lse_error : errors->lse;
    lse_right = lse_error <= lse_bound + score_error;
    errors->bad_lse += lse_right ? 0 : 1;
    return lse_right && (error <= bound_of(dtype) + score_error);
}

void bsattn_gpu_errors_merge(bsattn_gpu_errors_t *all, const bsattn_gpu_errors_t *some)
{
    if ((all->bad_rows == 0) && (some->bad_rows > 0)) {
        all->bad_batch = some->bad_batch;
        all->bad_head = some->bad_head;
        all->bad_row = some->bad_row;
    }
    all->rows += some->rows;
    all->bad_rows += some->bad_rows;
    all->bad_lse += some->bad_lse;
    all->nonfinite += some->nonfinite;
    all->spills += some->spills;
    all->out = (some->out > all->out) || isnan(some->out) ? some->out : all->out;
    all->lse = (some->lse > all->lse) || isnan(some->lse) ? some->lse : all->lse;
}

void bsattn_gpu_errors_text(const bsattn_gpu_errors_t *errors, const char *with, char *out,
                            size_t size)
{
    (void)snprintf(
        out, size,
        "with %s: %" PRId64 " of %" PRId64 " rows off, %" PRId64
        " by their LSE, first: batch %d head %d row %" PRId64 "; error %.3g, LSE %.3g; %" PRId64
        " elements not finite; %" PRId64 " bytes written beside outputs and states",
        with, errors->bad_rows, errors->rows, errors->bad_lse, errors->bad_batch, errors->bad_head,
        errors->bad_row, errors->out, errors->lse, errors->nonfinite, errors->spills);
}

static void note_bad(bsattn_gpu_errors_t *errors, int64_t b, int head, int64_t row)
{
    if (errors->bad_rows++ == 0) {
        errors->bad_batch = (int)b;
        errors->bad_head = head;
        errors->bad_row = row;
    }
}

/* @param rows  to compare, spread over all */
static void compare_head(const head_data_t *data, int64_t rows, bsattn_gpu_errors_t *errors)
{
    const bsattn_problem_t *problem = &data->gpu->params.problem;
    size_t row_bytes = bsattn_problem_row_bytes(problem);

#pragma omp parallel
    {
        bsattn_gpu_errors_t mine = {0};
        bsattn_row_work_t work = {0};
        bsattn_spans_t spans = {0};
        bsattn_reference_t reference;
        float out[BSATTN_REFERENCE_HEAD_DIM_MAX];

#pragma omp for schedule(dynamic, 4)
        for (int64_t i = 0; i < rows; ++i) {
            /* The last row is among them; odd steps meet all places of a tile. */
            int64_t row = problem->seq_len - 1 - i * problem->seq_len / rows;
            double lse = reference_row(data, row, &work, &spans, &reference);

            bsattn_convert_to_f32(problem->dtype, data->o + (size_t)row * row_bytes,
                                  problem->head_dim, out);
            ++mine.rows;
            if (!row_right(problem->dtype, problem->head_dim, reference.out, lse, out,
                           (double)data->lse[row], &mine)) {
                note_bad(&mine, data->batch, data->head, row);
            }
        }
        bsattn_row_work_free(&work);
        bsattn_spans_free(&spans);
#pragma omp critical
        bsattn_gpu_errors_merge(errors, &mine);
    }
}

static bool element_finite(const void *values, int64_t index, bsattn_dtype_t dtype)
{
    if (dtype == BSATTN_F32) {
        return isfinite(((const float *)values)[index]) != 0;
    }
    return (dtype == BSATTN_F16) ? (((const uint16_t *)values)[index] & 0x7c00u) != 0x7c00u
                                 : (((const uint16_t *)values)[index] & 0x7f80u) != 0x7f80u;
}

static int64_t count_spills(const void *behind)
{
    unsigned char *guard = bsattn_gpu_host_new(BSATTN_GPU_GUARD_BYTES, 1);
    int64_t spills = 0;

    BSATTN_GPU_TRY(cudaMemcpy(guard, behind, BSATTN_GPU_GUARD_BYTES, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < BSATTN_GPU_GUARD_BYTES; ++i) {
        spills += (guard[i] != 0xff) ? 1 : 0;
    }
    free(guard);
    return spills;
}

/* What lies between the states of the groups of rows. */
static int64_t count_between(const bsattn_gpu_case_t *gpu, const float *state, int row_floats)
{
    size_t row_bytes = (size_t)row_floats * sizeof(float);
    size_t group_bytes = gpu->state_group_rows * row_bytes;
    size_t bytes = gpu->state_rows * row_bytes;
    unsigned char *copy;
    int64_t spills = 0;

    if (state == NULL) {
        return 0;
    }
    copy = bsattn_gpu_host_new(bytes, 1);
    BSATTN_GPU_TRY(cudaMemcpy(copy, state, bytes, cudaMemcpyDeviceToHost));
    for (size_t first = group_bytes; first < bytes; first += 2 * group_bytes) {
        for (size_t i = first; i < first + group_bytes; ++i) {
            spills += (copy[i] != 0xff) ? 1 : 0;
        }
    }
    free(copy);
    return spills;
}

/* Everything is written, and nothing behind it. */
static void scan_outputs(const bsattn_gpu_case_t *gpu, int set, bsattn_gpu_errors_t *errors)
{
    const bsattn_problem_t *problem = &gpu->params.problem;
    const bsattn_gpu_set_t *from = &gpu->sets[set];
    int64_t count = bsattn_gpu_q_count(problem);
    size_t bytes = (size_t)count * bsattn_dtype_size(problem->dtype);
    void *o = bsattn_gpu_host_new(bytes, 1);
    int64_t nonfinite = 0;

    BSATTN_GPU_TRY(cudaMemcpy(o, from->o, bytes, cudaMemcpyDeviceToHost));
#pragma omp parallel for reduction(+ : nonfinite) schedule(static)
    for (int64_t i = 0; i < count; ++i) {
        nonfinite += element_finite(o, i, problem->dtype) ? 0 : 1;
    }
    errors->nonfinite = nonfinite;
    errors->spills = count_spills((const char *)from->o + bytes) +
                     count_spills((const char *)from->lse + bsattn_gpu_lse_bytes(problem)) +
                     count_between(gpu, gpu->state_o, problem->head_dim) +
                     count_between(gpu, gpu->state_ml, 2);
    free(o);
}

bsattn_gpu_errors_t bsattn_gpu_case_compare(const bsattn_gpu_case_t *gpu, int set, double pairs_max)
{
    const bsattn_problem_t *problem = &gpu->params.problem;
    int64_t heads = problem->batch * problem->heads_q;
    double pairs_row = gpu->flops / (4.0 * problem->head_dim) / (double)(heads * problem->seq_len);
    double rows_all = pairs_max / fmax(1.0, pairs_row);
    bool all = rows_all >= (double)(heads * problem->seq_len);
    int64_t sampled = (all || (rows_all >= (double)(heads * ROWS_SAMPLED_MIN)))
                          ? heads
                          : bsattn_min64(heads, HEADS_SAMPLED);
    int64_t rows = (int64_t)fmax(ROWS_SAMPLED_MIN, rows_all / (double)sampled);
    bsattn_gpu_errors_t errors = {0};

    scan_outputs(gpu, set, &errors);
    for (int64_t i = 0; i < sampled; ++i) {
        int64_t which = (sampled > 1) ? i * (heads - 1) / (sampled - 1) : 0;
        head_data_t data =
            head_fetch(gpu, set, which / problem->heads_q, (int)(which % problem->heads_q));
        compare_head(&data, bsattn_min64(rows, problem->seq_len), &errors);
        head_release(&data);
    }
    return errors;
}

bsattn_gpu_errors_t bsattn_gpu_case_compare_sets(const bsattn_gpu_case_t *gpu, double pairs_max)
{
    bsattn_gpu_errors_t errors = {0};

    for (int set = 0; set < gpu->params.sets; ++set) {
        bsattn_gpu_errors_t some = bsattn_gpu_case_compare(gpu, set, pairs_max / gpu->params.sets);
        bsattn_gpu_errors_merge(&errors, &some);
    }
    return errors;
}

void bsattn_gpu_case_results(const bsattn_gpu_case_t *gpu, int set, float *o, float *lse)
{
    const bsattn_problem_t *problem = &gpu->params.problem;
    size_t bytes = (size_t)bsattn_gpu_q_count(problem) * bsattn_dtype_size(problem->dtype);
    void *encoded = bsattn_gpu_host_new(bytes, 1);

    BSATTN_GPU_TRY(cudaMemcpy(encoded, gpu->sets[set].o, bytes, cudaMemcpyDeviceToHost));
    bsattn_convert_to_f32(problem->dtype, encoded, bsattn_gpu_q_count(problem), o);
    BSATTN_GPU_TRY(
        cudaMemcpy(lse, gpu->sets[set].lse, bsattn_gpu_lse_bytes(problem), cudaMemcpyDeviceToHost));
    free(encoded);
}

/* The difference of two results is held to the bound of one: both are expected to lie well within it. */
bsattn_gpu_errors_t bsattn_gpu_case_compare_cases(const bsattn_gpu_case_t *gpu,
                                                  const bsattn_gpu_case_t *other)
{
    const bsattn_problem_t *problem = &gpu->params.problem;
    size_t count = (size_t)bsattn_gpu_q_count(problem);
    float *o[2] = {bsattn_gpu_host_new(count, sizeof(float)),
                   bsattn_gpu_host_new(count, sizeof(float))};
    float *lse[2] = {bsattn_gpu_host_new(bsattn_gpu_lse_bytes(problem), 1),
                     bsattn_gpu_host_new(bsattn_gpu_lse_bytes(problem), 1)};
    int64_t heads = problem->batch * problem->heads_q;
    bsattn_gpu_errors_t errors = {0};

    bsattn_gpu_case_results(gpu, 0, o[0], lse[0]);
    bsattn_gpu_case_results(other, 0, o[1], lse[1]);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < heads * problem->seq_len; ++i) {
        int64_t x = i / problem->seq_len;
        int64_t row = i % problem->seq_len;
        int64_t at = ((x / problem->heads_q * problem->seq_len + row) * problem->heads_q +
                      x % problem->heads_q) *
                     problem->head_dim;
        double expected[BSATTN_REFERENCE_HEAD_DIM_MAX];
        bsattn_gpu_errors_t mine = {.rows = 1};

        for (int d = 0; d < problem->head_dim; ++d) {
            expected[d] = (double)o[1][at + d];
        }
        if (!row_right(problem->dtype, problem->head_dim, expected, (double)lse[1][i], o[0] + at,
                       (double)lse[0][i], &mine)) {
            note_bad(&mine, x / problem->heads_q, (int)(x % problem->heads_q), row);
        }
#pragma omp critical
        bsattn_gpu_errors_merge(&errors, &mine);
    }
    for (int i = 0; i < 2; ++i) {
        free(o[i]);
        free(lse[i]);
    }
    return errors;
}
