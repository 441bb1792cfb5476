/*
 * What the benchmarks share: measuring in turn, lists of options, tables and JSON lines,
 * comparison with an earlier run.
 */
#ifndef SBNI_BENCH_H
#define SBNI_BENCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"
#include "syncbn/group.h"
#include "syncbn/tensor.h"

/* cli/bench_measure.c */

/* Something to measure; may run any number of times. */
typedef struct sbni_bench_work {
    sbn_status (*run)(void *context);
    void *context;
} sbni_bench_work;

/*
 * Seconds of one run of each of n works, `rounds` times: in each round every work gives
 * one sample, in an order that turns from round to round, so that a machine that slows
 * down for a while slows all of them. A sample repeats the work until it takes about
 * sample_s; warm-up comes first.
 * @param group    with one, all processes take part, a barrier comes before each sample
 * and the slowest process counts; NULL: this process alone.
 * @param seconds  [n][rounds]
 */
sbn_status sbni_bench_measure(const sbni_bench_work *works, int n, int rounds,
                              double sample_s, sbn_group *group, double *seconds);

typedef struct sbni_bench_spread {
    double median, p10, p90;
} sbni_bench_spread;

/* Of n ≥ 1 values, which are sorted; between two of them by linear interpolation. */
sbni_bench_spread sbni_bench_spread_of(double *values, int n);

/* cli/bench_list.c: options that hold lists, with commas; what comes twice counts once */

enum { SBNI_BENCH_LIST = 64, SBNI_BENCH_AXES = 4 };

typedef struct sbni_bench_numbers {
    int64_t value[SBNI_BENCH_LIST];
    int n;
} sbni_bench_numbers;

typedef struct sbni_bench_shape {
    int64_t size[SBNI_BENCH_AXES]; /* as given: n, c, h, w or n, c */
    int axes;
} sbni_bench_shape;

typedef struct sbni_bench_shapes {
    sbni_bench_shape shape[SBNI_BENCH_LIST];
    int n;
} sbni_bench_shapes;

/* The next word of a list, *length bytes long, and *text what follows it; NULL at its
 * end. */
const char *sbni_bench_next_word(const char **text, int *length);

/* Whole numbers from least to most. SBN_E_ARG. */
sbn_status sbni_bench_parse_numbers(const char *option, const char *text, int64_t least,
                                    int64_t most, sbni_bench_numbers *list);

/* Words of `words` (NULL-terminated), or "all"; bit i of *mask for word i. SBN_E_ARG. */
sbn_status sbni_bench_parse_words(const char *option, const char *text,
                                  const char *const *words, unsigned *mask);

/* Shapes like 32x256x56x56 of least to most axes, each size ≥ 1; added to the list.
 * SBN_E_ARG; `what` says how a shape looks. */
sbn_status sbni_bench_parse_shapes(const char *option, const char *text, int least,
                                   int most, const char *what, sbni_bench_shapes *list);

/* Force the kernels of an instruction set; NULL: leave it. SBN_E_ARG where the machine
 * has not got it. */
sbn_status sbni_bench_force_isa(const char *isa);

/* cli/bench_tensor.c */

enum { SBNI_BENCH_NCHW, SBNI_BENCH_NHWC, SBNI_BENCH_NC };
enum { SBNI_BENCH_FORWARD, SBNI_BENCH_BACKWARD };

/* Words of the options and of the JSON lines; NULL-terminated. */
extern const char *const sbni_bench_layouts[],
    *const sbni_bench_passes[], *const sbni_bench_dtypes[]; /* by sbn_dtype */

/* "32x256x56x56"; and [32,256,56,56] */
enum { SBNI_BENCH_SHAPE_BYTES = 96 };
void sbni_bench_print_shape(const sbni_bench_shape *shape, char *text);
json_t *sbni_bench_shape_json(const sbni_bench_shape *shape);

/* Elements of a tensor; INT64_MAX where they are too many to count. */
int64_t sbni_bench_elements(const sbni_bench_shape *shape);

/* Whether a shape has that layout. */
bool sbni_bench_fits(const sbni_bench_shape *shape, int layout);

sbn_tensor sbni_bench_view(const sbni_bench_shape *shape, int layout, sbn_dtype dtype,
                           void *data);

/* Fill with normal values of deviation 1, the same for the same `which`. They come back
 * after a million elements: drawing takes longer than any pass. */
void sbni_bench_fill(void *data, sbn_dtype dtype, int64_t n, uint32_t which, double mean);

/* cli/bench_report.c */

/* Where the cases go; only process 0 prints. */
typedef struct sbni_bench_report {
    bool speaks, json;
    json_t *then; /* cases of an earlier run; NULL: nothing to compare with */
} sbni_bench_report;

/* Read the earlier run and print the machine's facts, a line about what is measured and
 * the table's heads.
 * @param compare  NULL: none.
 * @errors SBN_E_DATA, SBN_E_IO, SBN_E_MEMORY. Local. */
sbn_status sbni_bench_report_open(bool speaks, bool json, const char *compare,
                                  const char *about, const char *heads,
                                  sbni_bench_report *report);
void sbni_bench_report_close(sbni_bench_report *report);

/* Print a case: its JSON line, or `row` of the table. Takes the reference to `facts`,
 * which may be NULL where there was no memory for it. */
sbn_status sbni_bench_report_case(const sbni_bench_report *report, json_t *facts,
                                  const char *row);

/* "51.23 ms"; "1.28 (1.22-1.35)" */
enum { SBNI_BENCH_CELL = 32 };
void sbni_bench_print_time(double seconds, char *text);
void sbni_bench_print_spread(sbni_bench_spread spread, char *text);

/* cli/bench_plot.c */

typedef struct sbni_bench_point {
    char series[64]; /* forward nchw */
    bool backward;
    double bytes;       /* of x */
    double speed, copy; /* bytes/s of the pass and of memcpy */
} sbni_bench_point;

/* Whether gnuplot is missing and, where it is not, that it can write there. SBN_E_IO. */
sbn_status sbni_bench_plot_check(const char *path, bool *missing);

/* Draw achieved bytes/s against the copy's by gnuplot, as SVG. SBN_E_IO. */
sbn_status sbni_bench_plot(const char *path, const sbni_bench_point *points, int n);

/* The subcommands. */
sbn_status sbni_bench_norm(int argc, char **argv, sbn_group *group);
sbn_status sbni_bench_sync(int argc, char **argv, sbn_group *group);
sbn_status sbni_bench_train(int argc, char **argv, sbn_group *group);

#endif
