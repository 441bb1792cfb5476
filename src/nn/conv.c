#include "kernels/gemm.h"
#include "nn/layer.h"

#include <string.h>

/* Convolution as a matrix product per sample: y [out, s] = W [out, k] · col [k, s]. One
 * sample a product keeps its operands in the cache, and its shape free of the slice's
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

static void conv_forward(sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    const sbni_edge *in = layer->in, *out = layer->out;
    int64_t k = in->shape.c * layer->spec.kernel * layer->spec.kernel,
            s = out->shape.h * out->shape.w;
    const char *x = sbni_edge_y(m, in, task);
    char *y = sbni_edge_y(m, out, task);
    void *col = m->scratch[task.thread].col;
    const void *weight = m->params[layer->weight].tensor.data,
               *bias = m->params[layer->bias].tensor.data;
    for (int64_t r = 0; r < task.slice.n; r++) {
        m->kernels->im2col(sbni_at(m, x, r * in->count), in->shape,
                           window_of(&layer->spec), col);
        void *to = sbni_at(m, y, r * out->count);
        sbni_product(m->kernels, m->cfg.dtype, false, false, out->shape.c, s, k, weight,
                     col, 0, to);
        m->kernels->bias_add(to, out->shape.c, s, bias);
    }
}

static void conv_backward(sbn_model *m, const sbni_layer *layer, sbni_task task, int what)
{
    const sbni_edge *in = layer->in, *out = layer->out;
    int64_t k = in->shape.c * layer->spec.kernel * layer->spec.kernel,
            s = out->shape.h * out->shape.w, c = out->shape.c;
    const char *x = sbni_edge_y(m, in, task), *dy = sbni_edge_dy(m, out, task),
               *dx = sbni_edge_dy(m, in, task);
    sbni_scratch *scratch = &m->scratch[task.thread];
    sbni_window win = window_of(&layer->spec);
    bool weights = what & SBNI_DWEIGHTS, wants_dx = layer->wants_dx && what & SBNI_DX;
    void *dweight = scratch->grad, *dbias = sbni_at(m, scratch->grad, c * k);
    memset(dbias, 0, (size_t)(c * sbn_dtype_bytes(m->cfg.dtype)));
    for (int64_t r = 0; (weights || wants_dx) && r < task.slice.n; r++) {
        const void *from = sbni_at(m, dy, r * out->count);
        if (weights) {
            m->kernels->im2col(sbni_at(m, x, r * in->count), in->shape, win,
                               scratch->col);
            sbni_product(m->kernels, m->cfg.dtype, false, true, c, k, s, from,
                         scratch->col, r > 0, dweight);
            m->kernels->bias_grad(from, c, s, dbias);
        }
        if (wants_dx) {
            sbni_product(m->kernels, m->cfg.dtype, true, false, k, s, c,
                         m->params[layer->weight].tensor.data, from, 0, scratch->col);
            m->kernels->col2im(scratch->col, in->shape, win,
                               sbni_at(m, dx, r * in->count));
        }
        sbni_model_poke(m, task);
    }
    if (!weights) return;
    sbni_layer_add_grad(m, layer->weight, dweight, task.thread);
    sbni_layer_add_grad(m, layer->bias, dbias, task.thread);
}

const sbni_layer_ops sbni_conv_ops = {.needs_x = true,
                                      .sums = true,
                                      .splits = true,
                                      .shape = conv_shape,
                                      .forward = conv_forward,
                                      .backward = conv_backward};
