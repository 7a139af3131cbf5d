/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file config.h
 * Reading a config file: [section] and key = value lines.
 *
 * `#` or `;` at the start of a line, and `#` after white space, begin a comment. A line that is
 * indented and does not begin with the name of an option and `=` goes on with the value of the line
 * before it; the parts are joined without a space. A line holds at most BSATTN_CONFIG_LINE_MAX
 * characters; a longer one is refused, never cut.
 */
#ifndef BSATTN_CLI_CONFIG_H
#define BSATTN_CLI_CONFIG_H

#include "base/status.h"

#include <stddef.h>

enum { BSATTN_CONFIG_LINE_MAX = 196 };

/** One key and its value. */
typedef struct bsattn_config_item {
    const char *section; /**< "" before the first section */
    const char *key;
    const char *value;
    const char *where; /**< "FILE:LINE" */
} bsattn_config_item_t;

/** Receives one item; its strings are valid until it returns.
 *  @return BSATTN_OK, or what ends the reading */
typedef bsattn_status_t (*bsattn_config_func_t)(void *arg, const bsattn_config_item_t *item);

/** Read a config text.
 *  @param name  of the file, for messages
 *  @param text  [length]; need not be terminated
 *  @return BSATTN_OK, BSATTN_ERR_INPUT naming file and line, or what func returned first */
bsattn_status_t bsattn_config_parse(const char *name, const char *text, size_t length,
                                    bsattn_config_func_t func, void *arg);

/** Read a config file. @return the same, or BSATTN_ERR_FILE, or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_config_read(const char *path, bsattn_config_func_t func, void *arg);

#endif
