/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file report_file.h
 * A text file that grows row by row and is whole at any time: every row rewrites FILE.part and
 * renames it to FILE.
 *
 * "-" is standard output; that, and a FILE that exists and is no regular file (a pipe, /dev/null),
 * is written straight.
 */
#ifndef BSATTN_REPORT_REPORT_FILE_H
#define BSATTN_REPORT_REPORT_FILE_H

#include "base/status.h"

#include <stdbool.h>

typedef struct bsattn_report_file bsattn_report_file_t;

/** Find out whether FILE can be written, leaving it as it is and nothing beside it.
 *  @param path  copied
 *  @return BSATTN_OK, BSATTN_ERR_FILE naming path and cause, or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_report_file_open(const char *path, bsattn_report_file_t **file_p);

/** Append text and bring it to the file.
 *  @return BSATTN_OK; BSATTN_ERR_FILE or BSATTN_ERR_MEMORY, FILE then being as before */
bsattn_status_t bsattn_report_file_append(bsattn_report_file_t *file, const char *text);

/** @return whether nothing was appended yet */
bool bsattn_report_file_is_empty(const bsattn_report_file_t *file);

/** Release; NULL is allowed. FILE holds what was appended. */
void bsattn_report_file_close(bsattn_report_file_t *file);

#endif
