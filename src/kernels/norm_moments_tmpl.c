#include "kernels/norm_tmpl.h"

/* What forward sums over a slice, in the forms and the order of norm_tmpl.h. */

/* Whether sums about `count` vectors of pivots are plain. */
INLINE bool all_zero(const vd *pivot, const int count)
{
    typedef uint64_t vu __attribute__((vector_size(8 * LANES)));
    vu lanes = {0};
    uint64_t any = 0;
#pragma GCC unroll 8
    for (int v = 0; v < count; v++) lanes |= (vu)pivot[v];
#pragma GCC unroll 8
    for (int k = 0; k < LANES; k++) any |= lanes[k];
    return PLAIN && any == 0;
}

/* Sums of a channel, two of each to keep the adders busy. */
typedef struct moments {
    vd d[2 * PARTS], dd[2 * PARTS];
} moments;

/* Add u and u² to two sums. */
INLINE void add_moment(vd *d, vd *dd, vd u, const int odd, const bool plain)
{
    if (plain) {
        *d += u;
        *dd = plus_product(*dd, u, u);
    } else {
        *d = plus(*d, u);
        *dd = odd ? plus(*dd, u * u) : *dd + u * u;
    }
}

/* One round: ROUND values from px on into the even or odd sums. */
INLINE void add_round(moments *sum, const S *px, double p, const int odd,
                      const bool plain)
{
#pragma GCC unroll 8
    for (int k = 0; k < PARTS; k++) {
        vd u = widen(load(px + k * LANES));
        if (!plain) u -= p;
        add_moment(&sum->d[odd * PARTS + k], &sum->dd[odd * PARTS + k], u, odd, plain);
    }
}

INLINE void add_moments(moments *sum, const S *px, int64_t from, int64_t end, double p,
                        const bool plain)
{
    int64_t j = from;
    for (; j + 2 * ROUND <= end; j += 2 * ROUND) {
        add_round(sum, px + j, p, 0, plain);
        add_round(sum, px + j + ROUND, p, 1, plain);
    }
    if (j + ROUND <= end) {
        add_round(sum, px + j, p, 0, plain);
        j += ROUND;
    }
    if (j == end) return;
#pragma GCC unroll 8
    for (int k = 0; k < PARTS; k++) {
        const int64_t n = end - j - k * LANES;
        if (n <= 0) break;
        vd u = keep_first(widen(load_upto(px + j + k * LANES, at_most(n))) - p, n);
        add_moment(&sum->d[PARTS + k], &sum->dd[PARTS + k], u, 0, plain);
    }
}

INLINE void end_moments(const moments *sum, double *sum_d, double *sum_dd)
{
    *sum_d += both_sum(sum->d);
    *sum_dd += both_sum(sum->dd);
}

/* Short planes of a channel, so that their lanes are added up but once. */
INLINE void moments_channel(const sbni_block *b, const sbni_view *x, int64_t i, double p,
                            double *sum_d, double *sum_dd, const bool plain)
{
    moments sum = {{{0}}, {{0}}};
    for (int64_t r = 0; r < b->n; r++) {
        const S *px = plane(x, b->rows[r], i);
        fetch_planes(b, px, NULL);
        add_moments(&sum, px, 0, b->s, p, plain);
    }
    end_moments(&sum, sum_d, sum_dd);
}

INLINE void moments_plane(const sbni_block *b, const S *px, double p, double *sum_d,
                          double *sum_dd, const bool plain)
{
    for (int64_t from = 0; from < b->s; from += PIECE) {
        moments sum = {{{0}}, {{0}}};
        add_moments(&sum, px, from, piece_end(b, from), p, plain);
        end_moments(&sum, sum_d, sum_dd);
    }
}

/* Planes that are long are summed in the order of memory, each for itself; short ones
 * channel by channel. */
static void moments_planes(const sbni_block *b, const sbni_view *x, const double *pivot,
                           double *sum_d, double *sum_dd)
{
    const bool together = b->s < LONG_PLANE;
    for (int64_t i = 0; i < b->c; i++) sum_d[i] = sum_dd[i] = 0;
    for (int64_t i = 0; together && i < b->c; i++)
        if (PLAIN && pivot[i] == 0)
            moments_channel(b, x, i, 0, sum_d + i, sum_dd + i, true);
        else
            moments_channel(b, x, i, pivot[i], sum_d + i, sum_dd + i, false);
    for (int64_t r = 0; !together && r < b->n; r++)
        for (int64_t i = 0; i < b->c; i++) {
            const S *px = plane(x, b->rows[r], i);
            if (PLAIN && pivot[i] == 0)
                moments_plane(b, px, 0, sum_d + i, sum_dd + i, true);
            else
                moments_plane(b, px, pivot[i], sum_d + i, sum_dd + i, false);
        }
}

/* Pixels whose channels are summed side by side. */
typedef struct group {
    S *pixel[ROWS];
    int count;
    bool adds; /* there were others of the slice before */
} group;

/* `width` vectors of channels of some pixels from channel i on, n lanes in the last;
 * width is a constant where it is called. */
INLINE void sum_strip(const group *g, const int64_t ahead, int64_t i, const int width,
                      int64_t n, const vd *p, double *sum_d, double *sum_dd,
                      const bool plain)
{
    vd d[REST] = {{0}}, dd[REST] = {{0}};
    S *const *px = g->pixel;
    const int64_t distance = ahead && g->count > 1 ? px[1] - px[0] : 0;
    for (int k = 0; k < g->count; k++) {
        if (ahead) fetch_next(px[0], distance, ROWS, k, i, width * LANES, ahead);
#pragma GCC unroll 8
        for (int v = 0; v < width; v++) {
            const S *at = px[k] + i + v * LANES;
            vd u = widen(load_upto(at, lanes_of(v, width, n)));
            if (!plain) u -= p[v];
            add_moment(&d[v], &dd[v], u, v % 2, plain);
        }
    }
#pragma GCC unroll 8
    for (int v = 0; v < width; v++) {
        put_d(sum_d + i + v * LANES, d[v], lanes_of(v, width, n), g->adds);
        put_d(sum_dd + i + v * LANES, dd[v], lanes_of(v, width, n), g->adds);
    }
}

INLINE void moments_strip(const group *g, const int64_t ahead, int64_t i, const int width,
                          int64_t n, const double *pivot, double *sum_d, double *sum_dd,
                          const bool plain)
{
    vd p[REST] = {{0}};
#pragma GCC unroll 8
    for (int v = 0; v < width && !plain; v++)
        p[v] = load_d(pivot + i + v * LANES, lanes_of(v, width, n));
    if (all_zero(p, width))
        sum_strip(g, ahead, i, width, n, p, sum_d, sum_dd, true);
    else
        sum_strip(g, ahead, i, width, n, p, sum_d, sum_dd, false);
}

/* `groups` times ROWS pixels from px on, or count < ROWS in one group: their sums are
 * added to those of `width` vectors of channels, or, first, are these. */
INLINE void few_groups(const S *px, int64_t distance, const int groups, int64_t count,
                       const int width, int64_t n, const vd *p, vd *d, vd *dd, bool first,
                       const bool plain)
{
    vd gd[2 * FEW] = {{0}}, gdd[2 * FEW] = {{0}};
    for (int64_t k = 0; k < count; k++)
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++)
#pragma GCC unroll 2
            for (int v = 0; v < width; v++) {
                const S *at = px + (g * ROWS + k) * distance + v * LANES;
                vd u = widen(load_upto(at, lanes_of(v, width, n)));
                if (!plain) u -= p[v];
                add_moment(&gd[g * width + v], &gdd[g * width + v], u, v % 2, plain);
            }
#pragma GCC unroll 4
    for (int g = 0; g < groups; g++)
#pragma GCC unroll 2
        for (int v = 0; v < width; v++) {
            const int from = g * width + v;
            d[v] = first && g == 0 ? gd[from] : gd[from] + d[v];
            dd[v] = first && g == 0 ? gdd[from] : gdd[from] + dd[v];
        }
}

/* Pixels of few channels, all as far from the next. */
INLINE void moments_few(const S *px, int64_t distance, int64_t count, const int width,
                        int64_t n, const double *pivot, double *sum_d, double *sum_dd,
                        const int64_t ahead, const bool plain)
{
    const int groups = 2 * FEW / width;
    vd p[FEW] = {{0}}, d[FEW] = {{0}}, dd[FEW] = {{0}};
    int64_t j = 0;
    for (int v = 0; v < width && !plain; v++)
        p[v] = load_d(pivot + v * LANES, lanes_of(v, width, n));
    for (; j + groups * ROWS <= count; j += groups * ROWS) {
        fetch_ahead(px + j * distance, groups * ROWS * distance, ahead);
        few_groups(px + j * distance, distance, groups, ROWS, width, n, p, d, dd, j == 0,
                   plain);
    }
    for (; j < count; j += ROWS)
        few_groups(px + j * distance, distance, 1, count - j < ROWS ? count - j : ROWS,
                   width, n, p, d, dd, j == 0, plain);
    for (int v = 0; v < width; v++) {
        put_d(sum_d + v * LANES, d[v], lanes_of(v, width, n), false);
        put_d(sum_dd + v * LANES, dd[v], lanes_of(v, width, n), false);
    }
}

/* All c channels of a group. */
INLINE void moments_group(const group *g, const int64_t ahead, int64_t c,
                          const double *pivot, double *sum_d, double *sum_dd,
                          const bool plain)
{
    int64_t i = 0;
    for (; i + REST * LANES < c; i += STRIP * LANES)
        moments_strip(g, ahead, i, STRIP, LANES, pivot, sum_d, sum_dd, plain);
    const int64_t n = (c - i - 1) % LANES + 1;
    switch ((c - i - n) / LANES) {
    case 0:
        moments_strip(g, ahead, i, 1, n, pivot, sum_d, sum_dd, plain);
        break;
    case 1:
        moments_strip(g, ahead, i, 2, n, pivot, sum_d, sum_dd, plain);
        break;
    case 2:
        moments_strip(g, ahead, i, 3, n, pivot, sum_d, sum_dd, plain);
        break;
#if SBNI_WIDE < 8
    case 3:
        moments_strip(g, ahead, i, 4, n, pivot, sum_d, sum_dd, plain);
        break;
    case 4:
        moments_strip(g, ahead, i, 5, n, pivot, sum_d, sum_dd, plain);
        break;
#endif
    }
}

INLINE void rows_of(const sbni_block *b, const sbni_view *x, const double *pivot,
                    double *sum_d, double *sum_dd, const int64_t ahead, const bool plain)
{
    const int64_t c = b->c, distance = few_distance(b, x);
    if (distance) {
        const S *first = pixel(x, b->rows[0], 0);
        if (c <= LANES)
            moments_few(first, distance, b->n * b->s, 1, c, pivot, sum_d, sum_dd, ahead,
                        plain);
        else
            moments_few(first, distance, b->n * b->s, 2, c - LANES, pivot, sum_d, sum_dd,
                        ahead, plain);
        return;
    }
    group g; /* as a whole it would be set by a slow instruction */
    g.adds = false;
    for (spot at = {0, 0}; at.row < b->n; advance(b, &at, g.count), g.adds = true) {
        g.count = pixels(b, x, &at, g.pixel);
        moments_group(&g, ahead, c, pivot, sum_d, sum_dd, plain);
    }
}

static void moments_rows(const sbni_block *b, const sbni_view *x, const double *pivot,
                         double *sum_d, double *sum_dd, bool plain)
{
    if (!plain)
        rows_of(b, x, pivot, sum_d, sum_dd, FAR_AHEAD, false);
    else if (b->near)
        rows_of(b, x, pivot, sum_d, sum_dd, 0, true);
    else
        rows_of(b, x, pivot, sum_d, sum_dd, FAR_AHEAD, true);
}

/* Plain short planes that follow each other: each pixel has sums of its own over the
 * samples, as it has a lane of its own elsewhere. */
static void moments_short(const sbni_block *b, const sbni_view *x, double *sum_d,
                          double *sum_dd)
{
    double d[SHORT_PLANES], dd[SHORT_PLANES];
    for (int64_t i = 0, count; i < b->c; i += count) {
        group g;
        count = short_planes(b, i);
        g.adds = false;
        g.count = (int)b->n;
        for (int k = 0; k < g.count; k++) g.pixel[k] = plane(x, b->rows[k], i);
        moments_group(&g, 0, count * b->s, NULL, d, dd, true);
        for (int64_t k = 0; k < count; k++) {
            sum_d[i + k] = short_sum(d + k * b->s, b->s);
            sum_dd[i + k] = short_sum(dd + k * b->s, b->s);
        }
    }
}

/* plain: all pivots are 0. */
static void moments_about(const sbni_block *b, const sbni_view *x, const double *pivot,
                          double *sum_d, double *sum_dd, bool plain)
{
    if (plain && is_summed_short(b, x))
        moments_short(b, x, sum_d, sum_dd);
    else if (b->planes)
        moments_planes(b, x, pivot, sum_d, sum_dd);
    else
        moments_rows(b, x, pivot, sum_d, sum_dd, plain);
}

/* Whether m values lie more than three deviations from where their sums begin: these are
 * then mostly the distance's, and so is their rounding. Of doubles, or vectors of them.
 */
#define IS_FAR(sum, squares, m) ((sum) * (sum) > 0.9 * (m) * (squares))

/* So many values of a channel, spread over the slice, tell where it lies. */
enum { LOOKS = 8 };

/* The k-th of channel i. */
INLINE const S *look_at(const sbni_block *b, const sbni_view *x, int k, int64_t i)
{
    return plane(x, b->rows[k * b->n / LOOKS], i) + k * b->s / LOOKS * x->stride_s;
}

/* Where to begin the sums of a channel: at 0 unless some of its values lie far from it;
 * then at the first. */
INLINE double look(const sbni_block *b, const sbni_view *x, int64_t i)
{
    T sum = 0, squares = 0;
    for (int k = 0; k < LOOKS; k++) {
        const T v = get(*look_at(b, x, k, i));
        sum += v;
        squares += v * v;
    }
    const bool far = IS_FAR((double)sum, (double)squares, LOOKS);
    return far ? (double)get(*plane(x, b->rows[0], i)) : 0;
}

/* The same of n channels that are neighbours. */
INLINE vd look_v(const sbni_block *b, const sbni_view *x, int64_t i, int64_t n)
{
    typedef int64_t mask __attribute__((vector_size(8 * LANES)));
    vt sum = {0}, squares = {0};
#pragma GCC unroll 8
    for (int k = 0; k < LOOKS; k++) {
        const vt v = load_upto(look_at(b, x, k, i), n);
        sum += v;
        squares += v * v;
    }
    const vd s = widen(sum), q = widen(squares),
             first = widen(load_upto(plane(x, b->rows[0], i), n));
    return (vd)((mask)first & (mask)IS_FAR(s, q, LOOKS));
}

/* Where there are few pixels all is as soon summed as looked at; with T double there is
 * nothing to gain at 0. Returns whether all are 0 and their sums plain. */
static bool choose_pivots(const sbni_block *b, const sbni_view *x, double *pivot)
{
    if (PLAIN && b->s < LOOKS) {
        memset(pivot, 0, (size_t)b->c * sizeof *pivot);
        return true;
    }
    for (int64_t i = 0; !PLAIN && i < b->c; i++)
        pivot[i] = (double)get(*plane(x, b->rows[0], i));
    const bool together = x->stride_c == 1;
    for (int64_t i = 0; PLAIN && together && i < b->c; i += LANES)
        put_d(pivot + i, look_v(b, x, i, at_most(b->c - i)), at_most(b->c - i), false);
    for (int64_t i = 0; PLAIN && !together && i < b->c; i++) pivot[i] = look(b, x, i);
    uint64_t any = 0;
    for (int64_t i = 0; i < b->c; i++) any |= bits(pivot[i]);
    return PLAIN && any == 0;
}

/* Channels from the first to the last whose sums are far off are summed anew about their
 * mean, as near as T has it. Those in between get the same sums again. */
static void move_pivots(const sbni_block *b, const sbni_view *x, double *pivot,
                        double *sum_d, double *sum_dd)
{
    const double m = (double)(b->n * b->s);
    int64_t any = 0, first = b->c, last = 0;
    for (int64_t i = 0; i < b->c; i++) any |= IS_FAR(sum_d[i], sum_dd[i], m);
    for (int64_t i = 0; any && i < b->c; i++) {
        if (!IS_FAR(sum_d[i], sum_dd[i], m)) continue;
        pivot[i] = (double)(T)(pivot[i] + sum_d[i] / m);
        if (first > i) first = i;
        last = i;
    }
    if (!any) return;
    sbni_block some = *b;
    sbni_view channels = *x;
    some.c = last - first + 1;
    channels.data = plane(x, 0, first);
    moments_about(&some, &channels, pivot + first, sum_d + first, sum_dd + first, false);
}

void K(norm_moments)(const sbni_block *b, const sbni_view *x, double *pivot,
                     double *sum_d, double *sum_dd)
{
    const bool plain = choose_pivots(b, x, pivot);
    moments_about(b, x, pivot, sum_d, sum_dd, plain);
    move_pivots(b, x, pivot, sum_d, sum_dd);
}
