/* Kernels of normalization: both forms, every instruction set and storage type. */
#include "support/harness.h"
#include "support/tables.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/cases.h"
#include "support/element.h"
#include "support/norm_slice.h"

enum { MOST_C = 75, STRAY = 3 };
static const int64_t samples[] = {1, 3, 16}, channels[] = {1, 3, 8, 17, 75}, most_s = 33;
/* of pixels without gaps; with those a vector ends with a pixel after 1, 3, 5 and more */
static const int64_t few[] = {1, 2, 3, 4, 5, 6, 7, 10, 12, 20, 24, 40};

/* What lies between the runs and in samples left out is as it was. */
static void check_gaps(const slice *v, const sbni_view *w)
{
    unsigned char *touched = calloc((size_t)v->count, 1), *b = w->data;
    assert_non_null(touched);
    EACH(v, r, i, j) touched[place(v, w, r, i, j)] = 1;
    int64_t size = sbn_dtype_bytes(v->t);
    for (int64_t e = 0; e < v->count; e++)
        for (int64_t k = 0; k < size && !touched[e]; k++)
            assert_int_equal(b[e * size + k], 0xa5);
    free(touched);
}

static void record_view(const slice *v, const sbni_view *w)
{
    record(w->data, v->count * sbn_dtype_bytes(v->t));
}

/* Sums begin at 0, at the first value, or at the mean: nowhere more than three deviations
 * off; and at 0 where that is so, unless a look at a few values said otherwise. */
static void check_pivot(const slice *v, double pivot, double first, double mean,
                        double var)
{
    double off = pow(pivot - mean, 2);
    /* the error of a mean is that of a sum of m distances; only nearness counts */
    double close = 1e-6 * sqrt(var) + rounding(v->f) * fabs(mean);
    assert_true(pivot == 0 || pivot == first || fabs(pivot - mean) <= close);
    assert_true(off < 9.1 * var || off <= close * close);
    double near = v->b.s < 8 ? 8.9 : 1;
    if (v->t != SBN_F64 && pow(mean, 2) < near * var) assert_true(pivot == 0);
}

static void check_moments(const sbni_norm_kernels *k, slice *v)
{
    double pivot[MOST_C + 1], d[MOST_C + 1], dd[MOST_C + 1];
    int64_t c = v->b.c;
    pivot[c] = d[c] = dd[c] = 77;
    k->norm_moments(&v->b, &v->x, pivot, d, dd);
    assert_true(pivot[c] == 77 && d[c] == 77 && dd[c] == 77);
    long double sum[MOST_C] = {0}, size[MOST_C] = {0}, squares[MOST_C] = {0};
    EACH(v, r, i, j)
    {
        long double e = (long double)at(v, &v->x, r, i, j) - pivot[i];
        sum[i] += e, size[i] += fabsl(e), squares[i] += e * e;
    }
    for (int64_t i = 0; i < c; i++) {
        double first = at(v, &v->x, 0, i, 0), m = (double)(v->b.n * v->b.s);
        double mean = pivot[i] + (double)sum[i] / m,
               var = (double)squares[i] / m - pow((double)sum[i] / m, 2);
        check_pivot(v, pivot[i], first, mean, var);
        /* one rounding for each value and for its square, of a double in all types */
        double unit = (double)(v->b.n * v->b.s + 2) * DBL_EPSILON / 2;
        CLOSE(d[i], (double)sum[i], unit * (double)size[i]);
        CLOSE(dd[i], (double)squares[i], 2 * unit * (double)squares[i]);
    }
    record(pivot, c * 8), record(d, c * 8), record(dd, c * 8);
}

/* Sums about 0 are made in another way where all of a call are: with the same bits. */
static void check_neighbours(const sbni_norm_kernels *k, slice *v)
{
    double alone[3][MOST_C], beside[3][MOST_C];
    const int64_t c = v->b.c, others = c - 1;
    EACH(v, r, i, j) /* a mean within a deviation of 0 */
    set_element(v->t, v->x.data, place(v, &v->x, r, i, j),
                ((r + j) % 2 ? 1 : -1) * (1 + (double)((3 * i + 5 * j + r) % 7) / 7));
    k->norm_moments(&v->b, &v->x, alone[0], alone[1], alone[2]);
    EACH(v, r, i, j)
    if (i == others) {
        int64_t e = place(v, &v->x, r, i, j);
        set_element(v->t, v->x.data, e, 100 + element(v->t, v->x.data, e));
    }
    k->norm_moments(&v->b, &v->x, beside[0], beside[1], beside[2]);
    if (v->b.n * v->b.s > 1) assert_true(beside[0][others] > 90);
    if (v->b.s >= 8) assert_true(beside[0][others] == at(v, &v->x, 0, others, 0));
    for (int a = 0; a < 3; a++) same_bits(alone[a], beside[a], others * 8);
}

/* Elements of what was written with none and with all far; beside others a channel has
 * the same bits. */
typedef struct two_ways {
    void *kept[2];
} two_ways;

static void check_ways(const slice *v, const sbni_view *w, int far, two_ways *ways)
{
    size_t bytes = (size_t)(v->count * sbn_dtype_bytes(v->t));
    if (far < SOME) {
        ways->kept[far] = malloc(bytes);
        assert_non_null(ways->kept[far]);
        memcpy(ways->kept[far], w->data, bytes);
        return;
    }
    EACH(v, r, i, j)
    {
        const void *kept = ways->kept[is_far(v, SOME, i) ? ALL : NONE];
        assert_true(at(v, w, r, i, j) == element(v->t, kept, place(v, w, r, i, j)));
    }
    free(ways->kept[NONE]), free(ways->kept[ALL]);
}

/* x − what is at hi and lo, and the size of what was rounded in it. */
static double off(const slice *v, const void *hi, const void *lo, int64_t r, int64_t i,
                  int64_t j, double *size)
{
    double x = at(v, &v->x, r, i, j), from = factor(v, hi, i);
    *size = fabs(x) + fabs(from);
    return (x - from) - factor(v, lo, i);
}

static double off_centre(const slice *v, int64_t r, int64_t i, int64_t j, double *size)
{
    return off(v, v->centre_hi, v->centre_lo, r, i, j, size);
}

/* The value before relu, and the largest error that its roundings may leave. */
static double before(const slice *v, bool add, int64_t r, int64_t i, int64_t j,
                     double *error)
{
    double size, d = off_centre(v, r, i, j, &size), scale = factor(v, v->scale, i),
                 shift = factor(v, v->shift, i), z = add ? at(v, &v->z, r, i, j) : 0;
    *error = rounding(v->f) *
             (4 * size * fabs(scale) + 2 * (fabs(d * scale) + fabs(shift)) + fabs(z));
    return d * scale + shift + z;
}

static void check_normalize(const sbni_norm_kernels *k, slice *v)
{
    two_ways ways[4];
    for (int how = 0; how < 4 * FARS; how++) {
        bool relu = how & 1, add = how & 2;
        set_far(v, how / 4);
        sbni_fused fused = {relu, add ? &v->z : NULL};
        k->norm_normalize(&v->b, &v->x, &v->ch, &fused, &v->y);
        check_gaps(v, &v->y);
        check_ways(v, &v->y, how / 4, &ways[how % 4]);
        EACH(v, r, i, j)
        {
            double error, want = before(v, add, r, i, j, &error);
            if (relu && want < 0) want = 0;
            CLOSE(at(v, &v->y, r, i, j), want,
                  error + (v->t == SBN_BF16 ? 1.01 * rounding(v->t) * fabs(want) : 0));
        }
        record_view(v, &v->y);
        /* y in the place of x */
        int64_t bytes = v->count * sbn_dtype_bytes(v->t);
        void *kept = malloc((size_t)bytes);
        assert_non_null(kept);
        memcpy(kept, v->x.data, (size_t)bytes);
        k->norm_normalize(&v->b, &v->x, &v->ch, &fused, &v->x);
        EACH(v, r, i, j)
        assert_true(at(v, &v->x, r, i, j) == at(v, &v->y, r, i, j));
        memcpy(v->x.data, kept, (size_t)bytes);
        free(kept);
    }
}

/* dy behind relu. Signs too close to tell are not asked: false. */
static bool gated(const slice *v, bool add, bool relu, int64_t r, int64_t i, int64_t j,
                  double *g)
{
    double error, y = before(v, add, r, i, j, &error);
    *g = relu && y <= 0 ? 0 : at(v, &v->dy, r, i, j);
    return !relu || fabs(y) > error;
}

static void check_sums(const sbni_norm_kernels *k, slice *v)
{
    double ways[4][2][2][MOST_C];
    for (int how = 0; how < 4 * FARS; how++) {
        bool relu = how & 1, add = how & 2;
        set_far(v, how / 4);
        double sum[MOST_C + 1], sum_d[MOST_C + 1];
        int64_t c = v->b.c;
        sum[c] = sum_d[c] = 77;
        sbni_fused fused = {relu, add ? &v->z : NULL};
        k->norm_backward_sums(&v->b, &v->dy, &v->x, &v->ch, &fused, sum, sum_d);
        assert_true(sum[c] == 77 && sum_d[c] == 77);
        long double want[MOST_C] = {0}, want_d[MOST_C] = {0}, size[MOST_C] = {0},
                    size_d[MOST_C] = {0}, unsure[MOST_C] = {0}, unsure_d[MOST_C] = {0};
        EACH(v, r, i, j)
        {
            double g, s, d = off(v, v->hi, v->lo, r, i, j, &s);
            if (!gated(v, add, relu, r, i, j, &g)) {
                double full = fabs(at(v, &v->dy, r, i, j));
                unsure[i] += full, unsure_d[i] += full * fabs(d);
            }
            want[i] += g, size[i] += fabs(g);
            want_d[i] += (long double)g * d, size_d[i] += fabs(g) * s;
        }
        for (int64_t i = 0; i < c; i++) {
            double unit = (double)(v->b.n * v->b.s + 2) * DBL_EPSILON / 2;
            CLOSE(sum[i], (double)want[i], unit * (double)size[i] + (double)unsure[i]);
            /* and two differences or, about 0, a product and a difference */
            CLOSE(sum_d[i], (double)want_d[i],
                  (unit + DBL_EPSILON) * (double)size_d[i] + (double)unsure_d[i]);
            int way = how / 4 < SOME ? how / 4 : is_far(v, SOME, i) ? ALL : NONE;
            double *to[] = {&ways[how % 4][way][0][i], &ways[how % 4][way][1][i]};
            if (how / 4 < SOME)
                *to[0] = sum[i], *to[1] = sum_d[i];
            else /* beside others: the same bits */
                assert_true(*to[0] == sum[i] && *to[1] == sum_d[i]);
        }
        record(sum, c * 8), record(sum_d, c * 8);
    }
}

static void check_dx(const sbni_norm_kernels *k, slice *v)
{
    double store = v->t == SBN_BF16 ? 1.01 * rounding(v->t) : 0;
    two_ways ways[6];
    for (int how = 0; how < 6 * FARS; how++) {
        int which = how % 6;
        bool relu = which & 1, add = which & 2, wants_dz = which >= 2;
        set_far(v, how / 6);
        sbni_fused fused = {relu, add || which >= 4 ? &v->z : NULL};
        add = fused.add != NULL;
        k->norm_backward_dx(&v->b, &v->dy, &v->x, &v->ch, &v->dx_f, &fused, &v->dx,
                            wants_dz ? &v->dz : NULL);
        check_gaps(v, &v->dx);
        check_ways(v, &v->dx, how / 6, &ways[which]);
        EACH(v, r, i, j)
        {
            double g, s, d = off_centre(v, r, i, j, &s);
            if (!gated(v, add, relu, r, i, j, &g)) continue;
            double a = factor(v, v->a, i) * g, b = factor(v, v->bb, i),
                   kk = factor(v, v->k, i), want = a - b - kk * d;
            /* product, two differences; and two differences and a product */
            CLOSE(at(v, &v->dx, r, i, j), want,
                  rounding(v->f) * (3 * fabs(a) + 2 * fabs(b) + 5 * fabs(kk) * s) +
                      store * (fabs(want) + fabs(kk) * s * rounding(v->f)));
            if (wants_dz) assert_true(at(v, &v->dz, r, i, j) == g);
        }
        record_view(v, &v->dx);
        /* in the place of dy; and the other gradient alone */
        int64_t bytes = v->count * sbn_dtype_bytes(v->t);
        void *kept = malloc((size_t)bytes);
        assert_non_null(kept);
        memcpy(kept, v->dy.data, (size_t)bytes);
        k->norm_backward_dx(&v->b, &v->dy, &v->x, &v->ch, &v->dx_f, &fused, &v->dy, NULL);
        EACH(v, r, i, j)
        assert_true(at(v, &v->dy, r, i, j) == at(v, &v->dx, r, i, j));
        memcpy(v->dy.data, kept, (size_t)bytes);
        if (wants_dz) {
            k->norm_backward_dx(&v->b, &v->dy, &v->x, &v->ch, &v->dx_f, &fused, NULL,
                                &v->dy);
            EACH(v, r, i, j)
            assert_true(at(v, &v->dy, r, i, j) == at(v, &v->dz, r, i, j));
            memcpy(v->dy.data, kept, (size_t)bytes);
        }
        free(kept);
    }
}

/* Where statistics are constants x is not there, and may not be asked for. */
static void check_dx_without_x(const sbni_norm_kernels *k, slice *v)
{
    const sbni_fused fused = {false, NULL};
    set_far(v, ALL);
    for (int64_t i = 0; i < v->b.c; i++) {
        set_element(v->f, v->centre_hi, i, INFINITY);
        set_element(v->f, v->bb, i, 0), set_element(v->f, v->k, i, 0);
    }
    k->norm_backward_dx(&v->b, &v->dy, NULL, &v->ch, &v->dx_f, &fused, &v->dx, NULL);
    check_gaps(v, &v->dx);
    EACH(v, r, i, j)
    {
        double want = factor(v, v->a, i) * at(v, &v->dy, r, i, j);
        CLOSE(at(v, &v->dx, r, i, j), want, rounding(v->t) * 1.01 * fabs(want));
    }
    record_view(v, &v->dx);
}

static void check_clear(const sbni_norm_kernels *k, slice *v)
{
    k->norm_clear(&v->b, &v->dz);
    EACH(v, r, i, j) assert_true(at(v, &v->dz, r, i, j) == 0);
    check_gaps(v, &v->dz);
}

static void (*const checks[])(const sbni_norm_kernels *, slice *) = {
    check_moments, check_neighbours,   check_normalize, check_sums,
    check_dx,      check_dx_without_x, check_clear};
enum { CHECKS = sizeof checks / sizeof *checks };

static void layer_kernels(const sbni_norm_kernels *k, sbn_dtype t)
{
    for (int planes = 0; planes < 2; planes++)
        for (int n = 0; n < 3; n++)
            for (int c = 0; c < 5; c++)
                for (int s = 0; s < EDGE_SIZES && edge_sizes[s] <= most_s; s++)
                    for (int which = 0; which < CHECKS; which++) {
                        /* every size of n, c and s, but not all the largest at once */
                        if (samples[n] * channels[c] * edge_sizes[s] > 2500) continue;
                        slice v = slice_make(t, planes, STRAY, samples[n], channels[c],
                                             edge_sizes[s]);
                        v.b.rows = v.rows;
                        checks[which](k, &v);
                        slice_free(&v);
                    }
}

static void pixels_without_gaps(const sbni_norm_kernels *k, sbn_dtype t)
{
    static const int64_t pixels[] = {1, 2, 17, 64, 81};
    for (size_t c = 0; c < sizeof few / sizeof *few; c++)
        for (size_t s = 0; s < sizeof pixels / sizeof *pixels; s++)
            for (int which = 0; which < CHECKS; which++) {
                slice v = slice_make(t, false, 0, 2, few[c], pixels[s]);
                v.b.rows = v.rows;
                checks[which](k, &v);
                slice_free(&v);
            }
}

static void every_form_type_and_instruction_set(void **state)
{
    (void)state;
    each_norm_table(layer_kernels);
}

static void pixels_without_gaps_of_every_type(void **state)
{
    (void)state;
    each_norm_table(pixels_without_gaps);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_form_type_and_instruction_set),
    cmocka_unit_test(pixels_without_gaps_of_every_type),
};
TEST_MAIN(tests)
