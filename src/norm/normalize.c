#include "norm/norm.h"

#include <inttypes.h>
#include <omp.h>
#include <stddef.h>

/* The elementwise half of forward: factors, y, and forwards without a message. */

void sbni_norm_set_factors(sbn_norm *norm, int64_t g, int64_t first, int64_t count,
                           const sbni_statistics *statistics)
{
    const sbni_channels to = sbni_norm_channels(norm, g, first);
    int64_t at = g * norm->cfg.channels + first;
    sbni_affine affine = {.eps = norm->cfg.eps};
    if (norm->cfg.affine) {
        affine.gamma = sbni_norm_at(norm, norm->state.weight, first);
        affine.beta = sbni_norm_at(norm, norm->state.bias, first);
    }
    if (norm->r) affine.r = norm->r + at, affine.d = norm->d + at;
    norm->kernels->norm_factors(count, statistics, &affine, &to);
}

void sbni_norm_clear(const sbn_norm *norm, const sbni_samples *samples, sbn_tensor *t,
                     bool planes)
{
    if (!samples->dropped) return;
    sbni_block b =
        sbni_norm_block(samples, samples->kept, samples->dropped, t, t->c, planes);
    sbni_view v = sbni_norm_view(t, 0);
    norm->kernels->norm_clear(&b, &v);
}

void sbni_norm_apply_run(const sbn_norm *norm, const sbni_samples *samples,
                         const sbni_elements *e, sbni_range tile, sbni_slice_run run)
{
    int64_t own = samples->slices[run.first].norm_batch,
            set = e->set == SBNI_OWN_SET ? own : e->set;
    sbni_view x = sbni_norm_view(e->x, tile.first), y = sbni_norm_view(e->y, tile.first),
              z = {0};
    if (e->z) z = sbni_norm_view(e->z, tile.first);
    sbni_channels ch = sbni_norm_channels(norm, set, tile.first);
    sbni_fused fused = {norm->cfg.relu, e->z ? &z : NULL};
    sbni_block b = sbni_norm_run_block(samples, run, e->x, tile.c, e->planes);
    norm->kernels->norm_normalize(&b, &x, &ch, &fused, &y);
}

/* Elements of a call, for all slices. */
typedef struct call {
    const sbn_norm *norm;
    const sbni_samples *samples;
    const sbni_elements *e;
} call;

static void apply_run(const void *of, sbni_slice_run run)
{
    const call *c = of;
    const sbni_range all = {0, c->norm->cfg.channels};
    sbni_norm_apply_run(c->norm, c->samples, c->e, all, run);
}

void sbni_norm_apply_all(const sbn_norm *norm, const sbni_samples *samples,
                         const sbni_elements *e)
{
    const call c = {norm, samples, e};
    sbni_norm_each_run(samples, e->x, apply_run, &c);
}

bool sbni_norm_is_fixed(const sbn_norm *norm)
{
    return norm->mode == SBN_NORM_FROZEN ||
           (norm->mode == SBN_NORM_EVAL && norm->cfg.track_running_stats);
}

void sbni_norm_fix_factors(sbn_norm *norm, int64_t set)
{
    const double none[SBNI_READ_CHANNELS] = {0};
    double mean[SBNI_READ_CHANNELS], var[SBNI_READ_CHANNELS];
    int64_t c = norm->cfg.channels;
    for (int64_t i = 0; norm->r && i < c; i++) {
        norm->r[set * c + i] = 1;
        norm->d[set * c + i] = 0;
    }
    for (int64_t from = 0, count; from < c; from += count) {
        count = sbni_read_count(from, c);
        for (int64_t i = 0; i < count; i++) {
            mean[i] = sbni_norm_get(norm, norm->state.running_mean, from + i);
            var[i] = sbni_norm_get(norm, norm->state.running_var, from + i);
        }
        const sbni_statistics running = {mean, none, var};
        sbni_norm_set_factors(norm, set, from, count, &running);
    }
}

static sbn_status fixed_forward(sbn_norm *norm, const sbn_tensor *x, const sbn_tensor *z,
                                sbn_tensor *y, bool frozen)
{
    sbni_samples *samples = frozen ? &norm->samples : &norm->aside;
    bool planes;
    SBN_TRY(sbni_norm_check_forward(norm, x, z, y, &planes));
    SBN_TRY(sbni_norm_take(norm, x, 0, SBN_NORM_BATCH_ALL,
                           frozen ? omp_get_max_threads() : 0, samples));
    int64_t set = frozen ? 0 : norm->batches;
    sbni_norm_fix_factors(norm, set);
    sbni_elements e = {x, z, y, planes, set};
    sbni_norm_apply_all(norm, samples, &e);
    sbni_norm_clear(norm, samples, y, planes);
    if (!frozen) return SBN_OK;
    norm->x = *x;
    norm->adds = z != NULL;
    if (z) norm->z = *z;
    norm->planes = planes;
    norm->ran = SBN_NORM_FROZEN;
    norm->corrects = false;
    norm->second.ready = false;
    norm->phase = SBNI_NORM_READY;
    return SBN_OK;
}

sbn_status sbni_norm_fixed_forward(sbn_norm *norm, const sbn_tensor *x,
                                   const sbn_tensor *z, sbn_tensor *y)
{
    bool frozen = norm->mode == SBN_NORM_FROZEN;
    if (frozen) norm->phase = SBNI_NORM_IDLE;
    sbn_status status = fixed_forward(norm, x, z, y, frozen);
    return status == SBN_OK ? SBN_OK : sbni_fail_in(status, "%s", norm->name);
}
