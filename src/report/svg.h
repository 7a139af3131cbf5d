/* SPDX-License-Identifier: Apache-2.0 */
/** @file svg.h  A pattern drawn as a picture. */
#ifndef BSATTN_REPORT_SVG_H
#define BSATTN_REPORT_SVG_H

#include "bsattn.h"

#include <stdio.h>

/** Draw the different masks of a pattern, at most 16 of them, side by side: queries downwards, keys
 *  to the right, axes in tokens, titled with the pattern's text and measured densities. Runs of
 *  active blocks become rectangles; a mask with too many of them is drawn as a density picture,
 *  which the caption says. The file needs nothing from outside.
 *  @param text  the pattern's text
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY; whether the file took everything is the caller's to ask
 *          with ferror() */
bsattn_status_t bsattn_svg_mask(bsattn_pattern_t *pattern, const bsattn_problem_t *problem,
                                const char *text, FILE *file);

#endif
