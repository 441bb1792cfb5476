/* How the templates of normalization walk over a slice. */
#ifndef SBNI_NORM_TMPL_H
#define SBNI_NORM_TMPL_H

#include "kernels/tmpl.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    PIECE = 4096, /* pixels whose sum is formed before it joins the channel's: no chain of
                     additions grows with the image */
    ROWS = 64,    /* the same for pixels with channels last; they stay in the cache */
    STRIP = 4     /* vectors of channels that are summed side by side */
};

/* All bits of a lane set where a comparison holds. */
typedef __typeof__((vt){0} > (vt){0}) vm;

INLINE vt load_t(const T *p)
{
    vt v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE vd load_d(const double *p)
{
    vd v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void add_d(double *p, vd v)
{
    v += load_d(p);
    memcpy(p, &v, sizeof v);
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

/* Pixel `from` of the block, counted through its samples, and those behind it: at most
 * ROWS. Returns how many. */
INLINE int pixels(const sbni_block *b, const sbni_view *v, int64_t from, S **out)
{
    int64_t r = from / b->s, j = from % b->s;
    int n = 0;
    for (; n < ROWS && r < b->n; n++) {
        out[n] = pixel(v, b->rows[r], j);
        if (++j == b->s) j = 0, r++;
    }
    return n;
}

#endif
