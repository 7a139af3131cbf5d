/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/mpi_job.h"

#include "base/text.h"
#include "transport/agree.h"
#include "transport/mpi_watch.h"

#include <stdlib.h>
#include <string.h>

/* MPI starts and ends once in a process, so this is its one piece of global state. */
static MPI_Comm job_comm = MPI_COMM_NULL;
static bsattn_mpi_watch_t job_watch;
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
    }
    (void)MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    BSATTN_TRY(bsattn_mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, &job_comm), "MPI_Comm_dup"));
    BSATTN_TRY(bsattn_mpi_watch_init(&job_watch, job_comm, 0.0));
    job->comm = &job_comm;
    (void)MPI_Comm_rank(job_comm, &job->rank);
    (void)MPI_Comm_size(job_comm, &job->size);
    return BSATTN_OK;
}

void bsattn_job_set_timeout(double timeout_s)
{
    job_watch.timeout_s = timeout_s;
}

static bsattn_status_t broadcast(void *data, int bytes, int root, const char *what)
{
    MPI_Request request;

    BSATTN_TRY(bsattn_mpi_check(MPI_Ibcast(data, bytes, MPI_BYTE, root, job_comm, &request),
                                "MPI_Ibcast"));
    return bsattn_mpi_watch_wait(&job_watch, 1, &request, what);
}

static bsattn_status_t gather_statuses(bsattn_status_t status, int32_t *statuses)
{
    int32_t mine = (int32_t)status;
    MPI_Request request;

    BSATTN_TRY(bsattn_mpi_check(MPI_Iallgather(&mine, (int)sizeof(mine), MPI_BYTE, statuses,
                                               (int)sizeof(mine), MPI_BYTE, job_comm, &request),
                                "MPI_Iallgather"));
    return bsattn_mpi_watch_wait(&job_watch, 1, &request, "for all ranks to agree");
}

bsattn_status_t bsattn_job_agree(const bsattn_job_t *job, bsattn_status_t status)
{
    bsattn_status_t outcome;
    bsattn_verdict_t verdict;
    int32_t *statuses;
    bool alike = true;
    int first;

    if (job->comm == NULL) {
        return status;
    }
    statuses = malloc((size_t)job->size * sizeof(*statuses));
    BSATTN_ASSERT(statuses != NULL);
    bsattn_verdict_init(&verdict, status);
    outcome = gather_statuses(status, statuses);
    first = (outcome == BSATTN_OK) ? bsattn_verdict_first(statuses, job->size) : -1;
    if (first >= 0) {
        for (int rank = 0; rank < job->size; ++rank) {
            alike = alike && (statuses[rank] == statuses[first]);
        }
        outcome = broadcast(&verdict, (int)sizeof(verdict), first, "for the word of a failed rank");
    }
    if ((first >= 0) && (outcome == BSATTN_OK)) {
        outcome = bsattn_verdict_adopt(&verdict, first, alike);
    }
    free(statuses);
    return outcome;
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
    int64_t length = (int64_t)strlen(text) + 1;
    bsattn_status_t status = BSATTN_OK;
    char *theirs;

    if (job->comm == NULL) {
        return BSATTN_OK;
    }
    BSATTN_TRY(broadcast(&length, (int)sizeof(length), 0, "for the options of rank 0"));
    theirs = malloc((size_t)length);
    BSATTN_ASSERT((theirs != NULL) && (length < (1 << 24)));
    if (job->rank == 0) {
        memcpy(theirs, text, (size_t)length);
    }
    status = broadcast(theirs, (int)length, 0, "for the options of rank 0");
    if ((status == BSATTN_OK) && (strcmp(text, theirs) != 0)) {
        status = compare_lines(text, theirs);
    }
    free(theirs);
    return bsattn_job_agree(job, status);
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
    bsattn_mpi_watch_free(&job_watch);
    (void)MPI_Comm_free(&job_comm);
    if (started_here) {
        (void)MPI_Finalize();
    }
}
