/* A whole study: its trials handed out to the processes, then its report. */
#ifndef SBNI_STUDY_H
#define SBNI_STUDY_H

#include <signal.h>

#include "study/design.h"
#include "syncbn/group.h"
#include "syncbn/watch.h"

typedef struct sbni_study_config {
    sbni_request request;
    const char *out;         /* folder */
    int64_t trial_processes; /* of one trial, ≥ 1 */
    bool keep_models;        /* models and checkpoints stay when a trial is finished */
    double max_time_s;       /* 0: none */
    double stall_limit_s;    /* of the watch over the processes of a trial; 0: for ever */
    sbn_stall_handler stalled; /* what it calls, with a text about their numbers */
    const volatile sig_atomic_t *stop; /* as in sbn_trainer_config */
} sbni_study_config;

/**
 * Run what is not yet finished in the folder and write trials.jsonl, summary.csv,
 * differences.csv, figures and report.md. The same bytes at any number of processes and
 * after any number of interruptions; times.csv, with what trials took, is apart. Trials
 * go to whoever is free, the longest first; results are told on standard error.
 * @collective over the group.
 * @errors any; the same run fails on all processes. SBN_E_STOPPED: the same call goes on.
 * SBN_E_ARG where the folder holds another study, SBN_E_IO where another job is at work
 * in it.
 */
sbn_status sbni_study_run(const sbni_study_config *cfg, sbn_group *group);

#endif
