#include "kernels/tmpl.h"

#include <math.h>

#if SBNI_TYPE_F64
#define EXP exp
#else
#define EXP expf
#endif

void K(relu)(const void *xv, int64_t n, void *yv)
{
    const T *x = xv;
    T *y = yv;
    /* written so that NaN stays NaN */
    for (int64_t i = 0; i < n; i++) y[i] = x[i] < 0 ? 0 : x[i];
}

void K(relu_backward)(const void *yv, const void *dyv, int64_t n, void *dxv)
{
    const T *y = yv, *dy = dyv;
    T *dx = dxv;
    for (int64_t i = 0; i < n; i++) dx[i] = y[i] > 0 ? dy[i] : 0;
}

void K(sigmoid)(const void *xv, int64_t n, void *yv)
{
    const T *x = xv;
    T *y = yv;
    for (int64_t i = 0; i < n; i++) y[i] = 1 / (1 + EXP(-x[i]));
}

void K(sigmoid_backward)(const void *yv, const void *dyv, int64_t n, void *dxv)
{
    const T *y = yv, *dy = dyv;
    T *dx = dxv;
    for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * y[i] * (1 - y[i]);
}

void K(add)(const void *xv, const void *zv, int64_t n, void *yv)
{
    const T *x = xv, *z = zv;
    T *y = yv;
    for (int64_t i = 0; i < n; i++) y[i] = x[i] + z[i];
}

void K(dropout)(const void *xv, const uint8_t *kept, int64_t n, double scale, void *yv)
{
    const T *x = xv;
    T *y = yv;
    const T factor = (T)scale;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++)
            y[i + k] = x[i + k] * (kept[i / 8] >> k & 1 ? factor : 0);
    for (; i < n; i++) y[i] = x[i] * (kept[i / 8] >> i % 8 & 1 ? factor : 0);
}
