/* Test error against the normalization batch at a fixed SGD batch. */
#include "study/finding.h"
#include "study/presets.h"

static void build(sbni_design *d, bool quick)
{
    int most = (int)sbni_design_number(d, "batch", 64);
    int bn = sbni_design_arm(d, "batch norm", "norm=batch");
    int rn = sbni_design_arm(d, "renorm", "norm=renorm");
    for (int n = 2, last = 0; last < most; n *= quick && n > 2 ? 4 : 2) {
        last = n < most ? n : most; /* the whole batch, too, where it is no power of 2 */
        sbni_design_point(d, bn, last, "norm-batch=%d", last);
        sbni_design_point(d, rn, last, "norm-batch=%d", last);
    }
    char group[32];
    snprintf(group, sizeof group, "norm=group:%d", d->net.groups);
    const char *const flat[][2] = {{"group norm", group},
                                   {"none", "norm=none"},
                                   {"none, dropout 0.5", "norm=none dropout=0.5"}};
    for (int i = 0; i < 3; i++) {
        int arm = sbni_design_arm(d, flat[i][0], flat[i][1]);
        d->arms[arm].flat = true;
        sbni_design_point(d, arm, most, "norm-batch=all");
    }
}

static void find(const sbni_summary *s, FILE *text)
{
    double x[SBNI_SUMMARY_VALUES];
    int n = sbni_summary_values(s, x, SBNI_SUMMARY_VALUES);
    int best = sbni_best_point(s, 0, "test_error");
    int small = sbni_summary_point(s, 0, x[0]), group = sbni_summary_point(s, 2, x[0]);
    int renorm = sbni_summary_point(s, 1, x[0]);
    if (best < 0 || n < 2) return;
    sbni_sample at_best = sbni_summary_of(s, best, "test_error");
    sbni_sample at_small = sbni_summary_of(s, small, "test_error");
    /* not from the best, which would always be worse than another */
    int whole = sbni_summary_point(s, 0, x[n - 1]);
    sbni_sample loss = sbni_summary_difference(s, small, whole, "test_error");
    sbni_sample saved = sbni_summary_difference(s, renorm, small, "test_error");
    sbni_sample beside = sbni_summary_difference(s, group, small, "test_error");
    fprintf(text, "The test error of batch norm is ");
    sbni_put_percent(text, &at_best);
    fprintf(text, " at its best norm batch of %g and ", s->design->points[best].x);
    sbni_put_percent(text, &at_small);
    fprintf(text, " at %g; there renorm is ", x[0]);
    sbni_put_difference(text, &saved, "that");
    fprintf(text, " and group norm, on which the norm batch has no effect, ");
    sbni_put_difference(text, &beside, "that");
    fprintf(text, ".\n");
    int holds[3] = {sbni_sample_sign(&loss), -sbni_sample_sign(&saved),
                    -sbni_sample_sign(&beside)};
    sbni_put_verdict(
        text, sbni_all_hold(holds, 3), "Wu & He 2018 (Table 2) and Ioffe 2017",
        "the error of batch norm rises as the norm batch falls to 2 (ResNet-50: 23.6 % "
        "at "
        "32, 27.3 % at 4, 34.7 % at 2), renorm loses less (26.3 % at 4), group norm "
        "stays (24.1 %)");
}

static const sbni_table tables[] = {
    {"test_error", "Test error, %, with running statistics", true, true},
    {"precise_test_error", "Test error, %, with precise statistics", true, false},
    {"gap", "Test error − training error, points, with running statistics", true, false},
    {"precise_gap", "Test error − training error, points, with precise statistics", true,
     false},
    {"batch_loss", "Loss in training mode, last tenth of the steps", false, false},
    {"mean_noise", "Noise of the mean, in deviations, mean of the layers", false, false},
    {"var_noise", "Noise of the variance, relative, mean of the layers", false, false},
    {0}};

static const sbni_figure figures[] = {
    {"test_error", "Test error against the normalization batch", NULL, "test error, %",
     SBNI_FIGURE_POINTS, "test_error", "", SBNI_LOG_X | SBNI_PERCENT},
    {"precise", "The same models with precise statistics", NULL, "test error, %",
     SBNI_FIGURE_POINTS, "precise_test_error", "", SBNI_LOG_X | SBNI_PERCENT},
    {"gap", "Generalization gap, precise statistics", NULL,
     "test error − training error, points", SBNI_FIGURE_POINTS, "precise_gap", "",
     SBNI_LOG_X | SBNI_PERCENT},
    {"noise", "Noise of a norm batch's statistics", NULL,
     "rms deviation from the batch's", SBNI_FIGURE_POINTS, "mean_noise|var_noise",
     "mean|variance", SBNI_LOG_X | SBNI_LOG_Y},
    {0}};

const sbni_study sbni_study_norm_batch = {
    .name = "norm-batch",
    .title = "How many samples should share statistics?",
    .question =
        "How does the test error depend on the normalization batch, the number of "
        "samples that share one mean and variance, when nothing else changes?",
    .design = "The SGD batch, the learning rate, the order of samples and the number of "
              "steps are the same everywhere; only the normalization batch varies, "
              "from 2 samples to the whole SGD batch. Batch norm and batch "
              "renormalization are compared with group norm, with no norm, and with no "
              "norm but dropout, which have no normalization batch.",
    .source = "Wu & He 2018 (arXiv 1803.08494, Table 2), Wu & Johnson 2021 "
              "(arXiv 2105.07576), Ioffe 2017 (arXiv 1702.03275)",
    .notes =
        "- The cited sweeps change the batch of a worker, and with it the SGD batch and "
        "the "
        "rate or the number of workers; here the SGD batch stays, so what is seen is the "
        "statistics alone.\n"
        "- Running statistics are averages over training; precise statistics are those "
        "of "
        "training samples under the final weights. A difference between the two tables "
        "is the fault of the averages, not of training.\n"
        "- The gap is test error minus error on training samples, both in evaluation "
        "mode. "
        "Noise of the statistics regularizes: a smaller norm batch may have a smaller "
        "gap and "
        "yet a larger error.\n"
        "- The loss in training mode is that of the steps, with the statistics of norm "
        "batches. Where it is low and the evaluation's is high, train and test "
        "disagree about statistics.\n"
        "- Noise is the rms over channels of (mean of a norm batch − mean of the batch) "
        "in "
        "standard deviations, and of variance over variance − 1; independent samples "
        "give about 1/√n and √(2/n) for a layer with one value per "
        "sample. Layer by layer: mean_noise/NAME in `summary.csv`.\n",
    .common = "net=cnn batch=64 lr=0.05 momentum=0.9 schedule=cosine stat-noise=on "
              "log-every=20 renorm-r-max=3 renorm-d-max=5",
    .full = "epochs=2 eval-train=10000 precise-stats=10000 renorm-warmup=200 "
            "renorm-r-steps=600 renorm-d-steps=600",
    .quick = "epochs=2 limit-train=15000 eval-train=5000 precise-stats=5000 "
             "limit-test=5000 renorm-warmup=40 renorm-r-steps=120 renorm-d-steps=120",
    .seeds = {5, 3},
    .x = "samples that share statistics",
    .build = build,
    .find = find,
    .tables = tables,
    .figures = figures};
