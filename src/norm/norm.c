#include "norm/norm.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "comm/alike.h"
#include "core/memory.h"

sbn_norm_config sbn_norm_config_default(int64_t channels)
{
    return (sbn_norm_config){.channels = channels,
                             .dtype = SBN_F32,
                             .eps = 1e-5,
                             .momentum = 0.1,
                             .affine = true,
                             .affine_grad = true,
                             .track_running_stats = true,
                             .running = SBN_RUNNING_WHOLE_BATCH,
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
    SBN_CHECK(cfg->dtype == SBN_F32 || cfg->dtype == SBN_F64 || cfg->dtype == SBN_BF16,
              SBN_E_ARG, "%s: unknown element type %d", name, (int)cfg->dtype);
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
    int64_t batches = sbni_scope_norm_batches(cfg->batch, cfg->norm_batch), words;
    SBN_CHECK(
        !__builtin_mul_overflow(
            batches + 1, sbni_section_length(cfg->channels, SBNI_SECOND_WORDS), &words) &&
            words <= INT64_MAX / 64,
        SBN_E_ARG, "%s: %" PRId64 " norm batches are too many for one message", name,
        batches);
    SBN_CHECK(cfg->running == SBN_RUNNING_WHOLE_BATCH ||
                  cfg->running == SBN_RUNNING_MEAN_OF_NORM_BATCHES,
              SBN_E_ARG, "%s: unknown policy %d of running statistics", name,
              (int)cfg->running);
    SBN_CHECK(!cfg->relu || !cfg->second_order, SBN_E_ARG,
              "%s: expected no relu in a layer with second derivatives", name);
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
    uint64_t field[] = {(uint64_t)cfg->channels,
                        (uint64_t)cfg->dtype,
                        0,
                        0,
                        0,
                        0,
                        cfg->affine,
                        cfg->affine_grad,
                        cfg->track_running_stats,
                        (uint64_t)cfg->running,
                        (uint64_t)cfg->norm_batch,
                        (uint64_t)cfg->batch,
                        (uint64_t)cfg->correction,
                        cfg->relu,
                        cfg->second_order};
    memcpy(&field[2], &cfg->eps, 8);
    memcpy(&field[3], &cfg->momentum, 8);
    memcpy(&field[4], &cfg->r_max, 8);
    memcpy(&field[5], &cfg->d_max, 8);
    return (int64_t)(XXH3_64bits(field, sizeof field) >> 1);
}

static sbn_status alloc_state(sbn_norm *n)
{
    int64_t c = n->cfg.channels, size = sbn_dtype_bytes(n->state_dtype);
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

static sbn_status alloc_second(sbn_norm *n)
{
    int64_t all = n->batches * n->cfg.channels;
    SBN_TRY(sbni_norm_create_message(n, SBNI_SECOND_WORDS, "second", &n->second.message));
    return sbni_alloc(7 * all, sbn_dtype_bytes(n->state_dtype), n->name,
                      &n->second.factors);
}

static sbn_status alloc_work(sbn_norm *n)
{
    int64_t c = n->cfg.channels, all = (n->batches + 1) * c,
            size = sbn_dtype_bytes(n->state_dtype);
    void *elements[] = {&n->mean_hi, &n->mean_lo, &n->centre_hi, &n->centre_lo, &n->scale,
                        &n->shift,   &n->dx_a,    &n->dx_b,      &n->dx_k};
    /* first, as they know how long a message may be */
    SBN_TRY(sbni_norm_create_message(n, SBNI_MOMENT_WORDS, "forward", &n->forward));
    SBN_TRY(sbni_norm_create_message(n, SBNI_BACKWARD_WORDS, "backward", &n->backward));
    if (n->cfg.second_order) SBN_TRY(alloc_second(n));
    double **sums[] = {&n->mean_d, &n->var_d, &n->sum_dy, &n->sum_dy_xhat};
    for (int i = 0; i < 4; i++) SBN_TRY(sbni_alloc(n->batches * c, 8, n->name, sums[i]));
    SBN_TRY(sbni_alloc(all, 8, n->name, &n->rstd_d));
    SBN_TRY(sbni_alloc(all, 8, n->name, &n->gamma_d));
    for (size_t i = 0; i < sizeof elements / sizeof *elements; i++)
        SBN_TRY(sbni_alloc(all, size, n->name, elements[i]));
    if (n->cfg.correction == SBN_CORRECTION_RENORM) {
        SBN_TRY(sbni_alloc(all, 8, n->name, &n->r));
        SBN_TRY(sbni_alloc(all, 8, n->name, &n->d));
        SBN_TRY(sbni_alloc(c, 8, n->name, &n->weight_grad_d));
    }
    SBN_TRY(sbni_alloc(sbni_norm_folded_words(n), 8, n->name, &n->folded));
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
    n->kernels = sbni_norm_kernels_get(cfg->dtype);
    n->words = sbni_words_kernels_get(cfg->dtype);
    n->state_dtype = cfg->dtype == SBN_BF16 ? SBN_F32 : cfg->dtype;
    n->id = group->layers;
    n->batches = sbni_scope_norm_batches(cfg->batch, cfg->norm_batch);
    SBN_TRY(sbni_copy_string(cfg->name ? cfg->name : "norm", &n->name));
    n->cfg.name = n->name;
    SBN_TRY(alloc_state(n));
    return alloc_work(n);
}

static sbn_status connect_all(sbn_norm *n)
{
    SBN_TRY(sbni_reduce_connect(&n->forward));
    SBN_TRY(sbni_reduce_connect(&n->backward));
    return n->cfg.second_order ? sbni_reduce_connect(&n->second.message) : SBN_OK;
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
    if (status == SBN_OK) status = connect_all(*norm);
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
    sbni_reduce_destroy(&n->precise);
    sbni_reduce_destroy(&n->second.message);
    sbni_samples_free(&n->samples);
    sbni_samples_free(&n->aside);
    void *owned[] = {n->name,
                     n->state.running_mean,
                     n->state.running_var,
                     n->mask,
                     n->mean_d,
                     n->var_d,
                     n->sum_dy,
                     n->sum_dy_xhat,
                     n->second.factors,
                     n->rstd_d,
                     n->gamma_d,
                     n->r,
                     n->d,
                     n->weight_grad_d,
                     n->folded,
                     n->mean_hi,
                     n->mean_lo,
                     n->centre_hi,
                     n->centre_lo,
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

void sbni_norm_put(const sbn_norm *norm, void *array, int64_t from, int64_t count,
                   const double *v)
{
    if (norm->state_dtype == SBN_F64)
        memcpy(sbni_norm_at(norm, array, from), v, (size_t)count * sizeof *v);
    else
        for (int64_t i = 0; i < count; i++) ((float *)array)[from + i] = (float)v[i];
}

sbn_norm_state sbn_norm_get_state(sbn_norm *norm)
{
    return norm->state;
}

bool sbn_norm_is_rounded(const sbn_norm *norm)
{
    return norm->forward.fine || norm->backward.fine || norm->second.message.fine;
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

uint32_t sbni_norm_tag(const sbn_norm *norm, uint32_t what)
{
    uint32_t h = norm->id * 0x9e3779b1u ^ what * 0x85ebca77u ^ norm->calls * 0xc2b2ae3du;
    h ^= h >> 15;
    return h * 0x2c1b3c6du;
}

sbn_status sbn_norm_set_mode(sbn_norm *norm, sbn_norm_mode mode)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG, "sbn_norm_set_mode: expected a layer, got NULL");
    SBN_CHECK(mode >= SBN_NORM_TRAIN && mode <= SBN_NORM_FROZEN, SBN_E_ARG,
              "%s: unknown mode %d", norm->name, (int)mode);
    SBN_CHECK(mode != SBN_NORM_FROZEN || norm->cfg.track_running_stats, SBN_E_ARG,
              "%s: a layer without running statistics cannot be frozen", norm->name);
    norm->mode = mode;
    return SBN_OK;
}
