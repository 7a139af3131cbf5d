/* SPDX-License-Identifier: Apache-2.0 */
/* A rank that does not come to where all start a transport: the others must end the job with the
 * deadline's exit code. Not a test by itself: CTest looks for the words. */
#include "bsattn.h"

#include <mpi.h>
#include <stdio.h>
#include <time.h>

int main(int argc, char **argv)
{
    MPI_Comm comm = MPI_COMM_WORLD;
    bsattn_context_params_t params;
    bsattn_context_t *context = NULL;
    struct timespec late = {.tv_sec = 30};
    int rank;

    if ((MPI_Init(&argc, &argv) != MPI_SUCCESS) ||
        (MPI_Comm_rank(MPI_COMM_WORLD, &rank) != MPI_SUCCESS)) {
        return 1;
    }
    if (rank == 1) {
        (void)nanosleep(&late, NULL);
        return 1;
    }
    bsattn_context_params_init(&params);
    params.mpi_comm = &comm;
    params.backend = "cpu";
    params.timeout_s = 2.0;
    (void)bsattn_context_create(&params, &context);
    (void)fprintf(stderr, "the job went on\n");
    return 1;
}
