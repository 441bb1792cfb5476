#include "norm/norm.h"

#include <inttypes.h>
#include <stddef.h>

/* Backward of backward, MATH.md (12). */

/* One cotangent of a parameter gradient: [c] of the state's type, or none. */
static double cotangent(const sbn_norm *norm, const void *v, int64_t i)
{
    return v && norm->cfg.affine ? sbni_norm_get(norm, v, i) : 0;
}

/* Σv, Σv·xhat, Σv·dy of every slice, onto the grid, into the message. */
static void sum_slices(sbn_norm *norm, const sbn_tensor *v, bool planes)
{
    const sbni_samples *samples = &norm->samples;
    int64_t c = norm->x.c, count = samples->slice_count;
    double *sum_v = samples->sums, *sum_v_d = sum_v + count * c,
           *sum_v_dy = sum_v_d + count * c;
    sbni_view x = sbni_norm_view(&norm->x, 0), dy = sbni_norm_view(&norm->dy, 0),
              vv = sbni_norm_view(v, 0);
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < count; k++) {
        sbni_channels ch = sbni_norm_channels(norm, samples->slices[k].norm_batch, 0);
        sbni_block b = sbni_norm_slice_block(samples, k, &norm->x, c, planes);
        norm->kernels->norm_second_sums(&b, &vv, &dy, &x, &ch, sum_v + k * c,
                                        sum_v_d + k * c, sum_v_dy + k * c);
    }
    int flags = 0;
    sbni_reduce *message = &norm->second.message;
    for (int64_t k = 0, run; k < count; k += run) {
        run = sbni_samples_run(samples, k, samples->slice_count);
        int64_t g = samples->slices[k].norm_batch;
        uint64_t *words =
            message->send + sbni_section(c, g, SBNI_SECOND_WORDS) + SBNI_SECTION_WORDS;
        flags |= norm->words->add_sums(c, run, c, sum_v + k * c, NULL, words);
        flags |= norm->words->add_sums(c, run, c, sum_v_d + k * c, norm->rstd_d + g * c,
                                       words + SBNI_SUM_WORDS * c);
        flags |= norm->words->add_sums(c, run, c, sum_v_dy + k * c, NULL,
                                       words + 2 * SBNI_SUM_WORDS * c);
    }
    sbni_reduce_note(message, flags);
}

/* Array number `which` of the factors of norm batch g. */
static void *factors(const sbn_norm *norm, int which, int64_t g)
{
    int64_t c = norm->cfg.channels;
    return sbni_norm_at(norm, norm->second.factors, (which * norm->batches + g) * c);
}

/* Factors of ddy and gx for channel i of norm batch g; returns its part of ggamma. */
static double set_factors(sbn_norm *norm, int64_t g, int64_t i, double v_gamma,
                          double v_beta)
{
    int64_t c = norm->cfg.channels, at = g * c + i;
    const uint64_t *words = norm->second.message.sum +
                            sbni_section(c, g, SBNI_SECOND_WORDS) + SBNI_SECTION_WORDS;
    sbni_correction fix = {1, 0};
    if (norm->r) fix = (sbni_correction){norm->r[at], norm->d[at]};
    double n = (double)norm->counts[g], rstd = norm->rstd_d[at],
           a = norm->gamma_d[at] * fix.r * rstd, e = v_gamma * fix.r;
    double dy = norm->sum_dy[at] / n, dy_xhat = norm->sum_dy_xhat[at] / n,
           v = sbni_exact_sum(words + i, c) / n,
           v_xhat = sbni_exact_sum(words + SBNI_SUM_WORDS * c + i, c) / n,
           v_dy = sbni_exact_sum(words + 2 * SBNI_SUM_WORDS * c + i, c) / n;
    double q = v_dy - v * dy - v_xhat * dy_xhat;
    /* gradient by xhat is of_v·v + of_dy·dy; then through xhat, and through rstd */
    double of_v = -a * dy_xhat, of_dy = e - a * v_xhat;
    double mean = of_v * v + of_dy * dy, mean_xhat = of_v * v_xhat + of_dy * dy_xhat;
    const double factor[7] = {a,
                              rstd * (e - a * v_xhat),
                              v_beta + v_gamma * fix.d - a * v,
                              rstd * of_v,
                              rstd * of_dy,
                              -rstd * rstd * (mean_xhat + a * q),
                              -rstd * mean};
    for (int k = 0; k < 7; k++) sbni_norm_set(norm, factors(norm, k, g), i, factor[k]);
    return fix.r * rstd * n * q;
}

static void apply(const sbn_norm *norm, const sbn_tensor *v, sbn_tensor *ddy,
                  sbn_tensor *gx, bool planes)
{
    const sbni_samples *samples = &norm->samples;
    sbni_view x = sbni_norm_view(&norm->x, 0), dy = sbni_norm_view(&norm->dy, 0),
              vv = sbni_norm_view(v, 0), vddy = {0}, vgx = {0};
    if (ddy) vddy = sbni_norm_view(ddy, 0);
    if (gx) vgx = sbni_norm_view(gx, 0);
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < samples->slice_count; k++) {
        int64_t g = samples->slices[k].norm_batch;
        sbni_channels ch = sbni_norm_channels(norm, g, 0);
        sbni_block b = sbni_norm_slice_block(samples, k, &norm->x, norm->x.c, planes);
        sbni_second_factors f = {factors(norm, 0, g), factors(norm, 1, g),
                                 factors(norm, 2, g), factors(norm, 3, g),
                                 factors(norm, 4, g), factors(norm, 5, g),
                                 factors(norm, 6, g)};
        norm->kernels->norm_second_apply(&b, &vv, &dy, &x, &ch, &f, ddy ? &vddy : NULL,
                                         gx ? &vgx : NULL);
    }
    if (ddy) sbni_norm_clear(norm, samples, ddy, planes);
    if (gx) sbni_norm_clear(norm, samples, gx, planes);
}

sbn_status sbn_norm_second_backward(sbn_norm *norm, const sbn_tensor *v,
                                    const void *v_gamma, const void *v_beta,
                                    sbn_tensor *ddy, sbn_tensor *gx, void *ggamma)
{
    SBN_TRY(sbni_norm_check_free(norm, "sbn_norm_second_backward"));
    SBN_CHECK(norm->cfg.second_order, SBN_E_ARG,
              "%s: expected a layer created with second_order", norm->name);
    SBN_CHECK(norm->phase == SBNI_NORM_READY && norm->second.ready, SBN_E_STATE,
              "%s: sbn_norm_second_backward without a training backward before it",
              norm->name);
    sbni_reduce *message = &norm->second.message;
    sbni_reduce_clear(message, sbni_norm_tag(norm, SBNI_TAG_SECOND));
    bool planes = true;
    norm->local = sbni_norm_check_second(norm, v, ddy, gx, &planes);
    if (norm->local != SBN_OK) {
        sbni_fail_in(norm->local, "%s", norm->name);
        message->send[SBNI_HEAD_FAILED] = 1;
    } else {
        sum_slices(norm, v, planes);
    }
    SBN_TRY(sbni_reduce_run(message));
    SBN_TRY(sbni_reduce_verdict(message, norm->local, norm->name));
    for (int64_t i = 0; i < norm->cfg.channels; i++) {
        double sum = 0;
        for (int64_t g = 0; g < norm->batches; g++)
            if (norm->counts[g] > 0)
                sum += set_factors(norm, g, i, cotangent(norm, v_gamma, i),
                                   cotangent(norm, v_beta, i));
        if (ggamma) sbni_norm_set(norm, ggamma, i, sum);
    }
    apply(norm, v, ddy, gx, planes);
    return SBN_OK;
}
