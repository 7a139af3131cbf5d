/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file attend_amx.c
 * The kernel whose products are those of the AMX unit: bf16 in, fp32 out, head_dim a multiple of
 * 32. Anything else goes to the AVX-512 kernel.
 *
 * A product of tiles is C[16][16] += A[16][32] * B[32][16], where B is 16 rows of 16 pairs: row r
 * holds rows 2r and 2r + 1 of the matrix side by side. Of
 *
 *     scores[key][lanes]  = K[key, d] * queries[d][lanes]
 *     out[d][lanes]      += V^T[d, key] * probabilities[key][lanes]
 *
 * K is read in place; queries are put in pairs once per item, V is transposed once per tile, and
 * probabilities, summed in fp32, become pairs of bf16 once per strip and tile. The scores are
 * scaled in fp32.
 *
 * The unit takes subnormal numbers for 0.
 */
#if defined(__x86_64__)

/* Compilers differ in their macros for AMX. */
#if !defined(__AVX512BF16__)
#error "compile this file with -mamx-tile -mamx-bf16 -mavx512bf16 and what attend_avx512.c needs"
#endif

#include "kernels/cpu/attend_vec512.h"

#define TILE_KEYS 128 /* half the passes over the results of 64 */
#define ROW_UNIT 16   /* the rows of A */

typedef uint16_t element_t;

static inline float element_value(element_t element)
{
    uint32_t bits = (uint32_t)element << 16;
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

#include "kernels/cpu/attend_tile.h"

enum {
    DEPTH = 32, /* of one product of tiles */
    OPERAND = ROW_UNIT * DEPTH,
    HEAD_DIM_MAX = 256,
    GROUP_MAX = TILE_KEYS / ROW_UNIT,
    CHUNK_MAX = TILE_KEYS / DEPTH,
};

/* LDTILECFG's operand: every tile is 16 rows of 64 bytes. */
typedef struct tile_config {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config_t;

static const tile_config_t tile_config = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

static const element_t zero_rows[ROW_UNIT * HEAD_DIM_MAX];

/* gcc does not know that loading a tile reads memory. */
#define STORES_FIRST() __asm__ volatile("" ::: "memory")

/* ------------------------------------------------------------------------------- pairs, transposes
 */

/* Pairs of bf16, a[i] first. */
ALWAYS_INLINE __m512i pairs_from(vec_t a, vec_t b)
{
    const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);

    return _mm512_permutexvar_epi16(zip, (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a));
}

/* The same for numbers that are not negative, ties away from 0, in fewer instructions. A NaN stays
 * one: its bits come from bf16 and leave room for the carry. */
ALWAYS_INLINE __m512i pairs_from_probabilities(vec_t a, vec_t b)
{
    const __m512i half = _mm512_set1_epi32(0x8000);
    __m512i first = _mm512_srli_epi32(_mm512_add_epi32((__m512i)a, half), 16);
    __m512i second = _mm512_add_epi32((__m512i)b, half);

    return _mm512_mask_blend_epi16(0xaaaaaaaau, first, second);
}

/* 16 bytes from each of 4 places. */
ALWAYS_INLINE __m512i quarters_load(const element_t *a, const element_t *b, const element_t *c,
                                    const element_t *d)
{
    __m512i all = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)a));

    all = _mm512_inserti32x4(all, _mm_loadu_si128((const __m128i *)b), 1);
    all = _mm512_inserti32x4(all, _mm_loadu_si128((const __m128i *)c), 2);
    return _mm512_inserti32x4(all, _mm_loadu_si128((const __m128i *)d), 3);
}

/* Transpose 4 x 4 pairs in each quarter. */
ALWAYS_INLINE void pairs_transpose(__m512i rows[4])
{
    __m512i low_01 = _mm512_unpacklo_epi32(rows[0], rows[1]);
    __m512i high_01 = _mm512_unpackhi_epi32(rows[0], rows[1]);
    __m512i low_23 = _mm512_unpacklo_epi32(rows[2], rows[3]);
    __m512i high_23 = _mm512_unpackhi_epi32(rows[2], rows[3]);

    rows[0] = _mm512_unpacklo_epi64(low_01, low_23);
    rows[1] = _mm512_unpackhi_epi64(low_01, low_23);
    rows[2] = _mm512_unpacklo_epi64(high_01, high_23);
    rows[3] = _mm512_unpackhi_epi64(high_01, high_23);
}

/* to[8 rows of DEPTH] = the transpose of 8 columns of DEPTH rows, the second half of them from
 * elsewhere */
ALWAYS_INLINE void columns_transpose(element_t *to, const element_t *from, const element_t *second,
                                     ptrdiff_t stride)
{
    __m512i low[4];
    __m512i high[4];

    UNROLL
    for (int i = 0; i < 4; i++) {
        const element_t *a = from + 2 * i * stride;
        const element_t *b = second + 2 * i * stride;
        __m512i even = quarters_load(a, a + 8 * stride, b, b + 8 * stride);
        __m512i odd = quarters_load(a + stride, a + 9 * stride, b + stride, b + 9 * stride);

        low[i] = _mm512_unpacklo_epi16(even, odd);
        high[i] = _mm512_unpackhi_epi16(even, odd);
    }
    pairs_transpose(low);
    pairs_transpose(high);
    UNROLL
    for (int i = 0; i < 4; i++) {
        _mm512_storeu_si512(to + (ptrdiff_t)i * DEPTH, low[i]);
        _mm512_storeu_si512(to + (ptrdiff_t)(4 + i) * DEPTH, high[i]);
    }
}

/* ------------------------------------------------------------------------------------- products */

/* scores[groups * 16][vecs] = K * queries[D][vecs], K in groups of 16 rows */
ALWAYS_INLINE void score_groups(float *scores, const element_t *const *k, const element_t *queries,
                                int head_dim, const int groups, const int vecs)
{
    const ptrdiff_t k_stride = (ptrdiff_t)head_dim * (ptrdiff_t)sizeof(element_t);
    const ptrdiff_t stride = vecs * (ptrdiff_t)sizeof(vec_t);
    float *second = scores + ROW_UNIT * vecs * VEC_LANES;

    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int d = 0; d < head_dim; d += DEPTH, queries += vecs * OPERAND) {
        _tile_loadd(6, queries, 64);
        _tile_loadd(4, k[0] + d, k_stride);
        _tile_dpbf16ps(0, 4, 6);
        if (vecs == 2) {
            _tile_loadd(7, queries + OPERAND, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (groups == 2) {
            _tile_loadd(5, k[1] + d, k_stride);
            _tile_dpbf16ps(2, 5, 6);
            if (vecs == 2) {
                _tile_dpbf16ps(3, 5, 7);
            }
        }
    }
    _tile_stored(0, scores, stride);
    if (vecs == 2) {
        _tile_stored(1, scores + VEC_LANES, stride);
    }
    if (groups == 2) {
        _tile_stored(2, second, stride);
        if (vecs == 2) {
            _tile_stored(3, second + VEC_LANES, stride);
        }
    }
}

ALWAYS_INLINE void score_tile(float *scores, const element_t *const *k, const element_t *queries,
                              int key_count, int head_dim, const int vecs)
{
    int group = 0;

    STORES_FIRST();
    for (; (group + 2) * ROW_UNIT <= key_count; group += 2) {
        score_groups(scores + group * ROW_UNIT * vecs * VEC_LANES, k + group, queries, head_dim, 2,
                     vecs);
    }
    if (group * ROW_UNIT < key_count) {
        score_groups(scores + group * ROW_UNIT * vecs * VEC_LANES, k + group, queries, head_dim, 1,
                     vecs);
    }
}

/* out[32][vecs] += V^T[32, chunks * 32] * probabilities in pairs */
ALWAYS_INLINE void out_rows(float *out, const element_t *values, const float *pairs, int chunks,
                            const int vecs)
{
    const ptrdiff_t stride = vecs * (ptrdiff_t)sizeof(vec_t);
    float *second = out + ROW_UNIT * vecs * VEC_LANES;

    _tile_loadd(0, out, stride);
    _tile_loadd(2, second, stride);
    if (vecs == 2) {
        _tile_loadd(1, out + VEC_LANES, stride);
        _tile_loadd(3, second + VEC_LANES, stride);
    }
    for (int chunk = 0; chunk < chunks; chunk++, pairs += DEPTH * vecs * VEC_LANES) {
        _tile_loadd(6, pairs, 2 * stride);
        _tile_loadd(4, values + (ptrdiff_t)chunk * OPERAND, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, values + (ptrdiff_t)(CHUNK_MAX + chunk) * OPERAND, 64);
        _tile_dpbf16ps(2, 5, 6);
        if (vecs == 2) {
            _tile_loadd(7, pairs + VEC_LANES, 2 * stride);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, out, stride);
    _tile_stored(2, second, stride);
    if (vecs == 2) {
        _tile_stored(1, out + VEC_LANES, stride);
        _tile_stored(3, second + VEC_LANES, stride);
    }
}

/* Probabilities of two keys become pairs where those of the first were; the rest of a chunk is 0.
 */
ALWAYS_INLINE void probabilities_pair(float *probabilities, int key_count, const int vecs)
{
    const int row = vecs * VEC_LANES;
    int key = 0;

    for (; key < key_count; key += 2) {
        for (int j = 0; j < vecs; j++) {
            float *pair = probabilities + key * row + j * VEC_LANES;

            _mm512_storeu_si512(pair,
                                pairs_from_probabilities(vec_load(pair), vec_load(pair + row)));
        }
    }
    for (; key % DEPTH != 0; key += 2) {
        memset(probabilities + key * row, 0, (size_t)row * sizeof(float));
    }
}

ALWAYS_INLINE void out_tile(float *out, const element_t *values, float *probabilities,
                            int key_count, int head_dim, const int vecs)
{
    int chunks = (key_count + DEPTH - 1) / DEPTH;

    probabilities_pair(probabilities, key_count, vecs);
    STORES_FIRST();
    for (int d = 0; d < head_dim; d += 2 * ROW_UNIT) {
        out_rows(out + d * vecs * VEC_LANES, values + (ptrdiff_t)d * TILE_KEYS, probabilities,
                 chunks, vecs);
    }
}

/* ---------------------------------------------------------------------------------- strip, tile */

ALWAYS_INLINE void strip_attend(const walk_t *walk, const element_t *const *k, int strip,
                                const int vecs)
{
    const tile_t *tile = &walk->tile;
    const int lanes = vecs * VEC_LANES;
    int head_dim = walk->head_dim;
    const element_t *queries = walk->queries + (ptrdiff_t)strip * lanes * head_dim;
    float *state = walk->state + (ptrdiff_t)strip * lanes * (head_dim + 2);
    int key_count = strip_key_count(walk, strip);

    if (key_count == 0) {
        return;
    }
    score_tile(walk->scores, k, queries, key_count, head_dim, vecs);
    if (tile->masked) {
        mask_scores(walk->scores, tile, strip * lanes, key_count, vecs);
    }
    scores_to_probabilities(walk->scores, fmaxf(fabsf(walk->scale), FLT_MIN), state, key_count,
                            head_dim, vecs);
    if (tile->masked && !tile->finite) {
        out_tile_seen(state, tile, walk->scores, strip * lanes, key_count, head_dim, lanes);
    } else {
        out_tile(state, (const void *)walk->values, walk->scores, key_count, head_dim, vecs);
    }
}

static __attribute__((noinline)) void strip_attend_1(const walk_t *walk, const element_t *const *k,
                                                     int strip)
{
    strip_attend(walk, k, strip, 1);
}

static __attribute__((noinline)) void strip_attend_2(const walk_t *walk, const element_t *const *k,
                                                     int strip)
{
    strip_attend(walk, k, strip, 2);
}

/* walk->values[D / 16][TILE_KEYS / DEPTH] tiles of V^T, zeros up to a multiple of DEPTH keys */
static void values_transpose(const walk_t *walk, const element_t *const *v, int group_count)
{
    for (int group = 0; group < group_count; group += 2) {
        const element_t *second = group + 1 < group_count ? v[group + 1] : zero_rows;
        element_t *to = (element_t *)(void *)walk->values + (ptrdiff_t)group / 2 * OPERAND;

        for (int d = 0; d < walk->head_dim; d += ROW_UNIT, to += CHUNK_MAX * OPERAND) {
            columns_transpose(to, v[group] + d, second + d, walk->head_dim);
            columns_transpose(to + OPERAND / 2, v[group] + d + 8, second + d + 8, walk->head_dim);
        }
    }
}

static void tile_attend(walk_t *walk)
{
    const tile_t *tile = &walk->tile;
    const element_t *k[GROUP_MAX];
    const element_t *v[GROUP_MAX];
    int count = 0;

    for (int s = 0; s < tile->segment_count; s++) {
        for (int row = 0; row < tile->segments[s].rows; row += ROW_UNIT, count++) {
            k[count] = tile->segments[s].k + (ptrdiff_t)row * walk->head_dim;
            v[count] = tile->segments[s].v + (ptrdiff_t)row * walk->head_dim;
        }
    }
    values_transpose(walk, v, count);
    for (int strip = 0; strip < walk->strip_count; strip++) {
        if (walk->lanes == VEC_LANES) {
            strip_attend_1(walk, k, strip);
        } else {
            strip_attend_2(walk, k, strip);
        }
    }
    walk->tile = (tile_t){0};
}

static const element_t *rows_padded(element_t *to, const element_t *from, int keys, int rows,
                                    int head_dim)
{
    ptrdiff_t count = (ptrdiff_t)keys * head_dim;

    memcpy(to, from, (size_t)count * sizeof(element_t));
    memset(to + count, 0, (size_t)(rows - keys) * (size_t)head_dim * sizeof(element_t));
    return to;
}

static void tile_append(walk_t *walk, int64_t row, int keys)
{
    tile_t *tile = &walk->tile;
    ptrdiff_t offset = row * walk->head_dim;
    int rows = (keys + ROW_UNIT - 1) / ROW_UNIT * ROW_UNIT;
    segment_t segment = {(const element_t *)(const void *)walk->k + offset,
                         (const element_t *)(const void *)walk->v + offset, rows};

    if (rows != keys) {
        element_t *to = (element_t *)(void *)walk->keys + (ptrdiff_t)tile->rows * walk->head_dim;
        ptrdiff_t to_values = (ptrdiff_t)TILE_KEYS * walk->head_dim;

        segment.k = rows_padded(to, segment.k, keys, rows, walk->head_dim);
        segment.v = rows_padded(to + to_values, segment.v, keys, rows, walk->head_dim);
    }
    tile->segments[tile->segment_count++] = segment;
    tile->rows += rows;
}

/* ---------------------------------------------------------------------- queries in, results out */

/* 8 columns of 16 queries, as 4 rows of pairs. Those after the last are like it. */
ALWAYS_INLINE void query_pairs_load(element_t *to, const walk_t *walk, const element_t *q,
                                    ptrdiff_t row_stride, int first, __m512i sign)
{
    __m512i rows[4];

    UNROLL
    for (int i = 0; i < 4; i++) {
        const element_t *quarters[4];

        UNROLL
        for (int quarter = 0; quarter < 4; quarter++) {
            int64_t row = min_int64(first + 4 * quarter + i, walk->query_count - 1);

            quarters[quarter] = q + row * row_stride;
        }
        rows[i] = quarters_load(quarters[0], quarters[1], quarters[2], quarters[3]);
    }
    pairs_transpose(rows);
    UNROLL
    for (int i = 0; i < 4; i++) {
        _mm512_storeu_si512(to + (ptrdiff_t)i * DEPTH, _mm512_xor_si512(rows[i], sign));
    }
}

/* Unscaled, but for the sign. */
static void queries_load(const bsattn_attend_task_t *task, const walk_t *walk)
{
    const __m512i sign = _mm512_set1_epi32(walk->scale < 0.0f ? (int)0x80008000u : 0);
    const element_t *q = (const void *)((const char *)task->params->q + rows_offset(task));
    ptrdiff_t row_stride = (ptrdiff_t)task->params->heads_q * walk->head_dim;
    int vecs = walk->lanes / VEC_LANES;

    for (int row = 0; row < walk->strip_count * walk->lanes; row += VEC_LANES) {
        element_t *to = walk->queries +
                        (ptrdiff_t)(row / walk->lanes) * walk->lanes * walk->head_dim +
                        (ptrdiff_t)(row % walk->lanes) / VEC_LANES * OPERAND;

        for (int d = 0; d < walk->head_dim; d += 8) {
            query_pairs_load(to + (ptrdiff_t)(d / DEPTH * vecs) * OPERAND + d % DEPTH / 2 * DEPTH,
                             walk, q + d, row_stride, row, sign);
        }
    }
}

/* 8 columns of the 16 results from first on, those that exist. */
ALWAYS_INLINE void results_store_8(char *o, size_t row_bytes, const walk_t *walk, int first,
                                   const float *out, vec_t factors)
{
    __m512i rows[4];
    __m128i quarters[4][4];

    UNROLL
    for (int i = 0; i < 4; i++) {
        const float *pair = out + 2 * i * walk->lanes;

        rows[i] = pairs_from(vec_load(pair) * factors, vec_load(pair + walk->lanes) * factors);
    }
    pairs_transpose(rows);
    UNROLL
    for (int i = 0; i < 4; i++) {
        _mm512_storeu_si512(quarters[i], rows[i]);
    }
    for (int i = 0; i < VEC_LANES && first + i < walk->query_count; i++) {
        _mm_storeu_si128((__m128i *)(void *)(o + (size_t)(first + i) * row_bytes),
                         quarters[i % 4][i / 4]);
    }
}

static void results_store(const bsattn_attend_task_t *task, const walk_t *walk)
{
    char *o = (char *)task->params->o + rows_offset(task);
    size_t row_bytes = (size_t)task->params->heads_q * (size_t)walk->head_dim * sizeof(element_t);

    for (int row = 0; row < walk->query_count; row += VEC_LANES) {
        const float *out = walk->state +
                           (ptrdiff_t)(row / walk->lanes) * walk->lanes * (walk->head_dim + 2) +
                           row % walk->lanes;
        vec_t sums = vec_load(out + (ptrdiff_t)(walk->head_dim + 1) * walk->lanes);
        /* Rows that saw no key have a sum of 0 and results of 0. */
        vec_t factors = (vec_t)((vec_int_t)(1.0f / sums) & (vec_int_t)(sums != 0.0f));

        for (int d = 0; d < walk->head_dim; d += 8) {
            results_store_8(o + (size_t)d * sizeof(element_t), row_bytes, walk, row,
                            out + (ptrdiff_t)d * walk->lanes, factors);
        }
    }
}

static void amx_attend(const bsattn_attend_task_t *task, void *scratch)
{
    const bsattn_attend_params_t *params = task->params;

    if (params->dtype != BSATTN_BF16 || params->head_dim % DEPTH != 0) {
        bsattn_attend_avx512.attend(task, scratch);
        return;
    }
    _tile_loadconfig(&tile_config);
    item_attend(task, scratch);
    _tile_release();
}

const bsattn_attend_variant_t bsattn_attend_amx = {"amx", amx_attend, exp2_array};

#endif
