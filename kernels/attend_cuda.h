/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file attend_cuda.h
 * The contract of an attention kernel on a GPU: attend.h's lists of blocks, cut into the tiles that
 * a multiprocessor works on.
 *
 * A launch computes one step of the ring for one rank. Its unit of work is an *item* (one query tile
 * and its list of key tiles) for one *stream* (a batch item and a query head, or a pair of query
 * heads that share a key head). A query tile is one or two halves of 64 rows. A key tile is 64 or
 * 128 keys. What a tile hides is told in squares of 16 queries by 16 keys. Plain data, C linkage.
 */
#ifndef BSATTN_KERNELS_ATTEND_CUDA_H
#define BSATTN_KERNELS_ATTEND_CUDA_H

#include "kernels/attend.h"

#include <stdalign.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st; /* cudaStream_t */

enum {
    BSATTN_TILE_HALF = 64,   /**< query rows in a half of a query tile */
    BSATTN_TILE_KEYS = 128,  /**< most keys in a key tile */
    BSATTN_TILE_GROUP = 16,  /**< side of a square of the masks */
    BSATTN_TILE_NO_KEYS = 1 << 30 /**< a key_row where nothing is to be loaded: zeros */
};

/** How a kernel wants a problem's lists cut. */
typedef struct bsattn_tile_shape {
    int halves;     /**< 1 or 2 */
    int key_tile;   /**< keys in a key tile: 64 or 128 */
    int pair_heads; /**< nonzero: the two halves are the same rows of two query heads of a key
                         head; else they are neighbouring rows of one head */
    int passes;     /**< nonzero: a half takes no time over a masked tile that it sees nothing of.
                         Keys that one half sees and keys that both see are in tiles of their own */
} bsattn_tile_shape_t;

/** A key tile gathered from places of a chunk, with a mask. Keys 16g .. 16g+15 of the tile are the rows
 *  key_row[g] .. key_row[g]+15 of the key head. Places come in *granules* of min(B, key_tile) keys,
 *  contiguous rows; only key_row of a granule's first group need be read. */
typedef struct bsattn_key_tile {
    int32_t key_row[8]; /**< first row of each 16 keys, or BSATTN_TILE_NO_KEYS */
    uint64_t visible;   /**< bit 8*w + g: query rows 16w.. of the tile see keys 16g.. */
    uint64_t diagonal;  /**< same bit (visible is set too): row r of the 16 sees keys 0 .. r of
                             the 16 only */
    int32_t key_limit;  /**< keys from here on are past the end: nobody sees them (they read as
                             zeros). The key tile's size if none are */
    int32_t unused[3];
} bsattn_key_tile_t;

/** Key tiles that every row of the item sees in full: tile_count * key_tile contiguous rows. */
typedef struct bsattn_tile_run {
    int32_t key_row;
    int32_t tile_count; /**< >= 1 */
} bsattn_tile_run_t;

/** One query tile and its list: gathered tiles first, then runs of full ones. */
typedef struct bsattn_tile_item {
    int64_t tile_first; /**< into tiles */
    int64_t run_first;  /**< into runs */
    int32_t row[2];     /**< local token row of the first row of each half; row[1] = row[0] + 64 or,
                             where heads are paired, row[0]. Rows from tokens on do not exist */
    int32_t state_row[2]; /**< where the state of each half's first row is, among a head's
                               state_rows; meaningless if first and last */
    int32_t tile_count;   /**< gathered tiles */
    int32_t masked_count; /**< the first of them, up to the last that hides anything from an active
                               row: the rest need no look at their masks */
    int32_t run_count;
    int32_t key_tiles; /**< gathered tiles and those of the runs, >= 1 */
    uint8_t active;    /**< bit w: rows 16w.. of the tile have work in this launch; others stay as
                            they are */
    uint8_t first;     /**< bit w: no earlier launch touched them: start from the empty state */
    uint8_t last;      /**< bit w: no later launch touches them: write O and LSE, not the state */
    uint8_t unused;
} bsattn_tile_item_t;

/** The items of one class of query heads; pointers are to device memory. */
typedef struct bsattn_tile_list {
    const bsattn_tile_item_t *items; /**< longest first */
    const bsattn_key_tile_t *tiles;
    const bsattn_tile_run_t *runs;
    const int32_t *heads; /**< [stream_heads, 2] query heads of each stream of a batch item: a pair,
                               or the same head twice */
    int32_t item_count;
    int32_t stream_heads;
    int32_t stream_group; /**< streams worked on at a time, >= 1: what their items reach of their
                               keys should fit the L2 */
    int32_t unused;
    int64_t unit_first; /**< units of the lists before this one; a list has batch * stream_heads *
                             item_count of them */
} bsattn_tile_list_t;

/** Where the keys of a key head lie. */
typedef struct bsattn_key_head {
    int64_t offset; /**< elements from the start of a batch item to row 0 */
    int64_t rows;   /**< rows of the head; later ones read as zeros */
} bsattn_key_head_t;

/** Arguments of a launch. All pointers are to device memory, 16-byte aligned. */
typedef struct bsattn_attend_cuda_params {
    int64_t batch;
    int heads_q;
    int heads_kv;
    int head_dim; /**< D */
    bsattn_dtype_t dtype;
    float scale; /**< scale * log2(e) * a score should stay below 2^27: fp32 tells probabilities
                      of larger ones apart no longer */
    bsattn_tile_shape_t shape;
    int granule; /**< min(B, shape.key_tile) */

    int64_t tokens; /**< n: rows of this rank */
    const void *q;  /**< [b, n, Hq, D] of dtype */
    void *o;        /**< [b, n, Hq, D] of dtype */
    float *lse;     /**< [b, Hq, n], natural logarithm; may be NULL */

    const void *k; /**< element of batch item x, key head h, row r, place d:
                        k[x * key_batch_stride + key_heads[h].offset + r * key_row_stride + d] */
    const void *v; /**< the same */
    int64_t key_row_stride;             /**< elements, a multiple of 8 */
    int64_t key_batch_stride;           /**< elements, a multiple of 8 */
    const bsattn_key_head_t *key_heads; /**< [Hk] */
    bool key_heads_alike;     /**< all heads have key_rows rows and lie key_head_stride apart */
    int64_t key_head_stride;  /**< elements */
    int64_t key_rows;
    const void *key_maps; /**< [Hk, 4] descriptors made by bsattn_attend_cuda_maps(), 64-byte
                               aligned; may be NULL where key_heads_alike or the kernel needs none */

    const bsattn_tile_list_t *lists; /**< [list_count] */
    int list_count;
    int64_t unit_count; /**< of all lists, below 2^31; 0 launches nothing */

    int64_t state_rows; /**< of a head */
    float *state_o;     /**< [b, Hq, state_rows / 16, 16 * D]: sum of exp2(s - m) v of earlier
                             launches, s and m being scores times scale * log2(e), the order within 16 rows
                             being the kernel's own; NULL if every row is first and last */
    float *state_ml;    /**< [b, Hq, state_rows, 2]: m (-inf if no key was seen) and l */
    uint32_t *counters; /**< [2], zero before the first launch; zero again after each that did not
                             fail */
} bsattn_attend_cuda_params_t;

enum { BSATTN_CUDA_ARGUMENT_BYTES = 1280 };

/** A launch as the driver takes it. */
typedef struct bsattn_cuda_launch {
    alignas(64) unsigned char argument[BSATTN_CUDA_ARGUMENT_BYTES]; /**< the only one of function */
    const void *function;
    unsigned ctas;
    unsigned late_ctas;  /**< of a second launch, otherwise the same, that shares the work */
    unsigned threads;    /**< of a CTA */
    size_t shared_bytes; /**< of a CTA, dynamic */
} bsattn_cuda_launch_t;

/** One implementation. */
typedef struct bsattn_cuda_kernel {
    const char *name; /**< "sm90", "sm80" or "plain" */
    /** The tile shape that this kernel wants for a problem.
     *  @param pairs   whether query heads, two by two, share a key head and its lists
     *  @param spread  the keys that a query tile of two halves, neighbouring rows, has to visit,
     *                 relative to those of one half: from 1 (both see the same) to 2 */
    bsattn_tile_shape_t (*shape)(const bsattn_problem_t *problem, bool pairs, double spread);
    /** Put a launch together, for the device that is current.
     *  @param params  unit_count > 0
     *  @param spare   multiprocessors to leave to others until the second launch. Less than half of
     *                 all are, and none by a kernel whose CTAs come and go or share multiprocessors
     *  @return a cudaError_t, 0 for success */
    int (*prepare)(const bsattn_attend_cuda_params_t *params, int spare,
                   bsattn_cuda_launch_t *launch);
} bsattn_cuda_kernel_t;

extern const bsattn_cuda_kernel_t bsattn_attend_sm90;  /**< f16, bf16; D = 64, 128; sm_90, in builds
                                                             for it. A NaN or infinity in V also
                                                             reaches rows of the same masked tile
                                                             that do not see it */
extern const bsattn_cuda_kernel_t bsattn_attend_sm80;  /**< f16, bf16; any D; sm_80 and later */
extern const bsattn_cuda_kernel_t bsattn_attend_plain; /**< any type, any D, slow and obvious */

enum { BSATTN_CUDA_KERNEL_COUNT = 3 };

/** Fastest first. */
extern const bsattn_cuda_kernel_t *const bsattn_cuda_kernels[BSATTN_CUDA_KERNEL_COUNT];

/** @return whether this kernel, in this build, can do such problems on GPUs of a compute capability,
 *          10 * major + minor */
bool bsattn_cuda_kernel_can(const bsattn_cuda_kernel_t *kernel, int capability,
                            bsattn_dtype_t dtype, int head_dim);

/** The fastest kernel for a problem on a GPU, or the one that the environment variable
 *  BSATTN_CUDA_KERNEL names if it can.
 *  @param capability  10 * major + minor of the GPU's compute capability
 *  @return BSATTN_OK; BSATTN_ERR_ENVIRONMENT for a GPU older than sm_80; BSATTN_ERR_INPUT for a
 *          name that is unknown or cannot do the problem */
bsattn_status_t bsattn_cuda_kernel_find(int capability, bsattn_dtype_t dtype, int head_dim,
                                        const bsattn_cuda_kernel_t **kernel_p);

/** Launch a kernel, beside kernels of others if need be: some multiprocessors are left to them, and join
 *  in when they are through. It is then complete when both streams are: a launch with the same counters waits
 *  for both.
 *  @param spare  multiprocessors, as for prepare; 0: all are taken at once
 *  @param later  holds the others' kernels, behind all that the launch itself waits for on stream; not
 *                looked at if spare is 0
 *  @return a cudaError_t, 0 for success */
int bsattn_attend_cuda(const bsattn_cuda_kernel_t *kernel,
                       const bsattn_attend_cuda_params_t *params, int spare,
                       struct CUstream_st *stream, struct CUstream_st *later);

/** Bytes of the descriptors of a launch whose key heads are not alike; 0 if the kernel needs none. */
size_t bsattn_attend_cuda_maps_bytes(const bsattn_cuda_kernel_t *kernel, int heads_kv);

/** Make them.
 *  @param heads  [Hk], the content of params->key_heads
 *  @param maps   host memory of bsattn_attend_cuda_maps_bytes() bytes, of any alignment
 *  @return a cudaError_t, 0 for success */
int bsattn_attend_cuda_maps(const bsattn_attend_cuda_params_t *params,
                            const bsattn_key_head_t *heads, void *maps);

/* ------------------------------------------------------------------------------------------ rows */

/** Rows that move together, in bytes from the start of a part: the rows of a batch item. */
typedef struct bsattn_row_copy {
    int64_t from; /**< of the first row; rows are from_stride apart */
    int64_t to;   /**< of the first row; rows are to_stride apart */
    int32_t rows; /**< at most BSATTN_ROW_COPY_MAX */
    int32_t unused;
} bsattn_row_copy_t;

enum { BSATTN_ROW_COPY_MAX = 256 };

/** Gather or scatter rows: the same copies in every part. */
typedef struct bsattn_rows_cuda_params {
    const void *from; /**< 16-byte aligned, like all offsets and strides */
    void *to;
    const bsattn_row_copy_t *copies; /**< [copy_count], device memory */
    int64_t copy_count;
    int64_t parts;
    int64_t from_part; /**< bytes from one part to the next */
    int64_t to_part;
    int64_t from_stride;
    int64_t to_stride;
    int64_t row_bytes; /**< a multiple of 16 */
} bsattn_rows_cuda_params_t;

/** @return a cudaError_t, 0 for success */
int bsattn_rows_cuda(const bsattn_rows_cuda_params_t *params, struct CUstream_st *stream);

/** Rows of a query head without a single key: O = 0, LSE = -inf. */
typedef struct bsattn_clear_cuda_params {
    const bsattn_attend_cuda_params_t *attend; /**< shapes, o and lse */
    int block;                                 /**< B */
    const int32_t *rows; /**< [row_count] local query blocks, device memory */
    int64_t row_count;
    const int32_t *heads; /**< [head_count] query heads, device memory */
    int head_count;
} bsattn_clear_cuda_params_t;

/** @return a cudaError_t, 0 for success */
int bsattn_clear_cuda(const bsattn_clear_cuda_params_t *params, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif

#endif
