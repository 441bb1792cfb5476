/* Convolution without columns, on every instruction set and type. */
#include "support/harness.h"
#include "support/tables.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "support/element.h"

enum { MOST_WINDOW = 3 * 5 * 5, GAP = 3 };

/* n images of c channels, GAP elements between them; out channels of y. */
typedef struct layer {
    int64_t n, c, h, w, kernel, out;
    bool adds; /* bias, or to what dW holds */
} layer;

typedef struct data {
    sbni_windows windows;
    int64_t channel, image, s; /* elements of x; windows of an image */
    void *x, *weight, *bias, *dy;
} data;

static data make(sbn_dtype t, const layer *of)
{
    data d = {.channel = of->h * of->w + GAP};
    int32_t *offset = malloc(sizeof *offset * MOST_WINDOW);
    assert_non_null(offset);
    d.windows = (sbni_windows){.offset = offset,
                               .rows = of->h - of->kernel + 1,
                               .columns = of->w - of->kernel + 1,
                               .stride = of->w};
    d.image = of->c * d.channel;
    d.s = d.windows.rows * d.windows.columns;
    for (int64_t c = 0; c < of->c; c++)
        for (int64_t i = 0; i < of->kernel; i++)
            for (int64_t j = 0; j < of->kernel; j++)
                offset[d.windows.k++] = (int32_t)(c * d.channel + i * of->w + j);
    d.x = exactly(t, of->n * d.image - GAP, 0);
    d.weight = exactly(t, of->out * d.windows.k, 1);
    d.bias = exactly(t, of->out, 2);
    d.dy = exactly(t, of->n * of->out * d.s, 3);
    return d;
}

static void drop(data *d)
{
    free((void *)d->windows.offset);
    free(d->x);
    free(d->weight);
    free(d->bias);
    free(d->dy);
}

/* Element p of window `at` of an image. */
static double seen(sbn_dtype t, const data *d, int64_t image, int64_t at, int64_t p)
{
    int64_t i = at / d->windows.columns, j = at % d->windows.columns;
    return element(t, d->x,
                   image * d->image + i * d->windows.stride + j + d->windows.offset[p]);
}

static double fused(sbn_dtype t, double a, double b, double c)
{
    return t == SBN_F32 ? (double)fmaf((float)a, (float)b, (float)c) : fma(a, b, c);
}

/* In the order that is promised, as a processor without the instruction would; and sums
 * in long double, with the size of what was added. */
static double y_in_order(sbn_dtype t, const layer *of, const data *d, int64_t o,
                         int64_t at, long double *sum, double *size)
{
    double chain = 0, bias = element(t, d->bias, o);
    *sum = of->adds ? bias : 0, *size = of->adds ? fabs(bias) : 0;
    for (int64_t p = 0; p < d->windows.k; p++) {
        double w = element(t, d->weight, o * d->windows.k + p), x = seen(t, d, 0, at, p);
        chain = fused(t, w, x, chain);
        *sum += (long double)w * x;
        *size += fabs(w * x);
    }
    return of->adds ? as(t, chain + bias) : chain;
}

static double dw_in_order(sbn_dtype t, const layer *of, const data *d, int64_t o,
                          int64_t p, double before, long double *sum, double *size)
{
    double chain[8] = {0};
    int64_t lanes = t == SBN_F32 ? 8 : 4;
    *sum = before, *size = fabs(before);
    for (int64_t e = 0; e < of->n * d->s; e++) {
        int64_t image = e / d->s, at = e % d->s, lane = at % d->windows.columns % lanes;
        double dy = element(t, d->dy, (image * of->out + o) * d->s + at),
               x = seen(t, d, image, at, p);
        chain[lane] = fused(t, dy, x, chain[lane]);
        *sum += (long double)dy * x;
        *size += fabs(dy * x);
    }
    for (int64_t half = lanes / 2; half; half /= 2)
        for (int64_t l = 0; l < half; l++) chain[l] = as(t, chain[l] + chain[l + half]);
    return of->adds ? as(t, before + chain[0]) : chain[0];
}

static void check_y(const sbni_kernels *k, sbn_dtype t, const layer *of)
{
    data d = make(t, of);
    int64_t count = of->out * d.s;
    void *y = room(t, count);
    if (k->convolve)
        k->convolve(&d.windows, d.x, d.weight, of->adds ? d.bias : NULL, of->out, y);
    for (int64_t e = 0; e < count; e++) {
        long double sum;
        double size, want = y_in_order(t, of, &d, e / d.s, e % d.s, &sum, &size);
        if (!k->convolve) set_element(t, y, e, want);
        assert_true(element(t, y, e) == want);
        CLOSE(want, (double)sum, rounding(t) * (double)(d.windows.k + 2) * size);
    }
    record(y, bytes_of(t, count));
    room_check(t, y, count);
    drop(&d);
}

static void check_dw(const sbni_kernels *k, sbn_dtype t, const layer *of)
{
    data d = make(t, of);
    int64_t count = of->out * d.windows.k;
    void *dw = room(t, count), *before = exactly(t, count, 4);
    sbni_planes x = {d.x, d.image, d.channel}, dy = {d.dy, of->out * d.s, d.s};
    memcpy(dw, before, (size_t)bytes_of(t, count));
    if (k->convolve)
        k->convolve_weights(&d.windows, of->n, &x, &dy, of->out, of->adds, dw);
    for (int64_t e = 0; e < count; e++) {
        long double sum;
        double size, start = of->adds ? element(t, before, e) : 0;
        double want =
            dw_in_order(t, of, &d, e / d.windows.k, e % d.windows.k, start, &sum, &size);
        if (!k->convolve) set_element(t, dw, e, want);
        assert_true(element(t, dw, e) == want);
        CLOSE(want, (double)sum, rounding(t) * (double)(of->n * d.s + 2) * size);
    }
    record(dw, bytes_of(t, count));
    room_check(t, dw, count);
    free(before);
    drop(&d);
}

/* Widths on both sides of every vector's; all numbers of rows and columns of a tile. */
static void convolutions(const sbni_kernels *k, sbn_dtype t)
{
    assert_true(!k->convolve == !k->product && !k->convolve_weights == !k->product);
    assert_true(k->convolve || !strcmp(k->isa, "base"));
    static const int64_t widths[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 28, 33};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (int64_t kernel = 1; kernel <= 5; kernel += 1 + (kernel > 2))
            for (int64_t out = 1; out <= 13; out += out < 7 ? 1 : 3) {
                layer of = {1 + (int64_t)i % 3,     1 + out % 3, kernel + (int64_t)i % 4,
                            widths[i] + kernel - 1, kernel,      out,
                            (kernel + out) % 2};
                check_y(k, t, &of);
                check_dw(k, t, &of);
            }
}

static void walk_convolutions(void **state)
{
    (void)state;
    each_table(convolutions);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(walk_convolutions)};
TEST_MAIN(tests)
