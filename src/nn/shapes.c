#include <inttypes.h>
#include <math.h>

#include "core/memory.h"
#include "nn/layer.h"

const sbni_layer_ops *sbni_layer_ops_of(sbni_layer_kind kind)
{
    switch (kind) {
    case SBNI_LAYER_CONV:
        return &sbni_conv_ops;
    case SBNI_LAYER_LINEAR:
        return &sbni_linear_ops;
    case SBNI_LAYER_NORM:
        return &sbni_norm_ops;
    case SBNI_LAYER_GROUPNORM:
        return &sbni_groupnorm_ops;
    case SBNI_LAYER_MAXPOOL:
        return &sbni_maxpool_ops;
    case SBNI_LAYER_AVGPOOL:
        return &sbni_avgpool_ops;
    case SBNI_LAYER_RELU:
        return &sbni_relu_ops;
    case SBNI_LAYER_SIGMOID:
        return &sbni_sigmoid_ops;
    case SBNI_LAYER_DROPOUT:
        return &sbni_dropout_ops;
    case SBNI_LAYER_LOGSOFTMAX:
        return &sbni_loss_ops;
    }
    return NULL;
}

/* Elements of a sample. Sizes are at most 65536 and the limit below holds for the edge
 * before, so the product fits int64. */
static sbn_status measure(sbni_edge *edge)
{
    sbni_image s = edge->shape;
    edge->count = s.c * s.h * s.w;
    SBN_CHECK(edge->count <= INT32_MAX / 64, SBN_E_DATA,
              "a layer of %" PRId64 "x%" PRId64 "x%" PRId64 " is too large", s.c, s.h,
              s.w);
    return SBN_OK;
}

/* Matrices that BLAS can count. */
static sbn_status check_weights(const sbni_layer *layer)
{
    const sbni_layer_spec *spec = &layer->spec;
    bool conv = spec->kind == SBNI_LAYER_CONV;
    if (!conv && spec->kind != SBNI_LAYER_LINEAR) return SBN_OK;
    int64_t in =
        conv ? layer->in->shape.c * spec->kernel * spec->kernel : layer->in->count;
    int64_t s = layer->out->shape.h * layer->out->shape.w;
    SBN_CHECK(in <= INT32_MAX && in * (spec->out > s ? spec->out : s) <= INT32_MAX,
              SBN_E_DATA,
              "%s has too many weights: %" PRId64 " for each of %" PRId64 " outputs",
              spec->name, in, spec->out);
    return SBN_OK;
}

/* What group norm needs; the other norm layers check themselves. */
static sbn_status check_groups(const sbn_model *m, const sbni_layer *layer)
{
    if (layer->spec.kind != SBNI_LAYER_GROUPNORM) return SBN_OK;
    int64_t c = layer->in->shape.c, groups = m->cfg.norm_groups;
    SBN_CHECK(m->cfg.eps > 0 && isfinite(m->cfg.eps), SBN_E_ARG,
              "norm %s: expected eps > 0, got %g", layer->spec.name, m->cfg.eps);
    SBN_CHECK(c % groups == 0, SBN_E_ARG,
              "norm %s: expected groups that divide its %" PRId64
              " channels, got %" PRId64,
              layer->spec.name, c, groups);
    SBN_CHECK(layer->in->count > groups, SBN_E_FEW,
              "norm %s: %" PRId64 " groups of %" PRId64
              " channels hold one value each, which has no variance; expected fewer",
              layer->spec.name, groups, c);
    return SBN_OK;
}

/* A relu right behind a norm layer becomes part of it. */
static bool fuses(const sbn_model *m, const sbni_layer_spec *spec)
{
    return spec->kind == SBNI_LAYER_RELU && m->layer_count > 0 &&
           m->layers[m->layer_count - 1].spec.kind == SBNI_LAYER_NORM &&
           !m->layers[m->layer_count - 1].relu;
}

/* Rate of the dropout in front of the net's last linear layer, when the settings ask for
 * one and the net says nothing of it; 0: none. */
static double dropout_of(const sbn_model *m, const sbni_net *net, int *linear)
{
    bool has = false;
    *linear = -1;
    for (int i = 0; i < net->count; i++) {
        if (net->layers[i].kind == SBNI_LAYER_LINEAR) *linear = i;
        has |= net->layers[i].kind == SBNI_LAYER_DROPOUT;
    }
    return has || m->cfg.dropout == SBN_DROPOUT_NET ? 0 : m->cfg.dropout;
}

/* Append a layer; wants_dx: whether there are weights before it, nothing before which
 * needs a gradient. */
static sbn_status add_layer(sbn_model *m, const sbni_layer_spec *spec, bool *wants_dx)
{
    sbni_layer *layer = &m->layers[m->layer_count];
    bool norm = spec->kind == SBNI_LAYER_NORM;
    layer->spec = *spec;
    if (norm && m->cfg.norm == SBN_MODEL_NORM_GROUP)
        layer->spec.kind = SBNI_LAYER_GROUPNORM;
    layer->in = &m->edges[m->layer_count];
    layer->out = &m->edges[m->layer_count + 1];
    layer->weight = layer->bias = -1;
    layer->wants_dx = *wants_dx;
    sbni_layer_kind kind = layer->spec.kind;
    *wants_dx |= kind == SBNI_LAYER_CONV || kind == SBNI_LAYER_LINEAR || norm;
    if (kind == SBNI_LAYER_DROPOUT) layer->draws = m->dropout_count++;
    SBN_TRY(sbni_layer_ops_of(kind)->shape(&layer->spec, layer->in->shape,
                                           &layer->out->shape));
    SBN_TRY(measure(layer->out));
    SBN_TRY(check_weights(layer));
    SBN_TRY(check_groups(m, layer));
    m->layer_count++;
    return SBN_OK;
}

static sbn_status add_dropout(sbn_model *m, sbni_layer_spec spec, bool *wants_dx)
{
    if (m->cfg.dropout != SBN_DROPOUT_NET) spec.rate = m->cfg.dropout;
    return spec.rate > 0 ? add_layer(m, &spec, wants_dx) : SBN_OK;
}

sbn_status sbni_plan_shapes(sbn_model *m, const sbni_net *net)
{
    SBN_TRY(sbni_alloc(net->count + 1, sizeof *m->layers, "model", &m->layers));
    SBN_TRY(sbni_alloc(net->count + 2, sizeof *m->edges, "model", &m->edges));
    m->edges[0].shape = (sbni_image){net->c, net->h, net->w};
    sbn_status status = measure(&m->edges[0]);
    if (status != SBN_OK)
        return sbni_fail_in(status, "%s:%d:1", m->cfg.net, net->input_line);
    int linear;
    bool wants_dx = false, drops = dropout_of(m, net, &linear) > 0;
    for (int i = 0; i < net->count && status == SBN_OK; i++) {
        const sbni_layer_spec *spec = &net->layers[i];
        if (drops && i == linear)
            status = add_dropout(
                m, (sbni_layer_spec){.kind = SBNI_LAYER_DROPOUT, .line = spec->line},
                &wants_dx);
        if (status != SBN_OK) break;
        if (spec->kind == SBNI_LAYER_NORM && m->cfg.norm == SBN_MODEL_NORM_NONE) continue;
        if (fuses(m, spec))
            m->layers[m->layer_count - 1].relu = true;
        else
            status = spec->kind == SBNI_LAYER_DROPOUT ? add_dropout(m, *spec, &wants_dx)
                                                      : add_layer(m, spec, &wants_dx);
        if (status != SBN_OK)
            return sbni_fail_in(status, "%s:%d:1", m->cfg.net, spec->line);
    }
    return status;
}
