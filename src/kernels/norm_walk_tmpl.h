/*
 * How the elements of a slice are gone through once the sums are known, in both forms.
 * Every walk does the same work, so which one is taken leaves no trace.
 */
#ifndef SBNI_NORM_WALK_TMPL_H
#define SBNI_NORM_WALK_TMPL_H

#include "kernels/norm_tmpl.h"

/* The views of a call, and where one run of each lies. OUT is y or dx. */
enum { X, DY, Z, OUT, DZ, VIEWS };
typedef struct views {
    const sbni_view *of[VIEWS]; /* NULL: not there */
} views;
typedef struct run {
    S *at[VIEWS];
} run;

/* What a call does: constant where a form of its own is compiled for it. */
typedef struct what {
    bool reads_x, add, relu, wants_out, wants_dz;
    bool plain; /* all channels are: norm_tmpl.h */
    bool past;  /* stores pass the cache by; then there is one output */
    bool often; /* worth forms for few channels and short planes */
} what;

/* What becomes of some elements. */
typedef struct made {
    vt out, dz;
} made;

/* The work on n ≤ LANES elements, at place j of a run. */
typedef made lanes(const run *p, int64_t j, int64_t n, const vectors *f, const what w);

INLINE void put_v(S *p, vt v, int64_t n, const bool past)
{
    if (n < LANES)
        store_first(p, v, n);
    else if (past)
        store_past(p, v);
    else
        store(p, v);
}

INLINE void put_made(const run *p, int64_t j, int64_t n, const made *m, const what w)
{
    if (w.wants_out) put_v(p->at[OUT] + j, m->out, n, w.past);
    if (w.wants_dz) put_v(p->at[DZ] + j, m->dz, n, w.past);
}

/* Factors of a run's channels from j on; ch NULL: all are f. */
INLINE vectors factors_at(const vectors *f, const sbni_channels *ch,
                          const sbni_dx_factors *dx, int64_t j, int64_t n)
{
    return ch ? vectors_at(ch, dx, j, n, true) : *f;
}

/* [j, end) of a run where no whole vector can be written. */
INLINE void walk_edge(const run *p, int64_t j, int64_t end, const vectors *f,
                      const sbni_channels *ch, const sbni_dx_factors *dx, what w,
                      lanes *work)
{
    w.past = false;
#pragma GCC unroll 1
    for (; j < end; j += LANES) {
        const int64_t n = at_most(end - j);
        const vectors v = factors_at(f, ch, dx, j, n);
        const made m = work(p, j, n, &v, w);
        put_made(p, j, n, &m, w);
    }
}

/* A run of n elements; ch NULL: they share the factors f, else each has its own. What
 * does not fill a vector at the end is done in one that begins earlier, made before
 * anything is written over what it reads. */
INLINE void walk_run(const run *p, int64_t n, const vectors *f, const sbni_channels *ch,
                     const sbni_dx_factors *dx, const what w, lanes *work)
{
    int64_t from = 0, step = LANES;
    if (w.past) {
        from = to_line(p->at[w.wants_out ? OUT : DZ], n);
        step = LINE;
    }
    const int64_t to = n - (n - from) % step;
    const bool laps = !w.past && n >= LANES && to < n;
    made last = {{0}, {0}};
    if (laps) {
        const vectors v = factors_at(f, ch, dx, n - LANES, LANES);
        last = work(p, n - LANES, LANES, &v, w);
    } else if (from > 0 || to < n) {
#pragma GCC unroll 1
        for (int side = 0; side < 2; side++)
            walk_edge(p, side ? to : 0, side ? n : from, f, ch, dx, w, work);
    }
#pragma GCC unroll 2
    for (int64_t j = from; j < to; j += LANES) {
        const vectors v = factors_at(f, ch, dx, j, LANES);
        const made m = work(p, j, LANES, &v, w);
        put_made(p, j, LANES, &m, w);
    }
    if (laps) put_made(p, n - LANES, LANES, &last, w);
}

INLINE void walk_planes(const sbni_block *b, const views *v, const sbni_channels *ch,
                        const sbni_dx_factors *dx, const what w, lanes *work)
{
    for (int64_t r = 0; r < b->n; r++) {
        run p = {{0}};
        int64_t step[VIEWS] = {0};
        for (int k = 0; k < VIEWS; k++)
            if (v->of[k])
                p.at[k] = plane(v->of[k], b->rows[r], 0), step[k] = v->of[k]->stride_c;
        for (int64_t i = 0; i < b->c; i++) {
            const vectors f = vectors_at(ch, dx, i, 1, false);
            walk_run(&p, b->s, &f, NULL, dx, w, work);
            for (int k = 0; k < VIEWS; k++)
                if (v->of[k]) p.at[k] += step[k];
        }
    }
}

/* Whether planes are short and follow each other in all views, in samples enough to pay
 * for the factors. */
INLINE bool are_short(const sbni_block *b, const views *v)
{
    for (int k = 0; k < VIEWS; k++)
        if (v->of[k] && !follow(b, v->of[k])) return false;
    return b->planes && b->s <= SHORT_PLANE && b->n >= SHORT_SAMPLES;
}

/* Plain short planes that follow each other: runs over several, in which each element has
 * a factor of its own. */
INLINE void walk_short(const sbni_block *b, const views *v, const sbni_channels *ch,
                       const sbni_dx_factors *dx, const what w, lanes *work)
{
    T scale[SHORT_PLANES], shift[SHORT_PLANES], a[SHORT_PLANES], bb[SHORT_PLANES],
        k[SHORT_PLANES], none[SHORT_PLANES] = {0};
    const sbni_channels of_each = {
        .centre_hi = none, .centre_lo = none, .scale = scale, .shift = shift};
    const sbni_dx_factors dx_of_each = {a, bb, k};
    for (int64_t i = 0, count; i < b->c; i += count) {
        count = short_planes(b, i);
        spread(ch->scale, i, count, b->s, scale);
        spread(ch->shift, i, count, b->s, shift);
        if (dx) {
            spread(dx->a, i, count, b->s, a);
            spread(dx->b, i, count, b->s, bb);
            spread(dx->k, i, count, b->s, k);
        }
        for (int64_t r = 0; r < b->n; r++) {
            run p = {{0}};
            for (int l = 0; l < VIEWS; l++)
                if (v->of[l]) p.at[l] = plane(v->of[l], b->rows[r], i);
            walk_run(&p, count * b->s, NULL, &of_each, dx ? &dx_of_each : NULL, w, work);
        }
    }
}

/* Pixels of at least LANES channels that share the loads of their factors, the last ones
 * as in walk_run. Past the cache only where all are whole lines. */
INLINE void walk_pixels(const run *p, int64_t c, const sbni_channels *ch,
                        const sbni_dx_factors *dx, const what w, lanes *work)
{
    enum { BLOCK = LINE > 2 * LANES ? LINE : 2 * LANES };
    const bool laps = c % LANES > 0;
    made last[PIXELS];
#pragma GCC unroll 2
    for (int k = 0; k < PIXELS; k++) last[k] = (made){{0}, {0}};
    if (laps) {
        const vectors f = vectors_at(ch, dx, c - LANES, LANES, true);
        for (int k = 0; k < PIXELS; k++) last[k] = work(p + k, c - LANES, LANES, &f, w);
    }
    int64_t i = 0;
    for (; i + BLOCK <= c; i += BLOCK) {
        vectors f[BLOCK / LANES];
        for (int v = 0; v < BLOCK / LANES; v++)
            f[v] = vectors_at(ch, dx, i + v * LANES, LANES, true);
        for (int k = 0; k < PIXELS; k++) {
            for (int r = X; r <= DY; r++)
                if (p->at[r])
                    fetch_next(p[0].at[r], p[1].at[r] - p[0].at[r], PIXELS, k, i, BLOCK,
                               AHEAD);
            for (int v = 0; v < BLOCK / LANES; v++) {
                const made m = work(p + k, i + v * LANES, LANES, &f[v], w);
                put_made(p + k, i + v * LANES, LANES, &m, w);
            }
        }
    }
    for (; i + LANES <= c; i += LANES) {
        const vectors f = vectors_at(ch, dx, i, LANES, true);
        for (int k = 0; k < PIXELS; k++) {
            const made m = work(p + k, i, LANES, &f, w);
            put_made(p + k, i, LANES, &m, w);
        }
    }
    for (int k = 0; laps && k < PIXELS; k++)
        put_made(p + k, c - LANES, LANES, &last[k], w);
}

/* Where pixel j lies behind the first ones. */
INLINE run pixel_at(const views *v, const run *first, int64_t j)
{
    run p = {{0}};
#pragma GCC unroll 8
    for (int k = 0; k < VIEWS; k++)
        if (v->of[k]) p.at[k] = first->at[k] + j * v->of[k]->stride_s;
    return p;
}

INLINE void walk_rows(const sbni_block *b, const views *v, const sbni_channels *ch,
                      const sbni_dx_factors *dx, const what w, lanes *work)
{
    const sbni_view *out = v->of[OUT] ? v->of[OUT] : v->of[DZ];
    const bool in_lines = (uintptr_t)out->data % 64 == 0 && b->c % LINE == 0 &&
                          out->stride_n % LINE == 0 && out->stride_s % LINE == 0;
    /* What is not in a core's cache is foreseen best in the order of memory. But of wide
     * pixels two share the loads of their factors: of plain ones only where these do not
     * stay in the nearest cache. */
    const int64_t wide = w.plain ? FACTORS / (dx ? w.relu ? 5 : 3 : 2)
                                 : WIDE * ((v->of[X] != NULL) + (v->of[DY] != NULL));
    const bool in_order =
        w.past ? !in_lines || b->c <= wide : w.plain && !b->near && b->c <= wide;
    const bool side_by_side = b->c >= LANES && !in_order;
    for (int64_t r = 0; r < b->n; r++) {
        run first = {{0}};
#pragma GCC unroll 8
        for (int k = 0; k < VIEWS; k++)
            if (v->of[k]) first.at[k] = pixel(v->of[k], b->rows[r], 0);
        int64_t j = 0;
        for (; side_by_side && j + PIXELS <= b->s; j += PIXELS) {
            run p[PIXELS];
#pragma GCC unroll 4
            for (int k = 0; k < PIXELS; k++) p[k] = pixel_at(v, &first, j + k);
            walk_pixels(p, b->c, ch, dx, w, work);
        }
        for (; j < b->s; j++) {
            const run p = pixel_at(v, &first, j);
            walk_run(&p, b->c, NULL, ch, dx, w, work);
        }
    }
}

/* Pixels of a few channels, `width` vectors of them: their factors stay in registers. The
 * last vector begins where it ends with the pixel, so all are made before one is written.
 */
INLINE void walk_narrow(const sbni_block *b, const views *v, const sbni_channels *ch,
                        const sbni_dx_factors *dx, const what w, lanes *work,
                        const int width)
{
    const int64_t n = at_most(b->c), last = b->c - n;
    vectors f[NARROW];
#pragma GCC unroll 4
    for (int l = 0; l < width; l++)
        f[l] = vectors_at(ch, dx, l < width - 1 ? l * LANES : last, n, true);
    for (int64_t r = 0; r < b->n; r++) {
        run p = {{0}};
        int64_t step[VIEWS] = {0};
        for (int k = 0; k < VIEWS; k++)
            if (v->of[k])
                p.at[k] = pixel(v->of[k], b->rows[r], 0), step[k] = v->of[k]->stride_s;
        for (int64_t j = 0; j < b->s; j++) {
            made m[NARROW];
#pragma GCC unroll 4
            for (int l = 0; l < width; l++)
                m[l] = work(&p, l < width - 1 ? l * LANES : last, width > 1 ? LANES : n,
                            &f[l], w);
#pragma GCC unroll 4
            for (int l = 0; l < width; l++)
                put_made(&p, l < width - 1 ? l * LANES : last, width > 1 ? LANES : n,
                         &m[l], w);
            for (int k = 0; k < VIEWS; k++) p.at[k] += step[k];
        }
    }
}

/* After how many vectors of pixels without gaps a vector begins with a channel's first
 * element again; 0: there are gaps. */
INLINE int period_of(const sbni_block *b, const views *v)
{
    for (int k = 0; k < VIEWS; k++)
        if (v->of[k] && v->of[k]->stride_s != b->c) return 0;
    int64_t n = b->c;
    while (n % LANES) n += b->c;
    return (int)(n / LANES);
}

/* A factor of c channels over and over, from channel i on. */
INLINE vt repeated(const void *factor, int64_t i, int64_t c)
{
    vt v = {0};
    for (int k = 0; k < LANES; k++) {
        v[k] = ((const T *)factor)[i];
        i = i + 1 < c ? i + 1 : 0;
    }
    return v;
}

/* Plain samples without gaps, a few channels: factors of `period` vectors are made once.
 */
INLINE void walk_periodic(const sbni_block *b, const views *v, const sbni_channels *ch,
                          const sbni_dx_factors *dx, const what w, lanes *work,
                          const int period)
{
    vectors f[PERIOD];
#pragma GCC unroll 8
    for (int l = 0; l < period; l++) {
        const int64_t i = l * LANES % b->c;
        vectors *to = &f[l];
        *to = (vectors){.scale = repeated(ch->scale, i, b->c),
                        .shift = repeated(ch->shift, i, b->c)};
        if (!dx) continue;
        to->a = repeated(dx->a, i, b->c);
        to->b = repeated(dx->b, i, b->c);
        to->k = repeated(dx->k, i, b->c);
    }
    const int64_t count = b->s * b->c, whole = count - count % (period * LANES);
    for (int64_t r = 0; r < b->n; r++) {
        run p = {{0}};
        for (int k = 0; k < VIEWS; k++)
            if (v->of[k]) p.at[k] = pixel(v->of[k], b->rows[r], 0);
        for (int64_t j = 0; j < whole; j += period * LANES)
#pragma GCC unroll 8
            for (int l = 0; l < period; l++) {
                const made m = work(&p, j + l * LANES, LANES, &f[l], w);
                put_made(&p, j + l * LANES, LANES, &m, w);
            }
#pragma GCC unroll 1
        for (int64_t j = whole; j < count; j += LANES) {
            const int64_t n = at_most(count - j);
            const made m = work(&p, j, n, &f[(j - whole) / LANES], w);
            put_made(&p, j, n, &m, w);
        }
    }
}

INLINE void walk(const sbni_block *b, const views *v, const sbni_channels *ch,
                 const sbni_dx_factors *dx, const what w, lanes *work)
{
    const bool few = w.often && w.plain && !w.past && !b->planes && b->c % LANES;
    const int period = few ? period_of(b, v) : 0;
    /* less is not worth the factors */
    const bool repeats = b->s * b->c >= 2 * period * LANES;
    if (repeats && period == 1)
        walk_periodic(b, v, ch, dx, w, work, 1);
    else if (repeats && period == 3)
        walk_periodic(b, v, ch, dx, w, work, 3);
    else if (repeats && period == 5)
        walk_periodic(b, v, ch, dx, w, work, 5);
    else if (repeats && period == 7 && b->c < LANES)
        walk_periodic(b, v, ch, dx, w, work, 7);
    else if (w.often && w.plain && !w.past && are_short(b, v))
        walk_short(b, v, ch, dx, w, work);
    else if (b->planes)
        walk_planes(b, v, ch, dx, w, work);
    else if (w.past || !w.often || b->c > NARROW * LANES)
        walk_rows(b, v, ch, dx, w, work);
    else if (b->c > 2 * LANES)
        walk_narrow(b, v, ch, dx, w, work, 3);
    else if (b->c > LANES)
        walk_narrow(b, v, ch, dx, w, work, 2);
    else
        walk_narrow(b, v, ch, dx, w, work, 1);
}

#endif
