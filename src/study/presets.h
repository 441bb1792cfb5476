/* The studies that come along. */
#ifndef SBNI_PRESETS_H
#define SBNI_PRESETS_H

#include "study/design.h"

extern const sbni_study sbni_study_norm_batch, sbni_study_sgd_batch, sbni_study_ghost,
    sbni_study_non_iid, sbni_study_ioffe2015, sbni_study_learning_rate, sbni_study_init,
    sbni_study_shift, sbni_study_processes, sbni_study_grid;

/* Number i, from 0; NULL beyond the last. */
const sbni_study *sbni_preset(int i);

/* By name. SBN_E_ARG: none such. */
sbn_status sbni_preset_find(const char *name, const sbni_study **study);

#endif
