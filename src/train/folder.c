#include "train/folder.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"
#include "train/file.h"

static const char NEWEST[] = "checkpoint.safetensors",
                  PREVIOUS[] = "checkpoint-previous.safetensors",
                  DAMAGED[] = "checkpoint-damaged.safetensors";

/* What a run writes by replacing it whole. */
static const char *const replaced[] = {NEWEST,     PREVIOUS,        "model.safetensors",
                                       "run.json", "metrics.jsonl", "comm.json"};

sbn_status sbni_folder_path(const char *folder, const char *file,
                            char path[SBNI_PATH_BYTES])
{
    int n = snprintf(path, SBNI_PATH_BYTES, "%s/%s", folder, file);
    SBN_CHECK(n < SBNI_PATH_BYTES, SBN_E_ARG, "the path of %s is too long", folder);
    return SBN_OK;
}

sbn_status sbni_folder_clean(const char *folder)
{
    return sbni_replacement_clean(folder, replaced, sizeof replaced / sizeof *replaced);
}

/* Give a file another name; it need not exist. */
static sbn_status move(const char *folder, const char *file, const char *to)
{
    char path[SBNI_PATH_BYTES], aside[SBNI_PATH_BYTES];
    SBN_TRY(sbni_folder_path(folder, file, path));
    SBN_TRY(sbni_folder_path(folder, to, aside));
    SBN_CHECK(rename(path, aside) == 0 || errno == ENOENT, SBN_E_IO,
              "cannot move %s aside: %s", path, strerror(errno));
    return SBN_OK;
}

sbn_status sbni_folder_retire(const char *folder)
{
    /* the last of the two that exists is kept */
    SBN_TRY(move(folder, PREVIOUS, "checkpoint-old.safetensors"));
    SBN_TRY(move(folder, NEWEST, "checkpoint-old.safetensors"));
    SBN_TRY(move(folder, "comm.json", "comm-old.json"));
    return move(folder, "model.safetensors", "model-old.safetensors");
}

sbn_status sbni_folder_save(const char *folder, sbn_model *model,
                            sbn_optimizer *optimizer, int64_t step,
                            const sbni_setting *settings, int n_settings)
{
    char path[SBNI_PATH_BYTES], previous[SBNI_PATH_BYTES];
    SBN_TRY(sbni_folder_path(folder, NEWEST, path));
    SBN_TRY(sbni_folder_path(folder, PREVIOUS, previous));
    return sbni_checkpoint_save(path, previous, model, optimizer, step, settings,
                                n_settings);
}

/* Whether something stands there. */
static sbn_status look(const char *path, bool *exists)
{
    *exists = access(path, F_OK) == 0;
    SBN_CHECK(*exists || errno == ENOENT, SBN_E_IO, "cannot look at %s: %s", path,
              strerror(errno));
    return SBN_OK;
}

static sbn_status compose(const char *reason, int64_t step, char **warning)
{
    char text[2 * SBNI_ERROR_BYTES];
    snprintf(text, sizeof text, "%s; going on from %s, step %" PRId64, reason, PREVIOUS,
             step);
    return sbni_copy_string(text, warning);
}

/* The last checkpoint does not serve, for that reason. */
static sbn_status load_previous(const char *folder, sbn_model *model,
                                sbn_optimizer *optimizer, int64_t *step,
                                const sbni_setting *settings, int n_settings,
                                const char *reason, char **warning)
{
    char previous[SBNI_PATH_BYTES];
    SBN_TRY(sbni_folder_path(folder, PREVIOUS, previous));
    sbn_status status = sbni_checkpoint_check(previous);
    if (status != SBN_OK)
        return sbni_fail(status == SBN_E_MEMORY ? status : SBN_E_DATA,
                         "%s; nor is there another to go on from: %.200s", reason,
                         sbn_last_error());
    SBN_TRY(sbni_checkpoint_load(previous, model, optimizer, step, settings, n_settings));
    SBN_TRY(compose(reason, *step, warning));
    /* else the next checkpoint would put it in the place of the good one */
    return move(folder, NEWEST, DAMAGED);
}

sbn_status sbni_folder_load(const char *folder, sbn_model *model,
                            sbn_optimizer *optimizer, int64_t *step,
                            const sbni_setting *settings, int n_settings, char **warning)
{
    char path[SBNI_PATH_BYTES], previous[SBNI_PATH_BYTES], reason[SBNI_ERROR_BYTES];
    bool newest, older;
    *warning = NULL;
    SBN_TRY(sbni_folder_path(folder, NEWEST, path));
    SBN_TRY(sbni_folder_path(folder, PREVIOUS, previous));
    SBN_TRY(look(path, &newest));
    SBN_TRY(look(previous, &older));
    if (!newest && !older) return SBN_OK; /* nothing to go on from: begin */
    if (newest) {
        sbn_status status = sbni_checkpoint_check(path);
        if (status == SBN_OK)
            return sbni_checkpoint_load(path, model, optimizer, step, settings,
                                        n_settings);
        if (status != SBN_E_DATA) return status;
        snprintf(reason, sizeof reason, "%s", sbn_last_error());
    } else {
        snprintf(reason, sizeof reason, "%.300s is gone", path);
    }
    return load_previous(folder, model, optimizer, step, settings, n_settings, reason,
                         warning);
}
