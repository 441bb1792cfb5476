/* Any options of training against each other. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "study/presets.h"

enum { AXES = 8, VALUES = SBNI_X_WORDS, VALUE_BYTES = 128, ROW_BYTES = 1000 };

typedef struct axis {
    char option[SBNI_PAIR_NAME];
    char values[VALUES][VALUE_BYTES];
    int n;
} axis;

static sbn_status read_axis(const char *text, axis *a)
{
    int name = (int)strcspn(text, "=");
    SBN_CHECK(name > 0 && name < SBNI_PAIR_NAME && text[name] && text[name + 1],
              SBN_E_ARG, "--vary: expected OPTION=VALUE,VALUE…, got \"%.200s\"", text);
    snprintf(a->option, sizeof a->option, "%.*s", name, text);
    SBN_CHECK(strcmp(a->option, "seed") != 0, SBN_E_ARG,
              "--vary: expected another option than seed; --seeds says how many");
    for (text += name + 1, a->n = 0; *text; text += *text == ',') {
        int length = (int)strcspn(text, ",");
        SBN_CHECK(length > 0 && length < VALUE_BYTES && a->n < VALUES, SBN_E_ARG,
                  "--vary %s: expected 1 to %d values of up to %d bytes", a->option,
                  VALUES, VALUE_BYTES - 1);
        snprintf(a->values[a->n++], VALUE_BYTES, "%.*s", length, text);
        text += length;
    }
    return SBN_OK;
}

static bool is_number(const char *text)
{
    char *end;
    strtod(text, &end);
    return *text && !*end;
}

static bool has_numbers(const axis *a)
{
    for (int k = 0; k < a->n; k++)
        if (!is_number(a->values[k])) return false;
    return true;
}

/* The first axis of numbers is x; without one, x counts the values of the first. */
static int choose_x(const axis *axes, int n)
{
    for (int i = 0; i < n; i++)
        if (has_numbers(&axes[i])) return i;
    return 0;
}

static void build_grid(sbni_design *d, const axis *axes, int n)
{
    int x = choose_x(axes, n), rows = 1;
    for (int i = 0; i < n; i++)
        if (i != x) rows *= axes[i].n;
    snprintf(d->x, sizeof d->x, "%s", axes[x].option);
    bool numbers = has_numbers(&axes[x]);
    for (int k = 0; k < axes[x].n && !numbers; k++)
        snprintf(d->x_words[k], sizeof d->x_words[k], "%.31s", axes[x].values[k]);
    for (int row = 0; row < rows && d->status == SBN_OK; row++) {
        char name[ROW_BYTES] = "", settings[ROW_BYTES] = "";
        size_t named = 0, set = 0;
        for (int i = 0, rest = row; i < n; i++) {
            if (i == x) continue;
            const char *value = axes[i].values[rest % axes[i].n];
            rest /= axes[i].n;
            named += (size_t)snprintf(name + named, sizeof name - named, "%s%s %s",
                                      named ? ", " : "", axes[i].option, value);
            set += (size_t)snprintf(settings + set, sizeof settings - set, "%s=%s ",
                                    axes[i].option, value);
            if (named >= SBNI_ARM_NAME || set >= sizeof settings) {
                d->status = sbni_fail(SBN_E_ARG,
                                      "--vary: a combination of values is too long to be "
                                      "named: expected less than %d bytes",
                                      SBNI_ARM_NAME);
                return;
            }
        }
        int arm = sbni_design_arm(d, named ? name : axes[x].option, settings);
        for (int k = 0; k < axes[x].n; k++) {
            const char *value = axes[x].values[k];
            sbni_design_point(d, arm, numbers ? strtod(value, NULL) : k, "%s=%s",
                              axes[x].option, value);
        }
    }
}

static void build(sbni_design *d, bool quick)
{
    (void)quick;
    static axis axes[AXES];
    int n = 0;
    if (!d->vary->n)
        d->status = sbni_fail(SBN_E_ARG, "study grid: expected --vary OPTION=VALUE,…");
    if (d->vary->n > AXES)
        d->status = sbni_fail(SBN_E_ARG, "--vary: expected at most %d of them", AXES);
    for (; d->status == SBN_OK && n < d->vary->n; n++) {
        d->status = read_axis(d->vary->at[n], &axes[n]);
        for (int k = 0; k < n && d->status == SBN_OK; k++)
            if (sbni_design_same(axes[k].option, axes[n].option))
                d->status = sbni_fail(SBN_E_ARG, "--vary: %s and %s set the same",
                                      axes[k].option, axes[n].option);
    }
    if (d->status == SBN_OK) build_grid(d, axes, n);
}

static const sbni_table tables[] = {
    {"test_error", "Test error, %", true, true},
    {"test_loss", "Test loss", false, false},
    {"batch_loss", "Loss in training mode, last tenth of the steps", false, false},
    {"precise_test_error", "Test error, %, with precise statistics", true, false},
    {"gap", "Test error − training error, points", true, false},
    {"steps_to_target", "Steps to the target", false, false},
    {0}};

static const sbni_figure figures[] = {{"test_error", "Test error", NULL, "test error, %",
                                       SBNI_FIGURE_POINTS, "test_error", "",
                                       SBNI_PERCENT},
                                      {0}};

const sbni_study sbni_study_grid = {
    .name = "grid",
    .title = "A grid of settings",
    .question = "How does the result depend on the options that vary?",
    .design =
        "Every combination of the values given, with the same seeds: the same "
        "initial weights and order of samples wherever the options leave them alike.",
    .source = "none: a grid of the user's",
    .notes = "- The first of the options with numbers for values is drawn from left to "
             "right; each combination of the others is a curve.\n",
    .common = "net=cnn",
    .full = "",
    .quick = "epochs=1 limit-train=10000 limit-test=5000",
    .seeds = {5, 3},
    .x = "value",
    .build = build,
    .find = NULL,
    .tables = tables,
    .figures = figures};
