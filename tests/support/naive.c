#include "support/naive.h"

#include <math.h>
#include <stdlib.h>

static long double *zeros(int64_t count)
{
    return calloc((size_t)count + 1, sizeof(long double));
}

naive naive_make(int64_t n, int64_t c, int64_t s)
{
    int64_t all = n * c * s;
    return (naive){.n = n,
                   .c = c,
                   .s = s,
                   .eps = 1e-5,
                   .y = zeros(all),
                   .dx = zeros(all),
                   .dgamma = zeros(c),
                   .dbeta = zeros(c),
                   .mean = zeros(c),
                   .var = zeros(c),
                   .y_size = zeros(all),
                   .dx_size = zeros(all),
                   .dgamma_size = zeros(c),
                   .dbeta_size = zeros(c)};
}

void naive_free(naive *bn)
{
    long double *owned[] = {bn->y,           bn->dx,        bn->dgamma, bn->dbeta,
                            bn->mean,        bn->var,       bn->y_size, bn->dx_size,
                            bn->dgamma_size, bn->dbeta_size};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    *bn = (naive){0};
}

/* Mean, then the mean of squared deviations from it. */
static void moments(const naive *bn, int64_t from, int64_t to, int64_t i,
                    long double *mean, long double *var)
{
    long double sum = 0, squares = 0, count = (long double)((to - from) * bn->s);
    for (int64_t r = from; r < to; r++)
        for (int64_t j = 0; j < bn->s; j++) sum += bn->x[(r * bn->c + i) * bn->s + j];
    *mean = sum / count;
    for (int64_t r = from; r < to; r++)
        for (int64_t j = 0; j < bn->s; j++) {
            long double d = bn->x[(r * bn->c + i) * bn->s + j] - *mean;
            squares += d * d;
        }
    *var = squares / count;
}

/* Channel i of the norm batch of samples from … to-1. */
static void channel(naive *bn, int64_t from, int64_t to, int64_t i)
{
    long double mean, var, count = (long double)((to - from) * bn->s);
    moments(bn, from, to, i, &mean, &var);
    long double rstd = 1 / sqrtl(var + (long double)bn->eps);
    long double gamma = bn->gamma ? bn->gamma[i] : 1, beta = bn->beta ? bn->beta[i] : 0;
    long double sum_dy = 0, sum_dy_xhat = 0, size_dy = 0, size_dy_xhat = 0;
    for (int64_t r = from; r < to; r++)
        for (int64_t j = 0; j < bn->s; j++) {
            int64_t at = (r * bn->c + i) * bn->s + j;
            long double xhat = (bn->x[at] - mean) * rstd;
            bn->y[at] = gamma * xhat + beta;
            /* the mean is a sum of values that lie within about 4 deviations of it */
            bn->y_size[at] = fabsl(gamma) * (4 + fabsl(xhat)) + fabsl(beta);
            if (!bn->dy) continue;
            sum_dy += bn->dy[at];
            sum_dy_xhat += bn->dy[at] * xhat;
            size_dy += fabsl((long double)bn->dy[at]);
            size_dy_xhat += fabsl(bn->dy[at]) * (4 + fabsl(xhat));
        }
    if (!bn->dy) return;
    bn->dgamma[i] += sum_dy_xhat;
    bn->dbeta[i] += sum_dy;
    bn->dgamma_size[i] += size_dy_xhat;
    bn->dbeta_size[i] += size_dy;
    for (int64_t r = from; r < to; r++)
        for (int64_t j = 0; j < bn->s; j++) {
            int64_t at = (r * bn->c + i) * bn->s + j;
            long double xhat = (bn->x[at] - mean) * rstd;
            bn->dx[at] =
                gamma * rstd * (bn->dy[at] - sum_dy / count - xhat * sum_dy_xhat / count);
            bn->dx_size[at] =
                fabsl(gamma * rstd) * (fabsl((long double)bn->dy[at]) + size_dy / count +
                                       (4 + fabsl(xhat)) * size_dy_xhat / count);
        }
}

void naive_run(naive *bn)
{
    int64_t m = bn->norm_batch ? bn->norm_batch : bn->n;
    for (int64_t i = 0; i < bn->c; i++) {
        bn->dgamma[i] = bn->dbeta[i] = bn->dgamma_size[i] = bn->dbeta_size[i] = 0;
        for (int64_t from = 0; from < bn->n; from += m)
            channel(bn, from, from + m < bn->n ? from + m : bn->n, i);
        if (bn->n) moments(bn, 0, bn->n, i, &bn->mean[i], &bn->var[i]);
    }
}

long double naive_track(long double running, long double value, double momentum,
                        int64_t step)
{
    long double w = momentum < 0 ? 1.0L / (long double)step : (long double)momentum;
    return running + w * (value - running);
}

long double naive_unbiased(const naive *bn, int64_t channel_index)
{
    long double n = (long double)(bn->n * bn->s);
    return bn->var[channel_index] * n / (n - 1);
}
