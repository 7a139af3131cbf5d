/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/resolve.h"

#include "base/host.h"
#include "base/text.h"
#include "problem/problem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Take a number from the files, unless an option says another one. */
static bsattn_status_t take_shape(const bsattn_options_t *options, bsattn_option_t option,
                                  int64_t from_files, int64_t *value_p)
{
    int64_t asked = bsattn_options_int(options, option);

    if (bsattn_options_given(options, option) && (asked != 0) && (asked != from_files)) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "%s %" PRId64
                           " (from %s) contradicts the input files, which have %" PRId64
                           "; leave the option out",
                           bsattn_option_spec(option)->name, asked,
                           bsattn_options_where(options, option), from_files);
    }
    *value_p = from_files;
    return BSATTN_OK;
}

static bsattn_status_t take_shapes(const bsattn_options_t *options,
                                   const bsattn_source_info_t *info, bsattn_problem_t *problem)
{
    int64_t heads_q = 0; /* the compiler cannot see that success sets them */
    int64_t heads_kv = 0;
    int64_t head_dim = 0;

    BSATTN_TRY(take_shape(options, BSATTN_OPTION_BATCH, info->batch, &problem->batch));
    BSATTN_TRY(take_shape(options, BSATTN_OPTION_SEQ, info->seq_len, &problem->seq_len));
    BSATTN_TRY(take_shape(options, BSATTN_OPTION_HEADS, info->heads_q, &heads_q));
    BSATTN_TRY(take_shape(options, BSATTN_OPTION_KV_HEADS, info->heads_kv, &heads_kv));
    BSATTN_TRY(take_shape(options, BSATTN_OPTION_HEAD_DIM, info->head_dim, &head_dim));
    problem->heads_q = (int)heads_q;
    problem->heads_kv = (int)heads_kv;
    problem->head_dim = (int)head_dim;
    return BSATTN_OK;
}

/* As asked for; else as the files are; else as the backend computes best. */
static bsattn_status_t take_dtype(const bsattn_options_t *options, const bsattn_source_info_t *info,
                                  bsattn_dtype_t *dtype_p)
{
    const char *name = bsattn_options_text(options, BSATTN_OPTION_DTYPE);
    bsattn_backend_choice_t choice;

    if (bsattn_dtype_find(name, dtype_p)) {
        return BSATTN_OK;
    }
    if (info != NULL) {
        *dtype_p = info->dtype;
        return BSATTN_OK;
    }
    if (options->verb == BSATTN_VERB_MASK) {
        *dtype_p = BSATTN_F32;
        return BSATTN_OK;
    }
    BSATTN_TRY(bsattn_resolve_backend(options, &choice));
    *dtype_p = choice.cuda ? BSATTN_BF16 : BSATTN_F32;
    return BSATTN_OK;
}

bsattn_status_t bsattn_resolve_problem(const bsattn_options_t *options,
                                       const bsattn_source_info_t *info,
                                       bsattn_problem_t *problem_p)
{
    bsattn_problem_t problem;
    int64_t kv_heads = bsattn_options_int(options, BSATTN_OPTION_KV_HEADS);

    bsattn_problem_init(&problem);
    problem.batch = bsattn_options_int(options, BSATTN_OPTION_BATCH);
    problem.seq_len = bsattn_options_int(options, BSATTN_OPTION_SEQ);
    problem.heads_q = (int)bsattn_options_int(options, BSATTN_OPTION_HEADS);
    problem.heads_kv = (kv_heads != 0) ? (int)kv_heads : problem.heads_q;
    problem.head_dim = (int)bsattn_options_int(options, BSATTN_OPTION_HEAD_DIM);
    problem.block = (int)bsattn_options_int(options, BSATTN_OPTION_BLOCK);
    problem.causal = bsattn_options_flag(options, BSATTN_OPTION_CAUSAL) ? 1 : 0;
    problem.scale = bsattn_options_real(options, BSATTN_OPTION_SCALE);
    BSATTN_TRY(take_dtype(options, info, &problem.dtype));
    if (info != NULL) {
        BSATTN_TRY(take_shapes(options, info, &problem));
    }
    BSATTN_TRY(bsattn_problem_check(&problem));
    *problem_p = problem;
    return BSATTN_OK;
}

bsattn_plan_params_t bsattn_resolve_plan(const bsattn_options_t *options)
{
    return (bsattn_plan_params_t){
        .layout = bsattn_options_text(options, BSATTN_OPTION_LAYOUT),
        .exchange = bsattn_options_text(options, BSATTN_OPTION_EXCHANGE),
        .backend = bsattn_options_text(options, BSATTN_OPTION_BACKEND),
    };
}

bsattn_status_t bsattn_resolve_backend(const bsattn_options_t *options,
                                       bsattn_backend_choice_t *choice_p)
{
    const char *name = bsattn_options_text(options, BSATTN_OPTION_BACKEND);

    return (options->verb == BSATTN_VERB_PLAN) ? bsattn_backend_choose_planned(name, choice_p)
                                               : bsattn_backend_choose(name, choice_p);
}

int bsattn_resolve_threads(const bsattn_options_t *options)
{
    int asked = (int)bsattn_options_int(options, BSATTN_OPTION_THREADS);

    if (asked == 0) {
        asked = bsattn_host_threads_asked();
    }
    return (asked > 0) ? asked : bsattn_host_cores();
}

bool bsattn_resolve_names_transport(const bsattn_options_t *options)
{
    const char *transport = bsattn_options_text(options, BSATTN_OPTION_TRANSPORT);

    return !bsattn_text_is_auto(transport) && (strcmp(transport, "loop") != 0);
}

bsattn_context_params_t bsattn_resolve_context(const bsattn_options_t *options,
                                               const bsattn_job_t *job)
{
    bsattn_context_params_t params;

    bsattn_context_params_init(&params);
    params.mpi_comm = job->comm;
    params.transport = bsattn_options_text(options, BSATTN_OPTION_TRANSPORT);
    params.backend = bsattn_options_text(options, BSATTN_OPTION_BACKEND);
    params.bind = bsattn_options_text(options, BSATTN_OPTION_BIND);
    params.virtual_ranks = (int)bsattn_options_int(options, BSATTN_OPTION_RANKS);
    params.threads = (int)bsattn_options_int(options, BSATTN_OPTION_THREADS);
    params.timeout_s = bsattn_options_real(options, BSATTN_OPTION_TIMEOUT);
    return params;
}
