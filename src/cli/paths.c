/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/paths.h"

#include "base/text.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const bsattn_option_t written[] = {
    BSATTN_OPTION_OUT, BSATTN_OPTION_LSE, BSATTN_OPTION_JSON, BSATTN_OPTION_CSV, BSATTN_OPTION_SVG,
};

static const bsattn_option_t read[] = {
    BSATTN_OPTION_Q,
    BSATTN_OPTION_K,
    BSATTN_OPTION_V,
    BSATTN_OPTION_CONFIG,
};

enum {
    WRITTEN_COUNT = sizeof(written) / sizeof(written[0]),
    READ_COUNT = sizeof(read) / sizeof(read[0]),
};

/* The one name of a file, or of one that is to be: its folder's, if it is not there. */
static void canonical_name(const char *path, char out[PATH_MAX])
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    const char *base = (slash == NULL) ? path : slash + 1;
    char resolved[PATH_MAX];
    bsattn_strbuf_t buf;

    if (realpath(path, resolved) != NULL) {
        (void)bsattn_text_copy(out, PATH_MAX, resolved);
        return;
    }
    bsattn_strbuf_init(&buf, folder, sizeof(folder));
    bsattn_strbuf_add(&buf, "%.*s", (slash == NULL) ? 1 : (int)(slash - path) + 1,
                      (slash == NULL) ? "." : path);
    if (realpath(folder, resolved) == NULL) {
        (void)bsattn_text_copy(out, PATH_MAX, path);
        return;
    }
    bsattn_strbuf_init(&buf, out, PATH_MAX);
    bsattn_strbuf_add(&buf, "%s/%s", resolved, base);
}

static bool same_file(const char *a, const char *b)
{
    char name_a[PATH_MAX];
    char name_b[PATH_MAX];

    canonical_name(a, name_a);
    canonical_name(b, name_b);
    return strcmp(name_a, name_b) == 0;
}

/* A file that an option of this verb names; NULL for none and for a standard stream. */
static const char *named(const bsattn_options_t *options, bsattn_option_t option)
{
    const char *path = bsattn_options_text(options, option);
    bool taken = (bsattn_option_spec(option)->verbs & (1u << options->verb)) != 0;

    return (taken && (path != NULL) && (strcmp(path, "-") != 0)) ? path : NULL;
}

static bsattn_status_t check_pair(const bsattn_options_t *options, bsattn_option_t output,
                                  bsattn_option_t other, const char *wants)
{
    const char *path = named(options, output);
    const char *other_path = named(options, other);

    if ((path == NULL) || (other_path == NULL) || !same_file(path, other_path)) {
        return BSATTN_OK;
    }
    return bsattn_fail(BSATTN_ERR_INPUT, "%s and %s both %s the file %s",
                       bsattn_option_spec(output)->name, bsattn_option_spec(other)->name, wants,
                       path);
}

bsattn_status_t bsattn_paths_check(const bsattn_options_t *options)
{
    const char *json = bsattn_options_text(options, BSATTN_OPTION_JSON);
    const char *csv = bsattn_options_text(options, BSATTN_OPTION_CSV);

    for (int i = 0; i < WRITTEN_COUNT; ++i) {
        for (int j = i + 1; j < WRITTEN_COUNT; ++j) {
            BSATTN_TRY(check_pair(options, written[i], written[j], "want"));
        }
        for (int j = 0; j < READ_COUNT; ++j) {
            BSATTN_TRY(check_pair(options, written[i], read[j], "name"));
        }
    }
    if ((json != NULL) && (csv != NULL) && (strcmp(json, "-") == 0) && (strcmp(csv, "-") == 0)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "json and csv both want standard output");
    }
    return BSATTN_OK;
}
