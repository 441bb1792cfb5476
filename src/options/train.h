/* Options of a training run: the table that `train` shows and every trial of a study may
 * set, and what the words in it mean to the trainer. */
#ifndef SBNI_OPTIONS_TRAIN_H
#define SBNI_OPTIONS_TRAIN_H

#include "options/options.h"
#include "syncbn/trainer.h"

/* Values of the options; those that the trainer has otherwise stand beside its own. */
typedef struct sbni_train_settings {
    sbn_trainer_config run;
    const char *norm;
    int schedule, progress, running, optimizer;
    bool comm_report, no_overlap;
    double stall_limit_s;
    int nonfinite;
    int64_t max_skips;
} sbni_train_settings;

extern const sbni_option sbni_train_options[];

/* What holds where an option is not given. */
sbni_train_settings sbni_train_settings_default(void);

/* Fill in `run` what the words mean. SBN_E_ARG naming the option. Local. */
sbn_status sbni_train_settings_resolve(sbni_train_settings *settings);

#endif
