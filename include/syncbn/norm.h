/**
 * Batch normalization whose statistics are those of every sample in a group of processes.
 *
 *   y = gamma·(x − mean)/sqrt(var + eps) + beta,  mean, var per channel over a norm batch
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

/** What running statistics follow when a batch is cut into several norm batches. */
typedef enum sbn_running {
    /** the whole batch: its mean and unbiased variance, so the variance between norm
     * batches is kept */
    SBN_RUNNING_WHOLE_BATCH,
    /** what the norm batches saw: the mean of their means and unbiased variances, each
     * weighted by its values */
    SBN_RUNNING_MEAN_OF_NORM_BATCHES
} sbn_running;

typedef struct sbn_norm sbn_norm;

/** Settings of a layer; the same on all processes of the group. */
typedef struct sbn_norm_config {
    int64_t channels; /**< c ≥ 1 */
    sbn_dtype dtype;  /**< element type of x, y and of the state, which is float32 for
                           bfloat16 elements; default SBN_F32 */
    double eps;       /**< > 0, added to var inside the root; default 1e-5 */
    double momentum;  /**< weight of the new value in running statistics, 0…1, or
                         SBN_MOMENTUM_CUMULATIVE;  default 0.1 */
    bool affine;      /**< apply gamma and beta (else 1 and 0); default true */
    bool affine_grad; /**< backward writes dgamma and dbeta; default true */
    bool track_running_stats; /**< keep running statistics; else eval uses the batch's;
                                 default true */
    sbn_running running;      /**< default SBN_RUNNING_WHOLE_BATCH */
    int64_t norm_batch; /**< samples that share statistics, ≥ 1, or SBN_NORM_BATCH_ALL
                           (default) */
    int64_t
        batch; /**< with norm_batch set: most samples of the group in one call; fixes the
                    size of the message, (batch / norm_batch) sets of sums; default 0 */
    sbn_correction correction; /**< default SBN_CORRECTION_NONE; renorm needs tracked
                                    running statistics */
    double r_max, d_max; /**< renorm: limits at the start, r_max ≥ 1 and d_max ≥ 0;
                            defaults 1 and 0, which is batch normalization */
    bool relu;           /**< y = max(0, …) in the same pass; default false */
    bool second_order;   /**< make room for sbn_norm_second_backward; default false */
    const char *name;    /**< used in errors, copied; default "norm" */
} sbn_norm_config;

typedef enum sbn_norm_mode {
    SBN_NORM_TRAIN,      /**< batch statistics, running statistics updated */
    SBN_NORM_EVAL,       /**< running statistics, no communication, no backward (batch
                            statistics when they are not tracked) */
    SBN_NORM_EVAL_BATCH, /**< batch statistics at evaluation: as train, but without
                            renorm, nothing is updated, and there is no backward after it,
                            nor of the forward before it */
    SBN_NORM_FROZEN /**< running statistics as constants, with backward, no communication:
                       dgamma and dbeta are sums over this process's samples */
} sbn_norm_mode;

/** The state under its usual names. Arrays of c elements, of the layer's dtype (float32
 * for SBN_BF16), owned by the layer. */
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
 * @collective over the group: 20 bytes; 524 in their place where a process fails, and a
 * gather of 8 more where settings differ. Its messages are connected (syncbn/group.h).
 * @errors SBN_E_ARG (a setting out of range), SBN_E_MISMATCH (settings differ between
 * processes), SBN_E_MEMORY, SBN_E_PEER, SBN_E_MPI
 */
SBN_API sbn_status sbn_norm_create(const sbn_norm_config *cfg, sbn_group *group,
                                   sbn_norm **norm);

/** Free the layer and null the pointer; NULL is fine. Local. */
SBN_API void sbn_norm_destroy(sbn_norm **norm);

/** Pointers to the state, for optimizers and checkpoints: the layer's own memory, which
 * forward and backward read and write. Valid until destroy. */
SBN_API sbn_norm_state sbn_norm_get_state(sbn_norm *norm);

/**
 * Choose what the next calls do. Local, but every process must choose the same, unless no
 * message is meant: one process alone may evaluate. A call under way keeps its mode. New
 * layers train.
 * @errors SBN_E_ARG (frozen without running statistics)
 */
SBN_API sbn_status sbn_norm_set_mode(sbn_norm *norm, sbn_norm_mode mode);

/**
 * Leave out samples, such as padding: the result is to the bit that of removing them.
 * Sums and counts go over the samples kept; y and dx of the others are set to 0, and
 * their dy is not read. Holds for the forwards that follow and their backwards, and for
 * what is added to precise statistics, until changed.
 * @param keep  [n] 0 or 1, for the samples of this process; copied. NULL keeps all, and
 * then n is not read.
 * @param n     samples of each call that follows.
 * Places of sbn_norm_set_place and slices count the samples kept. Local.
 * @errors SBN_E_ARG (another value than 0 or 1), SBN_E_MEMORY
 */
SBN_API sbn_status sbn_norm_set_mask(sbn_norm *norm, const uint8_t *keep, int64_t n);

/**
 * Move the limits of batch renormalization, as its schedules do between steps.
 *
 *   y = gamma·(xhat·r + d) + beta,   r = clip(s_b/s, 1/r_max, r_max),
 *   d = clip((mean_b − mean)/s, −d_max, d_max)
 *
 * s_b, mean_b of the norm batch; s = sqrt(running_var + eps) and mean = running_mean as
 * they were before this step's update. r and d count as constants in backward.
 * @param r_max  ≥ 1, INFINITY for none. @param d_max  ≥ 0, INFINITY for none. Local, but
 * all processes must use the same; limits or running statistics that differ are
 * SBN_E_MISMATCH in forward.
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

/** Local. All zero fractions before the first forward and without renorm. At r_max = 1,
 * d_max = 0 nearly everything meets a limit. */
SBN_API sbn_norm_clipped sbn_norm_get_clipped(const sbn_norm *norm);

/**
 * Say where this process's samples lie in the group's batch; needed only when norm_batch
 * is set.
 * @param first  global index of this process's first sample, 0 … batch. Where it begins a
 * slice, counted from the start of its norm batch, results do not depend on the split;
 * elsewhere they are right, but their last bits do. Stays until changed. Local. Places
 * that overlap so that a norm batch gets more than norm_batch samples are SBN_E_MISMATCH
 * in forward.
 * @errors SBN_E_ARG
 */
SBN_API sbn_status sbn_norm_set_place(sbn_norm *norm, int64_t first);

/**
 * Which samples of a batch of `total` this process may best own: [*first, *first + *n),
 * whole slices, about as many as the others, perhaps none. first is what set_place takes.
 * Local; the same question has the same answer on every process.
 * @errors SBN_E_ARG (null; total below 0, or above cfg.batch with norm_batch set)
 */
SBN_API sbn_status sbn_norm_share(const sbn_norm *norm, int64_t total, int64_t *first,
                                  int64_t *n);

/**
 * Normalize. In training mode the layer remembers x and its statistics for backward.
 * @param x  n samples, c channels, any pixels, with the strides that sbn_tensor allows; n
 * may differ between processes and be 0. Must stay unchanged until backward has run.
 * @param y  same shape and type, same axis of neighbours. Apart from x, or exactly in its
 * place where no backward needs x any more: in both evaluation modes, and frozen without
 * relu when gradients of gamma and beta are not wanted.
 * On an error y is undefined where it lies apart from x and z; else they are unchanged.
 * @collective in training: one sum of 8·(4 + g·(2 + 10·c)) bytes with g norm
 * batches (1 when all share). In evaluation
 * with tracked statistics, and frozen: none, one process alone may call. A failure that a
 * process reports costs one agreement more. Sums are exact down to 2^-100 and, of
 * squares, 2^-130: deviations from about 1e-13 have a variance with a relative error
 * below 1e-12, smaller ones have it within about 1e-38. All processes call this form, or
 * all begin and end: MPI matches no blocking sum with a non-blocking one. weight may
 * change as soon as the call is done; backward goes on with the one that forward used. In
 * training the layer keeps room for 24·c + 8 bytes a slice.
 * @errors SBN_E_ARG (shape, type, null, memory shared where it may not be), SBN_E_FEW (a
 * norm batch with one value per channel), SBN_E_NONFINITE, SBN_E_RANGE (a slice with |Σx|
 * of 2^60 or Σx² of 2^110 and more: |x| of about 1e13; or more than 2^20 slices in a
 * batch, 2^24 samples where they are whole), SBN_E_STATE (a
 * begin is outstanding), SBN_E_MISMATCH (another process is in another layer, phase or
 * call whose message is as long as this one; where lengths differ the processes wait for
 * each other, as in any collectives out of order), SBN_E_PEER. No state changes.
 * SBN_E_STATE is local: no message can go, and the others are not told. With no samples
 * in the whole group nothing changes and SBN_OK is returned.
 * @reproducible for whole slices per process: same bits for every number of processes and
 * threads. Neighbouring pixels and neighbouring channels are summed in different orders,
 * so NCHW and NHWC agree within rounding.
 */
SBN_API sbn_status sbn_norm_forward(sbn_norm *norm, const sbn_tensor *x, sbn_tensor *y);

/**
 * Whether the lower end of the exact sums was met in the last forward that sent a
 * message, or in the last backward of each order after it: on some process a slice had a
 * sum of dy or dy·xhat that is not 0 but below 2^-60 (1e-18), or of squares, from 0 or
 * from near its mean, below 2^-90 (1e-27). Such sums are right to 2^-100 and 2^-130 only.
 * No error, since small gradients are legitimate; it came with the message, so all
 * processes are told the same. Local.
 */
SBN_API bool sbn_norm_is_rounded(const sbn_norm *norm);

/** First half of sbn_norm_forward: local sums, message sent. The data of x and y must
 * stay in place until _end; the sbn_tensors are copied. Other layers of the group may
 * begin and end in between, and other calls send their messages, as long as all processes
 * begin everything in the same order. */
SBN_API sbn_status sbn_norm_forward_begin(sbn_norm *norm, const sbn_tensor *x,
                                          sbn_tensor *y);

/** Second half of either forward: message received, y written. One begin may be
 * outstanding per layer. */
SBN_API sbn_status sbn_norm_forward_end(sbn_norm *norm);

/**
 * Normalize and add in one pass, as residual nets do: y = norm(x) + z, or max(0, …) of it
 * with cfg.relu.
 * @param z  shape and type of x. With relu it must stay unchanged until backward has run,
 * which finds the signs anew; else y may be z.
 * Everything else as sbn_norm_forward.
 */
SBN_API sbn_status sbn_norm_forward_add(sbn_norm *norm, const sbn_tensor *x,
                                        const sbn_tensor *z, sbn_tensor *y);

/** First half of sbn_norm_forward_add. */
SBN_API sbn_status sbn_norm_forward_add_begin(sbn_norm *norm, const sbn_tensor *x,
                                              const sbn_tensor *z, sbn_tensor *y);

/**
 * Gradient of the last training or frozen forward.
 *
 *   dbeta = Σ dy,  dgamma = Σ dy·xhat   over the group
 *   dx = gamma·rstd·(dy − Σdy/n − xhat·Σ(dy·xhat)/n)   over the norm batch
 *
 * With relu, dy counts where y is above 0. Frozen: dx = gamma·rstd·dy, sums over this
 * process's samples only.
 * @param dy  gradient by y, shape of x. @param dx  gradient by x: exactly in the place of
 * dy, or apart from it and from x; NULL when not wanted (on any processes; the message is
 * sent all the same).
 * Sums are exact down to 2^-100: where a slice's |dy| add up to less than about 1e-18,
 * they are right to that only. Backward may run again, with another dy.
 * @collective one sum of 8·(4 + g·(2 + 8·c)) bytes; none when frozen.
 * @errors as forward, SBN_E_RANGE from a slice with |Σdy| or |Σdy·xhat| of 2^60 (1e18);
 * SBN_E_STATE, local, when no training forward came before.
 * @reproducible as forward.
 */
SBN_API sbn_status sbn_norm_backward(sbn_norm *norm, const sbn_tensor *dy,
                                     sbn_tensor *dx);

/** First half of sbn_norm_backward. The data of dy and dx must stay in place until _end.
 */
SBN_API sbn_status sbn_norm_backward_begin(sbn_norm *norm, const sbn_tensor *dy,
                                           sbn_tensor *dx);

/** Second half of either backward: dx, dgamma, dbeta written. */
SBN_API sbn_status sbn_norm_backward_end(sbn_norm *norm);

/**
 * Gradient of the last sbn_norm_forward_add.
 * @param dz  gradient by z: dy, where y is above 0 with relu. One of dx and dz may be dy;
 * either may be NULL; both are apart from x, and from z with relu. Everything else as
 * sbn_norm_backward.
 */
SBN_API sbn_status sbn_norm_backward_add(sbn_norm *norm, const sbn_tensor *dy,
                                         sbn_tensor *dx, sbn_tensor *dz);

/** First half of sbn_norm_backward_add. */
SBN_API sbn_status sbn_norm_backward_add_begin(sbn_norm *norm, const sbn_tensor *dy,
                                               sbn_tensor *dx, sbn_tensor *dz);

/**
 * Backward of backward: gradients of L = Σ v·dx + Σ v_gamma·dgamma + Σ v_beta·dbeta, with
 * dx, dgamma, dbeta those of the last backward, summed over the group. A gradient penalty
 * needs it.
 * @param v  what L weights dx with, shape of x. @param v_gamma, v_beta  [c] of the
 * state's type, the same on all processes; NULL: 0.
 * @param ddy  gradient of L by dy; @param gx  by x; shape of x, NULL when not wanted.
 * @param ggamma  [c] of the state's type: gradient of L by gamma, over the group; NULL
 * likewise.
 * dy of the last backward must still be unchanged, so dx must not have been in its place.
 * @collective one sum of 8·(4 + g·(2 + 12·c)) bytes.
 * @errors as backward; SBN_E_ARG for a layer without cfg.second_order or with relu;
 * SBN_E_STATE, local, when no training backward came before.
 * @source differentiating Ioffe & Szegedy 2015 §3 once more; src/norm/MATH.md (12)
 */
SBN_API sbn_status sbn_norm_second_backward(sbn_norm *norm, const sbn_tensor *v,
                                            const void *v_gamma, const void *v_beta,
                                            sbn_tensor *ddy, sbn_tensor *gx,
                                            void *ggamma);

/**
 * Precise statistics: the exact mean and variance of any number of batches, in place of
 * the running averages. Begin, then add every batch, then end; a net's layers one after
 * the other, each with inputs that the precise statistics of the layers before it gave.
 * Independent of how the data is cut into batches of whole slices and dealt to processes.
 * Forward and backward may run in between. A second begin drops what was added.
 * @collective 4 bytes; the first time its message is connected.
 * @errors SBN_E_ARG (not tracked; local), SBN_E_MEMORY, SBN_E_PEER
 * @source Wu & Johnson 2021 (arXiv 2105.07576) §3
 */
SBN_API sbn_status sbn_norm_precise_begin(sbn_norm *norm);

/** Add this process's samples, as many as it likes. Local; a failure is returned here,
 * and then by _end on all processes. Values that are not finite or too large only there.
 */
SBN_API sbn_status sbn_norm_precise_add(sbn_norm *norm, const sbn_tensor *x);

/**
 * Set running_mean and running_var to the mean and the (biased) variance of everything
 * added on all processes; num_batches_tracked stays. Nothing added: nothing changes.
 * @collective one sum of 8·(4 + 2 + 10·c) bytes.
 * @errors SBN_E_STATE (no begin; local), SBN_E_FEW, SBN_E_NONFINITE, SBN_E_RANGE (also
 * more than 2^20 slices), SBN_E_PEER
 */
SBN_API sbn_status sbn_norm_precise_end(sbn_norm *norm);

/**
 * Make one set of running statistics of those that processes gathered apart, each alone
 * or in groups. Every process counts alike:
 *
 *   running_mean = Σ mean_p / P,   running_var = Σ (var_p + mean_p²) / P − running_mean²
 *
 * so that the variance between the processes' means is kept. Layers whose statistics have
 * the same bytes everywhere keep them. Nothing else of the layer changes.
 * @param norm  this process's layer, of whatever group; tracks running statistics.
 * @param all   the processes to merge, in one group.
 * @collective over all: 64 bytes, and where statistics differ 4 more and one
 * sum of 8·(4 + 10·c) bytes; 524 more on failure.
 * @errors on all processes: SBN_E_ARG (null, untracked), SBN_E_STATE (a begin is
 * outstanding), SBN_E_NONFINITE (statistics that are not finite, or a variance below 0),
 * SBN_E_MISMATCH (channels, element type or num_batches_tracked differ), SBN_E_RANGE,
 * SBN_E_MEMORY; SBN_E_PEER where only other processes failed. No state changes. A NULL
 * group is a local error.
 * @reproducible the same bytes on all processes, whatever their order.
 * @source law of total variance; src/norm/MATH.md (13)
 */
SBN_API sbn_status sbn_norm_merge(sbn_norm *norm, sbn_group *all);

/** Which value the momentum of running statistics weighs. */
typedef enum sbn_momentum_convention {
    SBN_MOMENTUM_OF_NEW, /**< the new one, typically 0.1: this library, PyTorch, Apex,
                            Horovod for PyTorch, InPlace-ABN, DistDL */
    SBN_MOMENTUM_OF_OLD  /**< the old one, typically 0.9 or 0.99: Keras and TensorFlow,
                            Flax, LBANN and ChainerMN (decay), Caffe, PaddlePaddle,
                            MXNet, MegEngine */
} sbn_momentum_convention;

/**
 * The momentum for sbn_norm_config of another system's: value, or 1 − value. Files of
 * weights do not say which convention they were made with, so it has to be named. Local.
 * @param value  0 … 1; for anything else the result is NaN, which sbn_norm_create
 * refuses.
 * @return of the old convention to 15 decimals, so that 0.9 gives the bits of 0.1.
 */
SBN_API double sbn_momentum_from(double value, sbn_momentum_convention convention);

#ifdef __cplusplus
}
#endif
#endif
