/* Tables, and kernels of exact sums, on every instruction set and type. */
#include "support/harness.h"
#include "support/tables.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "comm/exact.h"
#include "core/rng.h"
#include "support/cases.h"
#include "support/element.h"

/* A double with 53 random bits and exponent low … high-1. */
static double any(int64_t i, int low, int high)
{
    sbni_rng_key key = {.seed = 52, .purpose = SBNI_RNG_TEST};
    double m = 1 + sbni_rng_uniform(key, (uint64_t)i, 0);
    int e = low + (int)(sbni_rng_uniform(key, (uint64_t)i, 1) * (high - low));
    return ldexp(sbni_rng_u64(key, (uint64_t)i, 2) & 1 ? -m : m, e - 1);
}

/* The vector kernel and the scalar function put the same words. */
static void words_of_sums(const sbni_norm_kernels *k, sbn_dtype t)
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
            bool fine = false;
            for (int64_t i = 0; i < c; i++)
                fine |= fabs(with ? v[i] * factor[i] : v[i]) < 0x1p-60;
            for (int pass = 0; pass < 3; pass++)
                assert_int_equal(k->words_add_sums(c, v, with ? factor : NULL, words),
                                 fine ? SBNI_GRID_TOO_FINE : 0);
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
static void words_of_moments(const sbni_norm_kernels *k, sbn_dtype t)
{
    for (int s = 0; s < EDGE_SIZES; s++) {
        int64_t c = edge_sizes[s];
        double pivot[100], d[100], dd[100];
        uint64_t words[SBNI_MOMENT_WORDS * 100] = {0};
        for (int64_t i = 0; i < c; i++) {
            pivot[i] = any(i, -20, 30);
            if (t != SBN_F64) pivot[i] = (double)(float)pivot[i];
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
static void flagged_channels(const sbni_norm_kernels *k, sbn_dtype t)
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

#define WALK(walk, check)                                                                \
    static void walk_##check(void **state)                                               \
    {                                                                                    \
        (void)state;                                                                     \
        walk(check);                                                                     \
    }
WALK(each_norm_table, words_of_sums)
WALK(each_norm_table, words_of_moments)
WALK(each_norm_table, flagged_channels)
WALK(each_table, gradients)

static void tables(void **state)
{
    (void)state;
    assert_null(sbni_kernels_of("none", SBN_F32));
    assert_null(sbni_norm_kernels_of("none", SBN_F32));
    assert_null(sbni_kernels_of("base", SBN_BF16));
    assert_non_null(sbni_kernels_of("base", SBN_F32));
    setenv("SBN_ISA", "base", 1);
    assert_ptr_equal(sbni_kernels_get(SBN_F64), sbni_kernels_of("base", SBN_F64));
    assert_ptr_equal(sbni_norm_kernels_get(SBN_BF16),
                     sbni_norm_kernels_of("base", SBN_BF16));
    unsetenv("SBN_ISA");
    const char *best = sbni_kernels_isas()[0];
    assert_ptr_equal(sbni_kernels_get(SBN_F32), sbni_kernels_of(best, SBN_F32));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(tables),
    cmocka_unit_test(walk_words_of_sums),
    cmocka_unit_test(walk_words_of_moments),
    cmocka_unit_test(walk_flagged_channels),
    cmocka_unit_test(walk_gradients),
};
TEST_MAIN(tests)
