/* SPDX-License-Identifier: Apache-2.0 */
/* report: record, columns, json, csv, report_file, table, mask_grid, mask_text, heads, svg;
 * cli/digest's hash */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cli/digest.h"
#include "report/columns.h"
#include "report/csv.h"
#include "report/heads.h"
#include "report/json.h"
#include "report/mask_grid.h"
#include "report/mask_text.h"
#include "report/report_file.h"
#include "report/svg.h"
#include "report/table.h"

#include <cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ARRAY_SIZE(_array) (sizeof(_array) / sizeof((_array)[0]))

static bsattn_record_t sample_record(void)
{
    static const bsattn_placement_t places[2] = {{.host = "a", .device = "x,\"y\"", .cpus = "0-3"},
                                                 {.host = "b", .device = "z", .cpus = "0-3"}};
    static const bsattn_rank_record_t ranks[2] = {{.time_total_ms = 1.5, .bytes_sent = 7},
                                                  {.time_total_ms = NAN}};
    bsattn_record_t record;
    double times[] = {3.0, 1.0, 2.0};

    bsattn_record_init(&record);
    record.verb = "run";
    record.ranks = 2;
    record.hosts = 2;
    record.threads = 4;
    record.pattern = "local(window=256) | \"dense\", x";
    record.problem.seq_len = (INT64_C(1) << 53) + 1; /* no double */
    record.plan.bytes_sent = INT64_MAX;
    record.stats.flops = 4e9;
    record.total_ms = bsattn_stats_of(times, ARRAY_SIZE(times));
    record.placement = places;
    record.rank_records = ranks;
    return record;
}

static const cJSON *get(const cJSON *object, const char *section, const char *key)
{
    const cJSON *part = cJSON_GetObjectItemCaseSensitive(object, section);

    assert_non_null(part);
    part = cJSON_GetObjectItemCaseSensitive(part, key);
    assert_non_null(part);
    return part;
}

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = calloc(1, 65536);

    assert_non_null(file);
    assert_non_null(text);
    assert_true(fread(text, 1, 65535, file) < 65535);
    assert_int_equal(fclose(file), 0);
    return text;
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* -------------------------------------------------------------------------------------- records */

static void test_json_record(void **state)
{
    bsattn_record_t record = sample_record();
    cJSON *root;
    char *line;

    (void)state;
    assert_int_equal(bsattn_json_from_record(&record, &line), BSATTN_OK);
    assert_true(strchr(line, '\n') == line + strlen(line) - 1);
    assert_non_null(strstr(line, "\"seq_len\":9007199254740993,"));
    assert_non_null(strstr(line, "\"bytes_sent_total\":9223372036854775807,"));
    root = cJSON_Parse(line);
    assert_non_null(root);
    assert_true(cJSON_GetObjectItem(root, "schema")->valueint == 1);
    assert_string_equal(get(root, "problem", "pattern")->valuestring, record.pattern);
    assert_true(cJSON_IsFalse(get(root, "problem", "causal")));
    assert_true(cJSON_IsNull(get(root, "digest", "out_sum")));
    assert_true(get(cJSON_GetObjectItem(root, "time_ms"), "total", "median")->valuedouble == 2.0);
    assert_true(get(cJSON_GetObjectItem(root, "time_ms"), "total", "n")->valueint == 3);
    assert_true(cJSON_IsNull(get(cJSON_GetObjectItem(root, "time_ms"), "attend", "min")));
    assert_true(get(root, "rate", "tflops")->valuedouble == 4e9 / 2e-3 / 1e12);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(root, "ranks")), 2);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(root, "placement")), 2);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(
        cJSON_GetArrayItem(cJSON_GetObjectItem(root, "ranks"), 1), "time_ms_total")));
    cJSON_Delete(root);
    free(line);
}

/* Keys of SPEC section 7; they may be added to, never renamed or removed. */
static void test_json_has_spec_keys(void **state)
{
    static const char *const keys[] = {"build.compiler",
                                       "job.ranks",
                                       "job.hosts",
                                       "job.launcher",
                                       "job.backend",
                                       "job.transport",
                                       "job.transport_reason",
                                       "problem.batch",
                                       "problem.seq_len",
                                       "problem.heads_q",
                                       "problem.heads_kv",
                                       "problem.head_dim",
                                       "problem.dtype",
                                       "problem.block",
                                       "problem.causal",
                                       "problem.pattern",
                                       "problem.scale",
                                       "problem.density_block",
                                       "problem.density_token",
                                       "problem.pairs_token",
                                       "problem.flops",
                                       "plan.layout",
                                       "plan.exchange",
                                       "plan.steps",
                                       "plan.bytes_sent_total",
                                       "plan.bytes_lower_bound",
                                       "plan.imbalance",
                                       "plan.memory_predicted_max",
                                       "time_ms.total.min",
                                       "time_ms.total.median",
                                       "time_ms.total.p95",
                                       "time_ms.total.max",
                                       "time_ms.total.n",
                                       "time_ms.attend.n",
                                       "time_ms.exchange.n",
                                       "time_ms.exposed.n",
                                       "rate.tflops",
                                       "rate.tflops_per_rank",
                                       "rate.tokens_per_s",
                                       "check.rows",
                                       "check.error_out",
                                       "check.error_lse",
                                       "check.passed",
                                       "digest.out_sum",
                                       "digest.out_abs_sum",
                                       "digest.out_hash"};
    static const char *const rank_keys[] = {
        "rank",       "time_ms_total",  "time_ms_attend",     "time_ms_exchange", "time_ms_exposed",
        "bytes_sent", "bytes_received", "memory_device_peak", "memory_host_peak"};
    static const char *const place_keys[] = {"rank", "host", "device", "pci",
                                             "cpus", "nic",  "decided"};
    bsattn_rank_record_t rank = {0};
    bsattn_placement_t place = {.host = "a"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(keys); ++i) {
        assert_true(bsattn_column_find(keys[i]) < bsattn_column_count());
    }
    assert_int_equal(bsattn_rank_column_count(), ARRAY_SIZE(rank_keys));
    for (size_t i = 0; i < ARRAY_SIZE(rank_keys); ++i) {
        assert_string_equal(bsattn_rank_cell(&rank, 0, i).key, rank_keys[i]);
    }
    assert_int_equal(bsattn_placement_column_count(), ARRAY_SIZE(place_keys));
    for (size_t i = 0; i < ARRAY_SIZE(place_keys); ++i) {
        assert_string_equal(bsattn_placement_cell(&place, 0, i).key, place_keys[i]);
    }
}

static size_t count_fields(const char *line)
{
    size_t count = 1;
    bool quoted = false;

    for (; *line != '\0'; ++line) {
        quoted = (*line == '"') ? !quoted : quoted;
        count += ((*line == ',') && !quoted) ? 1 : 0;
    }
    return count;
}

static void test_csv(void **state)
{
    bsattn_record_t record = sample_record();
    char *header;
    char *line;

    (void)state;
    assert_int_equal(bsattn_csv_header(&header), BSATTN_OK);
    assert_int_equal(bsattn_csv_from_record(&record, &line), BSATTN_OK);
    assert_true(strncmp(header, "schema,tool,version,verb,status,build.compiler,", 47) == 0);
    assert_int_equal(count_fields(header), bsattn_column_count());
    assert_int_equal(count_fields(line), bsattn_column_count());
    assert_non_null(strstr(line, "\"local(window=256) | \"\"dense\"\", x\""));
    assert_non_null(strstr(line, ",9007199254740993,"));
    assert_null(strstr(line, "nan"));
    free(header);
    free(line);
}

/* ---------------------------------------------------------------------------------------- files */

static void test_report_file(void **state)
{
    bsattn_report_file_t *file;
    char *text;

    (void)state;
    (void)remove("report.json");
    assert_int_equal(bsattn_report_file_open("report.json", &file), BSATTN_OK);
    assert_false(exists("report.json") || exists("report.json.part"));
    assert_true(bsattn_report_file_is_empty(file));
    assert_int_equal(bsattn_report_file_append(file, "{}\n"), BSATTN_OK);
    assert_false(bsattn_report_file_is_empty(file));
    assert_false(exists("report.json.part"));
    text = read_file("report.json");
    assert_string_equal(text, "{}\n");
    free(text);
    assert_int_equal(bsattn_report_file_append(file, "[]\n"), BSATTN_OK);
    text = read_file("report.json");
    assert_string_equal(text, "{}\n[]\n");
    free(text);
    bsattn_report_file_close(file);
    bsattn_report_file_close(NULL);
}

/* An earlier file stays until there is something better. */
static void test_report_file_keeps_earlier(void **state)
{
    bsattn_report_file_t *file;
    char *text;

    (void)state;
    assert_int_equal(bsattn_report_file_open("report.json", &file), BSATTN_OK);
    bsattn_report_file_close(file);
    text = read_file("report.json");
    assert_string_equal(text, "{}\n[]\n");
    free(text);
}

static void test_report_file_failures(void **state)
{
    bsattn_report_file_t *file = NULL;

    (void)state;
    assert_int_equal(bsattn_report_file_open("/nonexistent/x.json", &file), BSATTN_ERR_FILE);
    assert_non_null(strstr(bsattn_last_error(), "cannot write /nonexistent/x.json: "));
    (void)mkdir("report.dir", 0777);
    assert_int_equal(bsattn_report_file_open("report.dir", &file), BSATTN_ERR_FILE);
    assert_null(file);
    assert_false(exists("report.dir.part"));
    (void)rmdir("report.dir");
}

static void test_report_file_device(void **state)
{
    bsattn_report_file_t *file;

    (void)state;
    assert_int_equal(bsattn_report_file_open("/dev/null", &file), BSATTN_OK);
    assert_int_equal(bsattn_report_file_append(file, "x"), BSATTN_OK);
    bsattn_report_file_close(file);
    assert_false(exists("/dev/null.part"));
    assert_int_equal(bsattn_report_file_open("/dev/full", &file), BSATTN_OK);
    assert_int_equal(bsattn_report_file_append(file, "x"), BSATTN_ERR_FILE);
    bsattn_report_file_close(file);
}

/* ---------------------------------------------------------------------------------------- table */

static size_t count_words(const char *line)
{
    size_t count = 0;

    while (*(line += strspn(line, " ")) != '\0') {
        line += strcspn(line, " ");
        ++count;
    }
    return count;
}

/* Print to memory and give each line to the caller in turn. */
static char *table_text(const bsattn_record_t *record)
{
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);

    assert_non_null(stream);
    bsattn_table_preamble(record, stream);
    bsattn_table_header(stream);
    bsattn_table_row(record, stream);
    assert_int_equal(fclose(stream), 0);
    return text;
}

static void test_table(void **state)
{
    bsattn_record_t record = sample_record();
    char *text = table_text(&record);
    size_t headings[2] = {0, 0};
    size_t rows = 0;

    (void)state;
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        if (line[0] != '#') {
            assert_int_equal(count_words(line), headings[0]);
            assert_non_null(strstr(line, " - local(window=256)|\"dense\",x"));
            ++rows;
        } else {
            headings[0] = headings[1];
            headings[1] = count_words(line + 1);
        }
    }
    assert_int_equal(rows, 1);
    assert_int_equal(headings[0], headings[1]);
    free(text);
}

static void test_table_check(void **state)
{
    bsattn_record_t record = sample_record();
    char *text;

    (void)state;
    record.check = (bsattn_check_result_t){.rows = 4, .error_out = NAN, .passed = 0};
    text = table_text(&record);
    assert_non_null(strstr(text, " FAIL "));
    free(text);
    record.check = (bsattn_check_result_t){.rows = 4, .error_out = 1e-6, .passed = 1};
    text = table_text(&record);
    assert_non_null(strstr(text, " 1.0e-06 "));
    assert_non_null(strstr(text, " PASS "));
    free(text);
}

/* ---------------------------------------------------------------------------------------- masks */

static bsattn_pattern_t *make_pattern(const char *text, int64_t seq_len, bsattn_problem_t *problem)
{
    bsattn_pattern_t *pattern;

    bsattn_problem_init(problem);
    problem->seq_len = seq_len;
    problem->block = 16;
    if (bsattn_pattern_create(text, problem, &pattern) != BSATTN_OK) {
        fail_msg("%s", bsattn_last_error());
    }
    return pattern;
}

static char *mask_text(const char *text, int64_t seq_len, bool commentary)
{
    bsattn_problem_t problem;
    bsattn_pattern_t *pattern = make_pattern(text, seq_len, &problem);
    char *drawn = NULL;
    size_t size;
    FILE *stream = open_memstream(&drawn, &size);

    assert_non_null(stream);
    assert_int_equal(bsattn_mask_text(pattern, &problem, commentary, stream), BSATTN_OK);
    assert_int_equal(fclose(stream), 0);
    bsattn_pattern_destroy(pattern);
    return drawn;
}

static void test_mask_text_exact(void **state)
{
    char *drawn = mask_text("local(window=32)", 60, false);

    (void)state;
    assert_string_equal(drawn, "           0 @@@@....\n"
                               "          16 @@@@@@..\n"
                               "          32 ..@@@@@@\n"
                               "          48 ....@@@@\n");
    free(drawn);
}

static void test_mask_text_lines(void **state)
{
    static const int64_t lengths[] = {1, 16 * 32, 16 * 33, 16 * 64, 16 * 65, 16 * 1000 + 1};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(lengths); ++i) {
        char *drawn = mask_text("0-3@local(window=32);4-7@dense", lengths[i], true);
        for (char *line = strtok(drawn, "\n"); line != NULL; line = strtok(NULL, "\n")) {
            if (line[0] != '#') {
                assert_int_equal(count_words(line), 2);
                assert_true(strlen(line) <= 13 + 64);
            }
        }
        free(drawn);
    }
}

static void test_mask_grid(void **state)
{
    bsattn_problem_t problem;
    bsattn_pattern_t *pattern = make_pattern("dense", 16 * 100, &problem);
    bsattn_mask_grid_t grid;

    (void)state;
    assert_int_equal(bsattn_mask_grid_count(pattern, 0, 100, 7, 13, &grid), BSATTN_OK);
    for (size_t i = 0; i < 7 * 13; ++i) {
        assert_true(grid.filled[i] == 1.0);
    }
    bsattn_mask_grid_free(&grid);
    bsattn_pattern_destroy(pattern);
    pattern = make_pattern("strided(stride=2)", 16 * 100, &problem);
    assert_int_equal(bsattn_mask_grid_count(pattern, 0, 100, 10, 10, &grid), BSATTN_OK);
    for (size_t i = 0; i < 10 * 10; ++i) {
        assert_true(grid.filled[i] == 0.5);
    }
    bsattn_mask_grid_free(&grid);
    bsattn_pattern_destroy(pattern);
}

static void test_heads(void **state)
{
    int classes[] = {0, 0, 0, 1, 0, 0, 0, 0};
    struct bsattn_pattern pattern = {.class_of_head = classes, .class_count = 2};
    char text[64];

    (void)state;
    pattern.problem.heads_q = (int)ARRAY_SIZE(classes);
    assert_string_equal(bsattn_heads_text(&pattern, 0, text, sizeof(text)), "heads 0-2,4-7");
    assert_string_equal(bsattn_heads_text(&pattern, 1, text, sizeof(text)), "head 3");
    classes[3] = 0;
    pattern.class_count = 1;
    assert_string_equal(bsattn_heads_text(&pattern, 0, text, sizeof(text)), "all 8 heads");
    pattern.problem.heads_q = 1;
    assert_string_equal(bsattn_heads_text(&pattern, 0, text, sizeof(text)), "head 0");
}

static char *svg_text(const char *text, int64_t seq_len, size_t *size_p)
{
    bsattn_problem_t problem;
    bsattn_pattern_t *pattern = make_pattern(text, seq_len, &problem);
    char *drawn = NULL;
    FILE *stream = open_memstream(&drawn, size_p);

    assert_non_null(stream);
    assert_int_equal(bsattn_svg_mask(pattern, &problem, text, stream), BSATTN_OK);
    assert_int_equal(fclose(stream), 0);
    bsattn_pattern_destroy(pattern);
    return drawn;
}

/* The area of the rectangles "Mx yhWvHh-Wz" of the first exact path, in block pairs. */
static int64_t svg_area(const char *svg)
{
    const char *at = strstr(svg, "<path d=\"M");
    int64_t area = 0;

    assert_non_null(at);
    for (at += 9; *at == 'M'; at = strchr(at, 'z') + 1) {
        const char *width = strchr(at, 'h');
        const char *height = strchr(at, 'v');
        area += strtol(width + 1, NULL, 10) * strtol(height + 1, NULL, 10);
    }
    return area;
}

static void test_svg_exact(void **state)
{
    static const struct {
        const char *pattern;
        int64_t pairs; /* at nb = 100 */
    } cases[] = {
        {"dense", 100 * 100},
        {"local(window=64)", 5 * 100 - 6},
        {"dilated(rates=1:2:4)", 7 * 100 - 14},
        {"strided(stride=3)", 34 * 34 + 2 * 33 * 33},
        {"sink(tokens=32)+global(tokens=16)", 100 + 99 * 2},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); ++i) {
        size_t size;
        char *svg = svg_text(cases[i].pattern, 1600, &size);
        assert_int_equal(svg_area(svg), cases[i].pairs);
        assert_non_null(strstr(svg, "</svg>\n"));
        assert_null(strstr(svg, "http://www.w3.org/1999/xlink"));
        free(svg);
    }
}

static void test_svg_size(void **state)
{
    size_t size;
    char *svg = svg_text("local(window=64)", 16 * 4096, &size);

    (void)state;
    assert_true(size < 100000);
    free(svg);
    svg = svg_text("strided(stride=2)", 16 * 4096, &size); /* a chess board: too many rectangles */
    assert_true(size < 2000000);
    assert_non_null(strstr(svg, "shade"));
    free(svg);
}

/* --------------------------------------------------------------------------------------- digest */

/* SplitMix64's own published sequence for state 0 begins with the finaliser of the golden ratio. */
static void test_digest_mix(void **state)
{
    (void)state;
    assert_true(bsattn_digest_mix(1, 0) == UINT64_C(0xE220A8397B1DCDAF));
    assert_true(bsattn_digest_mix(2, 0) == UINT64_C(0x6E789E6AA1B965F4));
    assert_true(bsattn_digest_mix(1, 1) != bsattn_digest_mix(1, 2));
}

static int remove_file(void **state)
{
    (void)state;
    return remove("report.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_record),
        cmocka_unit_test(test_json_has_spec_keys),
        cmocka_unit_test(test_csv),
        cmocka_unit_test(test_report_file),
        cmocka_unit_test(test_report_file_keeps_earlier),
        cmocka_unit_test(test_report_file_failures),
        cmocka_unit_test(test_report_file_device),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_table_check),
        cmocka_unit_test(test_mask_text_exact),
        cmocka_unit_test(test_mask_text_lines),
        cmocka_unit_test(test_mask_grid),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_svg_exact),
        cmocka_unit_test(test_svg_size),
        cmocka_unit_test(test_digest_mix),
    };

    return cmocka_run_group_tests_name("report", tests, NULL, remove_file);
}
