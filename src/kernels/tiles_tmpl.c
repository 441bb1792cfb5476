#include "kernels/product_tmpl.h"
#include "kernels/tiles_tmpl.h"

#ifdef SBNI_FUSES

/*
 * What Winograd's convolutions do beside their matrix products: tiles, of which a window
 * of `kernel` makes OUTPUTS rows of WIDTH + 1 - kernel outputs, to the points at which
 * products of polynomials are products of numbers, and back (Lavin & Gray 2016,
 * arXiv:1509.09308, §4). An element of all images of a slice makes one vector, or a few,
 * so nothing is shuffled, and a value does not depend on the width of vectors.
 */
enum {
    WIDTH = SBNI_TILE_WIDTH,
    OUTPUTS = SBNI_TILE_OUTPUTS_DOWN,
    MOST = SBNI_TILE_MOST_DOWN,
    IMAGES = SBNI_TILE_IMAGES
};

INLINE vt times(vt v, double factor)
{
    return v * all_lanes((T)factor);
}

/* sum + v·factor */
INLINE vt more(vt sum, vt v, double factor)
{
    return fused(v, all_lanes((T)factor), sum);
}

/* B'·d: d as coefficients, each row those of the product of (x - point) over all other
 * points, or, the last, over all. */
INLINE void to_points(const points *at, const vt *d, vt *v)
{
    const int pairs = at->pairs, last = side_of(at) - 1;
#pragma GCC unroll 3
    for (int i = 0; i < pairs; i++) {
        vt even = d[2 * pairs], odd = d[2 * pairs - 1];
#pragma GCC unroll 2
        for (int k = pairs - 2; k >= 0; k--) {
            even = more(even, d[2 * k + 2], at->other[i][k]);
            odd = more(odd, d[2 * k + 1], at->other[i][k]);
        }
        v[2 * i + 1] = more(even, odd, at->of[i]);
        v[2 * i + 2] = more(even, odd, -at->of[i]);
    }
    v[0] = d[2 * pairs], v[last] = d[2 * pairs + 1];
#pragma GCC unroll 3
    for (int k = pairs - 1; k >= 0; k--) {
        v[0] = more(v[0], d[2 * k], at->all[k]);
        v[last] = more(v[last], d[2 * k + 1], at->all[k]);
    }
}

/* B·v, its transpose. */
INLINE void from_points(const points *at, const vt *v, vt *d)
{
    const int pairs = at->pairs, last = side_of(at) - 1;
    vt even[MOST_PAIRS], odd[MOST_PAIRS];
#pragma GCC unroll 3
    for (int i = 0; i < pairs; i++) {
        even[i] = v[2 * i + 1] + v[2 * i + 2];
        odd[i] = v[2 * i + 1] - v[2 * i + 2];
    }
    d[0] = times(v[0], at->all[0]), d[last] = v[last];
#pragma GCC unroll 3
    for (int k = 0; k < pairs; k++) {
        vt low = times(odd[0], at->of[0] * at->other[0][k]),
           high = times(even[0], at->other[0][k]);
#pragma GCC unroll 2
        for (int i = 1; i < pairs; i++) {
            low = more(low, odd[i], at->of[i] * at->other[i][k]);
            high = more(high, even[i], at->other[i][k]);
        }
        d[2 * k + 1] = more(low, v[last], at->all[k]);
        d[2 * k + 2] = more(high, v[0], at->all[k + 1]);
    }
}

/* p^k, k < OUTPUTS */
INLINE double power(double p, int k)
{
    return (k & 1 ? p : 1) * (k & 2 ? p * p : 1);
}

/* A'·m: `outputs` sums of powers of the points. */
INLINE void to_outputs(const points *at, const vt *m, int outputs, vt *y)
{
    const int pairs = at->pairs;
    vt even[MOST_PAIRS], odd[MOST_PAIRS];
#pragma GCC unroll 3
    for (int i = 0; i < pairs; i++) {
        even[i] = m[2 * i + 1] + m[2 * i + 2];
        odd[i] = m[2 * i + 1] - m[2 * i + 2];
    }
#pragma GCC unroll 4
    for (int k = 0; k < outputs; k++) {
        const vt *from = k % 2 ? odd : even;
        y[k] = times(from[0], power(at->of[0], k));
#pragma GCC unroll 2
        for (int i = 1; i < pairs; i++) y[k] = more(y[k], from[i], power(at->of[i], k));
    }
    y[0] += m[0];
    y[outputs - 1] += m[side_of(at) - 1];
}

/* A·y, its transpose. */
INLINE void from_outputs(const points *at, const vt *y, int outputs, vt *m)
{
#pragma GCC unroll 3
    for (int i = 0; i < at->pairs; i++) {
        vt even = y[0], odd = y[1];
        if (outputs == 4) {
            even = more(even, y[2], power(at->of[i], 2));
            odd = more(odd, y[3], power(at->of[i], 2));
        }
        m[2 * i + 1] = more(even, odd, at->of[i]);
        m[2 * i + 2] = more(even, odd, -at->of[i]);
    }
    m[0] = y[0];
    m[side_of(at) - 1] = y[outputs - 1];
}

/* WIDTH neighbours of a row, of all images. */
INLINE void points_across(const T *x, int64_t apart, T *v)
{
    for (int64_t lane = 0; lane < IMAGES; lane += LANES) {
        vt d[WIDTH], to[WIDTH];
#pragma GCC unroll 6
        for (int k = 0; k < WIDTH; k++) d[k] = load(x + k * IMAGES + lane);
        to_points(&SIX, d, to);
#pragma GCC unroll 6
        for (int k = 0; k < WIDTH; k++) store(v + k * apart + lane, to[k]);
    }
}

/* A row of tiles of a channel: down its columns, which tiles share, then across. */
INLINE void points_of_row(const sbni_tiles *t, const points *down, const T *x,
                          int64_t apart, T *work, T *v)
{
    const int height = side_of(down);
    int64_t line = t->w * IMAGES, step = sbni_tile_outputs_across(t->kernel) * IMAGES;
    for (int64_t at = 0; at < line; at += LANES) {
        vt d[MOST], to[MOST];
#pragma GCC unroll 8
        for (int i = 0; i < height; i++) d[i] = load(x + i * line + at);
        to_points(down, d, to);
#pragma GCC unroll 8
        for (int i = 0; i < height; i++) store(work + i * line + at, to[i]);
    }
    for (int64_t j = 0; j < t->columns; j++, v += IMAGES)
        for (int64_t i = 0; i < height; i++)
            points_across(work + i * line + j * step, apart, v + i * WIDTH * apart);
}

void K(tiles_points)(const sbni_tiles *t, int64_t c, int64_t r, const void *xv,
                     void *work, void *vv)
{
    const T *x = (const T *)xv + r * OUTPUTS * t->w * IMAGES;
    T *v = vv;
    int64_t apart = sbni_points_apart(c, t->columns), channel = t->h * t->w * IMAGES;
    for (int64_t i = 0; i < c; i++, x += channel, v += t->columns * IMAGES)
        if (t->kernel == 3)
            points_of_row(t, points_down(3), x, apart, work, v);
        else
            points_of_row(t, points_down(5), x, apart, work, v);
}

/* Row i of B', of elements first, first + step, ... */
typedef struct point_row {
    int first, step, terms;
    T factor[MOST];
} point_row;

static point_row row_of_points(const points *at, int i)
{
    int pairs = at->pairs, last = side_of(at) - 1;
    point_row row = {.first = i > 0, .step = 1, .terms = 2 * pairs};
    if (i == 0 || i == last) {
        row.step = 2, row.terms = pairs + 1;
        for (int k = 0; k <= pairs; k++) row.factor[k] = (T)at->all[k];
        return row;
    }
    int pair = (i - 1) / 2;
    double p = i % 2 ? at->of[pair] : -at->of[pair];
    for (int k = 0; k < pairs; k++) {
        row.factor[2 * k] = (T)(p * at->other[pair][k]);
        row.factor[2 * k + 1] = (T)at->other[pair][k];
    }
    return row;
}

void K(tiles_row_points)(const sbni_tiles *t, int64_t c, int i, const void *xv,
                         void *workv, void *vv)
{
    const point_row row = row_of_points(points_down(t->kernel), i);
    T *work = workv, *v = vv;
    int64_t line = t->w * IMAGES, apart = sbni_points_apart(c, t->rows * t->columns),
            step = sbni_tile_outputs_across(t->kernel) * IMAGES;
    for (int64_t r = 0; r < c * t->rows; r++, v += t->columns * IMAGES) {
        const T *x = (const T *)xv +
                     (r / t->rows * t->h + r % t->rows * OUTPUTS + row.first) * line;
        for (int64_t at = 0; at < line; at += LANES) {
            vt sum = load(x + at) * all_lanes(row.factor[0]);
            for (int k = 1; k < row.terms; k++)
                sum = fused(load(x + k * row.step * line + at), all_lanes(row.factor[k]),
                            sum);
            store(work + at, sum);
        }
        for (int64_t j = 0; j < t->columns; j++)
            points_across(work + j * step, apart, v + j * IMAGES);
    }
}

/* Row i of A: sums of powers of a point over the rows of dy, then across. */
INLINE void row_of_outputs(const sbni_tiles *t, int outputs, int64_t c, int i,
                           const T *dy, T *m)
{
    const points *down = points_down(t->kernel);
    int last = side_of(down) - 1, pair = (i - 1) / 2;
    bool inner = i > 0 && i < last;
    double p = !inner ? 0 : i % 2 ? down->of[pair] : -down->of[pair];
    int64_t apart = sbni_points_apart(c, t->rows * t->columns),
            line = t->columns * outputs * IMAGES;
    for (int64_t r = 0; r < c * t->rows; r++, dy += OUTPUTS * line)
        for (int64_t j = 0; j < t->columns; j++, m += IMAGES)
            for (int64_t lane = 0; lane < IMAGES; lane += LANES) {
                const T *from = dy + j * outputs * IMAGES + lane;
                vt half[OUTPUTS], to[WIDTH];
#pragma GCC unroll 4
                for (int k = 0; k < outputs; k++) {
                    vt sum = load(from + (i == 0 ? 0 : OUTPUTS - 1) * line + k * IMAGES);
                    if (inner)
#pragma GCC unroll 4
                        for (int l = OUTPUTS - 2; l >= 0; l--)
                            sum = more(load(from + l * line + k * IMAGES), sum, p);
                    half[k] = sum;
                }
                from_outputs(&SIX, half, outputs, to);
#pragma GCC unroll 6
                for (int k = 0; k < WIDTH; k++) store(m + k * apart + lane, to[k]);
            }
}

void K(tiles_row_of_outputs)(const sbni_tiles *t, int64_t c, int i, const void *dy,
                             void *m)
{
    if (t->kernel == 3)
        row_of_outputs(t, 4, c, i, dy, m);
    else
        row_of_outputs(t, 2, c, i, dy, m);
}

/* The first to reach a place sets it, the next adds to it. */
INLINE void put_or_add(T *to, vt v, bool reached)
{
    store(to, reached ? load(to) + v : v);
}

/* kernel: t's, known where it is called. */
INLINE void add_points_of_row(const sbni_tiles *t, const int kernel, const T *v,
                              int64_t apart, bool first, T *work, T *dx)
{
    const points *down = points_down(kernel);
    const int height = side_of(down);
    const int overlap = kernel - 1; /* elements that a tile shares with the next */
    int64_t line = t->w * IMAGES;
    for (int64_t j = 0; j < t->columns; j++, v += IMAGES)
        for (int64_t i = 0; i < height; i++)
            for (int64_t lane = 0; lane < IMAGES; lane += LANES) {
                T *to = work + i * line + j * (WIDTH - overlap) * IMAGES + lane;
                vt from[WIDTH], d[WIDTH];
#pragma GCC unroll 6
                for (int k = 0; k < WIDTH; k++)
                    from[k] = load(v + (i * WIDTH + k) * apart + lane);
                from_points(&SIX, from, d);
#pragma GCC unroll 6
                for (int k = 0; k < WIDTH; k++)
                    put_or_add(to + k * IMAGES, d[k], j > 0 && k < overlap);
            }
    for (int64_t at = 0; at < line; at += LANES) {
        vt from[MOST], d[MOST];
#pragma GCC unroll 8
        for (int i = 0; i < height; i++) from[i] = load(work + i * line + at);
        from_points(down, from, d);
#pragma GCC unroll 8
        for (int i = 0; i < height; i++)
            put_or_add(dx + i * line + at, d[i], !first && i < overlap);
    }
}

INLINE void add_points(const sbni_tiles *t, const int kernel, int64_t c, int64_t r,
                       const T *v, T *work, T *dx)
{
    int64_t apart = sbni_points_apart(c, t->columns), channel = t->h * t->w * IMAGES;
    dx += r * OUTPUTS * t->w * IMAGES;
    for (int64_t i = 0; i < c; i++, dx += channel, v += t->columns * IMAGES)
        add_points_of_row(t, kernel, v, apart, r == 0, work, dx);
}

void K(tiles_add_points)(const sbni_tiles *t, int64_t c, int64_t r, const void *v,
                         void *work, void *dx)
{
    if (t->kernel == 3)
        add_points(t, 3, c, r, v, work, dx);
    else
        add_points(t, 5, c, r, v, work, dx);
}

/* A side of a tile: its points, its outputs, and elements from one to the next of each.
 */
typedef struct side {
    const points *at;
    int outputs;
    int64_t apart, step;
} side;

/* In the order in which points become outputs; outputs become points in the other. That
 * of more points comes last, where fewer are left. */
typedef struct sides {
    side first, last;
} sides;

INLINE sides sides_of(const int kernel, int64_t apart, int64_t row)
{
    const side down = {points_down(kernel), OUTPUTS, WIDTH * apart, row},
               across = {&SIX, WIDTH + 1 - kernel, apart, IMAGES};
    return kernel == 3 ? (sides){down, across} : (sides){across, down};
}

INLINE void tile_outputs(sides s, const T *m, vt bias, T *y)
{
    vt half[OUTPUTS][MOST];
#pragma GCC unroll 8
    for (int i = 0; i < side_of(s.last.at); i++) {
        vt from[MOST], to[OUTPUTS];
#pragma GCC unroll 6
        for (int k = 0; k < side_of(s.first.at); k++)
            from[k] = load(m + i * s.last.apart + k * s.first.apart);
        to_outputs(s.first.at, from, s.first.outputs, to);
#pragma GCC unroll 4
        for (int k = 0; k < s.first.outputs; k++) half[k][i] = to[k];
    }
#pragma GCC unroll 4
    for (int k = 0; k < s.first.outputs; k++) {
        vt to[OUTPUTS];
        to_outputs(s.last.at, half[k], s.last.outputs, to);
#pragma GCC unroll 4
        for (int i = 0; i < s.last.outputs; i++)
            store(y + i * s.last.step + k * s.first.step, to[i] + bias);
    }
}

INLINE void tile_of_outputs(sides s, const T *y, T *m)
{
    vt half[OUTPUTS][MOST];
#pragma GCC unroll 4
    for (int k = 0; k < s.first.outputs; k++) {
        vt from[OUTPUTS];
#pragma GCC unroll 4
        for (int i = 0; i < s.last.outputs; i++)
            from[i] = load(y + i * s.last.step + k * s.first.step);
        from_outputs(s.last.at, from, s.last.outputs, half[k]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < side_of(s.last.at); i++) {
        vt from[OUTPUTS], to[MOST];
#pragma GCC unroll 4
        for (int k = 0; k < s.first.outputs; k++) from[k] = half[k][i];
        from_outputs(s.first.at, from, s.first.outputs, to);
#pragma GCC unroll 6
        for (int k = 0; k < side_of(s.first.at); k++)
            store(m + i * s.last.apart + k * s.first.apart, to[k]);
    }
}

/* Elements of y of a tile of the first channel: to its first, of a row, of a channel. */
typedef struct outputs_at {
    int64_t first, row, channel;
} outputs_at;

static outputs_at find_outputs(const sbni_tiles *t, int64_t r, int64_t j)
{
    int64_t across = sbni_tile_outputs_across(t->kernel),
            row = t->columns * across * IMAGES;
    return (outputs_at){r * OUTPUTS * row + j * across * IMAGES, row,
                        t->rows * OUTPUTS * row};
}

void K(tiles_outputs)(const sbni_tiles *t, int64_t c, int64_t r, int64_t j,
                      const void *mv, const void *biasv, void *yv)
{
    const T *m = mv, *bias = biasv;
    outputs_at at = find_outputs(t, r, j);
    T *y = (T *)yv + at.first;
    int64_t apart = sbni_points_apart(c, 1);
    for (int64_t i = 0; i < c; i++, y += at.channel)
        for (int64_t lane = 0; lane < IMAGES; lane += LANES, m += LANES) {
            if (t->kernel == 3)
                tile_outputs(sides_of(3, apart, at.row), m, all_lanes(bias[i]), y + lane);
            else
                tile_outputs(sides_of(5, apart, at.row), m, all_lanes(bias[i]), y + lane);
        }
}

void K(tiles_of_outputs)(const sbni_tiles *t, int64_t c, int64_t r, int64_t j,
                         const void *dyv, void *mv)
{
    outputs_at at = find_outputs(t, r, j);
    const T *dy = (const T *)dyv + at.first;
    T *m = mv;
    int64_t apart = sbni_points_apart(c, 1);
    for (int64_t i = 0; i < c; i++, dy += at.channel)
        for (int64_t lane = 0; lane < IMAGES; lane += LANES, m += LANES) {
            if (t->kernel == 3)
                tile_of_outputs(sides_of(3, apart, at.row), dy + lane, m);
            else
                tile_of_outputs(sides_of(5, apart, at.row), dy + lane, m);
        }
}

#endif
