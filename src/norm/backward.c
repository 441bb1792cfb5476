#include "norm/norm.h"

#include <inttypes.h>

#include "core/memory.h"

static sbn_status check_call(const sbn_norm *norm, const sbn_tensor *dy,
                             const sbn_tensor *dx)
{
    SBN_TRY(sbni_tensor_check(dy, "dy"));
    SBN_TRY(sbni_tensor_check_same(&norm->x, "x", dy, "dy"));
    if (!dx) return SBN_OK;
    SBN_TRY(sbni_tensor_check(dx, "dx"));
    return sbni_tensor_check_same(dy, "dy", dx, "dx");
}

/* Σdy and Σdy·xhat of every slice, onto the grid, into the message. MATH.md (7). */
static void sum_slices(sbn_norm *norm)
{
    int64_t c = norm->x.c, s = sbni_tensor_s(&norm->x), count = norm->slice_count;
    double *sum_dy = norm->sums, *sum_dy_d = sum_dy + count * c;
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < count; k++) {
        sbni_slice slice = norm->slices[k];
        sbni_channels ch = sbni_norm_channels(norm, slice.norm_batch);
        norm->kernels->norm_backward_sums(sbni_norm_row(&norm->dy, slice.row),
                                          sbni_norm_row(&norm->x, slice.row), slice.n, c,
                                          s, &ch, sum_dy + k * c, sum_dy_d + k * c);
    }
    int flags = 0;
    for (int64_t k = 0; k < count; k++) {
        int64_t g = norm->slices[k].norm_batch;
        uint64_t *words = norm->backward.send +
                          sbni_norm_section(norm, g, SBNI_BACKWARD_WORDS) +
                          SBNI_SECTION_WORDS;
        flags |= norm->kernels->words_add_sums(c, sum_dy + k * c, NULL, words);
        flags |= norm->kernels->words_add_sums(c, sum_dy_d + k * c, norm->rstd_d + g * c,
                                               words + SBNI_SUM_WORDS * c);
    }
    norm->backward.send[SBNI_HEAD_NONFINITE] = (flags & SBNI_GRID_NONFINITE) != 0;
    norm->backward.send[SBNI_HEAD_LARGE] = (flags & SBNI_GRID_TOO_LARGE) != 0;
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
            double gamma =
                norm->cfg.affine ? sbni_norm_get(norm, norm->state.weight, i) : 1.0;
            sbni_correction fix = norm->corrections[at];
            norm->weight_grad_d[i] += fix.r * sum_dy_xhat + fix.d * sum_dy;
            double a = gamma * norm->rstd_d[at] * fix.r;
            sbni_norm_set(norm, norm->dx_a, at, a);
            sbni_norm_set(norm, norm->dx_b, at, a * (sum_dy / n));
            sbni_norm_set(norm, norm->dx_k, at, a * norm->rstd_d[at] * (sum_dy_xhat / n));
        }
    }
}

/* dbeta, dgamma: the message summed over norm batches is already the gradient of the
 * whole group; with corrections dgamma is theirs, norm batch by norm batch. */
static void set_gradients(sbn_norm *norm)
{
    int64_t c = norm->cfg.channels;
    int64_t length = SBNI_SECTION_WORDS + SBNI_BACKWARD_WORDS * c;
    uint64_t *all = norm->backward.sum + sbni_norm_section(norm, 0, SBNI_BACKWARD_WORDS);
    for (int64_t g = 1; g < norm->batches; g++)
        for (int64_t k = 0; k < length; k++) all[k] += all[g * length + k];
    uint64_t *words = all + SBNI_SECTION_WORDS;
    for (int64_t i = 0; i < c; i++) {
        sbni_norm_set(norm, norm->state.bias_grad, i, sbni_exact_sum(words + i, c));
        sbni_norm_set(norm, norm->state.weight_grad, i,
                      norm->corrects ? norm->weight_grad_d[i]
                                     : sbni_exact_sum(words + SBNI_SUM_WORDS * c + i, c));
    }
}

static void write_dx(const sbn_norm *norm)
{
    int64_t c = norm->x.c, s = sbni_tensor_s(&norm->x),
            size = sbn_dtype_bytes(norm->cfg.dtype);
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < norm->slice_count; k++) {
        sbni_slice slice = norm->slices[k];
        int64_t at = slice.norm_batch * c * size;
        sbni_channels ch = sbni_norm_channels(norm, slice.norm_batch);
        sbni_dx_factors f = {(const char *)norm->dx_a + at, (const char *)norm->dx_b + at,
                             (const char *)norm->dx_k + at};
        norm->kernels->norm_backward_dx(sbni_norm_row(&norm->dy, slice.row),
                                        sbni_norm_row(&norm->x, slice.row), slice.n, c, s,
                                        &ch, &f, sbni_norm_row(&norm->dx, slice.row));
    }
}

static sbn_status check_ready(const sbn_norm *norm, const char *call)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG, "%s: expected a layer, got NULL", call);
    SBN_CHECK(norm->phase == SBNI_NORM_READY && !norm->eval_begun, SBN_E_STATE,
              "%s: %s without a training forward before it", norm->name, call);
    return SBN_OK;
}

/* Everything before the message. A failure is not returned but carried in it. */
static void prepare(sbn_norm *norm, const sbn_tensor *dy, sbn_tensor *dx)
{
    sbni_reduce_clear(&norm->backward, sbni_norm_tag(norm, SBNI_NORM_BACKWARD));
    norm->local = check_call(norm, dy, dx);
    if (norm->local != SBN_OK) {
        sbni_fail_in(norm->local, "%s", norm->name);
        norm->backward.send[SBNI_HEAD_FAILED] = 1;
        return;
    }
    norm->dy = *dy;
    norm->dx = dx ? *dx : (sbn_tensor){0};
    sum_slices(norm);
}

/* Everything after the message. The forward stays remembered, so backward may run again.
 */
static sbn_status finish(sbn_norm *norm)
{
    SBN_TRY(sbni_reduce_verdict(&norm->backward, norm->local, norm->name));
    read_sums(norm);
    if (norm->cfg.affine) set_gradients(norm);
    if (norm->dx.data) write_dx(norm);
    return SBN_OK;
}

sbn_status sbn_norm_backward(sbn_norm *norm, const sbn_tensor *dy, sbn_tensor *dx)
{
    SBN_TRY(check_ready(norm, "sbn_norm_backward"));
    prepare(norm, dy, dx);
    SBN_TRY(sbni_reduce_run(&norm->backward));
    return finish(norm);
}

sbn_status sbn_norm_backward_begin(sbn_norm *norm, const sbn_tensor *dy, sbn_tensor *dx)
{
    SBN_TRY(check_ready(norm, "sbn_norm_backward_begin"));
    prepare(norm, dy, dx);
    SBN_TRY(sbni_reduce_begin(&norm->backward));
    norm->phase = SBNI_NORM_BACKWARD;
    return SBN_OK;
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
