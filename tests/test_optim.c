#include "syncbn/optim.h"
#include "support/harness.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "support/layer.h"

enum { N = 37, STEPS = 12 };

static long double draw(int step, int tensor, int i)
{
    sbni_rng_key key = {.seed = 9, .purpose = SBNI_RNG_TEST, .epoch = (uint32_t)step};
    /* exact in float32, so that both types start alike */
    return (long double)(float)sbni_rng_normal(key, (uint64_t)i, (uint32_t)tensor);
}

/*
 * Steps of two tensors, of which only the first decays, against
 * v = m·v + (g + d·p), p = p − lr·v or p − lr·(g + d·p + m·v), in long double.
 *
 * A step of p rounds 7 times (lr, m, d; products and sums); every rounding is relative
 * to what is added, all below (1 + STEPS)·4 here, and momentum adds up at most 1/(1-m)
 * = 10 of them. So 8·STEPS·10 roundings of size ~4 bound the difference; the true one is
 * a hundred times smaller, a wrong term a thousand times larger.
 */
static void compare_steps(sbn_dtype dtype, double momentum, double decay, bool nesterov)
{
    void *p[2], *g[2];
    long double want_p[2][N], want_v[2][N] = {{0}};
    sbn_optimizer_tensor list[2];
    for (int t = 0; t < 2; t++) {
        p[t] = calloc(N, 8);
        g[t] = calloc(N, 8);
        list[t] = (sbn_optimizer_tensor){p[t], g[t], N, t == 0};
        for (int i = 0; i < N; i++)
            set_element(dtype, p[t], i, (double)(want_p[t][i] = draw(0, t, i)));
    }
    sbn_optimizer_config cfg = {.momentum = momentum,
                                .weight_decay = decay,
                                .nesterov = nesterov,
                                .dtype = dtype};
    sbn_optimizer *sgd = NULL;
    OK(sbn_optimizer_create(&cfg, list, 2, &sgd));
    double eps = dtype == SBN_F64 ? DBL_EPSILON : (double)FLT_EPSILON;
    for (int step = 1; step <= STEPS; step++) {
        double lr = 0.05 / step;
        for (int t = 0; t < 2; t++)
            for (int i = 0; i < N; i++) {
                long double grad = draw(step, t, i), m = momentum;
                set_element(dtype, g[t], i, (double)grad);
                grad += (t == 0 ? decay : 0.0L) * want_p[t][i];
                want_v[t][i] = m * want_v[t][i] + grad;
                want_p[t][i] -= lr * (nesterov ? grad + m * want_v[t][i] : want_v[t][i]);
            }
        sbn_optimizer_step(sgd, step, lr);
        for (int t = 0; t < 2; t++)
            for (int i = 0; i < N; i++) {
                CLOSE(element(dtype, p[t], i), (double)want_p[t][i], 320 * STEPS * eps);
                CLOSE(element(dtype, sbn_optimizer_state(sgd, t, 0), i),
                      (double)want_v[t][i], 320 * STEPS * eps);
            }
    }
    sbn_optimizer_destroy(&sgd);
    assert_null(sgd);
    for (int t = 0; t < 2; t++) {
        free(p[t]);
        free(g[t]);
    }
}

static void sgd_as_written(void **state)
{
    (void)state;
    for (int type = 0; type < 2; type++)
        for (int k = 0; k < 8; k++)
            compare_steps(type ? SBN_F64 : SBN_F32, k & 1 ? 0.9 : 0, k & 2 ? 0.01 : 0,
                          k & 4);
}

/* Numbers that are exact in binary: no tolerance. */
static void sgd_by_hand(void **state)
{
    (void)state;
    float p = 1, g = 2;
    sbn_optimizer_tensor list = {&p, &g, 1, true};
    sbn_optimizer_config cfg = {.momentum = 0.5, .weight_decay = 0.25, .dtype = SBN_F32};
    sbn_optimizer *sgd = NULL;
    OK(sbn_optimizer_create(&cfg, &list, 1, &sgd));
    sbn_optimizer_step(sgd, 1, 0.5);
    assert_true(p == 1 - 0.5f * 2.25f); /* -0.125 */
    sbn_optimizer_step(sgd, 1, 0.5);
    /* v = 0.5·2.25 + 2 − 0.25·0.125 */
    assert_true(*(float *)sbn_optimizer_state(sgd, 0, 0) == 3.09375f);
    assert_true(p == -0.125f - 0.5f * 3.09375f);
    *(float *)sbn_optimizer_state(sgd, 0, 0) = 4; /* as resuming does */
    p = g = 0;
    sbn_optimizer_step(sgd, 1, 1);
    assert_true(p == -2);
    sbn_optimizer_destroy(&sgd);

    cfg.nesterov = true;
    p = 1, g = 2;
    OK(sbn_optimizer_create(&cfg, &list, 1, &sgd));
    sbn_optimizer_step(sgd, 1, 0.5);
    assert_true(p == 1 - 0.5f * (2.25f + 0.5f * 2.25f));
    sbn_optimizer_destroy(&sgd);
    sbn_optimizer_destroy(&sgd);
    sbn_optimizer_destroy(NULL);
}

/* A rate of 0 moves the velocity and nothing else. */
static void zero_rate_moves_nothing(void **state)
{
    (void)state;
    double p = 0.1, g = 3;
    sbn_optimizer_tensor list = {&p, &g, 1, true};
    sbn_optimizer_config cfg = {.momentum = 0.9, .dtype = SBN_F64};
    sbn_optimizer *sgd = NULL;
    OK(sbn_optimizer_create(&cfg, &list, 1, &sgd));
    sbn_optimizer_step(sgd, 1, 0);
    assert_true(p == 0.1 && *(double *)sbn_optimizer_state(sgd, 0, 0) == 3);
    sbn_optimizer_destroy(&sgd);
}

/*
 * Steps of two tensors, of which only the first decays, against Kingma & Ba 2015,
 * Algorithm 1, and Loshchilov & Hutter 2019, Algorithm 2, in long double. A step moves p
 * by about lr, with a handful of roundings relative to it, and rounds p itself; v is tiny
 * only where the gradient is, which here has a floor.
 */
static void compare_adam(sbn_dtype dtype, sbn_optimizer_kind kind, double decay)
{
    void *p[2], *g[2];
    long double want_p[2][N], m[2][N] = {{0}}, v[2][N] = {{0}};
    sbn_optimizer_tensor list[2];
    for (int t = 0; t < 2; t++) {
        p[t] = calloc(N, 8);
        g[t] = calloc(N, 8);
        list[t] = (sbn_optimizer_tensor){p[t], g[t], N, t == 0};
        for (int i = 0; i < N; i++)
            set_element(dtype, p[t], i, (double)(want_p[t][i] = draw(0, t, i)));
    }
    const long double b1 = 0.875L, b2 = 0.96875L, eps = 0x1p-20L; /* exact in float */
    sbn_optimizer_config cfg = {.weight_decay = decay,
                                .dtype = dtype,
                                .kind = kind,
                                .beta1 = (double)b1,
                                .beta2 = (double)b2,
                                .eps = (double)eps};
    sbn_optimizer *adam = NULL;
    OK(sbn_optimizer_create(&cfg, list, 2, &adam));
    assert_int_equal(sbn_optimizer_states(adam), 2);
    assert_string_equal(sbn_optimizer_state_name(adam, 0), "exp_avg");
    assert_string_equal(sbn_optimizer_state_name(adam, 1), "exp_avg_sq");
    double rounding = dtype == SBN_F64 ? DBL_EPSILON : (double)FLT_EPSILON;
    for (int step = 1; step <= STEPS; step++) {
        long double lr = 0.0625L / step;
        for (int t = 0; t < 2; t++)
            for (int i = 0; i < N; i++) {
                long double grad = draw(step, t, i), d = t == 0 ? decay : 0.0L;
                grad = (long double)(float)(grad + (grad < 0 ? -0.5L : 0.5L));
                set_element(dtype, g[t], i, (double)grad);
                if (kind == SBN_OPTIMIZER_ADAMW)
                    want_p[t][i] *= 1 - lr * d;
                else
                    grad += d * want_p[t][i];
                m[t][i] = b1 * m[t][i] + (1 - b1) * grad;
                v[t][i] = b2 * v[t][i] + (1 - b2) * grad * grad;
                long double mean = m[t][i] / (1 - powl(b1, step)),
                            square = v[t][i] / (1 - powl(b2, step));
                want_p[t][i] -= lr * mean / (sqrtl(square) + eps);
            }
        sbn_optimizer_step(adam, step, (double)lr);
        for (int t = 0; t < 2; t++)
            for (int i = 0; i < N; i++) {
                CLOSE(element(dtype, p[t], i), (double)want_p[t][i],
                      32 * STEPS * rounding);
                CLOSE(element(dtype, sbn_optimizer_state(adam, t, 0), i), (double)m[t][i],
                      32 * STEPS * rounding);
                CLOSE(element(dtype, sbn_optimizer_state(adam, t, 1), i), (double)v[t][i],
                      128 * STEPS * rounding);
            }
    }
    sbn_optimizer_destroy(&adam);
    for (int t = 0; t < 2; t++) {
        free(p[t]);
        free(g[t]);
    }
}

static void adam_as_written(void **state)
{
    (void)state;
    for (int type = 0; type < 2; type++)
        for (int decays = 0; decays < 2; decays++) {
            sbn_dtype dtype = type ? SBN_F64 : SBN_F32;
            compare_adam(dtype, SBN_OPTIMIZER_ADAM, decays ? 0.125 : 0);
            compare_adam(dtype, SBN_OPTIMIZER_ADAMW, decays ? 0.125 : 0);
        }
}

/* The first step of any gradient is lr, but for eps. */
static void adam_first_step(void **state)
{
    (void)state;
    for (double slope = 1e-6; slope < 1e7; slope *= 1000) {
        double p = 1, g = -slope;
        sbn_optimizer_tensor list = {&p, &g, 1, false};
        sbn_optimizer_config cfg = {.dtype = SBN_F64,
                                    .kind = SBN_OPTIMIZER_ADAM,
                                    .beta1 = 0.9,
                                    .beta2 = 0.999,
                                    .eps = 1e-30};
        sbn_optimizer *adam = NULL;
        OK(sbn_optimizer_create(&cfg, &list, 1, &adam));
        sbn_optimizer_step(adam, 1, 0.25);
        CLOSE(p, 1.25, 1e-14);
        sbn_optimizer_destroy(&adam);
    }
}

static void adam_refuses(void **state)
{
    (void)state;
    float x = 0;
    sbn_optimizer_tensor list = {&x, &x, 1, true};
    static const double bad[][3] = {
        {1, 0.9, 1e-8},    {-0.1, 0.9, 1e-8},   {NAN, 0.9, 1e-8}, {0.9, 1, 1e-8},
        {0.9, -1, 1e-8},   {0.9, NAN, 1e-8},    {0.9, 0.999, 0},  {0.9, 0.999, -1},
        {0.9, 0.999, NAN}, {0.9, 0.9, INFINITY}};
    sbn_optimizer *adam = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sbn_optimizer_config cfg = {.dtype = SBN_F32,
                                    .kind = SBN_OPTIMIZER_ADAM,
                                    .beta1 = bad[i][0],
                                    .beta2 = bad[i][1],
                                    .eps = bad[i][2]};
        FAILS(SBN_E_ARG, sbn_optimizer_create(&cfg, &list, 1, &adam));
        assert_null(adam);
    }
    sbn_optimizer_config cfg = {.dtype = SBN_F32, .kind = (sbn_optimizer_kind)3};
    FAILS(SBN_E_ARG, sbn_optimizer_create(&cfg, &list, 1, &adam));
}

static void sgd_refuses(void **state)
{
    (void)state;
    float x = 0;
    sbn_optimizer_tensor list = {&x, &x, 1, true};
    const sbn_optimizer_config cases[] = {
        {.momentum = -0.1, .dtype = SBN_F32},
        {.momentum = 1.1, .dtype = SBN_F32},
        {.momentum = NAN, .dtype = SBN_F32},
        {.weight_decay = -1e-9, .dtype = SBN_F32},
        {.weight_decay = NAN, .dtype = SBN_F32},
        {.weight_decay = INFINITY, .dtype = SBN_F32},
        {.dtype = (sbn_dtype)7},
    };
    sbn_optimizer *sgd = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        FAILS(SBN_E_ARG, sbn_optimizer_create(&cases[i], &list, 1, &sgd));
        assert_null(sgd);
    }
    sbn_optimizer_config cfg = {.dtype = SBN_F32};
    FAILS(SBN_E_ARG, sbn_optimizer_create(NULL, &list, 1, &sgd));
    FAILS(SBN_E_ARG, sbn_optimizer_create(&cfg, NULL, 1, &sgd));
    FAILS(SBN_E_ARG, sbn_optimizer_create(&cfg, &list, -1, &sgd));
    FAILS(SBN_E_ARG, sbn_optimizer_create(&cfg, &list, 1, NULL));
    OK(sbn_optimizer_create(&cfg, NULL, 0, &sgd));
    sbn_optimizer_step(sgd, 1, 1);
    sbn_optimizer_destroy(&sgd);
}

/* Within an ulp or two of pow, cos and the products. */
#define NEAR(schedule, step, want)                                                       \
    CLOSE(sbn_schedule_lr((schedule), (step)), (want), 4 * DBL_EPSILON * (want))

static void constant_with_warmup(void **state)
{
    (void)state;
    sbn_schedule s = {SBN_SCHEDULE_CONSTANT, 0.3, 0, 100, 1, 0.1};
    assert_true(sbn_schedule_lr(&s, 1) == 0.3);
    assert_true(sbn_schedule_lr(&s, 100) == 0.3);
    s.warmup = 5;
    for (int step = 1; step <= 5; step++) NEAR(&s, step, 0.3 * step / 5);
    assert_true(sbn_schedule_lr(&s, 5) == 0.3);
    assert_true(sbn_schedule_lr(&s, 6) == 0.3);
    s.warmup = 1;
    assert_true(sbn_schedule_lr(&s, 1) == 0.3);
}

static void steps_after_warmup(void **state)
{
    (void)state;
    sbn_schedule s = {SBN_SCHEDULE_STEP, 0.8, 0, 100, 10, 0.5};
    assert_true(sbn_schedule_lr(&s, 10) == 0.8);
    assert_true(sbn_schedule_lr(&s, 11) == 0.4);
    assert_true(sbn_schedule_lr(&s, 20) == 0.4);
    assert_true(sbn_schedule_lr(&s, 21) == 0.2);
    s.warmup = 4; /* t counts from the warm-up's end */
    NEAR(&s, 1, 0.2);
    assert_true(sbn_schedule_lr(&s, 14) == 0.8);
    assert_true(sbn_schedule_lr(&s, 15) == 0.4);
    s.factor = 0.1;
    NEAR(&s, 35, 0.8 * 0.001);
    s.every = 1;
    NEAR(&s, 6, 0.8 * 0.1);
}

static void cosine_ends_at_the_last_step(void **state)
{
    (void)state;
    sbn_schedule s = {SBN_SCHEDULE_COSINE, 0.2, 0, 8, 1, 0.1};
    assert_true(sbn_schedule_lr(&s, 1) == 0.2);
    NEAR(&s, 3, 0.2 * (1 + sqrt(0.5)) / 2);
    NEAR(&s, 5, 0.1);
    NEAR(&s, 7, 0.2 * (1 - sqrt(0.5)) / 2);
    assert_true(sbn_schedule_lr(&s, 8) > 0);
    assert_true(sbn_schedule_lr(&s, 9) == 0 && sbn_schedule_lr(&s, 1000) == 0);
    for (int step = 1; step < 9; step++) {
        assert_true(sbn_schedule_lr(&s, step) > sbn_schedule_lr(&s, step + 1));
        /* the two halves mirror each other: t and T − t add up to lr */
        CLOSE(sbn_schedule_lr(&s, step) + sbn_schedule_lr(&s, 10 - step), 0.2, 1e-16);
    }
    s.warmup = 4;
    s.steps = 12;
    NEAR(&s, 2, 0.1);
    assert_true(sbn_schedule_lr(&s, 4) == 0.2 && sbn_schedule_lr(&s, 5) == 0.2);
    NEAR(&s, 9, 0.1);
    assert_true(sbn_schedule_lr(&s, 13) == 0);
    s.warmup = s.steps = 4; /* all warm-up: nothing is divided by zero */
    assert_true(sbn_schedule_lr(&s, 4) == 0.2 && sbn_schedule_lr(&s, 5) == 0);
}

/* Ioffe 2017, section 4: closed for 5,000 steps, d open at 25,000, r at 40,000. */
static void trap_38_limits_open_as_in_the_paper(void **state)
{
    (void)state;
    static const struct {
        int64_t step;
        double r_max, d_max;
    } cases[] = {{0, 1, 0},
                 {1, 1, 0},
                 {5000, 1, 0},
                 {5001, 1 + 2 / 35000.0, 5 / 20000.0},
                 {15000, 1 + 2 * 10 / 35.0, 2.5},
                 {22500, 2, 4.375},
                 {24999, 1 + 2 * 19999 / 35000.0, 5 * 19999 / 20000.0},
                 {25000, 1 + 2 * 20 / 35.0, 5},
                 {25001, 1 + 2 * 20001 / 35000.0, 5},
                 {39999, 1 + 2 * 34999 / 35000.0, 5},
                 {40000, 3, 5},
                 {40001, 3, 5},
                 {INT64_MAX, 3, 5}};
    sbn_renorm_schedule s = sbn_renorm_schedule_default();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double r, d;
        sbn_schedule_limits(&s, cases[i].step, &r, &d);
        CLOSE(r, cases[i].r_max, 4 * DBL_EPSILON);
        CLOSE(d, cases[i].d_max, 8 * DBL_EPSILON);
        if (cases[i].step <= s.warmup) assert_true(r == 1 && d == 0);
        if (cases[i].step >= s.r_steps) assert_true(r == s.r_max && d == s.d_max);
    }
}

static void trap_38_limits_of_short_schedules(void **state)
{
    (void)state;
    double r, d, last_r = 1, last_d = 0;
    sbn_renorm_schedule s = {1.5, 0.5, 3, 11, 7};
    for (int64_t step = 1; step <= 11; step++) {
        sbn_schedule_limits(&s, step, &r, &d);
        assert_true(r >= last_r && d >= last_d);
        assert_true((r > last_r) == (step > 3) &&
                    (d > last_d) == (step > 3 && step <= 7));
        last_r = r, last_d = d;
    }
    assert_true(r == 1.5 && d == 0.5);
    s = (sbn_renorm_schedule){2, 1, 3, 3, 0}; /* a jump behind the warm-up */
    sbn_schedule_limits(&s, 3, &r, &d);
    assert_true(r == 1 && d == 0);
    sbn_schedule_limits(&s, 4, &r, &d);
    assert_true(r == 2 && d == 1);
    s = (sbn_renorm_schedule){2, 1, 0, 0, 0}; /* open from the first step */
    sbn_schedule_limits(&s, 1, &r, &d);
    assert_true(r == 2 && d == 1);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(sgd_as_written),
    cmocka_unit_test(sgd_by_hand),
    cmocka_unit_test(zero_rate_moves_nothing),
    cmocka_unit_test(sgd_refuses),
    cmocka_unit_test(adam_as_written),
    cmocka_unit_test(adam_first_step),
    cmocka_unit_test(adam_refuses),
    cmocka_unit_test(constant_with_warmup),
    cmocka_unit_test(steps_after_warmup),
    cmocka_unit_test(cosine_ends_at_the_last_step),
    cmocka_unit_test(trap_38_limits_open_as_in_the_paper),
    cmocka_unit_test(trap_38_limits_of_short_schedules),
};
TEST_MAIN(tests)
