/* SPDX-License-Identifier: Apache-2.0 */
#include "report/table.h"

#include "base/text.h"
#include "report/columns.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { WORD_SIZE = 256, BYTES_SIZE = 32 };

/* A column of the table: one of the columns of a record, made narrow. */
typedef struct table_column {
    const char *column; /* section.key */
    const char *heading;
    const char *unit;
    int width;    /* negative: left aligned */
    char style;   /* of a REAL: f fixed, e exponent, g either */
    int digits;   /* of a REAL */
    double scale; /* a REAL is multiplied by it */
} table_column_t;

static const table_column_t table_columns[] = {
    {"problem.seq_len", "seq", "tokens", 10, 0, 0, 1},
    {"problem.batch", "batch", "-", 5, 0, 0, 1},
    {"problem.heads_q", "Hq", "-", 4, 0, 0, 1},
    {"problem.heads_kv", "Hk", "-", 4, 0, 0, 1},
    {"problem.head_dim", "D", "-", 4, 0, 0, 1},
    {"problem.dtype", "type", "-", 5, 0, 0, 1},
    {"problem.block", "B", "tokens", 6, 0, 0, 1},
    {"problem.causal", "causal", "-", 6, 0, 0, 1},
    {"job.ranks", "ranks", "-", 5, 0, 0, 1},
    {"plan.layout", "layout", "-", 10, 0, 0, 1},
    {"problem.density_token", "density", "%", 8, 'f', 3, 100},
    {"time_ms.total.median", "time", "ms", 10, 'f', 3, 1},
    {"time_ms.attend.median", "attend", "ms", 10, 'f', 3, 1},
    {"time_ms.exchange.median", "exchange", "ms", 10, 'f', 3, 1},
    {"time_ms.exposed.median", "exposed", "ms", 10, 'f', 3, 1},
    {"rate.tflops", "rate", "GFLOP/s", 9, 'f', 2, 1e3},
    {"plan.bytes_sent_total", "sent", "bytes", 12, 0, 0, 1},
    {"check.error_out", "err_out", "-", 8, 'e', 1, 1},
    {"check.error_lse", "err_lse", "-", 8, 'e', 1, 1},
    {"check.passed", "check", "-", 5, 0, 0, 1},
    {"problem.pattern", "pattern", "-", -1, 0, 0, 1},
};

enum { TABLE_COLUMN_COUNT = sizeof(table_columns) / sizeof(table_columns[0]) };

/* A row's fields are separated by spaces and rows by newlines, so a text must not hold any; a
 * pattern means the same without. */
static bool separates(char letter)
{
    return isspace((unsigned char)letter) != 0;
}

static void add_packed(bsattn_strbuf_t *buf, const char *text)
{
    for (; *text != '\0'; ++text) {
        if (!separates(*text)) {
            bsattn_strbuf_add(buf, "%c", *text);
        }
    }
    if (buf->length == 0) {
        bsattn_strbuf_add(buf, "-");
    }
}

static void add_real(bsattn_strbuf_t *buf, const table_column_t *column, double real)
{
    real *= column->scale;
    if (!isfinite(real)) {
        bsattn_strbuf_add(buf, "%s", isnan(real) ? "-" : "inf");
    } else if (column->style == 'e') {
        bsattn_strbuf_add(buf, "%.*e", column->digits, real);
    } else {
        bsattn_strbuf_add(buf, "%.*f", column->digits, real);
    }
}

static void add_flag(bsattn_strbuf_t *buf, const bsattn_record_t *record, const bsattn_cell_t *cell)
{
    if (strcmp(cell->key, "passed") != 0) {
        bsattn_strbuf_add(buf, "%s", (cell->integer != 0) ? "yes" : "no");
    } else if (record->check.rows < 0) {
        bsattn_strbuf_add(buf, "-");
    } else {
        bsattn_strbuf_add(buf, "%s", (cell->integer != 0) ? "PASS" : "FAIL");
    }
}

/* A pattern may be longer than any fixed buffer; it is the last field and printed in pieces. */
static void print_text(FILE *file, const char *text, int width)
{
    char word[WORD_SIZE];
    bsattn_strbuf_t buf;

    if (width >= 0) {
        bsattn_strbuf_init(&buf, word, sizeof(word));
        add_packed(&buf, text);
        (void)fprintf(file, "%*s", width, word);
        return;
    }
    (void)fputs((*text == '\0') ? "-" : "", file);
    for (; *text != '\0'; ++text) {
        if (!separates(*text)) {
            (void)fputc(*text, file);
        }
    }
}

static void print_field(const bsattn_record_t *record, const table_column_t *column, FILE *file)
{
    bsattn_cell_t cell = bsattn_record_cell(record, bsattn_column_find(column->column));
    char word[WORD_SIZE];
    bsattn_strbuf_t buf;

    if (cell.kind == BSATTN_CELL_TEXT) {
        print_text(file, cell.text, column->width);
        return;
    }
    bsattn_strbuf_init(&buf, word, sizeof(word));
    if (cell.kind == BSATTN_CELL_INT) {
        bsattn_strbuf_add(&buf, "%" PRId64, cell.integer);
    } else if (cell.kind == BSATTN_CELL_REAL) {
        add_real(&buf, column, cell.real);
    } else {
        add_flag(&buf, record, &cell);
    }
    (void)fprintf(file, "%*s", column->width, word);
}

void bsattn_table_header(FILE *file)
{
    /* The first column gives two characters to the '#'. */
    for (int line = 0; line < 2; ++line) {
        for (size_t i = 0; i < TABLE_COLUMN_COUNT; ++i) {
            const table_column_t *column = &table_columns[i];
            const char *text = (line == 0) ? column->heading : column->unit;
            (void)fprintf(file, (i == 0) ? "# %*s" : " %*s", column->width, text);
        }
        (void)fputc('\n', file);
    }
    (void)fflush(file);
}

void bsattn_table_row(const bsattn_record_t *record, FILE *file)
{
    for (size_t i = 0; i < TABLE_COLUMN_COUNT; ++i) {
        (void)fputs((i == 0) ? "  " : " ", file);
        print_field(record, &table_columns[i], file);
    }
    (void)fputc('\n', file);
    (void)fflush(file);
}

/* ----------------------------------------------------------------------------------- commentary */

static const char *plural(int64_t count)
{
    return (count == 1) ? "" : "s";
}

static void print_ranks(const bsattn_record_t *record, FILE *file)
{
    if (record->placement == NULL) {
        return;
    }
    if ((record->ranks > 1) || (record->placement[0].pci[0] != '\0')) {
        (void)fprintf(file, "# placement  rank 0: %s\n", record->placement[0].decided);
    }
    (void)fprintf(file, "# %6s  %-16s %-12s %s\n", "rank", "host", "cpus", "device");
    for (int rank = 0; rank < record->ranks; ++rank) {
        const bsattn_placement_t *place = &record->placement[rank];
        (void)fprintf(file, "# %6d  %-16s %-12s %s%s%s\n", rank, place->host, place->cpus,
                      place->device, (place->pci[0] != '\0') ? " " : "", place->pci);
    }
}

void bsattn_table_job(const bsattn_record_t *record, FILE *file)
{
    (void)fprintf(file, "# bsattn_ring %s %s\n", bsattn_version(), record->verb);
    (void)fprintf(file, "# job        %d rank%s on %d host%s, %d thread%s each, launcher %s\n",
                  record->ranks, plural(record->ranks), record->hosts, plural(record->hosts),
                  record->threads, plural(record->threads), record->launcher);
    (void)fprintf(file, "# transport  %s: %s\n", record->transport, record->transport_reason);
    (void)fprintf(file, "# backend    %s %s: %s\n", record->backend, record->backend_variant,
                  record->backend_reason);
}

static void print_problem(const bsattn_record_t *record, FILE *file)
{
    const bsattn_problem_t *problem = &record->problem;

    (void)fprintf(file,
                  "# problem    batch %" PRId64 ", seq %" PRId64
                  ", heads %d/%d, head_dim %d, %s, block %d, %s\n",
                  problem->batch, problem->seq_len, problem->heads_q, problem->heads_kv,
                  problem->head_dim, bsattn_dtype_name(problem->dtype), problem->block,
                  (problem->causal != 0) ? "causal" : "not causal");
    (void)fprintf(file, "# pattern    %s\n", record->pattern);
    (void)fprintf(file,
                  "# work       density %.4g %% of blocks, %.4g %% of tokens; %.4g GFLOP; %d head "
                  "class%s\n",
                  record->stats.density_block * 100.0, record->stats.density_token * 100.0,
                  record->stats.flops * 1e-9, record->stats.head_classes,
                  (record->stats.head_classes == 1) ? "" : "es");
}

static void print_plan(const bsattn_record_t *record, FILE *file)
{
    const bsattn_estimate_totals_t *plan = &record->plan;
    char sent[BYTES_SIZE];
    char needed[BYTES_SIZE];
    char memory[BYTES_SIZE];

    (void)fprintf(file,
                  "# plan       layout %s, exchange %s, %d step%s, %s sent (lower bound %s), "
                  "imbalance %.3f, at most %s a rank\n",
                  plan->layout, plan->exchange, plan->steps, plural(plan->steps),
                  bsattn_text_bytes(sent, sizeof(sent), (double)plan->bytes_sent),
                  bsattn_text_bytes(needed, sizeof(needed), (double)plan->bytes_needed),
                  plan->imbalance,
                  bsattn_text_bytes(memory, sizeof(memory), (double)plan->memory_max));
}

void bsattn_table_preamble(const bsattn_record_t *record, FILE *file)
{
    bsattn_table_job(record, file);
    print_problem(record, file);
    print_plan(record, file);
    print_ranks(record, file);
    (void)fflush(file);
}

/* ----------------------------------------------------------------------------------------- plan */

static void print_purpose(const char *name, const bsattn_spread_t *spread, FILE *file)
{
    char text[BYTES_SIZE];

    bsattn_text_bytes(text, sizeof(text), (double)spread->max);
    (void)fprintf(file, "  %-10s %16" PRId64 " %16" PRId64 " %16" PRId64 " %10.*s %s\n", name,
                  spread->min, spread->mean, spread->max, (int)strcspn(text, " "), text,
                  text + strcspn(text, " ") + 1);
}

static void print_memory(const bsattn_memory_record_t *memory, FILE *file)
{
    print_purpose("inputs", &memory->inputs, file);
    print_purpose("outputs", &memory->outputs, file);
    print_purpose("chunks", &memory->chunks, file);
    print_purpose("state", &memory->state, file);
    print_purpose("lists", &memory->lists, file);
    print_purpose("scratch", &memory->scratch, file);
    print_purpose("staging", &memory->staging, file);
    print_purpose("libraries", &memory->libraries, file);
    print_purpose("total", &memory->total, file);
    print_purpose("host", &memory->host, file);
}

void bsattn_table_plan(const bsattn_record_t *record, bool commentary, FILE *file)
{
    const bsattn_estimate_totals_t *plan = &record->plan;

    if (commentary) {
        (void)fprintf(file, "# bsattn_ring %s plan\n# job        %d rank%s, %d thread%s each\n",
                      bsattn_version(), record->ranks, plural(record->ranks), record->threads,
                      plural(record->threads));
        print_problem(record, file);
        print_plan(record, file);
        (void)fprintf(file,
                      "# bytes      %" PRId64 " sent in one execute, lower bound %" PRId64 "\n",
                      plan->bytes_sent, plan->bytes_needed);
        (void)fprintf(file, "# time       %.3f ms modelled (not measured), %.2f GFLOP/s\n",
                      plan->time_ms, record->stats.flops / (plan->time_ms * 1e6));
        (void)fprintf(file, "# memory of one rank on the %s, predicted, over the %d rank%s\n",
                      (strcmp(record->backend, "cuda") == 0) ? "GPU (and host)" : "host",
                      record->ranks, plural(record->ranks));
        (void)fprintf(file, "# %-10s %16s %16s %16s %10s\n", "purpose", "min", "mean", "max",
                      "max");
        (void)fprintf(file, "# %-10s %16s %16s %16s %10s\n", "-", "bytes", "bytes", "bytes", "-");
    }
    print_memory(&record->memory, file);
    (void)fflush(file);
}
