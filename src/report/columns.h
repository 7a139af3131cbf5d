/* SPDX-License-Identifier: Apache-2.0 */
/** @file columns.h  The values of a record, one by one, as columns.def lists them. */
#ifndef BSATTN_REPORT_COLUMNS_H
#define BSATTN_REPORT_COLUMNS_H

#include "report/record.h"

#include <stdbool.h>

typedef enum bsattn_cell_kind {
    BSATTN_CELL_TEXT,
    BSATTN_CELL_INT,
    BSATTN_CELL_REAL, /**< NaN: not known */
    BSATTN_CELL_FLAG,
} bsattn_cell_kind_t;

/** A named value. */
typedef struct bsattn_cell {
    const char *section; /**< "" at the top; parts joined with '.'; not owned */
    const char *key;     /**< not owned */
    bsattn_cell_kind_t kind;
    const char *text; /**< TEXT; lives as long as what it was taken from */
    int64_t integer;  /**< INT; FLAG: 0 or 1 */
    double real;      /**< REAL */
} bsattn_cell_t;

/** What a column means. */
typedef struct bsattn_column {
    const char *section;
    const char *key;
    const char *unit;
    const char *description;
} bsattn_column_t;

/** @return the number of columns of a record, its arrays over ranks left out */
size_t bsattn_column_count(void);

/** @return what column index means, 0 <= index < bsattn_column_count() */
const bsattn_column_t *bsattn_column(size_t index);

/** @return the value of a column */
bsattn_cell_t bsattn_record_cell(const bsattn_record_t *record, size_t column);

/** @return the index of "section.key"; asserts that there is one */
size_t bsattn_column_find(const char *name);

/** The same for one rank's placement and measurements. */
size_t bsattn_placement_column_count(void);
const bsattn_column_t *bsattn_placement_column(size_t index);
bsattn_cell_t bsattn_placement_cell(const bsattn_placement_t *placement, int rank, size_t column);
size_t bsattn_rank_column_count(void);
const bsattn_column_t *bsattn_rank_column(size_t index);
bsattn_cell_t bsattn_rank_cell(const bsattn_rank_record_t *record, int rank, size_t column);

/** How the program was built, from the build's build_info.h: compiler and version, build type and
 *  sanitizer, compiler flags, `git describe` of the source. */
const char *bsattn_build_compiler(void);
const char *bsattn_build_type(void);
const char *bsattn_build_flags(void);
const char *bsattn_build_source(void);

#endif
