/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file demand.h
 * Who needs whose key blocks, and how they travel.
 *
 * Hop h of a chunk is the rank h places after its owner. On the ring a block travels as far as its
 * farthest user and no further, so one number per block, far, says all: at hop h the chunk holds the
 * blocks with far >= h, in ascending order. Where owners send to each user, the chunk at hop h holds
 * the blocks that this rank uses. Key heads whose query heads have the same masks form a *kv class*
 * and share these numbers.
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

/** How chunks travel. */
typedef enum bsattn_exchange_kind {
    BSATTN_EXCHANGE_RING, /**< from each rank to the next, which passes on what others still need */
    BSATTN_EXCHANGE_DIRECT, /**< from the owner to every rank that uses some of it */
    BSATTN_EXCHANGE_COUNT
} bsattn_exchange_kind_t;

/** Their names in options and reports. */
extern const char *const bsattn_exchange_names[BSATTN_EXCHANGE_COUNT];

/** The steps of an exchange: at step s a rank computes on keys whose owner is hops[s] places before
 *  it, 0 at first. */
typedef struct bsattn_route {
    bsattn_exchange_kind_t kind;
    int step_count;
    int *hops;        /**< [step_count], ascending */
    int *step_of_hop; /**< [P]; -1: at no step */
} bsattn_route_t;

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
    int32_t farthest;                  /**< the largest far, at least 0 */
    int64_t last_missing;              /**< tokens that the last block is short of B */
    int64_t *bytes_needed;             /**< [P]: distinct remote K/V bytes that a rank's rows
                                            touch */
    bsattn_spans_t *used;              /**< [kv_class_count, P]: set of blocks that a rank's rows
                                            touch; NULL: not kept */
    bool *hop_used;                    /**< [P]: whether some rank uses blocks of the owner so many
                                            places before it */
    bsattn_route_t route;              /**< the exchange taken, the ring at first */
    bool given_up;                     /**< more is needed than was asked about: nothing else holds */
} bsattn_demand_t;

/** Compute the demand of a pattern under a layout. Time and memory proportional to the pattern's
 *  lists.
 *  @param threads    to compute with, >= 1
 *  @param spans_max  keep the sets in `used`, which the exchange direct needs, if they have at most so
 *                    many spans; 0: do not keep them
 *  @param bytes_max  give up as soon as all ranks together need so many bytes of others
 *  @return BSATTN_OK, also where it was given up; or BSATTN_ERR_MEMORY. Release with
 *          bsattn_demand_free() */
bsattn_status_t bsattn_demand_init(bsattn_demand_t *demand, const bsattn_pattern_t *pattern,
                                   const bsattn_layout_t *layout, int threads, int64_t spans_max,
                                   int64_t bytes_max);
void bsattn_demand_free(bsattn_demand_t *demand);

/** Take an exchange: its steps become those of schedules. DIRECT wants `used`, RING forgets it.
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_demand_take(bsattn_demand_t *demand, bsattn_exchange_kind_t kind);

/** The steps of an exchange under a demand.
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY; release with bsattn_route_free() */
bsattn_status_t bsattn_route_init(bsattn_route_t *route, const bsattn_demand_t *demand,
                                  bsattn_exchange_kind_t kind);
void bsattn_route_free(bsattn_route_t *route);

/** Free `used`. Schedules cannot be made for DIRECT after that. */
void bsattn_demand_forget_used(bsattn_demand_t *demand);

/** @return the blocks that a rank's rows touch through the query heads of a kv class */
const bsattn_spans_t *bsattn_demand_used(const bsattn_demand_t *demand, int kv_class, int rank);

/** @return far of an owner's slots, one kv class */
const int32_t *bsattn_demand_far(const bsattn_demand_t *demand, int kv_class, int owner);

/** @return the number of key heads in a kv class */
int bsattn_demand_kv_heads(const bsattn_demand_t *demand, int kv_class);

/** @return tokens in slots first .. first + count - 1 of an owner */
int64_t bsattn_demand_slot_tokens(const bsattn_demand_t *demand, int owner, int64_t slot,
                                  int64_t count);

/** @return (rank - owner) mod P: the hop at which rank sees owner's chunk */
int bsattn_demand_hop(const bsattn_demand_t *demand, int rank, int owner);

/** The inverse. @return the owner of the chunk that rank sees at a hop, 0 <= hop < P */
int bsattn_demand_owner(const bsattn_demand_t *demand, int rank, int hop);

#endif
