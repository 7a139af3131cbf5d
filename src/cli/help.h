/* SPDX-License-Identifier: Apache-2.0 */
/** @file help.h  Help, man page and README table, written from the list of options. */
#ifndef BSATTN_CLI_HELP_H
#define BSATTN_CLI_HELP_H

#include "cli/option.h"

#include <stdio.h>

/** Print usage, verbs, options by group with their defaults, examples and exit codes. */
void bsattn_help_print(FILE *file);

/** Print the same for one verb. */
void bsattn_help_print_verb(bsattn_verb_t verb, FILE *file);

/** Print the options as Markdown tables, one for each group. */
void bsattn_help_print_markdown(FILE *file);

/** Print the man page bsattn_ring(1). */
void bsattn_help_print_man(FILE *file);

/** Print what a topic asks for: a verb's name, "markdown", "columns" (of a record, as Markdown) or "man"; NULL: everything.
 *  @return BSATTN_OK or BSATTN_ERR_INPUT */
bsattn_status_t bsattn_help_print_topic(const char *topic, FILE *file);

#endif
