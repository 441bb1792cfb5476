/* The matrix products of our nets, by the kernels and by BLAS, and their convolutions,
 * out of the image and by columns, in turns on one thread: GFLOP/s by the median of
 * ROUNDS times, and the median of the ratios within rounds. build/tests/bench_products
 * [ROUNDS]     21 */
#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"
#include "kernels/gemm.h"
#include "median.h"

enum { MOST_ROUNDS = 1001, ROOM = 1 << 20 };

typedef struct shape {
    const char *name;
    int64_t m, n, k;
    bool transpose_a, transpose_b;
} shape;

static const shape shapes[] = {
    {"cnn conv1", 10, 576, 25, false, false},
    {"cnn conv1 dW", 10, 25, 576, false, true},
    {"cnn conv2", 20, 64, 250, false, false},
    {"cnn conv2 dW", 20, 250, 64, false, true},
    {"cnn conv2 dx", 250, 64, 20, true, false},
    {"cnn dense1", 16, 50, 320, false, true},
    {"cnn dense1 dW", 50, 320, 16, true, false},
    {"cnn dense1 dx", 16, 320, 50, false, false},
    {"resnet8 stage 1", 16, 784, 144, false, false},
    {"resnet8 stage 1 dW", 16, 144, 784, false, true},
    {"resnet8 stage 1 dx", 144, 784, 16, true, false},
    {"resnet8 stage 2", 32, 196, 288, false, false},
    {"resnet8 stage 2 dW", 32, 288, 196, false, true},
    {"resnet8 stage 2 dx", 288, 196, 32, true, false},
    {"resnet8 stage 3", 64, 49, 576, false, false},
    {"resnet8 stage 3 dW", 64, 576, 49, false, true},
    {"resnet8 stage 3 dx", 576, 49, 64, true, false},
};

static float a[ROOM], b[ROOM], c[ROOM], columns[ROOM];

/* Of images within their frames; dW of so many at once. */
typedef struct convolution {
    const char *name;
    int64_t c, side, kernel, out, images;
} convolution;

static const convolution convolutions[] = {
    {"cnn conv1", 1, 28, 5, 10, 3},        {"cnn conv2", 10, 12, 5, 20, 16},
    {"resnet8 stage 1", 16, 30, 3, 16, 2}, {"resnet8 stage 2", 32, 16, 3, 32, 10},
    {"resnet8 stage 3", 64, 9, 3, 64, 16},
};

static void multiply(const sbni_kernels *k, const void *of)
{
    const shape *s = of;
    if (!k)
        sbni_gemm(SBN_F32, s->transpose_a, s->transpose_b, s->m, s->n, s->k, a, b, 0, c);
    else if (s->transpose_b)
        k->product_of_rows(s->m, s->n, s->k, a, b, false, c);
    else
        k->product(s->m, s->n, s->k, a, s->transpose_a ? 1 : s->k,
                   s->transpose_a ? s->m : 1, b, false, c);
}

static int64_t window_of(const convolution *v)
{
    return v->c * v->kernel * v->kernel;
}

static int64_t windows_of(const convolution *v)
{
    int64_t side = v->side - v->kernel + 1;
    return side * side;
}

/* As nn/conv.c has them. */
static int64_t channel_of(const convolution *v)
{
    int64_t count = v->side * v->side;
    return count % 128 ? count : count + 16;
}

/* The windows of the kernels; NULL: by columns. */
static const sbni_windows *windows;

static void forward(const sbni_kernels *k, const void *of)
{
    const convolution *v = of;
    if (windows) {
        k->convolve(windows, a, b, b, v->out, c);
        return;
    }
    k->im2col(a, (sbni_image){v->c, v->side, v->side}, (sbni_window){v->kernel, 1, 0},
              columns);
    sbni_product(k, SBN_F32, false, false, v->out, windows_of(v), window_of(v), b,
                 columns, false, c);
    k->bias_add(c, v->out, windows_of(v), b);
}

static void weights(const sbni_kernels *k, const void *of)
{
    const convolution *v = of;
    int64_t image = v->c * channel_of(v), s = windows_of(v);
    if (windows) {
        int64_t rows = windows->rows * windows->columns;
        sbni_planes x = {a, image, channel_of(v)}, dy = {b, v->out * rows, rows};
        k->convolve_weights(windows, v->images, &x, &dy, v->out, false, c);
        return;
    }
    for (int64_t i = 0; i < v->images; i++) {
        k->im2col(a + i * image, (sbni_image){v->c, v->side, v->side},
                  (sbni_window){v->kernel, 1, 0}, columns);
        sbni_product(k, SBN_F32, false, true, v->out, window_of(v), s, b + i * v->out * s,
                     columns, i > 0, c);
    }
}

typedef void work(const sbni_kernels *k, const void *of);

/* Seconds of a work, of about a millisecond of it. */
static double time_of(work *does, const sbni_kernels *k, const void *of, int64_t repeats)
{
    double began_s = sbni_clock_s();
    for (int64_t i = 0; i < repeats; i++) does(k, of);
    return (sbni_clock_s() - began_s) / (double)repeats;
}

static int rounds;

/* Kernels against BLAS, or with windows against columns; who comes first turns. */
static void compare(const char *row, work *does, const sbni_kernels *k, const void *of,
                    double flops, const sbni_windows *direct)
{
    static double theirs[MOST_ROUNDS], ours[MOST_ROUNDS], ratio[MOST_ROUNDS];
    int64_t repeats = 1 + (int64_t)(5e7 / flops);
    const sbni_kernels *other = direct ? k : NULL;
    windows = NULL;
    time_of(does, other, of, repeats);
    for (int r = 0; r < rounds; r++)
        for (int side = 0; side < 2; side++) {
            bool is_ours = side == r % 2;
            windows = is_ours ? direct : NULL;
            (is_ours ? ours : theirs)[r] =
                time_of(does, is_ours ? k : other, of, repeats);
        }
    for (int r = 0; r < rounds; r++) ratio[r] = theirs[r] / ours[r];
    printf("| %s | %.0f | %.0f | %.2f |\n", row, 1e-9 * flops / median(theirs, rounds),
           1e-9 * flops / median(ours, rounds), median(ratio, rounds));
}

static void compare_products(const sbni_kernels *k)
{
    char row[96];
    printf("| product | m x n x k | BLAS, GFLOP/s | kernels | ratio |\n"
           "|---|---|---:|---:|---:|\n");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const shape *s = &shapes[i];
        snprintf(row, sizeof row, "%s | %d x %d x %d", s->name, (int)s->m, (int)s->n,
                 (int)s->k);
        compare(row, multiply, k, s, 2 * (double)(s->m * s->n * s->k), NULL);
    }
}

static void compare_convolutions(const sbni_kernels *k)
{
    char row[96];
    printf("\n| convolution | by columns, GFLOP/s | out of the image | ratio |\n"
           "|---|---:|---:|---:|\n");
    for (size_t i = 0; i < sizeof convolutions / sizeof *convolutions; i++) {
        static int32_t offset[1024];
        const convolution *v = &convolutions[i];
        int64_t side = v->side - v->kernel + 1, taps = v->kernel * v->kernel;
        sbni_windows w = {offset, window_of(v), side, side, v->side};
        for (int64_t p = 0; p < w.k; p++)
            offset[p] = (int32_t)(p / taps * channel_of(v) +
                                  p % taps / v->kernel * v->side + p % v->kernel);
        double flops = 2 * (double)(v->out * w.k * windows_of(v));
        snprintf(row, sizeof row, "%s, forward", v->name);
        compare(row, forward, k, v, flops, &w);
        snprintf(row, sizeof row, "%s, dW of %d", v->name, (int)v->images);
        /* as nn/conv.c has them */
        if (side % 8) w.columns = ((side - 1) * v->side + side + 7) / 8 * 8, w.rows = 1;
        compare(row, weights, k, v, flops * (double)v->images, &w);
    }
}

int main(int argc, char **argv)
{
    const sbni_kernels *k = sbni_kernels_get(SBN_F32);
    rounds = argc > 1 ? atoi(argv[1]) : 21;
    if (rounds < 1 || rounds > MOST_ROUNDS) {
        fprintf(stderr, "bench_products: expected 1 to %d rounds, got %s\n", MOST_ROUNDS,
                argv[1]);
        return 64;
    }
    if (!k->product) {
        printf("no products by kernels: %s has no fused multiply-add\n", k->isa);
        return 77;
    }
    sbni_gemm_setup();
    for (int i = 0; i < ROOM; i++) {
        a[i] = (float)(i % 1009) / 1009;
        b[i] = (float)(i % 997) / 997;
    }
    printf("%s; %s; %d rounds\n\n", k->isa, sbni_gemm_version(), rounds);
    compare_products(k);
    compare_convolutions(k);
    return 0;
}
