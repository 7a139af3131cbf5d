/* SPDX-License-Identifier: Apache-2.0 */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static _Thread_local char last_error[BSATTN_ERROR_TEXT_SIZE];

const char *bsattn_status_name(bsattn_status_t status)
{
    switch (status) {
#define STATUS_NAME(_name, _value, _text)                                                          \
    case BSATTN_##_name:                                                                           \
        return #_name;
        BSATTN_STATUS_LIST(STATUS_NAME)
#undef STATUS_NAME
    }
    return "unknown";
}

const char *bsattn_status_text(bsattn_status_t status)
{
    switch (status) {
#define STATUS_TEXT(_name, _value, _text)                                                          \
    case BSATTN_##_name:                                                                           \
        return _text;
        BSATTN_STATUS_LIST(STATUS_TEXT)
#undef STATUS_TEXT
    }
    return "unknown status";
}

const char *bsattn_last_error(void)
{
    return last_error;
}

const char *bsattn_version(void)
{
    return BSATTN_VERSION;
}

bsattn_status_t bsattn_fail(bsattn_status_t status, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(last_error, sizeof(last_error), format, args);
    va_end(args);
    return status;
}

void bsattn_assert_failed(const char *condition, const char *file, int line)
{
    (void)fprintf(stderr, "bsattn_ring: internal error: %s:%d: %s does not hold\n", file, line,
                  condition);
    abort();
}
