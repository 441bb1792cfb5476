#include "study/summary.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"
#include "study/trial.h"
#include "train/file.h"

enum { MOST_METRICS = 2 * SBNI_VALUES };

static void add_metrics(sbni_summary *s, const sbni_record *r)
{
    for (int i = 0; i < r->n; i++) {
        int k = 0;
        while (k < s->n_metrics && strcmp(s->metrics[k], r->at[i].name) != 0) k++;
        if (k == s->n_metrics && k < MOST_METRICS)
            memcpy(s->metrics[s->n_metrics++], r->at[i].name, SBNI_VALUE_NAME);
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Means compare where all seeds have a value: less known is no better. */
static bool better(const sbni_sample *a, const sbni_sample *b)
{
    if (a->n != b->n) return a->n > b->n;
    return a->mean < b->mean;
}

static void choose(sbni_summary *s)
{
    const sbni_design *d = s->design;
    const char *metric = d->study->search;
    for (int i = 0; i < d->n_points; i++) s->chosen[i] = true;
    for (int i = 0; metric && i < d->n_points; i++) {
        sbni_sample mine = sbni_summary_of(s, i, metric);
        for (int k = 0; k < d->n_points && s->chosen[i]; k++) {
            const sbni_point *p = &d->points[i], *q = &d->points[k];
            if (k == i || p->arm != q->arm || p->x != q->x) continue;
            sbni_sample other = sbni_summary_of(s, k, metric);
            s->chosen[i] = !better(&other, &mine) && (k > i || better(&mine, &other));
        }
    }
}

static sbn_status read_all(sbni_summary *s, const char *out)
{
    const sbni_design *d = s->design;
    SBN_TRY(sbni_alloc(d->n_trials, sizeof *s->records, "results", &s->records));
    SBN_TRY(sbni_alloc(MOST_METRICS, sizeof *s->metrics, "metrics", &s->metrics));
    SBN_TRY(sbni_alloc(d->n_points, sizeof *s->chosen, "choice", &s->chosen));
    for (int i = 0; i < d->n_trials; i++) {
        bool found;
        SBN_TRY(sbni_trial_load(out, &d->trials[i], &s->records[i], &found));
        SBN_CHECK(found, SBN_E_IO,
                  "trial %s left no result in %s; do all hosts share that folder?",
                  d->trials[i].key, out);
        add_metrics(s, &s->records[i]);
    }
    qsort(s->metrics, (size_t)s->n_metrics, sizeof *s->metrics, by_name);
    choose(s);
    return SBN_OK;
}

sbn_status sbni_summary_create(const sbni_design *design, const char *out,
                               sbni_summary **summary)
{
    *summary = NULL;
    sbni_summary *s;
    SBN_TRY(sbni_alloc(1, sizeof *s, "summary", &s));
    s->design = design;
    sbn_status status = read_all(s, out);
    if (status == SBN_OK)
        *summary = s;
    else
        sbni_summary_destroy(&s);
    return status;
}

void sbni_summary_destroy(sbni_summary **summary)
{
    if (!summary || !*summary) return;
    sbni_free((*summary)->records);
    sbni_free((*summary)->metrics);
    sbni_free((*summary)->chosen);
    sbni_free(*summary);
    *summary = NULL;
}

int sbni_summary_arm(const sbni_summary *s, const char *name)
{
    for (int i = 0; i < s->design->n_arms; i++)
        if (!strcmp(s->design->arms[i].name, name)) return i;
    return -1;
}

int sbni_summary_point(const sbni_summary *s, int arm, double x)
{
    const sbni_design *d = s->design;
    for (int i = 0; arm >= 0 && i < d->n_points; i++) {
        const sbni_point *p = &d->points[i];
        if (p->arm == arm && s->chosen[i] && (p->x == x || d->arms[arm].flat)) return i;
    }
    return -1;
}

static void get_values(const sbni_summary *s, int point, const char *metric,
                       double *values)
{
    const sbni_point *p = &s->design->points[point];
    for (int i = 0; i < s->design->seeds; i++)
        values[i] = sbni_record_get(&s->records[p->trial[i]], metric);
}

enum { MOST_SEEDS = 1024 };

const sbni_record *sbni_summary_fullest(const sbni_summary *s)
{
    const sbni_record *fullest = &s->records[0];
    for (int i = 1; i < s->design->n_trials; i++)
        if (s->records[i].n > fullest->n) fullest = &s->records[i];
    return fullest;
}

sbni_sample sbni_summary_of(const sbni_summary *s, int point, const char *metric)
{
    double v[MOST_SEEDS] = {0};
    if (point < 0) return sbni_sample_of(v, 0);
    get_values(s, point, metric, v);
    return sbni_sample_of(v, s->design->seeds);
}

sbni_sample sbni_summary_difference(const sbni_summary *s, int a, int b,
                                    const char *metric)
{
    double u[MOST_SEEDS] = {0}, v[MOST_SEEDS] = {0};
    if (a < 0 || b < 0) return sbni_sample_of(u, 0);
    get_values(s, a, metric, u);
    get_values(s, b, metric, v);
    return sbni_sample_paired(u, v, s->design->seeds);
}

static bool all_flat(const sbni_design *d)
{
    for (int i = 0; i < d->n_arms; i++)
        if (!d->arms[i].flat) return false;
    return true;
}

int sbni_summary_values(const sbni_summary *s, double *x, int most)
{
    const sbni_design *d = s->design;
    bool flat = all_flat(d);
    int n = 0;
    for (int i = 0; i < d->n_points && n < most; i++) {
        double v = d->points[i].x;
        int k = 0;
        if (d->arms[d->points[i].arm].flat && !flat) continue;
        while (k < n && x[k] < v) k++;
        if (k < n && x[k] == v) continue;
        memmove(&x[k + 1], &x[k], (size_t)(n++ - k) * sizeof *x);
        x[k] = v;
    }
    return n;
}

static void put_real(FILE *f, const char *before, double value)
{
    char text[32] = "";
    if (isfinite(value)) sbni_text_real(value, text, sizeof text);
    fprintf(f, "%s%s", before, text);
}

static void put_text(FILE *f, const char *text)
{
    fputc('"', f);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') fputc('\\', f);
        fputc((unsigned char)*text < ' ' ? '?' : *text, f);
    }
    fputc('"', f);
}

/* A text of a table, whose quotes are doubled. */
static void put_cell(FILE *f, const char *text)
{
    fputc('"', f);
    for (; *text; text++) fputs(*text == '"' ? "\"\"" : (char[]){*text, 0}, f);
    fputc('"', f);
}

static int by_key(const void *a, const void *b)
{
    return strcmp((*(const sbni_trial *const *)a)->key,
                  (*(const sbni_trial *const *)b)->key);
}

static void put_trial(const sbni_summary *s, FILE *f, const sbni_trial *t)
{
    const sbni_record *r = &s->records[t - s->design->trials];
    fprintf(f,
            "{\"kind\":\"trial\",\"trial\":\"%s\",\"seed\":%" PRIu64
            ",\"status\":\"%s\",\"settings\":{",
            t->key, t->seed, r->status);
    for (int i = 0; i < t->settings.n; i++) {
        fprintf(f, "%s\"%s\":", i ? "," : "", t->settings.at[i].option);
        put_text(f, t->settings.at[i].value);
    }
    fprintf(f, "}");
    for (int i = 0; i < s->n_metrics; i++) {
        double value = sbni_record_get(r, s->metrics[i]);
        if (isnan(value)) continue;
        fprintf(f, ",\"%s\":", s->metrics[i]);
        put_real(f, "", value);
    }
    fprintf(f, "}\n");
}

static sbn_status put_trials(const sbni_summary *s, FILE *f)
{
    const sbni_design *d = s->design;
    const sbni_trial **sorted;
    SBN_TRY(sbni_alloc(d->n_trials, sizeof *sorted, "order of trials", &sorted));
    for (int i = 0; i < d->n_trials; i++) sorted[i] = &d->trials[i];
    qsort(sorted, (size_t)d->n_trials, sizeof *sorted, by_key);
    for (int i = 0; i < d->n_trials; i++) put_trial(s, f, sorted[i]);
    sbni_free(sorted);
    return SBN_OK;
}

static void put_sample(const sbni_summary *s, FILE *f, int point, double x,
                       const char *metric, const sbni_sample *v)
{
    const sbni_design *d = s->design;
    const sbni_point *p = &d->points[point];
    put_cell(f, d->arms[p->arm].name);
    put_real(f, ",", x);
    if (d->study->search) {
        put_real(f, ",", p->z);
        fprintf(f, ",%d", s->chosen[point]);
    }
    fprintf(f, ",%s,%d", metric, v->n);
    put_real(f, ",", v->mean);
    put_real(f, ",", v->sd);
    put_real(f, ",", v->low);
    put_real(f, ",", v->high);
    fprintf(f, "\n");
}

static void put_head(const sbni_summary *s, FILE *f)
{
    fprintf(f, "method,x,%smetric,n,mean,sd,low,high\n",
            s->design->study->search ? "z,chosen," : "");
}

static sbn_status put_summary(const sbni_summary *s, FILE *f)
{
    const sbni_design *d = s->design;
    put_head(s, f);
    for (int i = 0; i < d->n_points; i++)
        for (int k = 0; k < s->n_metrics; k++) {
            sbni_sample v = sbni_summary_of(s, i, s->metrics[k]);
            double x = d->arms[d->points[i].arm].flat ? (double)NAN : d->points[i].x;
            if (v.n) put_sample(s, f, i, x, s->metrics[k], &v);
        }
    return SBN_OK;
}

static sbn_status put_differences(const sbni_summary *s, FILE *f)
{
    double x[SBNI_SUMMARY_VALUES];
    int n = sbni_summary_values(s, x, SBNI_SUMMARY_VALUES);
    put_head(s, f);
    for (int arm = 1; arm < s->design->n_arms; arm++)
        for (int i = 0; i < n; i++) {
            int point = sbni_summary_point(s, arm, x[i]);
            int first = sbni_summary_point(s, 0, x[i]);
            for (int k = 0; k < s->n_metrics; k++) {
                sbni_sample v = sbni_summary_difference(s, point, first, s->metrics[k]);
                if (v.n) put_sample(s, f, point, x[i], s->metrics[k], &v);
            }
        }
    return SBN_OK;
}

static sbn_status write_file(const sbni_summary *s, const char *out, const char *name,
                             sbn_status (*put)(const sbni_summary *, FILE *))
{
    char path[SBNI_PATH_BYTES], *text = NULL;
    size_t bytes;
    int n = snprintf(path, sizeof path, "%s/%s", out, name);
    SBN_CHECK(n < (int)sizeof path, SBN_E_ARG, "the path of %s is too long", out);
    FILE *f = open_memstream(&text, &bytes);
    SBN_CHECK(f, SBN_E_MEMORY, "%s: no memory", path);
    sbn_status status = put(s, f);
    if (fclose(f) != 0 && status == SBN_OK)
        status = sbni_fail(SBN_E_MEMORY, "%s: no memory", path);
    if (bytes && text[bytes - 1] == '\n') text[bytes - 1] = 0;
    if (status == SBN_OK) status = sbni_replacement_text(path, text);
    free(text);
    return status;
}

sbn_status sbni_summary_write(const sbni_summary *s, const char *out)
{
    SBN_TRY(write_file(s, out, "trials.jsonl", put_trials));
    SBN_TRY(write_file(s, out, "summary.csv", put_summary));
    return write_file(s, out, "differences.csv", put_differences);
}
