/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file table.h
 * Records as a table for people and for grep: lines that begin with '#' are commentary, every other
 * line is a row of the same number of columns, separated by spaces.
 */
#ifndef BSATTN_REPORT_TABLE_H
#define BSATTN_REPORT_TABLE_H

#include "report/record.h"

#include <stdbool.h>
#include <stdio.h>

/** Print version, job, problem, plan and one line for each rank, all beginning with '#'. */
void bsattn_table_preamble(const bsattn_record_t *record, FILE *file);

/** Print version and job alone, for tables whose rows are different problems. */
void bsattn_table_job(const bsattn_record_t *record, FILE *file);

/** Print the two header lines: names and units. */
void bsattn_table_header(FILE *file);

/** Print a row. */
void bsattn_table_row(const bsattn_record_t *record, FILE *file);

/** Print the table of a plan: a row for each purpose of memory; bytes, balance and modelled time as
 *  commentary.
 *  @param commentary  print lines that begin with '#', too */
void bsattn_table_plan(const bsattn_record_t *record, bool commentary, FILE *file);

#endif
