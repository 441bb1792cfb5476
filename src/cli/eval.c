#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/commands.h"
#include "cli/stall.h"
#include "comm/group.h"
#include "options/options.h"
#include "syncbn/trainer.h"

typedef struct settings {
    sbn_evaluate_config run;
    int precise_from;
    double stall_limit_s;
} settings;

#define AT(field) offsetof(settings, field)

static const sbni_option options[] = {
    {"weights", SBNI_OPTION_TEXT, AT(run.weights), "FILE",
     "model.safetensors or a checkpoint; may also be given without --weights", 0, 0, 0,
     0},
    {"net", SBNI_OPTION_TEXT, AT(run.net), "NAME|FILE.net",
     "the net of the weights (default: the one that the file names)", 0, 0, 0, 0},
    {"data", SBNI_OPTION_TEXT, AT(run.data), "DIR|NAME",
     "fashion-mnist, synthetic, a folder with the four IDX files, or cifar10:DIR "
     "(default fashion-mnist)",
     0, 0, 0, 0},
    {"limit-test", SBNI_OPTION_INT, AT(run.limit), "N",
     "use the first N test samples only", 0, 1, 0, 0},
    {"seed", SBNI_OPTION_SEED, AT(run.seed), "N",
     "of synthetic data and noise (default 1)", 0, 0, 0, 0},
    {"shift", SBNI_OPTION_TEXT, AT(run.shift), SBNI_SHIFT_UNIT,
     "change the images, as if they came from another source: " SBNI_SHIFT_HELP, 0, 0, 0,
     0},
    {"precise-stats", SBNI_OPTION_INT, AT(run.precise), "N|all",
     "first replace the running statistics by the exact ones of N samples, layer by "
     "layer",
     "all", 1, SBN_PRECISE_ALL, 0},
    {"precise-from", SBNI_OPTION_CHOICE, AT(precise_from), "train|test",
     "half that these samples are of; test: changed as --shift says, without a look at "
     "the labels (default train)",
     "train|test", 0, 0, 0},
    {"save", SBNI_OPTION_TEXT, AT(run.save), "FILE",
     "with --precise-stats: write the weights with them", 0, 0, 0, 0},
    SBNI_STALL_OPTION(AT(stall_limit_s)),
    {0},
};

static const sbni_command command = {
    "eval", "eval FILE|DIR [options]",
    "Evaluate saved weights on the test half of a data set, with running or precise "
    "statistics.",
    options, 1};

sbn_status sbni_command_eval(int argc, char **argv, sbn_group *group)
{
    settings all = {.run = sbn_evaluate_config_default(NULL),
                    .stall_limit_s = SBNI_STALL_LIMIT_S};
    sbn_evaluate_config *s = &all.run;
    sbni_arguments arguments;
    SBN_TRY(sbni_options_parse(&command, argc, argv, &all, &arguments, group));
    sbn_watch_set_limit(group->watch, all.stall_limit_s);
    if (arguments.help) {
        if (sbn_group_rank(group) == 0) sbni_options_help(&command);
        return SBN_OK;
    }
    if (arguments.count && !s->weights) s->weights = arguments.words[0];
    SBN_CHECK(s->weights, SBN_E_ARG, "expected a weights file; syncbn eval --help");
    /* a run's folder stands for the model in it */
    char path[4096];
    struct stat info;
    if (stat(s->weights, &info) == 0 && S_ISDIR(info.st_mode)) {
        int n = snprintf(path, sizeof path, "%s/model.safetensors", s->weights);
        SBN_CHECK(n < (int)sizeof path, SBN_E_ARG, "the path of %s is too long",
                  s->weights);
        s->weights = path;
    }
    sbn_trainer_result r;
    SBN_CHECK(!s->save || s->precise, SBN_E_ARG, "--save: expected --precise-stats too");
    SBN_CHECK(!sbni_options_given(&command, &arguments, "precise-from") || s->precise,
              SBN_E_ARG, "--precise-from: expected --precise-stats too");
    s->precise_from = all.precise_from ? SBN_SPLIT_TEST : SBN_SPLIT_TRAIN;
    SBN_TRY(sbn_evaluate(s, group, &r));
    if (sbn_group_rank(group) == 0)
        printf("%s on %s%s%s, seed %" PRIu64
               ": test accuracy %.4f, test loss %.17g, %.2f s\n",
               s->weights, s->data, s->shift ? ", shifted " : "",
               s->shift ? s->shift : "", s->seed, r.test_accuracy, r.test_loss,
               r.seconds);
    return SBN_OK;
}
