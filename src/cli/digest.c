/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/digest.h"

#include "base/bits.h"
#include "base/half.h"
#include "ring/context.h"

#include <math.h>
#include <stdlib.h>

enum {
    PIECE = 256,          /* elements converted at once: the largest head_dim */
    SLICE_BYTES = 8 << 20 /* brought into host memory at once */
};

uint64_t bsattn_digest_mix(uint64_t index, uint32_t bits)
{
    return bsattn_mix((index * BSATTN_MIX_STEP) ^ bits);
}

static void add_elements(bsattn_digest_t *digest, const float *values, int count, uint64_t index)
{
    for (int i = 0; i < count; ++i) {
        digest->sum += values[i];
        digest->abs_sum += fabs((double)values[i]);
        digest->hash += bsattn_digest_mix(index + (uint64_t)i, bsattn_bits_of(values[i]));
    }
}

/* Rows of one run of tokens; o: [count, Hq, D] of the problem's type. */
static void add_run(bsattn_digest_t *digest, const bsattn_problem_t *problem, const char *o,
                    int64_t count, uint64_t index)
{
    size_t row_bytes = (size_t)problem->head_dim * bsattn_dtype_size(problem->dtype);
    float values[PIECE];

    for (int64_t row = 0; row < count * problem->heads_q; ++row) {
        bsattn_convert_to_f32(problem->dtype, o + (size_t)row * row_bytes, problem->head_dim,
                              values);
        add_elements(digest, values, problem->head_dim, index);
        index += (uint64_t)problem->head_dim;
    }
}

/* Rows of one run, slice by slice. slice: [SLICE_BYTES], or as large as a token. */
static bsattn_status_t add_slices(bsattn_digest_t *digest, const bsattn_trial_t *trial,
                                  const char *o, int64_t count, uint64_t index, char *slice)
{
    const bsattn_problem_t *problem = &trial->problem;
    uint64_t token_elements = (uint64_t)problem->heads_q * (uint64_t)problem->head_dim;
    size_t token_bytes = (size_t)token_elements * bsattn_dtype_size(problem->dtype);
    int64_t most = (token_bytes < SLICE_BYTES) ? (int64_t)(SLICE_BYTES / token_bytes) : 1;

    while (count > 0) {
        int64_t now = (count < most) ? count : most;
        bsattn_rows_t rows = {
            .from = o, .to = slice, .row_bytes = (size_t)now * token_bytes, .row_count = 1};
        BSATTN_TRY(bsattn_context_read(trial->context, &rows));
        add_run(digest, problem, slice, now, index);
        o += (size_t)now * token_bytes;
        index += (uint64_t)now * token_elements;
        count -= now;
    }
    return BSATTN_OK;
}

static bsattn_status_t add_runs(bsattn_digest_t *digest, const bsattn_trial_t *trial, int local,
                                char *slice)
{
    const bsattn_problem_t *problem = &trial->problem;
    uint64_t token_elements = (uint64_t)problem->heads_q * (uint64_t)problem->head_dim;
    size_t token_bytes = (size_t)token_elements * bsattn_dtype_size(problem->dtype);
    const char *o = trial->tensors[local].o;
    size_t run_count;
    const bsattn_token_run_t *runs = bsattn_plan_runs(trial->plan, local, &run_count);

    for (int64_t batch = 0; batch < problem->batch; ++batch) {
        for (size_t i = 0; i < run_count; ++i) {
            uint64_t token = (uint64_t)(batch * problem->seq_len + runs[i].first);
            BSATTN_TRY(
                add_slices(digest, trial, o, runs[i].count, token * token_elements, slice));
            o += (size_t)runs[i].count * token_bytes;
        }
    }
    return BSATTN_OK;
}

static bsattn_status_t add_local(bsattn_digest_t *digest, const bsattn_trial_t *trial, int local)
{
    size_t token_bytes = (size_t)trial->problem.heads_q * (size_t)trial->problem.head_dim *
                         bsattn_dtype_size(trial->problem.dtype);
    char *slice = malloc((token_bytes > SLICE_BYTES) ? token_bytes : SLICE_BYTES);
    bsattn_status_t status;

    if (slice == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the digest of a rank");
    }
    status = add_runs(digest, trial, local, slice);
    free(slice);
    return status;
}

bsattn_status_t bsattn_digest_take(bsattn_trial_t *trial, bsattn_digest_t *digest_p)
{
    size_t local_count = (size_t)trial->info.local_count;
    size_t ranks = (size_t)trial->info.ranks;
    bsattn_digest_t *digests = calloc(local_count + ranks, sizeof(*digests));
    bsattn_digest_t total = {0};
    bsattn_status_t status = BSATTN_OK;

    if (digests == NULL) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the digests of %zu ranks", ranks);
    }
    status = bsattn_context_agree(trial->context, status);
    for (size_t i = 0; (status == BSATTN_OK) && (i < local_count); ++i) {
        status = add_local(&digests[i], trial, (int)i);
    }
    status = bsattn_context_agree(trial->context, status);
    if (status == BSATTN_OK) {
        status =
            bsattn_context_gather(trial->context, digests, sizeof(*digests), digests + local_count);
    }
    for (size_t i = 0; (status == BSATTN_OK) && (i < ranks); ++i) {
        total.sum += digests[local_count + i].sum;
        total.abs_sum += digests[local_count + i].abs_sum;
        total.hash += digests[local_count + i].hash;
    }
    if (status == BSATTN_OK) {
        *digest_p = total;
    }
    free(digests);
    return status;
}
