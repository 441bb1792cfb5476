#include "kernels/gemm.h"
#include "nn/conv.h"
#include "nn/frame.h"
#include "nn/winograd.h"

#include <string.h>

/* Convolution, image by image where it does not go by tiles (nn/winograd.c): y [out, s] =
 * W [out, k] · col [k, s], where col are the windows of x as columns, which are written
 * out only where that has to be: with a stride, for products that are BLAS's, and for dx
 * of windows that shrink the image. One image a product keeps its operands in the cache,
 * and its shape free of the slice's length. */

sbni_window sbni_conv_window(const sbni_layer_spec *spec)
{
    return (sbni_window){spec->kernel, spec->stride, spec->pad};
}

static sbn_status conv_shape(const sbni_layer_spec *spec, sbni_image in, sbni_image *out)
{
    sbni_window win = sbni_conv_window(spec);
    SBN_CHECK(in.h + 2 * win.pad >= win.kernel && in.w + 2 * win.pad >= win.kernel,
              SBN_E_DATA, "kernel %d is larger than its input of %dx%d", (int)win.kernel,
              (int)in.h, (int)in.w);
    SBN_CHECK(win.pad < win.kernel, SBN_E_DATA, "expected pad < kernel %d, got %d",
              (int)win.kernel, (int)win.pad);
    *out =
        (sbni_image){spec->out, sbni_window_out(in.h, win), sbni_window_out(in.w, win)};
    return SBN_OK;
}

bool sbni_conv_is_direct(const sbn_model *m, const sbni_layer *layer)
{
    const sbni_image *in = &layer->in->shape, *out = &layer->out->shape;
    int64_t kernel = layer->spec.kernel;
    return m->kernels->convolve && layer->spec.stride == 1 &&
           sbni_product_is_small(m->kernels, m->cfg.dtype, out->h * out->w,
                                 in->c * kernel * kernel);
}

/* Whether dx is a convolution of dy by the same windows: as many products then, where
 * images that shrink would have their borders multiplied in vain. */
static bool turns(const sbn_model *m, const sbni_layer *layer)
{
    return sbni_conv_is_direct(m, layer) &&
           2 * layer->spec.pad == layer->spec.kernel - 1 &&
           sbni_product_is_small(
               m->kernels, m->cfg.dtype, layer->in->shape.h * layer->in->shape.w,
               layer->out->shape.c * layer->spec.kernel * layer->spec.kernel);
}

static bool goes_by_tiles(const sbn_model *m, const sbni_layer *layer)
{
    return sbni_conv_is_direct(m, layer) && sbni_winograd_fits(m, layer);
}

int64_t sbni_conv_work(const sbn_model *m, const sbni_layer *layer)
{
    sbni_image in = layer->in->shape, out = layer->out->shape;
    bool direct = sbni_conv_is_direct(m, layer);
    int64_t needs[] = {in.c * layer->spec.kernel * layer->spec.kernel * out.h * out.w,
                       sbni_conv_weights_work(m, layer),
                       direct ? sbni_frame_padded(m, in, layer->spec.pad).count : 0,
                       direct ? sbni_frame_padded(m, out, layer->spec.pad).count : 0,
                       goes_by_tiles(m, layer) ? sbni_winograd_work(layer) : 0};
    int64_t most = 0;
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        if (needs[i] > most) most = needs[i];
    return most;
}

int64_t sbni_conv_points(const sbn_model *m, const sbni_layer *layer)
{
    return goes_by_tiles(m, layer) ? sbni_winograd_points(layer) : 0;
}

void sbni_conv_prepare(const sbn_model *m, const sbni_layer *layer)
{
    if (layer->points) sbni_winograd_prepare(m, layer);
}

static void conv_forward(sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    if (sbni_winograd_takes(layer, task.slice.n)) {
        sbni_winograd_forward(m, layer, task);
        return;
    }
    const sbni_edge *in = layer->in, *out = layer->out;
    int64_t k = in->shape.c * layer->spec.kernel * layer->spec.kernel,
            s = out->shape.h * out->shape.w;
    const char *x = sbni_edge_y(m, in, task);
    char *y = sbni_edge_y(m, out, task);
    const sbni_scratch *scratch = &m->scratch[task.thread];
    const void *weight = m->params[layer->weight].tensor.data,
               *bias = m->params[layer->bias].tensor.data;
    bool direct = sbni_conv_is_direct(m, layer);
    sbni_frame f = sbni_frame_padded(m, in->shape, layer->spec.pad);
    sbni_windows w = {0};
    if (direct) {
        w = sbni_frame_windows(in->shape.c, f, layer->spec.kernel, scratch->offset);
        sbni_frame_clear(m, in->shape, f, scratch->col);
    }
    for (int64_t r = 0; r < task.slice.n; r++) {
        const void *from = sbni_at(m, x, r * in->count);
        void *to = sbni_at(m, y, r * out->count);
        if (direct) {
            m->kernels->convolve(
                &w, sbni_frame_fill(m, from, in->shape, f, scratch->col).data, weight,
                bias, out->shape.c, to);
            continue;
        }
        m->kernels->im2col(from, in->shape, sbni_conv_window(&layer->spec), scratch->col);
        sbni_product(m->kernels, m->cfg.dtype, false, false, out->shape.c, s, k, weight,
                     scratch->col, 0, to);
        m->kernels->bias_add(to, out->shape.c, s, bias);
    }
}

/* Channels of y and x change places, and windows are turned round. */
static void turn(const sbn_model *m, const sbni_layer *layer, void *to)
{
    const int64_t size = sbn_dtype_bytes(m->cfg.dtype), in = layer->in->shape.c,
                  out = layer->out->shape.c,
                  taps = layer->spec.kernel * layer->spec.kernel;
    const char *from = m->params[layer->weight].tensor.data;
    for (int64_t o = 0; o < out; o++)
        for (int64_t i = 0; i < in; i++)
            for (int64_t t = taps - 1; t >= 0; t--, from += size)
                memcpy((char *)to + ((i * out + o) * taps + t) * size, from,
                       (size_t)size);
}

/* Columns of a few channels are added up while the nearest cache holds them. */
static void dx_of_columns(const sbn_model *m, const sbni_layer *layer, const void *dy,
                          void *col, void *dx)
{
    enum { NEAR_BYTES = 16 << 10 };
    sbni_image in = layer->in->shape, out = layer->out->shape;
    sbni_window win = sbni_conv_window(&layer->spec);
    int64_t taps = win.kernel * win.kernel, k = in.c * taps, s = out.h * out.w;
    const void *weight = m->params[layer->weight].tensor.data;
    if (!sbni_product_is_small(m->kernels, m->cfg.dtype, s, out.c)) {
        sbni_product(m->kernels, m->cfg.dtype, true, false, k, s, out.c, weight, dy, 0,
                     col);
        m->kernels->col2im(col, in, win, dx);
        return;
    }
    int64_t some = NEAR_BYTES / (taps * s * sbn_dtype_bytes(m->cfg.dtype));
    if (some < 1) some = 1;
    for (int64_t c = 0, n; c < in.c; c += n) {
        n = in.c - c < some ? in.c - c : some;
        m->kernels->product(n * taps, s, out.c, sbni_at(m, weight, c * taps), 1, k, dy,
                            false, col);
        m->kernels->col2im(col, (sbni_image){n, in.h, in.w}, win,
                           sbni_at(m, dx, c * in.h * in.w));
    }
}

static void backward_dx(const sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    if (sbni_winograd_takes(layer, task.slice.n)) {
        sbni_winograd_dx(m, layer, task);
        return;
    }
    const sbni_edge *in = layer->in, *out = layer->out;
    const char *dy = sbni_edge_dy(m, out, task), *dx = sbni_edge_dy(m, in, task);
    const sbni_scratch *scratch = &m->scratch[task.thread];
    bool turned = turns(m, layer);
    sbni_frame f = sbni_frame_padded(m, out->shape, layer->spec.pad);
    sbni_windows w = {0};
    if (turned) {
        turn(m, layer, scratch->grad);
        w = sbni_frame_windows(out->shape.c, f, layer->spec.kernel, scratch->offset);
        sbni_frame_clear(m, out->shape, f, scratch->col);
    }
    for (int64_t r = 0; r < task.slice.n; r++) {
        const void *from = sbni_at(m, dy, r * out->count);
        void *to = sbni_at(m, dx, r * in->count);
        if (turned)
            m->kernels->convolve(
                &w, sbni_frame_fill(m, from, out->shape, f, scratch->col).data,
                scratch->grad, NULL, in->shape.c, to);
        else
            dx_of_columns(m, layer, from, scratch->col, to);
        sbni_model_poke(m, task);
    }
}

static void conv_backward(sbn_model *m, const sbni_layer *layer, sbni_task task, int what)
{
    if (!layer->pool && sbni_winograd_takes(layer, task.slice.n))
        sbni_winograd_take_dy(m, layer, task);
    if (what & SBNI_DWEIGHTS) sbni_conv_dweights(m, layer, task);
    if (layer->wants_dx && what & SBNI_DX) backward_dx(m, layer, task);
}

const sbni_layer_ops sbni_conv_ops = {.needs_x = true,
                                      .sums = true,
                                      .splits = true,
                                      .shape = conv_shape,
                                      .forward = conv_forward,
                                      .backward = conv_backward};
