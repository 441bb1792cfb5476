#include "kernels/tmpl.h"

#include <math.h>

#if SBNI_TYPE_F64
#define EXP exp
#else
#define EXP expf
#endif

void K(log_softmax)(const void *xv, int64_t n, int64_t classes, void *yv)
{
    const T *x = xv;
    T *y = yv;
    for (int64_t r = 0; r < n; r++, x += classes, y += classes) {
        T largest = x[0];
        for (int64_t i = 1; i < classes; i++) largest = x[i] > largest ? x[i] : largest;
        double sum = 0;
        for (int64_t i = 0; i < classes; i++) sum += exp((double)(x[i] - largest));
        T log_sum = (T)log(sum);
        for (int64_t i = 0; i < classes; i++) y[i] = (x[i] - largest) - log_sum;
    }
}

double K(nll)(const void *yv, const int32_t *label, int64_t n, int64_t classes,
              double smoothing, double weight, int64_t *correct, void *dxv)
{
    const T *y = yv;
    T *dx = dxv;
    const double other = smoothing / (double)classes, own = 1 - smoothing;
    double sum = 0;
    for (int64_t r = 0; r < n; r++, y += classes) {
        int64_t best = 0;
        for (int64_t i = 1; i < classes; i++)
            if (y[i] > y[best]) best = i;
        *correct += best == label[r];
        sum -= own * (double)y[label[r]];
        for (int64_t i = 0; smoothing > 0 && i < classes; i++)
            sum -= other * (double)y[i];
        if (!dx) continue;
        for (int64_t i = 0; i < classes; i++)
            dx[i] = (EXP(y[i]) - (T)(own * (i == label[r]) + other)) * (T)weight;
        dx += classes;
    }
    return sum;
}
