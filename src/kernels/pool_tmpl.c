#include "kernels/tmpl.h"

/* The common window: no branches, so that rows become vectors. */
static void maxpool2(const T *x, sbni_image in, T *y, uint8_t *argmax)
{
    int64_t oh = in.h / 2, ow = in.w / 2;
    for (int64_t c = 0; c < in.c; c++)
        for (int64_t i = 0; i < oh; i++) {
            const T *top = x + (c * in.h + 2 * i) * in.w, *low = top + in.w;
            T *to = y + (c * oh + i) * ow;
            uint8_t *at = argmax + (c * oh + i) * ow;
            for (int64_t j = 0; j < ow; j++) {
                T v0 = top[2 * j], v1 = top[2 * j + 1], v2 = low[2 * j],
                  v3 = low[2 * j + 1];
                /* v != v is NaN, which wins so that it is not lost */
                int a1 = (v1 > v0) | (v1 != v1), a3 = (v3 > v2) | (v3 != v3);
                T b0 = a1 ? v1 : v0, b1 = a3 ? v3 : v2;
                int lower = (b1 > b0) | (b1 != b1);
                to[j] = lower ? b1 : b0;
                at[j] = (uint8_t)(lower ? 2 + a3 : a1);
            }
        }
}

static void maxpool2_backward(const T *dy, const uint8_t *argmax, sbni_image in, T *dx)
{
    int64_t oh = in.h / 2, ow = in.w / 2;
    for (int64_t c = 0; c < in.c; c++)
        for (int64_t i = 0; i < oh; i++) {
            T *top = dx + (c * in.h + 2 * i) * in.w, *low = top + in.w;
            const T *from = dy + (c * oh + i) * ow;
            const uint8_t *at = argmax + (c * oh + i) * ow;
            for (int64_t j = 0; j < ow; j++) {
                T g = from[j];
                uint8_t a = at[j];
                top[2 * j] = a == 0 ? g : 0;
                top[2 * j + 1] = a == 1 ? g : 0;
                low[2 * j] = a == 2 ? g : 0;
                low[2 * j + 1] = a == 3 ? g : 0;
            }
        }
}

void K(maxpool)(const void *xv, sbni_image in, int64_t k, void *yv, uint8_t *argmax)
{
    const T *x = xv;
    T *y = yv;
    if (k == 2) {
        maxpool2(x, in, y, argmax);
        return;
    }
    int64_t oh = in.h / k, ow = in.w / k;
    for (int64_t c = 0; c < in.c; c++)
        for (int64_t i = 0; i < oh; i++)
            for (int64_t j = 0; j < ow; j++) {
                const T *corner = x + (c * in.h + i * k) * in.w + j * k;
                T best = corner[0];
                int64_t place = 0;
                for (int64_t p = 1; p < k * k; p++) {
                    T v = corner[p / k * in.w + p % k];
                    if (v > best || v != v) best = v, place = p;
                }
                y[(c * oh + i) * ow + j] = best;
                argmax[(c * oh + i) * ow + j] = (uint8_t)place;
            }
}

void K(maxpool_backward)(const void *dyv, const uint8_t *argmax, sbni_image in, int64_t k,
                         void *dxv)
{
    const T *dy = dyv;
    T *dx = dxv;
    int64_t oh = in.h / k, ow = in.w / k;
    /* rows and columns that no window covers stay zero */
    if (k != 2 || in.h % 2 || in.w % 2)
        memset(dx, 0, (size_t)(in.c * in.h * in.w) * sizeof *dx);
    if (k == 2) {
        maxpool2_backward(dy, argmax, in, dx);
        return;
    }
    for (int64_t c = 0; c < in.c; c++)
        for (int64_t i = 0; i < oh; i++)
            for (int64_t j = 0; j < ow; j++) {
                int64_t at = (c * oh + i) * ow + j, place = argmax[at];
                dx[(c * in.h + i * k + place / k) * in.w + j * k + place % k] = dy[at];
            }
}
