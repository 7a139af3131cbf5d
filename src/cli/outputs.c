/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/outputs.h"

#include "base/half.h"
#include "cli/window.h"
#include "ring/context.h"

#include <stdlib.h>
#include <string.h>

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

/* ------------------------------------------------------------------------- a window of results */

/* Results of a window in host memory. */
typedef struct page {
    bsattn_window_t window;
    char *o;     /* [b, tokens, Hq, D] of the problem's type */
    float *rows; /* the same, or [b, Hq, tokens] of LSE, in fp32 */
} page_t;

static bsattn_status_t open_page(const bsattn_trial_t *trial, int local, page_t *page)
{
    const bsattn_problem_t *problem = &trial->problem;
    int64_t token_elements = problem->batch * problem->heads_q * problem->head_dim;
    size_t elements;

    *page = (page_t){.o = NULL};
    BSATTN_TRY(bsattn_window_init(&page->window, trial, local,
                                  token_elements * (int64_t)sizeof(float)));
    elements = (size_t)(page->window.tokens_max * token_elements);
    page->o = malloc(elements * bsattn_dtype_size(problem->dtype));
    page->rows = malloc(elements * sizeof(*page->rows));
    if ((page->o == NULL) || (page->rows == NULL)) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "out of memory: no room to convert O to fp32");
    }
    return BSATTN_OK;
}

static void close_page(page_t *page)
{
    bsattn_window_free(&page->window);
    free(page->o);
    free(page->rows);
}

static bsattn_status_t read_o(const bsattn_trial_t *trial, int local, page_t *page)
{
    const bsattn_problem_t *problem = &trial->problem;
    int64_t token_elements = (int64_t)problem->heads_q * problem->head_dim;
    size_t token_bytes = (size_t)token_elements * bsattn_dtype_size(problem->dtype);
    bsattn_rows_t rows = {
        .from = (const char *)trial->tensors[local].o + (size_t)page->window.first * token_bytes,
        .from_stride = (size_t)bsattn_plan_tokens(trial->plan, local) * token_bytes,
        .to = page->o,
        .to_stride = (size_t)page->window.count * token_bytes,
        .row_bytes = (size_t)page->window.count * token_bytes,
        .row_count = (size_t)problem->batch,
    };

    if (page->window.count == 0) {
        return BSATTN_OK;
    }
    BSATTN_TRY(bsattn_context_read(trial->context, &rows));
    bsattn_convert_to_f32(problem->dtype, page->o,
                          problem->batch * page->window.count * token_elements, page->rows);
    return BSATTN_OK;
}

static bsattn_status_t read_lse(const bsattn_trial_t *trial, int local, page_t *page)
{
    bsattn_rows_t rows = {
        .from = trial->tensors[local].lse + page->window.first,
        .from_stride = (size_t)bsattn_plan_tokens(trial->plan, local) * sizeof(float),
        .to = page->rows,
        .to_stride = (size_t)page->window.count * sizeof(float),
        .row_bytes = (size_t)page->window.count * sizeof(float),
        .row_count = (size_t)(trial->problem.batch * trial->problem.heads_q),
    };

    return (page->window.count > 0) ? bsattn_context_read(trial->context, &rows) : BSATTN_OK;
}

/* Write a result window by window. Collective: what one rank cannot read, no rank writes. */
static bsattn_status_t write_pages(bsattn_npy_writer_t *writer, const bsattn_trial_t *trial,
                                   int local,
                                   bsattn_status_t (*read)(const bsattn_trial_t *trial, int local,
                                                           page_t *page))
{
    page_t page;
    bsattn_status_t status =
        bsattn_context_agree(trial->context, open_page(trial, local, &page));

    for (int64_t i = 0; (status == BSATTN_OK) && (i < page.window.windows); ++i) {
        bsattn_window_move(&page.window, i);
        status = bsattn_context_agree(trial->context, read(trial, local, &page));
        if (status == BSATTN_OK) {
            status = bsattn_npy_writer_rows(writer, page.window.runs, page.window.run_count,
                                            page.rows);
        }
    }
    close_page(&page);
    return status;
}

/* -------------------------------------------------------------------------------------- writing */

static bsattn_status_t write_out(bsattn_outputs_t *outputs, const bsattn_trial_t *trial, int local)
{
    size_t run_count;
    const bsattn_token_run_t *runs = bsattn_plan_runs(trial->plan, local, &run_count);

    if ((trial->problem.dtype == BSATTN_F32) && trial->context->backend->in_host_memory) {
        return bsattn_npy_writer_rows(outputs->out, runs, run_count, trial->tensors[local].o);
    }
    return write_pages(outputs->out, trial, local, read_o);
}

static bsattn_status_t write_lse(bsattn_outputs_t *outputs, const bsattn_trial_t *trial, int local)
{
    size_t run_count;
    const bsattn_token_run_t *runs = bsattn_plan_runs(trial->plan, local, &run_count);

    if (trial->context->backend->in_host_memory) {
        return bsattn_npy_writer_rows(outputs->lse, runs, run_count, trial->tensors[local].lse);
    }
    return write_pages(outputs->lse, trial, local, read_lse);
}

static bsattn_status_t write_rows(bsattn_outputs_t *outputs, const bsattn_trial_t *trial)
{
    for (int local = 0; local < trial->info.local_count; ++local) {
        if (outputs->out != NULL) {
            BSATTN_TRY(write_out(outputs, trial, local));
        }
        if (outputs->lse != NULL) {
            BSATTN_TRY(write_lse(outputs, trial, local));
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
