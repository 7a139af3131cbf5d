/* SPDX-License-Identifier: Apache-2.0 */
/* What transports with one rank per process share: letters between ranks, waiting for anything, and
 * what a build without a GPU's library says. */
#include "transport/control.h"

#include "vote.h"

#include <string.h>

enum { TAG_A = 0, TAG_B = 99, LETTERS = 50 };

static bsattn_control_t control;

static void no_destroy(bsattn_transport_t *transport)
{
    (void)transport;
}

static const bsattn_transport_ops_t ops = {
    .name = "test",
    .destroy = no_destroy,
    .poll = bsattn_control_poll,
    .stalled = bsattn_control_stalled,
    .gather = bsattn_control_gather,
    .broadcast = bsattn_control_broadcast,
};

typedef struct letter {
    int from;
    int number;
    char rest[BSATTN_LETTER_SIZE - 2 * sizeof(int)];
} letter_t;

/* Many letters on two tags, the second tag read first: each tag keeps its order. */
static void test_letters(int rank, int ranks)
{
    int to = (rank + 1) % ranks;
    int from = (rank + ranks - 1) % ranks;

    for (int i = 0; i < LETTERS; ++i) {
        letter_t letter = {.from = rank, .number = i};
        memset(letter.rest, i, sizeof(letter.rest));
        EXPECT(bsattn_control_post(&control, to, TAG_A, &letter, sizeof(letter)) == BSATTN_OK, "%s",
               bsattn_last_error());
        letter.number = 1000 + i;
        EXPECT(bsattn_control_post(&control, to, TAG_B, &letter, sizeof(letter)) == BSATTN_OK, "%s",
               bsattn_last_error());
    }
    for (int i = 0; i < 2 * LETTERS; ++i) {
        int tag = (i < LETTERS) ? TAG_B : TAG_A;
        int number = (i < LETTERS) ? 1000 + i : i - LETTERS;
        letter_t letter = {.from = -1};
        EXPECT(bsattn_control_await(&control, from, tag, &letter, sizeof(letter), "for a letter") ==
                   BSATTN_OK,
               "%s", bsattn_last_error());
        EXPECT((letter.from == from) && (letter.number == number), "from %d number %d, not %d %d",
               letter.from, letter.number, from, number);
        EXPECT(letter.rest[sizeof(letter.rest) - 1] == (char)(number % 1000), "number %d", number);
    }
}

static void test_no_letter(int rank, int ranks)
{
    letter_t letter;
    bool there = true;

    EXPECT(bsattn_control_take(&control, (rank + 1) % ranks, 5, &letter, sizeof(letter), &there) ==
               BSATTN_OK,
           "%s", bsattn_last_error());
    EXPECT(!there, "nobody wrote");
    EXPECT(bsattn_control_poll(&control.super) == BSATTN_OK, "%s", bsattn_last_error());
}

static bsattn_status_t look_three_times(void *arg, bool *done_p)
{
    int *looks = arg;

    ++*looks;
    *done_p = (*looks >= 3);
    return BSATTN_OK;
}

static bsattn_status_t look_and_fail(void *arg, bool *done_p)
{
    (void)arg;
    *done_p = false;
    return bsattn_fail(BSATTN_ERR_ENVIRONMENT, "looked at and broken");
}

static void test_until(void)
{
    int looks = 0;

    EXPECT(bsattn_control_until(&control, look_three_times, &looks, "for looks") == BSATTN_OK, "%s",
           bsattn_last_error());
    EXPECT(looks == 3, "%d looks", looks);
    EXPECT(bsattn_control_until(&control, look_and_fail, NULL, "for a failure") ==
               BSATTN_ERR_ENVIRONMENT,
           "a look's failure is the wait's");
    EXPECT(strcmp(bsattn_last_error(), "looked at and broken") == 0, "%s", bsattn_last_error());
}

static void test_meeting(int rank, int ranks)
{
    int all[64];
    int word = (rank == ranks - 1) ? 77 : 0;
    bsattn_status_t mine =
        (rank == ranks - 1) ? bsattn_fail(BSATTN_ERR_INPUT, "the last fails") : BSATTN_OK;

    EXPECT(bsattn_control_gather(&control.super, &rank, sizeof(rank), all) == BSATTN_OK, "%s",
           bsattn_last_error());
    for (int r = 0; r < ranks; ++r) {
        EXPECT(all[r] == r, "%d at %d", all[r], r);
    }
    EXPECT(bsattn_control_broadcast(&control.super, &word, sizeof(word), ranks - 1) == BSATTN_OK,
           "%s", bsattn_last_error());
    EXPECT(word == 77, "%d", word);
    EXPECT(bsattn_transport_agree(&control.super, mine) == BSATTN_ERR_INPUT, "all fail");
    EXPECT(strstr(bsattn_last_error(), "the last fails") != NULL, "%s", bsattn_last_error());
    EXPECT(bsattn_transport_barrier(&control.super) == BSATTN_OK, "%s", bsattn_last_error());
}

static bsattn_status_t look_in_vain(void *arg, bool *done_p)
{
    (void)arg;
    *done_p = false;
    return BSATTN_OK;
}

/* The last rank fails where the others wait for something that only it could bring about. */
static void test_failure(int rank, int ranks)
{
    char expected[64];
    bsattn_status_t status;

    if (rank == ranks - 1) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "its GPU is full");
        (void)bsattn_control_tell_failure(&control, status);
        EXPECT(strcmp(bsattn_last_error(), "its GPU is full") == 0, "%s", bsattn_last_error());
        (void)bsattn_control_tell_failure(&control,
                                          bsattn_fail(BSATTN_ERR_INPUT, "told once only"));
        status = bsattn_fail(BSATTN_ERR_MEMORY, "its GPU is full");
    } else {
        status = bsattn_control_until(&control, look_in_vain, NULL, "for the last rank");
        EXPECT(status == BSATTN_ERR_MEMORY, "%d", (int)status);
        /* What one was told is not passed on, or letters would never end. */
        (void)bsattn_control_tell_failure(&control, status);
    }
    EXPECT(bsattn_transport_agree(&control.super, status) == BSATTN_ERR_MEMORY, "all fail");
    (void)snprintf(expected, sizeof(expected),
                   (ranks > 1) ? "rank %d: its GPU is full" : "its GPU is full", ranks - 1);
    EXPECT(strcmp(bsattn_last_error(), expected) == 0, "%s", bsattn_last_error());
    /* Nothing else is on its way. */
    EXPECT(bsattn_transport_barrier(&control.super) == BSATTN_OK, "%s", bsattn_last_error());
    for (int i = 0; i < 2; ++i) {
        int looks = 0;
        EXPECT(bsattn_control_until(&control, look_three_times, &looks, "for looks") == BSATTN_OK,
               "%s", bsattn_last_error());
    }
}

/* The last rank fails, rank 0 never listens, and those between have trouble of their own by then. */
static void test_failure_unheard(int rank, int ranks)
{
    enum { SENT = 7 };
    const int last = ranks - 1;
    bsattn_status_t status = BSATTN_OK;
    char expected[64];
    char word = 1;
    bool there = false;
    int looks = 0;

    if (rank == last) {
        status = bsattn_control_tell_failure(&control, bsattn_fail(BSATTN_ERR_MEMORY, "the cause"));
        EXPECT(status == BSATTN_ERR_MEMORY, "%d", (int)status);
        for (int to = 0; to < last; ++to) {
            EXPECT(bsattn_control_post(&control, to, SENT, &word, 1) == BSATTN_OK, "%s",
                   bsattn_last_error());
        }
    }
    while ((rank != last) && !there) {
        EXPECT(bsattn_control_take(&control, last, SENT, &word, 1, &there) == BSATTN_OK, "%s",
               bsattn_last_error());
    }
    if ((rank > 0) && (rank < last)) {
        status =
            bsattn_control_tell_failure(&control, bsattn_fail(BSATTN_ERR_ENVIRONMENT, "a symptom"));
        EXPECT(status == BSATTN_ERR_MEMORY, "%d", (int)status);
        EXPECT(strstr(bsattn_last_error(), "the cause") != NULL, "%s", bsattn_last_error());
    }
    EXPECT(bsattn_transport_agree(&control.super, status) == BSATTN_ERR_MEMORY, "all fail");
    bsattn_control_forget_failures(&control);
    (void)snprintf(expected, sizeof(expected), (ranks > 1) ? "rank %d: the cause" : "the cause",
                   last);
    EXPECT(strcmp(bsattn_last_error(), expected) == 0, "%s", bsattn_last_error());
    EXPECT(bsattn_control_until(&control, look_three_times, &looks, "for looks") == BSATTN_OK, "%s",
           bsattn_last_error());
}

static void test_missing(void)
{
    MPI_Comm comm = MPI_COMM_WORLD;
    bsattn_transport_t *transport = NULL;

    if (bsattn_nccl_version() == 0) {
        EXPECT(bsattn_transport_nccl_create(&comm, 10.0, 0, &transport) == BSATTN_ERR_ENVIRONMENT,
               "there is no NCCL");
        EXPECT(strstr(bsattn_last_error(), "nccl") != NULL, "%s", bsattn_last_error());
    }
}

/* One rank has no memory: none gets a control, and nobody waits for it. */
static void test_no_memory(MPI_Comm comm, int rank, int ranks)
{
    bool poor = (rank == ranks - 1);
    bsattn_control_t another;
    bsattn_status_t status = poor ? bsattn_control_decline(&ops, &comm, 30.0)
                                  : bsattn_control_init(&another, &ops, &comm, 30.0);

    EXPECT(status == BSATTN_ERR_MEMORY, "status %d: %s", (int)status, bsattn_last_error());
    EXPECT(strstr(bsattn_last_error(), poor ? "there is no memory" : "another rank") != NULL, "%s",
           bsattn_last_error());
}

int main(int argc, char **argv)
{
    MPI_Comm comm = MPI_COMM_WORLD;
    int rank;
    int ranks;
    int code;

    (void)MPI_Init(&argc, &argv);
    expect_ranks();
    EXPECT(bsattn_control_init(&control, &ops, &comm, 30.0) == BSATTN_OK, "%s",
           bsattn_last_error());
    rank = control.super.first_rank;
    ranks = control.super.ranks;
    test_letters(rank, ranks);
    test_no_letter(rank, ranks);
    test_until();
    test_meeting(rank, ranks);
    test_failure(rank, ranks);
    bsattn_control_forget_failures(&control);
    test_failure_unheard(rank, ranks);
    test_missing();
    test_no_memory(comm, rank, ranks);
    bsattn_control_free(&control);
    code = vote("control");
    (void)MPI_Finalize();
    return code;
}
