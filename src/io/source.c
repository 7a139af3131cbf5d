/* SPDX-License-Identifier: Apache-2.0 */
#include "io/source.h"

#include "base/half.h"
#include "base/npy.h"
#include "base/philox.h"
#include "base/text.h"
#include "io/npy_mpi.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TENSORS = 3, CHUNK = 1024 /* elements converted at once */ };

/* One of the three files. */
typedef struct input {
    char *path;
    int fd; /* for single rows */
    bsattn_npy_t npy;
    bsattn_dtype_t dtype;
    int64_t batch;
    int64_t seq_len;
    int64_t heads;
    int64_t head_dim;
} input_t;

struct bsattn_source {
    bsattn_job_t job; /* of the files */
    uint64_t seed;
    bsattn_source_info_t info;
    bsattn_dtype_t dtype; /* of the problem */
    input_t inputs[TENSORS];
};

static const char *const tensor_names[TENSORS] = {"q", "k", "v"};

static int64_t heads_of(const bsattn_source_t *source, bsattn_tensor_t tensor)
{
    return (tensor == BSATTN_Q) ? source->info.heads_q : source->info.heads_kv;
}

static bsattn_source_t *allocate(void)
{
    bsattn_source_t *source = calloc(1, sizeof(*source));

    for (int t = 0; (source != NULL) && (t < TENSORS); ++t) {
        source->inputs[t].fd = -1;
    }
    return source;
}

bsattn_status_t bsattn_source_open_synthetic(const bsattn_problem_t *problem, uint64_t seed,
                                             bsattn_source_t **source_p)
{
    bsattn_source_t *source = allocate();

    if (source == NULL) {
        return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the synthetic source");
    }
    source->seed = seed;
    source->info.synthetic = true;
    source->info.batched = true;
    *source_p = source;
    return bsattn_source_bind(source, problem);
}

static bsattn_status_t wrong_shape(const input_t *input, const char *expected)
{
    char shape[256];

    return bsattn_fail(
        BSATTN_ERR_INPUT, "%s: shape %s, %s", input->path,
        bsattn_npy_shape_text(input->npy.dims, input->npy.shape, shape, sizeof(shape)), expected);
}

static bsattn_status_t input_type(input_t *input)
{
    static const struct {
        const char *descr;
        bsattn_dtype_t dtype;
    } types[] = {
        {"<f4", BSATTN_F32}, {"<f2", BSATTN_F16}, {"<u2", BSATTN_BF16}, {"|V2", BSATTN_BF16}};

    for (size_t t = 0; t < sizeof(types) / sizeof(*types); ++t) {
        if (strcmp(input->npy.descr, types[t].descr) == 0) {
            input->dtype = types[t].dtype;
            return BSATTN_OK;
        }
    }
    return bsattn_fail(BSATTN_ERR_INPUT,
                       "%s: element type '%s', '<f4', '<f2' or bf16 as '<u2' or '|V2' is expected",
                       input->path, input->npy.descr);
}

static bsattn_status_t input_shape(input_t *input)
{
    int dims = input->npy.dims;
    const int64_t *shape = input->npy.shape;

    if ((dims != 3) && (dims != 4)) {
        return wrong_shape(input, "(b, N, H, D) or (N, H, D) is expected");
    }
    if (input->npy.fortran_order) {
        return wrong_shape(input,
                           "in Fortran order: C order (numpy.ascontiguousarray) is expected");
    }
    input->batch = (dims == 4) ? shape[0] : 1;
    input->seq_len = shape[dims - 3];
    input->heads = shape[dims - 2];
    input->head_dim = shape[dims - 1];
    if (input->npy.count == 0) {
        return wrong_shape(input, "every dimension must be at least 1");
    }
    if ((input->heads > INT_MAX) || (input->head_dim > INT_MAX)) {
        return wrong_shape(input, "so many heads or elements of one head are not accepted");
    }
    return BSATTN_OK;
}

static bsattn_status_t inputs_fit(const input_t *inputs)
{
    const input_t *q = &inputs[BSATTN_Q];
    const input_t *k = &inputs[BSATTN_K];
    const input_t *v = &inputs[BSATTN_V];
    char expected[1024];
    char shape[256];
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, expected, sizeof(expected));
    (void)bsattn_npy_shape_text(q->npy.dims, q->npy.shape, shape, sizeof(shape));
    if ((k->npy.dims != q->npy.dims) || (k->batch != q->batch) || (k->seq_len != q->seq_len) ||
        (k->head_dim != q->head_dim)) {
        bsattn_strbuf_add(&buf, "that of %s, %s, is expected but for the number of heads", q->path,
                          shape);
        return wrong_shape(k, expected);
    }
    if (q->heads % k->heads != 0) {
        bsattn_strbuf_add(&buf, "a number of heads that divides the %" PRId64 " of %s is expected",
                          q->heads, q->path);
        return wrong_shape(k, expected);
    }
    if ((v->npy.dims != k->npy.dims) ||
        (memcmp(v->npy.shape, k->npy.shape, (size_t)k->npy.dims * sizeof(*k->npy.shape)) != 0)) {
        (void)bsattn_npy_shape_text(k->npy.dims, k->npy.shape, shape, sizeof(shape));
        bsattn_strbuf_add(&buf, "that of %s, %s, is expected", k->path, shape);
        return wrong_shape(v, expected);
    }
    return BSATTN_OK;
}

/* Collective. */
static bsattn_status_t input_open(const bsattn_job_t *job, input_t *input)
{
    BSATTN_TRY(bsattn_npy_mpi_read_header(job, input->path, &input->npy));
    BSATTN_TRY(input_type(input));
    return input_shape(input);
}

static bsattn_status_t copy_paths(bsattn_source_t *source, const char *const paths[TENSORS])
{
    for (int t = 0; t < TENSORS; ++t) {
        if ((paths[t] == NULL) || (paths[t][0] == '\0')) {
            return bsattn_fail(BSATTN_ERR_INPUT, "no file for %s: all of q, k and v are expected",
                               tensor_names[t]);
        }
        source->inputs[t].path = strdup(paths[t]);
        if (source->inputs[t].path == NULL) {
            return bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the name of %s", paths[t]);
        }
    }
    return BSATTN_OK;
}

static bsattn_status_t open_descriptors(bsattn_source_t *source)
{
    for (int t = 0; t < TENSORS; ++t) {
        source->inputs[t].fd = open(source->inputs[t].path, O_RDONLY | O_CLOEXEC);
        if (source->inputs[t].fd < 0) {
            return bsattn_fail(BSATTN_ERR_FILE, "%s: cannot be opened: %s", source->inputs[t].path,
                               strerror(errno));
        }
    }
    return BSATTN_OK;
}

/* Collective. Shapes are judged by every rank for itself: all see the same headers. */
static bsattn_status_t open_inputs(bsattn_source_t *source)
{
    const input_t *inputs = source->inputs;
    const input_t *q = &inputs[BSATTN_Q];

    for (int t = 0; t < TENSORS; ++t) {
        BSATTN_TRY(input_open(&source->job, &source->inputs[t]));
    }
    BSATTN_TRY(inputs_fit(inputs));
    source->info = (bsattn_source_info_t){
        .batched = q->npy.dims == 4,
        .batch = q->batch,
        .seq_len = q->seq_len,
        .heads_q = (int)q->heads,
        .heads_kv = (int)inputs[BSATTN_K].heads,
        .head_dim = (int)q->head_dim,
        .dtype = ((q->dtype == inputs[BSATTN_K].dtype) && (q->dtype == inputs[BSATTN_V].dtype))
                     ? q->dtype
                     : BSATTN_F32,
    };
    source->dtype = source->info.dtype;
    return BSATTN_OK;
}

bsattn_status_t bsattn_source_open_files(const bsattn_job_t *job, const char *q_path,
                                         const char *k_path, const char *v_path,
                                         bsattn_source_t **source_p)
{
    const char *const paths[TENSORS] = {q_path, k_path, v_path};
    bsattn_source_t *source = allocate();
    bsattn_status_t status = BSATTN_OK;

    if (source == NULL) {
        status = bsattn_fail(BSATTN_ERR_MEMORY, "no memory for the input files");
    } else {
        source->job = *job;
        status = copy_paths(source, paths);
    }
    status = bsattn_job_agree(job, status);
    if (status == BSATTN_OK) {
        status = open_inputs(source);
    }
    if (status == BSATTN_OK) {
        status = bsattn_job_agree(job, open_descriptors(source));
    }
    if (status != BSATTN_OK) {
        bsattn_source_close(source);
        return status;
    }
    *source_p = source;
    return BSATTN_OK;
}

void bsattn_source_info(const bsattn_source_t *source, bsattn_source_info_t *info_p)
{
    *info_p = source->info;
}

bsattn_status_t bsattn_source_bind(bsattn_source_t *source, const bsattn_problem_t *problem)
{
    bsattn_source_info_t *info = &source->info;

    if (info->synthetic) {
        info->batch = problem->batch;
        info->seq_len = problem->seq_len;
        info->heads_q = problem->heads_q;
        info->heads_kv = problem->heads_kv;
        info->head_dim = problem->head_dim;
        info->dtype = problem->dtype;
    } else if ((info->batch != problem->batch) || (info->seq_len != problem->seq_len) ||
               (info->heads_q != problem->heads_q) || (info->heads_kv != problem->heads_kv) ||
               (info->head_dim != problem->head_dim)) {
        return bsattn_fail(BSATTN_ERR_INPUT,
                           "batch %" PRId64 ", seq %" PRId64
                           ", heads %d, kv-heads %d, head-dim %d do not fit the "
                           "input files: %" PRId64 ", %" PRId64 ", %d, %d, %d are expected",
                           problem->batch, problem->seq_len, problem->heads_q, problem->heads_kv,
                           problem->head_dim, info->batch, info->seq_len, info->heads_q,
                           info->heads_kv, info->head_dim);
    }
    source->dtype = problem->dtype;
    return BSATTN_OK;
}

static void generate(const bsattn_source_t *source, bsattn_tensor_t tensor, uint64_t first,
                     int64_t count, char *out)
{
    float values[CHUNK];

    if (source->dtype == BSATTN_F32) {
        bsattn_philox_normal(source->seed, (uint32_t)tensor, first, count, (float *)(void *)out);
        return;
    }
    for (int64_t done = 0; done < count; done += CHUNK) {
        int64_t part = (count - done < CHUNK) ? count - done : CHUNK;

        bsattn_philox_normal(source->seed, (uint32_t)tensor, first + (uint64_t)done, part, values);
        bsattn_convert_from_f32(source->dtype, values, part,
                                out + (size_t)done * bsattn_dtype_size(source->dtype));
    }
}

/* Local tokens first .. last - 1 of every batch item, wherever the runs put them. */
static void generate_tokens(const bsattn_source_t *source, bsattn_tensor_t tensor,
                            const bsattn_token_run_t *runs, size_t run_count, int64_t tokens,
                            int64_t first, int64_t last, char *rows)
{
    int64_t width = heads_of(source, tensor) * source->info.head_dim;
    size_t row_bytes = (size_t)width * bsattn_dtype_size(source->dtype);

    for (int64_t batch = 0; batch < source->info.batch; ++batch) {
        int64_t place = 0;

        for (size_t r = 0; (r < run_count) && (place < last); ++r) {
            int64_t begin = (place > first) ? place : first;
            int64_t end = (place + runs[r].count < last) ? place + runs[r].count : last;

            if (begin < end) {
                int64_t token = batch * source->info.seq_len + runs[r].first + begin - place;

                generate(source, tensor, (uint64_t)(token * width), (end - begin) * width,
                         rows + (size_t)(batch * tokens + begin) * row_bytes);
            }
            place += runs[r].count;
        }
    }
}

static void load_synthetic(const bsattn_source_t *source, bsattn_tensor_t tensor,
                           const bsattn_token_run_t *runs, size_t run_count, int threads,
                           char *rows)
{
    int64_t tokens = 0;

    for (size_t r = 0; r < run_count; ++r) {
        tokens += runs[r].count;
    }
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int part = 0; part < threads; ++part) {
        /* Not tokens * part / threads, which could overflow. */
        int64_t share = tokens / threads;
        int64_t rest = tokens % threads;
        int64_t first = share * part + ((part < rest) ? part : rest);
        int64_t last = first + share + ((part < rest) ? 1 : 0);

        generate_tokens(source, tensor, runs, run_count, tokens, first, last, rows);
    }
}

static void convert(bsattn_dtype_t from, const char *in, int64_t count, bsattn_dtype_t to,
                    char *out)
{
    float values[CHUNK];

    for (int64_t done = 0; done < count; done += CHUNK) {
        int64_t part = (count - done < CHUNK) ? count - done : CHUNK;

        bsattn_convert_to_f32(from, in + (size_t)done * bsattn_dtype_size(from), part, values);
        bsattn_convert_from_f32(to, values, part, out + (size_t)done * bsattn_dtype_size(to));
    }
}

/* Converts what bsattn_npy_mpi_read_each() delivers. */
typedef struct converter {
    bsattn_dtype_t from;
    bsattn_dtype_t to;
    int64_t width; /* elements of a row */
    int threads;
    char *rows;
} converter_t;

static void convert_rows(void *arg, int64_t first, int64_t count, const void *data)
{
    const converter_t *converter = arg;
    const char *in = data;
    char *out =
        converter->rows + (size_t)(first * converter->width) * bsattn_dtype_size(converter->to);

#pragma omp parallel for num_threads(converter->threads) schedule(static)
    for (int64_t row = 0; row < count; ++row) {
        size_t element = (size_t)(row * converter->width);

        convert(converter->from, in + element * bsattn_dtype_size(converter->from),
                converter->width, converter->to, out + element * bsattn_dtype_size(converter->to));
    }
}

bsattn_status_t bsattn_source_load(bsattn_source_t *source, bsattn_tensor_t tensor,
                                   const bsattn_token_run_t *runs, size_t run_count, int threads,
                                   void *rows)
{
    const input_t *input = &source->inputs[tensor];
    int64_t width = heads_of(source, tensor) * source->info.head_dim;
    bsattn_npy_view_t view = {
        .outer = source->info.batch,
        .seq_len = source->info.seq_len,
        .row_bytes = (size_t)width * input->npy.item_size,
    };
    converter_t converter = {
        .from = input->dtype,
        .to = source->dtype,
        .width = width,
        .threads = (threads < 1) ? 1 : threads,
        .rows = rows,
    };

    if (source->info.synthetic) {
        load_synthetic(source, tensor, runs, run_count, converter.threads, rows);
        return BSATTN_OK;
    }
    if (input->dtype == source->dtype) {
        return bsattn_npy_mpi_read_rows(&source->job, input->path, &input->npy, &view, runs,
                                        run_count, rows);
    }
    return bsattn_npy_mpi_read_each(&source->job, input->path, &input->npy, &view, runs, run_count,
                                    convert_rows, &converter);
}

static bsattn_status_t read_at(const input_t *input, int64_t offset, size_t size, void *out)
{
    size_t done = 0;

    while (done < size) {
        ssize_t got =
            pread(input->fd, (char *)out + done, size - done, (off_t)(offset + (int64_t)done));

        if ((got < 0) && (errno == EINTR)) {
            continue;
        }
        if (got <= 0) {
            return bsattn_fail(BSATTN_ERR_FILE, "%s: cannot be read any more: %s", input->path,
                               (got < 0) ? strerror(errno) : "it has become shorter");
        }
        done += (size_t)got;
    }
    return BSATTN_OK;
}

/* Elements first .. first + count - 1 of a file, widened to fp32. */
static bsattn_status_t read_elements(const input_t *input, int64_t first, int64_t count, float *out)
{
    float stored[CHUNK]; /* of any type, aligned for all */

    for (int64_t done = 0; done < count; done += CHUNK) {
        int64_t part = (count - done < CHUNK) ? count - done : CHUNK;
        int64_t at = (first + done) * (int64_t)input->npy.item_size;

        BSATTN_TRY(read_at(input, input->npy.data_offset + at, (size_t)part * input->npy.item_size,
                           stored));
        bsattn_convert_to_f32(input->dtype, stored, part, out + done);
    }
    return BSATTN_OK;
}

bsattn_status_t bsattn_source_rows(void *arg, bsattn_tensor_t tensor, int64_t batch, int head,
                                   int64_t first, int64_t count, float *out)
{
    const bsattn_source_t *source = arg;
    const input_t *input = &source->inputs[tensor];
    int64_t heads = heads_of(source, tensor);
    int64_t head_dim = source->info.head_dim;

    BSATTN_ASSERT((batch >= 0) && (batch < source->info.batch) && (head >= 0) && (head < heads));
    BSATTN_ASSERT((first >= 0) && (count >= 0) && (count <= source->info.seq_len - first));
    for (int64_t i = 0; i < count; ++i) {
        int64_t token = batch * source->info.seq_len + first + i;
        int64_t element = (token * heads + head) * head_dim;

        if (source->info.synthetic) {
            bsattn_philox_normal(source->seed, (uint32_t)tensor, (uint64_t)element, head_dim,
                                 out + i * head_dim);
        } else {
            BSATTN_TRY(read_elements(input, element, head_dim, out + i * head_dim));
        }
    }
    bsattn_round_f32(source->dtype, count * head_dim, out);
    return BSATTN_OK;
}

void bsattn_source_close(bsattn_source_t *source)
{
    if (source == NULL) {
        return;
    }
    for (int t = 0; t < TENSORS; ++t) {
        if (source->inputs[t].fd >= 0) {
            (void)close(source->inputs[t].fd);
        }
        free(source->inputs[t].path);
    }
    free(source);
}
