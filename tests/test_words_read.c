/* What kernels read from exact words, on every instruction set and type, against wide
 * integers. */
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

/* What a kernel read of some channels; left: those it says it left to wide integers. */
typedef struct reading {
    double mean[MOST_C], low[MOST_C], var[MOST_C], sum[MOST_C];
    int64_t left;
} reading;

/* Every channel is either left or has the bits of wide integers. */
static reading read_words(const sbni_words_kernels *k, int64_t c, int64_t n,
                          int64_t count)
{
    reading r;
    r.left = k->read_moments(c, STRIDE, words, n, count, r.mean, r.low, r.var);
    int64_t left = 0, sums_left = 0;
    for (int64_t i = 0; i < c; i++) {
        if (signbit(r.var[i])) {
            left++;
            continue;
        }
        sbni_moments want = sbni_exact_moments(words + i, STRIDE, n, count);
        assert_true(r.mean[i] == want.mean && r.low[i] == want.mean_low);
        assert_true(r.var[i] == want.var);
    }
    assert_int_equal(r.left, left);
    int64_t told = k->read_sums(c, STRIDE, words, r.sum);
    for (int64_t i = 0; i < c; i++)
        if (isnan(r.sum[i]))
            sums_left++;
        else
            assert_true(r.sum[i] == sbni_exact_sum(words + i, STRIDE));
    assert_int_equal(told, sums_left);
    record(&r.left, 8);
    record(r.sum, c * 8);
    record(r.var, c * 8);
    record(r.mean, c * 8);
    record(r.low, c * 8);
    return r;
}

/* Of data: hardly any channel is left, whatever its mean and scale, constants included.
 */
static void reading_data(const sbni_words_kernels *k, sbn_dtype t)
{
    int64_t channels = 0, left = 0;
    for (int s = 0; s < EDGE_SIZES; s++)
        for (int kind = 0; kind < MIXED; kind++) {
            int64_t c = edge_sizes[s], count = slice_counts[(s + kind) % 6], n = 0;
            draw_slices(t, c, count, kind);
            memset(words, 0, sizeof words);
            add_slices(k, c, 0, count, words);
            for (int64_t j = 0; j < count; j++) n += (int64_t)in.m[j];
            reading r = read_words(k, c, n, count);
            for (int64_t i = 0; i < c && kind == EQUAL; i++)
                assert_true(r.var[i] == 0 || signbit(r.var[i]));
            left += r.left;
            channels += c;
        }
    assert_true(100 * left <= channels);
}

/* Of words as they come: any digits, many of them 0 or at their limits, so that sums lie
 * on and next to ties. */
static void reading_any_words(const sbni_words_kernels *k, sbn_dtype t)
{
    (void)t;
    static const int64_t limit[] = {0,
                                    0,
                                    1,
                                    -1,
                                    1 << 12,
                                    INT64_C(1) << 39,
                                    -(INT64_C(1) << 39),
                                    (INT64_C(1) << 39) + 1};
    for (int64_t round = 0; round < 400; round++) {
        for (int64_t i = 0; i < M * STRIDE; i++) {
            int64_t at = round * M * STRIDE + i, wide = 2 + below(58, at, 5);
            int64_t digit =
                below(3, at, 3)
                    ? limit[below(8, at, 4)]
                    : (int64_t)sbni_rng_u64(words_key, (uint64_t)at, 6) >> wide;
            /* Σx² is not negative */
            int64_t w = i / STRIDE - S, top = below(Q, i % STRIDE + 100 * round, 8);
            if (w >= 0 && w < top) digit %= INT64_C(1) << SBNI_GRID_BITS;
            if (w >= 0 && w == top) digit = llabs(digit) + 2;
            if (w > top) digit = 0;
            words[i] = (uint64_t)digit;
        }
        int64_t n =
            round % 3 == 0 ? 1 + round : 1 + (below(1 << 20, round, 7) << (round % 33));
        read_words(k, edge_sizes[round % EDGE_SIZES], n, 1 + round);
    }
}

/* 2^59 and half a last place, alone and with the grid's last bit beside it; the same for
 * n·Σx² − (Σx)² with Σx = 0. */
static void reading_ties(const sbni_words_kernels *k, sbn_dtype t)
{
    (void)t;
    memset(words, 0, sizeof words);
    for (int i = 0; i < 27; i++) {
        int tie = i / 3 % 3 - 1, last = i % 3 - 1, base = i / 9;
        memset(other, 0, sizeof other);
        sbni_exact_add(0x1p50 * (1 + base * DBL_EPSILON), other);
        sbni_exact_add(tie * 0x1p-3, other);
        sbni_exact_add(last * 0x1p-100, other);
        for (int w = 0; w < S; w++) words[w * STRIDE + i] = other[w];
    }
    read_words(k, 27, 3, 1);
    memset(words, 0, sizeof words);
    for (int i = 0; i < 27; i++) {
        int tie = i / 3 % 3 - 1, last = i % 3 - 1, base = i / 9;
        memset(other, 0, sizeof other);
        put_part(0x1p50 * (1 + base * DBL_EPSILON), SBNI_SQUARE_LSB, Q, other);
        put_part(tie * 0x1p-3, SBNI_SQUARE_LSB, Q, other);
        put_part(last * 0x1p-130, SBNI_SQUARE_LSB, Q, other);
        for (int w = 0; w < Q; w++) words[(S + w) * STRIDE + i] = other[w];
    }
    read_words(k, 27, 1, 1);
}

/* Counts of values that a double does not hold are left to integers. */
static void reading_huge_counts(const sbni_words_kernels *k, sbn_dtype t)
{
    draw_slices(t, 9, 2, ORDINARY);
    memset(words, 0, sizeof words);
    add_slices(k, 9, 0, 2, words);
    read_words(k, 9, (INT64_C(1) << 53) - 1, 2);
    assert_int_equal(read_words(k, 9, (INT64_C(1) << 53) + 1, 2).left, 9);
}

#define WALK(check)                                                                      \
    static void walk_##check(void **state)                                               \
    {                                                                                    \
        (void)state;                                                                     \
        each_words_table(check);                                                         \
    }
WALK(reading_data)
WALK(reading_any_words)
WALK(reading_ties)
WALK(reading_huge_counts)

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(walk_reading_data),
    cmocka_unit_test(walk_reading_any_words),
    cmocka_unit_test(walk_reading_ties),
    cmocka_unit_test(walk_reading_huge_counts),
};
TEST_MAIN(tests)
