#include "train/probe.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "comm/group.h"
#include "core/clock.h"
#include "core/memory.h"
#include "nn/layer.h"
#include "train/evaluate.h"
#include "train/session.h"
#include "train/snapshot.h"

/* "activ" */
enum { ACTIVATIONS_TAG = 0x61637469 };

/* LAYER or LAYER:UNIT. */
static sbn_status parse_track(const char *text, sbni_probe *probe)
{
    const char *colon = strchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : strlen(text);
    char *end = NULL;
    if (colon) probe->unit = strtoll(colon + 1, &end, 10);
    SBN_CHECK(length > 0 && length < sizeof probe->layer &&
                  (!colon || (colon[1] && !*end)),
              SBN_E_ARG, "track: expected LAYER or LAYER:UNIT, got \"%s\"", text);
    memcpy(probe->layer, text, length);
    return SBN_OK;
}

static sbn_status open_track(sbni_session *s)
{
    sbni_probe *probe = &s->probe;
    SBN_TRY(parse_track(s->cfg->track, probe));
    SBN_TRY(sbni_model_track(s->model, probe->layer, probe->unit));
    SBN_TRY(sbni_alloc(s->cfg->batch, sizeof *probe->sorted, "tracked values",
                       &probe->sorted));
    SBN_TRY(sbni_reduce_create(s->group, s->cfg->batch, &probe->values));
    return sbni_reduce_label(&probe->values, "model", "activations");
}

static sbn_status open_gradients(sbni_session *s)
{
    int64_t b = s->cfg->norm_batch;
    SBN_CHECK(
        b != SBN_NORM_BATCH_ALL && b <= s->cfg->batch / 2, SBN_E_ARG,
        "the noise scale compares gradients of norm batches with that of the batch: "
        "expected norm batches of at most half the batch of %" PRId64 ", got %s%" PRId64,
        s->cfg->batch, b == SBN_NORM_BATCH_ALL ? "one of " : "",
        b == SBN_NORM_BATCH_ALL ? s->cfg->batch : b);
    return sbni_gradnoise_create(s->model, &s->probe.noise);
}

sbn_status sbni_probe_open(sbni_session *s)
{
    sbn_status status = s->cfg->track ? open_track(s) : SBN_OK;
    if (status == SBN_OK && s->cfg->noise_scale) status = open_gradients(s);
    SBN_TRY(sbn_group_agree(s->group, status));
    return s->cfg->track ? sbni_reduce_connect(&s->probe.values) : SBN_OK;
}

void sbni_probe_close(sbni_session *s)
{
    sbni_free(s->probe.sorted);
    if (s->probe.values.group) sbni_reduce_destroy(&s->probe.values);
    sbni_gradnoise_free(&s->probe.noise);
}

static sbn_status score(const sbni_session *s, sbn_split split, int64_t n,
                        sbni_score *score)
{
    sbn_model_result found;
    SBN_TRY(sbni_evaluate(s->model, s->data[split].dataset, n, s->group, &found));
    *score = (sbni_score){found.loss, (double)found.correct / (double)n};
    return SBN_OK;
}

sbn_status sbni_probe_scores(const sbni_session *s, sbni_score *test, sbni_score *train)
{
    SBN_TRY(score(s, SBN_SPLIT_TEST, s->n_test, test));
    if (!s->n_eval_train) return SBN_OK;
    return score(s, SBN_SPLIT_TRAIN, s->n_eval_train, train);
}

sbn_status sbni_probe_precise(sbni_session *s)
{
    int64_t n = s->cfg->precise;
    if (!n) return SBN_OK;
    if (n == SBN_PRECISE_ALL || n > s->n_train) n = s->n_train;
    sbni_snapshot before = {0};
    sbni_score test, train;
    sbn_status status;
    SBN_GOTO(sbn_group_agree(s->group, sbni_snapshot_take(s->model, &before)));
    SBN_GOTO(sbni_precise(s->model, s->data[SBN_SPLIT_TRAIN].dataset, n, s->group));
    SBN_GOTO(sbni_probe_scores(s, &test, &train));
    sbni_snapshot_restore(&before, s->model);
    if (s->metrics && s->written == SBN_OK)
        s->written = sbni_metrics_precise(s->metrics, s->step, n, &test,
                                          s->n_eval_train ? &train : NULL);
fail:
    sbni_snapshot_free(&before);
    return status;
}

/* Norm batch g as a batch of its own: to the bit what it is within the batch, since
 * slices end with norm batches; but for dropout, whose masks go by the step and the place
 * in the batch: each has a step of its own, that their masks are independent too. */
static sbn_status add_norm_batch(sbni_session *s, const int64_t *index, int64_t g)
{
    int64_t first, n;
    sbn_model_result result;
    SBN_TRY(sbn_model_share(s->model, s->cfg->norm_batch, &first, &n));
    sbni_session_fetch(s, index + first, n);
    sbn_model_set_step(s->model, s->step + g);
    SBN_TRY(sbn_model_gradient(s->model, s->labels, s->cfg->norm_batch, &result));
    sbni_gradnoise_add(s->model, &s->probe.noise);
    return SBN_OK;
}

sbn_status sbni_probe_gradients(sbni_session *s, const int64_t *index, int64_t total)
{
    int64_t every = s->cfg->noise_scale, b = s->cfg->norm_batch;
    if (!every || s->step % every != 0 || total < 2 * b) return SBN_OK;
    double start_s = sbni_clock_s();
    sbni_snapshot before = {0};
    sbn_status status;
    SBN_GOTO(sbn_group_agree(s->group, sbni_snapshot_take(s->model, &before)));
    sbni_gradnoise_clear(&s->probe.noise);
    for (int64_t g = 0; (g + 1) * b <= total; g++) {
        status = add_norm_batch(s, index + g * b, g);
        if (status != SBN_OK) {
            sbni_fail_in(status, "noise scale at step %" PRId64, s->step);
            goto fail;
        }
        sbni_snapshot_restore(&before, s->model); /* renorm looks at running statistics */
    }
    sbni_noise_scale found = sbni_gradnoise_read(&s->probe.noise, b);
    if (s->metrics && s->written == SBN_OK)
        s->written = sbni_metrics_noise_scale(s->metrics, s->step, &found);
    s->train_s -= sbni_clock_s() - start_s; /* no part of the rate of training */
fail:
    sbni_snapshot_free(&before);
    return status;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Between the two nearest of n sorted values, linearly. */
static double percentile(const double *sorted, int64_t n, double p)
{
    double at = p / 100 * (double)(n - 1);
    int64_t below = (int64_t)at;
    if (below >= n - 1) return sorted[n - 1];
    double part = at - (double)below;
    return sorted[below] + part * (sorted[below + 1] - sorted[below]);
}

sbn_status sbni_probe_activations(sbni_session *s, int64_t total)
{
    if (!s->cfg->track || s->step % s->cfg->track_every != 0) return SBN_OK;
    double start_s = sbni_clock_s();
    sbni_reduce *message = &s->probe.values;
    int64_t first, n;
    SBN_TRY(sbn_model_share(s->model, total, &first, &n));
    sbni_reduce_clear(message, ACTIVATIONS_TAG);
    /* each word is written by one process: their sum is a copy of its bits */
    for (int64_t row = 0; row < n; row++) {
        double value = sbni_model_tracked(s->model, row);
        memcpy(&message->send[SBNI_HEAD_WORDS + first + row], &value, sizeof value);
    }
    SBN_TRY(sbni_reduce_run(message));
    SBN_TRY(sbni_reduce_verdict(message, SBN_OK, "tracked values"));
    if (s->metrics && s->written == SBN_OK) {
        double *sorted = s->probe.sorted;
        memcpy(sorted, message->sum + SBNI_HEAD_WORDS, (size_t)total * sizeof *sorted);
        qsort(sorted, (size_t)total, sizeof *sorted, ascending);
        const double p[3] = {percentile(sorted, total, 15), percentile(sorted, total, 50),
                             percentile(sorted, total, 85)};
        s->written = sbni_metrics_activations(s->metrics, s->step, s->probe.layer,
                                              s->probe.unit, p);
    }
    s->train_s -= sbni_clock_s() - start_s;
    return SBN_OK;
}

void sbni_probe_statistics(sbni_session *s)
{
    if (!s->cfg->stat_noise) return;
    for (int k = 0; k < sbn_model_norms(s->model); k++) {
        const char *layer;
        sbni_noise noise = sbni_model_noise(s->model, k, &layer);
        if (s->metrics && s->written == SBN_OK)
            s->written = sbni_metrics_statistics(s->metrics, s->step, layer, noise);
    }
}
