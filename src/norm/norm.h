/* The layer's innards, shared by its forward and backward. */
#ifndef SBNI_NORM_H
#define SBNI_NORM_H

#include "comm/exact.h"
#include "comm/reduce.h"
#include "core/tensor.h"
#include "kernels/kernels.h"
#include "norm/scope.h"
#include "syncbn/norm.h"

/* Where a layer is between calls. */
typedef enum sbni_norm_phase {
    SBNI_NORM_IDLE,
    SBNI_NORM_FORWARD, /* forward begun, not ended */
    SBNI_NORM_READY,   /* a training forward is remembered for backward */
    SBNI_NORM_BACKWARD /* backward begun, not ended */
} sbni_norm_phase;

/* Payload of a norm batch in a message: n values per channel, slices, then words of the
 * channels. */
enum { SBNI_SECTION_N, SBNI_SECTION_SLICES, SBNI_SECTION_WORDS };
enum { SBNI_BACKWARD_WORDS = 2 * SBNI_SUM_WORDS };

/* xhat becomes xhat·r + d; 1 and 0 leave it alone. */
typedef struct sbni_correction {
    double r, d;
} sbni_correction;

struct sbn_norm {
    sbn_norm_config cfg;
    char *name;
    sbn_group *group;
    const sbni_kernels *kernels;
    sbn_norm_mode mode;
    sbn_norm_state state;
    int64_t batches_tracked;
    bool borrowed; /* gamma, beta and gradients belong to somebody else */
    uint32_t id,
        calls; /* which layer of the group, and its calls so far: the message's tag */

    int64_t first;   /* place of this process's samples in the batch */
    int64_t batches; /* norm batches that a message has room for */
    sbni_reduce forward, backward;

    /* of the call under way, and of the forward that backward belongs to */
    sbni_norm_phase phase;
    bool training;   /* the forward under way updates running statistics */
    bool eval_begun; /* an evaluation waits for its end; it leaves phase alone */
    sbn_tensor x, y, dy, dx;
    sbn_status local; /* this process's own failure, reported in the message */
    sbni_slice *slices;
    int64_t slice_count, slice_room;
    double *sums; /* [3][slice_count][c] */
    int64_t sums_room;

    double *rstd_d;               /* [batches + 1][c] of the norm batches */
    sbni_correction *corrections; /* [batches + 1][c] */
    bool corrects;                /* some correction of the last forward is not 1 and 0 */
    int64_t clipped_r, clipped_d, corrected;
    double *weight_grad_d; /* [c] dgamma where corrections differ between norm batches */
    void *mean_hi, *mean_lo, *scale; /* [batches + 1][c] of T: factors of the elements;
                                        the last set is evaluation's, so that it leaves
                                        those of backward alone */
    void *shift;                     /* [batches + 1][c] of T: beta + gamma·d */
    void *dx_a, *dx_b, *dx_k;        /* [batches][c] of T */
    int64_t *counts;                 /* [batches] values per channel */
};

/* Section of norm batch g in a message whose channels hold `words` words each. */
static inline int64_t sbni_norm_section(const sbn_norm *norm, int64_t g, int words)
{
    return SBNI_HEAD_WORDS + g * (SBNI_SECTION_WORDS + words * norm->cfg.channels);
}

/* Element i of an array of the layer's type. */
static inline double sbni_norm_get(const sbn_norm *norm, const void *array, int64_t i)
{
    return norm->cfg.dtype == SBN_F64 ? ((const double *)array)[i]
                                      : (double)((const float *)array)[i];
}

static inline void sbni_norm_set(const sbn_norm *norm, void *array, int64_t i, double v)
{
    if (norm->cfg.dtype == SBN_F64)
        ((double *)array)[i] = v;
    else
        ((float *)array)[i] = (float)v;
}

/* Factors of norm batch g. */
static inline sbni_channels sbni_norm_channels(const sbn_norm *norm, int64_t g)
{
    int64_t at = g * norm->cfg.channels * sbn_dtype_bytes(norm->cfg.dtype);
    return (sbni_channels){
        (const char *)norm->mean_hi + at, (const char *)norm->mean_lo + at,
        (const char *)norm->scale + at, (const char *)norm->shift + at};
}

/* Address of sample `row` of a tensor. */
static inline void *sbni_norm_row(const sbn_tensor *t, int64_t row)
{
    return (char *)t->data + row * t->c * sbni_tensor_s(t) * sbn_dtype_bytes(t->dtype);
}

/* Let gamma, beta and their gradients live in memory of the owner, in place of the
 * layer's own. */
void sbni_norm_bind(sbn_norm *norm, void *weight, void *weight_grad, void *bias,
                    void *bias_grad);

/* Write the factors of norm batch g, channel i, from its statistics and correction. */
void sbni_norm_set_factors(sbn_norm *norm, int64_t g, int64_t i, sbni_moments m,
                           sbni_correction correction);

/* The correction of a channel with these statistics, from the running averages as they
 * are now; counts what is clipped. 1 and 0 for layers without one. */
sbni_correction sbni_norm_correct(sbn_norm *norm, int64_t i, sbni_moments m);

/* Tag of the next message: equal on all processes that are in the same call of the same
 * layer. */
uint32_t sbni_norm_tag(const sbn_norm *norm, sbni_norm_phase phase);

/* y of all samples, each with the factors of its norm batch, or all with evaluation's. */
void sbni_norm_apply(const sbn_norm *norm, const sbn_tensor *x, sbn_tensor *y,
                     bool evaluation);

#endif
