/* No sums here, so vectors are as wide as a register. */
#if defined __AVX512F__ && !SBNI_TYPE_F64
#define SBNI_LANES 16
#endif
#include "kernels/norm_tmpl.h"

/* What is done to every element once the sums are known, in both forms. */

/* The views of a call, and where one run of each lies. */
enum { X, DY, Z, Y, DX, DZ, VIEWS };
typedef struct views {
    const sbni_view *of[VIEWS]; /* NULL: not there */
} views;
typedef struct run {
    S *at[VIEWS];
} run;

/* What a call does. The first three are constant where it is compiled; the others only
 * steer branches that always go the same way. */
typedef struct what {
    bool reads_x, add, relu, wants_dx, wants_dz;
    bool past; /* stores pass the cache by; then there is one output */
} what;

/* The work on n ≤ LANES elements, at place j of a run. */
typedef void lanes(const run *p, int64_t j, int64_t n, const vectors *f, const what w);

INLINE void put_v(S *p, vt v, int64_t n, const bool past)
{
    if (n < LANES)
        store_first(p, v, n);
    else if (past)
        store_past(p, v);
    else
        store(p, v);
}

/* The value before relu is what backward must find again to the bit. NaN stays NaN. */
INLINE void normalize_lanes(const run *p, int64_t j, int64_t n, const vectors *f,
                            const what w)
{
    vt v = ((load_upto(p->at[X] + j, n) - f->hi) - f->lo) * f->scale + f->shift;
    if (w.add) v += load_upto(p->at[Z] + j, n);
    if (w.relu) v = (vt)((vm)v & ~(v < 0));
    put_v(p->at[Y] + j, v, n, w.past);
}

INLINE void dx_lanes(const run *p, int64_t j, int64_t n, const vectors *f, const what w)
{
    vt u = {0}, g = load_upto(p->at[DY] + j, n);
    if (w.reads_x) u = (load_upto(p->at[X] + j, n) - f->hi) - f->lo;
    if (w.relu) {
        vt v = u * f->scale + f->shift;
        if (w.add) v += load_upto(p->at[Z] + j, n);
        g = gate_v(g, v);
    }
    if (w.wants_dx) put_v(p->at[DX] + j, (f->a * g - f->b) - f->k * u, n, w.past);
    if (w.wants_dz) put_v(p->at[DZ] + j, g, n, w.past);
}

/* [j, end) of a run where no store may pass the cache by. */
INLINE void walk_edge(const run *p, int64_t j, int64_t end, const vectors *f,
                      const sbni_channels *ch, const sbni_dx_factors *dx, what w,
                      lanes *work)
{
    w.past = false;
    for (; j < end; j += LANES) {
        const vectors v = ch ? vectors_at(ch, dx, j, at_most(end - j), true) : *f;
        work(p, j, at_most(end - j), &v, w);
    }
}

/* A run of n elements; ch NULL: they share the factors f, else each has its own. */
INLINE void walk_run(const run *p, int64_t n, const vectors *f, const sbni_channels *ch,
                     const sbni_dx_factors *dx, const what w, lanes *work)
{
    int64_t from = 0, step = LANES;
    if (w.past) {
        from = to_line(p->at[Y] ? p->at[Y] : w.wants_dx ? p->at[DX] : p->at[DZ], n);
        step = LINE;
    }
    const int64_t to = n - (n - from) % step;
    if (from > 0) walk_edge(p, 0, from, f, ch, dx, w, work);
#pragma GCC unroll 2
    for (int64_t j = from; j < to; j += LANES) {
        const vectors v = ch ? vectors_at(ch, dx, j, LANES, true) : *f;
        work(p, j, LANES, &v, w);
    }
    if (to < n) walk_edge(p, to, n, f, ch, dx, w, work);
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

/* Pixels that share the loads of their channels' factors. Past the cache only where all
 * are whole lines. */
INLINE void walk_pixels(const run *p, int64_t c, const vectors *last,
                        const sbni_channels *ch, const sbni_dx_factors *dx, const what w,
                        lanes *work)
{
    enum { BLOCK = LINE > 2 * LANES ? LINE : 2 * LANES };
    int64_t i = 0;
    for (; i + BLOCK <= c; i += BLOCK) {
        vectors f[BLOCK / LANES];
        for (int v = 0; v < BLOCK / LANES; v++)
            f[v] = vectors_at(ch, dx, i + v * LANES, LANES, true);
        for (int k = 0; k < PIXELS; k++) {
            for (int r = X; r <= DY; r++)
                if (p->at[r])
                    fetch_next(p[0].at[r], p[1].at[r] - p[0].at[r], PIXELS, k, i, BLOCK);
            for (int v = 0; v < BLOCK / LANES; v++)
                work(p + k, i + v * LANES, LANES, &f[v], w);
        }
    }
    for (; i + LANES <= c; i += LANES) {
        const vectors f = vectors_at(ch, dx, i, LANES, true);
        for (int k = 0; k < PIXELS; k++) work(p + k, i, LANES, &f, w);
    }
#pragma GCC unroll 1
    for (int k = 0; i < c && k < PIXELS; k++) work(p + k, i, c - i, last, w);
}

INLINE void walk_rows(const sbni_block *b, const views *v, const sbni_channels *ch,
                      const sbni_dx_factors *dx, const what w, lanes *work)
{
    const int64_t tail = b->c % LANES;
    const vectors last = vectors_at(ch, dx, b->c - tail, tail, true);
    const sbni_view *out = v->of[Y] ? v->of[Y] : v->of[DX] ? v->of[DX] : v->of[DZ];
    const bool in_lines = (uintptr_t)out->data % 64 == 0 && b->c % LINE == 0 &&
                          out->stride_n % LINE == 0 && out->stride_s % LINE == 0;
    /* neighbours: pixels of a sample, or samples of one pixel */
    const bool flat = b->s == 1;
    const int64_t outer = flat ? 1 : b->n, inner = flat ? b->n : b->s;
    for (int64_t r = 0; r < outer; r++) {
        run first = {{0}};
        for (int k = 0; k < VIEWS; k++)
            if (v->of[k]) first.at[k] = pixel(v->of[k], flat ? 0 : b->rows[r], 0);
        for (int64_t j = 0, count; j < inner; j += count) {
            run p[PIXELS];
            count = inner - j < PIXELS ? inner - j : PIXELS;
            for (int64_t o = 0; o < count; o++)
                for (int k = 0; k < VIEWS; k++) {
                    const sbni_view *of = v->of[k];
                    p[o].at[k] = !of    ? NULL
                                 : flat ? first.at[k] + b->rows[j + o] * of->stride_n
                                        : first.at[k] + (j + o) * of->stride_s;
                }
            if ((!w.past || in_lines) && count == PIXELS)
                walk_pixels(p, b->c, &last, ch, dx, w, work);
            else
                for (int64_t o = 0; o < count; o++)
                    walk_run(p + o, b->c, NULL, ch, dx, w, work);
        }
    }
}

/* Pixels of a few channels, `width` vectors of them: their factors stay in registers. */
INLINE void walk_narrow(const sbni_block *b, const views *v, const sbni_channels *ch,
                        const sbni_dx_factors *dx, const what w, lanes *work,
                        const int width)
{
    const int64_t n = b->c - (width - 1) * LANES;
    vectors f[REST];
    for (int l = 0; l < width; l++)
        f[l] = vectors_at(ch, dx, l * LANES, lanes_of(l, width, n), true);
    for (int64_t r = 0; r < b->n; r++) {
        run p = {{0}};
        int64_t step[VIEWS] = {0};
        for (int k = 0; k < VIEWS; k++)
            if (v->of[k])
                p.at[k] = pixel(v->of[k], b->rows[r], 0), step[k] = v->of[k]->stride_s;
        for (int64_t j = 0; j < b->s; j++) {
            for (int l = 0; l < width; l++)
                work(&p, l * LANES, lanes_of(l, width, n), &f[l], w);
            for (int k = 0; k < VIEWS; k++) p.at[k] += step[k];
        }
    }
}

INLINE void walk(const sbni_block *b, const views *v, const sbni_channels *ch,
                 const sbni_dx_factors *dx, const what w, lanes *work)
{
    if (b->planes)
        walk_planes(b, v, ch, dx, w, work);
    else if (w.past || b->c > REST * LANES)
        walk_rows(b, v, ch, dx, w, work);
    else if (b->c > 2 * LANES)
        walk_narrow(b, v, ch, dx, w, work, 3);
    else if (b->c > LANES)
        walk_narrow(b, v, ch, dx, w, work, 2);
    else
        walk_narrow(b, v, ch, dx, w, work, 1);
}

INLINE void normalize(const sbni_block *b, const views *v, const sbni_channels *ch,
                      const bool add, const bool relu)
{
    const what w = {.add = add, .relu = relu, .past = b->past};
    walk(b, v, ch, NULL, w, normalize_lanes);
    if (b->past) past_end();
}

void K(norm_normalize)(const sbni_block *b, const sbni_view *x, const sbni_channels *ch,
                       const sbni_fused *fused, const sbni_view *y)
{
    const sbni_view *z = fused->add;
    const views v = {{[X] = x, [Z] = z, [Y] = y}};
    if (z && fused->relu)
        normalize(b, &v, ch, true, true);
    else if (z)
        normalize(b, &v, ch, true, false);
    else if (fused->relu)
        normalize(b, &v, ch, false, true);
    else
        normalize(b, &v, ch, false, false);
}

INLINE void backward_dx(const sbni_block *b, const views *v, const sbni_channels *ch,
                        const sbni_dx_factors *dx, const bool reads_x, const bool add,
                        const bool relu)
{
    const what w = {.reads_x = reads_x,
                    .add = add,
                    .relu = relu,
                    .wants_dx = v->of[DX] != NULL,
                    .wants_dz = v->of[DZ] != NULL,
                    .past = b->past && !(v->of[DX] && v->of[DZ])};
    walk(b, v, ch, dx, w, dx_lanes);
    if (b->past) past_end();
}

void K(norm_backward_dx)(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                         const sbni_channels *ch, const sbni_dx_factors *f,
                         const sbni_fused *fused, const sbni_view *dx,
                         const sbni_view *dadd)
{
    const sbni_view *z = fused->add;
    views v = {{x, dy, fused->relu ? z : NULL, NULL, dx, dadd}};
    if (!x)
        backward_dx(b, &v, ch, f, false, false, false);
    else if (fused->relu && z)
        backward_dx(b, &v, ch, f, true, true, true);
    else if (fused->relu)
        backward_dx(b, &v, ch, f, true, false, true);
    else
        backward_dx(b, &v, ch, f, true, false, false);
}

void K(norm_clear)(const sbni_block *b, const sbni_view *y)
{
    int64_t outer = b->planes ? b->c : b->s, inner = b->planes ? b->s : b->c;
    for (int64_t r = 0; r < b->n; r++)
        for (int64_t o = 0; o < outer; o++)
            memset(run_at(b, y, b->rows[r], o), 0, (size_t)inner * sizeof(S));
}
