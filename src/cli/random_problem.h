/* SPDX-License-Identifier: Apache-2.0 */
/** @file random_problem.h  A small problem chosen by lot, the same on every rank. */
#ifndef BSATTN_CLI_RANDOM_PROBLEM_H
#define BSATTN_CLI_RANDOM_PROBLEM_H

#include "bsattn.h"

enum { BSATTN_RANDOM_TEXT_SIZE = 640 };

typedef struct bsattn_random_problem {
    bsattn_problem_t problem;
    char pattern[BSATTN_RANDOM_TEXT_SIZE];
    char layout[32];
    const char *exchange; /**< static */
    int ranks;     /**< 1 .. 8, for a transport that can have any number */
    uint64_t seed; /**< of its input */
} bsattn_random_problem_t;

/** Draw problem number index: a pure function of (seed, index). Every shape fits
 *  bsattn_problem_check(), every pattern the language of bsattn_pattern_create(). */
void bsattn_random_problem_draw(uint64_t seed, int64_t index, bsattn_random_problem_t *drawn_p);

/** Write the command that computes it alone, the same way, and checks every row.
 *  @param info  of the context that computed it
 *  @return out */
const char *bsattn_random_problem_command(const bsattn_random_problem_t *drawn,
                                          const bsattn_context_info_t *info, char *out,
                                          size_t size);

#endif
