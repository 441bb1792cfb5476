/* Kernels of the nets around the layer, on every instruction set and type. */
#include "support/harness.h"
#include "support/tables.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "support/cases.h"
#include "support/element.h"

static void activations(const sbni_kernels *k, sbn_dtype t)
{
    for (int s = 0; s < EDGE_SIZES; s++) {
        int64_t n = edge_sizes[s];
        void *x = room(t, n), *y = room(t, n), *dy = room(t, n), *dx = room(t, n);
        draw(t, x, n, 0);
        draw(t, dy, n, 1);
        if (n > 3) set_element(t, x, n - 1, 0), set_element(t, x, 1, -0.0);
        k->relu(x, n, y);
        k->relu_backward(y, dy, n, dx);
        for (int64_t i = 0; i < n; i++) {
            double v = element(t, x, i);
            assert_true(element(t, y, i) == (v > 0 ? v : 0));
            assert_true(element(t, dx, i) == (v > 0 ? element(t, dy, i) : 0));
        }
        record(y, bytes_of(t, n));
        record(dx, bytes_of(t, n));
        for (int64_t at = 0; at < n; at++) { /* NaN stays, wherever it is */
            double v = element(t, x, at);
            set_element(t, x, at, NAN);
            k->relu(x, n, y);
            for (int64_t i = 0; i < n; i++)
                assert_int_equal(isnan(element(t, y, i)), i == at);
            set_element(t, x, at, v);
        }
        if (n > 3) set_element(t, x, 0, 1000), set_element(t, x, 2, -1000);
        k->sigmoid(x, n, y);
        k->sigmoid_backward(y, dy, n, dx);
        for (int64_t i = 0; i < n; i++) {
            double want = (double)(1 / (1 + expl(-(long double)element(t, x, i))));
            /* exp is good to one unit; sum and quotient round once each */
            CLOSE(element(t, y, i), want, 5 * rounding(t) * want + 1e-300);
            double got = element(t, y, i), d = element(t, dy, i) * got * (1 - got);
            CLOSE(element(t, dx, i), d, 4 * rounding(t) * fabs(d) + 1e-40);
        }
        record_libm(y, bytes_of(t, n));
        record_libm(dx, bytes_of(t, n));
        room_check(t, x, n);
        room_check(t, y, n);
        room_check(t, dy, n);
        room_check(t, dx, n);
    }
}

/* Sums and dropout, into a place of their own and over an operand; NaN and infinity are
 * not lost where they are dropped. */
static void sums_and_masks(const sbni_kernels *k, sbn_dtype t)
{
    const double scale = 1 / 0.7;
    for (int s = 0; s < EDGE_SIZES; s++) {
        int64_t n = edge_sizes[s];
        void *x = room(t, n), *z = room(t, n), *y = room(t, n);
        uint8_t *kept = room(SBN_F32, n); /* more than its bits */
        draw(t, x, n, 0);
        draw(t, z, n, 1);
        for (int64_t i = 0; i <= n / 8; i++) kept[i] = (uint8_t)(37 * i + 5 * s + 11);
        if (n > 2) set_element(t, x, 1, INFINITY), set_element(t, x, n - 1, NAN);
        k->dropout(x, kept, n, scale, y);
        for (int64_t i = 0; i < n; i++) {
            double factor = kept[i / 8] >> i % 8 & 1 ? as(t, scale) : 0,
                   want = as(t, element(t, x, i) * factor);
            assert_true(element(t, y, i) == want || isnan(want));
            assert_int_equal(isnan(element(t, y, i)), isnan(want));
            if (isnan(want)) set_element(t, y, i, 0); /* the sign is the processor's */
        }
        record(y, bytes_of(t, n));
        k->add(x, z, n, y);
        for (int64_t i = 0; i < n; i++) {
            double want = as(t, element(t, x, i) + element(t, z, i));
            assert_true(element(t, y, i) == want || isnan(want));
        }
        k->add(x, z, n, x);
        same_bits(x, y, bytes_of(t, n));
        k->dropout(y, kept, n, scale, x);
        k->dropout(y, kept, n, scale, y);
        same_bits(x, y, bytes_of(t, n));
        room_check(t, x, n);
        room_check(t, z, n);
        room_check(t, y, n);
        room_check(SBN_F32, kept, n);
    }
}

static void check_columns(const sbni_kernels *k, sbn_dtype t, sbni_image in,
                          sbni_window win)
{
    int64_t oh = sbni_window_out(in.h, win), ow = sbni_window_out(in.w, win),
            taps = in.c * win.kernel * win.kernel, all = in.c * in.h * in.w,
            n = taps * oh * ow;
    void *x = room(t, all), *col = room(t, n), *dx = room(t, all);
    double *want = calloc((size_t)all, sizeof *want);
    draw(t, x, all, 0);
    k->im2col(x, in, win, col);
    record(col, bytes_of(t, n));
    for (int64_t e = 0; e < n; e++) {
        int64_t tap = e / (oh * ow), c = tap / (win.kernel * win.kernel),
                h = e / ow % oh * win.stride + tap / win.kernel % win.kernel - win.pad,
                w = e % ow * win.stride + tap % win.kernel - win.pad;
        bool inside = h >= 0 && h < in.h && w >= 0 && w < in.w;
        int64_t at = (c * in.h + h) * in.w + w;
        assert_true(element(t, col, e) == (inside ? element(t, x, at) : 0));
    }
    draw(t, col, n, 1);
    k->col2im(col, in, win, dx);
    record(dx, bytes_of(t, all));
    for (int64_t e = 0; e < n; e++) { /* in the order of col's rows, as promised */
        int64_t tap = e / (oh * ow), c = tap / (win.kernel * win.kernel),
                h = e / ow % oh * win.stride + tap / win.kernel % win.kernel - win.pad,
                w = e % ow * win.stride + tap % win.kernel - win.pad;
        if (h < 0 || h >= in.h || w < 0 || w >= in.w) continue;
        int64_t at = (c * in.h + h) * in.w + w;
        want[at] = as(t, want[at] + element(t, col, e));
    }
    for (int64_t e = 0; e < all; e++) assert_true(element(t, dx, e) == want[e]);
    free(want);
    room_check(t, x, all);
    room_check(t, col, n);
    room_check(t, dx, all);
}

static void columns(const sbni_kernels *k, sbn_dtype t)
{
    /* the last is too large for padding to be added to it */
    const int64_t sides[][2] = {{1, 1},   {5, 5},  {6, 9},   {12, 12}, {3, 40},
                                {28, 28}, {14, 7}, {15, 16}, {67, 61}};
    for (int z = 0; z < 9; z++)
        for (int64_t kernel = 1; kernel <= 5; kernel += 2)
            for (int64_t stride = 1; stride <= 3; stride++)
                for (int64_t pad = 0; pad <= 5; pad += pad ? 3 : 1) {
                    sbni_image in = {2, sides[z][0], sides[z][1]};
                    if (in.h + 2 * pad < kernel || in.w + 2 * pad < kernel) continue;
                    check_columns(k, t, in, (sbni_window){kernel, stride, pad});
                }
}

static void biases(const sbni_kernels *k, sbn_dtype t)
{
    for (int s = 0; s < EDGE_SIZES; s++)
        for (int64_t c = 1; c <= 17; c += 4) {
            int64_t m = edge_sizes[s], n = c * m;
            void *y = room(t, n), *x = room(t, n), *bias = room(t, c), *db = room(t, c);
            draw(t, x, n, 0);
            draw(t, bias, c, 1);
            for (int as_rows = 0; as_rows < 2; as_rows++) {
                memcpy(y, x, (size_t)bytes_of(t, n));
                draw(t, db, c, 2);
                double before[17];
                for (int64_t i = 0; i < c; i++)
                    before[i] = as_rows ? 0 : element(t, db, i);
                if (as_rows) {
                    k->bias_add_rows(y, m, c, bias);
                    k->bias_grad_rows(x, m, c, db);
                } else {
                    k->bias_add(y, c, m, bias);
                    k->bias_grad(x, c, m, db);
                }
                for (int64_t i = 0; i < c; i++) {
                    double sum = before[i], size = fabs(sum);
                    for (int64_t j = 0; j < m; j++) {
                        int64_t at = as_rows ? j * c + i : i * m + j;
                        double v = element(t, x, at);
                        assert_true(element(t, y, at) == as(t, v + element(t, bias, i)));
                        sum += v, size += fabs(v);
                    }
                    /* a sum in doubles, then two roundings of the type */
                    double unit = 2 * rounding(t) + (double)m * DBL_EPSILON;
                    CLOSE(element(t, db, i), sum, unit * size);
                }
                record(y, bytes_of(t, n));
                record(db, bytes_of(t, c));
            }
            room_check(t, x, n);
            room_check(t, y, n);
            room_check(t, bias, c);
            room_check(t, db, c);
        }
}

/* One row against long double; returns the row's largest value's place. */
static int64_t check_row(sbn_dtype t, const void *x, const void *y, const void *dx,
                         int64_t at, int64_t classes, int64_t label, double weight)
{
    int64_t best = 0;
    long double sum = 0, moved = 0, largest = element(t, x, at);
    for (int64_t i = 1; i < classes; i++)
        if (element(t, x, at + i) > (double)largest)
            largest = element(t, x, at + i), best = i;
    for (int64_t i = 0; i < classes; i++) {
        long double d = element(t, x, at + i) - largest;
        sum += expl(d);
        moved += fabsl(d) * expl(d);
    }
    for (int64_t i = 0; i < classes; i++) {
        long double d = element(t, x, at + i) - largest, want = d - logl(sum);
        /* two differences and the logarithm's rounding, of numbers of this size; the
         * rounding of a difference also moves its exponential, and with it the sum */
        double size = (double)(fabsl(d) + logl(sum) + fabsl(want) + moved);
        CLOSE(element(t, y, at + i), (double)want, 2 * rounding(t) * size + 1e-15);
        double p = exp(element(t, y, at + i)), g = (p - (i == label)) * weight;
        /* exp to one unit, difference, weight, product */
        CLOSE(element(t, dx, at + i), g, 6 * rounding(t) * weight);
    }
    return best;
}

/* The cross-entropy against (1-s)·onehot + s/classes, and its gradient by x. */
static void smoothed_losses(const sbni_kernels *k, sbn_dtype t)
{
    enum { ROWS = 5, CLASSES = 7, ALL = ROWS * CLASSES };
    static const int32_t label[ROWS] = {0, 6, 3, 3, 1};
    const double weight = 0.25;
    void *x = room(t, ALL), *y = room(t, ALL), *dx = room(t, ALL);
    draw(t, x, ALL, 0);
    k->log_softmax(x, ROWS, CLASSES, y);
    for (double s = 0.1; s < 1; s += 0.4) {
        int64_t correct = 0, plain = 0;
        double got = k->nll(y, label, ROWS, CLASSES, s, weight, &correct, dx);
        long double want = 0;
        for (int r = 0; r < ROWS; r++) {
            long double sum = 0, target, p;
            for (int i = 0; i < CLASSES; i++)
                sum += expl((long double)element(t, x, r * CLASSES + i));
            for (int i = 0; i < CLASSES; i++) {
                p = expl((long double)element(t, x, r * CLASSES + i)) / sum;
                target =
                    (1 - (long double)s) * (i == label[r]) + (long double)s / CLASSES;
                want -= target * logl(p);
                CLOSE(element(t, dx, r * CLASSES + i), (double)((p - target) * weight),
                      8 * rounding(t));
            }
        }
        CLOSE(got, (double)want, 64 * rounding(t));
        k->nll(y, label, ROWS, CLASSES, 0, weight, &plain, NULL);
        assert_int_equal(correct, plain);
    }
    room_check(t, x, ALL);
    room_check(t, y, ALL);
    room_check(t, dx, ALL);
}

static void losses(const sbni_kernels *k, sbn_dtype t)
{
    const int64_t kinds[] = {1, 2, 3, 10, 17};
    for (int c = 0; c < 5; c++)
        for (int scale = 1; scale <= 1000; scale *= 10) {
            int64_t n = 7, classes = kinds[c], all = n * classes, correct = 5;
            void *x = room(t, all), *y = room(t, all), *dx = room(t, all);
            int32_t label[7];
            draw(t, x, all, 0);
            for (int64_t e = 0; e < all; e++)
                set_element(t, x, e, element(t, x, e) * scale);
            for (int64_t i = 0; i < classes; i++) set_element(t, x, i, 3); /* all equal */
            for (int r = 0; r < n; r++) label[r] = (int32_t)((r * 3) % classes);
            k->log_softmax(x, n, classes, y);
            double got = k->nll(y, label, n, classes, 0, 0.125, &correct, dx), want = 0;
            int64_t right = 5;
            for (int64_t r = 0; r < n; r++) {
                want -= element(t, y, r * classes + label[r]);
                right += label[r] ==
                         check_row(t, x, y, dx, r * classes, classes, label[r], 0.125);
            }
            assert_true(got == want);
            assert_int_equal(correct, right);
            assert_true(k->nll(y, label, n, classes, 0, 1, &correct, NULL) == want);
            record_libm(y, bytes_of(t, all));
            record_libm(dx, bytes_of(t, all));
            set_element(t, x, all - 1, NAN); /* is not lost */
            k->log_softmax(x, n, classes, y);
            assert_true(isnan(k->nll(y, label, n, classes, 0, 1, &correct, NULL)));
            room_check(t, x, all);
            room_check(t, y, all);
            room_check(t, dx, all);
        }
}

static void sgd(const sbni_kernels *k, sbn_dtype t)
{
    for (int s = 0; s < EDGE_SIZES; s++)
        for (int kind = 0; kind < 8; kind++) {
            int64_t n = edge_sizes[s];
            double lr = as(t, 0.05), momentum = as(t, kind & 1 ? 0.9 : 0),
                   decay = as(t, kind & 2 ? 0.01 : 0);
            int nesterov = kind >> 2;
            void *p = room(t, n), *g = room(t, n), *v = room(t, n);
            double want_p[100], want_v[100];
            draw(t, p, n, 0);
            draw(t, g, n, 1);
            draw(t, v, n, 2);
            for (int64_t i = 0; i < n; i++) {
                want_p[i] = element(t, p, i), want_v[i] = element(t, v, i);
                double slope = as(t, element(t, g, i) + as(t, decay * want_p[i]));
                want_v[i] = as(t, as(t, momentum * want_v[i]) + slope);
                double step =
                    nesterov ? as(t, slope + as(t, momentum * want_v[i])) : want_v[i];
                want_p[i] = as(t, want_p[i] - as(t, lr * step));
            }
            k->sgd(p, g, v, n, 0.05, kind & 1 ? 0.9 : 0, kind & 2 ? 0.01 : 0, nesterov);
            for (int64_t i = 0; i < n; i++) {
                /* the order of roundings is part of every result */
                assert_true(element(t, p, i) == want_p[i]);
                assert_true(element(t, v, i) == want_v[i]);
            }
            record(p, bytes_of(t, n));
            record(v, bytes_of(t, n));
            room_check(t, p, n);
            room_check(t, g, n);
            room_check(t, v, n);
        }
}

/* The same bits on every instruction set; what they are is tests/test_optim.c's. */
static void adam(const sbni_kernels *k, sbn_dtype t)
{
    for (int s = 0; s < EDGE_SIZES; s++) {
        int64_t n = edge_sizes[s];
        void *p = room(t, n), *g = room(t, n), *m = room(t, n), *v = room(t, n);
        draw(t, p, n, 0);
        draw(t, g, n, 1);
        draw(t, m, n, 2);
        draw(t, v, n, 3);
        for (int64_t i = 0; i < n; i++) set_element(t, v, i, fabs(element(t, v, i)));
        k->adam(p, g, m, v, n, 0.9, 0.999, 1e-8, 0.01, 0.3, 0.125, 0.75);
        void *const all[] = {p, g, m, v};
        for (int i = 0; i < 4; i++) {
            record(all[i], bytes_of(t, n));
            room_check(t, all[i], n);
        }
    }
}

#define WALK(check)                                                                      \
    static void walk_##check(void **state)                                               \
    {                                                                                    \
        (void)state;                                                                     \
        each_table(check);                                                               \
    }
WALK(activations)
WALK(sums_and_masks)
WALK(columns)
WALK(biases)
WALK(losses)
WALK(sgd)
WALK(adam)
WALK(smoothed_losses)

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(walk_activations),
    cmocka_unit_test(walk_sums_and_masks),
    cmocka_unit_test(walk_columns),

    cmocka_unit_test(walk_biases),
    cmocka_unit_test(walk_losses),
    cmocka_unit_test(walk_sgd),
    cmocka_unit_test(walk_adam),
    cmocka_unit_test(walk_smoothed_losses),
};
TEST_MAIN(tests)
