/* What is saved of a run: model.safetensors, checkpoint.safetensors. */
#ifndef SBNI_CHECKPOINT_H
#define SBNI_CHECKPOINT_H

#include "syncbn/model.h"
#include "syncbn/optim.h"

/* A setting that decides the result, as text. */
typedef struct sbni_setting {
    const char *key;
    char value[128];
} sbni_setting;

enum { SBNI_MAX_SETTINGS = 80 };

/* Check that files can hold the net's text, before time is spent on training it.
 * SBN_E_DATA names source (of the text) and line. */
sbn_status sbni_check_text(const sbn_model *model, const char *source);

/* Weights and buffers; metadata: the net's text and what its norm layers compute with, so
 * that the file suffices for evaluation. */
sbn_status sbni_model_save(const char *path, const sbn_model *model);

/*
 * Fill a model from a file that sbni_model_save or sbni_checkpoint_save wrote, or a
 * framework under the same names. A missing num_batches_tracked counts as 0. SBN_E_DATA:
 * a tensor is missing or of another shape or type ("of another net"); then the model is
 * unchanged.
 */
sbn_status sbni_model_load(const char *path, sbn_model *model);

/* The net's text stored in a file; free with sbni_free. SBN_E_DATA where it has none. */
sbn_status sbni_model_load_text(const char *path, char **text);

/* What a saved model's norm lines are, and their epsilon, into a model's settings, which
 * stay as they are where the file (of a framework) does not say. SBN_E_DATA. */
sbn_status sbni_model_load_norm(const char *path, sbn_model_config *cfg);

/* All that resuming needs; settings are stored to be compared. previous: where the file
 * that stood at path stays, or NULL. */
sbn_status sbni_checkpoint_save(const char *path, const char *previous, sbn_model *model,
                                sbn_optimizer *optimizer, int64_t step,
                                const sbni_setting *settings, int n_settings);

/* Check that a checkpoint is what was written: SBN_E_DATA says what is damaged. */
sbn_status sbni_checkpoint_check(const char *path);

/* SBN_E_DATA where the file is damaged, or where a setting differs: names it, stored and
 * given. *step receives the step reached. */
sbn_status sbni_checkpoint_load(const char *path, sbn_model *model,
                                sbn_optimizer *optimizer, int64_t *step,
                                const sbni_setting *settings, int n_settings);

#endif
