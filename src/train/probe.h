/* What a run measures of itself beside the loss of each step. Nothing of it decides
 * weights, and all of it is a function of data, seed and settings. */
#ifndef SBNI_PROBE_H
#define SBNI_PROBE_H

#include "comm/reduce.h"
#include "train/gradnoise.h"
#include "train/metrics.h"

typedef struct sbni_session sbni_session;

typedef struct sbni_probe {
    /* of the tracked unit */
    char layer[64];
    int64_t unit;
    sbni_reduce values; /* their bits, a word for each sample of the batch */
    double *sorted;     /* [batch] */
    /* of gradients */
    sbni_gradnoise noise;
} sbni_probe;

/* Check what the settings ask for against the model, and make room. Close it also on
 * failure. @collective over the group */
sbn_status sbni_probe_open(sbni_session *session);
void sbni_probe_close(sbni_session *session);

/* Scores of the test half and, where evaluations cover training samples, of these; train
 * is else left alone.
 * @collective one message of 72 bytes each */
sbn_status sbni_probe_scores(const sbni_session *session, sbni_score *test,
                             sbni_score *train);

/* Where the settings ask for it: scores with precise statistics in the place of running
 * ones, recorded. The model is then what it was.
 * @collective as sbni_precise and sbni_probe_scores */
sbn_status sbni_probe_precise(sbni_session *session);

/* Where the step has its turn: the noise of gradients at its weights and of its samples,
 * index[total], before it is made, recorded. Short last norm batches are left out, and
 * batches of less than two whole ones measure nothing. The model is then what it was, but
 * for its gradients, its input and its step.
 * @collective a sbn_model_gradient for each norm batch */
sbn_status sbni_probe_gradients(sbni_session *session, const int64_t *index,
                                int64_t total);

/* After a step of so many samples that has its turn: percentiles of the tracked unit,
 * recorded. @collective 8 bytes for each sample of the batch */
sbn_status sbni_probe_activations(sbni_session *session, int64_t total);

/* Record the noise of the last step's statistics, a line for each norm layer that has
 * them, where the settings ask for it. */
void sbni_probe_statistics(sbni_session *session);

#endif
