/* SPDX-License-Identifier: Apache-2.0 */
#include "base/philox.h"

#include "base/bits.h"

#include <math.h>
#include <string.h>

/* Counters computed together: with a constant count every loop over lanes becomes vector code,
 * unless -O3 unrolls it first, which the pragmas prevent. 4 * LANES values are a usual head
 * dimension, so that asking for single rows wastes little. */
enum { ROUNDS = 10, LANES = 16, BATCH = 4 * LANES };

static const uint32_t multiplier_0 = 0xD2511F53u;
static const uint32_t multiplier_1 = 0xCD9E8D57u;
static const uint32_t weyl_0 = 0x9E3779B9u;
static const uint32_t weyl_1 = 0xBB67AE85u;

void bsattn_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0];
    uint32_t c1 = counter[1];
    uint32_t c2 = counter[2];
    uint32_t c3 = counter[3];
    uint32_t k0 = key[0];
    uint32_t k1 = key[1];

    for (int round = 0; round < ROUNDS; ++round) {
        uint64_t product_0 = (uint64_t)multiplier_0 * c0;
        uint64_t product_1 = (uint64_t)multiplier_1 * c2;

        c0 = (uint32_t)(product_1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)product_1;
        c2 = (uint32_t)(product_0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)product_0;
        k0 += weyl_0;
        k1 += weyl_1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

uint32_t bsattn_philox_u32(uint64_t seed, uint32_t stream, uint64_t index)
{
    uint64_t block = index / 4;
    uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), stream, 0};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t out[4];

    bsattn_philox4x32(counter, key, out);
    return out[index % 4];
}

/* bsattn_philox4x32() of LANES consecutive counters, transposed: x[word][lane]. */
static void philox_lanes(uint64_t seed, uint32_t stream, uint64_t block, uint32_t x[4][LANES])
{
    uint32_t k0 = (uint32_t)seed;
    uint32_t k1 = (uint32_t)(seed >> 32);

    for (int lane = 0; lane < LANES; ++lane) {
        x[0][lane] = (uint32_t)(block + (uint64_t)lane);
        x[1][lane] = (uint32_t)((block + (uint64_t)lane) >> 32);
        x[2][lane] = stream;
        x[3][lane] = 0;
    }
    for (int round = 0; round < ROUNDS; ++round) {
#pragma GCC unroll 1
        for (int lane = 0; lane < LANES; ++lane) {
            uint64_t product_0 = (uint64_t)multiplier_0 * x[0][lane];
            uint64_t product_1 = (uint64_t)multiplier_1 * x[2][lane];

            x[0][lane] = (uint32_t)(product_1 >> 32) ^ x[1][lane] ^ k0;
            x[1][lane] = (uint32_t)product_1;
            x[2][lane] = (uint32_t)(product_0 >> 32) ^ x[3][lane] ^ k1;
            x[3][lane] = (uint32_t)product_0;
        }
        k0 += weyl_0;
        k1 += weyl_1;
    }
}

/* -2 ln u of a 32-bit draw, u = (draw / 2 + 1/2) / 2^31 in (0, 1]. Our own logarithm (Cephes logf,
 * 1 ulp), since libm's may differ from node to node, and inputs must not. */
static inline float minus_two_log(uint32_t draw)
{
    float u = (float)(int32_t)(draw >> 1) * 0x1p-31f + 0x1p-32f;
    uint32_t sqrt_half = 0x3f3504f3u;
    int32_t exponent = (int32_t)(bsattn_bits_of(u) - sqrt_half) >> 23;
    float x = bsattn_float_of(bsattn_bits_of(u) - ((uint32_t)exponent << 23)) - 1.0f;
    float z = x * x;
    float e = (float)exponent;
    float p = 7.0376836292e-2f;
    float tail;

    p = p * x - 1.1514610310e-1f;
    p = p * x + 1.1676998740e-1f;
    p = p * x - 1.2420140846e-1f;
    p = p * x + 1.4249322787e-1f;
    p = p * x - 1.6668057665e-1f;
    p = p * x + 2.0000714765e-1f;
    p = p * x - 2.4999993993e-1f;
    p = p * x + 3.3333331174e-1f;
    tail = p * z * x - 2.12194440e-4f * e - 0.5f * z;
    return -2.0f * ((x + tail) + 0.693359375f * e);
}

/* Cosine and sine of 2 pi draw / 2^32: the two upper bits are the quadrant, the rest an angle
 * within +-pi/4 of its middle. */
static inline void turn(uint32_t draw, float *cos_p, float *sin_p)
{
    uint32_t quadrant = draw >> 30;
    float a = (float)(int32_t)(draw << 2) * (1.57079632679f * 0x1p-32f);
    float z = a * a;
    float s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * a + a;
    float c =
        ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z -
        0.5f * z + 1.0f;
    /* Bit operations, since a choice would keep the caller's loop from being vectorised. */
    uint32_t c_bits = bsattn_bits_of(c);
    uint32_t exchange = (c_bits ^ bsattn_bits_of(s)) & (0u - (quadrant & 1u));

    *cos_p = bsattn_float_of(c_bits ^ exchange ^ (((quadrant + 1u) & 2u) << 30));
    *sin_p = bsattn_float_of(bsattn_bits_of(s) ^ exchange ^ ((quadrant & 2u) << 30));
}

/* The BATCH values of LANES consecutive counters. */
static void normal_batch(uint64_t seed, uint32_t stream, uint64_t block, float out[BATCH])
{
    uint32_t x[4][LANES];
    float radius[2][LANES];
    float cosine[2][LANES];
    float sine[2][LANES];

    philox_lanes(seed, stream, block, x);
    for (int pair = 0; pair < 2; ++pair) {
#pragma GCC unroll 1
        for (int lane = 0; lane < LANES; ++lane) {
            radius[pair][lane] = minus_two_log(x[2 * pair][lane]);
            turn(x[2 * pair + 1][lane], &cosine[pair][lane], &sine[pair][lane]);
        }
        /* Apart, because errno keeps sqrtf from being vectorised. */
#pragma GCC unroll 1
        for (int lane = 0; lane < LANES; ++lane) {
            radius[pair][lane] = sqrtf(radius[pair][lane]);
        }
    }
#pragma GCC unroll 1
    for (int lane = 0; lane < LANES; ++lane) {
        out[4 * lane + 0] = radius[0][lane] * cosine[0][lane];
        out[4 * lane + 1] = radius[0][lane] * sine[0][lane];
        out[4 * lane + 2] = radius[1][lane] * cosine[1][lane];
        out[4 * lane + 3] = radius[1][lane] * sine[1][lane];
    }
}

void bsattn_philox_normal(uint64_t seed, uint32_t stream, uint64_t first, int64_t count, float *out)
{
    uint64_t skip = first % 4;
    uint64_t block = first / 4;

    while (count > 0) {
        if ((skip == 0) && (count >= BATCH)) {
            normal_batch(seed, stream, block, out);
            out += BATCH;
            count -= BATCH;
        } else {
            float values[BATCH];
            int64_t taken = BATCH - (int64_t)skip;

            if (taken > count) {
                taken = count;
            }
            normal_batch(seed, stream, block, values);
            memcpy(out, values + skip, (size_t)taken * sizeof(*out));
            out += taken;
            count -= taken;
            skip = 0;
        }
        block += LANES;
    }
}
