/**
 * Small nets described by a text file, trained on the samples of a whole group of
 * processes.
 *
 * A net file has one layer a line; `#` starts a comment:
 *
 * - `input 1x28x28`: channels x height x width; the first line
 * - `conv NAME out=N kernel=N [stride=N] [pad=N]`
 * - `linear NAME out=N`: flattens what comes in
 * - `norm NAME`: normalization over channels (after linear: features); which, a setting
 *   of the model says
 * - `maxpool size=N`, `avgpool [size=N]`: windows without overlap; avgpool without a
 * size: the mean of each channel
 * - `relu`, `sigmoid`
 * - `dropout p=X`: in training each element is 0 with probability X, 0 … below 1, and
 *   else divided by 1 - X (Srivastava et al. 2014, scaled as is usual now)
 * - `block NAME [out=N [stride=S]]` … `end`: a residual block (He et al. 2016, arXiv
 *   1512.03385): what comes in is added to what the lines between make of it. With out,
 *   what is added goes through a 1x1 convolution and a norm first, whose names are
 *   NAME_conv and NAME_bn. No block within another. Where the last of the lines is a
 *   norm, that norm adds in the pass in which it normalizes, and a relu behind `end` is
 *   in it too
 * - `logsoftmax`: the last line; classes are what comes in
 */
#ifndef SYNCBN_MODEL_H
#define SYNCBN_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "syncbn/group.h"
#include "syncbn/norm.h"
#include "syncbn/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sbn_model sbn_model;

/** As a rate of dropout: that of each dropout line. */
#define SBN_DROPOUT_NET (-1.0)

/** What the norm lines of a net become. */
typedef enum sbn_model_norm {
    SBN_MODEL_NORM_NONE,   /**< nothing: they are left out */
    SBN_MODEL_NORM_BATCH,  /**< batch normalization over each norm batch of the group */
    SBN_MODEL_NORM_RENORM, /**< batch renormalization, by sbn_model_set_limits */
    SBN_MODEL_NORM_GROUP   /**< group normalization of each sample, syncbn/groupnorm.h */
} sbn_model_norm;

/** Whether backward goes on while messages are under way: with the gradients of weights
 * while those of norms travel, for which it goes through its slices twice, and with what
 * is below while those of gradients do. No bit depends on it. */
typedef enum sbn_overlap {
    SBN_OVERLAP_NEVER,  /**< it waits for each message */
    SBN_OVERLAP_ALWAYS, /**< in any group of several processes */
    SBN_OVERLAP_NETWORK /**< not in a group that sums through memory of the one host that
                           all its processes are on (syncbn/group.h), where a message
                           takes less time than overlap costs */
} sbn_overlap;

typedef struct sbn_model_config {
    const char
        *net; /**< name of a net that comes with the library, or a path ending in .net */
    const char *text;    /**< the net itself; NULL: read what `net` says */
    sbn_dtype dtype;     /**< of weights and activations; default SBN_F32 */
    uint64_t seed;       /**< initial weights are a function of (seed, name of the tensor,
                            element) */
    int64_t batch;       /**< most samples of the group in one step, ≥ 1 */
    int64_t norm_batch;  /**< 1 … batch, or SBN_NORM_BATCH_ALL */
    sbn_model_norm norm; /**< default SBN_MODEL_NORM_BATCH */
    int64_t norm_groups; /**< group norm: groups of every norm line, ≥ 1, a divisor of its
                            channels; else not read; default 1 */
    double eps, momentum;   /**< of the norm layers; defaults 1e-5 and 0.1 */
    sbn_running running;    /**< likewise; default SBN_RUNNING_WHOLE_BATCH */
    sbn_overlap overlap;    /**< default SBN_OVERLAP_NETWORK */
    double label_smoothing; /**< s, 0 … below 1: the loss of training is the cross-entropy
                               against (1 − s)·onehot + s/classes (Szegedy et al. 2016,
                               arXiv 1512.00567, section 7); evaluation's has s = 0;
                               default 0 */
    double init_scale; /**< > 0: factor of the initial weights of conv and linear layers,
                          not of their biases; default 1 */
    double init_sigma; /**< ≥ 0: these weights are drawn from a Gaussian of this deviation
                          and their biases 0 (Ioffe & Szegedy 2015, section 4.1); default
                          0: weights and biases uniform in ±1/√(inputs of a value) */
    double dropout; /**< rate, 0 … below 1, of the net's dropout lines and, where it has
                       none, of dropout on what enters its last linear layer;
                       SBN_DROPOUT_NET, the default: what the net says */
} sbn_model_config;

/** A named array of the model: a parameter or a buffer. */
typedef struct sbn_model_tensor {
    const char *name; /**< e.g. "conv2_bn.running_mean"; owned by the model */
    int axes;         /**< 0 … 4 */
    int64_t shape[4];
    int64_t count;   /**< elements */
    void *data;      /**< of the model's type; int64 for num_batches_tracked */
    void *grad;      /**< same shape; NULL for buffers */
    bool is_integer; /**< data is int64 */
    bool decays;     /**< a weight matrix: neither bias nor gamma nor beta */
} sbn_model_tensor;

/** Sums over the batch of the whole group. */
typedef struct sbn_model_result {
    double loss;     /**< mean negative log-likelihood */
    int64_t correct; /**< samples whose largest output is their label */
    int64_t votes;   /**< sum over processes of what sbn_model_set_vote said */
} sbn_model_result;

/** Bytes that a model holds on this process from its creation on: a step allocates
 * nothing. Arrays have a row for each sample of the largest share, of which
 * sbn_model_input tells the number. */
typedef struct sbn_model_memory {
    int64_t activations_bytes; /**< what forward keeps for backward: the input, one array
                                  for each weight layer (its x), norm layer (its x) and
                                  residual block (what goes in; not where it is x), y
                                  of sigmoid, of relu but behind a norm, of the last
                                  layer; places of maxima; a bit for each element of
                                  dropout; group norm's statistics */
    int64_t work_bytes;        /**< gradients of activations that wait for a message, rows
                                  of a slice for each thread, sums and factors of norms,
                                  windows at the points of tiles */
    int64_t parameters_bytes;  /**< with running statistics */
    int64_t gradients_bytes;   /**< of the parameters */
    int64_t messages_bytes; /**< exact sums: sent (through memory two in turn), received
                               (not in a group of one; of long ones through memory a share
                               of what all receive together), and of each thread */
} sbn_model_memory;

/** Defaults as above for a net and a batch. Local. */
SBN_API sbn_model_config sbn_model_config_default(const char *net, int64_t batch);

/**
 * Build a net; weights uniform in ±1/sqrt(fan_in), gamma 1, beta 0.
 * @collective over the group: 40 bytes, and 20 per norm layer with a message.
 * @errors SBN_E_ARG (unknown net, sizes; a batch has at most 65535 slices; groups that do
 * not divide a layer's channels), SBN_E_FEW (a group of one value), SBN_E_DATA
 * (malformed net: file, line, column), SBN_E_IO, SBN_E_MEMORY, SBN_E_MISMATCH, SBN_E_PEER
 */
SBN_API sbn_status sbn_model_create(const sbn_model_config *cfg, sbn_group *group,
                                    sbn_model **model);

/** Free and null; NULL is fine. */
SBN_API void sbn_model_destroy(sbn_model **model);

/** Shape of one input sample (n = 0) and number of classes. */
SBN_API sbn_tensor sbn_model_input_shape(const sbn_model *model);
SBN_API int64_t sbn_model_classes(const sbn_model *model);

/** The net's text, as read. Owned by the model. */
SBN_API const char *sbn_model_text(const sbn_model *model);

/** What the model holds. Local. */
SBN_API sbn_model_memory sbn_model_get_memory(const sbn_model *model);

/** All parameters, then all buffers, in the order of the net. Owned by the model. */
SBN_API const sbn_model_tensor *sbn_model_tensors(const sbn_model *model, int *n);

/**
 * Move the limits of batch renormalization in all norm layers, as sbn_norm_set_limits;
 * before they were ever moved they are 1 and 0. Nothing to do in a model of another norm.
 * Local, but all processes must use the same.
 * @errors SBN_E_ARG (out of range)
 */
SBN_API sbn_status sbn_model_set_limits(sbn_model *model, double r_max, double d_max);

/** As sbn_norm_get_clipped, with fractions of (layer, norm batch, channel). Limits are
 * those that the layers have; 1 and 0 in a model without renorm. Local. */
SBN_API sbn_norm_clipped sbn_model_get_clipped(const sbn_model *model);

/** Exponents of the exact gradient sums (int64, one per summed tensor): part of a
 * resumable state. */
SBN_API int64_t *sbn_model_grad_exponents(sbn_model *model, int *n);

/**
 * Which samples of a batch of `total` this process works on: [*first, *first + *n),
 * perhaps none.
 * @param total  1 … cfg.batch. Local; the same question has the same answer on every
 * process.
 */
SBN_API sbn_status sbn_model_share(const sbn_model *model, int64_t total, int64_t *first,
                                   int64_t *n);

/** Where this process's samples go before gradient or evaluate: [capacity] rows of the
 * input shape. */
SBN_API void *sbn_model_input(sbn_model *model, int64_t *capacity);

/**
 * A number of this process's own that travels with the gradients of every step from now
 * on; the sum over the processes, the same on all, is in sbn_model_result. For agreements
 * that cost no message. 0 at first. Local.
 */
SBN_API void sbn_model_set_vote(sbn_model *model, int64_t vote);

/**
 * The number of the next step, which each successful sbn_model_gradient moves on by one:
 * masks of dropout are a function of (seed, step modulo 2^32, layer, place of the sample
 * in the batch, element). 0 at first; set it to resume. All processes must use the same.
 * Local.
 */
SBN_API void sbn_model_set_step(sbn_model *model, int64_t step);

/**
 * Forward, loss, backward: gradients of the mean loss over `total` samples of the group
 * in every tensor's grad. Running statistics are updated.
 * @param labels  of this process's share of the batch, 0 … classes-1.
 * @collective one message forward and one backward per norm layer, and one for all other
 * gradients; with overlap one for the gradients between two norm layers, each begun as
 * soon as they are complete. Then, with threads, MPI must have been started with
 * MPI_THREAD_FUNNELED to move messages from among them.
 * @errors SBN_E_ARG (a label), SBN_E_NONFINITE naming layer or tensor, SBN_E_FEW,
 * SBN_E_RANGE, SBN_E_PEER; weights unchanged.
 * @reproducible a function of samples, weights, grad_exponents and step; not of the
 * number of processes or threads. Sums are exact; a slice's gradient is rounded before,
 * to 2^-28 of the largest of its tensor at worst.
 */
SBN_API sbn_status sbn_model_gradient(sbn_model *model, const int32_t *labels,
                                      int64_t total, sbn_model_result *result);

/**
 * Evaluation of n ≤ capacity samples of this process alone, with running statistics.
 * Local.
 * @param loss_words  4 words of an exact sum, to which the losses of whole slices of
 * SBN_SLICE samples are added; sum them over processes as integers, read with
 * sbn_model_loss.
 */
SBN_API sbn_status sbn_model_evaluate(sbn_model *model, const int32_t *labels, int64_t n,
                                      uint64_t loss_words[4], int64_t *correct);

/**
 * Precise statistics of norm layer number `norm`, 0 … sbn_model_norms - 1: as
 * sbn_norm_precise_begin, _add and _end, with what the layers before it make of the
 * samples in sbn_model_input, by their running statistics. Take the layers in order, and
 * the whole data set for each.
 * @param n  samples of this process, ≤ capacity; whole slices but for its last call.
 * @collective begin and end as in norm.h; add is local.
 */
SBN_API int sbn_model_norms(const sbn_model *model);
SBN_API sbn_status sbn_model_precise_begin(sbn_model *model, int norm);
SBN_API sbn_status sbn_model_precise_add(sbn_model *model, int norm, int64_t n);
SBN_API sbn_status sbn_model_precise_end(sbn_model *model, int norm);

/** The value of an exact sum of losses. */
SBN_API double sbn_model_loss(const uint64_t loss_words[4]);

#ifdef __cplusplus
}
#endif
#endif
