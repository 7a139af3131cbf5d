/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/window.h"

#include "base/status.h"

#include <stdlib.h>

enum { WINDOW_BYTES = 16 << 20 };

bsattn_status_t bsattn_window_init(bsattn_window_t *window, const bsattn_trial_t *trial, int local,
                                   int64_t token_bytes)
{
    const bsattn_estimate_t *estimate = bsattn_plan_estimate(trial->plan);
    int64_t tokens = (token_bytes < WINDOW_BYTES) ? WINDOW_BYTES / token_bytes : 1;
    int64_t most = 1;

    for (int rank = 0; rank < trial->info.ranks; ++rank) {
        int64_t of_rank = bsattn_estimate_rank(estimate, rank)->tokens;
        most = (of_rank > most) ? of_rank : most;
    }
    *window = (bsattn_window_t){.tokens_max = (tokens < most) ? tokens : most};
    window->windows = (most + window->tokens_max - 1) / window->tokens_max;
    window->all = bsattn_plan_runs(trial->plan, local, &window->all_count);
    window->runs = calloc(window->all_count + 1, sizeof(*window->runs));
    if (window->runs == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for a window of %lld tokens",
                           (long long)window->tokens_max);
    }
    return BSATTN_OK;
}

void bsattn_window_free(bsattn_window_t *window)
{
    free(window->runs);
    window->runs = NULL;
}

void bsattn_window_move(bsattn_window_t *window, int64_t index)
{
    int64_t first = index * window->tokens_max;
    int64_t last = first + window->tokens_max;
    int64_t at = 0; /* local token that the run begins with */

    window->first = first;
    window->count = 0;
    window->run_count = 0;
    for (size_t i = 0; i < window->all_count; ++i) {
        const bsattn_token_run_t *run = &window->all[i];
        int64_t begin = (first > at) ? first - at : 0;
        int64_t end = (last - at < run->count) ? last - at : run->count;
        if (begin < end) {
            window->runs[window->run_count++] =
                (bsattn_token_run_t){.first = run->first + begin, .count = end - begin};
            window->count += end - begin;
        }
        at += run->count;
    }
}
