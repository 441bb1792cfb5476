#include <string.h>

#include "nn/layer.h"

/* Group norm slice by slice: samples do not meet, so gamma and beta are summed like the
 * weights of other layers, and nothing is sent. */

static void groupnorm_forward(sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    sbni_image shape = layer->in->shape;
    int64_t groups = m->cfg.norm_groups, at = task.slice.row * groups;
    m->kernels->groupnorm(sbni_edge_y(m, layer->in, task), task.slice.n, shape.c,
                          shape.h * shape.w, groups, m->cfg.eps,
                          m->params[layer->weight].tensor.data,
                          m->params[layer->bias].tensor.data, layer->mean + at,
                          layer->rstd + at, sbni_edge_y(m, layer->out, task));
}

/* A slice's gradient of gamma or beta, rounded to the model's type as all gradients are
 * before they are summed. */
static void add_grad(sbn_model *m, int param, const double *sums, int64_t c, int thread)
{
    void *grad = m->scratch[thread].grad;
    for (int64_t i = 0; i < c; i++) {
        if (m->cfg.dtype == SBN_F64)
            ((double *)grad)[i] = sums[i];
        else
            ((float *)grad)[i] = (float)sums[i];
    }
    sbni_layer_add_grad(m, param, grad, thread);
}

static void groupnorm_backward(sbn_model *m, const sbni_layer *layer, sbni_task task,
                               int what)
{
    (void)what;
    sbni_image shape = layer->in->shape;
    int64_t groups = m->cfg.norm_groups, at = task.slice.row * groups;
    double *dgamma = m->scratch[task.thread].sums, *dbeta = dgamma + shape.c;
    memset(dgamma, 0, (size_t)(2 * shape.c) * sizeof *dgamma);
    m->kernels->groupnorm_backward(
        sbni_edge_dy(m, layer->out, task), sbni_edge_y(m, layer->in, task), task.slice.n,
        shape.c, shape.h * shape.w, groups, m->params[layer->weight].tensor.data,
        layer->mean + at, layer->rstd + at,
        layer->wants_dx ? sbni_edge_dy(m, layer->in, task) : NULL, dgamma, dbeta);
    add_grad(m, layer->weight, dgamma, shape.c, task.thread);
    add_grad(m, layer->bias, dbeta, shape.c, task.thread);
}

const sbni_layer_ops sbni_groupnorm_ops = {.needs_x = true,
                                           .sums = true,
                                           .shape = sbni_same_shape,
                                           .forward = groupnorm_forward,
                                           .backward = groupnorm_backward};
