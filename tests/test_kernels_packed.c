/* Data without gaps between samples or planes goes other ways through the kernels of
 * normalization: with the same bits as the same data with gaps. */
#include "support/harness.h"
#include "support/tables.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/element.h"
#include "support/norm_slice.h"

enum { MOST_C = 150 };

/* Elements of many sizes: a double does not hold their sums, so that the order shows. */
static void spread(const slice *v, const sbni_view *w)
{
    EACH(v, r, i, j)
    set_element(v->t, w->data, place(v, w, r, i, j),
                ldexp(at(v, w, r, i, j), (int)((7 * r + 5 * i + 11 * j) % 61) - 30));
}

static void same_elements(const slice *a, const sbni_view *va, const slice *b,
                          const sbni_view *vb)
{
    int64_t size = sbn_dtype_bytes(a->t);
    EACH(a, r, i, j)
    same_bits((const char *)va->data + place(a, va, r, i, j) * size,
              (const char *)vb->data + place(b, vb, r, i, j) * size, size);
}

/* Sums of channels that all, not at all and some lie far from 0. */
static void same_moments(const sbni_norm_kernels *k, const slice *apart,
                         const slice *packed)
{
    static const double means[] = {0, 0x1p36}; /* far beyond every element */
    const slice *both[] = {apart, packed};
    for (int far = NONE; far < FARS; far++) {
        double sums[2][3][MOST_C];
        for (int b = 0; b < 2; b++) {
            const slice *v = both[b];
            int64_t bytes = v->count * sbn_dtype_bytes(v->t);
            void *kept = malloc((size_t)bytes);
            assert_non_null(kept);
            memcpy(kept, v->x.data, (size_t)bytes);
            EACH(v, r, i, j)
            set_element(v->t, v->x.data, place(v, &v->x, r, i, j),
                        at(v, &v->x, r, i, j) +
                            means[far == ALL || (far == SOME && i % 3 == 1)]);
            k->norm_moments(&v->b, &v->x, sums[b][0], sums[b][1], sums[b][2]);
            memcpy(v->x.data, kept, (size_t)bytes);
            free(kept);
        }
        for (int a = 0; a < 3; a++) same_bits(sums[0][a], sums[1][a], apart->b.c * 8);
        for (int64_t i = 0; i < apart->b.c; i++)
            if (far == ALL || (far == SOME && i % 3 == 1))
                assert_true(sums[1][0][i] > 0x1p35);
            else if (apart->t != SBN_F64 && apart->b.n * apart->b.s >= 9)
                assert_true(sums[1][0][i] == 0);
        record(sums[1][1], apart->b.c * 8), record(sums[1][2], apart->b.c * 8);
    }
}

/* y over x, dx and dz over dy: the same as beside them. */
static void same_in_place(const sbni_norm_kernels *k, const slice *v,
                          const sbni_fused *fused)
{
    int64_t bytes = v->count * sbn_dtype_bytes(v->t);
    char *kept = malloc((size_t)bytes);
    assert_non_null(kept);
    const sbni_view *over[] = {&v->x, &v->dy, &v->dy},
                    *beside[] = {&v->y, &v->dx, &v->dz};
    for (int p = 0; p < 3; p++) {
        memcpy(kept, over[p]->data, (size_t)bytes);
        if (p == 0)
            k->norm_normalize(&v->b, &v->x, &v->ch, fused, &v->x);
        else
            k->norm_backward_dx(&v->b, &v->dy, &v->x, &v->ch, &v->dx_f, fused,
                                p == 1 ? &v->dy : NULL, p == 2 ? &v->dy : NULL);
        same_elements(v, over[p], v, beside[p]);
        memcpy(over[p]->data, kept, (size_t)bytes);
    }
    free(kept);
}

static void same_passes(const sbni_norm_kernels *k, slice *apart, slice *packed, int far,
                        bool relu, bool add)
{
    slice *both[] = {apart, packed};
    double sums[2][2][MOST_C];
    for (int b = 0; b < 2; b++) {
        slice *v = both[b];
        const sbni_fused fused = {relu, add ? &v->z : NULL};
        set_far(v, far);
        k->norm_normalize(&v->b, &v->x, &v->ch, &fused, &v->y);
        k->norm_backward_sums(&v->b, &v->dy, &v->x, &v->ch, &fused, sums[b][0],
                              sums[b][1]);
        k->norm_backward_dx(&v->b, &v->dy, &v->x, &v->ch, &v->dx_f, &fused, &v->dx, NULL);
        k->norm_backward_dx(&v->b, &v->dy, &v->x, &v->ch, &v->dx_f, &fused, NULL, &v->dz);
        if (v == packed) same_in_place(k, v, &fused);
    }
    same_elements(apart, &apart->y, packed, &packed->y);
    same_elements(apart, &apart->dx, packed, &packed->dx);
    same_elements(apart, &apart->dz, packed, &packed->dz);
    for (int a = 0; a < 2; a++) same_bits(sums[0][a], sums[1][a], apart->b.c * 8);
    record(sums[1][0], apart->b.c * 8), record(sums[1][1], apart->b.c * 8);
}

static void same_slice(const sbni_norm_kernels *k, sbn_dtype t, bool planes, int64_t n,
                       int64_t c, int64_t s)
{
    slice apart = slice_make(t, planes, 3, n, c, s);
    spread(&apart, &apart.x);
    spread(&apart, &apart.dy);
    slice packed = slice_pack(&apart);
    apart.b.rows = apart.rows;
    packed.b.rows = packed.rows;
    same_moments(k, &apart, &packed);
    for (int how = 0; how < 4 * FARS; how++)
        same_passes(k, &apart, &packed, how / 4, how & 1, how & 2);
    packed.b.past = true; /* stores go another way, too */
    same_passes(k, &apart, &packed, NONE, false, false);
    same_passes(k, &apart, &packed, NONE, true, false);
    slice_free(&apart);
    slice_free(&packed);
}

/* Few channels in rows: sums of several sixteens of pixels side by side, and what is left
 * of them. */
static void rows(const sbni_norm_kernels *k, sbn_dtype t)
{
    static const int64_t channels[] = {1, 3, 4, 7, 8, 14, 17, 20},
                         sizes[][2] = {{16, 1}, {3, 7}, {16, 9}, {2, 81}};
    for (size_t c = 0; c < sizeof channels / sizeof *channels; c++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            same_slice(k, t, false, sizes[i][0], channels[c], sizes[i][1]);
}

/* Short planes: few enough for one part, and more; and longer than short. */
static void planes(const sbni_norm_kernels *k, sbn_dtype t)
{
    static const int64_t pixels[] = {1, 2, 3, 4, 8, 9, 15, 16, 17};
    for (size_t s = 0; s < sizeof pixels / sizeof *pixels; s++) {
        same_slice(k, t, true, 3, 5, pixels[s]);
        same_slice(k, t, true, 16, 5, pixels[s]);
        same_slice(k, t, true, 5, MOST_C, pixels[s]);
    }
}

static void rows_have_the_bits_of_those_with_gaps(void **state)
{
    (void)state;
    each_norm_table(rows);
}

static void planes_have_the_bits_of_those_with_gaps(void **state)
{
    (void)state;
    each_norm_table(planes);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(rows_have_the_bits_of_those_with_gaps),
    cmocka_unit_test(planes_have_the_bits_of_those_with_gaps),
};
TEST_MAIN(tests)
