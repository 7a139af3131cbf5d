/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file csv.h
 * Records as CSV (RFC 4180, but lines end in a newline alone): a header section.key, then one row
 * each.
 */
#ifndef BSATTN_REPORT_CSV_H
#define BSATTN_REPORT_CSV_H

#include "base/status.h"
#include "report/columns.h"

/** @param line_p  receives the header line, with newline, to be released with free()
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_csv_header(char **line_p);

/** Write a record; what is not known is an empty field, a flag is 0 or 1. @return the same */
bsattn_status_t bsattn_csv_from_record(const bsattn_record_t *record, char **line_p);

#endif
