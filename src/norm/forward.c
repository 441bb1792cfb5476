#include "norm/norm.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/memory.h"

static bool evaluates(const sbn_norm *norm)
{
    return norm->mode == SBN_NORM_EVAL && norm->cfg.track_running_stats;
}

/* Shapes and order of calls, as far as one process can tell. */
static sbn_status check_call(const sbn_norm *norm, const sbn_tensor *x,
                             const sbn_tensor *y)
{
    SBN_TRY(sbni_tensor_check(x, "x"));
    SBN_TRY(sbni_tensor_check(y, "y"));
    SBN_TRY(sbni_tensor_check_same(x, "x", y, "y"));
    SBN_CHECK(x->dtype == norm->cfg.dtype, SBN_E_ARG,
              "expected elements of the layer's type, got another");
    SBN_CHECK(x->c == norm->cfg.channels, SBN_E_ARG,
              "expected %" PRId64 " channels, got %" PRId64, norm->cfg.channels, x->c);
    if (evaluates(norm)) return SBN_OK;
    SBN_CHECK(x->n == 0 || x->data != y->data || norm->mode != SBN_NORM_TRAIN, SBN_E_ARG,
              "expected y apart from x in training");
    SBN_CHECK(norm->cfg.norm_batch == SBN_NORM_BATCH_ALL ||
                  x->n <= norm->cfg.batch - norm->first,
              SBN_E_ARG,
              "expected samples within the batch of %" PRId64 ", got %" PRId64
              " from place %" PRId64,
              norm->cfg.batch, x->n, norm->first);
    SBN_CHECK(x->n / SBN_SLICE < SBNI_GRID_ADDS, SBN_E_ARG,
              "expected fewer than %d samples, got %" PRId64, SBNI_GRID_ADDS * SBN_SLICE,
              x->n);
    return SBN_OK;
}

/* Cut this call's samples into slices; room grows only when a call is larger than all
 * before. */
static sbn_status cut(sbn_norm *norm, const sbn_tensor *x)
{
    int64_t count = sbni_scope_cut(norm->first, x->n, norm->cfg.norm_batch, NULL);
    if (count > norm->slice_room) {
        sbni_free(norm->slices);
        norm->slices = NULL;
        norm->slice_room = 0;
        SBN_TRY(sbni_alloc(count, sizeof *norm->slices, norm->name, &norm->slices));
        norm->slice_room = count;
    }
    if (3 * count * x->c > norm->sums_room) {
        sbni_free(norm->sums);
        norm->sums = NULL;
        norm->sums_room = 0;
        SBN_TRY(sbni_alloc(3 * count * x->c, 8, norm->name, &norm->sums));
        norm->sums_room = 3 * count * x->c;
    }
    norm->slice_count =
        sbni_scope_cut(norm->first, x->n, norm->cfg.norm_batch, norm->slices);
    return SBN_OK;
}

/* Sums of every slice, then onto the grid, into the message. MATH.md (1) to (3). */
static void sum_slices(sbn_norm *norm)
{
    const sbn_tensor *x = &norm->x;
    int64_t c = x->c, s = sbni_tensor_s(x), count = norm->slice_count;
    double *pivot = norm->sums, *sum_d = pivot + count * c, *sum_dd = sum_d + count * c;
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < count; k++)
        norm->kernels->norm_moments(sbni_norm_row(x, norm->slices[k].row),
                                    norm->slices[k].n, c, s, pivot + k * c, sum_d + k * c,
                                    sum_dd + k * c);
    int flags = 0;
    for (int64_t k = 0; k < count; k++) {
        uint64_t *section =
            norm->forward.send +
            sbni_norm_section(norm, norm->slices[k].norm_batch, SBNI_MOMENT_WORDS);
        int64_t m = norm->slices[k].n * s;
        section[SBNI_SECTION_N] += (uint64_t)m;
        section[SBNI_SECTION_SLICES] += 1;
        flags |= norm->kernels->words_add_moments(c, (double)m, pivot + k * c,
                                                  sum_d + k * c, sum_dd + k * c,
                                                  section + SBNI_SECTION_WORDS);
    }
    norm->forward.send[SBNI_HEAD_NONFINITE] = (flags & SBNI_GRID_NONFINITE) != 0;
    norm->forward.send[SBNI_HEAD_LARGE] = (flags & SBNI_GRID_TOO_LARGE) != 0;
}

/* Statistics of every norm batch from the summed message. */
static sbn_status read_moments(sbn_norm *norm)
{
    int64_t slices = 0;
    for (int64_t g = 0; g < norm->batches; g++) {
        const uint64_t *section =
            norm->forward.sum + sbni_norm_section(norm, g, SBNI_MOMENT_WORDS);
        int64_t n = (int64_t)section[SBNI_SECTION_N];
        SBN_CHECK(n != 1, SBN_E_FEW,
                  "%s: norm batch %" PRId64 " has one value per channel, so no variance; "
                  "expected at least 2: choose another batch or norm batch size",
                  norm->name, g);
        slices += (int64_t)section[SBNI_SECTION_SLICES];
        SBN_CHECK(slices <= SBNI_GRID_ADDS, SBN_E_RANGE,
                  "%s: more than %d slices in a batch", norm->name, SBNI_GRID_ADDS);
    }
    norm->corrected = norm->clipped_r = norm->clipped_d = 0;
    norm->corrects = false;
    for (int64_t g = 0; g < norm->batches; g++) {
        const uint64_t *section =
            norm->forward.sum + sbni_norm_section(norm, g, SBNI_MOMENT_WORDS);
        norm->counts[g] = (int64_t)section[SBNI_SECTION_N];
        if (norm->counts[g] == 0) continue;
        for (int64_t i = 0; i < norm->cfg.channels; i++) {
            sbni_moments m = sbni_exact_moments(section + SBNI_SECTION_WORDS + i,
                                                norm->cfg.channels, norm->counts[g],
                                                (int64_t)section[SBNI_SECTION_SLICES]);
            sbni_norm_set_factors(norm, g, i, m, sbni_norm_correct(norm, i, m));
        }
    }
    return SBN_OK;
}

/* Add the sections of all norm batches: the words of the whole batch, into section 0 of
 * the receive buffer, which nobody reads after this. */
static uint64_t *whole_batch(sbn_norm *norm)
{
    uint64_t *all = norm->forward.sum + sbni_norm_section(norm, 0, SBNI_MOMENT_WORDS);
    int64_t length = SBNI_SECTION_WORDS + SBNI_MOMENT_WORDS * norm->cfg.channels;
    for (int64_t g = 1; g < norm->batches; g++)
        for (int64_t k = 0; k < length; k++) all[k] += all[g * length + k];
    return all;
}

/* Running statistics are those of the whole batch, whatever norm batches it was cut into,
 * so that the variance between norm batches is kept. MATH.md (9). */
static void track(sbn_norm *norm)
{
    const uint64_t *all = whole_batch(norm);
    int64_t n = (int64_t)all[SBNI_SECTION_N], c = norm->cfg.channels;
    norm->batches_tracked++;
    double w = norm->cfg.momentum == SBN_MOMENTUM_CUMULATIVE
                   ? 1.0 / (double)norm->batches_tracked
                   : norm->cfg.momentum;
    for (int64_t i = 0; i < c; i++) {
        sbni_moments m = sbni_exact_moments(all + SBNI_SECTION_WORDS + i, c, n,
                                            (int64_t)all[SBNI_SECTION_SLICES]);
        double unbiased = m.var * ((double)n / (double)(n - 1));
        double mean = sbni_norm_get(norm, norm->state.running_mean, i),
               var = sbni_norm_get(norm, norm->state.running_var, i);
        sbni_norm_set(norm, norm->state.running_mean, i, (1 - w) * mean + w * m.mean);
        sbni_norm_set(norm, norm->state.running_var, i, (1 - w) * var + w * unbiased);
    }
}

/* Evaluation with running statistics: nothing to agree on, nobody to wait for. */
static sbn_status evaluate(sbn_norm *norm, const sbn_tensor *x, sbn_tensor *y)
{
    sbn_status status = check_call(norm, x, y);
    if (status != SBN_OK) return sbni_fail_in(status, "%s", norm->name);
    for (int64_t i = 0; i < norm->cfg.channels; i++)
        sbni_norm_set_factors(
            norm, norm->batches, i,
            (sbni_moments){sbni_norm_get(norm, norm->state.running_mean, i), 0,
                           sbni_norm_get(norm, norm->state.running_var, i)},
            (sbni_correction){1, 0});
    sbni_norm_apply(norm, x, y, true);
    return SBN_OK;
}

/* Everything before the message. A failure is not returned but carried in it. */
static void prepare(sbn_norm *norm, const sbn_tensor *x, sbn_tensor *y)
{
    norm->calls++;
    norm->phase = SBNI_NORM_IDLE;
    norm->training = norm->mode == SBN_NORM_TRAIN;
    sbni_reduce_clear(
        &norm->forward,
        sbni_norm_tag(norm, norm->training ? SBNI_NORM_FORWARD : SBNI_NORM_IDLE));
    norm->local = check_call(norm, x, y);
    if (norm->local == SBN_OK) norm->local = cut(norm, x);
    if (norm->local != SBN_OK) {
        sbni_fail_in(norm->local, "%s", norm->name);
        norm->forward.send[SBNI_HEAD_FAILED] = 1;
        return;
    }
    norm->x = *x;
    norm->y = *y;
    sum_slices(norm);
}

/* Everything after the message. */
static sbn_status finish(sbn_norm *norm)
{
    SBN_TRY(sbni_reduce_verdict(&norm->forward, norm->local, norm->name));
    SBN_TRY(read_moments(norm));
    bool any = false;
    for (int64_t g = 0; g < norm->batches; g++) any |= norm->counts[g] > 0;
    if (any) sbni_norm_apply(norm, &norm->x, &norm->y, false);
    if (!norm->training) return SBN_OK;
    if (any && norm->cfg.track_running_stats) track(norm);
    norm->phase = SBNI_NORM_READY;
    return SBN_OK;
}

static sbn_status check_free(const sbn_norm *norm, const char *call)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG, "%s: expected a layer, got NULL", call);
    SBN_CHECK(norm->phase != SBNI_NORM_FORWARD && norm->phase != SBNI_NORM_BACKWARD &&
                  !norm->eval_begun,
              SBN_E_STATE, "%s: %s while a begin waits for its end", norm->name, call);
    return SBN_OK;
}

sbn_status sbn_norm_forward(sbn_norm *norm, const sbn_tensor *x, sbn_tensor *y)
{
    SBN_TRY(check_free(norm, "sbn_norm_forward"));
    if (evaluates(norm)) return evaluate(norm, x, y);
    prepare(norm, x, y);
    SBN_TRY(sbni_reduce_run(&norm->forward));
    return finish(norm);
}

sbn_status sbn_norm_forward_begin(sbn_norm *norm, const sbn_tensor *x, sbn_tensor *y)
{
    SBN_TRY(check_free(norm, "sbn_norm_forward_begin"));
    if (evaluates(norm)) {
        SBN_TRY(evaluate(norm, x, y));
        norm->eval_begun = true;
        return SBN_OK;
    }
    prepare(norm, x, y);
    SBN_TRY(sbni_reduce_begin(&norm->forward));
    norm->phase = SBNI_NORM_FORWARD;
    return SBN_OK;
}

sbn_status sbn_norm_forward_end(sbn_norm *norm)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG,
              "sbn_norm_forward_end: expected a layer, got NULL");
    if (norm->eval_begun) {
        norm->eval_begun = false;
        return SBN_OK;
    }
    SBN_CHECK(norm->phase == SBNI_NORM_FORWARD, SBN_E_STATE,
              "%s: sbn_norm_forward_end without its begin", norm->name);
    norm->phase = SBNI_NORM_IDLE;
    SBN_TRY(sbni_reduce_end(&norm->forward));
    return finish(norm);
}
