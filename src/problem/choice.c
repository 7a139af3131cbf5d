/* SPDX-License-Identifier: Apache-2.0 */
/* Which layout, and with it which exchange. */
#include "base/host.h"
#include "base/text.h"
#include "problem/estimate.h"
#include "problem/problem.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Where the exchange is open, at most so many spans of used blocks are kept; with more the ring is taken. */
static const int64_t spans_for_choice = INT64_C(16) << 20;

/* Faster by more than the model may be wrong about, or else sending less. */
static bool clearly_better(const bsattn_estimate_totals_t *a, const bsattn_estimate_totals_t *b)
{
    return bsattn_clearly_faster(a->time_ms, b->time_ms) ||
           (!bsattn_clearly_faster(b->time_ms, a->time_ms) && (a->bytes_sent < b->bytes_sent));
}

/* A layout tried, with the better exchange for it. */
typedef struct trial {
    bsattn_demand_t demand;
    bsattn_estimate_t *estimate; /* NULL: given up, clearly slower than another */
} trial_t;

/* What is asked for, and of what. */
typedef struct question {
    const bsattn_pattern_t *pattern;
    const bsattn_machine_t *machine;
    int ranks;
    int exchange; /* bsattn_exchange_kind_t or BSATTN_EXCHANGE_AUTO */
} question_t;

static void trial_free(trial_t *trial)
{
    bsattn_demand_free(&trial->demand);
    bsattn_estimate_destroy(trial->estimate);
    trial->estimate = NULL;
}

/* Spans that there is memory for: arrays grow by doubling, and two layouts are compared. */
static int64_t spans_that_fit(void)
{
    return bsattn_host_memory_available() / (int64_t)(4 * sizeof(bsattn_span_t));
}

static bsattn_status_t fail_spans(int ranks, int64_t spans_max)
{
    char have_text[32];

    return bsattn_fail(BSATTN_ERR_MEMORY,
                       "out of memory: what each of %d ranks uses of the others' keys, which "
                       "exchange direct must know, needs more than the %s that are available; "
                       "take exchange ring",
                       ranks,
                       bsattn_text_bytes(have_text, sizeof(have_text),
                                         (double)spans_max * 4 * sizeof(bsattn_span_t)));
}

/* Who needs what under a layout, unless that is bytes_max or more. */
static bsattn_status_t trial_open(trial_t *trial, const question_t *question, const char *name,
                                  int64_t bytes_max)
{
    bool direct = (question->exchange == BSATTN_EXCHANGE_DIRECT);
    int64_t spans_max = direct                                         ? spans_that_fit()
                        : (question->exchange == BSATTN_EXCHANGE_RING) ? 0
                                                                       : spans_for_choice;
    bsattn_layout_t layout;

    *trial = (trial_t){0};
    BSATTN_TRY(bsattn_layout_parse(name, question->pattern->blocks, question->ranks, &layout));
    BSATTN_TRY(bsattn_demand_init(&trial->demand, question->pattern, &layout,
                                  question->machine->threads, spans_max, bytes_max));
    return (direct && !trial->demand.given_up && (trial->demand.used == NULL))
               ? fail_spans(question->ranks, spans_max)
               : BSATTN_OK;
}

/* What comes of it. */
static bsattn_status_t trial_predict(trial_t *trial, const question_t *question, double limit_ms)
{
    BSATTN_TRY(bsattn_estimate_best(&trial->demand, question->machine, question->exchange, limit_ms,
                                    &trial->estimate));
    return (trial->estimate == NULL)
               ? BSATTN_OK
               : bsattn_demand_take(&trial->demand, trial->estimate->exchange);
}

/* Another layout cannot be clearly better if this one takes no longer than any must, the work divided evenly or the
 * longest row of blocks, which is one rank's whatever the layout; and if the other must send as much.
 * @return how much; INT64_MAX if another might be faster */
static int64_t hopeless_bytes(const trial_t *best)
{
    const bsattn_estimate_totals_t *totals = &best->estimate->totals;
    double evenly_ms = 0.0;
    double least_ms;

    for (int rank = 0; rank < totals->ranks; ++rank) {
        evenly_ms += best->estimate->ranks[rank].time_attend_ms / totals->ranks;
    }
    least_ms = fmax(evenly_ms, best->estimate->longest_row_ms);
    return bsattn_clearly_faster(least_ms, totals->time_ms) ? INT64_MAX : totals->bytes_sent;
}

/* Replace the best trial by another layout's if that is better. */
static bsattn_status_t try_layout(trial_t *best, const question_t *question, const char *name)
{
    bsattn_status_t status;
    trial_t other;

    BSATTN_ASSERT(best->estimate != NULL);
    status = trial_open(&other, question, name, hopeless_bytes(best));
    if ((status == BSATTN_OK) && !other.demand.given_up) {
        status = trial_predict(&other, question, best->estimate->totals.time_ms);
    }
    if ((status == BSATTN_OK) && (other.estimate != NULL) &&
        clearly_better(&other.estimate->totals, &best->estimate->totals)) {
        trial_t worse = *best;
        *best = other;
        other = worse;
    }
    trial_free(&other);
    return status;
}

static bsattn_status_t parse_exchange(const char *text, int *exchange_p)
{
    *exchange_p = BSATTN_EXCHANGE_AUTO;
    if (bsattn_text_is_auto(text)) {
        return BSATTN_OK;
    }
    for (int kind = 0; kind < BSATTN_EXCHANGE_COUNT; ++kind) {
        if (strcmp(text, bsattn_exchange_names[kind]) == 0) {
            *exchange_p = kind;
            return BSATTN_OK;
        }
    }
    return bsattn_fail(BSATTN_ERR_INPUT, "exchange '%s': must be auto, ring or direct", text);
}

/* The K/V bytes that all ranks together may need of one another must fit in an int64_t. */
static bsattn_status_t check_bytes(const bsattn_problem_t *problem, int ranks)
{
    int64_t row_bytes = 2 * (int64_t)bsattn_problem_row_bytes(problem) * problem->heads_kv;
    int64_t bytes;

    if (__builtin_mul_overflow(problem->batch * problem->seq_len, row_bytes, &bytes) ||
        __builtin_mul_overflow(bytes, (int64_t)ranks, &bytes) || (bytes > INT64_MAX / 4)) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "batch %" PRId64 " x seq %" PRId64 " on %d ranks: more bytes than can "
                           "be counted",
                           problem->batch, problem->seq_len, ranks);
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_estimate_choose(const bsattn_pattern_t *pattern, int ranks,
                                       const bsattn_plan_params_t *params,
                                       const bsattn_machine_t *machine, bsattn_demand_t *demand_p,
                                       bsattn_estimate_t **estimate_p)
{
    const char *layout = (params == NULL) ? NULL : params->layout;
    question_t question = {.pattern = pattern, .machine = machine, .ranks = ranks};
    trial_t best;
    bsattn_status_t status;

    if (ranks < 1) {
        return bsattn_fail(BSATTN_ERR_INPUT, "ranks %d: must be 1 or more", ranks);
    }
    BSATTN_TRY(check_bytes(&pattern->problem, ranks));
    BSATTN_TRY(parse_exchange((params == NULL) ? NULL : params->exchange, &question.exchange));
    status = trial_open(&best, &question, bsattn_text_is_auto(layout) ? "contiguous" : layout,
                        INT64_MAX);
    if (status == BSATTN_OK) {
        status = trial_predict(&best, &question, INFINITY);
    }
    if (bsattn_text_is_auto(layout) && (ranks > 1)) {
        status = (status == BSATTN_OK) ? try_layout(&best, &question, "zigzag") : status;
        status = (status == BSATTN_OK) ? try_layout(&best, &question, "cyclic") : status;
    }
    if (status != BSATTN_OK) {
        trial_free(&best);
        return status;
    }
    *demand_p = best.demand;
    *estimate_p = best.estimate;
    return BSATTN_OK;
}
