/* SPDX-License-Identifier: Apache-2.0 */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/attend.h"
#include "kernels/cpu/attend_variants.h"

static const bsattn_attend_variant_t *const variants[] = {
#if defined(__x86_64__)
    &bsattn_attend_amx,
    &bsattn_attend_avx512,
    &bsattn_attend_avx2,
#endif
    &bsattn_attend_generic,
};

enum { VARIANT_COUNT = sizeof(variants) / sizeof(variants[0]) };

#if defined(__x86_64__)
/* clang's __builtin_cpu_supports does not know f16c; the operating system's part is the same as for
 * avx2. */
static int cpu_has_f16c(void)
{
    unsigned eax;
    unsigned ebx;
    unsigned ecx;
    unsigned edx;

    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}

/* Linux gives a process the tiles' registers only if it asks. Asking twice does no harm. */
static int cpu_has_amx(void)
{
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18, TILE = 1 << 24, BF16 = 1 << 22 };
    unsigned eax;
    unsigned ebx;
    unsigned ecx;
    unsigned edx;

    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & TILE) != 0 &&
           (edx & BF16) != 0 && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return 0;
#endif
}
#endif

static int cpu_has(const bsattn_attend_variant_t *variant)
{
#if defined(__x86_64__)
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && cpu_has_f16c();
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");

    if (variant == &bsattn_attend_amx) {
        return avx512 && __builtin_cpu_supports("avx512bf16") && cpu_has_amx();
    }
    if (variant == &bsattn_attend_avx512) {
        return avx512;
    }
    if (variant == &bsattn_attend_avx2) {
        return avx2;
    }
#endif
    (void)variant;
    return 1;
}

const bsattn_attend_variant_t *bsattn_attend_variant_find(const char *name)
{
    for (int i = 0; i < VARIANT_COUNT; i++) {
        if (strcmp(variants[i]->name, name) == 0 && cpu_has(variants[i])) {
            return variants[i];
        }
    }
    return NULL;
}

/* The last one runs anywhere. */
static const bsattn_attend_variant_t *variant_choose(void)
{
    const char *wanted = getenv("BSATTN_ISA");
    const bsattn_attend_variant_t *variant = NULL;
    int best = 0;

    if (wanted != NULL) {
        variant = bsattn_attend_variant_find(wanted);
    }
    while (best + 1 < VARIANT_COUNT && !cpu_has(variants[best])) {
        best++;
    }
    return variant != NULL ? variant : variants[best];
}

/* Two threads that come here first at the same time choose the same. */
static const bsattn_attend_variant_t *variant_chosen(void)
{
    static const bsattn_attend_variant_t *chosen;
    const bsattn_attend_variant_t *variant = __atomic_load_n(&chosen, __ATOMIC_ACQUIRE);

    if (variant == NULL) {
        variant = variant_choose();
        __atomic_store_n(&chosen, variant, __ATOMIC_RELEASE);
    }
    return variant;
}

const char *bsattn_attend_cpu_isa(void)
{
    return variant_chosen()->name;
}

size_t bsattn_attend_cpu_scratch_bytes(int head_dim, int block)
{
    size_t queries = (size_t)head_dim * (size_t)block;
    size_t state = (size_t)(head_dim + 2) * (size_t)block;
    size_t scores = (size_t)BSATTN_TILE_KEYS_MAX * BSATTN_TILE_STRIP_MAX;
    size_t keys_values = 2 * (size_t)BSATTN_TILE_KEYS_MAX * (size_t)head_dim;
    size_t lines = 4 * (size_t)head_dim;

    return (queries + state + scores + keys_values + lines) * sizeof(float);
}

static int64_t range_end(const bsattn_attend_params_t *params, int64_t item_end)
{
    int64_t longest = 0;

    for (int i = 0; i < params->list_count; i++) {
        longest = params->lists[i].item_count > longest ? params->lists[i].item_count : longest;
    }
    return item_end < longest ? item_end : longest;
}

void bsattn_attend_variant_run(const bsattn_attend_variant_t *variant,
                               const bsattn_attend_params_t *params, int64_t item_begin,
                               int64_t item_end)
{
    int64_t end = range_end(params, item_end);
    size_t scratch_bytes = bsattn_attend_cpu_scratch_bytes(params->head_dim, params->block);

    /* Heads outermost: keys and values stay in the cache for a head's items, and short items are
     * what is left at the end. */
#pragma omp parallel for collapse(3) schedule(dynamic) num_threads(params->threads)
    for (int64_t batch = 0; batch < params->batch; batch++) {
        for (int head = 0; head < params->heads_q; head++) {
            for (int64_t index = item_begin; index < end; index++) {
                const bsattn_work_list_t *list = &params->lists[params->list_of_head[head]];
                char *scratch =
                    (char *)params->scratch + (size_t)omp_get_thread_num() * scratch_bytes;

                if (index < list->item_count) {
                    const bsattn_work_item_t *item = &list->items[index];
                    bsattn_attend_task_t task = {params, batch, head, item,
                                                 list->runs + item->run_first};

                    variant->attend(&task, scratch);
                }
            }
        }
    }
}

void bsattn_attend_cpu(const bsattn_attend_params_t *params, int64_t item_begin, int64_t item_end)
{
    bsattn_attend_variant_run(variant_chosen(), params, item_begin, item_end);
}
