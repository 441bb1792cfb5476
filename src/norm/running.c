#include "norm/norm.h"

/* Running statistics: averages over steps. */

static double unbiased(double var, int64_t n)
{
    return var * ((double)n / (double)(n - 1));
}

/* MATH.md (9) */
static void average(sbn_norm *norm, int64_t i, double w, double mean, double var)
{
    void *means = norm->state.running_mean, *vars = norm->state.running_var;
    sbni_norm_set(norm, means, i, (1 - w) * sbni_norm_get(norm, means, i) + w * mean);
    sbni_norm_set(norm, vars, i, (1 - w) * sbni_norm_get(norm, vars, i) + w * var);
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
            var += unbiased(norm->var_d[at], norm->counts[g]) * (double)norm->counts[g];
        }
        average(norm, i, w, mean / n, var / n);
    }
}

/* The whole batch's; those of its only norm batch are known. */
static void track_batch(sbn_norm *norm, double w)
{
    int64_t c = norm->cfg.channels;
    const uint64_t *all = sbni_norm_fold(norm, &norm->forward, SBNI_MOMENT_WORDS);
    int64_t n = (int64_t)all[SBNI_SECTION_N];
    sbni_moments m[SBNI_READ_CHANNELS];
    for (int64_t from = 0, count; from < c; from += count) {
        count = sbni_read_count(from, c);
        if (norm->batches > 1) sbni_norm_read_moments(norm, all, c, from, count, m);
        for (int64_t i = 0; i < count; i++) {
            int64_t at = from + i;
            if (norm->batches == 1)
                m[i] = (sbni_moments){norm->mean_d[at], 0, norm->var_d[at]};
            average(norm, at, w, m[i].mean, unbiased(m[i].var, n));
        }
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
