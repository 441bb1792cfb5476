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
    sbni_moments m[SBNI_READ_CHANNELS];
    for (int64_t from = 0, count; from < norm->cfg.channels; from += count) {
        double mean[SBNI_READ_CHANNELS] = {0}, var[SBNI_READ_CHANNELS] = {0};
        count = sbni_read_count(from, norm->cfg.channels);
        for (int64_t g = 0; g < norm->batches; g++) {
            if (norm->counts[g] == 0) continue;
            const uint64_t *section = sbni_norm_moment_section(norm, &norm->forward, g);
            sbni_norm_read_moments(norm, section, from, m);
            for (int64_t i = 0; i < count; i++) {
                mean[i] += m[i].mean * (double)norm->counts[g];
                var[i] += unbiased(m[i].var, norm->counts[g]) * (double)norm->counts[g];
            }
        }
        for (int64_t i = 0; i < count; i++)
            average(norm, from + i, w, mean[i] / n, var[i] / n);
    }
}

void sbni_norm_track(sbn_norm *norm)
{
    norm->batches_tracked++;
    double w = norm->cfg.momentum == SBN_MOMENTUM_CUMULATIVE
                   ? 1.0 / (double)norm->batches_tracked
                   : norm->cfg.momentum;
    if (norm->batches > 1 && norm->cfg.running == SBN_RUNNING_MEAN_OF_NORM_BATCHES) {
        track_norm_batches(norm, w);
        return;
    }
    const uint64_t *all = sbni_norm_fold(norm, &norm->forward, SBNI_MOMENT_WORDS);
    int64_t n = (int64_t)all[SBNI_SECTION_N];
    sbni_moments m[SBNI_READ_CHANNELS];
    for (int64_t from = 0, count; from < norm->cfg.channels; from += count) {
        count = sbni_norm_read_moments(norm, all, from, m);
        for (int64_t i = 0; i < count; i++)
            average(norm, from + i, w, m[i].mean, unbiased(m[i].var, n));
    }
}
