/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/agree.h"

#include "base/text.h"
#include "transport/transport.h"

#include <string.h>

/* FNV-1a */
static uint32_t hash_text(const char *text)
{
    uint32_t hash = 2166136261u;

    for (; *text != '\0'; ++text) {
        hash = (hash ^ (unsigned char)*text) * 16777619u;
    }
    return hash;
}

bsattn_outcome_t bsattn_outcome_of(bsattn_status_t status)
{
    return (bsattn_outcome_t){
        .status = (int32_t)status,
        .text_hash = (status == BSATTN_OK) ? 0 : hash_text(bsattn_last_error()),
    };
}

int bsattn_outcome_first(const bsattn_outcome_t *outcomes, int ranks, bool *alike_p)
{
    int first = -1;

    *alike_p = true;
    for (int rank = ranks - 1; rank >= 0; --rank) {
        first = (outcomes[rank].status != BSATTN_OK) ? rank : first;
        *alike_p = *alike_p && (outcomes[rank].status == outcomes[0].status) &&
                   (outcomes[rank].text_hash == outcomes[0].text_hash);
    }
    return first;
}

void bsattn_verdict_init(bsattn_verdict_t *verdict, bsattn_status_t status)
{
    *verdict = (bsattn_verdict_t){.status = (int32_t)status};
    (void)bsattn_text_copy(verdict->text, sizeof(verdict->text), bsattn_last_error());
}

/* Whether a message says already whose it is: the rank that tells it was told it by another. */
static bool names_rank(const char *text)
{
    static const char word[] = "rank ";
    size_t length = sizeof(word) - 1;

    if (strncmp(text, word, length) != 0) {
        return false;
    }
    text += length;
    length = strspn(text, "0123456789");
    return (length > 0) && (strncmp(text + length, ": ", 2) == 0);
}

bsattn_status_t bsattn_verdict_adopt(const bsattn_verdict_t *verdict, int rank, bool alike)
{
    bsattn_status_t status = (bsattn_status_t)verdict->status;

    if ((rank == 0) || alike || names_rank(verdict->text)) {
        return bsattn_fail(status, "%s", verdict->text);
    }
    return bsattn_fail(status, "rank %d: %s", rank, verdict->text);
}

bsattn_status_t bsattn_transport_agree(bsattn_transport_t *transport, bsattn_status_t status)
{
    bsattn_outcome_t *all = transport->outcomes;
    bsattn_outcome_t *mine = all + transport->ranks;
    bsattn_verdict_t verdict;
    bool alike;
    int first;

    for (int i = 0; i < transport->local_count; ++i) {
        mine[i] = bsattn_outcome_of(status);
    }
    BSATTN_TRY(transport->ops->gather(transport, mine, sizeof(*mine), all));
    first = bsattn_outcome_first(all, transport->ranks, &alike);
    if (first < 0) {
        return BSATTN_OK;
    }
    bsattn_verdict_init(&verdict, status);
    BSATTN_TRY(transport->ops->broadcast(transport, &verdict, sizeof(verdict), first));
    return bsattn_verdict_adopt(&verdict, first, alike);
}

bsattn_status_t bsattn_transport_barrier(bsattn_transport_t *transport)
{
    bsattn_outcome_t *all = transport->outcomes;

    return transport->ops->gather(transport, all + transport->ranks, sizeof(*all), all);
}
