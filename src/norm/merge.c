#include <inttypes.h>
#include <math.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/memory.h"
#include "norm/norm.h"

/* Running statistics of several processes made one, MATH.md (13). */

static const uint32_t tag = 0x6d657267; /* "merg" */

/* What must be known of every process's layer before a message can be sized and read. */
enum { CHANNELS, DTYPE, TRACKED, DIGEST, FACTS };

static sbn_status check_layer(const sbn_norm *norm)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG, "sbn_norm_merge: expected a layer, got NULL");
    SBN_CHECK(norm->cfg.track_running_stats, SBN_E_ARG,
              "%s: this layer tracks no running statistics to merge", norm->name);
    SBN_TRY(sbni_norm_check_free(norm, "sbn_norm_merge"));
    for (int64_t i = 0; i < norm->cfg.channels; i++) {
        double mean = sbni_norm_get(norm, norm->state.running_mean, i),
               var = sbni_norm_get(norm, norm->state.running_var, i);
        SBN_CHECK(isfinite(mean) && isfinite(var) && var >= 0, SBN_E_NONFINITE,
                  "%s: expected a finite running mean and variance >= 0, got %g and %g "
                  "in channel %" PRId64,
                  norm->name, mean, var, i);
    }
    return SBN_OK;
}

/* Of the statistics, as doubles. */
static uint64_t digest(const sbn_norm *norm)
{
    uint64_t h = 0;
    for (int64_t i = 0; i < norm->cfg.channels; i++) {
        double pair[2] = {sbni_norm_get(norm, norm->state.running_mean, i),
                          sbni_norm_get(norm, norm->state.running_var, i)};
        h = XXH3_64bits_withSeed(pair, sizeof pair, h);
    }
    return h;
}

/* Fails on all processes or on none. *alike: there is nothing to merge. */
static sbn_status compare(const sbn_norm *norm, sbn_status mine, sbn_group *all,
                          bool *alike)
{
    static const char *const names[] = {"the number of channels", "the element type",
                                        "num_batches_tracked"};
    int64_t facts[FACTS] = {-1, 0, 0, 0}, least[FACTS], greatest[FACTS];
    if (mine == SBN_OK) {
        facts[CHANNELS] = norm->cfg.channels;
        facts[DTYPE] = norm->cfg.dtype;
        facts[TRACKED] = *norm->state.num_batches_tracked;
        facts[DIGEST] = (int64_t)(digest(norm) >> 1);
    }
    SBN_TRY(sbni_group_ranges(all, facts, FACTS, least, greatest));
    if (least[CHANNELS] < 0) return sbn_group_agree(all, mine);
    for (int i = 0; i < DIGEST; i++)
        SBN_CHECK(least[i] == greatest[i], SBN_E_MISMATCH,
                  "%s: %s differs between processes: expected one value, got %" PRId64
                  " to %" PRId64,
                  norm->name, names[i], least[i], greatest[i]);
    *alike = least[DIGEST] == greatest[DIGEST];
    return SBN_OK;
}

/* This process's statistics as one value at its mean with its variance around it. */
static sbn_status add_statistics(const sbn_norm *norm, sbni_reduce *message)
{
    int64_t c = norm->cfg.channels;
    double *mean;
    SBN_TRY(sbni_alloc(3 * c, 8, norm->name, &mean));
    double *zero = mean + c, *var = zero + c;
    for (int64_t i = 0; i < c; i++) {
        mean[i] = sbni_norm_get(norm, norm->state.running_mean, i);
        var[i] = sbni_norm_get(norm, norm->state.running_var, i);
    }
    const double one = 1;
    int flags = norm->words->add_moments(c, 1, c, &one, mean, zero, var,
                                         message->send + SBNI_HEAD_WORDS);
    sbni_reduce_note(message, flags);
    sbni_free(mean);
    return SBN_OK;
}

static void set_statistics(sbn_norm *norm, const sbni_reduce *message, int64_t processes)
{
    int64_t c = norm->cfg.channels;
    double mean[SBNI_READ_CHANNELS], low[SBNI_READ_CHANNELS], var[SBNI_READ_CHANNELS];
    for (int64_t from = 0, count; from < c; from += count) {
        count = sbni_read_count(from, c);
        sbni_read_moments(norm->words, count, c, message->sum + SBNI_HEAD_WORDS + from,
                          processes, processes, mean, low, var);
        for (int64_t i = 0; i < count; i++) mean[i] += low[i];
        sbni_norm_put(norm, norm->state.running_mean, from, count, mean);
        sbni_norm_put(norm, norm->state.running_var, from, count, var);
    }
}

sbn_status sbn_norm_merge(sbn_norm *norm, sbn_group *all)
{
    SBN_CHECK(all != NULL, SBN_E_ARG, "sbn_norm_merge: expected a group, got NULL");
    bool alike = false;
    SBN_TRY(compare(norm, check_layer(norm), all, &alike));
    if (alike) return SBN_OK;
    int64_t c = norm->cfg.channels;
    sbni_reduce message = {0};
    sbn_status status = sbni_reduce_create(all, SBNI_MOMENT_WORDS * c, &message);
    if (status == SBN_OK) status = sbni_reduce_label(&message, norm->name, "merge");
    if (status == SBN_OK) {
        sbni_reduce_clear(&message, tag);
        status = add_statistics(norm, &message);
    }
    status = sbn_group_agree(all, status);
    if (status == SBN_OK) status = sbni_reduce_connect(&message);
    if (status == SBN_OK) status = sbni_reduce_run(&message);
    if (status == SBN_OK) status = sbni_reduce_verdict(&message, SBN_OK, norm->name);
    if (status == SBN_OK) set_statistics(norm, &message, all->size);
    sbni_reduce_destroy(&message);
    return status;
}
