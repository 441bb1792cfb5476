#include "nn/layer.h"

sbn_status sbni_same_shape(const sbni_layer_spec *spec, sbni_image in, sbni_image *out)
{
    (void)spec;
    *out = in;
    return SBN_OK;
}

static void relu_forward(sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    m->kernels->relu(sbni_edge_y(m, layer->in, task), task.slice.n * layer->in->count,
                     sbni_edge_y(m, layer->out, task));
}

static void relu_backward(sbn_model *m, const sbni_layer *layer, sbni_task task, int what)
{
    (void)what;
    if (!layer->wants_dx) return;
    m->kernels->relu_backward(
        sbni_edge_y(m, layer->out, task), sbni_edge_dy(m, layer->out, task),
        task.slice.n * layer->in->count, sbni_edge_dy(m, layer->in, task));
}

static void sigmoid_forward(sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    m->kernels->sigmoid(sbni_edge_y(m, layer->in, task), task.slice.n * layer->in->count,
                        sbni_edge_y(m, layer->out, task));
}

static void sigmoid_backward(sbn_model *m, const sbni_layer *layer, sbni_task task,
                             int what)
{
    (void)what;
    if (!layer->wants_dx) return;
    m->kernels->sigmoid_backward(
        sbni_edge_y(m, layer->out, task), sbni_edge_dy(m, layer->out, task),
        task.slice.n * layer->in->count, sbni_edge_dy(m, layer->in, task));
}

const sbni_layer_ops sbni_relu_ops = {.needs_y = true,
                                      .elementwise = true,
                                      .shape = sbni_same_shape,
                                      .forward = relu_forward,
                                      .backward = relu_backward};
const sbni_layer_ops sbni_sigmoid_ops = {.needs_y = true,
                                         .elementwise = true,
                                         .shape = sbni_same_shape,
                                         .forward = sigmoid_forward,
                                         .backward = sigmoid_backward};
/* Norm layers lie between runs (norm_layer.c); only their shape is of this kind. */
const sbni_layer_ops sbni_norm_ops = {.needs_x = true, .shape = sbni_same_shape};
