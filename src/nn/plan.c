#include <string.h>

#include "core/memory.h"
#include "nn/layer.h"

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
    if (layer->spec.kind == SBNI_LAYER_DROPOUT)
        return own(m, m->capacity * sbni_mask_bytes(layer->out->count), 1, kept,
                   &layer->kept);
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
