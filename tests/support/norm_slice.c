#include "support/norm_slice.h"

#include <stddef.h>

#include "support/element.h"
#include "support/tables.h"

enum { APART = 5, NO_DRAWS = 100 };

static sbni_view view_make(slice *v, uint32_t which)
{
    const sbni_block *b = &v->b;
    sbni_view w = {.data = room(v->t, v->count)};
    if (b->planes)
        w.stride_s = 1, w.stride_c = b->s + v->stray;
    else
        w.stride_c = 1, w.stride_s = b->c + v->stray;
    w.stride_n = v->sample;
    if (which < NO_DRAWS) draw(v->t, w.data, v->count, which);
    return w;
}

/* Samples `apart` elements from each other, rows as v has them. */
static void fill(slice *v, sbn_dtype t, bool planes, int64_t apart, int64_t n, int64_t c,
                 int64_t s)
{
    v->t = t;
    v->f = t == SBN_F64 ? SBN_F64 : SBN_F32;
    v->b = (sbni_block){NULL, n, c, s, planes, false, s % 2};
    v->sample = (planes ? c * (s + v->stray) : s * (c + v->stray)) + apart;
    v->count = (v->rows[n - 1] + 1) * v->sample;
    v->x = view_make(v, 0), v->dy = view_make(v, 1), v->z = view_make(v, 2);
    v->y = view_make(v, NO_DRAWS), v->dx = view_make(v, NO_DRAWS);
    v->dz = view_make(v, NO_DRAWS);
    void **factors[] = {&v->hi, &v->lo, &v->scale,     &v->shift,    &v->a,
                        &v->bb, &v->k,  &v->centre_hi, &v->centre_lo};
    for (uint32_t i = 0; i < 9; i++) {
        *factors[i] = room(v->f, c);
        draw(v->f, *factors[i], c, 3 + i);
    }
    for (int64_t i = 0; i < c; i++) /* the second part of a mean is small */
        set_element(v->f, v->lo, i, element(v->f, v->lo, i) * rounding(v->f));
    v->ch = (sbni_channels){v->hi,    v->lo,    v->centre_hi, v->centre_lo,
                            v->scale, v->shift, NULL,         NULL};
    v->dx_f = (sbni_dx_factors){v->a, v->bb, v->k};
}

slice slice_make(sbn_dtype t, bool planes, int64_t stray, int64_t n, int64_t c, int64_t s)
{
    slice v = {.stray = stray};
    for (int64_t r = 0; r < n; r++) v.rows[r] = 2 * r + r % 2;
    fill(&v, t, planes, APART, n, c, s);
    return v;
}

slice slice_pack(const slice *v)
{
    slice packed = {.stray = 0};
    for (int64_t r = 0; r < v->b.n; r++) packed.rows[r] = r;
    fill(&packed, v->t, v->b.planes, 0, v->b.n, v->b.c, v->b.s);
    const sbni_view *from[] = {&v->x, &v->dy, &v->z},
                    *to[] = {&packed.x, &packed.dy, &packed.z};
    for (int k = 0; k < 3; k++) EACH(v, r, i, j)
    set_element(v->t, to[k]->data, place(&packed, to[k], r, i, j),
                at(v, from[k], r, i, j));
    return packed;
}

void slice_free(slice *v)
{
    sbni_view *view[] = {&v->x, &v->dy, &v->z, &v->y, &v->dx, &v->dz};
    void *factors[] = {v->hi,        v->lo, v->scale, v->shift, v->centre_hi,
                       v->centre_lo, v->a,  v->bb,    v->k};
    for (int i = 0; i < 6; i++) room_check(v->t, view[i]->data, v->count);
    for (int i = 0; i < 9; i++) room_check(v->f, factors[i], v->b.c);
}

int64_t place(const slice *v, const sbni_view *w, int64_t r, int64_t i, int64_t j)
{
    return v->rows[r] * w->stride_n + i * w->stride_c + j * w->stride_s;
}

double at(const slice *v, const sbni_view *w, int64_t r, int64_t i, int64_t j)
{
    return element(v->t, w->data, place(v, w, r, i, j));
}

double factor(const slice *v, const void *array, int64_t i)
{
    return element(v->f, array, i);
}

bool is_far(const slice *v, int far, int64_t i)
{
    return v->t == SBN_F64 || far == ALL || (far == SOME && i % 3 == 1);
}

void set_far(slice *v, int far)
{
    for (int64_t i = 0; i < v->b.c; i++) {
        bool is = is_far(v, far, i);
        set_element(v->f, v->centre_hi, i, is ? factor(v, v->hi, i) : 0);
        set_element(v->f, v->centre_lo, i, is ? factor(v, v->lo, i) : 0);
    }
}
