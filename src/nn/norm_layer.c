#include "nn/layer.h"

/* A model's norm layers: settings, and what they do to a slice. */

sbn_status sbni_norm_layers_create(sbn_model *m)
{
    for (int i = 0; i < m->layer_count; i++) {
        sbni_layer *layer = &m->layers[i];
        if (layer->spec.kind != SBNI_LAYER_NORM) continue;
        sbn_norm_config cfg = sbn_norm_config_default(layer->in->shape.c);
        cfg.dtype = m->cfg.dtype;
        cfg.eps = m->cfg.eps;
        cfg.momentum = m->cfg.momentum;
        cfg.running = m->cfg.running;
        cfg.norm_batch = m->cfg.norm_batch;
        cfg.batch = m->cfg.norm_batch == SBN_NORM_BATCH_ALL ? 0 : m->cfg.batch;
        cfg.name = layer->spec.name;
        cfg.relu = layer->relu;
        if (m->cfg.norm == SBN_MODEL_NORM_RENORM) cfg.correction = SBN_CORRECTION_RENORM;
        SBN_TRY(sbn_norm_create(&cfg, m->group, &layer->norm));
        sbni_norm_slices_set_blame(layer->norm, sbni_model_blame, m);
    }
    return SBN_OK;
}

sbn_status sbni_norm_layers_reserve(sbn_model *m)
{
    for (int i = 0; i < m->layer_count; i++)
        if (m->layers[i].norm)
            SBN_TRY(sbni_norm_slices_reserve(m->layers[i].norm, m->capacity));
    return SBN_OK;
}

/* What the layer's input is, or will be, for n samples. */
sbn_tensor sbni_norm_layer_input(const sbn_model *m, const sbni_layer *layer, int64_t n)
{
    sbni_image s = layer->in->shape;
    return sbn_tensor_nchw(m->cfg.dtype, layer->in->y, n, s.c, s.h, s.w);
}

void sbni_norm_layer_open(const sbn_model *m, const sbni_layer *layer, int64_t n,
                          bool training)
{
    sbn_norm_set_mode(layer->norm, training ? SBN_NORM_TRAIN : SBN_NORM_EVAL);
    sbn_tensor x = sbni_norm_layer_input(m, layer, n);
    if (training)
        sbni_norm_slices_open(layer->norm, &x);
    else
        sbni_norm_slices_fix(layer->norm);
}

/* What the layer adds; NULL: nothing. */
static const void *added(const sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    return layer->side ? sbni_edge_y(m, layer->side, task) : NULL;
}

void sbni_norm_layer_apply(const sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    sbn_tensor x = sbni_norm_layer_input(m, layer, m->capacity);
    sbni_norm_slice_apply(layer->norm, &x, &task.slice, !task.training,
                          added(m, layer, task), sbni_edge_y(m, layer->out, task));
}

void sbni_norm_layer_moments(const sbni_layer *layer, sbni_task task)
{
    sbni_norm_slice_moments(layer->norm, &task.slice, task.index);
}

void sbni_norm_layer_sums(const sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    sbni_norm_slice_sums(layer->norm, &task.slice, task.index, added(m, layer, task),
                         sbni_edge_dy(m, layer->out, task));
}

void sbni_norm_layer_dx(const sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    bool side = layer->side && layer->side->wants_dy;
    if (!layer->wants_dx && !side) return;
    sbni_norm_slice_dx(layer->norm, &task.slice, added(m, layer, task),
                       sbni_edge_dy(m, layer->out, task),
                       layer->wants_dx ? sbni_edge_dy(m, layer->in, task) : NULL,
                       side ? sbni_edge_dy(m, layer->side, task) : NULL);
}

sbn_status sbn_model_set_limits(sbn_model *m, double r_max, double d_max)
{
    if (m->cfg.norm != SBN_MODEL_NORM_RENORM) return SBN_OK;
    for (int i = 0; i < m->layer_count; i++)
        if (m->layers[i].norm)
            SBN_TRY(sbn_norm_set_limits(m->layers[i].norm, r_max, d_max));
    return SBN_OK;
}

sbn_norm_clipped sbn_model_get_clipped(const sbn_model *m)
{
    sbn_norm_clipped all = {1, 0, 0, 0};
    double channels = 0;
    for (int i = 0; i < m->layer_count; i++) {
        if (!m->layers[i].norm || m->cfg.norm != SBN_MODEL_NORM_RENORM) continue;
        /* all layers see the same norm batches, so their channels are the weights */
        double c = (double)m->layers[i].in->shape.c;
        sbn_norm_clipped here = sbn_norm_get_clipped(m->layers[i].norm);
        all.r_max = here.r_max;
        all.d_max = here.d_max;
        all.r += c * here.r;
        all.d += c * here.d;
        channels += c;
    }
    if (channels > 0) all.r /= channels, all.d /= channels;
    return all;
}
