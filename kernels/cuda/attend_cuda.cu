/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel for which problem on which GPU. */
#include "kernels/attend_cuda.h"

extern "C" {
#include "base/status.h"
}

#include <stdlib.h>
#include <string.h>

namespace {

struct Choice {
    const bsattn_cuda_kernel_t *kernel;
    bool (*can)(int capability, bsattn_dtype_t dtype, int head_dim);
};

bool sm90_can(int capability, bsattn_dtype_t dtype, int head_dim)
{
    /* Its instructions are those of compute capability 9.0 alone. */
    return (capability == 90) && (dtype != BSATTN_F32) && ((head_dim == 64) || (head_dim == 128));
}

bool sm80_can(int capability, bsattn_dtype_t dtype, int head_dim)
{
    (void)capability;
    (void)head_dim;
    return dtype != BSATTN_F32;
}

bool plain_can(int capability, bsattn_dtype_t dtype, int head_dim)
{
    (void)capability;
    (void)dtype;
    (void)head_dim;
    return true;
}

/* Fastest first. */
const Choice choices[] = {
    {&bsattn_attend_sm90, sm90_can},
    {&bsattn_attend_sm80, sm80_can},
    {&bsattn_attend_plain, plain_can},
};

} /* namespace */

extern "C" bsattn_status_t bsattn_cuda_kernel_find(int capability, bsattn_dtype_t dtype,
                                                   int head_dim,
                                                   const bsattn_cuda_kernel_t **kernel_p)
{
    const char *wanted = getenv("BSATTN_CUDA_KERNEL");
    bool any = (wanted == NULL) || (wanted[0] == '\0');
    bool known = false;

    if (capability < 80) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                           "the GPU has compute capability %d.%d; 8.0 or later is needed",
                           capability / 10, capability % 10);
    }
    for (const Choice &choice : choices) {
        bool named = any || (strcmp(choice.kernel->name, wanted) == 0);
        known = known || named;
        if (named && choice.can(capability, dtype, head_dim)) {
            *kernel_p = choice.kernel;
            return BSATTN_OK;
        }
    }
    if (!known) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "BSATTN_CUDA_KERNEL is \"%s\"; there are sm90, sm80 and plain", wanted);
    }
    return bsattn_fail(BSATTN_ERR_INPUT,
                       "BSATTN_CUDA_KERNEL: %s cannot do %s with head_dim %d on compute capability "
                       "%d.%d; plain can",
                       wanted, bsattn_dtype_name(dtype), head_dim, capability / 10,
                       capability % 10);
}
