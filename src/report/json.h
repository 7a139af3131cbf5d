/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file json.h
 * Records as JSON: one object a line, so that a file of one record is a JSON document too.
 */
#ifndef BSATTN_REPORT_JSON_H
#define BSATTN_REPORT_JSON_H

#include "base/status.h"
#include "report/columns.h"

/** Write cells as one JSON object, a nested object for each part of a section. NaN and infinities
 *  become null.
 *  @param line_p  receives the line, with newline, to be released with free()
 *  @return BSATTN_OK or BSATTN_ERR_MEMORY */
bsattn_status_t bsattn_json_from_cells(const bsattn_cell_t *cells, size_t count, char **line_p);

/** Write a record, its arrays over ranks included. @return the same */
bsattn_status_t bsattn_json_from_record(const bsattn_record_t *record, char **line_p);

#endif
