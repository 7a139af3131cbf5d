/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file command_line.h
 * Reading argv with getopt_long, without its abbreviations and its messages.
 */
#ifndef BSATTN_CLI_COMMAND_LINE_H
#define BSATTN_CLI_COMMAND_LINE_H

#include "cli/options.h"

/** Read the verb and the options of a command line. The first word that is no option is the verb.
 *  @param options  initialised; verb, topic and the values given are set
 *  @return BSATTN_OK, BSATTN_ERR_INPUT or BSATTN_ERR_MEMORY. Not thread safe: getopt keeps its
 *          state in global variables. */
bsattn_status_t bsattn_command_line_read(int argc, char *const *argv, bsattn_options_t *options);

#endif
