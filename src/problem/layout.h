/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file layout.h
 * A layout maps every block of the sequence to the rank that owns it.
 *
 * A rank's blocks in ascending order are its slots 0, 1, ..; so a span of blocks, seen by one
 * owner, is a span of slots under every layout. All functions are closed forms, O(1).
 *
 *   contiguous  rank p owns one run of nb/P blocks (the first nb % P ranks one more)
 *   zigzag      the sequence is cut in 2P runs; rank p owns the runs p and 2P-1-p
 *   cyclic:k    runs of k blocks are dealt round robin
 */
#ifndef BSATTN_PROBLEM_LAYOUT_H
#define BSATTN_PROBLEM_LAYOUT_H

#include "base/status.h"

#include <stdbool.h>

typedef enum bsattn_layout_kind {
    BSATTN_LAYOUT_CONTIGUOUS,
    BSATTN_LAYOUT_ZIGZAG,
    BSATTN_LAYOUT_CYCLIC,
} bsattn_layout_kind_t;

typedef struct bsattn_layout {
    bsattn_layout_kind_t kind;
    int ranks;      /**< P */
    int64_t blocks; /**< nb */
    int64_t run;    /**< k of cyclic */
} bsattn_layout_t;

/** Read "contiguous", "zigzag", "cyclic" or "cyclic:k".
 *  @return BSATTN_OK or BSATTN_ERR_INPUT */
bsattn_status_t bsattn_layout_parse(const char *text, int64_t blocks, int ranks,
                                    bsattn_layout_t *layout_p);

/** Write the layout as text that bsattn_layout_parse() reads. */
void bsattn_layout_format(const bsattn_layout_t *layout, char *out, size_t size);

/** @return the rank that owns a block */
int bsattn_layout_owner(const bsattn_layout_t *layout, int64_t block);

/** @return the number of a rank's blocks below `block` (0 .. nb): the slot of `block` if the rank
 *  owns it */
int64_t bsattn_layout_lower(const bsattn_layout_t *layout, int rank, int64_t block);

/** @return the number of blocks a rank owns */
int64_t bsattn_layout_count(const bsattn_layout_t *layout, int rank);

/** @return the block in a rank's slot, 0 <= slot < count */
int64_t bsattn_layout_block(const bsattn_layout_t *layout, int rank, int64_t slot);

/** @return the end of the run of consecutive blocks with one owner that `block` lies in */
int64_t bsattn_layout_run_end(const bsattn_layout_t *layout, int64_t block);

/** The part of a span that one rank owns. */
typedef struct bsattn_piece {
    int owner;
    int32_t slot; /**< first slot at the owner */
    int32_t count;
} bsattn_piece_t;

/** Walks the pieces of a span: at most P, with zigzag 2P. Start with bsattn_piece_begin(), go on
 *  while it returns true. */
typedef struct bsattn_piece_walk {
    const bsattn_layout_t *layout;
    bsattn_span_t span;
    int64_t at; /**< next block, or next rank when walking by owner */
    bool by_owner;
} bsattn_piece_walk_t;

void bsattn_piece_begin(bsattn_piece_walk_t *walk, const bsattn_layout_t *layout,
                        bsattn_span_t span);
bool bsattn_piece_next(bsattn_piece_walk_t *walk, bsattn_piece_t *piece);

#endif
