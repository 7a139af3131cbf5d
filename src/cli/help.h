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

/** Print what a topic asks for.
 *  @param topic  a verb's name; "markdown": the options as tables, one for each group; "columns" of
 *                a record, as a table; "man": the man page bsattn_ring(1); NULL: everything
 *  @return BSATTN_OK or BSATTN_ERR_INPUT */
bsattn_status_t bsattn_help_print_topic(const char *topic, FILE *file);

#endif
