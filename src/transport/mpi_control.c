/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/mpi_control.h"

#include "transport/agree.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Failures and letters travel beside the words of mpi_watch.c, above their tag. */
enum { FAILURE_TAG = 15, LETTER_TAG = 16 };

struct bsattn_mpi_letter {
    bsattn_mpi_letter_t *next;
    MPI_Request request;
    char data[];
};

/* All ranks meet, whether or not they have memory for what comes.
 * @return BSATTN_OK if all have */
static bsattn_status_t meet(const void *from, double timeout_s, const char *name, bool ready,
                            bsattn_mpi_control_t *mpi)
{
    bsattn_status_t status;
    bool all = false;

    BSATTN_TRY(bsattn_mpi_duplicate(*(const MPI_Comm *)from, timeout_s, &mpi->comm));
    (void)MPI_Comm_set_errhandler(mpi->comm, MPI_ERRORS_RETURN);
    status = bsattn_mpi_watch_init(&mpi->watch, mpi->comm, timeout_s);
    if (status != BSATTN_OK) {
        (void)MPI_Comm_free(&mpi->comm);
        return status;
    }
    status = bsattn_mpi_watch_all(&mpi->watch, mpi->comm, ready, &all);
    if ((status == BSATTN_OK) && !all) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "%s no memory for the %s transport",
                             ready ? "another rank has" : "there is", name);
    }
    if (status != BSATTN_OK) {
        bsattn_mpi_watch_free(&mpi->watch);
        (void)MPI_Comm_free(&mpi->comm);
    }
    return status;
}

bsattn_status_t bsattn_control_decline(const bsattn_transport_ops_t *ops, const void *comm,
                                       double timeout_s)
{
    bsattn_mpi_control_t never;

    return meet(comm, timeout_s, ops->name, false, &never);
}

bsattn_status_t bsattn_control_init(bsattn_control_t *control, const bsattn_transport_ops_t *ops,
                                    const void *comm, double timeout_s)
{
    bsattn_mpi_control_t *mpi = calloc(1, sizeof(*mpi));
    bsattn_outcome_t *outcomes;
    bsattn_status_t status;
    int ranks = 0;
    int rank = 0;

    (void)MPI_Comm_size(*(const MPI_Comm *)comm, &ranks);
    (void)MPI_Comm_rank(*(const MPI_Comm *)comm, &rank);
    outcomes = calloc((size_t)ranks + 1, sizeof(*outcomes));
    if ((mpi == NULL) || (outcomes == NULL)) {
        status = bsattn_control_decline(ops, comm, timeout_s);
        goto err_free;
    }
    status = meet(comm, timeout_s, ops->name, true, mpi);
    if (status != BSATTN_OK) {
        goto err_free;
    }
    control->super = (bsattn_transport_t){
        .ops = ops,
        .ranks = ranks,
        .local_count = 1,
        .first_rank = rank,
        .outcomes = outcomes,
        .unevenness = 1.0,
    };
    mpi->watch.unevenness = &control->super.unevenness;
    control->mpi = mpi;
    return BSATTN_OK;

err_free:
    free(outcomes);
    free(mpi);
    return status;
}

/* Forget letters that have left. */
static void clear_posted(bsattn_mpi_control_t *mpi)
{
    bsattn_mpi_letter_t **link = &mpi->posted;

    while (*link != NULL) {
        bsattn_mpi_letter_t *letter = *link;
        int done = 0;
        if ((MPI_Test(&letter->request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS) && !done) {
            link = &letter->next;
            continue;
        }
        *link = letter->next;
        free(letter);
    }
}

void bsattn_control_free(bsattn_control_t *control)
{
    bsattn_mpi_control_t *mpi = control->mpi;

    clear_posted(mpi);
    /* Letters this short leave at once; the memory of one that nobody will take stays with MPI. */
    for (bsattn_mpi_letter_t *letter = mpi->posted; letter != NULL; letter = letter->next) {
        (void)MPI_Request_free(&letter->request);
    }
    bsattn_mpi_watch_free(&mpi->watch);
    (void)MPI_Comm_free(&mpi->comm);
    free(control->super.outcomes);
    free(mpi);
}

bsattn_status_t bsattn_control_gather(bsattn_transport_t *transport, const void *local_items,
                                      size_t item_bytes, void *all_items)
{
    bsattn_mpi_control_t *mpi = ((bsattn_control_t *)transport)->mpi;
    MPI_Request request;

    BSATTN_ASSERT(item_bytes <= INT_MAX);
    BSATTN_TRY(bsattn_mpi_check(MPI_Iallgather(local_items, (int)item_bytes, MPI_BYTE, all_items,
                                               (int)item_bytes, MPI_BYTE, mpi->comm, &request),
                                "MPI_Iallgather"));
    return bsattn_mpi_watch_wait(&mpi->watch, 1, &request, "for all ranks to meet");
}

bsattn_status_t bsattn_control_broadcast(bsattn_transport_t *transport, void *data, size_t bytes,
                                         int root)
{
    bsattn_mpi_control_t *mpi = ((bsattn_control_t *)transport)->mpi;
    MPI_Request request;

    BSATTN_ASSERT(bytes <= INT_MAX);
    BSATTN_TRY(bsattn_mpi_check(MPI_Ibcast(data, (int)bytes, MPI_BYTE, root, mpi->comm, &request),
                                "MPI_Ibcast"));
    return bsattn_mpi_watch_wait(&mpi->watch, 1, &request, "for the word of another rank");
}

bsattn_status_t bsattn_control_poll(bsattn_transport_t *transport)
{
    bsattn_mpi_control_t *mpi = ((bsattn_control_t *)transport)->mpi;
    int there;

    clear_posted(mpi);
    return bsattn_mpi_check(
        MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, mpi->watch.side, &there, MPI_STATUS_IGNORE),
        "MPI_Iprobe");
}

void bsattn_control_stalled(bsattn_transport_t *transport, const char *what, double waited_ms,
                            double late_ms)
{
    bsattn_mpi_watch_stalled(&((bsattn_control_t *)transport)->mpi->watch, what, waited_ms,
                             late_ms);
}

/* Whether another rank has told of its failure: then that is this rank's, too. */
static bsattn_status_t hear_failure(bsattn_mpi_control_t *mpi)
{
    bsattn_verdict_t verdict;
    MPI_Status status;
    int there = 0;

    BSATTN_TRY(bsattn_mpi_check(
        MPI_Iprobe(MPI_ANY_SOURCE, FAILURE_TAG, mpi->watch.side, &there, &status), "MPI_Iprobe"));
    if (!there) {
        return BSATTN_OK;
    }
    BSATTN_TRY(
        bsattn_mpi_check(MPI_Recv(&verdict, (int)sizeof(verdict), MPI_BYTE, status.MPI_SOURCE,
                                  FAILURE_TAG, mpi->watch.side, MPI_STATUS_IGNORE),
                         "MPI_Recv"));
    ++mpi->heard;
    return bsattn_verdict_adopt(&verdict, status.MPI_SOURCE, false);
}

typedef struct until {
    bsattn_control_t *control;
    bsattn_look_t *look;
    void *arg;
} until_t;

static bsattn_status_t look_and_poll(void *arg, bool *done_p)
{
    const until_t *until = arg;

    BSATTN_TRY(until->look(until->arg, done_p));
    if (*done_p) {
        return BSATTN_OK;
    }
    clear_posted(until->control->mpi);
    return hear_failure(until->control->mpi);
}

bsattn_status_t bsattn_control_until(bsattn_control_t *control, bsattn_look_t *look, void *arg,
                                     const char *what)
{
    until_t until = {.control = control, .look = look, .arg = arg};

    return bsattn_mpi_watch_until(&control->mpi->watch, look_and_poll, &until, what);
}

static bsattn_status_t send_letter(bsattn_mpi_control_t *mpi, int to, int tag, const void *data,
                                   size_t bytes)
{
    bsattn_mpi_letter_t *letter;
    bsattn_status_t status;

    clear_posted(mpi);
    letter = malloc(sizeof(*letter) + bytes);
    if (letter == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for a letter to rank %d", to);
    }
    memcpy(letter->data, data, bytes);
    status = bsattn_mpi_check(
        MPI_Isend(letter->data, (int)bytes, MPI_BYTE, to, tag, mpi->watch.side, &letter->request),
        "MPI_Isend");
    if (status != BSATTN_OK) {
        free(letter);
        return status;
    }
    letter->next = mpi->posted;
    mpi->posted = letter;
    return BSATTN_OK;
}

bsattn_status_t bsattn_control_tell_failure(bsattn_control_t *control, bsattn_status_t status)
{
    bsattn_mpi_control_t *mpi = control->mpi;
    bsattn_verdict_t verdict;

    if ((mpi->told > 0) || (mpi->heard > 0)) {
        return status;
    }
    bsattn_verdict_init(&verdict, status);
    BSATTN_TRY(hear_failure(mpi));
    for (int rank = 0; rank < control->super.ranks; ++rank) {
        if ((rank != control->super.first_rank) &&
            (send_letter(mpi, rank, FAILURE_TAG, &verdict, sizeof(verdict)) != BSATTN_OK)) {
            break;
        }
        mpi->told = rank + 1;
    }
    return bsattn_fail(status, "%s", verdict.text); /* a letter that could not leave is no news */
}

typedef struct tellers {
    bsattn_mpi_control_t *mpi;
    int count;
} tellers_t;

static bsattn_status_t look_for_tellers(void *arg, bool *done_p)
{
    const tellers_t *tellers = arg;

    *done_p = tellers->mpi->heard >= tellers->count;
    if (!*done_p) { /* else the next would be of another time */
        (void)hear_failure(tellers->mpi);
    }
    return BSATTN_OK;
}

void bsattn_control_forget_failures(bsattn_control_t *control)
{
    bsattn_transport_t *super = &control->super;
    bsattn_mpi_control_t *mpi = control->mpi;
    bsattn_outcome_t mine = {.status = mpi->told};
    tellers_t tellers = {.mpi = mpi};
    bsattn_verdict_t kept;

    bsattn_verdict_init(&kept, BSATTN_OK);
    if (bsattn_control_gather(super, &mine, sizeof(mine), super->outcomes) == BSATTN_OK) {
        for (int rank = 0; rank < super->ranks; ++rank) {
            bool told = super->first_rank < super->outcomes[rank].status;
            tellers.count += ((rank != super->first_rank) && told) ? 1 : 0;
        }
        (void)bsattn_mpi_watch_until(&mpi->watch, look_for_tellers, &tellers,
                                     "for what ranks that failed told");
    }
    mpi->told = 0;
    mpi->heard = 0;
    (void)bsattn_fail(BSATTN_OK, "%s", kept.text);
}

bsattn_status_t bsattn_control_post(bsattn_control_t *control, int to, int tag, const void *data,
                                    size_t bytes)
{
    BSATTN_ASSERT(bytes <= BSATTN_LETTER_SIZE);
    return send_letter(control->mpi, to, LETTER_TAG + tag, data, bytes);
}

bsattn_status_t bsattn_control_take(bsattn_control_t *control, int from, int tag, void *data,
                                    size_t bytes, bool *there_p)
{
    MPI_Comm side = control->mpi->watch.side;
    int there = 0;

    *there_p = false;
    BSATTN_TRY(bsattn_mpi_check(MPI_Iprobe(from, LETTER_TAG + tag, side, &there, MPI_STATUS_IGNORE),
                                "MPI_Iprobe"));
    if (!there) {
        return BSATTN_OK;
    }
    BSATTN_TRY(bsattn_mpi_check(
        MPI_Recv(data, (int)bytes, MPI_BYTE, from, LETTER_TAG + tag, side, MPI_STATUS_IGNORE),
        "MPI_Recv"));
    *there_p = true;
    return BSATTN_OK;
}

typedef struct expected {
    bsattn_control_t *control;
    int from;
    int tag;
    void *data;
    size_t bytes;
} expected_t;

static bsattn_status_t look_for_letter(void *arg, bool *done_p)
{
    const expected_t *expected = arg;

    return bsattn_control_take(expected->control, expected->from, expected->tag, expected->data,
                               expected->bytes, done_p);
}

bsattn_status_t bsattn_control_await(bsattn_control_t *control, int from, int tag, void *data,
                                     size_t bytes, const char *what)
{
    expected_t expected = {
        .control = control, .from = from, .tag = tag, .data = data, .bytes = bytes};

    return bsattn_control_until(control, look_for_letter, &expected, what);
}
