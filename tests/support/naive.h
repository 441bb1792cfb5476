/* Batch normalization in two passes and long double over the whole batch: the reference
 * that shares no line with the library. */
#ifndef SUPPORT_NAIVE_H
#define SUPPORT_NAIVE_H

#include <stdint.h>

typedef struct naive {
    int64_t n, c, s;
    int64_t norm_batch; /* samples that share statistics; 0: all */
    double eps;

    /* in: [n][c][s], and [c] or NULL for 1 and 0 */
    const double *x, *dy, *gamma, *beta;

    /* out: values [n][c][s], and gradients and statistics of the whole batch [c] */
    long double *y, *dx, *dgamma, *dbeta, *mean, *var;

    /* out: the magnitude of the terms that add up to each of them. An error bound is
     * this times a number of roundings: the value itself may cancel to nothing. */
    long double *y_size, *dx_size, *dgamma_size, *dbeta_size;
} naive;

/* Allocate the outputs, for inputs set later. */
naive naive_make(int64_t n, int64_t c, int64_t s);
void naive_free(naive *bn);

/* Fill the outputs. dy may be NULL: forward only. */
void naive_run(naive *bn);

/* One step of a running mean or variance; step counts from 1, momentum < 0: plain
 * average. */
long double naive_track(long double running, long double value, double momentum,
                        int64_t step);

/* var·n/(n−1) for n values per channel. */
long double naive_unbiased(const naive *bn, int64_t channel);

#endif
