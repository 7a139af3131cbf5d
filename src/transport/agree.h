/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file agree.h
 * One outcome for all ranks, in two rounds: every rank gives its outcome to all; if one failed, the
 * lowest failing rank gives its message to all.
 */
#ifndef BSATTN_TRANSPORT_AGREE_H
#define BSATTN_TRANSPORT_AGREE_H

#include "base/status.h"

#include <stdbool.h>

/** What a rank tells in the first round. */
typedef struct bsattn_outcome {
    int32_t status;
    uint32_t text_hash; /**< of its message; 0 without failure */
} bsattn_outcome_t;

/** What the lowest failing rank tells in the second. */
typedef struct bsattn_verdict {
    int32_t status;
    char text[BSATTN_ERROR_TEXT_SIZE];
} bsattn_verdict_t;

/** @return this thread's outcome: its status and last error */
bsattn_outcome_t bsattn_outcome_of(bsattn_status_t status);

/** @param outcomes  [ranks]
 *  @param alike_p   receives whether all ranks failed with the same message
 *  @return the lowest failing rank, -1 if none failed */
int bsattn_outcome_first(const bsattn_outcome_t *outcomes, int ranks, bool *alike_p);

/** Fill in the calling thread's failure. */
void bsattn_verdict_init(bsattn_verdict_t *verdict, bsattn_status_t status);

/** Take over the failure of a rank: bsattn_last_error() becomes its message, with "rank R: " before
 *  it unless R is 0, all ranks failed alike, or the message names a rank already: that of whom R was
 *  told it. @return its status */
bsattn_status_t bsattn_verdict_adopt(const bsattn_verdict_t *verdict, int rank, bool alike);

#endif
