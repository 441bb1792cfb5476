#include "kernels/norm_tmpl.h"

/* Every kernel has two forms: planes (runs of pixels of one channel) and rows (runs of
 * channels of one pixel; (n,c) data is all rows). */

static void moments_planes(const sbni_block *b, const sbni_view *x, const double *pivot,
                           double *sum_d, double *sum_dd)
{
    for (int64_t i = 0; i < b->c; i++) {
        double p = pivot[i];
        sum_d[i] = sum_dd[i] = 0;
        for (int64_t from = 0; from < b->s; from += PIECE) {
            int64_t end = piece_end(b, from);
            double tail_d = 0, tail_dd = 0;
            vd d0 = {0}, d1 = {0}, dd0 = {0}, dd1 = {0};
            for (int64_t r = 0; r < b->n; r++) {
                const S *px = plane(x, b->rows[r], i);
                int64_t j = from;
                for (; j + 2 * LANES <= end; j += 2 * LANES) {
                    vd u = widen(load(px + j)) - p, v = widen(load(px + j + LANES)) - p;
                    d0 += u, d1 += v;
                    dd0 += u * u, dd1 += v * v;
                }
                for (; j < end; j++) {
                    double d = (double)get(px[j]) - p;
                    tail_d += d;
                    tail_dd += d * d;
                }
            }
            sum_d[i] += lanes_sum(d0 + d1) + tail_d;
            sum_dd[i] += lanes_sum(dd0 + dd1) + tail_dd;
        }
    }
}

/* Channels [i, i + width·LANES) of some pixels; width is a constant where it is called.
 */
INLINE void moments_strip(S *const *px, int count, int64_t i, const int width,
                          const double *pivot, double *sum_d, double *sum_dd)
{
    vd p[STRIP], d[STRIP] = {{0}}, dd[STRIP] = {{0}};
    for (int v = 0; v < width; v++) p[v] = load_d(pivot + i + v * LANES);
    for (int k = 0; k < count; k++)
        for (int v = 0; v < width; v++) {
            vd u = widen(load(px[k] + i + v * LANES)) - p[v];
            d[v] += u;
            dd[v] += u * u;
        }
    for (int v = 0; v < width; v++) {
        add_d(sum_d + i + v * LANES, d[v]);
        add_d(sum_dd + i + v * LANES, dd[v]);
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
            moments_strip(px, count, i, STRIP, pivot, sum_d, sum_dd);
        for (; i + LANES <= b->c; i += LANES)
            moments_strip(px, count, i, 1, pivot, sum_d, sum_dd);
        for (; i < b->c; i++) {
            double d = 0, dd = 0;
            for (int k = 0; k < count; k++) {
                double u = (double)get(px[k][i]) - pivot[i];
                d += u;
                dd += u * u;
            }
            sum_d[i] += d;
            sum_dd[i] += dd;
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

/* What backward must find again to the bit: the value before relu. */
INLINE T value(T x, T hi, T lo, T scale, T shift)
{
    return ((x - hi) - lo) * scale + shift;
}

/* add and relu are constants where it is called. */
INLINE void normalize(const sbni_block *b, const sbni_view *x, const sbni_channels *ch,
                      const sbni_view *z, const sbni_view *y, const bool add,
                      const bool relu)
{
    const T *hi = ch->mean_hi, *lo = ch->mean_lo, *scale = ch->scale, *shift = ch->shift;
    if (b->planes) {
        for (int64_t r = 0; r < b->n; r++)
            for (int64_t i = 0; i < b->c; i++) {
                const S *px = plane(x, b->rows[r], i),
                        *pz = add ? plane(z, b->rows[r], i) : px;
                S *py = plane(y, b->rows[r], i);
                T h = hi[i], l = lo[i], a = scale[i], s = shift[i];
                for (int64_t j = 0; j < b->s; j++) {
                    T v = value(get(px[j]), h, l, a, s);
                    if (add) v += get(pz[j]);
                    py[j] = put(relu && v < 0 ? 0 : v); /* NaN stays NaN */
                }
            }
        return;
    }
    for (int64_t r = 0; r < b->n; r++)
        for (int64_t j = 0; j < b->s; j++) {
            const S *px = pixel(x, b->rows[r], j),
                    *pz = add ? pixel(z, b->rows[r], j) : px;
            S *py = pixel(y, b->rows[r], j);
            for (int64_t i = 0; i < b->c; i++) {
                T v = value(get(px[i]), hi[i], lo[i], scale[i], shift[i]);
                if (add) v += get(pz[i]);
                py[i] = put(relu && v < 0 ? 0 : v);
            }
        }
}

void K(norm_normalize)(const sbni_block *b, const sbni_view *x, const sbni_channels *ch,
                       const sbni_fused *fused, const sbni_view *y)
{
    const sbni_view *z = fused->add;
    if (z && fused->relu)
        normalize(b, x, ch, z, y, true, true);
    else if (z)
        normalize(b, x, ch, z, y, true, false);
    else if (fused->relu)
        normalize(b, x, ch, z, y, false, true);
    else
        normalize(b, x, ch, z, y, false, false);
}

/* dy where y was above zero. */
INLINE vt gate_v(vt dy, vt y)
{
    return (vt)((vm)dy & (y > 0));
}

INLINE T gate(T dy, T y)
{
    return y > 0 ? dy : 0;
}

INLINE void sums_planes(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                        const sbni_channels *ch, const sbni_view *z, double *sum_dy,
                        double *sum_dy_d, const bool add, const bool relu)
{
    const T *hi = ch->mean_hi, *lo = ch->mean_lo, *scale = ch->scale, *shift = ch->shift;
    for (int64_t i = 0; i < b->c; i++) {
        T h = hi[i], l = lo[i], a = scale[i], s = shift[i];
        sum_dy[i] = sum_dy_d[i] = 0;
        for (int64_t from = 0; from < b->s; from += PIECE) {
            int64_t end = piece_end(b, from);
            double tail = 0, tail_d = 0;
            vd dy0 = {0}, dy1 = {0}, dd0 = {0}, dd1 = {0};
            for (int64_t r = 0; r < b->n; r++) {
                const S *px = plane(x, b->rows[r], i), *pg = plane(dy, b->rows[r], i),
                        *pz = add ? plane(z, b->rows[r], i) : px;
                int64_t j = from;
                for (; j + 2 * LANES <= end; j += 2 * LANES) {
                    vt u = (load(px + j) - h) - l, v = (load(px + j + LANES) - h) - l,
                       g = load(pg + j), k = load(pg + j + LANES);
                    if (relu) {
                        vt yu = u * a + s, yv = v * a + s;
                        if (add) yu += load(pz + j), yv += load(pz + j + LANES);
                        g = gate_v(g, yu), k = gate_v(k, yv);
                    }
                    vd gd = widen(g), kd = widen(k);
                    dy0 += gd, dy1 += kd;
                    dd0 += gd * widen(u), dd1 += kd * widen(v);
                }
                for (; j < end; j++) {
                    T u = (get(px[j]) - h) - l, g = get(pg[j]);
                    if (relu) g = gate(g, u * a + s + (add ? get(pz[j]) : 0));
                    tail += (double)g;
                    tail_d += (double)g * (double)u;
                }
            }
            sum_dy[i] += lanes_sum(dy0 + dy1) + tail;
            sum_dy_d[i] += lanes_sum(dd0 + dd1) + tail_d;
        }
    }
}

/* Channels [i, i + width·LANES) of some pixels. */
INLINE void sums_strip(S *const *pg, S *const *px, S *const *pz, int count, int64_t i,
                       const int width, const sbni_channels *ch, double *sum_dy,
                       double *sum_dy_d, const bool add, const bool relu)
{
    const T *hi = ch->mean_hi, *lo = ch->mean_lo, *scale = ch->scale, *shift = ch->shift;
    vd sum[STRIP] = {{0}}, sum_d[STRIP] = {{0}};
    for (int k = 0; k < count; k++)
        for (int v = 0; v < width; v++) {
            int64_t at = i + v * LANES;
            vt u = (load(px[k] + at) - load_t(hi + at)) - load_t(lo + at);
            vt g = load(pg[k] + at);
            if (relu) {
                vt y = u * load_t(scale + at) + load_t(shift + at);
                if (add) y += load(pz[k] + at);
                g = gate_v(g, y);
            }
            sum[v] += widen(g);
            sum_d[v] += widen(g) * widen(u);
        }
    for (int v = 0; v < width; v++) {
        add_d(sum_dy + i + v * LANES, sum[v]);
        add_d(sum_dy_d + i + v * LANES, sum_d[v]);
    }
}

INLINE void sums_rows(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                      const sbni_channels *ch, const sbni_view *z, double *sum_dy,
                      double *sum_dy_d, const bool add, const bool relu)
{
    const T *hi = ch->mean_hi, *lo = ch->mean_lo, *scale = ch->scale, *shift = ch->shift;
    S *px[ROWS], *pg[ROWS], *pz[ROWS];
    for (int64_t i = 0; i < b->c; i++) sum_dy[i] = sum_dy_d[i] = 0;
    for (int64_t from = 0; from < b->n * b->s; from += ROWS) {
        int count = pixels(b, x, from, px);
        pixels(b, dy, from, pg);
        if (add) pixels(b, z, from, pz);
        int64_t i = 0;
        for (; i + STRIP * LANES <= b->c; i += STRIP * LANES)
            sums_strip(pg, px, pz, count, i, STRIP, ch, sum_dy, sum_dy_d, add, relu);
        for (; i + LANES <= b->c; i += LANES)
            sums_strip(pg, px, pz, count, i, 1, ch, sum_dy, sum_dy_d, add, relu);
        for (; i < b->c; i++) {
            double sum = 0, sum_d = 0;
            for (int k = 0; k < count; k++) {
                T u = (get(px[k][i]) - hi[i]) - lo[i], g = get(pg[k][i]);
                if (relu)
                    g = gate(g, u * scale[i] + shift[i] + (add ? get(pz[k][i]) : 0));
                sum += (double)g;
                sum_d += (double)g * (double)u;
            }
            sum_dy[i] += sum;
            sum_dy_d[i] += sum_d;
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

/* Where the pixels of one run lie; dz and dx NULL where not wanted. */
typedef struct run {
    const S *x, *dy, *z;
    S *dx, *dz;
} run;

INLINE void dx_element(const run *p, int64_t j, T hi, T lo, T scale, T shift, T a, T bb,
                       T k, const bool reads_x, const bool add, const bool relu,
                       const bool wants_dz)
{
    T u = reads_x ? (get(p->x[j]) - hi) - lo : 0, g = get(p->dy[j]);
    if (relu) g = gate(g, u * scale + shift + (add ? get(p->z[j]) : 0));
    if (p->dx) p->dx[j] = put((a * g - bb) - k * u);
    if (wants_dz) p->dz[j] = put(g);
}

INLINE void backward_dx(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                        const sbni_channels *ch, const sbni_dx_factors *f,
                        const sbni_view *z, const sbni_view *dx, const sbni_view *dz,
                        const bool reads_x, const bool add, const bool relu,
                        const bool wants_dz)
{
    const T *hi = ch->mean_hi, *lo = ch->mean_lo, *scale = ch->scale, *shift = ch->shift,
            *a = f->a, *bb = f->b, *k = f->k;
    int64_t outer = b->planes ? b->c : b->s, inner = b->planes ? b->s : b->c;
    for (int64_t r = 0; r < b->n; r++)
        for (int64_t o = 0; o < outer; o++) {
            int64_t row = b->rows[r];
            run p = {reads_x ? run_at(b, x, row, o) : NULL, run_at(b, dy, row, o),
                     add ? run_at(b, z, row, o) : NULL, dx ? run_at(b, dx, row, o) : NULL,
                     wants_dz ? run_at(b, dz, row, o) : NULL};
            if (b->planes) {
                T h = hi[o], l = lo[o], sc = scale[o], sh = shift[o], ao = a[o],
                  bo = bb[o], ko = k[o];
                for (int64_t j = 0; j < inner; j++)
                    dx_element(&p, j, h, l, sc, sh, ao, bo, ko, reads_x, add, relu,
                               wants_dz);
            } else {
                for (int64_t i = 0; i < inner; i++)
                    dx_element(&p, i, hi[i], lo[i], scale[i], shift[i], a[i], bb[i], k[i],
                               reads_x, add, relu, wants_dz);
            }
        }
}

void K(norm_backward_dx)(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                         const sbni_channels *ch, const sbni_dx_factors *f,
                         const sbni_fused *fused, const sbni_view *dx,
                         const sbni_view *dadd)
{
    const sbni_view *z = fused->add;
    bool gated = fused->relu, gated_add = gated && z;
    if (!x && dadd)
        backward_dx(b, dy, x, ch, f, z, dx, dadd, false, false, false, true);
    else if (!x)
        backward_dx(b, dy, x, ch, f, z, dx, dadd, false, false, false, false);
    else if (dadd && gated_add)
        backward_dx(b, dy, x, ch, f, z, dx, dadd, true, true, true, true);
    else if (dadd && gated)
        backward_dx(b, dy, x, ch, f, z, dx, dadd, true, false, true, true);
    else if (dadd)
        backward_dx(b, dy, x, ch, f, z, dx, dadd, true, false, false, true);
    else if (gated_add)
        backward_dx(b, dy, x, ch, f, z, dx, dadd, true, true, true, false);
    else if (gated)
        backward_dx(b, dy, x, ch, f, z, dx, dadd, true, false, true, false);
    else
        backward_dx(b, dy, x, ch, f, z, dx, dadd, true, false, false, false);
}

void K(norm_clear)(const sbni_block *b, const sbni_view *y)
{
    int64_t outer = b->planes ? b->c : b->s, inner = b->planes ? b->s : b->c;
    for (int64_t r = 0; r < b->n; r++)
        for (int64_t o = 0; o < outer; o++)
            memset(run_at(b, y, b->rows[r], o), 0, (size_t)inner * sizeof(S));
}
