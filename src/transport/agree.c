/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/agree.h"

#include "base/text.h"
#include "transport/transport.h"

#include <stdlib.h>

void bsattn_verdict_init(bsattn_verdict_t *verdict, bsattn_status_t status)
{
    *verdict = (bsattn_verdict_t){.status = (int32_t)status};
    if (status != BSATTN_OK) {
        (void)bsattn_text_copy(verdict->text, sizeof(verdict->text), bsattn_last_error());
    }
}

int bsattn_verdict_first(const int32_t *statuses, int ranks)
{
    for (int rank = 0; rank < ranks; ++rank) {
        if (statuses[rank] != BSATTN_OK) {
            return rank;
        }
    }
    return -1;
}

bsattn_status_t bsattn_verdict_adopt(const bsattn_verdict_t *verdict, int rank, bool all_alike)
{
    bsattn_status_t status = (bsattn_status_t)verdict->status;

    if ((rank == 0) || all_alike) {
        return bsattn_fail(status, "%s", verdict->text);
    }
    return bsattn_fail(status, "rank %d: %s", rank, verdict->text);
}

bsattn_status_t bsattn_transport_agree(bsattn_transport_t *transport, bsattn_status_t status)
{
    size_t local_count = (size_t)transport->local_count;
    size_t ranks = (size_t)transport->ranks;
    int32_t *statuses = malloc((local_count + ranks) * sizeof(*statuses));
    bsattn_verdict_t *verdicts = malloc((local_count + ranks) * sizeof(*verdicts));
    bsattn_status_t outcome = BSATTN_OK;
    bool alike = true;
    int first;

    BSATTN_ASSERT((statuses != NULL) && (verdicts != NULL));
    for (size_t i = 0; i < local_count; ++i) {
        statuses[ranks + i] = (int32_t)status;
        bsattn_verdict_init(&verdicts[ranks + i], status);
    }
    outcome = transport->ops->gather(transport, statuses + ranks, sizeof(*statuses), statuses);
    first = (outcome == BSATTN_OK) ? bsattn_verdict_first(statuses, transport->ranks) : -1;
    if (first >= 0) {
        outcome = transport->ops->gather(transport, verdicts + ranks, sizeof(*verdicts), verdicts);
    }
    if ((first >= 0) && (outcome == BSATTN_OK)) {
        for (size_t rank = 0; rank < ranks; ++rank) {
            alike = alike && (statuses[rank] == statuses[first]);
        }
        outcome = bsattn_verdict_adopt(&verdicts[first], first, alike);
    }
    free(statuses);
    free(verdicts);
    return outcome;
}
