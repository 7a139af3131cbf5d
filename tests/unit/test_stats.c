/* SPDX-License-Identifier: Apache-2.0 */
/* base/stats, base/clock, base/host */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/host.h"
#include "base/stats.h"

#include <math.h>
#include <string.h>
#include <time.h>

#define ARRAY_SIZE(_array) (sizeof(_array) / sizeof((_array)[0]))

static void test_stats_odd_even(void **state)
{
    double odd[] = {3.0, 1.0, 2.0};
    double even[] = {4.0, 1.0, 3.0, 2.0};
    bsattn_stats_t stats = bsattn_stats_of(odd, ARRAY_SIZE(odd));

    (void)state;
    assert_true((stats.min == 1.0) && (stats.median == 2.0) && (stats.max == 3.0));
    assert_true(stats.p95 == 3.0);
    assert_int_equal(stats.count, 3);
    assert_true(bsattn_stats_median(even, ARRAY_SIZE(even)) == 2.5);
}

static void test_stats_one(void **state)
{
    double one[] = {7.5};
    bsattn_stats_t stats = bsattn_stats_of(one, 1);

    (void)state;
    assert_true((stats.min == 7.5) && (stats.median == 7.5) && (stats.p95 == 7.5) &&
                (stats.max == 7.5));
}

static void test_stats_empty(void **state)
{
    bsattn_stats_t stats = bsattn_stats_of(NULL, 0);
    double nans[] = {NAN, NAN};

    (void)state;
    assert_true(isnan(stats.min) && isnan(stats.median) && isnan(stats.p95) && isnan(stats.max));
    assert_int_equal(stats.count, 0);
    assert_int_equal(bsattn_stats_of(nans, 2).count, 0);
}

static void test_stats_nan_left_out(void **state)
{
    double values[] = {NAN, 2.0, NAN, 1.0};
    bsattn_stats_t stats = bsattn_stats_of(values, ARRAY_SIZE(values));

    (void)state;
    assert_int_equal(stats.count, 2);
    assert_true((stats.min == 1.0) && (stats.median == 1.5));
}

static void test_stats_p95(void **state)
{
    double values[100];

    (void)state;
    for (size_t count = 1; count <= ARRAY_SIZE(values); ++count) {
        for (size_t i = 0; i < count; ++i) {
            values[i] = (double)(count - i); /* count .. 1 */
        }
        /* nearest rank: the ceil(0.95 n)-th smallest */
        assert_true(bsattn_stats_of(values, count).p95 == (double)((95 * count + 99) / 100));
    }
}

static void test_clock(void **state)
{
    double before = bsattn_clock_ms();

    (void)state;
    assert_true(bsattn_clock_ms() >= before);
}

static void pause_ms(long ms)
{
    struct timespec pause = {.tv_nsec = ms * 1000000};

    (void)nanosleep(&pause, NULL);
}

static void test_wait_clock(void **state)
{
    bsattn_wait_clock_t wait;
    double waited_ms;

    (void)state;
    bsattn_wait_clock_start(&wait);
    pause_ms(300); /* as if stopped */
    assert_true(bsattn_wait_clock_ms(&wait) == 100.0);
    for (int i = 0; i < 5; ++i) {
        pause_ms(20);
        waited_ms = bsattn_wait_clock_ms(&wait);
    }
    assert_true((waited_ms >= 200.0) && (waited_ms <= 600.0));
    bsattn_wait_clock_start(&wait);
    assert_true(bsattn_wait_clock_ms(&wait) < 100.0);
}

static void test_host_kib(void **state)
{
    const char *meminfo = "MemTotal:       24597740 kB\nMemAvailable:   23943456 kB\nBad:  x kB\n"
                          "Huge: 99999999999999999 kB\n";
    int64_t bytes = -1;

    (void)state;
    assert_true(bsattn_host_parse_kib(meminfo, "MemAvailable:", &bytes));
    assert_int_equal(bytes, INT64_C(23943456) * 1024);
    assert_true(bsattn_host_parse_kib(meminfo, "MemTotal:", &bytes));
    bytes = -1;
    assert_false(bsattn_host_parse_kib(meminfo, "Available:", &bytes));
    assert_false(bsattn_host_parse_kib(meminfo, "Bad:", &bytes));
    assert_false(bsattn_host_parse_kib(meminfo, "Huge:", &bytes));
    assert_false(bsattn_host_parse_kib("", "MemTotal:", &bytes));
    assert_int_equal(bytes, -1);
}

static void test_host_cgroup(void **state)
{
    const char *v1 = "12:cpu,cpuacct:/a\n5:memory:/slurm/job_1\n0::/user.slice\n";
    char path[32];

    (void)state;
    assert_true(bsattn_host_parse_cgroup("0::/system.slice/x.service\n", "", path, sizeof(path)));
    assert_string_equal(path, "/system.slice/x.service");
    assert_true(bsattn_host_parse_cgroup(v1, "memory", path, sizeof(path)));
    assert_string_equal(path, "/slurm/job_1");
    assert_true(bsattn_host_parse_cgroup(v1, "cpuacct", path, sizeof(path)));
    assert_string_equal(path, "/a");
    assert_true(bsattn_host_parse_cgroup(v1, "", path, sizeof(path)));
    assert_string_equal(path, "/user.slice");
    assert_false(bsattn_host_parse_cgroup(v1, "mem", path, sizeof(path)));
    assert_false(bsattn_host_parse_cgroup("", "", path, sizeof(path)));
    assert_false(bsattn_host_parse_cgroup("nonsense", "", path, sizeof(path)));
    assert_false(bsattn_host_parse_cgroup("0::/0123456789\n", "", path, 5));
}

static void test_host_limit(void **state)
{
    const char *none = "inactive_file ";

    (void)state;
    assert_int_equal(bsattn_host_parse_limit("1000\n", "400\n", NULL, none), 600);
    assert_int_equal(bsattn_host_parse_limit("1000\n", "4000\n", NULL, none), 0);
    assert_int_equal(bsattn_host_parse_limit("1000\n", NULL, NULL, none), 1000);
    assert_true(bsattn_host_parse_limit("max\n", "400\n", NULL, none) == INT64_MAX);
    assert_true(bsattn_host_parse_limit(NULL, "400\n", NULL, none) == INT64_MAX);
    assert_true(bsattn_host_parse_limit("9223372036854771712\n", "400\n", NULL, none) == INT64_MAX);
}

static void test_host_limit_without_cache(void **state)
{
    const char *v2 = "anon 100\nfile 250\nkernel 50\ninactive_anon 10\nactive_file 50\n"
                     "inactive_file 200\nslab 7\n";
    const char *v1 = "cache 250\ninactive_file 1\ntotal_inactive_anon 3\n"
                     "total_inactive_file 150\ntotal_active_file 5\n";

    (void)state;
    assert_int_equal(bsattn_host_parse_limit("1000\n", "400\n", v2, "inactive_file "), 800);
    assert_int_equal(bsattn_host_parse_limit("1000\n", "400\n", v1, "total_inactive_file "), 750);
    /* more than is used: the files are not read at one moment */
    assert_int_equal(bsattn_host_parse_limit("1000\n", "150\n", v2, "inactive_file "), 1000);
    assert_int_equal(bsattn_host_parse_limit("1000\n", "4000\n", v2, "inactive_file "), 0);
    assert_int_equal(bsattn_host_parse_limit("1000\n", NULL, v2, "inactive_file "), 1000);
    assert_int_equal(bsattn_host_parse_limit("1000\n", "400\n", "", "inactive_file "), 600);
    assert_int_equal(
        bsattn_host_parse_limit("1000\n", "400\n", "inactive_file x\n", "inactive_file "), 600);
    assert_true(bsattn_host_parse_limit("max\n", "400\n", v2, "inactive_file ") == INT64_MAX);
}

static void test_host_here(void **state)
{
    char text[128];

    (void)state;
    bsattn_host_name(text, sizeof(text));
    assert_true((strlen(text) > 0) && (strchr(text, '.') == NULL));
    bsattn_host_cores_text(text, sizeof(text));
    assert_true(strlen(text) > 0);
    bsattn_host_processor(text, sizeof(text));
    assert_true((strlen(text) > 0) && (strchr(text, '\n') == NULL));
    assert_true(bsattn_host_cores() >= 1);
    assert_true(bsattn_host_memory_peak() > 0);
    assert_true(bsattn_host_memory_available() > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stats_odd_even),
        cmocka_unit_test(test_stats_one),
        cmocka_unit_test(test_stats_empty),
        cmocka_unit_test(test_stats_nan_left_out),
        cmocka_unit_test(test_stats_p95),
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_wait_clock),
        cmocka_unit_test(test_host_kib),
        cmocka_unit_test(test_host_cgroup),
        cmocka_unit_test(test_host_limit),
        cmocka_unit_test(test_host_limit_without_cache),
        cmocka_unit_test(test_host_here),
    };

    return cmocka_run_group_tests_name("stats", tests, NULL, NULL);
}
