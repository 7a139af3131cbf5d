/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file record.h
 * Everything known of one measured or planned problem, as plain data. What is not known is NaN, -1
 * or "".
 *
 * The fields become columns through columns.def; times in ms, sizes in bytes.
 */
#ifndef BSATTN_REPORT_RECORD_H
#define BSATTN_REPORT_RECORD_H

#include "base/stats.h"
#include "bsattn.h"

enum { BSATTN_RECORD_NAME_SIZE = 64, BSATTN_RECORD_CPUS_SIZE = 512, BSATTN_RECORD_TEXT_SIZE = 192 };

/** Where a rank runs. Travels between ranks as bytes. */
typedef struct bsattn_placement {
    char host[BSATTN_RECORD_NAME_SIZE];
    char device[BSATTN_RECORD_NAME_SIZE];  /**< processor or GPU model */
    char pci[16];                          /**< "" for CPU ranks */
    char cpus[BSATTN_RECORD_CPUS_SIZE];    /**< cores it may use, e.g. "0-3" */
    char nic[BSATTN_RECORD_NAME_SIZE];     /**< network device nearest to its GPU; "": none known */
    char decided[BSATTN_RECORD_TEXT_SIZE]; /**< why, e.g. "local rank 0 of 4; 2 cores" */
} bsattn_placement_t;

/** What one rank measured, times as medians over the timed iterations. Travels between ranks as
 *  bytes. */
typedef struct bsattn_rank_record {
    double time_total_ms;
    double time_attend_ms;
    double time_exchange_ms;
    double time_exposed_ms;
    int64_t bytes_sent;     /**< planned, in one execute */
    int64_t bytes_received; /**< planned, in one execute */
    int64_t memory_device_peak;
    int64_t memory_host_peak; /**< of its process */
} bsattn_rank_record_t;

/** Bytes over ranks. */
typedef struct bsattn_spread {
    int64_t min;
    int64_t mean;
    int64_t max;
} bsattn_spread_t;

/** Memory by purpose, see bsattn_memory_t. */
typedef struct bsattn_memory_record {
    bsattn_spread_t inputs;
    bsattn_spread_t outputs;
    bsattn_spread_t chunks;
    bsattn_spread_t state;
    bsattn_spread_t lists;
    bsattn_spread_t scratch;
    bsattn_spread_t staging;
    bsattn_spread_t libraries;
    bsattn_spread_t total;
    bsattn_spread_t host;
} bsattn_memory_record_t;

typedef struct bsattn_record {
    const char *verb;
    const char *status; /**< "ok" or "failed" */

    /* job */
    int ranks;
    int hosts;
    int threads;
    const char *launcher;
    const char *backend;
    const char *backend_reason;
    const char *backend_variant;
    const char *transport;
    const char *transport_reason;

    /* problem */
    bsattn_problem_t problem;
    const char *pattern;
    bsattn_pattern_stats_t stats;
    int64_t seed;

    /* plan */
    bsattn_estimate_totals_t plan;
    bsattn_memory_record_t memory;

    /* measured; count 0 and NaN in a plan */
    bsattn_stats_t total_ms; /**< over iterations of the slowest rank's time */
    bsattn_stats_t attend_ms;
    bsattn_stats_t exchange_ms;
    bsattn_stats_t exposed_ms;
    bsattn_check_result_t check; /**< rows -1 if nothing was checked */
    double out_sum;
    double out_abs_sum;
    char out_hash[20]; /**< 16 hexadecimal digits, "" if not computed */

    /* one entry for each rank; NULL in a plan; not owned */
    const bsattn_placement_t *placement;
    const bsattn_rank_record_t *rank_records;
} bsattn_record_t;

/** Set everything to "not known" and the problem to the defaults. */
void bsattn_record_init(bsattn_record_t *record);

/** Take totals and memory over ranks from an estimate. */
void bsattn_record_set_estimate(bsattn_record_t *record, const bsattn_estimate_t *estimate);

/** @return flops / median total time, in TFLOP/s; NaN if there is no time */
double bsattn_record_tflops(const bsattn_record_t *record);

/** @return batch * N / median total time, per second; NaN if there is no time */
double bsattn_record_tokens_per_s(const bsattn_record_t *record);

#endif
