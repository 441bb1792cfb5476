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

static inline void add_row(const T *from, int64_t n, T *to)
{
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) store(to + j, load(to + j) + load(from + j));
    for (; j < n; j++) to[j] += from[j];
}

/* oh rows of ow elements out of an image of width w, and back. Without padding every
 * column of im2col is such a block; the widths of common nets are constants to the
 * compiler. */
static inline __attribute__((always_inline)) void
copy_block(const T *x, int64_t w, int64_t oh, int64_t ow, T *col)
{
    for (int64_t i = 0; i < oh; i++) copy_row(x + i * w, ow, col + i * ow);
}

static inline __attribute__((always_inline)) void add_block(const T *col, int64_t w,
                                                            int64_t oh, int64_t ow, T *x)
{
    for (int64_t i = 0; i < oh; i++) add_row(col + i * ow, ow, x + i * w);
}

#define FOR_WIDTH(ow, call)                                                              \
    switch (ow) {                                                                        \
    case 4:                                                                              \
        call(4);                                                                         \
        break;                                                                           \
    case 8:                                                                              \
        call(8);                                                                         \
        break;                                                                           \
    case 12:                                                                             \
        call(12);                                                                        \
        break;                                                                           \
    case 16:                                                                             \
        call(16);                                                                        \
        break;                                                                           \
    case 24:                                                                             \
        call(24);                                                                        \
        break;                                                                           \
    case 32:                                                                             \
        call(32);                                                                        \
        break;                                                                           \
    default:                                                                             \
        call(ow);                                                                        \
    }

static void im2col_plain(const T *x, sbni_image in, int64_t k, T *col)
{
    int64_t oh = in.h - k + 1, ow = in.w - k + 1;
    for (int64_t c = 0; c < in.c; c++)
        for (int64_t p = 0; p < k * k; p++, col += oh * ow) {
            const T *from = x + (c * in.h + p / k) * in.w + p % k;
#define CALL(width) copy_block(from, in.w, oh, width, col)
            FOR_WIDTH(ow, CALL)
#undef CALL
        }
}

static void col2im_plain(const T *col, sbni_image in, int64_t k, T *dx)
{
    int64_t oh = in.h - k + 1, ow = in.w - k + 1;
    for (int64_t c = 0; c < in.c; c++)
        for (int64_t p = 0; p < k * k; p++, col += oh * ow) {
            T *to = dx + (c * in.h + p / k) * in.w + p % k;
#define CALL(width) add_block(col, in.w, oh, width, to)
            FOR_WIDTH(ow, CALL)
#undef CALL
        }
}

void K(im2col)(const void *xv, sbni_image in, sbni_window win, void *colv)
{
    const T *x = xv;
    T *col = colv;
    if (win.stride == 1 && win.pad == 0) {
        im2col_plain(x, in, win.kernel, col);
        return;
    }
    int64_t oh = sbni_window_out(in.h, win), ow = sbni_window_out(in.w, win);
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
                    if (win.stride == 1)
                        copy_row(row + from, to - from, col + from);
                    else
                        for (int64_t j = from; j < to; j++) col[j] = row[j * win.stride];
                    for (int64_t j = to; j < ow; j++) col[j] = 0;
                }
            }
}

void K(col2im)(const void *colv, sbni_image in, sbni_window win, void *dxv)
{
    const T *col = colv;
    T *dx = dxv;
    int64_t oh = sbni_window_out(in.h, win), ow = sbni_window_out(in.w, win);
    memset(dx, 0, (size_t)(in.c * in.h * in.w) * sizeof *dx);
    if (win.stride == 1 && win.pad == 0) {
        col2im_plain(col, in, win.kernel, dx);
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
                    if (win.stride == 1)
                        add_row(col + from, to - from, row + from);
                    else
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
        vd sum = {0};
        double tail = 0;
        int64_t j = 0;
        for (; j + LANES <= s; j += LANES) sum += widen(load(dy + i * s + j));
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
