#include "support/layer.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "norm/scope.h"
#include "support/harness.h"

static void *zeros(int64_t count, int64_t size)
{
    return calloc((size_t)count + 1, (size_t)size);
}

joined joined_make(sbn_dtype dtype, norm_case k, uint64_t seed)
{
    int64_t s = k.h * k.w, all = k.n * k.c * s, size = sbn_dtype_bytes(dtype);
    joined b = {.dtype = dtype,
                .n = k.n,
                .c = k.c,
                .h = k.h,
                .w = k.w,
                .norm_batch = k.norm_batch,
                .x = zeros(all, size),
                .dy = zeros(all, size),
                .x_d = zeros(all, 8),
                .dy_d = zeros(all, 8),
                .gamma_d = zeros(k.c, 8),
                .beta_d = zeros(k.c, 8)};
    sbni_rng_key key = {.seed = seed, .purpose = SBNI_RNG_TEST};
    for (int64_t i = 0; i < k.c; i++) {
        uint64_t at = (uint64_t)i;
        /* floats, so that both types start from the same numbers */
        b.gamma_d[i] = (double)(float)(0.5 + sbni_rng_uniform(key, at, 0));
        b.beta_d[i] = (double)(float)sbni_rng_normal(key, at, 1);
        double mean = sbni_rng_normal(key, at, 2), deviation = 0.5 + (double)(i % 4);
        for (int64_t r = 0; r < k.n; r++)
            for (int64_t j = 0; j < s; j++) {
                int64_t e = (r * k.c + i) * s + j;
                b.x_d[e] = mean + deviation * sbni_rng_normal(key, (uint64_t)e, 3);
                b.dy_d[e] = sbni_rng_normal(key, (uint64_t)e, 4) + 0.3;
            }
    }
    joined_store(&b);
    return b;
}

void joined_store(joined *b)
{
    for (int64_t e = 0; e < b->n * b->c * b->h * b->w; e++) {
        set_element(b->dtype, b->x, e, b->x_d[e]);
        set_element(b->dtype, b->dy, e, b->dy_d[e]);
        b->x_d[e] = element(b->dtype, b->x, e);
        b->dy_d[e] = element(b->dtype, b->dy, e);
    }
}

void joined_free(joined *b)
{
    void *owned[] = {b->x, b->dy, b->x_d, b->dy_d, b->gamma_d, b->beta_d};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    *b = (joined){0};
}

sbn_tensor joined_view(const joined *b, void *array, int64_t first, int64_t n)
{
    int64_t row = b->c * b->h * b->w * sbn_dtype_bytes(b->dtype);
    return sbn_tensor_nchw(b->dtype, (char *)array + first * row, n, b->c, b->h, b->w);
}

naive joined_naive(const joined *b, double eps)
{
    naive want = naive_make(b->n, b->c, b->h * b->w);
    want.norm_batch = b->norm_batch;
    want.eps = eps;
    want.x = b->x_d;
    want.dy = b->dy_d;
    want.gamma = b->gamma_d;
    want.beta = b->beta_d;
    naive_run(&want);
    return want;
}

sbn_norm_config joined_config(const joined *b)
{
    sbn_norm_config cfg = sbn_norm_config_default(b->c);
    cfg.dtype = b->dtype;
    cfg.norm_batch = b->norm_batch;
    cfg.batch = b->norm_batch > b->n ? b->norm_batch : b->n;
    return cfg;
}

void joined_load(const joined *b, sbn_norm *norm)
{
    sbn_norm_state state = sbn_norm_get_state(norm);
    for (int64_t i = 0; state.weight && i < b->c; i++) {
        set_element(b->dtype, state.weight, i, b->gamma_d[i]);
        set_element(b->dtype, state.bias, i, b->beta_d[i]);
    }
}

static void *copy(const void *from, int64_t count, int64_t size)
{
    void *to = zeros(count, size);
    if (from) memcpy(to, from, (size_t)(count * size));
    return to;
}

result result_run(const sbn_norm_config *cfg, sbn_group *group, const joined *b,
                  int64_t first, int64_t n, int flags)
{
    int64_t row = b->c * b->h * b->w, size = sbn_dtype_bytes(b->dtype);
    sbn_norm *norm;
    OK(sbn_norm_create(cfg, group, &norm));
    joined_load(b, norm);
    OK(sbn_norm_set_place(norm, first));
    result r = {.first = first, .n = n, .y = zeros(n * row, size)};
    sbn_tensor x = joined_view(b, b->x, first, n), dy = joined_view(b, b->dy, first, n),
               y = joined_view(b, r.y, 0, n);
    r.dx = flags & RUN_IN_PLACE ? copy(dy.data, n * row, size) : zeros(n * row, size);
    sbn_tensor dx = joined_view(b, r.dx, 0, n), *wanted = flags & RUN_NO_DX ? NULL : &dx;
    if (flags & RUN_IN_PLACE) dy = dx;
    if (flags & RUN_SPLIT) {
        OK(sbn_norm_forward_begin(norm, &x, &y));
        OK(sbn_norm_forward_end(norm));
        OK(sbn_norm_backward_begin(norm, &dy, wanted));
        OK(sbn_norm_backward_end(norm));
    } else {
        OK(sbn_norm_forward(norm, &x, &y));
        OK(sbn_norm_backward(norm, &dy, wanted));
    }
    sbn_norm_state state = sbn_norm_get_state(norm);
    r.dgamma = copy(state.weight_grad, b->c, size);
    r.dbeta = copy(state.bias_grad, b->c, size);
    r.mean = copy(state.running_mean, b->c, size);
    r.var = copy(state.running_var, b->c, size);
    r.tracked = state.num_batches_tracked ? *state.num_batches_tracked : -1;
    sbn_norm_destroy(&norm);
    return r;
}

void result_free(result *r)
{
    void *owned[] = {r->y, r->dx, r->dgamma, r->dbeta, r->mean, r->var};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    *r = (result){0};
}

void result_equal(const joined *b, const result *r, const result *whole)
{
    int64_t row = b->c * b->h * b->w, size = sbn_dtype_bytes(b->dtype);
    int64_t skip = (r->first - whole->first) * row * size, share = r->n * row * size,
            channels = b->c * size;
    same_bits(r->y, (char *)whole->y + skip, share);
    same_bits(r->dx, (char *)whole->dx + skip, share);
    same_bits(r->dgamma, whole->dgamma, channels);
    same_bits(r->dbeta, whole->dbeta, channels);
    same_bits(r->mean, whole->mean, channels);
    same_bits(r->var, whole->var, channels);
    assert_int_equal(r->tracked, whole->tracked);
}

void result_near(const joined *b, const result *r, const naive *want)
{
    /* An element passes at most 8 roundings of the type (the two parts of the mean, each
     * factor, product and sum). Sums inside a slice add one rounding of a double for each
     * of their values, whatever the type. */
    double u = b->dtype == SBN_F64 ? DBL_EPSILON / 2 : (double)FLT_EPSILON / 2;
    double unit = 8 * u + 16 * (double)(b->h * b->w) * DBL_EPSILON / 2;
    int64_t row = b->c * b->h * b->w;
    for (int64_t e = 0; e < r->n * row; e++) {
        int64_t at = r->first * row + e;
        CLOSE(element(b->dtype, r->y, e), (double)want->y[at],
              unit * (double)want->y_size[at]);
        CLOSE(element(b->dtype, r->dx, e), (double)want->dx[at],
              unit * (double)want->dx_size[at]);
    }
    for (int64_t i = 0; i < b->c; i++) {
        CLOSE(element(b->dtype, r->dgamma, i), (double)want->dgamma[i],
              unit * (double)want->dgamma_size[i]);
        CLOSE(element(b->dtype, r->dbeta, i), (double)want->dbeta[i],
              unit * (double)want->dbeta_size[i]);
        double mean = (double)naive_track(0, want->mean[i], 0.1, 1);
        double var = (double)naive_track(1, naive_unbiased(want, i), 0.1, 1);
        CLOSE(element(b->dtype, r->mean, i), mean,
              unit * (fabs(mean) + sqrt((double)want->var[i])));
        CLOSE(element(b->dtype, r->var, i), var, unit * var);
    }
}

void deal(int how, int64_t total, int64_t norm_batch, int rank, int size, int64_t *first,
          int64_t *n)
{
    sbni_slice slices[1024];
    int64_t count = sbni_scope_cut(0, total, norm_batch, NULL), bound[2];
    assert_true(count <= 1024);
    sbni_scope_cut(0, total, norm_batch, slices);
    for (int k = 0; k < 2; k++) {
        int at = rank + k; /* slices before process `at` */
        int64_t drawn = 0;
        for (int64_t i = 0; i < count; i++)
            drawn += (i * 7 + total) % count * size / (count + 1) < at;
        int64_t before[DEALS] = {count * at / size, count, at == size ? count : 0,
                                 at == size ? count : 1, drawn};
        int64_t slice = at == 0 ? 0 : at == size ? count : before[how];
        if (slice > count) slice = count;
        bound[k] = slice == count ? total : slices[slice].row;
    }
    *first = bound[0];
    *n = bound[1] - bound[0];
}
