/** A whole training run: data, model, optimizer, metrics, checkpoints. */
#ifndef SYNCBN_TRAINER_H
#define SYNCBN_TRAINER_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "syncbn/data.h"
#include "syncbn/group.h"
#include "syncbn/model.h"
#include "syncbn/optim.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum sbn_progress_style {
    SBN_PROGRESS_AUTO,  /**< TTY when stderr is a terminal or SYNCBN_TTY=1 is set, else
                           lines */
    SBN_PROGRESS_TTY,   /**< one line, redrawn */
    SBN_PROGRESS_LINES, /**< a line every few seconds */
    SBN_PROGRESS_NONE
} sbn_progress_style;

/** As precise: all samples. */
#define SBN_PRECISE_ALL (-1)

/** Settings of a run. All but `out`, `resume`, `limit_test`, `shift`, `checkpoint_every`,
 * `check_every`, `eval_every`, `log_every`, `eval_train`, `precise`, `track`,
 * `track_every`, `stat_noise`, `noise_scale`, `max_skips`, `progress`, `overlap`,
 * `max_time_s`, `warn` and `stop` decide the weights; `steps`, `epochs` and `target` by
 * how long it is. */
typedef struct sbn_trainer_config {
    const char *net;  /**< as in sbn_model_config */
    const char *data; /**< as in sbn_dataset_probe */
    const char *out;  /**< folder of the results, made when missing; NULL: none */
    int64_t batch;    /**< samples per step over all processes, 1 … training samples */
    int64_t norm_batch;         /**< 1 … batch, or SBN_NORM_BATCH_ALL */
    sbn_model_norm norm;        /**< what the net's norm lines become */
    int64_t norm_groups;        /**< group norm: groups of every norm line */
    sbn_renorm_schedule renorm; /**< batch renormalization: its limits over the steps */
    double norm_eps, norm_momentum;
    sbn_running norm_running; /**< what running statistics follow under norm batches */
    int64_t epochs;           /**< ≥ 1 when steps is 0 */
    int64_t steps;            /**< ≥ 1: stop there whatever the epochs; 0: by epochs */
    sbn_schedule schedule;    /**< its steps are filled in */
    sbn_optimizer_kind optimizer; /**< default SBN_OPTIMIZER_SGD */
    double momentum, weight_decay;
    bool nesterov;
    double adam_beta1, adam_beta2, adam_eps; /**< defaults 0.9, 0.999, 1e-8 */
    double label_smoothing, init_scale, init_sigma,
        dropout;    /**< as in sbn_model_config */
    bool decay_all; /**< weight decay also on gamma, beta and biases */
    uint64_t seed;
    int64_t limit_train, limit_test; /**< use the first samples only; 0: all */
    bool drop_last;                  /**< leave out an epoch's last short batch */
    int64_t classes; /**< every norm batch (the batch, where norm_batch is all) is drawn
                        from so many classes, equally many samples of each, as
                        sbn_sampler_create_classes says; 0: from all, at random */
    int64_t augment_shift; /**< as in sbn_dataset_set_augment: of training samples */
    bool augment_flip;
    const char *shift; /**< as in sbn_dataset_set_shift: of the test half; NULL: none */
    bool resume; /**< go on from out/checkpoint.safetensors when there is one, from the
                    one before it where that is damaged */
    int64_t checkpoint_every; /**< steps; 0: at the end of each epoch */
    int64_t check_every; /**< steps between comparisons of what the processes hold, beside
                              the one before each checkpoint; 0: those alone */
    int64_t eval_every; /**< steps between evaluations; 0: at the end of each epoch; there
                           is always one behind the last step */
    int64_t log_every;  /**< ≥ 1: steps between records of a step; the last step always
                           has one; default 1 */
    int64_t eval_train; /**< evaluations cover the first so many training samples too; 0:
                           none */
    int64_t precise;    /**< the run ends with an evaluation by precise statistics of the
                           first so many training samples, SBN_PRECISE_ALL: all of them;
                           those of the model stay what they are; a net without running
                           statistics is evaluated as it is; 0: none */
    double target;      /**< 0 … 1: the run ends behind the first evaluation whose test
                           accuracy is at least this; a resumed run looks from its
                           checkpoint on, and may have another; 0: none */
    const char *track;  /**< "LAYER" or "LAYER:UNIT": record, over the samples of a batch,
                           the 15th, 50th and 85th percentile of what element UNIT
                           (default 0) of the named layer's output (c,h,w) is in training,
                           before what follows it, a relu say; NULL: none */
    int64_t track_every; /**< ≥ 1: steps between these records; default 100 */
    bool stat_noise;     /**< behind each evaluation, record for each layer of batch norm
                            how far the last step's statistics of norm batches lay from
                            those of its whole batch: root mean squares over norm batches
                            and channels of (mean_b − mean)/σ and var_b/var − 1 */
    int64_t noise_scale; /**< steps between estimates of the scale of the noise of
                            gradients (McCandlish et al. 2018, arXiv 1812.06162): |G|² and
                            tr(Σ) from the gradients of norm batches and of the batch, at
                            a step's weights and of its samples; needs norm batches of at
                            most half the batch, and costs about as much as that step; 0:
                            none. Under synchronized norm the gradients of samples or of
                            processes are not independent; those of norm batches are, and
                            the estimate is that for norm batches of this size */
    sbn_progress_style progress;
    sbn_overlap overlap; /**< as in sbn_model_config */
    int64_t max_skips;   /**< a step that is not finite is undone and left out, unless so
                            many before it were; 0: it ends the run */
    double max_time_s;   /**< end behind the first step after so many seconds; 0: none */
    void (*warn)(
        const char *line);             /**< told on the group's process 0 what a run got
                                          over,    as a damaged checkpoint; NULL: nobody is */
    const volatile sig_atomic_t *stop; /**< end behind the step under way once this is not
                                          0 on some process, as a signal's handler may set
                                          it; NULL: never */
} sbn_trainer_config;

typedef struct sbn_trainer_result {
    int64_t steps;       /**< reached, those before a resume included */
    double seconds;      /**< of this run: training and evaluation */
    double images_per_s; /**< while training */
    double test_loss, test_accuracy;
    sbn_model_memory memory; /**< of this process's model; of no meaning to evaluation */
    bool reached;    /**< the last evaluation's test accuracy is at least the target */
    int64_t skipped; /**< steps of this run, as max_skips says */
} sbn_trainer_result;

/** cnn on Fashion-MNIST, batch 64, lr 0.05, momentum 0.9, 5 epochs, seed 1. */
SBN_API sbn_trainer_config sbn_trainer_config_default(void);

/**
 * Train and evaluate. Writes metrics.jsonl, run.json, checkpoint.safetensors (the one
 * before it stays as checkpoint-previous.safetensors), model.safetensors to out, which is
 * one run's at a time (run.lock while it lasts; another gets SBN_E_IO). What
 * sbn_group_traffic counts begins with the first step.
 * @collective over the group: as the model's, and one message of 72 bytes per evaluation
 * of a half of the data.
 * A file out/halt, the limit of time and `stop` end it early: all processes save behind
 * the same step and return SBN_E_STOPPED, and `resume` goes on as if nothing had been.
 * @errors any; the same run fails on all processes, SBN_E_PEER where the cause is
 * elsewhere. SBN_E_STATE: a process holds other weights than the others.
 * @reproducible model.safetensors and every loss: a function of settings and data alone.
 */
SBN_API sbn_status sbn_train(const sbn_trainer_config *cfg, sbn_group *group,
                             sbn_trainer_result *result);

typedef struct sbn_evaluate_config {
    const char *weights; /**< a model.safetensors or checkpoint */
    const char *net;     /**< NULL: the net that the file names */
    const char *data;    /**< as in sbn_dataset_probe */
    int64_t limit;       /**< first samples of the test half only; 0: all */
    uint64_t seed;       /**< of synthetic data, and of noise in shift */
    const char *shift;   /**< as in sbn_dataset_set_shift: of the test half; NULL: none */
    int64_t precise;     /**< samples whose precise statistics take the place of the
                              running averages, SBN_PRECISE_ALL; 0: none */
    sbn_split precise_from; /**< half that these samples are the first of; the test half
                                 is shifted and limited as it is for the evaluation, and
                                 its labels are not looked at; default SBN_SPLIT_TRAIN */
    const char *save; /**< file for the weights with precise statistics; NULL: none */
} sbn_evaluate_config;

/** Running statistics, all of Fashion-MNIST's test half, seed 1. */
SBN_API sbn_evaluate_config sbn_evaluate_config_default(const char *weights);

/**
 * Evaluate saved weights on a data set's test half.
 * @collective one message of 72 bytes; for precise statistics one per norm layer.
 * @errors any; the same run fails on all processes, SBN_E_PEER where the cause is
 * elsewhere.
 * @reproducible a function of weights, settings and data alone.
 */
SBN_API sbn_status sbn_evaluate(const sbn_evaluate_config *cfg, sbn_group *group,
                                sbn_trainer_result *result);

#ifdef __cplusplus
}
#endif
#endif
