/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file place.h
 * Where the ranks of a job go: rank -> GPU -> cores -> network device.
 *
 * In order: every rank fills a seat (bsattn_place_seat_init(), one bsattn_place_seat_add_device()
 * for each GPU that it sees, bsattn_place_machine_look()), the caller gathers the seats, every rank
 * decides for all of them (bsattn_place_decide()), and then looks for its own cores
 * (bsattn_place_cores()), takes them (bsattn_place_bind()) and in the end gives them back
 * (bsattn_place_unbind()).
 *
 * Seats, choices and cores are plain data that may travel between ranks as bytes; all texts in them
 * are terminated, and cut where they do not fit.
 */
#ifndef BSATTN_PLACE_PLACE_H
#define BSATTN_PLACE_PLACE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    BSATTN_PLACE_DEVICES_MAX = 16, /**< visible GPUs of a rank; more are not looked at */
    BSATTN_PLACE_PCI_SIZE = 16,
    BSATTN_PLACE_UUID_SIZE = 16, /**< bytes */
    BSATTN_PLACE_NAME_SIZE = 64,
    BSATTN_PLACE_CPUS_SIZE = 512,
    BSATTN_PLACE_TEXT_SIZE = 96
};

/** A GPU as a rank sees it. */
typedef struct bsattn_place_device {
    char pci[BSATTN_PLACE_PCI_SIZE];            /**< "0000:1b:00.0", lower case */
    unsigned char uuid[BSATTN_PLACE_UUID_SIZE]; /**< tells the parts of a divided GPU apart; zeros:
                                                     not known */
    bool near;                                  /**< its cores are among those of the rank */
} bsattn_place_device_t;

/** What a rank knows and tells the others. */
typedef struct bsattn_place_seat {
    char host[BSATTN_PLACE_NAME_SIZE];
    char boot[BSATTN_PLACE_NAME_SIZE];    /**< identity of the running system, "" if not known: the
                                               names of hosts need not be unique */
    char visible[BSATTN_PLACE_NAME_SIZE]; /**< CUDA_VISIBLE_DEVICES, "" if not set */
    char cpus[BSATTN_PLACE_CPUS_SIZE];    /**< logical CPUs the process may use, "0-7,16-23" */
    int launcher_rank;                    /**< its local rank by the launcher, -1: not told */
    int threads; /**< that it was asked to have; 0: one for each logical CPU */
    bool bound;                           /**< to fewer cores than its host would let it use */
    bool openmp_binds;                    /**< OMP_PROC_BIND or the like is set */
    int device_count;                     /**< visible GPUs; 0 where the backend wants none */
    bsattn_place_device_t devices[BSATTN_PLACE_DEVICES_MAX];
} bsattn_place_seat_t;

/** The GPU of a rank. */
typedef struct bsattn_place_choice {
    int device;      /**< index among its visible ones; -1: none */
    int local_rank;  /**< lower ranks on its host */
    int local_ranks; /**< ranks on its host */
    int gpus;        /**< different GPUs that the ranks of its host see */
    int shared;      /**< ranks on its GPU, itself among them; 0 without one, > 1: oversubscribed */
    char pci[BSATTN_PLACE_PCI_SIZE];      /**< "" without a GPU */
    char decided[BSATTN_PLACE_TEXT_SIZE]; /**< why, e.g. "local rank 2 of 4, 8 visible GPUs" */
} bsattn_place_choice_t;

/** The cores and the network device of a rank. */
typedef struct bsattn_place_cores {
    char cpus[BSATTN_PLACE_CPUS_SIZE];    /**< what it has, or with `change` what it should take */
    char decided[BSATTN_PLACE_TEXT_SIZE]; /**< why, e.g. "4 cores near the GPU" */
    char nic[BSATTN_PLACE_NAME_SIZE];     /**< nearest to its GPU, e.g. "mlx5_0"; "": none found */
    bool nic_far;                         /**< and yet not on the same NUMA node */
    bool change;                          /**< bsattn_place_bind() has something to do */
} bsattn_place_cores_t;

/** What is known of this host's processors and devices. */
typedef struct bsattn_place_machine bsattn_place_machine_t;

/* ------------------------------------------------------------------------------------ decisions */

/** Fill a seat with what the process knows of itself: host, cores, environment. No GPUs yet, not
 *  bound, no threads asked for.
 *  @param lookup  getenv() or what stands for it */
void bsattn_place_seat_init(bsattn_place_seat_t *seat, char *(*lookup)(const char *name));

/** Append a visible GPU, in the order of its index.
 *  @param pci   address as CUDA writes it, either case
 *  @param uuid  BSATTN_PLACE_UUID_SIZE bytes or NULL */
void bsattn_place_seat_add_device(bsattn_place_seat_t *seat, const char *pci, const void *uuid);

/** Give every rank one of its visible GPUs: a GPU to itself while there are such, then as evenly
 *  shared as can be; among these one near its cores, and among those the one of its local rank
 *  modulo their number. A pure function: every rank gets the same answer from the same seats.
 *  @param seats      [ranks]
 *  @param choices_p  [ranks]
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_place_decide(const bsattn_place_seat_t *seats, int ranks,
                                    bsattn_place_choice_t *choices_p);

/** @return whether two ranks are on the same host */
bool bsattn_place_same_host(const bsattn_place_seat_t *a, const bsattn_place_seat_t *b);

/** @return whether two ranks compute in the same memory: that of one GPU or of one part of a divided
 *  GPU, or without GPUs that of one host */
bool bsattn_place_same_memory(const bsattn_place_seat_t *seat, const bsattn_place_choice_t *choice,
                              const bsattn_place_seat_t *other_seat,
                              const bsattn_place_choice_t *other_choice);

/** Write numbers as ranges, "0-7,16-23"; what does not fit is left out range by range and "..."
 *  says so.
 *  @param cpus  [count], ascending */
void bsattn_place_cpus_text(const int *cpus, size_t count, char *out, size_t size);

/** Write the first thing that a user should know to be wrong, "" if there is none: ranks that share
 *  a GPU, or a rank with a GPU that the launcher has bound to a single core.
 *  @return whether there is one */
bool bsattn_place_warning(const bsattn_place_seat_t *seats, const bsattn_place_choice_t *choices,
                          int ranks, char *out, size_t size);

/** Write both decisions as one text, "local rank 2 of 4, 8 visible GPUs; 4 cores near the GPU". */
void bsattn_place_decided_text(const bsattn_place_choice_t *choice,
                               const bsattn_place_cores_t *cores, char *out, size_t size);

/* -------------------------------------------------------------------------------------- machine */

/** @return the hwloc that runs, e.g. "hwloc, API 2.8.0", or "hwloc not in this build" */
const char *bsattn_place_library(void);

/** Look at a machine. Without hwloc there is one of which nothing is known.
 *  @param source     NULL: this one; "NAME.xml": a file of hwloc's; else hwloc's words for a
 *                    synthetic one, such as "numa:2 core:8 pu:2"
 *  @param machine_p  closed by the caller
 *  @return BSATTN_OK, BSATTN_ERR_INPUT (source), BSATTN_ERR_MEMORY or BSATTN_ERR_ENVIRONMENT */
bsattn_status_t bsattn_place_machine_open(const char *source, bsattn_place_machine_t **machine_p);

/** @param machine  may be NULL */
void bsattn_place_machine_close(bsattn_place_machine_t *machine);

/** Tell a seat whether its process is bound and which of its GPUs are near.
 *  @param cpus  instead of the process's cores those of this list; NULL: ask the system, which for
 *               another machine than this one answers "all" */
void bsattn_place_machine_look(bsattn_place_machine_t *machine, const char *cpus,
                               bsattn_place_seat_t *seat);

/** Write what is near a GPU, e.g. "cores 0-31, NIC mlx5_0"; "" if nothing is known of it. */
void bsattn_place_near_text(const bsattn_place_machine_t *machine, const char *pci, char *out,
                            size_t size);

/** Find the cores of a rank of this machine: those near its GPU, or without a GPU all that the
 *  process may use, evenly divided in whole cores among the ranks that have the same ones to
 *  choose from. A binding that somebody else has set stays. So do the cores where there is less
 *  than one for each rank, than one for each thread asked for, or than two for a rank with a GPU:
 *  the libraries' threads need one beside it. Changes nothing yet.
 *  @param seats    [ranks]
 *  @param choices  [ranks]
 *  @param bind     "auto" or NULL; "off": leave the cores alone */
void bsattn_place_cores(bsattn_place_machine_t *machine, const bsattn_place_seat_t *seats,
                        const bsattn_place_choice_t *choices, int ranks, int rank, const char *bind,
                        bsattn_place_cores_t *cores_p);

/** Bind the process, all threads of it, to what bsattn_place_cores() last found on this machine, if
 *  it is to change; threads started later inherit it. For a process of one rank, before its OpenMP
 *  threads start. If the system refuses, *cores says so in `decided` and keeps what it has: not an
 *  error. */
void bsattn_place_bind(bsattn_place_machine_t *machine, bsattn_place_cores_t *cores);

/** Give the process the cores that it had before bsattn_place_bind(), if that changed them.
 *  @param machine  NULL: nothing was bound */
void bsattn_place_unbind(bsattn_place_machine_t *machine, const bsattn_place_cores_t *cores);

#endif
