#include "norm/norm.h"

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stddef.h>

/* The elementwise half of forward: factors, y, and forwards without a message. */

static inline void set_factors(sbn_norm *norm, int64_t g, int64_t first, int64_t count,
                               const sbni_moments *m, const bool f64)
{
    const bool affine = norm->cfg.affine;
    const double eps = norm->cfg.eps;
    for (int64_t j = 0; j < count; j++) {
        int64_t i = first + j, at = g * norm->cfg.channels + i;
        const sbni_correction fix = norm->corrections[at];
        /* (6): one rounding of rstd, shared by forward and backward */
        double rstd = 1.0 / sqrt(m[j].var + eps),
               gamma = affine ? sbni_element_get(norm->state.weight, i, f64) : 1.0,
               beta = affine ? sbni_element_get(norm->state.bias, i, f64) : 0.0;
        norm->gamma_d[at] = gamma;
        norm->rstd_d[at] = rstd;
        sbni_element_set(norm->mean_hi, at, m[j].mean, f64);
        double hi = sbni_element_get(norm->mean_hi, at, f64),
               lo = (m[j].mean - hi) + m[j].mean_low;
        sbni_element_set(norm->mean_lo, at, lo, f64);
        bool near = !f64 && m[j].mean * m[j].mean <= 9 * m[j].var;
        sbni_element_set(norm->centre_hi, at, near ? 0 : hi, f64);
        sbni_element_set(norm->centre_lo, at, near ? 0 : lo, f64);
        sbni_element_set(norm->scale, at, gamma * rstd * fix.r, f64);
        double shift = beta + gamma * fix.d;
        if (near) shift -= sbni_element_get(norm->scale, at, f64) * m[j].mean;
        sbni_element_set(norm->shift, at, shift, f64);
    }
}

void sbni_norm_set_factors(sbn_norm *norm, int64_t g, int64_t first, int64_t count,
                           const sbni_moments *m)
{
    if (norm->state_dtype == SBN_F64)
        set_factors(norm, g, first, count, m, true);
    else
        set_factors(norm, g, first, count, m, false);
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
    for (int64_t i = 0; i < norm->cfg.channels; i++) {
        const sbni_moments m = {sbni_norm_get(norm, norm->state.running_mean, i), 0,
                                sbni_norm_get(norm, norm->state.running_var, i)};
        norm->corrections[set * norm->cfg.channels + i] = (sbni_correction){1, 0};
        sbni_norm_set_factors(norm, set, i, 1, &m);
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
