/* SPDX-License-Identifier: Apache-2.0 */
/** @file mpi_rows.h  Rows of a tensor as MPI types. */
#ifndef BSATTN_TRANSPORT_MPI_ROWS_H
#define BSATTN_TRANSPORT_MPI_ROWS_H

#include "bsattn.h"

#include <mpi.h>

/** The rows of some runs, counted in rows so that 2 GiB do not matter. Not committed.
 *  @param runs  [run_count], with a row among them
 *  @return BSATTN_OK, BSATTN_ERR_MEMORY, BSATTN_ERR_INPUT for more runs than MPI counts, or
 *          BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_mpi_rows_type(const bsattn_token_run_t *runs, size_t run_count,
                                     size_t row_bytes, MPI_Datatype *type_p);

#endif
