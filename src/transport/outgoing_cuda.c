/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/outgoing_cuda.h"

#include "kernels/attend_cuda.h"

#include <stdlib.h>

/* Up to so many copies are left to a copy engine; rows that need more are gathered by a kernel.
 * Starting a copy costs some microseconds, and a kernel takes multiprocessors from the attention. */
enum { FEW_COPIES = 48, ROW_ALIGN = 16 };

static int64_t count_rows(const bsattn_send_t *send)
{
    int64_t rows = 0;

    for (size_t r = 0; r < send->run_count; ++r) {
        rows += send->runs[r].count;
    }
    return rows;
}

static bool recurs(const bsattn_send_t *send, size_t period)
{
    int64_t stride = send->runs[period].first - send->runs[0].first;

    for (size_t r = period; r < send->run_count; ++r) {
        const bsattn_token_run_t *run = &send->runs[r];
        const bsattn_token_run_t *before = &send->runs[r - period];
        if ((run->count != before->count) || (run->first - before->first != stride)) {
            return false;
        }
    }
    return true;
}

/* Heads that need the same tokens have the same runs, one head's rows further on. Only a period of
 * few runs is of use. */
static void find_period(bsattn_outgoing_t *outgoing)
{
    const bsattn_send_t *send = &outgoing->send;

    outgoing->period = send->run_count;
    for (size_t period = 1; (period < send->run_count) && (period <= FEW_COPIES); ++period) {
        int64_t stride = send->runs[period].first - send->runs[0].first;
        if ((send->run_count % period == 0) &&
            (stride * (int64_t)outgoing->row_bytes <= BSATTN_CUDA_PITCH_MAX) &&
            recurs(send, period)) {
            outgoing->period = period;
            outgoing->stride = stride;
            return;
        }
    }
}

static int64_t count_copies(const bsattn_send_t *send)
{
    int64_t copies = 0;

    for (size_t r = 0; r < send->run_count; ++r) {
        copies += (send->runs[r].count + BSATTN_ROW_COPY_MAX - 1) / BSATTN_ROW_COPY_MAX;
    }
    return copies;
}

static void fill_copies(const bsattn_outgoing_t *outgoing, bsattn_row_copy_t *copies)
{
    const bsattn_send_t *send = &outgoing->send;
    int64_t row_bytes = (int64_t)outgoing->row_bytes;
    int64_t row = 0;
    int64_t copy = 0;

    for (size_t r = 0; r < send->run_count; ++r) {
        const bsattn_token_run_t *run = &send->runs[r];
        for (int64_t done = 0; done < run->count; done += BSATTN_ROW_COPY_MAX) {
            int64_t left = run->count - done;
            int64_t rows = (left < BSATTN_ROW_COPY_MAX) ? left : BSATTN_ROW_COPY_MAX;
            copies[copy++] = (bsattn_row_copy_t){
                .from = (run->first + done) * row_bytes,
                .to = row * row_bytes,
                .rows = (int32_t)rows,
            };
            row += rows;
        }
    }
}

static bsattn_status_t upload_copies(bsattn_outgoing_t *outgoing)
{
    size_t bytes = (size_t)outgoing->copy_count * sizeof(*outgoing->copies);
    bsattn_row_copy_t *copies = malloc(bytes);
    bsattn_status_t status;

    if (copies == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory to prepare a message of %lld pieces",
                           (long long)outgoing->copy_count);
    }
    fill_copies(outgoing, copies);
    status = bsattn_cuda_malloc(bytes, " for the list of a message's rows", &outgoing->copies);
    if (status == BSATTN_OK) {
        outgoing->device_bytes += (int64_t)bytes;
        status = bsattn_cuda_upload(outgoing->copies, copies, bytes);
    }
    free(copies);
    return status;
}

bsattn_status_t bsattn_outgoing_init(bsattn_outgoing_t *outgoing,
                                     const bsattn_exchange_params_t *params)
{
    const bsattn_send_t *send = &params->send;
    bsattn_status_t status = BSATTN_OK;

    *outgoing = (bsattn_outgoing_t){.send = *send, .row_bytes = params->row_bytes};
    if (send->run_count == 0) {
        return BSATTN_OK;
    }
    outgoing->rows = count_rows(send);
    outgoing->bytes = (size_t)(send->part_count * outgoing->rows) * params->row_bytes;
    find_period(outgoing);
    if ((send->run_count == 1) &&
        ((send->part_count == 1) || (outgoing->rows == send->part_rows))) {
        outgoing->range =
            (const char *)send->base + (size_t)send->runs[0].first * params->row_bytes;
    } else if ((send->part_count * (int64_t)outgoing->period > FEW_COPIES) &&
               (params->row_bytes % ROW_ALIGN == 0)) {
        outgoing->copy_count = count_copies(send);
        status = upload_copies(outgoing);
    }
    if (status != BSATTN_OK) {
        bsattn_outgoing_free(outgoing);
    }
    return status;
}

void bsattn_outgoing_free(bsattn_outgoing_t *outgoing)
{
    (void)cudaFree(outgoing->copies);
    outgoing->copies = NULL;
}

bool bsattn_outgoing_is_few(const bsattn_outgoing_t *outgoing)
{
    return outgoing->copies == NULL;
}

int64_t bsattn_outgoing_operations(const bsattn_outgoing_t *outgoing)
{
    bool one = (outgoing->range != NULL) || (outgoing->copies != NULL);

    return one ? 0 : outgoing->send.part_count * (int64_t)outgoing->period;
}

static bsattn_status_t copy(void *to, const void *from, size_t bytes, cudaStream_t stream)
{
    return bsattn_cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream),
                             "cudaMemcpyAsync");
}

/* A run of a part, as often as it recurs. */
static bsattn_status_t write_run(const bsattn_outgoing_t *outgoing, const bsattn_token_run_t *run,
                                 const char *part, char *to, cudaStream_t stream)
{
    size_t times = outgoing->send.run_count / outgoing->period;
    const char *from = part + (size_t)run->first * outgoing->row_bytes;
    size_t bytes = (size_t)run->count * outgoing->row_bytes;

    if (times == 1) {
        return copy(to, from, bytes, stream);
    }
    return bsattn_cuda_check(cudaMemcpy2DAsync(to,
                                               (size_t)outgoing->rows / times * outgoing->row_bytes,
                                               from, (size_t)outgoing->stride * outgoing->row_bytes,
                                               bytes, times, cudaMemcpyDefault, stream),
                             "cudaMemcpy2DAsync");
}

static bsattn_status_t write_ranges(const bsattn_outgoing_t *outgoing, char *to,
                                    cudaStream_t stream)
{
    const bsattn_send_t *send = &outgoing->send;

    for (int64_t p = 0; p < send->part_count; ++p) {
        const char *part =
            (const char *)send->base + (size_t)(p * send->part_rows) * outgoing->row_bytes;
        char *run_to = to + (size_t)(p * outgoing->rows) * outgoing->row_bytes;
        for (size_t r = 0; r < outgoing->period; ++r) {
            BSATTN_TRY(write_run(outgoing, &send->runs[r], part, run_to, stream));
            run_to += (size_t)send->runs[r].count * outgoing->row_bytes;
        }
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_outgoing_write(const bsattn_outgoing_t *outgoing, void *to,
                                      cudaStream_t stream)
{
    int64_t row_bytes = (int64_t)outgoing->row_bytes;
    bsattn_rows_cuda_params_t params = {
        .from = outgoing->send.base,
        .to = to,
        .copies = outgoing->copies,
        .copy_count = outgoing->copy_count,
        .parts = outgoing->send.part_count,
        .from_part = outgoing->send.part_rows * row_bytes,
        .to_part = outgoing->rows * row_bytes,
        .from_stride = row_bytes,
        .to_stride = row_bytes,
        .row_bytes = row_bytes,
    };

    if (outgoing->bytes == 0) {
        return BSATTN_OK;
    }
    if (outgoing->range != NULL) {
        return copy(to, outgoing->range, outgoing->bytes, stream);
    }
    if (outgoing->copies == NULL) {
        return write_ranges(outgoing, to, stream);
    }
    return bsattn_cuda_check((cudaError_t)bsattn_rows_cuda(&params, stream), "bsattn_rows_cuda");
}

bsattn_status_t bsattn_outbox_reserve(bsattn_outbox_t *outbox, size_t bytes, int64_t *grown_p)
{
    size_t had = outbox->bytes;
    bsattn_status_t status = BSATTN_OK;

    *grown_p = 0;
    if (bytes > had) {
        /* The old one goes first: both together may be too much. */
        (void)cudaFree(outbox->memory);
        outbox->memory = NULL;
        outbox->bytes = 0;
        status = bsattn_cuda_malloc(bytes, " for bringing a message together", &outbox->memory);
        if (status == BSATTN_OK) {
            outbox->bytes = bytes;
            *grown_p = (int64_t)(bytes - had);
        } else if ((had > 0) && (cudaMalloc((void **)&outbox->memory, had) == cudaSuccess)) {
            outbox->bytes = had; /* those that use it go on */
        } else {
            (void)cudaGetLastError(); /* a launch would take it for its own */
        }
    }
    BSATTN_TRY(status);
    ++outbox->uses;
    return BSATTN_OK;
}

bsattn_status_t bsattn_outbox_fill(const bsattn_outbox_t *outbox, const bsattn_outgoing_t *outgoing,
                                   bsattn_cuda_queue_t *queue)
{
    if (outbox->bytes < outgoing->bytes) {
        return bsattn_cuda_fail_memory(outgoing->bytes, " for bringing a message together");
    }
    BSATTN_TRY(bsattn_outgoing_write(outgoing, outbox->memory, queue->exchange));
    return bsattn_outgoing_is_few(outgoing) ? BSATTN_OK
                                            : bsattn_cuda_queue_compute_after_exchange(queue);
}

void bsattn_outbox_drop(bsattn_outbox_t *outbox)
{
    --outbox->uses;
    if (outbox->uses == 0) {
        (void)cudaFree(outbox->memory);
        outbox->memory = NULL;
        outbox->bytes = 0;
    }
}
