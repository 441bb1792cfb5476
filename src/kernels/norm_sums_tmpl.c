#include "kernels/norm_tmpl.h"

/* What is summed over a slice. Every kernel has two forms: planes (runs of pixels of one
 * channel) and rows (runs of channels of one pixel; (n,c) data is all rows). The last
 * vector of a run may be a part of one, whose other lanes add 0. */

/* Sums of a channel, two of each to keep the adders busy. */
typedef struct moments {
    vd d[2 * PARTS], dd[2 * PARTS];
} moments;

/* One round: ROUND values from px on into the even or odd sums. */
INLINE void add_round(moments *sum, const S *px, double p, const int odd)
{
#pragma GCC unroll 8
    for (int k = 0; k < PARTS; k++) {
        vd u = widen(load(px + k * LANES)) - p;
        sum->d[odd * PARTS + k] = plus(sum->d[odd * PARTS + k], u);
        vd *dd = &sum->dd[odd * PARTS + k];
        *dd = odd ? plus(*dd, u * u) : *dd + u * u;
    }
}

INLINE void add_moments(moments *sum, const S *px, int64_t from, int64_t end, double p)
{
    int64_t j = from;
    for (; j + 2 * ROUND <= end; j += 2 * ROUND) {
        add_round(sum, px + j, p, 0);
        add_round(sum, px + j + ROUND, p, 1);
    }
    if (j + ROUND <= end) {
        add_round(sum, px + j, p, 0);
        j += ROUND;
    }
    for (int k = 0; k < PARTS && j < end; k++, j += LANES) {
        int64_t n = at_most(end - j);
        vd u = keep_first(widen(load_upto(px + j, n)) - p, n);
        sum->d[PARTS + k] += u, sum->dd[PARTS + k] += u * u;
    }
}

INLINE void end_moments(const moments *sum, double *sum_d, double *sum_dd)
{
    *sum_d += both_sum(sum->d);
    *sum_dd += both_sum(sum->dd);
}

/* Planes that are long are summed in the order of memory, each for itself; short ones
 * channel by channel, so that their lanes are added up but once. */
static void moments_planes(const sbni_block *b, const sbni_view *x, const double *pivot,
                           double *sum_d, double *sum_dd)
{
    const bool together = b->s < LONG_PLANE;
    for (int64_t i = 0; i < b->c; i++) sum_d[i] = sum_dd[i] = 0;
    for (int64_t i = 0; together && i < b->c; i++) {
        moments sum = {{{0}}, {{0}}};
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
                moments sum = {{{0}}, {{0}}};
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
#pragma GCC unroll 8
    for (int v = 0; v < width; v++)
        p[v] = load_d(pivot + i + v * LANES, lanes_of(v, width, n));
    for (int k = 0; k < count; k++) {
        fetch_next(px[0], px[1] - px[0], ROWS, k, i, width * LANES, FAR_AHEAD);
#pragma GCC unroll 8
        for (int v = 0; v < width; v++) {
            const S *at = px[k] + i + v * LANES;
            vd u = widen(load_upto(at, lanes_of(v, width, n))) - p[v];
            d[v] = plus(d[v], u);
            dd[v] = v % 2 ? plus(dd[v], u * u) : dd[v] + u * u;
        }
    }
#pragma GCC unroll 8
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
        const int64_t n = (c - i - 1) % LANES + 1;
        switch ((c - i - n) / LANES) {
        case 0:
            moments_strip(px, count, i, 1, n, pivot, sum_d, sum_dd);
            break;
        case 1:
            moments_strip(px, count, i, 2, n, pivot, sum_d, sum_dd);
            break;
        case 2:
            moments_strip(px, count, i, 3, n, pivot, sum_d, sum_dd);
            break;
#if SBNI_WIDE < 8
        case 3:
            moments_strip(px, count, i, 4, n, pivot, sum_d, sum_dd);
            break;
        case 4:
            moments_strip(px, count, i, 5, n, pivot, sum_d, sum_dd);
            break;
#endif
        }
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

/* Where dy, x and, with add, z lie. */
typedef struct places {
    const S *dy, *x, *z;
} places;

/* What sums need of some channels: their mean, in one double where it has room, and the
 * factors of relu's argument. */
typedef struct about {
    vd mean, low;
    vectors f;
} about;

INLINE about about_at(const sbni_channels *ch, int64_t i, int64_t n, const bool rows)
{
    about a = {.f = vectors_at(ch, NULL, i, n, rows)};
    a.mean = widen(a.f.hi), a.low = widen(a.f.lo);
    if (sizeof(T) < sizeof(double)) a.mean += a.low;
    return a;
}

/* Add n lanes of dy and dy·(x-mean), dy behind relu. */
INLINE void add_gradients(vd *sum_dy, vd *sum_dy_d, const places *p, int64_t j, int64_t n,
                          const about *a, const bool add, const bool relu)
{
    const vectors *f = &a->f;
    vt x = load_upto(p->x + j, n), g = load_upto(p->dy + j, n);
    if (relu) {
        vt y = ((x - f->hi) - f->lo) * f->scale + f->shift;
        if (add) y += load_upto(p->z + j, n);
        g = gate_v(g, y);
    }
    vd wide = widen(g), u = widen(x) - a->mean;
    if (sizeof(T) == sizeof(double)) u -= a->low;
    *sum_dy = plus(*sum_dy, wide);
    *sum_dy_d = plus(*sum_dy_d, wide * u);
}

/* Sums of a channel, as moments. */
typedef struct sums {
    vd dy[2 * PARTS], dy_d[2 * PARTS];
} sums;

INLINE void add_plane(sums *sum, const places *p, int64_t from, int64_t end,
                      const about *a, const bool add, const bool relu)
{
    int64_t j = from;
    for (; j + 2 * ROUND <= end; j += 2 * ROUND)
#pragma GCC unroll 8
        for (int k = 0; k < 2 * PARTS; k++)
            add_gradients(&sum->dy[k], &sum->dy_d[k], p, j + k * LANES, LANES, a, add,
                          relu);
    for (; j < end; j += ROUND)
        for (int k = 0; k < PARTS && j + k * LANES < end; k++)
            add_gradients(&sum->dy[k], &sum->dy_d[k], p, j + k * LANES,
                          at_most(end - j - k * LANES), a, add, relu);
}

INLINE places places_at(const sbni_view *dy, const sbni_view *x, const sbni_view *z,
                        int64_t row, int64_t i, const bool add)
{
    return (places){plane(dy, row, i), plane(x, row, i), add ? plane(z, row, i) : NULL};
}

INLINE void end_sums(const sums *sum, double *sum_dy, double *sum_dy_d)
{
    *sum_dy += both_sum(sum->dy);
    *sum_dy_d += both_sum(sum->dy_d);
}

/* In the order of moments_planes. */
INLINE void sums_planes(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                        const sbni_channels *ch, const sbni_view *z, double *sum_dy,
                        double *sum_dy_d, const bool add, const bool relu)
{
    const bool together = b->s < LONG_PLANE;
    for (int64_t i = 0; i < b->c; i++) sum_dy[i] = sum_dy_d[i] = 0;
    for (int64_t i = 0; together && i < b->c; i++) {
        const about a = about_at(ch, i, 1, false);
        sums sum = {{{0}}, {{0}}};
        for (int64_t r = 0; r < b->n; r++) {
            const places p = places_at(dy, x, z, b->rows[r], i, add);
            fetch_planes(p.x, b->s);
            fetch_planes(p.dy, b->s);
            add_plane(&sum, &p, 0, b->s, &a, add, relu);
        }
        end_sums(&sum, sum_dy + i, sum_dy_d + i);
    }
    for (int64_t r = 0; !together && r < b->n; r++)
        for (int64_t i = 0; i < b->c; i++) {
            const about a = about_at(ch, i, 1, false);
            const places p = places_at(dy, x, z, b->rows[r], i, add);
            for (int64_t from = 0; from < b->s; from += PIECE) {
                sums sum = {{{0}}, {{0}}};
                add_plane(&sum, &p, from, piece_end(b, from), &a, add, relu);
                end_sums(&sum, sum_dy + i, sum_dy_d + i);
            }
        }
}

/* As moments_strip. */
INLINE void sums_strip(S *const *pg, S *const *px, S *const *pz, int count, int64_t i,
                       const int width, int64_t n, const sbni_channels *ch,
                       double *sum_dy, double *sum_dy_d, const bool add, const bool relu)
{
    vd dy[REST] = {{0}}, dy_d[REST] = {{0}};
    about a[REST];
#pragma GCC unroll 8
    for (int v = 0; v < width; v++)
        a[v] = about_at(ch, i + v * LANES, lanes_of(v, width, n), true);
    for (int k = 0; k < count; k++) {
        const places p = {pg[k], px[k], add ? pz[k] : NULL};
        fetch_next(px[0], px[1] - px[0], ROWS, k, i, width * LANES, FAR_AHEAD);
        fetch_next(pg[0], pg[1] - pg[0], ROWS, k, i, width * LANES, FAR_AHEAD);
#pragma GCC unroll 8
        for (int v = 0; v < width; v++)
            add_gradients(&dy[v], &dy_d[v], &p, i + v * LANES, lanes_of(v, width, n),
                          &a[v], add, relu);
    }
#pragma GCC unroll 8
    for (int v = 0; v < width; v++) {
        add_d(sum_dy + i + v * LANES, dy[v], lanes_of(v, width, n));
        add_d(sum_dy_d + i + v * LANES, dy_d[v], lanes_of(v, width, n));
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
        const int64_t n = (c - i - 1) % LANES + 1;
        switch ((c - i - n) / LANES) {
        case 0:
            sums_strip(pg, px, pz, count, i, 1, n, ch, sum_dy, sum_dy_d, add, relu);
            break;
        case 1:
            sums_strip(pg, px, pz, count, i, 2, n, ch, sum_dy, sum_dy_d, add, relu);
            break;
        case 2:
            sums_strip(pg, px, pz, count, i, 3, n, ch, sum_dy, sum_dy_d, add, relu);
            break;
#if SBNI_WIDE < 8
        case 3:
            sums_strip(pg, px, pz, count, i, 4, n, ch, sum_dy, sum_dy_d, add, relu);
            break;
        case 4:
            sums_strip(pg, px, pz, count, i, 5, n, ch, sum_dy, sum_dy_d, add, relu);
            break;
#endif
        }
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
