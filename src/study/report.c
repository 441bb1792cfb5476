#include "study/report.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "study/trial.h"
#include "train/file.h"
#include "train/runfile.h"

static void put_value(FILE *f, const sbni_table *t, const sbni_sample *v, int seeds)
{
    double scale = t->percent ? 100 : 1;
    if (!v->n) {
        fprintf(f, " – |");
        return;
    }
    double half = scale * (v->high - v->low) / 2;
    const char *format = t->percent ? " %.2f" : fabs(v->mean) < 1000 ? " %.4g" : " %.0f";
    fprintf(f, format, scale * v->mean);
    format = t->percent ? " ± %.2f" : half < 100 ? " ± %.2g" : " ± %.0f";
    if (v->n > 1) fprintf(f, format, half);
    if (v->n < seeds) fprintf(f, " (n = %d)", v->n);
    fprintf(f, " |");
}

static bool has_metric(const sbni_summary *s, const char *metric)
{
    for (int i = 0; i < s->n_metrics; i++)
        if (!strcmp(s->metrics[i], metric)) return true;
    return false;
}

static void put_head(FILE *f, const sbni_design *d, const char *x, int from)
{
    fprintf(f, "| %s |", x);
    for (int i = from; i < d->n_arms; i++) fprintf(f, " %s |", d->arms[i].name);
    fprintf(f, "\n|---|");
    for (int i = from; i < d->n_arms; i++) fprintf(f, "---|");
    fprintf(f, "\n");
}

static void put_table(FILE *f, const sbni_summary *s, const sbni_table *t, bool paired)
{
    const sbni_design *d = s->design;
    double x[SBNI_SUMMARY_VALUES];
    int n = sbni_summary_values(s, x, SBNI_SUMMARY_VALUES);
    if (paired)
        fprintf(f, "\n%s: difference from %s, paired by seed\n\n", t->title,
                d->arms[0].name);
    else
        fprintf(f, "\n**%s**\n\n", t->title);
    put_head(f, d, d->x, paired);
    for (int i = 0; i < n; i++) {
        fprintf(f, "| ");
        if (!d->arms[0].flat || n > 1) sbni_design_put_x(d, x[i], f);
        fprintf(f, " |");
        for (int arm = paired; arm < d->n_arms; arm++) {
            int point = sbni_summary_point(s, arm, x[i]);
            sbni_sample v =
                paired ? sbni_summary_difference(s, point, sbni_summary_point(s, 0, x[i]),
                                                 t->metric)
                       : sbni_summary_of(s, point, t->metric);
            put_value(f, t, &v, d->seeds);
        }
        fprintf(f, "\n");
    }
}

/* Whether the search went no further to one side than what it chose. */
static bool at_end(const sbni_design *d, int point)
{
    const sbni_point *chosen = &d->points[point];
    bool less = false, more = false;
    for (int i = 0; i < d->n_points; i++) {
        const sbni_point *p = &d->points[i];
        if (p->arm != chosen->arm || p->x != chosen->x) continue;
        less = less || p->z < chosen->z;
        more = more || p->z > chosen->z;
    }
    return !less || !more;
}

/* What a search chose. */
static void put_choice(FILE *f, const sbni_summary *s)
{
    const sbni_design *d = s->design;
    double x[SBNI_SUMMARY_VALUES];
    int n = sbni_summary_values(s, x, SBNI_SUMMARY_VALUES);
    fprintf(f, "\n**Chosen by the search**\n\n");
    put_head(f, d, d->x, 0);
    for (int i = 0; i < n; i++) {
        fprintf(f, "| %g |", x[i]);
        for (int arm = 0; arm < d->n_arms; arm++) {
            int point = sbni_summary_point(s, arm, x[i]);
            if (point < 0)
                fprintf(f, " – |");
            else
                fprintf(f, " %g%s |", d->points[point].z,
                        at_end(d, point) ? " (end of the range)" : "");
        }
        fprintf(f, "\n");
    }
}

/* Metrics named PREFIX/WORD, a row for each word. */
static void put_words(FILE *f, const sbni_summary *s, const sbni_table *t)
{
    const sbni_design *d = s->design;
    const sbni_record *first = sbni_summary_fullest(s);
    size_t length = strlen(t->metric);
    fprintf(f, "\n**%s**\n\n", t->title);
    put_head(f, d, "", 0);
    for (int i = 0; i < first->n; i++) {
        const char *name = first->at[i].name;
        if (strncmp(name, t->metric, length) != 0) continue;
        fprintf(f, "| %s |", name + length);
        for (int arm = 0; arm < d->n_arms; arm++) {
            int point = 0;
            while (d->points[point].arm != arm) point++;
            sbni_sample v = sbni_summary_of(s, point, name);
            put_value(f, t, &v, d->seeds);
        }
        fprintf(f, "\n");
    }
}

static void put_tables(FILE *f, const sbni_summary *s)
{
    const sbni_design *d = s->design;
    fprintf(f,
            "\n## Tables\n\nMean over %d seeds ± half of the 95 %% interval of the mean "
            "(Student's t). All rows, metrics and deviations: `summary.csv`; "
            "differences paired by seed: `differences.csv`; every trial: "
            "`trials.jsonl`.\n",
            d->seeds);
    if (d->study->search) put_choice(f, s);
    for (const sbni_table *t = d->study->tables; t->metric; t++) {
        if (strchr(t->metric, '/') && !strchr(t->metric, '/')[1]) {
            put_words(f, s, t);
            continue;
        }
        if (!has_metric(s, t->metric)) continue;
        put_table(f, s, t, false);
        if (t->differences && d->n_arms > 1) put_table(f, s, t, true);
    }
    int diverged = 0, lost = 0;
    for (int i = 0; i < d->n_trials; i++) {
        double n = sbni_record_get(&s->records[i], SBNI_NOT_FINITE);
        diverged += !strcmp(s->records[i].status, "diverged");
        if (n > 0) lost += (int)n;
    }
    if (diverged)
        fprintf(f,
                "\n%d of %d trials diverged: their loss or statistics did not stay "
                "finite. Their test error counts as that of guessing, 90 %%; of other "
                "metrics they have none.\n",
                diverged, d->n_trials);
    if (lost)
        fprintf(
            f,
            "\nIn %d evaluations of changed images a number did not stay finite. They "
            "count as guessing, too.\n",
            lost);
}

static void put_file(FILE *f, const char *out, const char *name)
{
    char path[SBNI_PATH_BYTES], line[512];
    snprintf(path, sizeof path, "%s/%s.txt", out, name);
    FILE *text = fopen(path, "r");
    if (!text) return;
    while (fgets(line, sizeof line, text)) {
        size_t n = strcspn(line, "\n\f");
        while (n && line[n - 1] == ' ') n--;
        if (n) fprintf(f, "%.*s\n", (int)n, line);
    }
    fclose(text);
}

/* A net may have nothing of what a figure shows. */
static bool has_picture(const char *out, const char *name)
{
    char path[SBNI_PATH_BYTES];
    int n = snprintf(path, sizeof path, "%s/%s.svg", out, name);
    return n < (int)sizeof path && access(path, F_OK) == 0;
}

static void put_figures(FILE *f, const sbni_summary *s, const char *out, bool pictures)
{
    const sbni_figure *g = s->design->study->figures;
    fprintf(f, "\n## Figures\n");
    if (!pictures)
        fprintf(f, "\nNo pictures: gnuplot was not found (Debian: `apt install "
                   "gnuplot-nox`). With it, the same command draws them from what is "
                   "here.\n");
    for (int i = 0; pictures && g[i].file; i++) {
        if (!has_picture(out, g[i].file)) continue;
        fprintf(f, "\n![%s](%s.svg)\n", g[i].title, g[i].file);
        if (i) continue;
        fprintf(f, "\n```\n");
        put_file(f, out, g[i].file);
        fprintf(f, "```\n");
    }
}

static void put_word(FILE *f, const char *word)
{
    bool plain = word[0] != 0;
    for (const char *at = word; *at; at++)
        plain = plain && ((*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') ||
                          (*at >= '0' && *at <= '9') || strchr("=,.+-_/:", *at));
    if (plain) {
        fprintf(f, " %s", word);
        return;
    }
    fprintf(f, " '");
    for (; *word; word++) fprintf(f, *word == '\'' ? "'\\''" : "%c", *word);
    fprintf(f, "'");
}

/* Options as on a command line; a flag has no value. */
static void put_options(FILE *f, const sbni_pairs *p)
{
    for (int i = 0; i < p->n; i++) {
        const char *value = p->at[i].value;
        if (!strcmp(value, "off")) continue;
        fprintf(f, " --%s", p->at[i].option);
        if (strcmp(value, "on") != 0) put_word(f, value);
    }
}

/* For readers who are new to the subject. */
static const char words[] =
    "\n## Words\n\n"
    "- **SGD batch**: samples whose gradients are averaged for one step of the weights. "
    "**Epoch**: one pass over the training samples.\n"
    "- **Batch norm**: a layer that takes from each feature the mean over a batch and "
    "divides "
    "by the deviation, in training; at the test it uses **running statistics**, averages "
    "of these over training. **Normalization batch** (norm batch): the samples that "
    "share one mean "
    "and deviation; **ghost batch** where it is a part of the SGD batch.\n"
    "- **Renorm**: batch norm that corrects each batch's statistics towards the running "
    "ones, "
    "within limits. **Group norm**: mean and deviation over groups of features of one "
    "sample; no "
    "batch.\n"
    "- **Error**: fraction of images whose class the net gets wrong. **Seed**: number "
    "that "
    "decides initial weights and order of samples.\n";

static void put_making(FILE *f, const sbni_summary *s, const sbni_request *r)
{
    const sbni_design *d = s->design;
    sbni_machine m;
    sbni_machine_get(&m);
    fprintf(
        f,
        "\n## How it was made\n\n%d trials, the results of which do not depend on how "
        "many processes there are:\n\n```\nlaunch/local syncbn study %s%s",
        d->n_trials, d->study->name, d->quick ? " --quick" : "");
    if (r->seeds) fprintf(f, " --seeds %d", r->seeds);
    for (int i = 0; i < r->vary.n; i++) {
        fprintf(f, " --vary");
        put_word(f, r->vary.at[i]);
    }
    put_options(f, &r->given);
    fprintf(f, "\n```\n\nThe first trial alone:\n\n```\nlaunch/local syncbn train");
    put_options(f, &d->trials[0].settings);
    fprintf(f, " --out out/%s\n```\n\n| | |\n|---|---|\n", d->trials[0].key);
    fprintf(f, "| syncbn | %s (%s) |\n| MPI | %s |\n| BLAS | %s |\n| CPU | %s, %s |\n",
            m.version, m.revision, m.mpi, m.blas, m.cpu, m.isa);
}

static void put_report(FILE *f, const sbni_summary *s, const sbni_request *r,
                       const char *out, bool pictures)
{
    const sbni_study *study = s->design->study;
    fprintf(f,
            "# %s\n\n**Question.** %s\n\n**Design.** %s %d seeds for each; methods are "
            "compared with the same seeds: the same initial weights and the same "
            "batches.\n\n**After.** %s.\n",
            study->title, study->question, study->design, s->design->seeds,
            study->source);
    if (s->design->quick)
        fprintf(
            f,
            "\nThis is the quick form: fewer samples, seeds and values than in the full "
            "study. Take it for a sketch.\n");
    if (study->find) {
        fprintf(f, "\n## What was found\n\n");
        study->find(s, f);
    }
    put_figures(f, s, out, pictures);
    put_tables(f, s);
    bool limit = sbni_pairs_get(&s->design->base, "limit-test") != NULL;
    bool target = sbni_pairs_get(&s->design->base, "target") != NULL;
    fprintf(f,
            "\n## How to read this\n\n- Bars and ± are 95 %% intervals of the mean over "
            "seeds. For two methods, look at their paired difference rather than at "
            "whether intervals overlap: seeds move both the same way.\n"
            "- Errors are those of %s behind the last step%s.\n%s",
            limit ? "the first test samples (--limit-test)" : "the whole test set",
            study->search || target ? "; runs end, or rates are chosen, by them"
                                    : "; no weights were chosen by them",
            study->notes);
    fputs(words, f);
    put_making(f, s, r);
}

sbn_status sbni_report_write(const sbni_summary *summary, const sbni_request *request,
                             const char *out, bool pictures)
{
    char path[SBNI_PATH_BYTES], *text = NULL;
    size_t bytes;
    int n = snprintf(path, sizeof path, "%s/report.md", out);
    SBN_CHECK(n < (int)sizeof path, SBN_E_ARG, "the path of %s is too long", out);
    FILE *f = open_memstream(&text, &bytes);
    SBN_CHECK(f, SBN_E_MEMORY, "%s: no memory", path);
    put_report(f, summary, request, out, pictures);
    sbn_status status = SBN_OK;
    if (fclose(f) != 0) status = sbni_fail(SBN_E_MEMORY, "%s: no memory", path);
    if (bytes && text[bytes - 1] == '\n') text[bytes - 1] = 0;
    if (status == SBN_OK) status = sbni_replacement_text(path, text);
    free(text);
    return status;
}

void sbni_report_print(const sbni_summary *s, const char *out, bool pictures)
{
    const sbni_study *study = s->design->study;
    if (pictures) put_file(stdout, out, study->figures[0].file);
    printf("\n%s\n\n", study->title);
    if (study->find) study->find(s, stdout);
    printf("\nreport in %s/report.md%s\n", out,
           pictures ? "" : " (no pictures: gnuplot is not installed)");
}
