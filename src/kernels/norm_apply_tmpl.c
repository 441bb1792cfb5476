/* No sums here, so a register is full of T. */
#define SBNI_LANES (SBNI_WIDE * (2 - SBNI_TYPE_F64))
#include "kernels/norm_walk_tmpl.h"

/* What is done to every element once the sums are known. */

/* NaN stays NaN. */
INLINE made normalize_lanes(const run *p, int64_t j, int64_t n, const vectors *f,
                            const what w)
{
    vt v = normalized(load_upto(p->at[X] + j, n), f, w.plain);
    if (w.add) v += load_upto(p->at[Z] + j, n);
    if (w.relu) v = (vt)((vm)v & ~(v < 0));
    return (made){.out = v};
}

INLINE made dx_lanes(const run *p, int64_t j, int64_t n, const vectors *f, const what w)
{
    vt x = {0}, u = {0}, g = load_upto(p->at[DY] + j, n);
    if (w.reads_x) x = load_upto(p->at[X] + j, n), u = centred(x, f, w.plain);
    if (w.relu) {
        vt v = normalized(x, f, w.plain);
        if (w.add) v += load_upto(p->at[Z] + j, n);
        g = gate_v(g, v);
    }
    return (made){.out = (f->a * g - f->b) - f->k * u, .dz = g};
}

/* Samples in rows whose pixels are all as far from the next become one sample. */
INLINE void join_samples(sbni_block *b, sbni_view *of, const views *v)
{
    int64_t distance[VIEWS];
    if (b->planes || b->n < 2) return;
    for (int k = 0; k < VIEWS; k++)
        if (v->of[k] && !(distance[k] = distance_of(b, v->of[k]))) return;
    for (int k = 0; k < VIEWS; k++)
        if (v->of[k]) of[k].stride_s = distance[k];
    b->s *= b->n;
    b->n = 1;
}

/* One of the two passes; the copies of what describes it are known to lie nowhere that it
 * writes. */
INLINE void pass(const sbni_block *block, const views *v, const sbni_channels *channels,
                 const sbni_dx_factors *factors, const what w, lanes *work)
{
    sbni_block b = *block;
    const sbni_channels ch = *channels;
    const sbni_dx_factors dx = factors ? *factors : (sbni_dx_factors){0};
    sbni_view of[VIEWS];
    views copy = {{0}};
#pragma GCC unroll 8
    for (int k = 0; k < VIEWS; k++)
        if (v->of[k]) of[k] = *v->of[k], copy.of[k] = &of[k];
    join_samples(&b, of, &copy);
    walk(&b, &copy, &ch, factors ? &dx : NULL, w, work);
}

/* What is done often has a form of its own each for stores to and past the cache. */
INLINE void passes(const sbni_block *b, const views *v, const sbni_channels *ch,
                   const sbni_dx_factors *dx, what w, lanes *work)
{
    w.often = true;
    w.plain = PLAIN;
    if (b->past) {
        w.past = true;
        pass(b, v, ch, dx, w, work);
        past_end();
    } else {
        w.past = false;
        pass(b, v, ch, dx, w, work);
    }
}

/* All else. */
INLINE void other_pass(const sbni_block *b, const views *v, const sbni_channels *ch,
                       const sbni_dx_factors *dx, const what w, lanes *work)
{
    pass(b, v, ch, dx, w, work);
    if (w.past) past_end();
}

/* Whether no channel is an exception to what is done often. */
INLINE bool is_usual(const sbni_block *b, const sbni_channels *ch)
{
    return !PLAIN || all_near(ch, 0, b->c);
}

void K(norm_normalize)(const sbni_block *b, const sbni_view *x, const sbni_channels *ch,
                       const sbni_fused *fused, const sbni_view *y)
{
    const sbni_view *z = fused->add;
    const views v = {{[X] = x, [Z] = z, [OUT] = y}}, usual = {{[X] = x, [OUT] = y}};
    if (z || !is_usual(b, ch))
        other_pass(b, &v, ch, NULL,
                   (what){.add = z != NULL,
                          .relu = fused->relu,
                          .wants_out = true,
                          .past = b->past},
                   normalize_lanes);
    else if (fused->relu)
        passes(b, &usual, ch, NULL, (what){.relu = true, .wants_out = true},
               normalize_lanes);
    else
        passes(b, &usual, ch, NULL, (what){.wants_out = true}, normalize_lanes);
}

void K(norm_backward_dx)(const sbni_block *b, const sbni_view *dy, const sbni_view *x,
                         const sbni_channels *ch, const sbni_dx_factors *f,
                         const sbni_fused *fused, const sbni_view *dx,
                         const sbni_view *dadd)
{
    const sbni_view *z = fused->relu ? fused->add : NULL;
    const views v = {{x, dy, z, dx, dadd}}, usual = {{x, dy, NULL, dx, NULL}};
    if (!x || z || dadd || !dx || !is_usual(b, ch))
        other_pass(b, &v, ch, f,
                   (what){.reads_x = x != NULL,
                          .add = z != NULL,
                          .relu = x && fused->relu,
                          .wants_out = dx != NULL,
                          .wants_dz = dadd != NULL,
                          .past = b->past && !(dx && dadd)},
                   dx_lanes);
    else if (fused->relu)
        passes(b, &usual, ch, f, (what){.reads_x = true, .relu = true, .wants_out = true},
               dx_lanes);
    else
        passes(b, &usual, ch, f, (what){.reads_x = true, .wants_out = true}, dx_lanes);
}

void K(norm_clear)(const sbni_block *b, const sbni_view *y)
{
    int64_t outer = b->planes ? b->c : b->s, inner = b->planes ? b->s : b->c;
    for (int64_t r = 0; r < b->n; r++)
        for (int64_t o = 0; o < outer; o++)
            memset(run_at(b, y, b->rows[r], o), 0, (size_t)inner * sizeof(S));
}
