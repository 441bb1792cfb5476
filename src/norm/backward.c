#include "norm/norm.h"

#include <inttypes.h>

/* What was fused into the forward; z is where its view may lie. */
static sbni_fused fused_of(const sbn_norm *norm, sbni_view *z)
{
    if (norm->adds) *z = sbni_norm_view(&norm->z);
    return (sbni_fused){norm->cfg.relu, norm->adds ? z : NULL};
}

/* Σdy and Σdy·xhat of every slice, onto the grid, into the message. MATH.md (7). */
static void sum_slices(sbn_norm *norm)
{
    const sbni_samples *samples = &norm->samples;
    int64_t c = norm->x.c, count = samples->slice_count;
    double *sum_dy = samples->sums, *sum_dy_d = sum_dy + count * c;
    sbni_view x = sbni_norm_view(&norm->x), dy = sbni_norm_view(&norm->dy), z;
    sbni_fused fused = fused_of(norm, &z);
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < count; k++) {
        sbni_slice slice = samples->slices[k];
        sbni_channels ch = sbni_norm_channels(norm, slice.norm_batch);
        sbni_block b =
            sbni_norm_block(samples, slice.row, slice.n, &norm->x, norm->planes);
        norm->kernels->norm_backward_sums(&b, &dy, &x, &ch, &fused, sum_dy + k * c,
                                          sum_dy_d + k * c);
    }
    sbni_norm_add_sum_words(norm);
}

void sbni_norm_add_sum_words(sbn_norm *norm)
{
    const sbni_samples *samples = &norm->samples;
    int64_t c = norm->cfg.channels, count = samples->slice_count;
    const double *sum_dy = samples->sums, *sum_dy_d = sum_dy + count * c;
    int flags = 0;
    for (int64_t k = 0; k < count; k++) {
        int64_t g = samples->slices[k].norm_batch;
        uint64_t *words = norm->backward.send +
                          sbni_norm_section(norm, g, SBNI_BACKWARD_WORDS) +
                          SBNI_SECTION_WORDS;
        flags |= norm->kernels->words_add_sums(c, sum_dy + k * c, NULL, words);
        flags |= norm->kernels->words_add_sums(c, sum_dy_d + k * c, norm->rstd_d + g * c,
                                               words + SBNI_SUM_WORDS * c);
    }
    sbni_reduce_note(&norm->backward, flags);
}

/* Factors of dx per norm batch, MATH.md (8): dx = a·dy - b - k·(x - mean). */
static void read_sums(sbn_norm *norm)
{
    int64_t c = norm->cfg.channels;
    for (int64_t i = 0; i < c; i++) norm->weight_grad_d[i] = 0;
    for (int64_t g = 0; g < norm->batches; g++) {
        if (norm->counts[g] == 0) continue;
        const uint64_t *words = norm->backward.sum +
                                sbni_norm_section(norm, g, SBNI_BACKWARD_WORDS) +
                                SBNI_SECTION_WORDS;
        double n = (double)norm->counts[g];
        for (int64_t i = 0; i < c; i++) {
            int64_t at = g * c + i;
            double sum_dy = sbni_exact_sum(words + i, c);
            double sum_dy_xhat = sbni_exact_sum(words + SBNI_SUM_WORDS * c + i, c);
            sbni_correction fix = norm->corrections[at];
            norm->weight_grad_d[i] += fix.r * sum_dy_xhat + fix.d * sum_dy;
            double a = norm->gamma_d[at] * norm->rstd_d[at] * fix.r;
            sbni_norm_set(norm, norm->dx_a, at, a);
            sbni_norm_set(norm, norm->dx_b, at, a * (sum_dy / n));
            sbni_norm_set(norm, norm->dx_k, at, a * norm->rstd_d[at] * (sum_dy_xhat / n));
            if (!norm->cfg.second_order) continue;
            norm->second.sum_dy[at] = sum_dy;
            norm->second.sum_dy_xhat[at] = sum_dy_xhat;
        }
    }
}

/* With statistics as constants dx = gamma·rstd·dy. */
static void read_constants(sbn_norm *norm)
{
    for (int64_t i = 0; i < norm->cfg.channels; i++) {
        sbni_norm_set(norm, norm->dx_a, i, norm->gamma_d[i] * norm->rstd_d[i]);
        sbni_norm_set(norm, norm->dx_b, i, 0);
        sbni_norm_set(norm, norm->dx_k, i, 0);
    }
}

/* dbeta, dgamma: the message summed over norm batches is already the gradient of the
 * whole group; with corrections dgamma is theirs, norm batch by norm batch. */
static void set_gradients(sbn_norm *norm)
{
    int64_t c = norm->cfg.channels;
    const uint64_t *words =
        sbni_norm_fold(norm, &norm->backward, SBNI_BACKWARD_WORDS) + SBNI_SECTION_WORDS;
    for (int64_t i = 0; i < c; i++) {
        sbni_norm_set(norm, norm->state.bias_grad, i, sbni_exact_sum(words + i, c));
        sbni_norm_set(norm, norm->state.weight_grad, i,
                      norm->corrects ? norm->weight_grad_d[i]
                                     : sbni_exact_sum(words + SBNI_SUM_WORDS * c + i, c));
    }
}

static void write_gradients(sbn_norm *norm)
{
    const sbni_samples *samples = &norm->samples;
    sbni_view x = sbni_norm_view(&norm->x), dy = sbni_norm_view(&norm->dy), z,
              dx = sbni_norm_view(&norm->dx), dz = sbni_norm_view(&norm->dz);
    sbni_fused fused = fused_of(norm, &z);
    /* with constant statistics y may lie where x was, and may have changed since */
    bool reads_x = norm->ran != SBN_NORM_FROZEN || norm->cfg.relu;
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < samples->slice_count; k++) {
        sbni_slice slice = samples->slices[k];
        int64_t at = slice.norm_batch * norm->x.c;
        sbni_channels ch = sbni_norm_channels(norm, slice.norm_batch);
        sbni_dx_factors f = {sbni_norm_at(norm, norm->dx_a, at),
                             sbni_norm_at(norm, norm->dx_b, at),
                             sbni_norm_at(norm, norm->dx_k, at)};
        sbni_block b =
            sbni_norm_block(samples, slice.row, slice.n, &norm->x, norm->planes);
        norm->kernels->norm_backward_dx(&b, &dy, reads_x ? &x : NULL, &ch, &f, &fused,
                                        dx.data ? &dx : NULL, dz.data ? &dz : NULL);
    }
    if (dx.data) sbni_norm_clear(norm, samples, &norm->dx, norm->planes);
    if (dz.data) sbni_norm_clear(norm, samples, &norm->dz, norm->planes);
}

static sbn_status check_ready(const sbn_norm *norm, const char *call)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG, "%s: expected a layer, got NULL", call);
    SBN_CHECK(norm->phase == SBNI_NORM_READY && !norm->fixed_begun, SBN_E_STATE,
              "%s: %s without a training forward before it", norm->name, call);
    return SBN_OK;
}

static bool wants_sums(const sbn_norm *norm)
{
    return norm->ran == SBN_NORM_TRAIN || (norm->cfg.affine && norm->cfg.affine_grad);
}

/* Everything before the message. A failure is not returned but carried in it. */
static void prepare(sbn_norm *norm, const sbn_tensor *dy, sbn_tensor *dx, sbn_tensor *dz)
{
    norm->second.ready = false;
    sbni_reduce_clear(&norm->backward, sbni_norm_tag(norm, SBNI_TAG_BACKWARD));
    norm->local = sbni_norm_check_backward(norm, dy, dx, dz, &norm->planes);
    if (norm->local != SBN_OK) {
        sbni_fail_in(norm->local, "%s", norm->name);
        norm->backward.send[SBNI_HEAD_FAILED] = 1;
        return;
    }
    norm->dy = *dy;
    norm->dx = dx ? *dx : (sbn_tensor){0};
    norm->dz = dz ? *dz : (sbn_tensor){0};
    if (wants_sums(norm)) sum_slices(norm);
}

sbn_status sbni_norm_read_backward(sbn_norm *norm)
{
    bool frozen = norm->ran == SBN_NORM_FROZEN;
    SBN_TRY(frozen ? sbni_reduce_alone(&norm->backward, norm->local, norm->name)
                   : sbni_reduce_verdict(&norm->backward, norm->local, norm->name));
    if (frozen)
        read_constants(norm);
    else
        read_sums(norm);
    if (norm->cfg.affine && norm->cfg.affine_grad) set_gradients(norm);
    return SBN_OK;
}

/* Everything after the message. The forward stays remembered, so backward may run again.
 */
static sbn_status finish(sbn_norm *norm)
{
    SBN_TRY(sbni_norm_read_backward(norm));
    write_gradients(norm);
    norm->second.ready = norm->ran != SBN_NORM_FROZEN;
    norm->second.dy_kept = norm->dx.data != norm->dy.data || norm->dy.n == 0;
    return SBN_OK;
}

static sbn_status backward(sbn_norm *norm, const sbn_tensor *dy, sbn_tensor *dx,
                           sbn_tensor *dz, const char *call)
{
    SBN_TRY(check_ready(norm, call));
    prepare(norm, dy, dx, dz);
    if (norm->ran != SBN_NORM_FROZEN) SBN_TRY(sbni_reduce_run(&norm->backward));
    return finish(norm);
}

static sbn_status backward_begin(sbn_norm *norm, const sbn_tensor *dy, sbn_tensor *dx,
                                 sbn_tensor *dz, const char *call)
{
    SBN_TRY(check_ready(norm, call));
    prepare(norm, dy, dx, dz);
    if (norm->ran != SBN_NORM_FROZEN) SBN_TRY(sbni_reduce_begin(&norm->backward));
    norm->phase = SBNI_NORM_BACKWARD;
    return SBN_OK;
}

sbn_status sbn_norm_backward(sbn_norm *norm, const sbn_tensor *dy, sbn_tensor *dx)
{
    return backward(norm, dy, dx, NULL, "sbn_norm_backward");
}

sbn_status sbn_norm_backward_begin(sbn_norm *norm, const sbn_tensor *dy, sbn_tensor *dx)
{
    return backward_begin(norm, dy, dx, NULL, "sbn_norm_backward_begin");
}

sbn_status sbn_norm_backward_add(sbn_norm *norm, const sbn_tensor *dy, sbn_tensor *dx,
                                 sbn_tensor *dz)
{
    return backward(norm, dy, dx, dz, "sbn_norm_backward_add");
}

sbn_status sbn_norm_backward_add_begin(sbn_norm *norm, const sbn_tensor *dy,
                                       sbn_tensor *dx, sbn_tensor *dz)
{
    return backward_begin(norm, dy, dx, dz, "sbn_norm_backward_add_begin");
}

sbn_status sbn_norm_backward_end(sbn_norm *norm)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG,
              "sbn_norm_backward_end: expected a layer, got NULL");
    SBN_CHECK(norm->phase == SBNI_NORM_BACKWARD, SBN_E_STATE,
              "%s: sbn_norm_backward_end without its begin", norm->name);
    norm->phase = SBNI_NORM_READY;
    SBN_TRY(sbni_reduce_end(&norm->backward));
    return finish(norm);
}
