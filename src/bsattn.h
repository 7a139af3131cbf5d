/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file bsattn.h
 * Distributed attention over very long sequences with block-sparse masks.
 *
 * The life of a computation:
 *
 *     bsattn_problem_init()      describe shapes and types
 *     bsattn_pattern_create()    describe the mask, bound to the problem
 *     bsattn_estimate_create()   optional: what it will take, for any number of ranks
 *     bsattn_context_create()    who computes: ranks, transport, backend
 *     bsattn_plan_create()       decide and allocate everything
 *     bsattn_execute()           as often as wanted; allocates nothing
 *     bsattn_plan_destroy(), bsattn_context_destroy(), bsattn_pattern_destroy()
 *
 * Notation: b batch, N sequence length in tokens, Hq and Hk query and key heads, D head dimension,
 * B block size in tokens, nb = ceil(N/B) blocks, P ranks. Tensors are in C order. A function that
 * can fail returns a bsattn_status_t; out-arguments come last, end in _p and are set only on
 * success. The text of the last failure of the calling thread is bsattn_last_error(). Functions
 * marked collective must be called by every rank of the context and return the same status on each,
 * unless said otherwise.
 */
#ifndef BSATTN_H
#define BSATTN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define BSATTN_API __attribute__((visibility("default")))
#else
#define BSATTN_API
#endif

/** The one list of statuses: X(name, value, text). The values are the exit codes of the command. */
#define BSATTN_STATUS_LIST(X)                                                                      \
    X(OK, 0, "success")                                                                            \
    X(ERR_RESULT, 1, "a result outside its tolerance")                                             \
    X(ERR_INPUT, 2, "a bad option, pattern or shape")                                              \
    X(ERR_ENVIRONMENT, 3, "the machine or the launch does not allow it")                           \
    X(ERR_MEMORY, 4, "out of memory")                                                              \
    X(ERR_FILE, 5, "a file could not be read or written")                                          \
    X(ERR_TIMEOUT, 124, "no progress within the time allowed")

typedef enum bsattn_status {
#define BSATTN_STATUS_ENUM(_name, _value, _text) BSATTN_##_name = (_value),
    BSATTN_STATUS_LIST(BSATTN_STATUS_ENUM)
#undef BSATTN_STATUS_ENUM
} bsattn_status_t;

/** @return the name of a status, e.g. "ERR_INPUT"; "unknown" for a value that is none. */
BSATTN_API const char *bsattn_status_name(bsattn_status_t status);

/** @return one sentence for a status; never NULL. */
BSATTN_API const char *bsattn_status_text(bsattn_status_t status);

/** @return the message of the calling thread's last failure, without newline; "" if there was none.
 *  Valid until the next failing call of this thread. */
BSATTN_API const char *bsattn_last_error(void);

/** @return the version of the library, e.g. "0.1.0". */
BSATTN_API const char *bsattn_version(void);

/* -------------------------------------------------------------------------------------- problem */

typedef enum bsattn_dtype {
    BSATTN_F32 = 0,
    BSATTN_F16 = 1,  /**< IEEE half */
    BSATTN_BF16 = 2, /**< upper half of an IEEE single */
} bsattn_dtype_t;

/** @return "f32", "f16" or "bf16". */
BSATTN_API const char *bsattn_dtype_name(bsattn_dtype_t dtype);

/** @return bytes of one element: 4 or 2. */
BSATTN_API size_t bsattn_dtype_size(bsattn_dtype_t dtype);

/** Shapes and types of one attention problem. */
typedef struct bsattn_problem {
    int64_t batch;        /**< b >= 1 */
    int64_t seq_len;      /**< N >= 1, in tokens; no divisibility rule */
    int heads_q;          /**< Hq >= 1 */
    int heads_kv;         /**< Hk >= 1, divides Hq; query head h reads key head h / (Hq/Hk) */
    int head_dim;         /**< D: a multiple of 8 from 16 to 256 */
    bsattn_dtype_t dtype; /**< of Q, K, V and O; scores, sums and LSE are fp32 */
    int block;            /**< B in tokens: 16, 32, 64, 128 or 256 */
    int causal;           /**< nonzero: a query at token t sees keys s <= t only */
    double scale;         /**< of the scores; NaN: 1/sqrt(D) */
} bsattn_problem_t;

/** Fill a problem with the defaults: b 1, N 16384, Hq = Hk = 8, D 64, f32, B 64, not causal, scale
 *  1/sqrt(D). */
BSATTN_API void bsattn_problem_init(bsattn_problem_t *problem);

/** Check every field of a problem.
 *  @return BSATTN_OK; BSATTN_ERR_INPUT naming the first field that does not fit and what is
 *          accepted. */
BSATTN_API bsattn_status_t bsattn_problem_check(const bsattn_problem_t *problem);

/** @return nb = ceil(N/B) of a checked problem. */
BSATTN_API int64_t bsattn_problem_blocks(const bsattn_problem_t *problem);

/** @return the scale of the scores of a checked problem, the default resolved. */
BSATTN_API double bsattn_problem_scale(const bsattn_problem_t *problem);

/* -------------------------------------------------------------------------------------- pattern */

/** A block-sparse mask bound to a problem: for every query head and query block the key blocks that
 *  are active. */
typedef struct bsattn_pattern bsattn_pattern_t;

/** Block indices first <= x < last. */
typedef struct bsattn_span {
    int32_t first;
    int32_t last;
} bsattn_span_t;

/** What a pattern comes to, measured on its lists. */
typedef struct bsattn_pattern_stats {
    double pairs_block;   /**< active block pairs of one query head, mean over heads (keys of two
                               branches count twice) */
    double pairs_token;   /**< unmasked token pairs of one batch item and query head, mean over
                               heads */
    double density_block; /**< pairs_block / nb^2 */
    double density_token; /**< pairs_token / N^2 */
    double flops;         /**< 4 * pairs_token * D summed over batch and query heads */
    int head_classes;     /**< number of different masks among the query heads */
} bsattn_pattern_stats_t;

/** Parse a pattern and bind it to a problem.
 *  @param text      the pattern language, e.g. "local(window=256)+global(tokens=64)"
 *  @param problem   checked first; copied
 *  @param pattern_p receives the pattern; owned by the caller, released by bsattn_pattern_destroy()
 *  @return BSATTN_OK; BSATTN_ERR_INPUT for a text that cannot be read (the message gives the
 *          position), a value that does not fit the problem or a term not yet supported;
 *          BSATTN_ERR_FILE for a mask file; BSATTN_ERR_MEMORY. */
BSATTN_API bsattn_status_t bsattn_pattern_create(const char *text, const bsattn_problem_t *problem,
                                                 bsattn_pattern_t **pattern_p);

/** Release a pattern; NULL is allowed. */
BSATTN_API void bsattn_pattern_destroy(bsattn_pattern_t *pattern);

/** Count the pairs of a pattern. Takes time proportional to its lists.
 *  @param threads  to count with, 1 .. 4096
 *  @return BSATTN_OK, BSATTN_ERR_INPUT (threads) or BSATTN_ERR_MEMORY. */
BSATTN_API bsattn_status_t bsattn_pattern_stats(const bsattn_pattern_t *pattern, int threads,
                                                bsattn_pattern_stats_t *stats_p);

/** The active key blocks of one query block.
 *  Spans of one branch are disjoint and ascending; branches follow one another, so a key block
 *  present in two branches appears twice. Under causal no span goes beyond row.
 *  @param head     query head, 0 <= head < Hq
 *  @param row      query block, 0 <= row < nb
 *  @param spans_p  receives an array of *count_p spans, owned by the pattern and valid until the
 *                  next call on this pattern
 *  @return BSATTN_OK, BSATTN_ERR_INPUT for a head or row out of range, or BSATTN_ERR_MEMORY. Not
 *          thread safe. */
BSATTN_API bsattn_status_t bsattn_pattern_row(bsattn_pattern_t *pattern, int head, int64_t row,
                                              const bsattn_span_t **spans_p, size_t *count_p);

/* ------------------------------------------------------------------------------------- estimate */

/** How the work is cut and moved. NULL strings mean "auto". */
typedef struct bsattn_plan_params {
    const char *layout;   /**< "auto", "contiguous", "zigzag", "cyclic" or "cyclic:k" */
    const char *exchange; /**< "auto", "ring": chunks go from rank to rank, each passing on what
                               others still need, or "direct": owners send to every user what it
                               uses, which is the least that can be sent. auto: direct where it
                               sends at most three quarters of what the ring would and is clearly
                               faster holding at most twice as much, or as fast holding at most 5 %
                               more; else the ring */
    const char *backend;  /**< of an estimate: "auto", "cuda" or "cpu"; auto: what a context would
                               take here. A plan computes with its context's */
} bsattn_plan_params_t;

/** Bytes of one rank by purpose, in the memory that its backend computes in: the host's or a
 *  GPU's. */
typedef struct bsattn_memory {
    int64_t inputs;  /**< Q, K and V shards, [b, n, H, D] of the problem's type */
    int64_t outputs; /**< O shard of the problem's type and LSE shard, fp32 */
    int64_t chunks;  /**< the two K/V chunks: the one computed on and the one arriving; with the
                          exchange direct also what others use of the rank's own. On a GPU the rank's
                          own keys are read in place if it needs them all */
    int64_t state;   /**< (O, m, l) in fp32 of query rows that see keys in more than one step */
    int64_t lists;   /**< schedule: work items and key lists; not the planning tables that the ranks
                          of a process share, 4 bytes for each block and different key head mask */
    int64_t scratch; /**< per thread */
    int64_t staging; /**< what the transport keeps for the chunks it moves */
    int64_t libraries; /**< on a GPU: what the libraries hold for themselves; nominal where there is
                            none */
    int64_t total;     /**< all of the above */
    int64_t host;      /**< with a GPU: the schedule, in host memory beside it */
} bsattn_memory_t;

/** What one rank will hold, compute and send. */
typedef struct bsattn_rank_estimate {
    int64_t tokens; /**< sequence tokens owned, of each batch item */
    bsattn_memory_t memory;
    double pairs_token;     /**< unmasked token pairs, summed over batch and query heads */
    int64_t bytes_sent;     /**< K/V bytes sent in one execute */
    int64_t bytes_received; /**< K/V bytes received in one execute */
    int64_t bytes_needed;   /**< distinct remote K/V bytes its rows touch */
    double time_attend_ms;  /**< modelled */
    double time_total_ms;   /**< modelled: compute and what of the exchange it cannot hide */
} bsattn_rank_estimate_t;

/** What a whole job will hold, compute and send. */
typedef struct bsattn_estimate_totals {
    int ranks;
    int steps;            /**< of the exchange until nobody needs anything */
    char layout[32];      /**< the layout, "auto" resolved */
    char exchange[16];    /**< the exchange, "auto" resolved */
    int64_t bytes_sent;   /**< sum over ranks */
    int64_t bytes_needed; /**< the lower bound of this layout: sum over ranks of their
                                 bytes_needed */
    int64_t memory_max;   /**< the largest total of any rank */
    double imbalance;     /**< largest token pair count of a rank / mean over ranks; 1 is
                                 perfect */
    double time_ms;       /**< modelled: the slowest rank */
} bsattn_estimate_totals_t;

/** A prediction: totals of the job and an entry for each rank. */
typedef struct bsattn_estimate bsattn_estimate_t;

/** Predict memory, bytes, balance and time of a problem on any number of ranks. Needs no peers and
 *  no GPU.
 *  @param problem    the pattern's, but for dtype and scale
 *  @param ranks      P >= 1
 *  @param threads    threads of each rank, 1 .. 4096: for scratch and time; as many plan here
 *  @param params     NULL: everything automatic
 *  @return BSATTN_OK, BSATTN_ERR_INPUT or BSATTN_ERR_MEMORY; release with
 *          bsattn_estimate_destroy() */
BSATTN_API bsattn_status_t bsattn_estimate_create(const bsattn_problem_t *problem,
                                                  bsattn_pattern_t *pattern, int ranks, int threads,
                                                  const bsattn_plan_params_t *params,
                                                  bsattn_estimate_t **estimate_p);
/** @return the totals of the job, owned by the estimate. */
BSATTN_API const bsattn_estimate_totals_t *
bsattn_estimate_totals(const bsattn_estimate_t *estimate);
/** @param rank 0 <= rank < P
 *  @return the estimate of one rank, owned by the estimate; NULL for a rank out of range. */
BSATTN_API const bsattn_rank_estimate_t *bsattn_estimate_rank(const bsattn_estimate_t *estimate,
                                                              int rank);
/** Release an estimate; NULL is allowed. */
BSATTN_API void bsattn_estimate_destroy(bsattn_estimate_t *estimate);

/* -------------------------------------------------------------------------------------- context */

/** Who computes: the ranks, how they exchange and what they compute with. With the backend cuda a
 *  process has one GPU; functions that take a context or a plan make it the current one of the
 *  calling thread. */
typedef struct bsattn_context bsattn_context_t;

typedef struct bsattn_context_params {
    const void *mpi_comm;  /**< address of an MPI_Comm (MPI initialised by the caller; duplicated),
                                or NULL for none */
    const char *transport; /**< "auto", "nccl", "ipc", "mpi" or "loop"; NULL is auto */
    const char *backend;   /**< "auto", "cuda" or "cpu"; NULL is auto: cuda if a GPU is visible that
                                it can use, the same on every rank */
    const char *bind;      /**< "auto" or "off"; NULL is auto: until the context is destroyed the
                                process, with all its threads, is bound to cores of its own, near
                                its GPU if it has one. A binding set by the launcher or by OpenMP
                                stays; nothing is bound where there are too few cores, nor with
                                several virtual ranks */
    int virtual_ranks;     /**< ranks of the loop transport, all in this process; 0: 1 */
    int threads;           /**< per rank; 0: OMP_NUM_THREADS if set, else this rank's share of the
                                logical CPUs it may use */
    double timeout_s;      /**< longest wait for a peer without progress; or, if that is longer, four
                                times what this rank itself was last away, times how unevenly its
                                plans spread the work (1: evenly). Then the job is ended
                                (MPI_Abort) with exit code 124 and a message on standard error that
                                says who waits for whom. 0: wait for ever */
} bsattn_context_params_t;

/** Fill with zeros and NULLs: MPI absent, everything automatic, no timeout. */
BSATTN_API void bsattn_context_params_init(bsattn_context_params_t *params);

/** Open transport and backend. Collective.
 *  @return BSATTN_OK, BSATTN_ERR_INPUT, BSATTN_ERR_ENVIRONMENT (the transport or backend cannot
 *          work here) or BSATTN_ERR_MEMORY. */
BSATTN_API bsattn_status_t bsattn_context_create(const bsattn_context_params_t *params,
                                                 bsattn_context_t **context_p);
/** Release a context; collective; after the plans made from it. NULL is allowed. */
BSATTN_API void bsattn_context_destroy(bsattn_context_t *context);

typedef struct bsattn_context_info {
    int ranks;                    /**< P */
    int local_count;              /**< ranks in this process: 1, or P with loop */
    int first_rank;               /**< this process holds first_rank .. first_rank + local_count -
                                       1 */
    int threads;                  /**< per rank */
    int hosts;                    /**< distinct hosts of all ranks */
    const char *transport;        /**< as decided */
    const char *transport_reason; /**< why */
    const char *backend;          /**< as decided */
    const char *backend_reason;   /**< why */
    const char *backend_variant;  /**< of the kernels: the instruction set "generic", "avx2",
                                       "avx512" or "amx"; "sm90", "sm80" or "plain" */
    const char *device;           /**< model of this process's GPU; "" with cpu */
    const char *device_pci;       /**< address of it, e.g. "0000:1b:00.0"; "" with cpu */
} bsattn_context_info_t;

/** What was decided. The strings live as long as the context. */
BSATTN_API void bsattn_context_info(const bsattn_context_t *context, bsattn_context_info_t *info_p);

/* ----------------------------------------------------------------------------------------- plan */

/** Everything decided and allocated for one problem, pattern, layout and set of ranks. */
typedef struct bsattn_plan bsattn_plan_t;

/** Tokens first .. first + count - 1 of the sequence. */
typedef struct bsattn_token_run {
    int64_t first;
    int64_t count;
} bsattn_token_run_t;

/** The tensors of one rank, allocated by the caller: in host memory for the backend cpu; for cuda
 *  in the memory of the context's GPU, aligned to 16 bytes, and ready when a function is called:
 *  no stream of the caller is waited for. n is bsattn_plan_tokens(); local row r is the token that the
 *  rank's runs, concatenated, put at place r. */
typedef struct bsattn_tensors {
    const void *q; /**< [b, n, Hq, D] of the problem's type */
    const void *k; /**< [b, n, Hk, D] of the problem's type */
    const void *v; /**< [b, n, Hk, D] of the problem's type */
    void *o;       /**< [b, n, Hq, D] of the problem's type, written */
    float *lse;    /**< [b, Hq, n], natural log, written; NULL if not wanted */
} bsattn_tensors_t;

/** Times of one rank in one execute, in ms: by the host's clock for cpu, by the GPU's for cuda. */
typedef struct bsattn_timings {
    double total_ms;
    double attend_ms;   /**< kernels at work */
    double exchange_ms; /**< from the start of each exchange to its observed end, summed over
                             steps */
    double exposed_ms;  /**< exchange time during which the kernels stood still; not multiprocessors
                             that they leave to NCCL meanwhile */
} bsattn_timings_t;

/** Plan an execution. Collective. Predicts the memory first and refuses before allocating.
 *  @param context  outlives the plan
 *  @param problem  the pattern's, but for dtype and scale; copied
 *  @param pattern  outlives the plan
 *  @param params   NULL: everything automatic
 *  @return BSATTN_OK, BSATTN_ERR_INPUT, BSATTN_ERR_MEMORY or BSATTN_ERR_ENVIRONMENT. */
BSATTN_API bsattn_status_t bsattn_plan_create(bsattn_context_t *context,
                                              const bsattn_problem_t *problem,
                                              bsattn_pattern_t *pattern,
                                              const bsattn_plan_params_t *params,
                                              bsattn_plan_t **plan_p);
/** Release a plan; NULL is allowed. Every rank of a job should: neighbours on GPUs use one another's
 *  memory, and a rank waits up to 2 s for theirs to let go of its own. */
BSATTN_API void bsattn_plan_destroy(bsattn_plan_t *plan);

/** @return n, the tokens owned by a rank of this process; local is 0 .. local_count - 1. */
BSATTN_API int64_t bsattn_plan_tokens(const bsattn_plan_t *plan, int local);

/** The tokens owned by a rank of this process, ascending.
 *  @return an array of *count_p runs, owned by the plan. */
BSATTN_API const bsattn_token_run_t *bsattn_plan_runs(const bsattn_plan_t *plan, int local,
                                                      size_t *count_p);

/** @return the estimate the plan was made from: what every rank was predicted to hold, compute and
 *  send. */
BSATTN_API const bsattn_estimate_t *bsattn_plan_estimate(const bsattn_plan_t *plan);

/** @return bytes the plan really allocated for a rank of this process, in the memory that the
 *  backend computes in: chunks, state, lists, scratch and staging. */
BSATTN_API int64_t bsattn_plan_allocated(const bsattn_plan_t *plan, int local);

/** Compute O and LSE. Collective; returns when this process's results are written.
 *  @param tensors  one entry per rank of this process
 *  @return BSATTN_OK, BSATTN_ERR_INPUT for tensors of the backend cuda that are not aligned to 16
 *          bytes, BSATTN_ERR_MEMORY if the GPU has none left, or BSATTN_ERR_ENVIRONMENT if the GPU
 *          or the transport fails. Other ranks may then see success or wait for this one, and plan
 *          and context can only be destroyed: in a job of several processes, say it and end the
 *          job. */
BSATTN_API bsattn_status_t bsattn_execute(bsattn_plan_t *plan, const bsattn_tensors_t *tensors);

/** @return the times of the last execute of a rank of this process. */
BSATTN_API bsattn_timings_t bsattn_plan_timings(const bsattn_plan_t *plan, int local);

/* ---------------------------------------------------------------------------------------- check */

typedef enum bsattn_tensor { BSATTN_Q = 0, BSATTN_K = 1, BSATTN_V = 2 } bsattn_tensor_t;

/** Delivers rows of the global tensors, of whatever rank: tokens first .. first + count - 1 of one
 *  batch item and head, rounded to the problem's type, to out, fp32 [count, D]. Must be thread
 *  safe. */
typedef bsattn_status_t (*bsattn_rows_func_t)(void *arg, bsattn_tensor_t tensor, int64_t batch,
                                              int head, int64_t first, int64_t count, float *out);

typedef struct bsattn_check_result {
    int64_t rows;     /**< query rows compared, over all ranks */
    double error_out; /**< ||O - R|| / ||R|| over the rows, R in fp64 */
    double error_lse; /**< largest |LSE - reference| */
    int passed;       /**< within the tolerance of the type; NaN never passes */
} bsattn_check_result_t;

/** Compare results with an fp64 reference on sampled query rows. Collective.
 *  @param tensors  as given to a bsattn_execute() of the plan, and not touched since; lse must not be NULL
 *  @param rows     query rows to sample over all ranks (each is one token of one head); 0: all of
 *                  them
 *  @param seed     of the sample
 *  @return BSATTN_OK with result_p->passed telling the outcome; BSATTN_ERR_INPUT for lse NULL or
 *          negative rows, BSATTN_ERR_MEMORY, BSATTN_ERR_ENVIRONMENT or what read_rows returned. */
BSATTN_API bsattn_status_t bsattn_plan_check(bsattn_plan_t *plan, const bsattn_tensors_t *tensors,
                                             int64_t rows, uint64_t seed,
                                             bsattn_rows_func_t read_rows, void *arg,
                                             bsattn_check_result_t *result_p);

#ifdef __cplusplus
}
#endif

#endif
