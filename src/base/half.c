/* SPDX-License-Identifier: Apache-2.0 */
#include "base/half.h"

#include "base/bits.h"
#include "base/status.h"

#include <string.h>

static inline float widen_bf16(uint16_t bits)
{
    return bsattn_float_of((uint32_t)bits << 16);
}

static inline uint16_t round_bf16(float value)
{
    uint32_t bits = bsattn_bits_of(value);

    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        /* The quiet bit is set lest a payload in the lost half leave an infinity. */
        return (uint16_t)((bits >> 16) | 0x0040u);
    }
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float widen_f16(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 0x1fu;
    uint32_t mantissa = half & 0x3ffu;

    if (exponent == 0) {
        return bsattn_float_of(sign | bsattn_bits_of((float)mantissa * 0x1p-24f));
    }
    if (exponent == 31) {
        return bsattn_float_of(sign | 0x7f800000u | (mantissa << 13));
    }
    return bsattn_float_of(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

static inline uint16_t round_f16(float value)
{
    uint32_t bits = bsattn_bits_of(value);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t overflow = 0x477ff000u; /* 65520: half way to what 2^16 would be, and even */
    uint32_t normal = 0x38800000u;   /* 2^-14 */

    if (magnitude > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    }
    if (magnitude >= overflow) {
        return (uint16_t)(sign | 0x7c00u);
    }
    if (magnitude >= normal) {
        uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);

        return (uint16_t)(sign | ((rounded >> 13) - (112u << 10)));
    }
    /* The last place of 0.5f is 2^-24, the smallest subnormal: the addition itself rounds to
     * nearest even. */
    return (uint16_t)(sign |
                      (bsattn_bits_of(bsattn_float_of(magnitude) + 0.5f) - bsattn_bits_of(0.5f)));
}

float bsattn_bf16_to_f32(uint16_t bits)
{
    return widen_bf16(bits);
}

uint16_t bsattn_f32_to_bf16(float value)
{
    return round_bf16(value);
}

float bsattn_f16_to_f32(uint16_t bits)
{
    return widen_f16(bits);
}

uint16_t bsattn_f32_to_f16(float value)
{
    return round_f16(value);
}

void bsattn_convert_to_f32(bsattn_dtype_t dtype, const void *in, int64_t count, float *out)
{
    const uint16_t *half = in;

    switch (dtype) {
    case BSATTN_F32:
        if (count > 0) {
            memmove(out, in, (size_t)count * sizeof(*out));
        }
        return;
    case BSATTN_F16:
        for (int64_t i = 0; i < count; ++i) {
            out[i] = widen_f16(half[i]);
        }
        return;
    case BSATTN_BF16:
        for (int64_t i = 0; i < count; ++i) {
            out[i] = widen_bf16(half[i]);
        }
        return;
    }
    BSATTN_ASSERT(!"a known dtype");
}

void bsattn_convert_from_f32(bsattn_dtype_t dtype, const float *in, int64_t count, void *out)
{
    uint16_t *half = out;

    switch (dtype) {
    case BSATTN_F32:
        if (count > 0) {
            memmove(out, in, (size_t)count * sizeof(*in));
        }
        return;
    case BSATTN_F16:
        for (int64_t i = 0; i < count; ++i) {
            half[i] = round_f16(in[i]);
        }
        return;
    case BSATTN_BF16:
        for (int64_t i = 0; i < count; ++i) {
            half[i] = round_bf16(in[i]);
        }
        return;
    }
    BSATTN_ASSERT(!"a known dtype");
}

void bsattn_round_f32(bsattn_dtype_t dtype, int64_t count, float *values)
{
    for (int64_t i = 0; (dtype == BSATTN_F16) && (i < count); ++i) {
        values[i] = widen_f16(round_f16(values[i]));
    }
    for (int64_t i = 0; (dtype == BSATTN_BF16) && (i < count); ++i) {
        values[i] = widen_bf16(round_bf16(values[i]));
    }
}
