/* SPDX-License-Identifier: Apache-2.0 */
/** @file mpi_control.h  The MPI half of control.h, for transports that use MPI for more. */
#ifndef BSATTN_TRANSPORT_MPI_CONTROL_H
#define BSATTN_TRANSPORT_MPI_CONTROL_H

#include "transport/control.h"
#include "transport/mpi_watch.h"

typedef struct bsattn_mpi_letter bsattn_mpi_letter_t;

typedef struct bsattn_mpi_control {
    MPI_Comm comm; /**< for the transport's own messages and for meeting; errors are returned */
    bsattn_mpi_watch_t watch;
    bsattn_mpi_letter_t *posted; /**< still under way */
    int told;                    /**< ranks below this were told of a failure of this one */
    int heard;                   /**< ranks that told of theirs */
} bsattn_mpi_control_t;

#endif
