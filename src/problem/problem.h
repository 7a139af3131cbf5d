/* SPDX-License-Identifier: Apache-2.0 */
/** @file problem.h  Token arithmetic of a problem, beside what bsattn.h offers. */
#ifndef BSATTN_PROBLEM_PROBLEM_H
#define BSATTN_PROBLEM_PROBLEM_H

#include "base/status.h"

#include <stdbool.h>

/** Largest number of blocks: block indices are int32_t. */
#define BSATTN_BLOCKS_MAX INT64_C(0x7ffffff0)

/** The type of a name as bsattn_dtype_name() gives it. @return false, leaving *dtype_p: there is none */
bool bsattn_dtype_find(const char *name, bsattn_dtype_t *dtype_p);

/** @return the tokens of blocks first <= x < last, the last block of the sequence being possibly
 *  short */
int64_t bsattn_problem_span_tokens(const bsattn_problem_t *problem, int64_t first, int64_t last);

/** @return bytes of one token row of one head of K (or Q, V, O): D elements */
size_t bsattn_problem_row_bytes(const bsattn_problem_t *problem);

/** @return how many query blocks have their states one after the other (BSATTN_STATE_ROWS) */
int bsattn_problem_state_group(const bsattn_problem_t *problem);

/** @return bytes of the state (O, m, l) in fp32 of so many query blocks of every head */
size_t bsattn_problem_state_bytes(const bsattn_problem_t *problem, int64_t blocks);

#endif
