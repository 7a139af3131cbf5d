/* SPDX-License-Identifier: Apache-2.0 */
/** @file mpi_device.h  Messages over MPI whose buffers are on a GPU: by its address where MPI takes
 *  one, else through pinned host memory. */
#ifndef BSATTN_TRANSPORT_MPI_DEVICE_H
#define BSATTN_TRANSPORT_MPI_DEVICE_H

#include "transport/control.h"

/** What the exchanges of a rank share. */
typedef struct bsattn_mpi_device bsattn_mpi_device_t;
/** One exchange. */
typedef struct bsattn_mpi_message bsattn_mpi_message_t;

/** Collective: all ranks take the same way. The environment variable BSATTN_MPI_STAGED=1 on any
 *  rank makes all of them stage, even where MPI takes device pointers. */
bsattn_status_t bsattn_mpi_device_create(bsattn_control_t *control, bsattn_mpi_device_t **device_p);
/** @param device  may be NULL */
void bsattn_mpi_device_destroy(bsattn_mpi_device_t *device);
/** @return how what is on GPUs moves, and why so */
const char *bsattn_mpi_device_way(const bsattn_mpi_device_t *device);

bsattn_status_t bsattn_mpi_message_prepare(bsattn_mpi_device_t *device, bsattn_exchange_t *exchange,
                                           bsattn_mpi_message_t **message_p);
/** @param message  may be NULL */
void bsattn_mpi_message_release(bsattn_mpi_message_t *message);

bsattn_status_t bsattn_mpi_message_start(bsattn_mpi_message_t *message);
bsattn_status_t bsattn_mpi_message_test(bsattn_mpi_message_t *message, bool *done_p);
/** Here the host waits, for MPI. @param what  what is waited for */
bsattn_status_t bsattn_mpi_message_wait(bsattn_mpi_message_t *message, const char *what);

#endif
