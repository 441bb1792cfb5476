#include "kernels/norm_tmpl.h"

/* What backward sums over a slice, in the forms and the order of norm_tmpl.h. */

/* Where dy, x and, with add, z lie. */
typedef struct places {
    const S *dy, *x, *z;
} places;

/* What sums need of some channels: the centre, in one double where it has room, and the
 * factors of relu's argument. */
typedef struct about {
    vd centre, low;
    vectors f;
} about;

INLINE about about_at(const sbni_channels *ch, int64_t i, int64_t n, const bool rows)
{
    about a = {.f = vectors_at(ch, NULL, i, n, rows)};
    a.centre = widen(a.f.hi), a.low = widen(a.f.lo);
    if (PLAIN) a.centre += a.low;
    return a;
}

/* Add n lanes of dy and dy·(x-centre), dy behind relu. */
INLINE void add_gradients(vd *sum_dy, vd *sum_dy_d, const places *p, int64_t j, int64_t n,
                          const about *a, const bool add, const bool relu,
                          const bool plain)
{
    vt x = load_upto(p->x + j, n), g = load_upto(p->dy + j, n);
    if (relu) {
        vt y = normalized(x, &a->f, plain);
        if (add) y += load_upto(p->z + j, n);
        g = gate_v(g, y);
    }
    vd wide = widen(g), u = widen(x);
    if (plain) {
        *sum_dy = plus(*sum_dy, wide);
        *sum_dy_d = plus_product(*sum_dy_d, wide, u);
        return;
    }
    u -= a->centre;
    if (!PLAIN) u -= a->low;
    *sum_dy = plus(*sum_dy, wide);
    *sum_dy_d = plus(*sum_dy_d, wide * u);
}

/* Sums of a channel, as moments. */
typedef struct sums {
    vd dy[2 * PARTS], dy_d[2 * PARTS];
} sums;

INLINE void add_plane(sums *sum, const places *p, int64_t from, int64_t end,
                      const about *a, const bool add, const bool relu, const bool plain)
{
    int64_t j = from;
    for (; j + 2 * ROUND <= end; j += 2 * ROUND) {
#pragma GCC unroll 8
        for (int k = 0; k < 2 * PARTS; k++)
            add_gradients(&sum->dy[k], &sum->dy_d[k], p, j + k * LANES, LANES, a, add,
                          relu, plain);
    }
#pragma GCC unroll 8
    for (int k = 0; k < 2 * PARTS; k++) {
        const int64_t n = end - j - k * LANES;
        if (n <= 0) break;
        add_gradients(&sum->dy[k], &sum->dy_d[k], p, j + k * LANES, at_most(n), a, add,
                      relu, plain);
    }
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

INLINE void sums_channel(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                         const about *a, const sbni_view *z, int64_t i, double *sum_dy,
                         double *sum_dy_d, const bool add, const bool relu,
                         const bool plain)
{
    sums sum = {{{0}}, {{0}}};
    for (int64_t r = 0; r < b->n; r++) {
        const places p = places_at(dy, x, z, b->rows[r], i, add);
        fetch_planes(b, p.x, p.dy);
        add_plane(&sum, &p, 0, b->s, a, add, relu, plain);
    }
    end_sums(&sum, sum_dy, sum_dy_d);
}

INLINE void sums_plane(const sbni_block *b, const places *p, const about *a,
                       double *sum_dy, double *sum_dy_d, const bool add, const bool relu,
                       const bool plain)
{
    for (int64_t from = 0; from < b->s; from += PIECE) {
        sums sum = {{{0}}, {{0}}};
        add_plane(&sum, p, from, piece_end(b, from), a, add, relu, plain);
        end_sums(&sum, sum_dy, sum_dy_d);
    }
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
        if (!add && all_near(ch, i, 1))
            sums_channel(b, dy, x, &a, z, i, sum_dy + i, sum_dy_d + i, add, relu, true);
        else
            sums_channel(b, dy, x, &a, z, i, sum_dy + i, sum_dy_d + i, add, relu, false);
    }
    for (int64_t r = 0; !together && r < b->n; r++)
        for (int64_t i = 0; i < b->c; i++) {
            const about a = about_at(ch, i, 1, false);
            const places p = places_at(dy, x, z, b->rows[r], i, add);
            if (!add && all_near(ch, i, 1))
                sums_plane(b, &p, &a, sum_dy + i, sum_dy_d + i, add, relu, true);
            else
                sums_plane(b, &p, &a, sum_dy + i, sum_dy_d + i, add, relu, false);
        }
}

/* Pixels whose channels are summed side by side. */
typedef struct group {
    S *dy[ROWS], *x[ROWS], *z[ROWS];
    int count;
    bool adds; /* there were others of the slice before */
} group;

/* As moments_strip. */
INLINE void sums_strip(const group *at, const int64_t ahead, int64_t i, const int width,
                       int64_t n, const sbni_channels *ch, double *sum_dy,
                       double *sum_dy_d, const bool add, const bool relu,
                       const bool plain)
{
    vd dy[REST] = {{0}}, dy_d[REST] = {{0}};
    about a[REST];
#pragma GCC unroll 8
    for (int v = 0; v < width; v++)
        a[v] = about_at(ch, i + v * LANES, lanes_of(v, width, n), true);
    S *const *px = at->x, *const *pg = at->dy;
    const bool several = ahead && at->count > 1;
    const int64_t x_distance = several ? px[1] - px[0] : 0,
                  dy_distance = several ? pg[1] - pg[0] : 0;
    for (int k = 0; k < at->count; k++) {
        const places p = {pg[k], px[k], add ? at->z[k] : NULL};
        if (ahead) {
            fetch_next(px[0], x_distance, ROWS, k, i, width * LANES, ahead);
            fetch_next(pg[0], dy_distance, ROWS, k, i, width * LANES, ahead);
        }
#pragma GCC unroll 8
        for (int v = 0; v < width; v++)
            add_gradients(&dy[v], &dy_d[v], &p, i + v * LANES, lanes_of(v, width, n),
                          &a[v], add, relu, plain);
    }
#pragma GCC unroll 8
    for (int v = 0; v < width; v++) {
        put_d(sum_dy + i + v * LANES, dy[v], lanes_of(v, width, n), at->adds);
        put_d(sum_dy_d + i + v * LANES, dy_d[v], lanes_of(v, width, n), at->adds);
    }
}

/* What few pixels of backward are summed out of. */
typedef struct few_places {
    places first;
    int64_t dy, x, z; /* elements from a pixel to the next */
} few_places;

INLINE places few_at(const few_places *p, int64_t pixel, const bool add)
{
    return (places){p->first.dy + pixel * p->dy, p->first.x + pixel * p->x,
                    add ? p->first.z + pixel * p->z : NULL};
}

/* As moments_few. */
INLINE void few_groups(const few_places *p, int64_t from, const int groups, int64_t count,
                       const int width, int64_t n, const about *a, vd *dy, vd *dy_d,
                       const bool add, const bool relu, const bool plain)
{
    vd gdy[2 * FEW] = {{0}}, gdy_d[2 * FEW] = {{0}};
    for (int64_t k = 0; k < count; k++)
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++) {
            const places at = few_at(p, from + g * ROWS + k, add);
#pragma GCC unroll 2
            for (int v = 0; v < width; v++)
                add_gradients(&gdy[g * width + v], &gdy_d[g * width + v], &at, v * LANES,
                              lanes_of(v, width, n), &a[v], add, relu, plain);
        }
#pragma GCC unroll 4
    for (int g = 0; g < groups; g++)
#pragma GCC unroll 2
        for (int v = 0; v < width; v++) {
            const int at = g * width + v;
            const bool first = from == 0 && g == 0;
            dy[v] = first ? gdy[at] : gdy[at] + dy[v];
            dy_d[v] = first ? gdy_d[at] : gdy_d[at] + dy_d[v];
        }
}

INLINE void sums_few(const few_places *p, int64_t count, const int width, int64_t n,
                     const sbni_channels *ch, double *sum_dy, double *sum_dy_d,
                     int64_t ahead, const bool add, const bool relu, const bool plain)
{
    const int groups = 2 * FEW / width;
    vd dy[FEW] = {{0}}, dy_d[FEW] = {{0}};
    about a[FEW];
    int64_t j = 0;
    for (int v = 0; v < width; v++)
        a[v] = about_at(ch, v * LANES, lanes_of(v, width, n), true);
    for (; j + groups * ROWS <= count; j += groups * ROWS) {
        const places at = few_at(p, j, add);
        fetch_ahead(at.x, groups * ROWS * p->x, ahead);
        fetch_ahead(at.dy, groups * ROWS * p->dy, ahead);
        if (add) fetch_ahead(at.z, groups * ROWS * p->z, ahead);
        few_groups(p, j, groups, ROWS, width, n, a, dy, dy_d, add, relu, plain);
    }
    for (; j < count; j += ROWS)
        few_groups(p, j, 1, count - j < ROWS ? count - j : ROWS, width, n, a, dy, dy_d,
                   add, relu, plain);
    for (int v = 0; v < width; v++) {
        put_d(sum_dy + v * LANES, dy[v], lanes_of(v, width, n), false);
        put_d(sum_dy_d + v * LANES, dy_d[v], lanes_of(v, width, n), false);
    }
}

INLINE void sums_of_few(const few_places *p, int64_t count, const sbni_channels *ch,
                        int64_t c, double *sum_dy, double *sum_dy_d, int64_t ahead,
                        const bool add, const bool relu, const bool plain)
{
    if (c <= LANES)
        sums_few(p, count, 1, c, ch, sum_dy, sum_dy_d, ahead, add, relu, plain);
    else
        sums_few(p, count, 2, c - LANES, ch, sum_dy, sum_dy_d, ahead, add, relu, plain);
}

/* Whether that could be done; z NULL: nothing was added. Inlined it would take registers
 * from its neighbours. */
static __attribute__((noinline)) bool sum_few(const sbni_block *b, const sbni_view *dy,
                                              const sbni_view *x, const sbni_channels *ch,
                                              const sbni_view *z, double *sum_dy,
                                              double *sum_dy_d, bool relu, bool plain)
{
    few_places p = {
        {0}, few_distance(b, dy), few_distance(b, x), z ? few_distance(b, z) : 1};
    const int64_t c = b->c, count = b->n * b->s, ahead = b->near ? 0 : FAR_AHEAD;
    if (!p.dy || !p.x || !p.z) return false;
    p.first = places_at(dy, x, z, b->rows[0], 0, z != NULL);
    if (z)
        sums_of_few(&p, count, ch, c, sum_dy, sum_dy_d, ahead, true, true, false);
    else if (relu && plain)
        sums_of_few(&p, count, ch, c, sum_dy, sum_dy_d, ahead, false, true, true);
    else if (relu)
        sums_of_few(&p, count, ch, c, sum_dy, sum_dy_d, ahead, false, true, false);
    else if (plain)
        sums_of_few(&p, count, ch, c, sum_dy, sum_dy_d, ahead, false, false, true);
    else
        sums_of_few(&p, count, ch, c, sum_dy, sum_dy_d, ahead, false, false, false);
    return true;
}

/* All c channels of a group. */
INLINE void sums_group(const group *g, const int64_t ahead, int64_t c,
                       const sbni_channels *ch, double *sum_dy, double *sum_dy_d,
                       const bool add, const bool relu, const bool plain)
{
    int64_t i = 0;
    for (; i + REST * LANES < c; i += STRIP * LANES)
        sums_strip(g, ahead, i, STRIP, LANES, ch, sum_dy, sum_dy_d, add, relu, plain);
    const int64_t n = (c - i - 1) % LANES + 1;
    switch ((c - i - n) / LANES) {
    case 0:
        sums_strip(g, ahead, i, 1, n, ch, sum_dy, sum_dy_d, add, relu, plain);
        break;
    case 1:
        sums_strip(g, ahead, i, 2, n, ch, sum_dy, sum_dy_d, add, relu, plain);
        break;
    case 2:
        sums_strip(g, ahead, i, 3, n, ch, sum_dy, sum_dy_d, add, relu, plain);
        break;
#if SBNI_WIDE < 8
    case 3:
        sums_strip(g, ahead, i, 4, n, ch, sum_dy, sum_dy_d, add, relu, plain);
        break;
    case 4:
        sums_strip(g, ahead, i, 5, n, ch, sum_dy, sum_dy_d, add, relu, plain);
        break;
#endif
    }
}

INLINE void sums_rows(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                      const sbni_channels *ch, const sbni_view *z, double *sum_dy,
                      double *sum_dy_d, const int64_t ahead, const bool add,
                      const bool relu, const bool plain)
{
    group g; /* as a whole it would be set by a slow instruction */
    g.adds = false;
    for (spot at = {0, 0}; at.row < b->n; advance(b, &at, g.count), g.adds = true) {
        g.count = pixels(b, x, &at, g.x);
        pixels(b, dy, &at, g.dy);
        if (add) pixels(b, z, &at, g.z);
        sums_group(&g, ahead, b->c, ch, sum_dy, sum_dy_d, add, relu, plain);
    }
}

/* As moments_short. */
static __attribute__((noinline)) void sums_short(const sbni_block *b, const sbni_view *dy,
                                                 const sbni_view *x,
                                                 const sbni_channels *ch, double *sum_dy,
                                                 double *sum_dy_d, bool relu)
{
    double of_dy[SHORT_PLANES], of_dy_d[SHORT_PLANES];
    T scale[SHORT_PLANES], shift[SHORT_PLANES], none[SHORT_PLANES] = {0};
    const sbni_channels of_each = {
        .centre_hi = none, .centre_lo = none, .scale = scale, .shift = shift};
    for (int64_t i = 0, count; i < b->c; i += count) {
        group g;
        count = short_planes(b, i);
        g.adds = false;
        g.count = (int)b->n;
        for (int k = 0; k < g.count; k++) {
            g.x[k] = plane(x, b->rows[k], i);
            g.dy[k] = plane(dy, b->rows[k], i);
        }
        spread(ch->scale, i, count, b->s, scale);
        spread(ch->shift, i, count, b->s, shift);
        if (relu)
            sums_group(&g, 0, count * b->s, &of_each, of_dy, of_dy_d, false, true, true);
        else
            sums_group(&g, 0, count * b->s, &of_each, of_dy, of_dy_d, false, false, true);
        for (int64_t k = 0; k < count; k++) {
            sum_dy[i + k] = short_sum(of_dy + k * b->s, b->s);
            sum_dy_d[i + k] = short_sum(of_dy_d + k * b->s, b->s);
        }
    }
}

/* Σdy·(x-mean) of Σdy·(x-centre); plain: the centre is 0 in all channels. */
INLINE void centre_sums(const sbni_channels *ch, int64_t c, const double *sum_dy,
                        double *sum_dy_d, const bool plain)
{
    const T *hi = ch->mean_hi, *lo = ch->mean_lo, *centre_hi = ch->centre_hi,
            *centre_lo = ch->centre_lo;
    for (int64_t i = 0; i < c; i++) {
        double off = (double)hi[i] + (double)lo[i];
        if (!plain) off -= (double)centre_hi[i] + (double)centre_lo[i];
        sum_dy_d[i] -= off * sum_dy[i];
    }
}

INLINE void backward_sums(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                          const sbni_channels *ch, const sbni_view *z, double *sum_dy,
                          double *sum_dy_d, const bool add, const bool relu)
{
    const bool plain = all_near(ch, 0, b->c);
    if (!add && plain && is_summed_short(b, x) && is_summed_short(b, dy))
        sums_short(b, dy, x, ch, sum_dy, sum_dy_d, relu);
    else if (b->planes)
        sums_planes(b, dy, x, ch, z, sum_dy, sum_dy_d, add, relu);
    else if (sum_few(b, dy, x, ch, add ? z : NULL, sum_dy, sum_dy_d, relu, plain))
        ;
    else if (add || !plain)
        sums_rows(b, dy, x, ch, z, sum_dy, sum_dy_d, FAR_AHEAD, add, relu, false);
    else if (b->near)
        sums_rows(b, dy, x, ch, z, sum_dy, sum_dy_d, 0, add, relu, true);
    else
        sums_rows(b, dy, x, ch, z, sum_dy, sum_dy_d, FAR_AHEAD, add, relu, true);
    if (plain)
        centre_sums(ch, b->c, sum_dy, sum_dy_d, true);
    else if (PLAIN)
        centre_sums(ch, b->c, sum_dy, sum_dy_d, false);
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
