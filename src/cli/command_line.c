/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "cli/command_line.h"

#include "base/text.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

enum {
    LONG_BASE = 256, /* val of a long option: above every character */
    NAME_SIZE = 64,
    LETTERS_SIZE = 3 + 3 * BSATTN_OPTION_COUNT,
};

typedef struct scan {
    bsattn_options_t *options;
    struct option longs[BSATTN_OPTION_COUNT + 1];
    char letters[LETTERS_SIZE];
    int words; /* arguments that are no options seen so far */
} scan_t;

static void prepare(scan_t *scan)
{
    bsattn_strbuf_t letters;

    /* '-': words are handed over in their place, so that argv[optind] always is what comes next;
     * ':' tells a missing value from an unknown option. */
    bsattn_strbuf_init(&letters, scan->letters, sizeof(scan->letters));
    bsattn_strbuf_add(&letters, "-:");
    for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
        const bsattn_option_spec_t *spec = bsattn_option_spec((bsattn_option_t)i);
        bool is_flag = bsattn_option_is_flag((bsattn_option_t)i);
        scan->longs[i] = (struct option){
            .name = spec->name,
            .has_arg = is_flag ? optional_argument : required_argument,
            .val = LONG_BASE + i,
        };
        if (spec->letter != 0) {
            const char *argument = (spec->kind == BSATTN_KIND_FLAG) ? "" : is_flag ? "::" : ":";
            bsattn_strbuf_add(&letters, "%c%s", spec->letter, argument);
        }
    }
    scan->longs[BSATTN_OPTION_COUNT] = (struct option){0};
}

/* Copy the name of "--name=value" to out. */
static void long_name(const char *argument, char *out, size_t size)
{
    (void)bsattn_text_copy(out, size, argument + 2);
    out[strcspn(out, "=")] = '\0';
}

static bsattn_status_t fail_unknown(const char *argument)
{
    char name[NAME_SIZE];
    const char *nearest;

    long_name(argument, name, sizeof(name));
    nearest = bsattn_option_nearest(name);
    if (nearest == NULL) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "unknown option --%s; see bsattn_ring --help for those there are", name);
    }
    return bsattn_fail(BSATTN_ERR_INPUT, "unknown option --%s; did you mean --%s?", name, nearest);
}

static bsattn_status_t fail_missing(bsattn_option_t option)
{
    char accepted[256];

    return bsattn_fail(BSATTN_ERR_INPUT, "--%s needs a value: %s", bsattn_option_spec(option)->name,
                       bsattn_option_accepted(option, accepted, sizeof(accepted)));
}

static bool find_letter(int letter, bsattn_option_t *option_p)
{
    for (int i = 0; i < BSATTN_OPTION_COUNT; ++i) {
        if ((letter != 0) && (bsattn_option_spec((bsattn_option_t)i)->letter == letter)) {
            *option_p = (bsattn_option_t)i;
            return true;
        }
    }
    return false;
}

/* getopt could not make sense of argument; optopt is the letter, or the val of a long option. */
static bsattn_status_t fail_argument(const char *argument, int problem)
{
    bsattn_option_t option;

    if (strncmp(argument, "--", 2) == 0) {
        char name[NAME_SIZE];
        long_name(argument, name, sizeof(name));
        if ((problem == ':') && bsattn_option_find(name, &option)) {
            return fail_missing(option);
        }
        return fail_unknown(argument);
    }
    if (find_letter(optopt, &option)) {
        return fail_missing(option);
    }
    return bsattn_fail(BSATTN_ERR_INPUT,
                       "unknown option -%c; the short options are -h -V -v -q -n -w -c -o", optopt);
}

static bsattn_status_t take_word(scan_t *scan, const char *word)
{
    ++scan->words;
    if (scan->words == 1) {
        scan->options->verb_named = true;
        return bsattn_verb_find(word, &scan->options->verb);
    }
    if ((scan->words == 2) && (scan->options->verb == BSATTN_VERB_HELP)) {
        scan->options->topic = strdup(word);
        return (scan->options->topic != NULL) ? BSATTN_OK
                                              : bsattn_fail(BSATTN_ERR_MEMORY, "no memory");
    }
    return bsattn_fail(
        BSATTN_ERR_INPUT,
        "unexpected argument \"%s\" after the verb %s; options begin with --, and the "
        "value of --check and of flags is joined with =",
        word, bsattn_verb_name(scan->options->verb));
}

static bsattn_status_t take_option(scan_t *scan, bsattn_option_t option, const char *value,
                                   const char *argument)
{
    char where[NAME_SIZE];
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, where, sizeof(where));
    if (strncmp(argument, "--", 2) == 0) {
        char name[NAME_SIZE];
        long_name(argument, name, sizeof(name));
        if (strcmp(name, bsattn_option_spec(option)->name) != 0) {
            return fail_unknown(argument);
        }
        bsattn_strbuf_add(&buf, "--%s", name);
    } else {
        bsattn_strbuf_add(&buf, "-%c", bsattn_option_spec(option)->letter);
    }
    return bsattn_options_set(scan->options, option, (value != NULL) ? value : "on",
                              BSATTN_ORIGIN_COMMAND_LINE, where);
}

static bsattn_status_t take(scan_t *scan, int found, const char *argument)
{
    bsattn_option_t option;

    if (found == 1) {
        return take_word(scan, optarg);
    }
    if ((found == '?') || (found == ':')) {
        return fail_argument(argument, found);
    }
    if (found >= LONG_BASE) {
        return take_option(scan, (bsattn_option_t)(found - LONG_BASE), optarg, argument);
    }
    BSATTN_ASSERT(find_letter(found, &option));
    return take_option(scan, option, optarg, argument);
}

bsattn_status_t bsattn_command_line_read(int argc, char *const *argv, bsattn_options_t *options)
{
    scan_t scan = {.options = options};
    int at = 1;
    int found;

    prepare(&scan);
    opterr = 0;
    optind = 0; /* glibc: forget an earlier scan */
    while ((found = getopt_long(argc, argv, scan.letters, scan.longs, NULL)) != -1) {
        BSATTN_TRY(take(&scan, found, argv[at]));
        at = optind;
    }
    for (int i = optind; i < argc; ++i) {
        BSATTN_TRY(take_word(&scan, argv[i]));
    }
    return BSATTN_OK;
}
