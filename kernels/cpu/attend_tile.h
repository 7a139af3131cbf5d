/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file attend_tile.h
 * What all CPU kernels share: the walk through the lists, the softmax, the state. Included after
 * attend_vec.h and its two functions by what has the products, attend_float.h or attend_amx.c, with
 *
 *     element_t                        what queries, K and V are multiplied as
 *     float element_value(element_t)
 *     TILE_KEYS                        most keys that are scored before their values are added
 *     ROW_UNIT                         the rows of a tile are a multiple of it: 8 or 16
 *
 * and followed by the functions declared below.
 *
 * Vector lanes are queries. A query block is cut in strips of 1 or 2 vectors; scores, probabilities
 * and results of a strip are [row][lanes]. Both products are then C[m][lanes] += A[m, k] *
 * X[k][lanes], and the softmax needs no operation across lanes:
 *
 *     scores[key][lanes]  = K[key, d] * queries[d][lanes]
 *     out[d][lanes]      += V[key, d] * probabilities[key][lanes]
 *
 * The softmax counts in units of log2. The state of a strip, in scratch or between launches, is
 * out[D][lanes], max[lanes], sum[lanes].
 */
#include <float.h>
#include <math.h>

#include "kernels/cpu/attend_variants.h"
#include "kernels/cpu/convert.h"

/* The maximum may lag this far (in log2) behind the scores: it only has to keep 2^(score - max) in
 * range, and moving it costs a pass over the results. */
#define MAX_LAG 8.0f

enum { SEGMENT_COUNT_MAX = TILE_KEYS / ROW_UNIT };

/* Keys next to each other in memory, [rows, D] each. */
typedef struct segment {
    const element_t *k;
    const element_t *v;
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
    float scale;       /* of scores, to units of log2 */
    int lanes;         /* of a strip */
    int strip_count;   /* those with queries */
    int query_count;   /* of the item, at most block */
    int64_t key_count; /* rows of the key head */
    const char *k;     /* its first row */
    const char *v;
    element_t *queries; /* strips, each D * lanes */
    float *state;       /* strips [D + 2][lanes] */
    float *scores;      /* [TILE_KEYS][lanes] */
    float *keys;        /* [TILE_KEYS][D]: tiles that cannot be read in place */
    float *values;
    float *lines; /* [4][D]: rows on their way in or out */
    tile_t tile;
} walk_t;

/* Bring in the queries of an item; those that fill up the last strip must not be NaN. */
static void queries_load(const bsattn_attend_task_t *task, const walk_t *walk);

/* Append rows that follow each other in memory to the tile, and zeros up to a multiple of ROW_UNIT:
 * in place where they can be read there. */
static void tile_append(walk_t *walk, int64_t row, int keys);

/* Take every strip through the tile, and empty the tile. */
static void tile_attend(walk_t *walk);

/* Write the results of an item, divided by their sums. */
static void results_store(const bsattn_attend_task_t *task, const walk_t *walk);

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

/* Move the maximum of the lanes that lag too far behind, and rescale what was summed under the old
 * one. The other lanes keep theirs, so that no query's rounding depends on what another one sees. */
ALWAYS_INLINE void raise_max(float *state, const vec_t *tile_max, int head_dim, const int vecs)
{
    float *max = state + head_dim * vecs * VEC_LANES;
    float *sum = max + vecs * VEC_LANES;
    vec_t factor[2];

    for (int j = 0; j < vecs; j++) {
        vec_t old_max = vec_load(max + j * VEC_LANES);
        vec_int_t lags = (vec_int_t)(tile_max[j] > old_max + MAX_LAG);
        vec_t new_max = (vec_t)(((vec_int_t)tile_max[j] & lags) | ((vec_int_t)old_max & ~lags));

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

/* The scores are to be multiplied by scale, which is positive. */
ALWAYS_INLINE void scores_to_probabilities(float *scores, float scale, float *state, int key_count,
                                           int head_dim, const int vecs)
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
        tile_max[j] *= scale;
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
            vec_t probability = vec_exp2(vec_load(score) * scale - tile_max[j]);

            sums[j] += probability;
            vec_store(score, probability);
        }
    }
    for (int j = 0; j < vecs; j++) {
        vec_store(sum + j * VEC_LANES, sums[j]);
    }
}

/* ------------------------------------------------------------------------------ what is hidden */

static int all_finite(const element_t *values, ptrdiff_t count)
{
    const uint32_t exponent = 0x7f800000u;
    uint32_t found = 0;

    for (ptrdiff_t i = 0; i < count; i++) {
        found |= (bsattn_bits_of(element_value(values[i])) & exponent) == exponent;
    }
    return found == 0;
}

/* How many keys of a tile a strip sees; less than the tile's only of a diagonal, and then a
 * multiple of ROW_UNIT, as strips and tiles are. */
static int strip_key_count(const walk_t *walk, int strip)
{
    const tile_t *tile = &walk->tile;
    int seen = (strip + 1) * walk->lanes - 1 + tile->limit_shift;

    if (!tile->masked || seen > tile->rows) {
        return tile->rows;
    }
    return seen > 0 ? seen : 0;
}

/* Add V * probabilities but leave alone what a query does not see: 0 * V is not 0 if V is not
 * finite. Slow, and rare. */
static void out_tile_seen(float *out, const tile_t *tile, const float *probabilities,
                          int first_query, int key_count, int head_dim, int lanes)
{
    int keys = key_count < tile->keys ? key_count : tile->keys;

    for (int key = 0; key < keys; key++) {
        const element_t *v = tile->segments[0].v + (ptrdiff_t)key * head_dim;

        for (int d = 0; d < head_dim; d++) {
            float value = element_value(v[d]);

            for (int lane = first_seen_by(tile, key, first_query); lane < lanes; lane++) {
                out[d * lanes + lane] += value * probabilities[key * lanes + lane];
            }
        }
    }
}

/* ---------------------------------------------------------------------------------------- lists */

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

    for (int begin = 0; begin < count; begin += TILE_KEYS) {
        int keys = (int)min_int64(TILE_KEYS, count - begin);

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
        int keys = (int)min_int64(TILE_KEYS - walk->tile.rows, end - row);
        int rest = keys % ROW_UNIT;

        if (keys > rest) {
            tile_append(walk, row, keys - rest);
            row += keys - rest;
        }
        if (walk->tile.rows == TILE_KEYS) {
            tile_flush(walk);
        } else if (rest > 0) {
            tile_flush(walk);
            tile_append(walk, row, rest);
            tile_mask(walk, rest, TILE_KEYS);
            tile_attend(walk);
            row += rest;
        }
    }
}

/* Byte offset of the first of an item's rows in q and o; the next row is Hq heads further on. */
static size_t rows_offset(const bsattn_attend_task_t *task)
{
    const bsattn_attend_params_t *params = task->params;
    int64_t token = task->batch * params->tokens + (int64_t)task->item->row * params->block;
    int64_t row = token * params->heads_q + task->head;

    return (size_t)row * (size_t)params->head_dim * bsattn_dtype_size(params->dtype);
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
    int64_t stream = task->batch * params->heads_q + task->head;
    int64_t index = stream * params->state_blocks + task->item->state_block;

    if (task->item->first && task->item->last) {
        return scratch;
    }
    return params->state + index * params->block * (params->head_dim + 2);
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
    float *state = scratch + head_dim * params->block;

    walk->head_dim = params->head_dim;
    walk->block = params->block;
    walk->dtype = params->dtype;
    walk->scale = (float)(params->scale * 1.4426950408889634074);
    walk->lanes = params->block < 2 * VEC_LANES ? VEC_LANES : 2 * VEC_LANES;
    walk->query_count = (int)min_int64(params->block, params->tokens - query_first);
    walk->strip_count = (walk->query_count + walk->lanes - 1) / walk->lanes;
    walk->key_count = place->token_count;
    walk->k = (const char *)params->k + offset;
    walk->v = (const char *)params->v + offset;
    walk->queries = (void *)scratch;
    walk->state = state_place(task, state);
    walk->scores = state + (head_dim + 2) * params->block;
    walk->keys = walk->scores + TILE_KEYS * BSATTN_TILE_STRIP_MAX;
    walk->values = walk->keys + TILE_KEYS * head_dim;
    walk->lines = walk->values + TILE_KEYS * head_dim;
    walk->tile = (tile_t){0};
    queries_load(task, walk);
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
