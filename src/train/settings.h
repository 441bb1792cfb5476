/* The settings of a run: checked, compared between processes, stored with its state. */
#ifndef SBNI_SETTINGS_H
#define SBNI_SETTINGS_H

#include "syncbn/trainer.h"
#include "train/checkpoint.h"

/* Check what can be checked without data and net. SBN_E_ARG. */
sbn_status sbni_settings_check(const sbn_trainer_config *cfg);

/* Check that the processes were started alike. SBN_E_MISMATCH. @collective (16 bytes) */
sbn_status sbni_settings_check_alike(const sbn_trainer_config *cfg, sbn_group *group);

/* The settings that decide the weights after a given step, as text; a run may be resumed
 * where they are equal. The length of the run counts only where the rate depends on it.
 * Returns how many, at most SBNI_MAX_SETTINGS.
 * train: samples used of the training data, digest: of these data, steps: of the run. */
int sbni_settings_list(const sbn_trainer_config *cfg, int64_t train, uint64_t digest,
                       int64_t steps, sbni_setting *settings);

/* An optimizer as --optimizer spells it. */
const char *sbni_optimizer_name(sbn_optimizer_kind kind);

/* A schedule as --schedule spells it. */
const char *sbni_schedule_name(sbn_schedule_kind kind);

#endif
