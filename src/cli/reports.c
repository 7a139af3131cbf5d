/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/reports.h"

#include "report/csv.h"
#include "report/json.h"
#include "ring/context.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { WARNING_SIZE = 256 };

static bool is_standard_output(const char *path)
{
    return (path != NULL) && (strcmp(path, "-") == 0);
}

bsattn_status_t bsattn_reports_open(const bsattn_cli_t *cli, bsattn_reports_t *reports)
{
    const char *json = bsattn_options_text(cli->options, BSATTN_OPTION_JSON);
    const char *csv = bsattn_options_text(cli->options, BSATTN_OPTION_CSV);

    *reports = (bsattn_reports_t){0};
    if (!cli->speaks) {
        return BSATTN_OK;
    }
    reports->table = (is_standard_output(json) || is_standard_output(csv)) ? stderr : stdout;
    reports->commentary = !bsattn_options_flag(cli->options, BSATTN_OPTION_QUIET);
    if (json != NULL) {
        BSATTN_TRY(bsattn_report_file_open(json, &reports->json));
    }
    return (csv != NULL) ? bsattn_report_file_open(csv, &reports->csv) : BSATTN_OK;
}

static bsattn_status_t append(bsattn_report_file_t *file, bsattn_status_t status, char *line)
{
    if (status == BSATTN_OK) {
        status = bsattn_report_file_append(file, line);
        free(line);
    }
    return status;
}

static bsattn_status_t add_csv(bsattn_report_file_t *file, const bsattn_record_t *record)
{
    char *line = NULL;
    bsattn_status_t status;

    if (bsattn_report_file_is_empty(file)) {
        status = bsattn_csv_header(&line);
        BSATTN_TRY(append(file, status, line));
    }
    status = bsattn_csv_from_record(record, &line);
    return append(file, status, line);
}

bsattn_status_t bsattn_reports_add(bsattn_reports_t *reports, const bsattn_record_t *record)
{
    char *line = NULL;

    if (reports->json != NULL) {
        bsattn_status_t status = bsattn_json_from_record(record, &line);
        BSATTN_TRY(append(reports->json, status, line));
    }
    return (reports->csv != NULL) ? add_csv(reports->csv, record) : BSATTN_OK;
}

void bsattn_reports_close(bsattn_reports_t *reports)
{
    bsattn_report_file_close(reports->json);
    bsattn_report_file_close(reports->csv);
    *reports = (bsattn_reports_t){0};
}

void bsattn_warn_of_places(const bsattn_cli_t *cli, const bsattn_context_t *context)
{
    char warning[WARNING_SIZE];

    if (cli->speaks && !bsattn_options_flag(cli->options, BSATTN_OPTION_QUIET) &&
        bsattn_place_warning(context->seats, context->places, context->transport->ranks, warning,
                             sizeof(warning))) {
        (void)fprintf(stderr, "bsattn_ring: warning: %s\n", warning);
    }
}

void bsattn_progress(const bsattn_cli_t *cli, const char *format, ...)
{
    va_list args;

    if (!cli->speaks || !bsattn_options_flag(cli->options, BSATTN_OPTION_VERBOSE) ||
        bsattn_options_flag(cli->options, BSATTN_OPTION_QUIET)) {
        return;
    }
    (void)fputs("bsattn_ring: ", stderr);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
}
