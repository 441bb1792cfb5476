#include "cli/comm.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/traffic.h"
#include "train/file.h"

enum { PATH_BYTES = 4096, NAME_COLUMNS = 18 };

static void print_row(const sbni_traffic_report *report, int i)
{
    const sbn_traffic *row = &report->rows[i];
    sbni_traffic_summary s = sbni_traffic_summarize(report, i);
    printf("%-*s %-10s %8" PRId64 " %12" PRId64 " %8.3f %8.3f %5d %9.1f %9.1f %6.1f\n",
           NAME_COLUMNS, row->name, row->phase, row->messages, row->bytes, s.wait_mean_s,
           s.wait_most_s, s.slowest, 1e6 * s.measured_s, 1e6 * s.predicted_s,
           s.measured_s / s.predicted_s);
}

static void print_table(const sbni_traffic_report *report)
{
    if (report->size == 1) {
        printf("messages: none, as one process has nobody to send to\n");
        return;
    }
    sbn_traffic all = {0};
    double wait_s = 0;
    printf("\nmessages of %d processes; s: waited in all, us: of one message\n"
           "%-*s %-10s %8s %12s %8s %8s %5s %9s %9s %6s\n",
           report->size, NAME_COLUMNS, "layer", "phase", "messages", "bytes", "mean s",
           "most s", "slow", "measured", "predicted", "ratio");
    for (int i = 0; i < report->n; i++) {
        print_row(report, i);
        all.messages += report->rows[i].messages;
        all.bytes += report->rows[i].bytes;
        wait_s += sbni_traffic_summarize(report, i).wait_mean_s;
    }
    printf("%-*s %-10s %8" PRId64 " %12" PRId64 " %8.3f\n", NAME_COLUMNS, "all", "",
           all.messages, all.bytes, wait_s);
    printf("slow: the process that waits least, which the others wait for\n"
           "predicted: %.1f us + %.3f ns a byte, measured now\n\n",
           1e6 * report->line.latency_s, 1e9 * report->line.s_per_byte);
}

static json_t *times_of(const sbni_traffic_report *report, int i,
                        double (*time_s)(const sbni_traffic_report *, int, int))
{
    json_t *list = json_array();
    for (int r = 0; list && r < report->size; r++)
        json_array_append_new(list, json_real(time_s(report, i, r)));
    return list;
}

static json_t *row_of(const sbni_traffic_report *report, int i)
{
    const sbn_traffic *row = &report->rows[i];
    sbni_traffic_summary s = sbni_traffic_summarize(report, i);
    return json_pack("{s:s s:s s:I s:I s:o s:o s:f s:f s:i s:f s:f s:f}", "layer",
                     row->name, "phase", row->phase, "messages",
                     (json_int_t)row->messages, "bytes", (json_int_t)row->bytes,
                     "begin_s", times_of(report, i, sbni_traffic_begin_s), "wait_s",
                     times_of(report, i, sbni_traffic_wait_s), "wait_mean_s",
                     s.wait_mean_s, "wait_most_s", s.wait_most_s, "slowest_rank",
                     s.slowest, "measured_s", s.measured_s, "predicted_s", s.predicted_s,
                     "ratio", s.measured_s / s.predicted_s);
}

static json_t *report_of(const sbni_traffic_report *report)
{
    json_t *rows = json_array();
    for (int i = 0; i < report->n; i++) json_array_append_new(rows, row_of(report, i));
    if (report->size == 1)
        return json_pack("{s:i s:n s:n s:o}", "processes", 1, "latency_s", "s_per_byte",
                         "rows", rows);
    return json_pack("{s:i s:f s:f s:o}", "processes", report->size, "latency_s",
                     report->line.latency_s, "s_per_byte", report->line.s_per_byte,
                     "rows", rows);
}

static sbn_status write_file(const sbni_traffic_report *report, const char *folder)
{
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%s/comm.json", folder);
    SBN_CHECK(n < PATH_BYTES, SBN_E_ARG, "the path of %s is too long", folder);
    json_t *json = report_of(report);
    char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    json_decref(json);
    SBN_CHECK(text, SBN_E_MEMORY, "%s: no memory", path);
    sbn_status status = sbni_replacement_text(path, text);
    free(text);
    return status;
}

sbn_status sbni_comm_report(sbn_group *group, const char *folder)
{
    sbni_traffic_report report;
    sbn_status status = sbni_traffic_report_make(group, &report);
    if (status == SBN_OK && sbn_group_rank(group) == 0) {
        print_table(&report);
        status = write_file(&report, folder);
    }
    sbni_traffic_report_free(&report);
    return sbn_group_agree(group, status);
}
