#include "norm/norm.h"

#include <inttypes.h>
#include <string.h>

#include "core/memory.h"

/* Room for count items in *array, whose old content is not kept. */
static sbn_status grow(int64_t count, int64_t size, int64_t *room, void *array)
{
    void **at = array;
    if (count <= *room) return SBN_OK;
    sbni_free(*at);
    *at = NULL;
    *room = 0;
    SBN_TRY(sbni_alloc(count, size, "slices", at));
    *room = count;
    return SBN_OK;
}

sbn_status sbni_samples_cut(sbni_samples *s, int64_t n, const uint8_t *keep,
                            int64_t first, int64_t norm_batch)
{
    SBN_TRY(grow(n, sizeof *s->rows, &s->rows_room, &s->rows));
    s->kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (!keep || keep[i]) s->rows[s->kept++] = i;
    s->dropped = 0;
    for (int64_t i = 0; s->kept + s->dropped < n; i++)
        if (!keep[i]) s->rows[s->kept + s->dropped++] = i;

    int64_t count = sbni_scope_cut(first, s->kept, norm_batch, NULL);
    SBN_TRY(grow(count, sizeof *s->slices, &s->slice_room, &s->slices));
    s->slice_count = sbni_scope_cut(first, s->kept, norm_batch, s->slices);
    return SBN_OK;
}

sbn_status sbni_samples_make_sums(sbni_samples *s, int64_t c, int threads)
{
    if (threads > s->slice_count) threads = s->slice_count > 1 ? (int)s->slice_count : 1;
    int64_t sums = 3 * s->slice_count * c, words = SBNI_MOMENT_WORDS * c * (threads - 1);
    SBN_TRY(grow(sums + s->slice_count + words, 8, &s->sums_room, &s->sums));
    s->values = s->sums + sums;
    s->words = (uint64_t *)(s->values + s->slice_count);
    s->threads = threads;
    return SBN_OK;
}

int64_t sbni_samples_run(const sbni_samples *s, int64_t k, int64_t end)
{
    int64_t next = k + 1;
    while (next < end && s->slices[next].norm_batch == s->slices[k].norm_batch) next++;
    return next - k;
}

void sbni_samples_free(sbni_samples *s)
{
    sbni_free(s->rows);
    sbni_free(s->slices);
    sbni_free(s->sums);
    *s = (sbni_samples){0};
}

sbn_status sbni_norm_take(const sbn_norm *norm, const sbn_tensor *x, int64_t first,
                          int64_t norm_batch, int threads, sbni_samples *samples)
{
    SBN_CHECK(!norm->mask || norm->mask_n == x->n, SBN_E_ARG,
              "expected %" PRId64 " samples, as many as the mask has, got %" PRId64,
              norm->mask_n, x->n);
    SBN_TRY(sbni_samples_cut(samples, x->n, norm->mask, first, norm_batch));
    SBN_CHECK(norm_batch == SBN_NORM_BATCH_ALL ||
                  samples->kept <= norm->cfg.batch - first,
              SBN_E_ARG,
              "expected samples within the batch of %" PRId64 ", got %" PRId64
              " from place %" PRId64,
              norm->cfg.batch, samples->kept, first);
    if (threads == 0) return SBN_OK;
    SBN_CHECK(samples->slice_count <= SBNI_GRID_ADDS, SBN_E_RANGE,
              "expected at most %d slices, got %" PRId64, SBNI_GRID_ADDS,
              samples->slice_count);
    return sbni_samples_make_sums(samples, x->c, threads);
}

sbn_status sbn_norm_set_place(sbn_norm *norm, int64_t first)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG, "sbn_norm_set_place: expected a layer, got NULL");
    /* far beyond any batch, and places plus sizes do not wrap */
    int64_t most = INT64_MAX / 4;
    if (norm->cfg.norm_batch != SBN_NORM_BATCH_ALL && norm->cfg.batch < most)
        most = norm->cfg.batch;
    SBN_CHECK(first >= 0 && first <= most, SBN_E_ARG,
              "%s: expected first sample 0 to %" PRId64 ", got %" PRId64, norm->name,
              most, first);
    norm->first = first;
    return SBN_OK;
}

sbn_status sbn_norm_share(const sbn_norm *norm, int64_t total, int64_t *first, int64_t *n)
{
    SBN_CHECK(norm && first && n, SBN_E_ARG,
              "sbn_norm_share: expected a layer and places for the share");
    SBN_CHECK(total >= 0 && (norm->cfg.norm_batch == SBN_NORM_BATCH_ALL ||
                             total <= norm->cfg.batch),
              SBN_E_ARG, "%s: expected a batch of 0 to %" PRId64 " samples, got %" PRId64,
              norm->name, norm->cfg.norm_batch ? norm->cfg.batch : INT64_MAX, total);
    sbni_scope_share(total, norm->cfg.norm_batch, norm->group->rank, norm->group->size,
                     first, n);
    return SBN_OK;
}

sbn_status sbn_norm_set_mask(sbn_norm *norm, const uint8_t *keep, int64_t n)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG, "sbn_norm_set_mask: expected a layer, got NULL");
    uint8_t *mask = NULL;
    if (keep) {
        SBN_CHECK(n >= 0, SBN_E_ARG, "%s: expected n >= 0, got %" PRId64, norm->name, n);
        for (int64_t i = 0; i < n; i++)
            SBN_CHECK(keep[i] <= 1, SBN_E_ARG,
                      "%s: mask of sample %" PRId64 ": expected 0 or 1, got %d",
                      norm->name, i, keep[i]);
        SBN_TRY(sbni_alloc(n, 1, norm->name, &mask));
        memcpy(mask, keep, (size_t)n);
    }
    sbni_free(norm->mask);
    norm->mask = mask;
    norm->mask_n = n;
    return SBN_OK;
}
