#include "kernels/tmpl.h"

#include "core/grid.h"

static uint64_t units(T g, double scale)
{
    return bits((double)g * scale + SBNI_GRID_ROUND) - bits(SBNI_GRID_ROUND);
}

double K(grad_quantize)(const void *gv, int64_t n, double scale, bool first,
                        uint64_t *words)
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
    if (first)
        for (int64_t i = 0; i < n; i++) words[i] = units(g[i], scale);
    else
        for (int64_t i = 0; i < n; i++) words[i] += units(g[i], scale);
    T value;
    memcpy(&value, &largest, sizeof value);
    return (double)value;
}

void K(grad_dequantize)(const uint64_t *words, int64_t n, double unit, void *gv)
{
    T *g = gv;
    for (int64_t i = 0; i < n; i++) g[i] = (T)((double)(int64_t)words[i] * unit);
}
