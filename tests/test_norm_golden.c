/* The layer against values of an independent framework: golden/norm.safetensors. */
#include "support/harness.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "support/golden.h"
#include "support/layer.h"

/* Units of the README, per channel: what an error is measured against. */
typedef struct units {
    double dx[8], dweight[8], dbias[8], rounding, condition;
} units;

static units measure(const sbn_tensor *x, const sbn_norm_config *cfg, int64_t last)
{
    units u = {.rounding =
                   cfg->dtype == SBN_F64 ? DBL_EPSILON / 2 : (double)FLT_EPSILON / 2};
    int64_t s = x->h * x->w;
    double y = 1 + golden_largest(golden_find("y"));
    for (int64_t i = 0; i < x->c; i++) {
        double most = 0, sum = 0;
        long double mean = 0, var = 0;
        for (int pass = 0; pass < 2; pass++)
            for (int64_t r = 0; r < x->n; r++)
                for (int64_t j = 0; j < s; j++) {
                    int64_t at = (r * x->c + i) * s + j;
                    long double v = golden_value(golden_find("x"), last + at);
                    if (pass) var += (v - mean) * (v - mean);
                    if (!pass) mean += v / (long double)(x->n * s);
                    if (!pass) sum += fabs(golden_value(golden_find("dy"), at));
                    most = fmax(most, fabs(golden_value(golden_find("dy"), at)));
                }
        double rstd = 1 / sqrt((double)var / (double)(x->n * s) + cfg->eps);
        double gamma = cfg->affine ? fabs(golden_value(golden_find("gamma"), i)) : 1;
        u.dx[i] = gamma * rstd * most;
        u.dweight[i] = sum * y;
        u.dbias[i] = sum;
        u.condition = fmax(u.condition, fabs((double)mean) * rstd);
    }
    return u;
}

/* Results of the last step, of this process's samples from `first` on; `last` is where
 * that step begins in the file's x. Returns the relative error allowed after all steps.
 */
static double check_training(sbn_norm *norm, const sbn_norm_config *cfg,
                             const sbn_tensor *shape, const sbn_tensor *y,
                             const sbn_tensor *dx, int64_t first, int64_t last)
{
    sbn_norm_state state = sbn_norm_get_state(norm);
    int64_t c = shape->c, s = shape->h * shape->w, skip = first * c * s,
            count = y->n * c * s;
    sbn_dtype t = cfg->dtype;
    /* 8 roundings, as in the property tests. The framework's float64 values are good to
     * 8 roundings of the mean, each of which weighs |mean|·rstd times as much in y. */
    units u = measure(shape, cfg, last);
    double unit = 8 * u.rounding + 8 * DBL_EPSILON * fmax(1, u.condition);
    double y_size = 1 + golden_largest(golden_find("y"));
    golden_check("y", t, y->data, skip, count, unit * y_size, NULL, s, c);
    golden_check("dx", t, dx->data, skip, count, unit, u.dx, s, c);
    if (cfg->affine) {
        golden_check("dweight", t, state.weight_grad, 0, c, unit, u.dweight, 1, c);
        golden_check("dbias", t, state.bias_grad, 0, c, unit, u.dbias, 1, c);
    }
    if (!cfg->track_running_stats) return unit;
    /* each step rounds the stored value once; the framework's var cancels as y does */
    unit += (double)*state.num_batches_tracked * u.rounding;
    double mean_size = golden_largest(golden_find("x")),
           var_size = 1 + golden_largest(golden_find("running_var"));
    golden_check("running_mean", t, state.running_mean, 0, c, unit * mean_size, NULL, 1,
                 c);
    golden_check("running_var", t, state.running_var, 0, c, unit * var_size, NULL, 1, c);
    assert_int_equal(*state.num_batches_tracked,
                     *(const int64_t *)golden_find("num_batches_tracked")->data);
    return unit;
}

/* Evaluation of the last step's samples; unit: relative error of what training left. */
static void check_evaluation(sbn_norm *norm, const sbn_norm_config *cfg,
                             const sbn_tensor *x, sbn_tensor *y, int64_t first,
                             double unit)
{
    sbn_norm_set_mode(norm, SBN_NORM_EVAL);
    OK(sbn_norm_forward(norm, x, y));
    double reach = 1 + golden_largest(golden_find("y_eval"));
    if (cfg->track_running_stats) {
        /* the stored mean is subtracted, whose rounding weighs as much */
        double least = INFINITY;
        for (int64_t i = 0; i < x->c; i++)
            least = fmin(least, golden_value(golden_find("running_var"), i));
        reach += golden_largest(golden_find("x")) / sqrt(least + cfg->eps);
    }
    int64_t s = x->h * x->w, row = x->c * s;
    golden_check("y_eval", cfg->dtype, y->data, first * row, x->n * row, unit * reach,
                 NULL, s, x->c);
}

/* The joined batch shared in one of several ways, by other processes in every step. */
static void check_case(int how)
{
    sbn_tensor shape;
    sbn_norm_config cfg = golden_config(&shape);
    int64_t all = shape.n * shape.c * shape.h * shape.w, first, n,
            steps = (int64_t)golden_number("steps");
    sbn_norm *norm;
    OK(sbn_norm_create(&cfg, test_group, &norm));
    golden_load(norm, shape.c);
    void *steps_x = golden_copy("x"), *last_dy = golden_copy("dy"),
         *y_data = calloc((size_t)all + 1, 8), *dx_data = calloc((size_t)all + 1, 8);
    sbn_tensor x, y;
    for (int64_t k = 0; k < steps; k++) {
        golden_share(how, k, shape.n, &first, &n);
        x = golden_view(&shape, steps_x, k * shape.n + first, n);
        y = golden_view(&shape, y_data, 0, n);
        OK(sbn_norm_forward(norm, &x, &y));
    }
    sbn_tensor dy = golden_view(&shape, last_dy, first, n),
               dx = golden_view(&shape, dx_data, 0, n);
    OK(sbn_norm_backward(norm, &dy, &dx));
    double unit = check_training(norm, &cfg, &shape, &y, &dx, first, (steps - 1) * all);
    check_evaluation(norm, &cfg, &x, &y, first, unit);
    free(steps_x);
    free(last_dy);
    free(y_data);
    free(dx_data);
    sbn_norm_destroy(&norm);
}

static void check_cases(int how)
{
    int count = golden_open("norm.safetensors");
    assert_true(count >= 20);
    for (int number = 0; number < count; number++) {
        golden_select(number);
        check_case(how);
    }
    golden_close();
}

static void values_of_a_framework(void **state)
{
    (void)state;
    check_cases(SHARE_SLICES);
}

static void shares_that_end_inside_slices(void **state)
{
    (void)state;
    check_cases(SHARE_UNEVEN);
}

static void processes_without_samples(void **state)
{
    (void)state;
    check_cases(SHARE_HOLES);
    check_cases(SHARE_LAST);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(values_of_a_framework),
    cmocka_unit_test(shares_that_end_inside_slices),
    cmocka_unit_test(processes_without_samples),
};
TEST_MAIN(tests)
