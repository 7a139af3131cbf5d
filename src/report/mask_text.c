/* SPDX-License-Identifier: Apache-2.0 */
#include "report/mask_text.h"

#include "report/heads.h"
#include "report/mask_grid.h"

#include <inttypes.h>

enum { WIDTH = 64, WIDE_MAX = 32, HEADS_SIZE = 256 };

static const char shades[] = ".-=+*%@";

static char shade(double filled)
{
    int last = (int)sizeof(shades) - 2;

    if (filled <= 0.0) {
        return shades[0];
    }
    /* Nothing but a full cell looks full, nothing but an empty one empty. */
    return (filled >= 1.0) ? shades[last] : shades[1 + (int)(filled * (last - 1))];
}

static void print_grid(const bsattn_mask_grid_t *grid, const bsattn_problem_t *problem, FILE *file)
{
    int repeat = (grid->columns <= WIDE_MAX) ? 2 : 1;

    for (int64_t y = 0; y < grid->rows; ++y) {
        int64_t first = bsattn_mask_grid_first(y, grid->rows, grid->blocks);
        (void)fprintf(file, "%12" PRId64 " ", first * problem->block);
        for (int64_t x = 0; x < grid->columns; ++x) {
            char mark = shade(grid->filled[y * grid->columns + x]);
            for (int i = 0; i < repeat; ++i) {
                (void)fputc(mark, file);
            }
        }
        (void)fputc('\n', file);
    }
}

static void print_scale(const bsattn_problem_t *problem, int64_t blocks, int64_t rows,
                        int64_t columns, FILE *file)
{
    if (columns == blocks) {
        (void)fprintf(file, "# each cell is a block of %d tokens: @ active, . not\n",
                      problem->block);
    } else {
        (void)fprintf(file,
                      "# each cell is about %" PRId64 " query tokens by %" PRId64
                      " key tokens, from . none to @ all active\n",
                      problem->seq_len / rows, problem->seq_len / columns);
    }
    (void)fprintf(
        file, "# rows begin with their first query token; keys 0 .. %" PRId64 " run to the right\n",
        problem->seq_len - 1);
}

bsattn_status_t bsattn_mask_text(bsattn_pattern_t *pattern, const bsattn_problem_t *problem,
                                 bool commentary, FILE *file)
{
    int64_t blocks = bsattn_problem_blocks(problem);
    int64_t columns = (blocks < WIDTH) ? blocks : WIDTH;
    int64_t rows = (blocks <= WIDTH) ? blocks : WIDTH / 2;
    char heads[HEADS_SIZE];

    for (int class_index = 0; class_index < pattern->class_count; ++class_index) {
        bsattn_mask_grid_t grid;
        BSATTN_TRY(bsattn_mask_grid_count(pattern, pattern->head_of_class[class_index], blocks,
                                          rows, columns, &grid));
        if (commentary) {
            (void)fprintf(file, "# %s\n",
                          bsattn_heads_text(pattern, class_index, heads, sizeof(heads)));
            print_scale(problem, blocks, rows, columns, file);
        }
        print_grid(&grid, problem, file);
        bsattn_mask_grid_free(&grid);
    }
    return BSATTN_OK;
}
