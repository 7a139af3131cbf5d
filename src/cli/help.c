/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/help.h"

#include "base/text.h"
#include "cli/presets.h"
#include "report/columns.h"

#include <ctype.h>
#include <string.h>

enum { TEXT_SIZE = 256, OPTION_COLUMN = 34, LINE_WIDTH = 100 };

#define ALL_VERBS ((1u << BSATTN_VERB_COUNT) - 1u)

typedef struct example {
    bsattn_verb_t verb;
    const char *command;
    const char *what;
} example_t;

static const example_t examples[] = {
    {BSATTN_VERB_RUN, "bsattn_ring", "synthetic input on this machine, checked"},
    {BSATTN_VERB_RUN, "mpirun -np 4 bsattn_ring run --preset local --seq 32K --causal",
     "four ranks"},
    {BSATTN_VERB_RUN, "bsattn_ring run --transport loop --ranks 3 --seq 4K --check=all",
     "three ranks in one process, every row checked"},
    {BSATTN_VERB_RUN, "bsattn_ring run --q q.npy --k k.npy --v v.npy -o out.npy",
     "files in, file out"},
    {BSATTN_VERB_RUN, "bsattn_ring run --seq 8K --json run.json --csv run.csv",
     "records for other programs"},
    {BSATTN_VERB_PLAN, "bsattn_ring plan --ranks 64 --seq 8M --preset hierarchical_long",
     "what would it take"},
    {BSATTN_VERB_VERIFY, "bsattn_ring verify -n 20 --seed 7", "twenty random problems"},
    {BSATTN_VERB_VERIFY, "mpirun -np 3 bsattn_ring verify", "a hundred, on three ranks"},
    {BSATTN_VERB_MASK, "bsattn_ring mask --preset hierarchical_fine --seq 4K",
     "a picture in the terminal"},
    {BSATTN_VERB_MASK, "bsattn_ring mask --pattern 'local(window=512)' --causal --svg mask.svg",
     "a picture for a page"},
    {BSATTN_VERB_INFO, "bsattn_ring info", "what is this and where"},
};

enum { EXAMPLE_COUNT = sizeof(examples) / sizeof(examples[0]) };

/* ---------------------------------------------------------------------------------------- parts */

/* "-n, --iters N", "--check[=on|off|all|ROWS]" */
static void format_option(bsattn_option_t option, char *out, size_t size)
{
    const bsattn_option_spec_t *spec = bsattn_option_spec(option);
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, size);
    if (spec->letter != 0) {
        bsattn_strbuf_add(&buf, "-%c, ", spec->letter);
    }
    bsattn_strbuf_add(&buf, "--%s", spec->name);
    if (!bsattn_option_in_environment(option)) {
        return;
    }
    bsattn_strbuf_add(&buf, bsattn_option_is_flag(option) ? "[=%s]" : " %s", spec->accepted);
}

static bool has_default(bsattn_option_t option)
{
    return (bsattn_option_spec(option)->fallback[0] != '\0') &&
           bsattn_option_in_environment(option);
}

/* Words of text between first_column and the right margin; the cursor is at column `at`. */
static void print_wrapped(FILE *file, const char *text, size_t at, size_t first_column)
{
    while (*text != '\0') {
        size_t length = strcspn(text, " ");
        if ((at > first_column) && (at + 1 + length > LINE_WIDTH)) {
            (void)fprintf(file, "\n%*s", (int)first_column, "");
            at = first_column;
        } else if (at > first_column) {
            (void)fputc(' ', file);
            ++at;
        }
        (void)fprintf(file, "%.*s", (int)length, text);
        at += length;
        text += length + strspn(text + length, " ");
    }
    (void)fputc('\n', file);
}

static void print_option(bsattn_option_t option, FILE *file)
{
    const bsattn_option_spec_t *spec = bsattn_option_spec(option);
    char left[TEXT_SIZE];
    char right[2 * TEXT_SIZE];
    bsattn_strbuf_t buf;

    format_option(option, left, sizeof(left));
    bsattn_strbuf_init(&buf, right, sizeof(right));
    bsattn_strbuf_add(&buf, "%s", spec->help);
    if (has_default(option)) {
        bsattn_strbuf_add(&buf, " [%s]", spec->fallback);
    }
    if (strlen(left) + 4 > OPTION_COLUMN) {
        (void)fprintf(file, "  %s\n%*s", left, OPTION_COLUMN, "");
    } else {
        (void)fprintf(file, "  %-*s", OPTION_COLUMN - 2, left);
    }
    print_wrapped(file, right, OPTION_COLUMN, OPTION_COLUMN);
}

static bool in_group(int option, int group, unsigned verbs)
{
    const bsattn_option_spec_t *spec = bsattn_option_spec((bsattn_option_t)option);

    return ((int)spec->group == group) && ((spec->verbs & verbs) != 0);
}

static void print_options(unsigned verbs, FILE *file)
{
    for (int group = 0; group < BSATTN_GROUP_COUNT; ++group) {
        bool titled = false;
        for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
            if (!in_group(i, group, verbs)) {
                continue;
            }
            if (!titled) {
                (void)fprintf(file, "\n%s options [default]:\n",
                              bsattn_group_name((bsattn_group_t)group));
                titled = true;
            }
            print_option((bsattn_option_t)i, file);
        }
    }
}

static void print_examples(unsigned verbs, FILE *file)
{
    (void)fprintf(file, "\nexamples:\n");
    for (size_t i = 0; i < EXAMPLE_COUNT; ++i) {
        if ((verbs & (1u << examples[i].verb)) != 0) {
            (void)fprintf(file, "  # %s\n  %s\n", examples[i].what, examples[i].command);
        }
    }
}

static void print_presets(FILE *file)
{
    char list[TEXT_SIZE];

    (void)fprintf(file, "\npresets:\n  ");
    print_wrapped(file, bsattn_preset_list(list, sizeof(list)), 2, 2);
}

static void print_places(FILE *file)
{
    (void)fprintf(
        file,
        "\nEvery option can also be given as the environment variable BSATTN_<NAME> (kv-heads:\n"
        "BSATTN_KV_HEADS) or in a config file as name = value under its group's [section]. The "
        "command\n"
        "line wins over the environment, the environment over the file. K, M, G and T are binary.\n"
        "OMP_NUM_THREADS is what auto threads means where it is set. BSATTN_ISA=generic, avx2, "
        "avx512\n"
        "or amx takes the kernels of that instruction set, BSATTN_CUDA_KERNEL=sm90, sm80 or plain\n"
        "that GPU kernel. BSATTN_MPI_STAGED=1 sends through pinned memory, BSATTN_NCCL_MODE=put "
        "by\n"
        "one-sided puts.\n");
}

static void print_exit_codes(FILE *file)
{
    (void)fprintf(file, "\nexit codes:\n");
#define EXIT_CODE(_name, _value, _text) (void)fprintf(file, "  %-5d %s\n", (_value), (_text));
    BSATTN_STATUS_LIST(EXIT_CODE)
#undef EXIT_CODE
}

/* ----------------------------------------------------------------------------------------- help */

void bsattn_help_print(FILE *file)
{
    (void)fprintf(
        file,
        "bsattn_ring %s: distributed attention over very long sequences with block-sparse "
        "masks\n\n"
        "usage: bsattn_ring [VERB] [OPTIONS]\n"
        "       bsattn_ring VERB --help\n\n"
        "verbs [run]:\n",
        bsattn_version());
    for (int i = 0; i < BSATTN_VERB_COUNT; ++i) {
        (void)fprintf(file, "  %-10s%s\n", bsattn_verb_name((bsattn_verb_t)i),
                      bsattn_verb_help_line((bsattn_verb_t)i));
    }
    print_options(ALL_VERBS, file);
    print_presets(file);
    print_places(file);
    print_examples(ALL_VERBS, file);
    print_exit_codes(file);
}

void bsattn_help_print_verb(bsattn_verb_t verb, FILE *file)
{
    if (verb == BSATTN_VERB_HELP) {
        bsattn_help_print(file);
        return;
    }
    (void)fprintf(file, "bsattn_ring %s: %s\n\nusage: bsattn_ring %s [OPTIONS]\n",
                  bsattn_verb_name(verb), bsattn_verb_help_line(verb), bsattn_verb_name(verb));
    print_options(1u << verb, file);
    if (in_group(BSATTN_OPTION_PRESET, BSATTN_GROUP_PROBLEM, 1u << verb)) {
        print_presets(file);
    }
    print_examples(1u << verb, file);
}

/* ------------------------------------------------------------------------------------- markdown */

/* Table cells must not hold a bare '|'. */
static void print_cell(FILE *file, const char *text)
{
    for (; *text != '\0'; ++text) {
        (void)fprintf(file, (*text == '|') ? "\\%c" : "%c", *text);
    }
}

static void print_markdown(FILE *file)
{
    char text[TEXT_SIZE];

    for (int group = 0; group < BSATTN_GROUP_COUNT; ++group) {
        (void)fprintf(file, "%s| %s | default | verbs | |\n|---|---|---|---|\n",
                      (group > 0) ? "\n" : "", bsattn_group_name((bsattn_group_t)group));
        for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
            const bsattn_option_spec_t *spec = bsattn_option_spec((bsattn_option_t)i);
            if (!in_group(i, group, ALL_VERBS)) {
                continue;
            }
            format_option((bsattn_option_t)i, text, sizeof(text));
            (void)fprintf(file, "| `");
            print_cell(file, text);
            (void)fprintf(file, "` | %s | %s | ",
                          has_default((bsattn_option_t)i) ? spec->fallback : "",
                          bsattn_verb_list(spec->verbs, text, sizeof(text)));
            print_cell(file, spec->help);
            (void)fprintf(file, " |\n");
        }
    }
}

/* ------------------------------------------------------------------------------------------ man */

/* In roff a '-' is a hyphen, a '\' an escape, and a line that begins with '.' or ''' a request. */
static void print_roff(FILE *file, const char *text)
{
    if ((*text == '.') || (*text == '\'')) {
        (void)fputs("\\&", file);
    }
    for (; *text != '\0'; ++text) {
        if (*text == '-') {
            (void)fputs("\\-", file);
        } else if (*text == '\\') {
            (void)fputs("\\e", file);
        } else {
            (void)fputc(*text, file);
        }
    }
}

static void print_man_entry(FILE *file, const char *term, const char *text)
{
    (void)fputs(".TP\n.B ", file);
    print_roff(file, term);
    (void)fputs("\n", file);
    print_roff(file, text);
    (void)fputs("\n", file);
}

static void print_man_options(FILE *file)
{
    char text[TEXT_SIZE];
    char help[2 * TEXT_SIZE];
    bsattn_strbuf_t buf;

    for (int group = 0; group < BSATTN_GROUP_COUNT; ++group) {
        (void)fprintf(file, ".SS %s\n", bsattn_group_name((bsattn_group_t)group));
        for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
            const bsattn_option_spec_t *spec = bsattn_option_spec((bsattn_option_t)i);
            if (!in_group(i, group, ALL_VERBS)) {
                continue;
            }
            bsattn_strbuf_init(&buf, help, sizeof(help));
            bsattn_strbuf_add(&buf, "%s", spec->help);
            if (has_default((bsattn_option_t)i)) {
                bsattn_strbuf_add(&buf, ". Default: %s", spec->fallback);
            }
            format_option((bsattn_option_t)i, text, sizeof(text));
            print_man_entry(file, text, help);
        }
    }
}

static void print_man(FILE *file)
{
    (void)fprintf(
        file,
        ".TH BSATTN_RING 1 \"\" \"bsattn_ring %s\" \"User Commands\"\n"
        ".SH NAME\nbsattn_ring \\- distributed attention over very long sequences with "
        "block\\-sparse masks\n"
        ".SH SYNOPSIS\n.B bsattn_ring\n[VERB] [OPTIONS]\n.SH VERBS\nWithout a verb: run.\n",
        bsattn_version());
    for (int i = 0; i < BSATTN_VERB_COUNT; ++i) {
        print_man_entry(file, bsattn_verb_name((bsattn_verb_t)i),
                        bsattn_verb_help_line((bsattn_verb_t)i));
    }
    (void)fputs(".SH OPTIONS\nThe command line wins over the environment, the environment over the "
                "config file. K, M, G and T are binary.\n",
                file);
    print_man_options(file);
    (void)fputs(
        ".SH ENVIRONMENT\n.TP\n.BI BSATTN_ <NAME>\nEvery option by its name, \\- written "
        "as _.\n.TP\n.B OMP_NUM_THREADS\nThreads of each rank where \\-\\-threads is auto.\n"
        ".TP\n.B BSATTN_ISA\nInstruction set of the kernels: generic, avx2, avx512 or amx.\n"
        ".TP\n.B BSATTN_CUDA_KERNEL\nGPU kernel: sm90, sm80 or plain.\n"
        ".TP\n.B BSATTN_MPI_STAGED\n1: the mpi transport goes through pinned memory.\n"
        ".TP\n.B BSATTN_NCCL_MODE\nsendrecv, or put: one-sided puts.\n"
        ".SH EXAMPLES\n",
        file);
    for (size_t i = 0; i < EXAMPLE_COUNT; ++i) {
        print_man_entry(file, examples[i].command, examples[i].what);
    }
    (void)fputs(".SH EXIT STATUS\n", file);
#define EXIT_ENTRY(_name, _value, _text) print_man_entry(file, #_value, (_text));
    BSATTN_STATUS_LIST(EXIT_ENTRY)
#undef EXIT_ENTRY
}

static void print_column(const bsattn_column_t *column, FILE *file)
{
    (void)fprintf(file, "| `%s%s%s` | %s | ", column->section, (column->section[0] != 0) ? "." : "",
                  column->key, column->unit);
    for (const char *c = column->description; *c != 0; ++c) {
        (void)fprintf(file, (*c == '|') ? "\\|" : "%c", *c);
    }
    (void)fprintf(file, " |\n");
}

static void print_columns(FILE *file)
{
    (void)fprintf(file, "| number | unit | |\n|---|---|---|\n");
    for (size_t i = 0; i < bsattn_column_count(); ++i) {
        print_column(bsattn_column(i), file);
    }
    for (size_t i = 0; i < bsattn_placement_column_count(); ++i) {
        print_column(bsattn_placement_column(i), file);
    }
    for (size_t i = 0; i < bsattn_rank_column_count(); ++i) {
        print_column(bsattn_rank_column(i), file);
    }
}

bsattn_status_t bsattn_help_print_topic(const char *topic, FILE *file)
{
    bsattn_verb_t verb;

    if (topic == NULL) {
        bsattn_help_print(file);
    } else if (strcmp(topic, "markdown") == 0) {
        print_markdown(file);
    } else if (strcmp(topic, "columns") == 0) {
        print_columns(file);
    } else if (strcmp(topic, "man") == 0) {
        print_man(file);
    } else {
        BSATTN_TRY(bsattn_verb_find(topic, &verb));
        bsattn_help_print_verb(verb, file);
    }
    return BSATTN_OK;
}
