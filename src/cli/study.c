#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/signals.h"
#include "cli/stall.h"
#include "comm/group.h"
#include "core/memory.h"
#include "options/train.h"
#include "study/presets.h"
#include "study/study.h"

typedef struct settings {
    sbni_train_settings train; /* checked, and then read again for every trial */
    bool quick, keep_models;
    sbni_texts vary;
    int64_t seeds, trial_processes;
    const char *out;
    double max_time_s, stall_limit_s;
} settings;

#define AT(field) offsetof(settings, field)

static const sbni_option own[] = {
    {"The study", SBNI_OPTION_TITLE, 0, 0, 0, 0, 0, 0, 0},
    {"quick", SBNI_OPTION_FLAG, AT(quick), 0,
     "a sketch of it in up to three minutes on two cores (default: the full study)", 0, 0,
     0, 0},
    {"vary", SBNI_OPTION_LIST, AT(vary), "OPTION=A,B,C",
     "study grid: values of an option of training; given several times, all their "
     "combinations",
     0, 0, 0, 0},
    {"seeds", SBNI_OPTION_INT, AT(seeds), "N",
     "runs of each setting, with seeds from --seed on (default: the study's, 5 or more "
     "in "
     "full ones)",
     0, 1, 0, 0},
    {"trial-processes", SBNI_OPTION_INT, AT(trial_processes), "K",
     "processes for each trial; the others train other trials meanwhile (default 1)", 0,
     1, 0, 0},
    {"out", SBNI_OPTION_TEXT, AT(out), "DIR",
     "folder of report.md, figures, summary.csv, trials.jsonl and trials/; a study that "
     "was ended goes on in it (default out/study-NAME)",
     0, 0, 0, 0},
    {"keep-models", SBNI_OPTION_FLAG, AT(keep_models), 0,
     "keep the weights of finished trials", 0, 0, 0, 0},
    {"max-time", SBNI_OPTION_REAL, AT(max_time_s), "SECONDS",
     "save and end with exit code 75 after so long (default: none)", 0, 1e-3, 0, 0},
    SBNI_STALL_OPTION(AT(stall_limit_s)),
    {"Every trial; a study has its own defaults, and some options it varies itself",
     SBNI_OPTION_TITLE, 0, 0, 0, 0, 0, 0, 0},
};
enum { OWN = sizeof own / sizeof *own };

/* Options of train that are the study's business. */
static bool is_left_out(const char *name)
{
    static const char *const names[] = {"out",        "resume",      "progress",
                                        "max-time",   "comm-report", "no-overlap",
                                        "stall-limit"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i])) return true;
    return false;
}

/* Own options, then those of train without their headings. */
static void fill_table(sbni_option table[SBNI_MAX_OPTIONS + 1])
{
    int n = OWN;
    memcpy(table, own, sizeof own);
    for (const sbni_option *o = sbni_train_options; o->name && n < SBNI_MAX_OPTIONS;
         o++) {
        if (o->type == SBNI_OPTION_TITLE || is_left_out(o->name)) continue;
        table[n] = *o;
        table[n++].offset += AT(train);
    }
    table[n] = (sbni_option){0};
}

static void list_studies(void)
{
    const sbni_study *s;
    printf("\nStudies:\n");
    for (int i = 0; (s = sbni_preset(i)); i++) printf("  %-16s%s\n", s->name, s->title);
}

/* The user's settings as text, for every trial. */
static sbn_status gather(const sbni_option *table, const sbni_arguments *arguments,
                         sbni_pairs *given)
{
    for (int i = OWN; table[i].name; i++)
        if (arguments->given[i])
            SBN_TRY(sbni_pairs_set(given, table[i].name, arguments->given[i]));
    return SBN_OK;
}

static sbn_status make_request(const settings *s, const sbni_option *table,
                               const sbni_arguments *arguments, sbni_request *request)
{
    SBN_CHECK(arguments->count, SBN_E_ARG,
              "expected the name of a study; syncbn study --help lists them");
    SBN_TRY(sbni_preset_find(arguments->words[0], &request->study));
    SBN_CHECK(!s->vary.n || request->study == &sbni_study_grid, SBN_E_ARG,
              "--vary: expected study grid, got study %s", request->study->name);
    SBN_CHECK(s->seeds <= 1000, SBN_E_ARG, "--seeds: expected at most 1000, got %lld",
              (long long)s->seeds);
    request->quick = s->quick;
    request->seeds = (int)s->seeds;
    request->vary = s->vary;
    return gather(table, arguments, &request->given);
}

static sbn_status run(const settings *s, const sbni_option *table,
                      const sbni_arguments *arguments, sbn_group *group)
{
    sbni_study_config *cfg;
    char out[64];
    SBN_TRY(sbn_group_agree(group, sbni_alloc(1, sizeof *cfg, "study", &cfg)));
    sbn_status status =
        sbn_group_agree(group, make_request(s, table, arguments, &cfg->request));
    if (status == SBN_OK) {
        snprintf(out, sizeof out, "out/study-%s%s", cfg->request.study->name,
                 s->quick ? "-quick" : "");
        cfg->out = s->out ? s->out : out;
        cfg->trial_processes = s->trial_processes;
        cfg->keep_models = s->keep_models;
        cfg->max_time_s = s->max_time_s;
        cfg->stall_limit_s = s->stall_limit_s;
        cfg->stalled = sbni_stalled;
        cfg->stop = sbni_listen_for_stop();
        sbn_watch_set_limit(group->watch, s->stall_limit_s);
        status = sbni_study_run(cfg, group);
    }
    sbni_free(cfg);
    return status;
}

sbn_status sbni_command_study(int argc, char **argv, sbn_group *group)
{
    sbni_option table[SBNI_MAX_OPTIONS + 1];
    fill_table(table);
    const sbni_command command = {
        "study", "study NAME [options]",
        "Run a designed experiment: its trials are shared out over the processes, and a "
        "report with tables and figures is written.",
        table, 1};
    settings s = {.train = sbni_train_settings_default(),
                  .trial_processes = 1,
                  .stall_limit_s = SBNI_STALL_LIMIT_S};
    sbni_arguments arguments;
    SBN_TRY(sbni_options_parse(&command, argc, argv, &s, &arguments, group));
    if (!arguments.help) return run(&s, table, &arguments, group);
    if (sbn_group_rank(group) == 0) {
        sbni_options_help(&command);
        list_studies();
    }
    return SBN_OK;
}
