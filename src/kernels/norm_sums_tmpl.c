#include "kernels/norm_tmpl.h"

/* What is summed over a slice. Every kernel has two forms: planes (runs of pixels of one
 * channel) and rows (runs of channels of one pixel; (n,c) data is all rows). The last
 * vector of a run may be a part of one, whose other lanes add 0. */

/* Sums of a channel or of a vector of them, two of each to keep the adders busy. */
typedef struct moments {
    vd d, dd, odd_d, odd_dd;
} moments;

INLINE void add_moments(moments *sum, const S *px, int64_t from, int64_t end, double p)
{
    int64_t j = from;
    for (; j + 2 * LANES <= end; j += 2 * LANES) {
        vd u = widen(load(px + j)) - p, v = widen(load(px + j + LANES)) - p;
        sum->d = plus(sum->d, u), sum->odd_d = plus(sum->odd_d, v);
        sum->dd += u * u, sum->odd_dd += v * v;
    }
    if (j + LANES <= end) {
        vd u = widen(load(px + j)) - p;
        sum->d += u, sum->dd += u * u;
        j += LANES;
    }
    if (j < end) {
        vd u = keep_first(widen(load_first(px + j, end - j)) - p, end - j);
        sum->odd_d += u, sum->odd_dd += u * u;
    }
}

INLINE void end_moments(const moments *sum, double *sum_d, double *sum_dd)
{
    *sum_d += lanes_sum(sum->d + sum->odd_d);
    *sum_dd += lanes_sum(sum->dd + sum->odd_dd);
}

/* Planes that are long are summed in the order of memory, each for itself; short ones
 * channel by channel, so that their lanes are added up but once. */
static void moments_planes(const sbni_block *b, const sbni_view *x, const double *pivot,
                           double *sum_d, double *sum_dd)
{
    const bool together = b->s < LONG_PLANE;
    for (int64_t i = 0; i < b->c; i++) sum_d[i] = sum_dd[i] = 0;
    for (int64_t i = 0; together && i < b->c; i++) {
        moments sum = {{0}, {0}, {0}, {0}};
        for (int64_t r = 0; r < b->n; r++) {
            const S *px = plane(x, b->rows[r], i);
            fetch_planes(px, b->s);
            add_moments(&sum, px, 0, b->s, pivot[i]);
        }
        end_moments(&sum, sum_d + i, sum_dd + i);
    }
    for (int64_t r = 0; !together && r < b->n; r++)
        for (int64_t i = 0; i < b->c; i++)
            for (int64_t from = 0; from < b->s; from += PIECE) {
                moments sum = {{0}, {0}, {0}, {0}};
                add_moments(&sum, plane(x, b->rows[r], i), from, piece_end(b, from),
                            pivot[i]);
                end_moments(&sum, sum_d + i, sum_dd + i);
            }
}

/* `width` vectors of channels of some pixels from channel i on, n lanes in the last;
 * width is a constant where it is called. */
INLINE void moments_strip(S *const *px, int count, int64_t i, const int width, int64_t n,
                          const double *pivot, double *sum_d, double *sum_dd)
{
    vd p[REST] = {{0}}, d[REST] = {{0}}, dd[REST] = {{0}};
    for (int v = 0; v < width; v++)
        p[v] = load_d(pivot + i + v * LANES, lanes_of(v, width, n));
    for (int k = 0; k < count; k++) {
        fetch_next(px[0], px[1] - px[0], ROWS, k, i, width * LANES);
        for (int v = 0; v < width; v++) {
            const S *at = px[k] + i + v * LANES;
            vd u = widen(load_upto(at, lanes_of(v, width, n))) - p[v];
            d[v] = plus(d[v], u);
            dd[v] += u * u;
        }
    }
    for (int v = 0; v < width; v++) {
        add_d(sum_d + i + v * LANES, d[v], lanes_of(v, width, n));
        add_d(sum_dd + i + v * LANES, dd[v], lanes_of(v, width, n));
    }
}

static void moments_rows(const sbni_block *b, const sbni_view *x, const double *pivot,
                         double *sum_d, double *sum_dd)
{
    S *px[ROWS] = {NULL};
    const int64_t c = b->c;
    for (int64_t i = 0; i < c; i++) sum_d[i] = sum_dd[i] = 0;
    int count;
    for (spot at = {0, 0}; at.row < b->n; advance(b, &at, count)) {
        count = pixels(b, x, &at, px);
        int64_t i = 0;
        for (; i + REST * LANES < c; i += STRIP * LANES)
            moments_strip(px, count, i, STRIP, LANES, pivot, sum_d, sum_dd);
        if (c - i > 2 * LANES)
            moments_strip(px, count, i, 3, c - i - 2 * LANES, pivot, sum_d, sum_dd);
        else if (c - i > LANES)
            moments_strip(px, count, i, 2, c - i - LANES, pivot, sum_d, sum_dd);
        else
            moments_strip(px, count, i, 1, c - i, pivot, sum_d, sum_dd);
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

/* Where dy, x and, with add, z lie. */
typedef struct places {
    const S *dy, *x, *z;
} places;

/* Add n lanes of dy and dy·(x-mean), dy behind relu. */
INLINE void add_gradients(sums *sum, const places *p, int64_t j, int64_t n,
                          const vectors *f, const bool add, const bool relu)
{
    vt u = (load_upto(p->x + j, n) - f->hi) - f->lo, g = load_upto(p->dy + j, n);
    if (relu) {
        vt y = u * f->scale + f->shift;
        if (add) y += load_upto(p->z + j, n);
        g = gate_v(g, y);
    }
    vd wide = widen(g);
    sum->dy = plus(sum->dy, wide);
    sum->dy_d += wide * widen(u);
}

INLINE void add_plane(sums *even, sums *odd, const places *p, int64_t from, int64_t end,
                      const vectors *f, const bool add, const bool relu)
{
    int64_t j = from;
    for (; j + 2 * LANES <= end; j += 2 * LANES) {
        add_gradients(even, p, j, LANES, f, add, relu);
        add_gradients(odd, p, j + LANES, LANES, f, add, relu);
    }
    for (; j < end; j += LANES) {
        add_gradients(even, p, j, at_most(end - j), f, add, relu);
    }
}

INLINE places places_at(const sbni_view *dy, const sbni_view *x, const sbni_view *z,
                        int64_t row, int64_t i, const bool add)
{
    return (places){plane(dy, row, i), plane(x, row, i), add ? plane(z, row, i) : NULL};
}

INLINE void end_sums(const sums *even, const sums *odd, double *sum_dy, double *sum_dy_d)
{
    *sum_dy += lanes_sum(even->dy + odd->dy);
    *sum_dy_d += lanes_sum(even->dy_d + odd->dy_d);
}

/* In the order of moments_planes. */
INLINE void sums_planes(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                        const sbni_channels *ch, const sbni_view *z, double *sum_dy,
                        double *sum_dy_d, const bool add, const bool relu)
{
    const bool together = b->s < LONG_PLANE;
    for (int64_t i = 0; i < b->c; i++) sum_dy[i] = sum_dy_d[i] = 0;
    for (int64_t i = 0; together && i < b->c; i++) {
        const vectors f = vectors_at(ch, NULL, i, 1, false);
        sums even = {{0}, {0}}, odd = {{0}, {0}};
        for (int64_t r = 0; r < b->n; r++) {
            const places p = places_at(dy, x, z, b->rows[r], i, add);
            fetch_planes(p.x, b->s);
            fetch_planes(p.dy, b->s);
            add_plane(&even, &odd, &p, 0, b->s, &f, add, relu);
        }
        end_sums(&even, &odd, sum_dy + i, sum_dy_d + i);
    }
    for (int64_t r = 0; !together && r < b->n; r++)
        for (int64_t i = 0; i < b->c; i++) {
            const vectors f = vectors_at(ch, NULL, i, 1, false);
            const places p = places_at(dy, x, z, b->rows[r], i, add);
            for (int64_t from = 0; from < b->s; from += PIECE) {
                sums even = {{0}, {0}}, odd = {{0}, {0}};
                add_plane(&even, &odd, &p, from, piece_end(b, from), &f, add, relu);
                end_sums(&even, &odd, sum_dy + i, sum_dy_d + i);
            }
        }
}

/* As moments_strip. */
INLINE void sums_strip(S *const *pg, S *const *px, S *const *pz, int count, int64_t i,
                       const int width, int64_t n, const sbni_channels *ch,
                       double *sum_dy, double *sum_dy_d, const bool add, const bool relu)
{
    sums sum[REST] = {{{0}, {0}}};
    vectors f[REST];
    for (int v = 0; v < width; v++)
        f[v] = vectors_at(ch, NULL, i + v * LANES, lanes_of(v, width, n), true);
    for (int k = 0; k < count; k++) {
        const places p = {pg[k], px[k], add ? pz[k] : NULL};
        fetch_next(px[0], px[1] - px[0], ROWS, k, i, width * LANES);
        fetch_next(pg[0], pg[1] - pg[0], ROWS, k, i, width * LANES);
        for (int v = 0; v < width; v++)
            add_gradients(&sum[v], &p, i + v * LANES, lanes_of(v, width, n), &f[v], add,
                          relu);
    }
    for (int v = 0; v < width; v++) {
        add_d(sum_dy + i + v * LANES, sum[v].dy, lanes_of(v, width, n));
        add_d(sum_dy_d + i + v * LANES, sum[v].dy_d, lanes_of(v, width, n));
    }
}

INLINE void sums_rows(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                      const sbni_channels *ch, const sbni_view *z, double *sum_dy,
                      double *sum_dy_d, const bool add, const bool relu)
{
    S *px[ROWS] = {NULL}, *pg[ROWS] = {NULL}, *pz[ROWS];
    const int64_t c = b->c;
    for (int64_t i = 0; i < c; i++) sum_dy[i] = sum_dy_d[i] = 0;
    int count;
    for (spot at = {0, 0}; at.row < b->n; advance(b, &at, count)) {
        count = pixels(b, x, &at, px);
        pixels(b, dy, &at, pg);
        if (add) pixels(b, z, &at, pz);
        int64_t i = 0;
        for (; i + REST * LANES < c; i += STRIP * LANES)
            sums_strip(pg, px, pz, count, i, STRIP, LANES, ch, sum_dy, sum_dy_d, add,
                       relu);
        if (c - i > 2 * LANES)
            sums_strip(pg, px, pz, count, i, 3, c - i - 2 * LANES, ch, sum_dy, sum_dy_d,
                       add, relu);
        else if (c - i > LANES)
            sums_strip(pg, px, pz, count, i, 2, c - i - LANES, ch, sum_dy, sum_dy_d, add,
                       relu);
        else
            sums_strip(pg, px, pz, count, i, 1, c - i, ch, sum_dy, sum_dy_d, add, relu);
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
