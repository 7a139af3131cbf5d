/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU attention kernel, every instruction set this machine has, against the fp64 reference. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/attend.h"
#include "kernels/cpu/attend_variants.h"
#include "kernels/reference.h"

enum { LAUNCH_MAX = 4, RUN_MAX = 6, THREADS = 2 };

/* ---------------------------------------------------------------------------- numbers and types */

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static int random_below(int bound)
{
    return (int)((random_bits() >> 33) % (uint64_t)bound);
}

/* The sum of four uniforms, scaled to variance 1, is normal enough. */
static float random_normal(void)
{
    double sum = 0.0;

    for (int i = 0; i < 4; i++) {
        sum += (double)(random_bits() >> 40) * 0x1p-24 - 0.5;
    }
    return (float)(sum * 1.7320508);
}

static float f16_decode(uint16_t half)
{
    int exponent = half >> 10 & 31;
    int fraction = half & 1023;
    double value = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);

    if (exponent == 31) {
        value = fraction != 0 ? NAN : INFINITY;
    }
    return (float)(half >> 15 ? -value : value);
}

static float decode(const void *array, int64_t index, bsattn_dtype_t dtype)
{
    if (dtype == BSATTN_F32) {
        return ((const float *)array)[index];
    }
    uint16_t bits = ((const uint16_t *)array)[index];
    if (dtype == BSATTN_F16) {
        return f16_decode(bits);
    }
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof(value));
    return value;
}

/* Truncates: the tests only need values of the type. */
static void encode(void *array, int64_t index, bsattn_dtype_t dtype, float value)
{
    uint32_t bits;
    uint16_t *to = (uint16_t *)array + index;

    memcpy(&bits, &value, sizeof(bits));
    if (dtype == BSATTN_F32) {
        memcpy((float *)array + index, &value, sizeof(value));
    } else if (dtype == BSATTN_BF16) {
        *to = (uint16_t)(bits >> 16);
    } else if (isnan(value)) {
        *to = 0x7e00;
    } else if (fabsf(value) < 0x1p-14f) {
        *to = (uint16_t)((bits >> 16 & 0x8000u) | (uint32_t)(fabsf(value) * 0x1p24f));
    } else {
        *to = (uint16_t)((bits >> 16 & 0x8000u) | (((bits & 0x7fffffffu) - (112u << 23)) >> 13));
    }
}

static size_t element_size(bsattn_dtype_t dtype)
{
    return dtype == BSATTN_F32 ? 4 : 2;
}

/* -------------------------------------------------------------------------------------- fixture */

/* One problem: every query block has a list of runs, dealt to launches. Keys of a head are followed
 * by rows of NaN. */
typedef struct fixture {
    bsattn_attend_params_t params;
    int64_t key_rows; /* of each head, without the NaN rows */
    int64_t row_count;
    int launch_count;
    /* [launch][class of heads][query block] */
    bsattn_work_item_t *items;
    bsattn_key_run_t *runs;
    bsattn_work_list_t *lists;
    int class_count;
    bsattn_chunk_head_t *heads;
    int *list_of_head;
    void *q, *k, *v;
} fixture_t;

static void *array_new(int64_t count, bsattn_dtype_t dtype, float value)
{
    void *array = malloc((size_t)count * element_size(dtype));

    assert_non_null(array);
    for (int64_t i = 0; i < count; i++) {
        encode(array, i, dtype, isnan(value) ? NAN : value * random_normal());
    }
    return array;
}

static void poison_after_keys(fixture_t *f, void *array)
{
    bsattn_attend_params_t *p = &f->params;

    for (int64_t row = 0; row < p->batch * p->tokens_kv; row++) {
        int64_t in_head = row % p->tokens_kv % (p->tokens_kv / p->heads_kv);

        for (int d = 0; in_head >= f->key_rows && d < p->head_dim; d++) {
            encode(array, row * p->head_dim + d, p->dtype, NAN);
        }
    }
}

static int64_t state_count(const bsattn_attend_params_t *p)
{
    return p->batch * p->heads_q * p->state_blocks * p->block * (p->head_dim + 2);
}

/** Allocate tensors. The shape is in params; magnitude scales q. */
static void fixture_tensors(fixture_t *f, float magnitude)
{
    bsattn_attend_params_t *p = &f->params;
    int64_t pad = 5;

    p->tokens_kv = p->heads_kv * (f->key_rows + pad);
    f->row_count = (p->tokens + p->block - 1) / p->block;
    f->heads = calloc((size_t)p->heads_kv, sizeof(*f->heads));
    f->list_of_head = calloc((size_t)p->heads_q, sizeof(int));
    assert_true(f->heads != NULL && f->list_of_head != NULL);
    for (int h = 0; h < p->heads_kv; h++) {
        f->heads[h] = (bsattn_chunk_head_t){h * (f->key_rows + pad), f->key_rows};
    }
    f->q = array_new(p->batch * p->tokens * p->heads_q * p->head_dim, p->dtype, magnitude);
    f->k = array_new(p->batch * p->tokens_kv * p->head_dim, p->dtype, 1.0f);
    f->v = array_new(p->batch * p->tokens_kv * p->head_dim, p->dtype, 1.0f);
    poison_after_keys(f, f->k);
    poison_after_keys(f, f->v);
    p->scale = 1.0f / sqrtf((float)p->head_dim);
    p->q = f->q;
    p->k = f->k;
    p->v = f->v;
    p->o = array_new(p->batch * p->tokens * p->heads_q * p->head_dim, p->dtype, NAN);
    p->lse = array_new(p->batch * p->heads_q * p->tokens, BSATTN_F32, NAN);
    p->state_blocks = 2 * f->row_count;
    p->state = array_new(state_count(p), BSATTN_F32, NAN);
    p->threads = THREADS;
    size_t scratch_bytes = THREADS * bsattn_attend_cpu_scratch_bytes(p->head_dim, p->block);
    p->scratch = aligned_alloc(64, scratch_bytes);
    assert_non_null(p->scratch);
    memset(p->scratch, 0xff, scratch_bytes);
    p->heads = f->heads;
    p->list_of_head = f->list_of_head;
}

static bsattn_work_item_t *item_at(const fixture_t *f, int launch, int class_index, int64_t row)
{
    return &f->items[(launch * f->class_count + class_index) * f->row_count + row];
}

/** Allocate empty lists for a number of launches. */
static void fixture_lists(fixture_t *f, int launch_count, int class_count)
{
    size_t item_count = (size_t)launch_count * (size_t)class_count * (size_t)f->row_count;

    f->launch_count = launch_count;
    f->class_count = class_count;
    f->items = calloc(item_count, sizeof(*f->items));
    f->runs = calloc(item_count * RUN_MAX, sizeof(*f->runs));
    f->lists = calloc((size_t)launch_count * (size_t)class_count, sizeof(*f->lists));
    assert_true(f->items != NULL && f->runs != NULL && f->lists != NULL);
    for (int h = 0; h < f->params.heads_q; h++) {
        f->list_of_head[h] = h % class_count;
    }
    for (size_t i = 0; i < item_count; i++) {
        f->items[i].run_first = (int64_t)i * RUN_MAX;
        f->items[i].row = (int32_t)((int64_t)i % f->row_count);
        f->items[i].state_block = 2 * ((int32_t)f->row_count - 1 - f->items[i].row);
    }
}

static void run_add(fixture_t *f, bsattn_work_item_t *item, int slot, int count, int partial)
{
    f->runs[item->run_first + item->run_count++] = (bsattn_key_run_t){slot, count};
    item->partial_count = (uint16_t)(item->partial_count + partial);
    item->block_count += count;
}

/** Deal random runs, partial ones before full ones, to the launches of every item. */
static void fixture_random_runs(fixture_t *f)
{
    int slots = (int)((f->key_rows + f->params.block - 1) / f->params.block);

    for (int64_t i = 0; i < f->class_count * f->row_count; i++) {
        int class_index = (int)(i / f->row_count);
        int partials = random_below(3);
        int fulls = random_below(3) + (partials == 0);

        for (int r = 0; r < partials + fulls; r++) {
            int slot = random_below(slots);
            int count = r < partials ? 1 : 1 + random_below(slots - slot);

            run_add(f, item_at(f, random_below(f->launch_count), class_index, i % f->row_count),
                    slot, count, r < partials);
        }
    }
}

/* Runs are added to an item in order of r, so partial ones stand first in each launch too. Items
 * without runs drop out. */
static void fixture_close(fixture_t *f)
{
    for (int64_t i = 0; i < f->class_count * f->row_count; i++) {
        int first = -1;
        int last = -1;

        for (int launch = 0; launch < f->launch_count; launch++) {
            if (item_at(f, launch, 0, i)->run_count > 0) {
                first = first < 0 ? launch : first;
                last = launch;
            }
        }
        item_at(f, first, 0, i)->first = 1;
        item_at(f, last, 0, i)->last = 1;
    }
}

static void fixture_run(fixture_t *f, const bsattn_attend_variant_t *variant)
{
    bsattn_attend_params_t *p = &f->params;
    bsattn_work_item_t *live = calloc((size_t)(f->class_count * f->row_count), sizeof(*live));

    assert_non_null(live);
    for (int launch = 0; launch < f->launch_count; launch++) {
        bsattn_work_list_t *lists = f->lists + launch * f->class_count;

        for (int c = 0; c < f->class_count; c++) {
            lists[c] = (bsattn_work_list_t){live + c * f->row_count, 0, f->runs};
            for (int64_t row = 0; row < f->row_count; row++) {
                if (item_at(f, launch, c, row)->run_count > 0) {
                    live[c * f->row_count + lists[c].item_count++] = *item_at(f, launch, c, row);
                }
            }
        }
        p->lists = lists;
        p->list_count = f->class_count;
        bsattn_attend_variant_run(variant, p, 0, 1);
        bsattn_attend_variant_run(variant, p, 1, INT64_MAX);
    }
    free(live);
}

static void fixture_free(fixture_t *f)
{
    free(f->items);
    free(f->runs);
    free(f->lists);
    free(f->heads);
    free(f->list_of_head);
    free(f->q);
    free(f->k);
    free(f->v);
    free(f->params.o);
    free(f->params.lse);
    free(f->params.state);
    free(f->params.scratch);
}

/* ------------------------------------------------------------------------------------ reference */

static void row_decode(const void *array, int64_t row, const bsattn_attend_params_t *p, float *out)
{
    for (int d = 0; d < p->head_dim; d++) {
        out[d] = decode(array, row * p->head_dim + d, p->dtype);
    }
}

static void reference_add_run(const fixture_t *f, bsattn_reference_t *reference, int64_t first_row,
                              int64_t first, int64_t end)
{
    float k[BSATTN_REFERENCE_HEAD_DIM_MAX];
    float v[BSATTN_REFERENCE_HEAD_DIM_MAX];

    for (int64_t key = first; key < end && key < f->key_rows; key++) {
        row_decode(f->k, first_row + key, &f->params, k);
        row_decode(f->v, first_row + key, &f->params, v);
        bsattn_reference_add(reference, k, v, 1);
    }
}

static double reference_row(const fixture_t *f, int64_t batch, int64_t token, int head,
                            bsattn_reference_t *reference)
{
    const bsattn_attend_params_t *p = &f->params;
    const bsattn_chunk_head_t *place = &f->heads[head / (p->heads_q / p->heads_kv)];
    int64_t first_row = batch * p->tokens_kv + place->token_first;
    int64_t in_block = token % p->block;
    float q[BSATTN_REFERENCE_HEAD_DIM_MAX];

    row_decode(f->q, (batch * p->tokens + token) * p->heads_q + head, p, q);
    bsattn_reference_begin(reference, p->head_dim, p->scale, q);
    for (int launch = 0; launch < f->launch_count; launch++) {
        const bsattn_work_item_t *item =
            item_at(f, launch, f->list_of_head[head], token / p->block);

        for (int r = 0; r < item->run_count; r++) {
            bsattn_key_run_t run = f->runs[item->run_first + r];
            int64_t first = (int64_t)run.slot * p->block;
            int64_t count = r < item->partial_count ? in_block + 1 : (int64_t)run.count * p->block;

            reference_add_run(f, reference, first_row, first, first + count);
        }
    }
    return bsattn_reference_end(reference);
}

/** Compare sampled rows, the first and last of every block among them. */
static void fixture_check(const fixture_t *f, int sample_step, double out_bound, double lse_bound)
{
    const bsattn_attend_params_t *p = &f->params;
    double error = 0.0;
    double norm = 0.0;

    for (int64_t i = 0; i < p->batch * p->heads_q * p->tokens; i++) {
        int64_t token = i % p->tokens;
        int head = (int)(i / p->tokens % p->heads_q);
        int64_t batch = i / p->tokens / p->heads_q;
        int64_t in_block = token % p->block;
        bsattn_reference_t reference;

        if (in_block != 0 && in_block != p->block - 1 && token != p->tokens - 1 &&
            random_below(sample_step) != 0) {
            assert_false(isnan(p->lse[i]));
            continue;
        }
        double lse = reference_row(f, batch, token, head, &reference);
        assert_true(fabs(p->lse[i] - lse) <= lse_bound * fmax(1.0, fabs(lse)));
        for (int d = 0; d < p->head_dim; d++) {
            int64_t row = (batch * p->tokens + token) * p->heads_q + head;
            double out = decode(p->o, row * p->head_dim + d, p->dtype);

            error += (out - reference.out[d]) * (out - reference.out[d]);
            norm += reference.out[d] * reference.out[d];
        }
    }
    assert_true(sqrt(error / norm) <= out_bound);
    /* Every second place for a state is nobody's. */
    for (int64_t i = 0; i < state_count(p); i++) {
        int used = i / (p->block * (p->head_dim + 2)) % 2 == 0;
        assert_true(used || isnan(p->state[i]));
    }
}

static double out_bound(bsattn_dtype_t dtype)
{
    return dtype == BSATTN_F32 ? 2e-6 : dtype == BSATTN_F16 ? 5e-4 : 4e-3;
}

/* ---------------------------------------------------------------------------------------- tests */

/** A random case of one type, head dimension and block size, on one variant. */
static void random_case(const bsattn_attend_variant_t *variant, bsattn_dtype_t dtype, int head_dim,
                        int block)
{
    fixture_t f = {0};
    int group = 1 + random_below(3);
    int heads_kv = 1 + random_below(2);

    f.params.batch = 1 + random_below(2);
    f.params.heads_q = group * heads_kv;
    f.params.heads_kv = heads_kv;
    f.params.head_dim = head_dim;
    f.params.block = block;
    f.params.dtype = dtype;
    f.params.tokens = block + 1 + random_below(2 * block);
    f.key_rows = random_below(3) == 0 ? 4 * block : 2 * block + 1 + random_below(2 * block);
    fixture_tensors(&f, 1.0f);
    fixture_lists(&f, 1 + random_below(LAUNCH_MAX), 1 + random_below(2));
    fixture_random_runs(&f);
    fixture_close(&f);
    fixture_run(&f, variant);
    fixture_check(&f, 1 + block * head_dim / 256, out_bound(dtype), 1e-5);
    fixture_free(&f);
}

static void test_random_cases(void **state)
{
    static const int head_dims[] = {16, 24, 64, 80, 96, 128, 256};
    const bsattn_attend_variant_t *variant = bsattn_attend_variant_find(*state);

    if (variant == NULL) {
        print_message("this processor has no %s\n", (const char *)*state);
        skip();
        return;
    }
    for (int dtype = BSATTN_F32; dtype <= BSATTN_BF16; dtype++) {
        for (size_t d = 0; d < sizeof(head_dims) / sizeof(head_dims[0]); d++) {
            for (int block = 16; block <= 256; block *= 2) {
                random_case(variant, (bsattn_dtype_t)dtype, head_dims[d], block);
            }
        }
    }
}

/** A single item of one head over one block of keys, all seen. */
static void fixture_single(fixture_t *f, bsattn_dtype_t dtype, int head_dim, int block,
                           int64_t key_rows, float magnitude)
{
    *f = (fixture_t){0};
    f->params.batch = 1;
    f->params.heads_q = 1;
    f->params.heads_kv = 1;
    f->params.head_dim = head_dim;
    f->params.block = block;
    f->params.dtype = dtype;
    f->params.tokens = block;
    f->key_rows = key_rows;
    fixture_tensors(f, magnitude);
    f->params.threads = 1;
    fixture_lists(f, 1, 1);
    run_add(f, item_at(f, 0, 0, 0), 0, (int)((key_rows + block - 1) / block), 0);
    fixture_close(f);
}

static void test_values_of_one(void **state)
{
    const bsattn_attend_variant_t *variant = bsattn_attend_variant_find(*state);
    fixture_t f;

    if (variant == NULL) {
        skip();
        return;
    }
    fixture_single(&f, BSATTN_F32, 64, 32, 301, 1.0f);
    for (int64_t i = 0; i < f.key_rows * 64; i++) {
        encode(f.v, i, BSATTN_F32, 1.0f);
    }
    fixture_run(&f, variant);
    for (int64_t i = 0; i < f.params.tokens * 64; i++) {
        assert_true(fabsf(((float *)f.params.o)[i] - 1.0f) <= 2e-6f);
    }
    fixture_free(&f);
}

static void test_large_scores(void **state)
{
    const bsattn_attend_variant_t *variant = bsattn_attend_variant_find(*state);
    fixture_t f;

    if (variant == NULL) {
        skip();
        return;
    }
    fixture_single(&f, BSATTN_F32, 64, 64, 700, 300.0f);
    f.params.lse[0] = NAN;
    fixture_run(&f, variant);
    /* Scores of some hundreds are known to about 1e-4 in fp32. */
    fixture_check(&f, 1, 1e-3, 2e-6);
    fixture_free(&f);
}

/* Scores so far apart that every probability but one vanishes, rising from tile to tile. */
static void test_rising_scores(void **state)
{
    const bsattn_attend_variant_t *variant = bsattn_attend_variant_find(*state);
    fixture_t f;

    if (variant == NULL) {
        skip();
        return;
    }
    fixture_single(&f, BSATTN_F32, 16, 16, 333, 1.0f);
    for (int64_t i = 0; i < f.params.tokens * 16; i++) {
        ((float *)f.q)[i] = i % 16 == 0 ? 4.0f : 0.0f;
    }
    for (int64_t key = 0; key < f.key_rows; key++) {
        ((float *)f.k)[key * 16] = (float)key * 512.0f;
    }
    fixture_run(&f, variant);
    fixture_check(&f, 1, 2e-6, 1e-6);
    fixture_free(&f);
}

static float flushed(float value)
{
    return fabsf(value) < 0x1p-126f ? 0.0f : value;
}

/* With a single key the result is its value: every bit pattern goes in and comes out, but that AMX takes subnormal numbers
 * for 0. */
static void test_conversion_identity(void **state)
{
    const bsattn_attend_variant_t *variant = bsattn_attend_variant_find(*state);
    fixture_t f;

    if (variant == NULL) {
        skip();
        return;
    }
    for (int dtype = BSATTN_F16; dtype <= BSATTN_BF16; dtype++) {
        fixture_single(&f, (bsattn_dtype_t)dtype, 256, 16, 1, 1.0f);
        for (int high = 0; high < 256; high++) {
            for (int low = 0; low < 256; low++) {
                ((uint16_t *)f.v)[low] = (uint16_t)(high << 8 | low);
            }
            fixture_run(&f, variant);
            for (int low = 0; low < 256; low++) {
                float value = decode(f.v, low, (bsattn_dtype_t)dtype);
                float expected = strcmp(variant->name, "amx") == 0 ? flushed(value) : value;
                float found = decode(f.params.o, 256 * 9 + low, (bsattn_dtype_t)dtype);

                assert_true(found == expected || (isnan(found) && isnan(expected)));
            }
        }
        fixture_free(&f);
    }
}

/* The mean of two neighbours is a tie: it must round to the even one. */
static void test_conversion_ties(void **state)
{
    const bsattn_attend_variant_t *variant = bsattn_attend_variant_find(*state);
    fixture_t f;

    if (variant == NULL) {
        skip();
        return;
    }
    for (int dtype = BSATTN_F16; dtype <= BSATTN_BF16; dtype++) {
        int finite = dtype == BSATTN_F16 ? 0x7bff : 0x7eff;

        fixture_single(&f, (bsattn_dtype_t)dtype, 256, 16, 2, 0.0f);
        for (int first = dtype == BSATTN_F16 ? 0 : 0x100; first + 256 <= finite; first += 256) {
            for (int i = 0; i < 256; i++) {
                ((uint16_t *)f.v)[i] = (uint16_t)(first + i);
                ((uint16_t *)f.v)[256 + i] = (uint16_t)(first + i + 1);
            }
            fixture_run(&f, variant);
            for (int i = 0; i < 256; i++) {
                assert_int_equal(((uint16_t *)f.params.o)[i], (first + i + 1) & ~1);
            }
        }
        fixture_free(&f);
    }
}

/* A NaN must reach the rows that see it and no others. */
static void test_nan_propagates(void **state)
{
    const bsattn_attend_variant_t *variant = bsattn_attend_variant_find(*state);
    fixture_t f;

    if (variant == NULL) {
        skip();
        return;
    }
    fixture_single(&f, BSATTN_F32, 64, 64, 256, 1.0f);
    ((float *)f.q)[5 * 64 + 3] = NAN;
    fixture_run(&f, variant);
    for (int64_t i = 0; i < 64 * 64; i++) {
        assert_int_equal(isnan(((float *)f.params.o)[i]) != 0, i / 64 == 5);
    }
    assert_true(isnan(f.params.lse[5]));
    fixture_free(&f);
}

/* On the diagonal the last query alone sees the last key: what is in it must not reach the others. */
static void test_nan_hidden(void **state)
{
    const bsattn_attend_variant_t *variant = bsattn_attend_variant_find(*state);

    if (variant == NULL) {
        skip();
        return;
    }
    for (int i = 0; i < 12; i++) {
        bsattn_dtype_t dtype = i % 2 == 0 ? BSATTN_F32 : BSATTN_BF16;
        int64_t rows = 64 - i / 2 % 2 * 9;
        fixture_t f;

        fixture_single(&f, dtype, 64, 64, rows, 1.0f);
        item_at(&f, 0, 0, 0)->partial_count = 1;
        for (int64_t d = 0; d < 64; d++) {
            encode(i < 8 ? f.k : f.v, (rows - 1) * 64 + d, dtype, i < 4 ? INFINITY : NAN);
        }
        fixture_run(&f, variant);
        for (int64_t at = 0; at < 64 * 64; at++) {
            assert_int_equal(isfinite(decode(f.params.o, at, dtype)) != 0, at / 64 < rows - 1);
        }
        fixture_free(&f);
    }
}

/* Any finite scale is allowed. */
static void test_scales(void **state)
{
    static const float scales[] = {-0.2f, 0.0f, 1.0f};
    const bsattn_attend_variant_t *variant = bsattn_attend_variant_find(*state);

    if (variant == NULL) {
        skip();
        return;
    }
    for (int i = 0; i < 6; i++) {
        bsattn_dtype_t dtype = i % 2 == 0 ? BSATTN_F32 : BSATTN_BF16;
        fixture_t f;

        fixture_single(&f, dtype, 32, 32, 77, 1.0f);
        f.params.scale = scales[i / 2];
        fixture_run(&f, variant);
        fixture_check(&f, 1, out_bound(dtype), 1e-5);
        fixture_free(&f);
    }
}

static void test_without_lse(void **state)
{
    const bsattn_attend_variant_t *variant = bsattn_attend_variant_find(*state);
    fixture_t f;
    float *lse;

    if (variant == NULL) {
        skip();
        return;
    }
    fixture_single(&f, BSATTN_F32, 24, 16, 20, 1.0f);
    lse = f.params.lse;
    f.params.lse = NULL;
    fixture_run(&f, variant);
    assert_true(isnan(lse[0]));
    f.params.lse = lse;
    fixture_run(&f, variant);
    fixture_check(&f, 1, 2e-6, 1e-5);
    fixture_free(&f);
}

static double ulps(float found, double exact)
{
    int exponent;

    (void)frexp(exact, &exponent);
    return fabs(found - exact) / ldexp(1.0, exponent - 24);
}

static void test_exp2(void **state)
{
    enum { BATCH = 4096, BATCHES = 600 };
    const bsattn_attend_variant_t *variant = bsattn_attend_variant_find(*state);
    static float x[BATCH];
    static float y[BATCH];
    double worst = 0.0;

    if (variant == NULL) {
        skip();
        return;
    }
    /* exp over [-87, 0] is exp2 over [-126, 0]; below, the result only has to be negligible. */
    for (int batch = 0; batch < BATCHES; batch++) {
        for (int i = 0; i < BATCH; i++) {
            x[i] = -126.0f * (float)((batch * BATCH + i) / (double)(BATCH * BATCHES - 1));
        }
        variant->exp2(x, y, BATCH);
        for (int i = 0; i < BATCH; i++) {
            worst = fmax(worst, ulps(y[i], exp2((double)x[i])));
        }
    }
    print_message("%s: exp2 within %.3f ulp\n", variant->name, worst);
    assert_true(worst <= 2.0);
    for (int i = 0; i < BATCH; i++) {
        x[i] = -126.0f - (float)i * 0.0078125f;
    }
    variant->exp2(x, y, BATCH);
    for (int i = 0; i < BATCH; i++) {
        assert_true(y[i] >= 0.0f && y[i] <= 0x1p-125f);
        assert_true(x[i] > -127.0f || y[i] == 0.0f);
    }
}

static void test_exp2_special(void **state)
{
    const bsattn_attend_variant_t *variant = bsattn_attend_variant_find(*state);
    float x[16] = {0.0f, -0.0f, -INFINITY, -1.0f, 8.0f, -3e38f, NAN, -126.0f, 64.0f, -1e-10f};
    float y[16];

    if (variant == NULL) {
        skip();
        return;
    }
    variant->exp2(x, y, 16);
    assert_true(y[0] == 1.0f && y[1] == 1.0f && y[2] == 0.0f && y[3] == 0.5f && y[4] == 256.0f);
    assert_true(y[5] == 0.0f && isnan(y[6]) && y[7] == 0x1p-126f && y[8] == 0x1p64f &&
                y[9] == 1.0f);
}

static void test_isa_name(void **state)
{
    (void)state;
    assert_non_null(bsattn_attend_variant_find(bsattn_attend_cpu_isa()));
    assert_null(bsattn_attend_variant_find("none such"));
}

/* Given an instruction set, its tests alone; 77 if this processor lacks it. */
int main(int argc, char **argv)
{
#define ON_ISA(_test, _isa)                                                                        \
    {                                                                                              \
#_test " " _isa, _test, NULL, NULL, (void *)_isa                                           \
    }
#define ON_ALL(_test)                                                                              \
    ON_ISA(_test, "generic"), ON_ISA(_test, "avx2"), ON_ISA(_test, "avx512"), ON_ISA(_test, "amx")
    const struct CMUnitTest tests[] = {
        {"test_isa_name generic", test_isa_name, NULL, NULL, NULL},
        ON_ALL(test_exp2),
        ON_ALL(test_exp2_special),       ON_ALL(test_random_cases),
        ON_ALL(test_values_of_one),      ON_ALL(test_large_scores),
        ON_ALL(test_rising_scores),      ON_ALL(test_conversion_identity),
        ON_ALL(test_conversion_ties),    ON_ALL(test_nan_propagates),
        ON_ALL(test_nan_hidden),         ON_ALL(test_scales),
        ON_ALL(test_without_lse),
    };

    char filter[32];

    if (argc == 2) {
        if (bsattn_attend_variant_find(argv[1]) == NULL) {
            printf("skipped: this processor has no %s\n", argv[1]);
            return 77;
        }
        (void)snprintf(filter, sizeof(filter), "* %s", argv[1]);
        cmocka_set_test_filter(filter);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
