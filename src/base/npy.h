/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file npy.h
 * The header of NumPy's .npy files, versions 1.0, 2.0 and 3.0
 * (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html), and reading of boolean
 * masks. Strict: what numpy itself would not write is refused. Nothing here trusts the file.
 */
#ifndef BSATTN_BASE_NPY_H
#define BSATTN_BASE_NPY_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BSATTN_NPY_DIMS_MAX = 8,
    BSATTN_NPY_HEADER_MAX = 65536, /**< longest header looked at, in bytes, magic included */
};

/** What the header says. */
typedef struct bsattn_npy {
    char descr[16];     /**< e.g. "<f4", "|b1", "<u2", "|V2"; "=" never occurs */
    size_t item_size;   /**< bytes of one element, from descr; >= 1 */
    bool fortran_order; /**< as written; numpy writes false when both orders are the same */
    int dims;           /**< 0 .. BSATTN_NPY_DIMS_MAX */
    int64_t shape[BSATTN_NPY_DIMS_MAX]; /**< each >= 0 */
    int64_t count;                      /**< elements: the product of the shape, 1 if dims is 0 */
    int64_t bytes;                      /**< count * item_size, never overflowing */
    int64_t data_offset;                /**< of the first element, from the start of the file */
} bsattn_npy_t;

/** Read a header from memory.
 *  @param name  of the file, for messages
 *  @param data  the file's first size bytes: all of it or at least BSATTN_NPY_HEADER_MAX
 *  @return BSATTN_OK; BSATTN_ERR_FILE for what is no complete .npy header; BSATTN_ERR_INPUT for a
 *          header that is well formed but of a structured or object type, or of too many dimensions
 *          or elements. */
bsattn_status_t bsattn_npy_parse(const char *name, const void *data, size_t size,
                                 bsattn_npy_t *npy_p);

/** Read the header of a file and check that the file is long enough for its elements.
 *  @return BSATTN_OK, BSATTN_ERR_FILE (missing, unreadable, truncated, no .npy) or
 *          BSATTN_ERR_INPUT. */
bsattn_status_t bsattn_npy_read_header(const char *path, bsattn_npy_t *npy_p);

/** Write a version 1.0 header, C order, its length a multiple of 64, as numpy does.
 *  @param descr  e.g. "<f4"
 *  @param dims   0 .. BSATTN_NPY_DIMS_MAX
 *  @param out    [size]; 512 bytes are always enough
 *  @return its length in bytes, which is the data offset; 0 if size is too small or an argument is
 *          out of range */
size_t bsattn_npy_format(const char *descr, int dims, const int64_t *shape, void *out, size_t size);

/** Write a shape as numpy prints it, e.g. "(16384, 8, 64)", cut to what fits. @return out */
const char *bsattn_npy_shape_text(int dims, const int64_t *shape, char *out, size_t size);

/** Read a whole boolean ("|b1") array, C order.
 *  @param dims_min, dims_max  accepted number of dimensions, 0 .. BSATTN_NPY_DIMS_MAX
 *  @param values_p            receives npy_p->count bytes, each 0 or 1, to be released with free()
 *  @param npy_p               receives the header: shape and dims
 *  @return BSATTN_OK; BSATTN_ERR_FILE for a missing, unreadable or truncated file; BSATTN_ERR_INPUT
 *          for another type, order or number of dimensions, or a byte that is neither 0 nor 1;
 *          BSATTN_ERR_MEMORY. */
bsattn_status_t bsattn_npy_read_bool(const char *path, int dims_min, int dims_max,
                                     uint8_t **values_p, bsattn_npy_t *npy_p);

#endif
