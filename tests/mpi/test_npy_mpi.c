/* SPDX-License-Identifier: Apache-2.0 */
/* Parallel .npy files and the sources: any rank count, one or several ranks in a process, and
 * everything that can go wrong. */
#include "base/half.h"
#include "base/philox.h"
#include "base/text.h"
#include "io/npy_mpi.h"
#include "io/source.h"
#include "transport/mpi_job.h"
#include "vote.h"

#include <mpi.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_SIZE = 256 };

static bsattn_job_t job;
static MPI_Comm world; /* the job's */
static char directory[PATH_SIZE];

/* EXPECT() with the last error as the comment: what most checks here can say. */
#define HOLDS(_condition) EXPECT(_condition, "%s", bsattn_last_error())

static const char *in_directory(const char *name, char *out)
{
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, out, PATH_SIZE);
    bsattn_strbuf_add(&buf, "%s/%s", directory, name);
    return out;
}

static void *must_allocate(size_t size)
{
    void *memory = malloc(size + 1);

    if (memory == NULL) {
        (void)MPI_Abort(world, 1);
    }
    return memory;
}

/* Blocks dealt round robin over parts, like the cyclic layout; part beyond the blocks gets none. */
static size_t deal(int64_t seq_len, int64_t block, int parts, int part, bsattn_token_run_t *runs,
                   int64_t *tokens_p)
{
    size_t count = 0;

    *tokens_p = 0;
    for (int64_t first = part * block; first < seq_len; first += parts * block) {
        runs[count].first = first;
        runs[count].count = (seq_len - first < block) ? seq_len - first : block;
        *tokens_p += runs[count].count;
        ++count;
    }
    return count;
}

/* The word w of row (outer, token). */
static uint32_t word_at(int64_t row, size_t w)
{
    return (uint32_t)row * 2654435761u + (uint32_t)w;
}

static void fill(const bsattn_npy_view_t *view, const bsattn_token_run_t *runs, size_t run_count,
                 uint32_t *rows)
{
    for (int64_t outer = 0; outer < view->outer; ++outer) {
        for (size_t r = 0; r < run_count; ++r) {
            for (int64_t t = runs[r].first; t < runs[r].first + runs[r].count; ++t) {
                for (size_t w = 0; w < view->row_bytes / 4; ++w) {
                    *rows++ = word_at(outer * view->seq_len + t, w);
                }
            }
        }
    }
}

static bool same_rows(const bsattn_npy_view_t *view, const bsattn_token_run_t *runs,
                      size_t run_count, int64_t tokens, const void *rows)
{
    size_t size = (size_t)(view->outer * tokens) * view->row_bytes;
    uint32_t *want = must_allocate(size);
    bool same;

    fill(view, runs, run_count, want);
    same = memcmp(want, rows, size) == 0;
    free(want);
    return same;
}

static bool exists(const char *path)
{
    struct stat file;

    return stat(path, &file) == 0;
}

/* Rank 0 reads the whole file with nothing but stdio. */
static void check_whole(const char *path, const bsattn_npy_view_t *view)
{
    bsattn_token_run_t all = {0, view->seq_len};
    size_t size = (size_t)(view->outer * view->seq_len) * view->row_bytes;
    bsattn_npy_t npy;
    struct stat status;

    if (job.rank != 0) {
        return;
    }
    HOLDS(bsattn_npy_read_header(path, &npy) == BSATTN_OK);
    HOLDS((stat(path, &status) == 0) && (status.st_size == npy.data_offset + (int64_t)size));

    FILE *file = fopen(path, "rb");
    void *data = must_allocate(size);

    HOLDS((file != NULL) && (fseek(file, (long)npy.data_offset, SEEK_SET) == 0) &&
          (fread(data, 1, size, file) == size));
    HOLDS(same_rows(view, &all, 1, view->seq_len, data));
    free(data);
    if (file != NULL) {
        (void)fclose(file);
    }
}

typedef struct {
    char *out;
    size_t row_bytes;
    int64_t next;
} collector_t;

static void collect(void *arg, int64_t first, int64_t count, const void *rows)
{
    collector_t *collector = arg;

    HOLDS(first == collector->next);
    memcpy(collector->out + (size_t)first * collector->row_bytes, rows,
           (size_t)count * collector->row_bytes);
    collector->next = first + count;
}

/* Write dealt one way, read dealt another way, directly and through the sink; `local` ranks in each
 * process. */
static void round_trip(int64_t outer, int64_t seq_len, int64_t words, int64_t block, int local)
{
    bsattn_npy_view_t view = {outer, seq_len, (size_t)words * 4};
    int64_t shape[3] = {outer, seq_len, words};
    size_t room = (size_t)(outer * seq_len * words) * 4;
    bsattn_token_run_t *runs = must_allocate((size_t)seq_len * sizeof(*runs));
    void *rows = must_allocate(room);
    bsattn_npy_writer_t *writer = NULL;
    char path[PATH_SIZE];
    bsattn_npy_t npy;
    int64_t tokens;
    size_t count;

    (void)in_directory("trip.npy", path);
    HOLDS(bsattn_npy_writer_create(&job, path, "<u4", 3, shape, &view, &writer) == BSATTN_OK);
    for (int l = 0; l < local; ++l) {
        count = deal(seq_len, block, job.size * local, job.rank * local + l, runs, &tokens);
        fill(&view, runs, count, rows);
        HOLDS(bsattn_npy_writer_rows(writer, runs, count, rows) == BSATTN_OK);
    }
    HOLDS(bsattn_npy_writer_commit(writer) == BSATTN_OK);
    check_whole(path, &view);

    HOLDS(bsattn_npy_mpi_read_header(&job, path, &npy) == BSATTN_OK);
    for (int l = 0; l < local; ++l) {
        collector_t collector = {rows, view.row_bytes, 0};

        count = deal(seq_len, block + 3, job.size * local, l * job.size + job.rank, runs, &tokens);
        memset(rows, 0xee, room);
        HOLDS(bsattn_npy_mpi_read_rows(&job, path, &npy, &view, runs, count, rows) == BSATTN_OK);
        HOLDS(same_rows(&view, runs, count, tokens, rows));
        memset(rows, 0xee, room);
        HOLDS(bsattn_npy_mpi_read_each(&job, path, &npy, &view, runs, count, collect, &collector) ==
              BSATTN_OK);
        HOLDS(same_rows(&view, runs, count, tokens, rows));
    }
    free(rows);
    free(runs);
    (void)MPI_Barrier(world);
}

/* Everybody has the same status and message, which names what it must. */
static void expect_failure(bsattn_status_t status, bsattn_status_t want, const char *naming)
{
    char text[BSATTN_ERROR_TEXT_SIZE] = "";
    char first[BSATTN_ERROR_TEXT_SIZE];

    HOLDS(status == want);
    HOLDS(strstr(bsattn_last_error(), naming) != NULL);
    (void)bsattn_text_copy(text, sizeof(text), bsattn_last_error());
    memcpy(first, text, sizeof(text));
    (void)MPI_Bcast(first, sizeof(first), MPI_CHAR, 0, world);
    HOLDS((strstr(text, naming) != NULL) && (strstr(first, naming) != NULL));
}

static void writer_failures(void)
{
    bsattn_npy_view_t view = {1, 100000, 64};
    int64_t shape[2] = {100000, 16};
    bsattn_npy_writer_t *writer = NULL;
    char path[PATH_SIZE];
    char part[PATH_SIZE];
    struct rlimit limit;
    struct rlimit small;

    (void)in_directory("missing/o.npy", path);
    expect_failure(bsattn_npy_writer_create(&job, path, "<f4", 2, shape, &view, &writer),
                   BSATTN_ERR_FILE, "missing/o.npy");
    expect_failure(bsattn_npy_writer_create(&job, directory, "<f4", 2, shape, &view, &writer),
                   BSATTN_ERR_FILE, "not a regular file");
    HOLDS(writer == NULL);

    /* The nearest to a full disk that any machine can do. */
    (void)in_directory("full.npy", path);
    (void)in_directory("full.npy.part", part);
    (void)signal(SIGXFSZ, SIG_IGN);
    HOLDS(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    small = limit;
    small.rlim_cur = 1000000;
    HOLDS(setrlimit(RLIMIT_FSIZE, &small) == 0);
    expect_failure(bsattn_npy_writer_create(&job, path, "<f4", 2, shape, &view, &writer),
                   BSATTN_ERR_FILE, "full.npy");
    HOLDS(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    HOLDS(!exists(path) && !exists(part));
    (void)MPI_Barrier(world);
}

/* The disk refuses when the rows come: the writer says so on all ranks and leaves nothing. */
static void late_failure(void)
{
    enum { ROWS = 200000 };
    bsattn_npy_view_t view = {1, ROWS, 64};
    int64_t shape[2] = {ROWS, 16};
    bsattn_token_run_t run = {(int64_t)ROWS * job.rank / job.size, 0};
    bsattn_npy_writer_t *writer = NULL;
    char path[PATH_SIZE];
    char part[PATH_SIZE];
    struct rlimit limit;
    struct rlimit small;

    run.count = (int64_t)ROWS * (job.rank + 1) / job.size - run.first;
    void *rows = must_allocate((size_t)run.count * view.row_bytes);
    memset(rows, 1, (size_t)run.count * view.row_bytes);
    (void)in_directory("late.npy", path);
    (void)in_directory("late.npy.part", part);
    HOLDS(bsattn_npy_writer_create(&job, path, "<f4", 2, shape, &view, &writer) == BSATTN_OK);
    HOLDS(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    small = limit;
    small.rlim_cur = 1000000;
    HOLDS(setrlimit(RLIMIT_FSIZE, &small) == 0);
    expect_failure(bsattn_npy_writer_rows(writer, &run, 1, rows), BSATTN_ERR_FILE, "late.npy");
    HOLDS(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    bsattn_npy_writer_abort(writer);
    (void)MPI_Barrier(world);
    HOLDS(!exists(path) && !exists(part));
    free(rows);
    (void)MPI_Barrier(world);
}

/* Every process by itself: one that fails is no business of the others. */
static void alone(void)
{
    bsattn_job_t lone = {.comm = NULL, .rank = 0, .size = 1};
    bsattn_npy_view_t view = {1, 10, 4};
    int64_t shape[1] = {10};
    bsattn_token_run_t all = {0, 10};
    bsattn_npy_writer_t *writer = NULL;
    bool fails = (job.rank == job.size - 1);
    bsattn_status_t status;
    uint32_t rows[10];
    bsattn_npy_t npy;
    char name[PATH_SIZE];
    char path[PATH_SIZE];
    bsattn_strbuf_t buf;

    bsattn_strbuf_init(&buf, name, sizeof(name));
    bsattn_strbuf_add(&buf, "%s%d.npy", fails ? "missing/" : "", job.rank);
    (void)in_directory(name, path);
    status = bsattn_npy_writer_create(&lone, path, "<u4", 1, shape, &view, &writer);
    HOLDS(status == (fails ? BSATTN_ERR_FILE : BSATTN_OK));
    if (status == BSATTN_OK) {
        fill(&view, &all, 1, rows);
        HOLDS(bsattn_npy_writer_rows(writer, &all, 1, rows) == BSATTN_OK);
        HOLDS(bsattn_npy_writer_commit(writer) == BSATTN_OK);
        memset(rows, 0, sizeof(rows));
        HOLDS(bsattn_npy_mpi_read_header(&lone, path, &npy) == BSATTN_OK);
        HOLDS(bsattn_npy_mpi_read_rows(&lone, path, &npy, &view, &all, 1, rows) == BSATTN_OK);
        HOLDS(same_rows(&view, &all, 1, 10, rows));
        HOLDS(unlink(path) == 0);
    }
    (void)MPI_Barrier(world);
}

static void abort_keeps_the_old(void)
{
    bsattn_npy_view_t view = {1, 10, 4};
    int64_t shape[1] = {10};
    bsattn_npy_writer_t *writer = NULL;
    char path[PATH_SIZE];
    char part[PATH_SIZE];

    round_trip(2, 7, 3, 2, 1);
    (void)in_directory("trip.npy", path);
    (void)in_directory("trip.npy.part", part);
    HOLDS(bsattn_npy_writer_create(&job, path, "<f4", 1, shape, &view, &writer) == BSATTN_OK);
    HOLDS(exists(part));
    (void)MPI_Barrier(world);
    bsattn_npy_writer_abort(writer);
    (void)MPI_Barrier(world);
    HOLDS(!exists(part));
    check_whole(path, &(bsattn_npy_view_t){2, 7, 12});
    bsattn_npy_writer_abort(NULL);
    (void)MPI_Barrier(world);
}

static void reader_failures(void)
{
    bsattn_npy_view_t view = {2, 7, 12};
    bsattn_token_run_t run = {0, 7};
    char path[PATH_SIZE];
    uint32_t rows[42];
    bsattn_npy_t npy;
    bsattn_npy_t other;

    round_trip(2, 7, 3, 2, 1);
    (void)in_directory("trip.npy", path);
    HOLDS(bsattn_npy_mpi_read_header(&job, path, &npy) == BSATTN_OK);
    (void)MPI_Barrier(world);
    if (job.rank == 0) {
        HOLDS(truncate(path, npy.data_offset + 100) == 0);
    }
    (void)MPI_Barrier(world);
    expect_failure(bsattn_npy_mpi_read_rows(&job, path, &npy, &view, &run, 1, rows),
                   BSATTN_ERR_FILE, "bytes expected by its header, ");
    expect_failure(bsattn_npy_mpi_read_header(&job, path, &other), BSATTN_ERR_FILE, "trip.npy");
    (void)MPI_Barrier(world);
    if (job.rank == 0) {
        (void)unlink(path);
    }
    (void)MPI_Barrier(world);
    expect_failure(bsattn_npy_mpi_read_rows(&job, path, &npy, &view, &run, 1, rows),
                   BSATTN_ERR_FILE, "cannot be opened");
    expect_failure(bsattn_npy_mpi_read_header(&job, path, &other), BSATTN_ERR_FILE,
                   "cannot be opened");
}

/* Rank 0 writes a small file by itself. */
static const char *save(const char *name, const char *descr, int dims, const int64_t *shape,
                        const void *data, size_t size, char *path)
{
    unsigned char header[512];
    size_t header_size = bsattn_npy_format(descr, dims, shape, header, sizeof(header));

    (void)in_directory(name, path);
    if (job.rank == 0) {
        FILE *file = fopen(path, "wb");

        HOLDS((file != NULL) && (fwrite(header, 1, header_size, file) == header_size) &&
              (fwrite(data, 1, size, file) == size));
        if (file != NULL) {
            (void)fclose(file);
        }
    }
    (void)MPI_Barrier(world);
    return path;
}

/* What load gives for this rank's tokens is what rows gives for them, and what it should be. */
static void compare_source(bsattn_source_t *source, const bsattn_problem_t *problem,
                           bsattn_tensor_t tensor, const float *global, int threads)
{
    int heads = (tensor == BSATTN_Q) ? problem->heads_q : problem->heads_kv;
    int64_t width = (int64_t)heads * problem->head_dim;
    bsattn_token_run_t runs[64];
    int64_t tokens;
    int64_t place = 0;
    size_t count = deal(problem->seq_len, 5, job.size, job.rank, runs, &tokens);
    int64_t elements = problem->batch * tokens * width;
    char *loaded = must_allocate((size_t)elements * 4);
    float *values = must_allocate((size_t)elements * 4);
    float row[256];
    float want[256];

    HOLDS(bsattn_source_load(source, tensor, runs, count, threads, loaded) == BSATTN_OK);
    bsattn_convert_to_f32(problem->dtype, loaded, elements, values);
    for (int64_t b = 0; b < problem->batch; ++b) {
        for (size_t r = 0; r < count; ++r) {
            for (int64_t t = runs[r].first; t < runs[r].first + runs[r].count; ++t, ++place) {
                for (int h = 0; h < heads; ++h) {
                    const float *mine = values + (place * heads + h) * problem->head_dim;
                    int64_t at = ((b * problem->seq_len + t) * heads + h) * problem->head_dim;
                    size_t size = (size_t)problem->head_dim * 4;

                    memcpy(want, global + at, size);
                    bsattn_round_f32(problem->dtype, problem->head_dim, want);
                    HOLDS(bsattn_source_rows(source, tensor, b, h, t, 1, row) == BSATTN_OK);
                    HOLDS(memcmp(row, want, size) == 0);
                    HOLDS(memcmp(mine, want, size) == 0);
                }
            }
        }
    }
    free(loaded);
    free(values);
}

static void synthetic_source(void)
{
    static const bsattn_dtype_t dtypes[] = {BSATTN_F32, BSATTN_F16, BSATTN_BF16};
    enum { BATCH = 2, SEQ = 43, HEADS_Q = 6, HEADS_KV = 3, DIM = 24 };
    static float global[BATCH * SEQ * HEADS_Q * DIM];

    for (size_t d = 0; d < 3; ++d) {
        bsattn_problem_t problem = {.batch = BATCH,
                                    .seq_len = SEQ,
                                    .heads_q = HEADS_Q,
                                    .heads_kv = HEADS_KV,
                                    .head_dim = DIM,
                                    .dtype = dtypes[d],
                                    .block = 16};
        bsattn_source_t *source = NULL;
        bsattn_source_info_t info;

        HOLDS(bsattn_source_open_synthetic(&problem, 99, &source) == BSATTN_OK);
        bsattn_source_info(source, &info);
        HOLDS(info.synthetic && info.batched && (info.seq_len == SEQ) && (info.dtype == dtypes[d]));
        for (int t = 0; t < 3; ++t) {
            int heads = (t == 0) ? HEADS_Q : HEADS_KV;

            bsattn_philox_normal(99, (uint32_t)t, 0, BATCH * SEQ * heads * DIM, global);
            compare_source(source, &problem, (bsattn_tensor_t)t, global, 1 + (int)d);
        }
        bsattn_source_close(source);
    }
}

/* Files of one type read for problems of every type. */
static void file_source(bsattn_dtype_t stored, const char *descr, int dims)
{
    static const bsattn_dtype_t dtypes[] = {BSATTN_F32, BSATTN_F16, BSATTN_BF16};
    enum { SEQ = 43, HEADS_Q = 4, HEADS_KV = 2, DIM = 24, MOST = 2 * SEQ * HEADS_Q * DIM };
    static const char *const names[3] = {"q.npy", "k.npy", "v.npy"};
    static float global[3][MOST];
    static float data[MOST];
    int64_t batch = (dims == 4) ? 2 : 1;
    size_t item = (stored == BSATTN_F32) ? 4 : 2;
    char paths[3][PATH_SIZE];
    bsattn_source_t *source = NULL;
    bsattn_source_info_t info;

    for (int t = 0; t < 3; ++t) {
        int heads = (t == 0) ? HEADS_Q : HEADS_KV;
        int64_t shape[4] = {batch, SEQ, heads, DIM};
        int64_t count = batch * SEQ * heads * DIM;

        bsattn_philox_normal(5, 10 + (uint32_t)t, 0, count, global[t]);
        bsattn_convert_from_f32(stored, global[t], count, data);
        bsattn_round_f32(stored, count, global[t]);
        (void)save(names[t], descr, dims, shape + ((dims == 4) ? 0 : 1), data, (size_t)count * item,
                   paths[t]);
    }
    HOLDS(bsattn_source_open_files(&job, paths[0], paths[1], paths[2], &source) == BSATTN_OK);
    bsattn_source_info(source, &info);
    HOLDS(!info.synthetic && (info.batched == (dims == 4)) && (info.batch == batch));
    HOLDS((info.seq_len == SEQ) && (info.heads_q == HEADS_Q) && (info.heads_kv == HEADS_KV));
    HOLDS((info.head_dim == DIM) && (info.dtype == stored));
    for (size_t d = 0; d < 3; ++d) {
        bsattn_problem_t problem = {.batch = batch,
                                    .seq_len = SEQ,
                                    .heads_q = HEADS_Q,
                                    .heads_kv = HEADS_KV,
                                    .head_dim = DIM,
                                    .dtype = dtypes[d],
                                    .block = 16};

        HOLDS(bsattn_source_bind(source, &problem) == BSATTN_OK);
        for (int t = 0; t < 3; ++t) {
            compare_source(source, &problem, (bsattn_tensor_t)t, global[t], 2);
        }
        ++problem.seq_len;
        HOLDS(bsattn_source_bind(source, &problem) == BSATTN_ERR_INPUT);
    }
    bsattn_source_close(source);
}

static void source_failures(void)
{
    static const float data[2 * 9 * 4 * 16];
    static const int64_t good[4] = {2, 9, 4, 16};
    static const int64_t others[][4] = {
        {1, 9, 4, 16}, {2, 8, 4, 16}, {2, 9, 3, 16}, {2, 9, 4, 8}, {0, 9, 4, 16}};
    char q[PATH_SIZE];
    char k[PATH_SIZE];
    bsattn_source_t *source = NULL;

    (void)save("q.npy", "<f4", 4, good, data, sizeof(data), q);
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); ++i) {
        (void)save("k.npy", "<f4", 4, others[i], data, sizeof(data), k);
        expect_failure(bsattn_source_open_files(&job, q, k, q, &source), BSATTN_ERR_INPUT,
                       "k.npy: shape (");
        if (i == 2) {
            continue;
        }
        expect_failure(bsattn_source_open_files(&job, q, q, k, &source), BSATTN_ERR_INPUT,
                       "k.npy: shape (");
    }
    (void)save("k.npy", "<f4", 3, good + 1, data, sizeof(data), k);
    expect_failure(bsattn_source_open_files(&job, q, k, k, &source), BSATTN_ERR_INPUT,
                   "(2, 9, 4, 16)");
    (void)save("k.npy", "<f4", 2, good + 2, data, sizeof(data), k);
    expect_failure(bsattn_source_open_files(&job, q, k, k, &source), BSATTN_ERR_INPUT, "(4, 16)");
    (void)save("k.npy", "<f8", 4, good, data, sizeof(data) / 2, k);
    expect_failure(bsattn_source_open_files(&job, q, k, k, &source), BSATTN_ERR_FILE, "k.npy: ");
    (void)save("k.npy", "<i4", 4, good, data, sizeof(data), k);
    expect_failure(bsattn_source_open_files(&job, q, k, k, &source), BSATTN_ERR_INPUT, "'<i4'");
    expect_failure(bsattn_source_open_files(&job, q, k, NULL, &source), BSATTN_ERR_INPUT,
                   "no file for v");
    (void)in_directory("nothing.npy", k);
    expect_failure(bsattn_source_open_files(&job, q, k, q, &source), BSATTN_ERR_FILE,
                   "nothing.npy: cannot be opened");
    HOLDS(source == NULL);
}

static void clean_up(void)
{
    static const char *const names[] = {"trip.npy", "q.npy", "k.npy", "v.npy"};
    char path[PATH_SIZE];

    (void)MPI_Barrier(world);
    for (size_t i = 0; (job.rank == 0) && (i < sizeof(names) / sizeof(*names)); ++i) {
        (void)unlink(in_directory(names[i], path));
    }
    /* Fails if a test left anything else. */
    if (job.rank == 0) {
        HOLDS(rmdir(directory) == 0);
    }
}

int main(void)
{
    int code;

    if (bsattn_job_start(&job) != BSATTN_OK) {
        return 1;
    }
    world = *(const MPI_Comm *)job.comm;
    expect_ranks();
    (void)bsattn_text_copy(directory, sizeof(directory), "/tmp/test_npy_mpi_XXXXXX");
    if ((job.rank == 0) && (mkdtemp(directory) == NULL)) {
        (void)MPI_Abort(world, 1);
    }
    (void)MPI_Bcast(directory, sizeof(directory), MPI_CHAR, 0, world);

    for (int local = 1; local <= 3; ++local) {
        round_trip(1, 1, 1, 1, local);
        round_trip(1, 1000, 16, 64, local);
        round_trip(3, 517, 12, 16, local);
        round_trip(24, 301, 1, 16, local);
        round_trip(2, 40000, 128, 64, local);
    }
    alone();
    abort_keeps_the_old();
    reader_failures();
    writer_failures();
    late_failure();
    synthetic_source();
    file_source(BSATTN_F32, "<f4", 4);
    file_source(BSATTN_F16, "<f2", 3);
    file_source(BSATTN_BF16, "<u2", 4);
    file_source(BSATTN_BF16, "|V2", 3);
    source_failures();
    clean_up();

    code = vote("test_npy_mpi");
    bsattn_job_finish(&job);
    return code;
}
