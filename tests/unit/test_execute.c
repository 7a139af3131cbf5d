/* SPDX-License-Identifier: Apache-2.0 */
/* One plan, executed with tensors that stay, change all at once and change one at a time: what an
 * execution keeps of the one before must not be taken for this one's. Given "cuda", on a GPU; 77 where
 * there is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/backend.h"
#include "base/half.h"
#include "base/philox.h"
#include "bsattn.h"
#include "ring/context.h"

enum { SETS = 2, OUTPUTS = 2, RANKS_MAX = 2, SKIPPED = 77 };

static const char *backend_name = "cpu";

/* Inputs of both sets, and places for results; [local] for each rank. */
typedef struct fixture {
    bsattn_problem_t problem;
    bsattn_pattern_t *pattern;
    bsattn_context_t *context;
    bsattn_plan_t *plan;
    int ranks;
    float *values[SETS][3]; /* [N, H, D], with the type's precision */
    void *inputs[SETS][3][RANKS_MAX];
    void *outputs[OUTPUTS][RANKS_MAX];
    float *lse[RANKS_MAX];
    unsigned char *kept[RANKS_MAX]; /* an output */
} fixture_t;

/* Where an execution's tensors come from. */
typedef struct choice {
    int set[3]; /* of q, k, v */
    int output;
    bool lse;
} choice_t;

static void must(bsattn_status_t status)
{
    if (status != BSATTN_OK) {
        fail_msg("%s", bsattn_last_error());
    }
}

/* --------------------------------------------------------------------------------------- fixture */

static int64_t rows_of(const fixture_t *fixture, int local)
{
    return bsattn_plan_tokens(fixture->plan, local) * fixture->problem.heads_q;
}

static size_t output_bytes(const fixture_t *fixture, int local)
{
    return (size_t)(rows_of(fixture, local) * fixture->problem.head_dim) *
           bsattn_dtype_size(fixture->problem.dtype);
}

static size_t lse_bytes(const fixture_t *fixture, int local)
{
    return (size_t)rows_of(fixture, local) * sizeof(float);
}

static void copy(fixture_t *fixture, void *to, const void *from, size_t bytes, bool in)
{
    bsattn_rows_t rows = {.from = from,
                          .from_stride = bytes,
                          .to = to,
                          .to_stride = bytes,
                          .row_bytes = bytes,
                          .row_count = 1};

    must(in ? bsattn_context_write(fixture->context, &rows)
            : bsattn_context_read(fixture->context, &rows));
}

/* A rank's rows of global values. */
static void *make_input(fixture_t *fixture, const float *values, int local)
{
    int64_t row = (int64_t)fixture->problem.heads_q * fixture->problem.head_dim;
    size_t row_bytes = (size_t)row * bsattn_dtype_size(fixture->problem.dtype);
    size_t bytes = (size_t)bsattn_plan_tokens(fixture->plan, local) * row_bytes;
    char *rounded = test_malloc(bytes);
    char *at = rounded;
    size_t run_count;
    const bsattn_token_run_t *runs = bsattn_plan_runs(fixture->plan, local, &run_count);
    void *memory;

    for (size_t r = 0; r < run_count; ++r) {
        bsattn_convert_from_f32(fixture->problem.dtype, values + runs[r].first * row,
                                runs[r].count * row, at);
        at += (size_t)runs[r].count * row_bytes;
    }
    must(bsattn_context_alloc(fixture->context, bytes, &memory));
    copy(fixture, memory, rounded, bytes, true);
    test_free(rounded);
    return memory;
}

static void make_inputs(fixture_t *fixture, int set, int tensor)
{
    bsattn_dtype_t dtype = fixture->problem.dtype;
    int64_t count = fixture->problem.seq_len * fixture->problem.heads_q * fixture->problem.head_dim;
    float *values = test_malloc((size_t)count * sizeof(*values));
    void *rounded = test_malloc((size_t)count * bsattn_dtype_size(dtype));

    bsattn_philox_normal((uint64_t)set, (uint32_t)tensor, 0, count, values);
    bsattn_convert_from_f32(dtype, values, count, rounded);
    bsattn_convert_to_f32(dtype, rounded, count, values);
    test_free(rounded);
    fixture->values[set][tensor] = values;
    for (int local = 0; local < fixture->ranks; ++local) {
        fixture->inputs[set][tensor][local] = make_input(fixture, values, local);
    }
}

static void make_outputs(fixture_t *fixture, int local)
{
    void *memory;

    for (int output = 0; output < OUTPUTS; ++output) {
        must(bsattn_context_alloc(fixture->context, output_bytes(fixture, local),
                                  &fixture->outputs[output][local]));
    }
    must(bsattn_context_alloc(fixture->context, lse_bytes(fixture, local), &memory));
    fixture->lse[local] = memory;
    fixture->kept[local] = test_malloc(output_bytes(fixture, local));
}

static void set_up(fixture_t *fixture, int ranks)
{
    bsattn_context_params_t params;

    *fixture = (fixture_t){.ranks = ranks};
    bsattn_problem_init(&fixture->problem);
    fixture->problem.seq_len = 700; /* neither blocks nor tiles come out even */
    fixture->problem.heads_q = 2;
    fixture->problem.heads_kv = 2;
    fixture->problem.dtype = BSATTN_BF16;
    bsattn_context_params_init(&params);
    params.backend = backend_name;
    params.transport = "loop";
    params.virtual_ranks = ranks;
    params.threads = 1;
    must(bsattn_pattern_create("local(window=128)", &fixture->problem, &fixture->pattern));
    must(bsattn_context_create(&params, &fixture->context));
    must(bsattn_plan_create(fixture->context, &fixture->problem, fixture->pattern, NULL,
                            &fixture->plan));
    for (int set = 0; set < SETS; ++set) {
        for (int tensor = BSATTN_Q; tensor <= BSATTN_V; ++tensor) {
            make_inputs(fixture, set, tensor);
        }
    }
    for (int local = 0; local < ranks; ++local) {
        make_outputs(fixture, local);
    }
}

static void tear_down(fixture_t *fixture)
{
    for (int set = 0; set < SETS; ++set) {
        for (int tensor = BSATTN_Q; tensor <= BSATTN_V; ++tensor) {
            test_free(fixture->values[set][tensor]);
            for (int local = 0; local < fixture->ranks; ++local) {
                bsattn_context_free(fixture->context, fixture->inputs[set][tensor][local]);
            }
        }
    }
    for (int local = 0; local < fixture->ranks; ++local) {
        for (int output = 0; output < OUTPUTS; ++output) {
            bsattn_context_free(fixture->context, fixture->outputs[output][local]);
        }
        bsattn_context_free(fixture->context, fixture->lse[local]);
        test_free(fixture->kept[local]);
    }
    bsattn_plan_destroy(fixture->plan);
    bsattn_context_destroy(fixture->context);
    bsattn_pattern_destroy(fixture->pattern);
}

/* ------------------------------------------------------------------------------------ executions */

typedef struct reader {
    const fixture_t *fixture;
    const choice_t *choice;
} reader_t;

static bsattn_status_t read_rows(void *arg, bsattn_tensor_t tensor, int64_t batch, int head,
                                 int64_t first, int64_t count, float *out)
{
    const reader_t *reader = arg;
    const bsattn_problem_t *problem = &reader->fixture->problem;
    const float *values = reader->fixture->values[reader->choice->set[tensor]][tensor];

    (void)batch; /* there is one */
    for (int64_t r = 0; r < count; ++r) {
        memcpy(out + r * problem->head_dim,
               values + ((first + r) * problem->heads_q + head) * problem->head_dim,
               (size_t)problem->head_dim * sizeof(*out));
    }
    return BSATTN_OK;
}

static void poison(fixture_t *fixture)
{
    for (int local = 0; local < fixture->ranks; ++local) {
        for (int output = 0; output < OUTPUTS; ++output) {
            must(bsattn_context_fill(fixture->context, fixture->outputs[output][local], 0xff,
                                     output_bytes(fixture, local)));
        }
        must(bsattn_context_fill(fixture->context, fixture->lse[local], 0xff,
                                 lse_bytes(fixture, local)));
    }
}

static void assert_poisoned(fixture_t *fixture, const void *memory, size_t bytes)
{
    unsigned char *now = test_malloc(bytes);

    copy(fixture, now, memory, bytes, false);
    for (size_t i = 0; i < bytes; ++i) {
        assert_int_equal(now[i], 0xff);
    }
    test_free(now);
}

/* Without LSE nothing is compared with the reference: O is that of the execution before. */
static void check_without_lse(fixture_t *fixture, const choice_t *choice)
{
    for (int local = 0; local < fixture->ranks; ++local) {
        size_t bytes = output_bytes(fixture, local);
        unsigned char *now = test_malloc(bytes);

        copy(fixture, now, fixture->outputs[choice->output][local], bytes, false);
        assert_memory_equal(now, fixture->kept[local], bytes);
        test_free(now);
        assert_poisoned(fixture, fixture->lse[local], lse_bytes(fixture, local));
    }
}

static void check_with_lse(fixture_t *fixture, const choice_t *choice,
                           const bsattn_tensors_t *tensors)
{
    reader_t reader = {fixture, choice};
    bsattn_check_result_t result;

    must(bsattn_plan_check(fixture->plan, tensors, 0, 1, read_rows, &reader, &result));
    assert_int_equal(result.passed, 1);
    for (int local = 0; local < fixture->ranks; ++local) {
        copy(fixture, fixture->kept[local], tensors[local].o, output_bytes(fixture, local), false);
    }
}

static void execute(fixture_t *fixture, const choice_t *choice)
{
    bsattn_tensors_t tensors[RANKS_MAX];

    for (int local = 0; local < fixture->ranks; ++local) {
        tensors[local] = (bsattn_tensors_t){
            .q = fixture->inputs[choice->set[BSATTN_Q]][BSATTN_Q][local],
            .k = fixture->inputs[choice->set[BSATTN_K]][BSATTN_K][local],
            .v = fixture->inputs[choice->set[BSATTN_V]][BSATTN_V][local],
            .o = fixture->outputs[choice->output][local],
            .lse = choice->lse ? fixture->lse[local] : NULL,
        };
    }
    poison(fixture);
    must(bsattn_execute(fixture->plan, tensors));
    if (choice->lse) {
        check_with_lse(fixture, choice, tensors);
    } else {
        check_without_lse(fixture, choice);
    }
    for (int local = 0; local < fixture->ranks; ++local) {
        assert_poisoned(fixture, fixture->outputs[1 - choice->output][local],
                        output_bytes(fixture, local));
    }
}

static void execute_all(int ranks)
{
    static const choice_t choices[] = {
        {{0, 0, 0}, 0, true},  {{1, 1, 1}, 1, true}, /* all of them */
        {{0, 0, 0}, 0, true},  {{0, 0, 1}, 0, true}, /* v alone */
        {{0, 1, 1}, 0, true},                        /* k */
        {{1, 1, 1}, 0, true},                        /* q */
        {{1, 1, 1}, 1, true},                        /* o */
        {{1, 1, 1}, 1, false},                       /* lse */
        {{1, 1, 1}, 0, false},                       /* o, without lse */
        {{1, 1, 1}, 0, true},  {{0, 0, 0}, 0, true},
    };
    fixture_t fixture;

    /* Each of them once, then each three times in a row: the second may be made ready, the third be what
     * was made ready. */
    set_up(&fixture, ranks);
    for (int times = 1; times <= 3; times += 2) {
        for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); ++i) {
            for (int t = 0; t < times; ++t) {
                execute(&fixture, &choices[i]);
            }
        }
    }
    tear_down(&fixture);
}

/* One step. */
static void test_one_rank(void **state)
{
    (void)state;
    execute_all(1);
}

static void test_two_ranks(void **state)
{
    (void)state;
    execute_all(2);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_rank),
        cmocka_unit_test(test_two_ranks),
    };
    char reason[256];

    if (argc == 2) {
        backend_name = argv[1];
    }
    if ((strcmp(backend_name, "cuda") == 0) && (bsattn_backend_gpus(reason, sizeof(reason)) == 0)) {
        printf("skipped: %s\n", reason);
        return SKIPPED;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
