#include "kernels/product_tmpl.h"

#ifdef SBNI_FUSES

/* dW of a convolution whose outputs go to a maxpool: of each window of that one output
 * has a gradient, so that a quarter of the products or less is left. Vectors go along the
 * columns of a window of the convolution, a row of it each. */

enum { ROW = SBNI_POOLED_ROW, VECTORS_OF_ROW = ROW / DOT, MOST = 5, CHAINS = 2 };

_Static_assert(CHAINS *MOST *ROW == SBNI_POOLED_SUMS, "of a channel of x and dy");

/* A row of a window; what lies behind the window's columns is not used. */
typedef struct taps {
    vdot part[VECTORS_OF_ROW];
} taps;

INLINE taps load_taps(const T *from)
{
    taps t;
    memcpy(&t, from, sizeof t);
    return t;
}

INLINE vdot all_dots(T v)
{
#if defined __AVX__ && SBNI_TYPE_F64
    return (vdot)_mm256_set1_pd(v);
#elif defined __AVX__
    return (vdot)_mm256_set1_ps(v);
#else
    vdot all;
    for (int h = 0; h < DOT_PARTS; h++) all.part[h] = all_lanes(v);
    return all;
#endif
}

/* One output's: dy times the window that begins at x. */
INLINE void add_window(T dy, const T *x, int64_t stride, int kernel, taps *sum)
{
    vdot factor = all_dots(dy);
#pragma GCC unroll 5
    for (int i = 0; i < kernel; i++) {
        taps row = load_taps(x + i * stride);
#pragma GCC unroll 2
        for (int h = 0; h < VECTORS_OF_ROW; h++)
            sum[i].part[h] = fused_dot(factor, row.part[h], sum[i].part[h]);
    }
}

/* A channel of dy and one of x, of an image. Even and odd columns of dy are chains of
 * their own, as one would wait for itself. */
INLINE void add_channel(const sbni_pooled *p, const T *dy, const uint8_t *argmax,
                        const T *x, int64_t stride, int kernel, T *sums)
{
    taps sum[CHAINS][MOST];
    /* row by row, all CHAINS·MOST, as a copy of all goes by a slow instruction */
#pragma GCC unroll 10
    for (int i = 0; i < CHAINS * MOST; i++)
        sum[i / MOST][i % MOST] = load_taps(sums + i * ROW);
    for (int64_t i = 0; i < p->rows; i++, dy += p->columns, argmax += p->columns) {
        const T *row = x + i * p->kernel * stride;
        int64_t j = 0;
        for (; j + 2 <= p->columns; j += 2, row += 2 * p->kernel) {
            add_window(dy[j], row + p->place[argmax[j]], stride, kernel, sum[0]);
            add_window(dy[j + 1], row + p->kernel + p->place[argmax[j + 1]], stride,
                       kernel, sum[1]);
        }
        if (j < p->columns)
            add_window(dy[j], row + p->place[argmax[j]], stride, kernel, sum[0]);
    }
#pragma GCC unroll 10
    for (int i = 0; i < CHAINS * MOST; i++)
        memcpy(sums + i * ROW, &sum[i / MOST][i % MOST], sizeof(taps));
}

INLINE void add_image(const sbni_pooled *p, int64_t c, int64_t channel, int64_t stride,
                      int kernel, int64_t out, const T *x, T *sums)
{
    int64_t s = p->rows * p->columns;
    for (int64_t i = 0; i < out * c; i++, sums += SBNI_POOLED_SUMS)
        add_channel(p, (const T *)p->dy + i / c * s, p->argmax + i / c * s,
                    x + i % c * channel, stride, kernel, sums);
}

void K(pooled_add)(const sbni_pooled *p, int64_t c, int64_t channel, int64_t stride,
                   int64_t kernel, int64_t out, const void *x, void *sums)
{
    if (kernel == 3)
        add_image(p, c, channel, stride, 3, out, x, sums);
    else
        add_image(p, c, channel, stride, 5, out, x, sums);
}

void K(pooled_dweights)(int64_t kernel, int64_t count, const void *sumsv, void *dweight)
{
    const T *sums = sumsv;
    T *dw = dweight;
    for (int64_t i = 0; i < count; i++, sums += SBNI_POOLED_SUMS)
        for (int64_t a = 0; a < kernel; a++, dw += kernel)
            for (int64_t b = 0; b < kernel; b++)
                dw[b] = sums[a * ROW + b] + sums[(MOST + a) * ROW + b];
}

#endif
