/* Steps to a target error against the SGD batch. */
#include <math.h>
#include <stdlib.h>

#include "study/finding.h"
#include "study/presets.h"

/* The rate is searched in factors of 2 below √ scaling, where the best lies, and a little
 * above. An evaluation every 4096 images or so; the noise scale needs a batch well above
 * a norm batch. */
static void build(sbni_design *d, bool quick)
{
    double lr = sbni_design_number(d, "lr", 0.05);
    const char *norm_batch = sbni_pairs_get(&d->base, "norm-batch"); /* or "all" */
    char name[32];
    snprintf(name, sizeof name, "norm batch %.16s", norm_batch);
    int arm = sbni_design_arm(d, name, ""), samples = atoi(norm_batch);
    for (int batch = 16; batch <= (quick ? 1024 : 4096); batch *= quick ? 4 : 2)
        for (int i = quick ? -2 : -4; i <= (quick ? 0 : 2); i++) {
            double rate = lr * sqrt(batch / 64.0) * ldexp(1, i);
            int every = batch < 4096 ? 4096 / batch : 1;
            char noise[32] = "";
            if (samples > 0 && batch >= 8 * samples)
                snprintf(noise, sizeof noise, " noise-scale=%d", batch < 2048 ? 20 : 5);
            sbni_design_search(d, arm, batch, rate, "batch=%d lr=%.6g eval-every=%d%s",
                               batch, rate, every, noise);
        }
}

/* Steps = least·(1 + B/batch), by least squares of logarithms: McCandlish et al. 2018,
 * equation 2.11. Returns B, NaN of fewer than three points. */
static double fit_knee(const double *batch, const double *steps, int n)
{
    double best = (double)NAN, least = INFINITY;
    for (int k = 0; n > 2 && k <= 400; k++) {
        double knee = batch[0] / 100 * pow(1e4 * batch[n - 1] / batch[0], k / 400.0);
        double mean = 0, sum = 0;
        for (int i = 0; i < n; i++) mean += log(steps[i] / (1 + knee / batch[i])) / n;
        for (int i = 0; i < n; i++) {
            double r = log(steps[i] / (1 + knee / batch[i])) - mean;
            sum += r * r;
        }
        if (sum < least) {
            least = sum;
            best = knee;
        }
    }
    return best;
}

static void find(const sbni_summary *s, FILE *text)
{
    double x[SBNI_SUMMARY_VALUES], batch[SBNI_SUMMARY_VALUES], steps[SBNI_SUMMARY_VALUES];
    int all = sbni_summary_values(s, x, SBNI_SUMMARY_VALUES), n = 0, noises = 0;
    double perfect = 0, noise = 0;
    for (int i = 0; i < all; i++) {
        int point = sbni_summary_point(s, 0, x[i]);
        sbni_sample v = sbni_summary_of(s, point, "steps_to_target");
        sbni_sample w = sbni_summary_of(s, point, "noise_scale");
        if (w.n) {
            noise += log(w.mean);
            noises++;
        }
        if (v.n < s->design->seeds) continue;
        batch[n] = x[i];
        steps[n++] = v.mean;
        bool unbroken = n == 1 || perfect == batch[n - 2];
        if (unbroken && steps[0] * batch[0] / (steps[n - 1] * x[i]) >= 0.8)
            perfect = x[i];
    }
    if (n < 3) {
        fprintf(text,
                "Too few batches reached the target in all runs to say anything.\n");
        return;
    }
    double last = steps[0] * batch[0] / (steps[n - 1] * batch[n - 1]);
    fprintf(
        text,
        "Steps to the target fall from %.0f at a batch of %g to %.0f at %g: they halve "
        "with each doubling (to 80 %%) up to a batch of %g, and at %g an image is worth "
        "%.0f %% of what it was",
        steps[0], batch[0], steps[n - 1], batch[n - 1], perfect, batch[n - 1],
        100 * last);
    double knee = fit_knee(batch, steps, n);
    noise = noises ? exp(noise / noises) : (double)NAN;
    fprintf(text, "; the curve's knee, as least·(1 + B/batch), lies at B = %.0f", knee);
    if (noises)
        fprintf(text, ", the gradient noise scale by independent norm batches is %.0f",
                noise);
    fprintf(text, ".\n");
    sbni_sample fall = sbni_summary_difference(s, sbni_summary_point(s, 0, batch[0]),
                                               sbni_summary_point(s, 0, batch[n - 1]),
                                               "steps_to_target");
    double apart = fabs(log10(knee / noise));
    int holds[4] = {sbni_sample_sign(&fall), perfect > batch[0] ? 1 : -1,
                    last < 0.8 ? 1 : -1,
                    isnan(apart) ? 0
                    : apart < 1  ? 1
                                 : -1};
    sbni_put_verdict(
        text, sbni_all_hold(holds, 4), "Shallue et al. 2019 and McCandlish et al. 2018",
        "perfect scaling is followed by diminishing returns, around a knee of the "
        "noise scale's order (MNIST: about 900 at the end of training)");
}

static const sbni_table tables[] = {
    {"steps_to_target", "Steps to the target", false, false},
    {"epochs_to_target", "Epochs to the target", false, false},
    {"reached", "Fraction of runs that reached it", false, false},
    {"noise_scale", "Gradient noise scale, images", false, false},
    {0}};

static const sbni_figure figures[] = {
    {"steps", "Steps to the target error", NULL, "steps", SBNI_FIGURE_POINTS,
     "steps_to_target", "", SBNI_LOG_X | SBNI_LOG_Y | SBNI_PERFECT},
    {"epochs", "Epochs to the target error", NULL, "epochs", SBNI_FIGURE_POINTS,
     "epochs_to_target", "", SBNI_LOG_X | SBNI_LOG_Y},
    {"noise_scale", "Gradient noise scale", NULL, "images", SBNI_FIGURE_POINTS,
     "noise_scale", "", SBNI_LOG_X | SBNI_LOG_Y},
    {0}};

const sbni_study sbni_study_sgd_batch = {
    .name = "sgd-batch",
    .title = "How far does a larger SGD batch save steps?",
    .question =
        "How many steps, and how many epochs, does it take to a given test error "
        "as the SGD batch grows, when the statistics stay those of as many samples?",
    .design =
        "The normalization batch is the same everywhere, so that only the gradient's "
        "batch varies. For each batch the rate is searched in factors of 2 below and "
        "above "
        "√ scaling, and the rate with the fewest steps is taken. A run ends at the first "
        "evaluation, "
        "one every 4096 images, that reaches the target.",
    .source = "Shallue et al. 2019 (arXiv 1811.03600), McCandlish et al. 2018 (arXiv "
              "1812.06162), "
              "Goyal et al. 2017 (arXiv 1706.02677)",
    .notes =
        "- The line without points is perfect scaling: twice the batch, half the steps.\n"
        "- The rate is chosen on the runs that are shown, so steps are a little "
        "flattered "
        "everywhere alike. Where the table of choices shows an end of the range "
        "searched, the optimum may lie beyond.\n"
        "- Under synchronized statistics the gradients of processes are not independent: "
        "each depends on all samples through mean and variance. The noise scale is "
        "therefore estimated from whole normalization groups, which are independent: "
        "squared norms of the gradient of one group and of the batch (McCandlish, "
        "appendix A.1), each averaged over the second half of a run before the ratio.\n",
    .common = "net=cnn norm-batch=16 lr=0.05 momentum=0.9 target=0.86 limit-test=2000 "
              "log-every=20",
    .full = "epochs=6",
    .quick = "epochs=3 limit-train=20000 target=0.82",
    .seeds = {5, 3},
    .x = "SGD batch",
    .search = "steps_to_target",
    .build = build,
    .find = find,
    .tables = tables,
    .figures = figures};
