/* Group norm (Wu & He 2018) against two passes in long double, and against differences of
 * its own forward. */
#include "syncbn/groupnorm.h"
#include "support/harness.h"
#include "support/layer.h"
#include "support/tables.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One group is layer norm, c groups instance norm; pixels below, at and above two vectors
 * of 8; rows, where a channel of a sample is one value. */
static const struct {
    int64_t n, c, h, w, groups;
} cases[] = {
    {1, 2, 1, 1, 1}, {5, 12, 1, 1, 3},  {3, 50, 1, 1, 10}, {2, 40, 1, 1, 1},
    {4, 3, 5, 5, 3}, {17, 6, 3, 3, 2},  {2, 4, 8, 8, 4},   {3, 20, 8, 8, 4},
    {2, 6, 4, 4, 1}, {33, 5, 1, 17, 5}, {3, 8, 1, 7, 2},   {16, 6, 2, 2, 3},
};
enum { CASES = sizeof cases / sizeof *cases };

/* The group as a norm batch of one channel, with gamma taken into dy: y is xhat, and dx
 * is that of the group. Frees nothing of b. */
static naive reference(const joined *b, int64_t groups, int64_t k, double *g)
{
    int64_t s = b->h * b->w, m = b->c / groups * s;
    naive want = naive_make(1, 1, m);
    want.x = b->x_d + k * m;
    want.dy = g;
    for (int64_t j = 0; j < m; j++)
        g[j] = b->dy_d[k * m + j] * b->gamma_d[(k % groups * m + j) / s];
    naive_run(&want);
    return want;
}

/* What the functions gave; of the batch's type. */
typedef struct outcome {
    void *y, *dx;
    double *mean, *rstd, *dgamma, *dbeta;
} outcome;

static void run(const joined *b, int64_t groups, bool affine, outcome *o)
{
    void *gamma = room(b->dtype, b->c), *beta = room(b->dtype, b->c);
    for (int64_t i = 0; i < b->c; i++) {
        set_element(b->dtype, gamma, i, b->gamma_d[i]);
        set_element(b->dtype, beta, i, b->beta_d[i]);
    }
    int64_t all = b->n * b->c * b->h * b->w;
    *o = (outcome){room(b->dtype, all),          room(b->dtype, all),
                   room(SBN_F64, b->n * groups), room(SBN_F64, b->n * groups),
                   room(SBN_F64, b->c),          room(SBN_F64, b->c)};
    memset(o->dgamma, 0, (size_t)b->c * 8);
    memset(o->dbeta, 0, (size_t)b->c * 8);
    sbn_tensor x = joined_view(b, b->x, 0, b->n), dy = joined_view(b, b->dy, 0, b->n),
               y = joined_view(b, o->y, 0, b->n), dx = joined_view(b, o->dx, 0, b->n);
    OK(sbn_groupnorm_forward(&x, groups, 1e-5, affine ? gamma : NULL,
                             affine ? beta : NULL, &y, o->mean, o->rstd));
    OK(sbn_groupnorm_backward(&dy, &x, groups, affine ? gamma : NULL, o->mean, o->rstd,
                              &dx, o->dgamma, o->dbeta));
    room_check(b->dtype, gamma, b->c);
    room_check(b->dtype, beta, b->c);
}

static void outcome_free(const joined *b, int64_t groups, outcome *o)
{
    int64_t all = b->n * b->c * b->h * b->w;
    room_check(b->dtype, o->y, all);
    room_check(b->dtype, o->dx, all);
    room_check(SBN_F64, o->mean, b->n * groups);
    room_check(SBN_F64, o->rstd, b->n * groups);
    room_check(SBN_F64, o->dgamma, b->c);
    room_check(SBN_F64, o->dbeta, b->c);
}

/* An element passes at most 8 roundings of its type; sums add one of a double for each
 * value. Channels of a group differ in mean, so values lie within about 6 deviations.
 * offset: what the batch's doubles lack to x. */
static void compare(const joined *b, int64_t groups, const outcome *o, double offset)
{
    int64_t s = b->h * b->w, m = b->c / groups * s;
    double unit = 8 * rounding(b->dtype) + 8 * (double)m * DBL_EPSILON;
    double *g = calloc((size_t)m, sizeof *g);
    long double *sums[4];
    for (int i = 0; i < 4; i++) sums[i] = calloc((size_t)b->c, sizeof *sums[i]);
    for (int64_t k = 0; k < b->n * groups; k++) {
        naive want = reference(b, groups, k, g);
        CLOSE(o->mean[k] - offset, (double)want.mean[0],
              DBL_EPSILON * (offset + fabs((double)want.mean[0]) +
                             (double)(m * sqrtl(want.var[0]))));
        CLOSE(o->rstd[k], (double)(1 / sqrtl(want.var[0] + 1e-5L)),
              (4 + (double)m) * DBL_EPSILON * o->rstd[k]);
        for (int64_t j = 0; j < m; j++) {
            int64_t at = k * m + j, i = (k % groups * m + j) / s;
            long double gamma = b->gamma_d[i], y = gamma * want.y[j] + b->beta_d[i],
                        dy = b->dy_d[at];
            double size = (double)(fabsl(gamma) * want.y_size[j]) + fabs(b->beta_d[i]);
            CLOSE(element(b->dtype, o->y, at), (double)y, unit * size);
            CLOSE(element(b->dtype, o->dx, at), (double)want.dx[j],
                  unit * (double)want.dx_size[j]);
            sums[0][i] += dy;
            sums[1][i] += dy * want.y[j];
            sums[2][i] += fabsl(dy);
            sums[3][i] += fabsl(dy) * want.y_size[j];
        }
        naive_free(&want);
    }
    for (int64_t i = 0; i < b->c; i++) {
        CLOSE(o->dbeta[i], (double)sums[0][i], unit * (double)sums[2][i]);
        CLOSE(o->dgamma[i], (double)sums[1][i], unit * (double)sums[3][i]);
    }
    for (int i = 0; i < 4; i++) free(sums[i]);
    free(g);
}

static void each_case(void (*check)(joined *b, int64_t groups))
{
    for (int type = 0; type < 2; type++)
        for (int i = 0; i < CASES; i++) {
            norm_case shape = {cases[i].n, cases[i].c, cases[i].h, cases[i].w, 0};
            joined b = joined_make(type ? SBN_F64 : SBN_F32, shape, 40 + (uint64_t)i);
            check(&b, cases[i].groups);
            joined_free(&b);
        }
}

static void check_reference(joined *b, int64_t groups)
{
    outcome o;
    run(b, groups, true, &o);
    compare(b, groups, &o, 0);
    outcome_free(b, groups, &o);
    for (int64_t i = 0; i < b->c; i++) b->gamma_d[i] = 1, b->beta_d[i] = 0;
    run(b, groups, false, &o);
    compare(b, groups, &o, 0);
    outcome_free(b, groups, &o);
}

static void against_the_reference(void **state)
{
    (void)state;
    each_case(check_reference);
}

/* A float near 1e6 is exact to 1/16, a double near 1e12 to 1e-4; from there on the
 * tolerance is that of small means. The reference works without the offset, which takes
 * nothing from the values, since long double has too few bits for it. And one value far
 * from all others, which the pivot of a sum may well be. */
static void check_big_mean(joined *b, int64_t groups)
{
    int64_t all = b->n * b->c * b->h * b->w, m = all / b->n / groups;
    double big = b->dtype == SBN_F64 ? 1e12 : 1e6;
    for (int64_t e = 0; e < all; e++) b->x_d[e] += big;
    joined_store(b);
    outcome o;
    run(b, groups, true, &o);
    for (int64_t e = 0; e < all; e++) b->x_d[e] -= big;
    compare(b, groups, &o, big);
    outcome_free(b, groups, &o);
    for (int64_t e = 0; e < all; e += m) b->x_d[e] += 30 * (double)m;
    joined_store(b);
    run(b, groups, true, &o);
    compare(b, groups, &o, 0);
    outcome_free(b, groups, &o);
}

static void big_means(void **state)
{
    (void)state;
    each_case(check_big_mean);
}

/* A value more or less in one sample changes that sample's group and nothing else. */
static void samples_and_groups_are_apart(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, (norm_case){4, 6, 3, 3, 0}, 3);
    outcome before, after;
    run(&b, 3, true, &before);
    enum { M = 2 * 9, AT = (2 * 3 + 1) * M };
    b.x_d[AT + 5] += 2;
    joined_store(&b);
    run(&b, 3, true, &after);
    for (int k = 0; k < 12; k++) {
        bool same = !memcmp((float *)before.y + k * M, (float *)after.y + k * M, M * 4) &&
                    !memcmp((float *)before.dx + k * M, (float *)after.dx + k * M, M * 4);
        assert_int_equal(same, k != 7);
    }
    outcome_free(&b, 3, &before);
    outcome_free(&b, 3, &after);
    joined_free(&b);
}

/* Samples dealt to calls in any way have the bits of one call. */
static void check_deal(joined *b, int64_t groups)
{
    int64_t row = b->c * b->h * b->w, size = sbn_dtype_bytes(b->dtype);
    outcome whole;
    for (int64_t i = 0; i < b->c; i++) b->gamma_d[i] = 1, b->beta_d[i] = 0;
    run(b, groups, false, &whole);
    void *y = room(b->dtype, row), *dx = room(b->dtype, row);
    double *sums = calloc((size_t)(2 * b->c), sizeof *sums), mean[64], rstd[64];
    for (int64_t r = 0; r < b->n; r++) {
        sbn_tensor x = joined_view(b, b->x, r, 1), to = joined_view(b, y, 0, 1),
                   dy = joined_view(b, b->dy, r, 1), grad = joined_view(b, dx, 0, 1);
        OK(sbn_groupnorm_forward(&x, groups, 1e-5, NULL, NULL, &to, mean, rstd));
        OK(sbn_groupnorm_backward(&dy, &x, groups, NULL, mean, rstd, &grad, sums,
                                  sums + b->c));
        same_bits(y, (char *)whole.y + r * row * size, row * size);
        same_bits(dx, (char *)whole.dx + r * row * size, row * size);
        /* in place, and without dx */
        memcpy(dx, dy.data, (size_t)(row * size));
        double again[128] = {0};
        OK(sbn_groupnorm_backward(&grad, &x, groups, NULL, mean, rstd, NULL, again,
                                  again + 64));
        OK(sbn_groupnorm_backward(&grad, &x, groups, NULL, mean, rstd, &grad, again,
                                  again + 64));
        same_bits(dx, (char *)whole.dx + r * row * size, row * size);
        memcpy(y, x.data, (size_t)(row * size));
        OK(sbn_groupnorm_forward(&to, groups, 1e-5, NULL, NULL, &to, mean, rstd));
        same_bits(y, (char *)whole.y + r * row * size, row * size);
    }
    same_bits(sums, whole.dgamma, b->c * 8); /* one after the other, they add alike */
    same_bits(sums + b->c, whole.dbeta, b->c * 8);
    free(sums);
    room_check(b->dtype, y, row);
    room_check(b->dtype, dx, row);
    outcome_free(b, groups, &whole);
}

static void calls_do_not_matter(void **state)
{
    (void)state;
    each_case(check_deal);
}

static double dot(const joined *b, const double *x, int64_t groups, const double *gamma)
{
    int64_t all = b->n * b->c * b->h * b->w;
    double *y = calloc((size_t)all, 8), mean[64], rstd[64], sum = 0;
    sbn_tensor from = joined_view(b, (void *)x, 0, b->n), to = joined_view(b, y, 0, b->n);
    OK(sbn_groupnorm_forward(&from, groups, 1e-5, gamma, b->beta_d, &to, mean, rstd));
    for (int64_t e = 0; e < all; e++) sum += y[e] * b->dy_d[e];
    free(y);
    return sum;
}

/* Slope of dot by one number, by differences whose third derivative cancels. */
static double slope(const joined *b, double *x, int64_t groups, double *gamma,
                    double *number)
{
    double s[2], old = *number;
    for (int k = 0; k < 2; k++) {
        double h = 0x1p-10 / (2 - k);
        *number = old + h;
        double up = dot(b, x, groups, gamma);
        *number = old - h;
        s[k] = (up - dot(b, x, groups, gamma)) / (2 * h);
    }
    *number = old;
    return (4 * s[0] - s[1]) / 3;
}

/* Of Σ y·dy, a number of about 50 whose rounding, 1e-14, h turns into 1e-11; what the
 * differences leave of the fifth derivative, h^4 = 1e-12 times its hundreds. */
static void trap_01_differences(void **state)
{
    (void)state;
    static const int64_t kinds[][5] = {
        {3, 6, 2, 2, 1}, {3, 6, 2, 2, 2}, {3, 6, 2, 2, 6}, {4, 12, 1, 1, 3}};
    for (int k = 0; k < 4; k++) {
        const int64_t *z = kinds[k];
        joined b = joined_make(SBN_F64, (norm_case){z[0], z[1], z[2], z[3], 0}, 8);
        outcome o;
        run(&b, z[4], true, &o);
        double *x = b.x;
        for (int64_t e = 0; e < z[0] * z[1] * z[2] * z[3]; e += 5)
            CLOSE(((double *)o.dx)[e], slope(&b, x, z[4], b.gamma_d, &x[e]), 2e-9);
        for (int64_t i = 0; i < z[1]; i++) {
            CLOSE(o.dgamma[i], slope(&b, x, z[4], b.gamma_d, &b.gamma_d[i]), 2e-9);
            CLOSE(o.dbeta[i], slope(&b, x, z[4], b.gamma_d, &b.beta_d[i]), 2e-9);
        }
        outcome_free(&b, z[4], &o);
        joined_free(&b);
    }
}

/* (x - mean) is exactly 0, so y is beta whatever eps, also where the value is no sum of
 * few bits. */
static void constant_groups(void **state)
{
    (void)state;
    float x[24], y[24], beta[6] = {1, 2, 3, 4, 5, 6};
    double mean[2], rstd[2];
    for (int i = 0; i < 24; i++) x[i] = 1e7f / 3;
    sbn_tensor from = sbn_tensor_nchw(SBN_F32, x, 1, 6, 2, 2),
               to = sbn_tensor_nchw(SBN_F32, y, 1, 6, 2, 2);
    OK(sbn_groupnorm_forward(&from, 2, 0.25, NULL, beta, &to, mean, rstd));
    for (int i = 0; i < 24; i++) assert_true(y[i] == beta[i / 4]);
    assert_true(rstd[0] == 2 && rstd[1] == 2 && mean[1] == (double)x[0]);
}

/* eps stands inside the root: var = eps = 1/4 gives rstd = sqrt(2). */
static void trap_24_epsilon(void **state)
{
    (void)state;
    double x[4] = {0.5, 1.5, 1.5, 0.5}, y[4], mean, rstd;
    sbn_tensor from = sbn_tensor_nc(SBN_F64, x, 1, 4),
               to = sbn_tensor_nc(SBN_F64, y, 1, 4);
    OK(sbn_groupnorm_forward(&from, 1, 0.25, NULL, NULL, &to, &mean, &rstd));
    CLOSE(rstd, sqrt(2), DBL_EPSILON);
    CLOSE(y[0], -0.5 * sqrt(2), DBL_EPSILON);
}

static void nan_stays_in_its_group(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int k = 0; k < 3; k++)
        for (int at = 8; at < 16; at++) { /* the second sample's first group */
            float x[16], y[16];
            double mean[4], rstd[4];
            for (int i = 0; i < 16; i++) x[i] = (float)(i * i % 7);
            x[at - 4] = bad[k];
            sbn_tensor from = sbn_tensor_nc(SBN_F32, x, 2, 8),
                       to = sbn_tensor_nc(SBN_F32, y, 2, 8);
            OK(sbn_groupnorm_forward(&from, 2, 1e-5, NULL, NULL, &to, mean, rstd));
            for (int i = 0; i < 16; i++)
                assert_int_equal(isnan(y[i]), i / 4 == (at - 4) / 4);
        }
}

static void refused(void **state)
{
    (void)state;
    float data[24] = {0};
    double sums[24];
    sbn_tensor x = sbn_tensor_nchw(SBN_F32, data, 1, 6, 2, 2), other = x, rows = x;
    const int64_t bad_groups[] = {0, -1, 4, 5, 7, 12, INT64_MIN, INT64_MAX};
    for (int i = 0; i < 8; i++) {
        FAILS(SBN_E_ARG,
              sbn_groupnorm_forward(&x, bad_groups[i], 1e-5, NULL, NULL, &x, sums, sums));
        FAILS(SBN_E_ARG, sbn_groupnorm_backward(&x, &x, bad_groups[i], NULL, sums, sums,
                                                &x, sums, sums));
    }
    assert_non_null(strstr(sbn_last_error(), "groups that divide 6 channels, got 9223"));
    const double bad_eps[] = {0, -1, NAN, INFINITY};
    for (int i = 0; i < 4; i++)
        FAILS(SBN_E_ARG,
              sbn_groupnorm_forward(&x, 2, bad_eps[i], NULL, NULL, &x, sums, sums));
    other.h = 4, other.w = 1;
    FAILS(SBN_E_ARG, sbn_groupnorm_forward(&x, 2, 1, NULL, NULL, &other, sums, sums));
    FAILS(SBN_E_ARG,
          sbn_groupnorm_backward(&other, &x, 2, NULL, sums, sums, &x, sums, sums));
    FAILS(SBN_E_ARG,
          sbn_groupnorm_backward(&x, &x, 2, NULL, sums, sums, &other, sums, sums));
    FAILS(SBN_E_ARG, sbn_groupnorm_forward(NULL, 2, 1, NULL, NULL, &x, sums, sums));
    FAILS(SBN_E_ARG, sbn_groupnorm_forward(&x, 2, 1, NULL, NULL, NULL, sums, sums));
    FAILS(SBN_E_ARG, sbn_groupnorm_forward(&x, 2, 1, NULL, NULL, &x, NULL, sums));
    FAILS(SBN_E_ARG, sbn_groupnorm_forward(&x, 2, 1, NULL, NULL, &x, sums, NULL));
    FAILS(SBN_E_ARG, sbn_groupnorm_backward(&x, &x, 2, NULL, NULL, sums, &x, sums, sums));
    FAILS(SBN_E_ARG, sbn_groupnorm_backward(&x, &x, 2, NULL, sums, sums, &x, NULL, sums));
    FAILS(SBN_E_ARG, sbn_groupnorm_backward(&x, &x, 2, NULL, sums, sums, &x, sums, NULL));
    rows = sbn_tensor_nc(SBN_F32, data, 1, 24);
    FAILS(SBN_E_FEW, sbn_groupnorm_forward(&rows, 24, 1, NULL, NULL, &rows, sums, sums));
    other = sbn_tensor_nhwc(SBN_F32, data, 1, 2, 2, 6);
    FAILS(SBN_E_ARG, sbn_groupnorm_forward(&other, 2, 1, NULL, NULL, &other, sums, sums));
    other = sbn_tensor_nchw(SBN_BF16, data, 1, 6, 2, 2);
    FAILS(SBN_E_ARG, sbn_groupnorm_forward(&other, 2, 1, NULL, NULL, &other, sums, sums));
    /* gaps between samples, between channels */
    for (int i = 0; i < 2; i++) {
        sbn_tensor apart = sbn_tensor_nchw(SBN_F32, data, 2, 2, 2, 2);
        *(i ? &apart.stride_c : &apart.stride_n) += i ? 2 : 4;
        if (i) apart.n = 1;
        FAILS(SBN_E_ARG,
              sbn_groupnorm_forward(&apart, 1, 1, NULL, NULL, &apart, sums, sums));
        FAILS(SBN_E_ARG, sbn_groupnorm_backward(&apart, &apart, 1, NULL, sums, sums, NULL,
                                                sums, sums));
    }
    sbn_tensor none = sbn_tensor_nchw(SBN_F32, NULL, 0, 6, 1 << 20, 1 << 20);
    OK(sbn_groupnorm_forward(&none, 1, 1, NULL, NULL, &none, NULL, NULL));
    OK(sbn_groupnorm_backward(&none, &none, 1, NULL, NULL, NULL, NULL, sums, sums));
}

/* The kernels alone, on every instruction set: the same bits. */
static void kernels(const sbni_kernels *k, sbn_dtype t)
{
    for (int i = 0; i < CASES; i++) {
        int64_t n = cases[i].n, c = cases[i].c, s = cases[i].h * cases[i].w,
                groups = cases[i].groups, all = n * c * s, size = sbn_dtype_bytes(t);
        void *x = room(t, all), *dy = room(t, all), *y = room(t, all), *g = room(t, c);
        double *mean = room(SBN_F64, n * groups), *rstd = room(SBN_F64, n * groups),
               sums[2][64] = {{0}};
        draw(t, x, all, 0);
        draw(t, dy, all, 1);
        draw(t, g, c, 2);
        k->groupnorm(x, n, c, s, groups, 1e-5, g, g, mean, rstd, y);
        record(y, all * size);
        k->groupnorm_backward(dy, x, n, c, s, groups, g, mean, rstd, y, sums[0], sums[1]);
        record(y, all * size);
        record(mean, n * groups * 8);
        record(rstd, n * groups * 8);
        record(sums, sizeof sums);
        room_check(t, x, all);
        room_check(t, dy, all);
        room_check(t, y, all);
        room_check(t, g, c);
        room_check(SBN_F64, mean, n * groups);
        room_check(SBN_F64, rstd, n * groups);
    }
}

static void walk_kernels(void **state)
{
    (void)state;
    each_table(kernels);
}

/* Values whose squares overflow give NaN in their group, and only there. */
static void too_large(void **state)
{
    (void)state;
    double data[8] = {1e160, -1e160, 1, 2, 3, 4, 5, 7}, mean[4], rstd[4];
    sbn_tensor x = sbn_tensor_nc(SBN_F64, data, 2, 4);
    OK(sbn_groupnorm_forward(&x, 2, 1e-5, NULL, NULL, &x, mean, rstd));
    assert_true(isnan(data[0]) && isnan(data[1]));
    for (int i = 2; i < 8; i++) assert_true(isfinite(data[i]));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(too_large),
    cmocka_unit_test(against_the_reference),
    cmocka_unit_test(big_means),
    cmocka_unit_test(samples_and_groups_are_apart),
    cmocka_unit_test(calls_do_not_matter),
    cmocka_unit_test(trap_01_differences),
    cmocka_unit_test(constant_groups),
    cmocka_unit_test(trap_24_epsilon),
    cmocka_unit_test(nan_stays_in_its_group),
    cmocka_unit_test(refused),
    cmocka_unit_test(walk_kernels),
};
TEST_MAIN(tests)
