/* SPDX-License-Identifier: Apache-2.0 */
/* Moving rows, and clearing those that no key reaches: 16 bytes to a thread at a time. */
#include "kernels/attend_cuda.h"

#include <cuda_runtime.h>
#include <limits.h>
#include <math.h>

namespace {

enum {
    THREADS = 256,
    DEPTH = 4, /* loads that a thread has under way */
};

/* Row and 16-byte place of a thread that steps through rows with its CTA: one division, not one for
 * each step. */
struct Walk {
    int64_t row;
    int64_t place;
    int64_t row_step;
    int64_t place_step;
    int64_t places; /* in a row */

    __device__ explicit Walk(int64_t row_bytes)
    {
        places = row_bytes / (int64_t)sizeof(uint4);
        row = threadIdx.x / (uint32_t)places;
        place = threadIdx.x % (uint32_t)places;
        row_step = THREADS / (uint32_t)places;
        place_step = THREADS % (uint32_t)places;
    }

    __device__ void next()
    {
        row += row_step;
        place += place_step;
        if (place >= places) {
            place -= places;
            ++row;
        }
    }
};

__device__ void copy_rows(const bsattn_rows_cuda_params_t &params, const bsattn_row_copy_t &copy,
                          const char *from, char *to)
{
    Walk walk(params.row_bytes);

    while (walk.row < copy.rows) {
        uint4 values[DEPTH];
        int64_t places[DEPTH]; /* in `to`, or -1 */
#pragma unroll
        for (int i = 0; i < DEPTH; ++i) {
            places[i] = -1;
            if (walk.row < copy.rows) {
                int64_t at = walk.place * (int64_t)sizeof(uint4);
                values[i] =
                    *reinterpret_cast<const uint4 *>(from + walk.row * params.from_stride + at);
                places[i] = walk.row * params.to_stride + at;
            }
            walk.next();
        }
#pragma unroll
        for (int i = 0; i < DEPTH; ++i) {
            if (places[i] >= 0) {
                *reinterpret_cast<uint4 *>(to + places[i]) = values[i];
            }
        }
    }
}

__global__ void __launch_bounds__(THREADS)
    move_rows(const __grid_constant__ bsattn_rows_cuda_params_t params)
{
    int64_t count = params.copy_count * params.parts;

    for (int64_t i = blockIdx.x; i < count; i += gridDim.x) {
        int64_t part = i / params.copy_count;
        bsattn_row_copy_t copy = params.copies[i - part * params.copy_count];
        copy_rows(params, copy, (const char *)params.from + part * params.from_part + copy.from,
                  (char *)params.to + part * params.to_part + copy.to);
    }
}

struct ClearArguments {
    char *o;
    float *lse;
    int64_t batch;
    int64_t tokens;
    int64_t row_bytes; /* of a head */
    int heads_q;
    int block;
    const int32_t *rows;
    int64_t row_count;
    const int32_t *heads;
    int head_count;
};

__device__ void clear_block(const ClearArguments &to, int64_t batch, int head, int64_t row_first)
{
    int64_t left = to.tokens - row_first;
    int64_t rows = (left < to.block) ? left : to.block;
    char *o = to.o + ((batch * to.tokens + row_first) * to.heads_q + head) * to.row_bytes;
    Walk walk(to.row_bytes);

    for (; walk.row < rows; walk.next()) {
        *reinterpret_cast<uint4 *>(o + walk.row * to.heads_q * to.row_bytes +
                                   walk.place * (int64_t)sizeof(uint4)) = make_uint4(0, 0, 0, 0);
    }
    if (to.lse != NULL) {
        float *lse = to.lse + (batch * to.heads_q + head) * to.tokens + row_first;
        for (int64_t row = threadIdx.x; row < rows; row += THREADS) {
            lse[row] = -INFINITY;
        }
    }
}

__global__ void __launch_bounds__(THREADS)
    clear_rows(const __grid_constant__ ClearArguments arguments)
{
    int64_t in_batch = arguments.row_count * arguments.head_count;
    int64_t count = arguments.batch * in_batch;

    for (int64_t i = blockIdx.x; i < count; i += gridDim.x) {
        int64_t batch = i / in_batch;
        int64_t rest = i - batch * in_batch;
        int64_t row = rest / arguments.head_count;
        clear_block(arguments, batch, arguments.heads[rest - row * arguments.head_count],
                    (int64_t)arguments.rows[row] * arguments.block);
    }
}

unsigned grid_of(int64_t count)
{
    return (unsigned)((count < INT_MAX) ? count : INT_MAX);
}

} /* namespace */

extern "C" int bsattn_rows_cuda(const bsattn_rows_cuda_params_t *params, struct CUstream_st *stream)
{
    int64_t count = params->copy_count * params->parts;

    if ((count == 0) || (params->row_bytes == 0)) {
        return (int)cudaSuccess;
    }
    move_rows<<<grid_of(count), THREADS, 0, stream>>>(*params);
    return (int)cudaGetLastError();
}

extern "C" int bsattn_clear_cuda(const bsattn_clear_cuda_params_t *params,
                                 struct CUstream_st *stream)
{
    const bsattn_attend_cuda_params_t *attend = params->attend;
    int64_t count = attend->batch * params->row_count * params->head_count;
    ClearArguments arguments = {};

    if (count == 0) {
        return (int)cudaSuccess;
    }
    arguments.o = (char *)attend->o;
    arguments.lse = attend->lse;
    arguments.batch = attend->batch;
    arguments.tokens = attend->tokens;
    arguments.row_bytes = (int64_t)attend->head_dim * ((attend->dtype == BSATTN_F32) ? 4 : 2);
    arguments.heads_q = attend->heads_q;
    arguments.block = params->block;
    arguments.rows = params->rows;
    arguments.row_count = params->row_count;
    arguments.heads = params->heads;
    arguments.head_count = params->head_count;
    clear_rows<<<grid_of(count), THREADS, 0, stream>>>(arguments);
    return (int)cudaGetLastError();
}
