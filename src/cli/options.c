/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/options.h"

#include "base/text.h"
#include "cli/command_line.h"
#include "cli/config.h"
#include "cli/presets.h"

#include <stdlib.h>
#include <string.h>

enum { NAME_SIZE = 64, WHERE_SIZE = 640 };

static const char variable_prefix[] = "BSATTN_";

/* Variables of this program that are no options. */
static const char *const other_variables[] = {"BSATTN_CUDA_KERNEL", "BSATTN_ISA",
                                              "BSATTN_MPI_STAGED", "BSATTN_NCCL_MODE"};
enum { OTHER_COUNT = sizeof(other_variables) / sizeof(other_variables[0]) };

/* ------------------------------------------------------------------------------------ one value */

static bsattn_status_t replace(bsattn_option_value_t *value, const char *text, const char *where)
{
    char *text_copy = strdup(text);
    char *where_copy = strdup(where);

    if ((text_copy == NULL) || (where_copy == NULL)) {
        free(text_copy);
        free(where_copy);
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the options");
    }
    free(value->text);
    free(value->where);
    value->text = text_copy;
    value->where = where_copy;
    return BSATTN_OK;
}

bsattn_status_t bsattn_options_set(bsattn_options_t *options, bsattn_option_t option,
                                   const char *text, bsattn_origin_t origin, const char *where)
{
    bsattn_option_value_t *value = &options->values[option];
    bsattn_option_reading_t reading;

    BSATTN_TRY(bsattn_option_read(option, text, where, &reading));
    if (origin < value->origin) {
        return BSATTN_OK;
    }
    BSATTN_TRY(replace(value, text, where));
    value->reading = reading;
    value->origin = origin;
    return BSATTN_OK;
}

static bsattn_status_t set_defaults(bsattn_options_t *options)
{
    for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
        const bsattn_option_spec_t *spec = bsattn_option_spec((bsattn_option_t)i);
        bsattn_option_value_t *value = &options->values[i];
        BSATTN_TRY(replace(value, spec->fallback, "default"));
        if (spec->fallback[0] != '\0') {
            BSATTN_TRY(
                bsattn_option_read((bsattn_option_t)i, spec->fallback, "default", &value->reading));
        }
    }
    return BSATTN_OK;
}

void bsattn_options_free(bsattn_options_t *options)
{
    for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
        free(options->values[i].text);
        free(options->values[i].where);
    }
    free(options->topic);
    *options = (bsattn_options_t){0};
}

const char *bsattn_options_text(const bsattn_options_t *options, bsattn_option_t option)
{
    const char *text = options->values[option].text;

    return (text[0] != '\0') ? text : NULL;
}

int64_t bsattn_options_int(const bsattn_options_t *options, bsattn_option_t option)
{
    return options->values[option].reading.integer;
}

double bsattn_options_real(const bsattn_options_t *options, bsattn_option_t option)
{
    return options->values[option].reading.number;
}

bool bsattn_options_flag(const bsattn_options_t *options, bsattn_option_t option)
{
    return options->values[option].reading.integer != 0;
}

bool bsattn_options_given(const bsattn_options_t *options, bsattn_option_t option)
{
    return options->values[option].origin != BSATTN_ORIGIN_DEFAULT;
}

const char *bsattn_options_where(const bsattn_options_t *options, bsattn_option_t option)
{
    return options->values[option].where;
}

/* ---------------------------------------------------------------------------------- environment */

static bsattn_status_t fail_variable(const char *name)
{
    char names[BSATTN_OPTION_COUNT][NAME_SIZE];
    const char *candidates[BSATTN_OPTION_COUNT + OTHER_COUNT];
    const char *nearest;
    size_t count = 0;

    for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
        if (bsattn_option_in_environment((bsattn_option_t)i)) {
            candidates[count] = bsattn_option_variable((bsattn_option_t)i, names[count], NAME_SIZE);
            ++count;
        }
    }
    for (size_t i = 0; i < OTHER_COUNT; ++i) {
        candidates[count++] = other_variables[i];
    }
    nearest = bsattn_text_nearest(name, candidates, count);
    return bsattn_fail(BSATTN_ERR_INPUT, "unknown environment variable %s%s%s%s", name,
                       (nearest != NULL) ? "; did you mean " : "; unset it",
                       (nearest != NULL) ? nearest : "", (nearest != NULL) ? "?" : "");
}

static bool is_other(const char *name)
{
    for (size_t i = 0; i < OTHER_COUNT; ++i) {
        if (strcmp(other_variables[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static bsattn_status_t take_variable(bsattn_options_t *options, const char *entry)
{
    char name[2 * NAME_SIZE];
    char variable[NAME_SIZE];
    const char *value = strchr(entry, '=');

    (void)bsattn_text_copy(name, sizeof(name), entry);
    name[strcspn(name, "=")] = '\0';
    if (is_other(name)) {
        return BSATTN_OK;
    }
    for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
        bsattn_option_t option = (bsattn_option_t)i;
        if (bsattn_option_in_environment(option) &&
            (strcmp(bsattn_option_variable(option, variable, sizeof(variable)), name) == 0)) {
            return bsattn_options_set(options, option, (value != NULL) ? value + 1 : "",
                                      BSATTN_ORIGIN_ENVIRONMENT, name);
        }
    }
    return fail_variable(name);
}

static bsattn_status_t read_environment(bsattn_options_t *options, char *const *environment)
{
    for (char *const *entry = environment; *entry != NULL; ++entry) {
        if (strncmp(*entry, variable_prefix, sizeof(variable_prefix) - 1) == 0) {
            BSATTN_TRY(take_variable(options, *entry));
        }
    }
    return BSATTN_OK;
}

/* ----------------------------------------------------------------------------------------- file */

typedef struct file_scan {
    bsattn_options_t *options;
    char seen[BSATTN_OPTION_COUNT][WHERE_SIZE]; /* where a key was given; "" if it was not */
} file_scan_t;

static bsattn_status_t check_section(const bsattn_config_item_t *item, bsattn_option_t option)
{
    bsattn_group_t belongs = bsattn_option_spec(option)->group;
    bsattn_group_t group;

    if (item->section[0] == '\0') {
        return BSATTN_OK;
    }
    if (!bsattn_group_find(item->section, &group)) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "%s: unknown section [%s]; the sections are problem, data, ring, "
                           "measure, report",
                           item->where, item->section);
    }
    if (group != belongs) {
        return bsattn_fail(BSATTN_ERR_INPUT, "%s: the key %s belongs in [%s], not in [%s]",
                           item->where, item->key, bsattn_group_name(belongs), item->section);
    }
    return BSATTN_OK;
}

/* A bsattn_config_func_t. */
static bsattn_status_t take_item(void *arg, const bsattn_config_item_t *item)
{
    file_scan_t *scan = arg;
    const char *nearest;
    bsattn_option_t option;

    if (!bsattn_option_find(item->key, &option)) {
        nearest = bsattn_option_nearest(item->key);
        return bsattn_fail(BSATTN_ERR_INPUT, "%s: unknown key \"%s\"%s%s%s", item->where, item->key,
                           (nearest != NULL) ? "; did you mean \"" : "",
                           (nearest != NULL) ? nearest : "", (nearest != NULL) ? "\"?" : "");
    }
    if (!bsattn_option_in_file(option)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "%s: %s cannot be set in a config file", item->where,
                           item->key);
    }
    BSATTN_TRY(check_section(item, option));
    if (scan->seen[option][0] != '\0') {
        return bsattn_fail(BSATTN_ERR_INPUT, "%s: the key %s was already given at %s", item->where,
                           item->key, scan->seen[option]);
    }
    (void)bsattn_text_copy(scan->seen[option], WHERE_SIZE, item->where);
    return bsattn_options_set(scan->options, option, item->value, BSATTN_ORIGIN_FILE, item->where);
}

static bsattn_status_t read_file(bsattn_options_t *options)
{
    const char *path = bsattn_options_text(options, BSATTN_OPTION_CONFIG);
    file_scan_t *scan;
    bsattn_status_t status;

    if (path == NULL) {
        return BSATTN_OK;
    }
    scan = calloc(1, sizeof(*scan));
    if (scan == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the config file");
    }
    scan->options = options;
    status = bsattn_config_read(path, take_item, scan);
    free(scan);
    return status;
}

/* --------------------------------------------------------------------------------------- preset */

typedef struct preset_scan {
    bsattn_options_t *options;
    bsattn_origin_t origin;
    const char *where;
} preset_scan_t;

/* A bsattn_config_func_t: what the preset says holds unless the same place, or a stronger one, says
 * otherwise. */
static bsattn_status_t take_preset_item(void *arg, const bsattn_config_item_t *item)
{
    preset_scan_t *scan = arg;
    bsattn_option_t option;
    bsattn_origin_t given;

    BSATTN_ASSERT(bsattn_option_find(item->key, &option) &&
                  ((option == BSATTN_OPTION_BLOCK) || (option == BSATTN_OPTION_PATTERN)));
    given = scan->options->values[option].origin;
    if ((given >= scan->origin) && (given != BSATTN_ORIGIN_DEFAULT) &&
        (strcmp(scan->options->values[option].text, "auto") != 0)) {
        return BSATTN_OK;
    }
    scan->options->values[option].origin = scan->origin;
    return bsattn_options_set(scan->options, option, item->value, scan->origin, scan->where);
}

static bsattn_status_t apply_preset(bsattn_options_t *options)
{
    const bsattn_option_value_t *preset = &options->values[BSATTN_OPTION_PRESET];
    const char *text = bsattn_preset_text(preset->text);
    char where[WHERE_SIZE];
    bsattn_strbuf_t buf;
    preset_scan_t scan = {options, preset->origin, where};

    bsattn_strbuf_init(&buf, where, sizeof(where));
    bsattn_strbuf_add(&buf, "preset %s (%s)", preset->text, preset->where);
    BSATTN_ASSERT(text != NULL);
    return bsattn_config_parse(preset->text, text, strlen(text), take_preset_item, &scan);
}

/* ------------------------------------------------------------------------------------------ all */

/* Files and the environment may hold values for other verbs; on the command line they are a
 * mistake. */
static bsattn_status_t check_verb(const bsattn_options_t *options)
{
    char list[128];

    for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
        const bsattn_option_spec_t *spec = bsattn_option_spec((bsattn_option_t)i);
        if ((options->values[i].origin == BSATTN_ORIGIN_COMMAND_LINE) &&
            ((spec->verbs & (1u << options->verb)) == 0)) {
            return bsattn_fail(BSATTN_ERR_INPUT, "the verb %s takes no --%s; it is an option of %s",
                               bsattn_verb_name(options->verb), spec->name,
                               bsattn_verb_list(spec->verbs, list, sizeof(list)));
        }
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_options_read(int argc, char *const *argv, char *const *environment,
                                    bsattn_options_t *options)
{
    *options = (bsattn_options_t){.verb = BSATTN_VERB_RUN};
    BSATTN_TRY(set_defaults(options));
    BSATTN_TRY(bsattn_command_line_read(argc, argv, options));
    if (bsattn_options_flag(options, BSATTN_OPTION_HELP) ||
        bsattn_options_flag(options, BSATTN_OPTION_VERSION) ||
        (options->verb == BSATTN_VERB_HELP)) {
        return BSATTN_OK;
    }
    BSATTN_TRY(check_verb(options));
    BSATTN_TRY(read_environment(options, environment));
    BSATTN_TRY(read_file(options));
    return apply_preset(options);
}

static bool is_taken(const bsattn_options_t *options, int option)
{
    return bsattn_option_in_file((bsattn_option_t)option) &&
           ((bsattn_option_spec((bsattn_option_t)option)->verbs & (1u << options->verb)) != 0);
}

static void print_group(const bsattn_options_t *options, int group, FILE *file)
{
    bool titled = false;

    for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
        const bsattn_option_spec_t *spec = bsattn_option_spec((bsattn_option_t)i);
        const bsattn_option_value_t *value = &options->values[i];
        if (((int)spec->group != group) || !is_taken(options, i) ||
            (i == BSATTN_OPTION_SHOW_CONFIG)) {
            continue;
        }
        if (!titled) {
            (void)fprintf(file, "\n[%s]\n", bsattn_group_name((bsattn_group_t)group));
            titled = true;
        }
        if (value->text[0] == '\0') {
            (void)fprintf(file, "# %s =\n", spec->name);
        } else {
            (void)fprintf(file, "%-10s = %-24s  # %s\n", spec->name, value->text, value->where);
        }
    }
}

void bsattn_options_print(const bsattn_options_t *options, FILE *file)
{
    const char *config = bsattn_options_text(options, BSATTN_OPTION_CONFIG);

    (void)fprintf(file, "# bsattn_ring %s: value, and where it came from\n",
                  bsattn_verb_name(options->verb));
    if (config != NULL) {
        (void)fprintf(file, "# config = %s  # %s\n", config,
                      bsattn_options_where(options, BSATTN_OPTION_CONFIG));
    }
    for (int group = 0; group < BSATTN_GROUP_COUNT; ++group) {
        print_group(options, group, file);
    }
}

/* Room that the lines take at most. */
static size_t lines_size(const bsattn_options_t *options)
{
    size_t size = sizeof("verb = \nhelp = 0\nversion = 0\nshow-config = 0\n") +
                  strlen(bsattn_verb_name(options->verb));

    for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
        size += sizeof(" = \n") + strlen(bsattn_option_spec((bsattn_option_t)i)->name) +
                strlen(options->values[i].text);
    }
    return size;
}

bsattn_status_t bsattn_options_lines(const bsattn_options_t *options, char **text_p)
{
    size_t size = lines_size(options);
    char *text = malloc(size);
    bsattn_strbuf_t buf;

    if (text == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the options");
    }
    bsattn_strbuf_init(&buf, text, size);
    bsattn_strbuf_add(&buf, "verb = %s\nhelp = %d\nversion = %d\nshow-config = %d\n",
                      bsattn_verb_name(options->verb),
                      bsattn_options_flag(options, BSATTN_OPTION_HELP),
                      bsattn_options_flag(options, BSATTN_OPTION_VERSION),
                      bsattn_options_flag(options, BSATTN_OPTION_SHOW_CONFIG));
    for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
        if (is_taken(options, i)) {
            bsattn_strbuf_add(&buf, "%s = %s\n", bsattn_option_spec((bsattn_option_t)i)->name,
                              options->values[i].text);
        }
    }
    BSATTN_ASSERT(!buf.cut);
    *text_p = text;
    return BSATTN_OK;
}
