/* What kernels add to exact words, on every instruction set and type, against a
 * part-by-part conversion. */
#include "support/harness.h"
#include "support/slices.h"
#include "support/tables.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "comm/exact.h"
#include "core/rng.h"
#include "support/cases.h"
#include "support/element.h"

static uint64_t words[M * STRIDE], other[M * STRIDE];

/* A double with 53 random bits and exponent low … high-1. */
static double any(int64_t i, int low, int high)
{
    double m = 1 + sbni_rng_uniform(words_key, (uint64_t)i, 0);
    int e = low + (int)(sbni_rng_uniform(words_key, (uint64_t)i, 1) * (high - low));
    return ldexp(sbni_rng_u64(words_key, (uint64_t)i, 2) & 1 ? -m : m, e - 1);
}

/* A slice onto words [M], each product as a pair of its own. */
static void put_slice(double m, double p, double d, double dd, uint64_t *to)
{
    double mp = m * p, pd = 2 * p * d, pp = p * p, pp_low = fma(p, p, -pp);
    const double sums[] = {d, mp, fma(m, p, -mp)};
    const double squares[] = {dd,
                              pd,
                              fma(2 * p, d, -pd),
                              m * pp,
                              fma(m, pp, -(m * pp)),
                              m * pp_low,
                              fma(m, pp_low, -(m * pp_low))};
    for (int k = 0; k < 3; k++) put_part(sums[k], SBNI_SUM_LSB, S, to);
    for (int k = 0; k < 7; k++) put_part(squares[k], SBNI_SQUARE_LSB, Q, to + S);
}

/* Numbers on the grid, however their words are split, differ by `most` last bits. */
static void same_value(const uint64_t *got, int64_t stride, const uint64_t *want,
                       int count, int64_t most)
{
    int64_t carry = 0, low = 0;
    for (int k = 0; k < count; k++) {
        int64_t v = (int64_t)(got[k * stride] - want[k]) + carry;
        carry = (v + (INT64_C(1) << 39)) >> SBNI_GRID_BITS;
        v -= carry * (INT64_C(1) << SBNI_GRID_BITS);
        if (k == 0)
            low = v;
        else
            assert_true(v == 0);
    }
    assert_true(carry == 0);
    assert_in_range(low + most, 0, 2 * most);
}

/* Any number of slices of any kind: the value of the parts; nothing beyond channel c. */
static void words_of_moments(const sbni_words_kernels *k, sbn_dtype t)
{
    for (int s = 0; s < EDGE_SIZES; s++)
        for (int kind = 0; kind < KINDS; kind++) {
            int64_t c = edge_sizes[s], count = slice_counts[(s + kind) % 6];
            draw_slices(t, c, count, kind);
            memset(words, 0xa5, sizeof words);
            assert_int_equal(add_slices(k, c, 0, count, words) & ~SBNI_GRID_TOO_FINE, 0);
            for (int64_t i = 0; i < STRIDE; i++) {
                uint64_t want[M];
                memset(want, 0xa5, sizeof want);
                for (int64_t j = 0; i < c && j < count; j++)
                    put_slice(in.m[j], in.p[j * STRIDE + i], in.d[j * STRIDE + i],
                              in.dd[j * STRIDE + i], want);
                /* half a last bit for each part, here and there */
                same_value(words + i, STRIDE, want, S, i < c ? 3 * count : 0);
                same_value(words + S * STRIDE + i, STRIDE, want + S, Q,
                           i < c ? 5 * count : 0);
            }
            record(words, (int64_t)sizeof words);
        }
}

/* Floats of ordinary sizes have no bit below the grid: every last bit is right. */
static void words_of_floats_are_exact(const sbni_words_kernels *k, sbn_dtype t)
{
    if (t == SBN_F64) return;
    draw_slices(t, MOST_C, MOST_SLICES, ORDINARY);
    memset(words, 0, sizeof words);
    assert_int_equal(add_slices(k, MOST_C, 0, MOST_SLICES, words), 0);
    for (int64_t i = 0; i < MOST_C; i++) {
        uint64_t want[M] = {0};
        for (int64_t j = 0; j < MOST_SLICES; j++)
            put_slice(in.m[j], in.p[j * STRIDE + i], in.d[j * STRIDE + i],
                      in.dd[j * STRIDE + i], want);
        same_value(words + i, STRIDE, want, S, 0);
        same_value(words + S * STRIDE + i, STRIDE, want + S, Q, 0);
    }
}

/* Words, to the bit: one call or many, in any order, and beside whatever neighbours. */
static void words_do_not_tell_the_calls(const sbni_words_kernels *k, sbn_dtype t)
{
    enum { C = 21 };
    for (int kind = 0; kind < KINDS; kind++) {
        draw_slices(t, C, MOST_SLICES, kind);
        memset(words, 0, sizeof words);
        memset(other, 0, sizeof other);
        add_slices(k, C, 0, MOST_SLICES, words);
        for (int64_t j = MOST_SLICES; j > 0; j -= 7) add_slices(k, C, j - 7, 7, other);
        assert_memory_equal(words, other, sizeof words);
        /* channel by channel: others cannot choose its way */
        memset(other, 0, sizeof other);
        for (int64_t j = MOST_SLICES - 1; j >= 0; j--)
            for (int64_t i = 0; i < C; i++)
                k->add_moments(1, 1, STRIDE, in.m + j, in.p + j * STRIDE + i,
                               in.d + j * STRIDE + i, in.dd + j * STRIDE + i, other + i);
        assert_memory_equal(words, other, sizeof words);
    }
}

/* 3Σx² − (Σx)² = 3Σd² − (Σd)²: the pivot drops out exactly, however large. */
static void the_pivot_drops_out(const sbni_words_kernels *k, sbn_dtype t)
{
    for (int64_t i = 0; i < 2000; i++) {
        const double m = 3;
        bool far = i % 2; /* p above 2^35 d */
        double p = round_to(t, any(i, far ? 20 : -20, 30)),
               d = any(i + 3000, far ? -25 : -20, far ? -15 : 30), dd = d * d * 0.7;
        uint64_t to[M] = {0};
        assert_int_equal(k->add_moments(1, 1, 1, &m, &p, &d, &dd, to), 0);
        long double spread = 3 * (long double)dd - (long double)d * (long double)d;
        sbni_moments got = sbni_exact_moments(to, 1, 3, 1);
        CLOSE(got.var, (double)(spread / 9), 1e-14 * got.var);
    }
}

/* A slice of a channel that does not fit adds nothing and is told; all others, which have
 * that pivot, add. */
static void flagged_slices_about(double pivot, const sbni_words_kernels *k, sbn_dtype t)
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
               {1e200, -1e250, 1, SBNI_GRID_TOO_LARGE},
               {1, 1, INFINITY, SBNI_GRID_TOO_LARGE},
               {1, 0, 0x1p-91, SBNI_GRID_TOO_FINE},
               {0x1p-46, 0, 0, SBNI_GRID_TOO_FINE},
               {0, NAN, 1, SBNI_GRID_NONFINITE},
               {0, 0, -NAN, SBNI_GRID_TOO_LARGE},
               {0, 0x1p60, 1, SBNI_GRID_TOO_LARGE},
               {0, 1, 0x1p110, SBNI_GRID_TOO_LARGE},
               {0, 0, 0x1p-91, SBNI_GRID_TOO_FINE},
               {0, 0, 0x1.fffffffffffffp-91, SBNI_GRID_TOO_FINE},
               {0, 0, 0x1p-1074, SBNI_GRID_TOO_FINE},
               {0, 0, 0x1p-90, 0}};
    enum { C = 11, N = 3 };
    const double m[N] = {2, 2, 2};
    for (int b = 0; b < (int)(sizeof bad / sizeof *bad); b++)
        for (int at = 0; at < C; at++) {
            double p[N * C], d[N * C], dd[N * C];
            uint64_t to[M * C] = {0}, sums[S * C] = {0};
            for (int i = 0; i < N * C; i++) p[i] = pivot, d[i] = 2, dd[i] = 3;
            int place = b % N * C + at;
            p[place] = bad[b].p, d[place] = bad[b].d, dd[place] = bad[b].dd;
            bool adds = bad[b].flag == SBNI_GRID_TOO_FINE || bad[b].flag == 0;
            assert_int_equal(k->add_moments(C, N, C, m, p, d, dd, to), bad[b].flag);
            for (int i = 0; i < C; i++) {
                double part = adds ? 2 * bad[b].p : 0, whole = 2 + 2 * pivot;
                CLOSE(sbni_exact_sum(to + i, C), i == at ? 2 * whole + part : 3 * whole,
                      0);
            }
            if (fabs(d[place]) < 0x1p60) continue;
            assert_int_equal(k->add_sums(C, N, C, d, NULL, sums), bad[b].flag);
            for (int i = 0; i < C; i++)
                CLOSE(sbni_exact_sum(sums + i, C), i == at ? 4 : 6, 0);
        }
}

static void flagged_slices(const sbni_words_kernels *k, sbn_dtype t)
{
    flagged_slices_about(1, k, t);
    flagged_slices_about(0, k, t);
}

/* As many slices as promised, of the largest sums that fit. */
static void all_slices_of_the_largest(const sbni_words_kernels *k, sbn_dtype t)
{
    (void)t;
    enum { N = SBNI_GRID_ADDS };
    double *m = malloc(4 * N * sizeof *m), *p = m + N, *d = p + N, *dd = d + N;
    assert_non_null(m);
    for (int sign = -1; sign <= 1; sign += 2) {
        double x = sign * 0x1p54, most = sign * nextafter(0x1p60, 0);
        uint64_t to[M] = {0}, sums[S] = {0};
        for (int64_t i = 0; i < N; i++)
            m[i] = 1, p[i] = x, d[i] = 0, dd[i] = nextafter(0x1.8p109, 0);
        assert_int_equal(k->add_moments(1, N, 1, m, p, d, dd, to), 0);
        assert_true(sbni_exact_sum(to, 1) == N * x);
        sbni_moments got = sbni_exact_moments(to, 1, N, N);
        assert_true(got.mean == x && got.mean_low == 0);
        CLOSE(got.var, dd[0], DBL_EPSILON * dd[0]);
        for (int64_t i = 0; i < N; i++) d[i] = most;
        assert_int_equal(k->add_sums(1, N, 1, d, NULL, sums), 0);
        assert_true(sbni_exact_sum(sums, 1) == N * most);
    }
    free(m);
}

/* The vector kernel and the scalar function put the same words. */
static void words_of_sums(const sbni_words_kernels *k, sbn_dtype t)
{
    (void)t;
    static double v[MOST_SLICES * STRIDE], factor[MOST_C];
    for (int s = 0; s < EDGE_SIZES; s++)
        for (int how = 0; how < 4; how++) {
            bool with = how & 1, ordinary = how & 2;
            int64_t c = edge_sizes[s], count = slice_counts[(s + how) % 6];
            for (int64_t i = 0; i < MOST_SLICES * STRIDE; i++)
                v[i] = i % STRIDE >= c ? (double)NAN
                       : ordinary      ? any(i + 100 * s, -50, 15)
                                       : any(i + 100 * s, -200, 55);
            for (int64_t i = 0; i < c; i++) factor[i] = any(i + 7000, -3, 3);
            memset(words, 0, sizeof words);
            int found = k->add_sums(c, count, STRIDE, v, with ? factor : NULL, words);
            bool fine = false;
            for (int64_t i = 0; i < STRIDE; i++) {
                uint64_t want[S] = {0};
                for (int64_t j = 0; i < c && j < count; j++) {
                    double a = v[j * STRIDE + i] * (with ? factor[i] : 1);
                    fine |= fabs(a) < 0x1p-60;
                    sbni_exact_add(a, want);
                }
                for (int w = 0; w < S; w++) assert_true(words[w * STRIDE + i] == want[w]);
            }
            assert_int_equal(found, fine ? SBNI_GRID_TOO_FINE : 0);
            record(words, (int64_t)sizeof words);
        }
}

#define WALK(check)                                                                      \
    static void walk_##check(void **state)                                               \
    {                                                                                    \
        (void)state;                                                                     \
        each_words_table(check);                                                         \
    }
WALK(words_of_moments)
WALK(words_of_floats_are_exact)
WALK(words_do_not_tell_the_calls)
WALK(the_pivot_drops_out)
WALK(flagged_slices)
WALK(all_slices_of_the_largest)
WALK(words_of_sums)

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(walk_words_of_moments),
    cmocka_unit_test(walk_words_of_floats_are_exact),
    cmocka_unit_test(walk_words_do_not_tell_the_calls),
    cmocka_unit_test(walk_the_pivot_drops_out),
    cmocka_unit_test(walk_flagged_slices),
    cmocka_unit_test(walk_all_slices_of_the_largest),
    cmocka_unit_test(walk_words_of_sums),
};
TEST_MAIN(tests)
