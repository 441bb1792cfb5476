#include "norm/norm.h"

#include <math.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* Batch renormalization, MATH.md (10). */

static sbni_correction correct(sbn_norm *norm, int64_t i, double mean, double mean_low,
                               double var)
{
    double s_b = sqrt(var + norm->cfg.eps),
           s = sqrt(sbni_norm_get(norm, norm->state.running_var, i) + norm->cfg.eps);
    double r = s_b / s,
           d = ((mean - sbni_norm_get(norm, norm->state.running_mean, i)) + mean_low) / s;
    sbni_correction c = {fmin(fmax(r, 1 / norm->cfg.r_max), norm->cfg.r_max),
                         fmin(fmax(d, -norm->cfg.d_max), norm->cfg.d_max)};
    bool differs = c.r != 1 || c.d != 0, clips_r = c.r != r, clips_d = c.d != d;
#pragma omp atomic
    norm->corrects |= differs;
#pragma omp atomic
    norm->clips.corrected++;
#pragma omp atomic
    norm->clips.r += clips_r;
#pragma omp atomic
    norm->clips.d += clips_d;
    return c;
}

void sbni_norm_correct(sbn_norm *norm, int64_t g, int64_t first, int64_t count,
                       const sbni_statistics *statistics)
{
    const sbni_statistics *s = statistics;
    for (int64_t i = 0; norm->r && i < count; i++) {
        sbni_correction c = {1, 0}; /* of evaluation by the batch's own statistics */
        if (norm->ran == SBN_NORM_TRAIN)
            c = correct(norm, first + i, s->mean[i], s->mean_low[i], s->var[i]);
        norm->r[g * norm->cfg.channels + first + i] = c.r;
        norm->d[g * norm->cfg.channels + first + i] = c.d;
    }
}

uint32_t sbni_norm_correction_digest(const sbn_norm *norm)
{
    if (norm->cfg.correction != SBN_CORRECTION_RENORM || norm->ran != SBN_NORM_TRAIN)
        return 0;
    const double limits[2] = {norm->cfg.r_max, norm->cfg.d_max};
    size_t bytes = (size_t)(norm->cfg.channels * sbn_dtype_bytes(norm->state_dtype));
    uint64_t h = XXH3_64bits(limits, sizeof limits);
    h = XXH3_64bits_withSeed(norm->state.running_mean, bytes, h);
    return (uint32_t)XXH3_64bits_withSeed(norm->state.running_var, bytes, h);
}

sbn_status sbn_norm_set_limits(sbn_norm *norm, double r_max, double d_max)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG, "sbn_norm_set_limits: expected a layer, got NULL");
    SBN_CHECK(norm->cfg.correction == SBN_CORRECTION_RENORM, SBN_E_ARG,
              "%s: limits belong to batch renormalization, and this layer has none",
              norm->name);
    SBN_CHECK(r_max >= 1 && d_max >= 0, SBN_E_ARG,
              "%s: expected r_max >= 1 and d_max >= 0, got %g and %g", norm->name, r_max,
              d_max);
    norm->cfg.r_max = r_max;
    norm->cfg.d_max = d_max;
    return SBN_OK;
}

sbn_norm_clipped sbn_norm_get_clipped(const sbn_norm *norm)
{
    double n = norm->clips.corrected ? (double)norm->clips.corrected : 1;
    return (sbn_norm_clipped){norm->cfg.r_max, norm->cfg.d_max, (double)norm->clips.r / n,
                              (double)norm->clips.d / n};
}
