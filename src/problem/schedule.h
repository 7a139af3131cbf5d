/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file schedule.h
 * What one rank does at every step, as data.
 *
 * On the ring the rank holds at step s the chunk first owned by rank (p - s) mod P, cut down to the
 * blocks that it or a rank further on still needs. Where owners send to each user, it holds at each
 * step after the first what it uses of one owner's blocks, and all the time what others use of its
 * own. A step says where the keys of each head lie in its chunk, which query blocks have work with
 * which of them, and which rows go to which rank meanwhile. Kernels and transports only carry it out.
 */
#ifndef BSATTN_PROBLEM_SCHEDULE_H
#define BSATTN_PROBLEM_SCHEDULE_H

#include "kernels/attend.h"
#include "problem/demand.h"

typedef struct bsattn_step {
    int origin;                  /**< rank that owns the chunk */
    int64_t tokens_kv;           /**< token rows of one batch item of the chunk, summed over key
                                     heads; 0: no chunk */
    bsattn_chunk_head_t *heads;  /**< [Hk] */
    bsattn_work_list_t *lists;   /**< [list_count] */
    int64_t item_count_max;      /**< longest of the lists */
    int to;                      /**< rank that rows go to during this step */
    int from;                    /**< rank that sends the chunk of the next step */
    bsattn_token_run_t *forward; /**< [forward_count]: rows that make up the chunk of `to` at its
                                       next step, in its order: of this step's chunk on the ring, of
                                       `outgoing` where owners send to each user */
    size_t forward_count;
} bsattn_step_t;

/** Rows of a rank's shard brought together, head after head. */
typedef struct bsattn_packing {
    bsattn_token_run_t *runs; /**< rows of the shard, by kv class */
    size_t *first;            /**< [kv_class_count + 1] into runs */
    int64_t *token_first;     /**< [Hk]: where those of a head begin */
    int64_t tokens;           /**< of all heads */
} bsattn_packing_t;

/** Query blocks of a list class that have no key at all: O = 0, LSE = -inf. */
typedef struct bsattn_empty_rows {
    int32_t *rows; /**< local query blocks */
    int64_t count;
} bsattn_empty_rows_t;

typedef struct bsattn_schedule {
    int rank;
    bsattn_exchange_kind_t exchange;
    int64_t rows; /**< query blocks owned */
    int list_count;
    int *list_of_head; /**< [Hq] */
    int step_count;
    bsattn_step_t *steps;       /**< [step_count] */
    bsattn_empty_rows_t *empty; /**< [list_count] */
    int64_t state_blocks;       /**< query blocks that have a place for their state: those with
                                       work in more than one step for some head, in groups
                                       (BSATTN_STATE_ROWS) */
    bsattn_packing_t own;       /**< what makes up the chunk of step 0 */
    bsattn_packing_t outgoing;  /**< of that, what other ranks use */
    int *kv_class_of_head;      /**< [Hk] */
    int64_t bytes;              /**< memory of the schedule itself */

    /* arenas the steps point into */
    bsattn_work_item_t *items;
    bsattn_key_run_t *runs;
    bsattn_chunk_head_t *chunk_heads;
    bsattn_work_list_t *work_lists;
    int32_t *empty_rows;
    bsattn_token_run_t *forwards;
} bsattn_schedule_t;

/** Counts that decide the memory of a schedule; also what an estimate needs of a rank. */
typedef struct bsattn_schedule_counts {
    int64_t items;
    int64_t runs; /**< key runs before joining neighbours */
    int64_t empty_rows;
    int64_t state_blocks; /**< as in bsattn_schedule_t */
    double pairs_token;   /**< unmasked token pairs, summed over query heads, of one batch item */
    double longest_pairs; /**< of them, those of the query block that has most under one list, its
                               diagonal left out */
    int64_t longest_keys; /**< key rows that it sees at least, summed over key heads */
} bsattn_schedule_counts_t;

/** Count one rank's work. @param pairs_of_hop [P], added to: token pairs by hop summed over query
 *  heads; may be NULL
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_schedule_count(const bsattn_demand_t *demand, int rank, double *pairs_of_hop,
                                      bsattn_schedule_counts_t *counts_p);

/** Where the states of query blocks are.
 *  @param places  [rows]: before, nonzero for a block that needs one; after, the places, of which
 *                 those of blocks without one are another's
 *  @return the number of places */
int64_t bsattn_schedule_place_states(const bsattn_demand_t *demand, int64_t rows, int32_t *places);

/** @return bytes of a schedule of so many steps with these counts, but for the forward runs */
int64_t bsattn_schedule_bytes(const bsattn_demand_t *demand, int steps,
                              const bsattn_schedule_counts_t *counts);

/** Build the schedule of a rank, for the exchange that its demand has taken.
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY; release with bsattn_schedule_free() */
bsattn_status_t bsattn_schedule_init(bsattn_schedule_t *schedule, const bsattn_demand_t *demand,
                                     int rank);
void bsattn_schedule_free(bsattn_schedule_t *schedule);

#endif
