/* SPDX-License-Identifier: Apache-2.0 */
/** @file masks.h  Block masks computed the slow way, term by term from the definitions, for tests
 *  of patterns. */
#ifndef BSATTN_TESTS_MASKS_H
#define BSATTN_TESTS_MASKS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "bsattn.h"

/** A pattern text and the definition it must equal: how often query block i uses key block j. */
typedef struct mask_case {
    const char *text;
    int (*uses)(int head, int64_t i, int64_t j, int64_t nb, int64_t block);
} mask_case_t;

static inline bool within(int64_t i, int64_t j, int64_t window, int64_t block)
{
    return llabs((long long)(i - j)) <= window / (2 * block);
}

static int uses_dense(int head, int64_t i, int64_t j, int64_t nb, int64_t block)
{
    (void)head, (void)i, (void)j, (void)nb, (void)block;
    return 1;
}

static int uses_local(int head, int64_t i, int64_t j, int64_t nb, int64_t block)
{
    (void)head, (void)nb;
    return within(i, j, 256, block);
}

static int uses_dilated(int head, int64_t i, int64_t j, int64_t nb, int64_t block)
{
    int64_t d = llabs((long long)(j - i));
    (void)head, (void)nb, (void)block;
    return (d == 0) || (d == 1) || (d == 3) || (d == 8);
}

static int uses_strided(int head, int64_t i, int64_t j, int64_t nb, int64_t block)
{
    (void)head, (void)nb, (void)block;
    return i % 3 == j % 3;
}

static int uses_global(int head, int64_t i, int64_t j, int64_t nb, int64_t block)
{
    int64_t g = (100 + block - 1) / block;
    (void)head, (void)nb;
    return (i < g) || (j < g);
}

static int uses_sink(int head, int64_t i, int64_t j, int64_t nb, int64_t block)
{
    (void)head, (void)i, (void)nb;
    return j < (65 + block - 1) / block;
}

static int uses_cols(int head, int64_t i, int64_t j, int64_t nb, int64_t block)
{
    (void)head, (void)nb;
    return within(i, j, 128, block) || (within(i, j, 1024, block) && (j % 4 == 0)) || (j % 7 == 0);
}

static int uses_rows(int head, int64_t i, int64_t j, int64_t nb, int64_t block)
{
    (void)head, (void)nb;
    return within(i, j, 128, block) || (within(i, j, 1024, block) && (i % 4 == 0)) || (i % 7 == 0);
}

static int uses_union(int head, int64_t i, int64_t j, int64_t nb, int64_t block)
{
    return uses_local(head, i, j, nb, block) || uses_sink(head, i, j, nb, block) ||
           uses_strided(head, i, j, nb, block);
}

static int uses_branches(int head, int64_t i, int64_t j, int64_t nb, int64_t block)
{
    return uses_local(head, i, j, nb, block) +
           (uses_dilated(head, i, j, nb, block) || uses_sink(head, i, j, nb, block)) +
           uses_strided(head, i, j, nb, block);
}

static int uses_per_head(int head, int64_t i, int64_t j, int64_t nb, int64_t block)
{
    return (head == 1) ? uses_branches(head, i, j, nb, block) : uses_dilated(head, i, j, nb, block);
}

static int uses_nothing(int head, int64_t i, int64_t j, int64_t nb, int64_t block)
{
    (void)head, (void)i, (void)j, (void)nb, (void)block;
    return 0;
}

/* For four query heads. */
static const mask_case_t mask_cases[] = {
    {"dense", uses_dense},
    {"local(window=256)", uses_local},
    {"dilated(rates=3:8:1:3)", uses_dilated},
    {"strided(stride=3)", uses_strided},
    {"global(tokens=100)", uses_global},
    {"sink(tokens=65)", uses_sink},
    {"hierarchical(levels=1:128/4:1024/7:all)", uses_cols},
    {"hierarchical(levels=1:128/4:1024/7:all, orient=rows)", uses_rows},
    {" local( window = 256 ) + sink(tokens=65)+strided(stride=3) ", uses_union},
    {"local(window=256) | dilated(rates=1:3:8)+sink(tokens=65) | strided(stride=3)", uses_branches},
    {"0,2-3@dilated(rates=1:3:8); 1@local(window=256)|dilated(rates=1:3:8)+sink(tokens=65)|"
     "strided(stride=3)",
     uses_per_head},
    {"sink(tokens=0)", uses_nothing},
};

enum { MASK_CASE_COUNT = sizeof(mask_cases) / sizeof(mask_cases[0]) };

#endif
