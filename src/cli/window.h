/* SPDX-License-Identifier: Apache-2.0 */
/** @file window.h  A view of some tokens of a rank at a time, for data that is not all brought into
 *  host memory at once. */
#ifndef BSATTN_CLI_WINDOW_H
#define BSATTN_CLI_WINDOW_H

#include "cli/trial.h"

typedef struct bsattn_window {
    const bsattn_token_run_t *all; /**< runs of the rank, the plan's */
    size_t all_count;
    int64_t tokens_max; /**< of a window, over all ranks */
    int64_t windows;    /**< that the rank with most tokens needs: every rank can take part in as
                             many collective reads or writes */

    int64_t first; /**< local token that the window begins with */
    int64_t count; /**< its tokens; 0: this rank has no more */
    bsattn_token_run_t *runs; /**< their places in the sequence; owned */
    size_t run_count;
} bsattn_window_t;

/** Choose windows of about 16 MiB.
 *  @param token_bytes  of one token, all batch items and heads
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY; release with bsattn_window_free() in either case */
bsattn_status_t bsattn_window_init(bsattn_window_t *window, const bsattn_trial_t *trial, int local,
                                   int64_t token_bytes);
void bsattn_window_free(bsattn_window_t *window);

/** Move to a window, 0 .. windows - 1. */
void bsattn_window_move(bsattn_window_t *window, int64_t index);

#endif
