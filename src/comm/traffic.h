/* What messages cost: rows of a group that its messages add to, and a report of them over
 * all processes. */
#ifndef SBNI_TRAFFIC_H
#define SBNI_TRAFFIC_H

#include <stdint.h>

#include "core/status.h"
#include "syncbn/group.h"

/* A row lives as long as its group, so that messages made anew go on in it. */
typedef struct sbni_traffic {
    sbn_traffic sums;
    char *name; /* owned */
    struct sbni_traffic *next;
} sbni_traffic;

/* The group's row of that name and phase, made when there is none. phase is borrowed.
 * Local. */
sbn_status sbni_traffic_row(sbn_group *group, const char *name, const char *phase,
                            sbni_traffic **row);

void sbni_traffic_free(sbni_traffic *rows);

/* One message of a process that is not alone. */
static inline void sbni_traffic_count(sbni_traffic *row, int64_t bytes)
{
    row->sums.messages++;
    row->sums.bytes += bytes;
}

/* A message's time on an idle network: latency_s + s_per_byte·bytes. */
typedef struct sbni_line {
    double latency_s, s_per_byte;
} sbni_line;

/* Least squares of relative errors over n points; neither part is below 0. */
sbni_line sbni_line_fit(const double *bytes, const double *seconds, int n);

typedef struct sbni_traffic_report {
    int n, size;       /* rows that carried messages, processes */
    sbn_traffic *rows; /* [n] of this process; names are the group's */
    double *times_s;   /* process 0: [size][2][n] begin, wait; else NULL */
    sbni_line line;    /* process 0 */
} sbni_traffic_report;

/* One row over all processes; times of a message are means over messages and processes.
 */
typedef struct sbni_traffic_summary {
    double wait_mean_s, wait_most_s; /* of a process, all its messages */
    int most;                        /* process that waits most */
    int slowest;                     /* process that waits least: others wait for it */
    double measured_s;               /* of a message: begin and wait */
    double predicted_s;              /* of a message: by the line */
} sbni_traffic_summary;

/*
 * Gather what the rows hold now, then measure the line with sums of a few lengths, the
 * median of some repetitions of each. Free the report in every case.
 * @collective over the group: an agreement, 16 bytes, a gather of 16·n bytes, and the
 * measurement. Nothing in a group of one.
 * @errors SBN_E_MISMATCH: rows, messages or bytes differ between processes
 */
sbn_status sbni_traffic_report_make(sbn_group *group, sbni_traffic_report *report);
void sbni_traffic_report_free(sbni_traffic_report *report);

/* Seconds of one process; process 0 alone may ask. */
double sbni_traffic_begin_s(const sbni_traffic_report *report, int row, int process);
double sbni_traffic_wait_s(const sbni_traffic_report *report, int row, int process);
sbni_traffic_summary sbni_traffic_summarize(const sbni_traffic_report *report, int row);

#endif
