/* Exact sums: words on the grid against wide integers and long double. */
#include "support/harness.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "comm/exact.h"
#include "core/rng.h"
#include "kernels/kernels.h"

__extension__ typedef __int128 wide;

enum { M = SBNI_MOMENT_WORDS };
static const sbni_rng_key key = {.seed = 11, .purpose = SBNI_RNG_TEST};

static double uniform(int64_t i, uint32_t draw)
{
    return sbni_rng_uniform(key, (uint64_t)i, draw);
}

static double normal(int64_t i, uint32_t draw)
{
    return sbni_rng_normal(key, (uint64_t)i, draw);
}

/* A double of either sign with 53 random bits and exponent low … high-1. */
static double any(int64_t i, int low, int high)
{
    double m = (double)((sbni_rng_u64(key, (uint64_t)i, 0) >> 11) | (UINT64_C(1) << 52));
    int e = low + (int)(uniform(i, 1) * (high - low));
    return ldexp(sbni_rng_u64(key, (uint64_t)i, 2) & 1 ? -m : m, e - 53);
}

/* 2^-exponent·words as a wide integer, where it fits. */
static wide as_integer(const uint64_t *words)
{
    wide sum = 0;
    for (int k = SBNI_SUM_WORDS - 1; k >= 0; k--)
        sum = sum * ((wide)1 << SBNI_GRID_BITS) + (int64_t)words[k];
    return sum;
}

/* All bits of values below 2^20 whose lowest bit is at or above 2^-100 are kept. */
static void sums_are_those_of_wide_integers(void **state)
{
    (void)state;
    uint64_t words[SBNI_SUM_WORDS] = {0};
    wide want = 0;
    for (int64_t i = 0; i < 20000; i++) {
        double v = any(i, -46, 20);
        assert_int_equal(sbni_exact_add(v, words), 0);
        int e;
        double m = ldexp(frexp(v, &e), 53); /* v = m·2^(e-53), e-53 >= -100 */
        want += (wide)(int64_t)m * ((wide)1 << (e - 53 - SBNI_SUM_LSB));
        assert_true(as_integer(words) == want);
    }
}

/* Full exponent range of the grid: exact partial sums by long double where it is exact,
 * and the sum correctly rounded: v - rounded is at most half a unit. */
static void a_sum_is_rounded_once(void **state)
{
    (void)state;
    for (int64_t i = 0; i < 20000; i++) {
        uint64_t words[SBNI_SUM_WORDS] = {0};
        wide want = 0;
        for (int k = 0; k < 3; k++) {
            double v = any(3 * i + k, -46, 20);
            sbni_exact_add(v, words);
            want += (wide)ldexp(v, 53 + 46) * 2; /* |v|·2^100 < 2^120, lowest bit >= 2 */
        }
        double got = sbni_exact_sum(words, 1);
        /* the conversion of a wide integer rounds to nearest, ties to even */
        assert_true(got == ldexp((double)want, SBNI_SUM_LSB));
    }
}

/* 2^59 and half a unit is a tie, which goes down to even; the grid's last bit decides. */
static void the_last_bit_breaks_a_tie(void **state)
{
    (void)state;
    for (int sign = -1; sign <= 1; sign += 2) {
        uint64_t words[SBNI_SUM_WORDS] = {0};
        sbni_exact_add(sign * 0x1p59, words);
        sbni_exact_add(sign * 0x1p6, words);
        assert_true(sbni_exact_sum(words, 1) == sign * 0x1p59);
        sbni_exact_add(sign * 0x1p-100, words);
        assert_true(sbni_exact_sum(words, 1) == sign * (0x1p59 + 0x1p7));
    }
}

/* Every exponent alone comes back to the last bit, down to the resolution. */
static void one_value_comes_back(void **state)
{
    (void)state;
    for (int e = -1074; e <= 60; e++)
        for (int sign = -1; sign <= 1; sign += 2) {
            uint64_t words[SBNI_SUM_WORDS] = {0};
            double v = sign * ldexp(1 + uniform(e + 2000, 0), e - 1);
            assert_int_equal(sbni_exact_add(v, words), 0);
            /* half a unit of the grid at most; values from 2^-47 on are whole units */
            double allowed = e > -48 ? 0 : ldexp(0.5, SBNI_SUM_LSB);
            CLOSE(sbni_exact_sum(words, 1), v, allowed);
        }
}

static void order_does_not_show(void **state)
{
    (void)state;
    enum { N = 5000 };
    uint64_t there[SBNI_SUM_WORDS] = {0}, back[SBNI_SUM_WORDS] = {0},
             halves[2][SBNI_SUM_WORDS] = {{0}};
    for (int64_t i = 0; i < N; i++) {
        assert_int_equal(sbni_exact_add(any(i, -300, 60), there), 0);
        assert_int_equal(sbni_exact_add(any(N - 1 - i, -300, 60), back), 0);
        assert_int_equal(sbni_exact_add(any(i, -300, 60), halves[i % 2]), 0);
    }
    for (int k = 0; k < SBNI_SUM_WORDS; k++) halves[0][k] += halves[1][k];
    assert_memory_equal(there, back, sizeof there);
    assert_memory_equal(there, halves[0], sizeof there);
}

/* 2^60 and its negative around small values: what is left is the small ones. */
static void large_parts_cancel_exactly(void **state)
{
    (void)state;
    uint64_t words[SBNI_SUM_WORDS] = {0};
    const double large = nextafter(ldexp(1, 60), 0), small = 1.0 / 3;
    sbni_exact_add(large, words);
    sbni_exact_add(-small, words);
    sbni_exact_add(-large, words);
    assert_true(sbni_exact_sum(words, 1) == -small);
    sbni_exact_add(small, words);
    assert_true(sbni_exact_sum(words, 1) == 0);
}

/* As many additions as promised, of the most that one may bring to each word. */
static void words_have_room_for_all_additions(void **state)
{
    (void)state;
    for (int sign = -1; sign <= 1; sign += 2) {
        uint64_t words[SBNI_SUM_WORDS];
        int64_t most = 6 * (INT64_C(1) << SBNI_GRID_BITS) * (int64_t)SBNI_GRID_ADDS;
        long double want = 0;
        for (int k = 0; k < SBNI_SUM_WORDS; k++) {
            words[k] = (uint64_t)(sign * most);
            want += ldexpl((long double)(sign * most), SBNI_SUM_LSB + SBNI_GRID_BITS * k);
        }
        /* 4 long double roundings, then one to double */
        CLOSE(sbni_exact_sum(words, 1), (double)want, DBL_EPSILON * fabs((double)want));
    }
}

static void flags(void **state)
{
    (void)state;
    uint64_t words[SBNI_SUM_WORDS] = {0}, zero[SBNI_SUM_WORDS] = {0};
    assert_int_equal(sbni_exact_add(NAN, words), SBNI_GRID_NONFINITE);
    assert_int_equal(sbni_exact_add(INFINITY, words), SBNI_GRID_NONFINITE);
    assert_int_equal(sbni_exact_add(-INFINITY, words), SBNI_GRID_NONFINITE);
    assert_int_equal(sbni_exact_add(0x1p60, words), SBNI_GRID_TOO_LARGE);
    assert_int_equal(sbni_exact_add(-DBL_MAX, words), SBNI_GRID_TOO_LARGE);
    assert_memory_equal(words, zero, sizeof zero);
}

/* Moments of n values cut into slices of `slice`, by the double kernels. */
static sbni_moments moments(const double *x, int64_t n, int64_t slice, int *found)
{
    const sbni_norm_kernels *k = sbni_norm_kernels_get(SBN_F64);
    const sbni_words_kernels *w = sbni_words_kernels_get(SBN_F64);
    uint64_t words[M] = {0};
    int64_t slices = 0;
    *found = 0;
    for (int64_t at = 0; at < n; at += slice, slices++) {
        int64_t m = slice < n - at ? slice : n - at;
        double pivot, d, dd;
        const int64_t row = 0;
        sbni_block b = {&row, 1, 1, m, true, false, false};
        sbni_view view = {(double *)(uintptr_t)(x + at), m, m, 1};
        k->norm_moments(&b, &view, &pivot, &d, &dd);
        const double values = (double)m;
        *found |= w->add_moments(1, 1, 1, &values, &pivot, &d, &dd, words);
    }
    return sbni_exact_moments(words, 1, n, slices);
}

static void trap_04_any_mean_leaves_the_variance(void **state)
{
    (void)state;
    enum { N = 2000 };
    static double x[N];
    for (int ratio = 0; ratio <= 8; ratio++)
        for (int scale = -6; scale <= 3; scale++)
            for (int64_t slice = 7; slice <= 700; slice *= 10) {
                double deviation = pow(10, scale);
                double mean = ratio ? deviation * pow(10, ratio) : 0;
                long double sum = 0, squares = 0;
                for (int i = 0; i < N; i++) {
                    x[i] = mean + deviation * normal(i, 3);
                    sum += x[i];
                }
                long double center = sum / N;
                for (int i = 0; i < N; i++) {
                    long double d = x[i] - center;
                    squares += d * d;
                }
                int found;
                sbni_moments m = moments(x, N, slice, &found);
                assert_int_equal(found, 0);
                double var = (double)(squares / N);
                CLOSE(m.var, var, 1e-12 * var);
                /* the mean in two parts is right far below the deviation; long double
                 * itself is good to 2^-64·N of the mean */
                CLOSE((double)((m.mean - center) + m.mean_low), 0,
                      1e-13 * deviation + 0x1p-62 * mean);
            }
}

static void trap_05_constant_channels(void **state)
{
    (void)state;
    static double x[3000];
    for (int e = -20; e <= 12; e++)
        for (int form = 0; form < 4; form++)
            for (int64_t n = 2; n <= 3000; n = n * 3 + 1) {
                double mantissa[] = {1, 1.0 / 3, (double)0.7f, 3.141592653589793};
                double v = (form % 2 ? -1 : 1) * mantissa[form] * pow(10, e);
                for (int64_t i = 0; i < n; i++) x[i] = v;
                for (int64_t slice = 1; slice <= n; slice = slice * 11 + 5) {
                    int found;
                    sbni_moments m = moments(x, n, slice, &found);
                    assert_int_equal(found,
                                     v * v < 0x1p-90 ? found & SBNI_GRID_TOO_FINE : 0);
                    assert_true(m.var == 0);
                    /* below 2^-47 the grid holds fewer than 53 bits of a value */
                    CLOSE(m.mean + m.mean_low, v,
                          DBL_EPSILON / 2 * fabs(v) + ldexp(3, SBNI_SUM_LSB));
                }
            }
}

/* The smallest variance next to a mean is not taken for noise: one value of a thousand
 * is one float beside the others. */
static void one_last_bit_is_a_variance(void **state)
{
    (void)state;
    enum { N = 1000 };
    static double x[N];
    for (int e = -6; e <= 12; e++) {
        float v = (float)pow(10, e), beside = nextafterf(v, 2 * v);
        for (int i = 0; i < N; i++) x[i] = (double)v;
        x[700] = (double)beside;
        double d = (double)beside - (double)v, var = d * d * (N - 1.0) / N / N;
        int found;
        CLOSE(moments(x, N, 16, &found).var, var, 1e-12 * var);
        assert_int_equal(found, 0);
    }
    /* in doubles: 1 ± 2^-44 */
    for (int i = 0; i < N; i++) x[i] = 1 + (i % 2 ? 0x1p-44 : -0x1p-44);
    int found;
    CLOSE(moments(x, N, 16, &found).var, 0x1p-88, 1e-12 * 0x1p-88);
}

static void moments_do_not_depend_on_order(void **state)
{
    (void)state;
    enum { SLICES = 200 };
    const double five = 5;
    const sbni_words_kernels *k = sbni_words_kernels_get(SBN_F64);
    uint64_t there[M] = {0}, back[M] = {0};
    for (int i = 0; i < 2 * SLICES; i++) {
        int at = i < SLICES ? i : 2 * SLICES - 1 - i;
        double pivot = any(at, -60, 40), d = any(at + 1000, -60, 40),
               dd = fabs(any(at + 2000, -100, 100));
        assert_int_equal(
            k->add_moments(1, 1, 1, &five, &pivot, &d, &dd, i < SLICES ? there : back) &
                ~SBNI_GRID_TOO_FINE,
            0);
    }
    assert_memory_equal(there, back, sizeof there);
}

static void moments_flag_what_does_not_fit(void **state)
{
    (void)state;
    const double bad[][2] = {
        {NAN, SBNI_GRID_NONFINITE},       {INFINITY, SBNI_GRID_NONFINITE},
        {-INFINITY, SBNI_GRID_NONFINITE}, {1e18, SBNI_GRID_TOO_LARGE},
        {-1e30, SBNI_GRID_TOO_LARGE},     {1e200, SBNI_GRID_TOO_LARGE}};
    for (int k = 0; k < 6; k++)
        for (int place = 0; place < 40; place += 13) {
            double x[40];
            for (int i = 0; i < 40; i++) x[i] = normal(i, 4);
            x[place] = bad[k][0];
            int found;
            moments(x, 40, 16, &found);
            assert_int_equal(found, (int)bad[k][1]);
        }
    /* 1e12 everywhere in 16 images of 256×256 does fit */
    uint64_t words[M] = {0};
    double m = 0x1p20, pivot = 1e12, d = 1e12, dd = 1e24;
    assert_int_equal(
        sbni_words_kernels_get(SBN_F32)->add_moments(1, 1, 1, &m, &pivot, &d, &dd, words),
        0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(sums_are_those_of_wide_integers),
    cmocka_unit_test(a_sum_is_rounded_once),
    cmocka_unit_test(the_last_bit_breaks_a_tie),
    cmocka_unit_test(one_value_comes_back),
    cmocka_unit_test(order_does_not_show),
    cmocka_unit_test(large_parts_cancel_exactly),
    cmocka_unit_test(words_have_room_for_all_additions),
    cmocka_unit_test(flags),
    cmocka_unit_test(trap_04_any_mean_leaves_the_variance),
    cmocka_unit_test(trap_05_constant_channels),
    cmocka_unit_test(one_last_bit_is_a_variance),
    cmocka_unit_test(moments_do_not_depend_on_order),
    cmocka_unit_test(moments_flag_what_does_not_fit),
};
TEST_MAIN(tests)
