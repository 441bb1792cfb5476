#include "train/settings.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "comm/alike.h"
#include "core/status.h"
#include "core/text.h"
#include "data/shift.h"
#include "nn/normkind.h"
#include "syncbn/norm.h"

/* Steps before the warm-up's end are refused: the limits would stay closed far beyond
 * them, and the run would be one of batch norm without a word. */
static sbn_status check_renorm(const sbn_renorm_schedule *s)
{
    SBN_CHECK(s->r_max >= 1 && isfinite(s->r_max) && s->d_max >= 0 && isfinite(s->d_max),
              SBN_E_ARG,
              "expected renorm limits r_max >= 1 and d_max >= 0, got %g and %g", s->r_max,
              s->d_max);
    SBN_CHECK(s->warmup >= 0 && s->r_steps >= s->warmup && s->d_steps >= s->warmup,
              SBN_E_ARG,
              "expected renorm limits reached at the warm-up's step %" PRId64
              " or later, got r at %" PRId64 " and d at %" PRId64,
              s->warmup, s->r_steps, s->d_steps);
    return SBN_OK;
}

sbn_status sbni_settings_check(const sbn_trainer_config *c)
{
    SBN_CHECK(c->net && c->data, SBN_E_ARG, "expected a net and a data set");
    SBN_CHECK(c->batch >= 1, SBN_E_ARG, "expected batch >= 1, got %" PRId64, c->batch);
    SBN_CHECK(c->norm_batch >= 0 && c->norm_batch <= c->batch, SBN_E_ARG,
              "expected norm batch 1 to batch %" PRId64 ", got %" PRId64, c->batch,
              c->norm_batch);
    SBN_CHECK(c->steps >= 0 && c->epochs >= 0 && (c->steps > 0 || c->epochs > 0),
              SBN_E_ARG,
              "expected epochs >= 1 or steps >= 1, got %" PRId64 " and %" PRId64,
              c->epochs, c->steps);
    SBN_TRY(sbni_normkind_check(c->norm, c->norm_groups));
    if (c->norm == SBN_MODEL_NORM_RENORM) SBN_TRY(check_renorm(&c->renorm));
    SBN_CHECK(c->label_smoothing >= 0 && c->label_smoothing < 1, SBN_E_ARG,
              "expected label smoothing of 0 to below 1, got %g", c->label_smoothing);
    SBN_CHECK(c->dropout == SBN_DROPOUT_NET || (c->dropout >= 0 && c->dropout < 1),
              SBN_E_ARG, "expected a rate of dropout of 0 to below 1, got %g",
              c->dropout);
    const sbn_schedule *s = &c->schedule;
    SBN_CHECK(s->lr >= 0 && isfinite(s->lr), SBN_E_ARG, "expected lr >= 0, got %g",
              s->lr);
    SBN_CHECK(s->warmup >= 0 && s->every >= 1 && isfinite(s->factor), SBN_E_ARG,
              "expected warm-up >= 0 and a reduction every step or more, got %" PRId64
              " and %" PRId64,
              s->warmup, s->every);
    SBN_CHECK(c->max_skips >= 0, SBN_E_ARG, "expected skips >= 0, got %" PRId64,
              c->max_skips);
    SBN_CHECK(c->max_time_s >= 0 && isfinite(c->max_time_s), SBN_E_ARG,
              "expected a limit of time >= 0, got %g", c->max_time_s);
    SBN_CHECK(c->limit_train >= 0 && c->limit_test >= 0 && c->checkpoint_every >= 0 &&
                  c->check_every >= 0,
              SBN_E_ARG, "expected limits, steps of checkpoints and of checks >= 0");
    SBN_CHECK(c->classes >= 0 && c->augment_shift >= 0, SBN_E_ARG,
              "expected classes and augmentation's shift >= 0, got %" PRId64
              " and %" PRId64,
              c->classes, c->augment_shift);
    SBN_CHECK(c->eval_every >= 0 && c->log_every >= 1 && c->eval_train >= 0 &&
                  c->precise >= SBN_PRECISE_ALL,
              SBN_E_ARG,
              "expected steps between evaluations >= 0 and between records >= 1, and "
              "numbers of samples, got %" PRId64 ", %" PRId64 ", %" PRId64
              " and %" PRId64,
              c->eval_every, c->log_every, c->eval_train, c->precise);
    SBN_CHECK(c->track_every >= 1 && c->noise_scale >= 0, SBN_E_ARG,
              "expected steps between records of a unit >= 1 and of noise >= 0, got "
              "%" PRId64 " and %" PRId64,
              c->track_every, c->noise_scale);
    SBN_CHECK(c->target >= 0 && c->target <= 1, SBN_E_ARG,
              "expected a target of accuracy 0 to 1, got %g", c->target);
    sbni_shift shift;
    SBN_TRY(sbni_shift_parse(c->shift, &shift));
    return SBN_OK;
}

typedef struct list {
    sbni_setting *at;
    int n;
} list;

__attribute__((format(printf, 3, 4))) static void put(list *l, const char *key,
                                                      const char *format, ...)
{
    va_list args;
    va_start(args, format);
    sbni_setting *s = &l->at[l->n++];
    s->key = key;
    vsnprintf(s->value, sizeof s->value, format, args);
    va_end(args);
}

const char *sbni_schedule_name(sbn_schedule_kind kind)
{
    static const char *const names[] = {"constant", "step", "cosine"};
    return names[kind];
}

static void put_real(list *l, const char *key, double value)
{
    sbni_setting *s = &l->at[l->n++];
    s->key = key;
    sbni_text_real(value, s->value, sizeof s->value);
}

static void put_schedule(list *l, const sbn_schedule *s, int64_t steps)
{
    put_real(l, "lr", s->lr);
    put(l, "schedule", "%s", sbni_schedule_name(s->kind));
    put(l, "warmup", "%" PRId64, s->warmup);
    if (s->kind == SBN_SCHEDULE_STEP) {
        put(l, "lr-every", "%" PRId64, s->every);
        put_real(l, "lr-factor", s->factor);
    }
    if (s->kind == SBN_SCHEDULE_COSINE) put(l, "steps", "%" PRId64, steps);
}

static void put_norm(list *l, const sbn_trainer_config *c)
{
    char kind[SBNI_NORMKIND_BYTES];
    sbni_normkind_print(c->norm, c->norm_groups, kind);
    put(l, "norm", "%s", kind);
    if (c->norm == SBN_MODEL_NORM_RENORM) {
        put_real(l, "renorm-r-max", c->renorm.r_max);
        put_real(l, "renorm-d-max", c->renorm.d_max);
        put(l, "renorm-warmup", "%" PRId64, c->renorm.warmup);
        put(l, "renorm-r-steps", "%" PRId64, c->renorm.r_steps);
        put(l, "renorm-d-steps", "%" PRId64, c->renorm.d_steps);
    }
    put_real(l, "norm-eps", c->norm_eps);
    put(l, "norm-running", "%s",
        c->norm_running == SBN_RUNNING_WHOLE_BATCH ? "batch" : "norm-batches");
    if (c->norm_momentum == SBN_MOMENTUM_CUMULATIVE)
        put(l, "norm-momentum", "none");
    else
        put_real(l, "norm-momentum", c->norm_momentum);
}

const char *sbni_optimizer_name(sbn_optimizer_kind kind)
{
    static const char *const names[] = {"sgd", "adam", "adamw"};
    return names[kind];
}

static void put_optimizer(list *l, const sbn_trainer_config *c)
{
    put(l, "optimizer", "%s", sbni_optimizer_name(c->optimizer));
    if (c->optimizer == SBN_OPTIMIZER_SGD) {
        put_real(l, "momentum", c->momentum);
        put(l, "nesterov", "%s", c->nesterov ? "on" : "off");
    } else {
        put_real(l, "adam-beta1", c->adam_beta1);
        put_real(l, "adam-beta2", c->adam_beta2);
        put_real(l, "adam-eps", c->adam_eps);
    }
    put_real(l, "weight-decay", c->weight_decay);
    put(l, "decay-all", "%s", c->decay_all ? "on" : "off");
}

int sbni_settings_list(const sbn_trainer_config *c, int64_t train, uint64_t digest,
                       int64_t steps, sbni_setting *settings)
{
    list l = {settings, 0};
    put(&l, "batch", "%" PRId64, c->batch);
    if (c->norm_batch == SBN_NORM_BATCH_ALL)
        put(&l, "norm-batch", "all");
    else
        put(&l, "norm-batch", "%" PRId64, c->norm_batch);
    put_norm(&l, c);
    put_schedule(&l, &c->schedule, steps);
    put_optimizer(&l, c);
    put_real(&l, "label-smoothing", c->label_smoothing);
    if (c->dropout == SBN_DROPOUT_NET)
        put(&l, "dropout", "net");
    else
        put_real(&l, "dropout", c->dropout);
    put_real(&l, "init-scale", c->init_scale);
    put_real(&l, "init-sigma", c->init_sigma);
    put(&l, "seed", "%" PRIu64, c->seed);
    put(&l, "drop-last", "%s", c->drop_last ? "on" : "off");
    put(&l, "classes", "%" PRId64, c->classes);
    put(&l, "augment-shift", "%" PRId64, c->augment_shift);
    put(&l, "augment-flip", "%s", c->augment_flip ? "on" : "off");
    put(&l, "train-samples", "%" PRId64, train);
    put(&l, "data-digest", "%016" PRIx64, digest);
    return l.n;
}

/* Settings that are compared beside those that decide the weights after a step. */
enum { OTHERS = 32 };

sbn_status sbni_settings_check_alike(const sbn_trainer_config *c, sbn_group *group)
{
    sbni_setting decides[SBNI_MAX_SETTINGS], others[OTHERS];
    sbni_named all[SBNI_MAX_SETTINGS + OTHERS];
    list l = {others, 0};
    put(&l, "net", "%s", c->net);
    put(&l, "data", "%s", c->data);
    put(&l, "out", "%s", c->out ? c->out : "(none)");
    put(&l, "epochs", "%" PRId64, c->epochs);
    put(&l, "steps", "%" PRId64, c->steps);
    put(&l, "limit-train", "%" PRId64, c->limit_train);
    put(&l, "limit-test", "%" PRId64, c->limit_test);
    put(&l, "resume", "%s", c->resume ? "on" : "off");
    put(&l, "checkpoint-every", "%" PRId64, c->checkpoint_every);
    put(&l, "no-overlap", "%s", c->overlap == SBN_OVERLAP_NEVER ? "on" : "off");
    put_real(&l, "max-time", c->max_time_s);
    put(&l, "eval-every", "%" PRId64, c->eval_every);
    put(&l, "log-every", "%" PRId64, c->log_every);
    put(&l, "eval-train", "%" PRId64, c->eval_train);
    put(&l, "precise-stats", "%" PRId64, c->precise);
    put_real(&l, "target", c->target);
    put(&l, "shift", "%s", c->shift ? c->shift : "");
    put(&l, "check-every", "%" PRId64, c->check_every);
    put(&l, "max-skips", "%" PRId64, c->max_skips);
    put(&l, "track", "%s", c->track ? c->track : "");
    put(&l, "track-every", "%" PRId64, (int64_t)c->track_every);
    put(&l, "stat-noise", "%s", c->stat_noise ? "on" : "off");
    put(&l, "noise-scale", "%" PRId64, (int64_t)c->noise_scale);
    int n = sbni_settings_list(c, 0, 0, c->steps, decides), i = 0;
    for (; i < l.n; i++) all[i] = (sbni_named){others[i].key, others[i].value};
    for (int k = 0; k < n; k++, i++)
        all[i] = (sbni_named){decides[k].key, decides[k].value};
    return sbni_alike(group, "", all, i);
}
