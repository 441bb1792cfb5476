#include <string.h>

#include "core/memory.h"
#include "nn/layer.h"

/* Edges that share memory: each one's class is the first edge of it. */
typedef struct places {
    int *y, *dy; /* [edge_count] */
} places;

static int index_of(const sbn_model *m, const sbni_edge *edge)
{
    return (int)(edge - m->edges);
}

/* Whether y of the layer may lie in the place of its x: nobody else reads that. */
static bool overwrites(const sbni_layer *layer)
{
    const sbni_layer *from = layer->in->from;
    return sbni_layer_ops_of(layer->spec.kind)->elementwise && from &&
           from->spec.kind != SBNI_LAYER_FORK &&
           !sbni_layer_ops_of(from->spec.kind)->needs_y;
}

static void share_places(const sbn_model *m, places of)
{
    for (int i = 0; i < m->edge_count; i++) of.y[i] = of.dy[i] = i;
    for (int i = 0; i < m->layer_count; i++) {
        const sbni_layer *layer = &m->layers[i];
        bool fork = layer->spec.kind == SBNI_LAYER_FORK;
        int in = index_of(m, layer->in), out = index_of(m, layer->out);
        if (fork || overwrites(layer)) of.y[out] = of.y[in];
        if (fork) of.y[index_of(m, layer->side)] = of.y[in];
        if (fork || sbni_layer_meets(layer) ||
            sbni_layer_ops_of(layer->spec.kind)->elementwise)
            of.dy[out] = of.dy[in];
    }
}

/* A convolution without dx has no use for the zeros that backward of a maxpool puts
 * between its gradients, and its outputs no dy. It is in the first run, which is never
 * split, so that it finds the pool's dy as it was left. */
static void skip_pools(sbn_model *m)
{
    for (int i = 0; i < m->layer_count; i++) {
        sbni_layer *pool = &m->layers[i];
        if (pool->spec.kind != SBNI_LAYER_MAXPOOL || !pool->in->from) continue;
        sbni_layer *conv = &m->layers[pool->in->from - m->layers];
        if (!sbni_conv_skips_pool(m, conv, pool->spec.kernel)) continue;
        conv->pool = pool;
        pool->wants_dx = false;
    }
}

/* What a layer takes in another run than it was made in stays, and its gradient too. A
 * norm's y is made where it is taken. */
static void keep_between_runs(const sbn_model *m, places of, const sbni_edge *edge,
                              int run)
{
    if (!edge->from || sbni_layer_meets(edge->from) || edge->from->run == run) return;
    m->edges[of.y[index_of(m, edge)]].y_whole = true;
    m->edges[of.dy[index_of(m, edge)]].dy_whole = true;
}

/* Whole arrays are x and dy of norm layers, what they add, and what backward reads again:
 * in a run that is split also the dy of its weights. Not y of a norm layer, which is made
 * again where it is asked for. */
static void choose_whole(const sbn_model *m, places of)
{
    sbni_edge *e = m->edges;
    e[0].y_whole = e[of.y[index_of(m, sbni_model_last(m))]].y_whole = true;
    for (int i = 0; i < m->layer_count; i++) {
        const sbni_layer *layer = &m->layers[i];
        const sbni_layer_ops *ops = sbni_layer_ops_of(layer->spec.kind);
        int in = index_of(m, layer->in), out = index_of(m, layer->out);
        bool norm = sbni_layer_meets(layer);
        e[of.y[in]].y_whole |=
            norm || (ops->needs_x && !sbni_layer_meets(layer->in->from));
        e[of.y[out]].y_whole |= ops->needs_y;
        e[of.dy[out]].dy_whole |= norm || (m->runs[layer->run].splits && ops->splits);
        keep_between_runs(m, of, layer->in, layer->run);
        /* backward of a norm that adds is in its run, its y in a later one */
        if (norm && layer->side && !sbni_layer_meets(layer->side->from))
            e[of.y[index_of(m, layer->side)]].y_whole = true;
        if (layer->side && layer->spec.kind != SBNI_LAYER_FORK)
            keep_between_runs(m, of, layer->side, layer->run);
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

static sbn_status alloc_edges(sbn_model *m, places of)
{
    int64_t size = sbn_dtype_bytes(m->cfg.dtype), scratch_rows = SBN_SLICE * m->threads,
            *kept = &m->memory.activations_bytes, *work = &m->memory.work_bytes;
    for (int i = 0; i < m->edge_count; i++) {
        sbni_edge *e = &m->edges[i];
        if (of.y[i] == i)
            SBN_TRY(own(m, (e->y_whole ? m->capacity : scratch_rows) * e->count, size,
                        e->y_whole ? kept : work, &e->y));
        if (of.dy[i] == i && !(e->from && e->from->pool))
            SBN_TRY(own(m, (e->dy_whole ? m->capacity : scratch_rows) * e->count, size,
                        work, &e->dy));
        e->y = m->edges[of.y[i]].y;
        e->y_whole = m->edges[of.y[i]].y_whole;
        e->dy = m->edges[of.dy[i]].dy;
        e->dy_whole = m->edges[of.dy[i]].dy_whole;
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
    int64_t col = 0, grad = 0, sums = 0, window = 0, size = sbn_dtype_bytes(m->cfg.dtype),
            *work = &m->memory.work_bytes;
    for (int i = 0; i < m->layer_count; i++) {
        sbni_layer *layer = &m->layers[i];
        SBN_TRY(alloc_memory(m, layer));
        int64_t taps = layer->spec.kernel * layer->spec.kernel,
                k = taps * layer->in->shape.c, weights = 0;
        if (layer->spec.kind == SBNI_LAYER_LINEAR)
            weights = (layer->in->count + 1) * layer->spec.out;
        if (layer->spec.kind == SBNI_LAYER_CONV) {
            int64_t here = sbni_conv_work(m, layer), back = taps * layer->out->shape.c;
            if (here > col) col = here;
            if (k > window) window = k;
            if (back > window) window = back;
            if (layer->pool) {
                int64_t cells = layer->pool->spec.kernel * layer->pool->spec.kernel;
                if (cells > window) window = cells;
            }
            weights = (k + 1) * layer->spec.out;
            int64_t points = sbni_conv_points(m, layer);
            if (points) SBN_TRY(own(m, points, size, work, &layer->points));
        }
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
        SBN_TRY(own(m, window, sizeof(int32_t), work, &m->scratch[t].offset));
        SBN_TRY(own(m, sums, sizeof(double), work, &m->scratch[t].sums));
    }
    return SBN_OK;
}

sbn_status sbni_plan_buffers(sbn_model *m)
{
    places of = {0};
    sbn_status status;
    SBN_GOTO(sbni_alloc(m->edge_count, sizeof *of.y, "model", &of.y));
    SBN_GOTO(sbni_alloc(m->edge_count, sizeof *of.dy, "model", &of.dy));
    SBN_GOTO(sbni_alloc(2 * m->edge_count + m->layer_count + 4 * m->threads,
                        sizeof *m->owned, "model", &m->owned));
    int64_t most = m->capacity + 1; /* a slice has at least one row */
    SBN_GOTO(sbni_alloc(most, sizeof *m->slices, "model", &m->slices));
    SBN_GOTO(sbni_alloc(most, sizeof *m->slice_loss, "model", &m->slice_loss));
    SBN_GOTO(sbni_alloc(most, sizeof *m->slice_correct, "model", &m->slice_correct));
    SBN_GOTO(sbni_plan_runs(m));
    skip_pools(m);
    share_places(m, of);
    choose_whole(m, of);
    SBN_GOTO(alloc_edges(m, of));
    SBN_GOTO(sbni_plan_ops(m));
    status = alloc_scratch(m);
fail:
    sbni_free(of.y);
    sbni_free(of.dy);
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
