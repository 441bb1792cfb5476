/* Norm batches of few classes. */
#include "study/finding.h"
#include "study/presets.h"

static void build(sbni_design *d, bool quick)
{
    char group[32];
    snprintf(group, sizeof group, "norm=group:%d", d->net.groups);
    const char *const arms[][2] = {{"batch norm", "norm=batch"},
                                   {"renorm", "norm=renorm"},
                                   {"group norm", group},
                                   {"none", "norm=none"}};
    static const int classes[] = {1, 2, 5, 10};
    for (int i = 0; i < 4; i++) {
        int arm = sbni_design_arm(d, arms[i][0], arms[i][1]);
        for (int k = 0; k < 4; k++)
            if (!quick || k % 2)
                sbni_design_point(d, arm, classes[k], "classes=%d", classes[k]);
    }
}

/* Norm batches of one class leave nothing to tell classes apart. */
static void put_single(const sbni_summary *s, double x, FILE *text)
{
    sbni_sample single[2];
    for (int i = 0; i < 2; i++)
        single[i] = sbni_summary_of(s, sbni_summary_point(s, i, x), "test_error");
    fprintf(text, "; with a single class they are ");
    sbni_put_percent(text, &single[0]);
    fprintf(text, " and ");
    sbni_put_percent(text, &single[1]);
}

static void find(const sbni_summary *s, FILE *text)
{
    double x[SBNI_SUMMARY_VALUES];
    int n = sbni_summary_values(s, x, SBNI_SUMMARY_VALUES);
    if (n < 2) return;
    double few_x = x[0] < 2 && n > 2 ? x[1] : x[0];
    sbni_sample few[2], lost[2];
    int few_point[2];
    for (int i = 0; i < 2; i++) {
        int all = sbni_summary_point(s, i, x[n - 1]);
        few_point[i] = sbni_summary_point(s, i, few_x);
        few[i] = sbni_summary_of(s, few_point[i], "test_error");
        lost[i] = sbni_summary_difference(s, few_point[i], all, "test_error");
    }
    sbni_sample saved =
        sbni_summary_difference(s, few_point[1], few_point[0], "test_error");
    fprintf(text, "With norm batches of %g classes the test error of batch norm is ",
            few_x);
    sbni_put_percent(text, &few[0]);
    fprintf(text, ", ");
    sbni_put_difference(text, &lost[0], "with all classes");
    fprintf(text, "; that of renorm is ");
    sbni_put_percent(text, &few[1]);
    fprintf(text, ", ");
    sbni_put_difference(text, &lost[1], "with all classes");
    fprintf(text, ", and ");
    sbni_put_difference(text, &saved, "batch norm's");
    if (few_x > x[0]) put_single(s, x[0], text);
    fprintf(text, ".\n");
    int holds[3] = {sbni_sample_sign(&lost[0]), -sbni_sample_sign(&saved),
                    lost[1].mean < 0.5 * lost[0].mean ? 1 : -1};
    sbni_put_verdict(
        text, sbni_all_hold(holds, 3), "Ioffe 2017 (section 4.3)",
        "minibatches of 16 classes, two images each, cost batch norm about "
        "11 points of accuracy (67 % against 78 %) and renorm much less, nearly "
        "none");
}

static const sbni_table tables[] = {
    {"test_error", "Test error, %, with running statistics", true, true},
    {"precise_test_error", "Test error, %, with precise statistics", true, false},
    {"batch_loss", "Loss in training mode, last tenth of the steps", false, false},
    {"test_loss", "Test loss", false, false},
    {0}};

static const sbni_figure figures[] = {{"test_error", "Norm batches of few classes", NULL,
                                       "test error, %", SBNI_FIGURE_POINTS, "test_error",
                                       "", SBNI_LOG_X | SBNI_PERCENT},
                                      {0}};

const sbni_study sbni_study_non_iid = {
    .name = "non-iid",
    .title = "What if the samples of a norm batch are alike?",
    .question =
        "How does training bear norm batches whose samples come from few classes, "
        "and so are no fair draw of the data?",
    .design =
        "Every norm batch is drawn from k of the ten classes, equally many samples "
        "of each; the SGD batch is made of several norm batches, each with "
        "classes of its own, so that the gradient still sees many classes. The test "
        "set is what it always is.",
    .source = "Ioffe 2017 (arXiv 1702.03275, section 4.3)",
    .notes =
        "- Running statistics are means of what norm batches saw (--norm-running "
        "norm-batches), as they are where workers keep their own: their variance leaves "
        "out "
        "how far classes are apart.\n"
        "- With one class in a norm batch no method that centres it can learn: the "
        "gradient "
        "of what all its samples have in common, their class, is projected out, by "
        "renorm "
        "too, whose corrections are constants to the gradient.\n"
        "- Few classes make the SGD batch uneven as well, which costs every method "
        "something: group norm and no norm show how much.\n"
        "- Batch norm can read off its batch which classes it holds: in training it does "
        "well, "
        "as the loss in training mode shows, by means that are not there at the test.\n"
        "- Precise statistics are of samples of all classes, as the test set is. If "
        "batch norm "
        "is bad with them as well, the weights themselves lean on the batches.\n",
    .common = "net=cnn batch=200 norm-batch=20 lr=0.02 momentum=0.9 schedule=cosine "
              "norm-running=norm-batches log-every=20 renorm-r-max=3 renorm-d-max=5",
    .full = "epochs=2 precise-stats=10000 renorm-warmup=100 renorm-r-steps=400 "
            "renorm-d-steps=400",
    .quick = "epochs=3 limit-train=20000 precise-stats=5000 limit-test=5000 "
             "renorm-warmup=40 renorm-r-steps=140 renorm-d-steps=140",
    .seeds = {5, 3},
    .x = "classes in a norm batch",
    .build = build,
    .find = find,
    .tables = tables,
    .figures = figures};
