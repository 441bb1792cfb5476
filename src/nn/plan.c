#include <inttypes.h>
#include <math.h>
#include <string.h>

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
    case SBNI_LAYER_RELU:
        return &sbni_relu_ops;
    case SBNI_LAYER_SIGMOID:
        return &sbni_sigmoid_ops;
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

sbn_status sbni_plan_shapes(sbn_model *m, const sbni_net *net)
{
    SBN_TRY(sbni_alloc(net->count, sizeof *m->layers, "model", &m->layers));
    SBN_TRY(sbni_alloc(net->count + 1, sizeof *m->edges, "model", &m->edges));
    m->edges[0].shape = (sbni_image){net->c, net->h, net->w};
    sbn_status input = measure(&m->edges[0]);
    if (input != SBN_OK)
        return sbni_fail_in(input, "%s:%d:1", m->cfg.net, net->input_line);
    bool wants_dx = false; /* nothing before the first weights needs a gradient */
    for (int i = 0; i < net->count; i++) {
        bool norm = net->layers[i].kind == SBNI_LAYER_NORM;
        if (norm && m->cfg.norm == SBN_MODEL_NORM_NONE) continue;
        if (fuses(m, &net->layers[i])) {
            m->layers[m->layer_count - 1].relu = true;
            continue;
        }
        sbni_layer *layer = &m->layers[m->layer_count];
        layer->spec = net->layers[i];
        if (norm && m->cfg.norm == SBN_MODEL_NORM_GROUP)
            layer->spec.kind = SBNI_LAYER_GROUPNORM;
        layer->in = &m->edges[m->layer_count];
        layer->out = &m->edges[m->layer_count + 1];
        layer->weight = layer->bias = -1;
        layer->wants_dx = wants_dx;
        sbni_layer_kind kind = layer->spec.kind;
        wants_dx |= kind == SBNI_LAYER_CONV || kind == SBNI_LAYER_LINEAR || norm;
        sbn_status status = sbni_layer_ops_of(kind)->shape(&layer->spec, layer->in->shape,
                                                           &layer->out->shape);
        if (status == SBN_OK) status = measure(layer->out);
        if (status == SBN_OK) status = check_weights(layer);
        if (status == SBN_OK) status = check_groups(m, layer);
        if (status != SBN_OK)
            return sbni_fail_in(status, "%s:%d:1", m->cfg.net, layer->spec.line);
        m->layer_count++;
    }
    return SBN_OK;
}

/* Runs between norms. A run is split where a norm is below it and there are weights whose
 * gradients can be computed while its message travels. Runs with gradients have a segment
 * each, and so has the last, with the loss; or all have one. */
static sbn_status cut_runs(sbn_model *m)
{
    for (int i = 0; i < m->layer_count; i++)
        m->run_count += m->layers[i].spec.kind == SBNI_LAYER_NORM;
    m->run_count++;
    SBN_TRY(sbni_alloc(m->run_count, sizeof *m->runs, "model", &m->runs));
    for (int r = 0, i = 0; r < m->run_count; r++, i++) {
        sbni_run *run = &m->runs[r];
        bool sums = r == m->run_count - 1;
        for (run->from = i; i < m->layer_count; i++) {
            const sbni_layer_ops *ops = sbni_layer_ops_of(m->layers[i].spec.kind);
            if (m->layers[i].spec.kind == SBNI_LAYER_NORM) break;
            sums |= ops->sums;
            run->splits |= m->overlaps && run->from > 0 && ops->splits;
        }
        run->to = i;
        run->segment = !sums ? -1 : m->overlaps ? m->segment_count++ : 0;
    }
    if (!m->overlaps) m->segment_count = 1;
    return SBN_OK;
}

/* Elements that share memory: each edge's class is the first edge of it. */
static void share_places(const sbn_model *m, int *y_of, int *dy_of)
{
    for (int i = 0; i <= m->layer_count; i++) y_of[i] = dy_of[i] = i;
    for (int i = 0; i < m->layer_count; i++) {
        const sbni_layer_ops *ops = sbni_layer_ops_of(m->layers[i].spec.kind);
        bool norm = m->layers[i].spec.kind == SBNI_LAYER_NORM;
        /* y over x, unless the layer before still needs it */
        if (ops->elementwise && i > 0 &&
            !sbni_layer_ops_of(m->layers[i - 1].spec.kind)->needs_y)
            y_of[i + 1] = y_of[i];
        if (ops->elementwise || norm) dy_of[i + 1] = dy_of[i];
    }
}

/* Whole arrays are x and dy of norm layers, and what backward reads again: in a run that
 * is split also the dy of its weights. Not y of a norm layer, which is made again where
 * the layer above asks for it. */
static void choose_whole(sbn_model *m, const int *y_of, const int *dy_of)
{
    sbni_edge *e = m->edges;
    e[0].y_whole = e[m->layer_count].y_whole = true;
    for (int i = 0; i < m->layer_count; i++) {
        const sbni_layer_ops *ops = sbni_layer_ops_of(m->layers[i].spec.kind);
        bool norm = m->layers[i].spec.kind == SBNI_LAYER_NORM;
        bool above = i > 0 && m->layers[i - 1].spec.kind == SBNI_LAYER_NORM;
        e[y_of[i]].y_whole |= norm || (ops->needs_x && !above);
        e[y_of[i + 1]].y_whole |= ops->needs_y;
        e[dy_of[i]].dy_whole |= norm;
        e[dy_of[i + 1]].dy_whole |= norm;
    }
    for (int r = 0; r < m->run_count; r++) {
        sbni_run *run = &m->runs[r];
        for (int i = run->from; run->splits && i < run->to; i++)
            if (sbni_layer_ops_of(m->layers[i].spec.kind)->splits)
                e[dy_of[i + 1]].dy_whole = true;
        run->remakes = run->from > 0 && run->from < run->to &&
                       sbni_layer_ops_of(m->layers[run->from].spec.kind)->needs_x &&
                       !e[y_of[run->from]].y_whole;
    }
}

/* what: the sum of bytes that the array counts for. */
static sbn_status own(sbn_model *m, int64_t count, int64_t size, int64_t *what, void *out)
{
    SBN_TRY(sbni_alloc(count, size, "model", out));
    memcpy(&m->owned[m->owned_count++], out, sizeof *m->owned);
    *what += count * size;
    return SBN_OK;
}

static sbn_status alloc_edges(sbn_model *m, const int *y_of, const int *dy_of)
{
    int64_t size = sbn_dtype_bytes(m->cfg.dtype), scratch_rows = SBN_SLICE * m->threads,
            *kept = &m->memory.activations_bytes, *work = &m->memory.work_bytes;
    for (int i = 0; i <= m->layer_count; i++) {
        sbni_edge *e = &m->edges[i];
        if (y_of[i] == i)
            SBN_TRY(own(m, (e->y_whole ? m->capacity : scratch_rows) * e->count, size,
                        e->y_whole ? kept : work, &e->y));
        if (dy_of[i] == i)
            SBN_TRY(own(m, (e->dy_whole ? m->capacity : scratch_rows) * e->count, size,
                        work, &e->dy));
        e->y = m->edges[y_of[i]].y;
        e->y_whole = m->edges[y_of[i]].y_whole;
        e->dy = m->edges[dy_of[i]].dy;
        e->dy_whole = m->edges[dy_of[i]].dy_whole;
    }
    return SBN_OK;
}

/* What backward needs of a layer beside the edges. */
static sbn_status alloc_memory(sbn_model *m, sbni_layer *layer)
{
    int64_t *kept = &m->memory.activations_bytes;
    if (layer->spec.kind == SBNI_LAYER_MAXPOOL)
        return own(m, m->capacity * layer->out->count, 1, kept, &layer->argmax);
    if (layer->spec.kind != SBNI_LAYER_GROUPNORM) return SBN_OK;
    int64_t n = m->capacity * m->cfg.norm_groups;
    SBN_TRY(own(m, 2 * n, sizeof *layer->mean, kept, &layer->mean));
    layer->rstd = layer->mean + n;
    return SBN_OK;
}

static sbn_status alloc_scratch(sbn_model *m)
{
    int64_t col = 0, grad = 0, sums = 0, size = sbn_dtype_bytes(m->cfg.dtype),
            *work = &m->memory.work_bytes;
    for (int i = 0; i < m->layer_count; i++) {
        sbni_layer *layer = &m->layers[i];
        SBN_TRY(alloc_memory(m, layer));
        int64_t k = layer->spec.kernel * layer->spec.kernel * layer->in->shape.c;
        int64_t here = k * layer->out->shape.h * layer->out->shape.w;
        if (layer->spec.kind == SBNI_LAYER_CONV && here > col) col = here;
        int64_t in = layer->spec.kind == SBNI_LAYER_CONV ? k : layer->in->count;
        int64_t weights = (in + 1) * layer->spec.out;
        if (weights > grad) grad = weights;
        int64_t affine = 2 * layer->in->shape.c;
        if (layer->spec.kind != SBNI_LAYER_GROUPNORM) continue;
        if (affine > grad) grad = affine;
        if (affine > sums) sums = affine;
    }
    SBN_TRY(sbni_alloc(m->threads, sizeof *m->scratch, "model", &m->scratch));
    for (int t = 0; t < m->threads; t++) {
        SBN_TRY(own(m, col, size, work, &m->scratch[t].col));
        SBN_TRY(own(m, grad, size, work, &m->scratch[t].grad));
        SBN_TRY(own(m, sums, sizeof(double), work, &m->scratch[t].sums));
    }
    return SBN_OK;
}

sbn_status sbni_plan_buffers(sbn_model *m)
{
    int edges = m->layer_count + 1, *y_of = NULL, *dy_of = NULL;
    sbn_status status;
    SBN_GOTO(sbni_alloc(edges, sizeof *y_of, "model", &y_of));
    SBN_GOTO(sbni_alloc(edges, sizeof *dy_of, "model", &dy_of));
    SBN_GOTO(
        sbni_alloc(3 * edges + 3 * m->threads, sizeof *m->owned, "model", &m->owned));
    int64_t most = m->capacity + 1; /* a slice has at least one row */
    SBN_GOTO(sbni_alloc(most, sizeof *m->slices, "model", &m->slices));
    SBN_GOTO(sbni_alloc(most, sizeof *m->slice_loss, "model", &m->slice_loss));
    SBN_GOTO(sbni_alloc(most, sizeof *m->slice_correct, "model", &m->slice_correct));
    SBN_GOTO(cut_runs(m));
    share_places(m, y_of, dy_of);
    choose_whole(m, y_of, dy_of);
    SBN_GOTO(alloc_edges(m, y_of, dy_of));
    status = alloc_scratch(m);
fail:
    sbni_free(y_of);
    sbni_free(dy_of);
    return status;
}

void *sbni_edge_y(const sbn_model *m, const sbni_edge *e, sbni_task task)
{
    return sbni_at(m, e->y,
                   (e->y_whole ? task.slice.row : task.thread * SBN_SLICE) * e->count);
}

void *sbni_edge_dy(const sbn_model *m, const sbni_edge *e, sbni_task task)
{
    return sbni_at(m, e->dy,
                   (e->dy_whole ? task.slice.row : task.thread * SBN_SLICE) * e->count);
}
