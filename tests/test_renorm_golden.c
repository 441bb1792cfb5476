/* Batch renormalization against Algorithm 1 of its paper: golden/renorm.safetensors. */
#include "support/harness.h"

#include <float.h>
#include <stdlib.h>

#include "support/golden.h"
#include "support/layer.h"

/* Sizes of the terms in row `step` of a tensor, for golden_check. */
static const double *sizes(const char *name, int64_t step, int64_t c)
{
    const sbni_st_tensor *t = golden_find(name);
    assert_non_null(t);
    assert_string_equal(t->dtype, "F64");
    return (const double *)t->data + step * c;
}

/* Results of a step on this process's samples, which begin at `first`. */
static void check_step(sbn_norm *norm, const sbn_norm_config *cfg, const sbn_tensor *y,
                       const sbn_tensor *dx, int64_t batch, int64_t first, int64_t step)
{
    int64_t c = y->c, s = y->h * y->w, row = c * s, skip = (step * batch + first) * row,
            at = step * c;
    sbn_dtype t = cfg->dtype;
    sbn_norm_state state = sbn_norm_get_state(norm);
    /* 10 roundings of an element's terms (mean, rstd, r, d, factors, sums), two that each
     * step left in the averages, of which r and d are made, and one of a double for each
     * value that a slice adds */
    double u = t == SBN_F64 ? DBL_EPSILON / 2 : (double)FLT_EPSILON / 2;
    double unit =
        (10 + 2 * (double)(step + 1)) * u + SBN_SLICE * (double)s * DBL_EPSILON / 2;
    golden_check("y", t, y->data, skip, y->n * row, unit, sizes("y_size", step, c), s, c);
    golden_check("dx", t, dx->data, skip, y->n * row, unit, sizes("dx_size", step, c), s,
                 c);
    if (cfg->affine) {
        golden_check("dweight", t, state.weight_grad, at, c, unit,
                     sizes("dweight_size", step, c), 1, c);
        golden_check("dbias", t, state.bias_grad, at, c, unit,
                     sizes("dbias_size", step, c), 1, c);
    }
    double mean = golden_largest(golden_find("x")),
           var = golden_largest(golden_find("running_var"));
    golden_check("running_mean", t, state.running_mean, at, c, unit * mean, NULL, 1, c);
    golden_check("running_var", t, state.running_var, at, c, unit * var, NULL, 1, c);
    sbn_norm_clipped clipped = sbn_norm_get_clipped(norm);
    CLOSE(clipped.r, golden_value(golden_find("clipped"), 2 * step), 1e-15);
    CLOSE(clipped.d, golden_value(golden_find("clipped"), 2 * step + 1), 1e-15);
}

/* Forward and backward of every step, under the limits that the case has for it. */
static void check_case(int how)
{
    sbn_tensor shape;
    sbn_norm_config cfg = golden_config(&shape);
    cfg.correction = SBN_CORRECTION_RENORM;
    cfg.norm_batch = (int64_t)golden_number("norm_batch");
    cfg.batch = shape.n;
    int64_t all = shape.n * shape.c * shape.h * shape.w, first, n,
            steps = (int64_t)golden_number("steps");
    sbn_norm *norm;
    OK(sbn_norm_create(&cfg, test_group, &norm));
    golden_load(norm, shape.c);
    void *x_data = golden_copy("x"), *dy_data = golden_copy("dy"),
         *y_data = calloc((size_t)all + 1, 8), *dx_data = calloc((size_t)all + 1, 8);
    for (int64_t k = 0; k < steps; k++) {
        golden_share(how, k, shape.n, &first, &n);
        sbn_tensor x = golden_view(&shape, x_data, k * shape.n + first, n),
                   dy = golden_view(&shape, dy_data, k * shape.n + first, n),
                   y = golden_view(&shape, y_data, 0, n),
                   dx = golden_view(&shape, dx_data, 0, n);
        const sbni_st_tensor *limits = golden_find("limits");
        OK(sbn_norm_set_limits(norm, golden_value(limits, 2 * k),
                               golden_value(limits, 2 * k + 1)));
        OK(sbn_norm_set_place(norm, first));
        OK(sbn_norm_forward(norm, &x, &y));
        OK(sbn_norm_backward(norm, &dy, &dx));
        check_step(norm, &cfg, &y, &dx, shape.n, first, k);
    }
    free(x_data);
    free(dy_data);
    free(y_data);
    free(dx_data);
    sbn_norm_destroy(&norm);
}

static void check_cases(int how)
{
    int count = golden_open("renorm.safetensors");
    assert_true(count >= 10);
    for (int number = 0; number < count; number++) {
        golden_select(number);
        check_case(how);
    }
    golden_close();
}

static void trap_26_values_of_the_paper(void **state)
{
    (void)state;
    check_cases(SHARE_SLICES);
}

static void any_share_of_the_batch(void **state)
{
    (void)state;
    for (int how = SHARE_UNEVEN; how < SHARES; how++) check_cases(how);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(trap_26_values_of_the_paper),
    cmocka_unit_test(any_share_of_the_batch),
};
TEST_MAIN(tests)
