/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/reference.h"

#include <math.h>
#include <string.h>

void bsattn_reference_begin(bsattn_reference_t *reference, int head_dim, double scale,
                            const float *q)
{
    memset(reference, 0, sizeof(*reference));
    reference->head_dim = head_dim;
    reference->scale = scale;
    reference->max = -INFINITY;
    for (int d = 0; d < head_dim; d++) {
        reference->query[d] = q[d];
    }
}

static void key_add(bsattn_reference_t *reference, const float *k, const float *v)
{
    double dot = 0.0;
    double score;
    double weight;

    for (int d = 0; d < reference->head_dim; d++) {
        dot += reference->query[d] * k[d];
    }
    score = reference->scale * dot;
    if (score > reference->max) {
        double factor = exp(reference->max - score);

        reference->max = score;
        reference->sum *= factor;
        for (int d = 0; d < reference->head_dim; d++) {
            reference->out[d] *= factor;
        }
    }
    weight = exp(score - reference->max);
    reference->sum += weight;
    for (int d = 0; d < reference->head_dim; d++) {
        reference->out[d] += weight * v[d];
    }
}

void bsattn_reference_add(bsattn_reference_t *reference, const float *k, const float *v,
                          int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        key_add(reference, k + i * reference->head_dim, v + i * reference->head_dim);
    }
}

double bsattn_reference_end(bsattn_reference_t *reference)
{
    /* A NaN score leaves a NaN sum behind, which is not an empty row. */
    if (reference->sum == 0.0) {
        return -INFINITY;
    }
    for (int d = 0; d < reference->head_dim; d++) {
        reference->out[d] /= reference->sum;
    }
    return reference->max + log(reference->sum);
}
