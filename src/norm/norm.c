#include "norm/norm.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/memory.h"

sbn_norm_config sbn_norm_config_default(int64_t channels)
{
    return (sbn_norm_config){.channels = channels,
                             .dtype = SBN_F32,
                             .eps = 1e-5,
                             .momentum = 0.1,
                             .affine = true,
                             .track_running_stats = true,
                             .norm_batch = SBN_NORM_BATCH_ALL,
                             .batch = 0,
                             .correction = SBN_CORRECTION_NONE,
                             .r_max = 1,
                             .d_max = 0,
                             .name = "norm"};
}

static sbn_status check_config(const sbn_norm_config *cfg)
{
    const char *name = cfg->name ? cfg->name : "norm";
    SBN_CHECK(cfg->channels >= 1 && cfg->channels <= INT32_MAX / 64, SBN_E_ARG,
              "%s: expected channels 1 to %d, got %" PRId64, name, INT32_MAX / 64,
              cfg->channels);
    SBN_CHECK(cfg->dtype == SBN_F32 || cfg->dtype == SBN_F64, SBN_E_ARG,
              "%s: unknown element type %d", name, (int)cfg->dtype);
    SBN_CHECK(cfg->eps > 0 && isfinite(cfg->eps), SBN_E_ARG,
              "%s: expected eps > 0, got %g", name, cfg->eps);
    SBN_CHECK((cfg->momentum >= 0 && cfg->momentum <= 1) ||
                  cfg->momentum == SBN_MOMENTUM_CUMULATIVE,
              SBN_E_ARG,
              "%s: expected momentum 0 to 1 or SBN_MOMENTUM_CUMULATIVE, got %g", name,
              cfg->momentum);
    SBN_CHECK(cfg->norm_batch >= 0, SBN_E_ARG,
              "%s: expected norm_batch >= 1 or SBN_NORM_BATCH_ALL, got %" PRId64, name,
              cfg->norm_batch);
    SBN_CHECK(cfg->norm_batch == SBN_NORM_BATCH_ALL || cfg->batch >= cfg->norm_batch,
              SBN_E_ARG, "%s: expected batch >= norm_batch %" PRId64 ", got %" PRId64,
              name, cfg->norm_batch, cfg->batch);
    SBN_CHECK(cfg->correction == SBN_CORRECTION_NONE ||
                  (cfg->correction == SBN_CORRECTION_RENORM && cfg->track_running_stats),
              SBN_E_ARG, "%s: expected renorm with tracked running statistics", name);
    SBN_CHECK(cfg->r_max >= 1 && cfg->d_max >= 0, SBN_E_ARG,
              "%s: expected r_max >= 1 and d_max >= 0, got %g and %g", name, cfg->r_max,
              cfg->d_max);
    return SBN_OK;
}

/* One number that differs when any setting does. */
static int64_t config_digest(const sbn_norm_config *cfg)
{
    uint64_t field[11] = {(uint64_t)cfg->channels,
                          (uint64_t)cfg->dtype,
                          0,
                          0,
                          (uint64_t)cfg->affine,
                          cfg->track_running_stats,
                          (uint64_t)cfg->norm_batch,
                          (uint64_t)cfg->batch,
                          (uint64_t)cfg->correction,
                          0,
                          0};
    memcpy(&field[2], &cfg->eps, 8);
    memcpy(&field[3], &cfg->momentum, 8);
    memcpy(&field[9], &cfg->r_max, 8);
    memcpy(&field[10], &cfg->d_max, 8);
    uint64_t h = 0x9e3779b97f4a7c15;
    for (int i = 0; i < 11; i++) {
        h = (h ^ field[i]) * 0xff51afd7ed558ccd;
        h ^= h >> 32;
    }
    return (int64_t)(h >> 1);
}

static sbn_status alloc_state(sbn_norm *n)
{
    int64_t c = n->cfg.channels, size = sbn_dtype_bytes(n->cfg.dtype);
    if (n->cfg.affine) {
        SBN_TRY(sbni_alloc(c, size, n->name, &n->state.weight));
        SBN_TRY(sbni_alloc(c, size, n->name, &n->state.bias));
        SBN_TRY(sbni_alloc(c, size, n->name, &n->state.weight_grad));
        SBN_TRY(sbni_alloc(c, size, n->name, &n->state.bias_grad));
        for (int64_t i = 0; i < c; i++) sbni_norm_set(n, n->state.weight, i, 1);
    }
    if (n->cfg.track_running_stats) {
        SBN_TRY(sbni_alloc(c, size, n->name, &n->state.running_mean));
        SBN_TRY(sbni_alloc(c, size, n->name, &n->state.running_var));
        for (int64_t i = 0; i < c; i++) sbni_norm_set(n, n->state.running_var, i, 1);
        n->state.num_batches_tracked = &n->batches_tracked;
    }
    return SBN_OK;
}

/* Room for all norm batches, with `words` words for each of their channels. */
static sbn_status create_message(sbn_norm *n, int words, sbni_reduce *reduce)
{
    int64_t length = sbni_norm_section(n, n->batches, words) - SBNI_HEAD_WORDS;
    sbn_status status = sbni_reduce_create(n->group, length, reduce);
    return status == SBN_OK ? SBN_OK : sbni_fail_in(status, "%s", n->name);
}

static sbn_status alloc_work(sbn_norm *n)
{
    int64_t c = n->cfg.channels, all = (n->batches + 1) * c,
            size = sbn_dtype_bytes(n->cfg.dtype);
    void *elements[] = {&n->mean_hi, &n->mean_lo, &n->scale,
                        &n->dx_a,    &n->dx_b,    &n->dx_k};
    /* first, as they know how long a message may be */
    SBN_TRY(create_message(n, SBNI_MOMENT_WORDS, &n->forward));
    SBN_TRY(create_message(n, SBNI_BACKWARD_WORDS, &n->backward));
    SBN_TRY(sbni_alloc(all, 8, n->name, &n->rstd_d));
    for (int i = 0; i < 6; i++) SBN_TRY(sbni_alloc(all, size, n->name, elements[i]));
    SBN_TRY(sbni_alloc(all, size, n->name, &n->shift));
    SBN_TRY(sbni_alloc(all, sizeof *n->corrections, n->name, &n->corrections));
    SBN_TRY(sbni_alloc(c, 8, n->name, &n->weight_grad_d));
    return sbni_alloc(n->batches, 8, n->name, &n->counts);
}

static sbn_status create_local(const sbn_norm_config *cfg, sbn_group *group,
                               sbn_norm **norm)
{
    SBN_CHECK(cfg && norm, SBN_E_ARG,
              "sbn_norm_create: expected settings and a place for the layer");
    SBN_TRY(check_config(cfg));
    SBN_TRY(sbni_alloc(1, sizeof **norm, "norm", norm));
    sbn_norm *n = *norm;
    n->cfg = *cfg;
    n->group = group;
    n->kernels = sbni_kernels_get(cfg->dtype);
    n->id = group->layers;
    n->batches = sbni_scope_norm_batches(cfg->batch, cfg->norm_batch);
    SBN_TRY(sbni_copy_string(cfg->name ? cfg->name : "norm", &n->name));
    n->cfg.name = n->name;
    SBN_TRY(alloc_state(n));
    return alloc_work(n);
}

sbn_status sbn_norm_create(const sbn_norm_config *cfg, sbn_group *group, sbn_norm **norm)
{
    SBN_CHECK(group != NULL, SBN_E_ARG, "sbn_norm_create: expected a group, got NULL");
    if (norm) *norm = NULL;
    sbn_status status = sbn_group_agree(group, create_local(cfg, group, norm));
    /* also when a process failed: the next layer has one number on all of them */
    group->layers++;
    if (status == SBN_OK)
        status =
            sbni_group_check_same(group, config_digest(cfg), "sbn_norm_create: settings");
    if (status != SBN_OK) sbn_norm_destroy(norm);
    return status;
}

static void free_affine(sbn_norm *norm)
{
    if (norm->borrowed) return;
    sbni_free(norm->state.weight);
    sbni_free(norm->state.bias);
    sbni_free(norm->state.weight_grad);
    sbni_free(norm->state.bias_grad);
}

void sbn_norm_destroy(sbn_norm **norm)
{
    if (!norm || !*norm) return;
    sbn_norm *n = *norm;
    free_affine(n);
    sbni_reduce_destroy(&n->forward);
    sbni_reduce_destroy(&n->backward);
    void *owned[] = {n->name,
                     n->state.running_mean,
                     n->state.running_var,
                     n->slices,
                     n->sums,
                     n->rstd_d,
                     n->corrections,
                     n->weight_grad_d,
                     n->mean_hi,
                     n->mean_lo,
                     n->scale,
                     n->shift,
                     n->dx_a,
                     n->dx_b,
                     n->dx_k,
                     n->counts};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) sbni_free(owned[i]);
    sbni_free(n);
    *norm = NULL;
}

sbn_norm_state sbn_norm_get_state(sbn_norm *norm)
{
    return norm->state;
}

void sbni_norm_bind(sbn_norm *norm, void *weight, void *weight_grad, void *bias,
                    void *bias_grad)
{
    free_affine(norm);
    norm->borrowed = true;
    norm->state.weight = weight;
    norm->state.weight_grad = weight_grad;
    norm->state.bias = bias;
    norm->state.bias_grad = bias_grad;
}

void sbn_norm_set_mode(sbn_norm *norm, sbn_norm_mode mode)
{
    norm->mode = mode;
}

sbn_status sbn_norm_set_place(sbn_norm *norm, int64_t first)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG, "sbn_norm_set_place: expected a layer, got NULL");
    SBN_CHECK(first >= 0 && (norm->cfg.norm_batch == SBN_NORM_BATCH_ALL ||
                             first <= norm->cfg.batch),
              SBN_E_ARG, "%s: expected first sample 0 to %" PRId64 ", got %" PRId64,
              norm->name, norm->cfg.batch, first);
    norm->first = first;
    return SBN_OK;
}

uint32_t sbni_norm_tag(const sbn_norm *norm, sbni_norm_phase phase)
{
    uint32_t h = norm->id * 0x9e3779b1u ^ (uint32_t)phase * 0x85ebca77u ^
                 norm->calls * 0xc2b2ae3du;
    h ^= h >> 15;
    return h * 0x2c1b3c6du;
}

void sbni_norm_set_factors(sbn_norm *norm, int64_t g, int64_t i, sbni_moments m,
                           sbni_correction correction)
{
    int64_t at = g * norm->cfg.channels + i;
    /* (6): one rounding of rstd, shared by forward and backward */
    double rstd = 1.0 / sqrt(m.var + norm->cfg.eps);
    double gamma = norm->cfg.affine ? sbni_norm_get(norm, norm->state.weight, i) : 1.0;
    norm->rstd_d[at] = rstd;
    sbni_norm_set(norm, norm->mean_hi, at, m.mean);
    double rest = (m.mean - sbni_norm_get(norm, norm->mean_hi, at)) + m.mean_low;
    sbni_norm_set(norm, norm->mean_lo, at, rest);
    norm->corrections[at] = correction;
    sbni_norm_set(norm, norm->scale, at, gamma * rstd * correction.r);
    double beta = norm->cfg.affine ? sbni_norm_get(norm, norm->state.bias, i) : 0.0;
    sbni_norm_set(norm, norm->shift, at, beta + gamma * correction.d);
}

void sbni_norm_apply(const sbn_norm *norm, const sbn_tensor *x, sbn_tensor *y,
                     bool evaluation)
{
    int64_t count = evaluation ? (x->n + SBN_SLICE - 1) / SBN_SLICE : norm->slice_count;
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < count; k++) {
        int64_t left = x->n - k * SBN_SLICE;
        sbni_slice slice = {k * SBN_SLICE, left < SBN_SLICE ? left : SBN_SLICE,
                            norm->batches};
        if (!evaluation) slice = norm->slices[k];
        sbni_channels ch = sbni_norm_channels(norm, slice.norm_batch);
        norm->kernels->norm_normalize(sbni_norm_row(x, slice.row), slice.n, x->c,
                                      sbni_tensor_s(x), &ch, sbni_norm_row(y, slice.row));
    }
}
