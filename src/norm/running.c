#include "norm/norm.h"

/* Running statistics: averages over steps. */

static double unbias(int64_t n)
{
    return (double)n / (double)(n - 1);
}

/* MATH.md (9): elements of an average move to what is new, times factor. */
static inline void average(void *to, int64_t count, double w, const double *new,
                           double factor, const bool f64)
{
#pragma GCC ivdep
    for (int64_t i = 0; i < count; i++) {
        double old = sbni_element_get(to, i, f64);
        sbni_element_set(to, i, (1 - w) * old + w * (new[i] * factor), f64);
    }
}

/* Channels [from, from + count). */
static void move(sbn_norm *norm, int64_t from, int64_t count, double w,
                 const double *mean, const double *var, double unbiased)
{
    void *means = sbni_norm_at(norm, norm->state.running_mean, from),
         *vars = sbni_norm_at(norm, norm->state.running_var, from);
    if (norm->state_dtype == SBN_F64) {
        average(means, count, w, mean, 1, true);
        average(vars, count, w, var, unbiased, true);
    } else {
        average(means, count, w, mean, 1, false);
        average(vars, count, w, var, unbiased, false);
    }
}

/* Means over the norm batches of their means and unbiased variances. */
static void track_norm_batches(sbn_norm *norm, double w)
{
    double n = 0;
    for (int64_t g = 0; g < norm->batches; g++) n += (double)norm->counts[g];
    for (int64_t i = 0; i < norm->cfg.channels; i++) {
        double mean = 0, var = 0;
        for (int64_t g = 0; g < norm->batches; g++) {
            if (norm->counts[g] == 0) continue;
            int64_t at = g * norm->cfg.channels + i;
            mean += norm->mean_d[at] * (double)norm->counts[g];
            var += norm->var_d[at] * unbias(norm->counts[g]) * (double)norm->counts[g];
        }
        mean /= n;
        var /= n;
        move(norm, i, 1, w, &mean, &var, 1);
    }
}

/* The whole batch's; those of its only norm batch are known. */
static void track_batch(sbn_norm *norm, double w)
{
    int64_t c = norm->cfg.channels;
    if (norm->batches == 1) {
        move(norm, 0, c, w, norm->mean_d, norm->var_d, unbias(norm->counts[0]));
        return;
    }
    const uint64_t *all = sbni_norm_fold(norm, &norm->forward, SBNI_MOMENT_WORDS);
    double mean[SBNI_READ_CHANNELS], low[SBNI_READ_CHANNELS], var[SBNI_READ_CHANNELS];
    for (int64_t from = 0, count; from < c; from += count) {
        count = sbni_read_count(from, c);
        sbni_norm_read_moments(norm, all, c, from, count, mean, low, var);
        move(norm, from, count, w, mean, var, unbias((int64_t)all[SBNI_SECTION_N]));
    }
}

void sbni_norm_track(sbn_norm *norm)
{
    norm->batches_tracked++;
    double w = norm->cfg.momentum == SBN_MOMENTUM_CUMULATIVE
                   ? 1.0 / (double)norm->batches_tracked
                   : norm->cfg.momentum;
    if (norm->batches > 1 && norm->cfg.running == SBN_RUNNING_MEAN_OF_NORM_BATCHES)
        track_norm_batches(norm, w);
    else
        track_batch(norm, w);
}
