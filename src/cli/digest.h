/* SPDX-License-Identifier: Apache-2.0 */
/** @file digest.h  A result in three numbers, for comparing runs. */
#ifndef BSATTN_CLI_DIGEST_H
#define BSATTN_CLI_DIGEST_H

#include "cli/trial.h"

/** The same for every layout and P whose elements have the same bits; the sums but for rounding. */
typedef struct bsattn_digest {
    double sum;     /**< of O, in fp64 */
    double abs_sum; /**< of |O|, in fp64 */
    uint64_t hash;  /**< bsattn_digest_mix() of each element, summed mod 2^64 */
} bsattn_digest_t;

/** Hash one element.
 *  @param index  of the element in [b, N, Hq, D]
 *  @param bits   of its value in fp32
 *  @return the finaliser of SplitMix64 (Steele, Lea, Flood 2014) of (index * 2^64/phi) xor bits */
uint64_t bsattn_digest_mix(uint64_t index, uint32_t bits);

/** Collective: take the digest of O over all ranks. */
bsattn_status_t bsattn_digest_take(bsattn_trial_t *trial, bsattn_digest_t *digest_p);

#endif
