#include <omp.h>
#include <string.h>

#include "norm/norm.h"

/* How the channels of a layer are shared out: tiles that a thread works on while they are
 * in its cache. Sums are a channel's own, so no result depends on them. */

/* Bytes of a tile: it stays in a part of the last-level cache, and its runs of memory are
 * long. What is read in all is there a second time anyway where it is not more than most
 * of a last-level cache; then threads share out slices, since in tiles they would fetch
 * lines ahead that their neighbours write. */
enum { TILE_BYTES = 4 << 20 };
int64_t sbni_norm_cached_bytes = 28 << 20;

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

/* [*from, *end) of n slices are this thread's. */
static void share(int64_t n, int64_t *from, int64_t *end)
{
    int64_t threads = omp_get_num_threads(), t = omp_get_thread_num(), each = n / threads,
            more = n % threads;
    *from = t * each + (t < more ? t : more);
    *end = *from + each + (t < more);
}

void sbni_norm_each_slice(int64_t n, void (*work)(const void *of, int64_t k),
                          const void *of)
{
    if (omp_get_max_threads() == 1) { /* a parallel region costs as much as a short sum */
        while (n-- > 0) work(of, n);
        return;
    }
#pragma omp parallel
    {
        int64_t from, k;
        share(n, &from, &k);
        while (k-- > from) work(of, k);
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

void sbni_norm_keep_words(const sbn_norm *norm, sbni_reduce *message, sbni_range tile,
                          int words)
{
    int64_t c = norm->cfg.channels;
    for (int64_t g = 0; g < norm->batches; g++) {
        int64_t at = sbni_section(c, g, words) + SBNI_SECTION_WORDS + tile.first;
        for (int w = 0; w < words; w++)
            memcpy(message->sum + at + w * c, message->send + at + w * c,
                   (size_t)tile.c * 8);
    }
}

uint64_t *sbni_norm_fold(const sbn_norm *norm, sbni_reduce *message, int words)
{
    int64_t c = norm->cfg.channels;
    uint64_t *all = message->sum + sbni_section(c, 0, words);
    int64_t length = SBNI_SECTION_WORDS + words * c;
    for (int64_t g = 1; g < norm->batches; g++)
        for (int64_t k = 0; k < length; k++) all[k] += all[g * length + k];
    return all;
}
