/* A large batch: its statistics whole or in parts, its rate scaled or not. */
#include <math.h>

#include "study/finding.h"
#include "study/presets.h"

enum { SMALL = 64, LEAST = 16 };
enum { SAME, ROOT, LINEAR, N_RATES }; /* arms */

static void build(sbni_design *d, bool quick)
{
    int batch = (int)sbni_design_number(d, "batch", 1024);
    double lr = sbni_design_number(d, "lr", 0.05), ratio = (double)batch / SMALL;
    static const char *const names[N_RATES] = {
        [SAME] = "same rate", [ROOT] = "√ scaling", [LINEAR] = "linear scaling"};
    const double rates[N_RATES] = {
        [SAME] = lr, [ROOT] = lr * sqrt(ratio), [LINEAR] = lr * ratio};
    for (int i = 0; i < N_RATES; i++) {
        int arm = sbni_design_arm(d, names[i], "");
        for (int n = LEAST; n < batch; n = quick ? batch : 8 * n)
            sbni_design_point(d, arm, n, "norm-batch=%d lr=%.6g", n, rates[i]);
        if (batch > LEAST)
            sbni_design_point(d, arm, batch, "norm-batch=%d lr=%.6g", batch, rates[i]);
    }
    int small = sbni_design_arm(d, "batch 64", "");
    d->arms[small].flat = true;
    sbni_design_point(d, small, SMALL, "batch=%d norm-batch=%d lr=%.6g", SMALL, SMALL,
                      lr);
}

/* What ghost batches do is told apart from what a rate does: by rows of one rate. */
static void find(const sbni_summary *s, FILE *text)
{
    double x[SBNI_SUMMARY_VALUES];
    int n = sbni_summary_values(s, x, SBNI_SUMMARY_VALUES), small = -1;
    if (n < 2) return;
    for (int i = 0; i < s->design->n_arms; i++)
        if (s->design->arms[i].flat) small = sbni_summary_point(s, i, x[0]);
    sbni_sample at_small = sbni_summary_of(s, small, "test_error");
    int plain = sbni_summary_point(s, SAME, x[n - 1]);
    sbni_sample gap = sbni_summary_difference(s, plain, small, "test_error");
    fprintf(text, "After as many epochs the test error of the small batch is ");
    sbni_put_percent(text, &at_small);
    fprintf(text,
            "; that of the large one, with its rate and statistics as they are, is ");
    sbni_put_difference(text, &gap, "that");
    fprintf(text, ". With ghost batches of %g samples it is, ", x[0]);
    sbni_sample by_parts = {0};
    static const int rates[] = {SAME, ROOT};
    for (int i = 0; i < 2; i++) {
        int ghost = sbni_summary_point(s, rates[i], x[0]);
        int whole = sbni_summary_point(s, rates[i], x[n - 1]);
        by_parts = sbni_summary_difference(s, ghost, whole, "test_error");
        fprintf(text, "%s %s, ", i ? " and, by" : "at the",
                s->design->arms[rates[i]].name);
        sbni_put_difference(text, &by_parts, "with whole-batch statistics");
    }
    int both = sbni_summary_point(s, ROOT, x[0]);
    sbni_sample left = sbni_summary_difference(s, both, small, "test_error");
    fprintf(text, "; with both, ghost batches and √ scaling, it is ");
    sbni_put_difference(text, &left, "the small batch's");
    fprintf(text, ".\n");
    sbni_sample closed = sbni_summary_difference(s, both, plain, "test_error");
    int holds[3] = {sbni_sample_sign(&gap), -sbni_sample_sign(&by_parts),
                    -sbni_sample_sign(&closed)};
    sbni_put_verdict(
        text, sbni_all_hold(holds, 3), "Hoffer et al. 2017",
        "ghost batches with √ scaling close a part of the gap (MNIST: 98.27 % "
        "small, 97.05 % large, 98.53 % with ghost batches and longer training)");
}

static const sbni_table tables[] = {
    {"test_error", "Test error, %", true, true},
    {"train_error", "Training error, %", true, false},
    {"gap", "Test error − training error, points", true, false},
    {"batch_loss", "Loss in training mode, last tenth of the steps", false, false},
    {0}};

static const sbni_figure figures[] = {
    {"test_error", "A large batch, by its normalization batch and rate", NULL,
     "test error, %", SBNI_FIGURE_POINTS, "test_error", "", SBNI_LOG_X | SBNI_PERCENT},
    {0}};

const sbni_study sbni_study_ghost = {
    .name = "ghost",
    .title = "Do ghost batches rescue a large batch?",
    .question =
        "Trained for as many epochs, a large batch reaches a worse test error than a "
        "small one: how much of that is its statistics, how much its rate?",
    .design =
        "A large batch (--batch, 1024) against one of 64, for as many epochs on so few "
        "images that either learns them by heart: what is left is a gap in "
        "generalization. The large batch is normalized in parts of 16 samples (ghost "
        "batches) up to the whole, and its rate is that of the small one, or as many "
        "times that as its batch is larger, or the root of it.",
    .source = "Hoffer et al. 2017 (arXiv 1705.08741)",
    .notes =
        "- Training as many steps instead of as many epochs (“regime adaptation”) is not "
        "part of this study: --epochs gives longer ones.\n"
        "- Rates grow in the first steps of each run (--warmup), so that linear scaling "
        "starts at all.\n",
    .common = "net=cnn batch=1024 lr=0.05 momentum=0.9 schedule=cosine log-every=10",
    .full = "epochs=60 limit-train=5000 eval-train=5000 eval-every=1000000 warmup=20",
    .quick = "epochs=40 limit-train=2000 eval-train=2000 limit-test=5000 "
             "eval-every=1000000 warmup=8",
    .seeds = {5, 3},
    .x = "samples that share statistics",
    .build = build,
    .find = find,
    .tables = tables,
    .figures = figures};
