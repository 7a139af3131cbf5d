/* SPDX-License-Identifier: Apache-2.0 */
#include "base/stats.h"

#include <math.h>
#include <stdlib.h>

static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;

    return (a > b) - (a < b);
}

/* NaN has no place in an order, so qsort must not see it. */
static size_t drop_nan(double *values, size_t count)
{
    size_t kept = 0;

    for (size_t i = 0; i < count; ++i) {
        if (!isnan(values[i])) {
            values[kept++] = values[i];
        }
    }
    return kept;
}

bsattn_stats_t bsattn_stats_of(double *values, size_t count)
{
    size_t kept = drop_nan(values, count);
    size_t rank95;

    if (kept == 0) {
        return (bsattn_stats_t){.min = NAN, .median = NAN, .p95 = NAN, .max = NAN, .count = 0};
    }
    qsort(values, kept, sizeof(*values), compare_doubles);
    rank95 = kept - kept / 20; /* ceil(0.95 kept) in integers */
    return (bsattn_stats_t){
        .min = values[0],
        .median = (values[(kept - 1) / 2] + values[kept / 2]) / 2.0,
        .p95 = values[rank95 - 1],
        .max = values[kept - 1],
        .count = (int64_t)kept,
    };
}

double bsattn_stats_median(double *values, size_t count)
{
    return bsattn_stats_of(values, count).median;
}
