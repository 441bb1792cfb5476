#include "norm/norm.h"

#include <inttypes.h>

void sbni_norm_add_moments(const sbn_norm *norm, sbni_samples *samples,
                           const sbn_tensor *x, bool planes, sbni_reduce *message)
{
    int64_t c = x->c, s = sbni_tensor_s(x), count = samples->slice_count;
    double *pivot = samples->sums, *sum_d = pivot + count * c,
           *sum_dd = sum_d + count * c;
    sbni_view view = sbni_norm_view(x);
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < count; k++) {
        sbni_block b = sbni_norm_block(samples, samples->slices[k].row,
                                       samples->slices[k].n, x, planes);
        norm->kernels->norm_moments(&b, &view, pivot + k * c, sum_d + k * c,
                                    sum_dd + k * c);
    }
    sbni_norm_add_moment_words(norm, samples, s, message);
}

void sbni_norm_add_moment_words(const sbn_norm *norm, const sbni_samples *samples,
                                int64_t s, sbni_reduce *message)
{
    int64_t c = norm->cfg.channels, count = samples->slice_count;
    const double *pivot = samples->sums, *sum_d = pivot + count * c,
                 *sum_dd = sum_d + count * c;
    int flags = 0;
    for (int64_t k = 0; k < count; k++) {
        uint64_t *section =
            message->send +
            sbni_norm_section(norm, samples->slices[k].norm_batch, SBNI_MOMENT_WORDS);
        int64_t m = samples->slices[k].n * s;
        section[SBNI_SECTION_N] += (uint64_t)m;
        section[SBNI_SECTION_COUNTS] +=
            1 + ((uint64_t)samples->slices[k].n << SBNI_SAMPLES_BIT);
        flags |= norm->kernels->words_add_moments(c, (double)m, pivot + k * c,
                                                  sum_d + k * c, sum_dd + k * c,
                                                  section + SBNI_SECTION_WORDS);
    }
    sbni_reduce_note(message, flags);
}

/* Statistics of every norm batch from the summed message. */
static sbn_status read_moments(sbn_norm *norm)
{
    int64_t slices = 0;
    for (int64_t g = 0; g < norm->batches; g++) {
        const uint64_t *section = sbni_norm_moment_section(norm, &norm->forward, g);
        int64_t n = (int64_t)section[SBNI_SECTION_N];
        SBN_CHECK(n != 1, SBN_E_FEW,
                  "%s: norm batch %" PRId64 " has one value per channel, so no variance; "
                  "expected at least 2: choose another batch or norm batch size",
                  norm->name, g);
        slices += sbni_section_slices(section);
        SBN_CHECK(norm->cfg.norm_batch == SBN_NORM_BATCH_ALL ||
                      sbni_section_samples(section) <= norm->cfg.norm_batch,
                  SBN_E_MISMATCH,
                  "%s: norm batch %" PRId64 " got %" PRId64
                  " samples, expected at most %" PRId64
                  ": say with sbn_norm_set_place where each process's samples lie",
                  norm->name, g, sbni_section_samples(section), norm->cfg.norm_batch);
        SBN_CHECK(slices <= SBNI_GRID_ADDS, SBN_E_RANGE,
                  "%s: more than %d slices in a batch", norm->name, SBNI_GRID_ADDS);
    }
    /* evaluation leaves alone what the last training forward counted */
    if (norm->ran == SBN_NORM_TRAIN)
        norm->corrected = norm->clipped_r = norm->clipped_d = 0;
    norm->corrects = false;
    for (int64_t g = 0; g < norm->batches; g++) {
        const uint64_t *section = sbni_norm_moment_section(norm, &norm->forward, g);
        norm->counts[g] = (int64_t)section[SBNI_SECTION_N];
        if (norm->counts[g] == 0) continue;
        for (int64_t i = 0; i < norm->cfg.channels; i++) {
            sbni_moments m = sbni_norm_moments(norm, section, i);
            sbni_norm_set_factors(norm, g, i, m, sbni_norm_correct(norm, i, m));
        }
    }
    return SBN_OK;
}

void sbni_norm_open_forward(sbn_norm *norm)
{
    norm->calls++;
    norm->phase = SBNI_NORM_IDLE;
    norm->second.ready = false;
    norm->backward.fine = norm->second.message.fine = false;
    norm->ran = norm->mode;
    sbni_reduce_clear(&norm->forward,
                      sbni_norm_tag(norm, norm->ran == SBN_NORM_TRAIN ? SBNI_TAG_TRAIN
                                                                      : SBNI_TAG_EVAL) ^
                          sbni_norm_correction_digest(norm));
}

/* Everything before the message. A failure is not returned but carried in it. */
static void prepare(sbn_norm *norm, const sbn_tensor *x, const sbn_tensor *z,
                    sbn_tensor *y)
{
    sbni_norm_open_forward(norm);
    norm->local = sbni_norm_check_forward(norm, x, z, y, &norm->planes);
    if (norm->local == SBN_OK)
        norm->local = sbni_norm_take(norm, x, norm->first, norm->cfg.norm_batch, true,
                                     &norm->samples);
    if (norm->local != SBN_OK) {
        sbni_fail_in(norm->local, "%s", norm->name);
        norm->forward.send[SBNI_HEAD_FAILED] = 1;
        return;
    }
    norm->x = *x;
    norm->adds = z != NULL;
    if (z) norm->z = *z;
    norm->y = *y;
    sbni_norm_add_moments(norm, &norm->samples, x, norm->planes, &norm->forward);
}

sbn_status sbni_norm_read_forward(sbn_norm *norm)
{
    SBN_TRY(sbni_reduce_verdict(&norm->forward, norm->local, norm->name));
    SBN_TRY(read_moments(norm));
    if (norm->ran != SBN_NORM_TRAIN) return SBN_OK;
    bool any = false;
    for (int64_t g = 0; g < norm->batches; g++) any |= norm->counts[g] > 0;
    if (any && norm->cfg.track_running_stats) sbni_norm_track(norm);
    norm->phase = SBNI_NORM_READY;
    return SBN_OK;
}

/* Everything after the message. */
static sbn_status finish(sbn_norm *norm)
{
    SBN_TRY(sbni_norm_read_forward(norm));
    sbni_norm_apply(norm, &norm->samples, &norm->x, norm->adds ? &norm->z : NULL,
                    &norm->y, norm->planes, SBNI_OWN_SET);
    return SBN_OK;
}

static sbn_status forward(sbn_norm *norm, const sbn_tensor *x, const sbn_tensor *z,
                          sbn_tensor *y, const char *call)
{
    SBN_TRY(sbni_norm_check_free(norm, call));
    if (sbni_norm_is_fixed(norm)) return sbni_norm_fixed_forward(norm, x, z, y);
    prepare(norm, x, z, y);
    SBN_TRY(sbni_reduce_run(&norm->forward));
    return finish(norm);
}

static sbn_status forward_begin(sbn_norm *norm, const sbn_tensor *x, const sbn_tensor *z,
                                sbn_tensor *y, const char *call)
{
    SBN_TRY(sbni_norm_check_free(norm, call));
    if (sbni_norm_is_fixed(norm)) {
        SBN_TRY(sbni_norm_fixed_forward(norm, x, z, y));
        norm->fixed_begun = true;
        return SBN_OK;
    }
    prepare(norm, x, z, y);
    SBN_TRY(sbni_reduce_begin(&norm->forward));
    norm->phase = SBNI_NORM_FORWARD;
    return SBN_OK;
}

sbn_status sbn_norm_forward(sbn_norm *norm, const sbn_tensor *x, sbn_tensor *y)
{
    return forward(norm, x, NULL, y, "sbn_norm_forward");
}

sbn_status sbn_norm_forward_begin(sbn_norm *norm, const sbn_tensor *x, sbn_tensor *y)
{
    return forward_begin(norm, x, NULL, y, "sbn_norm_forward_begin");
}

sbn_status sbn_norm_forward_add(sbn_norm *norm, const sbn_tensor *x, const sbn_tensor *z,
                                sbn_tensor *y)
{
    return forward(norm, x, z ? z : &sbni_norm_missing, y, "sbn_norm_forward_add");
}

sbn_status sbn_norm_forward_add_begin(sbn_norm *norm, const sbn_tensor *x,
                                      const sbn_tensor *z, sbn_tensor *y)
{
    return forward_begin(norm, x, z ? z : &sbni_norm_missing, y,
                         "sbn_norm_forward_add_begin");
}

sbn_status sbn_norm_forward_end(sbn_norm *norm)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG,
              "sbn_norm_forward_end: expected a layer, got NULL");
    if (norm->fixed_begun) {
        norm->fixed_begun = false;
        return SBN_OK;
    }
    SBN_CHECK(norm->phase == SBNI_NORM_FORWARD, SBN_E_STATE,
              "%s: sbn_norm_forward_end without its begin", norm->name);
    norm->phase = SBNI_NORM_IDLE;
    SBN_TRY(sbni_reduce_end(&norm->forward));
    return finish(norm);
}
