#include "norm/noise.h"

#include <math.h>

#include "norm/norm.h"

/* A channel's mean and variance over the whole batch, from those of its norm batches. */
static sbni_moments whole_of(const sbn_norm *norm, int64_t channel)
{
    int64_t c = norm->cfg.channels;
    double n = 0;
    sbni_moments whole = {0};
    for (int64_t g = 0; g < norm->batches; g++) n += (double)norm->counts[g];
    for (int64_t g = 0; g < norm->batches; g++)
        if (norm->counts[g])
            whole.mean += (double)norm->counts[g] / n * norm->mean_d[g * c + channel];
    for (int64_t g = 0; g < norm->batches; g++) {
        if (!norm->counts[g]) continue;
        double off = norm->mean_d[g * c + channel] - whole.mean;
        whole.var +=
            (double)norm->counts[g] / n * (norm->var_d[g * c + channel] + off * off);
    }
    return whole;
}

sbni_noise sbni_norm_noise(const sbn_norm *norm)
{
    int64_t c = norm->cfg.channels;
    double terms = 0;
    sbni_noise sum = {0, 0};
    for (int64_t i = 0; i < c; i++) {
        sbni_moments whole = whole_of(norm, i);
        if (!(whole.var > 0)) continue;
        for (int64_t g = 0; g < norm->batches; g++) {
            if (!norm->counts[g]) continue;
            double off = norm->mean_d[g * c + i] - whole.mean,
                   ratio = norm->var_d[g * c + i] / whole.var - 1;
            sum.mean += off * off / whole.var;
            sum.var += ratio * ratio;
            terms++;
        }
    }
    return (sbni_noise){sqrt(sum.mean / terms), sqrt(sum.var / terms)};
}
