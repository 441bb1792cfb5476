/* The layer against values of an independent framework: golden/norm.safetensors. */
#include "support/harness.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "norm/scope.h"
#include "support/layer.h"
#include "train/safetensors.h"

static sbni_st_file *file;
static int number; /* of the case */

static const sbni_st_tensor *find(const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "case%d.%s", number, name);
    return sbni_st_find(file, full);
}

static double value(const sbni_st_tensor *t, int64_t i)
{
    assert_non_null(t);
    return element(strcmp(t->dtype, "F32") ? SBN_F64 : SBN_F32, t->data, i);
}

/* "key=text" in the metadata of the case, or NULL. */
static const char *setting(const char *key)
{
    char name[16], want[32];
    snprintf(name, sizeof name, "case%d", number);
    snprintf(want, sizeof want, " %s=", key);
    const char *text = sbni_st_metadata(file, name);
    assert_non_null(text);
    const char *at = strstr(text, want);
    return at ? at + strlen(want) : NULL;
}

static sbn_norm_config read_settings(sbn_tensor *x)
{
    const sbni_st_tensor *dy = find("dy");
    assert_non_null(dy);
    sbn_dtype dtype = strcmp(dy->dtype, "F32") ? SBN_F64 : SBN_F32;
    bool image = dy->axes == 4;
    *x = sbn_tensor_nchw(dtype, NULL, dy->shape[0], dy->shape[1],
                         image ? dy->shape[2] : 1, image ? dy->shape[3] : 1);
    sbn_norm_config cfg = sbn_norm_config_default(x->c);
    cfg.dtype = dtype;
    cfg.affine = atoi(setting("affine"));
    cfg.eps = strtod(setting("eps"), NULL);
    const char *momentum = setting("momentum");
    cfg.momentum =
        strncmp(momentum, "none", 4) ? strtod(momentum, NULL) : SBN_MOMENTUM_CUMULATIVE;
    return cfg;
}

/* Largest error of a process's part of an expected tensor, in elements from `skip` on. */
static void check(const char *name, sbn_dtype dtype, const void *got, int64_t skip,
                  int64_t count, double unit, const double *scale, int64_t s, int64_t c)
{
    const sbni_st_tensor *want = find(name);
    assert_non_null(want);
    for (int64_t e = 0; e < count; e++) {
        double limit = unit * (scale ? scale[(skip + e) / s % c] : 1);
        test_close(element(dtype, got, e), value(want, skip + e), limit, name, __FILE__,
                   __LINE__);
    }
}

static double largest(const sbni_st_tensor *t)
{
    double most = 0;
    int64_t count = 1;
    for (int a = 0; a < t->axes; a++) count *= t->shape[a];
    for (int64_t i = 0; i < count; i++) most = fmax(most, fabs(value(t, i)));
    return most;
}

/* Units of the README, per channel: what an error is measured against. */
typedef struct units {
    double dx[8], dweight[8], dbias[8], rounding, condition;
} units;

static units measure(const sbn_tensor *x, const sbn_norm_config *cfg, int64_t last)
{
    units u = {.rounding =
                   cfg->dtype == SBN_F64 ? DBL_EPSILON / 2 : (double)FLT_EPSILON / 2};
    int64_t s = x->h * x->w;
    double y = 1 + largest(find("y"));
    for (int64_t i = 0; i < x->c; i++) {
        double most = 0, sum = 0;
        long double mean = 0, var = 0;
        for (int pass = 0; pass < 2; pass++)
            for (int64_t r = 0; r < x->n; r++)
                for (int64_t j = 0; j < s; j++) {
                    int64_t at = (r * x->c + i) * s + j;
                    long double v = value(find("x"), last + at);
                    if (pass) var += (v - mean) * (v - mean);
                    if (!pass) mean += v / (long double)(x->n * s);
                    if (!pass) sum += fabs(value(find("dy"), at));
                    most = fmax(most, fabs(value(find("dy"), at)));
                }
        double rstd = 1 / sqrt((double)var / (double)(x->n * s) + cfg->eps);
        double gamma = cfg->affine ? fabs(value(find("gamma"), i)) : 1;
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
    check("y", t, y->data, skip, count, unit * (1 + largest(find("y"))), NULL, s, c);
    check("dx", t, dx->data, skip, count, unit, u.dx, s, c);
    if (cfg->affine) {
        check("dweight", t, state.weight_grad, 0, c, unit, u.dweight, 1, c);
        check("dbias", t, state.bias_grad, 0, c, unit, u.dbias, 1, c);
    }
    /* each step rounds the stored value once; the framework's var cancels as y does */
    unit += (double)*state.num_batches_tracked * u.rounding;
    check("running_mean", t, state.running_mean, 0, c, unit * largest(find("x")), NULL, 1,
          c);
    check("running_var", t, state.running_var, 0, c,
          unit * (1 + largest(find("running_var"))), NULL, 1, c);
    assert_int_equal(*state.num_batches_tracked,
                     *(const int64_t *)find("num_batches_tracked")->data);
    return unit;
}

static void check_case(void)
{
    sbn_tensor shape;
    sbn_norm_config cfg = read_settings(&shape);
    int64_t c = shape.c, s = shape.h * shape.w, row = c * s, all = shape.n * row,
            steps = strtol(setting("steps"), NULL, 10), size = sbn_dtype_bytes(cfg.dtype);
    sbn_norm *norm;
    OK(sbn_norm_create(&cfg, test_group, &norm));
    sbn_norm_state state = sbn_norm_get_state(norm);
    for (int64_t i = 0; cfg.affine && i < c; i++) {
        set_element(cfg.dtype, state.weight, i, value(find("gamma"), i));
        set_element(cfg.dtype, state.bias, i, value(find("beta"), i));
    }
    int64_t first, n;
    sbni_scope_share(shape.n, 0, test_rank, test_size, &first, &n);
    sbn_tensor x = shape, y = shape, dy = shape, dx = shape;
    x.n = y.n = dy.n = dx.n = n;
    y.data = calloc((size_t)(n * row) + 1, 8);
    dx.data = calloc((size_t)(n * row) + 1, 8);
    /* the file's arrays are read only, and the layer only reads them */
    char *steps_x = malloc((size_t)(steps * all * size)),
         *last_dy = malloc((size_t)(all * size));
    memcpy(steps_x, find("x")->data, (size_t)(steps * all * size));
    memcpy(last_dy, find("dy")->data, (size_t)(all * size));
    dy.data = last_dy + first * row * size;
    for (int64_t k = 0; k < steps; k++) {
        x.data = steps_x + (k * all + first * row) * size;
        OK(sbn_norm_forward(norm, &x, &y));
    }
    OK(sbn_norm_backward(norm, &dy, &dx));

    double unit = check_training(norm, &cfg, &shape, &y, &dx, first, (steps - 1) * all);

    /* evaluation subtracts the stored mean, whose rounding weighs as much */
    sbn_norm_set_mode(norm, SBN_NORM_EVAL);
    OK(sbn_norm_forward(norm, &x, &y));
    double least = value(find("running_var"), 0);
    for (int64_t i = 1; i < c; i++) least = fmin(least, value(find("running_var"), i));
    double reach =
        1 + largest(find("y_eval")) + largest(find("x")) / sqrt(least + cfg.eps);
    check("y_eval", cfg.dtype, y.data, first * row, n * row, unit * reach, NULL, s, c);
    free(y.data);
    free(dx.data);
    free(steps_x);
    free(last_dy);
    sbn_norm_destroy(&norm);
}

static void values_of_a_framework(void **state)
{
    (void)state;
    OK(sbni_st_open(GOLDEN_DIR "/norm.safetensors", &file));
    const char *cases = sbni_st_metadata(file, "cases");
    assert_non_null(cases);
    int count = atoi(cases);
    assert_true(count >= 15);
    for (number = 0; number < count; number++) check_case();
    sbni_st_close(&file);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(values_of_a_framework),
};
TEST_MAIN(tests)
