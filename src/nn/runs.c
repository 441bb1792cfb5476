#include "core/memory.h"
#include "nn/layer.h"

/* What a slice goes through, run by run. A norm's y can be had in the run behind the one
 * that sums its x, and is made in the run of the layer that takes it. */

/* A run is split where norms' messages leave behind its backward and there are weights
 * whose gradients can be computed while they travel. Runs with gradients have a segment
 * each, and so has the last, with the loss; or all have one. */
static void choose_segments(sbn_model *m)
{
    for (int r = 0; r < m->run_count; r++) {
        bool sums = r == m->run_count - 1;
        for (int i = 0; i < m->layer_count; i++) {
            const sbni_layer *layer = &m->layers[i];
            if (layer->run != r || sbni_layer_meets(layer)) continue;
            const sbni_layer_ops *ops = sbni_layer_ops_of(layer->spec.kind);
            sums |= ops->sums;
            m->runs[r].splits |= m->overlaps && r > 0 && ops->splits;
        }
        m->runs[r].segment = !sums ? -1 : m->overlaps ? m->segment_count++ : 0;
    }
    if (!m->overlaps) m->segment_count = 1;
}

sbn_status sbni_plan_runs(sbn_model *m)
{
    m->run_count = sbni_model_last(m)->run + 1;
    SBN_TRY(sbni_alloc(m->run_count, sizeof *m->runs, "model", &m->runs));
    choose_segments(m);
    return SBN_OK;
}

static void put(sbn_model *m, sbni_op_kind kind, const sbni_layer *layer, int what)
{
    m->ops[m->op_count++] = (sbni_op){kind, layer, what};
}

/* y of an edge, where a norm makes it on demand. */
static void make(sbn_model *m, const sbni_edge *edge, int what)
{
    if (!sbni_layer_meets(edge->from)) return;
    if (edge->from->side) make(m, edge->from->side, what);
    put(m, SBNI_OP_APPLY, edge->from, what);
}

static void make_again(sbn_model *m, const sbni_edge *edge, int what)
{
    if (!edge->y_whole) make(m, edge, what);
}

static sbni_ops forward_of(sbn_model *m, int run)
{
    int first = m->op_count;
    for (int i = 0; i < m->layer_count; i++) {
        const sbni_layer *layer = &m->layers[i];
        if (layer->run != run) continue;
        make(m, layer->in, 0);
        if (layer->spec.kind == SBNI_LAYER_ADD) make(m, layer->side, 0);
        put(m, sbni_layer_meets(layer) ? SBNI_OP_MOMENTS : SBNI_OP_LAYER, layer, 0);
    }
    return (sbni_ops){m->ops + first, m->op_count - first};
}

/* The sign that relu looks at needs what was added. */
static void make_added(sbn_model *m, const sbni_layer *norm)
{
    if (norm->side && norm->relu) make_again(m, norm->side, SBNI_DX);
}

/* Once dy of an edge is there: its sums, where it is of a norm. */
static void take_sums(sbn_model *m, const sbni_edge *edge)
{
    if (!sbni_layer_meets(edge->from)) return;
    make_added(m, edge->from);
    put(m, SBNI_OP_SUMS, edge->from, SBNI_DX);
}

static void put_backward(sbn_model *m, const sbni_layer *layer)
{
    if (sbni_layer_meets(layer)) {
        make_added(m, layer);
        put(m, SBNI_OP_DX, layer, SBNI_DX);
        if (layer->side) take_sums(m, layer->side);
    } else {
        const sbni_layer_ops *ops = sbni_layer_ops_of(layer->spec.kind);
        if (ops->needs_x) make_again(m, layer->in, ops->splits ? SBNI_DWEIGHTS : SBNI_DX);
        put(m, SBNI_OP_LAYER, layer, ops->splits ? SBNI_DX | SBNI_DWEIGHTS : SBNI_DX);
        if (layer->spec.kind == SBNI_LAYER_ADD) take_sums(m, layer->side);
    }
    take_sums(m, layer->in);
}

static sbni_ops backward_of(sbn_model *m, int run)
{
    int first = m->op_count;
    for (int i = m->layer_count - 1; i >= 0; i--)
        if (m->layers[i].run == run) put_backward(m, &m->layers[i]);
    return (sbni_ops){m->ops + first, m->op_count - first};
}

sbn_status sbni_plan_ops(sbn_model *m)
{
    enum { MOST = 10 }; /* ops of a layer, and of the norms that it takes from */
    SBN_TRY(sbni_alloc((int64_t)MOST * m->layer_count, sizeof *m->ops, "model", &m->ops));
    for (int r = 0; r < m->run_count; r++) {
        m->runs[r].forward = forward_of(m, r);
        m->runs[r].backward = backward_of(m, r);
    }
    return SBN_OK;
}
