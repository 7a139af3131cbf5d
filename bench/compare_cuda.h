/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file compare_cuda.h
 * The results of a case of problem_cuda.h beside the fp64 reference, or beside those of another case.
 */
#ifndef BSATTN_BENCH_COMPARE_CUDA_H
#define BSATTN_BENCH_COMPARE_CUDA_H

#include "bench/problem_cuda.h"

/** How results compare with the reference. */
typedef struct bsattn_gpu_errors {
    int64_t rows;      /**< compared */
    int64_t bad_rows;  /**< beyond the bound of the type */
    int64_t bad_lse;   /**< of these for their LSE */
    double out;        /**< largest ||O - R|| / ||R|| of a row */
    double lse;        /**< largest |LSE - reference| */
    int64_t nonfinite; /**< elements of all of O */
    int64_t spills;    /**< bytes written behind O or LSE, or between states */
    int bad_batch;     /**< where the first bad row is */
    int bad_head;
    int64_t bad_row;
} bsattn_gpu_errors_t;

/** Compare a set's results with the fp64 reference.
 *  @param pairs_max  roughly how many query-key pairs the reference may visit: rows are sampled
 *                    beyond. Heads are sampled too if they are not few. */
bsattn_gpu_errors_t bsattn_gpu_case_compare(const bsattn_gpu_case_t *gpu, int set,
                                            double pairs_max);

/** Compare the results of all sets. @param pairs_max  of all together */
bsattn_gpu_errors_t bsattn_gpu_case_compare_sets(const bsattn_gpu_case_t *gpu, double pairs_max);

/** Count in all what some tell. */
void bsattn_gpu_errors_merge(bsattn_gpu_errors_t *all, const bsattn_gpu_errors_t *some);

/** Write what is wrong with results, on one line. @param with  what they were compared with */
void bsattn_gpu_errors_text(const bsattn_gpu_errors_t *errors, const char *with, char *out,
                            size_t size);

/** Compare all rows of two cases of the same problem, e.g. of two kernels. What is NaN in one
 *  must be in the other. */
bsattn_gpu_errors_t bsattn_gpu_case_compare_cases(const bsattn_gpu_case_t *gpu,
                                                  const bsattn_gpu_case_t *other);

/** Copy results to host memory. @param o [b, N, Hq, D] in fp32; @param lse [b, Hq, N] */
void bsattn_gpu_case_results(const bsattn_gpu_case_t *gpu, int set, float *o, float *lse);

#endif
