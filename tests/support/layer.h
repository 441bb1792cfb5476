/* A batch that every process knows whole, and a layer's results on a part of it. */
#ifndef SUPPORT_LAYER_H
#define SUPPORT_LAYER_H

#include <stdbool.h>
#include <stdint.h>

#include "support/cases.h"
#include "support/element.h"
#include "support/naive.h"
#include "syncbn/norm.h"

/* Drawn by counter, so alike on all processes. The doubles hold the elements' exact
 * values. */
typedef struct joined {
    sbn_dtype dtype;
    int64_t n, c, h, w, norm_batch;
    void *x, *dy;
    double *x_d, *dy_d, *gamma_d, *beta_d;
} joined;

/* x is normal with another mean and deviation in each channel. */
joined joined_make(sbn_dtype dtype, norm_case shape, uint64_t seed);
void joined_free(joined *b);

/* Round x_d and dy_d to the type, into x and dy, after a test wrote its own values. */
void joined_store(joined *b);

/* View of samples first … first+n-1 of an array with the batch's shape. */
sbn_tensor joined_view(const joined *b, void *array, int64_t first, int64_t n);

/* The reference's results on the whole batch. */
naive joined_naive(const joined *b, double eps);

/* Settings of a layer for this batch. */
sbn_norm_config joined_config(const joined *b);

/* What a layer gave; arrays of the batch's type, of the samples of one process. */
typedef struct result {
    int64_t first, n;
    void *y, *dx, *dgamma, *dbeta, *mean, *var;
    int64_t tracked;
} result;

enum { RUN_SPLIT = 1, RUN_NO_DX = 2, RUN_IN_PLACE = 4 };

/* Create a layer with the batch's gamma and beta, run forward and backward on the samples
 * given, destroy it. flags: RUN_. @collective over the group */
result result_run(const sbn_norm_config *cfg, sbn_group *group, const joined *b,
                  int64_t first, int64_t n, int flags);
void result_free(result *r);

/* Every bit of r equals that of the joined run on this process's samples. */
void result_equal(const joined *b, const result *r, const result *whole);

/* r lies within round-off of the reference. */
void result_near(const joined *b, const result *r, const naive *want);

/* Set a layer's gamma and beta to the batch's. */
void joined_load(const joined *b, sbn_norm *norm);

/* Ways to deal the slices of a batch to the processes. */
enum { DEAL_EVEN, DEAL_ALL_FIRST, DEAL_ALL_LAST, DEAL_ONE_THEN_REST, DEAL_DRAWN, DEALS };
void deal(int how, int64_t total, int64_t norm_batch, int rank, int size, int64_t *first,
          int64_t *n);

#endif
