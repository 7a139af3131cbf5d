/* SPDX-License-Identifier: Apache-2.0 */
/* base/text */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/text.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define ARRAY_SIZE(_array) (sizeof(_array) / sizeof((_array)[0]))

static void test_strbuf(void **state)
{
    char data[8];
    bsattn_strbuf_t buf;

    (void)state;
    bsattn_strbuf_init(&buf, data, sizeof(data));
    assert_string_equal(data, "");
    bsattn_strbuf_add(&buf, "%d-", 123);
    bsattn_strbuf_add(&buf, "%s", "abc");
    assert_string_equal(data, "123-abc"); /* fits exactly */
    assert_false(buf.cut);
    bsattn_strbuf_add(&buf, "x");
    assert_true(buf.cut);
    assert_string_equal(data, "123-abc");
    bsattn_strbuf_add(&buf, "y");
    assert_string_equal(data, "123-abc");
}

static void test_strbuf_one_byte(void **state)
{
    char data[1];
    bsattn_strbuf_t buf;

    (void)state;
    bsattn_strbuf_init(&buf, data, sizeof(data));
    bsattn_strbuf_add(&buf, "%s", "");
    assert_false(buf.cut);
    bsattn_strbuf_add(&buf, "a");
    assert_true(buf.cut);
    assert_string_equal(data, "");
}

static void test_copy(void **state)
{
    char out[4];

    (void)state;
    assert_true(bsattn_text_copy(out, sizeof(out), "abc"));
    assert_string_equal(out, "abc");
    assert_false(bsattn_text_copy(out, sizeof(out), "abcd"));
    assert_string_equal(out, "abc");
}

static void test_int64(void **state)
{
    static const char *const bad[] = {
        "", " 1", "1 ", "+1", "1.0", "0x10", "abc", "-", "--1", "9223372036854775808", "1K", "1\n"};
    int64_t value = 42;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); ++i) {
        assert_false(bsattn_text_int64(bad[i], &value));
        assert_int_equal(value, 42);
    }
    assert_true(bsattn_text_int64("9223372036854775807", &value));
    assert_true(value == INT64_MAX);
    assert_true(bsattn_text_int64("-9223372036854775808", &value));
    assert_true(value == INT64_MIN);
    assert_true(bsattn_text_int64("007", &value));
    assert_int_equal(value, 7);
}

static void test_size(void **state)
{
    static const struct {
        const char *text;
        int64_t value;
    } good[] = {{"0", 0},
                {"1", 1},
                {"16K", 16384},
                {"16k", 16384},
                {"1M", 1 << 20},
                {"3G", INT64_C(3) << 30},
                {"1T", INT64_C(1) << 40},
                {"8388607T", INT64_C(8388607) << 40}};
    static const char *const bad[] = {
        "",   "K",   "-1",   "-1K",      "1KB",
        "1Q", "1 K", "1.5K", "8388608T", "99999999999999999999999999999999"};
    int64_t value = 42;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); ++i) {
        assert_true(bsattn_text_size(good[i].text, &value));
        assert_true(value == good[i].value);
    }
    value = 42;
    for (size_t i = 0; i < ARRAY_SIZE(bad); ++i) {
        assert_false(bsattn_text_size(bad[i], &value));
        assert_int_equal(value, 42);
    }
}

static void test_double(void **state)
{
    static const char *const bad[] = {"", " 1", "1 ", "nan", "inf", "1e999", "0.5x", "-inf", "."};
    double value = 42.0;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); ++i) {
        assert_false(bsattn_text_double(bad[i], &value));
        assert_true(value == 42.0);
    }
    assert_true(bsattn_text_double("0.125", &value));
    assert_true(value == 0.125);
    assert_true(bsattn_text_double("-1e3", &value));
    assert_true(value == -1000.0);
}

static void test_nearest(void **state)
{
    static const char *const names[] = {"seq", "batch", "pattern", "preset"};
    char longer[100];

    (void)state;
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_string_equal(bsattn_text_nearest("pattrn", names, ARRAY_SIZE(names)), "pattern");
    assert_string_equal(bsattn_text_nearest("batsh", names, ARRAY_SIZE(names)), "batch");
    assert_null(bsattn_text_nearest("zzzzzz", names, ARRAY_SIZE(names)));
    assert_null(bsattn_text_nearest(longer, names, ARRAY_SIZE(names)));
    assert_null(bsattn_text_nearest("seq", names, 0));
}

static void test_bytes(void **state)
{
    char out[32];

    (void)state;
    assert_string_equal(bsattn_text_bytes(out, sizeof(out), 0.0), "0 B");
    assert_string_equal(bsattn_text_bytes(out, sizeof(out), 1023.0), "1023 B");
    assert_string_equal(bsattn_text_bytes(out, sizeof(out), 1024.0), "1.00 KiB");
    assert_string_equal(bsattn_text_bytes(out, sizeof(out), 1.5 * (1 << 30)), "1.50 GiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strbuf),  cmocka_unit_test(test_strbuf_one_byte),
        cmocka_unit_test(test_copy),    cmocka_unit_test(test_int64),
        cmocka_unit_test(test_size),    cmocka_unit_test(test_double),
        cmocka_unit_test(test_nearest), cmocka_unit_test(test_bytes),
    };

    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
