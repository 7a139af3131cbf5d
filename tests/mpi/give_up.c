/* SPDX-License-Identifier: Apache-2.0 */
/* A job one of whose ranks gives up while the others wait for it: it must end, with that rank's words.
 * Not a test by itself: CTest looks for the words. */
#include "transport/mpi_job.h"

#include <stdio.h>

int main(void)
{
    bsattn_job_t job;

    if (bsattn_job_start(&job) != BSATTN_OK) {
        (void)fprintf(stderr, "%s\n", bsattn_last_error());
        return 1;
    }
    if (job.rank == 1) {
        bsattn_job_give_up(&job, bsattn_fail(BSATTN_ERR_MEMORY, "planted"));
    }
    (void)bsattn_job_agree(&job, BSATTN_OK); /* for ever */
    (void)fprintf(stderr, "the job went on\n");
    return 1;
}
