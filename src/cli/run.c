/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "cli/digest.h"
#include "cli/launch.h"
#include "cli/outputs.h"
#include "cli/reports.h"
#include "cli/resolve.h"
#include "cli/trial.h"
#include "report/table.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

enum { DEFAULT_ITERATIONS = 10 };

/* Everything a run makes, in the order it is made. */
typedef struct run {
    const bsattn_cli_t *cli;
    const bsattn_options_t *options;
    bsattn_source_t *source;
    bsattn_source_info_t info;
    bsattn_reports_t reports;
    bsattn_context_t *context;
    bsattn_pattern_t *pattern;
    bsattn_trial_t trial;
    bsattn_outputs_t outputs;
    bsattn_record_t record;
} run_t;

static int iterations(const bsattn_options_t *options)
{
    int64_t asked = bsattn_options_int(options, BSATTN_OPTION_ITERS);

    return (asked > 0) ? (int)asked : DEFAULT_ITERATIONS;
}

/* --------------------------------------------------------------------------------------- stages */

static bsattn_status_t open_files(run_t *run)
{
    const char *q = bsattn_options_text(run->options, BSATTN_OPTION_Q);
    const char *k = bsattn_options_text(run->options, BSATTN_OPTION_K);
    const char *v = bsattn_options_text(run->options, BSATTN_OPTION_V);

    if ((q == NULL) && (k == NULL) && (v == NULL)) {
        return BSATTN_OK;
    }
    if ((q == NULL) || (k == NULL) || (v == NULL)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "input files need all of q, k and v; %s is missing",
                           (q == NULL)   ? "q"
                           : (k == NULL) ? "k"
                                         : "v");
    }
    BSATTN_TRY(bsattn_source_open_files(&run->cli->job, q, k, v, &run->source));
    bsattn_source_info(run->source, &run->info);
    return BSATTN_OK;
}

static bsattn_status_t describe_problem(run_t *run)
{
    bsattn_problem_t *problem = &run->record.problem;
    uint64_t seed = (uint64_t)bsattn_options_int(run->options, BSATTN_OPTION_SEED);

    BSATTN_TRY(
        bsattn_resolve_problem(run->options, (run->source != NULL) ? &run->info : NULL, problem));
    if (run->source != NULL) {
        return bsattn_source_bind(run->source, problem);
    }
    run->info.batched = true;
    return bsattn_source_open_synthetic(problem, seed, &run->source);
}

static bsattn_status_t open_reports(run_t *run)
{
    return bsattn_reports_open(run->cli, &run->reports);
}

static bsattn_status_t make_context(run_t *run)
{
    bsattn_context_params_t params = bsattn_resolve_context(run->options, &run->cli->job);

    BSATTN_TRY(bsattn_context_create(&params, &run->context));
    bsattn_warn_of_places(run->cli, run->context);
    return BSATTN_OK;
}

static bsattn_status_t make_pattern(run_t *run)
{
    return bsattn_pattern_create(run->record.pattern, &run->record.problem, &run->pattern);
}

static bsattn_status_t make_trial(run_t *run)
{
    bsattn_trial_params_t params = {
        .job = &run->cli->job,
        .context = run->context,
        .problem = &run->record.problem,
        .pattern = run->pattern,
        .plan = bsattn_resolve_plan(run->options),
        .source = run->source,
        .iterations = iterations(run->options),
    };

    bsattn_progress(run->cli, "planning, allocating and loading");
    BSATTN_TRY(bsattn_trial_create(&params, &run->trial));
    BSATTN_TRY(bsattn_pattern_stats(run->pattern, run->trial.info.threads, &run->record.stats));
    bsattn_trial_describe(&run->trial, &run->record);
    return BSATTN_OK;
}

static bsattn_status_t open_outputs(run_t *run)
{
    bsattn_outputs_params_t params = {
        .job = &run->cli->job,
        .out_path = bsattn_options_text(run->options, BSATTN_OPTION_OUT),
        .lse_path = bsattn_options_text(run->options, BSATTN_OPTION_LSE),
        .problem = &run->record.problem,
        .batched = run->info.batched,
    };

    return bsattn_outputs_open(&params, &run->outputs);
}

static bsattn_status_t print_preamble(run_t *run)
{
    if (run->reports.commentary) {
        bsattn_table_preamble(&run->record, run->reports.table);
        bsattn_table_header(run->reports.table);
    }
    return BSATTN_OK;
}

static bsattn_status_t warm_up(run_t *run)
{
    int64_t count = bsattn_options_int(run->options, BSATTN_OPTION_WARMUP);

    bsattn_progress(run->cli, "%" PRId64 " iterations to warm up", count);
    BSATTN_TRY(bsattn_trial_poison(&run->trial));
    for (int64_t i = 0; i < count; ++i) {
        BSATTN_TRY(bsattn_trial_execute(&run->trial, -1));
    }
    return BSATTN_OK;
}

static bsattn_status_t measure(run_t *run)
{
    bsattn_progress(run->cli, "%d timed iterations", run->trial.iterations);
    BSATTN_TRY(bsattn_trial_poison(&run->trial));
    for (int i = 0; i < run->trial.iterations; ++i) {
        BSATTN_TRY(bsattn_trial_execute(&run->trial, i));
        bsattn_progress(run->cli, "iteration %d: %.3f ms on this rank", i,
                        run->trial.timings[i].total_ms);
    }
    return bsattn_trial_gather(&run->trial, &run->record);
}

static bsattn_status_t check(run_t *run)
{
    int64_t rows = bsattn_options_int(run->options, BSATTN_OPTION_CHECK);
    uint64_t seed = (uint64_t)bsattn_options_int(run->options, BSATTN_OPTION_SEED);

    if (rows < 0) {
        return BSATTN_OK;
    }
    bsattn_progress(run->cli, "checking");
    BSATTN_TRY(bsattn_trial_check(&run->trial, rows, seed, &run->record.check));
    /* The check samples rows; the digest saw every element. */
    run->record.check.passed =
        (run->record.check.passed && isfinite(run->record.out_abs_sum)) ? 1 : 0;
    run->record.status = run->record.check.passed ? "ok" : "failed";
    return BSATTN_OK;
}

static bsattn_status_t digest(run_t *run)
{
    bsattn_digest_t digest_of_o;
    bsattn_strbuf_t buf;

    BSATTN_TRY(bsattn_digest_take(&run->trial, &digest_of_o));
    run->record.out_sum = digest_of_o.sum;
    run->record.out_abs_sum = digest_of_o.abs_sum;
    bsattn_strbuf_init(&buf, run->record.out_hash, sizeof(run->record.out_hash));
    bsattn_strbuf_add(&buf, "%016" PRIx64, digest_of_o.hash);
    return BSATTN_OK;
}

static bsattn_status_t write_outputs(run_t *run)
{
    return bsattn_outputs_commit(&run->outputs, &run->trial);
}

static bsattn_status_t report(run_t *run)
{
    if (run->reports.table != NULL) {
        bsattn_table_row(&run->record, run->reports.table);
    }
    return bsattn_reports_add(&run->reports, &run->record);
}

static bsattn_status_t judge(run_t *run)
{
    const bsattn_check_result_t *result = &run->record.check;

    if ((result->rows < 0) || result->passed) {
        return BSATTN_OK;
    }
    if (!isfinite(run->record.out_abs_sum)) {
        return bsattn_fail(BSATTN_ERR_RESULT, "O holds values that are not finite");
    }
    return bsattn_fail(BSATTN_ERR_RESULT,
                       "the result is outside its tolerance for %s: over %" PRId64
                       " rows the error of O is %.3g, of LSE %.3g",
                       bsattn_dtype_name(run->record.problem.dtype), result->rows,
                       result->error_out, result->error_lse);
}

/* ----------------------------------------------------------------------------------------- verb */

/* A stage fails on one rank or on all; the agreement after it makes that the same. */
static bsattn_status_t do_stages(run_t *run)
{
    static bsattn_status_t (*const stages[])(run_t *) = {
        open_files, describe_problem, open_reports,   make_context, make_pattern,
        make_trial, open_outputs,     print_preamble, warm_up,      measure,
        digest,     write_outputs,    check,          report,       judge,
    };

    for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); ++i) {
        BSATTN_TRY(bsattn_job_agree(&run->cli->job, stages[i](run)));
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_verb_run(const bsattn_cli_t *cli)
{
    run_t run = {.cli = cli, .options = cli->options};
    bsattn_status_t status;

    bsattn_record_init(&run.record);
    run.record.verb = "run";
    run.record.pattern = bsattn_options_text(cli->options, BSATTN_OPTION_PATTERN);
    run.record.seed = bsattn_options_int(cli->options, BSATTN_OPTION_SEED);
    run.record.launcher = bsattn_launch_name(getenv);
    status = do_stages(&run);
    bsattn_outputs_abort(&run.outputs);
    bsattn_trial_destroy(&run.trial);
    bsattn_pattern_destroy(run.pattern);
    bsattn_context_destroy(run.context);
    bsattn_reports_close(&run.reports);
    bsattn_source_close(run.source);
    return status;
}
