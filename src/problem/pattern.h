/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file pattern.h
 * A parsed pattern and the rows it generates.
 *
 *   pattern -> one head_mask per different text -> branches -> terms
 *
 * Query heads with the same mask form a *class*; everything downstream works by class. Memory and
 * time are proportional to the spans of the rows asked for; nothing of size nb^2 exists unless a
 * mask file brings it.
 */
#ifndef BSATTN_PROBLEM_PATTERN_H
#define BSATTN_PROBLEM_PATTERN_H

#include "problem/spans.h"

#include <stdbool.h>

typedef enum bsattn_term_kind {
    BSATTN_TERM_DENSE,
    BSATTN_TERM_LOCAL,
    BSATTN_TERM_DILATED,
    BSATTN_TERM_STRIDED,
    BSATTN_TERM_GLOBAL,
    BSATTN_TERM_SINK,
    BSATTN_TERM_HIERARCHICAL,
    BSATTN_TERM_RANDOM,
    BSATTN_TERM_BLOCKS,
} bsattn_term_kind_t;

enum { BSATTN_LEVELS_MAX = 16, BSATTN_RATES_MAX = 64 };

/** One level of `hierarchical`, in blocks. */
typedef struct bsattn_level {
    int64_t stride; /**< s */
    int64_t half;   /**< floor(w / 2B); nb for `all` */
} bsattn_level_t;

/** A term, its parameters converted to blocks. */
typedef struct bsattn_term {
    bsattn_term_kind_t kind;
    double density; /**< local, strided, random: the density asked for; 0: the parameter itself was
                          given */
    int64_t half;   /**< local: |i - j| <= half */
    int64_t count;  /**< global, sink: G blocks; random: k draws; strided: s; clipped to nb */
    uint64_t seed;  /**< random */
    bool rows;      /**< hierarchical: strides select query rows, not key columns */
    int rate_count; /**< dilated */
    int64_t rates[BSATTN_RATES_MAX]; /**< dilated: ascending, distinct, >= 1 */
    int level_count;                 /**< hierarchical */
    bsattn_level_t levels[BSATTN_LEVELS_MAX];
    unsigned char *mask; /**< blocks: [mask_heads, nb, nb], owned */
    int64_t mask_heads;  /**< 1 or Hq */
} bsattn_term_t;

/** A union of terms under one softmax. */
typedef struct bsattn_branch {
    bsattn_term_t *terms;
    int term_count;
} bsattn_branch_t;

/** The mask of some heads: branches merged by LSE. */
typedef struct bsattn_head_mask {
    bsattn_branch_t *branches;
    int branch_count;
} bsattn_head_mask_t;

/** Buffers for generating rows; zero-initialise, one per thread; release with
 *  bsattn_row_work_free(). */
typedef struct bsattn_row_work {
    bsattn_spans_t term;
    bsattn_spans_t branch;
    bsattn_spans_t level;
    bsattn_spans_t buffer;
} bsattn_row_work_t;

struct bsattn_pattern {
    bsattn_problem_t problem;
    int64_t blocks; /**< nb */
    bsattn_head_mask_t *masks;
    int mask_count;
    int *mask_of_head;  /**< [Hq] */
    int *class_of_head; /**< [Hq]: heads of equal class have equal lists */
    int class_count;
    int *head_of_class; /**< [class_count]: the first head of each class */
    bsattn_spans_t row; /**< what bsattn_pattern_row() returned last */
    bsattn_row_work_t work;
};

void bsattn_row_work_free(bsattn_row_work_t *work);

/** Parse a pattern's text into masks and the mask of each head, windows and tokens converted to
 *  blocks. Density requests are left in the terms, mask files are read. The pattern's problem and
 *  blocks must be set.
 *  @return BSATTN_OK, BSATTN_ERR_INPUT with the position, BSATTN_ERR_FILE or BSATTN_ERR_MEMORY; the
 *          masks made so far are the pattern's to release in any case */
bsattn_status_t bsattn_pattern_parse(bsattn_pattern_t *pattern, const char *text);

/** Choose the parameter of a term with a density request: the pattern whose measured block density
 *  is nearest. */
void bsattn_term_resolve_density(bsattn_term_t *term, int64_t blocks, bool causal);

/** The row of one class: spans of each branch a set, branches one after the other.
 *  @param row   query block
 *  @param out   overwritten
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_pattern_class_row(const bsattn_pattern_t *pattern, int class_index,
                                         int64_t row, bsattn_row_work_t *work, bsattn_spans_t *out);

#endif
