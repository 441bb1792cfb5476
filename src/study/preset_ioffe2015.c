/* The net of section 4.1 of Ioffe & Szegedy 2015. */
#include <string.h>

#include "study/finding.h"
#include "study/presets.h"

static void build(sbni_design *d, bool quick)
{
    (void)quick;
    char settings[2][128];
    snprintf(settings[0], 128, "norm=batch track=%s:0", d->net.norm);
    snprintf(settings[1], 128, "norm=none track=%s:0", d->net.before);
    int with = sbni_design_arm(d, "with norm", settings[0]);
    int without = sbni_design_arm(d, "without", settings[1]);
    d->arms[with].flat = d->arms[without].flat = true;
    sbni_design_point(d, with, 0, "%s", "");
    sbni_design_point(d, without, 0, "%s", "");
}

/* How often the net with norm is ahead in the evaluations kept one by one, and behind. */
static void count_early(const sbni_summary *s, int *ahead, int *behind, int *all)
{
    *ahead = *behind = *all = 0;
    for (int i = 0; i < s->n_metrics; i++) {
        if (strncmp(s->metrics[i], "error_at/", 9) != 0) continue;
        sbni_sample d = sbni_summary_difference(s, 0, 1, s->metrics[i]);
        *ahead += sbni_sample_sign(&d) < 0;
        *behind += sbni_sample_sign(&d) > 0;
        ++*all;
    }
}

static void find(const sbni_summary *s, FILE *text)
{
    int ahead, behind, all;
    count_early(s, &ahead, &behind, &all);
    sbni_sample late[2], drift[2];
    for (int i = 0; i < 2; i++) {
        late[i] = sbni_summary_of(s, i, "test_error");
        drift[i] = sbni_summary_of(s, i, "drift");
    }
    sbni_sample in_end = sbni_summary_difference(s, 0, 1, "test_error");
    sbni_sample moves = sbni_summary_difference(s, 0, 1, "drift");
    fprintf(text,
            "The net with norm is ahead beyond the noise in %d of the first %d "
            "evaluations and "
            "behind in %d; in the end the test errors are ",
            ahead, all, behind);
    sbni_put_percent(text, &late[0]);
    fprintf(text, " with norm and ");
    sbni_put_percent(text, &late[1]);
    fprintf(text, " without, with norm ");
    sbni_put_difference(text, &in_end, "without");
    fprintf(
        text,
        "; the percentiles of an input to the last hidden layer move by %.2f of their "
        "distance with norm and by %.2f without.\n",
        drift[0].mean, drift[1].mean);
    int holds[2] = {behind ? -1 : ahead == all, -sbni_sample_sign(&moves)};
    sbni_put_verdict(
        text, sbni_all_hold(holds, 2), "Ioffe & Szegedy 2015 (Fig. 1)",
        "the net with norm trains faster, and the distributions of its inputs are "
        "much more stable");
}

static const sbni_table tables[] = {
    {"error_at/", "Test error, %, at the first evaluations, by step", true, false},
    {"test_error", "Test error behind the last step, %", true, true},
    {"test_loss", "Test loss behind the last step", false, false},
    {"drift", "Deviation of the percentiles over the steps, relative to their distance",
     false, true},
    {0}};

static const sbni_figure figures[] = {
    {"accuracy", "Test accuracy against steps", "step", "test accuracy",
     SBNI_FIGURE_STEPS, "eval.test_accuracy", "", 0},
    {"percentiles", "15th, 50th, 85th percentile of an input to the last hidden layer",
     "step", "value", SBNI_FIGURE_BAND, "activations.p15|activations.p50|activations.p85",
     "15 %|50 %|85 %", 0},
    {0}};

const sbni_study sbni_study_ioffe2015 = {
    .name = "ioffe2015",
    .title = "The first experiment of the batch norm paper",
    .question =
        "Does normalization make a net of sigmoids learn faster, and keep what its last "
        "hidden layer sees from moving while the layers before it learn?",
    .design =
        "Three layers of 100 sigmoids and ten outputs, weights from a small Gaussian, "
        "batches of 60, the same steps with norm in front of each sigmoid and without. "
        "Percentiles are those of what enters one sigmoid of the last hidden layer, over "
        "the samples of a batch.",
    .source = "Ioffe & Szegedy 2015 (arXiv 1502.03167, section 4.1 and Fig. 1)",
    .notes =
        "- The paper took binary MNIST and does not give its learning rate; this is "
        "Fashion-MNIST, a harder set, and --lr changes the rate.\n"
        "- The figure of percentiles shows the first seed and one unit, as the paper's "
        "does; "
        "the table sums up all seeds.\n"
        "- Deviation over distance: standard deviation of the three percentiles over the "
        "steps, mean of the three, divided by the mean distance of the 15th from the "
        "85th.\n",
    .common = "net=mlp batch=60 lr=0.1 momentum=0 init-sigma=0.1 log-every=500",
    .full = "steps=50000 eval-every=1000 track-every=250",
    .quick = "steps=6000 eval-every=500 track-every=100",
    .seeds = {5, 3},
    .x = "",
    .early = 10,
    .build = build,
    .find = find,
    .tables = tables,
    .figures = figures};
