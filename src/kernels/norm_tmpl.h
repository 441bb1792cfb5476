/*
 * How the templates of normalization walk over a slice. Every kernel has two forms:
 * planes (runs of pixels of one channel) and rows (runs of channels of one pixel; (n,c)
 * data is all rows). The last vector of a run may be a part of one, whose other lanes add
 * 0.
 *
 * Where nothing is subtracted from x there are inner loops of their own, `plain`. In sums
 * double holds the product of two floats, so that a fused multiply-add gives the bits of
 * a product and a sum. They give the same values: where some channels are plain and some
 * are not, all may be done as if they were not, and 0 is subtracted.
 */
#ifndef SBNI_NORM_TMPL_H
#define SBNI_NORM_TMPL_H

#include "kernels/lanes_tmpl.h"

enum {
    PIECE = 4096, /* pixels whose sum is formed before it joins the channel's: no chain of
                     additions grows with the image */
    ROWS =
        16, /* the same for pixels with channels last; a whole slice of (n,c) data, so
               that its sums are those of the same data with gaps, planes of one pixel */
    SHORT_PLANE =
        2 * ROUND,      /* pixels up to which several planes are gone through at once */
    SHORT_SAMPLES = 4,  /* samples from which they are written so */
    SHORT_PLANES = 512, /* pixels of those */
    LONG_PLANE = 128,   /* pixels from which planes are summed one by one */
    STRIP = LANES == 8 ? 2 : 4, /* vectors of channels that are summed side by side */
    FEW = 2, /* vectors of a pixel up to which ROWS are summed beside others: the sums of
                one wait for each other */
    REST = STRIP + 1,  /* the same of a pixel's last ones, or of all that it has */
    NARROW = 3,        /* vectors of channels whose factors stay in registers */
    PERIOD = 7,        /* the same of pixels without gaps, made once */
    PIXELS = 2,        /* pixels that share the loads of their channels' factors */
    WIDE = 128,        /* channels, times the tensors read, from which pixels do so that
                          are written past the cache */
    FACTORS = 4096,    /* factors from which plain pixels do so */
    AHEAD = 64 * LINE, /* least distance of what is fetched beforehand */
    FAR_AHEAD = 4 * AHEAD, /* the same where ROWS are summed */
};

/* Whether there is a plain way. */
enum { PLAIN = sizeof(T) < sizeof(double) };

INLINE int64_t at_most(int64_t n)
{
    return n < LANES ? n : LANES;
}

/* n ≤ LANES elements, with 0 behind them. */
INLINE vt load_upto(const S *p, int64_t n)
{
    return n < LANES ? load_first(p, n) : load(p);
}

INLINE vt load_t(const T *p, int64_t n)
{
    vt v = {0};
    if (n == LANES)
        memcpy(&v, p, sizeof v);
    else
        for (int64_t k = 0; k < n; k++) v[k] = p[k];
    return v;
}

INLINE vd load_d(const double *p, int64_t n)
{
    vd v = {0};
    if (n < LANES) return load_first_d(p, n);
    memcpy(&v, p, sizeof v);
    return v;
}

/* v or, where it adds, p + v. */
INLINE void put_d(double *p, vd v, int64_t n, bool adds)
{
    if (adds) v += load_d(p, n);
    if (n < LANES)
        store_first_d(p, v, n);
    else
        memcpy(p, &v, sizeof v);
}

/* Lanes in use of vector v of `width`, the last of which has n. */
INLINE int64_t lanes_of(int v, int width, int64_t n)
{
    return v < width - 1 ? LANES : n;
}

/* While short planes of a channel are read in one sample after the other, here p and q
 * (or NULL): those of the channels behind it, from nearby into the nearest cache. */
INLINE void fetch_planes(const sbni_block *b, const S *p, const S *q)
{
    for (int64_t j = 4 * LINE; b->near && j < b->s + 4 * LINE; j += LINE) {
        __builtin_prefetch(p + j, 0, 3);
        if (q) __builtin_prefetch(q + j, 0, 3);
    }
    for (int64_t j = 16 * LINE; !b->near && j < b->s + 16 * LINE; j += LINE) {
        __builtin_prefetch(p + j, 0, 2);
        if (q) __builtin_prefetch(q + j, 0, 2);
    }
}

/* While pixels, `rows` of them side by side, are read from channel i on, `width` channels
 * at a time: what comes behind them, in the order of memory, `least` or more ahead. The
 * processor foresees one stream well, and several that lie close together badly. */
INLINE void fetch_next(const S *first, int64_t distance, int rows, int k, int64_t i,
                       const int width, const int64_t least)
{
    int64_t ahead = rows * distance;
    if (ahead < least) ahead = least;
    const S *next = first + ahead + rows * i + k * width;
    for (int v = 0; v < width; v += LINE) __builtin_prefetch(next + v, 0, 2);
}

/* While `count` elements from p on are read, several places at once: those so far ahead,
 * where the processor sees no stream. */
INLINE void fetch_ahead(const S *p, int64_t count, const int64_t ahead)
{
    for (int64_t j = 0; ahead && j < count; j += LINE)
        __builtin_prefetch(p + ahead + j, 0, 2);
}

/* dy where y was above zero. */
INLINE vt gate_v(vt dy, vt y)
{
    return (vt)((vm)dy & (y > 0));
}

/* Factors of one channel in all lanes, or of n channels, a lane each; hi and lo are the
 * centre. */
typedef struct vectors {
    vt hi, lo, scale, shift, a, b, k;
} vectors;

/* Whether nothing is subtracted in n channels from i on. */
INLINE bool all_near(const sbni_channels *ch, int64_t i, int64_t n)
{
    const T *centre = ch->centre_hi;
    int any = 0;
    for (int64_t k = i; PLAIN && k < i + n; k++) any |= centre[k] != 0;
    return PLAIN && !any;
}

INLINE vt centred(vt x, const vectors *f, const bool plain)
{
    return plain ? x : (x - f->hi) - f->lo;
}

/* Before what is fused. Backward must find it again to the bit. */
INLINE vt normalized(vt x, const vectors *f, const bool plain)
{
    return centred(x, f, plain) * f->scale + f->shift;
}

INLINE vt factor_at(const void *factor, int64_t i, int64_t n, const bool rows)
{
    const T *f = factor;
    return rows ? load_t(f + i, n) : f[i] - (vt){0};
}

/* dx NULL: a, b and k are not used. */
INLINE vectors vectors_at(const sbni_channels *ch, const sbni_dx_factors *dx, int64_t i,
                          int64_t n, const bool rows)
{
    vectors v = {.hi = factor_at(ch->centre_hi, i, n, rows),
                 .lo = factor_at(ch->centre_lo, i, n, rows),
                 .scale = factor_at(ch->scale, i, n, rows),
                 .shift = factor_at(ch->shift, i, n, rows)};
    if (dx) {
        v.a = factor_at(dx->a, i, n, rows);
        v.b = factor_at(dx->b, i, n, rows);
        v.k = factor_at(dx->k, i, n, rows);
    }
    return v;
}

/* First pixel of a channel of a sample, and first channel of a pixel. */
INLINE S *plane(const sbni_view *v, int64_t row, int64_t i)
{
    return (S *)v->data + row * v->stride_n + i * v->stride_c;
}

INLINE S *pixel(const sbni_view *v, int64_t row, int64_t j)
{
    return (S *)v->data + row * v->stride_n + j * v->stride_s;
}

/* Run number `outer` of a sample: a plane or a pixel. */
INLINE S *run_at(const sbni_block *b, const sbni_view *v, int64_t row, int64_t outer)
{
    return b->planes ? plane(v, row, outer) : pixel(v, row, outer);
}

INLINE int64_t piece_end(const sbni_block *b, int64_t from)
{
    return from + PIECE < b->s ? from + PIECE : b->s;
}

/* Whether planes of a sample follow each other without gaps. */
INLINE bool follow(const sbni_block *b, const sbni_view *v)
{
    return v->stride_c == b->s && (b->s == 1 || v->stride_s == 1);
}

/* A factor of `channels` channels from `first` on, each `s` times. */
INLINE void spread(const void *factor, int64_t first, int64_t channels, int64_t s, T *to)
{
    for (int64_t i = 0; i < channels; i++)
        for (int64_t j = 0; j < s; j++) *to++ = ((const T *)factor)[first + i];
}

/* Channels from i on whose planes are gone through at once. */
INLINE int64_t short_planes(const sbni_block *b, int64_t i)
{
    return SHORT_PLANES / b->s < b->c - i ? SHORT_PLANES / b->s : b->c - i;
}

/* Whether those of x are summed so: each pixel has sums of its own over the samples, as
 * it has a lane of its own elsewhere. Planes that fill all lanes are as fast alone. */
INLINE bool is_summed_short(const sbni_block *b, const sbni_view *x)
{
    return b->planes && b->s < SHORT_PLANE && b->n <= ROWS && follow(b, x);
}

/* Sum of s <= SHORT_PLANE pixels of a channel, as a plane's lanes are added up. */
INLINE double short_sum(const double *pixel, int64_t s)
{
    double lane[SHORT_PLANE] = {0};
    vd part[2 * PARTS];
    for (int64_t j = 0; j < s; j++) lane[j] = pixel[j];
    memcpy(part, lane, sizeof part);
    return both_sum(part);
}

/* Elements from a pixel to the next, also to that of the next sample; 0: not all are as
 * far apart. */
INLINE int64_t distance_of(const sbni_block *b, const sbni_view *v)
{
    const int64_t distance = b->s == 1 ? v->stride_n : v->stride_s;
    const bool all = b->n > 0 && b->rows[b->n - 1] - b->rows[0] == b->n - 1;
    return all && (b->n == 1 || v->stride_n == b->s * distance) ? distance : 0;
}

/* The same where pixels have few channels and lie close together. */
INLINE int64_t few_distance(const sbni_block *b, const sbni_view *v)
{
    const int64_t distance = b->c <= FEW * LANES ? distance_of(b, v) : 0;
    return distance <= LINE ? distance : 0;
}

/* A pixel of the block, counted through its samples. */
typedef struct spot {
    int64_t row, pixel;
} spot;

/* The pixel at *from and those behind it: at most ROWS. Returns how many. Most often all
 * are of one sample, or each of another. */
INLINE int pixels(const sbni_block *b, const sbni_view *v, const spot *from, S **out)
{
    spot at = *from;
    int n = 0;
    if (b->s - at.pixel >= ROWS) {
        S *p = pixel(v, b->rows[at.row], at.pixel);
        for (; n < ROWS; n++) out[n] = p + n * v->stride_s;
        return n;
    }
    if (b->s == 1) {
        for (; n < ROWS && at.row + n < b->n; n++)
            out[n] = pixel(v, b->rows[at.row + n], 0);
        return n;
    }
    for (; n < ROWS && at.row < b->n; at.row++, at.pixel = 0) {
        S *p = pixel(v, b->rows[at.row], at.pixel);
        for (; n < ROWS && at.pixel < b->s; at.pixel++, p += v->stride_s) out[n++] = p;
        if (at.pixel < b->s) break;
    }
    return n;
}

INLINE void advance(const sbni_block *b, spot *at, int count)
{
    at->pixel += count;
    for (; at->row < b->n && at->pixel >= b->s; at->row++) at->pixel -= b->s;
}

#endif
