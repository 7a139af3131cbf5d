/* SPDX-License-Identifier: Apache-2.0 */
#include "problem/problem.h"

#include "kernels/attend.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { HEADS_MAX = 65536, HEAD_DIM_MIN = 16, HEAD_DIM_MAX = 256 };

void bsattn_problem_init(bsattn_problem_t *problem)
{
    *problem = (bsattn_problem_t){
        .batch = 1,
        .seq_len = 16384,
        .heads_q = 8,
        .heads_kv = 8,
        .head_dim = 64,
        .dtype = BSATTN_F32,
        .block = 64,
        .scale = NAN,
    };
}

const char *bsattn_dtype_name(bsattn_dtype_t dtype)
{
    switch (dtype) {
    case BSATTN_F32:
        return "f32";
    case BSATTN_F16:
        return "f16";
    case BSATTN_BF16:
        return "bf16";
    }
    return "unknown";
}

bool bsattn_dtype_find(const char *name, bsattn_dtype_t *dtype_p)
{
    for (int dtype = BSATTN_F32; dtype <= BSATTN_BF16; ++dtype) {
        if (strcmp(name, bsattn_dtype_name((bsattn_dtype_t)dtype)) == 0) {
            *dtype_p = (bsattn_dtype_t)dtype;
            return true;
        }
    }
    return false;
}

size_t bsattn_dtype_size(bsattn_dtype_t dtype)
{
    return (dtype == BSATTN_F32) ? 4 : 2;
}

int64_t bsattn_problem_blocks(const bsattn_problem_t *problem)
{
    return problem->seq_len / problem->block + (problem->seq_len % problem->block != 0);
}

double bsattn_problem_scale(const bsattn_problem_t *problem)
{
    return isnan(problem->scale) ? 1.0 / sqrt((double)problem->head_dim) : problem->scale;
}

size_t bsattn_problem_row_bytes(const bsattn_problem_t *problem)
{
    return (size_t)problem->head_dim * bsattn_dtype_size(problem->dtype);
}

int bsattn_problem_state_group(const bsattn_problem_t *problem)
{
    return (problem->block < BSATTN_STATE_ROWS) ? BSATTN_STATE_ROWS / problem->block : 1;
}

size_t bsattn_problem_state_bytes(const bsattn_problem_t *problem, int64_t blocks)
{
    int64_t rows = problem->batch * problem->heads_q * blocks * problem->block;

    return (size_t)rows * ((size_t)problem->head_dim + 2) * sizeof(float);
}

int64_t bsattn_problem_span_tokens(const bsattn_problem_t *problem, int64_t first, int64_t last)
{
    int64_t end = last * problem->block;

    return ((end < problem->seq_len) ? end : problem->seq_len) - first * problem->block;
}

static bool block_size_known(int block)
{
    return (block == 16) || (block == 32) || (block == 64) || (block == 128) || (block == 256);
}

static bsattn_status_t check_sizes(const bsattn_problem_t *problem)
{
    int64_t heads = (int64_t)problem->heads_q + problem->heads_kv;
    int64_t elements;

    /* Byte counts of all tensors together must fit int64_t with room to spare. */
    if (__builtin_mul_overflow(problem->batch, problem->seq_len, &elements) ||
        __builtin_mul_overflow(elements, 2 * heads * problem->head_dim, &elements) ||
        (elements > INT64_MAX / 16)) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "batch %" PRId64 " x seq %" PRId64 " x %" PRId64
                           " heads x head-dim %d: more elements than can be counted",
                           problem->batch, problem->seq_len, heads, problem->head_dim);
    }
    if (bsattn_problem_blocks(problem) > BSATTN_BLOCKS_MAX) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "seq %" PRId64 " in blocks of %d: more than %" PRId64 " blocks, at "
                           "most %" PRId64 " tokens; take a larger block, 256 at most",
                           problem->seq_len, problem->block, (int64_t)BSATTN_BLOCKS_MAX,
                           (int64_t)BSATTN_BLOCKS_MAX * problem->block);
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_problem_check(const bsattn_problem_t *problem)
{
    if (problem->batch < 1) {
        return bsattn_fail(BSATTN_ERR_INPUT, "batch %" PRId64 ": must be 1 or more",
                           problem->batch);
    }
    if (problem->seq_len < 1) {
        return bsattn_fail(BSATTN_ERR_INPUT, "seq %" PRId64 ": must be 1 token or more",
                           problem->seq_len);
    }
    if ((problem->heads_q < 1) || (problem->heads_q > HEADS_MAX)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "heads %d: must be 1 to %d", problem->heads_q,
                           HEADS_MAX);
    }
    if ((problem->heads_kv < 1) || (problem->heads_q % problem->heads_kv != 0)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "kv-heads %d: must be 1 or more and divide heads %d",
                           problem->heads_kv, problem->heads_q);
    }
    if ((problem->head_dim < HEAD_DIM_MIN) || (problem->head_dim > HEAD_DIM_MAX) ||
        (problem->head_dim % 8 != 0)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "head-dim %d: must be a multiple of 8 from %d to %d",
                           problem->head_dim, HEAD_DIM_MIN, HEAD_DIM_MAX);
    }
    if ((problem->dtype != BSATTN_F32) && (problem->dtype != BSATTN_F16) &&
        (problem->dtype != BSATTN_BF16)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "dtype %d: must be f32, f16 or bf16",
                           (int)problem->dtype);
    }
    if (!block_size_known(problem->block)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "block %d: must be 16, 32, 64, 128 or 256",
                           problem->block);
    }
    if (isinf((float)problem->scale)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "scale %g: must be finite in fp32", problem->scale);
    }
    return check_sizes(problem);
}
