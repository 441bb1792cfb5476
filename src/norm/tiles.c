#include <omp.h>
#include <string.h>

#include "norm/norm.h"

/* How slices and channels are shared out to threads, and when to go through tiles of
 * channels. Sums are those of a slice and channel, so no result depends on it. */

/* Bytes of a tile: it stays in a part of the last-level cache, and its runs of memory are
 * long. What is read in all is there a second time anyway where it is not more than most
 * of a last-level cache; then threads share out slices, since in tiles they would fetch
 * lines ahead that their neighbours write. */
enum { TILE_BYTES = 4 << 20 };
int64_t sbni_norm_cached_bytes = 28 << 20;

/* At most so many bytes of x in slices that are written in the order of memory, which the
 * processor foresees: a part of a core's cache. */
enum { RUN_BYTES = 128 << 10 };

int64_t sbni_norm_tiles(const sbni_samples *samples, const sbn_tensor *x, int64_t bytes,
                        bool planes, int64_t *width)
{
    int64_t channel = samples->kept * sbni_tensor_s(x) * bytes,
            threads = omp_get_max_threads();
    if (!planes || channel * x->c <= sbni_norm_cached_bytes) return 0;
    int64_t share = (x->c + threads - 1) / threads, tile = TILE_BYTES / channel;
    if (tile > share) tile = share;
    *width = tile > 0 ? tile : 1;
    int64_t tiles = (x->c + *width - 1) / *width;
    return tiles < threads ? 0 : tiles;
}

/* [*from, *end) of n are thread t's of some, as schedule(static) shares them out. */
static void share(int64_t n, int64_t threads, int64_t t, int64_t *from, int64_t *end)
{
    int64_t each = n / threads, more = n % threads;
    *from = t * each + (t < more ? t : more);
    *end = *from + each + (t < more);
}

/* Some slices, a few at a time, whose sums are in the cache when they become words. */
static int sum_some(const sbni_summing *how, int64_t from, int64_t end,
                    const sbni_sink *to)
{
    enum { TOGETHER = 8 };
    int flags = 0;
    for (int64_t k = from, next; k < end; k = next) {
        next = k + TOGETHER < end ? k + TOGETHER : end;
        for (int64_t j = k; j < next; j++) how->sum(how->of, j);
        flags |= how->add(how->of, k, next, to);
    }
    return flags;
}

/* A thread's own words of its first norm batch, on which the thread before it may have
 * worked too. */
static sbni_sink sink_of(const sbni_samples *samples, int64_t t, int64_t from,
                         int64_t length, uint64_t *send)
{
    if (t == 0) return (sbni_sink){send, SBNI_NONE_APART, NULL};
    return (sbni_sink){send, samples->slices[from].norm_batch,
                       samples->words + (t - 1) * length};
}

/* Once all have summed: add what each of `summing` threads keeps apart to the message. */
static void join(const sbni_samples *samples, int64_t summing, int64_t c, int words,
                 uint64_t *send)
{
    int64_t length = words * c, first, last;
    share(length, omp_get_num_threads(), omp_get_thread_num(), &first, &last);
    for (int64_t t = 1; t < summing; t++) {
        int64_t from, end;
        share(samples->slice_count, summing, t, &from, &end);
        if (from == end) continue;
        const sbni_sink own = sink_of(samples, t, from, length, send),
                        all = {send, SBNI_NONE_APART, NULL};
        uint64_t *to = sbni_sink_words(&all, c, own.apart, words);
        for (int64_t i = first; i < last; i++) to[i] += own.words[i];
    }
}

/* The team is that of all regions, since a smaller one would end threads and the next
 * make them anew; but no more of it sum than there is room for. */
int sbni_norm_sum_all(const sbni_samples *samples, int64_t c, const sbni_summing *how,
                      uint64_t *send)
{
    const sbni_sink all = {send, SBNI_NONE_APART, NULL};
    int64_t length = how->words * c;
    int flags = 0;
    /* a parallel region costs as much as a short sum */
    if (samples->threads == 1 || omp_get_max_threads() == 1)
        return sum_some(how, 0, samples->slice_count, &all);
#pragma omp parallel reduction(| : flags)
    {
        int64_t from = 0, end = 0, t = omp_get_thread_num(),
                summing = omp_get_num_threads();
        if (summing > samples->threads) summing = samples->threads;
        if (t < summing) share(samples->slice_count, summing, t, &from, &end);
        if (from < end) {
            const sbni_sink to = sink_of(samples, t, from, length, send);
            if (to.words) memset(to.words, 0, (size_t)length * sizeof *to.words);
            flags |= sum_some(how, from, end, &to);
        }
#pragma omp barrier
        join(samples, summing, c, how->words, send);
    }
    return flags;
}

/* Slices [from, end), `together` at a time from the last on. */
static void walk_back(const sbni_samples *samples, int64_t from, int64_t end,
                      int64_t together, void (*work)(const void *of, sbni_slice_run run),
                      const void *of)
{
    for (int64_t first; end > from; end = first) {
        first = end - from > together ? end - together : from;
        for (int64_t k = first, count; k < end; k += count) {
            count = sbni_samples_run(samples, k, end);
            work(of, (sbni_slice_run){k, count});
        }
    }
}

void sbni_norm_each_run(const sbni_samples *samples, const sbn_tensor *x,
                        void (*work)(const void *of, sbni_slice_run run), const void *of)
{
    int64_t slice = SBN_SLICE * x->c * sbni_tensor_s(x) * sbn_dtype_bytes(x->dtype),
            together = slice > 0 && slice < RUN_BYTES ? RUN_BYTES / slice : 1;
    if (omp_get_max_threads() == 1) {
        walk_back(samples, 0, samples->slice_count, together, work, of);
        return;
    }
#pragma omp parallel
    {
        int64_t from, end;
        share(samples->slice_count, omp_get_num_threads(), omp_get_thread_num(), &from,
              &end);
        walk_back(samples, from, end, together, work, of);
    }
}

sbn_status sbni_norm_create_message(sbn_norm *norm, int words, const char *phase,
                                    sbni_reduce *reduce)
{
    int64_t length =
        sbni_section(norm->cfg.channels, norm->batches, words) - SBNI_HEAD_WORDS;
    sbn_status status = sbni_reduce_create(norm->group, length, reduce);
    if (status == SBN_OK) status = sbni_reduce_label(reduce, norm->name, phase);
    reduce->call.layer = norm->id + INT64_C(1);
    return status == SBN_OK ? SBN_OK : sbni_fail_in(status, "%s", norm->name);
}

int64_t sbni_norm_folded_words(const sbn_norm *norm)
{
    return norm->batches == 1
               ? 0
               : sbni_section_length(norm->cfg.channels, SBNI_MOMENT_WORDS);
}

const uint64_t *sbni_norm_fold(const sbn_norm *norm, const sbni_reduce *message,
                               int words)
{
    int64_t c = norm->cfg.channels, length = sbni_section_length(c, words);
    const uint64_t *sections = message->sum + sbni_section(c, 0, words);
    if (norm->batches == 1) return sections;
    memcpy(norm->folded, sections, (size_t)length * sizeof *norm->folded);
    for (int64_t g = 1; g < norm->batches; g++)
        for (int64_t k = 0; k < length; k++) norm->folded[k] += sections[g * length + k];
    return norm->folded;
}
