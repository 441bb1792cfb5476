/* A large batch: its statistics whole or in parts, its rate scaled or not. */
#include <math.h>

#include "study/finding.h"
#include "study/presets.h"

enum { SMALL = 64, LEAST = 16 };

static void build(sbni_design *d, bool quick)
{
    int batch = (int)sbni_design_number(d, "batch", 1024);
    (void)quick;
    double lr = sbni_design_number(d, "lr", 0.05), ratio = (double)batch / SMALL;
    static const char *const names[] = {"same rate", "√ scaling", "linear scaling"};
    const double rates[] = {lr, lr * sqrt(ratio), lr * ratio};
    for (int i = 0; i < 3; i++) {
        int arm = sbni_design_arm(d, names[i], "");
        for (int n = LEAST; n < batch; n *= 8)
            sbni_design_point(d, arm, n, "norm-batch=%d lr=%.6g", n, rates[i]);
        if (batch > LEAST)
            sbni_design_point(d, arm, batch, "norm-batch=%d lr=%.6g", batch, rates[i]);
    }
    int small = sbni_design_arm(d, "batch 64", "");
    d->arms[small].flat = true;
    sbni_design_point(d, small, SMALL, "batch=%d norm-batch=%d lr=%.6g", SMALL, SMALL,
                      lr);
}

static void find(const sbni_summary *s, FILE *text)
{
    double x[SBNI_SUMMARY_VALUES];
    int n = sbni_summary_values(s, x, SBNI_SUMMARY_VALUES), small = -1, best = 0;
    if (n < 2) return;
    for (int i = 0; i < s->design->n_arms; i++)
        if (s->design->arms[i].flat) small = sbni_summary_point(s, i, x[0]);
    double least = INFINITY;
    for (int i = 0; i < 3; i++) {
        sbni_sample v =
            sbni_summary_of(s, sbni_best_point(s, i, "test_error"), "test_error");
        if (v.mean < least) {
            least = v.mean;
            best = i;
        }
    }
    int ghost = sbni_best_point(s, best, "test_error");
    int whole = sbni_summary_point(s, best, x[n - 1]);
    int plain = sbni_summary_point(s, 0, x[n - 1]);
    sbni_sample at_small = sbni_summary_of(s, small, "test_error");
    sbni_sample gap = sbni_summary_difference(s, plain, small, "test_error");
    sbni_sample closed = sbni_summary_difference(s, ghost, plain, "test_error");
    sbni_sample by_parts = sbni_summary_difference(s, ghost, whole, "test_error");
    fprintf(text, "After as many epochs the test error of the small batch is ");
    sbni_put_percent(text, &at_small);
    fprintf(text,
            "; that of the large one, with its rate and statistics as they are, is ");
    sbni_put_difference(text, &gap, "that");
    fprintf(text, ". The best of the ways tried, %s with norm batches of %g, is ",
            s->design->arms[best].name, s->design->points[ghost].x);
    sbni_put_difference(text, &closed, "the latter");
    fprintf(text, ", and ");
    sbni_put_difference(text, &by_parts, "whole-batch statistics at the same rate");
    fprintf(text, ".\n");
    int holds[2] = {sbni_sample_sign(&gap), -sbni_sample_sign(&closed)};
    sbni_put_verdict(
        text, sbni_all_hold(holds, 2), "Hoffer et al. 2017",
        "ghost batches and √ scaling close a part of the gap (MNIST: 98.27 % "
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
        "A batch of 1024 against one of 64, for as many epochs on 20,000 images. The "
        "large batch is normalized in parts of 16 samples (ghost batches) up to the "
        "whole, "
        "and its rate is that of the small one, √16 times or 16 times that.",
    .source = "Hoffer et al. 2017 (arXiv 1705.08741)",
    .notes =
        "- Training as many steps instead of as many epochs (“regime adaptation”) is not "
        "part of this study: --epochs gives longer ones.\n"
        "- Rates grow in the first steps of each run (--warmup), so that linear scaling "
        "starts at all.\n",
    .common = "net=cnn batch=1024 lr=0.05 momentum=0.9 schedule=cosine log-every=10",
    .full = "epochs=10 limit-train=20000 eval-train=10000 eval-every=1000000 warmup=20",
    .quick = "epochs=8 limit-train=10000 eval-train=5000 limit-test=5000 "
             "eval-every=1000000 warmup=8",
    .seeds = {5, 3},
    .x = "samples that share statistics",
    .build = build,
    .find = find,
    .tables = tables,
    .figures = figures};
