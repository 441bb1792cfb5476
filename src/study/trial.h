/* One trial: a training run in a folder of its own, and what it found. */
#ifndef SBNI_TRIAL_H
#define SBNI_TRIAL_H

#include "study/design.h"
#include "study/record.h"
#include "syncbn/group.h"

enum { SBNI_PATH_BYTES = 4096 };

/* How trials are run. */
typedef struct sbni_trial_config {
    const char *out; /* of the study; trials are in out/trials/KEY */
    bool keep_models;
    const char *whom; /* in errors that name a process: who they are in the job */
    double end_s;     /* time of the clock to stop at; 0: never */
    const volatile sig_atomic_t *stop;
} sbni_trial_config;

/* Path of a trial's file. SBN_E_ARG: too long. */
sbn_status sbni_trial_path(const char *out, const sbni_trial *trial, const char *file,
                           char path[SBNI_PATH_BYTES]);

/* The result of a finished trial, where there is one. Local. */
sbn_status sbni_trial_load(const char *out, const sbni_trial *trial, sbni_record *record,
                           bool *found);

/**
 * Run a trial from where it is, evaluate it as the design says, leave its result beside
 * its metrics. A run that diverges has a result too.
 * @collective over the group, as sbn_train.
 * @errors any but SBN_E_NONFINITE and SBN_E_RANGE; SBN_E_STOPPED where it can go on.
 */
sbn_status sbni_trial_run(const sbni_design *design, const sbni_trial *trial,
                          const sbni_trial_config *cfg, sbn_group *group,
                          sbni_record *record);

#endif
