/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file attend_tile.h
 * The tile loop of the CPU kernel: included once by each variant, after attend_vec.h and its two
 * functions, with
 *
 *     TILE_ROWS      rows of a product held in registers, each 1 or 2 vectors wide: 4, 6, 8 or 12
 *     TILE_VARIANT   the bsattn_attend_variant_t to define
 *     TILE_NAME      its name
 *
 * Vector lanes are queries. A query block is cut in strips of 1 or 2 vectors; queries, scores,
 * probabilities and results of a strip are [row][lanes]. Both products are then
 * C[m][lanes] += A[m, k] * X[k][lanes] with A read in place, one scalar broadcast at a time, and
 * the softmax needs no operation across lanes:
 *
 *     scores[key][lanes]  = K[key, d] * queries[d][lanes]
 *     out[d][lanes]      += V[key, d] * probabilities[key][lanes]
 *
 * Scores are in units of log2: the queries are scaled by scale * log2(e). The state of a strip, in
 * scratch or between launches, is out[D][lanes], max[lanes], sum[lanes].
 */
#include <float.h>
#include <math.h>

#include "kernels/cpu/attend_variants.h"
#include "kernels/cpu/convert.h"

/* The maximum may lag this far (in log2) behind the scores: it only has to keep 2^(score - max) in
 * range, and moving it costs a pass over the results. */
#define MAX_LAG 8.0f

enum {
    TILE_ROWS_REST = 4,
    ROW_UNIT = 8, /* head_dim and the keys of a tile are multiples of it */
    SEGMENT_COUNT_MAX = BSATTN_TILE_KEYS / ROW_UNIT,
};

/* Keys next to each other in memory, [rows, D] each. */
typedef struct segment {
    const float *k;
    const float *v;
    int rows;
} segment_t;

typedef struct tile {
    segment_t segments[SEGMENT_COUNT_MAX];
    int segment_count;
    int rows;   /* of all segments, a multiple of ROW_UNIT */
    int masked; /* then there is one segment and row r sees min(keys, r + limit_shift) keys */
    int keys;
    int limit_shift;
    int finite; /* of a masked tile: whether 0 * V is 0 throughout */
} tile_t;

/* An item on its way through its list. */
typedef struct walk {
    int head_dim;
    int block;
    bsattn_dtype_t dtype;
    int lanes;         /* of a strip */
    int strip_count;   /* those with queries */
    int query_count;   /* of the item, at most block */
    int64_t key_count; /* rows of the key head */
    const char *k;     /* its first row */
    const char *v;
    const float *queries; /* strips [D][lanes] */
    float *state;         /* strips [D + 2][lanes] */
    float *scores;        /* [BSATTN_TILE_KEYS][lanes] */
    float *keys;          /* [BSATTN_TILE_KEYS][D]: tiles that cannot be read in place */
    float *values;
    float *lines; /* [4][D]: rows on their way in or out */
    tile_t tile;
} walk_t;

/* ---------------------------------------------------------------------------------- exponential */

/* 2^x for x <= 64. The polynomial is the minimax one of degree 6 (relative error 3e-9 on +-0.5)
 * with coefficients rounded one after the other. The clamp comes out as exactly 0: 127 is
 * subtracted from the exponent of 1. */
ALWAYS_INLINE vec_t vec_exp2(vec_t x)
{
    const vec_t round_shift = vec_splat(0x1.8p23f);
    vec_t clamped = vec_max(vec_splat(-127.0f), x);
    vec_t shifted = clamped + round_shift;
    vec_t f = clamped - (shifted - round_shift);
    vec_t p = vec_splat(0.000153264627f);

    p = p * f + 0.00133908063f;
    p = p * f + 0.00961850584f;
    p = p * f + 0.0555035993f;
    p = p * f + 0.240226477f;
    p = p * f + 0.693147182f;
    p = p * f + 1.0f;
    return (vec_t)((vec_int_t)p + ((vec_int_t)shifted << 23));
}

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

/* -------------------------------------------------------------------------------------- softmax */

/* The first of the strip's queries first_query .. that sees a key of a masked tile. */
ALWAYS_INLINE int first_seen_by(const tile_t *tile, int key, int first_query)
{
    int lane = key + 1 - tile->limit_shift - first_query;

    return lane > 0 ? lane : 0;
}

/* Hide what the queries first_query .. of the strip do not see. */
ALWAYS_INLINE void mask_scores(float *scores, const tile_t *tile, int first_query, int key_count,
                               const int vecs)
{
    const int lanes = vecs * VEC_LANES;

    for (int key = 0; key < key_count; key++) {
        int first_seen = key < tile->keys ? first_seen_by(tile, key, first_query) : lanes;

        for (int lane = 0; lane < lanes && lane < first_seen; lane++) {
            scores[key * lanes + lane] = -INFINITY;
        }
    }
}

/* Move the maximum of a strip to cover new scores and rescale what was summed under the old one. */
ALWAYS_INLINE void raise_max(float *state, const vec_t *tile_max, int head_dim, const int vecs)
{
    float *max = state + head_dim * vecs * VEC_LANES;
    float *sum = max + vecs * VEC_LANES;
    vec_t factor[2];

    for (int j = 0; j < vecs; j++) {
        vec_t old_max = vec_load(max + j * VEC_LANES);
        vec_t new_max = vec_max(tile_max[j], old_max);

        factor[j] = vec_exp2(old_max - new_max);
        vec_store(max + j * VEC_LANES, new_max);
        vec_store(sum + j * VEC_LANES, vec_load(sum + j * VEC_LANES) * factor[j]);
    }
    for (int i = 0; i < head_dim; i++) {
        for (int j = 0; j < vecs; j++) {
            float *out = state + (i * vecs + j) * VEC_LANES;

            vec_store(out, vec_load(out) * factor[j]);
        }
    }
}

ALWAYS_INLINE void scores_to_probabilities(float *scores, float *state, int key_count, int head_dim,
                                           const int vecs)
{
    float *max = state + head_dim * vecs * VEC_LANES;
    float *sum = max + vecs * VEC_LANES;
    vec_t tile_max[2];
    vec_t sums[2];
    int lagging = 0;

    for (int j = 0; j < vecs; j++) {
        tile_max[j] = vec_load(scores + j * VEC_LANES);
    }
    for (int i = 1; i < key_count; i++) {
        for (int j = 0; j < vecs; j++) {
            tile_max[j] = vec_max(vec_load(scores + (i * vecs + j) * VEC_LANES), tile_max[j]);
        }
    }
    for (int j = 0; j < vecs; j++) {
        lagging |= vec_any_greater(tile_max[j], vec_load(max + j * VEC_LANES) + MAX_LAG);
    }
    if (lagging) {
        raise_max(state, tile_max, head_dim, vecs);
    }
    for (int j = 0; j < vecs; j++) {
        tile_max[j] = vec_load(max + j * VEC_LANES);
        sums[j] = vec_load(sum + j * VEC_LANES);
    }
    for (int i = 0; i < key_count; i++) {
        for (int j = 0; j < vecs; j++) {
            float *score = scores + (i * vecs + j) * VEC_LANES;
            vec_t probability = vec_exp2(vec_load(score) - tile_max[j]);

            sums[j] += probability;
            vec_store(score, probability);
        }
    }
    for (int j = 0; j < vecs; j++) {
        vec_store(sum + j * VEC_LANES, sums[j]);
    }
}

/* ---------------------------------------------------------------------------------- strip, tile */

static int all_finite(const float *values, ptrdiff_t count)
{
    vec_t zeros = vec_splat(0.0f);

    for (ptrdiff_t i = 0; i < count; i += VEC_LANES) {
        zeros += vec_load(values + i) * 0.0f;
    }
    for (int lane = 0; lane < VEC_LANES; lane++) {
        if (zeros[lane] != 0.0f) {
            return 0;
        }
    }
    return 1;
}

/* out_tile() that leaves alone what a query does not see: 0 * V is not 0 if V is not finite. Slow, and rare. */
static void out_tile_seen(float *out, const tile_t *tile, const float *probabilities,
                          int first_query, int key_count, int head_dim, int lanes)
{
    int keys = key_count < tile->keys ? key_count : tile->keys;

    for (int key = 0; key < keys; key++) {
        const float *v = tile->segments[0].v + (ptrdiff_t)key * head_dim;

        for (int d = 0; d < head_dim; d++) {
            for (int lane = first_seen_by(tile, key, first_query); lane < lanes; lane++) {
                out[d * lanes + lane] += v[d] * probabilities[key * lanes + lane];
            }
        }
    }
}

ALWAYS_INLINE void strip_attend(const walk_t *walk, int strip, const int vecs)
{
    const tile_t *tile = &walk->tile;
    const int lanes = vecs * VEC_LANES;
    int head_dim = walk->head_dim;
    const float *queries = walk->queries + (ptrdiff_t)strip * lanes * head_dim;
    float *state = walk->state + (ptrdiff_t)strip * lanes * (head_dim + 2);
    int key_count = tile->rows;

    if (tile->masked) {
        int seen = (strip + 1) * lanes - 1 + tile->limit_shift;

        if (seen <= 0) {
            return;
        }
        /* Of a diagonal this is a multiple of ROW_UNIT, as strips and tiles are. */
        key_count = seen < key_count ? seen : key_count;
    }
    score_tile(walk->scores, tile, queries, key_count, head_dim, vecs);
    if (tile->masked) {
        mask_scores(walk->scores, tile, strip * lanes, key_count, vecs);
    }
    scores_to_probabilities(walk->scores, state, key_count, head_dim, vecs);
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

/* ---------------------------------------------------------------------------------------- lists */

/* Append rows that follow each other in memory to the tile: in place where they can be read there.
 */
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

static void tile_flush(walk_t *walk)
{
    if (walk->tile.rows > 0) {
        tile_attend(walk);
    }
}

/* Row r of the tile, one segment, sees min(keys, r + limit_shift) keys. */
static void tile_mask(walk_t *walk, int keys, int limit_shift)
{
    tile_t *tile = &walk->tile;

    tile->masked = 1;
    tile->keys = keys;
    tile->limit_shift = limit_shift;
    tile->finite = all_finite(tile->segments[0].v, (ptrdiff_t)tile->rows * walk->head_dim);
}

static int64_t min_int64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void partial_attend(walk_t *walk, int slot)
{
    int64_t first = (int64_t)slot * walk->block;
    int count = (int)min_int64(walk->block, walk->key_count - first);

    for (int begin = 0; begin < count; begin += BSATTN_TILE_KEYS) {
        int keys = (int)min_int64(BSATTN_TILE_KEYS, count - begin);

        tile_append(walk, first + begin, keys);
        tile_mask(walk, keys, 1 - begin);
        tile_attend(walk);
    }
}

static void run_attend(walk_t *walk, bsattn_key_run_t run)
{
    int64_t row = (int64_t)run.slot * walk->block;
    int64_t end = min_int64(row + (int64_t)run.count * walk->block, walk->key_count);

    while (row < end) {
        int keys = (int)min_int64(BSATTN_TILE_KEYS - walk->tile.rows, end - row);
        int rest = keys % ROW_UNIT;

        if (keys > rest) {
            tile_append(walk, row, keys - rest);
            row += keys - rest;
        }
        if (walk->tile.rows == BSATTN_TILE_KEYS) {
            tile_flush(walk);
        } else if (rest > 0) {
            tile_flush(walk);
            tile_append(walk, row, rest);
            tile_mask(walk, rest, BSATTN_TILE_KEYS);
            tile_attend(walk);
            row += rest;
        }
    }
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

/* Byte offset of the first of an item's rows in q and o; the next row is Hq heads further on. */
static size_t rows_offset(const bsattn_attend_task_t *task)
{
    const bsattn_attend_params_t *params = task->params;
    int64_t token = task->batch * params->tokens + (int64_t)task->item->row * params->block;
    int64_t row = token * params->heads_q + task->head;

    return (size_t)row * (size_t)params->head_dim * bsattn_dtype_size(params->dtype);
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

static void queries_load(const bsattn_attend_task_t *task, const walk_t *walk, float *queries)
{
    const float factor = (float)(task->params->scale * 1.4426950408889634074);
    const vec4_t factors = {factor, factor, factor, factor};
    const char *q = (const char *)task->params->q + rows_offset(task);
    ptrdiff_t row_stride = (ptrdiff_t)task->params->heads_q * walk->head_dim;
    size_t row_bytes = (size_t)row_stride * bsattn_dtype_size(walk->dtype);

    for (int row = 0; row < walk->strip_count * walk->lanes; row += 4) {
        float *to = queries + (ptrdiff_t)(row / walk->lanes) * walk->lanes * walk->head_dim +
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

static void lse_store(const bsattn_attend_task_t *task, const walk_t *walk)
{
    const bsattn_attend_params_t *params = task->params;
    float *lse = params->lse + (task->batch * params->heads_q + task->head) * params->tokens +
                 (int64_t)task->item->row * params->block;

    for (int row = 0; row < walk->query_count; row++) {
        const float *max = walk->state +
                           (ptrdiff_t)(row / walk->lanes) * walk->lanes * (walk->head_dim + 2) +
                           (ptrdiff_t)walk->head_dim * walk->lanes + row % walk->lanes;
        float sum = max[walk->lanes];

        lse[row] = sum == 0.0f ? -INFINITY : *max * 0.693147181f + logf(sum);
    }
}

/* The empty state. The maximum is finite so that no difference of two maxima is NaN; scores that
 * are hidden are -inf. */
static void state_clear(walk_t *walk)
{
    for (int strip = 0; strip < walk->strip_count; strip++) {
        ptrdiff_t out_count = (ptrdiff_t)walk->head_dim * walk->lanes;
        float *out = walk->state + strip * (out_count + 2 * walk->lanes);

        memset(out, 0, (size_t)(out_count + 2 * walk->lanes) * sizeof(float));
        for (int lane = 0; lane < walk->lanes; lane++) {
            out[out_count + lane] = -FLT_MAX;
        }
    }
}

/* ----------------------------------------------------------------------------------------- item */

/* Where the item's state is kept: with the caller if another launch has touched or will touch its
 * rows. */
static float *state_place(const bsattn_attend_task_t *task, float *scratch)
{
    const bsattn_attend_params_t *params = task->params;
    int64_t block_count = (params->tokens + params->block - 1) / params->block;
    int64_t index = (task->batch * params->heads_q + task->head) * block_count + task->item->row;

    if (task->item->first && task->item->last) {
        return scratch;
    }
    return (float *)params->state + index * params->block * (params->head_dim + 2);
}

static void walk_init(walk_t *walk, const bsattn_attend_task_t *task, float *scratch)
{
    const bsattn_attend_params_t *params = task->params;
    int key_head = task->head / (params->heads_q / params->heads_kv);
    const bsattn_chunk_head_t *place = &params->heads[key_head];
    ptrdiff_t head_dim = params->head_dim;
    int64_t key_row = task->batch * params->tokens_kv + place->token_first;
    size_t offset = (size_t)(key_row * head_dim) * bsattn_dtype_size(params->dtype);
    int64_t query_first = (int64_t)task->item->row * params->block;
    float *queries = scratch;
    float *state = queries + head_dim * params->block;

    walk->head_dim = params->head_dim;
    walk->block = params->block;
    walk->dtype = params->dtype;
    walk->lanes = params->block < 2 * VEC_LANES ? VEC_LANES : 2 * VEC_LANES;
    walk->query_count = (int)min_int64(params->block, params->tokens - query_first);
    walk->strip_count = (walk->query_count + walk->lanes - 1) / walk->lanes;
    walk->key_count = place->token_count;
    walk->k = (const char *)params->k + offset;
    walk->v = (const char *)params->v + offset;
    walk->queries = queries;
    walk->state = state_place(task, state);
    walk->scores = state + (head_dim + 2) * params->block;
    walk->keys = walk->scores + BSATTN_TILE_KEYS * BSATTN_TILE_STRIP_MAX;
    walk->values = walk->keys + BSATTN_TILE_KEYS * head_dim;
    walk->lines = walk->values + BSATTN_TILE_KEYS * head_dim;
    walk->tile = (tile_t){0};
    queries_load(task, walk, queries);
}

static void item_attend(const bsattn_attend_task_t *task, void *scratch)
{
    const bsattn_work_item_t *item = task->item;
    walk_t walk;

    walk_init(&walk, task, scratch);
    if (item->first) {
        state_clear(&walk);
    }
    for (int run = 0; run < item->partial_count; run++) {
        partial_attend(&walk, task->runs[run].slot);
    }
    for (int run = item->partial_count; run < item->run_count; run++) {
        run_attend(&walk, task->runs[run]);
    }
    tile_flush(&walk);
    if (item->last) {
        results_store(task, &walk);
        if (task->params->lse != NULL) {
            lse_store(task, &walk);
        }
    }
}

static void exp2_array(const float *x, float *y, int64_t count)
{
    for (int64_t i = 0; i < count; i += VEC_LANES) {
        vec_store(y + i, vec_exp2(vec_load(x + i)));
    }
}

const bsattn_attend_variant_t TILE_VARIANT = {TILE_NAME, item_attend, exp2_array};
