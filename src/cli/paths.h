/* SPDX-License-Identifier: Apache-2.0 */
/** @file paths.h  Files that the options name: none may be written over another of them. */
#ifndef BSATTN_CLI_PATHS_H
#define BSATTN_CLI_PATHS_H

#include "cli/options.h"

/** Check that every file to be written is neither another one to be written nor one to be read, however
 *  their names are spelt.
 *  @return BSATTN_OK or BSATTN_ERR_INPUT */
bsattn_status_t bsattn_paths_check(const bsattn_options_t *options);

#endif
