/* SPDX-License-Identifier: Apache-2.0 */
/* Philox against Random123's known answers; the normal values against their moments, libm and every
 * way to cut a range. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/philox.h"

/* Random123 1.14, tests/kat_vectors, philox4x32 with 10 rounds. */
static void known_answers(void **state)
{
    static const uint32_t vectors[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d,
         0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
         0x94fdcceb, 0x5001e420, 0x24126ea1},
    };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        uint32_t out[4];

        bsattn_philox4x32(vectors[i], vectors[i] + 4, out);
        assert_memory_equal(out, vectors[i] + 6, sizeof(out));
        memcpy(out, vectors[i], sizeof(out));
        bsattn_philox4x32(out, vectors[i] + 4, out);
        assert_memory_equal(out, vectors[i] + 6, sizeof(out));
    }
}

static void single_draws(void **state)
{
    const uint64_t seed = 0x0123456789abcdefu;
    const uint64_t index = (uint64_t)5 << 34;
    const uint32_t key[2] = {0x89abcdefu, 0x01234567u};
    const uint32_t counter[4] = {0, 5, 77, 0};
    uint32_t out[4];

    (void)state;
    bsattn_philox4x32(counter, key, out);
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(bsattn_philox_u32(seed, 77, index + i), out[i]);
    }
}

/* Box-Muller in double, from the draws. */
static double reference(uint64_t seed, uint32_t stream, uint64_t index, double *radius_p)
{
    const uint64_t pair = index - index % 2;
    const uint32_t a = bsattn_philox_u32(seed, stream, pair);
    const uint32_t b = bsattn_philox_u32(seed, stream, pair + 1);
    const double radius = sqrt(-2.0 * log(((double)(a >> 1) + 0.5) * 0x1p-31));
    const double angle =
        2.0 * acos(-1.0) * ((double)(b >> 30) / 4.0 + (double)(int32_t)(b << 2) * 0x1p-34);

    *radius_p = radius;
    return index % 2 == 0 ? radius * cos(angle) : radius * sin(angle);
}

static void agrees_with_libm(void **state)
{
    enum { COUNT = 100000 };
    float *values = malloc(COUNT * sizeof(*values));

    (void)state;
    assert_non_null(values);
    bsattn_philox_normal(42, 1, 1000, COUNT, values);
    for (int i = 0; i < COUNT; i++) {
        double radius;
        const double want = reference(42, 1, 1000 + (uint64_t)i, &radius);

        /* u is rounded to 2^-24 near 1, where d radius = du / radius. */
        assert_true(fabs(values[i] - want) <= 1e-6 + 0x1p-24 / radius);
    }
    free(values);
}

static void any_cut_gives_the_same(void **state)
{
    enum { COUNT = 3000 };
    static const uint64_t starts[] = {0, 1, 2, 3, 63, (uint64_t)1 << 34, ((uint64_t)1 << 34) - 7};
    float whole[COUNT], part[COUNT];

    (void)state;
    for (size_t s = 0; s < sizeof(starts) / sizeof(*starts); s++) {
        bsattn_philox_normal(7, 2, starts[s], COUNT, whole);
        for (int64_t piece = 1; piece < 300; piece = piece * 3 / 2 + 1) {
            for (int64_t at = 0; at < COUNT; at += piece) {
                bsattn_philox_normal(7, 2, starts[s] + (uint64_t)at,
                                     at + piece <= COUNT ? piece : COUNT - at, part + at);
            }
            assert_memory_equal(whole, part, sizeof(whole));
        }
    }
    part[0] = 3.0f;
    bsattn_philox_normal(7, 2, 0, 0, part);
    assert_true(part[0] == 3.0f);
}

static void moments_and_tails(void **state)
{
    enum { COUNT = 1 << 22 };
    float *values = malloc(COUNT * sizeof(*values));
    double sums[5] = {0}, lag[4] = {0};
    int64_t within = 0, beyond = 0;

    (void)state;
    assert_non_null(values);
    bsattn_philox_normal(0, 0, 0, COUNT, values);
    for (int i = 0; i < COUNT; i++) {
        const double x = values[i];

        assert_true(isfinite(x) && fabs(x) < 6.7);
        for (int power = 1; power <= 4; power++) {
            sums[power] += pow(x, power) / COUNT;
        }
        within += fabs(x) < 1.0;
        beyond += fabs(x) > 3.0;
        for (int d = 1; d < 4; d++) {
            lag[d] += i >= d ? x * (double)values[i - d] / COUNT : 0.0;
        }
    }
    free(values);

    /* Five standard errors each. */
    const double error = 5.0 / sqrt(COUNT);
    assert_true(fabs(sums[1]) < error);
    assert_true(fabs(sums[2] - 1.0) < error * sqrt(2.0));
    assert_true(fabs(sums[3]) < error * sqrt(15.0));
    assert_true(fabs(sums[4] - 3.0) < error * sqrt(96.0));
    assert_true(fabs((double)within / COUNT - 0.6826894921) < error * 0.47);
    assert_true(fabs((double)beyond / COUNT - 0.0026997961) < error * 0.052);
    for (int d = 1; d < 4; d++) {
        assert_true(fabs(lag[d]) < error);
    }
}

static void streams_and_seeds_differ(void **state)
{
    enum { COUNT = 1 << 16 };
    static float a[COUNT], b[COUNT];
    static const struct {
        uint64_t seed;
        uint32_t stream;
    } others[] = {{1, 1}, {2, 0}, {1 + ((uint64_t)1 << 32), 0}};

    (void)state;
    bsattn_philox_normal(1, 0, 0, COUNT, a);
    for (size_t o = 0; o < 3; o++) {
        double product = 0;

        bsattn_philox_normal(others[o].seed, others[o].stream, 0, COUNT, b);
        for (int i = 0; i < COUNT; i++) {
            product += (double)a[i] * (double)b[i] / COUNT;
        }
        assert_true(fabs(product) < 5.0 / sqrt(COUNT));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),     cmocka_unit_test(single_draws),
        cmocka_unit_test(agrees_with_libm),  cmocka_unit_test(any_cut_gives_the_same),
        cmocka_unit_test(moments_and_tails), cmocka_unit_test(streams_and_seeds_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
