/** Stochastic gradient descent over the tensors of a model, and schedules over the steps.
 */
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

/** What the optimizer moves; arrays are borrowed. */
typedef struct sbn_sgd_tensor {
    void *param, *grad; /**< count elements */
    int64_t count;
    bool decays; /**< weight decay applies */
} sbn_sgd_tensor;

/**
 * v = momentum·v + (g + decay·p);  p = p − lr·v, with Nesterov p − lr·(g + decay·p +
 * momentum·v).
 * @source Sutskever et al. 2013, in the form that frameworks use (rate outside the
 * velocity).
 */
typedef struct sbn_sgd_config {
    double momentum;     /**< 0 … 1 */
    double weight_decay; /**< ≥ 0 */
    bool nesterov;
    sbn_dtype dtype; /**< of all arrays */
} sbn_sgd_config;

typedef struct sbn_sgd sbn_sgd;

/** @errors SBN_E_ARG, SBN_E_MEMORY. Local. */
SBN_API sbn_status sbn_sgd_create(const sbn_sgd_config *cfg,
                                  const sbn_sgd_tensor *tensors, int n, sbn_sgd **sgd);

/** Free and null; NULL is fine. */
SBN_API void sbn_sgd_destroy(sbn_sgd **sgd);

/** One step of all tensors. Elementwise: the same bits wherever the gradients have the
 * same. Local. */
SBN_API void sbn_sgd_step(sbn_sgd *sgd, double lr);

/** Velocity of tensor i, count elements, starts at 0; for checkpoints. */
SBN_API void *sbn_sgd_velocity(sbn_sgd *sgd, int i);

#ifdef __cplusplus
}
#endif
#endif
