/* SPDX-License-Identifier: Apache-2.0 */
/** @file status.h  The one error path: who finds an error says it once; callers pass the status
 *  on. */
#ifndef BSATTN_BASE_STATUS_H
#define BSATTN_BASE_STATUS_H

#include "bsattn.h"

enum { BSATTN_ERROR_TEXT_SIZE = 768 };

/** Record the message of a failure for this thread and return its status. The message is one line
 *  that names the value and what is accepted. */
bsattn_status_t bsattn_fail(bsattn_status_t status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** Return from the calling function with the status of a failed call. Only where nothing needs
 *  freeing. */
#define BSATTN_TRY(_call)                                                                          \
    do {                                                                                           \
        bsattn_status_t try_status_ = (_call);                                                     \
        if (try_status_ != BSATTN_OK) {                                                            \
            return try_status_;                                                                    \
        }                                                                                          \
    } while (0)

/** An assertion that stays on in release builds: for our own mistakes, never for the user's. */
#define BSATTN_ASSERT(_condition)                                                                  \
    do {                                                                                           \
        if (__builtin_expect(!(_condition), 0)) {                                                  \
            bsattn_assert_failed(#_condition, __FILE__, __LINE__);                                 \
        }                                                                                          \
    } while (0)

__attribute__((noreturn)) void bsattn_assert_failed(const char *condition, const char *file,
                                                    int line);

#endif
