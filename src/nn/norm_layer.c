#include "nn/layer.h"

/* A model's norm layers: settings, and tensors over whole edges. */

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
        if (m->cfg.norm == SBN_MODEL_NORM_RENORM) cfg.correction = SBN_CORRECTION_RENORM;
        SBN_TRY(sbn_norm_create(&cfg, m->group, &layer->norm));
    }
    return SBN_OK;
}

static sbn_tensor view(const sbn_model *m, const sbni_edge *edge, void *data, int64_t n)
{
    return sbn_tensor_nchw(m->cfg.dtype, data, n, edge->shape.c, edge->shape.h,
                           edge->shape.w);
}

sbn_status sbni_norm_layer_forward(sbn_model *m, const sbni_layer *layer, int64_t n,
                                   bool training)
{
    sbn_tensor x = view(m, layer->in, layer->in->y, n),
               y = view(m, layer->out, layer->out->y, n);
    sbn_norm_set_mode(layer->norm, training ? SBN_NORM_TRAIN : SBN_NORM_EVAL);
    return sbn_norm_forward(layer->norm, &x, &y);
}

sbn_status sbni_norm_layer_backward(sbn_model *m, const sbni_layer *layer, int64_t n)
{
    sbn_tensor dy = view(m, layer->out, layer->out->dy, n),
               dx = view(m, layer->in, layer->in->dy, n);
    return sbn_norm_backward(layer->norm, &dy, layer->wants_dx ? &dx : NULL);
}

sbn_status sbni_norm_layer_backward_begin(sbn_model *m, const sbni_layer *layer,
                                          int64_t n)
{
    sbn_tensor dy = view(m, layer->out, layer->out->dy, n),
               dx = view(m, layer->in, layer->in->dy, n);
    return sbn_norm_backward_begin(layer->norm, &dy, layer->wants_dx ? &dx : NULL);
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
