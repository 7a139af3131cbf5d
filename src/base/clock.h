/* SPDX-License-Identifier: Apache-2.0 */
/** @file clock.h  Time that only goes forward. */
#ifndef BSATTN_BASE_CLOCK_H
#define BSATTN_BASE_CLOCK_H

/** @return ms since some fixed moment of this host: never decreases, no two hosts agree */
double bsattn_clock_ms(void);

#endif
