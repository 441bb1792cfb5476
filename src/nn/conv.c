#include "kernels/gemm.h"
#include "nn/layer.h"

#include <string.h>

/* Convolution image by image: y [out, s] = W [out, k] · col [k, s], where col are the
 * windows of x as columns, which are written out only where that has to be: with a
 * stride, for products that are BLAS's, and for dx of windows that shrink the image. One
 * image a product keeps its operands in the cache, and its shape free of the slice's
 * length. */

static sbni_window window_of(const sbni_layer_spec *spec)
{
    return (sbni_window){spec->kernel, spec->stride, spec->pad};
}

static sbn_status conv_shape(const sbni_layer_spec *spec, sbni_image in, sbni_image *out)
{
    sbni_window win = window_of(spec);
    SBN_CHECK(in.h + 2 * win.pad >= win.kernel && in.w + 2 * win.pad >= win.kernel,
              SBN_E_DATA, "kernel %d is larger than its input of %dx%d", (int)win.kernel,
              (int)in.h, (int)in.w);
    SBN_CHECK(win.pad < win.kernel, SBN_E_DATA, "expected pad < kernel %d, got %d",
              (int)win.kernel, (int)win.pad);
    *out =
        (sbni_image){spec->out, sbni_window_out(in.h, win), sbni_window_out(in.w, win)};
    return SBN_OK;
}

/* Whether windows are read out of the image itself. By columns dW and dx have other bits;
 * by BLAS y has, too. */
static bool is_direct(const sbn_model *m, const sbni_layer *layer)
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
    return is_direct(m, layer) && 2 * layer->spec.pad == layer->spec.kernel - 1 &&
           sbni_product_is_small(
               m->kernels, m->cfg.dtype, layer->in->shape.h * layer->in->shape.w,
               layer->out->shape.c * layer->spec.kernel * layer->spec.kernel);
}

static int64_t count_of(sbni_image image)
{
    return image.c * image.h * image.w;
}

/* Where an image lies among zeros: pad of them above and before it, more behind it. */
typedef struct frame {
    int64_t pad, h, w;
    int64_t channel, count; /* elements of a channel, of all */
} frame;

static frame frame_of(const sbn_model *m, int64_t c, int64_t pad, int64_t h, int64_t w)
{
    /* windows of channels so far apart would drive each other out of the nearest cache */
    const int64_t apart = 512, line = 64, size = sbn_dtype_bytes(m->cfg.dtype);
    frame f = {pad, h, w, h * w, 0};
    if (f.channel * size % apart == 0) f.channel += line / size;
    f.count = c * f.channel;
    return f;
}

/* With the layer's padding; the image itself where there is none. */
static frame padded(const sbn_model *m, sbni_image image, int64_t pad)
{
    if (pad == 0) return (frame){0, image.h, image.w, image.h * image.w, count_of(image)};
    return frame_of(m, image.c, pad, image.h + 2 * pad, image.w + 2 * pad);
}

/* The image within its frame, which is made in `to`, or what is there where that is all.
 */
static sbni_planes framed(const sbn_model *m, const void *x, sbni_image image, frame f,
                          void *to)
{
    const int64_t size = sbn_dtype_bytes(m->cfg.dtype);
    const char *from = x;
    if (f.count == count_of(image)) return (sbni_planes){x, f.count, f.channel};
    memset(to, 0, (size_t)(f.count * size));
    for (int64_t c = 0; c < image.c; c++) {
        char *row = (char *)to + (c * f.channel + f.pad * f.w + f.pad) * size;
        for (int64_t i = 0; i < image.h; i++, row += f.w * size, from += image.w * size)
            memcpy(row, from, (size_t)(image.w * size));
    }
    return (sbni_planes){to, f.count, f.channel};
}

/* The same of n images, one behind the other. */
static sbni_planes all_framed(const sbn_model *m, const void *x, sbni_image image,
                              frame f, int64_t n, void *to)
{
    sbni_planes planes = {x, f.count, f.channel};
    for (int64_t i = n - 1; i >= 0; i--)
        planes = framed(m, sbni_at(m, x, i * count_of(image)), image, f,
                        sbni_at(m, to, i * f.count));
    return planes;
}

/* The windows of an image of c channels in its frame. */
static sbni_windows windows_of(int64_t c, frame f, int64_t kernel, int32_t *offset)
{
    sbni_windows w = {offset, 0, f.h - kernel + 1, f.w - kernel + 1, f.w};
    if (kernel == 1) w.columns *= w.rows, w.rows = 1;
    for (int64_t i = 0; i < c; i++)
        for (int64_t p = 0; p < kernel * kernel; p++)
            offset[w.k++] = (int32_t)(i * f.channel + p / kernel * f.w + p % kernel);
    return w;
}

/* Images whose dW is summed in one go: as many as share the nearest cache. */
static int64_t images_at_once(const sbni_layer *layer)
{
    const int64_t near = 2048;
    int64_t n = near / (layer->out->shape.h * layer->out->shape.w);
    return n < 1 ? 1 : n < SBN_SLICE ? n : SBN_SLICE;
}

/* What the sum of dW goes through: x and dy in their frames, and the windows of x. Where
 * the rows of dy are not whole vectors they are put as far apart as those of x: so they
 * are one long row, zeros between them, and so are the windows. */
typedef struct weights_plan {
    frame x, dy;
    bool long_rows;
    int64_t columns; /* of the long row */
} weights_plan;

static weights_plan plan_weights(const sbn_model *m, const sbni_layer *layer)
{
    enum { VECTOR = 8 };
    sbni_image in = layer->in->shape, out = layer->out->shape;
    weights_plan p = {.x = padded(m, in, layer->spec.pad), .dy = padded(m, out, 0)};
    p.long_rows = out.w % VECTOR != 0;
    if (!p.long_rows) return p;
    p.columns = (out.h - 1) * p.x.w + out.w + VECTOR - 1;
    p.columns -= p.columns % VECTOR;
    /* that many are read, of the last window's last element too */
    p.x.count += VECTOR;
    p.dy = frame_of(m, out.c, 0, out.h, p.x.w);
    if (p.dy.channel < p.columns) p.dy.channel = p.columns;
    p.dy.count = out.c * p.dy.channel;
    return p;
}

int64_t sbni_conv_work(const sbn_model *m, const sbni_layer *layer)
{
    sbni_image in = layer->in->shape, out = layer->out->shape;
    int64_t columns = in.c * layer->spec.kernel * layer->spec.kernel * out.h * out.w;
    if (!is_direct(m, layer)) return columns;
    weights_plan p = plan_weights(m, layer);
    int64_t frames = images_at_once(layer) * (p.x.count + p.dy.count),
            dy = padded(m, out, layer->spec.pad).count, most = frames > dy ? frames : dy;
    return most > columns ? most : columns;
}

static void conv_forward(sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    const sbni_edge *in = layer->in, *out = layer->out;
    int64_t k = in->shape.c * layer->spec.kernel * layer->spec.kernel,
            s = out->shape.h * out->shape.w;
    const char *x = sbni_edge_y(m, in, task);
    char *y = sbni_edge_y(m, out, task);
    const sbni_scratch *scratch = &m->scratch[task.thread];
    const void *weight = m->params[layer->weight].tensor.data,
               *bias = m->params[layer->bias].tensor.data;
    bool direct = is_direct(m, layer);
    frame f = padded(m, in->shape, layer->spec.pad);
    sbni_windows w = {0};
    if (direct) w = windows_of(in->shape.c, f, layer->spec.kernel, scratch->offset);
    for (int64_t r = 0; r < task.slice.n; r++) {
        const void *from = sbni_at(m, x, r * in->count);
        void *to = sbni_at(m, y, r * out->count);
        if (direct) {
            m->kernels->convolve(&w, framed(m, from, in->shape, f, scratch->col).data,
                                 weight, bias, out->shape.c, to);
            continue;
        }
        m->kernels->im2col(from, in->shape, window_of(&layer->spec), scratch->col);
        sbni_product(m->kernels, m->cfg.dtype, false, false, out->shape.c, s, k, weight,
                     scratch->col, 0, to);
        m->kernels->bias_add(to, out->shape.c, s, bias);
    }
}

/* dW of one image, by columns. */
static void dweight_of_columns(const sbn_model *m, const sbni_layer *layer, const void *x,
                               const void *dy, void *col, bool adds, void *dweight)
{
    sbni_image in = layer->in->shape, out = layer->out->shape;
    m->kernels->im2col(x, in, window_of(&layer->spec), col);
    sbni_product(m->kernels, m->cfg.dtype, false, true, out.c,
                 in.c * layer->spec.kernel * layer->spec.kernel, out.h * out.w, dy, col,
                 adds, dweight);
}

/* dW of n images. */
static void dweight_direct(const sbn_model *m, const sbni_layer *layer, const void *x,
                           const void *dy, int64_t n, const sbni_scratch *scratch,
                           bool adds, void *dweight)
{
    sbni_image in = layer->in->shape, out = layer->out->shape;
    weights_plan p = plan_weights(m, layer);
    sbni_windows w = windows_of(in.c, p.x, layer->spec.kernel, scratch->offset);
    sbni_planes px = all_framed(m, x, in, p.x, n, scratch->col),
                py = all_framed(m, dy, out, p.dy, n,
                                sbni_at(m, scratch->col, n * p.x.count));
    if (p.long_rows) w.rows = 1, w.columns = p.columns;
    m->kernels->convolve_weights(&w, n, &px, &py, out.c, adds, dweight);
}

static void backward_weights(sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    const sbni_edge *in = layer->in, *out = layer->out;
    int64_t k = in->shape.c * layer->spec.kernel * layer->spec.kernel,
            s = out->shape.h * out->shape.w, c = out->shape.c;
    const char *x = sbni_edge_y(m, in, task), *dy = sbni_edge_dy(m, out, task);
    const sbni_scratch *scratch = &m->scratch[task.thread];
    bool direct = is_direct(m, layer);
    int64_t step = direct ? images_at_once(layer) : 1;
    void *dweight = scratch->grad, *dbias = sbni_at(m, scratch->grad, c * k);
    memset(dbias, 0, (size_t)(c * sbn_dtype_bytes(m->cfg.dtype)));
    for (int64_t r = 0; r < task.slice.n; r += step) {
        int64_t n = task.slice.n - r < step ? task.slice.n - r : step;
        const void *from = sbni_at(m, x, r * in->count),
                   *dy_from = sbni_at(m, dy, r * out->count);
        if (direct)
            dweight_direct(m, layer, from, dy_from, n, scratch, r > 0, dweight);
        else
            dweight_of_columns(m, layer, from, dy_from, scratch->col, r > 0, dweight);
        for (int64_t i = 0; i < n; i++)
            m->kernels->bias_grad(sbni_at(m, dy_from, i * out->count), c, s, dbias);
        sbni_model_poke(m, task);
    }
    sbni_layer_add_grad(m, layer->weight, dweight, task.thread);
    sbni_layer_add_grad(m, layer->bias, dbias, task.thread);
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

/* A channel's columns are added up while the nearest cache holds them. */
static void dx_of_columns(const sbn_model *m, const sbni_layer *layer, const void *dy,
                          void *col, void *dx)
{
    sbni_image in = layer->in->shape, out = layer->out->shape, channel = {1, in.h, in.w};
    sbni_window win = window_of(&layer->spec);
    int64_t taps = win.kernel * win.kernel, k = in.c * taps, s = out.h * out.w;
    const void *weight = m->params[layer->weight].tensor.data;
    if (!sbni_product_is_small(m->kernels, m->cfg.dtype, s, out.c)) {
        sbni_product(m->kernels, m->cfg.dtype, true, false, k, s, out.c, weight, dy, 0,
                     col);
        m->kernels->col2im(col, in, win, dx);
        return;
    }
    for (int64_t c = 0; c < in.c; c++) {
        m->kernels->product(taps, s, out.c, sbni_at(m, weight, c * taps), 1, k, dy, false,
                            col);
        m->kernels->col2im(col, channel, win, sbni_at(m, dx, c * in.h * in.w));
    }
}

static void backward_dx(const sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    const sbni_edge *in = layer->in, *out = layer->out;
    const char *dy = sbni_edge_dy(m, out, task), *dx = sbni_edge_dy(m, in, task);
    const sbni_scratch *scratch = &m->scratch[task.thread];
    bool turned = turns(m, layer);
    frame f = padded(m, out->shape, layer->spec.pad);
    sbni_windows w = {0};
    if (turned) {
        turn(m, layer, scratch->grad);
        w = windows_of(out->shape.c, f, layer->spec.kernel, scratch->offset);
    }
    for (int64_t r = 0; r < task.slice.n; r++) {
        const void *from = sbni_at(m, dy, r * out->count);
        void *to = sbni_at(m, dx, r * in->count);
        if (turned)
            m->kernels->convolve(&w, framed(m, from, out->shape, f, scratch->col).data,
                                 scratch->grad, NULL, in->shape.c, to);
        else
            dx_of_columns(m, layer, from, scratch->col, to);
        sbni_model_poke(m, task);
    }
}

static void conv_backward(sbn_model *m, const sbni_layer *layer, sbni_task task, int what)
{
    if (what & SBNI_DWEIGHTS) backward_weights(m, layer, task);
    if (layer->wants_dx && what & SBNI_DX) backward_dx(m, layer, task);
}

const sbni_layer_ops sbni_conv_ops = {.needs_x = true,
                                      .sums = true,
                                      .splits = true,
                                      .shape = conv_shape,
                                      .forward = conv_forward,
                                      .backward = conv_backward};
