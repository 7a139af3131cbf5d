/* SPDX-License-Identifier: Apache-2.0 */
#include "report/csv.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Quoted where a comma, a quote or a line end would be misread. */
static void write_text(FILE *stream, const char *text)
{
    if (strpbrk(text, ",\"\r\n") == NULL) {
        (void)fputs(text, stream);
        return;
    }
    (void)fputc('"', stream);
    for (; *text != '\0'; ++text) {
        if (*text == '"') {
            (void)fputc('"', stream);
        }
        (void)fputc(*text, stream);
    }
    (void)fputc('"', stream);
}

static void write_cell(FILE *stream, const bsattn_cell_t *cell)
{
    switch (cell->kind) {
    case BSATTN_CELL_TEXT:
        write_text(stream, cell->text);
        break;
    case BSATTN_CELL_INT:
    case BSATTN_CELL_FLAG:
        (void)fprintf(stream, "%" PRId64, cell->integer);
        break;
    case BSATTN_CELL_REAL:
        if (isfinite(cell->real)) {
            (void)fprintf(stream, "%.15g", cell->real);
        }
        break;
    }
}

/* Writes the header without a record. */
static bsattn_status_t write_line(const bsattn_record_t *record, char **line_p)
{
    char *line = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&line, &size);
    bool failed;

    if (stream == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for a record");
    }
    for (size_t i = 0; i < bsattn_column_count(); ++i) {
        const bsattn_column_t *column = bsattn_column(i);
        (void)fputs((i > 0) ? "," : "", stream);
        if (record != NULL) {
            bsattn_cell_t cell = bsattn_record_cell(record, i);
            write_cell(stream, &cell);
        } else {
            (void)fprintf(stream, "%s%s%s", column->section,
                          (column->section[0] != '\0') ? "." : "", column->key);
        }
    }
    (void)fputc('\n', stream);
    failed = (ferror(stream) != 0);
    failed = (fclose(stream) != 0) || failed;
    if (failed) {
        free(line);
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for a record");
    }
    *line_p = line;
    return BSATTN_OK;
}

bsattn_status_t bsattn_csv_header(char **line_p)
{
    return write_line(NULL, line_p);
}

bsattn_status_t bsattn_csv_from_record(const bsattn_record_t *record, char **line_p)
{
    return write_line(record, line_p);
}
