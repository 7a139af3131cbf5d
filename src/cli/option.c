/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/option.h"

#include "base/text.h"
#include "cli/presets.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

enum { DEFAULT_CHECK_ROWS = 64, WORD_SIZE = 64, WORDS_MAX = 16 };

static const bsattn_option_spec_t specs[BSATTN_OPTION_COUNT] = {
#define R (1u << BSATTN_VERB_RUN)
#define P (1u << BSATTN_VERB_PLAN)
#define V (1u << BSATTN_VERB_VERIFY)
#define M (1u << BSATTN_VERB_MASK)
#define I (1u << BSATTN_VERB_INFO)
#define H (1u << BSATTN_VERB_HELP)
#define OPTION(_id, _name, _letter, _group, _kind, _verbs, _fallback, _min, _max, _accepted,       \
               _help)                                                                              \
    [BSATTN_OPTION_##_id] = {_name,                                                                \
                             _letter,                                                              \
                             BSATTN_GROUP_##_group,                                                \
                             BSATTN_KIND_##_kind,                                                  \
                             (_verbs),                                                             \
                             _fallback,                                                            \
                             _min,                                                                 \
                             _max,                                                                 \
                             _accepted,                                                            \
                             _help},
#include "cli/options.def"
#undef OPTION
#undef R
#undef P
#undef V
#undef M
#undef I
#undef H
};

static const char *const group_names[BSATTN_GROUP_COUNT] = {
#define GROUP_NAME(_id, _name) _name,
    BSATTN_GROUP_LIST(GROUP_NAME)
#undef GROUP_NAME
};

static const char *const verb_names[BSATTN_VERB_COUNT] = {
#define VERB_NAME(_id, _letter, _name, _mpi, _help) _name,
    BSATTN_VERB_LIST(VERB_NAME)
#undef VERB_NAME
};

const bsattn_option_spec_t *bsattn_option_spec(bsattn_option_t option)
{
    BSATTN_ASSERT((unsigned)option < BSATTN_OPTION_COUNT);
    return &specs[option];
}

bool bsattn_option_find(const char *name, bsattn_option_t *option_p)
{
    for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
        if (strcmp(specs[i].name, name) == 0) {
            *option_p = (bsattn_option_t)i;
            return true;
        }
    }
    return false;
}

const char *bsattn_option_nearest(const char *name)
{
    const char *names[BSATTN_OPTION_COUNT];

    for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
        names[i] = specs[i].name;
    }
    /* An abbreviation is nearer to what was meant than any misspelling. */
    for (int i = 0; (i < BSATTN_OPTION_COUNT) && (strlen(name) >= 2); ++i) {
        if (strncmp(names[i], name, strlen(name)) == 0) {
            return names[i];
        }
    }
    return bsattn_text_nearest(name, names, BSATTN_OPTION_COUNT);
}

bool bsattn_option_is_flag(bsattn_option_t option)
{
    bsattn_option_kind_t kind = bsattn_option_spec(option)->kind;

    return (kind == BSATTN_KIND_FLAG) || (kind == BSATTN_KIND_CHECK);
}

bool bsattn_option_in_environment(bsattn_option_t option)
{
    return (option != BSATTN_OPTION_HELP) && (option != BSATTN_OPTION_VERSION);
}

bool bsattn_option_in_file(bsattn_option_t option)
{
    return bsattn_option_in_environment(option) && (option != BSATTN_OPTION_CONFIG);
}

const char *bsattn_option_variable(bsattn_option_t option, char *out, size_t size)
{
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, size);
    bsattn_strbuf_add(&buf, "BSATTN_%s", specs[option].name);
    for (char *c = out; *c != '\0'; ++c) {
        *c = (*c == '-') ? '_' : (char)toupper((unsigned char)*c);
    }
    return out;
}

/* ------------------------------------------------------------------------------- reading values */

/* Copy the next word of "a|b|c" to word and go past it; false at the end. */
static bool next_word(const char **list, char *word, size_t size)
{
    size_t length = strcspn(*list, "|");

    if (**list == '\0') {
        return false;
    }
    BSATTN_ASSERT(length < size);
    memcpy(word, *list, length);
    word[length] = '\0';
    *list += length + ((*list)[length] == '|' ? 1 : 0);
    return true;
}

/* A word "cyclic[:K]" matches "cyclic" and "cyclic:" followed by a number >= 1. */
static bool matches_word(const char *word, const char *text)
{
    const char *bracket = strstr(word, "[:K]");
    size_t length = (bracket == NULL) ? strlen(word) : (size_t)(bracket - word);
    int64_t number;

    if (strncmp(word, text, length) != 0) {
        return false;
    }
    if (text[length] == '\0') {
        return true;
    }
    return (bracket != NULL) && (text[length] == ':') &&
           bsattn_text_int64(text + length + 1, &number) && (number >= 1);
}

static bool read_choice(const bsattn_option_spec_t *spec, const char *text, int64_t *integer_p)
{
    const char *list = spec->accepted;
    char word[WORD_SIZE];

    while (next_word(&list, word, sizeof(word))) {
        if (matches_word(word, text)) {
            if (!bsattn_text_int64(text, integer_p)) {
                *integer_p = 0;
            }
            return true;
        }
    }
    return false;
}

static bool read_check(const char *text, int64_t *rows_p)
{
    int64_t rows;

    if (strcmp(text, "on") == 0) {
        *rows_p = DEFAULT_CHECK_ROWS;
    } else if (strcmp(text, "off") == 0) {
        *rows_p = -1;
    } else if (strcmp(text, "all") == 0) {
        *rows_p = 0;
    } else if (bsattn_text_size(text, &rows) && (rows >= 1)) {
        *rows_p = rows;
    } else {
        return false;
    }
    return true;
}

static bool read_flag(const char *text, int64_t *integer_p)
{
    bool on = (strcmp(text, "on") == 0);

    if (!on && (strcmp(text, "off") != 0)) {
        return false;
    }
    *integer_p = on ? 1 : 0;
    return true;
}

static bool read_kind(const bsattn_option_spec_t *spec, const char *text,
                      bsattn_option_reading_t *reading)
{
    switch (spec->kind) {
    case BSATTN_KIND_SIZE:
    case BSATTN_KIND_COUNT:
        return bsattn_text_size(text, &reading->integer) && (reading->integer >= spec->min) &&
               (reading->integer <= spec->max);
    case BSATTN_KIND_REAL:
        return bsattn_text_double(text, &reading->number) && (reading->number >= (double)spec->min);
    case BSATTN_KIND_CHOICE:
        return read_choice(spec, text, &reading->integer);
    case BSATTN_KIND_TEXT:
    case BSATTN_KIND_FILE:
        return text[0] != '\0';
    case BSATTN_KIND_PRESET:
        return bsattn_preset_text(text) != NULL;
    case BSATTN_KIND_FLAG:
        return read_flag(text, &reading->integer);
    case BSATTN_KIND_CHECK:
        return read_check(text, &reading->integer);
    }
    return false;
}

/* The accepted word that a misspelt value was meant to be, or NULL. Static storage would not be
 * thread safe: copied out. */
static bool nearest_value(const bsattn_option_spec_t *spec, const char *text, char *out,
                          size_t size)
{
    char words[WORDS_MAX][WORD_SIZE];
    const char *candidates[WORDS_MAX];
    const char *list = spec->accepted;
    const char *nearest;
    size_t count = 0;

    if (spec->kind == BSATTN_KIND_PRESET) {
        nearest = bsattn_preset_nearest(text);
        return (nearest != NULL) && bsattn_text_copy(out, size, nearest);
    }
    if ((spec->kind != BSATTN_KIND_CHOICE) && (spec->kind != BSATTN_KIND_CHECK)) {
        return false;
    }
    while ((count < WORDS_MAX) && next_word(&list, words[count], WORD_SIZE)) {
        words[count][strcspn(words[count], "[")] = '\0';
        candidates[count] = words[count];
        ++count;
    }
    nearest = bsattn_text_nearest(text, candidates, count);
    return (nearest != NULL) && bsattn_text_copy(out, size, nearest);
}

static void add_words(bsattn_strbuf_t *buf, const char *list)
{
    char word[WORD_SIZE];
    const char *separator = "";

    while (next_word(&list, word, sizeof(word))) {
        bsattn_strbuf_add(buf, "%s%s", separator, word);
        separator = ", ";
    }
}

const char *bsattn_option_accepted(bsattn_option_t option, char *out, size_t size)
{
    const bsattn_option_spec_t *spec = bsattn_option_spec(option);
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, size);
    switch (spec->kind) {
    case BSATTN_KIND_SIZE:
        bsattn_strbuf_add(&buf, "a whole number, which may end in K, M, G or T (binary)");
        break;
    case BSATTN_KIND_COUNT:
        bsattn_strbuf_add(&buf, "a whole number");
        break;
    case BSATTN_KIND_REAL:
        bsattn_strbuf_add(&buf, (spec->min == 0) ? "a number, not negative" : "a number");
        break;
    case BSATTN_KIND_CHOICE:
    case BSATTN_KIND_FLAG:
        add_words(&buf, spec->accepted);
        return out;
    case BSATTN_KIND_CHECK:
        bsattn_strbuf_add(&buf, "on, off, all or a number of rows");
        return out;
    case BSATTN_KIND_TEXT:
        bsattn_strbuf_add(&buf, "a text");
        break;
    case BSATTN_KIND_FILE:
        bsattn_strbuf_add(&buf, "the name of a file");
        break;
    case BSATTN_KIND_PRESET:
        bsattn_preset_list(out, size);
        return out;
    }
    if (spec->max == INT64_MAX) {
        bsattn_strbuf_add(&buf, ", %lld or more", (long long)spec->min);
    } else if (spec->max > 0) {
        bsattn_strbuf_add(&buf, " from %lld to %lld", (long long)spec->min, (long long)spec->max);
    }
    if (strcmp(spec->fallback, "auto") == 0) {
        bsattn_strbuf_add(&buf, ", or auto");
    }
    return out;
}

bsattn_status_t bsattn_option_read(bsattn_option_t option, const char *text, const char *where,
                                   bsattn_option_reading_t *reading_p)
{
    const bsattn_option_spec_t *spec = bsattn_option_spec(option);
    bsattn_option_reading_t reading = {.integer = 0, .number = NAN};
    char accepted[256];
    char near[WORD_SIZE];
    bool has_near;
    bool is_fallback = (strcmp(text, spec->fallback) == 0) && (text[0] != '\0');

    if (!read_kind(spec, text, &reading) && !is_fallback) {
        has_near = nearest_value(spec, text, near, sizeof(near));
        return bsattn_fail(
            BSATTN_ERR_INPUT, "%s \"%s\" (from %s) is not accepted: give %s%s%s%s", spec->name,
            text, where, bsattn_option_accepted(option, accepted, sizeof(accepted)),
            has_near ? "; did you mean \"" : "", has_near ? near : "", has_near ? "\"?" : "");
    }
    *reading_p = reading;
    return BSATTN_OK;
}

/* ----------------------------------------------------------------------------- groups and verbs */

const char *bsattn_group_name(bsattn_group_t group)
{
    BSATTN_ASSERT((unsigned)group < BSATTN_GROUP_COUNT);
    return group_names[group];
}

bool bsattn_group_find(const char *name, bsattn_group_t *group_p)
{
    for (int i = 0; i < BSATTN_GROUP_COUNT; ++i) {
        if (strcmp(group_names[i], name) == 0) {
            *group_p = (bsattn_group_t)i;
            return true;
        }
    }
    return false;
}

const char *bsattn_verb_name(bsattn_verb_t verb)
{
    BSATTN_ASSERT((unsigned)verb < BSATTN_VERB_COUNT);
    return verb_names[verb];
}

const char *bsattn_verb_help_line(bsattn_verb_t verb)
{
    static const char *const lines[BSATTN_VERB_COUNT] = {
#define VERB_HELP(_id, _letter, _name, _mpi, _help) _help,
        BSATTN_VERB_LIST(VERB_HELP)
#undef VERB_HELP
    };

    BSATTN_ASSERT((unsigned)verb < BSATTN_VERB_COUNT);
    return lines[verb];
}

bool bsattn_verb_uses_mpi(bsattn_verb_t verb)
{
    static const bool uses[BSATTN_VERB_COUNT] = {
#define VERB_MPI(_id, _letter, _name, _mpi, _help) (_mpi) != 0,
        BSATTN_VERB_LIST(VERB_MPI)
#undef VERB_MPI
    };

    BSATTN_ASSERT((unsigned)verb < BSATTN_VERB_COUNT);
    return uses[verb];
}

bsattn_status_t bsattn_verb_find(const char *name, bsattn_verb_t *verb_p)
{
    char list[128];
    const char *nearest;

    for (int i = 0; i < BSATTN_VERB_COUNT; ++i) {
        if (strcmp(verb_names[i], name) == 0) {
            *verb_p = (bsattn_verb_t)i;
            return BSATTN_OK;
        }
    }
    nearest = bsattn_text_nearest(name, verb_names, BSATTN_VERB_COUNT);
    return bsattn_fail(BSATTN_ERR_INPUT, "unknown verb \"%s\"%s%s%s; the verbs are %s", name,
                       (nearest != NULL) ? " (did you mean \"" : "",
                       (nearest != NULL) ? nearest : "", (nearest != NULL) ? "\"?)" : "",
                       bsattn_verb_list((1u << BSATTN_VERB_COUNT) - 1u, list, sizeof(list)));
}

const char *bsattn_verb_list(unsigned verbs, char *out, size_t size)
{
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, size);
    for (int i = 0; i < BSATTN_VERB_COUNT; ++i) {
        if ((verbs & (1u << i)) != 0) {
            bsattn_strbuf_add(&buf, "%s%s", (buf.length > 0) ? ", " : "", verb_names[i]);
        }
    }
    return out;
}
