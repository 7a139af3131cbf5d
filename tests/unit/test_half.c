/* SPDX-License-Identifier: Apache-2.0 */
/* Every 16-bit pattern, every tie between neighbours, and what lies beside the ties. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"

static uint32_t bits_of(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* What the bits of a type with so many exponent and mantissa bits mean, from the definition. */
static double value_of(uint32_t bits, int exponent_bits, int mantissa_bits)
{
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const int exponent = (int)(bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
    const int mantissa = (int)(bits & ((1u << mantissa_bits) - 1));
    const double sign = (bits >> (exponent_bits + mantissa_bits)) != 0 ? -1.0 : 1.0;

    if (exponent == (1 << exponent_bits) - 1) {
        return mantissa == 0 ? sign * (double)INFINITY : (double)NAN;
    }
    if (exponent == 0) {
        return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    }
    return sign * ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

typedef struct {
    int exponent_bits;
    int mantissa_bits;
    float (*widen)(uint16_t);
    uint16_t (*round)(float);
} type_t;

static const type_t types[] = {{5, 10, bsattn_f16_to_f32, bsattn_f32_to_f16},
                               {8, 7, bsattn_bf16_to_f32, bsattn_f32_to_bf16}};

static void every_pattern(void **state)
{
    (void)state;
    for (size_t t = 0; t < 2; t++) {
        const type_t *type = &types[t];

        for (uint32_t bits = 0; bits < 65536; bits++) {
            const double want = value_of(bits, type->exponent_bits, type->mantissa_bits);
            const float got = type->widen((uint16_t)bits);

            if (isnan(want)) {
                assert_true(isnan(got));
                assert_true(isnan(type->widen(type->round(got))));
                assert_int_equal(type->round(got) >> 15, bits >> 15);
                continue;
            }
            assert_true((double)got == want);
            assert_int_equal(bits_of(got) >> 31, bits >> 15);
            assert_int_equal(type->round(got), bits);
        }
    }
}

static void ties_and_neighbours(void **state)
{
    (void)state;
    for (size_t t = 0; t < 2; t++) {
        const type_t *type = &types[t];
        const uint32_t infinity = (uint32_t)((1 << type->exponent_bits) - 1) << type->mantissa_bits;

        for (uint32_t bits = 0; bits < infinity; bits++) {
            /* Beyond the largest finite value the next one is where infinity would be, were it
             * finite. */
            const double low = value_of(bits, type->exponent_bits, type->mantissa_bits);
            const double step =
                low - value_of(bits == 0 ? 1 : bits - 1, type->exponent_bits, type->mantissa_bits);
            const double high = bits + 1 < infinity
                                    ? value_of(bits + 1, type->exponent_bits, type->mantissa_bits)
                                    : low + step;
            const float tie = (float)((low + high) / 2);
            const uint32_t even = (bits & 1) == 0 ? bits : bits + 1;

            assert_true((double)tie == (low + high) / 2);
            assert_int_equal(type->round(tie), even);
            assert_int_equal(type->round(-tie), even | 0x8000u);
            assert_int_equal(type->round(nextafterf(tie, 0.0f)), bits);
            assert_int_equal(type->round(nextafterf(tie, INFINITY)), bits + 1);
        }
    }
}

static void extremes(void **state)
{
    (void)state;
    assert_int_equal(bsattn_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(bsattn_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(bsattn_f32_to_f16(-3e38f), 0xfc00);
    assert_int_equal(bsattn_f32_to_f16(0x1p-25f), 0);
    assert_int_equal(bsattn_f32_to_f16(0x1.000002p-25f), 1);
    assert_int_equal(bsattn_f32_to_f16(-0x1p-149f), 0x8000);
    assert_int_equal(bsattn_f32_to_bf16(3.4028235e38f), 0x7f80);
    assert_int_equal(bsattn_f32_to_bf16(INFINITY), 0x7f80);

    const uint32_t thin_nan = 0x7f800001u;
    float value;

    memcpy(&value, &thin_nan, sizeof(value));
    assert_true(isnan(bsattn_bf16_to_f32(bsattn_f32_to_bf16(value))));
    assert_true(isnan(bsattn_f16_to_f32(bsattn_f32_to_f16(value))));
}

static void arrays(void **state)
{
    enum { COUNT = 1003 };
    static const bsattn_dtype_t dtypes[] = {BSATTN_F32, BSATTN_F16, BSATTN_BF16};
    float in[COUNT], back[COUNT], rounded[COUNT];
    uint16_t half[COUNT];
    float same[COUNT];

    (void)state;
    for (int i = 0; i < COUNT; i++) {
        in[i] = (float)sin(i) * ldexpf(1.0f, i % 40 - 20);
    }
    for (size_t t = 0; t < 3; t++) {
        void *out = dtypes[t] == BSATTN_F32 ? (void *)same : (void *)half;

        bsattn_convert_from_f32(dtypes[t], in, COUNT, out);
        bsattn_convert_to_f32(dtypes[t], out, COUNT, back);
        memcpy(rounded, in, sizeof(in));
        bsattn_round_f32(dtypes[t], COUNT, rounded);
        assert_memory_equal(back, rounded, sizeof(back));
        for (int i = 0; i < COUNT; i++) {
            float want = dtypes[t] == BSATTN_F32   ? in[i]
                         : dtypes[t] == BSATTN_F16 ? bsattn_f16_to_f32(bsattn_f32_to_f16(in[i]))
                                                   : bsattn_bf16_to_f32(bsattn_f32_to_bf16(in[i]));
            assert_int_equal(bits_of(want), bits_of(back[i]));
        }
        bsattn_convert_from_f32(dtypes[t], in, 0, NULL);
        bsattn_convert_to_f32(dtypes[t], NULL, 0, back);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pattern),
        cmocka_unit_test(ties_and_neighbours),
        cmocka_unit_test(extremes),
        cmocka_unit_test(arrays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
