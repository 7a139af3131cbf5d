/* SPDX-License-Identifier: Apache-2.0 */
/** @file mask_grid.h  One head's mask, counted into a grid of cells of equal numbers of blocks. */
#ifndef BSATTN_REPORT_MASK_GRID_H
#define BSATTN_REPORT_MASK_GRID_H

#include "base/status.h"

/** Cell (y, x) holds query blocks y*nb/rows .. (y+1)*nb/rows - 1 and key blocks likewise. */
typedef struct bsattn_mask_grid {
    int64_t blocks;  /**< nb */
    int64_t rows;    /**< <= nb */
    int64_t columns; /**< <= nb */
    double *filled;  /**< [rows, columns], 0 .. 1: active pairs / pairs of the cell; owned */
} bsattn_mask_grid_t;

/** Count a head's mask. A block pair of two branches counts once for each, but no cell beyond 1.
 *  @param grid_p  to be released with bsattn_mask_grid_free()
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_mask_grid_count(bsattn_pattern_t *pattern, int head, int64_t blocks,
                                       int64_t rows, int64_t columns, bsattn_mask_grid_t *grid_p);

void bsattn_mask_grid_free(bsattn_mask_grid_t *grid);

/** @return the first block of cell number index of count cells over nb blocks */
int64_t bsattn_mask_grid_first(int64_t index, int64_t count, int64_t blocks);

#endif
