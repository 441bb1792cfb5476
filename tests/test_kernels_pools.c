/* Kernels of pools, on every instruction set and type. */
#include "support/harness.h"
#include "support/tables.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/element.h"

/* The place that pooling takes in a window: first of the largest, but the last NaN. */
static int64_t place_of(sbn_dtype t, const void *x, sbni_image in, int64_t kernel,
                        int64_t corner)
{
    int64_t best = 0;
    double largest = element(t, x, corner);
    for (int64_t p = 1; p < kernel * kernel; p++) {
        double v = element(t, x, corner + p / kernel * in.w + p % kernel);
        if (v > largest || isnan(v)) largest = v, best = p;
    }
    return best;
}

static void check_pool(const sbni_kernels *k, sbn_dtype t, sbni_image in, int64_t kernel,
                       void *x)
{
    int64_t oh = in.h / kernel, ow = in.w / kernel, all = in.c * in.h * in.w,
            out = in.c * oh * ow;
    void *y = room(t, out), *dy = room(t, out), *dx = room(t, all),
         *want = calloc((size_t)all, 8);
    uint8_t *argmax = room(SBN_F32, out); /* more than its bytes */
    memset(argmax, 0xee, (size_t)out + 1);
    draw(t, dy, out, 1);
    k->maxpool(x, in, kernel, y, argmax);
    k->maxpool_backward(dy, argmax, in, kernel, dx);
    assert_int_equal(argmax[out], 0xee);
    for (int64_t o = 0; o < out; o++) {
        int64_t c = o / (oh * ow), i = o / ow % oh, j = o % ow;
        int64_t corner = (c * in.h + i * kernel) * in.w + j * kernel;
        int64_t p = place_of(t, x, in, kernel, corner);
        double v = element(t, x, corner + p / kernel * in.w + p % kernel);
        assert_true(element(t, y, o) == v || isnan(v));
        assert_int_equal(isnan(element(t, y, o)), isnan(v));
        assert_int_equal(argmax[o], p);
        int64_t at = corner + argmax[o] / kernel * in.w + argmax[o] % kernel;
        set_element(t, want, at, element(t, dy, o));
    }
    same_bits(dx, want, bytes_of(t, all));
    record(y, bytes_of(t, out));
    record(argmax, out);
    record(dx, bytes_of(t, all));
    free(want);
    room_check(SBN_F32, argmax, out);
    room_check(t, y, out);
    room_check(t, dy, out);
    room_check(t, dx, all);
}

static void pooling(const sbni_kernels *k, sbn_dtype t)
{
    const int64_t sides[][2] = {{2, 2},   {4, 6},  {5, 5},   {7, 4},  {8, 33},
                                {24, 24}, {9, 12}, {12, 16}, {3, 35}, {17, 66}};
    for (int z = 0; z < 10; z++)
        for (int64_t kernel = 1; kernel <= 4; kernel++) {
            sbni_image in = {3, sides[z][0], sides[z][1]};
            if (in.h < kernel || in.w < kernel) continue;
            int64_t all = in.c * in.h * in.w;
            void *x = room(t, all);
            draw(t, x, all, 0);
            check_pool(k, t, in, kernel, x);
            /* ties, of zeros of both signs too */
            for (int64_t e = 0; e < all; e++)
                set_element(t, x, e, e % 3 ? floor(element(t, x, e)) : -0.0);
            check_pool(k, t, in, kernel, x);
            for (int64_t e = 0; e < all; e += 5) set_element(t, x, e, NAN);
            for (int64_t e = 0; e < all; e += 7) set_element(t, x, e, -INFINITY);
            check_pool(k, t, in, kernel, x);
            room_check(t, x, all);
        }
}

/* Means of windows that may be oblong, and the share of each element. */
static void check_means(const sbni_kernels *k, sbn_dtype t, sbni_image in, int64_t kh,
                        int64_t kw)
{
    int64_t oh = in.h / kh, ow = in.w / kw, all = in.c * in.h * in.w,
            out = in.c * oh * ow;
    void *x = room(t, all), *y = room(t, out), *dy = room(t, out), *dx = room(t, all);
    draw(t, x, all, 0);
    draw(t, dy, out, 1);
    k->avgpool(x, in, kh, kw, y);
    k->avgpool_backward(dy, in, kh, kw, dx);
    for (int64_t o = 0; o < out; o++) {
        int64_t corner =
            (o / ow * kh + o / (oh * ow) * (in.h - oh * kh)) * in.w + o % ow * kw;
        long double sum = 0, size = 0;
        for (int64_t p = 0; p < kh * kw; p++) {
            double v = element(t, x, corner + p / kw * in.w + p % kw);
            sum += v;
            size += fabs(v);
        }
        /* in double, but for the last rounding */
        CLOSE(element(t, y, o), (double)(sum / (long double)(kh * kw)),
              (rounding(t) + (double)(kh * kw) * 0x1p-53) * (double)size);
    }
    for (int64_t e = 0; e < all; e++) {
        int64_t c = e / (in.h * in.w), i = e / in.w % in.h / kh, j = e % in.w / kw;
        bool covered = i < oh && j < ow;
        double want =
            covered ? element(t, dy, (c * oh + i) * ow + j) / (double)(kh * kw) : 0;
        assert_true(element(t, dx, e) == (t == SBN_F32 ? (double)(float)want : want));
    }
    record(y, bytes_of(t, out));
    record(dx, bytes_of(t, all));
    room_check(t, x, all);
    room_check(t, y, out);
    room_check(t, dy, out);
    room_check(t, dx, all);
}

static void mean_pooling(const sbni_kernels *k, sbn_dtype t)
{
    const int64_t sides[][2] = {{1, 1}, {2, 2}, {5, 4}, {7, 7}, {8, 33}};
    for (int z = 0; z < 5; z++) {
        sbni_image in = {3, sides[z][0], sides[z][1]};
        check_means(k, t, in, in.h, in.w);
        for (int64_t kernel = 1; kernel <= 4; kernel++)
            if (in.h >= kernel && in.w >= kernel) check_means(k, t, in, kernel, kernel);
    }
}

#define WALK(check)                                                                      \
    static void walk_##check(void **state)                                               \
    {                                                                                    \
        (void)state;                                                                     \
        each_table(check);                                                               \
    }
WALK(pooling)
WALK(mean_pooling)

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(walk_pooling),
    cmocka_unit_test(walk_mean_pooling),
};
TEST_MAIN(tests)
