/* Slices for the kernels of normalization, and their elements. */
#ifndef SUPPORT_NORM_SLICE_H
#define SUPPORT_NORM_SLICE_H

#include "kernels/kernels.h"

/* One slice in a form, out of every second sample of a larger array with gaps of `stray`
 * between its runs and others between samples, and factors. t is the storage type, f that
 * of factors. */
typedef struct slice {
    sbn_dtype t, f;
    sbni_block b;
    int64_t stray, sample; /* elements of a sample, gaps included */
    int64_t rows[16], count;
    sbni_view x, dy, z, y, dx, dz;
    void *hi, *lo, *centre_hi, *centre_lo, *scale, *shift, *a, *bb, *k;
    sbni_channels ch;
    sbni_dx_factors dx_f;
} slice;

/* b.rows is left to the caller, as the slice moves with its copies. */
slice slice_make(sbn_dtype t, bool planes, int64_t stray, int64_t n, int64_t c,
                 int64_t s);
void slice_free(slice *v);

/* The same elements and factors, all samples there and no gaps anywhere. */
slice slice_pack(const slice *v);

int64_t place(const slice *v, const sbni_view *w, int64_t r, int64_t i, int64_t j);
double at(const slice *v, const sbni_view *w, int64_t r, int64_t i, int64_t j);
double factor(const slice *v, const void *array, int64_t i);

#define EACH(v, r, i, j)                                                                 \
    for (int64_t r = 0; r < (v)->b.n; r++)                                               \
        for (int64_t i = 0; i < (v)->b.c; i++)                                           \
            for (int64_t j = 0; j < (v)->b.s; j++)

/* Of which channels the mean is far from 0, so that it is their centre. */
enum { NONE, ALL, SOME, FARS };
bool is_far(const slice *v, int far, int64_t i);
void set_far(slice *v, int far);

#endif
