/* The second derivative against finite differences of its own long-double first one, as
 * bytes for any deal of slices, and its errors. */
#include "support/harness.h"
#include "support/seat.h"
#include "support/slopes.h"
#include "support/tables.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct trial {
    norm_case shape;
    sbn_dtype dtype;
    layout form;
    bool plain; /* no affine */
    double r_max, d_max;
    int drop; /* each so-many-th sample is masked; 0: none */
} trial;

static bool kept(const trial *t, int64_t r)
{
    return t->drop == 0 || r % t->drop != 1;
}

static int64_t kept_before(const trial *t, int64_t r)
{
    int64_t n = 0;
    for (int64_t k = 0; k < r; k++) n += kept(t, k);
    return n;
}

static long double clip(long double v, long double low, long double high)
{
    return v < low ? low : v > high ? high : v;
}

/* Samples from … to-1, counted without those left out. */
static void refer(const trial *t, const joined *b, const joined *weights, const seat *s,
                  int64_t from, int64_t to, int64_t i, slopes *want)
{
    int64_t pixels = b->h * b->w, most = b->n * pixels;
    probe p = {.x = zeros(most),
               .dy = zeros(most),
               .v = zeros(most),
               .at = calloc((size_t)most + 1, sizeof *p.at),
               .gamma = t->plain ? 1 : b->gamma_d[i],
               .v_gamma = t->plain ? 0 : weights->gamma_d[i],
               .v_beta = t->plain ? 0 : weights->beta_d[i],
               .r = 1,
               .eps = s->cfg.eps};
    for (int64_t r = 0, count = 0; r < b->n; r++) {
        if (!kept(t, r)) continue;
        for (int64_t j = 0; j < pixels && count >= from && count < to; j++, p.n++) {
            p.at[p.n] = (r * b->c + i) * pixels + j;
            p.x[p.n] = b->x_d[p.at[p.n]];
            p.dy[p.n] = b->dy_d[p.at[p.n]];
            p.v[p.n] = weights->dy_d[p.at[p.n]];
        }
        count++;
    }
    if (t->r_max > 0) {
        sbn_dtype state = state_type(t->dtype);
        long double mean, var, s0;
        statistics(&p, &mean, &var);
        s0 = sqrtl(element(state, s->state.running_var, i) + p.eps);
        p.r = clip(sqrtl(var + p.eps) / s0, 1 / (long double)t->r_max, t->r_max);
        p.d = clip((mean - element(state, s->state.running_mean, i)) / s0, -t->d_max,
                   t->d_max);
    }
    for (int64_t k = 0; k < p.n; k++) {
        want->gx[p.at[k]] = slope(&p, &p.x[k]);
        want->ddy[p.at[k]] = slope(&p, &p.dy[k]);
    }
    want->ggamma[i] += slope(&p, &p.gamma);
    sizes(&p, want, i);
    void *owned[] = {p.x, p.dy, p.v, p.at};
    for (int k = 0; k < 4; k++) free(owned[k]);
}

static sbn_norm_config settings(const trial *t, const joined *b)
{
    sbn_norm_config cfg = joined_config(b);
    cfg.second_order = true;
    cfg.affine = !t->plain;
    if (t->r_max > 0) {
        cfg.correction = SBN_CORRECTION_RENORM;
        cfg.r_max = t->r_max;
        cfg.d_max = t->d_max;
    }
    return cfg;
}

/* Results of the share of a process within round-off of the reference's. */
static void compare(const joined *b, const seat *s, const sbn_tensor *ddy,
                    const sbn_tensor *gx, const void *ggamma, const slopes *want)
{
    sbn_dtype state = state_type(b->dtype);
    int64_t pixels = b->h * b->w, row = b->c * pixels;
    /* 12 roundings of factors, products and sums of the type; five sums of a slice in
     * double; storing a bfloat16 rounds once more */
    double unit = 12 * rounding(state) + 5 * 16 * (double)pixels * DBL_EPSILON / 2;
    double store = b->dtype == SBN_BF16 ? rounding(SBN_BF16) : 0;
    for (int64_t e = 0; e < s->n * row; e++) {
        int64_t at = s->first * row + e, r = e / row, i = e % row / pixels,
                j = e % pixels;
        CLOSE(tensor_get(ddy, r, i, j), (double)want->ddy[at],
              unit * (double)want->ddy_size[at] + store * fabs((double)want->ddy[at]) +
                  SLOPE_ERROR);
        CLOSE(tensor_get(gx, r, i, j), (double)want->gx[at],
              unit * (double)want->gx_size[at] + store * fabs((double)want->gx[at]) +
                  SLOPE_ERROR);
    }
    for (int64_t i = 0; i < b->c; i++)
        CLOSE(element(state, ggamma, i), (double)want->ggamma[i],
              unit * (double)want->ggamma_size[i] + SLOPE_ERROR);
}

/* [c] of the state's type. */
static void *cotangents(const joined *b, const double *values)
{
    void *to = calloc((size_t)b->c, 8);
    for (int64_t i = 0; i < b->c; i++)
        set_element(state_type(b->dtype), to, i, values[i]);
    return to;
}

/* Samples [first, first + n) of the batch worked on by this process: a training step and
 * its second backward; outputs are the caller's. */
static seat run(const trial *t, const joined *b, const joined *weights, sbn_group *group,
                int64_t first, int64_t n, sbn_tensor *ddy, sbn_tensor *gx, void *ggamma)
{
    sbn_norm_config cfg = settings(t, b);
    seat s = seat_make(&cfg, group, b, t->form, first, n);
    seat_draw_running(&s);
    uint8_t keep[256] = {0};
    for (int64_t r = 0; r < n; r++) keep[r] = kept(t, first + r);
    if (t->drop) OK(sbn_norm_set_mask(s.norm, keep, n));
    OK(sbn_norm_set_place(s.norm, kept_before(t, first)));
    seat_step(&s, false);
    sbn_tensor v = tensor_like(&s.x);
    tensor_fill(&v, weights->dy_d, first);
    void *vg = cotangents(b, weights->gamma_d), *vb = cotangents(b, weights->beta_d);
    if (ddy->n == -1) *ddy = tensor_like(&s.x);
    if (gx->n == -1) *gx = tensor_like(&s.x);
    OK(sbn_norm_second_backward(s.norm, &v, vg, vb, ddy->data ? ddy : NULL,
                                gx->data ? gx : NULL, ggamma));
    free(vg);
    free(vb);
    tensor_free(&v);
    return s;
}

static const trial trials[] = {
    {{23, 3, 1, 2, 0}, SBN_F64, NCHW, false, 0, 0, 0},
    {{23, 3, 1, 2, 0}, SBN_F32, NHWC, false, 0, 0, 0},
    {{20, 2, 2, 3, 0}, SBN_F64, NHWC, true, 0, 0, 0},
    {{41, 5, 1, 1, 0}, SBN_F64, NCHW, false, 0, 0, 3},
    {{37, 2, 1, 2, 10}, SBN_F64, NCHW, false, 0, 0, 0},
    {{37, 2, 1, 2, 17}, SBN_F32, NHWC, false, 0, 0, 4},
    {{26, 3, 1, 3, 0}, SBN_F64, NCHW, false, 1.3, 0.4, 0},
    {{40, 2, 1, 2, 16}, SBN_F64, NHWC, false, 3, 5, 5},
    {{40, 2, 1, 1, 20}, SBN_F32, NCHW, false, 1.1, 0.2, 0},
    {{19, 4, 1, 3, 0}, SBN_F32, NCHW, true, 1.5, 0.5, 3},
    {{24, 3, 1, 2, 0}, SBN_BF16, NHWC, false, 0, 0, 3},
};
enum { TRIALS = sizeof trials / sizeof *trials };

static void is_the_derivative_of_the_first(void **state)
{
    (void)state;
    for (int k = 0; k < TRIALS; k++) {
        const trial *t = &trials[k];
        joined b = joined_make(t->dtype, t->shape, 61),
               weights = joined_make(t->dtype, t->shape, 62);
        int64_t first, n, total = kept_before(t, b.n),
                          m = b.norm_batch ? b.norm_batch : total;
        uneven(b.n, k, test_rank, test_size, &first, &n);
        double ggamma[8];
        sbn_tensor ddy = {.n = -1}, gx = {.n = -1};
        seat s = run(t, &b, &weights, test_group, first, n, &ddy, &gx, ggamma);
        seat_draw_running(&s); /* r and d are of before the step */
        slopes want = slopes_make(b.n * b.c * b.h * b.w, b.c);
        for (int64_t i = 0; i < b.c; i++)
            for (int64_t from = 0; from < total; from += m)
                refer(t, &b, &weights, &s, from, from + m < total ? from + m : total, i,
                      &want);
        compare(&b, &s, &ddy, &gx, ggamma, &want);
        slopes_free(&want);
        tensor_free(&ddy);
        tensor_free(&gx);
        seat_free(&s);
        joined_free(&b);
        joined_free(&weights);
    }
}

/* Also with outputs that some processes do not want. */
static void deals_and_unwanted_outputs_do_not_show(void **state)
{
    (void)state;
    sbn_group *self;
    OK(sbn_group_create(MPI_COMM_SELF, &self));
    for (int k = 0; k < 3 * NORM_CASES; k++) {
        trial t = {norm_cases[k / 3],
                   (sbn_dtype)(k % 3),
                   (layout)(k / 2 % 2),
                   k % 7 == 3,
                   0,
                   0,
                   0};
        if (k % 5 == 4) t.r_max = 1.4, t.d_max = 0.3;
        joined b = joined_make(t.dtype, t.shape, 63),
               weights = joined_make(t.dtype, t.shape, 64);
        int64_t first, n, bytes = b.c * sbn_dtype_bytes(state_type(t.dtype));
        double ggamma[100], part_ggamma[100];
        sbn_tensor ddy = {.n = -1}, gx = {.n = -1};
        seat whole = run(&t, &b, &weights, self, 0, b.n, &ddy, &gx, ggamma);
        for (int how = 0; how < DEALS; how++) {
            deal(how, b.n, b.norm_batch, test_rank, test_size, &first, &n);
            int without = (k + how + test_rank) % 4; /* 1: ddy, 2: gx, 3: ggamma */
            sbn_tensor part_ddy = {.n = -(without != 1)},
                       part_gx = {.n = -(without != 2)};
            seat s = run(&t, &b, &weights, test_group, first, n, &part_ddy, &part_gx,
                         without == 3 ? NULL : part_ggamma);
            tensor_same(&part_ddy, &ddy, first);
            tensor_same(&part_gx, &gx, first);
            if (without != 3) same_bits(part_ggamma, ggamma, bytes);
            tensor_free(&part_ddy);
            tensor_free(&part_gx);
            seat_free(&s);
        }
        tensor_free(&ddy);
        tensor_free(&gx);
        seat_free(&whole);
        joined_free(&b);
        joined_free(&weights);
    }
    sbn_group_destroy(&self);
}

static const norm_case small = {12, 3, 1, 4, 0};

static void out_of_order(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, small, 65);
    sbn_norm_config cfg = joined_config(&b);
    seat s = seat_make(&cfg, test_group, &b, NCHW, 0, b.n);
    seat_step(&s, false);
#define SECOND(s)                                                                        \
    sbn_norm_second_backward((s).norm, &(s).z, NULL, NULL, &(s).dz, NULL, NULL)
    FAILS(SBN_E_ARG, SECOND(s)); /* not asked for at create */
    seat_free(&s);
    cfg.second_order = cfg.relu = true;
    sbn_norm *norm;
    FAILS(SBN_E_ARG, sbn_norm_create(&cfg, test_group, &norm));
    cfg.relu = false;
    s = seat_make(&cfg, test_group, &b, NCHW, 0, b.n);
    FAILS(SBN_E_STATE, SECOND(s));
    OK(sbn_norm_forward(s.norm, &s.x, &s.y));
    FAILS(SBN_E_STATE, SECOND(s));
    OK(sbn_norm_backward_begin(s.norm, &s.dy, &s.dx));
    FAILS(SBN_E_STATE, SECOND(s));
    OK(sbn_norm_backward_end(s.norm));
    OK(SECOND(s));
    OK(SECOND(s)); /* as often as one likes */
    OK(sbn_norm_forward(s.norm, &s.x, &s.y));
    FAILS(SBN_E_STATE, SECOND(s));
    OK(sbn_norm_set_mode(s.norm, SBN_NORM_FROZEN));
    seat_step(&s, false);
    FAILS(SBN_E_STATE, SECOND(s));
    OK(sbn_norm_set_mode(s.norm, SBN_NORM_TRAIN));
    seat_step(&s, false);
    OK(sbn_norm_set_mode(s.norm, SBN_NORM_EVAL)); /* does not disturb */
    OK(sbn_norm_forward(s.norm, &s.x, &s.y));
    OK(SECOND(s));
    float dy0 = *(float *)s.dy.data;
    *(float *)s.dy.data = NAN;
    FAILS(SBN_E_NONFINITE, sbn_norm_backward(s.norm, &s.dy, &s.dx));
    *(float *)s.dy.data = dy0;
    FAILS(SBN_E_STATE, SECOND(s)); /* the failed backward left no sums */
    FAILS(SBN_E_ARG, sbn_norm_second_backward(NULL, &s.z, NULL, NULL, &s.dz, NULL, NULL));
    seat_free(&s);
    joined_free(&b);
}

/* The call fails for all, writes nothing, and the next one is right. */
static void second_fails(seat *s, int bad, sbn_status code, const sbn_tensor *v,
                         sbn_tensor *ddy, sbn_tensor *gx)
{
    sbn_tensor good_ddy = tensor_like(&s->x), good_gx = tensor_like(&s->x);
    float ggamma[3] = {7, 7, 7};
    bool mine = IS_BAD(bad);
    FAILS_ON(bad, code,
             sbn_norm_second_backward(s->norm, mine ? v : &s->z, NULL, NULL,
                                      mine ? ddy : &good_ddy, mine ? gx : &good_gx,
                                      ggamma));
    assert_true(isnan(tensor_get(&good_ddy, 0, 0, 0)) && ggamma[0] == 7);
    OK(sbn_norm_second_backward(s->norm, &s->z, NULL, NULL, &good_ddy, &good_gx, ggamma));
    assert_false(isnan(tensor_get(&good_gx, 0, 0, 0)) || ggamma[0] == 7);
    tensor_free(&good_ddy);
    tensor_free(&good_gx);
}

static void wrong_arguments(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, small, 66);
    sbn_norm_config cfg = joined_config(&b);
    cfg.second_order = true;
    seat s = seat_make(&cfg, test_group, &b, NCHW, 0, b.n);
    EACH_BAD(bad)
    {
        seat_step(&s, false);
        sbn_tensor *v = &s.z, *ddy = &s.dz, *gx = &s.y, few = s.dz, rows = s.dz;
        few.n--;
        rows.h = 4, rows.w = 1;
        second_fails(&s, bad, SBN_E_ARG, NULL, ddy, gx);
        second_fails(&s, bad, SBN_E_ARG, &few, ddy, gx);
        second_fails(&s, bad, SBN_E_ARG, v, &few, gx);
        second_fails(&s, bad, SBN_E_ARG, v, ddy, &rows);
        sbn_tensor *inputs[] = {&s.x, &s.dy, v};
        for (int k = 0; k < 3; k++) {
            second_fails(&s, bad, SBN_E_ARG, v, inputs[k], gx);
            second_fails(&s, bad, SBN_E_ARG, v, ddy, inputs[k]);
        }
        second_fails(&s, bad, SBN_E_ARG, v, ddy, ddy);
        sbn_tensor last = tensor_make(NHWC, SBN_F32, b.n, b.c, b.h, b.w);
        second_fails(&s, bad, SBN_E_ARG, v, ddy, &last);
        tensor_fill(&last, b.dy_d, 0);
        second_fails(&s, bad, SBN_E_ARG, &last, ddy, gx);
        tensor_free(&last);
        double x = tensor_get(v, 1, 2, 3);
        sbn_tensor poisoned = tensor_like(v);
        tensor_fill(&poisoned, b.dy_d, 0);
        tensor_set(&poisoned, 1, 2, 3, NAN);
        second_fails(&s, bad, SBN_E_NONFINITE, &poisoned, ddy, gx);
        tensor_set(&poisoned, 1, 2, 3, x);
        tensor_free(&poisoned);
        /* dx in the place of dy on the bad ones */
        OK(sbn_norm_backward(s.norm, &s.dy, IS_BAD(bad) ? &s.dy : &s.dx));
        FAILS_ON(bad, SBN_E_ARG, SECOND(s));
        tensor_fill(&s.dy, b.dy_d, 0);
    }
    seat_free(&s);
    joined_free(&b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(is_the_derivative_of_the_first),
    cmocka_unit_test(deals_and_unwanted_outputs_do_not_show),
    cmocka_unit_test(out_of_order),
    cmocka_unit_test(wrong_arguments),
};
TEST_MAIN(tests)
