#include "kernels/tmpl.h"

#include "core/grid.h"

double K(grad_quantize)(const void *gv, int64_t n, double scale, uint64_t *words)
{
    const T *g = gv;
    /* As integers NaN sorts above infinity and infinity above the rest: neither hides. */
    Tbits largest = 0;
    for (int64_t i = 0; i < n; i++) {
        Tbits b;
        memcpy(&b, &g[i], sizeof b);
        b &= (Tbits)-1 >> 1;
        largest = b > largest ? b : largest;
    }
    for (int64_t i = 0; i < n; i++)
        words[i] += bits((double)g[i] * scale + SBNI_GRID_ROUND) - bits(SBNI_GRID_ROUND);
    T value;
    memcpy(&value, &largest, sizeof value);
    return (double)value;
}

void K(grad_dequantize)(const uint64_t *words, int64_t n, double unit, void *gv)
{
    T *g = gv;
    for (int64_t i = 0; i < n; i++) g[i] = (T)((double)(int64_t)words[i] * unit);
}
