/* Cases of syncbn bench norm: chosen in bench_norm.c, measured in bench_passes.c. */
#ifndef SBNI_BENCH_NORM_H
#define SBNI_BENCH_NORM_H

#include "cli/bench.h"

typedef struct sbni_bench_plan {
    sbni_bench_shapes shapes;
    sbni_bench_numbers threads;
    unsigned layouts, dtypes, passes; /* bit i: word i */
    unsigned isas; /* bit i: instruction set i; 0: the machine's choice */
    int rounds;
    bool relu, add, speedups; /* some case has several threads */
    const char *fused;        /* the same as a word */
    double mean;              /* of x, in its deviations */
} sbni_bench_plan;

/* Measure and report every case. With plots, *points receives what there is to draw,
 * freed by the caller with sbni_free also on failure. Changes OpenMP's threads
 * and, with isas, SBN_ISA. */
sbn_status sbni_bench_run_passes(const sbni_bench_plan *plan,
                                 const sbni_bench_report *report, bool plots,
                                 sbni_bench_point **points, int *n_points);

#endif
