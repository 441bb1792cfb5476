/* What happens when the normalization batch is what a process happens to have. */
#include "study/finding.h"
#include "study/presets.h"

static void build(sbni_design *d, bool quick)
{
    int batch = (int)sbni_design_number(d, "batch", 64);
    int local = sbni_design_arm(d, "local norm", "norm=batch norm-running=norm-batches");
    for (int p = 1; p <= 32 && batch / p > 1; p *= quick ? 4 : 2)
        if (batch % p == 0) sbni_design_point(d, local, p, "norm-batch=%d", batch / p);
    int sync = sbni_design_arm(d, "synchronized norm", "norm=batch");
    d->arms[sync].flat = true;
    sbni_design_point(d, sync, 1, "norm-batch=all");
}

static void find(const sbni_summary *s, FILE *text)
{
    double x[SBNI_SUMMARY_VALUES];
    int n = sbni_summary_values(s, x, SBNI_SUMMARY_VALUES);
    if (n < 2) return;
    int local = sbni_summary_point(s, 0, x[n - 1]), sync = sbni_summary_point(s, 1, 1);
    sbni_sample at_one = sbni_summary_of(s, sync, "test_error");
    sbni_sample at_most = sbni_summary_of(s, local, "test_error");
    sbni_sample loss = sbni_summary_difference(s, local, sync, "test_error");
    fprintf(text, "With statistics of each process alone the test error is ");
    sbni_put_percent(text, &at_most);
    fprintf(text, " at %g processes, ", x[n - 1]);
    sbni_put_difference(text, &loss, "with synchronized statistics");
    fprintf(text, "; these give ");
    sbni_put_percent(text, &at_one);
    fprintf(text, " at any number of processes.\n");
    sbni_put_verdict(
        text, sbni_sample_sign(&loss), "Wu & He 2018 and Peng et al. 2018",
        "few samples per worker cost accuracy (ResNet-50: 23.6 % with 32 per "
        "worker, 34.7 % with 2)");
}

static const sbni_table tables[] = {
    {"test_error", "Test error, %", true, false},
    {"precise_test_error", "Test error, %, with precise statistics", true, false},
    {"batch_loss", "Loss in training mode, last tenth of the steps", false, false},
    {0}};

static const sbni_figure figures[] = {
    {"test_error", "The same training, cut up for more processes", NULL, "test error, %",
     SBNI_FIGURE_POINTS, "test_error", "", SBNI_LOG_X | SBNI_PERCENT},
    {0}};

const sbni_study sbni_study_processes = {
    .name = "processes",
    .title = "What if every process normalizes its own samples?",
    .question =
        "How does the test error change with the number of processes, when each "
        "takes statistics of its own share of the batch, as data-parallel training "
        "does without synchronization?",
    .design = "One batch is cut into equal shares for 1 to 32 processes. Local norm on P "
              "processes is a normalization batch of batch/P, with running statistics "
              "that follow what these see, whatever the number of processes that really "
              "run. Synchronized norm takes the whole batch.",
    .source = "Wu & He 2018 (arXiv 1803.08494), Peng et al. 2018 (arXiv 1711.07240), "
              "Goyal et al. 2017 (arXiv 1706.02677)",
    .notes =
        "- Nothing but the sharing of statistics differs: the same batch, rate, order "
        "and "
        "steps. A program that normalizes locally changes its result with the number of "
        "processes, silently.\n"
        "- The line of synchronized norm was run once: that its result does not depend "
        "on "
        "the number of processes is a promise of the program, tested elsewhere.\n",
    .common = "net=cnn batch=64 lr=0.05 momentum=0.9 schedule=cosine log-every=20",
    .full = "epochs=2 precise-stats=10000",
    .quick = "epochs=2 limit-train=15000 precise-stats=5000 limit-test=5000",
    .seeds = {5, 3},
    .x = "processes",
    .build = build,
    .find = find,
    .tables = tables,
    .figures = figures};
