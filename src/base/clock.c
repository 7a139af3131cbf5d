/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include "base/status.h"

#include <time.h>

double bsattn_clock_ms(void)
{
    struct timespec now;

    BSATTN_ASSERT(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}
