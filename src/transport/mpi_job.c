/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/mpi_job.h"

#include "base/text.h"
#include "transport/agree.h"
#include "transport/mpi_watch.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TEXT_BYTES_MAX = 1 << 26 };

/* How long other ranks leave it to rank 0 to tell of an error, which may be that of all. */
static const time_t leave_s = 1;

/* MPI starts and ends once in a process, so this is its one piece of global state. */
static MPI_Comm job_comm = MPI_COMM_NULL;
static bsattn_mpi_watch_t job_watch;
static bsattn_outcome_t *job_outcomes; /* [P] */
static bool started_here;

bsattn_status_t bsattn_job_start(bsattn_job_t *job)
{
    int initialized = 0;
    int provided;

    (void)MPI_Initialized(&initialized);
    if (!initialized) {
        BSATTN_TRY(bsattn_mpi_check(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided),
                                    "MPI_Init_thread"));
        started_here = true;
        if (provided < MPI_THREAD_FUNNELED) {
            return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                               "this MPI does not allow a process to have threads");
        }
    }
    (void)MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    BSATTN_TRY(bsattn_mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, &job_comm), "MPI_Comm_dup"));
    BSATTN_TRY(bsattn_mpi_watch_init(&job_watch, job_comm, 0.0));
    (void)MPI_Comm_rank(job_comm, &job->rank);
    (void)MPI_Comm_size(job_comm, &job->size);
    job_outcomes = calloc((size_t)job->size, sizeof(*job_outcomes));
    if (job_outcomes == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for %d ranks", job->size);
    }
    job->comm = &job_comm;
    return BSATTN_OK;
}

void bsattn_job_set_timeout(double timeout_s)
{
    job_watch.timeout_s = timeout_s;
}

/* The ranks have met at the end of the stage before: only what this one needed since tells how long others
 * may need. */
static bsattn_status_t wait_for_job(MPI_Request *request, const char *what)
{
    job_watch.busy_ms = 0.0;
    return bsattn_mpi_watch_wait(&job_watch, 1, request, what);
}

/* Data of one rank for all; without MPI nothing is to be done. */
static bsattn_status_t broadcast(const bsattn_job_t *job, void *data, size_t bytes, int root)
{
    MPI_Request request;

    if (job->comm == NULL) {
        return BSATTN_OK;
    }
    BSATTN_ASSERT(bytes <= INT_MAX);
    BSATTN_TRY(bsattn_mpi_check(MPI_Ibcast(data, (int)bytes, MPI_BYTE, root, job_comm, &request),
                                "MPI_Ibcast"));
    return wait_for_job(&request, "for the word of another rank");
}

bsattn_status_t bsattn_job_agree(const bsattn_job_t *job, bsattn_status_t status)
{
    bsattn_outcome_t mine = bsattn_outcome_of(status);
    bsattn_verdict_t verdict;
    MPI_Request request;
    bool alike;
    int first;

    if (job->comm == NULL) {
        return status;
    }
    BSATTN_TRY(bsattn_mpi_check(MPI_Iallgather(&mine, (int)sizeof(mine), MPI_BYTE, job_outcomes,
                                               (int)sizeof(mine), MPI_BYTE, job_comm, &request),
                                "MPI_Iallgather"));
    BSATTN_TRY(wait_for_job(&request, "for all ranks to agree"));
    first = bsattn_outcome_first(job_outcomes, job->size, &alike);
    if (first < 0) {
        return BSATTN_OK;
    }
    bsattn_verdict_init(&verdict, status);
    BSATTN_TRY(broadcast(job, &verdict, sizeof(verdict), first));
    return bsattn_verdict_adopt(&verdict, first, alike);
}

/* The first line of mine that differs from theirs, as a failure. */
static bsattn_status_t compare_lines(const char *mine, const char *theirs)
{
    size_t my_length = strcspn(mine, "\n");
    size_t their_length = strcspn(theirs, "\n");

    while ((my_length == their_length) && (mine[my_length] != '\0') &&
           (memcmp(mine, theirs, my_length) == 0)) {
        mine += my_length + 1;
        theirs += their_length + 1;
        my_length = strcspn(mine, "\n");
        their_length = strcspn(theirs, "\n");
    }
    return bsattn_fail(BSATTN_ERR_INPUT,
                       "the ranks were not given the same problem: here %.*s, on rank 0 %.*s",
                       (int)my_length, mine, (int)their_length, theirs);
}

bsattn_status_t bsattn_job_same_text(const bsattn_job_t *job, const char *text)
{
    int64_t bytes = (int64_t)strlen(text) + 1;
    bsattn_status_t status = BSATTN_OK;
    char *theirs = NULL;

    if (job->comm == NULL) {
        return BSATTN_OK;
    }
    BSATTN_TRY(broadcast(job, &bytes, sizeof(bytes), 0));
    theirs = malloc((size_t)bytes);
    if ((theirs == NULL) || (bytes > TEXT_BYTES_MAX)) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no memory to compare %lld bytes of options",
                             (long long)bytes);
    } else if (job->rank == 0) {
        memcpy(theirs, text, (size_t)bytes);
    }
    status = bsattn_job_agree(job, status);
    if ((status == BSATTN_OK) && (theirs != NULL)) {
        status = broadcast(job, theirs, (size_t)bytes, 0);
    }
    if ((status == BSATTN_OK) && (theirs != NULL) && (strcmp(text, theirs) != 0)) {
        status = compare_lines(text, theirs);
    }
    free(theirs);
    return bsattn_job_agree(job, status);
}

void bsattn_job_give_up(const bsattn_job_t *job, bsattn_status_t status)
{
    struct timespec pause = {.tv_sec = leave_s};

    if (job->size == 1) {
        return;
    }
    if (job->rank == 0) {
        (void)fprintf(stderr, "bsattn_ring: error: %s\n", bsattn_last_error());
    } else {
        (void)nanosleep(&pause, NULL);
        (void)fprintf(stderr, "bsattn_ring: error: rank %d: %s\n", job->rank, bsattn_last_error());
    }
    bsattn_mpi_end_job(job_comm, status);
}

const char *bsattn_job_mpi_library(void)
{
    static char name[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;

    if (MPI_Get_library_version(name, &length) != MPI_SUCCESS) {
        return "unknown";
    }
    name[strcspn(name, "\n,")] = '\0';
    return name;
}

void bsattn_job_finish(const bsattn_job_t *job)
{
    if (job->comm == NULL) {
        return;
    }
    free(job_outcomes);
    bsattn_mpi_watch_free(&job_watch);
    (void)MPI_Comm_free(&job_comm);
    if (started_here) {
        (void)MPI_Finalize();
    }
}
