/* SPDX-License-Identifier: Apache-2.0 */
#include "problem/pattern.h"

#include <math.h>

/* Active block pairs of a term with parameter x, in closed form; nb blocks. */

static double triangle(double n)
{
    return n * (n + 1.0) / 2.0;
}

static double pairs_local(double nb, double half, bool causal)
{
    double below = nb * (half + 1.0) - triangle(half); /* j <= i, |i - j| <= half */

    return causal ? below : 2.0 * below - nb;
}

static double pairs_strided(double nb, double stride, bool causal)
{
    double short_class = floor(nb / stride);
    double long_classes = nb - short_class * stride;
    double short_classes = stride - long_classes;

    if (causal) {
        return long_classes * triangle(short_class + 1.0) + short_classes * triangle(short_class);
    }
    return long_classes * (short_class + 1.0) * (short_class + 1.0) +
           short_classes * short_class * short_class;
}

static double pairs_random(double nb, double draws, bool causal)
{
    return causal ? triangle(draws) + (nb - draws) * draws : nb * draws;
}

static double term_pairs(const bsattn_term_t *term, int64_t x, int64_t blocks, bool causal)
{
    double nb = (double)blocks;

    switch (term->kind) {
    case BSATTN_TERM_LOCAL:
        return pairs_local(nb, (double)x, causal);
    case BSATTN_TERM_STRIDED:
        /* Counted from the sparse end, so that pairs grow with x for every term. */
        return pairs_strided(nb, (double)(blocks - x), causal);
    case BSATTN_TERM_RANDOM:
        return pairs_random(nb, (double)(x + 1), causal);
    default:
        BSATTN_ASSERT(!"a term with a density");
        return 0.0;
    }
}

void bsattn_term_resolve_density(bsattn_term_t *term, int64_t blocks, bool causal)
{
    double wanted = term->density * (double)blocks * (double)blocks;
    int64_t low = 0;           /* pairs(low) <= wanted, or low is 0: the diagonal or its like */
    int64_t high = blocks - 1; /* the densest */

    while (low < high) {
        int64_t middle = low + (high - low + 1) / 2;
        if (term_pairs(term, middle, blocks, causal) <= wanted) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    if ((low + 1 < blocks) && (term_pairs(term, low + 1, blocks, causal) - wanted <
                               wanted - term_pairs(term, low, blocks, causal))) {
        ++low;
    }
    if (term->kind == BSATTN_TERM_LOCAL) {
        term->half = low;
    } else {
        term->count = (term->kind == BSATTN_TERM_STRIDED) ? blocks - low : low + 1;
    }
}
