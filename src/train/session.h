/* Everything of one training run, opened together and closed together. */
#ifndef SBNI_SESSION_H
#define SBNI_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "syncbn/data.h"
#include "syncbn/trainer.h"
#include "train/checkpoint.h"
#include "train/folder.h"
#include "train/hostdata.h"
#include "train/lock.h"
#include "train/metrics.h"
#include "train/probe.h"
#include "train/progress.h"
#include "train/skip.h"
#include "train/stop.h"

/* Files are written by process 0 alone. */
struct sbni_session {
    const sbn_trainer_config *cfg;
    sbn_group *group;
    bool writes, resumes;
    sbni_lock *lock;       /* of the folder */
    sbni_hostdata data[2]; /* by sbn_split */
    sbni_setting settings[SBNI_MAX_SETTINGS];
    int n_settings;
    sbn_model *model;
    sbn_optimizer *optimizer;
    sbn_sampler *sampler;
    sbn_schedule schedule;
    sbni_metrics *metrics;
    sbni_progress *progress;
    int32_t *labels;
    int64_t n_train, n_test, per_epoch;
    int64_t n_eval_train;       /* training samples that evaluations cover */
    int64_t step, first, steps; /* done, before this run, of the whole run */
    int64_t images;
    double train_s, began_s;
    double loss, lr;        /* of the last step */
    sbni_score test, train; /* of the last evaluation */
    bool reached;           /* the target, at the last evaluation */
    sbni_probe probe;
    sbni_stop stop;
    sbni_skip skip;
    int64_t votes;      /* to end early, after the last step */
    sbn_status written; /* of process 0's files, agreed on at the next evaluation */
};

/*
 * Check the settings, open data, make model, optimizer and sampler, load what is resumed,
 * open the files. The session is zero but for cfg and group. Close it also on failure,
 * which leaves the error's text as it is.
 * @collective over the group. A failure of one process is a failure of all.
 */
sbn_status sbni_session_open(sbni_session *session);
void sbni_session_close(sbni_session *session);

/* Training samples by index into rows of the model's input, with their labels, changed as
 * they are in the epoch of the step under way. */
void sbni_session_fetch(const sbni_session *session, const int64_t *index, int64_t n);

/* Path of a file in the run's folder, of SBNI_PATH_BYTES. SBN_E_ARG: too long. */
sbn_status sbni_session_path(const sbni_session *session, const char *file, char *path);

#endif
