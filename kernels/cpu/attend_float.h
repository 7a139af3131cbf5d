/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file attend_float.h
 * The kernel whose products are fp32: included once by each variant, after attend_vec.h and its two
 * functions, with
 *
 *     TILE_ROWS      rows of a product held in registers, each 1 or 2 vectors wide: 4, 6, 8 or 12
 *     TILE_VARIANT   the bsattn_attend_variant_t to define
 *     TILE_NAME      its name
 *
 * Of a product C[m][lanes] += A[m, k] * X[k][lanes], A is K or V, read in place, one scalar
 * broadcast at a time. The queries are scaled, so that scores need not be.
 */
#define TILE_KEYS 64
#define ROW_UNIT 8 /* head_dim is a multiple of it, too */

typedef float element_t;

static inline float element_value(element_t element)
{
    return element;
}

#include "kernels/cpu/attend_tile.h"

enum { TILE_ROWS_REST = 4 };

/* ------------------------------------------------------------------------------------- products */

/* sums[rows][vecs] += A[rows, count] * X[count][vecs] */
ALWAYS_INLINE void accumulate(vec_t *sums, const int rows, const int vecs, const float *a,
                              ptrdiff_t a_row, ptrdiff_t a_col, const float *x, int count)
{
    for (int k = 0; k < count; k++) {
        UNROLL
        for (int i = 0; i < rows * vecs; i++) {
            vec_t broadcast = vec_splat(a[i / vecs * a_row + k * a_col]);

            sums[i] += broadcast * vec_load(x + (k * vecs + i % vecs) * VEC_LANES);
        }
    }
}

/* scores[rows][vecs] = K[rows, D] * queries[D][vecs] */
ALWAYS_INLINE void score_rows(float *scores, const float *k, const float *queries, int head_dim,
                              const int rows, const int vecs)
{
    vec_t sums[TILE_ROWS * 2];

    UNROLL
    for (int i = 0; i < rows * vecs; i++) {
        sums[i] = vec_splat(0.0f);
    }
    accumulate(sums, rows, vecs, k, head_dim, 1, queries, head_dim);
    UNROLL
    for (int i = 0; i < rows * vecs; i++) {
        vec_store(scores + i * VEC_LANES, sums[i]);
    }
}

/* out[rows][vecs] += V[keys, rows]^T * probabilities[keys][vecs], key_count of them */
ALWAYS_INLINE void out_rows(float *out, const tile_t *tile, int column, const float *probabilities,
                            int key_count, int head_dim, const int rows, const int vecs)
{
    vec_t sums[TILE_ROWS * 2];

    UNROLL
    for (int i = 0; i < rows * vecs; i++) {
        sums[i] = vec_load(out + i * VEC_LANES);
    }
    for (int s = 0; s < tile->segment_count; s++) {
        const segment_t *segment = &tile->segments[s];
        int count = segment->rows < key_count ? segment->rows : key_count;

        accumulate(sums, rows, vecs, segment->v + column, 1, head_dim, probabilities, count);
        probabilities += count * vecs * VEC_LANES;
        key_count -= count;
    }
    UNROLL
    for (int i = 0; i < rows * vecs; i++) {
        vec_store(out + i * VEC_LANES, sums[i]);
    }
}

/* Rows are a multiple of ROW_UNIT: taken TILE_ROWS at a time once few of TILE_ROWS_REST have made
 * them a multiple of it. */
ALWAYS_INLINE void score_tile(float *scores, const tile_t *tile, const float *queries,
                              int key_count, int head_dim, const int vecs)
{
    for (int s = 0; s < tile->segment_count; s++) {
        const float *k = tile->segments[s].k;
        int rows = tile->segments[s].rows < key_count ? tile->segments[s].rows : key_count;

        key_count -= rows;
        for (; rows % TILE_ROWS != 0; rows -= TILE_ROWS_REST) {
            score_rows(scores, k, queries, head_dim, TILE_ROWS_REST, vecs);
            scores += TILE_ROWS_REST * vecs * VEC_LANES;
            k += TILE_ROWS_REST * head_dim;
        }
        for (; rows > 0; rows -= TILE_ROWS) {
            score_rows(scores, k, queries, head_dim, TILE_ROWS, vecs);
            scores += TILE_ROWS * vecs * VEC_LANES;
            k += TILE_ROWS * head_dim;
        }
    }
}

ALWAYS_INLINE void out_tile(float *out, const tile_t *tile, const float *probabilities,
                            int key_count, int head_dim, const int vecs)
{
    int column = 0;

    for (; (head_dim - column) % TILE_ROWS != 0; column += TILE_ROWS_REST) {
        out_rows(out + column * vecs * VEC_LANES, tile, column, probabilities, key_count, head_dim,
                 TILE_ROWS_REST, vecs);
    }
    for (; column < head_dim; column += TILE_ROWS) {
        out_rows(out + column * vecs * VEC_LANES, tile, column, probabilities, key_count, head_dim,
                 TILE_ROWS, vecs);
    }
}

/* ---------------------------------------------------------------------------------- strip, tile */

ALWAYS_INLINE void strip_attend(const walk_t *walk, int strip, const int vecs)
{
    const tile_t *tile = &walk->tile;
    const int lanes = vecs * VEC_LANES;
    int head_dim = walk->head_dim;
    const float *queries = walk->queries + (ptrdiff_t)strip * lanes * head_dim;
    float *state = walk->state + (ptrdiff_t)strip * lanes * (head_dim + 2);
    int key_count = strip_key_count(walk, strip);

    if (key_count == 0) {
        return;
    }
    score_tile(walk->scores, tile, queries, key_count, head_dim, vecs);
    if (tile->masked) {
        mask_scores(walk->scores, tile, strip * lanes, key_count, vecs);
    }
    scores_to_probabilities(walk->scores, 1.0f, state, key_count, head_dim, vecs);
    if (tile->masked && !tile->finite) {
        out_tile_seen(state, tile, walk->scores, strip * lanes, key_count, head_dim, lanes);
    } else {
        out_tile(state, tile, walk->scores, key_count, head_dim, vecs);
    }
}

static __attribute__((noinline)) void strip_attend_1(const walk_t *walk, int strip)
{
    strip_attend(walk, strip, 1);
}

static __attribute__((noinline)) void strip_attend_2(const walk_t *walk, int strip)
{
    strip_attend(walk, strip, 2);
}

static void tile_attend(walk_t *walk)
{
    for (int strip = 0; strip < walk->strip_count; strip++) {
        if (walk->lanes == VEC_LANES) {
            strip_attend_1(walk, strip);
        } else {
            strip_attend_2(walk, strip);
        }
    }
    walk->tile = (tile_t){0};
}

static void tile_append(walk_t *walk, int64_t row, int keys)
{
    tile_t *tile = &walk->tile;
    size_t offset = (size_t)row * (size_t)walk->head_dim * bsattn_dtype_size(walk->dtype);
    int rows = (keys + ROW_UNIT - 1) / ROW_UNIT * ROW_UNIT;
    segment_t segment = {(const void *)(walk->k + offset), (const void *)(walk->v + offset), rows};

    if (walk->dtype != BSATTN_F32 || rows != keys) {
        ptrdiff_t filled = (ptrdiff_t)tile->rows * walk->head_dim;
        ptrdiff_t count = (ptrdiff_t)keys * walk->head_dim;
        size_t rest = (size_t)(rows - keys) * (size_t)walk->head_dim * sizeof(float);

        segment.k = walk->keys + filled;
        segment.v = walk->values + filled;
        floats_load(walk->keys + filled, walk->k + offset, count, walk->dtype);
        floats_load(walk->values + filled, walk->v + offset, count, walk->dtype);
        memset(walk->keys + filled + count, 0, rest);
        memset(walk->values + filled + count, 0, rest);
    }
    tile->segments[tile->segment_count++] = segment;
    tile->rows += rows;
}

/* ---------------------------------------------------------------------- queries in, results out */

typedef float vec4_t __attribute__((vector_size(16), aligned(4), may_alias));

/* to[column][row] = from[row][column] * factors[column] for 4 x 4 floats */
ALWAYS_INLINE void transpose_4x4(float *to, ptrdiff_t to_stride, const float *from,
                                 ptrdiff_t from_stride, vec4_t factors)
{
    vec4_t a = *(const vec4_t *)from * factors;
    vec4_t b = *(const vec4_t *)(from + from_stride) * factors;
    vec4_t c = *(const vec4_t *)(from + 2 * from_stride) * factors;
    vec4_t d = *(const vec4_t *)(from + 3 * from_stride) * factors;
    vec4_t ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    vec4_t ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    vec4_t cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    vec4_t cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);

    *(vec4_t *)to = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
    *(vec4_t *)(to + to_stride) = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
    *(vec4_t *)(to + 2 * to_stride) = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
    *(vec4_t *)(to + 3 * to_stride) = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
}

/* Four rows from row on go through walk->lines if they are not fp32 or not all there. */
static int rows_direct(const walk_t *walk, int row)
{
    return walk->dtype == BSATTN_F32 && row + 4 <= walk->query_count;
}

static void lines_load(const walk_t *walk, const char *rows, size_t row_bytes, int row)
{
    for (int i = 0; i < 4; i++) {
        float *line = walk->lines + (ptrdiff_t)i * walk->head_dim;

        if (row + i < walk->query_count) {
            floats_load(line, rows + (size_t)(row + i) * row_bytes, walk->head_dim, walk->dtype);
        } else {
            memset(line, 0, (size_t)walk->head_dim * sizeof(float));
        }
    }
}

static void queries_load(const bsattn_attend_task_t *task, const walk_t *walk)
{
    const vec4_t factors = {walk->scale, walk->scale, walk->scale, walk->scale};
    const char *q = (const char *)task->params->q + rows_offset(task);
    ptrdiff_t row_stride = (ptrdiff_t)task->params->heads_q * walk->head_dim;
    size_t row_bytes = (size_t)row_stride * bsattn_dtype_size(walk->dtype);

    for (int row = 0; row < walk->strip_count * walk->lanes; row += 4) {
        float *to = walk->queries + (ptrdiff_t)(row / walk->lanes) * walk->lanes * walk->head_dim +
                    row % walk->lanes;
        const float *from = (const void *)(q + (size_t)row * row_bytes);
        ptrdiff_t from_stride = row_stride;

        if (!rows_direct(walk, row)) {
            lines_load(walk, q, row_bytes, row);
            from = walk->lines;
            from_stride = walk->head_dim;
        }
        for (int d = 0; d < walk->head_dim; d += 4) {
            transpose_4x4(to + d * walk->lanes, walk->lanes, from + d, from_stride, factors);
        }
    }
}

/* Rows that saw no key have a sum of 0 and results of 0. */
static vec4_t sums_inverse(const float *sums)
{
    vec4_t inverse = {0.0f};

    for (int i = 0; i < 4; i++) {
        inverse[i] = sums[i] == 0.0f ? 0.0f : 1.0f / sums[i];
    }
    return inverse;
}

static void results_store(const bsattn_attend_task_t *task, const walk_t *walk)
{
    char *o = (char *)task->params->o + rows_offset(task);
    ptrdiff_t row_stride = (ptrdiff_t)task->params->heads_q * walk->head_dim;
    size_t row_bytes = (size_t)row_stride * bsattn_dtype_size(walk->dtype);

    for (int row = 0; row < walk->query_count; row += 4) {
        const float *out = walk->state +
                           (ptrdiff_t)(row / walk->lanes) * walk->lanes * (walk->head_dim + 2) +
                           row % walk->lanes;
        const vec4_t factors = sums_inverse(out + (ptrdiff_t)(walk->head_dim + 1) * walk->lanes);
        int direct = rows_direct(walk, row);
        float *to = direct ? (void *)(o + (size_t)row * row_bytes) : walk->lines;
        ptrdiff_t to_stride = direct ? row_stride : walk->head_dim;

        for (int d = 0; d < walk->head_dim; d += 4) {
            transpose_4x4(to + d, to_stride, out + d * walk->lanes, walk->lanes, factors);
        }
        for (int i = 0; !direct && i < 4 && row + i < walk->query_count; i++) {
            floats_store(o + (size_t)(row + i) * row_bytes,
                         walk->lines + (ptrdiff_t)i * walk->head_dim, walk->head_dim, walk->dtype);
        }
    }
}

const bsattn_attend_variant_t TILE_VARIANT = {TILE_NAME, item_attend, exp2_array};
