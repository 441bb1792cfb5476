#include <string.h>

#include "nn/layer.h"

/* Residual blocks (He et al. 2016): a fork hands its input on, and past the block; an add
 * takes both. Where a norm ends the block, that norm adds (norm_layer.c). */

static void fork_forward(sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    (void)m;
    (void)layer;
    (void)task; /* both outputs are the input's memory */
}

/* dx lies where the branch's gradient does. */
static void fork_backward(sbn_model *m, const sbni_layer *layer, sbni_task task, int what)
{
    (void)what;
    if (!layer->wants_dx) return;
    void *dx = sbni_edge_dy(m, layer->in, task);
    m->kernels->add(dx, sbni_edge_dy(m, layer->side, task),
                    task.slice.n * layer->in->count, dx);
}

static void add_forward(sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    m->kernels->add(sbni_edge_y(m, layer->in, task), sbni_edge_y(m, layer->side, task),
                    task.slice.n * layer->in->count, sbni_edge_y(m, layer->out, task));
}

/* The branch's gradient is dy in its place; the layers there may overwrite it. */
static void add_backward(sbn_model *m, const sbni_layer *layer, sbni_task task, int what)
{
    (void)what;
    if (!layer->side->wants_dy) return;
    memcpy(sbni_edge_dy(m, layer->side, task), sbni_edge_dy(m, layer->out, task),
           (size_t)(task.slice.n * layer->in->count * sbn_dtype_bytes(m->cfg.dtype)));
}

const sbni_layer_ops sbni_fork_ops = {
    .shape = sbni_same_shape, .forward = fork_forward, .backward = fork_backward};
const sbni_layer_ops sbni_add_ops = {.elementwise = true,
                                     .shape = sbni_same_shape,
                                     .forward = add_forward,
                                     .backward = add_backward};
