#include "kernels/tmpl.h"

#include <math.h>

#if SBNI_TYPE_F64
#define ROOT sqrt
#else
#define ROOT sqrtf
#endif

void K(sgd)(void *pv, const void *gv, void *vv, int64_t n, double lr, double momentum,
            double decay, int nesterov)
{
    T *p = pv, *v = vv;
    const T *g = gv;
    T rate = (T)lr, m = (T)momentum, d = (T)decay;
    for (int64_t i = 0; i < n; i++) {
        T slope = g[i] + d * p[i];
        v[i] = m * v[i] + slope;
        p[i] -= rate * (nesterov ? slope + m * v[i] : v[i]);
    }
}

/* As frameworks evaluate it; the root is of T's type, where it is rounded correctly. */
void K(adam)(void *pv, const void *gv, void *mv, void *vv, int64_t n, double beta1,
             double beta2, double eps, double rate, double root, double decay,
             double shrink)
{
    T *p = pv, *m = mv, *v = vv;
    const T *g = gv;
    T b1 = (T)beta1, b2 = (T)beta2, c1 = (T)(1 - beta1), c2 = (T)(1 - beta2), e = (T)eps,
      lr = (T)rate, r = (T)root, d = (T)decay, keep = (T)shrink;
    for (int64_t i = 0; i < n; i++) {
        T at = p[i] * keep, slope = g[i] + d * p[i];
        m[i] = b1 * m[i] + c1 * slope;
        v[i] = b2 * v[i] + c2 * slope * slope;
        p[i] = at - lr * (m[i] / (ROOT(v[i]) / r + e));
    }
}
