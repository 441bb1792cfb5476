/* Test inputs from another source, and statistics of theirs. */
#include "study/finding.h"
#include "study/presets.h"

static void build(sbni_design *d, bool quick)
{
    char group[32];
    snprintf(group, sizeof group, "norm=group:%d", d->net.groups);
    static const char *const shifts[] = {NULL,        "contrast:0.5", "contrast:0.25",
                                         "noise:0.1", "noise:0.3",    "blur:1",
                                         "blur:2",    "invert:1"};
    for (int i = 0; i < 8; i++)
        if (!quick || i % 2 == 0 || i == 7) d->shift[d->n_shifts++] = shifts[i];
    const char *const arms[][2] = {
        {"batch norm", "norm=batch"}, {"group norm", group}, {"none", "norm=none"}};
    for (int i = 0; i < 3; i++) {
        int arm = sbni_design_arm(d, arms[i][0], arms[i][1]);
        d->arms[arm].flat = true;
        sbni_design_point(d, arm, 0, "%s", "");
    }
}

static void find(const sbni_summary *s, FILE *text)
{
    sbni_sample plain = sbni_summary_of(s, 0, "stored/unchanged");
    sbni_sample stored = sbni_summary_of(s, 0, "stored_mean");
    sbni_sample again = sbni_summary_of(s, 0, "reestimated_mean");
    sbni_sample gain = sbni_summary_of(s, 0, "reestimated_gain");
    fprintf(text, "The test error of batch norm is ");
    sbni_put_percent(text, &plain);
    fprintf(text,
            " on images as in training and, on average over the changes of the source, ");
    sbni_put_percent(text, &stored);
    fprintf(text, " with stored statistics and ");
    sbni_put_percent(text, &again);
    fprintf(text, " with statistics of the changed images, ");
    sbni_put_difference(text, &gain, "that");
    fprintf(text, ".\n");
    sbni_put_verdict(
        text, -sbni_sample_sign(&gain), "Li et al. 2016 and Schneider et al. 2020",
        "statistics of the new inputs, without labels, win back a good part of what "
        "a change of source costs (ImageNet-C, ResNet-50: corruption error 76.7 % to "
        "62.2 %)");
}

static const sbni_table tables[] = {
    {"stored/", "Test error, %, with the statistics of training", true, false},
    {"reestimated/", "Test error, %, with statistics of the changed test images", true,
     false},
    {0}};

static const sbni_figure figures[] = {{"test_error", "Test images from another source",
                                       "change of the test images", "test error, %",
                                       SBNI_FIGURE_WORDS, "stored/|reestimated/",
                                       "stored|re-estimated", SBNI_PERCENT},
                                      {0}};

const sbni_study sbni_study_shift = {
    .name = "shift",
    .title = "Test images from another source",
    .question =
        "How much does accuracy suffer when test images come from another source than "
        "the "
        "training images, and how much of it do statistics of the new images win back?",
    .design =
        "Nets are trained on images as they are, and tested on images of lower contrast, "
        "with noise, blurred or inverted: with the statistics of training, and with "
        "those "
        "of the changed test images, estimated layer by layer without a look at labels. "
        "No "
        "weight changes.",
    .source =
        "Li et al. 2016 (arXiv 1603.04779), Schneider et al. 2020 (arXiv 2006.16971)",
    .notes =
        "- unchanged: the test images as they are. Re-estimated statistics change little "
        "there.\n"
        "- Group norm and no norm have no stored statistics, and so nothing to "
        "re-estimate; they show how much of the loss is not a matter of statistics.\n"
        "- Statistics are those of all test images at once; a user of a phone has "
        "fewer.\n",
    .common = "net=cnn batch=64 lr=0.05 momentum=0.9 schedule=cosine log-every=20",
    .full = "epochs=3",
    .quick = "epochs=2 limit-train=15000 limit-test=5000",
    .seeds = {5, 3},
    .x = "",
    .build = build,
    .find = find,
    .tables = tables,
    .figures = figures};
