/* SPDX-License-Identifier: Apache-2.0 */
/* A program outside the project that knows the installed header alone: two ranks in this process compute attention over a
 * sequence cut in two, and the result is compared with the fp64 reference. Both C99 and C++11. */
#include <bsattn.h>

#include <stdio.h>
#include <stdlib.h>

enum { TOKENS = 300, HEADS = 2, HEAD_DIM = 32, ROW = HEADS * HEAD_DIM, RANKS = 2 };

/* Q, K and V, [N, H, D]. */
static float inputs[3][TOKENS * ROW];

static float *allocate(int64_t count)
{
    float *numbers = (float *)calloc((size_t)count + 1, sizeof(float));

    if (numbers == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(4);
    }
    return numbers;
}

static void require(bsattn_status_t status, const char *what)
{
    if (status != BSATTN_OK) {
        fprintf(stderr, "%s: %s: %s\n", what, bsattn_status_name(status), bsattn_last_error());
        exit((int)status);
    }
}

static bsattn_status_t read_rows(void *arg, bsattn_tensor_t tensor, int64_t batch, int head, int64_t first, int64_t count,
                                 float *out)
{
    int64_t row;
    int d;

    (void)arg;
    (void)batch;
    for (row = 0; row < count; ++row) {
        for (d = 0; d < HEAD_DIM; ++d) {
            out[row * HEAD_DIM + d] = inputs[tensor][(first + row) * ROW + head * HEAD_DIM + d];
        }
    }
    return BSATTN_OK;
}

/* The rows of one rank, in the order of its runs. */
static float *shard(const bsattn_plan_t *plan, int rank, bsattn_tensor_t tensor)
{
    size_t count, i;
    int64_t row = 0, t;
    int e;
    const bsattn_token_run_t *runs = bsattn_plan_runs(plan, rank, &count);
    float *rows = allocate(bsattn_plan_tokens(plan, rank) * ROW);

    for (i = 0; i < count; ++i) {
        for (t = runs[i].first; t < runs[i].first + runs[i].count; ++t, ++row) {
            for (e = 0; e < ROW; ++e) {
                rows[row * ROW + e] = inputs[tensor][t * ROW + e];
            }
        }
    }
    return rows;
}

int main(void)
{
    bsattn_problem_t problem;
    bsattn_pattern_t *pattern;
    bsattn_context_params_t context_params;
    bsattn_context_t *context;
    bsattn_plan_t *plan;
    bsattn_tensors_t tensors[RANKS];
    bsattn_check_result_t result;
    int i, j;

    bsattn_problem_init(&problem);
    problem.seq_len = TOKENS;
    problem.heads_q = HEADS;
    problem.heads_kv = HEADS;
    problem.head_dim = HEAD_DIM;
    problem.block = 32;
    problem.causal = 1;
    for (i = 0; i < 3; ++i) {
        for (j = 0; j < TOKENS * ROW; ++j) {
            inputs[i][j] = (float)((j * 37 + i * 11) % 101 - 50) / 25.0f;
        }
    }

    require(bsattn_pattern_create("local(window=128)+global(tokens=32)", &problem, &pattern), "pattern");
    bsattn_context_params_init(&context_params);
    context_params.transport = "loop";
    context_params.backend = "cpu"; /* the tensors are in host memory */
    context_params.virtual_ranks = RANKS;
    context_params.threads = 1;
    context_params.timeout_s = 60;
    require(bsattn_context_create(&context_params, &context), "context");
    require(bsattn_plan_create(context, &problem, pattern, NULL, &plan), "plan");
    for (i = 0; i < RANKS; ++i) {
        tensors[i].q = shard(plan, i, BSATTN_Q);
        tensors[i].k = shard(plan, i, BSATTN_K);
        tensors[i].v = shard(plan, i, BSATTN_V);
        tensors[i].o = allocate(bsattn_plan_tokens(plan, i) * ROW);
        tensors[i].lse = allocate(bsattn_plan_tokens(plan, i) * HEADS);
    }
    require(bsattn_execute(plan, tensors), "execute");
    require(bsattn_plan_check(plan, tensors, 0, 1, read_rows, NULL, &result), "check");
    printf("bsattn %s: %ld rows, error %.2e, %s\n", bsattn_version(), (long)result.rows, result.error_out,
           result.passed ? "passed" : "FAILED");

    for (i = 0; i < RANKS; ++i) {
        free((void *)tensors[i].q);
        free((void *)tensors[i].k);
        free((void *)tensors[i].v);
        free(tensors[i].o);
        free(tensors[i].lse);
    }
    bsattn_plan_destroy(plan);
    bsattn_context_destroy(context);
    bsattn_pattern_destroy(pattern);
    return result.passed && result.rows == TOKENS * HEADS ? 0 : 1;
}
