#include "syncbn/trainer.h"

#include <inttypes.h>
#include <stddef.h>

#include "comm/alike.h"
#include "comm/group.h"
#include "core/clock.h"
#include "core/memory.h"
#include "train/evaluate.h"
#include "train/folder.h"
#include "train/probe.h"
#include "train/replicas.h"
#include "train/session.h"

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
                                .dropout = SBN_DROPOUT_NET,
                                .seed = 1,
                                .log_every = 1,
                                .track_every = 100,
                                .overlap = SBN_OVERLAP_NETWORK};
}

static int64_t epoch_of(const sbni_session *s, int64_t step)
{
    return (step - 1) / s->per_epoch + 1;
}

/* Limits are a function of the step, so nothing of them is saved. */
static sbn_status set_limits(const sbni_session *s)
{
    double r_max, d_max;
    sbn_schedule_limits(&s->cfg->renorm, s->step, &r_max, &d_max);
    return sbn_model_set_limits(s->model, r_max, d_max);
}

static bool is_logged(const sbni_session *s)
{
    return s->step % s->cfg->log_every == 0 || s->step == s->steps;
}

/* Limits and clipped fractions are those that the layers say they have. */
static void log_step(sbni_session *s)
{
    bool renorm = s->cfg->norm == SBN_MODEL_NORM_RENORM;
    sbn_norm_clipped clipped = sbn_model_get_clipped(s->model);
    if (s->metrics && s->written == SBN_OK)
        s->written = sbni_metrics_step(s->metrics, s->step, epoch_of(s, s->step), s->loss,
                                       s->lr, renorm ? &clipped : NULL);
}

/* Of the step under way, and what is measured before it. */
static sbn_status gradient(sbni_session *s, const int64_t *index, int64_t total,
                           sbn_model_result *result)
{
    int64_t first, n;
    SBN_TRY(sbni_probe_gradients(s, index, total));
    sbn_model_set_step(s->model, s->step - 1);
    SBN_TRY(sbn_model_share(s->model, total, &first, &n));
    sbni_session_fetch(s, index + first, n);
    sbn_model_set_vote(s->model, sbni_stop_vote(&s->stop));
    return sbn_model_gradient(s->model, s->labels, total, result);
}

static sbn_status train_step(sbni_session *s)
{
    const int64_t *index;
    int64_t total;
    bool skipped;
    sbn_model_result result;
    sbn_sampler_batch(s->sampler, s->step, &index, &total);
    s->step++;
    sbni_call_step(s->group, s->step);
    SBN_TRY(set_limits(s));
    SBN_TRY(sbni_skip_prepare(s));
    SBN_TRY(sbni_skip_judge(s, gradient(s, index, total, &result), &skipped));
    if (skipped) return SBN_OK;
    s->loss = result.loss;
    s->lr = sbn_schedule_lr(&s->schedule, s->step);
    sbn_optimizer_step(s->optimizer, s->step, s->lr);
    s->images += total;
    s->votes = result.votes;
    if (s->progress)
        sbni_progress_step(s->progress, s->step, epoch_of(s, s->step), result.loss,
                           total);
    if (is_logged(s)) log_step(s);
    return sbni_probe_activations(s, total);
}

static bool is_evaluated(const sbni_session *s)
{
    int64_t every = s->cfg->eval_every ? s->cfg->eval_every : s->per_epoch;
    return s->step % every == 0 || s->step == s->steps;
}

static sbn_status test(sbni_session *s)
{
    SBN_TRY(sbni_probe_scores(s, &s->test, &s->train));
    s->reached = s->cfg->target > 0 && s->test.accuracy >= s->cfg->target;
    return SBN_OK;
}

static sbn_status test_and_report(sbni_session *s)
{
    SBN_TRY(test(s));
    if (s->reached && !is_logged(s)) log_step(s); /* it became the last */
    int64_t epoch = epoch_of(s, s->step);
    if (s->progress)
        sbni_progress_eval(s->progress, epoch, s->cfg->eval_every ? s->step : 0,
                           s->test.loss, s->test.accuracy);
    if (s->metrics && s->written == SBN_OK)
        s->written = sbni_metrics_eval(s->metrics, s->step, epoch, &s->test,
                                       s->n_eval_train ? &s->train : NULL);
    sbni_probe_statistics(s);
    if (s->metrics && s->written == SBN_OK)
        s->written = sbni_metrics_flush(s->metrics, 0);
    return sbn_group_agree(s->group, s->written);
}

static sbn_status check_replicas(sbni_session *s)
{
    return sbni_replicas_check(s->group, s->model, s->optimizer, s->step);
}

/* Weights that processes disagree about are not saved. The lines that a checkpoint relies
 * on reach the disk before it does. */
static sbn_status save(sbni_session *s)
{
    SBN_TRY(check_replicas(s));
    if (s->writes && s->written == SBN_OK) {
        s->written = sbni_metrics_flush(s->metrics, 1);
        if (s->written == SBN_OK)
            s->written = sbni_folder_save(s->cfg->out, s->model, s->optimizer, s->step,
                                          s->settings, s->n_settings);
    }
    return sbn_group_agree(s->group, s->written);
}

/* Behind a step after which the run was saved. */
static sbn_status stopped(sbni_session *s)
{
    sbni_stop_heeded(&s->stop);
    return sbni_fail(SBN_E_STOPPED,
                     "stopped by %s after step %" PRId64 " of %" PRId64 "%s%s",
                     sbni_stop_reason(s->votes), s->step, s->steps,
                     s->cfg->out ? ", saved; go on with --resume --out " : "",
                     s->cfg->out ? s->cfg->out : "");
}

/* A run that is resumed behind its last step, or behind the evaluation that reached its
 * target, has nothing left to train, and has recorded everything. */
static sbn_status look_back(sbni_session *s)
{
    bool looks = s->step > 0 && s->cfg->target > 0 && is_evaluated(s);
    return looks || s->step == s->steps ? test(s) : SBN_OK;
}

static sbn_status train(sbni_session *s)
{
    sbn_group_clear_traffic(s->group); /* waiting for data says nothing of messages */
    SBN_TRY(sbn_group_agree(s->group, sbni_skip_prepare(s)));
    SBN_TRY(look_back(s));
    while (s->step < s->steps && !s->reached) {
        double start = sbni_clock_s();
        SBN_TRY(train_step(s));
        s->train_s += sbni_clock_s() - start;
        if (is_evaluated(s)) SBN_TRY(test_and_report(s));
        bool last = s->step == s->steps || s->reached;
        if (last) SBN_TRY(sbni_probe_precise(s));
        int64_t every =
            s->cfg->checkpoint_every ? s->cfg->checkpoint_every : s->per_epoch;
        int64_t checks = s->cfg->check_every;
        /* within a row of skips a checkpoint would forget how long it is */
        if (last || (s->step % every == 0 && !s->skip.in_a_row) || s->votes)
            SBN_TRY(save(s));
        else if (checks && s->step % checks == 0)
            SBN_TRY(check_replicas(s));
        if (s->votes && !last) return stopped(s);
        if (s->votes) sbni_stop_heeded(&s->stop); /* it ends anyway */
    }
    return SBN_OK;
}

static sbn_status finish(sbni_session *s, sbn_trainer_result *result)
{
    double seconds = sbni_clock_s() - s->began_s;
    *result = (sbn_trainer_result){s->step,
                                   seconds,
                                   s->train_s > 0 ? (double)s->images / s->train_s : 0,
                                   s->test.loss,
                                   s->test.accuracy,
                                   sbn_model_get_memory(s->model),
                                   s->reached,
                                   s->skip.all};
    sbn_status status = SBN_OK;
    if (s->writes) {
        char path[SBNI_PATH_BYTES];
        status = sbni_session_path(s, "model.safetensors", path);
        if (status == SBN_OK) status = sbni_model_save(path, s->model);
        if (status == SBN_OK)
            status = sbni_metrics_done(s->metrics, s->step, seconds, result->images_per_s,
                                       result->test_accuracy, s->cfg->target, s->reached);
        if (status == SBN_OK) status = sbni_metrics_close(&s->metrics);
    }
    return sbn_group_agree(s->group, status);
}

sbn_status sbn_train(const sbn_trainer_config *cfg, sbn_group *group,
                     sbn_trainer_result *result)
{
    SBN_CHECK(cfg && group && result, SBN_E_ARG,
              "sbn_train: expected settings, a group and a place for the result");
    sbni_session *s;
    SBN_TRY(sbni_alloc(1, sizeof *s, "run", &s));
    s->cfg = cfg;
    s->group = group;
    s->began_s = sbni_clock_s();
    s->stop = sbni_stop_begin(cfg, sbn_group_rank(group) == 0);
    sbn_status status = sbni_session_open(s);
    if (status == SBN_OK) status = train(s);
    if (status == SBN_OK) status = finish(s, result);
    sbni_session_close(s);
    sbni_free(s);
    return status;
}
