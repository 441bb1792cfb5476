#include <math.h>
#include <stdlib.h>

#include "cli/bench.h"
#include "comm/bare.h"
#include "core/clock.h"
#include "core/memory.h"

enum { MAX_WORKS = 4, TRIALS = 3, MAX_REPEATS = 1 << 20 };

/* Seconds of `repeats` runs. With a group until all have done theirs: where processes
 * share cores, one's own time would leave out that it waited to begin. */
static sbn_status sample(const sbni_bench_work *work, int64_t repeats, sbn_group *group,
                         double *seconds)
{
    if (group) SBN_TRY(sbni_bare_barrier(group));
    double start = sbni_clock_s();
    for (int64_t i = 0; i < repeats; i++) SBN_TRY(work->run(work->context));
    if (group) SBN_TRY(sbni_bare_barrier(group));
    *seconds = sbni_clock_s() - start;
    return SBN_OK;
}

/* The shortest of a few samples, the same on all processes: one that was interrupted says
 * nothing. */
static sbn_status shortest(const sbni_bench_work *work, int64_t repeats, sbn_group *group,
                           double *seconds)
{
    *seconds = HUGE_VAL;
    for (int i = 0; i < TRIALS; i++) {
        double mine, slowest;
        SBN_TRY(sample(work, repeats, group, &mine));
        slowest = mine;
        if (group) SBN_TRY(sbni_bare_slowest(group, &mine, 1, &slowest));
        *seconds = fmin(*seconds, slowest);
    }
    return SBN_OK;
}

/* How often a work fits into a sample. The count grows until a sample is long enough to
 * judge by; on the way the work warms up. */
static sbn_status calibrate(const sbni_bench_work *work, double sample_s,
                            sbn_group *group, int64_t *repeats)
{
    double seconds;
    for (*repeats = 1;; *repeats *= 4) {
        SBN_TRY(shortest(work, *repeats, group, &seconds));
        if (seconds >= sample_s / 2 || *repeats >= MAX_REPEATS) break;
    }
    double fit = ceil((double)*repeats * sample_s / fmax(seconds, 1e-9));
    *repeats = (int64_t)fmin(fit, MAX_REPEATS);
    return SBN_OK;
}

sbn_status sbni_bench_measure(const sbni_bench_work *works, int n, int rounds,
                              double sample_s, sbn_group *group, double *seconds)
{
    int64_t repeats[MAX_WORKS];
    double *mine = NULL;
    for (int i = 0; i < n; i++)
        SBN_TRY(calibrate(&works[i], sample_s, group, &repeats[i]));
    sbn_status status = sbni_alloc(n * rounds, sizeof *mine, "samples", &mine);
    if (group) status = sbn_group_agree(group, status);
    for (int r = 0; r < rounds && status == SBN_OK; r++)
        for (int k = 0; k < n && status == SBN_OK; k++) {
            int i = (r + k) % n;
            double *at = &mine[i * rounds + r];
            status = sample(&works[i], repeats[i], group, at);
            *at /= (double)repeats[i];
        }
    if (status == SBN_OK && group)
        status = sbni_bare_slowest(group, mine, n * rounds, seconds);
    for (int i = 0; i < n * rounds && status == SBN_OK && !group; i++)
        seconds[i] = mine[i];
    sbni_free(mine);
    return status;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int n, double q)
{
    double at = q * (n - 1);
    int i = (int)at;
    if (i >= n - 1) return sorted[n - 1];
    return sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]);
}

sbni_bench_spread sbni_bench_spread_of(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, compare);
    return (sbni_bench_spread){quantile(values, n, 0.5), quantile(values, n, 0.1),
                               quantile(values, n, 0.9)};
}
