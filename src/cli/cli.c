/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include "base/partial.h"
#include "cli/help.h"
#include "cli/launch.h"
#include "cli/paths.h"
#include "cli/resolve.h"
#include "cli/verbs.h"
#include "transport/agree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

static bool asks_for_help(const bsattn_options_t *options)
{
    return bsattn_options_flag(options, BSATTN_OPTION_HELP) ||
           bsattn_options_flag(options, BSATTN_OPTION_VERSION) ||
           bsattn_options_flag(options, BSATTN_OPTION_SHOW_CONFIG);
}

static void print_asked(const bsattn_cli_t *cli)
{
    const bsattn_options_t *options = cli->options;

    if (!cli->speaks) {
        return;
    }
    if (bsattn_options_flag(options, BSATTN_OPTION_VERSION)) {
        (void)printf("bsattn_ring %s\n", bsattn_version());
    } else if (!bsattn_options_flag(options, BSATTN_OPTION_HELP)) {
        bsattn_options_print(options, stdout);
    } else if (options->verb_named) {
        bsattn_help_print_verb(options->verb, stdout);
    } else {
        bsattn_help_print(stdout);
    }
}

static bsattn_status_t do_verb(const bsattn_cli_t *cli)
{
    if (asks_for_help(cli->options)) {
        print_asked(cli);
        return BSATTN_OK;
    }
    BSATTN_TRY(bsattn_job_agree(&cli->job, bsattn_paths_check(cli->options)));
    switch (cli->options->verb) {
    case BSATTN_VERB_RUN:
        return bsattn_verb_run(cli);
    case BSATTN_VERB_PLAN:
        return bsattn_verb_plan(cli);
    case BSATTN_VERB_VERIFY:
        return bsattn_verb_verify(cli);
    case BSATTN_VERB_MASK:
        return bsattn_verb_mask(cli);
    case BSATTN_VERB_INFO:
        return bsattn_verb_info(cli);
    case BSATTN_VERB_HELP:
        return bsattn_verb_help(cli);
    case BSATTN_VERB_COUNT:
        break;
    }
    return BSATTN_OK;
}

/* All ranks must have been told the same before they begin anything together. */
static bsattn_status_t compare_options(const bsattn_cli_t *cli)
{
    char *lines = NULL;
    bsattn_status_t status =
        bsattn_job_agree(&cli->job, bsattn_options_lines(cli->options, &lines));

    if (status == BSATTN_OK) {
        status = bsattn_job_same_text(&cli->job, lines);
    }
    free(lines);
    return status;
}

static bool computes(const bsattn_cli_t *cli)
{
    return bsattn_verb_uses_mpi(cli->options->verb) && !asks_for_help(cli->options);
}

/* A job whose processes are launched as singletons is found out here, unless one process is what
 * was asked for. */
static bsattn_status_t check_launch(const bsattn_cli_t *cli)
{
    const char *transport = bsattn_options_text(cli->options, BSATTN_OPTION_TRANSPORT);

    if (!computes(cli)) {
        return BSATTN_OK;
    }
    if (strcmp(transport, "loop") != 0) {
        return bsattn_launch_check(getenv, cli->job.size);
    }
    if (cli->job.size > 1) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                           "transport loop (from %s) keeps all ranks in one process, but %d were "
                           "launched",
                           bsattn_options_where(cli->options, BSATTN_OPTION_TRANSPORT),
                           cli->job.size);
    }
    return BSATTN_OK;
}

/* A full disk or a closed pipe must not look like success. */
static bsattn_status_t finish_output(bsattn_status_t status)
{
    errno = 0;
    if (((fflush(stdout) != 0) || (ferror(stdout) != 0)) && (status == BSATTN_OK)) {
        return bsattn_fail(BSATTN_ERR_FILE, "cannot write standard output: %s",
                           (errno != 0) ? strerror(errno) : "an earlier write failed");
    }
    return status;
}

static bsattn_status_t do_job(bsattn_cli_t *cli, bsattn_status_t status)
{
    bsattn_status_t started = bsattn_job_start(&cli->job);
    int rank = bsattn_launch_rank(getenv);

    if (started != BSATTN_OK) { /* of which nobody else hears */
        bsattn_verdict_t verdict;
        cli->speaks = true;
        bsattn_verdict_init(&verdict, started);
        return bsattn_verdict_adopt(&verdict, rank, rank < 0);
    }
    cli->speaks = (cli->job.size > 1) ? (cli->job.rank == 0) : cli->speaks;
    if (cli->job.rank > 0) {
        bsattn_partial_of_others();
    }
    if (status == BSATTN_OK) {
        bsattn_job_set_timeout(bsattn_options_real(cli->options, BSATTN_OPTION_TIMEOUT));
    }
    BSATTN_TRY(bsattn_job_agree(&cli->job, status));
    BSATTN_TRY(bsattn_job_agree(&cli->job, check_launch(cli)));
    cli->speaks = cli->speaks || ((cli->job.size == 1) && computes(cli));
    BSATTN_TRY(compare_options(cli));
    return bsattn_job_agree(&cli->job, finish_output(do_verb(cli)));
}

/* Whether a single process needs MPI: to compute, or to be told of a transport between processes. */
static bool uses_mpi(const bsattn_options_t *options)
{
    return bsattn_verb_uses_mpi(options->verb) ||
           ((options->verb == BSATTN_VERB_INFO) && bsattn_resolve_names_transport(options));
}

int bsattn_cli_main(int argc, char **argv)
{
    bsattn_options_t options;
    bsattn_status_t status = bsattn_options_read(argc, argv, environ, &options);
    bsattn_cli_t cli = {
        .job = {.comm = NULL, .rank = 0, .size = 1},
        .options = &options,
        .speaks = (bsattn_launch_rank(getenv) <= 0) || (bsattn_launch_size(getenv) <= 1),
    };
    /* One of several processes meets the others whatever it was asked: they may have been asked
     * something else. A lone one starts MPI only if it must. */
    bool needs_job = (bsattn_launch_size(getenv) > 1) ||
                     ((status == BSATTN_OK) && uses_mpi(&options) && !asks_for_help(&options));

    if (needs_job) {
        status = do_job(&cli, status);
    } else if (status == BSATTN_OK) {
        status = finish_output(do_verb(&cli));
    }
    if ((status != BSATTN_OK) && cli.speaks) {
        (void)fprintf(stderr, "bsattn_ring: error: %s\n", bsattn_last_error());
    }
    bsattn_job_finish(&cli.job);
    bsattn_options_free(&options);
    return (int)status;
}
