/**
 * Batch normalization whose statistics are those of every sample in a group of processes.
 *
 *   y = gamma·(x − mean)/sqrt(var + eps) + beta      mean, var per channel over a norm
 * batch
 *
 * var is the biased variance; running_var takes the unbiased one, n/(n−1)·var.
 * Sums are exact across slices of SBN_SLICE samples (integers on a fixed binary grid), so
 * results do not depend on how many processes share the batch, as long as each process
 * owns whole slices.
 * @source Ioffe & Szegedy 2015 (arXiv 1502.03167), Algorithm 1 and §3; src/norm/MATH.md
 * has the equations.
 */
#ifndef SYNCBN_NORM_H
#define SYNCBN_NORM_H

#include <stdbool.h>
#include <stdint.h>

#include "syncbn/group.h"
#include "syncbn/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Samples in a slice: the unit that is never split between processes or threads. */
#define SBN_SLICE 16

/** As momentum: running statistics are the plain average over all batches so far. */
#define SBN_MOMENTUM_CUMULATIVE (-1.0)

/** As norm_batch: all samples of the group share one set of statistics. */
#define SBN_NORM_BATCH_ALL 0

/** What is done to the statistics of a norm batch before they are used. */
typedef enum sbn_correction {
    SBN_CORRECTION_NONE,  /**< nothing: batch normalization */
    SBN_CORRECTION_RENORM /**< batch renormalization (Ioffe 2017, arXiv 1702.03275) */
} sbn_correction;

typedef struct sbn_norm sbn_norm;

typedef struct sbn_norm_config {
    int64_t channels; /**< c ≥ 1 */
    sbn_dtype dtype;  /**< element type of x, y and of the state; default SBN_F32 */
    double eps;       /**< > 0, added to var inside the root; default 1e-5 */
    double momentum;  /**< weight of the new value in running statistics, 0…1, or
                         SBN_MOMENTUM_CUMULATIVE;  default 0.1 */
    bool affine;      /**< apply gamma and beta (else 1 and 0); default true */
    bool track_running_stats; /**< keep running statistics; else eval uses the batch's;
                                 default true */
    int64_t norm_batch; /**< samples that share statistics, ≥ 1, or SBN_NORM_BATCH_ALL
                           (default) */
    int64_t
        batch; /**< with norm_batch set: most samples of the group in one call; fixes the
                    size of the message, (batch / norm_batch) sets of sums; default 0 */
    sbn_correction correction; /**< default SBN_CORRECTION_NONE; renorm needs tracked
                                    running statistics */
    double r_max, d_max; /**< renorm: limits at the start, r_max ≥ 1 and d_max ≥ 0;
                            defaults 1 and 0, which is batch normalization */
    const char *name;    /**< used in errors, copied; default "norm" */
} sbn_norm_config;

typedef enum sbn_norm_mode {
    SBN_NORM_TRAIN, /**< batch statistics, running statistics updated */
    SBN_NORM_EVAL   /**< running statistics, no communication (batch statistics when they
                       are not tracked) */
} sbn_norm_mode;

/** The state under its usual names. Arrays of c elements of the layer's dtype, owned by
 * the layer. */
typedef struct sbn_norm_state {
    void *weight, *bias; /**< gamma, beta; NULL when not affine; start at 1 and 0 */
    void *weight_grad, *bias_grad; /**< dgamma, dbeta of the whole group, set by backward;
                                      NULL likewise */
    void *running_mean, *running_var; /**< NULL when not tracked; start at 0 and 1 */
    int64_t *num_batches_tracked; /**< training forwards so far; NULL when not tracked */
} sbn_norm_state;

/** Defaults as above for c channels. */
SBN_API sbn_norm_config sbn_norm_config_default(int64_t channels);

/**
 * Create a layer. Settings are compared across the group here, so that messages always
 * match.
 * @param cfg    copied.
 * @param group  must outlive the layer.
 * @collective over the group: 20 bytes; 524 in their place where a process fails.
 * @errors SBN_E_ARG (a setting out of range), SBN_E_MISMATCH (settings differ between
 * processes), SBN_E_MEMORY, SBN_E_PEER, SBN_E_MPI
 */
SBN_API sbn_status sbn_norm_create(const sbn_norm_config *cfg, sbn_group *group,
                                   sbn_norm **norm);

/** Free the layer and null the pointer; NULL is fine. Local. */
SBN_API void sbn_norm_destroy(sbn_norm **norm);

/** Pointers to the state, for optimizers and checkpoints. Valid until destroy. */
SBN_API sbn_norm_state sbn_norm_get_state(sbn_norm *norm);

/** Choose training or evaluation. Local, but every process must choose the same. New
 * layers train. */
SBN_API void sbn_norm_set_mode(sbn_norm *norm, sbn_norm_mode mode);

/**
 * Move the limits of batch renormalization, as its schedules do between steps.
 *
 *   y = gamma·(xhat·r + d) + beta,   r = clip(s_b/s, 1/r_max, r_max),
 *   d = clip((mean_b − mean)/s, −d_max, d_max)
 *
 * s_b, mean_b of the norm batch; s = sqrt(running_var + eps) and mean = running_mean as
 * they were before this step's update. r and d count as constants in backward.
 * @param r_max  ≥ 1, INFINITY for none. @param d_max  ≥ 0, INFINITY for none. Local, but
 * all processes must use the same.
 * @errors SBN_E_ARG (out of range, or a layer without renorm)
 * @source Ioffe 2017, Algorithm 1
 */
SBN_API sbn_status sbn_norm_set_limits(sbn_norm *norm, double r_max, double d_max);

/** What the limits did in the last training forward. */
typedef struct sbn_norm_clipped {
    double r_max, d_max; /**< the limits in force */
    double r,
        d; /**< fractions of (norm batch, channel) whose r and d met a limit, 0 … 1 */
} sbn_norm_clipped;

/** Local. All zero fractions before the first forward and without renorm. */
SBN_API sbn_norm_clipped sbn_norm_get_clipped(const sbn_norm *norm);

/**
 * Say where this process's samples lie in the group's batch; needed only when norm_batch
 * is set.
 * @param first  global index of this process's first sample, 0 … batch. Where it begins a
 * slice, counted from the start of its norm batch, results do not depend on the split;
 * elsewhere they are right, but their last bits do. Stays until changed. Local.
 * @errors SBN_E_ARG
 */
SBN_API sbn_status sbn_norm_set_place(sbn_norm *norm, int64_t first);

/**
 * Normalize. In training mode the layer remembers x and its statistics for backward.
 * @param x  (n,c) or (n,c,h,w); n may differ between processes and be 0. Must stay
 * unchanged until backward has run.
 * @param y  same shape and type; may be x only in evaluation.
 * @collective in training: one MPI_Allreduce of 8·(4 + g·(2 + 10·c)) bytes with g norm
 * batches (1 when all share). In evaluation with tracked statistics: none, one process
 * alone may call. A failure that a process reports costs one agreement more.
 * @errors SBN_E_ARG (shape, type or null), SBN_E_FEW (a norm batch with one value per
 * channel), SBN_E_NONFINITE, SBN_E_RANGE (a slice with |Σx| of 2^60 or Σx² of
 * 2^110 and more: |x| of about 1e13), SBN_E_STATE (a
 * begin is outstanding), SBN_E_MISMATCH (another layer or phase on another process),
 * SBN_E_PEER. No state changes. SBN_E_STATE is local: no message can go, and the
 * others are not told. With no samples in the whole group nothing changes and
 * SBN_OK is returned.
 * @reproducible for whole slices per process: same bits for every number of processes and
 * threads.
 */
SBN_API sbn_status sbn_norm_forward(sbn_norm *norm, const sbn_tensor *x, sbn_tensor *y);

/** First half of sbn_norm_forward: local sums, message sent. x and y must stay in place
 * until _end. */
SBN_API sbn_status sbn_norm_forward_begin(sbn_norm *norm, const sbn_tensor *x,
                                          sbn_tensor *y);

/** Second half: message received, y written. One begin may be outstanding per layer. */
SBN_API sbn_status sbn_norm_forward_end(sbn_norm *norm);

/**
 * Gradient of the last training forward.
 *
 *   dbeta = Σ dy,  dgamma = Σ dy·xhat   over the group
 *   dx = gamma·rstd·(dy − Σdy/n − xhat·Σ(dy·xhat)/n)   over the norm batch
 *
 * @param dy  gradient by y, shape of x. @param dx  gradient by x, may be dy; NULL when
 * not wanted (on any processes; the message is sent all the same).
 * @collective one MPI_Allreduce of 8·(4 + g·(2 + 8·c)) bytes.
 * @errors as forward; SBN_E_STATE, local, when no training forward came before.
 * @reproducible as forward.
 */
SBN_API sbn_status sbn_norm_backward(sbn_norm *norm, const sbn_tensor *dy,
                                     sbn_tensor *dx);

/** First half of sbn_norm_backward. dy and dx must stay in place until _end. */
SBN_API sbn_status sbn_norm_backward_begin(sbn_norm *norm, const sbn_tensor *dy,
                                           sbn_tensor *dx);

/** Second half: dx, dgamma, dbeta written. */
SBN_API sbn_status sbn_norm_backward_end(sbn_norm *norm);

#ifdef __cplusplus
}
#endif
#endif
