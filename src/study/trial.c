#include "study/trial.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "train/file.h"

static const char RESULT[] = "result.json";
enum { CLASSES = 10 };

sbn_status sbni_trial_path(const char *out, const sbni_trial *t, const char *file,
                           char path[SBNI_PATH_BYTES])
{
    int n = snprintf(path, SBNI_PATH_BYTES, "%s/trials/%s%s%s", out, t->key,
                     file[0] ? "/" : "", file);
    SBN_CHECK(n < SBNI_PATH_BYTES, SBN_E_ARG, "the path of %s is too long", out);
    return SBN_OK;
}

sbn_status sbni_trial_load(const char *out, const sbni_trial *t, sbni_record *record,
                           bool *found)
{
    char path[SBNI_PATH_BYTES];
    SBN_TRY(sbni_trial_path(out, t, RESULT, path));
    return sbni_record_load(path, record, found);
}

static void set_shifted(sbni_record *record, const char *how, const char *shift,
                        double error)
{
    char name[SBNI_VALUE_NAME];
    snprintf(name, sizeof name, "%s/%s", how, shift ? shift : "unchanged");
    sbni_record_set(record, name, error);
}

static bool has_statistics(const sbn_trainer_config *run)
{
    return run->norm == SBN_MODEL_NORM_BATCH || run->norm == SBN_MODEL_NORM_RENORM;
}

/* Over the changes: with the statistics of training, with the images' own. */
static void set_means(const sbni_design *d, const sbn_trainer_config *run,
                      const double mean[2], sbni_record *record)
{
    if (d->n_shifts < 2) return;
    sbni_record_set(record, "stored_mean", mean[0]);
    if (!has_statistics(run)) return;
    sbni_record_set(record, "reestimated_mean", mean[1]);
    sbni_record_set(record, "reestimated_gain", mean[1] - mean[0]);
}

/* A net that guesses does so under any change. */
static void set_diverged(const sbni_design *d, const sbni_trial *t, sbni_record *record)
{
    double error = sbni_record_get(record, "test_error");
    for (int i = 0; i < d->n_shifts; i++) {
        set_shifted(record, "stored", d->shift[i], error);
        if (has_statistics(&t->run.run))
            set_shifted(record, "reestimated", d->shift[i], error);
    }
    set_means(d, &t->run.run, (double[]){error, error}, record);
}

static sbn_status cause_of(sbn_status status)
{
    return status == SBN_E_PEER ? sbn_peer_status() : status;
}

/* Numbers grew beyond what can be computed with: a result of a trial, not a failure. */
static bool is_divergence(sbn_status status)
{
    sbn_status cause = cause_of(status);
    return cause == SBN_E_NONFINITE || cause == SBN_E_RANGE;
}

/* Under each change of the test images: with the statistics of training, and with those
 * of the changed images. */
static sbn_status evaluate_shifts(const sbni_design *d, const sbni_trial *t,
                                  const char *model, sbn_group *group,
                                  sbni_record *record)
{
    const sbn_trainer_config *run = &t->run.run;
    bool again_too = has_statistics(run);
    double sum[2] = {0, 0};
    int lost = 0;
    for (int i = 0; i < 2 * d->n_shifts; i++) {
        bool again = i % 2;
        const char *shift = d->shift[i / 2];
        if (again && !again_too) continue;
        sbn_evaluate_config cfg = sbn_evaluate_config_default(model);
        cfg.data = run->data;
        cfg.limit = run->limit_test;
        cfg.seed = run->seed;
        cfg.shift = shift;
        cfg.precise = again ? SBN_PRECISE_ALL : 0;
        cfg.precise_from = SBN_SPLIT_TEST;
        sbn_trainer_result result;
        sbn_status status = sbn_evaluate(&cfg, group, &result);
        bool diverges = is_divergence(status);
        lost += diverges;
        if (!diverges) SBN_TRY(status);
        double error = diverges ? 1 - 1. / CLASSES : 1 - result.test_accuracy;
        set_shifted(record, again ? "reestimated" : "stored", shift, error);
        if (shift) sum[again] += error / (d->n_shifts - 1);
    }
    set_means(d, run, sum, record);
    if (lost) sbni_record_set(record, SBNI_NOT_FINITE, lost);
    return SBN_OK;
}

/* Weights are large and made again by the same command. */
static sbn_status remove_models(const char *out, const sbni_trial *t)
{
    char folder[SBNI_PATH_BYTES], path[SBNI_PATH_BYTES];
    SBN_TRY(sbni_trial_path(out, t, "", folder));
    DIR *files = opendir(folder);
    for (struct dirent *file; files && (file = readdir(files));) {
        const char *dot = strrchr(file->d_name, '.');
        if (!dot || strcmp(dot, ".safetensors") != 0) continue;
        SBN_TRY(sbni_trial_path(out, t, file->d_name, path));
        unlink(path);
    }
    if (files) closedir(files);
    return SBN_OK;
}

static sbn_status leave(const sbni_trial *t, const sbni_trial_config *cfg,
                        const sbni_record *record)
{
    char path[SBNI_PATH_BYTES];
    SBN_TRY(sbni_trial_path(cfg->out, t, "", path));
    SBN_TRY(sbni_replacement_clean(path, (const char *const[]){RESULT}, 1));
    SBN_TRY(sbni_trial_path(cfg->out, t, RESULT, path));
    SBN_TRY(sbni_record_save(path, record));
    return cfg->keep_models ? SBN_OK : remove_models(cfg->out, t);
}

sbn_status sbni_trial_run(const sbni_design *d, const sbni_trial *t,
                          const sbni_trial_config *cfg, sbn_group *group,
                          sbni_record *record)
{
    char folder[SBNI_PATH_BYTES], path[SBNI_PATH_BYTES];
    double began_s = sbni_clock_s();
    SBN_TRY(sbni_trial_path(cfg->out, t, "", folder));
    sbn_trainer_config run = t->run.run;
    run.out = folder;
    run.resume = true;
    run.progress = SBN_PROGRESS_NONE;
    run.stop = cfg->stop;
    if (cfg->end_s > 0) run.max_time_s = fmax(cfg->end_s - began_s, 1e-3);
    sbn_trainer_result result;
    sbn_status status = sbn_train(&run, group, &result);
    if (is_divergence(status)) {
        sbni_record_diverged(CLASSES, record);
        set_diverged(d, t, record);
    } else {
        if (cause_of(status) == SBN_E_STOPPED)
            return sbni_fail(SBN_E_STOPPED,
                             "stopped on request in trial %s, saved; the same command "
                             "goes on from there",
                             t->key);
        bool names = status == SBN_E_PEER || status == SBN_E_MISMATCH;
        if (status != SBN_OK)
            return sbni_fail_in(status, "trial %s%s", t->key, names ? cfg->whom : "");
        SBN_TRY(sbni_trial_path(cfg->out, t, "metrics.jsonl", path));
        SBN_TRY(
            sbn_group_agree(group, sbni_record_collect(path, d->study->early, record)));
        double images = sbni_record_get(record, "steps_to_target") * (double)run.batch;
        sbni_record_set(record, "epochs_to_target", images / (double)t->n_train);
        SBN_TRY(sbni_trial_path(cfg->out, t, "model.safetensors", path));
        SBN_TRY(evaluate_shifts(d, t, path, group, record));
    }
    record->seconds = sbni_clock_s() - began_s;
    return sbn_group_agree(group,
                           sbn_group_rank(group) == 0 ? leave(t, cfg, record) : SBN_OK);
}
