/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file convert.h
 * Rows of the problem's type to fp32 and back, rounding to nearest even. Included by each variant
 * so that the loops are compiled for its instruction set.
 */
#ifndef BSATTN_KERNELS_CPU_CONVERT_H
#define BSATTN_KERNELS_CPU_CONVERT_H

#include <stdint.h>
#include <string.h>

#include "base/bits.h"
#include "bsattn.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

static inline void floats_from_bf16(float *restrict to, const uint16_t *restrict from,
                                    int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        to[i] = bsattn_float_of((uint32_t)from[i] << 16);
    }
}

static inline void bf16_from_floats(uint16_t *restrict to, const float *restrict from,
                                    int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = bsattn_bits_of(from[i]);
        uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
        uint32_t quiet_nan = bits | 0x400000u;

        to[i] = (uint16_t)(((bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded) >> 16);
    }
}

#if defined(__F16C__)

/* count is a multiple of 8: rows are whole heads. */
static inline void floats_from_f16(float *restrict to, const uint16_t *restrict from, int64_t count)
{
    for (int64_t i = 0; i < count; i += 8) {
        __m128i half = _mm_loadu_si128((const __m128i *)(from + i));
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(half));
    }
}

static inline void f16_from_floats(uint16_t *restrict to, const float *restrict from, int64_t count)
{
    for (int64_t i = 0; i < count; i += 8) {
        __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(to + i), half);
    }
}

#else

static inline void floats_from_f16(float *restrict to, const uint16_t *restrict from, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t half = from[i];
        /* Half's exponent read as a float's is 112 too small; the product puts it right, for
         * subnormals too. */
        uint32_t bits = bsattn_bits_of(bsattn_float_of((half & 0x7fffu) << 13) * 0x1p112f);

        bits |= (half & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0;
        to[i] = bsattn_float_of(bits | (half & 0x8000u) << 16);
    }
}

static inline uint32_t f16_from_magnitude(uint32_t bits)
{
    if (bits > 0x7f800000u) {
        return 0x7e00u;
    }
    if (bits >= 0x47800000u) {
        return 0x7c00u;
    }
    if (bits < 0x38800000u) {
        /* One unit of the last place of 0.5 is half's smallest number: the sum rounds as wanted. */
        return bsattn_bits_of(bsattn_float_of(bits) + 0.5f) - 0x3f000000u;
    }
    return (bits - (112u << 23) + 0xfffu + ((bits >> 13) & 1u)) >> 13;
}

static inline void f16_from_floats(uint16_t *restrict to, const float *restrict from, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = bsattn_bits_of(from[i]);

        to[i] = (uint16_t)(f16_from_magnitude(bits & 0x7fffffffu) | (bits >> 16 & 0x8000u));
    }
}

#endif

/** @param count a multiple of 8 */
static inline void floats_load(float *restrict to, const void *restrict from, int64_t count,
                               bsattn_dtype_t dtype)
{
    switch (dtype) {
    case BSATTN_F32:
        memcpy(to, from, (size_t)count * sizeof(float));
        break;
    case BSATTN_F16:
        floats_from_f16(to, from, count);
        break;
    case BSATTN_BF16:
        floats_from_bf16(to, from, count);
        break;
    }
}

/** @param count a multiple of 8 */
static inline void floats_store(void *restrict to, const float *restrict from, int64_t count,
                                bsattn_dtype_t dtype)
{
    switch (dtype) {
    case BSATTN_F32:
        memcpy(to, from, (size_t)count * sizeof(float));
        break;
    case BSATTN_F16:
        f16_from_floats(to, from, count);
        break;
    case BSATTN_BF16:
        bf16_from_floats(to, from, count);
        break;
    }
}

#endif
