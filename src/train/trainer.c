#include "syncbn/trainer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "comm/group.h"
#include "core/clock.h"
#include "core/memory.h"
#include "nn/layer.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/file.h"
#include "train/hostdata.h"
#include "train/metrics.h"
#include "train/progress.h"
#include "train/runfile.h"
#include "train/settings.h"
#include "train/stop.h"

enum { PATH_BYTES = 4096 };

/* Everything of one run. Files are written by process 0 alone. */
typedef struct run {
    const sbn_trainer_config *cfg;
    sbn_group *group;
    bool writes;
    sbni_hostdata data[2]; /* by sbn_split */
    sbni_setting settings[SBNI_MAX_SETTINGS];
    int n_settings;
    sbn_model *model;
    sbn_optimizer *optimizer;
    sbn_sampler *sampler;
    sbn_schedule schedule;
    sbni_metrics *metrics;
    sbni_progress *progress;
    int32_t *labels;
    int64_t n_train, n_test, per_epoch;
    int64_t step, first, steps; /* done, before this run, of the whole run */
    int64_t images;
    double train_s, began_s;
    sbn_model_result tested;
    bool has_tested;
    sbni_stop stop;
    int64_t votes;      /* to end early, after the last step */
    sbn_status written; /* of process 0's files, agreed on at the next evaluation */
} run;

sbn_trainer_config sbn_trainer_config_default(void)
{
    return (sbn_trainer_config){.net = "cnn",
                                .data = "fashion-mnist",
                                .batch = 64,
                                .norm_batch = SBN_NORM_BATCH_ALL,
                                .norm = SBN_MODEL_NORM_BATCH,
                                .norm_groups = 1,
                                .renorm = sbn_renorm_schedule_default(),
                                .norm_eps = 1e-5,
                                .norm_momentum = 0.1,
                                .epochs = 5,
                                .schedule = {SBN_SCHEDULE_CONSTANT, 0.05, 0, 0, 1, 0.1},
                                .momentum = 0.9,
                                .adam_beta1 = 0.9,
                                .adam_beta2 = 0.999,
                                .adam_eps = 1e-8,
                                .init_scale = 1,
                                .seed = 1,
                                .overlap = true};
}

static sbn_status path_of(const run *r, const char *file, char *path)
{
    int n = snprintf(path, PATH_BYTES, "%s/%s", r->cfg->out, file);
    SBN_CHECK(n < PATH_BYTES, SBN_E_ARG, "the path of %s is too long", r->cfg->out);
    return SBN_OK;
}

static sbn_status open_data(run *r)
{
    const sbn_trainer_config *c = r->cfg;
    static const sbn_split both[2] = {SBN_SPLIT_TRAIN, SBN_SPLIT_TEST};
    SBN_TRY(sbni_hostdata_open(c->data, both, 2, c->seed, r->group, r->data));
    r->n_train = r->data[SBN_SPLIT_TRAIN].info.n;
    r->n_test = r->data[SBN_SPLIT_TEST].info.n;
    if (c->limit_train && c->limit_train < r->n_train) r->n_train = c->limit_train;
    if (c->limit_test && c->limit_test < r->n_test) r->n_test = c->limit_test;
    SBN_CHECK(c->batch <= r->n_train, SBN_E_ARG,
              "expected batch 1 to %" PRId64 " training samples, got %" PRId64,
              r->n_train, c->batch);
    return SBN_OK;
}

static sbn_status create_optimizer(run *r)
{
    int n, params = 0;
    const sbn_model_tensor *t = sbn_model_tensors(r->model, &n);
    sbn_optimizer_tensor *list;
    SBN_TRY(sbni_alloc(n, sizeof *list, "optimizer", &list));
    for (; params < n && t[params].grad; params++)
        list[params] =
            (sbn_optimizer_tensor){t[params].data, t[params].grad, t[params].count,
                                   t[params].decays || r->cfg->decay_all};
    const sbn_trainer_config *c = r->cfg;
    sbn_optimizer_config cfg = {c->momentum,   c->weight_decay, c->nesterov,
                                SBN_F32,       c->optimizer,    c->adam_beta1,
                                c->adam_beta2, c->adam_eps};
    sbn_status status = sbn_optimizer_create(&cfg, list, params, &r->optimizer);
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
static sbn_status check_smallest(const run *r)
{
    const sbn_trainer_config *c = r->cfg;
    const char *layer = flat_norm(r->model);
    if (!layer) return SBN_OK;
    int64_t last = r->n_train % c->batch, ghost = c->norm_batch;
    bool has_last = r->per_epoch > r->n_train / c->batch && r->steps >= r->per_epoch;
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
              layer, last, r->n_train);
    return SBN_OK;
}

static sbn_status create_local(run *r)
{
    const sbn_trainer_config *c = r->cfg;
    int64_t capacity;
    SBN_TRY(sbni_check_text(r->model, c->net));
    SBN_TRY(sbni_check_fit(r->model, &r->data[SBN_SPLIT_TRAIN].info));
    SBN_TRY(sbni_check_fit(r->model, &r->data[SBN_SPLIT_TEST].info));
    SBN_TRY(create_optimizer(r));
    SBN_TRY(sbni_hostdata_sampler(&r->data[SBN_SPLIT_TRAIN], c, r->n_train, &r->sampler));
    sbn_model_input(r->model, &capacity);
    SBN_TRY(sbni_alloc(capacity, sizeof *r->labels, "labels", &r->labels));
    r->per_epoch = sbn_sampler_steps(r->sampler);
    r->steps = c->steps;
    if (!c->steps)
        SBN_CHECK(!__builtin_mul_overflow(c->epochs, r->per_epoch, &r->steps), SBN_E_ARG,
                  "%" PRId64 " epochs of %" PRId64 " steps are too many to count",
                  c->epochs, r->per_epoch);
    SBN_TRY(check_smallest(r));
    r->schedule = c->schedule;
    r->schedule.steps = r->steps;
    r->n_settings = sbni_settings_list(c, r->n_train, r->data[SBN_SPLIT_TRAIN].digest,
                                       r->steps, r->settings);
    return SBN_OK;
}

static sbn_status create_model(run *r)
{
    sbn_model_config cfg = sbn_model_config_default(r->cfg->net, r->cfg->batch);
    cfg.seed = r->cfg->seed;
    cfg.norm = r->cfg->norm;
    cfg.norm_groups = r->cfg->norm_groups;
    cfg.norm_batch = r->cfg->norm_batch;
    cfg.eps = r->cfg->norm_eps;
    cfg.momentum = r->cfg->norm_momentum;
    cfg.running = r->cfg->norm_running;
    cfg.overlap = r->cfg->overlap;
    cfg.label_smoothing = r->cfg->label_smoothing;
    cfg.init_scale = r->cfg->init_scale;
    cfg.init_sigma = r->cfg->init_sigma;
    SBN_TRY(sbn_model_create(&cfg, r->group, &r->model));
    return sbn_group_agree(r->group, create_local(r));
}

/* Everybody gets what process 0 loaded, so that only it needs to see the file. */
static sbn_status broadcast_state(run *r)
{
    int n, exponents;
    const sbn_model_tensor *t = sbn_model_tensors(r->model, &n);
    int64_t *exponent = sbn_model_grad_exponents(r->model, &exponents);
    SBN_TRY(sbni_group_broadcast(r->group, &r->step, sizeof r->step, 0));
    SBN_TRY(sbni_group_broadcast(r->group, exponent, 8 * (int64_t)exponents, 0));
    for (int i = 0; i < n; i++) {
        int64_t bytes = t[i].count * (t[i].is_integer ? 8 : 4);
        SBN_TRY(sbni_group_broadcast(r->group, t[i].data, bytes, 0));
        for (int k = 0; t[i].grad && k < sbn_optimizer_states(r->optimizer); k++)
            SBN_TRY(sbni_group_broadcast(
                r->group, sbn_optimizer_state(r->optimizer, i, k), bytes, 0));
    }
    r->first = r->step;
    return SBN_OK;
}

/* Give an earlier run's file another name. */
static sbn_status move_aside(const run *r, const char *file, const char *to)
{
    char path[PATH_BYTES], aside[PATH_BYTES];
    SBN_TRY(path_of(r, file, path));
    SBN_TRY(path_of(r, to, aside));
    SBN_CHECK(rename(path, aside) == 0 || errno == ENOENT, SBN_E_IO,
              "cannot move %s aside: %s", path, strerror(errno));
    return SBN_OK;
}

static sbn_status load_checkpoint(run *r)
{
    char path[PATH_BYTES];
    struct stat info;
    SBN_TRY(path_of(r, "checkpoint.safetensors", path));
    if (r->cfg->resume) {
        if (stat(path, &info) != 0) {
            SBN_CHECK(errno == ENOENT, SBN_E_IO, "cannot look at %s: %s", path,
                      strerror(errno));
            return SBN_OK; /* nothing to resume from: begin */
        }
        SBN_TRY(sbni_checkpoint_load(path, r->model, r->optimizer, &r->step, r->settings,
                                     r->n_settings));
        SBN_CHECK(r->step <= r->steps, SBN_E_ARG,
                  "%s is at step %" PRId64 ", beyond this run's %" PRId64 " steps", path,
                  r->step, r->steps);
        return SBN_OK;
    }
    /* A new run over an old one: a later --resume must not find the old one's state, nor
     * an evaluation the old one's weights. */
    SBN_TRY(move_aside(r, "checkpoint.safetensors", "checkpoint-old.safetensors"));
    SBN_TRY(move_aside(r, "comm.json", "comm-old.json"));
    return move_aside(r, "model.safetensors", "model-old.safetensors");
}

static sbn_status open_files(run *r, int hosts)
{
    if (!r->writes) return SBN_OK;
    char path[PATH_BYTES];
    SBN_TRY(path_of(r, "run.json", path));
    sbn_model_memory memory = sbn_model_get_memory(r->model);
    SBN_TRY(sbni_runfile_write(path, r->cfg, &memory, sbn_group_size(r->group), hosts));
    SBN_TRY(path_of(r, "metrics.jsonl", path));
    return sbni_metrics_open(path, r->cfg->resume ? r->step : -1, &r->metrics);
}

static sbn_status prepare(run *r)
{
    SBN_TRY(sbn_group_agree(r->group, sbni_settings_check(r->cfg)));
    SBN_TRY(sbni_settings_check_alike(r->cfg, r->group));
    r->writes = r->cfg->out && sbn_group_rank(r->group) == 0;
    SBN_TRY(
        sbn_group_agree(r->group, r->writes ? sbni_folder_make(r->cfg->out) : SBN_OK));
    SBN_TRY(open_data(r));
    SBN_TRY(create_model(r));
    SBN_TRY(sbn_group_agree(r->group, r->writes ? load_checkpoint(r) : SBN_OK));
    SBN_TRY(broadcast_state(r));
    int hosts, processes;
    SBN_TRY(sbni_group_hosts(r->group, &hosts, &processes));
    sbn_status status = open_files(r, hosts);
    if (status == SBN_OK && sbn_group_rank(r->group) == 0)
        status = sbni_progress_create(r->cfg->progress, r->step, r->steps,
                                      r->cfg->steps ? 0 : r->cfg->epochs, &r->progress);
    return sbn_group_agree(r->group, status);
}

static int64_t epoch_of(const run *r, int64_t step)
{
    return (step - 1) / r->per_epoch + 1;
}

/* Limits are a function of the step, so nothing of them is saved. */
static sbn_status set_limits(const run *r)
{
    double r_max, d_max;
    sbn_schedule_limits(&r->cfg->renorm, r->step, &r_max, &d_max);
    return sbn_model_set_limits(r->model, r_max, d_max);
}

/* Limits and clipped fractions are those that the layers say they have. */
static sbn_status log_step(run *r, double loss, double lr)
{
    bool renorm = r->cfg->norm == SBN_MODEL_NORM_RENORM;
    sbn_norm_clipped clipped = sbn_model_get_clipped(r->model);
    return sbni_metrics_step(r->metrics, r->step, epoch_of(r, r->step), loss, lr,
                             renorm ? &clipped : NULL);
}

static sbn_status train_step(run *r)
{
    const int64_t *index;
    int64_t total, first, n, capacity;
    sbn_sampler_batch(r->sampler, r->step, &index, &total);
    r->step++;
    SBN_TRY(sbn_model_share(r->model, total, &first, &n));
    sbni_fetch(r->data[SBN_SPLIT_TRAIN].dataset, index + first, n,
               sbn_model_input(r->model, &capacity), r->labels);
    SBN_TRY(set_limits(r));
    sbn_model_set_vote(r->model, sbni_stop_vote(&r->stop));
    sbn_model_result result;
    sbn_status status = sbn_model_gradient(r->model, r->labels, total, &result);
    if (status != SBN_OK) return sbni_fail_in(status, "step %" PRId64, r->step);
    double lr = sbn_schedule_lr(&r->schedule, r->step);
    sbn_optimizer_step(r->optimizer, r->step, lr);
    r->images += total;
    r->votes = result.votes;
    if (r->progress)
        sbni_progress_step(r->progress, r->step, epoch_of(r, r->step), result.loss,
                           total);
    if (r->metrics && r->written == SBN_OK) r->written = log_step(r, result.loss, lr);
    return SBN_OK;
}

static sbn_status test(run *r)
{
    SBN_TRY(sbni_evaluate(r->model, r->data[SBN_SPLIT_TEST].dataset, r->n_test, r->group,
                          &r->tested));
    r->has_tested = true;
    return SBN_OK;
}

static double accuracy(const run *r)
{
    return (double)r->tested.correct / (double)r->n_test;
}

static sbn_status test_and_report(run *r)
{
    SBN_TRY(test(r));
    int64_t epoch = epoch_of(r, r->step);
    if (r->progress) sbni_progress_eval(r->progress, epoch, r->tested.loss, accuracy(r));
    if (r->metrics && r->written == SBN_OK)
        r->written =
            sbni_metrics_eval(r->metrics, r->step, epoch, r->tested.loss, accuracy(r));
    if (r->metrics && r->written == SBN_OK)
        r->written = sbni_metrics_flush(r->metrics, 0);
    return sbn_group_agree(r->group, r->written);
}

/* The lines that a checkpoint relies on reach the disk before it does. Processes whose
 * weights differ (another CPU or library) must not go on as if they were one. */
static sbn_status save(run *r)
{
    SBN_TRY(sbni_group_check_same(r->group, sbni_model_digest(r->model),
                                  "digest of the weights"));
    if (r->writes && r->written == SBN_OK) {
        char path[PATH_BYTES];
        r->written = sbni_metrics_flush(r->metrics, 1);
        if (r->written == SBN_OK) r->written = path_of(r, "checkpoint.safetensors", path);
        if (r->written == SBN_OK)
            r->written = sbni_checkpoint_save(path, r->model, r->optimizer, r->step,
                                              r->settings, r->n_settings);
    }
    return sbn_group_agree(r->group, r->written);
}

/* Behind a step after which the run was saved. */
static sbn_status stopped(run *r)
{
    sbni_stop_heeded(&r->stop);
    return sbni_fail(SBN_E_STOPPED,
                     "stopped by %s after step %" PRId64 " of %" PRId64 "%s%s",
                     sbni_stop_reason(r->votes), r->step, r->steps,
                     r->cfg->out ? ", saved; go on with --resume --out " : "",
                     r->cfg->out ? r->cfg->out : "");
}

static sbn_status train(run *r)
{
    sbn_group_clear_traffic(r->group); /* waiting for data says nothing of messages */
    while (r->step < r->steps) {
        double start = sbni_clock_s();
        SBN_TRY(train_step(r));
        r->train_s += sbni_clock_s() - start;
        bool last = r->step == r->steps, epoch_end = r->step % r->per_epoch == 0;
        int64_t every = r->cfg->checkpoint_every;
        if (last || epoch_end) SBN_TRY(test_and_report(r));
        if (last || (every ? r->step % every == 0 : epoch_end) || r->votes)
            SBN_TRY(save(r));
        if (r->votes && !last) return stopped(r);
    }
    if (!r->has_tested)
        SBN_TRY(test(r)); /* resumed at the end: nothing was left to train */
    return SBN_OK;
}

static sbn_status finish(run *r, sbn_trainer_result *result)
{
    double seconds = sbni_clock_s() - r->began_s;
    *result = (sbn_trainer_result){
        r->step,        seconds,     r->train_s > 0 ? (double)r->images / r->train_s : 0,
        r->tested.loss, accuracy(r), sbn_model_get_memory(r->model)};
    sbn_status status = SBN_OK;
    if (r->writes) {
        char path[PATH_BYTES];
        status = path_of(r, "model.safetensors", path);
        if (status == SBN_OK) status = sbni_model_save(path, r->model);
        if (status == SBN_OK)
            status = sbni_metrics_done(r->metrics, r->step, seconds, result->images_per_s,
                                       result->test_accuracy);
        if (status == SBN_OK) status = sbni_metrics_close(&r->metrics);
    }
    return sbn_group_agree(r->group, status);
}

sbn_status sbn_train(const sbn_trainer_config *cfg, sbn_group *group,
                     sbn_trainer_result *result)
{
    SBN_CHECK(cfg && group && result, SBN_E_ARG,
              "sbn_train: expected settings, a group and a place for the result");
    run *r;
    SBN_TRY(sbni_alloc(1, sizeof *r, "run", &r));
    r->cfg = cfg;
    r->group = group;
    r->began_s = sbni_clock_s();
    r->stop = sbni_stop_begin(cfg, sbn_group_rank(group) == 0);
    sbn_status status = prepare(r);
    if (status == SBN_OK) status = train(r);
    if (status == SBN_OK) status = finish(r, result);
    char text[SBNI_ERROR_BYTES]; /* closing must not hide what went wrong */
    snprintf(text, sizeof text, "%s", sbn_last_error());
    sbni_progress_destroy(&r->progress);
    sbni_metrics_close(&r->metrics);
    if (status != SBN_OK) sbni_fail(status, "%s", text);
    sbn_sampler_destroy(&r->sampler);
    sbn_optimizer_destroy(&r->optimizer);
    sbn_model_destroy(&r->model);
    sbni_free(r->labels);
    for (int i = 0; i < 2; i++) sbni_hostdata_close(&r->data[i]);
    sbni_free(r);
    return status;
}
