/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/resolve.h"
#include "cli/verbs.h"
#include "report/mask_text.h"
#include "report/report_file.h"
#include "report/svg.h"

#include <stdlib.h>
#include <string.h>

typedef struct drawing {
    bsattn_problem_t problem;
    const char *text;
    bsattn_pattern_t *pattern;
} drawing_t;

static bsattn_status_t draw_text(const drawing_t *drawing, bool commentary, FILE *file)
{
    bsattn_pattern_stats_t stats;

    BSATTN_TRY(bsattn_pattern_stats(drawing->pattern, 1, &stats));
    if (commentary) {
        (void)fprintf(file,
                      "# %s\n# density %.4g %% of blocks, %.4g %% of tokens; %d head class%s\n",
                      drawing->text, stats.density_block * 100.0, stats.density_token * 100.0,
                      stats.head_classes, (stats.head_classes == 1) ? "" : "es");
    }
    return bsattn_mask_text(drawing->pattern, &drawing->problem, commentary, file);
}

/* Drawn in memory first, so that the file is whole or absent. */
static bsattn_status_t draw_svg(const drawing_t *drawing, bsattn_report_file_t *svg)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    bsattn_status_t status;
    bool failed;

    if (stream == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to draw a mask");
    }
    status = bsattn_svg_mask(drawing->pattern, &drawing->problem, drawing->text, stream);
    failed = (ferror(stream) != 0);
    failed = (fclose(stream) != 0) || failed;
    if ((status == BSATTN_OK) && failed) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no memory to draw a mask");
    }
    if (status == BSATTN_OK) {
        status = bsattn_report_file_append(svg, text);
    }
    free(text);
    return status;
}

static bsattn_status_t draw(const bsattn_cli_t *cli, const drawing_t *drawing,
                            bsattn_report_file_t *svg)
{
    const char *path = bsattn_options_text(cli->options, BSATTN_OPTION_SVG);
    bool commentary = !bsattn_options_flag(cli->options, BSATTN_OPTION_QUIET);
    bool taken = (path != NULL) && (strcmp(path, "-") == 0);

    BSATTN_TRY(draw_text(drawing, commentary, taken ? stderr : stdout));
    return (svg != NULL) ? draw_svg(drawing, svg) : BSATTN_OK;
}

bsattn_status_t bsattn_verb_mask(const bsattn_cli_t *cli)
{
    const char *path = bsattn_options_text(cli->options, BSATTN_OPTION_SVG);
    drawing_t drawing = {.text = bsattn_options_text(cli->options, BSATTN_OPTION_PATTERN)};
    bsattn_report_file_t *svg = NULL;
    bsattn_status_t status = BSATTN_OK;

    BSATTN_TRY(bsattn_resolve_problem(cli->options, NULL, &drawing.problem));
    BSATTN_TRY(bsattn_pattern_create(drawing.text, &drawing.problem, &drawing.pattern));
    if (cli->speaks && (path != NULL)) {
        status = bsattn_report_file_open(path, &svg);
    }
    if (cli->speaks && (status == BSATTN_OK)) {
        status = draw(cli, &drawing, svg);
    }
    bsattn_report_file_close(svg);
    bsattn_pattern_destroy(drawing.pattern);
    return status;
}
