/* How far a setting may be off, with and without norm: the rate, the initial weights. */
#include "study/finding.h"
#include "study/presets.h"

static void build_over(sbni_design *d, const char *option, const double *values, int n,
                       int stride)
{
    int with = sbni_design_arm(d, "with norm", "norm=batch");
    int without = sbni_design_arm(d, "without", "norm=none");
    for (int i = 0; i < n; i += stride) {
        sbni_design_point(d, with, values[i], "%s=%g", option, values[i]);
        sbni_design_point(d, without, values[i], "%s=%g", option, values[i]);
    }
}

static void build_rates(sbni_design *d, bool quick)
{
    static const double rates[] = {0.0003, 0.001, 0.003, 0.01, 0.03, 0.1,
                                   0.3,    1,     3,     10,   30};
    build_over(d, "lr", rates, 11, quick ? 2 : 1);
}

static void build_scales(sbni_design *d, bool quick)
{
    static const double scales[] = {0.001, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 1000};
    build_over(d, "init-scale", scales, 11, quick ? 2 : 1);
}

/* Good is what lies within 3 points of the best. upper_only: what is claimed is that
 * larger values work. */
static void find_range(const sbni_summary *s, FILE *text, bool upper_only,
                       const char *source, const char *claim)
{
    const double margin = 0.03;
    double range[2][2] = {{0}}, width[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        sbni_sample best =
            sbni_summary_of(s, sbni_best_point(s, i, "test_error"), "test_error");
        fprintf(text, "%s the least test error is ", i ? "; without" : "With norm");
        sbni_put_percent(text, &best);
        if (sbni_good_range(s, i, "test_error", margin, range[i])) {
            width[i] = range[i][1] / range[i][0];
            fprintf(text,
                    " and stays within 3 points of the best from %g to %g, a factor of ",
                    range[i][0], range[i][1]);
            sbni_put_number(text, width[i]);
        } else {
            fprintf(text, " and nowhere within 3 points of the best");
        }
    }
    fprintf(text, ".\n");
    /* wider, and better beyond the noise at an end of it that the other does not reach */
    int holds = 0, wider = width[0] > width[1] ? 0 : 1;
    for (int end = upper_only ? 1 : 0; end < 2 && width[0] != width[1]; end++) {
        double x = range[wider][end];
        if (width[1 - wider] > 0 &&
            (end ? x <= range[1 - wider][1] : x >= range[1 - wider][0]))
            continue;
        sbni_sample gain =
            sbni_summary_difference(s, sbni_summary_point(s, wider, x),
                                    sbni_summary_point(s, 1 - wider, x), "test_error");
        if (sbni_sample_sign(&gain) < 0) holds = wider ? -1 : 1;
    }
    sbni_put_verdict(text, holds, source, claim);
}

static void find_rates(const sbni_summary *s, FILE *text)
{
    find_range(s, text, true, "Ioffe & Szegedy 2015",
               "normalization allows much higher learning rates");
}

static void find_scales(const sbni_summary *s, FILE *text)
{
    find_range(s, text, false, "Ioffe & Szegedy 2015",
               "normalization allows less careful initialization");
}

static const sbni_table tables[] = {{"test_error", "Test error, %", true, true},
                                    {"test_loss", "Test loss", false, false},
                                    {0}};

static const sbni_figure rate_figures[] = {
    {"test_error", "Test error against the learning rate", NULL, "test error, %",
     SBNI_FIGURE_POINTS, "test_error", "", SBNI_LOG_X | SBNI_PERCENT},
    {0}};
static const sbni_figure scale_figures[] = {
    {"test_error", "Test error against the scale of the initial weights", NULL,
     "test error, %", SBNI_FIGURE_POINTS, "test_error", "", SBNI_LOG_X | SBNI_PERCENT},
    {0}};

#define NOTES                                                                            \
    "- Runs that diverge count with the error of guessing, 90 %, so that they stay in "  \
    "the "                                                                               \
    "picture.\n"

const sbni_study sbni_study_learning_rate = {
    .name = "learning-rate",
    .title = "Which learning rates work, with and without norm?",
    .question =
        "Over what range of learning rates does the same net train well, with its norm "
        "layers and without?",
    .design =
        "The same net, batch, order and number of steps at rates from 0.0003 to 30, "
        "constant over the run.",
    .source = "Ioffe & Szegedy 2015 (arXiv 1502.03167, section 3.3)",
    .notes = NOTES,
    .common = "net=cnn batch=64 momentum=0.9 log-every=20",
    .full = "epochs=1",
    .quick = "epochs=1 limit-train=15000 limit-test=5000",
    .seeds = {5, 3},
    .x = "learning rate",
    .build = build_rates,
    .find = find_rates,
    .tables = tables,
    .figures = rate_figures};

const sbni_study sbni_study_init = {
    .name = "init",
    .title = "Which initial weights work, with and without norm?",
    .question =
        "Over what range of scales of the initial weights does the same net train well, "
        "with its norm layers and without?",
    .design =
        "The same net, batch, order, rate and number of steps; the initial weights of "
        "all conv and linear layers are multiplied by factors from 0.001 to 1000.",
    .source = "Ioffe & Szegedy 2015 (arXiv 1502.03167, section 3.3)",
    .notes =
        NOTES "- The last layer has no norm behind it: its scale is the scale of the "
              "outputs, for both methods.\n",
    .common = "net=cnn batch=64 lr=0.05 momentum=0.9 log-every=20",
    .full = "epochs=1",
    .quick = "epochs=1 limit-train=15000 limit-test=5000",
    .seeds = {5, 3},
    .x = "factor of the initial weights",
    .build = build_scales,
    .find = find_scales,
    .tables = tables,
    .figures = scale_figures};
