#include "support/slopes.h"

#include <math.h>
#include <stdlib.h>

long double *zeros(int64_t count)
{
    return calloc((size_t)count + 1, sizeof(long double));
}

slopes slopes_make(int64_t all, int64_t c)
{
    return (slopes){all,      c,          zeros(all), zeros(all),
                    zeros(c), zeros(all), zeros(all), zeros(c)};
}

void slopes_free(slopes *w)
{
    long double *owned[] = {w->ddy,      w->gx,      w->ggamma,
                            w->ddy_size, w->gx_size, w->ggamma_size};
    for (int k = 0; k < 6; k++) free(owned[k]);
}

void statistics(const probe *p, long double *mean, long double *var)
{
    *mean = *var = 0;
    for (int64_t k = 0; k < p->n; k++) *mean += p->x[k] / (long double)p->n;
    for (int64_t k = 0; k < p->n; k++)
        *var += (p->x[k] - *mean) * (p->x[k] - *mean) / (long double)p->n;
}

/* Forward and backward from the definition; r and d are constants. */
static long double loss(const probe *p)
{
    long double mean, var, n = (long double)p->n, sum = 0, sum_dy = 0, sum_dy_xhat = 0;
    statistics(p, &mean, &var);
    long double rstd = 1 / sqrtl(var + p->eps);
    for (int64_t k = 0; k < p->n; k++) {
        sum_dy += p->dy[k];
        sum_dy_xhat += p->dy[k] * (p->x[k] - mean) * rstd;
    }
    for (int64_t k = 0; k < p->n; k++) {
        long double xhat = (p->x[k] - mean) * rstd;
        sum += p->v[k] * p->gamma * p->r * rstd *
               (p->dy[k] - sum_dy / n - xhat * sum_dy_xhat / n);
    }
    return sum + p->v_gamma * (p->r * sum_dy_xhat + p->d * sum_dy) + p->v_beta * sum_dy;
}

/* Central differences on seven points: the rule's error is h⁶/140 times the seventh
 * derivative, below 1e9 where deviations are 0.3 and more: 1e-13. Round-off is 1e-17 of a
 * loss of some tens, over h: 1e-13. */
enum { POINTS = 6 };
static const long double step = 5e-4L;

long double slope(const probe *p, long double *by)
{
    static const int weight[POINTS] = {-1, 9, -45, 45, -9, 1};
    static const int place[POINTS] = {-3, -2, -1, 1, 2, 3};
    long double sum = 0, at = *by;
    for (int k = 0; k < POINTS; k++) {
        *by = at + (long double)place[k] * step;
        sum += (long double)weight[k] * loss(p);
    }
    *by = at;
    return sum / (60 * step);
}

/* Magnitudes by the terms of MATH.md (11), (12), every one taken positive; an xhat is a
 * difference from a mean, itself a sum of values within about 4 deviations. */
void sizes(const probe *p, slopes *want, int64_t i)
{
    long double mean, var, n = (long double)p->n;
    statistics(p, &mean, &var);
    long double rstd = 1 / sqrtl(var + p->eps), a = fabsl(p->gamma * p->r * rstd),
                vg = fabsl(p->v_gamma);
    long double v = 0, dy = 0, v_xhat = 0, dy_xhat = 0, v_dy = 0;
    for (int64_t k = 0; k < p->n; k++) {
        long double x = 4 + fabsl(p->x[k] - mean) * rstd;
        v += fabsl(p->v[k]) / n;
        dy += fabsl(p->dy[k]) / n;
        v_xhat += fabsl(p->v[k]) * x / n;
        dy_xhat += fabsl(p->dy[k]) * x / n;
        v_dy += fabsl(p->v[k] * p->dy[k]) / n;
    }
    long double q = v_dy + v * dy + v_xhat * dy_xhat, of_v = a * dy_xhat,
                of_dy = vg * p->r + a * v_xhat;
    for (int64_t k = 0; k < p->n; k++) {
        long double x = 4 + fabsl(p->x[k] - mean) * rstd;
        want->ddy_size[p->at[k]] = a * (fabsl(p->v[k]) + v + x * v_xhat) +
                                   vg * (p->r * x + fabsl(p->d)) + fabsl(p->v_beta);
        want->gx_size[p->at[k]] =
            rstd * (of_v * fabsl(p->v[k]) + of_dy * fabsl(p->dy[k]) + of_v * v +
                    of_dy * dy + x * (of_v * v_xhat + of_dy * dy_xhat + a * q));
    }
    want->ggamma_size[i] += p->r * rstd * n * q;
}
