/* SPDX-License-Identifier: Apache-2.0 */
/** @file vote.h  How an MPI test ends: all ranks vote, one failure fails all. */
#ifndef BSATTN_TESTS_VOTE_H
#define BSATTN_TESTS_VOTE_H

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static int failures;

/** Count a failure and go on. */
#define EXPECT(_condition, ...)                                                                    \
    do {                                                                                           \
        if (!(_condition)) {                                                                       \
            int rank_;                                                                             \
            ++failures;                                                                            \
            (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank_);                                           \
            (void)fprintf(stderr, "%s:%d: rank %d: %s does not hold: ", __FILE__, __LINE__, rank_, \
                          #_condition);                                                            \
            (void)fprintf(stderr, __VA_ARGS__);                                                    \
            (void)fprintf(stderr, "\n");                                                           \
        }                                                                                          \
    } while (0)

/** Fail unless the launcher started the number of ranks the test was registered with: a test that
 *  silently runs alone proves nothing. */
static void expect_ranks(void)
{
    const char *expected = getenv("BSATTN_EXPECT_RANKS");
    int ranks;

    (void)MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (expected != NULL) {
        EXPECT(strtol(expected, NULL, 10) == ranks, "%s ranks expected, %d started", expected,
               ranks);
    }
}

/** @return the exit code, the same on every rank */
static int vote(const char *name)
{
    int all = 0;
    int rank;

    (void)MPI_Allreduce(&failures, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == 0) {
        (void)printf("%s: %s\n", name, (all == 0) ? "passed" : "FAILED");
    }
    return (all == 0) ? 0 : 1;
}

#endif
