/* What a run measures of itself beside the loss of each step. Nothing of it decides
 * weights, and all of it is a function of data, seed and settings. */
#ifndef SBNI_PROBE_H
#define SBNI_PROBE_H

#include "train/session.h"

/* Scores of the test half and, where evaluations cover training samples, of these; train
 * is else left alone.
 * @collective one message of 72 bytes each */
sbn_status sbni_probe_scores(const sbni_session *session, sbni_score *test,
                             sbni_score *train);

/* Where the settings ask for it: scores with precise statistics in the place of running
 * ones, recorded. The model is then what it was.
 * @collective as sbni_precise and sbni_probe_scores */
sbn_status sbni_probe_precise(sbni_session *session);

#endif
