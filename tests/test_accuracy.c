/* How exact the statistics are: variances within 1e-12 of a long-double two-pass over the
 * whole batch, whatever mean, deviation, type, shape and count. */
#include "support/harness.h"

#include <float.h>
#include <math.h>
#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "norm/norm.h"
#include "norm/scope.h"
#include "support/layer.h"

static const double goal = 1e-12;

/* One channel of n samples with s values each, as a function of the place alone. */
typedef struct channel {
    sbn_dtype dtype;
    int64_t n, s;
    double mean, deviation;
    double far; /* what the first value lies off the others, in deviations */
} channel;

/* 64 well-mixed bits of a counter (splitmix64): cheaper than the library's draws, of
 * which ten million take seconds. */
static uint64_t mix(uint64_t z)
{
    z = (z + 1) * 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* Value e, rounded to the type: the sum of two uniform draws has deviation 1 and reaches
 * out to 2.4 of them. */
static double value(const channel *ch, int64_t e)
{
    uint64_t bits = mix((uint64_t)e);
    double unit = (double)(bits >> 32) + (double)(bits & 0xffffffff);
    double v = ch->mean + ch->deviation * (unit * 0x1p-32 - 1) * sqrt(6);
    if (e == 0) v += ch->far * ch->deviation;
    return ch->dtype == SBN_F64 ? v : (double)(float)v;
}

static long double sum_group(long double mine)
{
    long double all;
    MPI_Allreduce(&mine, &all, 1, MPI_LONG_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return all;
}

/* Σ (x - centre)^power over the group. Parts of a thousand first: in one row n values
 * would leave n·2^-64 of the sum, which shows beside a rounding of a double. */
static long double sum_about(const channel *ch, const void *x, int64_t count,
                             long double centre, int power)
{
    long double sum = 0;
    for (int64_t from = 0; from < count; from += 1000) {
        long double part = 0;
        for (int64_t e = from; e < count && e < from + 1000; e++) {
            long double d = element(ch->dtype, x, e) - centre;
            part += power == 1 ? d : d * d;
        }
        sum += part;
    }
    return sum_group(sum);
}

/* Mean and biased variance of the whole batch in two passes; each process adds up the
 * values that it holds. The first pass counts from a value of the batch, so that a large
 * mean costs no digits. */
static void reference(const channel *ch, const void *x, int64_t count, long double *mean,
                      long double *var)
{
    long double n = (long double)(ch->n * ch->s), origin = value(ch, 0);
    *mean = origin + sum_about(ch, x, count, origin, 1) / n;
    *var = sum_about(ch, x, count, *mean, 2) / n;
}

/* The variance in double before it is rounded to the layer's type. All that this file
 * knows of the layer's innards. */
static double inner_variance(const sbn_norm *norm)
{
    return 1 / (norm->rstd_d[0] * norm->rstd_d[0]) - norm->cfg.eps;
}

typedef struct moments {
    double var, running_mean, running_var; /* what the layer has */
    long double true_mean, true_var;
} moments;

/* A layer's statistics of this process's samples first … first+n-1, beside the true ones.
 */
static moments measure(const channel *ch, int64_t first, int64_t n)
{
    moments m;
    int64_t count = n * ch->s;
    void *x = malloc((size_t)(count + 1) * 8), *y = malloc((size_t)(count + 1) * 8);
    assert_true(x && y);
    for (int64_t e = 0; e < count; e++)
        set_element(ch->dtype, x, e, value(ch, first * ch->s + e));
    sbn_norm_config cfg = sbn_norm_config_default(1);
    cfg.dtype = ch->dtype;
    cfg.momentum = 1;
    cfg.eps = 1e-60; /* far below any variance here, and 1/sqrt of it fits a float */
    sbn_norm *norm;
    OK(sbn_norm_create(&cfg, test_group, &norm));
    sbn_tensor to = sbn_tensor_nchw(ch->dtype, y, n, 1, ch->s, 1),
               from = sbn_tensor_nchw(ch->dtype, x, n, 1, ch->s, 1);
    OK(sbn_norm_forward(norm, &from, &to));
    sbn_norm_state state = sbn_norm_get_state(norm);
    m.running_mean = element(ch->dtype, state.running_mean, 0);
    m.running_var = element(ch->dtype, state.running_var, 0);
    m.var = inner_variance(norm);
    reference(ch, x, count, &m.true_mean, &m.true_var);
    sbn_norm_destroy(&norm);
    free(x);
    free(y);
    return m;
}

static double relative(double got, long double want)
{
    return (double)fabsl((got - want) / want);
}

/* Measure, compare; what was measured. */
static moments check(const channel *ch, int64_t first, int64_t n)
{
    moments m = measure(ch, first, n);
    double u = ch->dtype == SBN_F64 ? DBL_EPSILON / 2 : (double)FLT_EPSILON / 2;
    double total = (double)(ch->n * ch->s);
    CLOSE(m.running_mean, (double)m.true_mean,
          u * fabs((double)m.true_mean) + goal * ch->deviation);
    if (m.true_var == 0) {
        /* the values are equal once rounded: no remainder, however small */
        CLOSE(m.var, 0, 1e-75);
        assert_true(m.running_var == 0);
        return m;
    }
    double error = relative(m.var, m.true_var);
    if (!(error <= goal))
        fprintf(stderr, "f%d n=%lld s=%lld mean=%g deviation=%g\n",
                ch->dtype == SBN_F64 ? 64 : 32, (long long)ch->n, (long long)ch->s,
                ch->mean, ch->deviation);
    CLOSE(error, 0, goal);
    CLOSE(relative(m.running_var, m.true_var * total / (total - 1)), 0, goal + u);
    return m;
}

/* Whole slices, and even shares that may end inside one. */
static void share(const channel *ch, bool whole, int64_t *first, int64_t *n)
{
    *first = ch->n * test_rank / test_size;
    *n = ch->n * (test_rank + 1) / test_size - *first;
    if (whole) sbni_scope_share(ch->n, 0, test_rank, test_size, first, n);
}

static const double ratios[] = {0, 1, 1e2, 1e4, 1e6, 1e8},
                    scales[] = {1e-12, 1e-6, 1, 1e6};

static void variance_at_every_mean_and_scale(void **state)
{
    (void)state;
    static const int64_t shapes[][2] = {{4001, 1}, {257, 17}, {40, 100}, {3, 700}};
    for (int k = 0; k < 2 * 4 * 6 * 4; k++) {
        channel ch = {k % 2 ? SBN_F64 : SBN_F32,
                      shapes[k / 2 % 4][0],
                      shapes[k / 2 % 4][1],
                      0,
                      scales[k / 48],
                      0};
        ch.mean = -ratios[k / 8 % 6] * ch.deviation;
        int64_t first, n;
        share(&ch, k / 2 % 4 < 2, &first, &n);
        check(&ch, first, n);
    }
}

/* Sums begin at 0 up to about three deviations, beyond at a value or at the mean. */
static void variance_where_sums_begin_elsewhere(void **state)
{
    (void)state;
    static const double means[] = {2, 2.7, 2.9, 3.1, 3.5, 8};
    static const int64_t shapes[][2] = {{4001, 1}, {257, 17}, {4, 250000}};
    for (int k = 0; k < 6 * 3; k++) {
        channel ch = {SBN_F32, shapes[k / 6][0], shapes[k / 6][1], means[k % 6], 1, 0};
        int64_t first, n;
        share(&ch, true, &first, &n);
        check(&ch, first, n);
    }
}

static void trap_05_constant_channels(void **state)
{
    (void)state;
    for (int k = 0; k < 2 * 6 * 4; k++) {
        double mean = ratios[k / 2 % 6] * scales[k / 12] / 3;
        channel ch = {k % 2 ? SBN_F64 : SBN_F32, 1000, 37, mean, 0, 0};
        int64_t first, n;
        share(&ch, true, &first, &n);
        assert_true(check(&ch, first, n).true_var == 0);
    }
}

/* Ten million values in 39,063 slices, and in a single one. */
static void ten_million_values(void **state)
{
    (void)state;
    static const int64_t shapes[][2] = {{625000, 16}, {4, 2500000}};
    for (int k = 0; k < 8; k++) {
        sbn_dtype dtype = k % 2 ? SBN_F64 : SBN_F32;
        double mean = k < 4 ? 1 : dtype == SBN_F64 ? 1e8 : 1e6;
        channel ch = {dtype, shapes[k / 2 % 2][0], shapes[k / 2 % 2][1], mean, 1, 0};
        int64_t first, n;
        share(&ch, k / 2 % 2 == 0, &first, &n);
        check(&ch, first, n);
    }
}

/* A slice whose first value is an outlier: sums about that would have its rounding, up to
 * 1e-5 of the variance. */
static void trap_04_a_far_first_value(void **state)
{
    (void)state;
    static const double far[] = {10, 1e3, 1e6};
    for (int k = 0; k < 2 * 3 * 2; k++) {
        sbn_dtype dtype = k % 2 ? SBN_F64 : SBN_F32;
        double mean = k < 6 ? 1 : dtype == SBN_F64 ? 1e8 : 1e6;
        channel ch = {dtype, 4, 250000, mean, 1, far[k / 2 % 3]};
        int64_t first, n;
        share(&ch, true, &first, &n);
        check(&ch, first, n);
    }
}

/* 2^24 + 1 values: a count in float32 would lose the last of them, and with it 6e-8 of
 * the variance. */
static void trap_27_counts_above_2_to_24(void **state)
{
    (void)state;
    static const int64_t shapes[][2] = {{257, 65281}, {1, 16777217}};
    for (int k = 0; k < 2; k++) {
        channel ch = {SBN_F32, shapes[k][0], shapes[k][1], 3, 1, 0};
        int64_t first, n;
        share(&ch, k == 0, &first, &n);
        assert_int_equal(ch.n * ch.s, (1 << 24) + 1);
        check(&ch, first, n);
    }
}

/* Textbook sums over the same values, for the table: in the input type and in double. */
typedef struct textbook {
    double squares, squares_d, welford;
} textbook;

static textbook textbook_variances(const channel *ch)
{
    int64_t n = ch->n * ch->s;
    float sum_f = 0, sum_ff = 0, mean_f = 0, m2_f = 0;
    double sum = 0, sum_dd = 0, mean = 0, m2 = 0;
    for (int64_t e = 0; e < n; e++) {
        double x = value(ch, e), d = x - mean;
        float f = (float)x, df = f - mean_f;
        sum_f += f;
        sum_ff += f * f;
        mean_f += df / (float)(e + 1);
        m2_f += df * (f - mean_f);
        sum += x;
        sum_dd += x * x;
        mean += d / (double)(e + 1);
        m2 += d * (x - mean);
    }
    double nd = (double)n, squares_d = sum_dd / nd - sum / nd * (sum / nd);
    if (ch->dtype == SBN_F64) return (textbook){squares_d, squares_d, m2 / nd};
    float nf = (float)n, squares = sum_ff / nf - sum_f / nf * (sum_f / nf);
    return (textbook){(double)squares, squares_d, (double)(m2_f / nf)};
}

/* Prints the table of tests/README.md. */
static void table_of_errors(void **state)
{
    (void)state;
    printf(
        "| input | mean / deviation | syncbn | E[x²]−E[x]², input type | "
        "E[x²]−E[x]², double | Welford, input type |\n|---|---:|---:|---:|---:|---:|\n");
    for (int k = 0; k < 2 * 6; k++) {
        if (k == 5) continue; /* float32 at 1e8 holds no deviation of 1 */
        channel ch = {k < 6 ? SBN_F32 : SBN_F64, 62500, 16, ratios[k % 6], 1, 0};
        int64_t first, n;
        share(&ch, true, &first, &n);
        moments m = check(&ch, first, n);
        if (test_rank != 0) continue;
        textbook other = textbook_variances(&ch);
        printf("| %s | %g | %.1e | %.1e | %.1e | %.1e |\n", k < 6 ? "float32" : "float64",
               ratios[k % 6], relative(m.var, m.true_var),
               relative(other.squares, m.true_var), relative(other.squares_d, m.true_var),
               relative(other.welford, m.true_var));
    }
}

/* Sums below the grid's lower end are told to all, by whichever process they were found;
 * ordinary ones, zeros and constants are not. */
static void too_fine_for_the_grid(void **state)
{
    (void)state;
    enum { ROWS = 16 };
    static const struct {
        double x, dy; /* scales of the last process's values; the others' are 1 */
        bool forward, backward;
    } cases[] = {{1, 1, false, false},   {0, 1, false, false},
                 {1, 0, false, false},   {1e-12, 1, false, false},
                 {1e-15, 1, true, true}, {1, 1e-16, false, false},
                 {1, 1e-21, false, true}};
    for (int k = 0; k < 7; k++) {
        sbn_norm_config cfg = sbn_norm_config_default(1);
        cfg.dtype = SBN_F64;
        sbn_norm *norm;
        OK(sbn_norm_create(&cfg, test_group, &norm));
        double data[3][ROWS];
        bool last = test_rank == test_size - 1;
        for (int i = 0; i < ROWS; i++) {
            double v = 1 + (double)(i * 7 % 16) / 16;
            data[0][i] = v * (last ? cases[k].x : 1);
            data[1][i] = v * v * (last ? cases[k].dy : 1);
        }
        sbn_tensor x = sbn_tensor_nc(SBN_F64, data[0], ROWS, 1),
                   dy = sbn_tensor_nc(SBN_F64, data[1], ROWS, 1),
                   y = sbn_tensor_nc(SBN_F64, data[2], ROWS, 1);
        OK(sbn_norm_forward(norm, &x, &y));
        assert_int_equal(sbn_norm_is_rounded(norm), cases[k].forward);
        OK(sbn_norm_backward(norm, &dy, &y));
        assert_int_equal(sbn_norm_is_rounded(norm), cases[k].backward);
        sbn_norm_destroy(&norm);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(too_fine_for_the_grid),
    cmocka_unit_test(variance_at_every_mean_and_scale),
    cmocka_unit_test(variance_where_sums_begin_elsewhere),
    cmocka_unit_test(trap_05_constant_channels),
    cmocka_unit_test(ten_million_values),
    cmocka_unit_test(trap_04_a_far_first_value),
    cmocka_unit_test(trap_27_counts_above_2_to_24),
    cmocka_unit_test(table_of_errors),
};
TEST_MAIN(tests)
