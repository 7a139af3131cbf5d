/* SPDX-License-Identifier: Apache-2.0 */
/** @file heads.h  Which query heads share a mask, in words. */
#ifndef BSATTN_REPORT_HEADS_H
#define BSATTN_REPORT_HEADS_H

#include "problem/pattern.h"

/** Write the heads of a class, e.g. "all 8 heads", "head 4" or "heads 0-3,6"; cut to what fits.
 *  @return out */
const char *bsattn_heads_text(const bsattn_pattern_t *pattern, int class_index, char *out,
                              size_t size);

#endif
