#include "study/presets.h"

#include <string.h>

static const sbni_study *const all[] = {&sbni_study_norm_batch, &sbni_study_sgd_batch,
                                        &sbni_study_ghost,      &sbni_study_non_iid,
                                        &sbni_study_ioffe2015,  &sbni_study_learning_rate,
                                        &sbni_study_init,       &sbni_study_shift,
                                        &sbni_study_processes,  &sbni_study_grid};
enum { STUDIES = sizeof all / sizeof *all };

const sbni_study *sbni_preset(int i)
{
    return i < STUDIES ? all[i] : NULL;
}

sbn_status sbni_preset_find(const char *name, const sbni_study **study)
{
    for (int i = 0; i < STUDIES; i++)
        if (!strcmp(all[i]->name, name)) {
            *study = all[i];
            return SBN_OK;
        }
    return sbni_fail(SBN_E_ARG, "no study \"%.200s\"; syncbn study --help lists them",
                     name);
}
