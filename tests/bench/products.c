/* The matrix products of our nets, by the kernels and by BLAS, in turns on one thread:
 * GFLOP/s by the median of ROUNDS times, and the median of the ratios within rounds.
 *   build/tests/bench_products [ROUNDS]     21 */
#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"
#include "kernels/gemm.h"

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

static float a[ROOM], b[ROOM], c[ROOM];

static void multiply(const sbni_kernels *k, const shape *s)
{
    if (!k)
        sbni_gemm(SBN_F32, s->transpose_a, s->transpose_b, s->m, s->n, s->k, a, b, 0, c);
    else if (s->transpose_b)
        k->product_of_rows(s->m, s->n, s->k, a, b, false, c);
    else
        k->product(s->m, s->n, s->k, a, s->transpose_a ? 1 : s->k,
                   s->transpose_a ? s->m : 1, b, false, c);
}

/* Seconds of a product, of about a millisecond of them. */
static double time_of(const sbni_kernels *k, const shape *s, int64_t repeats)
{
    double began_s = sbni_clock_s();
    for (int64_t i = 0; i < repeats; i++) multiply(k, s);
    return (sbni_clock_s() - began_s) / (double)repeats;
}

static int rising(const void *x, const void *y)
{
    double d = *(const double *)x - *(const double *)y;
    return (d > 0) - (d < 0);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, rising);
    return v[n / 2];
}

int main(int argc, char **argv)
{
    const sbni_kernels *k = sbni_kernels_get(SBN_F32);
    int rounds = argc > 1 ? atoi(argv[1]) : 21;
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
    printf(
        "%s; %s; %d rounds\n\n| product | m x n x k | BLAS, GFLOP/s | kernels | ratio |\n"
        "|---|---|---:|---:|---:|\n",
        k->isa, sbni_gemm_version(), rounds);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        static double blas[MOST_ROUNDS], ours[MOST_ROUNDS], ratio[MOST_ROUNDS];
        const shape *s = &shapes[i];
        double flops = 2 * (double)(s->m * s->n * s->k);
        int64_t repeats = 1 + (int64_t)(5e7 / flops);
        time_of(NULL, s, repeats);
        for (int r = 0; r < rounds; r++) {
            /* who comes first turns */
            if (r % 2) ours[r] = time_of(k, s, repeats);
            blas[r] = time_of(NULL, s, repeats);
            if (r % 2 == 0) ours[r] = time_of(k, s, repeats);
            ratio[r] = blas[r] / ours[r];
        }
        printf("| %s | %d x %d x %d | %.0f | %.0f | %.2f |\n", s->name, (int)s->m,
               (int)s->n, (int)s->k, 1e-9 * flops / median(blas, rounds),
               1e-9 * flops / median(ours, rounds), median(ratio, rounds));
    }
    return 0;
}
