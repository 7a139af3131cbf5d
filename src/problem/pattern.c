/* SPDX-License-Identifier: Apache-2.0 */
#include "problem/pattern.h"

#include "base/host.h"
#include "problem/problem.h"

#include <stdlib.h>
#include <string.h>

static void mask_free(bsattn_head_mask_t *mask)
{
    for (int b = 0; b < mask->branch_count; ++b) {
        for (int t = 0; t < mask->branches[b].term_count; ++t) {
            free(mask->branches[b].terms[t].mask);
        }
        free(mask->branches[b].terms);
    }
    free(mask->branches);
}

void bsattn_pattern_destroy(bsattn_pattern_t *pattern)
{
    if (pattern == NULL) {
        return;
    }
    for (int m = 0; m < pattern->mask_count; ++m) {
        mask_free(&pattern->masks[m]);
    }
    free(pattern->masks);
    free(pattern->mask_of_head);
    free(pattern->class_of_head);
    free(pattern->head_of_class);
    bsattn_spans_free(&pattern->row);
    bsattn_row_work_free(&pattern->work);
    free(pattern);
}

static bool mask_depends_on_head(const bsattn_head_mask_t *mask)
{
    for (int b = 0; b < mask->branch_count; ++b) {
        for (int t = 0; t < mask->branches[b].term_count; ++t) {
            const bsattn_term_t *term = &mask->branches[b].terms[t];
            if ((term->kind == BSATTN_TERM_RANDOM) ||
                ((term->kind == BSATTN_TERM_BLOCKS) && (term->mask_heads > 1))) {
                return true;
            }
        }
    }
    return false;
}

static bool branches_alike(const bsattn_branch_t *a, const bsattn_branch_t *b)
{
    /* Terms are zeroed before they are filled in, so equal ones are equal byte by byte. */
    return (a->term_count == b->term_count) &&
           (memcmp(a->terms, b->terms, (size_t)a->term_count * sizeof(*a->terms)) == 0);
}

/* Texts may give several heads the same mask one by one; mask files are taken to differ. */
static bool masks_alike(const bsattn_head_mask_t *a, const bsattn_head_mask_t *b)
{
    bool alike = (a->branch_count == b->branch_count);

    for (int i = 0; alike && (i < a->branch_count); ++i) {
        alike = branches_alike(&a->branches[i], &b->branches[i]);
    }
    return alike;
}

static void join_masks(bsattn_pattern_t *pattern)
{
    for (int head = 0; head < pattern->problem.heads_q; ++head) {
        int mask = 0;
        while (!masks_alike(&pattern->masks[mask], &pattern->masks[pattern->mask_of_head[head]])) {
            ++mask;
            BSATTN_ASSERT(mask < pattern->mask_count);
        }
        pattern->mask_of_head[head] = mask;
    }
}

/* Heads of one mask share a class unless the mask itself differs by head. */
static bsattn_status_t classify_heads(bsattn_pattern_t *pattern)
{
    int heads = pattern->problem.heads_q;
    int *class_of_mask = malloc((size_t)pattern->mask_count * sizeof(*class_of_mask));

    pattern->class_of_head = malloc((size_t)heads * sizeof(*pattern->class_of_head));
    pattern->head_of_class = malloc((size_t)heads * sizeof(*pattern->head_of_class));
    if ((class_of_mask == NULL) || (pattern->class_of_head == NULL) ||
        (pattern->head_of_class == NULL)) {
        free(class_of_mask);
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for a pattern of %d heads", heads);
    }
    BSATTN_ASSERT(pattern->mask_count > 0);
    for (int m = 0; m < pattern->mask_count; ++m) {
        class_of_mask[m] = -1;
    }
    for (int head = 0; head < heads; ++head) {
        int mask = pattern->mask_of_head[head];
        if ((class_of_mask[mask] < 0) || mask_depends_on_head(&pattern->masks[mask])) {
            class_of_mask[mask] = pattern->class_count;
            pattern->head_of_class[pattern->class_count++] = head;
        }
        pattern->class_of_head[head] = class_of_mask[mask];
    }
    free(class_of_mask);
    return BSATTN_OK;
}

static void resolve_densities(bsattn_pattern_t *pattern)
{
    for (int m = 0; m < pattern->mask_count; ++m) {
        for (int b = 0; b < pattern->masks[m].branch_count; ++b) {
            bsattn_branch_t *branch = &pattern->masks[m].branches[b];
            for (int t = 0; t < branch->term_count; ++t) {
                if (branch->terms[t].density > 0.0) {
                    bsattn_term_resolve_density(&branch->terms[t], pattern->blocks,
                                                pattern->problem.causal != 0);
                }
            }
        }
    }
}

bsattn_status_t bsattn_pattern_create(const char *text, const bsattn_problem_t *problem,
                                      bsattn_pattern_t **pattern_p)
{
    bsattn_pattern_t *pattern;
    bsattn_status_t status;

    BSATTN_TRY(bsattn_problem_check(problem));
    pattern = calloc(1, sizeof(*pattern));
    if (pattern == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for a pattern");
    }
    pattern->problem = *problem;
    pattern->blocks = bsattn_problem_blocks(problem);
    status = bsattn_pattern_parse(pattern, text);
    if (status == BSATTN_OK) {
        resolve_densities(pattern);
        join_masks(pattern);
        status = classify_heads(pattern);
    }
    if (status != BSATTN_OK) {
        bsattn_pattern_destroy(pattern);
        return status;
    }
    *pattern_p = pattern;
    return BSATTN_OK;
}

bsattn_status_t bsattn_pattern_row(bsattn_pattern_t *pattern, int head, int64_t row,
                                   const bsattn_span_t **spans_p, size_t *count_p)
{
    if ((head < 0) || (head >= pattern->problem.heads_q) || (row < 0) || (row >= pattern->blocks)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "head %d, query block %lld: must be below %d and %lld",
                           head, (long long)row, pattern->problem.heads_q,
                           (long long)pattern->blocks);
    }
    BSATTN_TRY(bsattn_pattern_class_row(pattern, pattern->class_of_head[head], row, &pattern->work,
                                        &pattern->row));
    *spans_p = pattern->row.items;
    *count_p = pattern->row.count;
    return BSATTN_OK;
}

/* Blocks of rows, and how many of them are not whole: the last of the sequence, and under causal a row's own.
 * Either ends a span. */
typedef struct row_blocks {
    int64_t blocks;
    int64_t ends;
    int64_t diagonals;
} row_blocks_t;

static row_blocks_t count_row(const bsattn_pattern_t *pattern, int64_t row,
                              const bsattn_spans_t *spans)
{
    row_blocks_t count = {0};

    for (size_t s = 0; s < spans->count; ++s) {
        bsattn_span_t span = spans->items[s];
        count.blocks += span.last - span.first;
        count.ends += (span.last == pattern->blocks) ? 1 : 0;
        count.diagonals += ((span.last == row + 1) && pattern->problem.causal) ? 1 : 0;
    }
    return count;
}

/* Rows first .. end - 1 of a class. */
static bsattn_status_t count_rows(const bsattn_pattern_t *pattern, int class_index, int64_t first,
                                  int64_t end, int threads, row_blocks_t *count_p)
{
    int64_t blocks = 0;
    int64_t ends = 0;
    int64_t diagonals = 0;
    bool failed = false;

#pragma omp parallel num_threads(threads) reduction(+ : blocks, ends, diagonals) reduction(|| : failed)
    {
        bsattn_row_work_t work = {0};
        bsattn_spans_t row = {0};

#pragma omp for schedule(dynamic, 4096)
        for (int64_t i = first; i < end; ++i) {
            if (!failed &&
                (bsattn_pattern_class_row(pattern, class_index, i, &work, &row) == BSATTN_OK)) {
                row_blocks_t count = count_row(pattern, i, &row);
                blocks += count.blocks;
                ends += count.ends;
                diagonals += count.diagonals;
            } else {
                failed = true;
            }
        }
        bsattn_spans_free(&row);
        bsattn_row_work_free(&work);
    }
    *count_p = (row_blocks_t){blocks, ends, diagonals};
    return failed ? bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the rows of a pattern")
                  : BSATTN_OK;
}

/* Unmasked token pairs of rows with so many queries each. */
static double token_pairs(const bsattn_problem_t *problem, const row_blocks_t *count,
                          double queries)
{
    /* In the last block. */
    int64_t missing = bsattn_problem_blocks(problem) * problem->block - problem->seq_len;
    double keys = (double)count->blocks * problem->block - (double)count->ends * (double)missing;

    return queries * keys - (double)count->diagonals * queries * (queries - 1.0) / 2.0;
}

/* Pairs of one class over all rows. */
static bsattn_status_t class_pairs(const bsattn_pattern_t *pattern, int class_index, int threads,
                                   double *block_p, double *token_p)
{
    const bsattn_problem_t *problem = &pattern->problem;
    int64_t last = pattern->blocks - 1;
    row_blocks_t whole;
    row_blocks_t ragged; /* the last row, which may have fewer queries */

    BSATTN_TRY(count_rows(pattern, class_index, 0, last, threads, &whole));
    BSATTN_TRY(count_rows(pattern, class_index, last, last + 1, 1, &ragged));
    *block_p = (double)whole.blocks + (double)ragged.blocks;
    *token_p =
        token_pairs(problem, &whole, problem->block) +
        token_pairs(problem, &ragged, (double)bsattn_problem_span_tokens(problem, last, last + 1));
    return BSATTN_OK;
}

bsattn_status_t bsattn_pattern_stats(const bsattn_pattern_t *pattern, int threads,
                                     bsattn_pattern_stats_t *stats_p)
{
    const bsattn_problem_t *problem = &pattern->problem;
    double nb = (double)pattern->blocks;
    double n = (double)problem->seq_len;
    double block_sum = 0.0;
    double token_sum = 0.0;

    BSATTN_TRY(bsattn_host_check_threads(threads));
    for (int c = 0; c < pattern->class_count; ++c) {
        double block;
        double token;
        int heads = 0;

        for (int head = 0; head < problem->heads_q; ++head) {
            heads += (pattern->class_of_head[head] == c) ? 1 : 0;
        }
        BSATTN_TRY(class_pairs(pattern, c, threads, &block, &token));
        block_sum += block * heads;
        token_sum += token * heads;
    }
    *stats_p = (bsattn_pattern_stats_t){
        .pairs_block = block_sum / problem->heads_q,
        .pairs_token = token_sum / problem->heads_q,
        .density_block = block_sum / problem->heads_q / nb / nb,
        .density_token = token_sum / problem->heads_q / n / n,
        .flops = 4.0 * token_sum * problem->head_dim * (double)problem->batch,
        .head_classes = pattern->class_count,
    };
    return BSATTN_OK;
}
