/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include "base/status.h"

#include <time.h>

/* Far above what looking takes, far below any deadline that is asked for. */
static const double most_between_looks_ms = 100.0;

double bsattn_clock_ms(void)
{
    struct timespec now;

    BSATTN_ASSERT(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

void bsattn_wait_clock_start(bsattn_wait_clock_t *wait)
{
    *wait = (bsattn_wait_clock_t){.seen_ms = bsattn_clock_ms()};
}

double bsattn_wait_clock_ms(bsattn_wait_clock_t *wait)
{
    double now_ms = bsattn_clock_ms();
    double since_ms = now_ms - wait->seen_ms;

    wait->seen_ms = now_ms;
    wait->waited_ms += (since_ms < most_between_looks_ms) ? since_ms : most_between_looks_ms;
    return wait->waited_ms;
}
