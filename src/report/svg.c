/* SPDX-License-Identifier: Apache-2.0 */
#include "report/svg.h"

#include "base/text.h"
#include "report/heads.h"
#include "report/mask_grid.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    PANELS_MAX = 16,
    PER_ROW = 4,
    PANEL = 480, /* side of one mask, in SVG units */
    LEFT = 64,   /* room for the query axis */
    RIGHT = 20,
    HEAD = 86,    /* room for the title */
    CAPTION = 52, /* above a panel: heads, key axis */
    FOOT = 24,
    TICKS = 4,
    RECTANGLES_MAX = 60000,
    GRID_MAX = 240, /* cells of a density picture */
    SHADES = 8,
    LABEL_SIZE = 32,
    HEADS_SIZE = 64,
    TITLE_SIZE = 256,
    TITLE_CHARACTER = 10, /* its width, nearly */
};

/* Spans of one row that may go on in the next. */
typedef struct open_span {
    bsattn_span_t span;
    int64_t first_row;
} open_span_t;

typedef struct open_spans {
    open_span_t *items;
    size_t count;
    size_t capacity;
} open_spans_t;

typedef struct drawing {
    bsattn_pattern_t *pattern;
    const bsattn_problem_t *problem;
    int64_t blocks;
    FILE *file; /* NULL: only count */
    int64_t rectangles;
} drawing_t;

/* -------------------------------------------------------------------------------- exact picture */

static void emit(drawing_t *drawing, const open_span_t *open, int64_t end_row)
{
    ++drawing->rectangles;
    if (drawing->file != NULL) {
        int64_t width = open->span.last - open->span.first;
        (void)fprintf(drawing->file,
                      "M%" PRId32 " %" PRId64 "h%" PRId64 "v%" PRId64 "h%" PRId64 "z",
                      open->span.first, open->first_row, width, end_row - open->first_row, -width);
    }
}

static bsattn_status_t push(open_spans_t *list, open_span_t item)
{
    if (list->count == list->capacity) {
        size_t capacity = (list->capacity == 0) ? 64 : 2 * list->capacity;
        open_span_t *grown = realloc(list->items, capacity * sizeof(*grown));
        if (grown == NULL) {
            return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to draw a mask");
        }
        list->items = grown;
        list->capacity = capacity;
    }
    list->items[list->count++] = item;
    return BSATTN_OK;
}

static bool same_span(bsattn_span_t a, bsattn_span_t b)
{
    return (a.first == b.first) && (a.last == b.last);
}

/* Spans of `before` that come again in this row stay open, the others are drawn; both lists are
 * ascending where the row is (the branches of a row follow one another, so a span not found is only
 * a rectangle more). */
static bsattn_status_t next_row(drawing_t *drawing, int64_t row, const bsattn_span_t *spans,
                                size_t count, open_spans_t *before, open_spans_t *after)
{
    size_t at = 0;

    after->count = 0;
    for (size_t i = 0; i < count; ++i) {
        open_span_t item = {.span = spans[i], .first_row = row};
        while ((at < before->count) && !same_span(before->items[at].span, spans[i]) &&
               (before->items[at].span.first <= spans[i].first)) {
            emit(drawing, &before->items[at++], row);
        }
        if ((at < before->count) && same_span(before->items[at].span, spans[i])) {
            item.first_row = before->items[at++].first_row;
        }
        BSATTN_TRY(push(after, item));
    }
    for (; at < before->count; ++at) {
        emit(drawing, &before->items[at], row);
    }
    return BSATTN_OK;
}

/* Draw, or with file NULL count until it is too many, the rectangles of one head. */
static bsattn_status_t draw_rectangles(drawing_t *drawing, int head)
{
    open_spans_t lists[2] = {{0}, {0}};
    bsattn_status_t status = BSATTN_OK;
    int64_t row;

    drawing->rectangles = 0;
    for (row = 0; (row < drawing->blocks) && (status == BSATTN_OK); ++row) {
        const bsattn_span_t *spans;
        size_t count;
        status = bsattn_pattern_row(drawing->pattern, head, row, &spans, &count);
        if (status == BSATTN_OK) {
            status = next_row(drawing, row, spans, count, &lists[row % 2], &lists[(row + 1) % 2]);
        }
        if (drawing->rectangles > RECTANGLES_MAX) {
            break;
        }
    }
    for (size_t i = 0; (i < lists[row % 2].count) && (status == BSATTN_OK); ++i) {
        emit(drawing, &lists[row % 2].items[i], row);
    }
    free(lists[0].items);
    free(lists[1].items);
    return status;
}

/* ------------------------------------------------------------------------------ density picture */

static int shade_of(double filled)
{
    int shade = (int)(filled * SHADES + 0.5);

    return ((shade == 0) && (filled > 0.0)) ? 1 : shade; /* nothing active is invisible */
}

/* One path for each shade, runs of equal cells being one rectangle. */
static void draw_shade(const bsattn_mask_grid_t *grid, int shade, FILE *file)
{
    (void)fprintf(file, "<path fill-opacity=\"%.3f\" d=\"", (double)shade / SHADES);
    for (int64_t y = 0; y < grid->rows; ++y) {
        for (int64_t x = 0; x < grid->columns; ++x) {
            int64_t end = x;
            while ((end < grid->columns) &&
                   (shade_of(grid->filled[y * grid->columns + end]) == shade)) {
                ++end;
            }
            if (end > x) {
                (void)fprintf(file, "M%" PRId64 " %" PRId64 "h%" PRId64 "v1h%" PRId64 "z", x, y,
                              end - x, x - end);
                x = end;
            }
        }
    }
    (void)fprintf(file, "\"/>\n");
}

static bsattn_status_t draw_density(drawing_t *drawing, int head, int64_t cells)
{
    bsattn_mask_grid_t grid;

    BSATTN_TRY(
        bsattn_mask_grid_count(drawing->pattern, head, drawing->blocks, cells, cells, &grid));
    for (int shade = 1; shade <= SHADES; ++shade) {
        draw_shade(&grid, shade, drawing->file);
    }
    bsattn_mask_grid_free(&grid);
    return BSATTN_OK;
}

/* --------------------------------------------------------------------------------------- panels */

static void print_escaped(FILE *file, const char *text)
{
    for (; *text != '\0'; ++text) {
        switch (*text) {
        case '&':
            (void)fputs("&amp;", file);
            break;
        case '<':
            (void)fputs("&lt;", file);
            break;
        case '>':
            (void)fputs("&gt;", file);
            break;
        default:
            (void)fputc(*text, file);
        }
    }
}

/* "16K" where a multiple of 1024, else the number. */
static const char *token_label(int64_t token, char *out, size_t size)
{
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, size);
    if ((token != 0) && (token % (INT64_C(1) << 20) == 0)) {
        bsattn_strbuf_add(&buf, "%" PRId64 "M", token >> 20);
    } else if ((token != 0) && (token % 1024 == 0)) {
        bsattn_strbuf_add(&buf, "%" PRId64 "K", token >> 10);
    } else {
        bsattn_strbuf_add(&buf, "%" PRId64, token);
    }
    return out;
}

/* The last block may reach beyond the sequence; the axis is of blocks * B tokens, so that ticks lie
 * where their tokens do. */
static void print_axes(const drawing_t *drawing, FILE *file)
{
    char label[LABEL_SIZE];
    double extent = (double)drawing->blocks * drawing->problem->block;

    for (int i = 0; i <= TICKS; ++i) {
        int64_t token = drawing->problem->seq_len * i / TICKS;
        double at = (double)token / extent * PANEL;
        const char *anchor = (i == 0) ? "start" : (i == TICKS) ? "end" : "middle";
        token_label(token, label, sizeof(label));
        (void)fprintf(file,
                      "<path class=\"t\" d=\"M%.2f 0v-5M0 %.2fh-5\"/>"
                      "<text x=\"%.2f\" y=\"-9\" text-anchor=\"%s\">%s</text>"
                      "<text x=\"-9\" y=\"%.2f\" text-anchor=\"end\">%s</text>\n",
                      at, at, at, anchor, label,
                      at + ((i == 0)       ? 9.0
                            : (i == TICKS) ? 0.0
                                           : 4.0),
                      label);
    }
    (void)fprintf(file,
                  "<text x=\"%d\" y=\"-9\" text-anchor=\"middle\" class=\"n\">key token</text>\n"
                  "<text transform=\"translate(-44 %d) rotate(-90)\" text-anchor=\"middle\" "
                  "class=\"n\">query token</text>\n",
                  PANEL / 8, PANEL / 8);
}

static void print_heads(const drawing_t *drawing, int class_index, bool exact, FILE *file)
{
    char heads[HEADS_SIZE];

    (void)fprintf(file, "<text x=\"0\" y=\"-32\" class=\"h\">%s%s</text>\n",
                  bsattn_heads_text(drawing->pattern, class_index, heads, sizeof(heads)),
                  exact ? "" : " (shade: part of the blocks that is active)");
}

static bsattn_status_t draw_panel(drawing_t *drawing, int class_index, FILE *file)
{
    int head = drawing->pattern->head_of_class[class_index];
    int64_t cells = (drawing->blocks < GRID_MAX) ? drawing->blocks : GRID_MAX;
    bool exact;
    double scale;
    bsattn_status_t status;

    drawing->file = NULL;
    BSATTN_TRY(draw_rectangles(drawing, head));
    drawing->file = file;
    exact = (drawing->rectangles <= RECTANGLES_MAX);
    scale = (double)PANEL / (double)(exact ? drawing->blocks : cells);
    (void)fprintf(file, "<g transform=\"translate(%d %d)\">\n",
                  LEFT + (class_index % PER_ROW) * (LEFT + PANEL + RIGHT),
                  HEAD + CAPTION + (class_index / PER_ROW) * (CAPTION + PANEL + FOOT));
    (void)fprintf(file, "<rect class=\"b\" width=\"%d\" height=\"%d\"/>\n", PANEL, PANEL);
    (void)fprintf(file, "<g class=\"m\" transform=\"scale(%.6g)\">\n", scale);
    if (exact) {
        (void)fprintf(file, "<path d=\"");
        status = draw_rectangles(drawing, head);
        (void)fprintf(file, "\"/>\n");
    } else {
        status = draw_density(drawing, head, cells);
    }
    (void)fprintf(file, "</g>\n<rect class=\"f\" width=\"%d\" height=\"%d\"/>\n", PANEL, PANEL);
    print_axes(drawing, file);
    print_heads(drawing, class_index, exact, file);
    (void)fprintf(file, "</g>\n");
    return status;
}

/* A long pattern would run out of the picture; the whole text is in <title>. */
static void print_title(const drawing_t *drawing, const char *text, int width,
                        const bsattn_pattern_stats_t *stats, FILE *file)
{
    const bsattn_problem_t *problem = drawing->problem;
    char shown[TITLE_SIZE];
    size_t room = (size_t)(width - LEFT - RIGHT) / TITLE_CHARACTER + 1;
    bool cut = !bsattn_text_copy(shown, (room < sizeof(shown)) ? room : sizeof(shown), text);

    (void)fprintf(file, "<title>");
    print_escaped(file, text);
    (void)fprintf(file, "</title>\n<text x=\"%d\" y=\"34\" class=\"T\">", LEFT);
    print_escaped(file, shown);
    (void)fprintf(file, "%s</text>\n<text x=\"%d\" y=\"58\">", cut ? " ..." : "", LEFT);
    (void)fprintf(file, "%" PRId64 " tokens, blocks of %d%s, %d heads</text>\n", problem->seq_len,
                  problem->block, (problem->causal != 0) ? ", causal" : "", problem->heads_q);
    (void)fprintf(file,
                  "<text x=\"%d\" y=\"76\">density %.3g %% of blocks, %.3g %% of tokens%s</text>\n",
                  LEFT, stats->density_block * 100.0, stats->density_token * 100.0,
                  (drawing->pattern->class_count > PANELS_MAX) ? "; the first 16 masks" : "");
}

bsattn_status_t bsattn_svg_mask(bsattn_pattern_t *pattern, const bsattn_problem_t *problem,
                                const char *text, FILE *file)
{
    drawing_t drawing = {pattern, problem, bsattn_problem_blocks(problem), NULL, 0};
    int panels = (pattern->class_count < PANELS_MAX) ? pattern->class_count : PANELS_MAX;
    int columns = (panels < PER_ROW) ? panels : PER_ROW;
    int rows = (panels + PER_ROW - 1) / PER_ROW;
    int width = columns * (LEFT + PANEL + RIGHT);
    int height = HEAD + rows * (CAPTION + PANEL + FOOT);
    bsattn_pattern_stats_t stats;

    BSATTN_TRY(bsattn_pattern_stats(pattern, 1, &stats));
    (void)fprintf(file,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
                  "height=\"%d\">\n",
                  width, height, width, height);
    (void)fprintf(file, "<style>text{font:12px 'DejaVu Sans',Helvetica,Arial,sans-serif;fill:#444}"
                        ".T{font-size:17px;font-weight:bold;fill:#111}.h{fill:#111}.n{fill:#888}"
                        ".b{fill:#f4f6f8}.m{fill:#1f5fa8;shape-rendering:crispEdges}"
                        ".f{fill:none;stroke:#444}.t{stroke:#444;fill:none}</style>\n");
    (void)fprintf(file, "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n", width, height);
    print_title(&drawing, text, width, &stats, file);
    for (int i = 0; i < panels; ++i) {
        BSATTN_TRY(draw_panel(&drawing, i, file));
    }
    (void)fprintf(file, "</svg>\n");
    return BSATTN_OK;
}
