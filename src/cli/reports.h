/* SPDX-License-Identifier: Apache-2.0 */
/** @file reports.h  Where a verb's records go: the table, and the files of --json and --csv. */
#ifndef BSATTN_CLI_REPORTS_H
#define BSATTN_CLI_REPORTS_H

#include "cli/verbs.h"
#include "report/record.h"
#include "report/report_file.h"

typedef struct bsattn_reports {
    FILE *table;                /**< standard output, or error if a file took that; NULL: silent */
    bool commentary;            /**< lines that begin with '#' are wanted; false where silent */
    bsattn_report_file_t *json; /**< NULL: not wanted here */
    bsattn_report_file_t *csv;
} bsattn_reports_t;

/** Find out whether the files can be written; nothing is written yet. Only the process that speaks
 *  opens any.
 *  @param reports  to be closed with bsattn_reports_close() whatever is returned
 *  @return BSATTN_OK, BSATTN_ERR_INPUT if two reports want the same file, BSATTN_ERR_FILE or
 *          BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_reports_open(const bsattn_cli_t *cli, bsattn_reports_t *reports);

/** Append a record to the files. @return BSATTN_OK, BSATTN_ERR_FILE or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_reports_add(bsattn_reports_t *reports, const bsattn_record_t *record);

void bsattn_reports_close(bsattn_reports_t *reports);

/** Warn, on standard error, of the first thing that is wrong with where the ranks of a context are:
 *  not with --quiet, and where this process speaks. */
void bsattn_warn_of_places(const bsattn_cli_t *cli, const bsattn_context_t *context);

/** Say what is being done, on standard error: with --verbose, not with --quiet, and where this
 *  process speaks. */
void bsattn_progress(const bsattn_cli_t *cli, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
