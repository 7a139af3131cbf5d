/* SPDX-License-Identifier: Apache-2.0 */
/** @file stats.h  Order statistics of a handful of measurements. */
#ifndef BSATTN_BASE_STATS_H
#define BSATTN_BASE_STATS_H

#include <stddef.h>
#include <stdint.h>

/** What is reported of a series; in the unit of its values. All NaN if count is 0. */
typedef struct bsattn_stats {
    double min;
    double median; /**< mean of the two middle values if count is even */
    double p95;    /**< nearest rank: the smallest value that 95 % of the values do not exceed */
    double max;
    int64_t count;
} bsattn_stats_t;

/** Sum up a series. Values that are NaN are left out and not counted.
 *  @param values  [count], reordered; may be NULL if count is 0 */
bsattn_stats_t bsattn_stats_of(double *values, size_t count);

/** @return the median alone. @param values  [count], reordered */
double bsattn_stats_median(double *values, size_t count);

#endif
