/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file demand.h
 * Who needs whose key blocks: for every block the farthest rank on the ring that uses it.
 *
 * Hop h of a chunk is the rank h places after its owner. A block travels as far as its farthest
 * user and no further, so one number per block, far, says all: at hop h the chunk holds the blocks
 * with far >= h, in ascending order. Key heads whose query heads have the same masks form a *kv
 * class* and share these numbers.
 */
#ifndef BSATTN_PROBLEM_DEMAND_H
#define BSATTN_PROBLEM_DEMAND_H

#include "problem/layout.h"
#include "problem/pattern.h"

/** Query heads that share masks and the place of their keys: one list of work serves them all. */
typedef struct bsattn_list_class {
    int pattern_class;
    int kv_class;
} bsattn_list_class_t;

typedef struct bsattn_demand {
    const bsattn_pattern_t *pattern; /**< borrowed */
    bsattn_layout_t layout;
    int kv_class_count;
    int *kv_class_of_head; /**< [Hk] */
    int list_class_count;
    bsattn_list_class_t *list_classes; /**< [list_class_count] */
    int *list_class_of_head;           /**< [Hq] */
    int64_t *owner_first;              /**< [P + 1]: where an owner's slots begin in far */
    int32_t *far;                      /**< [kv_class_count, nb], blocks in owner order; -1: nobody
                                            needs it */
    int last_owner;                    /**< rank that owns the last block of the sequence, in its
                                            last slot */
    int64_t last_missing;              /**< tokens that the last block is short of B */
    int64_t *bytes_needed;             /**< [P]: distinct remote K/V bytes that a rank's rows
                                            touch */
    int steps;                         /**< 1 + the largest far: ring steps until nobody needs
                                            anything */
} bsattn_demand_t;

/** Compute the demand of a pattern under a layout. Time and memory proportional to the pattern's
 *  lists.
 *  @param threads  to compute with, >= 1
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY; release with bsattn_demand_free() */
bsattn_status_t bsattn_demand_init(bsattn_demand_t *demand, const bsattn_pattern_t *pattern,
                                   const bsattn_layout_t *layout, int threads);
void bsattn_demand_free(bsattn_demand_t *demand);

/** @return far of an owner's slots, one kv class */
const int32_t *bsattn_demand_far(const bsattn_demand_t *demand, int kv_class, int owner);

/** @return the number of key heads in a kv class */
int bsattn_demand_kv_heads(const bsattn_demand_t *demand, int kv_class);

/** @return tokens in slots first .. first + count - 1 of an owner */
int64_t bsattn_demand_slot_tokens(const bsattn_demand_t *demand, int owner, int64_t slot,
                                  int64_t count);

/** @return (rank - owner) mod P: the hop, and the step, at which rank sees owner's chunk */
int bsattn_demand_hop(const bsattn_demand_t *demand, int rank, int owner);

/** The inverse. @return the owner of the chunk that rank sees at a hop, 0 <= hop < P */
int bsattn_demand_owner(const bsattn_demand_t *demand, int rank, int hop);

#endif
