#include "norm/norm.h"

#include <omp.h>
#include <stddef.h>

/* Precise statistics: those of a whole data set. */

sbn_status sbn_norm_precise_begin(sbn_norm *norm)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG,
              "sbn_norm_precise_begin: expected a layer, got NULL");
    SBN_CHECK(norm->cfg.track_running_stats, SBN_E_ARG,
              "%s: precise statistics need a layer that tracks running statistics",
              norm->name);
    sbn_status status = SBN_OK;
    if (!norm->precise.send) {
        int64_t length = sbni_section_length(norm->cfg.channels, SBNI_MOMENT_WORDS);
        status = sbni_reduce_create(norm->group, length, &norm->precise);
        if (status == SBN_OK)
            status = sbni_reduce_label(&norm->precise, norm->name, "precise");
        if (status != SBN_OK) sbni_fail_in(status, "%s", norm->name);
    }
    SBN_TRY(sbn_group_agree(norm->group, status));
    SBN_TRY(sbni_reduce_connect(&norm->precise));
    norm->calls++;
    norm->precise_local = SBN_OK;
    norm->precises = true;
    sbni_reduce_clear(&norm->precise, sbni_norm_tag(norm, SBNI_TAG_PRECISE));
    return SBN_OK;
}

static sbn_status add(sbn_norm *norm, const sbn_tensor *x)
{
    bool planes = true;
    SBN_TRY(sbni_tensor_check(x, "x"));
    SBN_CHECK(x->dtype == norm->cfg.dtype && x->c == norm->cfg.channels, SBN_E_ARG,
              "expected channels and type of the layer, got others");
    SBN_TRY(sbni_norm_take(norm, x, 0, SBN_NORM_BATCH_ALL, omp_get_max_threads(),
                           &norm->aside));
    SBN_TRY(sbni_norm_choose_form(&x, 1, &planes));
    int64_t slices = sbni_section_slices(norm->precise.send + SBNI_HEAD_WORDS);
    SBN_CHECK(slices + norm->aside.slice_count <= SBNI_GRID_ADDS, SBN_E_RANGE,
              "expected at most %d slices for precise statistics", SBNI_GRID_ADDS);
    sbni_norm_add_moments(norm, &norm->aside, x, planes, &norm->precise);
    return SBN_OK;
}

sbn_status sbn_norm_precise_add(sbn_norm *norm, const sbn_tensor *x)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG,
              "sbn_norm_precise_add: expected a layer, got NULL");
    SBN_CHECK(norm->precises, SBN_E_STATE, "%s: sbn_norm_precise_add without its begin",
              norm->name);
    sbn_status status = add(norm, x);
    if (status == SBN_OK) return SBN_OK;
    if (norm->precise_local == SBN_OK) norm->precise_local = status;
    return sbni_fail_in(status, "%s", norm->name);
}

sbn_status sbn_norm_precise_end(sbn_norm *norm)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG,
              "sbn_norm_precise_end: expected a layer, got NULL");
    SBN_CHECK(norm->precises, SBN_E_STATE, "%s: sbn_norm_precise_end without its begin",
              norm->name);
    norm->precises = false;
    sbn_status mine = norm->precise_local;
    if (mine != SBN_OK) {
        norm->precise.send[SBNI_HEAD_FAILED] = 1;
        sbni_fail(mine, "%s: a batch could not be added to the precise statistics",
                  norm->name);
    }
    SBN_TRY(sbni_reduce_run(&norm->precise));
    SBN_TRY(sbni_reduce_verdict(&norm->precise, mine, norm->name));
    const uint64_t *all = norm->precise.sum + SBNI_HEAD_WORDS;
    int64_t n = (int64_t)all[SBNI_SECTION_N];
    if (n == 0) return SBN_OK;
    SBN_CHECK(n > 1, SBN_E_FEW,
              "%s: one value per channel has no variance; expected at least 2",
              norm->name);
    SBN_CHECK(sbni_section_slices(all) <= SBNI_GRID_ADDS, SBN_E_RANGE,
              "%s: expected at most %d slices for precise statistics", norm->name,
              SBNI_GRID_ADDS);
    int64_t c = norm->cfg.channels;
    double mean[SBNI_READ_CHANNELS], low[SBNI_READ_CHANNELS], var[SBNI_READ_CHANNELS];
    for (int64_t from = 0, count; from < c; from += count) {
        count = sbni_read_count(from, c);
        sbni_norm_read_moments(norm, all, c, from, count, mean, low, var);
        sbni_norm_put(norm, norm->state.running_mean, from, count, mean);
        sbni_norm_put(norm, norm->state.running_var, from, count, var);
    }
    return SBN_OK;
}
