#include "kernels/tmpl.h"

/* (n,c) rows and images differ in which axis is contiguous: channels when s = 1, else
 * pixels. */

void K(norm_moments)(const void *xv, int64_t n, int64_t c, int64_t s, double *pivot,
                     double *sum_d, double *sum_dd)
{
    const T *x = xv;
    for (int64_t i = 0; i < c; i++) pivot[i] = (double)x[i * s];
    if (s == 1) {
        for (int64_t i = 0; i < c; i++) sum_d[i] = sum_dd[i] = 0;
        for (int64_t r = 0; r < n; r++)
            for (int64_t i = 0; i < c; i++) {
                double d = (double)x[r * c + i] - pivot[i];
                sum_d[i] += d;
                sum_dd[i] += d * d;
            }
        return;
    }
    for (int64_t i = 0; i < c; i++) {
        double p = pivot[i], tail_d = 0, tail_dd = 0;
        vd d0 = {0}, d1 = {0}, dd0 = {0}, dd1 = {0};
        for (int64_t r = 0; r < n; r++) {
            const T *row = x + (r * c + i) * s;
            int64_t j = 0;
            for (; j + 2 * LANES <= s; j += 2 * LANES) {
                vd a = widen(load(row + j)) - p, b = widen(load(row + j + LANES)) - p;
                d0 += a, d1 += b;
                dd0 += a * a, dd1 += b * b;
            }
            for (; j < s; j++) {
                double d = (double)row[j] - p;
                tail_d += d;
                tail_dd += d * d;
            }
        }
        sum_d[i] = lanes_sum(d0 + d1) + tail_d;
        sum_dd[i] = lanes_sum(dd0 + dd1) + tail_dd;
    }
}

void K(norm_normalize)(const void *xv, int64_t n, int64_t c, int64_t s,
                       const sbni_channels *ch, void *yv)
{
    const T *x = xv, *hi = ch->mean_hi, *lo = ch->mean_lo, *scale = ch->scale,
            *shift = ch->shift;
    T *y = yv;
    if (s == 1) {
        for (int64_t r = 0; r < n; r++)
            for (int64_t i = 0; i < c; i++)
                y[r * c + i] = ((x[r * c + i] - hi[i]) - lo[i]) * scale[i] + shift[i];
        return;
    }
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < c; i++) {
            const T *from = x + (r * c + i) * s;
            T *to = y + (r * c + i) * s, h = hi[i], l = lo[i], a = scale[i], b = shift[i];
            for (int64_t j = 0; j < s; j++) to[j] = ((from[j] - h) - l) * a + b;
        }
}

void K(norm_backward_sums)(const void *dyv, const void *xv, int64_t n, int64_t c,
                           int64_t s, const sbni_channels *ch, double *sum_dy,
                           double *sum_dy_d)
{
    const T *x = xv, *dy = dyv, *hi = ch->mean_hi, *lo = ch->mean_lo;
    if (s == 1) {
        for (int64_t i = 0; i < c; i++) sum_dy[i] = sum_dy_d[i] = 0;
        for (int64_t r = 0; r < n; r++)
            for (int64_t i = 0; i < c; i++) {
                double g = (double)dy[r * c + i];
                sum_dy[i] += g;
                sum_dy_d[i] += g * (double)((x[r * c + i] - hi[i]) - lo[i]);
            }
        return;
    }
    for (int64_t i = 0; i < c; i++) {
        T h = hi[i], l = lo[i];
        double tail_dy = 0, tail_dy_d = 0;
        vd dy0 = {0}, dy1 = {0}, dd0 = {0}, dd1 = {0};
        for (int64_t r = 0; r < n; r++) {
            const T *row = x + (r * c + i) * s, *grad = dy + (r * c + i) * s;
            int64_t j = 0;
            for (; j + 2 * LANES <= s; j += 2 * LANES) {
                vd a = widen(load(grad + j)), b = widen(load(grad + j + LANES));
                dy0 += a, dy1 += b;
                dd0 += a * widen((load(row + j) - h) - l);
                dd1 += b * widen((load(row + j + LANES) - h) - l);
            }
            for (; j < s; j++) {
                double g = (double)grad[j];
                tail_dy += g;
                tail_dy_d += g * (double)((row[j] - h) - l);
            }
        }
        sum_dy[i] = lanes_sum(dy0 + dy1) + tail_dy;
        sum_dy_d[i] = lanes_sum(dd0 + dd1) + tail_dy_d;
    }
}

void K(norm_backward_dx)(const void *dyv, const void *xv, int64_t n, int64_t c, int64_t s,
                         const sbni_channels *ch, const sbni_dx_factors *f, void *dxv)
{
    const T *x = xv, *dy = dyv, *hi = ch->mean_hi, *lo = ch->mean_lo, *a = f->a,
            *b = f->b, *k = f->k;
    T *dx = dxv;
    if (s == 1) {
        for (int64_t r = 0; r < n; r++)
            for (int64_t i = 0; i < c; i++) {
                int64_t at = r * c + i;
                dx[at] = (a[i] * dy[at] - b[i]) - k[i] * ((x[at] - hi[i]) - lo[i]);
            }
        return;
    }
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < c; i++) {
            int64_t at = (r * c + i) * s;
            T h = hi[i], l = lo[i], ai = a[i], bi = b[i], ki = k[i];
            for (int64_t j = 0; j < s; j++)
                dx[at + j] = (ai * dy[at + j] - bi) - ki * ((x[at + j] - h) - l);
        }
}
