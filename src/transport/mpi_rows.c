/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/mpi_rows.h"

#include "transport/mpi_watch.h"

#include <limits.h>
#include <stdlib.h>

/* How many blocks of at most INT_MAX rows the runs make. */
static size_t count_blocks(const bsattn_token_run_t *runs, size_t run_count)
{
    size_t blocks = 0;

    for (size_t r = 0; r < run_count; ++r) {
        blocks += (size_t)((runs[r].count + INT_MAX - 1) / INT_MAX);
    }
    return blocks;
}

static void fill_blocks(const bsattn_token_run_t *runs, size_t run_count, size_t row_bytes,
                        int *lengths, MPI_Aint *places)
{
    size_t block = 0;

    for (size_t r = 0; r < run_count; ++r) {
        for (int64_t done = 0; done < runs[r].count; done += INT_MAX) {
            int64_t left = runs[r].count - done;
            lengths[block] = (int)((left < INT_MAX) ? left : INT_MAX);
            places[block] = (MPI_Aint)(runs[r].first + done) * (MPI_Aint)row_bytes;
            ++block;
        }
    }
}

static bsattn_status_t blocks_type(size_t blocks, const int *lengths, const MPI_Aint *places,
                                   size_t row_bytes, MPI_Datatype *type_p)
{
    MPI_Datatype row;
    bsattn_status_t status;

    BSATTN_TRY(bsattn_mpi_check(MPI_Type_contiguous((int)row_bytes, MPI_BYTE, &row),
                                "MPI_Type_contiguous"));
    status =
        bsattn_mpi_check(MPI_Type_create_hindexed((int)blocks, lengths, places, row, type_p),
                         "MPI_Type_create_hindexed");
    (void)MPI_Type_free(&row);
    return status;
}

bsattn_status_t bsattn_mpi_rows_type(const bsattn_token_run_t *runs, size_t run_count,
                                     size_t row_bytes, MPI_Datatype *type_p)
{
    size_t blocks = count_blocks(runs, run_count);
    int *lengths = malloc((blocks + 1) * sizeof(*lengths));
    MPI_Aint *places = malloc((blocks + 1) * sizeof(*places));
    bsattn_status_t status;

    BSATTN_ASSERT((blocks >= 1) && (row_bytes <= INT_MAX));
    if ((lengths == NULL) || (places == NULL)) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no memory for %zu token runs", blocks);
    } else if (blocks > INT_MAX) {
        status = bsattn_fail(BSATTN_ERR_INPUT,
                             "%zu token runs on one rank, at most %d are accepted", blocks,
                             INT_MAX);
    } else {
        fill_blocks(runs, run_count, row_bytes, lengths, places);
        status = blocks_type(blocks, lengths, places, row_bytes, type_p);
    }
    free(lengths);
    free(places);
    return status;
}
