#include "kernels/norm_tmpl.h"

/* What is summed over a slice. Every kernel has two forms: planes (runs of pixels of one
 * channel) and rows (runs of channels of one pixel; (n,c) data is all rows). The last
 * vector of a run may be a part of one, whose other lanes add 0. */

static void moments_planes(const sbni_block *b, const sbni_view *x, const double *pivot,
                           double *sum_d, double *sum_dd)
{
    for (int64_t i = 0; i < b->c; i++) {
        double p = pivot[i];
        sum_d[i] = sum_dd[i] = 0;
        for (int64_t from = 0; from < b->s; from += PIECE) {
            int64_t end = piece_end(b, from);
            vd d0 = {0}, d1 = {0}, dd0 = {0}, dd1 = {0};
            for (int64_t r = 0; r < b->n; r++) {
                const S *px = plane(x, b->rows[r], i);
                int64_t j = from;
                for (; j + 2 * LANES <= end; j += 2 * LANES) {
                    vd u = widen(load(px + j)) - p, v = widen(load(px + j + LANES)) - p;
                    d0 += u, d1 += v;
                    dd0 += u * u, dd1 += v * v;
                }
                if (j + LANES <= end) {
                    vd u = widen(load(px + j)) - p;
                    d0 += u, dd0 += u * u;
                    j += LANES;
                }
                if (j < end) {
                    vd u = keep_first(widen(load_first(px + j, end - j)) - p, end - j);
                    d1 += u, dd1 += u * u;
                }
            }
            sum_d[i] += lanes_sum(d0 + d1);
            sum_dd[i] += lanes_sum(dd0 + dd1);
        }
    }
}

/* Channels [i, i + width·LANES) of some pixels, or the first n < LANES of them; width and
 * whether n is LANES are constants where it is called. */
INLINE void moments_strip(S *const *px, int count, int64_t i, const int width, int64_t n,
                          const double *pivot, double *sum_d, double *sum_dd)
{
    vd p[STRIP] = {{0}}, d[STRIP] = {{0}}, dd[STRIP] = {{0}};
    for (int v = 0; v < width; v++) p[v] = load_d(pivot + i + v * LANES, n);
    for (int k = 0; k < count; k++)
        for (int v = 0; v < width; v++) {
            vd u = widen(load_upto(px[k] + i + v * LANES, n)) - p[v];
            d[v] += u;
            dd[v] += u * u;
        }
    for (int v = 0; v < width; v++) {
        add_d(sum_d + i + v * LANES, d[v], n);
        add_d(sum_dd + i + v * LANES, dd[v], n);
    }
}

static void moments_rows(const sbni_block *b, const sbni_view *x, const double *pivot,
                         double *sum_d, double *sum_dd)
{
    S *px[ROWS];
    for (int64_t i = 0; i < b->c; i++) sum_d[i] = sum_dd[i] = 0;
    for (int64_t from = 0; from < b->n * b->s; from += ROWS) {
        int count = pixels(b, x, from, px);
        int64_t i = 0;
        for (; i + STRIP * LANES <= b->c; i += STRIP * LANES)
            moments_strip(px, count, i, STRIP, LANES, pivot, sum_d, sum_dd);
        for (; i + 2 * LANES <= b->c; i += 2 * LANES)
            moments_strip(px, count, i, 2, LANES, pivot, sum_d, sum_dd);
        for (; i + LANES <= b->c; i += LANES)
            moments_strip(px, count, i, 1, LANES, pivot, sum_d, sum_dd);
        if (i < b->c) moments_strip(px, count, i, 1, b->c - i, pivot, sum_d, sum_dd);
    }
}

/* Sums about a pivot more than three deviations off, (Σd)²/m > 0.9·Σd², are mostly the
 * distance's, and so is their rounding: up to m roundings of the variance. Slices of more
 * values than this are then summed anew about their mean, as near as T has it. */
enum { REPIVOT = 256 };

void K(norm_moments)(const sbni_block *b, const sbni_view *x, double *pivot,
                     double *sum_d, double *sum_dd)
{
    double m = (double)(b->n * b->s);
    for (int64_t i = 0; i < b->c; i++) pivot[i] = (double)get(*plane(x, b->rows[0], i));
    (b->planes ? moments_planes : moments_rows)(b, x, pivot, sum_d, sum_dd);
    for (int64_t i = 0; i < b->c && m > REPIVOT; i++) {
        double off = sum_d[i] / m;
        if (!(sum_d[i] * off > 0.9 * sum_dd[i])) continue;
        sbni_block one = *b;
        sbni_view channel = *x;
        one.c = 1;
        channel.data = plane(x, 0, i);
        pivot[i] = (double)(T)(pivot[i] + off);
        (b->planes ? moments_planes : moments_rows)(&one, &channel, pivot + i, sum_d + i,
                                                    sum_dd + i);
    }
}

/* Sums of a channel or of a vector of them. */
typedef struct sums {
    vd dy, dy_d;
} sums;

/* Add n lanes of dy and dy·(x-mean), dy behind relu. */
INLINE void add_gradients(sums *sum, const S *pg, const S *px, const S *pz, int64_t n,
                          const vectors *f, const bool add, const bool relu)
{
    vt u = (load_upto(px, n) - f->hi) - f->lo, g = load_upto(pg, n);
    if (relu) {
        vt y = u * f->scale + f->shift;
        if (add) y += load_upto(pz, n);
        g = gate_v(g, y);
    }
    sum->dy += widen(g);
    sum->dy_d += widen(g) * widen(u);
}

INLINE void sums_planes(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                        const sbni_channels *ch, const sbni_view *z, double *sum_dy,
                        double *sum_dy_d, const bool add, const bool relu)
{
    for (int64_t i = 0; i < b->c; i++) {
        const vectors f = vectors_at(ch, NULL, i, 1, false);
        sum_dy[i] = sum_dy_d[i] = 0;
        for (int64_t from = 0; from < b->s; from += PIECE) {
            int64_t end = piece_end(b, from);
            sums even = {{0}, {0}}, odd = {{0}, {0}};
            for (int64_t r = 0; r < b->n; r++) {
                const S *px = plane(x, b->rows[r], i), *pg = plane(dy, b->rows[r], i),
                        *pz = add ? plane(z, b->rows[r], i) : px;
                int64_t j = from;
                for (; j + 2 * LANES <= end; j += 2 * LANES) {
                    add_gradients(&even, pg + j, px + j, pz + j, LANES, &f, add, relu);
                    add_gradients(&odd, pg + j + LANES, px + j + LANES, pz + j + LANES,
                                  LANES, &f, add, relu);
                }
                if (j + LANES <= end) {
                    add_gradients(&even, pg + j, px + j, pz + j, LANES, &f, add, relu);
                    j += LANES;
                }
                if (j < end)
                    add_gradients(&odd, pg + j, px + j, pz + j, end - j, &f, add, relu);
            }
            sum_dy[i] += lanes_sum(even.dy + odd.dy);
            sum_dy_d[i] += lanes_sum(even.dy_d + odd.dy_d);
        }
    }
}

/* As moments_strip. */
INLINE void sums_strip(S *const *pg, S *const *px, S *const *pz, int count, int64_t i,
                       const int width, int64_t n, const sbni_channels *ch,
                       double *sum_dy, double *sum_dy_d, const bool add, const bool relu)
{
    sums sum[STRIP] = {{{0}, {0}}};
    vectors f[STRIP];
    for (int v = 0; v < width; v++) f[v] = vectors_at(ch, NULL, i + v * LANES, n, true);
    for (int k = 0; k < count; k++)
        for (int v = 0; v < width; v++) {
            int64_t at = i + v * LANES;
            add_gradients(&sum[v], pg[k] + at, px[k] + at, add ? pz[k] + at : NULL, n,
                          &f[v], add, relu);
        }
    for (int v = 0; v < width; v++) {
        add_d(sum_dy + i + v * LANES, sum[v].dy, n);
        add_d(sum_dy_d + i + v * LANES, sum[v].dy_d, n);
    }
}

INLINE void sums_rows(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                      const sbni_channels *ch, const sbni_view *z, double *sum_dy,
                      double *sum_dy_d, const bool add, const bool relu)
{
    S *px[ROWS], *pg[ROWS], *pz[ROWS];
    for (int64_t i = 0; i < b->c; i++) sum_dy[i] = sum_dy_d[i] = 0;
    for (int64_t from = 0; from < b->n * b->s; from += ROWS) {
        int count = pixels(b, x, from, px);
        pixels(b, dy, from, pg);
        if (add) pixels(b, z, from, pz);
        int64_t i = 0;
        for (; i + STRIP * LANES <= b->c; i += STRIP * LANES)
            sums_strip(pg, px, pz, count, i, STRIP, LANES, ch, sum_dy, sum_dy_d, add,
                       relu);
        for (; i + 2 * LANES <= b->c; i += 2 * LANES)
            sums_strip(pg, px, pz, count, i, 2, LANES, ch, sum_dy, sum_dy_d, add, relu);
        for (; i + LANES <= b->c; i += LANES)
            sums_strip(pg, px, pz, count, i, 1, LANES, ch, sum_dy, sum_dy_d, add, relu);
        if (i < b->c)
            sums_strip(pg, px, pz, count, i, 1, b->c - i, ch, sum_dy, sum_dy_d, add,
                       relu);
    }
}

INLINE void backward_sums(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                          const sbni_channels *ch, const sbni_view *z, double *sum_dy,
                          double *sum_dy_d, const bool add, const bool relu)
{
    if (b->planes)
        sums_planes(b, dy, x, ch, z, sum_dy, sum_dy_d, add, relu);
    else
        sums_rows(b, dy, x, ch, z, sum_dy, sum_dy_d, add, relu);
}

void K(norm_backward_sums)(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                           const sbni_channels *ch, const sbni_fused *fused,
                           double *sum_dy, double *sum_dy_d)
{
    const sbni_view *z = fused->add;
    /* without relu the gradient does not ask what was added */
    if (!fused->relu)
        backward_sums(b, dy, x, ch, z, sum_dy, sum_dy_d, false, false);
    else if (z)
        backward_sums(b, dy, x, ch, z, sum_dy, sum_dy_d, true, true);
    else
        backward_sums(b, dy, x, ch, z, sum_dy, sum_dy_d, false, true);
}
