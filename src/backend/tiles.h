/* SPDX-License-Identifier: Apache-2.0 */
/** @file tiles.h  A step's lists of blocks, cut into the tiles of a GPU kernel (attend_cuda.h). Pure. */
#ifndef BSATTN_BACKEND_TILES_H
#define BSATTN_BACKEND_TILES_H

#include "base/status.h"
#include "kernels/attend_cuda.h"

typedef struct bsattn_tiles_params {
    bsattn_tile_shape_t shape;
    int block;          /**< B */
    int64_t tokens;     /**< n: local query rows */
    int64_t key_tokens; /**< token rows of a key head of this class in the chunk */
    const bsattn_work_list_t *list;
} bsattn_tiles_params_t;

/** The items of one list in host memory. */
typedef struct bsattn_tiles {
    bsattn_tile_item_t *items; /**< longest first */
    size_t item_count;
    bsattn_key_tile_t *tiles;
    size_t tile_count;
    bsattn_tile_run_t *runs;
    size_t run_count;
    int64_t reach; /**< most key tokens from the first that an item sees to the last */
} bsattn_tiles_t;

/** How much neighbouring rows have in common: sums over query tiles of two halves. */
typedef struct bsattn_tiles_spread {
    double half; /**< key blocks that a half sees, mean of both */
    double tile; /**< key blocks that any of the two sees */
} bsattn_tiles_spread_t;

/** Add what a sample of a list's query tiles has in common. @param params  without shape and keys
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_tiles_add_spread(const bsattn_tiles_params_t *params,
                                        bsattn_tiles_spread_t *spread);

/** @return what a kernel's shape() wants to know; 1 for no lists at all */
double bsattn_tiles_spread(const bsattn_tiles_spread_t *spread);

/** Cut one list. Every (query block, key block) entry of the list is in exactly one tile; a key
 *  block that is twice in a query block's list (two branches) counts twice.
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY; release with bsattn_tiles_free() */
bsattn_status_t bsattn_tiles_init(bsattn_tiles_t *tiles, const bsattn_tiles_params_t *params);
void bsattn_tiles_free(bsattn_tiles_t *tiles);

#endif
