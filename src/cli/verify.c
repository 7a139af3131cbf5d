/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/launch.h"
#include "cli/random_problem.h"
#include "cli/reports.h"
#include "cli/resolve.h"
#include "cli/trial.h"
#include "report/table.h"

#include <inttypes.h>
#include <stdlib.h>

enum { DEFAULT_PROBLEMS = 100, COMMAND_SIZE = 1024 };

typedef struct verify {
    const bsattn_cli_t *cli;
    const bsattn_options_t *options;
    bsattn_reports_t reports;
    bsattn_context_t *shared; /* of a job, or a transport that was named; NULL: each problem has its
                                 own loop ranks */
    bool titled;
    int64_t failed;
} verify_t;

/* One drawn problem and what it needs. */
typedef struct attempt {
    bsattn_random_problem_t drawn;
    bsattn_context_t *context;
    bsattn_pattern_t *pattern;
    bsattn_source_t *source;
    bsattn_trial_t trial;
    bsattn_record_t record;
} attempt_t;

static bsattn_status_t open_context(verify_t *verify, attempt_t *attempt)
{
    bsattn_context_params_t params = bsattn_resolve_context(verify->options, &verify->cli->job);

    if (verify->shared != NULL) {
        attempt->context = verify->shared;
        return BSATTN_OK;
    }
    params.transport = "loop";
    params.virtual_ranks = attempt->drawn.ranks;
    return bsattn_context_create(&params, &attempt->context);
}

static bsattn_status_t prepare(verify_t *verify, attempt_t *attempt)
{
    const bsattn_job_t *job = &verify->cli->job;
    const bsattn_problem_t *problem = &attempt->drawn.problem;
    bsattn_status_t status;

    BSATTN_TRY(bsattn_job_agree(job, open_context(verify, attempt)));
    status = bsattn_pattern_create(attempt->drawn.pattern, problem, &attempt->pattern);
    if (status == BSATTN_OK) {
        status = bsattn_pattern_stats(attempt->pattern, 1, &attempt->record.stats);
    }
    if (status == BSATTN_OK) {
        status = bsattn_source_open_synthetic(problem, attempt->drawn.seed, &attempt->source);
    }
    return bsattn_job_agree(job, status);
}

static bsattn_status_t compute(const bsattn_job_t *job, attempt_t *attempt)
{
    bsattn_trial_params_t params = {
        .job = job,
        .context = attempt->context,
        .problem = &attempt->drawn.problem,
        .pattern = attempt->pattern,
        .plan = {.layout = attempt->drawn.layout, .exchange = attempt->drawn.exchange},
        .source = attempt->source,
        .iterations = 1,
    };
    bsattn_record_t *record = &attempt->record;

    BSATTN_TRY(bsattn_trial_create(&params, &attempt->trial));
    bsattn_trial_describe(&attempt->trial, record);
    BSATTN_TRY(bsattn_trial_poison(&attempt->trial));
    BSATTN_TRY(bsattn_trial_execute(&attempt->trial, 0));
    BSATTN_TRY(bsattn_trial_check(&attempt->trial, 0, attempt->drawn.seed, &record->check));
    record->status = record->check.passed ? "ok" : "failed";
    return bsattn_trial_gather(&attempt->trial, record);
}

static bsattn_status_t tell(verify_t *verify, const bsattn_record_t *record)
{
    bsattn_reports_t *reports = &verify->reports;

    if (reports->commentary && !verify->titled) {
        bsattn_table_job(record, reports->table);
        bsattn_table_header(reports->table);
    }
    verify->titled = true;
    if (reports->table != NULL) {
        bsattn_table_row(record, reports->table);
    }
    return bsattn_job_agree(&verify->cli->job, bsattn_reports_add(reports, record));
}

static void tell_command(const verify_t *verify, const attempt_t *attempt)
{
    char command[COMMAND_SIZE];
    bsattn_context_info_t info;

    if (verify->cli->speaks) {
        bsattn_context_info(attempt->context, &info);
        (void)fprintf(
            stderr, "bsattn_ring: to see this again: %s\n",
            bsattn_random_problem_command(&attempt->drawn, &info, command, sizeof(command)));
    }
}

static void close_attempt(const verify_t *verify, attempt_t *attempt)
{
    bsattn_trial_destroy(&attempt->trial);
    bsattn_pattern_destroy(attempt->pattern);
    bsattn_source_close(attempt->source);
    if (verify->shared == NULL) {
        bsattn_context_destroy(attempt->context);
    }
}

static bsattn_status_t do_problem(verify_t *verify, int64_t index)
{
    uint64_t seed = (uint64_t)bsattn_options_int(verify->options, BSATTN_OPTION_SEED);
    int64_t ranks = bsattn_options_int(verify->options, BSATTN_OPTION_RANKS);
    attempt_t attempt = {.context = NULL};
    bsattn_status_t status;

    bsattn_record_init(&attempt.record);
    bsattn_random_problem_draw(seed, index, &attempt.drawn);
    attempt.drawn.ranks = (ranks > 0) ? (int)ranks : attempt.drawn.ranks;
    attempt.record.verb = "verify";
    attempt.record.pattern = attempt.drawn.pattern;
    attempt.record.seed = (int64_t)attempt.drawn.seed;
    attempt.record.launcher = bsattn_launch_name(getenv);
    status = prepare(verify, &attempt);
    if (status == BSATTN_OK) {
        status = compute(&verify->cli->job, &attempt);
    }
    if ((status == BSATTN_OK) && !attempt.record.check.passed) {
        ++verify->failed;
    }
    if ((status == BSATTN_OK) ? !attempt.record.check.passed
                              : (status != BSATTN_ERR_ENVIRONMENT) && (attempt.context != NULL)) {
        tell_command(verify, &attempt);
    }
    if (status == BSATTN_OK) {
        status = tell(verify, &attempt.record);
    }
    close_attempt(verify, &attempt);
    return status;
}

static bsattn_status_t open_shared(verify_t *verify)
{
    bsattn_context_params_t params = bsattn_resolve_context(verify->options, &verify->cli->job);

    if ((verify->cli->job.size == 1) && !bsattn_resolve_names_transport(verify->options)) {
        return BSATTN_OK;
    }
    BSATTN_TRY(bsattn_context_create(&params, &verify->shared));
    bsattn_warn_of_places(verify->cli, verify->shared);
    return BSATTN_OK;
}

static bsattn_status_t do_problems(verify_t *verify)
{
    int64_t asked = bsattn_options_int(verify->options, BSATTN_OPTION_ITERS);
    int64_t count = (asked > 0) ? asked : DEFAULT_PROBLEMS;
    const bsattn_job_t *job = &verify->cli->job;

    BSATTN_TRY(bsattn_job_agree(job, bsattn_reports_open(verify->cli, &verify->reports)));
    BSATTN_TRY(bsattn_job_agree(job, open_shared(verify)));
    for (int64_t index = 0; index < count; ++index) {
        BSATTN_TRY(do_problem(verify, index));
    }
    if (verify->failed > 0) {
        return bsattn_fail(BSATTN_ERR_RESULT,
                           "%" PRId64 " of %" PRId64 " problems are outside their tolerance",
                           verify->failed, count);
    }
    if (verify->reports.commentary) {
        (void)fprintf(verify->reports.table, "# %" PRId64 " problems, all within their tolerance\n",
                      count);
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_verb_verify(const bsattn_cli_t *cli)
{
    verify_t verify = {.cli = cli, .options = cli->options};
    bsattn_status_t status = do_problems(&verify);

    bsattn_context_destroy(verify.shared);
    bsattn_reports_close(&verify.reports);
    return status;
}
