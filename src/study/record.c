#include "study/record.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "train/file.h"

void sbni_record_set(sbni_record *r, const char *name, double value)
{
    int i = 0;
    while (i < r->n && strcmp(r->at[i].name, name) != 0) i++;
    if (i == SBNI_VALUES || isnan(value)) return;
    if (i == r->n) r->n++;
    snprintf(r->at[i].name, SBNI_VALUE_NAME, "%s", name);
    r->at[i].value = value;
}

double sbni_record_get(const sbni_record *r, const char *name)
{
    for (int i = 0; i < r->n; i++)
        if (!strcmp(r->at[i].name, name)) return r->at[i].value;
    return NAN;
}

/* What a line of metrics is handed to. */
typedef sbn_status (*line_visit)(json_t *line, void *context);

static sbn_status visit_lines(const char *path, line_visit visit, void *context)
{
    FILE *f = fopen(path, "r");
    SBN_CHECK(f, SBN_E_IO, "cannot open %s: %s", path, strerror(errno));
    char *text = NULL;
    size_t room = 0;
    sbn_status status = SBN_OK;
    while (status == SBN_OK && getline(&text, &room, f) > 0) {
        json_t *line = json_loads(text, 0, NULL);
        status = line ? visit(line, context)
                      : sbni_fail(SBN_E_DATA, "%s: a line is no JSON", path);
        json_decref(line);
    }
    if (status == SBN_OK && ferror(f))
        status = sbni_fail(SBN_E_IO, "cannot read %s: %s", path, strerror(errno));
    free(text);
    fclose(f);
    return status;
}

static double number(const json_t *line, const char *field)
{
    const json_t *value = json_object_get(line, field);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static bool is_kind(const json_t *line, const char *kind)
{
    const char *text = json_string_value(json_object_get(line, "kind"));
    return text && !strcmp(text, kind);
}

typedef struct reading {
    const char *kind, *field;
    sbni_series *series;
    int room;
} reading;

static sbn_status add_to_series(json_t *line, void *context)
{
    reading *r = context;
    sbni_series *s = r->series;
    double value = number(line, r->field);
    if (!is_kind(line, r->kind) || isnan(value)) return SBN_OK;
    if (s->n == r->room) {
        int room = r->room ? 2 * r->room : 64;
        double *step, *values;
        SBN_TRY(sbni_alloc(room, sizeof *step, "series", &step));
        sbn_status status = sbni_alloc(room, sizeof *values, "series", &values);
        if (status != SBN_OK) {
            sbni_free(step);
            return status;
        }
        for (int i = 0; i < s->n; i++) {
            step[i] = s->step[i];
            values[i] = s->value[i];
        }
        sbni_series_free(&(sbni_series){0, s->step, s->value});
        s->step = step;
        s->value = values;
        r->room = room;
    }
    s->step[s->n] = number(line, "step");
    s->value[s->n++] = value;
    return SBN_OK;
}

sbn_status sbni_series_read(const char *metrics, const char *kind, const char *field,
                            sbni_series *series)
{
    *series = (sbni_series){0, NULL, NULL};
    reading r = {kind, field, series, 0};
    sbn_status status = visit_lines(metrics, add_to_series, &r);
    if (status != SBN_OK) sbni_series_free(series);
    return status;
}

void sbni_series_free(sbni_series *series)
{
    sbni_free(series->step);
    sbni_free(series->value);
    *series = (sbni_series){0, NULL, NULL};
}

static double mean(const double *v, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += v[i];
    return n ? sum / n : (double)NAN;
}

static double deviation(const double *v, int n)
{
    double m = mean(v, n), sum = 0;
    for (int i = 0; i < n; i++) sum += (v[i] - m) * (v[i] - m);
    return n ? sqrt(sum / n) : (double)NAN;
}

static void set_scores(sbni_record *r, const json_t *line, const char *prefix)
{
    char name[SBNI_VALUE_NAME];
    static const char *const halves[] = {"test", "train"};
    double error[2];
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%s_accuracy", halves[i]);
        error[i] = 1 - number(line, name);
        snprintf(name, sizeof name, "%s%s_error", prefix, halves[i]);
        sbni_record_set(r, name, error[i]);
        snprintf(name, sizeof name, "%s_loss", halves[i]);
        double loss = number(line, name);
        snprintf(name, sizeof name, "%s%s_loss", prefix, halves[i]);
        sbni_record_set(r, name, loss);
    }
    snprintf(name, sizeof name, "%sgap", prefix);
    sbni_record_set(r, name, error[0] - error[1]);
}

/* Sums of the noise of statistics, by layer, until the last line. */
typedef struct noise {
    char layer[SBNI_VALUE_NAME];
    double mean, var;
    int n;
} noise;
enum { LAYERS = 32 };

typedef struct collecting {
    sbni_record *record;
    int early; /* evaluations to keep one by one */
    noise layer[LAYERS];
} collecting;

static void add_noise(collecting *c, const json_t *line)
{
    const char *name = json_string_value(json_object_get(line, "layer"));
    for (int i = 0; name && i < LAYERS; i++) {
        noise *at = &c->layer[i];
        if (at->n && strcmp(at->layer, name) != 0) continue;
        if (!at->n) snprintf(at->layer, sizeof at->layer, "%.40s", name);
        at->mean += number(line, "mean_noise");
        at->var += number(line, "var_noise");
        at->n++;
        return;
    }
}

static sbn_status collect_line(json_t *line, void *context)
{
    collecting *c = context;
    sbni_record *r = c->record;
    if (is_kind(line, "eval")) {
        set_scores(r, line, "");
        if (c->early-- > 0) {
            char name[SBNI_VALUE_NAME];
            snprintf(name, sizeof name, "error_at/%.0f", number(line, "step"));
            sbni_record_set(r, name, sbni_record_get(r, "test_error"));
        }
        sbni_record_set(r, "epochs", number(line, "epoch"));
    } else if (is_kind(line, "precise")) {
        set_scores(r, line, "precise_");
    } else if (is_kind(line, "statistics")) {
        add_noise(c, line);
    } else if (is_kind(line, "done")) {
        sbni_record_set(r, "steps", number(line, "steps"));
        const json_t *reached = json_object_get(line, "reached");
        if (!reached) return SBN_OK;
        sbni_record_set(r, "reached", json_is_true(reached));
        if (json_is_true(reached))
            sbni_record_set(r, "steps_to_target", number(line, "steps"));
    }
    return SBN_OK;
}

static void set_noise(collecting *c)
{
    char name[SBNI_VALUE_NAME];
    double mean_noise = 0, var_noise = 0;
    int layers = 0;
    for (int i = 0; i < LAYERS && c->layer[i].n; i++) {
        const noise *at = &c->layer[i];
        snprintf(name, sizeof name, "mean_noise/%s", at->layer);
        sbni_record_set(c->record, name, at->mean / at->n);
        snprintf(name, sizeof name, "var_noise/%s", at->layer);
        sbni_record_set(c->record, name, at->var / at->n);
        mean_noise += at->mean / at->n;
        var_noise += at->var / at->n;
        layers++;
    }
    if (!layers) return;
    sbni_record_set(c->record, "mean_noise", mean_noise / layers);
    sbni_record_set(c->record, "var_noise", var_noise / layers);
}

static sbn_status set_batch_loss(const char *metrics, sbni_record *r)
{
    sbni_series s;
    SBN_TRY(sbni_series_read(metrics, "step", "loss", &s));
    int tail = (s.n + 9) / 10;
    sbni_record_set(r, "batch_loss", mean(s.value + s.n - tail, tail));
    sbni_series_free(&s);
    return SBN_OK;
}

/* Estimates of a ratio are biased; those of its two parts are not, so means come first.
 */
static sbn_status set_noise_scale(const char *metrics, sbni_record *r)
{
    sbni_series part[2];
    SBN_TRY(sbni_series_read(metrics, "noise_scale", "trace", &part[0]));
    sbn_status status = sbni_series_read(metrics, "noise_scale", "grad_sq", &part[1]);
    if (status == SBN_OK && part[0].n == part[1].n && part[0].n) {
        int half = part[0].n / 2, n = part[0].n - half;
        double scale = mean(part[0].value + half, n) / mean(part[1].value + half, n);
        if (scale > 0) sbni_record_set(r, "noise_scale", scale);
    }
    sbni_series_free(&part[0]);
    sbni_series_free(&part[1]);
    return status;
}

static sbn_status set_drift(const char *metrics, sbni_record *r)
{
    static const char *const fields[3] = {"p15", "p50", "p85"};
    sbni_series p[3] = {{0}};
    sbn_status status = SBN_OK;
    for (int i = 0; i < 3; i++)
        SBN_GOTO(sbni_series_read(metrics, "activations", fields[i], &p[i]));
    if (p[0].n && p[0].n == p[1].n && p[0].n == p[2].n) {
        double moved = 0, spread = mean(p[2].value, p[2].n) - mean(p[0].value, p[0].n);
        for (int i = 0; i < 3; i++) moved += deviation(p[i].value, p[i].n) / 3;
        if (spread > 0) sbni_record_set(r, "drift", moved / spread);
    }
fail:
    for (int i = 0; i < 3; i++) sbni_series_free(&p[i]);
    return status;
}

sbn_status sbni_record_collect(const char *metrics, int early, sbni_record *r)
{
    collecting c = {.record = r, .early = early};
    *r = (sbni_record){.status = "done"};
    SBN_TRY(visit_lines(metrics, collect_line, &c));
    set_noise(&c);
    SBN_TRY(set_batch_loss(metrics, r));
    SBN_TRY(set_noise_scale(metrics, r));
    return set_drift(metrics, r);
}

void sbni_record_diverged(int64_t classes, sbni_record *r)
{
    *r = (sbni_record){.status = "diverged"};
    sbni_record_set(r, "test_error", 1 - 1.0 / (double)classes);
    sbni_record_set(r, "reached", 0);
}

sbn_status sbni_record_save(const char *path, const sbni_record *r)
{
    json_t *values = json_object();
    for (int i = 0; i < r->n; i++)
        json_object_set_new(values, r->at[i].name, json_real(r->at[i].value));
    json_t *all = json_pack("{s:s s:f s:o}", "status", r->status, "seconds", r->seconds,
                            "values", values);
    char *text = all ? json_dumps(all, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(all);
    SBN_CHECK(text, SBN_E_MEMORY, "%s: no memory", path);
    sbn_status status = sbni_replacement_text(path, text);
    free(text);
    return status;
}

sbn_status sbni_record_load(const char *path, sbni_record *r, bool *found)
{
    json_error_t problem;
    *r = (sbni_record){.n = 0};
    FILE *f = fopen(path, "r");
    *found = f != NULL;
    SBN_CHECK(f || errno == ENOENT, SBN_E_IO, "cannot open %s: %s", path,
              strerror(errno));
    if (!f) return SBN_OK;
    json_t *all = json_loadf(f, 0, &problem), *value;
    fclose(f);
    const char *status = json_string_value(json_object_get(all, "status")), *name;
    json_t *values = json_object_get(all, "values");
    sbn_status result = SBN_OK;
    if (!status || !json_is_object(values))
        result = sbni_fail(SBN_E_DATA, "%s: expected the result of a trial", path);
    if (result == SBN_OK) {
        snprintf(r->status, sizeof r->status, "%s", status);
        r->seconds = number(all, "seconds");
        json_object_foreach(values, name, value)
            sbni_record_set(r, name, json_number_value(value));
    }
    json_decref(all);
    return result;
}
