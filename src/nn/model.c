#include "syncbn/model.h"

#include <inttypes.h>
#include <omp.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "comm/exact.h"
#include "core/memory.h"
#include "kernels/gemm.h"
#include "nn/layer.h"
#include "nn/normkind.h"

/* Evaluation goes in pieces of at least this many samples, whatever the batch. */
enum { EVALUATE_ROWS = 8 * SBN_SLICE };

sbn_model_config sbn_model_config_default(const char *net, int64_t batch)
{
    return (sbn_model_config){.net = net,
                              .dtype = SBN_F32,
                              .seed = 1,
                              .batch = batch,
                              .norm_batch = SBN_NORM_BATCH_ALL,
                              .norm = SBN_MODEL_NORM_BATCH,
                              .norm_groups = 1,
                              .eps = 1e-5,
                              .momentum = 0.1};
}

static int64_t largest_share(const sbn_model *m)
{
    int64_t most = EVALUATE_ROWS, size = sbn_group_size(m->group);
    for (int r = 0; r < size; r++) {
        int64_t first, n;
        sbni_scope_share(m->cfg.batch, m->cfg.norm_batch, r, (int)size, &first, &n);
        /* a shorter batch never gives a process more than one slice above its share of a
         * full one */
        if (n + SBN_SLICE > most) most = n + SBN_SLICE;
    }
    return most;
}

/* Everything that one process does alone before the norm layers are made together. */
static sbn_status create_local(const sbn_model_config *cfg, sbn_group *group,
                               sbn_model **model)
{
    SBN_CHECK(cfg->net != NULL, SBN_E_ARG, "expected a net");
    SBN_CHECK(cfg->dtype == SBN_F32 || cfg->dtype == SBN_F64, SBN_E_ARG,
              "unknown element type %d", (int)cfg->dtype);
    const int64_t most = (int64_t)SBNI_GRADSYNC_SLICES * SBN_SLICE;
    SBN_CHECK(cfg->batch >= 1 && cfg->batch <= most, SBN_E_ARG,
              "expected batch 1 to %" PRId64 ", got %" PRId64, most, cfg->batch);
    SBN_CHECK(cfg->norm_batch == SBN_NORM_BATCH_ALL ||
                  (cfg->norm_batch >= 1 && cfg->norm_batch <= cfg->batch),
              SBN_E_ARG, "expected norm batch 1 to batch %" PRId64 ", got %" PRId64,
              cfg->batch, cfg->norm_batch);
    SBN_TRY(sbni_normkind_check(cfg->norm, cfg->norm_groups));
    int64_t slices = sbni_scope_cut(0, cfg->batch, cfg->norm_batch, NULL);
    SBN_CHECK(slices <= SBNI_GRADSYNC_SLICES, SBN_E_ARG,
              "batch %" PRId64 " in norm batches of %" PRId64 " has %" PRId64
              " slices; expected at most %d",
              cfg->batch, cfg->norm_batch, slices, SBNI_GRADSYNC_SLICES);
    SBN_TRY(sbni_alloc(1, sizeof **model, "model", model));
    sbn_model *m = *model;
    m->cfg = *cfg;
    m->group = group;
    m->kernels = sbni_kernels_get(cfg->dtype);
    m->threads = omp_get_max_threads();
    m->capacity = largest_share(m);
    sbni_gemm_setup();
    if (cfg->text)
        SBN_TRY(sbni_copy_string(cfg->text, &m->text));
    else
        SBN_TRY(sbni_net_read(cfg->net, &m->text));
    sbni_net net;
    SBN_TRY(sbni_net_parse(cfg->net, m->text, &net));
    sbn_status status = sbni_plan_shapes(m, &net);
    sbni_net_free(&net);
    SBN_TRY(status);
    return sbni_plan_buffers(m);
}

/* Nets of other layers would send other messages, and other settings other weights. */
static sbn_status check_alike(const sbn_model *m)
{
    uint64_t field[9] = {m->cfg.dtype,
                         m->cfg.seed,
                         (uint64_t)m->cfg.batch,
                         (uint64_t)m->cfg.norm_batch,
                         m->cfg.norm,
                         (uint64_t)m->cfg.norm_groups,
                         m->cfg.running};
    memcpy(&field[7], &m->cfg.eps, 8);
    memcpy(&field[8], &m->cfg.momentum, 8);
    SBN_TRY(sbni_group_check_same(m->group,
                                  (int64_t)(XXH3_64bits(m->text, strlen(m->text)) >> 1),
                                  "digest of the net's text"));
    return sbni_group_check_same(m->group,
                                 (int64_t)(XXH3_64bits(field, sizeof field) >> 1),
                                 "digest of the model's settings");
}

sbn_status sbn_model_create(const sbn_model_config *cfg, sbn_group *group,
                            sbn_model **model)
{
    SBN_CHECK(cfg && group && model, SBN_E_ARG,
              "sbn_model_create: expected settings, a group and a place for the model");
    *model = NULL;
    sbn_status status;
    SBN_GOTO(sbn_group_agree(group, create_local(cfg, group, model)));
    (*model)->cfg.net = (*model)->cfg.text = NULL; /* the caller's, perhaps gone later */
    SBN_GOTO(check_alike(*model));
    SBN_GOTO(sbni_norm_layers_create(*model));
    SBN_GOTO(sbn_group_agree(group, sbni_params_create(*model)));
    SBN_GOTO(sbni_gradsync_connect((*model)->sync));
    return SBN_OK;
fail:
    sbn_model_destroy(model);
    return status;
}

void sbn_model_destroy(sbn_model **model)
{
    if (!model || !*model) return;
    sbn_model *m = *model;
    for (int i = 0; i < m->layer_count; i++) sbn_norm_destroy(&m->layers[i].norm);
    for (int i = 0; i < m->owned_count; i++) sbni_free(m->owned[i]);
    sbni_gradsync_destroy(&m->sync);
    void *parts[] = {m->text,       m->layers,        m->edges,      m->params,
                     m->tensors,    m->arena,         m->grad_arena, m->slices,
                     m->slice_loss, m->slice_correct, m->scratch,    m->owned};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) sbni_free(parts[i]);
    sbni_free(m);
    *model = NULL;
}

sbn_tensor sbn_model_input_shape(const sbn_model *m)
{
    sbni_image s = m->edges[0].shape;
    return sbn_tensor_nchw(m->cfg.dtype, NULL, 0, s.c, s.h, s.w);
}

int64_t sbn_model_classes(const sbn_model *m)
{
    return m->edges[m->layer_count].count;
}

const char *sbn_model_text(const sbn_model *m)
{
    return m->text;
}

const sbn_model_tensor *sbn_model_tensors(const sbn_model *m, int *n)
{
    *n = m->param_count;
    return m->tensors;
}

int64_t *sbn_model_grad_exponents(sbn_model *m, int *n)
{
    *n = 0;
    for (int i = 0; i < m->param_count; i++) *n += m->params[i].sync >= 0;
    return sbni_gradsync_exponents(m->sync);
}

sbn_status sbn_model_share(const sbn_model *m, int64_t total, int64_t *first, int64_t *n)
{
    SBN_CHECK(total >= 1 && total <= m->cfg.batch, SBN_E_ARG,
              "expected a batch of 1 to %" PRId64 " samples, got %" PRId64, m->cfg.batch,
              total);
    sbni_scope_share(total, m->cfg.norm_batch, sbn_group_rank(m->group),
                     sbn_group_size(m->group), first, n);
    return SBN_OK;
}

void *sbn_model_input(sbn_model *m, int64_t *capacity)
{
    *capacity = m->capacity;
    return m->edges[0].y;
}

/* Layers [from, to) on every slice, forward or backward; threads share out the slices. */
static void run_layers(sbn_model *m, int from, int to, bool backward)
{
#pragma omp parallel for schedule(static) num_threads(m->threads)
    for (int64_t k = 0; k < m->slice_count; k++) {
        sbni_task task = {m->slices[k], k, omp_get_thread_num()};
        for (int i = 0; i < to - from; i++) {
            const sbni_layer *layer = &m->layers[backward ? to - 1 - i : from + i];
            const sbni_layer_ops *ops = sbni_layer_ops_of(layer->spec.kind);
            (backward ? ops->backward : ops->forward)(m, layer, task);
        }
    }
}

static bool is_norm(const sbn_model *m, int i)
{
    return m->layers[i].spec.kind == SBNI_LAYER_NORM;
}

sbn_status sbni_model_forward(sbn_model *m, int64_t n, bool training, int until)
{
    for (int from = 0, to; from < until; from = to) {
        to = from;
        while (to < until && !is_norm(m, to)) to++;
        run_layers(m, from, to, false);
        if (to < until)
            SBN_TRY(sbni_norm_layer_forward(m, &m->layers[to++], n, training));
    }
    return SBN_OK;
}

static sbn_status backward(sbn_model *m, int64_t n)
{
    for (int to = m->layer_count, from; to > 0; to = from) {
        from = to;
        while (from > 0 && !is_norm(m, from - 1)) from--;
        run_layers(m, from, to, true);
        if (from > 0) SBN_TRY(sbni_norm_layer_backward(m, &m->layers[--from], n));
    }
    return SBN_OK;
}

/* Labels index the outputs, so a wrong one must not get that far. */
static sbn_status check_labels(const sbn_model *m, const int32_t *labels, int64_t n)
{
    int64_t classes = sbn_model_classes(m);
    SBN_CHECK(labels || n == 0, SBN_E_ARG, "expected labels, got NULL");
    for (int64_t i = 0; i < n; i++)
        SBN_CHECK(labels[i] >= 0 && labels[i] < classes, SBN_E_ARG,
                  "label of sample %" PRId64 ": expected 0 to %" PRId64 ", got %d", i,
                  classes - 1, (int)labels[i]);
    return SBN_OK;
}

static sbn_status add_to_sum(double loss, uint64_t *words)
{
    int flags = sbni_exact_add(loss, words);
    SBN_CHECK(!(flags & SBNI_GRID_NONFINITE), SBN_E_NONFINITE,
              "the loss is NaN or infinite");
    SBN_CHECK(!flags, SBN_E_RANGE, "a loss of %g is too large for the exact sums", loss);
    return SBN_OK;
}

/* This process's loss and correct count, into the words that travel with the gradients.
 */
static sbn_status add_loss(const sbn_model *m, uint64_t *words)
{
    for (int64_t k = 0; k < m->slice_count; k++) {
        SBN_TRY(add_to_sum(m->slice_loss[k], words));
        words[SBNI_SUM_WORDS] += (uint64_t)m->slice_correct[k];
    }
    return SBN_OK;
}

static void read_gradients(sbn_model *m)
{
    for (int i = 0; i < m->param_count; i++) {
        const sbni_param *p = &m->params[i];
        if (p->sync < 0) continue;
        m->kernels->grad_dequantize(sbni_gradsync_sum(m->sync, p->sync), p->tensor.count,
                                    sbni_gradsync_unit(m->sync, p->sync), p->tensor.grad);
    }
}

sbn_status sbn_model_gradient(sbn_model *m, const int32_t *labels, int64_t total,
                              sbn_model_result *result)
{
    int64_t first, n;
    SBN_TRY(sbn_model_share(m, total, &first, &n));
    sbn_status mine = check_labels(m, labels, n); /* reported in the last message */
    m->labels = mine == SBN_OK ? labels : NULL;
    m->loss_weight = 1.0 / (double)total;
    m->slice_count = sbni_scope_cut(first, n, m->cfg.norm_batch, m->slices);
    for (int i = 0; i < m->layer_count; i++)
        if (m->layers[i].norm) SBN_TRY(sbn_norm_set_place(m->layers[i].norm, first));
    SBN_TRY(sbni_model_forward(m, n, true, m->layer_count));
    bool again;
    do {
        sbni_gradsync_clear(m->sync);
        SBN_TRY(backward(m, n));
        if (mine == SBN_OK) mine = add_loss(m, sbni_gradsync_extra(m->sync));
        SBN_TRY(sbni_gradsync_run(m->sync, mine, &again));
    } while (again);
    read_gradients(m);
    const uint64_t *sums = sbni_gradsync_extra_sum(m->sync);
    result->loss = sbn_model_loss(sums) / (double)total;
    result->correct = (int64_t)sums[SBNI_SUM_WORDS];
    return SBN_OK;
}

sbn_status sbn_model_evaluate(sbn_model *m, const int32_t *labels, int64_t n,
                              uint64_t loss_words[4], int64_t *correct)
{
    SBN_CHECK(n >= 0 && n <= m->capacity, SBN_E_ARG,
              "expected 0 to %" PRId64 " samples, got %" PRId64, m->capacity, n);
    SBN_TRY(check_labels(m, labels, n));
    m->slice_count = sbni_scope_cut(0, n, SBN_NORM_BATCH_ALL, m->slices);
    SBN_TRY(sbni_model_forward(m, n, false, m->layer_count));
    const sbni_edge *last = &m->edges[m->layer_count];
    for (int64_t k = 0; k < m->slice_count; k++) {
        sbni_task task = {m->slices[k], k, 0};
        double loss = m->kernels->nll(sbni_edge_y(m, last, task), labels + task.slice.row,
                                      task.slice.n, last->count, 0, correct, NULL);
        SBN_TRY(add_to_sum(loss, loss_words));
    }
    return SBN_OK;
}

double sbn_model_loss(const uint64_t loss_words[4])
{
    return sbni_exact_sum(loss_words, 1);
}
