#include "kernels/tmpl.h"

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
