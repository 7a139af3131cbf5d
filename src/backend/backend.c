/* SPDX-License-Identifier: Apache-2.0 */
/* Which backend. The one place that knows whether this build has CUDA. */
#include "backend/backend.h"

#include "backend/variants.h"
#include "base/text.h"

#include <string.h>

#ifdef BSATTN_HAVE_CUDA

static int count_gpus(char *reason, size_t size)
{
    return bsattn_backend_cuda_gpus(reason, size);
}

bsattn_status_t bsattn_backend_gpu(int index, bsattn_gpu_t *gpu_p)
{
    return bsattn_backend_cuda_gpu(index, gpu_p);
}

const char *bsattn_backend_cuda_library(void)
{
    return bsattn_backend_cuda_versions();
}

static bool reaches_all(const bsattn_backend_t *backend)
{
    return bsattn_backend_cuda_reaches_all(backend);
}

static bsattn_status_t create_cuda(int device, int threads, bsattn_backend_t **backend_p)
{
    return bsattn_backend_cuda_create(device, threads, backend_p);
}

#else

static const char no_cuda[] = "this build has no CUDA";

static int count_gpus(char *reason, size_t size)
{
    (void)bsattn_text_copy(reason, size, no_cuda);
    return 0;
}

bsattn_status_t bsattn_backend_gpu(int index, bsattn_gpu_t *gpu_p)
{
    (void)gpu_p;
    return bsattn_fail(BSATTN_ERR_ENVIRONMENT, "GPU %d: %s", index, no_cuda);
}

const char *bsattn_backend_cuda_library(void)
{
    return "not in this build";
}

static bool reaches_all(const bsattn_backend_t *backend)
{
    (void)backend;
    return true;
}

static bsattn_status_t create_cuda(int device, int threads, bsattn_backend_t **backend_p)
{
    (void)threads, (void)backend_p;
    return bsattn_fail(BSATTN_ERR_ENVIRONMENT, "GPU %d: %s", device, no_cuda);
}

#endif

int bsattn_backend_gpus(char *reason, size_t size)
{
    char unwanted[160];

    return (reason != NULL) ? count_gpus(reason, size) : count_gpus(unwanted, sizeof(unwanted));
}

bool bsattn_backend_reaches_all(const bsattn_backend_t *backend)
{
    return backend->in_host_memory || reaches_all(backend);
}

static bsattn_status_t choose_cuda(bsattn_backend_choice_t *choice)
{
    char reason[sizeof(choice->reason)] = "";

    if (bsattn_backend_gpus(reason, sizeof(reason)) == 0) {
        return bsattn_fail(BSATTN_ERR_ENVIRONMENT,
                           "backend cuda: %s; take --backend cpu, or auto to use what there is",
                           reason);
    }
    choice->cuda = true;
    return BSATTN_OK;
}

static void choose_auto(bsattn_backend_choice_t *choice)
{
    char reason[sizeof(choice->reason)] = "";
    int gpus = bsattn_backend_gpus(reason, sizeof(reason));
    bsattn_strbuf_t buf;

    choice->cuda = (gpus > 0);
    bsattn_strbuf_init(&buf, choice->reason, sizeof(choice->reason));
    if (choice->cuda) {
        bsattn_strbuf_add(&buf, "%d GPU%s visible", gpus, (gpus == 1) ? "" : "s");
    } else {
        bsattn_strbuf_add(&buf, "%s", reason);
    }
}

bsattn_status_t bsattn_backend_choose(const char *name, bsattn_backend_choice_t *choice_p)
{
    bsattn_backend_choice_t choice = {.reason = "asked for"};

    if (bsattn_text_is_auto(name)) {
        choose_auto(&choice);
    } else if (strcmp(name, "cuda") == 0) {
        BSATTN_TRY(choose_cuda(&choice));
    } else if (strcmp(name, "cpu") != 0) {
        return bsattn_fail(BSATTN_ERR_INPUT, "backend '%s': must be auto, cuda or cpu", name);
    }
    if (!choice.cuda) {
        BSATTN_TRY(bsattn_backend_cpu_check());
    }
    *choice_p = choice;
    return BSATTN_OK;
}

bsattn_status_t bsattn_backend_choose_planned(const char *name, bsattn_backend_choice_t *choice_p)
{
    if ((name != NULL) && (strcmp(name, "cuda") == 0)) {
        *choice_p = (bsattn_backend_choice_t){.cuda = true, .reason = "asked for"};
        return BSATTN_OK;
    }
    return bsattn_backend_choose(name, choice_p);
}

bsattn_status_t bsattn_backend_create(const bsattn_backend_choice_t *choice, int device,
                                      int threads, bsattn_backend_t **backend_p)
{
    return choice->cuda ? create_cuda(device, threads, backend_p)
                        : bsattn_backend_cpu_create(threads, backend_p);
}

bsattn_machine_t bsattn_backend_machine(const bsattn_backend_choice_t *choice, int threads)
{
    return choice->cuda ? bsattn_backend_cuda_machine(threads)
                        : bsattn_backend_cpu_machine(threads);
}
