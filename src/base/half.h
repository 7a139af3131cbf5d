/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file half.h
 * The two 16-bit floating-point types and fp32: round to nearest even, subnormals, infinities and
 * NaN kept.
 */
#ifndef BSATTN_BASE_HALF_H
#define BSATTN_BASE_HALF_H

#include "bsattn.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Exact. */
float bsattn_bf16_to_f32(uint16_t bits);

/** Rounds to nearest even; what is beyond the largest finite value becomes infinity, a NaN stays a
 *  (quiet) NaN. */
uint16_t bsattn_f32_to_bf16(float value);

/** Exact. */
float bsattn_f16_to_f32(uint16_t bits);

/** Rounds to nearest even, into subnormals too; what is beyond the largest finite value (|value| >=
 *  65520) becomes infinity, a NaN stays a (quiet) NaN. */
uint16_t bsattn_f32_to_f16(float value);

/** Widen an array of any type to fp32, exactly.
 *  @param in     [count] of dtype
 *  @param count  >= 0
 *  @param out    [count]; must not overlap in, except that in may be out for BSATTN_F32 */
void bsattn_convert_to_f32(bsattn_dtype_t dtype, const void *in, int64_t count, float *out);

/** Round an fp32 array to any type.
 *  @param in     [count]
 *  @param count  >= 0
 *  @param out    [count] of dtype; must not overlap in, except that out may be in for BSATTN_F32 */
void bsattn_convert_from_f32(bsattn_dtype_t dtype, const float *in, int64_t count, void *out);

/** Round an fp32 array in place to the values that a type can hold.
 *  @param values  [count] */
void bsattn_round_f32(bsattn_dtype_t dtype, int64_t count, float *values);

#ifdef __cplusplus
}
#endif

#endif
