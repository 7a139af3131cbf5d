/* SPDX-License-Identifier: Apache-2.0 */
/* cli: option, options, command_line, config, presets, launch, help, random_problem */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cli/config.h"
#include "cli/help.h"
#include "cli/launch.h"
#include "cli/options.h"
#include "cli/presets.h"
#include "cli/random_problem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARRAY_SIZE(_array) (sizeof(_array) / sizeof((_array)[0]))

enum { ARGS_MAX = 16 };

static char *const no_environment[] = {NULL};

/* What a command line is read into, and from. */
typedef struct fixture {
    bsattn_options_t options;
    bsattn_status_t status;
} fixture_t;

/* The arguments are separated by single spaces; '~' stands for a space inside one. */
static void read_line(fixture_t *fixture, const char *line, char *const *environment)
{
    char text[512];
    char *argv[ARGS_MAX] = {(char *)"bsattn_ring"};
    int argc = 1;

    (void)snprintf(text, sizeof(text), "%s", line);
    for (char *word = strtok(text, " "); word != NULL; word = strtok(NULL, " ")) {
        for (char *c = word; *c != '\0'; ++c) {
            *c = (*c == '~') ? ' ' : *c;
        }
        argv[argc++] = word;
    }
    fixture->status = bsattn_options_read(argc, argv, environment, &fixture->options);
}

static void gives(const char *line, bsattn_option_t option, const char *value, const char *where)
{
    fixture_t fixture;
    const char *text;

    read_line(&fixture, line, no_environment);
    assert_int_equal(fixture.status, BSATTN_OK);
    text = bsattn_options_text(&fixture.options, option);
    assert_string_equal((text != NULL) ? text : "", value);
    assert_string_equal(bsattn_options_where(&fixture.options, option), where);
    bsattn_options_free(&fixture.options);
}

static void refuses(const char *line, bsattn_status_t status, const char *message)
{
    fixture_t fixture;

    read_line(&fixture, line, no_environment);
    assert_int_equal(fixture.status, status);
    if (strstr(bsattn_last_error(), message) == NULL) {
        fail_msg("\"%s\" gave \"%s\", not \"%s\"", line, bsattn_last_error(), message);
    }
    bsattn_options_free(&fixture.options);
}

static void refuses_variable(const char *variable, const char *message)
{
    char *const environment[] = {(char *)"PATH=/bin", (char *)variable, NULL};
    fixture_t fixture;

    read_line(&fixture, "run", environment);
    assert_int_equal(fixture.status, BSATTN_ERR_INPUT);
    if (strstr(bsattn_last_error(), message) == NULL) {
        fail_msg("\"%s\" gave \"%s\", not \"%s\"", variable, bsattn_last_error(), message);
    }
    bsattn_options_free(&fixture.options);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void refuses_config(const char *text, const char *message)
{
    write_file("options.conf", text);
    refuses("run --config options.conf", BSATTN_ERR_INPUT, message);
}

/* ------------------------------------------------------------------------------------- defaults */

static void test_defaults(void **state)
{
    fixture_t fixture;

    (void)state;
    read_line(&fixture, "", no_environment);
    assert_int_equal(fixture.status, BSATTN_OK);
    assert_int_equal(fixture.options.verb, BSATTN_VERB_RUN);
    assert_int_equal(bsattn_options_int(&fixture.options, BSATTN_OPTION_SEQ), 16384);
    assert_int_equal(bsattn_options_int(&fixture.options, BSATTN_OPTION_BLOCK), 64);
    assert_int_equal(bsattn_options_int(&fixture.options, BSATTN_OPTION_KV_HEADS), 0);
    assert_int_equal(bsattn_options_int(&fixture.options, BSATTN_OPTION_CHECK), 64);
    assert_true(isnan(bsattn_options_real(&fixture.options, BSATTN_OPTION_SCALE)));
    assert_true(bsattn_options_real(&fixture.options, BSATTN_OPTION_TIMEOUT) == 300.0);
    assert_false(bsattn_options_flag(&fixture.options, BSATTN_OPTION_CAUSAL));
    assert_null(bsattn_options_text(&fixture.options, BSATTN_OPTION_OUT));
    assert_string_equal(bsattn_options_text(&fixture.options, BSATTN_OPTION_PATTERN),
                        "dilated(rates=1:2:4:8)");
    assert_false(bsattn_options_given(&fixture.options, BSATTN_OPTION_PATTERN));
    bsattn_options_free(&fixture.options);
}

/* Every default is a value that its own option accepts, every option stands in a verb, and no two
 * share a letter. */
static void test_list_is_sound(void **state)
{
    unsigned letters[256] = {0};

    (void)state;
    for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
        const bsattn_option_spec_t *spec = bsattn_option_spec((bsattn_option_t)i);
        bsattn_option_reading_t reading;
        if (spec->fallback[0] != '\0') {
            assert_int_equal(
                bsattn_option_read((bsattn_option_t)i, spec->fallback, "here", &reading),
                BSATTN_OK);
        }
        assert_int_not_equal(spec->verbs, 0);
        if (spec->letter != 0) {
            assert_int_equal(letters[(unsigned char)spec->letter]++, 0);
        }
    }
}

/* --------------------------------------------------------------------------------- command line */

static void test_command_line(void **state)
{
    (void)state;
    gives("run --seq 1M", BSATTN_OPTION_SEQ, "1M", "--seq");
    gives("run --seq=1M", BSATTN_OPTION_SEQ, "1M", "--seq");
    gives("--seq 1K run --seq 2K", BSATTN_OPTION_SEQ, "2K", "--seq");
    gives("-n3", BSATTN_OPTION_ITERS, "3", "-n");
    gives("run -n 3", BSATTN_OPTION_ITERS, "3", "-n");
    gives("run -o x.npy", BSATTN_OPTION_OUT, "x.npy", "-o");
    gives("run -qv", BSATTN_OPTION_VERBOSE, "on", "-v");
    gives("run --causal", BSATTN_OPTION_CAUSAL, "on", "--causal");
    gives("run --causal=off", BSATTN_OPTION_CAUSAL, "off", "--causal");
    gives("run --causal --seq 5", BSATTN_OPTION_SEQ, "5", "--seq");
    gives("run --check", BSATTN_OPTION_CHECK, "on", "--check");
    gives("run -c", BSATTN_OPTION_CHECK, "on", "-c");
    gives("run -c128", BSATTN_OPTION_CHECK, "128", "-c");
    gives("run --layout cyclic:4", BSATTN_OPTION_LAYOUT, "cyclic:4", "--layout");
    gives("run --out --seq", BSATTN_OPTION_OUT, "--seq", "--out");
}

static void test_command_line_failures(void **state)
{
    (void)state;
    refuses("run --se 4K", BSATTN_ERR_INPUT, "unknown option --se; did you mean --seq?");
    refuses("run --head 4", BSATTN_ERR_INPUT, "did you mean --heads?");
    refuses("run --verbos", BSATTN_ERR_INPUT, "did you mean --verbose?");
    refuses("run --patern=x", BSATTN_ERR_INPUT, "did you mean --pattern?");
    refuses("run --qqqqqqqqqqqq", BSATTN_ERR_INPUT, "see bsattn_ring --help");
    refuses("run --seq", BSATTN_ERR_INPUT, "--seq needs a value: a whole number");
    refuses("run -n", BSATTN_ERR_INPUT, "--iters needs a value");
    refuses("run -x", BSATTN_ERR_INPUT, "unknown option -x");
    refuses("run --seq 0", BSATTN_ERR_INPUT, "seq \"0\" (from --seq)");
    refuses("run --seq 1X", BSATTN_ERR_INPUT, "seq \"1X\" (from --seq)");
    refuses("run --seq -5", BSATTN_ERR_INPUT, "seq \"-5\"");
    refuses("run --head-dim 512", BSATTN_ERR_INPUT, "from 16 to 256");
    refuses("run --dtype f64", BSATTN_ERR_INPUT, "give auto, f32, f16, bf16");
    refuses("run --dtype bf61", BSATTN_ERR_INPUT, "did you mean \"bf16\"?");
    refuses("run --layout cyclic:0", BSATTN_ERR_INPUT, "cyclic[:K]");
    refuses("run --layout zigzag:2", BSATTN_ERR_INPUT, "did you mean \"zigzag\"?");
    refuses("run --causal=maybe", BSATTN_ERR_INPUT, "give on, off");
    refuses("run --check=-1", BSATTN_ERR_INPUT, "on, off, all or a number of rows");
    refuses("run --check 128", BSATTN_ERR_INPUT, "unexpected argument \"128\"");
    refuses("run --scale inf", BSATTN_ERR_INPUT, "scale \"inf\"");
    refuses("run --preset dilate", BSATTN_ERR_INPUT, "did you mean \"dilated\"?");
    refuses("sweep", BSATTN_ERR_INPUT, "the verbs are run, plan, verify, mask, info, help");
    refuses("plam", BSATTN_ERR_INPUT, "did you mean \"plan\"?");
    refuses("plan --svg x", BSATTN_ERR_INPUT, "it is an option of mask");
    refuses("run --config /nonexistent.conf", BSATTN_ERR_FILE, "/nonexistent.conf");
}

static void test_check_rows(void **state)
{
    static const struct {
        const char *line;
        int64_t rows;
    } cases[] = {{"--check", 64}, {"--check=off", -1}, {"--check=all", 0}, {"--check=2K", 2048}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); ++i) {
        fixture_t fixture;
        read_line(&fixture, cases[i].line, no_environment);
        assert_int_equal(fixture.status, BSATTN_OK);
        assert_int_equal(bsattn_options_int(&fixture.options, BSATTN_OPTION_CHECK), cases[i].rows);
        bsattn_options_free(&fixture.options);
    }
}

static void test_help_comes_first(void **state)
{
    char *const environment[] = {(char *)"BSATTN_NONSENSE=1", NULL};
    fixture_t fixture;

    (void)state;
    read_line(&fixture, "plan --help", environment);
    assert_int_equal(fixture.status, BSATTN_OK);
    assert_int_equal(fixture.options.verb, BSATTN_VERB_PLAN);
    bsattn_options_free(&fixture.options);
    read_line(&fixture, "help mask", environment);
    assert_int_equal(fixture.status, BSATTN_OK);
    assert_string_equal(fixture.options.topic, "mask");
    bsattn_options_free(&fixture.options);
}

/* ----------------------------------------------------------------------------------- precedence */

static void test_precedence(void **state)
{
    char *const environment[] = {(char *)"BSATTN_SEQ=2K",
                                 (char *)"BSATTN_KV_HEADS=2",
                                 (char *)"BSATTN_ISA=avx2",
                                 (char *)"BSATTN_CUDA_KERNEL=sm80",
                                 (char *)"BSATTN_MPI_STAGED=1",
                                 (char *)"BSATTN_NCCL_MODE=put",
                                 NULL};
    fixture_t fixture;

    (void)state;
    write_file("options.conf", "[problem]\nseq = 1K\nbatch = 3\nheads = 4\n");
    read_line(&fixture, "run --config options.conf --heads 16", environment);
    assert_int_equal(fixture.status, BSATTN_OK);
    assert_int_equal(bsattn_options_int(&fixture.options, BSATTN_OPTION_SEQ), 2048);
    assert_string_equal(bsattn_options_where(&fixture.options, BSATTN_OPTION_SEQ), "BSATTN_SEQ");
    assert_int_equal(bsattn_options_int(&fixture.options, BSATTN_OPTION_BATCH), 3);
    assert_string_equal(bsattn_options_where(&fixture.options, BSATTN_OPTION_BATCH),
                        "options.conf:3");
    assert_int_equal(bsattn_options_int(&fixture.options, BSATTN_OPTION_HEADS), 16);
    assert_int_equal(bsattn_options_int(&fixture.options, BSATTN_OPTION_KV_HEADS), 2);
    assert_int_equal(bsattn_options_int(&fixture.options, BSATTN_OPTION_ITERS), 0);
    bsattn_options_free(&fixture.options);
}

/* A value that is overridden must still be right. */
static void test_overridden_is_checked(void **state)
{
    (void)state;
    write_file("options.conf", "seq = nonsense\n");
    refuses("run --seq 4K --config options.conf", BSATTN_ERR_INPUT,
            "seq \"nonsense\" (from options.conf:1)");
}

static void test_config_from_environment(void **state)
{
    char *const environment[] = {(char *)"BSATTN_CONFIG=options.conf", NULL};
    fixture_t fixture;

    (void)state;
    write_file("options.conf", "[data]\nseed = 7\n");
    read_line(&fixture, "run", environment);
    assert_int_equal(fixture.status, BSATTN_OK);
    assert_int_equal(bsattn_options_int(&fixture.options, BSATTN_OPTION_SEED), 7);
    bsattn_options_free(&fixture.options);
}

static void test_environment_failures(void **state)
{
    (void)state;
    refuses_variable("BSATTN_SEK=1", "unknown environment variable BSATTN_SEK; did you mean "
                                     "BSATTN_SEQ?");
    refuses_variable("BSATTN_ISB=1", "did you mean BSATTN_ISA?");
    refuses_variable("BSATTN_SEQ=", "seq \"\" (from BSATTN_SEQ)");
    refuses_variable("BSATTN_CAUSAL=1", "causal \"1\" (from BSATTN_CAUSAL)");
    refuses_variable("BSATTN_HELP=on", "unknown environment variable BSATTN_HELP");
    refuses_variable("BSATTN_HEAD-DIM=64", "unknown environment variable BSATTN_HEAD-DIM");
}

/* --------------------------------------------------------------------------------------- config */

static void test_config_forms(void **state)
{
    fixture_t fixture;

    (void)state;
    write_file("options.conf", "\xEF\xBB\xBF# comment\r\n"
                               "; comment\r\n"
                               "[problem]\r\n"
                               "  seq=4K   # so long\r\n"
                               "\theads = 8\r\n"
                               "pattern = 0-3@local(window=256) ;\r\n"
                               "    4-7@local(window=512)+\r\n"
                               "    global(tokens=64)\r\n"
                               "\r\n"
                               "[measure]\r\n"
                               "  check = off");
    read_line(&fixture, "run --config options.conf", no_environment);
    if (fixture.status != BSATTN_OK) {
        fail_msg("%s", bsattn_last_error());
    }
    assert_int_equal(bsattn_options_int(&fixture.options, BSATTN_OPTION_SEQ), 4096);
    assert_int_equal(bsattn_options_int(&fixture.options, BSATTN_OPTION_HEADS), 8);
    assert_string_equal(bsattn_options_text(&fixture.options, BSATTN_OPTION_PATTERN),
                        "0-3@local(window=256);4-7@local(window=512)+global(tokens=64)");
    assert_string_equal(bsattn_options_where(&fixture.options, BSATTN_OPTION_PATTERN),
                        "options.conf:6");
    assert_int_equal(bsattn_options_int(&fixture.options, BSATTN_OPTION_CHECK), -1);
    bsattn_options_free(&fixture.options);
}

static void test_config_failures(void **state)
{
    char line[512] = "pattern = ";

    (void)state;
    refuses_config("[problem]\nsek = 4K\n",
                   "options.conf:2: unknown key \"sek\"; did you mean \"seq\"?");
    refuses_config("[problm]\nseq = 4K\n", "options.conf:2: unknown section [problm]");
    refuses_config("[ring]\nseq = 4K\n",
                   "options.conf:2: the key seq belongs in [problem], not in [ring]");
    refuses_config("seq = 4K\nbatch = 1\nseq = 8K\n",
                   "options.conf:3: the key seq was already given at options.conf:1");
    refuses_config("seq = 4Q\n", "seq \"4Q\" (from options.conf:1)");
    refuses_config("seq =\n", "seq \"\" (from options.conf:1)");
    refuses_config("seq = 4K ; comment\n", "seq \"4K; comment\"");
    refuses_config("seq 4K\n", "options.conf:1: neither a [section] nor a key = value line");
    refuses_config("[problem\nseq = 4K\n", "options.conf:1: neither");
    refuses_config("config = other.conf\n", "config cannot be set in a config file");
    refuses_config("help = on\n", "help cannot be set");
    memset(line + strlen(line), 'x', 200);
    refuses_config(line, "options.conf:1: the line is longer than 196 characters");
}

static void test_config_line_limit(void **state)
{
    char line[256];
    fixture_t fixture;

    (void)state;
    memset(line, 'x', sizeof(line));
    memcpy(line, "pattern = ", 10);
    line[BSATTN_CONFIG_LINE_MAX] = '\0';
    write_file("options.conf", line);
    read_line(&fixture, "run --config options.conf", no_environment);
    assert_int_equal(fixture.status, BSATTN_OK);
    assert_string_equal(bsattn_options_text(&fixture.options, BSATTN_OPTION_PATTERN), line + 10);
    bsattn_options_free(&fixture.options);
}

static bsattn_status_t take_nothing(void *arg, const bsattn_config_item_t *item)
{
    (void)arg;
    (void)item;
    return BSATTN_OK;
}

static void test_config_zero_byte(void **state)
{
    static const char text[] = "seq = 4K\n\0x = 1\n";

    (void)state;
    assert_int_equal(bsattn_config_parse("x", text, sizeof(text) - 1, take_nothing, NULL),
                     BSATTN_ERR_INPUT);
    assert_non_null(strstr(bsattn_last_error(), "x:2: a zero byte"));
    assert_int_equal(bsattn_config_parse("x", "", 0, take_nothing, NULL), BSATTN_OK);
    assert_int_equal(bsattn_config_parse("x", "\n\n\n", 3, take_nothing, NULL), BSATTN_OK);
}

/* -------------------------------------------------------------------------------------- presets */

static void test_presets(void **state)
{
    static const struct {
        const char *name;
        int block;
        const char *pattern;
    } table[] = {
        {"local", 64, "local(window=256)"},
        {"dilated", 64, "dilated(rates=1:2:4:8)"},
        {"global_local", 64, "local(window=256)+global(tokens=64)"},
        {"hierarchical_standard", 64, "hierarchical(levels=1:256/4:1024/16:all)"},
        {"hierarchical_fine", 64, "hierarchical(levels=1:128/2:512/8:2048/32:all)"},
        {"hierarchical_long", 64, "hierarchical(levels=1:512/8:4096/64:all)"},
        {"adaptive_standard", 64, "adaptive(keep=0.1,scorer=mean)"},
        {"ultra_sparse", 128, "dilated(rates=1:2:4)"},
        {"longnet", 64,
         "dilate(rate=1,segment=2048):dense | dilate(rate=2,segment=4096):dense | "
         "dilate(rate=4,segment=8192):dense"},
        {"dense", 128, "dense"},
    };

    (void)state;
    assert_int_equal(bsattn_preset_count(), ARRAY_SIZE(table));
    for (size_t i = 0; i < ARRAY_SIZE(table); ++i) {
        fixture_t fixture;
        char line[128];
        (void)snprintf(line, sizeof(line), "run --preset %s", table[i].name);
        read_line(&fixture, line, no_environment);
        assert_int_equal(fixture.status, BSATTN_OK);
        assert_int_equal(bsattn_options_int(&fixture.options, BSATTN_OPTION_BLOCK), table[i].block);
        assert_string_equal(bsattn_options_text(&fixture.options, BSATTN_OPTION_PATTERN),
                            table[i].pattern);
        bsattn_options_free(&fixture.options);
    }
}

static void test_preset_precedence(void **state)
{
    (void)state;
    write_file("options.conf", "block = 32\npattern = strided(stride=4)\n");
    gives("run --preset dense --block 16", BSATTN_OPTION_BLOCK, "16", "--block");
    gives("run --preset dense --block 16", BSATTN_OPTION_PATTERN, "dense",
          "preset dense (--preset)");
    gives("run --preset dense --config options.conf", BSATTN_OPTION_PATTERN, "dense",
          "preset dense (--preset)");
    gives("run --config options.conf", BSATTN_OPTION_PATTERN, "strided(stride=4)",
          "options.conf:2");
    write_file("options.conf", "preset = dense\nblock = 32\n");
    gives("run --config options.conf", BSATTN_OPTION_BLOCK, "32", "options.conf:2");
    gives("run --config options.conf", BSATTN_OPTION_PATTERN, "dense",
          "preset dense (options.conf:1)");
    gives("run --config options.conf --pattern sink(tokens=1)", BSATTN_OPTION_PATTERN,
          "sink(tokens=1)", "--pattern");
}

/* ------------------------------------------------------------------------------------- printing */

static char *print_to_text(const bsattn_options_t *options)
{
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);

    assert_non_null(stream);
    bsattn_options_print(options, stream);
    assert_int_equal(fclose(stream), 0);
    return text;
}

/* What --show-config prints is a config file that gives the same values. */
static void test_show_config_round_trip(void **state)
{
    fixture_t first;
    fixture_t second;
    char *printed;
    char *lines_first;
    char *lines_second;

    (void)state;
    read_line(&first,
              "run --seq 1M --pattern 0-3@dense;4-7@local(window=64)~|~dense --causal -n 5 --out "
              "x.npy --check=off",
              no_environment);
    assert_int_equal(first.status, BSATTN_OK);
    printed = print_to_text(&first.options);
    assert_non_null(strstr(printed, "# --seq\n"));
    assert_non_null(strstr(printed, "# default\n"));
    write_file("options.conf", printed);
    read_line(&second, "run --config options.conf", no_environment);
    if (second.status != BSATTN_OK) {
        fail_msg("%s", bsattn_last_error());
    }
    assert_int_equal(bsattn_options_lines(&first.options, &lines_first), BSATTN_OK);
    assert_int_equal(bsattn_options_lines(&second.options, &lines_second), BSATTN_OK);
    assert_string_equal(lines_first, lines_second);
    free(printed);
    free(lines_first);
    free(lines_second);
    bsattn_options_free(&first.options);
    bsattn_options_free(&second.options);
}

/* However long a value is, its last character counts where ranks are compared. */
static void test_lines_of_long_values(void **state)
{
    enum { LENGTH = 200000 };
    char *value = malloc(LENGTH + 1);
    fixture_t fixture;
    char *lines_first;
    char *lines_second;

    (void)state;
    assert_non_null(value);
    memset(value, 'x', LENGTH);
    value[LENGTH] = '\0';
    read_line(&fixture, "run", no_environment);
    assert_int_equal(fixture.status, BSATTN_OK);
    assert_int_equal(bsattn_options_set(&fixture.options, BSATTN_OPTION_PATTERN, value,
                                        BSATTN_ORIGIN_COMMAND_LINE, "--pattern"),
                     BSATTN_OK);
    assert_int_equal(bsattn_options_lines(&fixture.options, &lines_first), BSATTN_OK);
    value[LENGTH - 1] = 'y';
    assert_int_equal(bsattn_options_set(&fixture.options, BSATTN_OPTION_PATTERN, value,
                                        BSATTN_ORIGIN_COMMAND_LINE, "--pattern"),
                     BSATTN_OK);
    assert_int_equal(bsattn_options_lines(&fixture.options, &lines_second), BSATTN_OK);
    assert_true(strlen(lines_first) > LENGTH);
    assert_int_equal(strlen(lines_first), strlen(lines_second));
    assert_string_not_equal(lines_first, lines_second);
    assert_non_null(strstr(lines_second, "xy\n"));
    free(value);
    free(lines_first);
    free(lines_second);
    bsattn_options_free(&fixture.options);
}

static char *help_to_text(const char *topic)
{
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);

    assert_non_null(stream);
    assert_int_equal(bsattn_help_print_topic(topic, stream), BSATTN_OK);
    assert_int_equal(fclose(stream), 0);
    return text;
}

static void test_help(void **state)
{
    static const char *const topics[] = {NULL, "markdown", "man"};

    (void)state;
    for (size_t t = 0; t < ARRAY_SIZE(topics); ++t) {
        char *text = help_to_text(topics[t]);
        for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
            /* roff writes every '-' of a name as "\\-", so the man page is asked for the first part
             * only */
            char name[64];
            (void)snprintf(name, sizeof(name), "%s", bsattn_option_spec((bsattn_option_t)i)->name);
            name[strcspn(name, "-")] = '\0';
            assert_non_null(strstr(text, name));
        }
        free(text);
    }
    char *mask = help_to_text("mask");
    assert_non_null(strstr(mask, "--svg"));
    assert_null(strstr(mask, "--iters"));
    free(mask);
    assert_int_equal(bsattn_help_print_topic("nonsense", stdout), BSATTN_ERR_INPUT);
}

/* --------------------------------------------------------------------------------------- launch */

static const char *const *fake_variables; /* name, value, .., NULL */

static char *fake_getenv(const char *name)
{
    for (const char *const *entry = fake_variables; *entry != NULL; entry += 2) {
        if (strcmp(*entry, name) == 0) {
            return (char *)entry[1];
        }
    }
    return NULL;
}

static void test_launch(void **state)
{
    static const char *const alone[] = {NULL};
    static const char *const mpirun[] = {"OMPI_COMM_WORLD_RANK", "2", "OMPI_COMM_WORLD_SIZE", "4",
                                         NULL};
    static const char *const srun[] = {
        "SLURM_PROCID", "3", "SLURM_STEP_NUM_TASKS", "8", "SLURM_STEP_ID", "0", NULL};
    static const char *const one_inside[] = {
        "SLURM_NTASKS", "8", "OMPI_COMM_WORLD_SIZE", "1", "OMPI_COMM_WORLD_RANK", "0", NULL};
    static const char *const broken[] = {"PMI_RANK", "x", "PMI_SIZE", "-3", NULL};

    (void)state;
    fake_variables = alone;
    assert_int_equal(bsattn_launch_rank(fake_getenv), -1);
    assert_int_equal(bsattn_launch_size(fake_getenv), 0);
    assert_string_equal(bsattn_launch_name(fake_getenv), "none");
    assert_int_equal(bsattn_launch_check(fake_getenv, 1), BSATTN_OK);
    fake_variables = mpirun;
    assert_int_equal(bsattn_launch_rank(fake_getenv), 2);
    assert_int_equal(bsattn_launch_size(fake_getenv), 4);
    assert_string_equal(bsattn_launch_name(fake_getenv), "mpirun (Open MPI)");
    assert_int_equal(bsattn_launch_check(fake_getenv, 4), BSATTN_OK);
    assert_int_equal(bsattn_launch_check(fake_getenv, 1), BSATTN_ERR_ENVIRONMENT);
    assert_non_null(strstr(bsattn_last_error(), "launched as 4 singletons"));
    fake_variables = srun;
    assert_int_equal(bsattn_launch_rank(fake_getenv), 3);
    assert_string_equal(bsattn_launch_name(fake_getenv), "srun");
    assert_int_equal(bsattn_launch_check(fake_getenv, 1), BSATTN_ERR_ENVIRONMENT);
    assert_non_null(strstr(bsattn_last_error(), "srun --mpi=pmix"));
    fake_variables = one_inside;
    assert_int_equal(bsattn_launch_rank(fake_getenv), 0);
    assert_int_equal(bsattn_launch_check(fake_getenv, 1), BSATTN_OK);
    fake_variables = broken;
    assert_int_equal(bsattn_launch_rank(fake_getenv), -1);
    assert_int_equal(bsattn_launch_check(fake_getenv, 1), BSATTN_OK);
}

/* ------------------------------------------------------------------------------ random problems */

static void test_random_problems(void **state)
{
    bsattn_random_problem_t drawn;
    bsattn_context_info_t info = {
        .transport = "nccl", .backend = "cuda", .ranks = INT_MAX, .threads = INT_MAX};
    bsattn_random_problem_t again;
    char command[1024];

    (void)state;
    for (int64_t i = 0; i < 300; ++i) {
        bsattn_pattern_t *pattern;
        bsattn_random_problem_draw(5, i, &drawn);
        assert_int_equal(bsattn_problem_check(&drawn.problem), BSATTN_OK);
        if (bsattn_pattern_create(drawn.pattern, &drawn.problem, &pattern) != BSATTN_OK) {
            fail_msg("%s: %s", drawn.pattern, bsattn_last_error());
        }
        bsattn_pattern_destroy(pattern);
        assert_true((drawn.ranks >= 1) && (drawn.ranks <= 8));
        assert_true(strlen(bsattn_random_problem_command(&drawn, &info, command, sizeof(command))) +
                        1 <
                    sizeof(command));
    }
    bsattn_random_problem_draw(5, 299, &again);
    assert_string_equal(drawn.pattern, again.pattern);
    assert_true((drawn.seed == again.seed) && (drawn.problem.seq_len == again.problem.seq_len));
}

static int remove_file(void **state)
{
    (void)state;
    return remove("options.conf");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_list_is_sound),
        cmocka_unit_test(test_command_line),
        cmocka_unit_test(test_command_line_failures),
        cmocka_unit_test(test_check_rows),
        cmocka_unit_test(test_help_comes_first),
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_overridden_is_checked),
        cmocka_unit_test(test_config_from_environment),
        cmocka_unit_test(test_environment_failures),
        cmocka_unit_test(test_config_forms),
        cmocka_unit_test(test_config_failures),
        cmocka_unit_test(test_config_line_limit),
        cmocka_unit_test(test_config_zero_byte),
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_preset_precedence),
        cmocka_unit_test(test_show_config_round_trip),
        cmocka_unit_test(test_lines_of_long_values),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_launch),
        cmocka_unit_test(test_random_problems),
    };

    return cmocka_run_group_tests_name("options", tests, NULL, remove_file);
}
