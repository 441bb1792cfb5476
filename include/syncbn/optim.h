/** Optimizers of the tensors of a model, and schedules over the steps. */
#ifndef SYNCBN_OPTIM_H
#define SYNCBN_OPTIM_H

#include <stdbool.h>
#include <stdint.h>

#include "syncbn/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum sbn_schedule_kind {
    SBN_SCHEDULE_CONSTANT, /**< lr */
    SBN_SCHEDULE_STEP,     /**< lr · factor^floor(t / every) */
    SBN_SCHEDULE_COSINE    /**< lr · (1 + cos(pi·t/T)) / 2, T = steps - warmup */
} sbn_schedule_kind;

/** t counts steps after the warm-up, from 0. */
typedef struct sbn_schedule {
    sbn_schedule_kind kind;
    double lr;      /**< highest rate, ≥ 0 */
    int64_t warmup; /**< first steps, in which the rate grows linearly from lr/warmup to
                       lr; ≥ 0 (Goyal et al. 2017, arXiv 1706.02677, section 2.2) */
    int64_t steps;  /**< of the run; cosine ends there */
    int64_t every;  /**< step: steps between two reductions, ≥ 1 */
    double factor;  /**< step: of each reduction */
} sbn_schedule;

/** Rate of a step, counted from 1. Local. */
SBN_API double sbn_schedule_lr(const sbn_schedule *schedule, int64_t step);

/** How the limits of batch renormalization open: both closed (1 and 0: batch
 * normalization) up to the warm-up's last step, then each linearly in the step, reached
 * at its own step and constant after it. */
typedef struct sbn_renorm_schedule {
    double r_max;    /**< limit of r in the end, ≥ 1; default 3 */
    double d_max;    /**< limit of d in the end, ≥ 0; default 5 */
    int64_t warmup;  /**< steps of batch normalization, ≥ 0; default 5000 */
    int64_t r_steps; /**< step that reaches r_max; at the warm-up or before it: the step
                        after the warm-up; default 40000 */
    int64_t d_steps; /**< likewise for d_max; default 25000 */
} sbn_renorm_schedule;

/** The schedule of Ioffe 2017 (arXiv 1702.03275), section 4. Local. */
SBN_API sbn_renorm_schedule sbn_renorm_schedule_default(void);

/**
 * Limits of a step, counted from 1; for sbn_norm_set_limits.
 *
 *   r_max(t) = 1 + (r_max − 1)·(t − warmup)/(r_steps − warmup)
 *   d_max(t) = d_max·(t − warmup)/(d_steps − warmup)
 *
 * A function of the step alone, so a resumed run has the limits of an undisturbed one.
 * Local.
 */
SBN_API void sbn_schedule_limits(const sbn_renorm_schedule *schedule, int64_t step,
                                 double *r_max, double *d_max);

/** What an optimizer moves; arrays are borrowed. */
typedef struct sbn_optimizer_tensor {
    void *param, *grad; /**< count elements */
    int64_t count;
    bool decays; /**< weight decay applies */
} sbn_optimizer_tensor;

/** p the parameter, g its gradient, d the weight decay, t the step from 1. */
typedef enum sbn_optimizer_kind {
    /** v = momentum·v + (g + d·p);  p = p − lr·v, with Nesterov p − lr·(g + d·p +
     * momentum·v). @source Sutskever et al. 2013, in the form that frameworks use (rate
     * outside the velocity). */
    SBN_OPTIMIZER_SGD,
    /** s = g + d·p;  m = β1·m + (1 − β1)·s;  v = β2·v + (1 − β2)·s²;
     * p = p − lr/(1 − β1^t) · m / (√v/√(1 − β2^t) + eps).
     * @source Kingma & Ba 2015 (arXiv 1412.6980), Algorithm 1, with decay in the
     * gradient. */
    SBN_OPTIMIZER_ADAM,
    /** The same with s = g, and p = p·(1 − lr·d) before it.
     * @source Loshchilov & Hutter 2019 (arXiv 1711.05101), Algorithm 2. */
    SBN_OPTIMIZER_ADAMW
} sbn_optimizer_kind;

typedef struct sbn_optimizer_config {
    double momentum;     /**< SGD: 0 … 1 */
    double weight_decay; /**< ≥ 0 */
    bool nesterov;       /**< SGD */
    sbn_dtype dtype;     /**< of all arrays */
    sbn_optimizer_kind kind;
    double beta1, beta2; /**< Adam: 0 … below 1, usually 0.9 and 0.999 */
    double eps;          /**< Adam: above 0, usually 1e-8 */
} sbn_optimizer_config;

typedef struct sbn_optimizer sbn_optimizer;

/** @errors SBN_E_ARG, SBN_E_MEMORY. Local. */
SBN_API sbn_status sbn_optimizer_create(const sbn_optimizer_config *cfg,
                                        const sbn_optimizer_tensor *tensors, int n,
                                        sbn_optimizer **optimizer);

/** Free and null; NULL is fine. */
SBN_API void sbn_optimizer_destroy(sbn_optimizer **optimizer);

/** Step number `step`, from 1, of all tensors. Elementwise: the same bits wherever the
 * gradients have the same. Local. */
SBN_API void sbn_optimizer_step(sbn_optimizer *optimizer, int64_t step, double lr);

/** Arrays that it keeps for each tensor: 1 (v) or 2 (m, v). */
SBN_API int sbn_optimizer_states(const sbn_optimizer *optimizer);

/** Name of array k, as frameworks have it: velocity; exp_avg, exp_avg_sq. */
SBN_API const char *sbn_optimizer_state_name(const sbn_optimizer *optimizer, int k);

/** Array k of tensor i, count elements, starts at 0; for checkpoints. */
SBN_API void *sbn_optimizer_state(sbn_optimizer *optimizer, int i, int k);

#ifdef __cplusplus
}
#endif
#endif
