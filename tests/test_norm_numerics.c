/* Numbers that break other implementations, and gradients against finite differences. */
#include "support/harness.h"
#include "support/layer.h"

#include <float.h>
#include <math.h>
#include <mpi.h>
#include <stdlib.h>

#include "core/rng.h"
#include "norm/scope.h"

static const sbni_rng_key key = {.seed = 21, .purpose = SBNI_RNG_TEST};

/* A layer with the batch's gamma and beta, and this process's share. */
typedef struct setup {
    sbn_norm *norm;
    int64_t first, n, row; /* row: elements of a sample */
    void *out;             /* room for the share */
    sbn_tensor x, y;
} setup;

static setup begin(const joined *b, const sbn_norm_config *cfg)
{
    setup t = {.row = b->c * b->h * b->w};
    OK(sbn_norm_create(cfg, test_group, &t.norm));
    joined_load(b, t.norm);
    sbni_scope_share(b->n, b->norm_batch, test_rank, test_size, &t.first, &t.n);
    OK(sbn_norm_set_place(t.norm, t.first));
    t.out = calloc((size_t)(t.n * t.row) + 1, 8);
    t.x = joined_view(b, b->x, t.first, t.n);
    t.y = joined_view(b, t.out, 0, t.n);
    return t;
}

static void end(setup *t)
{
    sbn_norm_destroy(&t->norm);
    free(t->out);
}

/* Σ dy·y over the group. */
static double loss(const joined *b, setup *t)
{
    OK(sbn_norm_forward(t->norm, &t->x, &t->y));
    double sum = 0, all;
    for (int64_t e = 0; e < t->n * t->row; e++)
        sum += b->dy_d[t->first * t->row + e] * element(b->dtype, t->out, e);
    MPI_Allreduce(&sum, &all, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return all;
}

/* Derivative of the loss by *p, which process `owner` moves (-1: all do): five points,
 * so the rule's error is h⁴/30 times the fifth derivative. */
static double slope(const joined *b, setup *t, double *p, int owner)
{
    const double h = 1e-3, weight[] = {1, -8, 8, -1}, step[] = {-2, -1, 1, 2};
    double sum = 0, at = owner < 0 || owner == test_rank ? *p : 0;
    for (int k = 0; k < 4; k++) {
        if (owner < 0 || owner == test_rank) *p = at + step[k] * h;
        sum += weight[k] * loss(b, t);
    }
    if (owner < 0 || owner == test_rank) *p = at;
    return sum / (12 * h);
}

static void check_slopes(norm_case shape, double eps)
{
    joined b = joined_make(SBN_F64, shape, 22);
    sbn_norm_config cfg = joined_config(&b);
    cfg.eps = eps;
    setup t = begin(&b, &cfg);
    loss(&b, &t);
    double *dx = calloc((size_t)(t.n * t.row) + 1, 8);
    sbn_tensor dy = joined_view(&b, b.dy, t.first, t.n), to = joined_view(&b, dx, 0, t.n);
    OK(sbn_norm_backward(t.norm, &dy, &to));
    sbn_norm_state state = sbn_norm_get_state(t.norm);
    /* h⁴ = 1e-12 times derivatives of some tens (deviations are 0.5 or more), and
     * round-off of a loss of about 100 terms over h: 1e-14/1e-3 */
    const double tolerance = 2e-9;
    for (int64_t e = 0; e < b.n * t.row; e++) {
        int mine = e >= t.first * t.row && e < (t.first + t.n) * t.row, owner;
        int claim = mine ? test_rank : -1;
        MPI_Allreduce(&claim, &owner, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
        double d = slope(&b, &t, (double *)b.x + e, owner);
        if (mine) CLOSE(dx[e - t.first * t.row], d, tolerance);
    }
    for (int64_t i = 0; i < b.c; i++) {
        double d = slope(&b, &t, (double *)state.weight + i, -1);
        CLOSE(element(SBN_F64, state.weight_grad, i), d, tolerance);
        d = slope(&b, &t, (double *)state.bias + i, -1);
        CLOSE(element(SBN_F64, state.bias_grad, i), d, tolerance);
    }
    free(dx);
    end(&t);
    joined_free(&b);
}

static void trap_35_finite_differences(void **state)
{
    (void)state;
    check_slopes((norm_case){2, 2, 1, 1, 0}, 0.5);
    check_slopes((norm_case){3, 2, 1, 1, 0}, 0.1);
    check_slopes((norm_case){24, 2, 1, 1, 0}, 1e-5);
    check_slopes((norm_case){2, 3, 2, 2, 0}, 1e-3);
    check_slopes((norm_case){20, 1, 1, 2, 0}, 1e-5);
    check_slopes((norm_case){14, 2, 1, 2, 4}, 0.1);
    check_slopes((norm_case){21, 1, 1, 1, 18}, 0.1);
}

/* x = mean + deviation·N(0,1) in both types against the reference on the very values. */
static void check_large_mean(sbn_dtype dtype, double mean, double deviation, int64_t s)
{
    joined b = joined_make(dtype, (norm_case){96, 3, 1, s, 0}, 23);
    for (int64_t e = 0; e < b.n * b.c * s; e++)
        b.x_d[e] = mean + deviation * sbni_rng_normal(key, (uint64_t)e, 0);
    joined_store(&b);
    sbn_norm_config cfg = joined_config(&b);
    cfg.momentum = 1;
    setup t = begin(&b, &cfg);
    OK(sbn_norm_forward(t.norm, &t.x, &t.y));
    naive want = joined_naive(&b, cfg.eps);
    double u = dtype == SBN_F64 ? DBL_EPSILON / 2 : (double)FLT_EPSILON / 2;
    for (int64_t e = 0; e < t.n * t.row; e++) {
        int64_t at = t.first * t.row + e, i = at / s % b.c;
        /* as everywhere, and the second part of the mean is rounded to u·u of the mean;
         * in doubles the reference itself knows the mean to 2^-64·n */
        double rest = u * u + ldexp((double)(b.n * s), -64);
        double rstd = 1 / sqrt((double)want.var[i] + cfg.eps);
        CLOSE(element(dtype, t.out, e), (double)want.y[at],
              (8 * u + 16 * (double)s * DBL_EPSILON / 2) * (double)want.y_size[at] +
                  rest * mean * rstd * fabs(b.gamma_d[i]));
    }
    for (int64_t i = 0; i < b.c; i++) {
        double var = (double)naive_unbiased(&want, i);
        CLOSE(element(dtype, sbn_norm_get_state(t.norm).running_var, i), var,
              u * var + 1e-12 * var);
    }
    naive_free(&want);
    end(&t);
    joined_free(&b);
}

static void trap_04_large_means(void **state)
{
    (void)state;
    for (int64_t s = 1; s <= 36; s += 35) {
        check_large_mean(SBN_F32, 1e4, 1e-2, s);
        check_large_mean(SBN_F32, 1e8, 8, s);
        check_large_mean(SBN_F64, 1e4, 1e-2, s);
        check_large_mean(SBN_F64, 1e8, 8, s);
        check_large_mean(SBN_F64, 1e8, 1, s);
    }
}

static void trap_05_constant_channel(void **state)
{
    (void)state;
    const double values[] = {0, 1, -0.1, 1e-20, 1.0 / 3, 12345.678, 1e10, -1e12};
    for (int k = 0; k < 16; k++) {
        sbn_dtype dtype = k % 2 ? SBN_F64 : SBN_F32;
        joined b = joined_make(dtype, (norm_case){40, 2, 3, 3, 0}, 24);
        for (int64_t e = 0; e < b.n * 18; e++) b.x_d[e] = values[k / 2];
        joined_store(&b);
        sbn_norm_config cfg = joined_config(&b);
        cfg.momentum = 1;
        setup t = begin(&b, &cfg);
        OK(sbn_norm_forward(t.norm, &t.x, &t.y));
        sbn_norm_state s = sbn_norm_get_state(t.norm);
        sbn_tensor dy = joined_view(&b, b.dy, t.first, t.n);
        for (int64_t e = 0; e < t.n * t.row; e++)
            assert_true(element(dtype, t.out, e) == b.beta_d[e / 9 % 2]);
        OK(sbn_norm_backward(t.norm, &dy, &t.y));
        for (int64_t e = 0; e < t.n * t.row; e++)
            assert_true(isfinite(element(dtype, t.out, e)));
        for (int64_t i = 0; i < b.c; i++) {
            assert_true(element(dtype, s.running_var, i) == 0);
            /* a value that has bits below the grid's last, 2^-100, is off by a few
             * parts of it, and xhat then is no exact 0 */
            double off = fabs(b.x_d[0]) < 0x1p-47 ? 0x1p-98 : 0;
            CLOSE(element(dtype, s.running_mean, i), b.x_d[0], off);
            CLOSE(element(dtype, s.weight_grad, i), 0, off * 1e6);
        }
        end(&t);
        joined_free(&b);
    }
}

/* The variance reaches running_var without a detour over rstd: 1e-9 beside eps 1e-5. */
static void trap_06_small_variance_is_kept(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, (norm_case){64, 1, 1, 1, 0}, 25);
    for (int64_t e = 0; e < b.n; e++) b.x_d[e] = e % 2 ? 3.2e-5 : -3.2e-5;
    joined_store(&b);
    sbn_norm_config cfg = joined_config(&b);
    cfg.momentum = 1;
    setup t = begin(&b, &cfg);
    OK(sbn_norm_forward(t.norm, &t.x, &t.y));
    double var = b.x_d[1] * b.x_d[1] * 64 / 63;
    CLOSE(element(SBN_F32, sbn_norm_get_state(t.norm).running_var, 0), var, 1e-7 * var);
    end(&t);
    joined_free(&b);
}

/* eps is added inside the root: x = ±d with var = eps gives y = ±1/√2; var 0 gives 0. */
static void trap_24_eps_inside_the_root(void **state)
{
    (void)state;
    const double eps = 0x1p-16;
    for (int zero = 0; zero < 2; zero++) {
        joined b = joined_make(SBN_F64, (norm_case){32, 1, 1, 1, 0}, 26);
        for (int64_t e = 0; e < b.n; e++)
            b.x_d[e] = 5 + (zero ? 0 : e % 2 ? 0x1p-8 : -0x1p-8);
        joined_store(&b);
        sbn_norm_config cfg = joined_config(&b);
        cfg.eps = eps;
        cfg.affine = false;
        setup t = begin(&b, &cfg);
        OK(sbn_norm_forward(t.norm, &t.x, &t.y));
        for (int64_t e = 0; e < t.n; e++) {
            double want = zero ? 0 : (t.first + e) % 2 ? sqrt(0.5) : -sqrt(0.5);
            CLOSE(element(SBN_F64, t.out, e), want, 4 * DBL_EPSILON);
        }
        end(&t);
        joined_free(&b);
    }
}

/* A million rows of float32: sums in double words, not in float. */
static void trap_28_a_million_rows(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, (norm_case){1000000, 1, 1, 1, 0}, 27);
    for (int64_t e = 0; e < b.n; e++) b.x_d[e] += 100;
    joined_store(&b);
    sbn_norm_config cfg = joined_config(&b);
    cfg.momentum = 1;
    setup t = begin(&b, &cfg);
    OK(sbn_norm_forward(t.norm, &t.x, &t.y));
    sbn_tensor dy = joined_view(&b, b.dy, t.first, t.n);
    OK(sbn_norm_backward(t.norm, &dy, NULL));
    naive want = joined_naive(&b, cfg.eps);
    sbn_norm_state s = sbn_norm_get_state(t.norm);
    const double u = (double)FLT_EPSILON / 2; /* the stored value is rounded once */
    double mean = (double)want.mean[0], var = (double)naive_unbiased(&want, 0);
    CLOSE(element(SBN_F32, s.running_mean, 0), mean, u * mean);
    CLOSE(element(SBN_F32, s.running_var, 0), var, u * var + 1e-12 * var);
    double dbeta = (double)want.dbeta[0], dgamma = (double)want.dgamma[0];
    CLOSE(element(SBN_F32, s.bias_grad, 0), dbeta, u * fabs(dbeta) + 1e-9);
    /* x - mean is rounded to float in each term */
    CLOSE(element(SBN_F32, s.weight_grad, 0), dgamma,
          u * fabs(dgamma) + 3 * u * (double)want.dgamma_size[0]);
    naive_free(&want);
    end(&t);
    joined_free(&b);
}

/* Root mean square and largest error, over the group. */
typedef struct errors {
    double squares, most;
} errors;

static void note_error(errors *e, double error)
{
    e->squares += error * error;
    if (fabs(error) > e->most) e->most = fabs(error);
}

static errors errors_of_all(errors e)
{
    errors all;
    MPI_Allreduce(&e.squares, &all.squares, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    MPI_Allreduce(&e.most, &all.most, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return all;
}

/* y without subtracting the mean from x first, beside the four operations that do. */
static void two_operations_round_little_more_than_four(void **state)
{
    (void)state;
    /* means in deviations, and how much larger errors may be: root mean square, largest.
     * scale·x and what is added to it grow with the mean, their roundings too. */
    static const double means[] = {0, 0.5, 1, 2, 2.9, 3.1, 50},
                        more[] = {1.2, 1.2, 1.2, 1.6, 2.5, 1.01, 1.01},
                        most[] = {1.3, 1.3, 1.3, 1.3, 1.7, 1.01, 1.01};
    enum { C = sizeof means / sizeof *means, S = 100 };
    joined b = joined_make(SBN_F32, (norm_case){160, C, 1, S, 0}, 26);
    for (int64_t e = 0; e < b.n * C * S; e++)
        b.x_d[e] = means[e / S % C] + sbni_rng_normal(key, (uint64_t)e, 2);
    for (int64_t i = 0; i < C; i++)
        b.gamma_d[i] = (double)1.3F, b.beta_d[i] = (double)0.4F;
    joined_store(&b);
    sbn_norm_config cfg = joined_config(&b);
    setup t = begin(&b, &cfg);
    OK(sbn_norm_forward(t.norm, &t.x, &t.y));
    naive want = joined_naive(&b, cfg.eps);
    for (int64_t i = 0; i < C; i++) {
        errors two = {0, 0}, four = {0, 0};
        long double mean = want.mean[i],
                    rstd = 1 / sqrtl(want.var[i] + (long double)cfg.eps);
        float hi = (float)mean, lo = (float)(mean - (long double)hi),
              scale = (float)((long double)b.gamma_d[i] * rstd);
        for (int64_t e = 0; e < t.n * t.row; e++) {
            if (e / S % C != i) continue;
            int64_t at = t.first * t.row + e;
            float y = (((float)b.x_d[at] - hi) - lo) * scale + (float)b.beta_d[i];
            note_error(&two, element(SBN_F32, t.out, e) - (double)want.y[at]);
            note_error(&four, (double)y - (double)want.y[at]);
        }
        two = errors_of_all(two), four = errors_of_all(four);
        assert_true(two.squares > 0 && two.most <= most[i] * four.most);
        assert_true(sqrt(two.squares) <= more[i] * sqrt(four.squares));
    }
    naive_free(&want);
    end(&t);
    joined_free(&b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(two_operations_round_little_more_than_four),
    cmocka_unit_test(trap_35_finite_differences),
    cmocka_unit_test(trap_04_large_means),
    cmocka_unit_test(trap_05_constant_channel),
    cmocka_unit_test(trap_06_small_variance_is_kept),
    cmocka_unit_test(trap_24_eps_inside_the_root),
    cmocka_unit_test(trap_28_a_million_rows),
};
TEST_MAIN(tests)
