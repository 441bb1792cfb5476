#include "comm/traffic.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "comm/alike.h"
#include "comm/group.h"
#include "comm/reduce.h"
#include "core/clock.h"
#include "core/memory.h"

enum {
    LEAST_WORDS = 8,
    GROWTH = 8,            /* from one measured length to the next */
    USUAL_WORDS = 1 << 12, /* measured whatever was sent */
    MOST_WORDS = 1 << 19,  /* beyond, bandwidth alone counts */
    LENGTHS = 7,
    LEAST_REPEATS = 9,
    MOST_REPEATS = 31,
    REPEAT_WORDS = 1 << 18 /* in all repetitions of a length, where they allow it */
};

static sbni_traffic *find(sbn_group *group, const char *name, const char *phase)
{
    sbni_traffic *row = group->rows;
    while (row && (strcmp(row->name, name) != 0 || strcmp(row->sums.phase, phase) != 0))
        row = row->next;
    return row;
}

sbn_status sbni_traffic_row(sbn_group *group, const char *name, const char *phase,
                            sbni_traffic **out)
{
    *out = find(group, name, phase);
    if (*out) return SBN_OK;
    sbni_traffic *row, **end = &group->rows;
    SBN_TRY(sbni_alloc(1, sizeof *row, "traffic", &row));
    sbn_status status = sbni_copy_string(name, &row->name);
    if (status != SBN_OK) {
        sbni_free(row);
        return status;
    }
    row->sums.name = row->name;
    row->sums.phase = phase;
    while (*end) end = &(*end)->next;
    *out = *end = row;
    return SBN_OK;
}

void sbni_traffic_free(sbni_traffic *rows)
{
    for (sbni_traffic *next; rows; rows = next) {
        next = rows->next;
        sbni_free(rows->name);
        sbni_free(rows);
    }
}

bool sbn_group_traffic(const sbn_group *group, int row, sbn_traffic *traffic)
{
    const sbni_traffic *at = group->rows;
    for (; at && row > 0; row--) at = at->next;
    if (!at && row == 0) at = &group->other;
    if (!at || row < 0) return false;
    *traffic = at->sums;
    return true;
}

static void clear(sbni_traffic *row)
{
    row->sums = (sbn_traffic){.name = row->sums.name, .phase = row->sums.phase};
}

void sbn_group_clear_traffic(sbn_group *group)
{
    for (sbni_traffic *row = group->rows; row; row = row->next) clear(row);
    clear(&group->other);
}

sbni_line sbni_line_fit(const double *bytes, const double *seconds, int n)
{
    double w = 0, wx = 0, wxx = 0, wt = 0, wxt = 0;
    for (int i = 0; i < n; i++) {
        double t = seconds[i] > 1e-9 ? seconds[i] : 1e-9, weight = 1 / (t * t);
        w += weight;
        wx += weight * bytes[i];
        wxx += weight * bytes[i] * bytes[i];
        wt += weight * t;
        wxt += weight * bytes[i] * t;
    }
    double determinant = w * wxx - wx * wx;
    sbni_line line = {0, 0};
    if (determinant > 0) {
        line.latency_s = (wxx * wt - wx * wxt) / determinant;
        line.s_per_byte = (w * wxt - wx * wt) / determinant;
    }
    if (determinant <= 0 || line.s_per_byte < 0) return (sbni_line){wt / w, 0};
    if (line.latency_s < 0) return (sbni_line){0, wxt / wxx};
    return line;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median time of sums of so many words, by the very calls that the layers make. */
static sbn_status time_sums(sbn_group *group, int64_t words, double *median_s)
{
    sbni_reduce message = {0};
    double times_s[MOST_REPEATS];
    int64_t wanted = REPEAT_WORDS / words;
    int repeats = wanted < LEAST_REPEATS  ? LEAST_REPEATS
                  : wanted > MOST_REPEATS ? MOST_REPEATS
                                          : (int)wanted;
    sbn_status status = sbn_group_agree(
        group, sbni_reduce_create(group, words - SBNI_HEAD_WORDS, &message));
    if (status == SBN_OK) status = sbni_reduce_connect(&message);
    for (int i = -2; status == SBN_OK && i < repeats; i++) { /* two to warm up */
        sbni_reduce_clear(&message, 0);
        status = sbn_group_agree(group, SBN_OK);
        double began_s = sbni_clock_s();
        if (status == SBN_OK) status = sbni_reduce_run(&message);
        if (i >= 0) times_s[i] = sbni_clock_s() - began_s;
    }
    sbni_reduce_destroy(&message);
    SBN_TRY(status);
    qsort(times_s, (size_t)repeats, sizeof *times_s, compare_doubles);
    *median_s = times_s[repeats / 2];
    return SBN_OK;
}

/* n values of each process, to process 0. */
static sbn_status gather(sbn_group *group, const double *mine, int n, double *all)
{
    SBN_TRY(sbni_call_enter(group, "gathering times", n));
    int code = MPI_Gather(mine, n, MPI_DOUBLE, all, n, MPI_DOUBLE, 0, group->comm);
    sbni_call_goes_on(group);
    return sbni_mpi(code, "MPI_Gather");
}

/* Means of all processes' medians lie on the line, as measured times are means too. */
static sbn_status measure_line(sbn_group *group, int64_t most_words, sbni_line *line)
{
    double bytes[LENGTHS], medians_s[LENGTHS], *all_s = NULL;
    int n = 0;
    if (most_words < USUAL_WORDS) most_words = USUAL_WORDS;
    if (most_words > MOST_WORDS) most_words = MOST_WORDS;
    for (int64_t words = LEAST_WORDS; n < LENGTHS; words *= GROWTH) {
        bytes[n] = 8 * (double)words;
        SBN_TRY(time_sums(group, words, &medians_s[n++]));
        if (words >= most_words) break;
    }
    bool collects = group->rank == 0;
    SBN_TRY(sbn_group_agree(
        group,
        collects ? sbni_alloc((int64_t)n * group->size, 8, "report", &all_s) : SBN_OK));
    sbn_status status = gather(group, medians_s, n, all_s);
    for (int i = 0; collects && status == SBN_OK && i < n; i++) {
        double sum_s = 0;
        for (int r = 0; r < group->size; r++) sum_s += all_s[r * n + i];
        medians_s[i] = sum_s / group->size;
    }
    if (collects && status == SBN_OK) *line = sbni_line_fit(bytes, medians_s, n);
    sbni_free(all_s);
    return status;
}

/* Copy the rows that carried messages; their times of this process into mine [2][n]. */
static sbn_status copy_rows(const sbn_group *group, sbni_traffic_report *report,
                            double **mine)
{
    int all = 0;
    sbn_traffic row;
    while (sbn_group_traffic(group, all, &row)) all++;
    SBN_TRY(sbni_alloc(all, sizeof *report->rows, "report", &report->rows));
    for (int i = 0; i < all; i++) {
        sbn_group_traffic(group, i, &row);
        if (row.messages > 0) report->rows[report->n++] = row;
    }
    int n = report->n;
    SBN_TRY(sbni_alloc(2 * n, 8, "report", mine));
    for (int i = 0; i < n; i++) {
        (*mine)[i] = report->rows[i].begin_s;
        (*mine)[n + i] = report->rows[i].wait_s;
    }
    if (group->rank != 0) return SBN_OK;
    return sbni_alloc((int64_t)group->size * 2 * n, 8, "report", &report->times_s);
}

/* One number that differs when names, messages or bytes do; their longest message. */
static int64_t digest(const sbni_traffic_report *report, int64_t *most_words)
{
    uint64_t h = 0;
    *most_words = 0;
    for (int i = 0; i < report->n; i++) {
        const sbn_traffic *row = &report->rows[i];
        int64_t counts[2] = {row->messages, row->bytes},
                words = row->bytes / row->messages / 8;
        h = XXH3_64bits_withSeed(row->name, strlen(row->name), h);
        h = XXH3_64bits_withSeed(row->phase, strlen(row->phase), h);
        h = XXH3_64bits_withSeed(counts, sizeof counts, h);
        if (words > *most_words) *most_words = words;
    }
    return (int64_t)(h >> 1);
}

sbn_status sbni_traffic_report_make(sbn_group *group, sbni_traffic_report *report)
{
    *report = (sbni_traffic_report){.size = group->size};
    if (group->size == 1) return SBN_OK;
    double *mine = NULL;
    int64_t most_words;
    sbn_status status;
    SBN_GOTO(sbn_group_agree(group, copy_rows(group, report, &mine)));
    SBN_GOTO(sbni_group_check_same(group, digest(report, &most_words),
                                   "digest of the messages sent"));
    int n = 2 * report->n;
    SBN_GOTO(gather(group, mine, n, report->times_s));
    status = measure_line(group, most_words, &report->line);
fail:
    sbni_free(mine);
    return status;
}

void sbni_traffic_report_free(sbni_traffic_report *report)
{
    sbni_free(report->rows);
    sbni_free(report->times_s);
    *report = (sbni_traffic_report){0};
}

double sbni_traffic_begin_s(const sbni_traffic_report *report, int row, int process)
{
    return report->times_s[2 * process * report->n + row];
}

double sbni_traffic_wait_s(const sbni_traffic_report *report, int row, int process)
{
    return report->times_s[(2 * process + 1) * report->n + row];
}

sbni_traffic_summary sbni_traffic_summarize(const sbni_traffic_report *report, int row)
{
    const sbn_traffic *sums = &report->rows[row];
    double wait_s = 0, begin_s = 0, least_s = 0, messages = (double)sums->messages;
    sbni_traffic_summary s = {0};
    for (int r = 0; r < report->size; r++) {
        double here_s = sbni_traffic_wait_s(report, row, r);
        wait_s += here_s;
        begin_s += sbni_traffic_begin_s(report, row, r);
        if (r == 0 || here_s < least_s) least_s = here_s, s.slowest = r;
        if (r == 0 || here_s > s.wait_most_s) s.wait_most_s = here_s, s.most = r;
    }
    s.wait_mean_s = wait_s / report->size;
    s.measured_s = (wait_s + begin_s) / report->size / messages;
    s.predicted_s = report->line.latency_s +
                    report->line.s_per_byte * ((double)sums->bytes / messages);
    return s;
}
