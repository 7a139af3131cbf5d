/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/npy.h"
#include "masks.h"
#include "problem/pattern.h"

static bsattn_problem_t make_problem(int64_t seq_len, int block, int causal)
{
    bsattn_problem_t problem;

    bsattn_problem_init(&problem);
    problem.seq_len = seq_len;
    problem.block = block;
    problem.causal = causal;
    problem.heads_q = 4;
    problem.heads_kv = 2;
    return problem;
}

static bsattn_pattern_t *make_pattern(const char *text, const bsattn_problem_t *problem)
{
    bsattn_pattern_t *pattern = NULL;
    bsattn_status_t status = bsattn_pattern_create(text, problem, &pattern);

    if (status != BSATTN_OK) {
        fail_msg("%s: %s", text, bsattn_last_error());
    }
    return pattern;
}

/* Count how often a row uses each key block, from its spans. */
static void count_row(bsattn_pattern_t *pattern, int head, int64_t i, int64_t nb, int *counts)
{
    const bsattn_span_t *spans;
    size_t span_count;

    memset(counts, 0, (size_t)nb * sizeof(*counts));
    assert_int_equal(bsattn_pattern_row(pattern, head, i, &spans, &span_count), BSATTN_OK);
    for (size_t s = 0; s < span_count; ++s) {
        assert_true((spans[s].first >= 0) && (spans[s].first < spans[s].last));
        assert_true(spans[s].last <= nb);
        for (int32_t j = spans[s].first; j < spans[s].last; ++j) {
            ++counts[j];
        }
    }
}

static void check_case(const mask_case_t *mask, const bsattn_problem_t *problem)
{
    bsattn_pattern_t *pattern = make_pattern(mask->text, problem);
    int64_t nb = bsattn_problem_blocks(problem);
    int *counts = malloc((size_t)nb * sizeof(*counts));
    bsattn_pattern_stats_t stats;
    double pairs_block = 0;
    double pairs_token = 0;

    for (int head = 0; head < problem->heads_q; ++head) {
        for (int64_t i = 0; i < nb; ++i) {
            count_row(pattern, head, i, nb, counts);
            for (int64_t j = 0; j < nb; ++j) {
                int wanted = mask->uses(head, i, j, nb, problem->block);
                wanted = (problem->causal && (j > i)) ? 0 : wanted;
                if (counts[j] != wanted) {
                    fail_msg("%s: N %ld B %d causal %d head %d: (%ld, %ld) is %d, not %d",
                             mask->text, (long)problem->seq_len, problem->block, problem->causal,
                             head, (long)i, (long)j, counts[j], wanted);
                }
                pairs_block += wanted;
            }
        }
        for (int64_t t = 0; t < problem->seq_len; ++t) {
            for (int64_t s = 0; s < (problem->causal ? t + 1 : problem->seq_len); ++s) {
                pairs_token +=
                    mask->uses(head, t / problem->block, s / problem->block, nb, problem->block);
            }
        }
    }
    assert_int_equal(bsattn_pattern_stats(pattern, 2, &stats), BSATTN_OK);
    assert_true(stats.pairs_block == pairs_block / problem->heads_q);
    assert_true(stats.pairs_token == pairs_token / problem->heads_q);
    assert_true(stats.flops == 4.0 * pairs_token * problem->head_dim);
    free(counts);
    bsattn_pattern_destroy(pattern);
}

static void terms_equal_their_definitions(void **state)
{
    static const int64_t lengths[] = {1, 15, 16, 17, 64, 700, 1111};
    static const int blocks[] = {16, 64};

    (void)state;
    for (size_t n = 0; n < sizeof(lengths) / sizeof(lengths[0]); ++n) {
        for (size_t b = 0; b < 2; ++b) {
            for (int causal = 0; causal < 2; ++causal) {
                bsattn_problem_t problem = make_problem(lengths[n], blocks[b], causal);
                for (size_t c = 0; c < MASK_CASE_COUNT; ++c) {
                    check_case(&mask_cases[c], &problem);
                }
            }
        }
    }
}

static double pairs_of(const char *text, const bsattn_problem_t *problem)
{
    bsattn_pattern_t *pattern = make_pattern(text, problem);
    bsattn_pattern_stats_t stats;

    assert_int_equal(bsattn_pattern_stats(pattern, 2, &stats), BSATTN_OK);
    bsattn_pattern_destroy(pattern);
    return stats.pairs_block;
}

static void golden_pair_counts(void **state)
{
    static const double rows_pairs[] = {272, 686, 1898, 5858, 19922};

    (void)state;
    for (int k = 0; k < 5; ++k) {
        bsattn_problem_t problem = make_problem(INT64_C(2048) << k, 64, 0);
        double nb = (double)bsattn_problem_blocks(&problem);

        assert_true(pairs_of("local(window=256)", &problem) == 5 * nb - 6);
        assert_true(pairs_of("dilated(rates=1:2:4)", &problem) == 7 * nb - 14);
        assert_true(pairs_of("dilated(rates=1:2:4:8)", &problem) == 9 * nb - 30);
        assert_true(pairs_of("hierarchical(levels=1:256/4:1024/16:all,orient=rows)", &problem) ==
                    rows_pairs[k]);
        assert_true(pairs_of("dense", &problem) == nb * nb);
    }
    {
        bsattn_problem_t problem = make_problem(16384, 64, 0);
        assert_true(pairs_of("local(window=256)+global(tokens=64)", &problem) == 1780);
    }
}

/* No parameter of the same term comes nearer to the density asked for. */
static void densities_are_the_nearest(void **state)
{
    static const struct {
        const char *term;
        const char *parameter;
        int64_t scale;
    } terms[] = {{"local", "window", 128}, {"strided", "stride", 1}, {"random", "blocks", 1}};
    static const double densities[] = {0.001, 0.01, 0.05, 0.1, 0.33, 0.5, 0.9, 1.0};

    (void)state;
    for (int causal = 0; causal < 2; ++causal) {
        bsattn_problem_t problem = make_problem(64 * 40 + 5, 64, causal);
        double nb = (double)bsattn_problem_blocks(&problem);
        for (size_t t = 0; t < 3; ++t) {
            for (size_t d = 0; d < sizeof(densities) / sizeof(densities[0]); ++d) {
                double best = 2;
                double found;
                char text[96];
                for (int64_t x = 0; x <= 41; ++x) {
                    if ((x == 0) && (terms[t].scale == 1)) {
                        continue;
                    }
                    (void)snprintf(text, sizeof(text), "%s(%s=%ld)", terms[t].term,
                                   terms[t].parameter, (long)(x * terms[t].scale));
                    found = pairs_of(text, &problem) / nb / nb - densities[d];
                    found = (found < 0) ? -found : found;
                    best = (found < best) ? found : best;
                }
                (void)snprintf(text, sizeof(text), "%s(density=%g)", terms[t].term, densities[d]);
                found = pairs_of(text, &problem);
                assert_true(found >= nb);
                found = found / nb / nb - densities[d];
                found = (found < 0) ? -found : found;
                if (found > best + 1e-12) {
                    fail_msg("%s causal %d: off by %g, %g is possible", text, causal, found, best);
                }
            }
        }
    }
}

static void random_rows_are_distinct_draws(void **state)
{
    static const int64_t draws[] = {1, 3, 40, 90};

    (void)state;
    for (int causal = 0; causal < 2; ++causal) {
        for (size_t k = 0; k < 4; ++k) {
            /* Many blocks for few draws, few for many: both ways of drawing. */
            bsattn_problem_t problem = make_problem((k == 0) ? 16 * 3000 : 16 * 100, 16, causal);
            int64_t nb = bsattn_problem_blocks(&problem);
            int *counts = malloc((size_t)nb * sizeof(*counts));
            int *other = malloc((size_t)nb * sizeof(*other));
            char text[64];
            bsattn_pattern_t *pattern;
            bool heads_differ = false;

            (void)snprintf(text, sizeof(text), "random(blocks=%ld,seed=7)", (long)draws[k]);
            pattern = make_pattern(text, &problem);
            assert_int_equal(pattern->class_count, 4);
            for (int64_t i = 0; i < nb; ++i) {
                int64_t candidates = causal ? i + 1 : nb;
                int64_t sum = 0;
                count_row(pattern, 1, i, nb, counts);
                count_row(pattern, 2, i, nb, other);
                heads_differ = heads_differ || (memcmp(counts, other, (size_t)nb * 4) != 0);
                for (int64_t j = 0; j < nb; ++j) {
                    assert_true((counts[j] == 0) || ((counts[j] == 1) && (j < candidates)));
                    sum += counts[j];
                }
                assert_int_equal(sum, (draws[k] < candidates) ? draws[k] : candidates);
            }
            assert_true(heads_differ);
            bsattn_pattern_destroy(pattern);
            free(counts);
            free(other);
        }
    }
}

static void write_mask(const char *path, int dims, const int64_t *shape,
                       const unsigned char *values)
{
    unsigned char header[512];
    size_t length = bsattn_npy_format("|b1", dims, shape, header, sizeof(header));
    FILE *file = fopen(path, "wb");
    size_t count = 1;

    for (int d = 0; d < dims; ++d) {
        count *= (size_t)shape[d];
    }
    assert_non_null(file);
    assert_int_equal(fwrite(header, 1, length, file), length);
    assert_int_equal(fwrite(values, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

static void mask_files_are_taken_as_they_are(void **state)
{
    bsattn_problem_t problem = make_problem(10 * 64 - 3, 64, 0);
    int64_t shape[3] = {4, 10, 10};
    unsigned char values[400];
    int counts[10];
    bsattn_pattern_t *pattern;

    (void)state;
    for (int x = 0; x < 400; ++x) {
        values[x] = (unsigned char)((x * 7919 / 13) % 3 == 0);
    }
    write_mask("test_pattern_mask.npy", 3, shape, values);
    pattern = make_pattern("blocks(file=test_pattern_mask.npy)", &problem);
    for (int head = 0; head < 4; ++head) {
        for (int64_t i = 0; i < 10; ++i) {
            count_row(pattern, head, i, 10, counts);
            for (int64_t j = 0; j < 10; ++j) {
                assert_int_equal(counts[j], values[(head * 10 + i) * 10 + j]);
            }
        }
    }
    bsattn_pattern_destroy(pattern);
    write_mask("test_pattern_mask.npy", 2, shape + 1, values);
    pattern = make_pattern("blocks(file=test_pattern_mask.npy)", &problem);
    assert_int_equal(pattern->class_count, 1);
    bsattn_pattern_destroy(pattern);
    problem.seq_len = 11 * 64;
    assert_int_equal(
        bsattn_pattern_create("blocks(file=test_pattern_mask.npy)", &problem, &pattern),
        BSATTN_ERR_INPUT);
    assert_non_null(strstr(bsattn_last_error(), "(10, 10)"));
    assert_int_equal(remove("test_pattern_mask.npy"), 0);
    assert_int_equal(
        bsattn_pattern_create("blocks(file=test_pattern_mask.npy)", &problem, &pattern),
        BSATTN_ERR_FILE);
}

static void bad_texts_are_told_with_their_place(void **state)
{
    static const struct {
        const char *text;
        const char *told;
    } cases[] = {
        {"", "position 1"},
        {"loca(window=256)", "did you mean 'local'"},
        {"local", "local needs window"},
        {"local()", "position 7"},
        {"local(window=)", "position 14"},
        {"local(window=-1)", "window=-1"},
        {"local(window=x)", "window=x"},
        {"local(windw=256)", "did you mean 'window'"},
        {"local(window=256", "position 17"},
        {"local(window=256,window=1)", "given twice"},
        {"local(window=256,density=0.1)", "only one of"},
        {"local(window=256)+", "position 19"},
        {"local(window=256)|", "position 19"},
        {"local(window=256) dense", "position 19"},
        {"dilated(rates=1:0)", "rates=1:0"},
        {"dilated(rates=1::2)", "rates=1::2"},
        {"strided(stride=0)", "stride=0"},
        {"random(density=1.5)", "density=1.5"},
        {"random(density=0)", "density=0"},
        {"random(blocks=0)", "blocks=0"},
        {"hierarchical(levels=1:256/4)", "levels"},
        {"hierarchical(levels=1:256,orient=diagonal)", "cols or rows"},
        {"0-1@dense", "head 2 has no pattern"},
        {"0-4@dense", "heads are 0 to 3"},
        {"0-3@dense;2@dense", "given twice"},
        {"3-0@dense", "ends before"},
        {"0-3:dense", "'@' is expected"},
        {"dilate(rate=2):dense", "not supported yet"},
        {"adaptive(keep=0.1)", "not supported yet"},
        {"dense)", "position 6"},
        {"local(window=1)+local(window=1)+local(window=1)+local(window=1)+local(window=1)+"
         "local(window=1)+local(window=1)+local(window=1)+local(window=1)+local(window=1)+"
         "local(windo=1)",
         "..window=1)+local(window=1)+local(window=1)+local(window=1)+local(window=1)+local(windo="
         "1)"},
    };
    bsattn_problem_t problem = make_problem(1024, 64, 0);

    (void)state;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); ++c) {
        bsattn_pattern_t *pattern = NULL;
        bsattn_status_t status = bsattn_pattern_create(cases[c].text, &problem, &pattern);
        if ((status != BSATTN_ERR_INPUT) || (pattern != NULL) ||
            (strstr(bsattn_last_error(), cases[c].told) == NULL)) {
            fail_msg("'%s': status %d, '%s' lacks '%s'", cases[c].text, (int)status,
                     bsattn_last_error(), cases[c].told);
        }
    }
}

static void far_rates_reach_nothing(void **state)
{
    bsattn_problem_t problem = make_problem(1024, 64, 0);

    (void)state;
    assert_true(pairs_of("dilated(rates=9223372036854775807)", &problem) == 16);
    assert_true(pairs_of("dilated(rates=1:16:4G)", &problem) == 16 + 2 * 15);
}

static void too_many_branches_are_refused(void **state)
{
    bsattn_problem_t problem = make_problem(1024, 64, 0);
    bsattn_pattern_t *pattern = NULL;
    char text[65 * 6 + 1] = "";

    (void)state;
    for (int b = 0; b < 65; ++b) {
        memcpy(text + (size_t)b * 6, (b < 64) ? "dense|" : "dense", 6);
    }
    assert_int_equal(bsattn_pattern_create(text, &problem, &pattern), BSATTN_ERR_INPUT);
    assert_non_null(strstr(bsattn_last_error(), "64 branches"));
    text[64 * 6 - 1] = '\0';
    assert_int_equal(bsattn_pattern_create(text, &problem, &pattern), BSATTN_OK);
    bsattn_pattern_destroy(pattern);
}

static void bad_problems_are_refused(void **state)
{
    bsattn_problem_t good = make_problem(1024, 64, 0);
    bsattn_problem_t bad;

    (void)state;
    assert_int_equal(bsattn_problem_check(&good), BSATTN_OK);
#define REFUSED(_field, _value)                                                                    \
    bad = good;                                                                                    \
    bad._field = (_value);                                                                         \
    assert_int_equal(bsattn_problem_check(&bad), BSATTN_ERR_INPUT)
    REFUSED(batch, 0);
    REFUSED(seq_len, 0);
    REFUSED(heads_q, 0);
    REFUSED(heads_kv, 3);
    REFUSED(head_dim, 8);
    REFUSED(head_dim, 20);
    REFUSED(head_dim, 264);
    REFUSED(block, 48);
    REFUSED(scale, 1.0 / 0.0);
    REFUSED(seq_len, INT64_MAX);
    REFUSED(seq_len, INT64_C(1) << 40);
#undef REFUSED
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(terms_equal_their_definitions),
        cmocka_unit_test(golden_pair_counts),
        cmocka_unit_test(densities_are_the_nearest),
        cmocka_unit_test(random_rows_are_distinct_draws),
        cmocka_unit_test(mask_files_are_taken_as_they_are),
        cmocka_unit_test(bad_texts_are_told_with_their_place),
        cmocka_unit_test(far_rates_reach_nothing),
        cmocka_unit_test(too_many_branches_are_refused),
        cmocka_unit_test(bad_problems_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
