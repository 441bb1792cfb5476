#include "kernels/gemm.h"
#include "nn/layer.h"

#include <string.h>

/* y [n, out] = x [n, in] · W' [in, out] + b, one product a slice. */

static sbn_status linear_shape(const sbni_layer_spec *spec, sbni_image in,
                               sbni_image *out)
{
    (void)in;
    *out = (sbni_image){spec->out, 1, 1};
    return SBN_OK;
}

static void linear_forward(sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    int64_t in = layer->in->count, out = layer->out->count, n = task.slice.n;
    void *y = sbni_edge_y(m, layer->out, task);
    sbni_product(m->kernels, m->cfg.dtype, false, true, n, out, in,
                 sbni_edge_y(m, layer->in, task), m->params[layer->weight].tensor.data, 0,
                 y);
    m->kernels->bias_add_rows(y, n, out, m->params[layer->bias].tensor.data);
}

static void linear_backward(sbn_model *m, const sbni_layer *layer, sbni_task task,
                            int what)
{
    int64_t in = layer->in->count, out = layer->out->count, n = task.slice.n;
    const void *dy = sbni_edge_dy(m, layer->out, task);
    if (what & SBNI_DWEIGHTS) {
        void *dweight = m->scratch[task.thread].grad,
             *dbias = sbni_at(m, dweight, out * in);
        sbni_product(m->kernels, m->cfg.dtype, true, false, out, in, n, dy,
                     sbni_edge_y(m, layer->in, task), 0, dweight);
        m->kernels->bias_grad_rows(dy, n, out, dbias);
        sbni_layer_add_grad(m, layer->weight, dweight, task.thread);
        sbni_layer_add_grad(m, layer->bias, dbias, task.thread);
    }
    if (what & SBNI_DX && layer->wants_dx)
        sbni_product(m->kernels, m->cfg.dtype, false, false, n, in, out, dy,
                     m->params[layer->weight].tensor.data, 0,
                     sbni_edge_dy(m, layer->in, task));
}

const sbni_layer_ops sbni_linear_ops = {.needs_x = true,
                                        .sums = true,
                                        .splits = true,
                                        .shape = linear_shape,
                                        .forward = linear_forward,
                                        .backward = linear_backward};
