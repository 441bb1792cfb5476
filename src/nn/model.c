#include "syncbn/model.h"

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "comm/alike.h"
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
                              .momentum = 0.1,
                              .overlap = SBN_OVERLAP_NETWORK,
                              .init_scale = 1,
                              .dropout = SBN_DROPOUT_NET};
}

/* Messages through memory take less time than to go through the slices twice. */
static bool wants_overlap(sbn_overlap overlap, const sbn_group *group)
{
    return group->size > 1 && overlap != SBN_OVERLAP_NEVER &&
           !(overlap == SBN_OVERLAP_NETWORK && group->by_memory);
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
    SBN_CHECK(cfg->label_smoothing >= 0 && cfg->label_smoothing < 1, SBN_E_ARG,
              "expected label smoothing of 0 to below 1, got %g", cfg->label_smoothing);
    SBN_CHECK(cfg->init_scale > 0 && isfinite(cfg->init_scale) && cfg->init_sigma >= 0 &&
                  isfinite(cfg->init_sigma),
              SBN_E_ARG,
              "expected a scale above 0 and a deviation >= 0 of initial weights, got %g "
              "and %g",
              cfg->init_scale, cfg->init_sigma);
    SBN_CHECK(cfg->dropout == SBN_DROPOUT_NET || (cfg->dropout >= 0 && cfg->dropout < 1),
              SBN_E_ARG, "expected a rate of dropout of 0 to below 1, got %g",
              cfg->dropout);
    SBN_CHECK(cfg->overlap == SBN_OVERLAP_NEVER || cfg->overlap == SBN_OVERLAP_ALWAYS ||
                  cfg->overlap == SBN_OVERLAP_NETWORK,
              SBN_E_ARG, "unknown choice %d of overlap", (int)cfg->overlap);
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
    m->overlaps = wants_overlap(cfg->overlap, group);
    m->pokes = m->overlaps && (m->threads == 1 || sbni_group_is_funneled());
    m->capacity = largest_share(m);
    sbni_gemm_setup();
    int64_t missing = sbni_gemm_reserve(omp_get_max_threads());
    SBN_CHECK(!missing, SBN_E_MEMORY, "work of BLAS: no memory for %" PRId64 " bytes",
              missing);
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
    uint64_t field[14] = {m->cfg.dtype,
                          m->cfg.seed,
                          (uint64_t)m->cfg.batch,
                          (uint64_t)m->cfg.norm_batch,
                          m->cfg.norm,
                          (uint64_t)m->cfg.norm_groups,
                          m->cfg.running,
                          m->cfg.overlap};
    memcpy(&field[8], &m->cfg.eps, 8);
    memcpy(&field[9], &m->cfg.momentum, 8);
    memcpy(&field[10], &m->cfg.label_smoothing, 8);
    memcpy(&field[11], &m->cfg.init_scale, 8);
    memcpy(&field[12], &m->cfg.init_sigma, 8);
    memcpy(&field[13], &m->cfg.dropout, 8);
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
    void *parts[] = {
        m->text,    m->layers,     m->edges,  m->params,     m->tensors,
        m->arena,   m->grad_arena, m->slices, m->slice_loss, m->slice_correct,
        m->scratch, m->owned,      m->runs,   m->ops};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) sbni_free(parts[i]);
    sbni_free(m->track.values);
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
    return sbni_model_last(m)->count;
}

const char *sbn_model_text(const sbn_model *m)
{
    return m->text;
}

sbn_model_memory sbn_model_get_memory(const sbn_model *m)
{
    sbn_model_memory all = m->memory;
    int64_t size = sbn_dtype_bytes(m->cfg.dtype);
    all.parameters_bytes = all.gradients_bytes = m->arena_count * size;
    all.messages_bytes = sbni_gradsync_bytes(m->sync);
    for (int i = 0; i < m->layer_count; i++) {
        if (!m->layers[i].norm) continue;
        all.parameters_bytes += 2 * m->layers[i].in->shape.c * size;
        sbni_norm_add_bytes(m->layers[i].norm, &all.work_bytes, &all.messages_bytes);
    }
    return all;
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
