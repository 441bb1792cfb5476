#include "support/slices.h"

#include <math.h>

slices in;

int64_t below(int64_t n, int64_t i, uint32_t which)
{
    return (int64_t)(sbni_rng_u64(words_key, (uint64_t)i, which) % (uint64_t)n);
}

void put_part(double v, int lsb, int count, uint64_t *words)
{
    for (int k = count - 1; k >= 0; k--) {
        double r = nearbyint(ldexp(v, -lsb - SBNI_GRID_BITS * k));
        words[k] += (uint64_t)(int64_t)r;
        v -= ldexp(r, lsb + SBNI_GRID_BITS * k);
    }
}

double round_to(sbn_dtype t, double v)
{
    return t == SBN_F64 ? v : (double)(float)v;
}

/* Sums about the first of real values of scale 2^e, or of scales of their own up to it,
 * or about a far mean of the channel, or of the channel's constant; or about 0. */
static void put_values(sbn_dtype t, int64_t at, int m, int e, int kind)
{
    double p = 0, d = 0, dd = 0;
    for (int k = 0; k < m; k++) {
        uint64_t i = (uint64_t)(kind == EQUAL ? at % STRIDE : at);
        uint32_t which = kind == EQUAL ? 5 : 5 + (uint32_t)k;
        int own = kind == UNEVEN ? e - (int)below(40, at, 50 + which) : e;
        double x = ldexp(1 + sbni_rng_normal(words_key, i, which), own);
        if (kind == FAR)
            x += ldexp(0.7, (int)below(t == SBN_F64 ? 40 : 16, at % STRIDE, 6));
        x = round_to(t, x);
        if (k == 0 && kind != ABOUT_0 && kind != SCALES_ABOUT_0) p = x;
        d += x - p;
        dd += (x - p) * (x - p);
    }
    in.p[at] = p, in.d[at] = d, in.dd[at] = dd;
}

void draw_slices(sbn_dtype t, int64_t c, int64_t count, int kind)
{
    for (int64_t k = 0; k < count; k++) {
        int m = 1 + (int)below(19, k, 3);
        in.m[k] = m;
        for (int64_t i = 0; i < STRIDE; i++) {
            int64_t at = k * STRIDE + i;
            int one = kind == MIXED ? (int)below(MIXED, at, 4) : kind;
            bool scaled = one == SCALES || one == SCALES_ABOUT_0 || kind == MIXED;
            int scale = scaled ? (int)below(70, at, 30) - 30 : 0;
            if (i >= c)
                in.p[at] = in.d[at] = in.dd[at] = NAN;
            else if (one == ZERO)
                in.p[at] = in.d[at] = in.dd[at] = 0;
            else if (one == FIRST_ABOUT_0)
                put_values(t, at, m, 0, k == 0 ? ABOUT_0 : ORDINARY);
            else
                put_values(t, at, m, one == UNEVEN ? 10 : scale, one);
        }
    }
}

int add_slices(const sbni_words_kernels *k, int64_t c, int64_t from, int64_t count,
               uint64_t *to)
{
    int64_t at = from * STRIDE;
    return k->add_moments(c, count, STRIDE, in.m + from, in.p + at, in.d + at, in.dd + at,
                          to);
}
