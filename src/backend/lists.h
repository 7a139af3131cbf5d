/* SPDX-License-Identifier: Apache-2.0 */
/** @file lists.h  All that a rank's launches read, put together in host memory as it will lie in
 *  device memory. Pure. */
#ifndef BSATTN_BACKEND_LISTS_H
#define BSATTN_BACKEND_LISTS_H

#include "backend/backend.h"
#include "kernels/attend_cuda.h"

/** Host memory that grows; places in it are offsets until it is known where it will lie. */
typedef struct bsattn_image {
    char *data;
    size_t count;
    size_t capacity;
} bsattn_image_t;

/** Append bytes, aligned to 256. @param from  NULL: zeros */
bsattn_status_t bsattn_image_add(bsattn_image_t *image, const void *from, size_t bytes,
                                 size_t *offset_p);

/** Where the parts of one step lie in the image. */
typedef struct bsattn_lists_step {
    size_t lists; /**< bsattn_tile_list_t [list_count]; their pointers are offsets */
    size_t key_heads;
    size_t maps; /**< 0: none */
    int64_t unit_count;
} bsattn_lists_step_t;

/** @param list_of_head  [heads_q]
 *  @return whether neighbouring query heads, two by two, share a key head and a list: such a pair can be
 *          one stream */
bool bsattn_lists_pairs(const bsattn_problem_t *problem, const int *list_of_head);

/** The query heads of a list, by streams: two by two, or each twice.
 *  @param pairs  bsattn_lists_pairs(), and the shape wants pairs
 *  @param heads  [heads_q, 2], filled
 *  @return streams of a batch item */
int bsattn_lists_streams(const bsattn_problem_t *problem, const int *list_of_head, int list,
                         bool pairs, int32_t (*heads)[2]);

/** The tile shape of a rank's launches, as the kernel wants it. */
bsattn_status_t bsattn_lists_shape(const bsattn_work_params_t *params,
                                   const bsattn_cuda_kernel_t *kernel, bsattn_tile_shape_t *shape);

/** @param heads  [streams, 2]: query heads of the streams of a batch item, those of a key head
 *                together
 *  @param reach  key tokens from the first that an item sees to the last
 *  @return how many streams to work on at a time: those whose keys and values within reach fit the
 *          part of the L2 that is near to a multiprocessor. Streams of a key head take no more than
 *          one */
int32_t bsattn_lists_stream_group(const bsattn_problem_t *problem, const int32_t (*heads)[2],
                                  int streams, int64_t reach);

/** Cut the lists of all steps, and append them and the streams of heads.
 *  @param threads  to cut with
 *  @param steps    [step_count], lists and unit_count set */
bsattn_status_t bsattn_lists_add(const bsattn_work_params_t *params,
                                 const bsattn_tile_shape_t *shape, int threads,
                                 bsattn_image_t *image, bsattn_lists_step_t *steps);

/** Turn the offsets in the lists of a step into addresses. */
void bsattn_lists_relocate(const bsattn_image_t *image, const bsattn_lists_step_t *step,
                           int list_count, const char *base);

/** @return whether a rank's chunk of step 0 is its whole shard, so that it need not be gathered */
bool bsattn_lists_in_place(const bsattn_work_params_t *params);

/** Append the copies that gather rows from a shard. @param count_p  copies of each batch item */
bsattn_status_t bsattn_lists_add_copies(const bsattn_work_params_t *params,
                                        const bsattn_packing_t *packing, bsattn_image_t *image,
                                        size_t *offset_p, int64_t *count_p);

#endif
