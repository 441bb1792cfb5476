#include "kernels/product_tmpl.h"
#include "kernels/tiles_tmpl.h"

#ifdef SBNI_FUSES

/*
 * What Winograd's convolutions do beside their matrix products: tiles of 6 x 6 elements,
 * of which a window of `kernel` makes 7 - kernel outputs each way, to the 36 points at
 * which products of polynomials are products of numbers, and back (Lavin & Gray 2016,
 * arXiv:1509.09308, §4). An element of all images of a slice makes one vector, or a few,
 * so nothing is shuffled, and a value does not depend on the width of vectors.
 */
enum { SIDE = SBNI_TILE_SIDE, IMAGES = SBNI_TILE_IMAGES };

INLINE vt times(vt v, T factor)
{
    return v * all_lanes(factor);
}

/* sum + v·factor */
INLINE vt more(vt sum, vt v, T factor)
{
    return fused(v, all_lanes(factor), sum);
}

/* B'·d: d as coefficients, each row those of the product of (x - point) over all other
 * points, of degree 4, or over all, of degree 5. */
INLINE void to_points(const vt *d, vt *v)
{
    vt even = more(d[4], d[2], -QQ), odd = more(d[3], d[1], -QQ);
    v[1] = more(even, odd, P);
    v[2] = more(even, odd, -P);
    even = more(d[4], d[2], -PP), odd = more(d[3], d[1], -PP);
    v[3] = more(even, odd, Q);
    v[4] = more(even, odd, -Q);
    v[0] = more(more(d[4], d[2], -SUM), d[0], PRODUCT);
    v[5] = more(more(d[5], d[3], -SUM), d[1], PRODUCT);
}

/* B·v, its transpose. */
INLINE void from_points(const vt *v, vt *d)
{
    vt even_p = v[1] + v[2], odd_p = v[1] - v[2], even_q = v[3] + v[4],
       odd_q = v[3] - v[4];
    d[0] = times(v[0], PRODUCT);
    d[1] = more(more(times(odd_p, -P * QQ), odd_q, -Q * PP), v[5], PRODUCT);
    d[2] = more(more(times(even_p, -QQ), even_q, -PP), v[0], -SUM);
    d[3] = more(more(times(odd_p, P), odd_q, Q), v[5], -SUM);
    d[4] = even_p + even_q + v[0];
    d[5] = v[5];
}

/* A'·m: `outputs` sums of powers of the points. */
INLINE void to_outputs(const vt *m, int outputs, vt *y)
{
    vt even_p = m[1] + m[2], odd_p = m[1] - m[2], even_q = m[3] + m[4],
       odd_q = m[3] - m[4];
    y[0] = even_p + even_q + m[0];
    y[1] = more(times(odd_p, P), odd_q, Q);
    if (outputs == 4) {
        y[2] = more(times(even_p, PP), even_q, QQ);
        y[3] = more(times(odd_p, PPP), odd_q, QQQ);
    }
    y[outputs - 1] += m[5];
}

/* A·y, its transpose. */
INLINE void from_outputs(const vt *y, int outputs, vt *m)
{
    vt even_p = y[0], odd_p = y[1], even_q = y[0], odd_q = y[1];
    if (outputs == 4) {
        even_p = more(even_p, y[2], PP), odd_p = more(odd_p, y[3], PP);
        even_q = more(even_q, y[2], QQ), odd_q = more(odd_q, y[3], QQ);
    }
    m[0] = y[0];
    m[1] = more(even_p, odd_p, P);
    m[2] = more(even_p, odd_p, -P);
    m[3] = more(even_q, odd_q, Q);
    m[4] = more(even_q, odd_q, -Q);
    m[5] = y[outputs - 1];
}

/* SIDE neighbours of a row, of all images. */
INLINE void points_across(const T *x, int64_t apart, T *v)
{
    for (int64_t lane = 0; lane < IMAGES; lane += LANES) {
        vt d[SIDE], to[SIDE];
#pragma GCC unroll 6
        for (int k = 0; k < SIDE; k++) d[k] = load(x + k * IMAGES + lane);
        to_points(d, to);
#pragma GCC unroll 6
        for (int k = 0; k < SIDE; k++) store(v + k * apart + lane, to[k]);
    }
}

/* A row of tiles of a channel: down its columns, which tiles share, then across. */
INLINE void points_of_row(const sbni_tiles *t, const T *x, int64_t apart, T *work, T *v)
{
    for (int64_t at = 0; at < t->w * IMAGES; at += LANES) {
        vt d[SIDE], to[SIDE];
#pragma GCC unroll 6
        for (int i = 0; i < SIDE; i++) d[i] = load(x + i * t->w * IMAGES + at);
        to_points(d, to);
#pragma GCC unroll 6
        for (int i = 0; i < SIDE; i++) store(work + i * t->w * IMAGES + at, to[i]);
    }
    int64_t step = (SIDE + 1 - t->kernel) * IMAGES;
    for (int64_t j = 0; j < t->columns; j++, v += IMAGES)
        for (int64_t i = 0; i < SIDE; i++)
            points_across(work + i * t->w * IMAGES + j * step, apart,
                          v + i * SIDE * apart);
}

void K(tiles_points)(const sbni_tiles *t, int64_t c, int64_t r, const void *xv,
                     void *workv, void *vv)
{
    const T *x = xv;
    T *v = vv;
    int64_t first = r * (SIDE + 1 - t->kernel), apart = sbni_points_apart(c, t->columns);
    for (int64_t i = 0; i < c; i++, v += t->columns * IMAGES)
        points_of_row(t, x + (i * t->h + first) * t->w * IMAGES, apart, workv, v);
}

/* Rows of B'. */
static const T row_of_points[SIDE][SIDE] = {
    {PRODUCT, 0, -SUM, 0, 1, 0}, {0, -P *QQ, -QQ, P, 1, 0}, {0, P *QQ, -QQ, -P, 1, 0},
    {0, -Q *PP, -PP, Q, 1, 0},   {0, Q *PP, -PP, -Q, 1, 0}, {0, PRODUCT, 0, -SUM, 0, 1},
};

void K(tiles_row_points)(const sbni_tiles *t, int64_t c, int i, const void *xv,
                         void *workv, void *vv)
{
    const T *row = row_of_points[i];
    T *work = workv, *v = vv;
    int64_t step = SIDE + 1 - t->kernel, line = t->w * IMAGES,
            apart = sbni_points_apart(c, t->rows * t->columns);
    int terms = i == 0 || i == SIDE - 1 ? 3 : 4, first = i > 0, next = terms == 3 ? 2 : 1;
    for (int64_t r = 0; r < c * t->rows; r++, v += t->columns * IMAGES) {
        const T *x = (const T *)xv + (r / t->rows * t->h + r % t->rows * step) * line;
        for (int64_t at = 0; at < line; at += LANES) {
            vt sum = times(load(x + first * line + at), row[first]);
            for (int k = 1; k < terms; k++) {
                int from = first + k * next;
                sum = more(sum, load(x + from * line + at), row[from]);
            }
            store(work + at, sum);
        }
        for (int64_t j = 0; j < t->columns; j++)
            points_across(work + j * step * IMAGES, apart, v + j * IMAGES);
    }
}

INLINE void row_of_outputs(const sbni_tiles *t, int outputs, int64_t c, int i,
                           const T *dy, T *m)
{
    static const T point[SIDE] = {0, P, -P, Q, -Q, 0};
    T a = point[i];
    int64_t apart = sbni_points_apart(c, t->rows * t->columns),
            line = t->columns * outputs * IMAGES;
    for (int64_t r = 0; r < c * t->rows; r++, dy += outputs * line)
        for (int64_t j = 0; j < t->columns; j++, m += IMAGES)
            for (int64_t lane = 0; lane < IMAGES; lane += LANES) {
                const T *from = dy + j * outputs * IMAGES + lane;
                vt half[4], to[SIDE];
#pragma GCC unroll 4
                for (int k = 0; k < outputs; k++) {
                    vt sum = load(from + (outputs - 1) * line + k * IMAGES);
                    if (i == 0) sum = load(from + k * IMAGES);
                    if (i > 0 && i < SIDE - 1)
#pragma GCC unroll 4
                        for (int l = outputs - 2; l >= 0; l--)
                            sum = more(load(from + l * line + k * IMAGES), sum, a);
                    half[k] = sum;
                }
                from_outputs(half, outputs, to);
#pragma GCC unroll 6
                for (int k = 0; k < SIDE; k++) store(m + k * apart + lane, to[k]);
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
    const int overlap = kernel - 1; /* elements that a tile shares with the next */
    for (int64_t j = 0; j < t->columns; j++, v += IMAGES)
        for (int64_t i = 0; i < SIDE; i++)
            for (int64_t lane = 0; lane < IMAGES; lane += LANES) {
                T *to = work + (i * t->w + j * (SIDE + 1 - kernel)) * IMAGES + lane;
                vt from[SIDE], d[SIDE];
#pragma GCC unroll 6
                for (int k = 0; k < SIDE; k++)
                    from[k] = load(v + (i * SIDE + k) * apart + lane);
                from_points(from, d);
#pragma GCC unroll 6
                for (int k = 0; k < SIDE; k++)
                    put_or_add(to + k * IMAGES, d[k], j > 0 && k < overlap);
            }
    for (int64_t at = 0; at < t->w * IMAGES; at += LANES) {
        vt from[SIDE], d[SIDE];
#pragma GCC unroll 6
        for (int i = 0; i < SIDE; i++) from[i] = load(work + i * t->w * IMAGES + at);
        from_points(from, d);
#pragma GCC unroll 6
        for (int i = 0; i < SIDE; i++)
            put_or_add(dx + i * t->w * IMAGES + at, d[i], !first && i < overlap);
    }
}

INLINE void add_points(const sbni_tiles *t, const int kernel, int64_t c, int64_t r,
                       const T *v, T *work, T *dx)
{
    int64_t first = r * (SIDE + 1 - kernel), apart = sbni_points_apart(c, t->columns);
    for (int64_t i = 0; i < c; i++, v += t->columns * IMAGES)
        add_points_of_row(t, kernel, v, apart, r == 0, work,
                          dx + (i * t->h + first) * t->w * IMAGES);
}

void K(tiles_add_points)(const sbni_tiles *t, int64_t c, int64_t r, const void *v,
                         void *work, void *dx)
{
    if (t->kernel == 3)
        add_points(t, 3, c, r, v, work, dx);
    else
        add_points(t, 5, c, r, v, work, dx);
}

/* A tile: of its points, `apart` elements from one to the next, the outputs, whose rows
 * are `row` apart; and back. */
INLINE void tile_outputs(const T *m, int64_t apart, int outputs, vt bias, int64_t row,
                         T *y)
{
    vt half[4][SIDE], from[SIDE], to[4];
#pragma GCC unroll 6
    for (int k = 0; k < SIDE; k++) {
#pragma GCC unroll 6
        for (int i = 0; i < SIDE; i++) from[i] = load(m + (i * SIDE + k) * apart);
        to_outputs(from, outputs, to);
#pragma GCC unroll 4
        for (int i = 0; i < outputs; i++) half[i][k] = to[i];
    }
#pragma GCC unroll 4
    for (int i = 0; i < outputs; i++) {
        to_outputs(half[i], outputs, to);
#pragma GCC unroll 4
        for (int k = 0; k < outputs; k++) store(y + i * row + k * IMAGES, to[k] + bias);
    }
}

INLINE void tile_of_outputs(const T *y, int64_t row, int outputs, int64_t apart, T *m)
{
    vt half[4][SIDE], from[4], to[SIDE];
#pragma GCC unroll 4
    for (int i = 0; i < outputs; i++) {
#pragma GCC unroll 4
        for (int k = 0; k < outputs; k++) from[k] = load(y + i * row + k * IMAGES);
        from_outputs(from, outputs, half[i]);
    }
#pragma GCC unroll 6
    for (int k = 0; k < SIDE; k++) {
#pragma GCC unroll 4
        for (int i = 0; i < outputs; i++) from[i] = half[i][k];
        from_outputs(from, outputs, to);
#pragma GCC unroll 6
        for (int i = 0; i < SIDE; i++) store(m + (i * SIDE + k) * apart, to[i]);
    }
}

/* Where the outputs of a tile of the first channel begin, and their strides. */
typedef struct outputs_at {
    int64_t first, row, channel;
} outputs_at;

static outputs_at find_outputs(const sbni_tiles *t, int64_t r, int64_t j)
{
    int64_t outputs = SIDE + 1 - t->kernel, row = t->columns * outputs * IMAGES;
    return (outputs_at){r * outputs * row + j * outputs * IMAGES, row,
                        t->rows * outputs * row};
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
                tile_outputs(m, apart, 4, all_lanes(bias[i]), at.row, y + lane);
            else
                tile_outputs(m, apart, 2, all_lanes(bias[i]), at.row, y + lane);
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
                tile_of_outputs(dy + lane, at.row, 4, apart, m);
            else
                tile_of_outputs(dy + lane, at.row, 2, apart, m);
        }
}

#endif
