#include "study/design.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "syncbn/data.h"
#include "train/settings.h"

enum { MOST_POINTS = 512, TEXT_BYTES = 1024 };

static void note(sbni_design *d, sbn_status status)
{
    if (d->status == SBN_OK) d->status = status;
}

int sbni_design_arm(sbni_design *d, const char *name, const char *settings)
{
    if (d->n_arms == SBNI_ARMS) {
        note(d, sbni_fail(SBN_E_ARG, "expected at most %d methods", SBNI_ARMS));
        return 0;
    }
    sbni_arm *arm = &d->arms[d->n_arms];
    snprintf(arm->name, sizeof arm->name, "%s", name);
    note(d, sbni_pairs_read(&arm->settings, settings));
    return d->n_arms++;
}

static void add_point(sbni_design *d, int arm, double x, double z, const char *format,
                      va_list args)
{
    if (d->n_points == MOST_POINTS) {
        note(d, sbni_fail(SBN_E_ARG, "expected at most %d points", MOST_POINTS));
        return;
    }
    char text[TEXT_BYTES];
    vsnprintf(text, sizeof text, format, args);
    sbni_point *p = &d->points[d->n_points++];
    p->arm = arm;
    p->x = x;
    p->z = z;
    note(d, sbni_pairs_read(&p->settings, text));
    note(d, sbni_alloc(d->seeds, sizeof *p->trial, "trials of a point", &p->trial));
}

void sbni_design_point(sbni_design *d, int arm, double x, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add_point(d, arm, x, NAN, format, args);
    va_end(args);
}

void sbni_design_search(sbni_design *d, int arm, double x, double z, const char *format,
                        ...)
{
    va_list args;
    va_start(args, format);
    add_point(d, arm, x, z, format, args);
    va_end(args);
}

void sbni_design_put_x(const sbni_design *d, double x, FILE *text)
{
    if (x >= 0 && x < SBNI_X_WORDS && x == floor(x) && d->x_words[(int)x][0])
        fprintf(text, "%s", d->x_words[(int)x]);
    else
        fprintf(text, "%g", x);
}

double sbni_design_number(sbni_design *d, const char *option, double otherwise)
{
    if (d->n_heard < SBNI_HEARD)
        snprintf(d->heard[d->n_heard++], SBNI_PAIR_NAME, "%s", option);
    const char *value = sbni_pairs_get(&d->base, option);
    char *end = NULL;
    double number = value ? strtod(value, &end) : 0;
    return value && end != value ? number : otherwise;
}

static bool was_heard(const sbni_design *d, const char *option)
{
    for (int i = 0; i < d->n_heard; i++)
        if (!strcmp(d->heard[i], option)) return true;
    return false;
}

bool sbni_design_same(const char *option, const char *other)
{
    static const char *const length[] = {"epochs", "steps"};
    if (!strcmp(option, other)) return true;
    for (int i = 0; i < 2; i++)
        if (!strcmp(option, length[i])) return !strcmp(other, length[1 - i]);
    return false;
}

static bool sets(const sbni_pairs *settings, const char *option)
{
    for (int i = 0; i < settings->n; i++)
        if (sbni_design_same(settings->at[i].option, option)) return true;
    return false;
}

/* What the study varies is not the user's to fix. */
static sbn_status check_given(const sbni_design *d, const sbni_pairs *given)
{
    for (int i = 0; i < given->n; i++) {
        const char *option = given->at[i].option;
        bool varies = d->n_shifts && !strcmp(option, "shift");
        for (int k = 0; k < d->n_arms && !varies; k++)
            varies = sets(&d->arms[k].settings, option);
        for (int k = 0; k < d->n_points && !varies; k++)
            varies = sets(&d->points[k].settings, option);
        SBN_CHECK(!varies || was_heard(d, option), SBN_E_ARG,
                  "--%s: the study %s varies it; other values: syncbn study grid --vary "
                  "%s=%s",
                  option, d->study->name, option, given->at[i].value);
    }
    return SBN_OK;
}

static int by_option(const void *a, const void *b)
{
    return strcmp(((const sbni_pair *)a)->option, ((const sbni_pair *)b)->option);
}

static uint32_t hash(const char *text)
{
    uint32_t h = 2166136261u;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 16777619u;
    return h;
}

/* Settings where trials differ, by name, so that equal settings have one key; a file name
 * on any system. */
static void make_key(const sbni_pairs *differs, uint64_t seed, char key[SBNI_KEY_BYTES])
{
    sbni_pairs sorted = *differs;
    char text[sizeof sorted.at + 64];
    qsort(sorted.at, (size_t)sorted.n, sizeof *sorted.at, by_option);
    size_t used = 0;
    for (int i = 0; i < sorted.n; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s=%s,",
                                 sorted.at[i].option, sorted.at[i].value);
    used += (size_t)snprintf(text + used, sizeof text - used, "seed=%" PRIu64, seed);
    uint32_t whole = hash(text);
    bool odd = used >= SBNI_KEY_BYTES - 12;
    for (char *at = text; *at; at++) {
        bool fine = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') ||
                    (*at >= '0' && *at <= '9') || strchr("=,.+-_", *at);
        if (fine) continue;
        if (*at != ':') odd = true;
        *at = '-';
    }
    if (odd)
        snprintf(key, SBNI_KEY_BYTES, "%.*s,%08x", SBNI_KEY_BYTES - 12, text, whole);
    else
        snprintf(key, SBNI_KEY_BYTES, "%.*s", SBNI_KEY_BYTES - 1, text);
}

/* Images and steps, and what a step costs beside its images. */
static double cost_of(const sbn_trainer_config *c, int64_t n_train)
{
    static const double step_images = 20;
    double n =
        (double)(c->limit_train && c->limit_train < n_train ? c->limit_train : n_train);
    double steps =
        c->steps ? (double)c->steps : (double)c->epochs * ceil(n / (double)c->batch);
    return steps * ((double)c->batch + step_images);
}

static sbn_status add_trial(sbni_design *d, const sbni_point *p, int seed, int *which)
{
    sbni_trial *t = &d->trials[d->n_trials];
    char text[32];
    sbni_pairs differs = {0};
    *t = (sbni_trial){.seed = d->first_seed + (uint64_t)seed};
    SBN_TRY(sbni_pairs_add(&differs, &d->arms[p->arm].settings));
    SBN_TRY(sbni_pairs_add(&differs, &p->settings));
    make_key(&differs, t->seed, t->key);
    for (*which = 0; *which < d->n_trials; ++*which)
        if (!strcmp(d->trials[*which].key, t->key)) return SBN_OK;
    snprintf(text, sizeof text, "%" PRIu64, t->seed);
    SBN_TRY(sbni_pairs_add(&t->settings, &d->base));
    SBN_TRY(sbni_pairs_add(&t->settings, &differs));
    SBN_TRY(sbni_pairs_set(&t->settings, "seed", text));
    d->n_trials++;
    sbn_status status = sbni_pairs_resolve(&t->settings, &t->run);
    if (status == SBN_OK) status = sbni_settings_check(&t->run.run);
    return status == SBN_OK ? SBN_OK : sbni_fail_in(status, "trial %s", t->key);
}

static sbn_status make_trials(sbni_design *d)
{
    SBN_CHECK(d->n_points, SBN_E_ARG, "study %s: expected something that varies",
              d->study->name);
    SBN_TRY(sbni_alloc((int64_t)d->n_points * d->seeds, sizeof *d->trials, "trials",
                       &d->trials));
    for (int i = 0; i < d->n_points; i++)
        for (int s = 0; s < d->seeds; s++)
            SBN_TRY(add_trial(d, &d->points[i], s, &d->points[i].trial[s]));
    const char *data = NULL;
    sbn_dataset_info info;
    int64_t bytes;
    for (int i = 0; i < d->n_trials; i++) {
        const sbn_trainer_config *c = &d->trials[i].run.run;
        if (!data || strcmp(c->data, data) != 0)
            SBN_TRY(sbn_dataset_probe(c->data, SBN_SPLIT_TRAIN, &info, &bytes));
        data = c->data;
        sbni_trial *t = &d->trials[i];
        t->n_train = c->limit_train && c->limit_train < info.n ? c->limit_train : info.n;
        t->cost = cost_of(c, t->n_train);
    }
    return SBN_OK;
}

static sbn_status fill(sbni_design *d, int seeds, const sbni_pairs *given)
{
    const sbni_study *s = d->study;
    SBN_TRY(sbni_alloc(SBNI_ARMS, sizeof *d->arms, "methods", &d->arms));
    SBN_TRY(sbni_alloc(MOST_POINTS, sizeof *d->points, "points", &d->points));
    d->seeds = seeds ? seeds : s->seeds[d->quick];
    SBN_TRY(sbni_pairs_read(&d->base, s->common));
    SBN_TRY(sbni_pairs_read(&d->base, d->quick ? s->quick : s->full));
    SBN_TRY(sbni_pairs_add(&d->base, given));
    snprintf(d->x, sizeof d->x, "%s", s->x);
    (void)sbni_design_number(d, "seed", 1); /* it is the user's to give */
    const char *seed = sbni_pairs_get(&d->base, "seed");
    d->first_seed = seed ? strtoull(seed, NULL, 10) : 1;
    const char *net = sbni_pairs_get(&d->base, "net");
    if (net) SBN_TRY(sbni_netview_read(net, &d->net));
    s->build(d, d->quick);
    SBN_TRY(d->status);
    SBN_TRY(check_given(d, given));
    return make_trials(d);
}

sbn_status sbni_design_create(const sbni_request *request, sbni_design **design)
{
    *design = NULL;
    sbni_design *d;
    SBN_TRY(sbni_alloc(1, sizeof *d, "design", &d));
    d->study = request->study;
    d->quick = request->quick;
    d->vary = &request->vary;
    sbn_status status = fill(d, request->seeds, &request->given);
    if (status == SBN_OK)
        *design = d;
    else
        sbni_design_destroy(&d);
    return status;
}

void sbni_design_destroy(sbni_design **design)
{
    if (!design || !*design) return;
    sbni_design *d = *design;
    for (int i = 0; d->points && i < d->n_points; i++) sbni_free(d->points[i].trial);
    sbni_free(d->points);
    sbni_free(d->arms);
    sbni_free(d->trials);
    sbni_free(d);
    *design = NULL;
}

sbn_status sbni_design_print(const sbni_design *d, char **text)
{
    size_t bytes;
    FILE *f = open_memstream(text, &bytes);
    SBN_CHECK(f, SBN_E_MEMORY, "the study's design: no memory");
    fprintf(f, "study %s%s\n", d->study->name, d->quick ? ", quick" : "");
    for (int i = 0; i < d->n_shifts; i++) fprintf(f, "evaluation %s\n", d->shift[i]);
    for (int i = 0; i < d->n_trials; i++) {
        fprintf(f, "trial %s:", d->trials[i].key);
        const sbni_pairs *p = &d->trials[i].settings;
        for (int k = 0; k < p->n; k++)
            fprintf(f, " %s=%s", p->at[k].option, p->at[k].value);
        fprintf(f, "\n");
    }
    SBN_CHECK(fclose(f) == 0, SBN_E_MEMORY, "the study's design: no memory");
    return SBN_OK;
}
