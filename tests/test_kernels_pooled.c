/* dW of a convolution from the dy of the maxpool behind it, on every instruction set and
 * type. */
#include "support/harness.h"
#include "support/tables.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/element.h"

typedef struct layer {
    int64_t n, c, h, w, kernel, pool, out;
} layer;

typedef struct data {
    int64_t channel, image, rows, columns; /* elements of x; outputs of the pool */
    void *x, *dy;
    uint8_t *argmax;
} data;

/* As much of x as may be read, and no more, so that sanitizers see what is read beyond.
 */
static data make(sbn_dtype t, const layer *of)
{
    data d = {.channel = of->h * of->w,
              .rows = (of->h - of->kernel + 1) / of->pool,
              .columns = (of->w - of->kernel + 1) / of->pool};
    d.image = of->c * d.channel;
    int64_t x = of->n * d.image + SBNI_POOLED_ROW - of->kernel,
            dy = of->n * of->out * d.rows * d.columns;
    d.x = malloc((size_t)bytes_of(t, x));
    d.dy = malloc((size_t)bytes_of(t, dy));
    d.argmax = malloc((size_t)dy);
    assert_true(d.x && d.dy && d.argmax);
    draw(t, d.x, x, 0);
    draw(t, d.dy, dy, 1);
    for (int64_t i = 0; i < dy; i++)
        d.argmax[i] =
            (uint8_t)((uint64_t)(i * i * 7 + i / 3) % (uint64_t)(of->pool * of->pool));
    return d;
}

static double fused(sbn_dtype t, double a, double b, double c)
{
    return t == SBN_F32 ? (double)fmaf((float)a, (float)b, (float)c) : fma(a, b, c);
}

/* In the order that is promised, as a processor without the instruction would; and the
 * sum in long double, with the size of what was added. */
static double in_order(sbn_dtype t, const layer *of, const data *d, int64_t e,
                       long double *sum, double *size)
{
    int64_t taps = of->kernel * of->kernel, o = e / taps / of->c, c = e / taps % of->c,
            a = e % taps / of->kernel, b = e % of->kernel, s = d->rows * d->columns;
    double chain[2] = {0};
    *sum = 0, *size = 0;
    for (int64_t cell = 0; cell < of->n * s; cell++) {
        int64_t image = cell / s, i = cell % s / d->columns, j = cell % d->columns,
                at = (image * of->out + o) * s + cell % s, place = d->argmax[at],
                h = i * of->pool + place / of->pool + a,
                w = j * of->pool + place % of->pool + b;
        double dy = element(t, d->dy, at),
               x = element(t, d->x, image * d->image + c * d->channel + h * of->w + w);
        chain[j % 2] = fused(t, dy, x, chain[j % 2]);
        *sum += (long double)dy * x;
        *size += fabs(dy * x);
    }
    return as(t, chain[0] + chain[1]);
}

static void sum_images(const sbni_kernels *k, sbn_dtype t, const layer *of, const data *d,
                       void *dw)
{
    int64_t count = of->out * of->c * SBNI_POOLED_SUMS, s = d->rows * d->columns;
    int32_t place[225];
    void *sums = room(t, count);
    memset(sums, 0, (size_t)bytes_of(t, count));
    for (int64_t p = 0; p < of->pool * of->pool; p++)
        place[p] = (int32_t)(p / of->pool * of->w + p % of->pool);
    for (int64_t r = 0; r < of->n; r++) {
        sbni_pooled dy = {(char *)d->dy + bytes_of(t, r * of->out * s),
                          d->argmax + r * of->out * s,
                          of->pool,
                          d->rows,
                          d->columns,
                          place};
        k->pooled_add(&dy, of->c, d->channel, of->w, of->kernel, of->out,
                      (char *)d->x + bytes_of(t, r * d->image), sums);
    }
    k->pooled_dweights(of->kernel, of->out * of->c, sums, dw);
    room_check(t, sums, count);
}

static void check(const sbni_kernels *k, sbn_dtype t, const layer *of)
{
    data d = make(t, of);
    int64_t count = of->out * of->c * of->kernel * of->kernel;
    void *dw = room(t, count);
    if (k->pooled_add) sum_images(k, t, of, &d, dw);
    for (int64_t e = 0; e < count; e++) {
        long double sum;
        double size, want = in_order(t, of, &d, e, &sum, &size);
        if (!k->pooled_add) set_element(t, dw, e, want);
        assert_true(element(t, dw, e) == want);
        CLOSE(want, (double)sum,
              rounding(t) * (double)(of->n * d.rows * d.columns + 2) * size);
    }
    record(dw, bytes_of(t, count));
    room_check(t, dw, count);
    free(d.x);
    free(d.dy);
    free(d.argmax);
}

/* Pools that cover all outputs and that leave some, odd and even numbers of columns. */
static void pooled(const sbni_kernels *k, sbn_dtype t)
{
    assert_true(!k->pooled_add == !k->product && !k->pooled_dweights == !k->product);
    for (int64_t kernel = 3; kernel <= 5; kernel += 2)
        for (int64_t pool = 1; pool <= 4; pool++)
            for (int64_t width = pool; width <= 13; width += 1 + width / 4)
                check(k, t,
                      &(layer){1 + width % 3, 1 + pool % 3, kernel + pool + width % 3,
                               kernel - 1 + width, kernel, pool, 1 + width % 4});
}

static void walk_pooled(void **state)
{
    (void)state;
    each_table(pooled);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(walk_pooled)};
TEST_MAIN(tests)
