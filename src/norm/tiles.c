#include <omp.h>
#include <string.h>

#include "core/memory.h"
#include "norm/norm.h"

/* How the channels of a layer are shared out: chunks that send their sums together, and
 * tiles that a thread works on while they are in its cache. Sums are a channel's own, so
 * no result depends on either. */

/* Bytes of a tile: it stays in a part of the last-level cache, and its runs of memory are
 * long. */
enum { TILE_BYTES = 4 << 20 };

int64_t sbni_norm_tile_channels(const sbni_samples *samples, const sbn_tensor *x,
                                int64_t bytes, bool planes)
{
    int64_t channel = samples->kept * sbni_tensor_s(x) * bytes;
    if (!planes || channel == 0) return x->c;
    int64_t share = (x->c + omp_get_max_threads() - 1) / omp_get_max_threads(),
            tile = TILE_BYTES / channel;
    if (tile > share) return share;
    return tile > 0 ? tile : 1;
}

sbn_status sbni_norm_create_message(sbn_norm *norm, int64_t c, int words,
                                    const char *phase, sbni_reduce *reduce)
{
    int64_t length = sbni_section(c, norm->batches, words) - SBNI_HEAD_WORDS;
    sbn_status status = sbni_reduce_create(norm->group, length, reduce);
    if (status == SBN_OK) status = sbni_reduce_label(reduce, norm->name, phase);
    return status == SBN_OK ? SBN_OK : sbni_fail_in(status, "%s", norm->name);
}

/* Bytes of a chunk: large beside what a message costs, and two of them stay in a
 * last-level cache that processes share. */
enum { CHUNK_BYTES = 2 << 20, CHUNK_CHANNELS = 16 };

/* Only from settings, which all processes have alike, so that they agree on messages. */
static int64_t chunk_channels(const sbn_norm *norm)
{
    int64_t c = norm->cfg.channels, fits = CHUNK_BYTES / sbn_dtype_bytes(norm->cfg.dtype);
    if (norm->group->size == 1 || norm->cfg.values <= fits / (4 * c)) return c;
    int64_t width = fits / norm->cfg.values / CHUNK_CHANNELS * CHUNK_CHANNELS;
    if (width < CHUNK_CHANNELS) width = CHUNK_CHANNELS;
    return width < c ? width : c;
}

sbn_status sbni_norm_chunks_create(sbn_norm *norm)
{
    int64_t width = chunk_channels(norm);
    sbni_range all = {0, norm->cfg.channels};
    int64_t count = (all.c + width - 1) / width;
    SBN_TRY(sbni_alloc(count, sizeof *norm->chunks, norm->name, &norm->chunks));
    for (int64_t q = 0; q < count; q++) {
        sbni_chunk *chunk = &norm->chunks[norm->chunk_count++];
        chunk->channels = sbni_range_part(all, width, q);
        int64_t c = chunk->channels.c;
        SBN_TRY(sbni_norm_create_message(norm, c, SBNI_MOMENT_WORDS, "forward",
                                         &chunk->forward));
        SBN_TRY(sbni_norm_create_message(norm, c, SBNI_BACKWARD_WORDS, "backward",
                                         &chunk->backward));
    }
    return SBN_OK;
}

sbn_status sbni_norm_chunks_connect(sbn_norm *norm)
{
    for (int q = 0; q < norm->chunk_count; q++) {
        SBN_TRY(sbni_reduce_connect(&norm->chunks[q].forward));
        SBN_TRY(sbni_reduce_connect(&norm->chunks[q].backward));
    }
    return SBN_OK;
}

void sbni_norm_chunks_destroy(sbn_norm *norm)
{
    for (int q = 0; q < norm->chunk_count; q++) {
        sbni_reduce_destroy(&norm->chunks[q].forward);
        sbni_reduce_destroy(&norm->chunks[q].backward);
    }
    sbni_free(norm->chunks);
}

void sbni_norm_keep_words(const sbn_norm *norm, sbni_reduce *message, sbni_range of,
                          sbni_range tile, int words)
{
    for (int64_t g = 0; g < norm->batches; g++) {
        int64_t at =
            sbni_section(of.c, g, words) + SBNI_SECTION_WORDS + tile.first - of.first;
        for (int w = 0; w < words; w++)
            memcpy(message->sum + at + w * of.c, message->send + at + w * of.c,
                   (size_t)tile.c * 8);
    }
}

uint64_t *sbni_norm_fold(const sbn_norm *norm, sbni_reduce *message, int64_t c, int words)
{
    uint64_t *all = message->sum + sbni_section(c, 0, words);
    int64_t length = SBNI_SECTION_WORDS + words * c;
    for (int64_t g = 1; g < norm->batches; g++)
        for (int64_t k = 0; k < length; k++) all[k] += all[g * length + k];
    return all;
}
