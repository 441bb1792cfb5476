#include "study/figure.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"
#include "study/gnuplot.h"
#include "study/trial.h"
#include "train/file.h"

/* Colours that stay apart for every kind of colour vision (Okabe & Ito 2008); marks and
 * dashes say it again. */
static const char *const colours[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                      "#E69F00", "#56B4E9", "#000000"};
static const int marks[] = {7, 5, 9, 13, 11, 4, 6};
enum { COLOURS = 7, CURVES = 32, NAME_BYTES = 160 };

/* A line of the legend with its data block. */
typedef struct curve {
    char name[SBNI_ARM_NAME + 2 + NAME_BYTES];
    int look; /* colour and mark */
    bool flat, thin;
} curve;

typedef struct drawing {
    const sbni_summary *summary;
    const sbni_figure *figure;
    const char *out;
    FILE *f;
    curve curves[CURVES];
    int n, rows; /* curves, and points of all of them */
} drawing;

/* Part number i of a text with | between; false beyond the last. */
static bool part(const char *list, int i, char *word)
{
    for (; list && i > 0; i--) {
        list = strchr(list, '|');
        if (list) list++;
    }
    if (!list) return false;
    snprintf(word, NAME_BYTES, "%.*s", (int)strcspn(list, "|"), list);
    return true;
}

static void put_row(drawing *d, double x, const sbni_sample *s)
{
    d->rows++;
    char text[32];
    double scale = d->figure->look & SBNI_PERCENT ? 100 : 1;
    double low = s->n > 1 ? s->low : s->mean, high = s->n > 1 ? s->high : s->mean;
    /* an axis of logarithms has no place for an end at 0 or below */
    if (d->figure->look & SBNI_LOG_Y && low <= 0) low = s->mean / 10;
    double columns[4] = {x, scale * s->mean, scale * low, scale * high};
    for (int i = 0; i < 4; i++) {
        sbni_text_real(columns[i], text, sizeof text);
        fprintf(d->f, "%s%s", i ? " " : "", text);
    }
    fprintf(d->f, "\n");
}

/* Begin a data block; NULL where there is no room for more. */
static curve *begin(drawing *d, const char *arm, const char *what)
{
    if (d->n == CURVES) return NULL;
    curve *c = &d->curves[d->n];
    *c = (curve){.look = d->n};
    bool both = arm[0] && what[0];
    snprintf(c->name, sizeof c->name, "%s%s%s", arm, both ? ", " : "", what);
    fprintf(d->f, "$d%d << EOD\n", d->n++);
    return c;
}

static void put_points(drawing *d)
{
    const sbni_design *design = d->summary->design;
    double x[SBNI_SUMMARY_VALUES];
    int n = sbni_summary_values(d->summary, x, SBNI_SUMMARY_VALUES);
    char metric[NAME_BYTES], name[NAME_BYTES];
    for (int k = 0; part(d->figure->metrics, k, metric); k++)
        for (int arm = 0; arm < design->n_arms; arm++) {
            int any = 0;
            for (int i = 0; i < n; i++) {
                int point = sbni_summary_point(d->summary, arm, x[i]);
                any += sbni_summary_of(d->summary, point, metric).n;
            }
            if (!any) continue;
            if (!part(d->figure->names, k, name)) name[0] = 0;
            curve *c = begin(
                d, design->n_arms > 1 || !name[0] ? design->arms[arm].name : "", name);
            if (!c) return;
            c->flat = design->arms[arm].flat && design->n_arms > 1;
            for (int i = 0; i < n; i++) {
                int point = sbni_summary_point(d->summary, arm, x[i]);
                sbni_sample s = sbni_summary_of(d->summary, point, metric);
                /* neighbours on an axis of logarithms step aside for each other */
                double aside = d->figure->look & SBNI_LOG_X ? pow(1.015, arm) : 1;
                if (s.n) put_row(d, x[i] * aside, &s);
            }
            fprintf(d->f, "EOD\n");
        }
}

/* Where y·x is what it is at the first point of the first method. */
static void put_perfect(drawing *d)
{
    double x[SBNI_SUMMARY_VALUES], first = 0;
    int n = sbni_summary_values(d->summary, x, SBNI_SUMMARY_VALUES);
    curve *c = begin(d, "perfect scaling", "");
    for (int i = 0; i < n; i++) {
        sbni_sample s = sbni_summary_of(
            d->summary, sbni_summary_point(d->summary, 0, x[i]), d->figure->metrics);
        if (!first && s.n) first = s.mean * x[i];
        if (first) put_row(d, x[i], &(sbni_sample){1, first / x[i], 0, 0, 0});
    }
    if (c) c->flat = true;
    fprintf(d->f, "EOD\n");
}

static sbn_status read_series(const drawing *d, int point, int seed, const char *record,
                              sbni_series *series)
{
    const sbni_design *design = d->summary->design;
    const sbni_point *p = &design->points[point];
    char path[SBNI_PATH_BYTES], kind[NAME_BYTES];
    const char *dot = strchr(record, '.');
    snprintf(kind, sizeof kind, "%.*s", (int)strcspn(record, "."), record);
    SBN_TRY(
        sbni_trial_path(d->out, &design->trials[p->trial[seed]], "metrics.jsonl", path));
    return sbni_series_read(path, kind, dot ? dot + 1 : "", series);
}

/* Means over the seeds at the steps of the first. */
static sbn_status put_steps_of(drawing *d, int point, const char *record)
{
    int seeds = d->summary->design->seeds;
    sbni_series *all = NULL;
    double *values = NULL;
    sbn_status status;
    SBN_GOTO(sbni_alloc(seeds, sizeof *all, "series", &all));
    SBN_GOTO(sbni_alloc(seeds, sizeof *values, "series", &values));
    for (int s = 0; s < seeds; s++) SBN_GOTO(read_series(d, point, s, record, &all[s]));
    for (int i = 0; i < all[0].n; i++) {
        for (int s = 0; s < seeds; s++)
            values[s] = i < all[s].n && all[s].step[i] == all[0].step[i] ? all[s].value[i]
                                                                         : (double)NAN;
        sbni_sample sample = sbni_sample_of(values, seeds);
        put_row(d, all[0].step[i], &sample);
    }
fail:
    for (int s = 0; all && s < seeds; s++) sbni_series_free(&all[s]);
    sbni_free(all);
    sbni_free(values);
    return status;
}

static sbn_status put_band_of(drawing *d, int point, const char *record)
{
    sbni_series series;
    SBN_TRY(read_series(d, point, 0, record, &series));
    for (int i = 0; i < series.n; i++) {
        sbni_sample s = {1, series.value[i], NAN, NAN, NAN};
        put_row(d, series.step[i], &s);
    }
    sbni_series_free(&series);
    return SBN_OK;
}

static sbn_status put_steps(drawing *d)
{
    const sbni_design *design = d->summary->design;
    bool band = d->figure->kind == SBNI_FIGURE_BAND;
    char record[NAME_BYTES], name[NAME_BYTES];
    for (int i = 0; i < design->n_points; i++)
        for (int k = 0; part(d->figure->metrics, k, record); k++) {
            if (!d->summary->chosen[i]) continue;
            if (!part(d->figure->names, k, name)) name[0] = 0;
            curve *c = begin(d, design->arms[design->points[i].arm].name, name);
            if (!c) return SBN_OK;
            if (band) {
                c->look = design->points[i].arm;
                c->thin = k != 1;
            }
            SBN_TRY(band ? put_band_of(d, i, record) : put_steps_of(d, i, record));
            fprintf(d->f, "EOD\n");
        }
    return SBN_OK;
}

/* Words in the order of the metrics in the fullest trial. */
static void put_words(drawing *d)
{
    const sbni_design *design = d->summary->design;
    const sbni_record *first = sbni_summary_fullest(d->summary);
    char prefix[NAME_BYTES], name[NAME_BYTES], metric[2 * NAME_BYTES];
    char words[64][SBNI_VALUE_NAME];
    int n = 0;
    part(d->figure->metrics, 0, prefix);
    for (int i = 0; i < first->n && n < 64; i++)
        if (!strncmp(first->at[i].name, prefix, strlen(prefix)))
            snprintf(words[n++], SBNI_VALUE_NAME, "%s",
                     first->at[i].name + strlen(prefix));
    for (int arm = 0; arm < design->n_arms; arm++)
        for (int k = 0; part(d->figure->metrics, k, prefix); k++) {
            int any = 0, point = 0;
            while (design->points[point].arm != arm) point++;
            for (int i = 0; i < n; i++) {
                snprintf(metric, sizeof metric, "%.150s%.63s", prefix, words[i]);
                any += sbni_summary_of(d->summary, point, metric).n;
            }
            if (!any) continue;
            if (!part(d->figure->names, k, name)) name[0] = 0;
            if (!begin(d, design->arms[arm].name, name)) return;
            for (int i = 0; i < n; i++) {
                snprintf(metric, sizeof metric, "%.150s%.63s", prefix, words[i]);
                sbni_sample s = sbni_summary_of(d->summary, point, metric);
                if (s.n) put_row(d, i + 0.12 * (d->n - 2), &s);
            }
            fprintf(d->f, "EOD\n");
        }
    fprintf(d->f, "set xtics rotate by -35 (");
    for (int i = 0; i < n; i++) {
        fprintf(d->f, "%s", i ? ", " : "");
        sbni_gnuplot_quote(d->f, words[i]);
        fprintf(d->f, " %d", i);
    }
    fprintf(d->f, ")\nset xrange [-0.5:%g]\n", n - 0.5);
}

/* One plot command; text terminals have neither bands nor error bars worth reading. */
static void put_plot(const drawing *d, bool text)
{
    bool steps = d->figure->kind == SBNI_FIGURE_STEPS;
    bool band = d->figure->kind == SBNI_FIGURE_BAND;
    bool words = d->figure->kind == SBNI_FIGURE_WORDS;
    fprintf(d->f, "  plot ");
    for (int i = 0; steps && !text && i < d->n; i++)
        fprintf(d->f,
                "$d%d using 1:3:4 with filledcurves fs transparent solid 0.2 "
                "noborder lc rgb '%s' notitle, \\\n    ",
                i, colours[d->curves[i].look % COLOURS]);
    for (int i = 0; i < d->n; i++) {
        const curve *c = &d->curves[i];
        const char *colour = colours[c->look % COLOURS];
        int mark = marks[c->look % COLOURS];
        fprintf(d->f, "%s$d%d using ", i ? ", \\\n    " : "", i);
        if (text && (steps || band))
            fprintf(d->f, "1:2 with lines");
        else if (text)
            fprintf(d->f, "1:2 with %s", words ? "points" : "linespoints");
        else if (steps || band)
            fprintf(d->f, "1:2 with lines lw %s dt %d lc rgb '%s'", c->thin ? "1.5" : "3",
                    c->thin ? 2 : 1, colour);
        else if (words)
            fprintf(d->f, "1:2:3:4 with yerrorbars pt %d ps 1.4 lw 2.5 lc rgb '%s'", mark,
                    colour);
        else if (c->flat) /* what has error bars is never dashed */
            fprintf(d->f,
                    "1:2:3:4 with yerrorbars pt 0 lw 1.5 lc rgb '%s' notitle, \\\n    "
                    "$d%d using 1:2 with lines lw 2.5 dt 2 lc rgb '%s'",
                    colour, i, colour);
        else
            fprintf(d->f, "1:2:3:4 with yerrorlines pt %d ps 1.4 lw 2.5 lc rgb '%s'",
                    mark, colour);
        fprintf(d->f, " title ");
        sbni_gnuplot_quote(d->f, c->name);
    }
    fprintf(d->f, "\n");
}

static void put_axes(const drawing *d)
{
    const sbni_figure *g = d->figure;
    fprintf(d->f,
            "# gnuplot -e \"set terminal svg; set output 'figure.svg'\" %s.gp\n"
            "# columns: x, mean, ends of the 95 %% interval over the seeds\n"
            "set title ",
            g->file);
    sbni_gnuplot_quote(d->f, g->title);
    fprintf(d->f, "\nset xlabel ");
    sbni_gnuplot_quote(d->f, g->x ? g->x : d->summary->design->x);
    fprintf(d->f, "\nset ylabel ");
    sbni_gnuplot_quote(d->f, g->y);
    fprintf(d->f, "\nset border 3 lc rgb '#444444'\n"
                  "set tics nomirror out textcolor rgb '#222222'\n"
                  "set grid lc rgb '#dddddd' lw 1 lt 1\n"
                  "set key outside bottom center horizontal maxcols 3 samplen 2\n"
                  "set offsets graph 0.03, graph 0.03, graph 0.05, graph 0.02\n");
    if (g->look & SBNI_LOG_X) fprintf(d->f, "set logscale x\n");
    if (g->look & SBNI_LOG_Y) fprintf(d->f, "set logscale y\nset autoscale yfix\n");
    if (g->kind == SBNI_FIGURE_STEPS || g->kind == SBNI_FIGURE_BAND)
        fprintf(d->f, "set offsets 0, 0, 0, 0\nset autoscale xfix\n");
    if (g->kind == SBNI_FIGURE_STEPS) fprintf(d->f, "set yrange [0<*:*<1]\n");
    /* intervals may reach beyond what an error can be */
    if (g->look & SBNI_PERCENT && !strstr(g->metrics, "gap"))
        fprintf(d->f, "set yrange [0<*:*<100]\n");
}

/* Ticks at the values that were tried. */
static void put_ticks(const drawing *d)
{
    double x[SBNI_SUMMARY_VALUES];
    int n = sbni_summary_values(d->summary, x, SBNI_SUMMARY_VALUES);
    fprintf(d->f, "set xtics (");
    for (int i = 0; i < n; i++) {
        fprintf(d->f, "%s'", i ? ", " : "");
        sbni_design_put_x(d->summary->design, x[i], d->f);
        fprintf(d->f, "' %.9g", x[i]);
    }
    fprintf(d->f, ")\n");
}

static sbn_status put_script(drawing *d)
{
    sbn_status status = SBN_OK;
    put_axes(d);
    switch (d->figure->kind) {
    case SBNI_FIGURE_POINTS:
        put_ticks(d);
        put_points(d);
        if (d->figure->look & SBNI_PERFECT && d->n) put_perfect(d);
        break;
    case SBNI_FIGURE_WORDS:
        put_words(d);
        break;
    case SBNI_FIGURE_STEPS:
    case SBNI_FIGURE_BAND:
        status = put_steps(d);
        break;
    }
    if (!d->rows || status != SBN_OK) return status;
    fprintf(d->f, "if (exists('text_only')) {\n  unset grid\n");
    put_plot(d, true);
    fprintf(d->f, "} else {\n");
    put_plot(d, false);
    fprintf(d->f, "}\n");
    return SBN_OK;
}

enum { TERMINALS = 3 };
static const char *const terminals[TERMINALS][2] = {
    {"svg", "svg size 1080,680 noenhanced font 'Helvetica,22' background 'white'"},
    {"png", "png size 1080,680 noenhanced font ',18' background '#ffffff'"},
    {"txt", "dumb size 79,28 noenhanced; text_only = 1"}};

static sbn_status draw_all(const char *script)
{
    int name = (int)strlen(script) - 2; /* of it without gp */
    for (int i = 0; i < TERMINALS; i++) {
        char path[SBNI_PATH_BYTES + 1];
        snprintf(path, sizeof path, "%.*s%s", name, script, terminals[i][0]);
        SBN_TRY(sbni_gnuplot_draw(script, terminals[i][1], path));
    }
    return SBN_OK;
}

sbn_status sbni_figure_draw(const sbni_summary *summary, const sbni_figure *figure,
                            const char *out, bool draw)
{
    drawing d = {.summary = summary, .figure = figure, .out = out};
    char path[SBNI_PATH_BYTES], *text = NULL;
    size_t bytes;
    int n = snprintf(path, sizeof path, "%s/%s.gp", out, figure->file);
    SBN_CHECK(n < (int)sizeof path, SBN_E_ARG, "the path of %s is too long", out);
    d.f = open_memstream(&text, &bytes);
    SBN_CHECK(d.f, SBN_E_MEMORY, "%s: no memory", path);
    sbn_status status = put_script(&d);
    fclose(d.f);
    if (status == SBN_OK) status = sbni_replacement_text(path, text);
    free(text);
    if (status == SBN_OK && draw && d.rows) status = draw_all(path);
    return status;
}

sbn_status sbni_figure_clean(const sbni_figure *figure, const char *out)
{
    for (int i = 0; i <= TERMINALS; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.%s", figure->file,
                 i < TERMINALS ? terminals[i][0] : "gp");
        SBN_TRY(sbni_replacement_clean(out, (const char *const[]){name}, 1));
    }
    return SBN_OK;
}
