#include "nn/layer.h"

#include <string.h>

/* log-softmax with the mean negative log-likelihood over the batch of the whole group
 * behind it: the gradient of a sample is weighted by 1/N of the group, never by a mean of
 * means. Smoothed targets are those of training alone. */

static sbn_status loss_shape(const sbni_layer_spec *spec, sbni_image in, sbni_image *out)
{
    (void)spec;
    *out = (sbni_image){in.c * in.h * in.w, 1, 1};
    return SBN_OK;
}

static void loss_forward(sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    m->kernels->log_softmax(sbni_edge_y(m, layer->in, task), task.slice.n,
                            layer->in->count, sbni_edge_y(m, layer->out, task));
}

static void loss_backward(sbn_model *m, const sbni_layer *layer, sbni_task task, int what)
{
    (void)what;
    m->slice_correct[task.index] = 0;
    m->slice_loss[task.index] = 0;
    if (!m->labels) { /* unusable ones: keep pace with the other processes */
        memset(sbni_edge_dy(m, layer->in, task), 0,
               (size_t)(task.slice.n * layer->in->count * sbn_dtype_bytes(m->cfg.dtype)));
        return;
    }
    m->slice_loss[task.index] = m->kernels->nll(
        sbni_edge_y(m, layer->out, task), m->labels + task.slice.row, task.slice.n,
        layer->in->count, m->cfg.label_smoothing, m->loss_weight,
        &m->slice_correct[task.index], sbni_edge_dy(m, layer->in, task));
}

const sbni_layer_ops sbni_loss_ops = {.needs_y = true,
                                      .shape = loss_shape,
                                      .forward = loss_forward,
                                      .backward = loss_backward};
