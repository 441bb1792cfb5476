#include "kernels/tmpl.h"

#include <stdbool.h>

/* First and one-past-last output column whose window column kw lies inside the image. */
static void inside(int64_t kw, int64_t w, int64_t ow, sbni_window win, int64_t *from,
                   int64_t *to)
{
    int64_t first = win.pad - kw;
    *from = first > 0 ? (first + win.stride - 1) / win.stride : 0;
    int64_t last = w - 1 + win.pad - kw; /* largest j·stride that is inside */
    *to = last < 0 ? 0 : last / win.stride + 1;
    if (*to > ow) *to = ow;
    if (*from > *to) *from = *to;
}

static inline void copy_row(const T *from, int64_t n, T *to)
{
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) store(to + j, load(from + j));
    for (; j < n; j++) to[j] = from[j];
}

/* Here lanes are not added up: a register of T, which in float is twice LANES. */
typedef T wide __attribute__((vector_size(SBNI_WIDE * 8)));
enum { WIDE = sizeof(wide) / sizeof(T) };

static inline void add_row(const T *from, int64_t n, T *to)
{
    int64_t j = 0;
    for (; j + WIDE <= n; j += WIDE) {
        wide a, b;
        memcpy(&a, to + j, sizeof a);
        memcpy(&b, from + j, sizeof b);
        a += b;
        memcpy(to + j, &a, sizeof a);
    }
    for (; j + LANES <= n; j += LANES) store(to + j, load(to + j) + load(from + j));
    for (; j < n; j++) to[j] += from[j];
}

/* oh rows of ow elements out of an image of width w, and back, `stride` apart. Every
 * column of im2col is such a block, without padding of the image itself, else of one that
 * the padding was added to; the widths and strides of common nets are constants to the
 * compiler. */
INLINE void copy_block(const T *x, int64_t w, int64_t stride, int64_t oh, int64_t ow,
                       T *col)
{
    for (int64_t i = 0; i < oh; i++, x += stride * w, col += ow) {
        if (stride == 1)
            copy_row(x, ow, col);
        else
            for (int64_t j = 0; j < ow; j++) col[j] = x[j * stride];
    }
}

INLINE void add_block(const T *col, int64_t w, int64_t stride, int64_t oh, int64_t ow,
                      T *x)
{
    for (int64_t i = 0; i < oh; i++, x += stride * w, col += ow) {
        if (stride == 1)
            add_row(col, ow, x);
        else
            for (int64_t j = 0; j < ow; j++) x[j * stride] += col[j];
    }
}

#define FOR_WIDTH(ow, call)                                                              \
    switch (ow) {                                                                        \
    case 4:                                                                              \
        call(4);                                                                         \
        break;                                                                           \
    case 7:                                                                              \
        call(7);                                                                         \
        break;                                                                           \
    case 8:                                                                              \
        call(8);                                                                         \
        break;                                                                           \
    case 12:                                                                             \
        call(12);                                                                        \
        break;                                                                           \
    case 14:                                                                             \
        call(14);                                                                        \
        break;                                                                           \
    case 16:                                                                             \
        call(16);                                                                        \
        break;                                                                           \
    case 24:                                                                             \
        call(24);                                                                        \
        break;                                                                           \
    case 28:                                                                             \
        call(28);                                                                        \
        break;                                                                           \
    case 32:                                                                             \
        call(32);                                                                        \
        break;                                                                           \
    default:                                                                             \
        call(ow);                                                                        \
    }

/* The columns of one channel, an image of width w. */
static void copy_columns(const T *x, int64_t w, int64_t k, int64_t stride, int64_t oh,
                         int64_t ow, T *col)
{
    for (int64_t p = 0, kw = 0; p < k * k; p++, col += oh * ow) {
        const T *from = x + kw;
        if (++kw == k) kw = 0, x += w;
#define CALL(width) copy_block(from, w, 1, oh, width, col)
#define CALL2(width) copy_block(from, w, 2, oh, width, col)
        if (stride == 1) {
            FOR_WIDTH(ow, CALL)
        } else if (stride == 2) {
            FOR_WIDTH(ow, CALL2)
        } else {
            copy_block(from, w, stride, oh, ow, col);
        }
#undef CALL
#undef CALL2
    }
}

static void add_columns(const T *col, int64_t w, int64_t k, int64_t stride, int64_t oh,
                        int64_t ow, T *x)
{
    for (int64_t p = 0, kw = 0; p < k * k; p++, col += oh * ow) {
        T *to = x + kw;
        if (++kw == k) kw = 0, x += w;
#define CALL(width) add_block(col, w, 1, oh, width, to)
#define CALL2(width) add_block(col, w, 2, oh, width, to)
        if (stride == 1) {
            FOR_WIDTH(ow, CALL)
        } else if (stride == 2) {
            FOR_WIDTH(ow, CALL2)
        } else {
            add_block(col, w, stride, oh, ow, to);
        }
#undef CALL
#undef CALL2
    }
}

/* Most elements of a channel with its padding that fit where it is added. */
enum { PADDED = 4096 };

/* Whether columns come out of whole channels: there is no padding, or room to add it. */
static bool pads(sbni_image in, sbni_window win)
{
    return (in.h + 2 * win.pad) * (in.w + 2 * win.pad) <= PADDED;
}

void K(im2col)(const void *xv, sbni_image in, sbni_window win, void *colv)
{
    const T *x = xv;
    T *col = colv, padded[PADDED];
    int64_t oh = sbni_window_out(in.h, win), ow = sbni_window_out(in.w, win),
            taps = win.kernel * win.kernel, w = in.w + 2 * win.pad;
    if (win.pad == 0) {
        for (int64_t c = 0; c < in.c; c++)
            copy_columns(x + c * in.h * in.w, in.w, win.kernel, win.stride, oh, ow,
                         col + c * taps * oh * ow);
        return;
    }
    if (pads(in, win)) {
        memset(padded, 0, (size_t)((in.h + 2 * win.pad) * w) * sizeof *padded);
        for (int64_t c = 0; c < in.c; c++) {
            for (int64_t i = 0; i < in.h; i++)
                copy_row(x + (c * in.h + i) * in.w, in.w,
                         padded + (i + win.pad) * w + win.pad);
            copy_columns(padded, w, win.kernel, win.stride, oh, ow,
                         col + c * taps * oh * ow);
        }
        return;
    }
    for (int64_t c = 0; c < in.c; c++)
        for (int64_t kh = 0; kh < win.kernel; kh++)
            for (int64_t kw = 0; kw < win.kernel; kw++) {
                int64_t left, right;
                inside(kw, in.w, ow, win, &left, &right);
                for (int64_t i = 0; i < oh; i++, col += ow) {
                    int64_t h = i * win.stride + kh - win.pad;
                    bool outside = h < 0 || h >= in.h;
                    int64_t from = outside ? ow : left, to = outside ? ow : right;
                    const T *row = x + (c * in.h + h) * in.w + kw - win.pad;
                    for (int64_t j = 0; j < from; j++) col[j] = 0;
                    for (int64_t j = from; j < to; j++) col[j] = row[j * win.stride];
                    for (int64_t j = to; j < ow; j++) col[j] = 0;
                }
            }
}

void K(col2im)(const void *colv, sbni_image in, sbni_window win, void *dxv)
{
    const T *col = colv;
    T *dx = dxv, padded[PADDED];
    int64_t oh = sbni_window_out(in.h, win), ow = sbni_window_out(in.w, win),
            taps = win.kernel * win.kernel, w = in.w + 2 * win.pad;
    if (win.pad > 0 && pads(in, win)) {
        for (int64_t c = 0; c < in.c; c++) {
            memset(padded, 0, (size_t)((in.h + 2 * win.pad) * w) * sizeof *padded);
            add_columns(col + c * taps * oh * ow, w, win.kernel, win.stride, oh, ow,
                        padded);
            for (int64_t i = 0; i < in.h; i++)
                copy_row(padded + (i + win.pad) * w + win.pad, in.w,
                         dx + (c * in.h + i) * in.w);
        }
        return;
    }
    memset(dx, 0, (size_t)(in.c * in.h * in.w) * sizeof *dx);
    if (win.pad == 0) {
        for (int64_t c = 0; c < in.c; c++)
            add_columns(col + c * taps * oh * ow, in.w, win.kernel, win.stride, oh, ow,
                        dx + c * in.h * in.w);
        return;
    }
    for (int64_t c = 0; c < in.c; c++)
        for (int64_t kh = 0; kh < win.kernel; kh++)
            for (int64_t kw = 0; kw < win.kernel; kw++) {
                int64_t from, to;
                inside(kw, in.w, ow, win, &from, &to);
                for (int64_t i = 0; i < oh; i++, col += ow) {
                    int64_t h = i * win.stride + kh - win.pad;
                    if (h < 0 || h >= in.h) continue;
                    T *row = dx + (c * in.h + h) * in.w + kw - win.pad;
                    for (int64_t j = from; j < to; j++) row[j * win.stride] += col[j];
                }
            }
}

void K(bias_add)(void *yv, int64_t c, int64_t s, const void *biasv)
{
    T *y = yv;
    const T *bias = biasv;
    for (int64_t i = 0; i < c; i++)
        for (int64_t j = 0; j < s; j++) y[i * s + j] += bias[i];
}

void K(bias_grad)(const void *dyv, int64_t c, int64_t s, void *dbiasv)
{
    const T *dy = dyv;
    T *dbias = dbiasv;
    for (int64_t i = 0; i < c; i++) {
        vd sum[PARTS] = {{0}};
        double tail = 0;
        int64_t j = 0;
        for (; j + ROUND <= s; j += ROUND)
#pragma GCC unroll 4
            for (int k = 0; k < PARTS; k++)
                sum[k] += widen(load(dy + i * s + j + k * LANES));
        for (; j < s; j++) tail += (double)dy[i * s + j];
        dbias[i] += (T)(lanes_sum(sum) + tail);
    }
}

void K(bias_add_rows)(void *yv, int64_t n, int64_t c, const void *biasv)
{
    T *y = yv;
    const T *bias = biasv;
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < c; i++) y[r * c + i] += bias[i];
}

void K(bias_grad_rows)(const void *dyv, int64_t n, int64_t c, void *dbiasv)
{
    const T *dy = dyv;
    T *dbias = dbiasv;
    for (int64_t i = 0; i < c; i++) {
        double sum = 0;
        for (int64_t r = 0; r < n; r++) sum += (double)dy[r * c + i];
        dbias[i] = (T)sum;
    }
}
