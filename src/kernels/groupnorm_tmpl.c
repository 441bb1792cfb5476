#include "kernels/tmpl.h"

#include <float.h>
#include <math.h>
#include <stddef.h>

/* A group of a sample is m = c/groups·s values in a row of memory, in either layout.
 * Every sum is of one sample and group (or channel), in an order that only its length
 * decides: samples may be shared out in any way. */

static double sum_about(const T *x, int64_t m, double p)
{
    vd sum[2 * PARTS] = {{0}};
    double tail = 0;
    int64_t j = 0;
    for (; j + 2 * ROUND <= m; j += 2 * ROUND)
#pragma GCC unroll 8
        for (int k = 0; k < 2 * PARTS; k++) sum[k] += widen(load(x + j + k * LANES)) - p;
    for (; j < m; j++) tail += (double)x[j] - p;
    return both_sum(sum) + tail;
}

static double squares_about(const T *x, int64_t m, double p)
{
    vd sum[2 * PARTS] = {{0}};
    double tail = 0;
    int64_t j = 0;
    for (; j + 2 * ROUND <= m; j += 2 * ROUND)
#pragma GCC unroll 8
        for (int k = 0; k < 2 * PARTS; k++) {
            vd d = widen(load(x + j + k * LANES)) - p;
            sum[k] += d * d;
        }
    for (; j < m; j++) {
        double d = (double)x[j] - p;
        tail += d * d;
    }
    return both_sum(sum) + tail;
}

/* The mean as two T, from its value in one double and the values' mean distance from
 * that. */
typedef struct split {
    T hi, lo;
} split;

static split split_mean(double mean, double rest)
{
    T hi = (T)mean;
    return (split){hi, (T)((mean - (double)hi) + rest)};
}

/* y of one group of `channels` channels, x at its first value. */
static void normalize(const T *x, int64_t channels, int64_t s, split mean, double rstd,
                      const T *gamma, const T *beta, T *y)
{
    for (int64_t i = 0; i < channels; i++) {
        T scale = (T)(gamma ? (double)gamma[i] * rstd : rstd), shift = beta ? beta[i] : 0;
        for (int64_t j = i * s; j < (i + 1) * s; j++)
            y[j] = ((x[j] - mean.hi) - mean.lo) * scale + shift;
    }
}

void K(groupnorm)(const void *xv, int64_t n, int64_t c, int64_t s, int64_t groups,
                  double eps, const void *gammav, const void *betav, double *mean,
                  double *rstd, void *yv)
{
    const T *x = xv, *gamma = gammav, *beta = betav;
    T *y = yv;
    int64_t channels = c / groups, m = channels * s;
    for (int64_t k = 0; k < n * groups; k++, x += m, y += m) {
        int64_t first = k % groups * channels;
        double p = (double)x[0], at = p + sum_about(x, m, p) / (double)m;
        /* a second pass about the mean takes away what the pivot's distance cost */
        double rest = sum_about(x, m, at) / (double)m;
        double var = squares_about(x, m, at) / (double)m - rest * rest;
        /* squares that overflow must not pass for a deviation */
        double r = var <= DBL_MAX ? 1 / sqrt((var > 0 ? var : 0) + eps) : (double)NAN;
        mean[k] = at;
        rstd[k] = r;
        normalize(x, channels, s, split_mean(at, rest), r, gamma ? gamma + first : NULL,
                  beta ? beta + first : NULL, y);
    }
}

/* Σdy and Σdy·(x-mean) of one channel of one sample. */
static void channel_sums(const T *dy, const T *x, int64_t s, split mean, double *sum_dy,
                         double *sum_dy_d)
{
    vd a[PARTS] = {{0}}, b[PARTS] = {{0}};
    double tail_dy = 0, tail_dy_d = 0;
    int64_t j = 0;
    for (; j + ROUND <= s; j += ROUND)
#pragma GCC unroll 4
        for (int k = 0; k < PARTS; k++) {
            vd g = widen(load(dy + j + k * LANES));
            a[k] += g;
            b[k] += g * widen((load(x + j + k * LANES) - mean.hi) - mean.lo);
        }
    for (; j < s; j++) {
        double g = (double)dy[j];
        tail_dy += g;
        tail_dy_d += g * (double)((x[j] - mean.hi) - mean.lo);
    }
    *sum_dy = lanes_sum(a) + tail_dy;
    *sum_dy_d = lanes_sum(b) + tail_dy_d;
}

void K(groupnorm_backward)(const void *dyv, const void *xv, int64_t n, int64_t c,
                           int64_t s, int64_t groups, const void *gammav,
                           const double *mean, const double *rstd, void *dxv,
                           double *dgamma, double *dbeta)
{
    const T *x = xv, *dy = dyv, *gamma = gammav;
    T *dx = dxv;
    int64_t channels = c / groups, m = channels * s;
    for (int64_t k = 0; k < n * groups; k++, x += m, dy += m) {
        int64_t first = k % groups * channels;
        double r = rstd[k], sum = 0, sum_d = 0;
        split at = split_mean(mean[k], sum_about(x, m, mean[k]) / (double)m);
        for (int64_t i = 0; i < channels; i++) {
            double sum_dy, sum_dy_d, g = gamma ? (double)gamma[first + i] : 1;
            channel_sums(dy + i * s, x + i * s, s, at, &sum_dy, &sum_dy_d);
            dbeta[first + i] += sum_dy;
            dgamma[first + i] += r * sum_dy_d;
            sum += g * sum_dy;
            sum_d += g * sum_dy_d;
        }
        if (!dx) continue;
        T b = (T)(r * sum / (double)m), f = (T)(r * r * r * sum_d / (double)m);
        for (int64_t i = 0; i < channels; i++) {
            T a = (T)(gamma ? (double)gamma[first + i] * r : r);
            for (int64_t j = i * s; j < (i + 1) * s; j++)
                dx[j] = (a * dy[j] - b) - f * ((x[j] - at.hi) - at.lo);
        }
        dx += m;
    }
}
