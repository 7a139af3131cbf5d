/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/outputs.h"

#include "base/half.h"
#include "ring/context.h"

#include <stdlib.h>
#include <string.h>

enum { WINDOW_BYTES = 16 << 20 }; /* of O converted at once */

static bsattn_status_t open_out(const bsattn_outputs_params_t *params, bsattn_npy_writer_t **out_p)
{
    const bsattn_problem_t *problem = params->problem;
    int64_t shape[4] = {problem->batch, problem->seq_len, problem->heads_q, problem->head_dim};
    int skip = params->batched ? 0 : 1;
    bsattn_npy_view_t view = {
        .outer = problem->batch,
        .seq_len = problem->seq_len,
        .row_bytes = (size_t)problem->heads_q * (size_t)problem->head_dim * sizeof(float),
    };

    return bsattn_npy_writer_create(params->job, params->out_path, "<f4", 4 - skip, shape + skip,
                                    &view, out_p);
}

static bsattn_status_t open_lse(const bsattn_outputs_params_t *params, bsattn_npy_writer_t **lse_p)
{
    const bsattn_problem_t *problem = params->problem;
    int64_t shape[3] = {problem->batch, problem->heads_q, problem->seq_len};
    int skip = params->batched ? 0 : 1;
    bsattn_npy_view_t view = {
        .outer = problem->batch * problem->heads_q,
        .seq_len = problem->seq_len,
        .row_bytes = sizeof(float),
    };

    return bsattn_npy_writer_create(params->job, params->lse_path, "<f4", 3 - skip, shape + skip,
                                    &view, lse_p);
}

bsattn_status_t bsattn_outputs_open(const bsattn_outputs_params_t *params,
                                    bsattn_outputs_t *outputs)
{
    *outputs = (bsattn_outputs_t){0};
    if (params->out_path != NULL) {
        BSATTN_TRY(open_out(params, &outputs->out));
    }
    return (params->lse_path != NULL) ? open_lse(params, &outputs->lse) : BSATTN_OK;
}

/* --------------------------------------------------------------------------- O of a 16-bit type */

/* A window over the tokens of one rank: what is converted and written at once. */
typedef struct window {
    int64_t first; /* local token */
    int64_t count;
    bsattn_token_run_t *runs; /* the tokens' places in the sequence */
    size_t run_count;
    float *rows; /* [b, count, Hq, D] */
} window_t;

/* Tokens of a window, and the windows that the rank with most tokens needs: every rank takes part
 * in as many writes. */
static void choose_windows(const bsattn_trial_t *trial, int64_t *tokens_p, int64_t *windows_p)
{
    const bsattn_problem_t *problem = &trial->problem;
    const bsattn_estimate_t *estimate = bsattn_plan_estimate(trial->plan);
    int64_t token_bytes =
        problem->batch * problem->heads_q * problem->head_dim * (int64_t)sizeof(float);
    int64_t tokens = (token_bytes < WINDOW_BYTES) ? WINDOW_BYTES / token_bytes : 1;
    int64_t most = 1;

    for (int rank = 0; rank < trial->info.ranks; ++rank) {
        int64_t of_rank = bsattn_estimate_rank(estimate, rank)->tokens;
        most = (of_rank > most) ? of_rank : most;
    }
    *tokens_p = (tokens < most) ? tokens : most;
    *windows_p = (most + *tokens_p - 1) / *tokens_p;
}

static bsattn_status_t open_window(const bsattn_trial_t *trial, int local, int64_t tokens,
                                   window_t *window)
{
    const bsattn_problem_t *problem = &trial->problem;
    int64_t elements = problem->batch * tokens * problem->heads_q * problem->head_dim;
    size_t run_count;

    (void)bsattn_plan_runs(trial->plan, local, &run_count);
    *window = (window_t){.first = 0};
    window->runs = calloc(run_count + 1, sizeof(*window->runs));
    window->rows = calloc((size_t)elements, sizeof(*window->rows));
    if ((window->runs == NULL) || (window->rows == NULL)) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "out of memory: no room to convert O to fp32");
    }
    return BSATTN_OK;
}

/* Move the window to local tokens first .. first + tokens - 1, as far as there are so many. */
static void move_window(const bsattn_trial_t *trial, int local, int64_t first, int64_t tokens,
                        window_t *window)
{
    int64_t at = 0; /* local token that the run begins with */
    size_t run_count;
    const bsattn_token_run_t *runs = bsattn_plan_runs(trial->plan, local, &run_count);

    window->first = first;
    window->count = 0;
    window->run_count = 0;
    for (size_t i = 0; i < run_count; ++i) {
        int64_t begin = (first > at) ? first - at : 0;
        int64_t end = (first + tokens - at < runs[i].count) ? first + tokens - at : runs[i].count;
        if (begin < end) {
            window->runs[window->run_count++] =
                (bsattn_token_run_t){.first = runs[i].first + begin, .count = end - begin};
            window->count += end - begin;
        }
        at += runs[i].count;
    }
}

static void convert_window(const bsattn_trial_t *trial, int local, window_t *window)
{
    const bsattn_problem_t *problem = &trial->problem;
    int64_t tokens = bsattn_plan_tokens(trial->plan, local);
    int64_t token_elements = (int64_t)problem->heads_q * problem->head_dim;
    size_t size = bsattn_dtype_size(problem->dtype);

    for (int64_t batch = 0; batch < problem->batch; ++batch) {
        int64_t from = (batch * tokens + window->first) * token_elements;
        int64_t to = batch * window->count * token_elements;
        if (window->count > 0) {
            bsattn_convert_to_f32(problem->dtype,
                                  (const char *)trial->tensors[local].o + (size_t)from * size,
                                  window->count * token_elements, window->rows + to);
        }
    }
}

static bsattn_status_t write_converted(bsattn_outputs_t *outputs, const bsattn_trial_t *trial,
                                       int local)
{
    int64_t tokens;
    int64_t windows;
    window_t window;
    bsattn_status_t status;

    choose_windows(trial, &tokens, &windows);
    status = bsattn_context_agree(trial->context, open_window(trial, local, tokens, &window));
    for (int64_t i = 0; (i < windows) && (status == BSATTN_OK); ++i) {
        move_window(trial, local, i * tokens, tokens, &window);
        convert_window(trial, local, &window);
        status = bsattn_npy_writer_rows(outputs->out, window.runs, window.run_count, window.rows);
    }
    free(window.runs);
    free(window.rows);
    return status;
}

/* -------------------------------------------------------------------------------------- writing */

static bsattn_status_t write_out(bsattn_outputs_t *outputs, const bsattn_trial_t *trial, int local)
{
    size_t run_count;
    const bsattn_token_run_t *runs = bsattn_plan_runs(trial->plan, local, &run_count);

    if (trial->problem.dtype != BSATTN_F32) {
        return write_converted(outputs, trial, local);
    }
    return bsattn_npy_writer_rows(outputs->out, runs, run_count, trial->tensors[local].o);
}

static bsattn_status_t write_rows(bsattn_outputs_t *outputs, const bsattn_trial_t *trial)
{
    for (int local = 0; local < trial->info.local_count; ++local) {
        size_t run_count;
        const bsattn_token_run_t *runs = bsattn_plan_runs(trial->plan, local, &run_count);
        if (outputs->out != NULL) {
            BSATTN_TRY(write_out(outputs, trial, local));
        }
        if (outputs->lse != NULL) {
            BSATTN_TRY(
                bsattn_npy_writer_rows(outputs->lse, runs, run_count, trial->tensors[local].lse));
        }
    }
    return BSATTN_OK;
}

static bsattn_status_t commit(bsattn_npy_writer_t **writer)
{
    bsattn_npy_writer_t *released = *writer;

    *writer = NULL;
    return (released != NULL) ? bsattn_npy_writer_commit(released) : BSATTN_OK;
}

bsattn_status_t bsattn_outputs_commit(bsattn_outputs_t *outputs, const bsattn_trial_t *trial)
{
    BSATTN_TRY(write_rows(outputs, trial));
    BSATTN_TRY(commit(&outputs->out));
    return commit(&outputs->lse);
}

void bsattn_outputs_abort(bsattn_outputs_t *outputs)
{
    bsattn_npy_writer_abort(outputs->out);
    bsattn_npy_writer_abort(outputs->lse);
    *outputs = (bsattn_outputs_t){0};
}
