#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"
#include "train/runfile.h"

/* What makes two measurements the same case; a case has some of them. */
static const char *const identity[] = {"what",  "pass", "layout",  "dtype",
                                       "shape", "isa",  "threads", "fused",
                                       "np",    "net",  "batch",   "mean"};

static bool same_case(const json_t *a, const json_t *b)
{
    for (size_t i = 0; i < sizeof identity / sizeof *identity; i++) {
        const json_t *x = json_object_get(a, identity[i]),
                     *y = json_object_get(b, identity[i]);
        if (x != y && !json_equal(x, y)) return false;
    }
    return true;
}

/* Add a line of an earlier run to its cases. */
static sbn_status add_line(const char *path, int line, const char *text, size_t bytes,
                           json_t *cases)
{
    json_error_t error;
    json_t *o = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    const char *kind = json_string_value(json_object_get(o, "kind")),
               *problem = o ? "something else" : error.text;
    bool good = kind && !strcmp(kind, "bench") &&
                json_is_string(json_object_get(o, "what")) &&
                json_number_value(json_object_get(o, "seconds")) > 0;
    if (good) good = json_array_append(cases, o) == 0;
    if (!good)
        sbni_fail(SBN_E_DATA,
                  "--compare: %s:%d: expected a line of syncbn bench --json, got %s",
                  path, line, problem);
    json_decref(o);
    return good ? SBN_OK : SBN_E_DATA;
}

static sbn_status read_cases(const char *path, json_t *cases)
{
    FILE *f = fopen(path, "r");
    SBN_CHECK(f, SBN_E_IO, "--compare: cannot open %s: %s", path, strerror(errno));
    char *text = NULL;
    size_t room = 0;
    ssize_t bytes;
    sbn_status status = SBN_OK;
    for (int line = 1; status == SBN_OK && (bytes = getline(&text, &room, f)) > 0; line++)
        status = add_line(path, line, text, (size_t)bytes, cases);
    if (status == SBN_OK && ferror(f))
        status =
            sbni_fail(SBN_E_IO, "--compare: cannot read %s: %s", path, strerror(errno));
    free(text);
    fclose(f);
    SBN_TRY(status);
    SBN_CHECK(json_array_size(cases), SBN_E_DATA,
              "--compare: %s is empty; expected lines of syncbn bench --json", path);
    return SBN_OK;
}

sbn_status sbni_bench_report_open(bool speaks, bool json, const char *compare,
                                  const char *about, const char *heads,
                                  sbni_bench_report *report)
{
    *report = (sbni_bench_report){.speaks = speaks, .json = json};
    if (!speaks) return SBN_OK;
    if (compare) {
        report->then = json_array();
        SBN_CHECK(report->then, SBN_E_MEMORY, "--compare: no memory");
        SBN_TRY(read_cases(compare, report->then));
    }
    if (json) return SBN_OK;
    sbni_machine m;
    sbni_machine_get(&m);
    printf("%s, %d cores, %s; %.*s; %s; syncbn %s (%s)\n",
           m.cpu[0] ? m.cpu : "unknown CPU", m.cores, m.isa, (int)strcspn(m.mpi, ","),
           m.mpi, m.blas, m.version, m.revision);
    printf("%s%s\n\n%s%s\n", about,
           compare ? "; then: seconds now over those in the file" : "", heads,
           compare ? "  then" : "");
    return SBN_OK;
}

void sbni_bench_report_close(sbni_bench_report *report)
{
    json_decref(report->then);
    report->then = NULL;
}

/* Put the ratio to the earlier run into the facts and into cell. */
static void add_then(const sbni_bench_report *report, json_t *facts, char *cell)
{
    double then = 0, now = json_number_value(json_object_get(facts, "seconds"));
    size_t i;
    json_t *o;
    /* of a case measured twice the later counts */
    json_array_foreach(report->then, i, o) if (same_case(o, facts)) then =
        json_number_value(json_object_get(o, "seconds"));
    snprintf(cell, SBNI_BENCH_CELL, "  new");
    if (then > 0) snprintf(cell, SBNI_BENCH_CELL, "  %.3f", now / then);
    json_object_set_new(facts, "then",
                        then > 0 ? json_real(now / then) : json_string("new"));
}

sbn_status sbni_bench_report_case(const sbni_bench_report *report, json_t *facts,
                                  const char *row)
{
    SBN_CHECK(facts, SBN_E_MEMORY, "no memory for a case");
    if (report->speaks) {
        char then[SBNI_BENCH_CELL] = "";
        if (report->then) add_then(report, facts, then);
        if (report->json) {
            char *text = json_dumps(facts, JSON_COMPACT | JSON_REAL_PRECISION(9));
            if (text) printf("%s\n", text);
            free(text);
        } else {
            printf("%s%s\n", row, then);
        }
        fflush(stdout); /* a run that is stopped leaves whole lines */
    }
    json_decref(facts);
    return SBN_OK;
}

void sbni_bench_print_time(double seconds, char *text)
{
    const char *unit = seconds < 1e-3 ? "us" : seconds < 1 ? "ms" : "s";
    double value = seconds * (seconds < 1e-3 ? 1e6 : seconds < 1 ? 1e3 : 1);
    snprintf(text, SBNI_BENCH_CELL, "%.*f %s",
             value < 10    ? 3
             : value < 100 ? 2
                           : 1,
             value, unit);
}

void sbni_bench_print_spread(sbni_bench_spread s, char *text)
{
    double size = s.p90 > -s.p10 ? s.p90 : -s.p10;
    int digits = size < 10 ? 2 : size < 100 ? 1 : 0;
    snprintf(text, SBNI_BENCH_CELL, "%.*f (%.*f-%.*f)", digits, s.median, digits, s.p10,
             digits, s.p90);
}
