/* SPDX-License-Identifier: Apache-2.0 */
#include "report/mask_grid.h"

#include <math.h>
#include <stdlib.h>

int64_t bsattn_mask_grid_first(int64_t index, int64_t count, int64_t blocks)
{
    /* Block indices are 32 bit and grids a few hundred cells wide, so the product fits. */
    return index * blocks / count;
}

/* The cell that holds a block: the inverse of bsattn_mask_grid_first(). */
static int64_t cell_of(int64_t block, int64_t count, int64_t blocks)
{
    return ((block + 1) * count - 1) / blocks;
}

static void add_span(bsattn_mask_grid_t *grid, double *cells, bsattn_span_t span)
{
    int64_t at = span.first;

    while (at < span.last) {
        int64_t cell = cell_of(at, grid->columns, grid->blocks);
        int64_t end = bsattn_mask_grid_first(cell + 1, grid->columns, grid->blocks);
        end = (end < span.last) ? end : span.last;
        cells[cell] += (double)(end - at);
        at = end;
    }
}

static void divide(bsattn_mask_grid_t *grid)
{
    for (int64_t y = 0; y < grid->rows; ++y) {
        int64_t height = bsattn_mask_grid_first(y + 1, grid->rows, grid->blocks) -
                         bsattn_mask_grid_first(y, grid->rows, grid->blocks);
        for (int64_t x = 0; x < grid->columns; ++x) {
            int64_t width = bsattn_mask_grid_first(x + 1, grid->columns, grid->blocks) -
                            bsattn_mask_grid_first(x, grid->columns, grid->blocks);
            double *cell = &grid->filled[y * grid->columns + x];
            *cell = fmin(*cell / ((double)height * (double)width), 1.0);
        }
    }
}

bsattn_status_t bsattn_mask_grid_count(bsattn_pattern_t *pattern, int head, int64_t blocks,
                                       int64_t rows, int64_t columns, bsattn_mask_grid_t *grid_p)
{
    bsattn_mask_grid_t grid = {.blocks = blocks, .rows = rows, .columns = columns};

    BSATTN_ASSERT((rows >= 1) && (rows <= blocks) && (columns >= 1) && (columns <= blocks));
    grid.filled = calloc((size_t)rows * (size_t)columns, sizeof(*grid.filled));
    if (grid.filled == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to draw a mask");
    }
    for (int64_t row = 0; row < blocks; ++row) {
        const bsattn_span_t *spans;
        size_t count;
        bsattn_status_t status = bsattn_pattern_row(pattern, head, row, &spans, &count);
        if (status != BSATTN_OK) {
            free(grid.filled);
            return status;
        }
        for (size_t i = 0; i < count; ++i) {
            add_span(&grid, &grid.filled[cell_of(row, rows, blocks) * columns], spans[i]);
        }
    }
    divide(&grid);
    *grid_p = grid;
    return BSATTN_OK;
}

void bsattn_mask_grid_free(bsattn_mask_grid_t *grid)
{
    free(grid->filled);
    *grid = (bsattn_mask_grid_t){0};
}
