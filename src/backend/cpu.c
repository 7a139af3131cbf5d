/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/backend.h"

#include "base/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

/* Nominal figures of one core and of messages between processes of one host, for the model of
 * bsattn_machine_t only. */
static const double core_flops_per_s = 60e9;
static const double link_bytes_per_s = 8e9;
static const double link_latency_s = 10e-6;

static bsattn_machine_t cpu_machine(int threads)
{
    return (bsattn_machine_t){
        .state_bytes = bsattn_attend_cpu_state_bytes,
        .scratch_bytes = bsattn_attend_cpu_scratch_bytes,
        .threads = threads,
        .flops_per_s = core_flops_per_s * threads,
        .link_bytes_per_s = link_bytes_per_s,
        .link_latency_s = link_latency_s,
        .hides_exchange = false,
    };
}

static void *cpu_alloc(size_t bytes)
{
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;

    return aligned_alloc(ALIGNMENT, (rounded == 0) ? ALIGNMENT : rounded);
}

static void pack_head(const bsattn_pack_params_t *params, int64_t b, int head)
{
    size_t row_bytes = params->row_bytes;
    size_t token_bytes = row_bytes * (size_t)params->heads_kv;
    const char *in = (const char *)params->in + (size_t)(b * params->tokens) * token_bytes +
                     (size_t)head * row_bytes;
    char *out = (char *)params->out +
                (size_t)(b * params->tokens_kv + params->heads[head].token_first) * row_bytes;
    int c = params->class_of_head[head];

    for (size_t r = params->runs_first[c]; r < params->runs_first[c + 1]; ++r) {
        const char *row = in + (size_t)params->runs[r].first * token_bytes;
        for (int64_t t = 0; t < params->runs[r].count; ++t) {
            memcpy(out, row, row_bytes);
            out += row_bytes;
            row += token_bytes;
        }
    }
}

static void cpu_pack(const bsattn_pack_params_t *params)
{
    int64_t pieces = params->batch * params->heads_kv;

#pragma omp parallel for num_threads(params->threads) schedule(static)
    for (int64_t p = 0; p < pieces; ++p) {
        pack_head(params, p / params->heads_kv, (int)(p % params->heads_kv));
    }
}

static void cpu_clear(const bsattn_clear_params_t *params)
{
    const bsattn_attend_params_t *attend = params->attend;
    size_t row_bytes = (size_t)attend->head_dim * bsattn_dtype_size(attend->dtype);

    for (int64_t b = 0; b < attend->batch; ++b) {
        for (int64_t r = 0; r < params->row_count; ++r) {
            int64_t first = (int64_t)params->rows[r] * attend->block;
            int64_t end = first + attend->block;
            for (int64_t t = first; (t < end) && (t < attend->tokens); ++t) {
                int64_t row = (b * attend->tokens + t) * attend->heads_q + params->head;
                memset((char *)attend->o + (size_t)row * row_bytes, 0, row_bytes);
                if (attend->lse != NULL) {
                    attend->lse[(b * attend->heads_q + params->head) * attend->tokens + t] =
                        -INFINITY;
                }
            }
        }
    }
}

const bsattn_backend_ops_t bsattn_backend_cpu = {
    .name = "cpu",
    .variant = bsattn_attend_cpu_isa,
    .machine = cpu_machine,
    .alloc = cpu_alloc,
    .free = free,
    .pack = cpu_pack,
    .clear = cpu_clear,
    .attend = bsattn_attend_cpu,
};

/* The kernel takes the best set it can if the one asked for is not there; a user must be told. */
static bsattn_status_t check_isa(void)
{
    const char *wanted = getenv("BSATTN_ISA");

    if ((wanted != NULL) && (strcmp(wanted, bsattn_attend_cpu_isa()) != 0)) {
        return bsattn_fail(
            BSATTN_ERR_INPUT,
            "BSATTN_ISA '%s': must be generic, avx2, avx512 or amx and be supported by "
            "this processor, which would take %s",
            wanted, bsattn_attend_cpu_isa());
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_backend_find(const char *name, const bsattn_backend_ops_t **ops_p)
{
    if (!bsattn_text_is_auto(name) && (strcmp(name, "cpu") != 0)) {
        return bsattn_fail(BSATTN_ERR_INPUT, "backend '%s': must be auto or cpu", name);
    }
    BSATTN_TRY(check_isa());
    *ops_p = &bsattn_backend_cpu;
    return BSATTN_OK;
}
