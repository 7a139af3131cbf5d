/* SPDX-License-Identifier: Apache-2.0 */
/** @file mask_text.h  A pattern drawn with characters. */
#ifndef BSATTN_REPORT_MASK_TEXT_H
#define BSATTN_REPORT_MASK_TEXT_H

#include "bsattn.h"

#include <stdbool.h>
#include <stdio.h>

/** Draw the different masks of a pattern one after the other: queries downwards, keys to the right,
 *  at most 64 columns. Up to 64 blocks every cell is one block, '.' inactive and '@' active (two
 *  characters wide up to 32). Beyond, a cell is a rectangle of blocks and its character tells how
 *  many of them are active: one of ".-=+*%@". Data lines are the first query token and the cells;
 *  commentary begins with '#'.
 *  @param commentary  print it
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_mask_text(bsattn_pattern_t *pattern, const bsattn_problem_t *problem,
                                 bool commentary, FILE *file);

#endif
