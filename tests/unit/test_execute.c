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
#include "cli/trial.h"
#include "ring/context.h"

enum { SETS = 2, RANKS_MAX = 2, SKIPPED = 77 };

static const char *backend_name = "cpu";

/* The plan of the first trial executes with tensors of both. */
typedef struct fixture {
    bsattn_problem_t problem;
    bsattn_pattern_t *pattern;
    bsattn_context_t *context;
    bsattn_source_t *sources[SETS];
    bsattn_trial_t trials[SETS];
    int ranks;
    unsigned char *kept[RANKS_MAX]; /* an output */
} fixture_t;

/* Whose tensors an execution takes. */
typedef struct choice {
    int set[3]; /* q, k, v */
    int output;
    bool lse; /* the first trial's, or NULL */
} choice_t;

static void must(bsattn_status_t status)
{
    if (status != BSATTN_OK) {
        fail_msg("%s", bsattn_last_error());
    }
}

/* --------------------------------------------------------------------------------------- fixture */

static size_t lse_bytes(const fixture_t *fixture, int local)
{
    return (size_t)(bsattn_plan_tokens(fixture->trials[0].plan, local) * fixture->problem.heads_q) *
           sizeof(float);
}

static size_t output_bytes(const fixture_t *fixture, int local)
{
    return lse_bytes(fixture, local) / sizeof(float) * (size_t)fixture->problem.head_dim *
           bsattn_dtype_size(fixture->problem.dtype);
}

static void make_trial(fixture_t *fixture, int set)
{
    static const bsattn_job_t job = {.comm = NULL, .rank = 0, .size = 1};
    bsattn_trial_params_t params = {
        .job = &job,
        .context = fixture->context,
        .problem = &fixture->problem,
        .pattern = fixture->pattern,
        .iterations = 1,
    };

    must(bsattn_source_open_synthetic(&fixture->problem, (uint64_t)set, &fixture->sources[set]));
    params.source = fixture->sources[set];
    must(bsattn_trial_create(&params, &fixture->trials[set]));
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
    for (int set = 0; set < SETS; ++set) {
        make_trial(fixture, set);
    }
    for (int local = 0; local < ranks; ++local) {
        fixture->kept[local] = test_malloc(output_bytes(fixture, local));
    }
}

static void tear_down(fixture_t *fixture)
{
    for (int local = 0; local < fixture->ranks; ++local) {
        test_free(fixture->kept[local]);
    }
    for (int set = 0; set < SETS; ++set) {
        bsattn_trial_destroy(&fixture->trials[set]);
        bsattn_source_close(fixture->sources[set]);
    }
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

    return bsattn_source_rows(reader->fixture->sources[reader->choice->set[tensor]], tensor, batch,
                              head, first, count, out);
}

static void read_back(fixture_t *fixture, void *to, const void *from, size_t bytes)
{
    bsattn_rows_t rows = {.from = from,
                          .from_stride = bytes,
                          .to = to,
                          .to_stride = bytes,
                          .row_bytes = bytes,
                          .row_count = 1};

    must(bsattn_context_read(fixture->context, &rows));
}

static void assert_poisoned(fixture_t *fixture, const void *memory, size_t bytes)
{
    unsigned char *now = test_malloc(bytes);

    read_back(fixture, now, memory, bytes);
    for (size_t i = 0; i < bytes; ++i) {
        assert_int_equal(now[i], 0xff);
    }
    test_free(now);
}

/* Without LSE nothing is compared with the reference: O is that of the execution before. */
static void check_without_lse(fixture_t *fixture, const bsattn_tensors_t *tensors)
{
    for (int local = 0; local < fixture->ranks; ++local) {
        size_t bytes = output_bytes(fixture, local);
        unsigned char *now = test_malloc(bytes);

        read_back(fixture, now, tensors[local].o, bytes);
        assert_memory_equal(now, fixture->kept[local], bytes);
        test_free(now);
        assert_poisoned(fixture, fixture->trials[0].tensors[local].lse, lse_bytes(fixture, local));
    }
}

static void check_with_lse(fixture_t *fixture, const choice_t *choice,
                           const bsattn_tensors_t *tensors)
{
    reader_t reader = {fixture, choice};
    bsattn_check_result_t result;

    must(bsattn_plan_check(fixture->trials[0].plan, tensors, 0, 1, read_rows, &reader, &result));
    assert_int_equal(result.passed, 1);
    for (int local = 0; local < fixture->ranks; ++local) {
        read_back(fixture, fixture->kept[local], tensors[local].o, output_bytes(fixture, local));
    }
}

static void execute(fixture_t *fixture, const choice_t *choice)
{
    const bsattn_trial_t *trials = fixture->trials;
    bsattn_tensors_t tensors[RANKS_MAX];

    for (int local = 0; local < fixture->ranks; ++local) {
        tensors[local] = (bsattn_tensors_t){
            .q = trials[choice->set[BSATTN_Q]].tensors[local].q,
            .k = trials[choice->set[BSATTN_K]].tensors[local].k,
            .v = trials[choice->set[BSATTN_V]].tensors[local].v,
            .o = trials[choice->output].tensors[local].o,
            .lse = choice->lse ? trials[0].tensors[local].lse : NULL,
        };
    }
    for (int set = 0; set < SETS; ++set) {
        must(bsattn_trial_poison(&fixture->trials[set]));
    }
    must(bsattn_execute(trials[0].plan, tensors));
    if (choice->lse) {
        check_with_lse(fixture, choice, tensors);
    } else {
        check_without_lse(fixture, tensors);
    }
    for (int local = 0; local < fixture->ranks; ++local) {
        assert_poisoned(fixture, trials[1 - choice->output].tensors[local].o,
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

    /* Each of them once, then each twice in a row: the second time nothing is new. */
    set_up(&fixture, ranks);
    for (int times = 1; times <= 2; ++times) {
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
