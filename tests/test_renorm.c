/* Batch renormalization (Ioffe 2017) against the two-pass reference with r and d put in
 * by hand. */
#include "support/harness.h"
#include "support/layer.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "norm/scope.h"

enum { N = 40, C = 3, S = 4, ROW = C * S };

typedef struct setup {
    joined b;
    sbn_norm *norm;
    sbn_norm_state state;
    int64_t first, n;
    double y_data[N * ROW], dx_data[N * ROW];
    sbn_tensor x, dy, y, dx;
} setup;

static sbn_norm_config renorm(sbn_dtype dtype, int64_t norm_batch, double r_max,
                              double d_max)
{
    sbn_norm_config cfg = sbn_norm_config_default(C);
    cfg.dtype = dtype;
    cfg.norm_batch = norm_batch;
    cfg.batch = N;
    cfg.correction = SBN_CORRECTION_RENORM;
    cfg.r_max = r_max;
    cfg.d_max = d_max;
    return cfg;
}

/* A layer whose running averages are not those of the batch, and this process's share. */
static setup *begin(sbn_norm_config cfg, sbn_group *group)
{
    setup *t = calloc(1, sizeof *t);
    t->b = joined_make(cfg.dtype, (norm_case){N, C, 2, 2, cfg.norm_batch}, 5);
    OK(sbn_norm_create(&cfg, group, &t->norm));
    joined_load(&t->b, t->norm);
    t->state = sbn_norm_get_state(t->norm);
    for (int i = 0; i < C; i++) {
        set_element(cfg.dtype, t->state.running_mean, i, 0.25 * (i - 1));
        set_element(cfg.dtype, t->state.running_var, i, 0.5 + i);
    }
    sbni_scope_share(N, cfg.norm_batch, sbn_group_rank(group), sbn_group_size(group),
                     &t->first, &t->n);
    t->x = joined_view(&t->b, t->b.x, t->first, t->n);
    t->dy = joined_view(&t->b, t->b.dy, t->first, t->n);
    t->y = joined_view(&t->b, t->y_data, 0, t->n);
    t->dx = joined_view(&t->b, t->dx_data, 0, t->n);
    OK(sbn_norm_set_place(t->norm, t->first));
    return t;
}

static void end(setup *t)
{
    sbn_norm_destroy(&t->norm);
    joined_free(&t->b);
    free(t);
}

static long double clip(long double v, long double low, long double high)
{
    return v < low ? low : v > high ? high : v;
}

/* Corrections of channel i for a norm batch with these statistics; counts those clipped.
 */
static void correction(const naive *want, int i, double r_max, double d_max,
                       long double *r, long double *d, int clipped[2])
{
    const long double eps = 1e-5L, s = sqrtl(0.5L + i + eps), mean = 0.25L * (i - 1);
    long double r0 = sqrtl(want->var[i] + eps) / s, d0 = (want->mean[i] - mean) / s;
    *r = clip(r0, 1 / (long double)r_max, r_max);
    *d = clip(d0, -(long double)d_max, d_max);
    clipped[0] += *r != r0;
    clipped[1] += *d != d0;
}

/* The values of this process within samples [from, from + n) of norm batch `want`. */
static void compare_values(const setup *t, const naive *want, int64_t from, int64_t n,
                           const long double *r, const long double *d)
{
    for (int64_t k = from > t->first ? from : t->first;
         k < from + n && k < t->first + t->n; k++)
        for (int e = 0; e < ROW; e++) {
            int i = e / S;
            int64_t at = (k - from) * ROW + e;
            long double gamma = t->b.gamma_d[i], beta = t->b.beta_d[i];
            long double xhat = (want->y[at] - beta) / gamma;
            double tolerance = 64 * DBL_EPSILON *
                               (double)(want->y_size[at] + fabsl(gamma * d[i])) *
                               (double)fmaxl(r[i], 1);
            CLOSE(t->y_data[(k - t->first) * ROW + e],
                  (double)(gamma * (xhat * r[i] + d[i]) + beta), tolerance);
            CLOSE(t->dx_data[(k - t->first) * ROW + e], (double)(want->dx[at] * r[i]),
                  64 * DBL_EPSILON * (double)(want->dx_size[at] * r[i]));
        }
}

static void check(int64_t norm_batch, double r_max, double d_max)
{
    setup *t = begin(renorm(SBN_F64, norm_batch, r_max, d_max), test_group);
    OK(sbn_norm_forward(t->norm, &t->x, &t->y));
    OK(sbn_norm_backward(t->norm, &t->dy, &t->dx));
    int64_t m = norm_batch ? norm_batch : N;
    long double dgamma[C] = {0}, size[C] = {0};
    int clipped[2] = {0, 0}, batches = 0;
    for (int64_t from = 0; from < N; from += m, batches++) {
        int64_t n = N - from < m ? N - from : m;
        naive want = naive_make(n, C, S);
        want.eps = 1e-5;
        want.x = t->b.x_d + from * ROW;
        want.dy = t->b.dy_d + from * ROW;
        want.gamma = t->b.gamma_d;
        want.beta = t->b.beta_d;
        naive_run(&want);
        long double r[C], d[C];
        for (int i = 0; i < C; i++) {
            correction(&want, i, r_max, d_max, &r[i], &d[i], clipped);
            dgamma[i] += r[i] * want.dgamma[i] + d[i] * want.dbeta[i];
            size[i] += r[i] * want.dgamma_size[i] + fabsl(d[i]) * want.dbeta_size[i];
        }
        compare_values(t, &want, from, n, r, d);
        naive_free(&want);
    }
    for (int i = 0; i < C; i++)
        CLOSE(element(SBN_F64, t->state.weight_grad, i), (double)dgamma[i],
              64 * DBL_EPSILON * (double)size[i]);
    sbn_norm_clipped got = sbn_norm_get_clipped(t->norm);
    assert_true(got.r_max == r_max && got.d_max == d_max);
    CLOSE(got.r, (double)clipped[0] / (batches * C), 1e-15);
    CLOSE(got.d, (double)clipped[1] / (batches * C), 1e-15);
    end(t);
}

static void against_the_reference(void **state)
{
    (void)state;
    static const int64_t norm_batches[] = {0, 20, 16, 7};
    for (int k = 0; k < 4; k++) {
        check(norm_batches[k], INFINITY, INFINITY);
        check(norm_batches[k], 3, 5);
        check(norm_batches[k], 1.1, 0.2);
        check(norm_batches[k], 1, 0.1);
        check(norm_batches[k], 1.2, 0);
    }
}

/* r and d come from the averages before the update: after it they would differ. */
static void trap_26_limits_1_and_0_are_batch_norm(void **state)
{
    (void)state;
    static const sbn_dtype types[] = {SBN_F32, SBN_F64};
    for (int k = 0; k < 4; k++) {
        sbn_norm_config cfg = renorm(types[k % 2], k < 2 ? 0 : 12, 1, 0), plain = cfg;
        plain.correction = SBN_CORRECTION_NONE;
        setup *a = begin(cfg, test_group), *b = begin(plain, test_group);
        for (int step = 0; step < 2; step++) {
            OK(sbn_norm_forward(a->norm, &a->x, &a->y));
            OK(sbn_norm_backward(a->norm, &a->dy, &a->dx));
            OK(sbn_norm_forward(b->norm, &b->x, &b->y));
            OK(sbn_norm_backward(b->norm, &b->dy, &b->dx));
        }
        int64_t c = C * sbn_dtype_bytes(cfg.dtype);
        same_bits(a->y_data, b->y_data, sizeof a->y_data);
        same_bits(a->dx_data, b->dx_data, sizeof a->dx_data);
        same_bits(a->state.weight_grad, b->state.weight_grad, c);
        same_bits(a->state.running_var, b->state.running_var, c);
        end(a);
        end(b);
    }
}

static void processes_do_not_matter(void **state)
{
    (void)state;
    sbn_group *alone;
    OK(sbn_group_create(MPI_COMM_SELF, &alone));
    static const int64_t norm_batches[] = {0, 24, 10};
    for (int k = 0; k < 3; k++) {
        sbn_norm_config cfg = renorm(SBN_F32, norm_batches[k], 1.3, 0.4);
        setup *a = begin(cfg, test_group), *b = begin(cfg, alone);
        for (int step = 0; step < 3; step++) {
            OK(sbn_norm_forward(a->norm, &a->x, &a->y));
            OK(sbn_norm_backward(a->norm, &a->dy, &a->dx));
            OK(sbn_norm_forward(b->norm, &b->x, &b->y));
            OK(sbn_norm_backward(b->norm, &b->dy, &b->dx));
        }
        int64_t at = a->first * ROW, bytes = a->n * ROW * 4;
        same_bits(a->y_data, (float *)b->y_data + at, bytes);
        same_bits(a->dx_data, (float *)b->dx_data + at, bytes);
        same_bits(a->state.weight_grad, b->state.weight_grad, C * 4);
        same_bits(a->state.bias_grad, b->state.bias_grad, C * 4);
        same_bits(a->state.running_mean, b->state.running_mean, C * 4);
        end(a);
        end(b);
    }
    sbn_group_destroy(&alone);
}

/* Evaluation knows no correction. */
static void evaluation_is_that_of_batch_norm(void **state)
{
    (void)state;
    setup *t = begin(renorm(SBN_F64, 0, 3, 5), test_group);
    OK(sbn_norm_forward(t->norm, &t->x, &t->y));
    sbn_norm_set_mode(t->norm, SBN_NORM_EVAL);
    OK(sbn_norm_forward(t->norm, &t->x, &t->y));
    for (int64_t e = 0; e < t->n * ROW; e++) {
        int i = (int)(e % ROW / S);
        double x = t->b.x_d[t->first * ROW + e], gamma = t->b.gamma_d[i],
               mean = element(SBN_F64, t->state.running_mean, i),
               var = element(SBN_F64, t->state.running_var, i),
               want = gamma * (x - mean) / sqrt(var + 1e-5) + t->b.beta_d[i];
        CLOSE(t->y_data[e], want, 64 * DBL_EPSILON * (fabs(gamma * x) / sqrt(var) + 2));
    }
    end(t);
}

static void bad_settings(void **state)
{
    (void)state;
    sbn_norm *norm;
    sbn_norm_config cfg = renorm(SBN_F32, 0, 0.5, 1);
    FAILS(SBN_E_ARG, sbn_norm_create(&cfg, test_group, &norm));
    cfg = renorm(SBN_F32, 0, 2, -1);
    FAILS(SBN_E_ARG, sbn_norm_create(&cfg, test_group, &norm));
    cfg = renorm(SBN_F32, 0, 2, NAN);
    FAILS(SBN_E_ARG, sbn_norm_create(&cfg, test_group, &norm));
    cfg = renorm(SBN_F32, 0, 2, 1);
    cfg.track_running_stats = false;
    FAILS(SBN_E_ARG, sbn_norm_create(&cfg, test_group, &norm));
    cfg = sbn_norm_config_default(C);
    OK(sbn_norm_create(&cfg, test_group, &norm));
    FAILS(SBN_E_ARG, sbn_norm_set_limits(norm, 2, 1));
    sbn_norm_destroy(&norm);
    cfg = renorm(SBN_F32, 0, 1, 0);
    OK(sbn_norm_create(&cfg, test_group, &norm));
    FAILS(SBN_E_ARG, sbn_norm_set_limits(norm, 0.9, 1));
    FAILS(SBN_E_ARG, sbn_norm_set_limits(norm, NAN, 1));
    OK(sbn_norm_set_limits(norm, 3, 5));
    assert_true(sbn_norm_get_clipped(norm).r_max == 3);
    sbn_norm_destroy(&norm);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(against_the_reference),
    cmocka_unit_test(trap_26_limits_1_and_0_are_batch_norm),
    cmocka_unit_test(processes_do_not_matter),
    cmocka_unit_test(evaluation_is_that_of_batch_norm),
    cmocka_unit_test(bad_settings),
};
TEST_MAIN(tests)
