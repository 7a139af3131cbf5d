/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/launch.h"
#include "cli/reports.h"
#include "cli/resolve.h"
#include "report/table.h"

#include <stdlib.h>

static int plan_ranks(const bsattn_options_t *options)
{
    int64_t asked = bsattn_options_int(options, BSATTN_OPTION_RANKS);
    int launched = bsattn_launch_size(getenv);

    if (asked > 0) {
        return (int)asked;
    }
    return (launched > 0) ? launched : 1;
}

static bsattn_status_t make_plan(const bsattn_cli_t *cli, bsattn_pattern_t *pattern,
                                 bsattn_reports_t *reports, bsattn_record_t *record)
{
    bsattn_plan_params_t params = bsattn_resolve_plan(cli->options);
    bsattn_estimate_t *estimate;
    bsattn_status_t status;

    BSATTN_TRY(bsattn_pattern_stats(pattern, record->threads, &record->stats));
    BSATTN_TRY(bsattn_estimate_create(&record->problem, pattern, record->ranks, record->threads,
                                      &params, &estimate));
    bsattn_record_set_estimate(record, estimate);
    bsattn_estimate_destroy(estimate);
    if (reports->table != NULL) {
        bsattn_table_plan(record, reports->commentary, reports->table);
    }
    status = bsattn_reports_add(reports, record);
    return status;
}

bsattn_status_t bsattn_verb_plan(const bsattn_cli_t *cli)
{
    bsattn_record_t record;
    bsattn_reports_t reports;
    bsattn_backend_choice_t choice;
    bsattn_pattern_t *pattern = NULL;
    bsattn_status_t status;

    bsattn_record_init(&record);
    record.verb = "plan";
    record.pattern = bsattn_options_text(cli->options, BSATTN_OPTION_PATTERN);
    record.ranks = plan_ranks(cli->options);
    record.threads = bsattn_resolve_threads(cli->options);
    record.launcher = bsattn_launch_name(getenv);
    BSATTN_TRY(bsattn_resolve_backend(cli->options, &choice));
    record.backend = choice.cuda ? "cuda" : "cpu";
    record.backend_reason = choice.reason;
    BSATTN_TRY(bsattn_resolve_problem(cli->options, NULL, &record.problem));
    status = bsattn_reports_open(cli, &reports);
    if (status == BSATTN_OK) {
        status = bsattn_pattern_create(record.pattern, &record.problem, &pattern);
    }
    if (status == BSATTN_OK) {
        status = make_plan(cli, pattern, &reports, &record);
    }
    bsattn_pattern_destroy(pattern);
    bsattn_reports_close(&reports);
    return status;
}
