/* Kernels of the layer and of the exact sums, on every instruction set and type. */
#include "support/harness.h"
#include "support/tables.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "comm/exact.h"
#include "core/rng.h"
#include "support/layer.h"

enum { MOST_C = 17 };
static const int64_t rows[] = {1, 3, 16}, channels[] = {1, 3, 8, 17};

/* One slice and factors, for each shape in turn. */
typedef struct slice {
    int64_t n, c, s;
    void *x, *dy, *hi, *lo, *scale, *shift, *a, *b, *k;
    sbni_channels ch;
    sbni_dx_factors f;
} slice;

static slice slice_make(sbn_dtype t, int64_t n, int64_t c, int64_t s)
{
    slice v = {.n = n, .c = c, .s = s, .x = room(t, n * c * s), .dy = room(t, n * c * s)};
    draw(t, v.x, n * c * s, 0);
    draw(t, v.dy, n * c * s, 1);
    void **factor[] = {&v.hi, &v.lo, &v.scale, &v.shift, &v.a, &v.b, &v.k};
    for (uint32_t i = 0; i < 7; i++) {
        *factor[i] = room(t, c);
        draw(t, *factor[i], c, 2 + i);
    }
    for (int64_t i = 0; i < c; i++) /* the second part of a mean is small */
        set_element(t, v.lo, i, element(t, v.lo, i) * rounding(t));
    v.ch = (sbni_channels){v.hi, v.lo, v.scale, v.shift};
    v.f = (sbni_dx_factors){v.a, v.b, v.k};
    return v;
}

static void slice_free(sbn_dtype t, slice *v)
{
    room_check(t, v->x, v->n * v->c * v->s);
    room_check(t, v->dy, v->n * v->c * v->s);
    void *factor[] = {v->hi, v->lo, v->scale, v->shift, v->a, v->b, v->k};
    for (int i = 0; i < 7; i++) room_check(t, factor[i], v->c);
}

static void each_slice(const sbni_kernels *k, sbn_dtype t,
                       void (*check)(const sbni_kernels *, sbn_dtype, const slice *))
{
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 4; c++)
            for (int s = 0; s < EDGE_SIZES; s++) {
                slice v = slice_make(t, rows[r], channels[c], edge_sizes[s]);
                check(k, t, &v);
                slice_free(t, &v);
            }
}

static void check_moments(const sbni_kernels *k, sbn_dtype t, const slice *v)
{
    double pivot[MOST_C + 1], d[MOST_C + 1], dd[MOST_C + 1];
    pivot[v->c] = d[v->c] = dd[v->c] = 77;
    k->norm_moments(v->x, v->n, v->c, v->s, pivot, d, dd);
    assert_true(pivot[v->c] == 77 && d[v->c] == 77 && dd[v->c] == 77);
    for (int64_t i = 0; i < v->c; i++) {
        double p = element(t, v->x, i * v->s);
        long double sum = 0, size = 0, squares = 0;
        for (int64_t r = 0; r < v->n; r++)
            for (int64_t j = 0; j < v->s; j++) {
                long double e =
                    (long double)element(t, v->x, (r * v->c + i) * v->s + j) - p;
                sum += e, size += fabsl(e), squares += e * e;
            }
        assert_true(pivot[i] == p);
        /* one rounding for each value and for its square, of a double in both types */
        double unit = (double)(v->n * v->s + 2) * DBL_EPSILON / 2;
        CLOSE(d[i], (double)sum, unit * (double)size);
        CLOSE(dd[i], (double)squares, 2 * unit * (double)squares);
    }
    record(pivot, v->c * 8);
    record(d, v->c * 8);
    record(dd, v->c * 8);
}

static void check_normalize(const sbni_kernels *k, sbn_dtype t, const slice *v)
{
    int64_t all = v->n * v->c * v->s, bytes = all * sbn_dtype_bytes(t);
    void *y = room(t, all);
    k->norm_normalize(v->x, v->n, v->c, v->s, &v->ch, y);
    for (int64_t e = 0; e < all; e++) {
        int64_t i = e / v->s % v->c;
        double scale = element(t, v->scale, i), shift = element(t, v->shift, i);
        double d = (element(t, v->x, e) - element(t, v->hi, i)) - element(t, v->lo, i);
        /* two differences, product, sum; d itself has an error of a double */
        CLOSE(element(t, y, e), d * scale + shift,
              rounding(t) * (5 * fabs(d * scale) + fabs(shift) + fabs(scale)));
    }
    record(y, bytes);
    void *place = room(t, all);
    memcpy(place, v->x, (size_t)bytes);
    k->norm_normalize(place, v->n, v->c, v->s, &v->ch, place);
    same_bits(place, y, bytes);
    room_check(t, place, all);
    room_check(t, y, all);
}

static void check_backward_sums(const sbni_kernels *k, sbn_dtype t, const slice *v)
{
    double sum[MOST_C + 1], sum_d[MOST_C + 1];
    sum[v->c] = sum_d[v->c] = 77;
    k->norm_backward_sums(v->dy, v->x, v->n, v->c, v->s, &v->ch, sum, sum_d);
    assert_true(sum[v->c] == 77 && sum_d[v->c] == 77);
    for (int64_t i = 0; i < v->c; i++) {
        long double want = 0, want_d = 0, size = 0, size_d = 0;
        double hi = element(t, v->hi, i), lo = element(t, v->lo, i);
        for (int64_t r = 0; r < v->n; r++)
            for (int64_t j = 0; j < v->s; j++) {
                int64_t at = (r * v->c + i) * v->s + j;
                long double g = element(t, v->dy, at), x = element(t, v->x, at);
                want += g, size += fabsl(g);
                want_d += g * (x - hi - lo);
                size_d += fabsl(g) * (fabsl(x) + fabs(hi));
            }
        double unit = (double)(v->n * v->s + 2) * DBL_EPSILON / 2;
        CLOSE(sum[i], (double)want, unit * (double)size);
        /* and the two differences in the type */
        CLOSE(sum_d[i], (double)want_d, (unit + 3 * rounding(t)) * (double)size_d);
    }
    record(sum, v->c * 8);
    record(sum_d, v->c * 8);
}

static void check_dx(const sbni_kernels *k, sbn_dtype t, const slice *v)
{
    int64_t all = v->n * v->c * v->s, bytes = all * sbn_dtype_bytes(t);
    void *dx = room(t, all);
    k->norm_backward_dx(v->dy, v->x, v->n, v->c, v->s, &v->ch, &v->f, dx);
    for (int64_t e = 0; e < all; e++) {
        int64_t i = e / v->s % v->c;
        double a = element(t, v->a, i) * element(t, v->dy, e), b = element(t, v->b, i),
               x = element(t, v->x, e), hi = element(t, v->hi, i),
               kd = element(t, v->k, i) * ((x - hi) - element(t, v->lo, i)),
               size = fabs(element(t, v->k, i)) * (fabs(x) + fabs(hi));
        /* at most: product, difference, difference; and two differences and a product */
        CLOSE(element(t, dx, e), a - b - kd,
              rounding(t) * (3 * fabs(a) + 2 * fabs(b) + 5 * size));
    }
    record(dx, bytes);
    void *place = room(t, all);
    memcpy(place, v->dy, (size_t)bytes);
    k->norm_backward_dx(place, v->x, v->n, v->c, v->s, &v->ch, &v->f, place);
    same_bits(place, dx, bytes);
    room_check(t, place, all);
    room_check(t, dx, all);
}

static void layer_kernels(const sbni_kernels *k, sbn_dtype t)
{
    each_slice(k, t, check_moments);
    each_slice(k, t, check_normalize);
    each_slice(k, t, check_backward_sums);
    each_slice(k, t, check_dx);
}

/* A double with 53 random bits and exponent low … high-1. */
static double any(int64_t i, int low, int high)
{
    sbni_rng_key key = {.seed = 52, .purpose = SBNI_RNG_TEST};
    double m = 1 + sbni_rng_uniform(key, (uint64_t)i, 0);
    int e = low + (int)(sbni_rng_uniform(key, (uint64_t)i, 1) * (high - low));
    return ldexp(sbni_rng_u64(key, (uint64_t)i, 2) & 1 ? -m : m, e - 1);
}

/* The vector kernel and the scalar function put the same words. */
static void words_of_sums(const sbni_kernels *k, sbn_dtype t)
{
    (void)t;
    for (int s = 0; s < EDGE_SIZES; s++)
        for (int with = 0; with < 2; with++) {
            int64_t c = edge_sizes[s];
            double v[100], factor[100];
            uint64_t words[4 * 100] = {0}, want[4] = {0};
            for (int64_t i = 0; i < c; i++) {
                v[i] = any(i + 100 * s, -200, 55);
                factor[i] = any(i + 7000, -3, 3);
            }
            for (int pass = 0; pass < 3; pass++)
                assert_int_equal(k->words_add_sums(c, v, with ? factor : NULL, words), 0);
            for (int64_t i = 0; i < c; i++) {
                memset(want, 0, sizeof want);
                for (int pass = 0; pass < 3; pass++)
                    sbni_exact_add(with ? v[i] * factor[i] : v[i], want);
                for (int w = 0; w < 4; w++) assert_true(words[w * c + i] == want[w]);
            }
            record(words, 4 * c * 8);
        }
}

/* Σx of m values: the words hold Σd + m·p exactly; Σx² is read back by the variance. */
static void words_of_moments(const sbni_kernels *k, sbn_dtype t)
{
    for (int s = 0; s < EDGE_SIZES; s++) {
        int64_t c = edge_sizes[s];
        double pivot[100], d[100], dd[100];
        uint64_t words[SBNI_MOMENT_WORDS * 100] = {0};
        for (int64_t i = 0; i < c; i++) {
            pivot[i] = any(i, -20, 30);
            if (t == SBN_F32) pivot[i] = (double)(float)pivot[i];
            d[i] = any(i + 300, -20, 30);
            dd[i] = d[i] * d[i] * 0.7;
        }
        assert_int_equal(k->words_add_moments(c, 3, pivot, d, dd, words), 0);
        for (int64_t i = 0; i < c; i++) {
            uint64_t want[SBNI_SUM_WORDS] = {0};
            double mp = 3 * pivot[i];
            sbni_exact_add(d[i], want);
            sbni_exact_add(mp, want);
            sbni_exact_add(fma(3, pivot[i], -mp), want);
            for (int w = 0; w < SBNI_SUM_WORDS; w++)
                assert_true(words[w * c + i] == want[w]);
            /* 3Σx² − (Σx)² = 3Σd² − (Σd)²: the pivot drops out exactly */
            long double spread =
                3 * (long double)dd[i] - (long double)d[i] * (long double)d[i];
            sbni_moments m = sbni_exact_moments(words + i, c, 3, 1);
            CLOSE(m.var, (double)(spread / 9), 1e-14 * m.var);
        }
        record(words, (int64_t)sizeof words);
    }
}

/* A channel that does not fit adds nothing and is told; its neighbours add. */
static void flagged_channels(const sbni_kernels *k, sbn_dtype t)
{
    (void)t;
    const struct {
        double p, d, dd;
        int flag;
    } bad[] = {{NAN, 0, 0, SBNI_GRID_NONFINITE},
               {1, NAN, 1, SBNI_GRID_NONFINITE},
               {INFINITY, NAN, NAN, SBNI_GRID_NONFINITE},
               {1, -INFINITY, INFINITY, SBNI_GRID_NONFINITE},
               {0x1p60, 0, 0, SBNI_GRID_TOO_LARGE},
               {1, 0x1p60, 1, SBNI_GRID_TOO_LARGE},
               {1, 1, 0x1p110, SBNI_GRID_TOO_LARGE},
               {0x1p56, 0x1p55, 1, SBNI_GRID_TOO_LARGE},
               {1, 1, INFINITY, SBNI_GRID_TOO_LARGE}};
    enum { C = 11 };
    for (int b = 0; b < 9; b++)
        for (int at = 0; at < C; at++) {
            double p[C], d[C], dd[C];
            uint64_t words[SBNI_MOMENT_WORDS * C] = {0}, sums[SBNI_SUM_WORDS * C] = {0};
            for (int i = 0; i < C; i++) p[i] = 1, d[i] = 2, dd[i] = 3;
            p[at] = bad[b].p, d[at] = bad[b].d, dd[at] = bad[b].dd;
            assert_int_equal(k->words_add_moments(C, 2, p, d, dd, words), bad[b].flag);
            for (int i = 0; i < C; i++)
                CLOSE(sbni_exact_sum(words + i, C), i == at ? 0 : 4, 0);
            if (fabs(d[at]) < 0x1p60) continue;
            assert_int_equal(k->words_add_sums(C, d, NULL, sums), bad[b].flag);
            for (int i = 0; i < C; i++)
                CLOSE(sbni_exact_sum(sums + i, C), i == at ? 0 : 2, 0);
        }
}

static void gradients(const sbni_kernels *k, sbn_dtype t)
{
    for (int s = 0; s < EDGE_SIZES; s++) {
        int64_t n = edge_sizes[s];
        uint64_t words[101] = {0};
        void *g = room(t, n), *back = room(t, n);
        draw(t, g, n, 9);
        double largest = 0;
        for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs(element(t, g, i)));
        for (int pass = 0; pass < 2; pass++)
            assert_true(k->grad_quantize(g, n, 0x1p40, words) == largest);
        for (int64_t i = 0; i < n; i++) {
            double want = nearbyint(element(t, g, i) * 0x1p40);
            assert_true((int64_t)words[i] == 2 * (int64_t)want);
        }
        assert_true(words[n] == 0);
        k->grad_dequantize(words, n, 0x1p-41, back);
        for (int64_t i = 0; i < n; i++) {
            double want = (double)(int64_t)words[i] * 0x1p-41;
            if (t == SBN_F32) want = (double)(float)want;
            assert_true(element(t, back, i) == want);
        }
        record(words, n * 8);
        record(back, n * sbn_dtype_bytes(t));
        /* infinity and NaN are not hidden, wherever they are and by whatever follows */
        for (int64_t at = 0; at < n; at += 1 + n / 3) {
            set_element(t, g, at, -INFINITY);
            assert_true(k->grad_quantize(g, n, 1, words) > DBL_MAX);
            set_element(t, g, (at + 1) % n, -NAN);
            assert_true(isnan(k->grad_quantize(g, n, 1, words)));
            set_element(t, g, at, 0);
            set_element(t, g, (at + 1) % n, 0);
        }
        room_check(t, g, n);
        room_check(t, back, n);
    }
}

#define WALK(check)                                                                      \
    static void walk_##check(void **state)                                               \
    {                                                                                    \
        (void)state;                                                                     \
        each_table(check);                                                               \
    }
WALK(layer_kernels)
WALK(words_of_sums)
WALK(words_of_moments)
WALK(flagged_channels)
WALK(gradients)

static void tables(void **state)
{
    (void)state;
    assert_null(sbni_kernels_of("none", SBN_F32));
    assert_non_null(sbni_kernels_of("base", SBN_F32));
    setenv("SBN_ISA", "base", 1);
    assert_ptr_equal(sbni_kernels_get(SBN_F64), sbni_kernels_of("base", SBN_F64));
    unsetenv("SBN_ISA");
    const char *best = sbni_kernels_isas()[0];
    assert_ptr_equal(sbni_kernels_get(SBN_F32), sbni_kernels_of(best, SBN_F32));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(tables),
    cmocka_unit_test(walk_layer_kernels),
    cmocka_unit_test(walk_words_of_sums),
    cmocka_unit_test(walk_words_of_moments),
    cmocka_unit_test(walk_flagged_channels),
    cmocka_unit_test(walk_gradients),
};
TEST_MAIN(tests)
