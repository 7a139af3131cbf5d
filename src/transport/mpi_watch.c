/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/mpi_watch.h"

#include "base/clock.h"
#include "base/partial.h"
#include "base/text.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { WORD_SIZE = 160, WORD_TAG = 1, REPORT_SIZE = 4096, SPINS = 4000 };

/* How long rank 0 listens for the words of others. */
static const double listen_ms = 1000.0;

/* How long a rank leaves it to lower ones to speak for all and end the job. */
static double leave_ms(int rank)
{
    return (rank == 0) ? 0.0 : 4000.0 + 1000.0 * (double)((rank < 10) ? rank - 1 : 9);
}

bsattn_status_t bsattn_mpi_check(int code, const char *what)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length;

    if (code == MPI_SUCCESS) {
        return BSATTN_OK;
    }
    (void)MPI_Error_string(code, text, &length);
    return bsattn_fail(BSATTN_ERR_ENVIRONMENT, "MPI: %s: %s", what, text);
}

static void pause_us(long us)
{
    struct timespec pause = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

    (void)nanosleep(&pause, NULL);
}

/* Ranks cannot tell each other yet what they wait for. Rank 0 speaks if it is here. */
static void stalled_alone(MPI_Comm comm, double timeout_s)
{
    int rank = 0;

    (void)MPI_Comm_rank(comm, &rank);
    pause_us((long)(1e3 * leave_ms(rank)));
    (void)fprintf(
        stderr,
        "bsattn_ring: error: no progress for %.3g s: rank %d waits for all ranks to start "
        "a transport\n",
        timeout_s, rank);
    bsattn_mpi_end_job(comm, BSATTN_ERR_TIMEOUT);
}

bsattn_status_t bsattn_mpi_duplicate(MPI_Comm comm, double timeout_s, MPI_Comm *copy_p)
{
    bsattn_wait_clock_t wait;
    MPI_Request request;
    int done = 0;

    bsattn_wait_clock_start(&wait);
    BSATTN_TRY(bsattn_mpi_check(MPI_Comm_idup(comm, copy_p, &request), "MPI_Comm_idup"));
    for (;;) {
        BSATTN_TRY(bsattn_mpi_check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test"));
        if (done) {
            return BSATTN_OK;
        }
        if ((timeout_s > 0.0) && (bsattn_wait_clock_ms(&wait) > 1e3 * timeout_s)) {
            stalled_alone(comm, timeout_s);
        }
        pause_us(20);
    }
}

bsattn_status_t bsattn_mpi_watch_init(bsattn_mpi_watch_t *watch, MPI_Comm comm, double timeout_s)
{
    *watch = (bsattn_mpi_watch_t){.timeout_s = timeout_s, .last_ms = bsattn_clock_ms()};
    return bsattn_mpi_duplicate(comm, timeout_s, &watch->side);
}

void bsattn_mpi_watch_free(bsattn_mpi_watch_t *watch)
{
    (void)MPI_Comm_free(&watch->side);
}

/* Listen until every rank has said what it waits for, or long enough. words: [ranks][WORD_SIZE], ""
 * for silence. */
static void collect_words(const bsattn_mpi_watch_t *watch, int ranks, char (*words)[WORD_SIZE])
{
    double end_ms = bsattn_clock_ms() + listen_ms;
    int heard = 1;

    while ((heard < ranks) && (bsattn_clock_ms() < end_ms)) {
        MPI_Status status;
        int there = 0;

        (void)MPI_Iprobe(MPI_ANY_SOURCE, WORD_TAG, watch->side, &there, &status);
        if (!there) {
            pause_us(1000);
            continue;
        }
        /* One that has waited before and went on may have sent a word then. */
        heard += (words[status.MPI_SOURCE][0] == '\0') ? 1 : 0;
        (void)MPI_Recv(words[status.MPI_SOURCE], WORD_SIZE, MPI_CHAR, status.MPI_SOURCE, WORD_TAG,
                       watch->side, MPI_STATUS_IGNORE);
    }
}

static void report_stall(const bsattn_mpi_watch_t *watch, const char *what, double waited_ms)
{
    char report[REPORT_SIZE];
    char(*words)[WORD_SIZE];
    bsattn_strbuf_t buf;
    int ranks;

    (void)MPI_Comm_size(watch->side, &ranks);
    bsattn_strbuf_init(&buf, report, sizeof(report));
    bsattn_strbuf_add(&buf, "no progress for %.3g s: rank 0 waits %s", 1e-3 * waited_ms, what);
    words = calloc((size_t)ranks, sizeof(*words));
    if (words != NULL) {
        collect_words(watch, ranks, words);
        for (int rank = 1; rank < ranks; ++rank) {
            if (words[rank][0] == '\0') {
                bsattn_strbuf_add(&buf, "; no word from rank %d", rank);
            }
        }
        for (int rank = 1; rank < ranks; ++rank) {
            if (words[rank][0] != '\0') {
                bsattn_strbuf_add(&buf, "; rank %d waits %s", rank, words[rank]);
            }
        }
    }
    (void)fprintf(stderr, "bsattn_ring: error: %s\n", report);
    free(words);
}

static void send_word(const bsattn_mpi_watch_t *watch, const char *what)
{
    static char word
        [WORD_SIZE]; /* outlives the message, like the request: the job ends with it, or goes on */
    static MPI_Request request;
    static bool under_way;
    int left = 1;

    if (under_way) {
        (void)MPI_Test(&request, &left, MPI_STATUS_IGNORE);
    }
    if (left) {
        (void)bsattn_text_copy(word, sizeof(word), what);
        under_way =
            MPI_Isend(word, WORD_SIZE, MPI_CHAR, 0, WORD_TAG, watch->side, &request) == MPI_SUCCESS;
    }
}

void bsattn_mpi_end_job(MPI_Comm comm, bsattn_status_t status)
{
    (void)fflush(NULL);
    bsattn_partial_remove_all();
    (void)MPI_Abort(comm, (int)status);
    _Exit((int)status);
}

/* The deadline has passed. Rank 0 speaks for all and ends the job; the others leave it some time
 * to. */
static void stalled(const bsattn_mpi_watch_t *watch, const char *what, double waited_ms,
                    double late_ms, bool *told)
{
    int rank;

    (void)MPI_Comm_rank(watch->side, &rank);
    if (rank == 0) {
        report_stall(watch, what, waited_ms);
        bsattn_mpi_end_job(watch->side, BSATTN_ERR_TIMEOUT);
    }
    if (!*told) {
        send_word(watch, what);
        *told = true;
    } else if (late_ms > leave_ms(rank)) {
        (void)fprintf(stderr,
                      "bsattn_ring: error: no progress for %.3g s: rank %d waits %s; no word from "
                      "rank 0\n",
                      1e-3 * waited_ms, rank, what);
        bsattn_mpi_end_job(watch->side, BSATTN_ERR_TIMEOUT);
    }
}

static double larger(double a, double b)
{
    return (a > b) ? a : b;
}

void bsattn_mpi_watch_stalled(bsattn_mpi_watch_t *watch, const char *what, double waited_ms,
                              double late_ms)
{
    /* Less late than before: there was progress, and this is another stall. */
    watch->told = watch->told && (late_ms >= watch->told_late_ms);
    watch->told_late_ms = late_ms;
    stalled(watch, what, waited_ms, late_ms, &watch->told);
}

bsattn_status_t bsattn_mpi_watch_until(bsattn_mpi_watch_t *watch, bsattn_look_t *look, void *arg,
                                       const char *what)
{
    bsattn_wait_clock_t wait;
    double allowed_ms;
    bool told = false;
    bool done = false;

    bsattn_wait_clock_start(&wait);
    watch->busy_ms = larger(wait.seen_ms - watch->last_ms, 0.5 * watch->busy_ms);
    allowed_ms = 4.0 * watch->busy_ms * ((watch->unevenness != NULL) ? *watch->unevenness : 1.0);
    allowed_ms = larger(1e3 * watch->timeout_s, allowed_ms);
    for (long spins = 0;; ++spins) {
        double waited_ms;
        BSATTN_TRY(look(arg, &done));
        if (done) {
            break;
        }
        if (spins < SPINS) {
            (void)sched_yield();
        } else {
            pause_us(20);
        }
        waited_ms = bsattn_wait_clock_ms(&wait);
        if ((watch->timeout_s > 0.0) && (waited_ms > allowed_ms)) {
            stalled(watch, what, waited_ms, waited_ms - allowed_ms, &told);
        }
    }
    watch->last_ms = bsattn_clock_ms();
    return BSATTN_OK;
}

typedef struct requests_wait {
    int count;
    MPI_Request *requests;
} requests_wait_t;

static bsattn_status_t look_at_requests(void *arg, bool *done_p)
{
    const requests_wait_t *wait = arg;
    int done = 0;

    BSATTN_TRY(bsattn_mpi_check(
        MPI_Testall(wait->count, wait->requests, &done, MPI_STATUSES_IGNORE), "MPI_Testall"));
    *done_p = (done != 0);
    return BSATTN_OK;
}

bsattn_status_t bsattn_mpi_watch_wait(bsattn_mpi_watch_t *watch, int count, MPI_Request *requests,
                                      const char *what)
{
    requests_wait_t wait = {.count = count, .requests = requests};

    return bsattn_mpi_watch_until(watch, look_at_requests, &wait, what);
}

bsattn_status_t bsattn_mpi_watch_all(bsattn_mpi_watch_t *watch, MPI_Comm comm, bool mine,
                                     bool *all_p)
{
    int one = mine ? 1 : 0;
    int least = 0;
    MPI_Request request;

    BSATTN_TRY(bsattn_mpi_check(MPI_Iallreduce(&one, &least, 1, MPI_INT, MPI_MIN, comm, &request),
                                "MPI_Iallreduce"));
    BSATTN_TRY(bsattn_mpi_watch_wait(watch, 1, &request, "for all ranks to meet"));
    *all_p = (least != 0);
    return BSATTN_OK;
}
