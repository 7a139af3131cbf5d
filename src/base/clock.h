/* SPDX-License-Identifier: Apache-2.0 */
/** @file clock.h  Time that only goes forward. */
#ifndef BSATTN_BASE_CLOCK_H
#define BSATTN_BASE_CLOCK_H

/** @return ms since some fixed moment of this host: never decreases, no two hosts agree */
double bsattn_clock_ms(void);

/**
 * How long something has been waited for by one who looks again and again. A process that was not
 * run in between, stopped by a signal or a scheduler, has not waited: of the time between two looks
 * no more than 100 ms count.
 */
typedef struct bsattn_wait_clock {
    double seen_ms; /**< the last look */
    double waited_ms;
} bsattn_wait_clock_t;

/** Begin to wait. */
void bsattn_wait_clock_start(bsattn_wait_clock_t *wait);

/** Look. @return ms waited until now */
double bsattn_wait_clock_ms(bsattn_wait_clock_t *wait);

#endif
