#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "core/rng.h"
#include "nn/layer.h"
#include "norm/norm.h"

/* Tensors begin on a cache line of the arena; the gaps stay zero. */
enum { PAD = 16 };

static int add(sbn_model *m, const sbni_layer *layer, const char *what, int axes,
               const int64_t *shape, int64_t fan_in)
{
    sbni_param *p = &m->params[m->param_count];
    snprintf(p->name, sizeof p->name, "%s.%s", layer->spec.name, what);
    p->tensor = (sbn_model_tensor){.name = p->name, .axes = axes, .count = 1};
    for (int i = 0; i < axes; i++) {
        p->tensor.shape[i] = shape[i];
        p->tensor.count *= shape[i];
    }
    p->offset = p->sync = -1;
    p->fan_in = fan_in;
    return m->param_count++;
}

static void add_params(sbn_model *m, sbni_layer *layer)
{
    int64_t k = layer->spec.kernel, c = layer->in->shape.c, out = layer->spec.out;
    int64_t conv[4] = {out, c, k, k}, linear[2] = {out, layer->in->count};
    switch (layer->spec.kind) {
    case SBNI_LAYER_CONV:
        layer->weight = add(m, layer, "weight", 4, conv, c * k * k);
        layer->bias = add(m, layer, "bias", 1, conv, c * k * k);
        break;
    case SBNI_LAYER_LINEAR:
        layer->weight = add(m, layer, "weight", 2, linear, linear[1]);
        layer->bias = add(m, layer, "bias", 1, linear, linear[1]);
        break;
    case SBNI_LAYER_NORM:
    case SBNI_LAYER_GROUPNORM:
        layer->weight = add(m, layer, "weight", 1, &c, 0);
        layer->bias = add(m, layer, "bias", 1, &c, -1);
        break;
    default:
        return;
    }
    sbni_param *weight = &m->params[layer->weight];
    weight->tensor.decays =
        layer->spec.kind == SBNI_LAYER_CONV || layer->spec.kind == SBNI_LAYER_LINEAR;
    for (int i = layer->weight; i <= layer->bias; i++) {
        m->params[i].offset = m->arena_count;
        m->arena_count += (m->params[i].tensor.count + PAD - 1) / PAD * PAD;
    }
}

static void add_buffers(sbn_model *m, const sbni_layer *layer)
{
    if (layer->spec.kind != SBNI_LAYER_NORM) return;
    sbn_norm_state state = sbn_norm_get_state(layer->norm);
    int64_t c = layer->in->shape.c;
    m->params[add(m, layer, "running_mean", 1, &c, -1)].tensor.data = state.running_mean;
    m->params[add(m, layer, "running_var", 1, &c, -1)].tensor.data = state.running_var;
    sbni_param *count = &m->params[add(m, layer, "num_batches_tracked", 0, NULL, -1)];
    count->tensor.data = state.num_batches_tracked;
    count->tensor.is_integer = true;
}

/* Draws are keyed by the tensor's name, so that leaving a layer out moves nothing else.
 */
static uint32_t name_key(const char *name)
{
    uint32_t h = 2166136261u;
    for (; *name; name++) h = (h ^ (uint8_t)*name) * 16777619u;
    return h;
}

static double initial(const sbn_model *m, const sbni_param *p, sbni_rng_key key,
                      uint64_t i)
{
    if (p->fan_in <= 0) return p->fan_in == 0;
    double scale = p->tensor.decays ? m->cfg.init_scale : 1;
    if (m->cfg.init_sigma > 0)
        return p->tensor.decays ? scale * m->cfg.init_sigma * sbni_rng_normal(key, i, 0)
                                : 0;
    return scale / sqrt((double)p->fan_in) * (2 * sbni_rng_uniform(key, i, 0) - 1);
}

static void initialize(sbn_model *m, const sbni_param *p)
{
    sbni_rng_key key = {m->cfg.seed, SBNI_RNG_INIT, name_key(p->name)};
    for (int64_t i = 0; i < p->tensor.count; i++) {
        double v = initial(m, p, key, (uint64_t)i);
        if (m->cfg.dtype == SBN_F64)
            ((double *)p->tensor.data)[i] = v;
        else
            ((float *)p->tensor.data)[i] = (float)v;
    }
}

static void bind(const sbn_model *m, const sbni_layer *layer)
{
    const sbn_model_tensor *weight = &m->params[layer->weight].tensor,
                           *bias = &m->params[layer->bias].tensor;
    sbni_norm_bind(layer->norm, weight->data, weight->grad, bias->data, bias->grad);
}

static sbn_status create_sync(sbn_model *m)
{
    sbni_gradsync_tensor *list;
    SBN_TRY(sbni_alloc(m->param_count, sizeof *list, "model", &list));
    int n = 0;
    for (int i = 0; i < m->layer_count; i++) {
        /* norm layers sum their own; pools and the like have none */
        if (m->layers[i].norm || m->layers[i].weight < 0) continue;
        for (int k = m->layers[i].weight; k <= m->layers[i].bias; k++) {
            list[n] = (sbni_gradsync_tensor){m->params[k].name, m->params[k].tensor.count,
                                             m->runs[m->layers[i].run].segment};
            m->params[k].sync = n++;
        }
    }
    /* beside the gradients: the loss on the grid, the count of correct samples, votes */
    sbn_status status = sbni_gradsync_create(m->group, list, n, m->segment_count,
                                             m->threads, SBNI_SUM_WORDS + 2, &m->sync);
    sbni_free(list);
    return status;
}

sbn_status sbni_params_create(sbn_model *m)
{
    int64_t size = sbn_dtype_bytes(m->cfg.dtype);
    SBN_TRY(sbni_alloc(5 * m->layer_count, sizeof *m->params, "model", &m->params));
    for (int i = 0; i < m->layer_count; i++) add_params(m, &m->layers[i]);
    SBN_TRY(sbni_alloc(m->arena_count, size, "parameters", &m->arena));
    SBN_TRY(sbni_alloc(m->arena_count, size, "gradients", &m->grad_arena));
    for (int i = 0; i < m->param_count; i++) {
        m->params[i].tensor.data = sbni_at(m, m->arena, m->params[i].offset);
        m->params[i].tensor.grad = sbni_at(m, m->grad_arena, m->params[i].offset);
        initialize(m, &m->params[i]);
    }
    for (int i = 0; i < m->layer_count; i++) {
        const sbni_layer *layer = &m->layers[i];
        if (layer->norm) bind(m, layer);
        add_buffers(m, layer);
    }
    SBN_TRY(sbni_norm_layers_reserve(m));
    SBN_TRY(sbni_alloc(m->param_count, sizeof *m->tensors, "model", &m->tensors));
    for (int i = 0; i < m->param_count; i++) m->tensors[i] = m->params[i].tensor;
    return create_sync(m);
}

void sbni_layer_add_grad(sbn_model *m, int param, const void *grad, int thread)
{
    const sbni_param *p = &m->params[param];
    bool first;
    uint64_t *words = sbni_gradsync_words(m->sync, thread, p->sync, &first);
    double largest = m->kernels->grad_quantize(
        grad, p->tensor.count, sbni_gradsync_scale(m->sync, p->sync), first, words);
    sbni_gradsync_note(m->sync, thread, p->sync, largest);
}
