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
    case SBNI_LAYER_FORK:
        return &sbni_fork_ops;
    case SBNI_LAYER_ADD:
        return &sbni_add_ops;
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

/* The net so far. */
typedef struct path {
    sbn_model *m;
    sbni_edge *at;   /* what the next layer takes */
    sbni_edge *side; /* what goes past the branch of the block that is open */
} path;

static sbni_layer *last_of(const sbn_model *m)
{
    return m->layer_count ? &m->layers[m->layer_count - 1] : NULL;
}

/* A norm layer that gives what comes next, and does nothing else yet. */
static sbni_layer *plain_norm(const path *p)
{
    sbni_layer *last = last_of(p->m);
    bool plain = sbni_layer_meets(last) && last->out == p->at && !last->relu;
    return plain ? last : NULL;
}

static sbni_edge *add_edge(sbn_model *m, const sbni_layer *from)
{
    sbni_edge *edge = &m->edges[m->edge_count++];
    edge->from = from;
    edge->shape = from->in->shape;
    edge->wants_dy = from->in->wants_dy;
    edge->run = from->in->run;
    return edge;
}

/* Append a layer that takes from `in`, and give what it makes in its place. */
static sbn_status add_layer(sbn_model *m, const sbni_layer_spec *spec, sbni_edge **in)
{
    sbni_layer *layer = &m->layers[m->layer_count];
    layer->spec = *spec;
    if (spec->kind == SBNI_LAYER_NORM && m->cfg.norm == SBN_MODEL_NORM_GROUP)
        layer->spec.kind = SBNI_LAYER_GROUPNORM;
    sbni_layer_kind kind = layer->spec.kind;
    layer->in = *in;
    layer->out = *in = add_edge(m, layer);
    layer->weight = layer->bias = -1;
    layer->wants_dx = layer->in->wants_dy;
    layer->run = layer->in->run;
    layer->out->run += sbni_layer_meets(layer);
    layer->out->wants_dy |= kind == SBNI_LAYER_CONV || kind == SBNI_LAYER_LINEAR ||
                            spec->kind == SBNI_LAYER_NORM;
    if (kind == SBNI_LAYER_DROPOUT) layer->draws = m->dropout_count++;
    m->layer_count++;
    SBN_TRY(sbni_layer_ops_of(kind)->shape(&layer->spec, layer->in->shape,
                                           &layer->out->shape));
    SBN_TRY(measure(layer->out));
    SBN_TRY(check_weights(layer));
    return check_groups(m, layer);
}

static sbn_status add_dropout(path *p, sbni_layer_spec spec)
{
    sbn_model *m = p->m;
    if (m->cfg.dropout != SBN_DROPOUT_NET) spec.rate = m->cfg.dropout;
    return spec.rate > 0 ? add_layer(m, &spec, &p->at) : SBN_OK;
}

static sbn_status open_block(path *p, const sbni_layer_spec *spec)
{
    SBN_TRY(add_layer(p->m, spec, &p->at));
    sbni_layer *fork = last_of(p->m);
    fork->side = p->side = add_edge(p->m, fork);
    return measure(p->side);
}

/* A norm at the end of the branch adds what went past, if its own backward comes behind
 * that of a norm there: it gives that norm's dy. */
static sbn_status close_block(path *p, const sbni_layer_spec *spec)
{
    sbni_edge *side = p->side;
    sbni_image a = p->at->shape, b = side->shape;
    SBN_CHECK(a.c == b.c && a.h == b.h && a.w == b.w, SBN_E_DATA,
              "block \"%s\": its layers make %dx%dx%d, what goes past them has %dx%dx%d",
              spec->name, (int)a.c, (int)a.h, (int)a.w, (int)b.c, (int)b.h, (int)b.w);
    sbni_layer *norm = plain_norm(p);
    if (norm && !norm->side && side->run <= norm->run) {
        norm->side = side;
        return SBN_OK;
    }
    SBN_TRY(add_layer(p->m, spec, &p->at));
    sbni_layer *add = last_of(p->m);
    add->side = side;
    if (side->run > add->run) add->run = add->out->run = side->run;
    add->out->wants_dy |= side->wants_dy;
    return SBN_OK;
}

static sbn_status add_line(path *p, const sbni_layer_spec *spec)
{
    sbni_layer *norm = plain_norm(p);
    switch (spec->kind) {
    case SBNI_LAYER_DROPOUT:
        return add_dropout(p, *spec);
    case SBNI_LAYER_FORK:
        return open_block(p, spec);
    case SBNI_LAYER_ADD:
        return close_block(p, spec);
    case SBNI_LAYER_NORM:
        if (p->m->cfg.norm == SBN_MODEL_NORM_NONE) return SBN_OK;
        break;
    case SBNI_LAYER_RELU: /* right behind a norm it becomes part of it */
        if (!norm) break;
        norm->relu = true;
        return SBN_OK;
    default:
        break;
    }
    return add_layer(p->m, spec, spec->shortcut ? &p->side : &p->at);
}

sbn_status sbni_plan_shapes(sbn_model *m, const sbni_net *net)
{
    int most = net->count + 1; /* dropout that the settings ask for */
    SBN_TRY(sbni_alloc(most, sizeof *m->layers, "model", &m->layers));
    SBN_TRY(sbni_alloc(2 * most + 1, sizeof *m->edges, "model", &m->edges));
    m->edge_count = 1;
    m->edges[0].shape = (sbni_image){net->c, net->h, net->w};
    sbn_status status = measure(&m->edges[0]);
    if (status != SBN_OK)
        return sbni_fail_in(status, "%s:%d:1", m->cfg.net, net->input_line);
    path p = {m, &m->edges[0], NULL};
    int linear;
    bool drops = dropout_of(m, net, &linear) > 0;
    for (int i = 0; i < net->count; i++) {
        const sbni_layer_spec *spec = &net->layers[i];
        if (drops && i == linear)
            status = add_dropout(
                &p, (sbni_layer_spec){.kind = SBNI_LAYER_DROPOUT, .line = spec->line});
        if (status == SBN_OK) status = add_line(&p, spec);
        if (status != SBN_OK)
            return sbni_fail_in(status, "%s:%d:1", m->cfg.net, spec->line);
    }
    return SBN_OK;
}
