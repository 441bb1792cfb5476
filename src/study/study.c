#include "study/study.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/group.h"
#include "core/clock.h"
#include "core/memory.h"
#include "study/claim.h"
#include "study/figure.h"
#include "study/gnuplot.h"
#include "study/report.h"
#include "study/trial.h"
#include "syncbn/watch.h"
#include "train/file.h"
#include "train/lock.h"

typedef struct study {
    const sbni_study_config *cfg;
    sbni_design *design;
    sbn_group *group, *team; /* of all, of one trial */
    sbn_watch *watch;        /* over the team */
    char whom[80];           /* its processes, where they have other numbers in the job */
    sbni_lock *lock;         /* of the folder, on process 0 */
    sbni_claims *claims;     /* of the first process of a team */
    int *order;              /* of unfinished trials */
    int n;
    double began_s, cost; /* of unfinished trials */
    sbni_trial_config how;
} study;

static sbn_status path_of(const study *s, const char *file, char path[SBNI_PATH_BYTES])
{
    int n = snprintf(path, SBNI_PATH_BYTES, "%s/%s", s->cfg->out, file);
    SBN_CHECK(n < SBNI_PATH_BYTES, SBN_E_ARG, "the path of %s is too long", s->cfg->out);
    return SBN_OK;
}

/* The whole text of a file; NULL where there is none. Freed with free. */
static sbn_status read_text(const char *path, char **text)
{
    *text = NULL;
    FILE *f = fopen(path, "r");
    SBN_CHECK(f || errno == ENOENT, SBN_E_IO, "cannot open %s: %s", path,
              strerror(errno));
    size_t room = 0;
    /* the text has no byte 0 */
    if (f && getdelim(text, &room, 0, f) < 0) {
        free(*text);
        *text = strdup("");
    }
    if (f) fclose(f);
    return SBN_OK;
}

/* What a folder holds is continued by the same study only. */
static sbn_status check_folder(const study *s)
{
    char path[SBNI_PATH_BYTES], *mine = NULL, *there = NULL;
    SBN_TRY(path_of(s, "design.txt", path));
    sbn_status status = sbni_design_print(s->design, &mine);
    if (status == SBN_OK) status = read_text(path, &there);
    if (status == SBN_OK && !there) {
        size_t length = strlen(mine);
        if (length) mine[length - 1] = 0;
        status = sbni_replacement_text(path, mine);
    } else if (status == SBN_OK && strcmp(mine, there) != 0) {
        int line = 1;
        for (size_t i = 0; mine[i] && mine[i] == there[i]; i++) line += mine[i] == '\n';
        status = sbni_fail(SBN_E_ARG,
                           "%s holds a study of other settings (line %d of design.txt); "
                           "choose another --out, or remove it",
                           s->cfg->out, line);
    }
    free(mine);
    free(there);
    return status;
}

static const sbni_trial *sorted_trials;

static int longest_first(const void *a, const void *b)
{
    int i = *(const int *)a, k = *(const int *)b;
    double c = sorted_trials[k].cost - sorted_trials[i].cost;
    return c != 0 ? (c > 0) - (c < 0) : (i > k) - (i < k);
}

/* Process 0 looks which trials are left; all get the same list. */
static sbn_status list_left(study *s)
{
    for (int i = 0; i < s->design->n_trials; i++) {
        sbni_record record;
        bool found;
        SBN_TRY(sbni_trial_load(s->cfg->out, &s->design->trials[i], &record, &found));
        if (!found) s->order[s->n++] = i;
    }
    sorted_trials = s->design->trials;
    qsort(s->order, (size_t)s->n, sizeof *s->order, longest_first);
    return SBN_OK;
}

/* What a killed study left of what it was writing. */
static sbn_status clean_folder(const study *s)
{
    static const char *const tables[] = {"design.txt",      "trials.jsonl", "summary.csv",
                                         "differences.csv", "times.csv",    "report.md"};
    SBN_TRY(sbni_replacement_clean(s->cfg->out, tables, sizeof tables / sizeof *tables));
    for (const sbni_figure *g = s->design->study->figures; g->file; g++)
        SBN_TRY(sbni_figure_clean(g, s->cfg->out));
    return SBN_OK;
}

static sbn_status open_folder(study *s)
{
    char path[SBNI_PATH_BYTES];
    SBN_TRY(path_of(s, "trials", path));
    SBN_TRY(sbni_folder_make(path));
    SBN_TRY(sbni_lock_take(s->cfg->out, &s->lock));
    SBN_TRY(path_of(s, "claims", path));
    SBN_TRY(sbni_claims_begin(path, &s->claims));
    SBN_TRY(check_folder(s));
    SBN_TRY(clean_folder(s));
    return list_left(s);
}

static sbn_status make_team(study *s)
{
    int rank = sbn_group_rank(s->group), k = (int)s->cfg->trial_processes;
    if (k == 1) return sbn_group_agree(s->group, sbni_group_alone(&s->team));
    SBN_TRY(sbn_group_split(s->group->comm, rank / k, rank, &s->team));
    int first = rank - sbn_group_rank(s->team), last = sbn_group_size(s->team) - 1;
    if (first > 0)
        snprintf(s->whom, sizeof s->whom, " (processes 0-%d are %d-%d of the job)", last,
                 first, first + last);
    return sbn_watch_create(s->team, s->cfg->stall_limit_s, s->cfg->stalled, s->whom,
                            &s->watch);
}

static sbn_status prepare(study *s)
{
    char path[SBNI_PATH_BYTES];
    bool first = sbn_group_rank(s->group) == 0;
    sbn_status status =
        sbni_alloc(s->design->n_trials, sizeof *s->order, "order of trials", &s->order);
    SBN_TRY(sbn_group_agree(s->group, status));
    SBN_TRY(sbni_group_agree_asleep(s->group, first ? open_folder(s) : SBN_OK));
    SBN_TRY(sbni_group_broadcast(s->group, &s->n, sizeof s->n, 0));
    SBN_TRY(sbni_group_broadcast(s->group, s->order,
                                 (int64_t)sizeof *s->order * s->design->n_trials, 0));
    for (int i = 0; i < s->n; i++) s->cost += s->design->trials[s->order[i]].cost;
    SBN_TRY(make_team(s));
    if (!first && sbn_group_rank(s->team) == 0) {
        status = path_of(s, "claims", path);
        if (status == SBN_OK) status = sbni_claims_join(path, &s->claims);
    }
    return sbn_group_agree(s->group, status);
}

static void tell_left(double seconds, FILE *f)
{
    if (seconds >= 90)
        fprintf(f, ", %.0f min left", ceil(seconds / 60));
    else
        fprintf(f, ", %.0f s left", ceil(seconds));
}

/* A line of the table of finished trials. */
static void tell(const study *s, const sbni_trial *t, const sbni_record *r,
                 const sbni_claims_state *state)
{
    char *line = NULL;
    size_t bytes;
    FILE *f = open_memstream(&line, &bytes);
    if (!f) return;
    int done = s->design->n_trials - s->n + (int)state->done;
    fprintf(f, "%4d/%d  %-48s  %-8s  error %5.2f %%  %6.1f s", done, s->design->n_trials,
            t->key, r->status, 100 * sbni_record_get(r, "test_error"), r->seconds);
    double passed_s = sbni_clock_s() - s->began_s;
    if (state->cost > 0 && state->done < s->n)
        tell_left(passed_s * (s->cost - state->cost) / state->cost, f);
    fclose(f);
    fprintf(stderr, "%s\n", line);
    free(line);
}

/* The team's first process takes the next trial for all of it; `told`: how it fared with
 * the last one, which the team agrees on here. */
static sbn_status take(study *s, sbn_status told, int64_t *item)
{
    sbn_status status = told;
    if (status == SBN_OK && s->claims) status = sbni_claims_take(s->claims, s->n, item);
    SBN_TRY(sbn_group_agree(s->team, status));
    return sbni_group_broadcast(s->team, item, sizeof *item, 0);
}

static sbn_status work(study *s)
{
    sbn_status told = SBN_OK;
    sbni_claims_state state;
    for (int64_t item;;) {
        SBN_TRY(take(s, told, &item));
        if (item < 0) return SBN_OK;
        const sbni_trial *t = &s->design->trials[s->order[item]];
        sbni_record record;
        SBN_TRY(sbni_trial_run(s->design, t, &s->how, s->team, &record));
        if (!s->claims) continue;
        told = sbni_claims_finish(s->claims, t->cost, &state);
        if (told == SBN_OK) tell(s, t, &record, &state);
    }
}

/* What trials took is no part of the report. */
static sbn_status write_times(const study *s, const sbni_summary *summary)
{
    char path[SBNI_PATH_BYTES], *text = NULL;
    size_t bytes;
    SBN_TRY(path_of(s, "times.csv", path));
    FILE *f = open_memstream(&text, &bytes);
    SBN_CHECK(f, SBN_E_MEMORY, "%s: no memory", path);
    fprintf(f, "trial,seconds");
    for (int i = 0; i < s->design->n_trials; i++)
        fprintf(f, "\n\"%s\",%.2f", s->design->trials[i].key,
                summary->records[i].seconds);
    fclose(f);
    sbn_status status = sbni_replacement_text(path, text);
    free(text);
    return status;
}

static sbn_status conclude(const study *s)
{
    const char *out = s->cfg->out;
    sbni_summary *summary = NULL;
    bool pictures = sbni_gnuplot_found();
    sbn_status status;
    SBN_GOTO(sbni_summary_create(s->design, out, &summary));
    SBN_GOTO(sbni_summary_write(summary, out));
    SBN_GOTO(write_times(s, summary));
    for (const sbni_figure *g = s->design->study->figures; g->file; g++)
        SBN_GOTO(sbni_figure_draw(summary, g, out, pictures));
    SBN_GOTO(sbni_report_write(summary, &s->cfg->request, out, pictures));
    sbni_report_print(summary, out, pictures);
fail:
    sbni_summary_destroy(&summary);
    return status;
}

static sbn_status run(study *s)
{
    SBN_TRY(sbn_group_agree(s->group, sbni_design_create(&s->cfg->request, &s->design)));
    SBN_TRY(prepare(s));
    if (sbn_group_rank(s->group) == 0)
        fprintf(stderr, "study %s: %d trials, %d of them finished, in %s\n",
                s->design->study->name, s->design->n_trials, s->design->n_trials - s->n,
                s->cfg->out);
    s->how = (sbni_trial_config){
        .out = s->cfg->out,
        .keep_models = s->cfg->keep_models,
        .whom = s->whom,
        .end_s = s->cfg->max_time_s > 0 ? s->began_s + s->cfg->max_time_s : 0,
        .stop = s->cfg->stop};
    sbn_status status = work(s);
    /* the others finish what they are at, and take no more */
    if (status != SBN_OK && s->claims) {
        char text[SBNI_ERROR_BYTES];
        snprintf(text, sizeof text, "%s", sbn_last_error());
        sbni_claims_stop(s->claims);
        sbni_fail(status, "%s", text);
    }
    SBN_TRY(sbni_group_agree_asleep(s->group, status));
    return sbn_group_agree(s->group,
                           sbn_group_rank(s->group) == 0 ? conclude(s) : SBN_OK);
}

sbn_status sbni_study_run(const sbni_study_config *cfg, sbn_group *group)
{
    study s = {.cfg = cfg, .group = group, .began_s = sbni_clock_s()};
    int size = sbn_group_size(group);
    SBN_CHECK(cfg->trial_processes >= 1 && cfg->trial_processes <= size, SBN_E_ARG,
              "expected 1 to %d processes for a trial, got %" PRId64, size,
              cfg->trial_processes);
    sbn_status status = run(&s);
    sbni_claims_end(&s.claims);
    sbni_lock_release(&s.lock);
    sbn_watch_destroy(&s.watch);
    sbn_group_destroy(&s.team);
    sbni_free(s.order);
    sbni_design_destroy(&s.design);
    return status;
}
