#include "train/session.h"

#include <inttypes.h>
#include <stdio.h>

#include "comm/group.h"
#include "core/memory.h"
#include "nn/layer.h"
#include "train/evaluate.h"
#include "train/file.h"
#include "train/runfile.h"
#include "train/settings.h"

sbn_status sbni_session_path(const sbni_session *s, const char *file, char *path)
{
    return sbni_folder_path(s->cfg->out, file, path);
}

static sbn_status open_data(sbni_session *s)
{
    const sbn_trainer_config *c = s->cfg;
    static const sbn_split both[2] = {SBN_SPLIT_TRAIN, SBN_SPLIT_TEST};
    SBN_TRY(sbni_hostdata_open(c->data, both, 2, c->seed, s->group, s->data));
    s->n_train = s->data[SBN_SPLIT_TRAIN].info.n;
    s->n_test = s->data[SBN_SPLIT_TEST].info.n;
    if (c->limit_train && c->limit_train < s->n_train) s->n_train = c->limit_train;
    if (c->limit_test && c->limit_test < s->n_test) s->n_test = c->limit_test;
    s->n_eval_train = c->eval_train < s->n_train ? c->eval_train : s->n_train;
    SBN_CHECK(c->batch <= s->n_train, SBN_E_ARG,
              "expected batch 1 to %" PRId64 " training samples, got %" PRId64,
              s->n_train, c->batch);
    return SBN_OK;
}

static sbn_status create_optimizer(sbni_session *s)
{
    int n, params = 0;
    const sbn_model_tensor *t = sbn_model_tensors(s->model, &n);
    sbn_optimizer_tensor *list;
    SBN_TRY(sbni_alloc(n, sizeof *list, "optimizer", &list));
    for (; params < n && t[params].grad; params++)
        list[params] =
            (sbn_optimizer_tensor){t[params].data, t[params].grad, t[params].count,
                                   t[params].decays || s->cfg->decay_all};
    const sbn_trainer_config *c = s->cfg;
    sbn_optimizer_config cfg = {c->momentum,   c->weight_decay, c->nesterov,
                                SBN_F32,       c->optimizer,    c->adam_beta1,
                                c->adam_beta2, c->adam_eps};
    sbn_status status = sbn_optimizer_create(&cfg, list, params, &s->optimizer);
    sbni_free(list);
    return status;
}

/* The first norm layer that sees one value per channel and sample; NULL: none. */
static const char *flat_norm(const sbn_model *m)
{
    for (int i = 0; i < m->layer_count; i++) {
        const sbni_layer *layer = &m->layers[i];
        if (layer->norm && layer->in->shape.h * layer->in->shape.w == 1)
            return layer->spec.name;
    }
    return NULL;
}

/* A variance needs two values. Batches that leave one alone are known beforehand: better
 * now than at the end of an epoch. */
static sbn_status check_smallest(const sbni_session *s)
{
    const sbn_trainer_config *c = s->cfg;
    const char *layer = flat_norm(s->model);
    if (!layer) return SBN_OK;
    int64_t last = s->n_train % c->batch, ghost = c->norm_batch;
    bool has_last = s->per_epoch > s->n_train / c->batch && s->steps >= s->per_epoch;
    bool whole = ghost == SBN_NORM_BATCH_ALL;
    SBN_CHECK(whole ? c->batch > 1 : ghost > 1 && c->batch % ghost != 1, SBN_E_FEW,
              "%s: a batch of %" PRId64 " in norm batches of %" PRId64
              " leaves one sample alone, which has no variance; choose another batch or "
              "norm batch size",
              layer, c->batch, whole ? c->batch : ghost);
    SBN_CHECK(!has_last || (whole ? last : last % ghost) != 1, SBN_E_FEW,
              "%s: the last batch of an epoch has %" PRId64 " of %" PRId64
              " samples, and one of them alone has no variance; drop the last batch or "
              "choose another batch size",
              layer, last, s->n_train);
    return SBN_OK;
}

static sbn_status create_local(sbni_session *s)
{
    const sbn_trainer_config *c = s->cfg;
    int64_t capacity;
    SBN_TRY(sbni_check_text(s->model, c->net));
    SBN_TRY(sbni_check_fit(s->model, &s->data[SBN_SPLIT_TRAIN].info));
    SBN_TRY(sbni_check_fit(s->model, &s->data[SBN_SPLIT_TEST].info));
    SBN_TRY(create_optimizer(s));
    SBN_TRY(sbn_dataset_set_augment(s->data[SBN_SPLIT_TRAIN].dataset, c->augment_shift,
                                    c->augment_flip, c->seed));
    SBN_TRY(sbn_dataset_set_shift(s->data[SBN_SPLIT_TEST].dataset, c->shift, c->seed));
    SBN_TRY(sbni_hostdata_sampler(&s->data[SBN_SPLIT_TRAIN], c, s->n_train, &s->sampler));
    sbn_model_input(s->model, &capacity);
    SBN_TRY(sbni_alloc(capacity, sizeof *s->labels, "labels", &s->labels));
    s->per_epoch = sbn_sampler_steps(s->sampler);
    s->steps = c->steps;
    if (!c->steps)
        SBN_CHECK(!__builtin_mul_overflow(c->epochs, s->per_epoch, &s->steps), SBN_E_ARG,
                  "%" PRId64 " epochs of %" PRId64 " steps are too many to count",
                  c->epochs, s->per_epoch);
    SBN_TRY(check_smallest(s));
    s->schedule = c->schedule;
    s->schedule.steps = s->steps;
    s->n_settings = sbni_settings_list(c, s->n_train, s->data[SBN_SPLIT_TRAIN].digest,
                                       s->steps, s->settings);
    return SBN_OK;
}

static sbn_status create_model(sbni_session *s)
{
    sbn_model_config cfg = sbn_model_config_default(s->cfg->net, s->cfg->batch);
    cfg.seed = s->cfg->seed;
    cfg.norm = s->cfg->norm;
    cfg.norm_groups = s->cfg->norm_groups;
    cfg.norm_batch = s->cfg->norm_batch;
    cfg.eps = s->cfg->norm_eps;
    cfg.momentum = s->cfg->norm_momentum;
    cfg.running = s->cfg->norm_running;
    cfg.overlap = s->cfg->overlap;
    cfg.label_smoothing = s->cfg->label_smoothing;
    cfg.init_scale = s->cfg->init_scale;
    cfg.init_sigma = s->cfg->init_sigma;
    cfg.dropout = s->cfg->dropout;
    SBN_TRY(sbn_model_create(&cfg, s->group, &s->model));
    return sbn_group_agree(s->group, create_local(s));
}

/* Everybody gets what process 0 loaded, so that only it needs to see the file. */
static sbn_status broadcast_state(sbni_session *s)
{
    int n, exponents;
    const sbn_model_tensor *t = sbn_model_tensors(s->model, &n);
    int64_t *exponent = sbn_model_grad_exponents(s->model, &exponents);
    SBN_TRY(sbni_group_broadcast(s->group, &s->step, sizeof s->step, 0));
    SBN_TRY(sbni_group_broadcast(s->group, exponent, 8 * (int64_t)exponents, 0));
    for (int i = 0; i < n; i++) {
        int64_t bytes = t[i].count * (t[i].is_integer ? 8 : 4);
        SBN_TRY(sbni_group_broadcast(s->group, t[i].data, bytes, 0));
        for (int k = 0; t[i].grad && k < sbn_optimizer_states(s->optimizer); k++)
            SBN_TRY(sbni_group_broadcast(
                s->group, sbn_optimizer_state(s->optimizer, i, k), bytes, 0));
    }
    s->first = s->step;
    return SBN_OK;
}

/* From here on nobody else writes there. */
static sbn_status take_folder(sbni_session *s)
{
    if (!s->writes) return SBN_OK;
    SBN_TRY(sbni_folder_make(s->cfg->out));
    SBN_TRY(sbni_lock_take(s->cfg->out, &s->lock));
    return sbni_folder_clean(s->cfg->out);
}

/* A launcher that starts a run again does not know how far it came. Where it died before
 * it put the results of an earlier run away, that is not what it goes on from. */
static sbn_status decide_resume(sbni_session *s)
{
    char path[SBNI_PATH_BYTES];
    s->resumes = s->cfg->resume;
    if (!s->resumes) return SBN_OK;
    SBN_TRY(sbni_session_path(s, "run.json", path));
    return sbni_runfile_same(path, &s->resumes);
}

static sbn_status load_checkpoint(sbni_session *s)
{
    SBN_TRY(decide_resume(s));
    if (!s->resumes) return sbni_folder_retire(s->cfg->out);
    char *warning;
    SBN_TRY(sbni_folder_load(s->cfg->out, s->model, s->optimizer, &s->step, s->settings,
                             s->n_settings, &warning));
    if (warning && s->cfg->warn) s->cfg->warn(warning);
    sbni_free(warning);
    SBN_CHECK(s->step <= s->steps, SBN_E_ARG,
              "the checkpoint in %s is at step %" PRId64 ", beyond this run's %" PRId64
              " steps",
              s->cfg->out, s->step, s->steps);
    return SBN_OK;
}

static sbn_status open_files(sbni_session *s, int hosts)
{
    if (!s->writes) return SBN_OK;
    char path[SBNI_PATH_BYTES];
    SBN_TRY(sbni_session_path(s, "run.json", path));
    sbn_model_memory memory = sbn_model_get_memory(s->model);
    SBN_TRY(sbni_runfile_write(path, s->cfg, &memory, sbn_group_size(s->group), hosts));
    SBN_TRY(sbni_session_path(s, "metrics.jsonl", path));
    return sbni_metrics_open(path, s->resumes ? s->step : -1, &s->metrics);
}

sbn_status sbni_session_open(sbni_session *s)
{
    SBN_TRY(sbn_group_agree(s->group, sbni_settings_check(s->cfg)));
    SBN_TRY(sbni_settings_check_alike(s->cfg, s->group));
    s->writes = s->cfg->out && sbn_group_rank(s->group) == 0;
    SBN_TRY(sbni_group_agree_asleep(s->group, take_folder(s)));
    SBN_TRY(open_data(s));
    SBN_TRY(create_model(s));
    SBN_TRY(sbni_probe_open(s));
    SBN_TRY(sbn_group_agree(s->group, s->writes ? load_checkpoint(s) : SBN_OK));
    SBN_TRY(broadcast_state(s));
    int hosts, processes;
    SBN_TRY(sbni_group_hosts(s->group, &hosts, &processes));
    sbn_status status = open_files(s, hosts);
    if (status == SBN_OK && sbn_group_rank(s->group) == 0)
        status = sbni_progress_create(s->cfg->progress, s->step, s->steps,
                                      s->cfg->steps ? 0 : s->cfg->epochs, &s->progress);
    return sbn_group_agree(s->group, status);
}

void sbni_session_fetch(const sbni_session *s, const int64_t *index, int64_t n)
{
    int64_t capacity;
    sbni_fetch_augmented(s->data[SBN_SPLIT_TRAIN].dataset, (s->step - 1) / s->per_epoch,
                         index, n, sbn_model_input(s->model, &capacity), s->labels);
}

void sbni_session_close(sbni_session *s)
{
    char text[SBNI_ERROR_BYTES]; /* closing must not hide what went wrong */
    snprintf(text, sizeof text, "%s", sbn_last_error());
    sbni_progress_destroy(&s->progress);
    sbni_probe_close(s);
    sbni_skip_close(&s->skip);
    if (sbni_metrics_close(&s->metrics) != SBN_OK) sbni_fail(SBN_E_IO, "%s", text);
    sbni_lock_release(&s->lock);
    sbn_sampler_destroy(&s->sampler);
    sbn_optimizer_destroy(&s->optimizer);
    sbn_model_destroy(&s->model);
    sbni_free(s->labels);
    for (int i = 0; i < 2; i++) sbni_hostdata_close(&s->data[i]);
}
