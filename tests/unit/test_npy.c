/* SPDX-License-Identifier: Apache-2.0 */
/* .npy headers: as numpy writes them, as nobody should, and at random. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/npy.h"
#include "base/philox.h"

/* A header of a version around a dictionary; returns its length. */
static size_t wrap(int major, const char *text, unsigned char *out)
{
    const size_t length = strlen(text), prefix = major == 1 ? 10 : 12;

    memcpy(out, "\x93NUMPY", 6);
    out[6] = (unsigned char)major;
    out[7] = 0;
    for (size_t i = 8; i < prefix; i++) {
        out[i] = (unsigned char)(length >> (8 * (i - 8)));
    }
    memcpy(out + prefix, text, length);
    return prefix + length;
}

static bsattn_status_t parse(int major, const char *text, bsattn_npy_t *npy)
{
    unsigned char header[1024];
    const size_t size = wrap(major, text, header);
    /* An exact copy, so that the sanitizer sees a byte too far. */
    unsigned char *exact = malloc(size);
    bsattn_status_t status;

    assert_non_null(exact);
    memcpy(exact, header, size);
    status = bsattn_npy_parse("x.npy", exact, size, npy);
    free(exact);
    return status;
}

static void good_headers(void **state)
{
    bsattn_npy_t npy;

    (void)state;
    for (int major = 1; major <= 3; major++) {
        assert_int_equal(
            parse(major, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   \n", &npy),
            BSATTN_OK);
        assert_string_equal(npy.descr, "<f4");
        assert_int_equal(npy.item_size, 4);
        assert_false(npy.fortran_order);
        assert_int_equal(npy.dims, 2);
        assert_int_equal(npy.shape[0], 3);
        assert_int_equal(npy.shape[1], 4);
        assert_int_equal(npy.count, 12);
        assert_int_equal(npy.bytes, 48);
        assert_int_equal(npy.data_offset, (major == 1 ? 10 : 12) + 63);
    }
    assert_int_equal(parse(1, "{\"shape\":(),\"fortran_order\":True,\"descr\":\"|b1\"}", &npy), 0);
    assert_int_equal(npy.dims, 0);
    assert_int_equal(npy.count, 1);
    assert_true(npy.fortran_order);
    assert_int_equal(parse(1, "{'descr': '|V2', 'fortran_order': False, 'shape': (0,), }\n", &npy),
                     BSATTN_OK);
    assert_int_equal(npy.dims, 1);
    assert_int_equal(npy.bytes, 0);
    assert_int_equal(
        parse(2, "{'descr':'<u2','fortran_order':False,'shape':(1,2,3,4,5,6,7,8)}", &npy),
        BSATTN_OK);
    assert_int_equal(npy.dims, 8);
    assert_int_equal(npy.count, 40320);
}

static void bad_headers(void **state)
{
    static const struct {
        bsattn_status_t status;
        const char *text;
    } cases[] = {
        {BSATTN_ERR_FILE, ""},
        {BSATTN_ERR_FILE, "{"},
        {BSATTN_ERR_FILE, "{}"},
        {BSATTN_ERR_FILE, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)"},
        {BSATTN_ERR_FILE, "{'descr': '<f4', 'fortran_order': False, 'shape': (3)}"},
        {BSATTN_ERR_FILE, "{'descr': '<f4', 'fortran_order': False, 'shape': (3 4)}"},
        {BSATTN_ERR_FILE, "{'descr': '<f4', 'fortran_order': False, 'shape': (,)}"},
        {BSATTN_ERR_FILE, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,,4)}"},
        {BSATTN_ERR_FILE, "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}"},
        {BSATTN_ERR_FILE, "{'descr': '<f4', 'fortran_order': False, 'shape': [3]}"},
        {BSATTN_ERR_FILE, "{'descr': '<f4', 'fortran_order': 0, 'shape': (3,)}"},
        {BSATTN_ERR_FILE, "{'descr': '<f4', 'fortran_order': False}"},
        {BSATTN_ERR_FILE, "{'descr': '<f4', 'descr': '<f4', 'shape': (3,)}"},
        {BSATTN_ERR_FILE, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)} x"},
        {BSATTN_ERR_FILE, "{'descr': '<f4' 'fortran_order': False, 'shape': (3,)}"},
        {BSATTN_ERR_INPUT, "{'descr': '<f4, 'fortran_order': False, 'shape': (3,)}"},
        {BSATTN_ERR_FILE, "{'descr': '<f4', 'order': False, 'shape': (3,)}"},
        {BSATTN_ERR_INPUT, "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}"},
        {BSATTN_ERR_INPUT, "{'descr': '<f0', 'fortran_order': False, 'shape': (3,)}"},
        {BSATTN_ERR_INPUT, "{'descr': '<f-4', 'fortran_order': False, 'shape': (3,)}"},
        {BSATTN_ERR_INPUT, "{'descr': '<f4x', 'fortran_order': False, 'shape': (3,)}"},
        {BSATTN_ERR_INPUT, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}"},
        {BSATTN_ERR_INPUT,
         "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}"},
        {BSATTN_ERR_INPUT,
         "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808,)}"},
        {BSATTN_ERR_INPUT,
         "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,)}"},
        {BSATTN_ERR_INPUT,
         "{'descr': '|b1', 'fortran_order': False, 'shape': (9223372036854775807,)}"},
        {BSATTN_ERR_INPUT,
         "{'descr': '|b1', 'fortran_order': False, 'shape': (4294967296,4294967296)}"},
    };
    bsattn_npy_t npy = {.dims = 77};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_int_equal(parse(1 + (int)(i % 3), cases[i].text, &npy), cases[i].status);
        assert_memory_equal(bsattn_last_error(), "x.npy: ", 7);
        assert_int_equal(npy.dims, 77);
    }
}

static void bad_prefixes(void **state)
{
    unsigned char header[256], copy[256];
    const size_t size =
        wrap(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n", header);
    bsattn_npy_t npy;

    (void)state;
    assert_int_equal(bsattn_npy_parse("x", header, size, &npy), BSATTN_OK);
    for (size_t cut = 0; cut < size; cut++) {
        unsigned char *exact = malloc(cut + 1);

        assert_non_null(exact);
        memcpy(exact, header, cut);
        assert_int_equal(bsattn_npy_parse("x", exact, cut, &npy), BSATTN_ERR_FILE);
        free(exact);
    }
    for (size_t at = 0; at < 8; at++) {
        memcpy(copy, header, size);
        copy[at] ^= 0x40;
        assert_int_equal(bsattn_npy_parse("x", copy, size, &npy), BSATTN_ERR_FILE);
    }
    memcpy(copy, header, size);
    copy[6] = 2;
    memset(copy + 8, 0xff, 4);
    assert_int_equal(bsattn_npy_parse("x", copy, size, &npy), BSATTN_ERR_FILE);
}

/* Damaged headers may be read or refused; what is read must be consistent. */
static void random_damage(void **state)
{
    static const char spare[] = "{}()[]',:\"0123456789<>|bfuVTFalsetrue \n\\\x80\xff";
    unsigned char header[256], copy[256];
    const size_t size = wrap(
        1, "{'descr': '<f4', 'fortran_order': False, 'shape': (37, 123, 4, 64), }  \n", header);
    int64_t accepted = 0;

    (void)state;
    for (uint64_t trial = 0; trial < 200000; trial++) {
        const uint32_t draw = bsattn_philox_u32(1, 0, 4 * trial);
        bsattn_npy_t npy;

        memcpy(copy, header, size);
        for (uint32_t d = 0; d <= draw % 3; d++) {
            const uint32_t where = bsattn_philox_u32(1, 1, 4 * trial + d);
            const uint32_t what = bsattn_philox_u32(1, 2, 4 * trial + d);

            copy[6 + where % (size - 6)] = (unsigned char)spare[what % (sizeof(spare) - 1)];
        }
        if (bsattn_npy_parse("x", copy, size, &npy) == BSATTN_OK) {
            int64_t count = 1;

            accepted++;
            for (int d = 0; d < npy.dims; d++) {
                assert_true(npy.shape[d] >= 0);
                count *= npy.shape[d];
            }
            assert_true(npy.count == count && npy.bytes == count * (int64_t)npy.item_size);
            assert_true(npy.data_offset > 0 && npy.data_offset <= (int64_t)size);
        }
    }
    assert_true(accepted > 0);
}

static void written_headers(void **state)
{
    static const int64_t shape[] = {INT64_MAX, 1, 1, 1, 1, 1, 1, 1};
    static const int64_t negative[] = {-1};
    unsigned char header[512];
    bsattn_npy_t npy;

    (void)state;
    for (int dims = 0; dims <= BSATTN_NPY_DIMS_MAX; dims++) {
        const int64_t *from = shape + (dims < 8 ? 1 : 0);
        const char *descr = dims < 8 ? "<f4" : "|b1";
        const size_t size = bsattn_npy_format(descr, dims, from, header, sizeof(header));

        assert_true(size > 0 && size % 64 == 0 && header[size - 1] == '\n');
        if (dims < 8) {
            assert_int_equal(bsattn_npy_parse("x", header, size, &npy), BSATTN_OK);
            assert_int_equal(npy.data_offset, size);
            assert_int_equal(npy.dims, dims);
            assert_string_equal(npy.descr, descr);
        } else {
            assert_int_equal(bsattn_npy_parse("x", header, size, &npy), BSATTN_ERR_INPUT);
        }
        assert_int_equal(bsattn_npy_format(descr, dims, from, header, size - 1), 0);
    }
    assert_int_equal(bsattn_npy_format("<f4", 1, negative, header, sizeof(header)), 0);
    assert_int_equal(bsattn_npy_format("<f4", 9, shape, header, sizeof(header)), 0);
    assert_int_equal(bsattn_npy_format("<f'4", 1, shape, header, sizeof(header)), 0);
}

static void shape_texts(void **state)
{
    static const int64_t shape[] = {3, 4};
    char text[32];

    (void)state;
    assert_string_equal(bsattn_npy_shape_text(0, shape, text, sizeof(text)), "()");
    assert_string_equal(bsattn_npy_shape_text(1, shape, text, sizeof(text)), "(3,)");
    assert_string_equal(bsattn_npy_shape_text(2, shape, text, sizeof(text)), "(3, 4)");
    assert_string_equal(bsattn_npy_shape_text(2, shape, text, 4), "(3,");
}

static char path[] = "/tmp/test_npy_XXXXXX";

static void save(const void *header, size_t header_size, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(header, 1, header_size, file), header_size);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void masks(void **state)
{
    static const int64_t shape[] = {2, 3};
    uint8_t mask[6] = {1, 0, 0, 1, 1, 0};
    unsigned char header[512];
    uint8_t *values = NULL;
    bsattn_npy_t npy;
    size_t size = bsattn_npy_format("|b1", 2, shape, header, sizeof(header));

    (void)state;
    save(header, size, mask, sizeof(mask));
    assert_int_equal(bsattn_npy_read_bool(path, 2, 3, &values, &npy), BSATTN_OK);
    assert_memory_equal(values, mask, sizeof(mask));
    assert_int_equal(npy.shape[1], 3);
    free(values);
    values = NULL;
    assert_int_equal(bsattn_npy_read_bool(path, 3, 3, &values, &npy), BSATTN_ERR_INPUT);
    assert_non_null(strstr(bsattn_last_error(), "(2, 3)"));

    save(header, size, mask, 5);
    assert_int_equal(bsattn_npy_read_bool(path, 2, 3, &values, &npy), BSATTN_ERR_FILE);
    assert_non_null(strstr(bsattn_last_error(), "bytes expected by its header"));
    assert_non_null(strstr(bsattn_last_error(), path));
    mask[4] = 2;
    save(header, size, mask, 6);
    assert_int_equal(bsattn_npy_read_bool(path, 2, 3, &values, &npy), BSATTN_ERR_INPUT);
    size = bsattn_npy_format("|u1", 2, shape, header, sizeof(header));
    save(header, size, mask, 6);
    assert_int_equal(bsattn_npy_read_bool(path, 2, 3, &values, &npy), BSATTN_ERR_INPUT);
    assert_int_equal(bsattn_npy_read_header(path, &npy), BSATTN_OK);
    save(header, 40, mask, 0);
    assert_int_equal(bsattn_npy_read_header(path, &npy), BSATTN_ERR_FILE);
    assert_int_equal(bsattn_npy_read_header("/nowhere/at/all.npy", &npy), BSATTN_ERR_FILE);
    assert_non_null(strstr(bsattn_last_error(), "/nowhere/at/all.npy"));
    assert_int_equal(bsattn_npy_read_header("/tmp", &npy), BSATTN_ERR_FILE);
    assert_int_equal(bsattn_npy_read_header("/dev/zero", &npy), BSATTN_ERR_FILE);
    assert_null(values);
}

static void empty_mask(void **state)
{
    static const int64_t shape[] = {0, 3};
    unsigned char header[512];
    uint8_t *values = NULL;
    bsattn_npy_t npy;
    const size_t size = bsattn_npy_format("|b1", 2, shape, header, sizeof(header));

    (void)state;
    save(header, size, "", 0);
    assert_int_equal(bsattn_npy_read_bool(path, 2, 2, &values, &npy), BSATTN_OK);
    assert_non_null(values);
    free(values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_headers),    cmocka_unit_test(bad_headers),
        cmocka_unit_test(bad_prefixes),    cmocka_unit_test(random_damage),
        cmocka_unit_test(written_headers), cmocka_unit_test(shape_texts),
        cmocka_unit_test(masks),           cmocka_unit_test(empty_mask),
    };
    const int fd = mkstemp(path);

    if (fd < 0) {
        return 1;
    }
    close(fd);

    const int failed = cmocka_run_group_tests(tests, NULL, NULL);

    unlink(path);
    return failed;
}
