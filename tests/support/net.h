/* Models, and batches for them that every process knows whole. */
#ifndef SUPPORT_NET_H
#define SUPPORT_NET_H

#include <stdint.h>

#include "nn/netfile.h"
#include "syncbn/model.h"

/* Drawn by counter, so alike on all processes. */
typedef struct net_batch {
    int64_t n, pixels;
    double *x; /* [n][pixels] exact in float32 */
    int32_t *labels;
} net_batch;

/* n samples of normal noise, each about a mean of its own, for the model's input. */
net_batch net_batch_make(const sbn_model *model, int64_t n, uint64_t seed);
void net_batch_free(net_batch *b);

/* A model of a net given as text; test fails where it can't be made. */
sbn_model *net_make(const sbn_model_config *cfg, sbn_group *group);

/* Write samples first … first+n-1 of a batch to the model's input. */
void net_fill(sbn_model *model, sbn_dtype dtype, const net_batch *b, int64_t first,
              int64_t n);

/* Gradients by the first `total` samples of a batch, this process working on its share.
 * @collective over the model's group */
sbn_status net_gradient(sbn_model *model, sbn_dtype dtype, const net_batch *b,
                        int64_t total, sbn_model_result *got);

/* The tensor of that name; the test fails where there is none. */
const sbn_model_tensor *net_tensor(const sbn_model *model, const char *name);

/* Values or gradients of a tensor as doubles. Free with free(). */
double *net_values(const sbn_model_tensor *t, sbn_dtype dtype);
double *net_grads(const sbn_model_tensor *t, sbn_dtype dtype);

/* What rounding to the grid can change in a tensor's gradient: half a unit per slice of
 * the whole batch; 0 for gamma and beta of batch norm, whose grid is far below double. */
double net_grid_error(sbn_model *model, const char *name, int64_t slices);

/*
 * Central differences in float64 of some weights of every parameter, of steps h/2 and h
 * such that the third derivative cancels (it reaches 1e5 behind norms of two samples).
 * With h = 2^-18 the loss's rounding, up to 1e-14 behind such norms, leaves 4e-9; nets of
 * many relus take a smaller one, lest a step cross the kink of a relu or pool, which no
 * draw used does. A forgotten term of the backward formula changes gradients by percents.
 */
void net_differentiate(sbn_model_config cfg, int64_t total, double h);

/* Kind, name, out, kernel, stride, pad, what else there is, and line of each layer, as
 * one text, is what is wanted. */
void net_expect_layers(const sbni_net *net, const char *want);

/* How often gradients were computed anew is seen by the exponents alone: a copy of them.
 * Free with free(). */
int64_t *net_exponents(sbn_model *model, int *n);

#endif
