/* SPDX-License-Identifier: Apache-2.0 */
/* Plans executed by all ranks of this job, over mpi and over loop, against the fp64 reference on
 * every row. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/host.h"
#include "base/philox.h"
#include "ring/plan.h"
#include "vote.h"

typedef struct test_case {
    const char *pattern;
    int64_t batch;
    int64_t seq_len;
    int heads_q;
    int heads_kv;
    int head_dim;
    int block;
    int causal;
    bsattn_dtype_t dtype;
    const char *layout;
} test_case_t;

static const test_case_t cases[] = {
    {"dense", 1, 1, 2, 1, 16, 16, 0, BSATTN_F32, "contiguous"},
    {"dense", 1, 300, 2, 2, 64, 64, 1, BSATTN_F32, "zigzag"},
    {"dense", 2, 333, 4, 2, 24, 16, 1, BSATTN_F16, "cyclic"},
    {"local(window=64)", 2, 1000, 4, 1, 64, 16, 0, BSATTN_F32, "contiguous"},
    {"local(window=64)", 1, 1000, 2, 2, 128, 16, 1, BSATTN_BF16, "cyclic:2"},
    {"dilated(rates=1:2:4:8)", 2, 999, 4, 4, 64, 16, 0, BSATTN_F32, "contiguous"},
    {"dilated(rates=1:2:4:8)", 1, 999, 4, 2, 80, 32, 1, BSATTN_F32, "zigzag"},
    {"strided(stride=4)", 1, 777, 2, 1, 64, 16, 0, BSATTN_BF16, "cyclic:3"},
    {"local(window=64)+global(tokens=17)", 1, 800, 2, 2, 32, 16, 1, BSATTN_F32, "auto"},
    {"sink(tokens=0)", 1, 200, 2, 2, 32, 16, 0, BSATTN_F32, "contiguous"},
    {"sink(tokens=20)|local(window=64)|sink(tokens=5)", 2, 400, 4, 2, 64, 16, 1, BSATTN_F16,
     "auto"},
    {"hierarchical(levels=1:64/4:256/16:all,orient=rows)", 1, 700, 3, 1, 40, 16, 0, BSATTN_F32,
     "zigzag"},
    {"random(blocks=3,seed=5)", 1, 700, 6, 2, 64, 16, 0, BSATTN_F32, "contiguous"},
    {"random(density=0.2)", 2, 500, 4, 2, 64, 32, 1, BSATTN_F16, "cyclic"},
    {"0-1@local(window=64);2@dense;3@dilated(rates=5)", 1, 600, 4, 2, 64, 16, 1, BSATTN_F32,
     "cyclic"},
    {"dense", 1, 700, 1, 1, 256, 256, 1, BSATTN_F32, "auto"},
};

/* How the tensors are made up. */
typedef struct input {
    const bsattn_problem_t *problem;
    bool ones;            /* V = 1 */
    int64_t changed_from; /* K and V of tokens from here on are other numbers; -1: none */
    float changed_scale;  /* times this, NaN for one */
} input_t;

static bsattn_status_t read_rows(void *arg, bsattn_tensor_t tensor, int64_t batch, int head,
                                 int64_t first, int64_t count, float *out)
{
    const input_t *input = arg;
    const bsattn_problem_t *problem = input->problem;
    int heads = (tensor == BSATTN_Q) ? problem->heads_q : problem->heads_kv;
    int64_t dim = problem->head_dim;

    for (int64_t t = first; t < first + count; ++t, out += dim) {
        int64_t row = (batch * problem->seq_len + t) * heads + head;
        uint64_t seed =
            ((tensor != BSATTN_Q) && (input->changed_from >= 0) && (t >= input->changed_from)) ? 2
                                                                                               : 1;
        if (input->ones && (tensor == BSATTN_V)) {
            for (int64_t d = 0; d < dim; ++d) {
                out[d] = 1.0f;
            }
        } else {
            bsattn_philox_normal(seed, (uint32_t)tensor, (uint64_t)(row * dim), dim, out);
        }
        for (int64_t d = 0; (seed == 2) && (d < dim); ++d) {
            out[d] *= input->changed_scale;
        }
        bsattn_round_f32(problem->dtype, dim, out);
    }
    return BSATTN_OK;
}

static void *make_tensor(const input_t *input, bsattn_tensor_t tensor,
                         const bsattn_token_run_t *runs, size_t run_count, int64_t tokens)
{
    const bsattn_problem_t *problem = input->problem;
    int heads = (tensor == BSATTN_Q) ? problem->heads_q : problem->heads_kv;
    size_t row_bytes = (size_t)problem->head_dim * bsattn_dtype_size(problem->dtype);
    char *out = malloc((size_t)(problem->batch * tokens * heads) * row_bytes + 1);
    char *at = out;
    float row[256];

    for (int64_t b = 0; b < problem->batch; ++b) {
        for (size_t r = 0; r < run_count; ++r) {
            for (int64_t t = runs[r].first; t < runs[r].first + runs[r].count; ++t) {
                for (int head = 0; head < heads; ++head, at += row_bytes) {
                    (void)read_rows((void *)input, tensor, b, head, t, 1, row);
                    bsattn_convert_from_f32(problem->dtype, row, problem->head_dim, at);
                }
            }
        }
    }
    return out;
}

static bsattn_tensors_t *make_tensors(const bsattn_plan_t *plan, const input_t *input,
                                      int local_count)
{
    const bsattn_problem_t *problem = input->problem;
    bsattn_tensors_t *tensors = calloc((size_t)local_count, sizeof(*tensors));

    for (int i = 0; i < local_count; ++i) {
        size_t run_count;
        const bsattn_token_run_t *runs = bsattn_plan_runs(plan, i, &run_count);
        int64_t tokens = bsattn_plan_tokens(plan, i);
        size_t rows = (size_t)(problem->batch * tokens * problem->heads_q);
        size_t out_bytes = rows * (size_t)problem->head_dim * bsattn_dtype_size(problem->dtype);

        tensors[i] = (bsattn_tensors_t){
            .q = make_tensor(input, BSATTN_Q, runs, run_count, tokens),
            .k = make_tensor(input, BSATTN_K, runs, run_count, tokens),
            .v = make_tensor(input, BSATTN_V, runs, run_count, tokens),
            .o = malloc(out_bytes + 1),
            .lse = malloc(rows * sizeof(float) + 1),
        };
        memset(tensors[i].o, 0xff, out_bytes); /* NaN in every type */
        memset(tensors[i].lse, 0xff, rows * sizeof(float));
    }
    return tensors;
}

static void free_tensors(bsattn_tensors_t *tensors, int local_count)
{
    for (int i = 0; i < local_count; ++i) {
        free((void *)tensors[i].q);
        free((void *)tensors[i].k);
        free((void *)tensors[i].v);
        free(tensors[i].o);
        free(tensors[i].lse);
    }
    free(tensors);
}

static bsattn_problem_t problem_of(const test_case_t *test)
{
    bsattn_problem_t problem;

    bsattn_problem_init(&problem);
    problem.batch = test->batch;
    problem.seq_len = test->seq_len;
    problem.heads_q = test->heads_q;
    problem.heads_kv = test->heads_kv;
    problem.head_dim = test->head_dim;
    problem.block = test->block;
    problem.causal = test->causal;
    problem.dtype = test->dtype;
    return problem;
}

/* Execute twice (a plan is for many executions) and compare every row. */
static void check_case(bsattn_context_t *context, const test_case_t *test, const char *exchange)
{
    bsattn_problem_t problem = problem_of(test);
    bsattn_plan_params_t params = {.layout = test->layout, .exchange = exchange};
    input_t input = {.problem = &problem, .changed_from = -1};
    bsattn_context_info_t info;
    bsattn_pattern_t *pattern = NULL;
    bsattn_plan_t *plan = NULL;
    bsattn_check_result_t result = {0};
    bsattn_tensors_t *tensors;
    bsattn_status_t status;

    bsattn_context_info(context, &info);
    status = bsattn_pattern_create(test->pattern, &problem, &pattern);
    EXPECT(status == BSATTN_OK, "%s", bsattn_last_error());
    status = bsattn_plan_create(context, &problem, pattern, &params, &plan);
    EXPECT(status == BSATTN_OK, "%s", bsattn_last_error());
    if (status != BSATTN_OK) {
        bsattn_pattern_destroy(pattern);
        return;
    }
    tensors = make_tensors(plan, &input, info.local_count);
    for (int repeat = 0; repeat < 2; ++repeat) {
        EXPECT(bsattn_execute(plan, tensors) == BSATTN_OK, "%s", bsattn_last_error());
    }
    status = bsattn_plan_check(plan, tensors, 0, 1, read_rows, &input, &result);
    EXPECT(status == BSATTN_OK, "%s", bsattn_last_error());
    EXPECT(result.rows == problem.batch * problem.seq_len * problem.heads_q, "%ld rows",
           (long)result.rows);
    EXPECT(result.passed, "%s %s %s on %s: error %g, LSE %g", test->pattern, test->layout, exchange,
           info.transport, result.error_out, result.error_lse);
    for (int i = 0; i < info.local_count; ++i) {
        const bsattn_rank_estimate_t *predicted =
            bsattn_estimate_rank(bsattn_plan_estimate(plan), info.first_rank + i);
        double predicted_bytes = (double)(predicted->memory.total - predicted->memory.inputs -
                                          predicted->memory.outputs);
        double bytes = (double)bsattn_plan_allocated(plan, i);
        EXPECT(predicted->tokens == bsattn_plan_tokens(plan, i), "tokens");
        EXPECT(fabs(bytes - predicted_bytes) <= 0.03 * predicted_bytes + 2048,
               "%s: %g bytes allocated, %g predicted", test->pattern, bytes, predicted_bytes);
    }
    free_tensors(tensors, info.local_count);
    bsattn_plan_destroy(plan);
    bsattn_pattern_destroy(pattern);
}

/* Outputs of one execution, in the caller's hands. */
static bsattn_tensors_t *outputs_of(bsattn_context_t *context, bsattn_plan_t *plan,
                                    const input_t *input)
{
    bsattn_context_info_t info;
    bsattn_tensors_t *tensors;

    bsattn_context_info(context, &info);
    tensors = make_tensors(plan, input, info.local_count);
    EXPECT(bsattn_execute(plan, tensors) == BSATTN_OK, "%s", bsattn_last_error());
    return tensors;
}

/* Softmax weights sum to 1, and a change of later keys, however large or NaN, leaves earlier queries alone
 * to the last bit. */
static void check_properties(bsattn_context_t *context, float changed_scale)
{
    test_case_t test = {
        "local(window=256)+strided(stride=2)", 1, 640, 2, 1, 64, 128, 1, BSATTN_F32, "cyclic"};
    bsattn_problem_t problem = problem_of(&test);
    bsattn_plan_params_t params = {.layout = test.layout};
    input_t plain = {.problem = &problem, .changed_from = -1};
    input_t ones = {.problem = &problem, .ones = true, .changed_from = -1};
    input_t changed = {.problem = &problem, .changed_from = 333, .changed_scale = changed_scale};
    bsattn_pattern_t *pattern = NULL;
    bsattn_plan_t *plan = NULL;
    bsattn_context_info_t info;
    bsattn_tensors_t *a;
    bsattn_tensors_t *b;
    bsattn_tensors_t *v1;

    bsattn_context_info(context, &info);
    EXPECT(bsattn_pattern_create(test.pattern, &problem, &pattern) == 0, "%s", bsattn_last_error());
    EXPECT(bsattn_plan_create(context, &problem, pattern, &params, &plan) == 0, "%s",
           bsattn_last_error());
    a = outputs_of(context, plan, &plain);
    b = outputs_of(context, plan, &changed);
    v1 = outputs_of(context, plan, &ones);
    for (int i = 0; i < info.local_count; ++i) {
        size_t run_count;
        const bsattn_token_run_t *runs = bsattn_plan_runs(plan, i, &run_count);
        size_t row = (size_t)problem.heads_q * (size_t)problem.head_dim;
        size_t at = 0;
        for (size_t r = 0; r < run_count; ++r) {
            for (int64_t t = runs[r].first; t < runs[r].first + runs[r].count; ++t, at += row) {
                bool same = memcmp((float *)a[i].o + at, (float *)b[i].o + at, row * 4) == 0;
                EXPECT(same == (t < changed.changed_from), "token %ld", (long)t);
                for (size_t d = 0; d < row; ++d) {
                    float one = ((float *)v1[i].o)[at + d];
                    EXPECT(fabsf(one - 1.0f) < 1e-5f, "token %ld gives %g", (long)t, (double)one);
                }
            }
        }
    }
    free_tensors(a, info.local_count);
    free_tensors(b, info.local_count);
    free_tensors(v1, info.local_count);
    bsattn_plan_destroy(plan);
    bsattn_pattern_destroy(pattern);
}

/* A failure of one rank becomes everybody's, with its words. */
static void check_agreement(bsattn_context_t *context)
{
    bsattn_context_info_t info;
    bsattn_status_t status = BSATTN_OK;
    int culprit;

    bsattn_context_info(context, &info);
    culprit = info.ranks - 1;
    if (info.first_rank + info.local_count - 1 == culprit) {
        status = bsattn_fail(BSATTN_ERR_FILE, "it is gone");
    }
    EXPECT(bsattn_context_agree(context, status) == BSATTN_ERR_FILE, "agreement");
    EXPECT(strstr(bsattn_last_error(), "it is gone") != NULL, "%s", bsattn_last_error());
    EXPECT(bsattn_context_agree(context, BSATTN_OK) == BSATTN_OK, "agreement");
    EXPECT(bsattn_context_barrier(context) == BSATTN_OK, "barrier");
}

/* What is wrong with one rank's parameters is told to all, and nobody is left waiting. */
static void check_one_bad_rank(const bsattn_context_params_t *params)
{
    bsattn_context_params_t bad = *params;
    bsattn_context_t *context = NULL;
    int ranks;
    int rank;

    (void)MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == ranks - 1) {
        bad.threads = -7;
    }
    EXPECT(bsattn_context_create(&bad, &context) == BSATTN_ERR_INPUT, "context");
    EXPECT(strstr(bsattn_last_error(), "threads -7") != NULL, "%s", bsattn_last_error());
    EXPECT(context == NULL, "context set");
}

/* A context has the cores that it says, and leaves those that were there before it. */
static void check_binding(const bsattn_context_params_t *params, const char *bind)
{
    bsattn_context_params_t bound = *params;
    bsattn_context_t *context = NULL;
    char before[BSATTN_PLACE_CPUS_SIZE];
    char now[BSATTN_PLACE_CPUS_SIZE];
    bsattn_status_t status;

    bound.bind = bind;
    bsattn_host_cores_text(before, sizeof(before));
    status = bsattn_context_create(&bound, &context);
    EXPECT(status == BSATTN_OK, "%s", bsattn_last_error());
    if (context == NULL) {
        return;
    }
    bsattn_host_cores_text(now, sizeof(now));
    EXPECT(strcmp(context->cores.cpus, now) == 0, "cores %s, not %s", now, context->cores.cpus);
    EXPECT((strcmp(bind, "off") != 0) || (strcmp(now, before) == 0), "cores %s with off", now);
    bsattn_context_destroy(context);
    bsattn_host_cores_text(now, sizeof(now));
    EXPECT(strcmp(now, before) == 0, "cores %s left, %s before", now, before);
}

static void check_bad_binding(const bsattn_context_params_t *params)
{
    bsattn_context_params_t bad = *params;
    bsattn_context_t *context = NULL;

    bad.bind = "core";
    EXPECT(bsattn_context_create(&bad, &context) == BSATTN_ERR_INPUT, "context");
    EXPECT(strstr(bsattn_last_error(), "bind 'core'") != NULL, "%s", bsattn_last_error());
}

/* Every case over the ring, and every other one directly: the others over the other transport, and
 * with one more rank. */
static void check_context(const bsattn_context_params_t *params, int turn)
{
    bsattn_context_t *context = NULL;
    bsattn_status_t status = bsattn_context_create(params, &context);

    EXPECT(status == BSATTN_OK, "%s", bsattn_last_error());
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); ++c) {
        check_case(context, &cases[c], "ring");
        if ((c + (size_t)turn) % 2 == 0) {
            check_case(context, &cases[c], "direct");
        }
    }
    check_properties(context, 1.0f);
    check_properties(context, 1e4f);
    check_properties(context, NAN);
    check_agreement(context);
    bsattn_context_destroy(context);
}

int main(int argc, char **argv)
{
    MPI_Comm world = MPI_COMM_WORLD;
    bsattn_context_params_t params;
    int result;
    int ranks;

    (void)MPI_Init(&argc, &argv);
    expect_ranks();
    (void)MPI_Comm_size(world, &ranks);
    bsattn_context_params_init(&params);
    params.threads = 1;
    params.timeout_s = 60.0;
    params.transport = "mpi";
    params.mpi_comm = &world;
    check_context(&params, ranks);
    check_one_bad_rank(&params);
    check_binding(&params, "auto");
    check_binding(&params, "off");
    check_bad_binding(&params);
    params = (bsattn_context_params_t){.transport = "loop", .virtual_ranks = ranks, .threads = 2};
    check_context(&params, ranks + 1);
    result = vote("test_ring");
    (void)MPI_Finalize();
    return result;
}
