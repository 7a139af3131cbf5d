/* SPDX-License-Identifier: Apache-2.0 */
/** @file bits.h  The bits of fp32 values, how integers are mixed, and the lesser of two. */
#ifndef BSATTN_BASE_BITS_H
#define BSATTN_BASE_BITS_H

#include <stdint.h>
#include <string.h>

/** @return the bits of an fp32 value */
static inline uint32_t bsattn_bits_of(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/** @return the fp32 value of some bits */
static inline float bsattn_float_of(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

/** @return the lesser of two integers */
static inline int64_t bsattn_min64(int64_t a, int64_t b)
{
    return (a < b) ? a : b;
}

/** What SplitMix64 adds to its state for each draw: 2^64/phi. */
#define BSATTN_MIX_STEP UINT64_C(0x9E3779B97F4A7C15)

/** @return the finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that changes about
 *          half of the bits for each bit of x */
static inline uint64_t bsattn_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

#endif
