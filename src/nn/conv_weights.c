#include "kernels/gemm.h"
#include "nn/conv.h"
#include "nn/frame.h"
#include "nn/winograd.h"

#include <string.h>

/* Gradients of a convolution's windows: by tiles, out of the images, by columns, or out
 * of the dy of a maxpool. */

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
    sbni_frame x, dy;
    bool long_rows;
    int64_t columns; /* of the long row */
} weights_plan;

static weights_plan plan_weights(const sbn_model *m, const sbni_layer *layer)
{
    enum { VECTOR = 8 };
    sbni_image in = layer->in->shape, out = layer->out->shape;
    weights_plan p = {.x = sbni_frame_padded(m, in, layer->spec.pad),
                      .dy = sbni_frame_padded(m, out, 0)};
    p.long_rows = out.w % VECTOR != 0;
    if (!p.long_rows) return p;
    p.columns = (out.h - 1) * p.x.w + out.w + VECTOR - 1;
    p.columns -= p.columns % VECTOR;
    /* that many are read, of the last window's last element too */
    p.x.count += VECTOR;
    p.dy = sbni_frame_of(m, out.c, 0, out.h, p.x.w);
    if (p.dy.channel < p.columns) p.dy.channel = p.columns;
    p.dy.count = out.c * p.dy.channel;
    return p;
}

/* A row of a window fills as many lanes, and each of a pool's outputs is one of pool²:
 * below that, all outputs are as fast, their zeros included. */
static bool pays(int64_t kernel, int64_t pool)
{
    return kernel * pool * pool >= 20;
}

bool sbni_conv_skips_pool(const sbn_model *m, const sbni_layer *layer, int64_t pool)
{
    int64_t kernel = layer->spec.kernel;
    return layer->spec.kind == SBNI_LAYER_CONV && !layer->wants_dx &&
           m->kernels->pooled_add && layer->spec.stride == 1 &&
           (kernel == 3 || kernel == 5) && pays(kernel, pool);
}

/* An image, and what is read behind its last window. Rows begin with cache lines, as
 * fewer windows then lie across two. */
static sbni_frame pooled_frame(const sbn_model *m, const sbni_layer *layer)
{
    const int64_t line = 64 / sbn_dtype_bytes(m->cfg.dtype), pad = layer->spec.pad;
    sbni_image in = layer->in->shape;
    int64_t w = (in.w + 2 * pad + line - 1) / line * line;
    sbni_frame f = sbni_frame_of(m, in.c, pad, in.h + 2 * pad, w);
    f.count += SBNI_POOLED_ROW;
    return f;
}

static int64_t pooled_sums(const sbni_layer *layer)
{
    return layer->out->shape.c * layer->in->shape.c * SBNI_POOLED_SUMS;
}

int64_t sbni_conv_weights_work(const sbn_model *m, const sbni_layer *layer)
{
    int64_t pooled = layer->pool ? pooled_sums(layer) + pooled_frame(m, layer).count : 0;
    if (!sbni_conv_is_direct(m, layer)) return pooled;
    weights_plan p = plan_weights(m, layer);
    int64_t direct = images_at_once(layer) * (p.x.count + p.dy.count);
    return direct > pooled ? direct : pooled;
}

/* dW of one image, by columns. */
static void dweight_of_columns(const sbn_model *m, const sbni_layer *layer, const void *x,
                               const void *dy, void *col, bool adds, void *dweight)
{
    sbni_image in = layer->in->shape, out = layer->out->shape;
    m->kernels->im2col(x, in, sbni_conv_window(&layer->spec), col);
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
    sbni_windows w = sbni_frame_windows(in.c, p.x, layer->spec.kernel, scratch->offset);
    sbni_planes px = sbni_frame_fill_all(m, x, in, p.x, n, scratch->col),
                py = sbni_frame_fill_all(m, dy, out, p.dy, n,
                                         sbni_at(m, scratch->col, n * p.x.count));
    if (p.long_rows) w.rows = 1, w.columns = p.columns;
    m->kernels->convolve_weights(&w, n, &px, &py, out.c, adds, dweight);
}

/* dW from the dy of the maxpool. */
static void pooled_weights(const sbn_model *m, const sbni_layer *layer, sbni_task task,
                           void *dweight)
{
    const sbni_layer *pool = layer->pool;
    const sbni_edge *in = layer->in, *out = pool->out;
    const sbni_kernels *k = m->kernels;
    int64_t c = in->shape.c, channels = out->shape.c, sums_count = pooled_sums(layer);
    sbni_frame f = pooled_frame(m, layer);
    void *sums = m->scratch[task.thread].col, *image = sbni_at(m, sums, sums_count);
    int32_t *place = m->scratch[task.thread].offset;
    sbni_pooled dy = {.kernel = pool->spec.kernel,
                      .rows = out->shape.h,
                      .columns = out->shape.w,
                      .place = place};
    for (int64_t p = 0; p < dy.kernel * dy.kernel; p++)
        place[p] = (int32_t)(p / dy.kernel * f.w + p % dy.kernel);
    memset(sums, 0, (size_t)(sums_count * sbn_dtype_bytes(m->cfg.dtype)));
    sbni_frame_clear(m, in->shape, f, image);
    for (int64_t r = 0; r < task.slice.n; r++) {
        const void *x = sbni_at(m, sbni_edge_y(m, in, task), r * in->count);
        dy.dy = sbni_at(m, sbni_edge_dy(m, out, task), r * out->count);
        dy.argmax = pool->argmax + (task.slice.row + r) * out->count;
        k->pooled_add(&dy, c, f.channel, f.w, layer->spec.kernel, channels,
                      sbni_frame_fill(m, x, in->shape, f, image).data, sums);
        sbni_model_poke(m, task);
    }
    k->pooled_dweights(layer->spec.kernel, channels * c, sums, dweight);
}

/* dW image by image, or a few at a time. */
static void sum_weights(const sbn_model *m, const sbni_layer *layer, sbni_task task,
                        void *dweight)
{
    const sbni_edge *in = layer->in, *out = layer->out;
    const char *x = sbni_edge_y(m, in, task), *dy = sbni_edge_dy(m, out, task);
    const sbni_scratch *scratch = &m->scratch[task.thread];
    bool direct = sbni_conv_is_direct(m, layer);
    int64_t step = direct ? images_at_once(layer) : 1;
    for (int64_t r = 0; r < task.slice.n; r += step) {
        int64_t n = task.slice.n - r < step ? task.slice.n - r : step;
        const void *from = sbni_at(m, x, r * in->count),
                   *dy_from = sbni_at(m, dy, r * out->count);
        if (direct)
            dweight_direct(m, layer, from, dy_from, n, scratch, r > 0, dweight);
        else
            dweight_of_columns(m, layer, from, dy_from, scratch->col, r > 0, dweight);
        sbni_model_poke(m, task);
    }
}

/* dbias from the dy of an edge, that of the layer or of the pool behind it. */
static void sum_bias(const sbn_model *m, const sbni_edge *edge, sbni_task task,
                     void *dbias)
{
    const char *dy = sbni_edge_dy(m, edge, task);
    memset(dbias, 0, (size_t)(edge->shape.c * sbn_dtype_bytes(m->cfg.dtype)));
    for (int64_t r = 0; r < task.slice.n; r++)
        m->kernels->bias_grad(sbni_at(m, dy, r * edge->count), edge->shape.c,
                              edge->shape.h * edge->shape.w, dbias);
}

void sbni_conv_dweights(sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    int64_t count = m->params[layer->weight].tensor.count;
    void *dweight = m->scratch[task.thread].grad, *dbias = sbni_at(m, dweight, count);
    if (layer->pool)
        pooled_weights(m, layer, task, dweight);
    else if (sbni_winograd_takes(layer, task.slice.n))
        sbni_winograd_dweight(m, layer, task, dweight);
    else
        sum_weights(m, layer, task, dweight);
    sum_bias(m, layer->pool ? layer->pool->out : layer->out, task, dbias);
    sbni_layer_add_grad(m, layer->weight, dweight, task.thread);
    sbni_layer_add_grad(m, layer->bias, dbias, task.thread);
}
