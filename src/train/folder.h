/* The folder of a run: its checkpoints, and what earlier runs and crashes left there. For
 * the process that writes, which holds the folder's lock. */
#ifndef SBNI_FOLDER_H
#define SBNI_FOLDER_H

#include "train/checkpoint.h"

enum { SBNI_PATH_BYTES = 4096 };

/* The path of a file in the folder. SBN_E_ARG where it is too long. */
sbn_status sbni_folder_path(const char *folder, const char *file,
                            char path[SBNI_PATH_BYTES]);

/* Remove the temporaries of processes that died in the middle of a write. */
sbn_status sbni_folder_clean(const char *folder);

/* Give an earlier run's checkpoint, weights and report other names: a later resume must
 * not find the old state, nor an evaluation the old weights. SBN_E_IO. */
sbn_status sbni_folder_retire(const char *folder);

/* Write a checkpoint; the one before it stays as checkpoint-previous.safetensors. */
sbn_status sbni_folder_save(const char *folder, sbn_model *model,
                            sbn_optimizer *optimizer, int64_t step,
                            const sbni_setting *settings, int n_settings);

/*
 * Load the newest checkpoint that is whole; *step stays as it is where there is none at
 * all. Where the last one is damaged or gone, the previous one serves: *warning is then a
 * line that says so (free with sbni_free; else NULL), and the damaged file becomes
 * checkpoint-damaged.safetensors. SBN_E_DATA where none is whole, or one that is was made
 * with other settings.
 */
sbn_status sbni_folder_load(const char *folder, sbn_model *model,
                            sbn_optimizer *optimizer, int64_t *step,
                            const sbni_setting *settings, int n_settings, char **warning);

#endif
