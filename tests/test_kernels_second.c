/* Kernels of the second derivative and of group norm: every instruction set and type,
 * both forms, ragged sizes. Their equations are held by test_second and test_groupnorm;
 * here each sum and element is held to its own roundings. */
#include "support/harness.h"
#include "support/tables.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "support/cases.h"
#include "support/element.h"

enum { MOST_C = 17 };
static const int64_t samples[] = {1, 3, 16}, channels[] = {1, 8, MOST_C},
                     pixels[] = {1, 7, 16, 33};

static sbn_dtype factor_type(sbn_dtype t)
{
    return t == SBN_F64 ? SBN_F64 : SBN_F32;
}

static void *drawn(sbn_dtype t, int64_t n, uint32_t which)
{
    void *p = room(t, n);
    draw(t, p, n, which);
    return p;
}

/* One slice: v, dy, x and the factors, means in front. */
enum { V, DY, X, DDY, GX, ARRAYS };
enum { HI, LO, Y_V, Y_D, Y_1, X_V, X_DY, X_D, X_1, FACTORS };
typedef struct slice {
    sbn_dtype t, f;
    sbni_block b;
    int64_t rows[16], count;
    sbni_view w[ARRAYS];
    void *factor[FACTORS];
} slice;

static void slice_make(slice *s, sbn_dtype t, bool planes, int64_t n, int64_t c,
                       int64_t pixel_count)
{
    *s = (slice){.t = t, .f = factor_type(t), .count = n * c * pixel_count};
    s->b = (sbni_block){s->rows, n, c, pixel_count, planes, false, false};
    for (int64_t r = 0; r < n; r++) s->rows[r] = n - 1 - r;
    for (uint32_t i = 0; i < ARRAYS; i++)
        s->w[i] = (sbni_view){drawn(t, s->count, i), c * pixel_count,
                              planes ? pixel_count : 1, planes ? 1 : c};
    for (uint32_t i = 0; i < FACTORS; i++) s->factor[i] = drawn(s->f, c, 20 + i);
}

static void slice_free(slice *s)
{
    for (int i = 0; i < ARRAYS; i++) room_check(s->t, s->w[i].data, s->count);
    for (int i = 0; i < FACTORS; i++) room_check(s->f, s->factor[i], s->b.c);
}

static double at(const slice *s, int array, int64_t r, int64_t i, int64_t j)
{
    const sbni_view *w = &s->w[array];
    return element(s->t, w->data,
                   s->rows[r] * w->stride_n + i * w->stride_c + j * w->stride_s);
}

static double factor(const slice *s, int which, int64_t i)
{
    return element(s->f, s->factor[which], i);
}

#define EACH(s, r, i, j)                                                                 \
    for (int64_t r = 0; r < (s)->b.n; r++)                                               \
        for (int64_t i = 0; i < (s)->b.c; i++)                                           \
            for (int64_t j = 0; j < (s)->b.s; j++)

/* x - mean and, in size, the size of what was rounded in it. */
static double deviation(const slice *s, int64_t r, int64_t i, int64_t j, double *size)
{
    double x = at(s, X, r, i, j), hi = factor(s, HI, i), lo = factor(s, LO, i);
    *size = fabs(x) + fabs(hi) + fabs(lo);
    return (x - hi) - lo;
}

static void check_sums(const sbni_norm_kernels *k, const slice *s,
                       const sbni_channels *ch)
{
    int64_t c = s->b.c;
    double got[3][MOST_C], want[3][MOST_C] = {0}, size[3][MOST_C] = {0};
    k->norm_second_sums(&s->b, &s->w[V], &s->w[DY], &s->w[X], ch, got[0], got[1], got[2]);
    EACH(s, r, i, j)
    {
        double large, d = deviation(s, r, i, j, &large), v = at(s, V, r, i, j),
                      dy = at(s, DY, r, i, j);
        want[0][i] += v, want[1][i] += v * d, want[2][i] += v * dy;
        size[0][i] += fabs(v), size[1][i] += fabs(v) * large, size[2][i] += fabs(v * dy);
    }
    double unit = (double)(s->b.n * s->b.s + 2) * DBL_EPSILON;
    for (int q = 0; q < 3; q++) {
        for (int64_t i = 0; i < c; i++)
            CLOSE(got[q][i], want[q][i],
                  (unit + (q == 1 ? 3 * rounding(s->f) : 0)) * size[q][i]);
        record(got[q], c * 8);
    }
}

static void check_apply(const sbni_norm_kernels *k, slice *s, const sbni_channels *ch)
{
    void *const *f = s->factor;
    sbni_second_factors factors = {f[Y_V],  f[Y_D], f[Y_1], f[X_V],
                                   f[X_DY], f[X_D], f[X_1]};
    double store = s->t == SBN_BF16 ? 1.01 * rounding(s->t) : 0;
    k->norm_second_apply(&s->b, &s->w[V], &s->w[DY], &s->w[X], ch, &factors, &s->w[DDY],
                         &s->w[GX]);
    EACH(s, r, i, j)
    {
        double large, d = deviation(s, r, i, j, &large), v = at(s, V, r, i, j),
                      dy = at(s, DY, r, i, j);
        double ddy = factor(s, Y_V, i) * v + factor(s, Y_D, i) * d + factor(s, Y_1, i);
        double gx = factor(s, X_V, i) * v + factor(s, X_DY, i) * dy +
                    factor(s, X_D, i) * d + factor(s, X_1, i);
        double ddy_size = fabs(factor(s, Y_V, i) * v) + fabs(factor(s, Y_D, i)) * large +
                          fabs(factor(s, Y_1, i));
        double gx_size = fabs(factor(s, X_V, i) * v) + fabs(factor(s, X_DY, i) * dy) +
                         fabs(factor(s, X_D, i)) * large + fabs(factor(s, X_1, i));
        CLOSE(at(s, DDY, r, i, j), ddy, (8 * rounding(s->f) + store) * ddy_size);
        CLOSE(at(s, GX, r, i, j), gx, (8 * rounding(s->f) + store) * gx_size);
    }
    record(s->w[DDY].data, s->count * sbn_dtype_bytes(s->t));
    record(s->w[GX].data, s->count * sbn_dtype_bytes(s->t));
    /* one of them alone gives the same */
    void *kept = s->w[GX].data;
    s->w[GX].data = room(s->t, s->count);
    k->norm_second_apply(&s->b, &s->w[V], &s->w[DY], &s->w[X], ch, &factors, NULL,
                         &s->w[GX]);
    same_bits(kept, s->w[GX].data, s->count * sbn_dtype_bytes(s->t));
    room_check(s->t, kept, s->count);
}

static void second_kernels(const sbni_norm_kernels *k, sbn_dtype t)
{
    for (int planes = 0; planes < 2; planes++)
        for (int n = 0; n < 3; n++)
            for (int c = 0; c < 3; c++)
                for (int p = 0; p < 4; p++) {
                    slice s;
                    slice_make(&s, t, planes, samples[n], channels[c], pixels[p]);
                    s.b.rows = s.rows;
                    for (int64_t i = 0; i < s.b.c; i++) /* as the parts of a mean */
                        set_element(s.f, s.factor[LO], i,
                                    factor(&s, LO, i) * rounding(s.f));
                    sbni_channels ch = {.mean_hi = s.factor[HI], .mean_lo = s.factor[LO]};
                    check_sums(k, &s, &ch);
                    check_apply(k, &s, &ch);
                    slice_free(&s);
                }
}

/* One sample and group; y and dx against their equations in doubles. */
static void check_group(const sbni_kernels *k, sbn_dtype t, int64_t c, int64_t s)
{
    int64_t n = 2, groups = c % 4 ? 1 : 4, all = n * c * s, m = c / groups * s;
    void *x = drawn(t, all, 0), *dy = drawn(t, all, 1), *gamma = drawn(t, c, 2),
         *beta = drawn(t, c, 3), *y = room(t, all), *dx = room(t, all);
    double mean[8], rstd[8], dgamma[MOST_C] = {0}, dbeta[MOST_C] = {0};
    k->groupnorm(x, n, c, s, groups, 1e-5, gamma, beta, mean, rstd, y);
    k->groupnorm_backward(dy, x, n, c, s, groups, gamma, mean, rstd, dx, dgamma, dbeta);
    for (int64_t g = 0; g < n * groups; g++) {
        double sum = 0, squares = 0, sum_dy = 0, sum_dy_xhat = 0;
        for (int64_t e = 0; e < m; e++) sum += element(t, x, g * m + e);
        for (int64_t e = 0; e < m; e++)
            squares += pow(element(t, x, g * m + e) - sum / (double)m, 2);
        CLOSE(mean[g], sum / (double)m, 1e-13);
        CLOSE(rstd[g], 1 / sqrt(squares / (double)m + 1e-5), 1e-12 * rstd[g]);
        for (int64_t e = 0; e < m; e++) {
            int64_t i = g % groups * (c / groups) + e / s;
            double h = (element(t, x, g * m + e) - mean[g]) * rstd[g],
                   d = element(t, dy, g * m + e) * element(t, gamma, i);
            CLOSE(element(t, y, g * m + e),
                  h * element(t, gamma, i) + element(t, beta, i),
                  40 * rounding(t) * (1 + rstd[g]));
            sum_dy += d, sum_dy_xhat += d * h;
        }
        for (int64_t e = 0; e < m; e++) {
            int64_t i = g % groups * (c / groups) + e / s;
            double h = (element(t, x, g * m + e) - mean[g]) * rstd[g],
                   d = element(t, dy, g * m + e) * element(t, gamma, i);
            CLOSE(element(t, dx, g * m + e),
                  rstd[g] * (d - sum_dy / (double)m - h * sum_dy_xhat / (double)m),
                  100 * rounding(t) * rstd[g] * (4 + fabs(h) * rstd[g]));
        }
    }
    record(mean, n * groups * 8), record(rstd, n * groups * 8);
    record(dgamma, c * 8), record(dbeta, c * 8);
    record(y, all * sbn_dtype_bytes(t)), record(dx, all * sbn_dtype_bytes(t));
    void *const arrays[] = {x, dy, y, dx};
    for (int i = 0; i < 4; i++) room_check(t, arrays[i], all);
    room_check(t, gamma, c), room_check(t, beta, c);
}

static void group_kernels(const sbni_kernels *k, sbn_dtype t)
{
    for (int c = 0; c < 3; c++)
        for (int s = 0; s < EDGE_SIZES; s++)
            if (channels[c] * edge_sizes[s] > 2)
                check_group(k, t, channels[c], edge_sizes[s]);
}

static void second_derivative(void **state)
{
    (void)state;
    each_norm_table(second_kernels);
}

static void group_norm(void **state)
{
    (void)state;
    each_table(group_kernels);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(second_derivative),
    cmocka_unit_test(group_norm),
};
TEST_MAIN(tests)
