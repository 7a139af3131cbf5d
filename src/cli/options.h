/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file options.h
 * The values of all options, each with the place it came from.
 *
 * Precedence: command line > environment > config file > default. Every value is checked where it
 * is given, also if another place overrides it. A preset gives block and pattern with the
 * precedence of the place that named it; block and pattern given in the same place or a stronger
 * one win over it.
 */
#ifndef BSATTN_CLI_OPTIONS_H
#define BSATTN_CLI_OPTIONS_H

#include "cli/option.h"

#include <stdio.h>

typedef enum bsattn_origin {
    BSATTN_ORIGIN_DEFAULT,
    BSATTN_ORIGIN_FILE,
    BSATTN_ORIGIN_ENVIRONMENT,
    BSATTN_ORIGIN_COMMAND_LINE,
} bsattn_origin_t;

typedef struct bsattn_option_value {
    char *text;  /**< as given, owned; "" for a file that was not named */
    char *where; /**< e.g. "--seq", "BSATTN_SEQ", "x.conf:12", "default"; owned */
    bsattn_origin_t origin;
    bsattn_option_reading_t reading;
} bsattn_option_value_t;

typedef struct bsattn_options {
    bsattn_verb_t verb;
    bool verb_named; /**< on the command line; else verb is run */
    char *topic;     /**< what help is about: a verb, "markdown", "man"; NULL: everything; owned */
    bsattn_option_value_t values[BSATTN_OPTION_COUNT];
} bsattn_options_t;

/** Read the command line, the environment and the config file. If help or version is asked for on
 *  the command line, the environment and files are left alone.
 *  @param argc, argv   as main got them
 *  @param environment  "NAME=value" strings, NULL at the end
 *  @param options      to be released with bsattn_options_free() whatever is returned; on failure
 *                      it holds the defaults and what was read so far, and the verb if it was found
 *  @return BSATTN_OK, BSATTN_ERR_INPUT, BSATTN_ERR_FILE or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_options_read(int argc, char *const *argv, char *const *environment,
                                    bsattn_options_t *options);

/** Release what a set of options owns. */
void bsattn_options_free(bsattn_options_t *options);

/** Set one option unless a stronger place has set it; a place as strong overrides.
 *  @param where  for messages and bsattn_options_print()
 *  @return BSATTN_OK, BSATTN_ERR_INPUT or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_options_set(bsattn_options_t *options, bsattn_option_t option,
                                   const char *text, bsattn_origin_t origin, const char *where);

/** @return the value as text; NULL for a file that was not named. Owned by the options */
const char *bsattn_options_text(const bsattn_options_t *options, bsattn_option_t option);

/** @return the value as a number: see bsattn_option_reading_t */
int64_t bsattn_options_int(const bsattn_options_t *options, bsattn_option_t option);
double bsattn_options_real(const bsattn_options_t *options, bsattn_option_t option);
bool bsattn_options_flag(const bsattn_options_t *options, bsattn_option_t option);

/** @return whether the value is not the default one */
bool bsattn_options_given(const bsattn_options_t *options, bsattn_option_t option);

/** @return where the value came from, e.g. "--seq" */
const char *bsattn_options_where(const bsattn_options_t *options, bsattn_option_t option);

/** Print every value the verb takes and where it came from. The lines, put in a file, are a config
 *  file. */
void bsattn_options_print(const bsattn_options_t *options, FILE *file);

/** Write "name = value" lines of the verb and all values it takes, for comparing ranks.
 *  @param text_p  receives the text, to be released with free()
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_options_lines(const bsattn_options_t *options, char **text_p);

#endif
