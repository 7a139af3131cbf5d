/* SPDX-License-Identifier: Apache-2.0 */
/* Results against an fp64 reference, on groups of query rows that share a block and a head, hence
 * their keys. */
#include "base/half.h"
#include "base/philox.h"
#include "base/text.h"
#include "kernels/reference.h"
#include "problem/problem.h"
#include "ring/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_PER_GROUP = 4, KEYS_AT_ONCE = 256, SAMPLE_STREAM = 0x63686b };

/* Rows of one query block and head. Local rows: token r of the block is checked if chosen[r]. */
typedef struct group {
    int local;
    int64_t batch;
    int head;
    int64_t slot;  /* query block at the local rank */
    int64_t block; /* the same in the sequence */
    int64_t tokens;
    unsigned char chosen[256];
} group_t;

typedef struct check {
    const bsattn_plan_t *plan;
    const bsattn_tensors_t *tensors;
    bsattn_rows_func_t read_rows;
    void *arg;
} check_t;

/* What one rank, or all, found. */
typedef struct tally {
    int64_t rows;
    double error2; /* sum of (O - R)^2 */
    double norm2;  /* sum of R^2 */
    double lse;    /* largest |LSE - reference| */
} tally_t;

/* Buffers of one thread. */
typedef struct work {
    bsattn_row_work_t row_work;
    bsattn_spans_t row;
    bsattn_reference_t *references; /* [B] */
    float *keys;                    /* [KEYS_AT_ONCE, D] */
    float *values;
    float *out;     /* [D] */
    char *o;        /* [B, D] of the problem's type: results of a group, in host memory */
    float *lse;     /* [B] */
} work_t;

static const double out_tolerance[] = {
    [BSATTN_F32] = 1e-5, [BSATTN_F16] = 2e-3, [BSATTN_BF16] = 1e-2};
static const double lse_tolerance[] = {
    [BSATTN_F32] = 1e-4, [BSATTN_F16] = 1e-2, [BSATTN_BF16] = 1e-2};

static void work_free(work_t *work)
{
    bsattn_row_work_free(&work->row_work);
    bsattn_spans_free(&work->row);
    free(work->references);
    free(work->keys);
    free(work->values);
    free(work->out);
    free(work->o);
    free(work->lse);
}

static bsattn_status_t work_init(work_t *work, const bsattn_problem_t *problem)
{
    size_t tile = (size_t)KEYS_AT_ONCE * (size_t)problem->head_dim * sizeof(float);

    *work = (work_t){0};
    work->references = malloc((size_t)problem->block * sizeof(*work->references));
    work->keys = malloc(tile);
    work->values = malloc(tile);
    work->out = malloc((size_t)problem->head_dim * sizeof(float));
    work->o = malloc((size_t)problem->block * bsattn_problem_row_bytes(problem));
    work->lse = malloc((size_t)problem->block * sizeof(float));
    if ((work->references == NULL) || (work->keys == NULL) || (work->values == NULL) ||
        (work->out == NULL) || (work->o == NULL) || (work->lse == NULL)) {
        work_free(work);
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to check results");
    }
    return BSATTN_OK;
}

/* A NaN must win. */
static double worse(double a, double b)
{
    return (isnan(a) || (a > b)) ? a : b;
}

static bsattn_status_t begin_group(const check_t *check, const group_t *group, work_t *work)
{
    const bsattn_problem_t *problem = &check->plan->problem;

    for (int64_t r = 0; r < group->tokens; ++r) {
        if (group->chosen[r]) {
            BSATTN_TRY(check->read_rows(check->arg, BSATTN_Q, group->batch, group->head,
                                        group->block * problem->block + r, 1, work->out));
            bsattn_reference_begin(&work->references[r], problem->head_dim,
                                   bsattn_problem_scale(problem), work->out);
        }
    }
    return BSATTN_OK;
}

/* Add keys first .. first + count - 1 of the sequence to every chosen row that may see them. */
static bsattn_status_t add_keys(const check_t *check, const group_t *group, work_t *work,
                                int64_t first, int64_t count)
{
    const bsattn_problem_t *problem = &check->plan->problem;
    int head_kv = group->head / (problem->heads_q / problem->heads_kv);

    BSATTN_TRY(
        check->read_rows(check->arg, BSATTN_K, group->batch, head_kv, first, count, work->keys));
    BSATTN_TRY(
        check->read_rows(check->arg, BSATTN_V, group->batch, head_kv, first, count, work->values));
    for (int64_t r = 0; r < group->tokens; ++r) {
        int64_t seen = count;
        if (problem->causal) {
            int64_t limit = group->block * problem->block + r + 1 - first;
            seen = (limit < 0) ? 0 : (limit < seen) ? limit : seen;
        }
        if (group->chosen[r] && (seen > 0)) {
            bsattn_reference_add(&work->references[r], work->keys, work->values, seen);
        }
    }
    return BSATTN_OK;
}

static bsattn_status_t walk_keys(const check_t *check, const group_t *group, work_t *work)
{
    const bsattn_pattern_t *pattern = check->plan->pattern;
    const bsattn_problem_t *problem = &check->plan->problem;

    BSATTN_TRY(bsattn_pattern_class_row(pattern, pattern->class_of_head[group->head], group->block,
                                        &work->row_work, &work->row));
    for (size_t s = 0; s < work->row.count; ++s) {
        bsattn_span_t span = work->row.items[s];
        int64_t first = (int64_t)span.first * problem->block;
        int64_t end = first + bsattn_problem_span_tokens(problem, span.first, span.last);

        for (; first < end; first += KEYS_AT_ONCE) {
            int64_t count = (end - first < KEYS_AT_ONCE) ? end - first : KEYS_AT_ONCE;
            BSATTN_TRY(add_keys(check, group, work, first, count));
        }
    }
    return BSATTN_OK;
}

/* Bring the results of a group's block here. */
static bsattn_status_t read_results(const check_t *check, const group_t *group, work_t *work)
{
    const bsattn_problem_t *problem = &check->plan->problem;
    const bsattn_tensors_t *tensors = &check->tensors[group->local];
    int64_t tokens = check->plan->locals[group->local].tokens;
    int64_t t = group->slot * problem->block;
    size_t row_bytes = bsattn_problem_row_bytes(problem);
    int64_t row = (group->batch * tokens + t) * problem->heads_q + group->head;
    bsattn_rows_t o = {
        .from = (const char *)tensors->o + (size_t)row * row_bytes,
        .from_stride = row_bytes * (size_t)problem->heads_q,
        .to = work->o,
        .to_stride = row_bytes,
        .row_bytes = row_bytes,
        .row_count = (size_t)group->tokens,
    };
    bsattn_rows_t lse = {
        .from = tensors->lse + (group->batch * problem->heads_q + group->head) * tokens + t,
        .to = work->lse,
        .row_bytes = (size_t)group->tokens * sizeof(float),
        .row_count = 1,
    };

    BSATTN_TRY(bsattn_context_read(check->plan->context, &o));
    return bsattn_context_read(check->plan->context, &lse);
}

static void compare_row(const check_t *check, int64_t r, work_t *work, tally_t *tally)
{
    const bsattn_problem_t *problem = &check->plan->problem;
    bsattn_reference_t *reference = &work->references[r];
    double wanted = bsattn_reference_end(reference);
    double found = work->lse[r];

    bsattn_convert_to_f32(problem->dtype, work->o + (size_t)r * bsattn_problem_row_bytes(problem),
                          problem->head_dim, work->out);
    for (int d = 0; d < problem->head_dim; ++d) {
        double error = work->out[d] - reference->out[d];
        tally->error2 += error * error;
        tally->norm2 += reference->out[d] * reference->out[d];
    }
    if (!(isinf(wanted) && (wanted == found))) {
        tally->lse = worse(fabs(found - wanted), tally->lse);
    }
    ++tally->rows;
}

static bsattn_status_t check_group(const check_t *check, const group_t *group, work_t *work,
                                   tally_t *tally)
{
    BSATTN_TRY(begin_group(check, group, work));
    BSATTN_TRY(walk_keys(check, group, work));
    BSATTN_TRY(read_results(check, group, work));
    for (int64_t r = 0; r < group->tokens; ++r) {
        if (group->chosen[r]) {
            compare_row(check, r, work, tally);
        }
    }
    return BSATTN_OK;
}

/* ----------------------------------------------------------------------------------- which rows */

static uint64_t draw(uint64_t seed, uint32_t index, uint32_t which, uint64_t bound)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t counter[4] = {index, which, SAMPLE_STREAM, 0};
    uint32_t out[4];

    bsattn_philox4x32(counter, key, out);
    return (uint64_t)(((unsigned __int128)(((uint64_t)out[0] << 32) | out[1]) * bound) >> 64);
}

/* Fill in the place of a query block; false if no rank of this process owns it. */
static bool locate(const bsattn_plan_t *plan, int64_t block, group_t *group)
{
    const bsattn_layout_t *layout = &plan->demand.layout;
    int owner = bsattn_layout_owner(layout, block);

    group->local = owner - plan->context->transport->first_rank;
    group->block = block;
    group->slot = bsattn_layout_lower(layout, owner, block);
    group->tokens = bsattn_problem_span_tokens(&plan->problem, block, block + 1);
    memset(group->chosen, 0, sizeof(group->chosen));
    return (group->local >= 0) && (group->local < plan->context->transport->local_count);
}

/* The index-th group of all rows. */
static bool group_of_all(const bsattn_plan_t *plan, int64_t index, group_t *group)
{
    int64_t blocks = plan->demand.layout.blocks;

    group->batch = index / (blocks * plan->problem.heads_q);
    group->head = (int)(index / blocks % plan->problem.heads_q);
    if (!locate(plan, index % blocks, group)) {
        return false;
    }
    memset(group->chosen, 1, (size_t)group->tokens);
    return true;
}

/* The index-th group of a sample: the same on every rank. */
static bool group_of_sample(const bsattn_plan_t *plan, uint64_t seed, int64_t index, int64_t rows,
                            group_t *group)
{
    int64_t blocks = plan->demand.layout.blocks;
    int64_t left = rows - index * ROWS_PER_GROUP;
    uint32_t n = (uint32_t)index;
    bool here;

    group->batch = (int64_t)draw(seed, n, 0, (uint64_t)plan->problem.batch);
    group->head = (int)draw(seed, n, 1, (uint64_t)plan->problem.heads_q);
    here = locate(plan, (int64_t)draw(seed, n, 2, (uint64_t)blocks), group);
    for (uint32_t r = 0; here && (r < ROWS_PER_GROUP) && (r < left) && (r < group->tokens); ++r) {
        int64_t row = (int64_t)draw(seed, n, 3 + r, (uint64_t)group->tokens);
        while (group->chosen[row]) {
            row = (row + 1) % group->tokens;
        }
        group->chosen[row] = 1;
    }
    return here;
}

/* ------------------------------------------------------------------------------------- together */

static void add_tally(tally_t *sum, const tally_t *part)
{
    sum->rows += part->rows;
    sum->error2 += part->error2;
    sum->norm2 += part->norm2;
    sum->lse = worse(part->lse, sum->lse);
}

static bsattn_status_t check_local(const check_t *check, int64_t rows, uint64_t seed,
                                   tally_t *tally_p)
{
    const bsattn_plan_t *plan = check->plan;
    int64_t streams = plan->problem.batch * plan->problem.heads_q;
    bool all = (rows == 0) || (rows >= streams * plan->problem.seq_len);
    int64_t groups = all ? streams * plan->demand.layout.blocks
                         : (rows + ROWS_PER_GROUP - 1) / ROWS_PER_GROUP;
    bsattn_status_t outcome = BSATTN_OK;
    char message[BSATTN_ERROR_TEXT_SIZE] = "";
    tally_t sum = {0};

#pragma omp parallel num_threads(plan->context->threads)
    {
        tally_t mine = {0};
        work_t work;
        bsattn_status_t status = work_init(&work, &plan->problem);
        bool usable = (status == BSATTN_OK);

#pragma omp for schedule(dynamic)
        for (int64_t g = 0; g < groups; ++g) {
            group_t group;
            bool here = all ? group_of_all(plan, g, &group)
                            : group_of_sample(plan, seed, g, rows, &group);
            if (here && (status == BSATTN_OK)) {
                status = check_group(check, &group, &work, &mine);
            }
        }
        if (usable) {
            work_free(&work);
        }
#pragma omp critical
        {
            add_tally(&sum, &mine);
            if (status != BSATTN_OK) {
                outcome = status;
                (void)bsattn_text_copy(message, sizeof(message), bsattn_last_error());
            }
        }
    }
    *tally_p = sum;
    return (outcome == BSATTN_OK) ? BSATTN_OK : bsattn_fail(outcome, "%s", message);
}

static bool arguments_fit(const bsattn_plan_t *plan, const bsattn_tensors_t *tensors, int64_t rows)
{
    bool fit = (rows >= 0);

    for (int i = 0; i < plan->context->transport->local_count; ++i) {
        fit = fit && (tensors[i].lse != NULL);
    }
    return fit;
}

bsattn_status_t bsattn_plan_check(bsattn_plan_t *plan, const bsattn_tensors_t *tensors,
                                  int64_t rows, uint64_t seed, bsattn_rows_func_t read_rows,
                                  void *arg, bsattn_check_result_t *result_p)
{
    check_t check = {.plan = plan, .tensors = tensors, .read_rows = read_rows, .arg = arg};
    size_t ranks = (size_t)plan->context->transport->ranks;
    size_t local_count = (size_t)plan->context->transport->local_count;
    tally_t *tallies = calloc(ranks + local_count, sizeof(*tallies));
    bsattn_dtype_t dtype = plan->problem.dtype;
    bsattn_status_t status;
    tally_t sum = {0};

    if (!arguments_fit(plan, tensors, rows)) {
        status = bsattn_fail(BSATTN_ERR_INPUT,
                             "a check needs the LSE of every rank, and %lld rows: 0 or more",
                             (long long)rows);
    } else if (tallies == NULL) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no memory to check %zu ranks", ranks);
    } else {
        /* One tally holds what all ranks of this process found; the others stay empty. */
        status = check_local(&check, rows, seed, &tallies[ranks]);
    }
    status = bsattn_context_agree(plan->context, status);
    if (status == BSATTN_OK) {
        status = bsattn_context_gather(plan->context, tallies + ranks, sizeof(*tallies), tallies);
    }
    for (size_t rank = 0; (status == BSATTN_OK) && (rank < ranks); ++rank) {
        add_tally(&sum, &tallies[rank]);
    }
    free(tallies);
    BSATTN_TRY(status);
    *result_p = (bsattn_check_result_t){
        .rows = sum.rows,
        .error_out = (sum.norm2 > 0.0) ? sqrt(sum.error2 / sum.norm2) : sqrt(sum.error2),
        .error_lse = sum.lse,
    };
    result_p->passed = (result_p->error_out <= out_tolerance[dtype]) &&
                       (result_p->error_lse <= lse_tolerance[dtype]);
    return BSATTN_OK;
}
