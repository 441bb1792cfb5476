#include "kernels/tmpl.h"

#include "core/grid.h"

static uint64_t units(T g, double scale)
{
    return bits((double)g * scale + SBNI_GRID_ROUND) - bits(SBNI_GRID_ROUND);
}

/* Elements that are still in the nearest cache when they are read for the second time. */
enum { TOGETHER = 2048 };

/* As integers NaN sorts above infinity and infinity above the rest: neither hides. */
static Tbits largest_bits(const T *g, int64_t n, Tbits largest)
{
    for (int64_t i = 0; i < n; i++) {
        Tbits b;
        memcpy(&b, &g[i], sizeof b);
        b &= (Tbits)-1 >> 1;
        largest = b > largest ? b : largest;
    }
    return largest;
}

double K(grad_quantize)(const void *gv, int64_t n, double scale, bool first,
                        uint64_t *words)
{
    const T *g = gv;
    Tbits largest = 0;
    for (int64_t at = 0, end; at < n; at = end) {
        end = n - at < TOGETHER ? n : at + TOGETHER;
        largest = largest_bits(g + at, end - at, largest);
        if (first)
            for (int64_t i = at; i < end; i++) words[i] = units(g[i], scale);
        else
            for (int64_t i = at; i < end; i++) words[i] += units(g[i], scale);
    }
    T value;
    memcpy(&value, &largest, sizeof value);
    return (double)value;
}

void K(grad_dequantize)(const uint64_t *words, int64_t n, double unit, void *gv)
{
    T *g = gv;
    for (int64_t i = 0; i < n; i++) g[i] = (T)((double)(int64_t)words[i] * unit);
}
