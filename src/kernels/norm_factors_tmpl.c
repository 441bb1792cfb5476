#include "kernels/tmpl.h"

#include <math.h>

/* Factors of channels out of their sums: plain loops, which the compiler makes vectors
 * of. Lanes are channels, so that leaves no trace. */

/* MATH.md (6): one rounding of rstd, shared by forward and backward. */
INLINE void factors(int64_t c, const sbni_statistics *s, const sbni_affine *affine,
                    const sbni_channels *to, const bool has_affine, const bool corrects)
{
    const double *mean = s->mean, *mean_low = s->mean_low, *var = s->var, *r = affine->r,
                 *d = affine->d;
    const T *weight = affine->gamma, *bias = affine->beta;
    double *gamma_d = to->gamma_d, *rstd_d = to->rstd_d;
    T *mean_hi = to->mean_hi, *mean_lo = to->mean_lo, *centre_hi = to->centre_hi,
      *centre_lo = to->centre_lo, *scale = to->scale, *shift = to->shift;
#pragma GCC ivdep
    for (int64_t i = 0; i < c; i++) {
        const double gamma = has_affine ? (double)weight[i] : 1,
                     beta = has_affine ? (double)bias[i] : 0,
                     rstd = 1 / sqrt(var[i] + affine->eps);
        const T hi = (T)mean[i], lo = (T)((mean[i] - (double)hi) + mean_low[i]);
        const T factor = (T)(corrects ? gamma * rstd * r[i] : gamma * rstd);
        const double offset = corrects && d[i] != 0 ? beta + gamma * d[i] : beta,
                     all = offset - (double)factor * mean[i];
        const bool near = sizeof(T) < sizeof(double) && mean[i] * mean[i] <= 9 * var[i];
        gamma_d[i] = gamma;
        rstd_d[i] = rstd;
        mean_hi[i] = hi;
        mean_lo[i] = lo;
        centre_hi[i] = (T)(near ? 0.0 : (double)hi);
        centre_lo[i] = (T)(near ? 0.0 : (double)lo);
        scale[i] = factor;
        shift[i] = (T)(near ? all : offset);
    }
}

void K(norm_factors)(int64_t c, const sbni_statistics *s, const sbni_affine *affine,
                     const sbni_channels *to)
{
    if (affine->gamma && affine->r)
        factors(c, s, affine, to, true, true);
    else if (affine->gamma)
        factors(c, s, affine, to, true, false);
    else if (affine->r)
        factors(c, s, affine, to, false, true);
    else
        factors(c, s, affine, to, false, false);
}

/* MATH.md (8) */
INLINE void dx_factors(int64_t c, const sbni_gradients *s, const sbni_channels *ch,
                       const sbni_dx_factors *to, const bool corrects)
{
    const double n = s->n, *dy = s->dy, *dy_xhat = s->dy_xhat, *mean = s->mean, *r = s->r,
                 *gamma = ch->gamma_d, *rstd = ch->rstd_d;
    const T *centre = ch->centre_hi;
    T *to_a = to->a, *to_b = to->b, *to_k = to->k;
#pragma GCC ivdep
    for (int64_t i = 0; i < c; i++) {
        const double a = corrects ? gamma[i] * rstd[i] * r[i] : gamma[i] * rstd[i],
                     b = a * (dy[i] / n);
        const T k = (T)(a * rstd[i] * (dy_xhat[i] / n));
        const double all = b - (double)k * mean[i];
        to_a[i] = (T)a;
        to_b[i] = (T)((double)centre[i] == 0 ? all : b);
        to_k[i] = k;
    }
}

void K(norm_dx_factors)(int64_t c, const sbni_gradients *s, const sbni_channels *ch,
                        const sbni_dx_factors *to)
{
    if (s->r)
        dx_factors(c, s, ch, to, true);
    else
        dx_factors(c, s, ch, to, false);
}
