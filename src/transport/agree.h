/* SPDX-License-Identifier: Apache-2.0 */
/** @file agree.h  One outcome for all ranks: what each rank reports, and how the lowest failure is told. */
#ifndef BSATTN_TRANSPORT_AGREE_H
#define BSATTN_TRANSPORT_AGREE_H

#include "base/status.h"

#include <stdbool.h>

/** What a rank says of itself. */
typedef struct bsattn_verdict {
    int32_t status;
    char text[BSATTN_ERROR_TEXT_SIZE];
} bsattn_verdict_t;

/** Fill in the calling thread's last error if status is a failure. */
void bsattn_verdict_init(bsattn_verdict_t *verdict, bsattn_status_t status);

/** The outcome of ranks that failed or not.
 *  @param statuses  [ranks]
 *  @return the lowest failing rank, -1 if none failed */
int bsattn_verdict_first(const int32_t *statuses, int ranks);

/** Take over the failure of a rank: bsattn_last_error() becomes its message, with "rank R: " before it unless R is 0 or all
 *  ranks failed alike. @return its status */
bsattn_status_t bsattn_verdict_adopt(const bsattn_verdict_t *verdict, int rank, bool all_alike);

#endif
