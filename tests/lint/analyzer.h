/* SPDX-License-Identifier: Apache-2.0 */
/* Included before every file that clang-tidy reads: tells it what it cannot see from another file, that a failure given to
 * these functions is returned as a failure. Without it every path behind a failed call is followed as if the call had
 * succeeded. A file that defines one of them is read with DEFINES_<name>. */
#include "base/status.h"
#include "ring/context.h"
#include "transport/mpi_job.h"

#define FAILURE_STAYS(_given, _call)                                                               \
    __extension__({                                                                                \
        bsattn_status_t given_ = (_given);                                                         \
        bsattn_status_t returned_ = _call;                                                         \
        (given_ == BSATTN_OK) ? returned_ : given_;                                                \
    })

#ifndef DEFINES_bsattn_fail
#define bsattn_fail(_status, ...) FAILURE_STAYS((_status), bsattn_fail(given_, __VA_ARGS__))
#endif
#ifndef DEFINES_bsattn_job_agree
#define bsattn_job_agree(_job, _status) FAILURE_STAYS((_status), bsattn_job_agree((_job), given_))
#endif
#ifndef DEFINES_bsattn_context_agree
#define bsattn_context_agree(_context, _status)                                                    \
    FAILURE_STAYS((_status), bsattn_context_agree((_context), given_))
#endif
