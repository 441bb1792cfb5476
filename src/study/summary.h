/* What all trials found, over the seeds. */
#ifndef SBNI_SUMMARY_H
#define SBNI_SUMMARY_H

#include "study/design.h"
#include "study/record.h"
#include "study/statistics.h"

typedef struct sbni_summary {
    const sbni_design *design;
    sbni_record *records; /* by trial */
    char (*metrics)[SBNI_VALUE_NAME];
    int n_metrics;
    bool *chosen; /* by point: true unless a search chose another for this x */
} sbni_summary;

/* Read the results of all trials. SBN_E_IO naming a trial that has none, as where
 * processes do not share the folder. Local. */
sbn_status sbni_summary_create(const sbni_design *design, const char *out,
                               sbni_summary **summary);
void sbni_summary_destroy(sbni_summary **summary);

/* A method's number by name; −1: none. */
int sbni_summary_arm(const sbni_summary *summary, const char *name);

/* The chosen point of a method at x, or its only one where it is flat; −1: none. */
int sbni_summary_point(const sbni_summary *summary, int arm, double x);

/* The trial that has most metrics: one that diverged lacks some. */
const sbni_record *sbni_summary_fullest(const sbni_summary *summary);

/* A metric at a point; difference of a from b, paired by seed. Point −1: n = 0. */
sbni_sample sbni_summary_of(const sbni_summary *summary, int point, const char *metric);
sbni_sample sbni_summary_difference(const sbni_summary *summary, int a, int b,
                                    const char *metric);

/* Values of what varies, ascending, each once. Returns how many, at most `most`. */
enum { SBNI_SUMMARY_VALUES = 64 };
int sbni_summary_values(const sbni_summary *summary, double *x, int most);

/* Write out/trials.jsonl (by key) and out/summary.csv (method, x, metric, n, mean, sd,
 * low, high: of a search also z and whether it was chosen) and out/differences.csv (of
 * methods from the first at the same x). */
sbn_status sbni_summary_write(const sbni_summary *summary, const char *out);

#endif
