/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file philox.h
 * Counter-based random numbers: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random
 * numbers: as easy as 1, 2, 3, SC11). Every value is a pure function of (seed, stream, index): any
 * rank can recompute any value.
 */
#ifndef BSATTN_BASE_PHILOX_H
#define BSATTN_BASE_PHILOX_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One block of four outputs, uniform over 32 bits. out may be counter. */
void bsattn_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/** @return one draw, uniform over 32 bits: output index % 4 of counter {index / 4 low, index / 4
 *          high, stream, 0} under key {seed low, seed high} */
uint32_t bsattn_philox_u32(uint64_t seed, uint32_t stream, uint64_t index);

/** Values first .. first + count - 1 of one tensor's stream, normal(0,1), by Box-Muller on the four
 *  outputs of counter {index / 4 low, index / 4 high, stream, 0}. The same bits however the range
 *  is cut and whatever libm is there. Always finite: |value| < 6.7. Thread safe.
 *  @param count  >= 0
 *  @param out    [count] */
void bsattn_philox_normal(uint64_t seed, uint32_t stream, uint64_t first, int64_t count,
                          float *out);

#ifdef __cplusplus
}
#endif

#endif
