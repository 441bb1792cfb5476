#include "norm/norm.h"

#include <inttypes.h>
#include <omp.h>

/* What was fused into the forward; z is where its view may lie. */
static sbni_fused fused_of(const sbn_norm *norm, int64_t first, sbni_view *z)
{
    if (norm->adds) *z = sbni_norm_view(&norm->z, first);
    return (sbni_fused){norm->cfg.relu, norm->adds ? z : NULL};
}

/* Where slice k's sums of a tile lie: two arrays [slices][of.c] for each message. */
static double *sums_at(const sbni_samples *samples, sbni_range of, sbni_range tile,
                       int64_t k)
{
    return samples->sums + 2 * samples->slice_count * of.first + k * of.c +
           (tile.first - of.first);
}

/* Σdy and Σdy·(x-mean) of slice k. MATH.md (7). */
static void sum_slice(const sbn_norm *norm, sbni_range of, sbni_range tile, int64_t k)
{
    const sbni_samples *samples = &norm->samples;
    sbni_view x = sbni_norm_view(&norm->x, tile.first),
              dy = sbni_norm_view(&norm->dy, tile.first), z;
    sbni_fused fused = fused_of(norm, tile.first, &z);
    sbni_channels ch =
        sbni_norm_channels(norm, samples->slices[k].norm_batch, tile.first);
    sbni_block b = sbni_norm_slice_block(samples, k, &norm->x, tile.c, norm->planes);
    double *sum_dy = sums_at(samples, of, tile, k);
    norm->kernels->norm_backward_sums(&b, &dy, &x, &ch, &fused, sum_dy,
                                      sum_dy + samples->slice_count * of.c);
}

int sbni_norm_add_sums_tile(const sbn_norm *norm, sbni_range of, sbni_range tile,
                            sbni_reduce *message)
{
    const sbni_samples *samples = &norm->samples;
    int flags = 0;
    for (int64_t k = 0, run; k < samples->slice_count; k += run) {
        run = sbni_samples_run(samples, k);
        int64_t g = samples->slices[k].norm_batch;
        const double *sum_dy = sums_at(samples, of, tile, k);
        uint64_t *words = message->send + sbni_section(of.c, g, SBNI_BACKWARD_WORDS) +
                          SBNI_SECTION_WORDS + (tile.first - of.first);
        flags |= norm->kernels->words_add_sums(tile.c, run, of.c, sum_dy, NULL, words);
        flags |= norm->kernels->words_add_sums(
            tile.c, run, of.c, sum_dy + samples->slice_count * of.c,
            norm->rstd_d + g * norm->cfg.channels + tile.first,
            words + SBNI_SUM_WORDS * of.c);
    }
    return flags;
}

/* Factors of dx, MATH.md (8): dx = a·dy - b - k·(x - mean). */
static void set_factors(sbn_norm *norm, int64_t g, int64_t i)
{
    int64_t at = g * norm->cfg.channels + i;
    double n = (double)norm->counts[g], sum_dy = norm->sum_dy[at],
           sum_dy_xhat = norm->sum_dy_xhat[at];
    sbni_correction fix = norm->corrections[at];
    norm->weight_grad_d[i] += fix.r * sum_dy_xhat + fix.d * sum_dy;
    double a = norm->gamma_d[at] * norm->rstd_d[at] * fix.r;
    sbni_norm_set(norm, norm->dx_a, at, a);
    sbni_norm_set(norm, norm->dx_b, at, a * (sum_dy / n));
    sbni_norm_set(norm, norm->dx_k, at, a * norm->rstd_d[at] * (sum_dy_xhat / n));
}

/* Sums of a tile from the words, and what follows from them for each norm batch. */
static void read_tile(sbn_norm *norm, const sbni_chunk *chunk, sbni_range tile)
{
    sbni_range of = chunk->channels;
    for (int64_t i = tile.first; i < tile.first + tile.c; i++) norm->weight_grad_d[i] = 0;
    for (int64_t g = 0; g < norm->batches; g++) {
        if (norm->counts[g] == 0) continue;
        const uint64_t *words = chunk->backward.sum +
                                sbni_section(of.c, g, SBNI_BACKWARD_WORDS) +
                                SBNI_SECTION_WORDS + tile.first - of.first;
        int64_t first = g * norm->cfg.channels + tile.first;
        sbni_read_sums(norm->kernels, tile.c, of.c, words, norm->sum_dy + first);
        sbni_read_sums(norm->kernels, tile.c, of.c, words + SBNI_SUM_WORDS * of.c,
                       norm->sum_dy_xhat + first);
        for (int64_t i = 0; i < tile.c; i++) set_factors(norm, g, tile.first + i);
    }
}

/* With statistics as constants dx = gamma·rstd·dy. */
static void read_constants(sbn_norm *norm)
{
    for (int64_t i = 0; i < norm->cfg.channels; i++) {
        sbni_norm_set(norm, norm->dx_a, i, norm->gamma_d[i] * norm->rstd_d[i]);
        sbni_norm_set(norm, norm->dx_b, i, 0);
        sbni_norm_set(norm, norm->dx_k, i, 0);
    }
}

/* dbeta, dgamma: the message summed over norm batches is already the gradient of the
 * whole group; with corrections dgamma is theirs, norm batch by norm batch. */
static void set_gradients(sbn_norm *norm)
{
    for (int q = 0; q < norm->chunk_count; q++) {
        sbni_range of = norm->chunks[q].channels;
        const uint64_t *words =
            sbni_norm_fold(norm, &norm->chunks[q].backward, of.c, SBNI_BACKWARD_WORDS) +
            SBNI_SECTION_WORDS;
        double dy[SBNI_READ_CHANNELS], dy_xhat[SBNI_READ_CHANNELS];
        for (int64_t i = 0; i < of.c; i++) {
            int64_t at = of.first + i, j = i % SBNI_READ_CHANNELS;
            if (j == 0) {
                int64_t count = sbni_read_count(i, of.c);
                sbni_read_sums(norm->kernels, count, of.c, words + i, dy);
                sbni_read_sums(norm->kernels, count, of.c,
                               words + SBNI_SUM_WORDS * of.c + i, dy_xhat);
            }
            sbni_norm_set(norm, norm->state.bias_grad, at, dy[j]);
            sbni_norm_set(norm, norm->state.weight_grad, at,
                          norm->corrects ? norm->weight_grad_d[at] : dy_xhat[j]);
        }
    }
}

static void write_slice(const sbn_norm *norm, sbni_range tile, int64_t k)
{
    const sbni_samples *samples = &norm->samples;
    int64_t first = tile.first, g = samples->slices[k].norm_batch,
            at = g * norm->cfg.channels + first;
    sbni_view x = sbni_norm_view(&norm->x, first), dy = sbni_norm_view(&norm->dy, first),
              z, dx = sbni_norm_view(&norm->dx, first),
              dz = sbni_norm_view(&norm->dz, first);
    sbni_fused fused = fused_of(norm, first, &z);
    /* with constant statistics y may lie where x was, and may have changed since */
    bool reads_x = norm->ran != SBN_NORM_FROZEN || norm->cfg.relu;
    sbni_channels ch = sbni_norm_channels(norm, g, first);
    sbni_dx_factors f = {sbni_norm_at(norm, norm->dx_a, at),
                         sbni_norm_at(norm, norm->dx_b, at),
                         sbni_norm_at(norm, norm->dx_k, at)};
    sbni_block b = sbni_norm_slice_block(samples, k, &norm->x, tile.c, norm->planes);
    norm->kernels->norm_backward_dx(&b, &dy, reads_x ? &x : NULL, &ch, &f, &fused,
                                    dx.data ? &dx : NULL, dz.data ? &dz : NULL);
}

static bool wants_elements(const sbn_norm *norm)
{
    return norm->dx.data || norm->dz.data;
}

static bool wants_sums(const sbn_norm *norm)
{
    return norm->ran == SBN_NORM_TRAIN || (norm->cfg.affine && norm->cfg.affine_grad);
}

/* All of a chunk's sums, by all threads. */
static void sum_chunk(sbn_norm *norm, sbni_chunk *chunk)
{
    sbni_range of = chunk->channels;
    int64_t parts = (of.c + SBNI_READ_CHANNELS - 1) / SBNI_READ_CHANNELS;
    int flags = 0;
    if (norm->local != SBN_OK || !wants_sums(norm)) return;
    if (omp_get_max_threads() == 1) { /* as in forward */
        for (int64_t k = 0; k < norm->samples.slice_count; k++)
            sum_slice(norm, of, of, k);
        sbni_reduce_note(&chunk->backward,
                         sbni_norm_add_sums_tile(norm, of, of, &chunk->backward));
        return;
    }
#pragma omp parallel reduction(| : flags)
    {
#pragma omp for schedule(static)
        for (int64_t k = 0; k < norm->samples.slice_count; k++)
            sum_slice(norm, of, of, k);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < parts; i++)
            flags |= sbni_norm_add_sums_tile(
                norm, of, sbni_range_part(of, SBNI_READ_CHANNELS, i), &chunk->backward);
    }
    sbni_reduce_note(&chunk->backward, flags);
}

static sbn_status verdict(sbn_norm *norm, sbni_chunk *chunk)
{
    return norm->ran == SBN_NORM_FROZEN
               ? sbni_reduce_alone(&chunk->backward, norm->local, norm->name)
               : sbni_reduce_verdict(&chunk->backward, norm->local, norm->name);
}

/* Factors of dx of a chunk, by all threads. */
static void read_chunk(sbn_norm *norm, const sbni_chunk *chunk)
{
    int64_t parts = (chunk->channels.c + SBNI_READ_CHANNELS - 1) / SBNI_READ_CHANNELS;
    if (omp_get_max_threads() == 1 || parts == 1) {
        read_tile(norm, chunk, chunk->channels);
        return;
    }
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < parts; i++)
        read_tile(norm, chunk, sbni_range_part(chunk->channels, SBNI_READ_CHANNELS, i));
}

static void close_backward(sbn_norm *norm)
{
    if (norm->cfg.affine && norm->cfg.affine_grad) set_gradients(norm);
}

static sbn_status verdicts(sbn_norm *norm)
{
    for (int q = 0; q < norm->chunk_count; q++) SBN_TRY(verdict(norm, &norm->chunks[q]));
    return SBN_OK;
}

sbn_status sbni_norm_read_backward(sbn_norm *norm)
{
    SBN_TRY(verdicts(norm));
    if (norm->ran == SBN_NORM_FROZEN)
        read_constants(norm);
    else
        for (int q = 0; q < norm->chunk_count; q++) read_chunk(norm, &norm->chunks[q]);
    close_backward(norm);
    return SBN_OK;
}

static void write_chunk(sbn_norm *norm, sbni_range of)
{
    if (!wants_elements(norm)) return;
#pragma omp parallel for schedule(static) if (omp_get_max_threads() > 1)
    for (int64_t k = norm->samples.slice_count; k > 0; k--) write_slice(norm, of, k - 1);
}

/* Send, unless the sums are this process's own. */
static sbn_status begin(sbn_norm *norm, sbni_chunk *chunk)
{
    return norm->ran == SBN_NORM_FROZEN ? SBN_OK : sbni_reduce_begin(&chunk->backward);
}

static sbn_status begin_all(sbn_norm *norm)
{
    for (int q = 0; q < norm->chunk_count; q++) {
        sum_chunk(norm, &norm->chunks[q]);
        SBN_TRY(begin(norm, &norm->chunks[q]));
    }
    return SBN_OK;
}

/* Nothing is written before all messages are known to be good. */
static sbn_status end_all(sbn_norm *norm)
{
    sbn_status status = SBN_OK;
    for (int q = 0; q < norm->chunk_count; q++) {
        sbn_status ended = sbni_reduce_end(&norm->chunks[q].backward);
        if (status == SBN_OK) status = ended;
    }
    SBN_TRY(status);
    SBN_TRY(sbni_norm_read_backward(norm));
    write_chunk(norm, (sbni_range){0, norm->cfg.channels});
    return SBN_OK;
}

/* As in forward. */
static sbn_status give_up(sbn_norm *norm, int from)
{
    for (int q = from; q < norm->chunk_count; q++) SBN_TRY(begin(norm, &norm->chunks[q]));
    for (int q = 0; q < norm->chunk_count; q++)
        SBN_TRY(sbni_reduce_end(&norm->chunks[q].backward));
    return verdicts(norm);
}

/* As in forward: the next chunk is summed while a message travels. */
static sbn_status pipeline(sbn_norm *norm)
{
    sbni_chunk *chunks = norm->chunks;
    sum_chunk(norm, &chunks[0]);
    SBN_TRY(begin(norm, &chunks[0]));
    for (int q = 0; q < norm->chunk_count; q++) {
        if (q + 1 < norm->chunk_count) {
            sum_chunk(norm, &chunks[q + 1]);
            SBN_TRY(begin(norm, &chunks[q + 1]));
        }
        SBN_TRY(sbni_reduce_end(&chunks[q].backward));
        if (!sbni_reduce_is_good(&chunks[q].backward)) return give_up(norm, q + 2);
        SBN_TRY(verdict(norm, &chunks[q]));
        read_chunk(norm, &chunks[q]);
        write_chunk(norm, chunks[q].channels);
    }
    close_backward(norm);
    return SBN_OK;
}

/* As in forward, a group of one process does everything to a tile at once. */
static sbn_status tile_by_tile(sbn_norm *norm, int64_t tiles, int64_t width)
{
    sbni_chunk *chunk = &norm->chunks[0];
    sbni_range of = chunk->channels;
    int64_t count = norm->samples.slice_count;
    int flags = 0;
#pragma omp parallel for schedule(static) reduction(| : flags)
    for (int64_t t = 0; t < tiles; t++) {
        sbni_range tile = sbni_range_part(of, width, t);
        for (int64_t k = 0; k < count; k++) sum_slice(norm, of, tile, k);
        flags |= sbni_norm_add_sums_tile(norm, of, tile, &chunk->backward);
        sbni_norm_keep_words(norm, &chunk->backward, of, tile, SBNI_BACKWARD_WORDS);
        read_tile(norm, chunk, tile);
        if (!wants_elements(norm)) continue;
        for (int64_t k = count; k-- > 0;) write_slice(norm, tile, k);
    }
    sbni_reduce_note(&chunk->backward, flags);
    SBN_TRY(sbni_reduce_run(&chunk->backward));
    SBN_TRY(verdict(norm, chunk));
    close_backward(norm);
    return SBN_OK;
}

static sbn_status check_ready(const sbn_norm *norm, const char *call)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG, "%s: expected a layer, got NULL", call);
    SBN_CHECK(norm->phase == SBNI_NORM_READY && !norm->fixed_begun, SBN_E_STATE,
              "%s: %s without a training forward before it", norm->name, call);
    return SBN_OK;
}

void sbni_norm_open_backward(sbn_norm *norm)
{
    norm->second.ready = false;
    for (int q = 0; q < norm->chunk_count; q++)
        sbni_reduce_clear(&norm->chunks[q].backward,
                          sbni_norm_tag(norm, SBNI_TAG_BACKWARD) + (uint32_t)q);
}

/* Everything before the first sum. A failure is not returned but carried in all messages.
 */
static void prepare(sbn_norm *norm, const sbn_tensor *dy, sbn_tensor *dx, sbn_tensor *dz)
{
    sbni_norm_open_backward(norm);
    norm->local = sbni_norm_check_backward(norm, dy, dx, dz, &norm->planes);
    if (norm->local != SBN_OK) {
        sbni_fail_in(norm->local, "%s", norm->name);
        for (int q = 0; q < norm->chunk_count; q++)
            norm->chunks[q].backward.send[SBNI_HEAD_FAILED] = 1;
        return;
    }
    norm->dy = *dy;
    norm->dx = dx ? *dx : (sbn_tensor){0};
    norm->dz = dz ? *dz : (sbn_tensor){0};
}

/* Everything after the last element. The forward stays remembered, so backward may run
 * again. */
static void finish(sbn_norm *norm)
{
    if (norm->dx.data) sbni_norm_clear(norm, &norm->samples, &norm->dx, norm->planes);
    if (norm->dz.data) sbni_norm_clear(norm, &norm->samples, &norm->dz, norm->planes);
    norm->second.ready = norm->ran != SBN_NORM_FROZEN;
    norm->second.dy_kept = norm->dx.data != norm->dy.data || norm->dy.n == 0;
}

static sbn_status run(sbn_norm *norm)
{
    /* a gradient over dy is not written before all sums are known to be good */
    bool apart = norm->local == SBN_OK && norm->ran != SBN_NORM_FROZEN &&
                 norm->dx.data != norm->dy.data && norm->dz.data != norm->dy.data;
    if (apart && norm->group->size == 1) {
        int64_t c = norm->cfg.channels, bytes = 2 * sbn_dtype_bytes(norm->cfg.dtype),
                width = sbni_norm_tile_channels(&norm->samples, &norm->x, bytes,
                                                norm->planes),
                tiles = (c + width - 1) / width;
        if (tiles >= omp_get_max_threads()) return tile_by_tile(norm, tiles, width);
    }
    if (norm->chunk_count > 1 && apart) return pipeline(norm);
    if (norm->chunk_count > 1) {
        SBN_TRY(begin_all(norm));
        return end_all(norm);
    }
    sum_chunk(norm, &norm->chunks[0]);
    if (norm->ran != SBN_NORM_FROZEN) SBN_TRY(sbni_reduce_run(&norm->chunks[0].backward));
    return end_all(norm);
}

static sbn_status backward(sbn_norm *norm, const sbn_tensor *dy, sbn_tensor *dx,
                           sbn_tensor *dz, const char *call)
{
    SBN_TRY(check_ready(norm, call));
    prepare(norm, dy, dx, dz);
    SBN_TRY(run(norm));
    finish(norm);
    return SBN_OK;
}

static sbn_status backward_begin(sbn_norm *norm, const sbn_tensor *dy, sbn_tensor *dx,
                                 sbn_tensor *dz, const char *call)
{
    SBN_TRY(check_ready(norm, call));
    prepare(norm, dy, dx, dz);
    SBN_TRY(begin_all(norm));
    norm->phase = SBNI_NORM_BACKWARD;
    return SBN_OK;
}

sbn_status sbn_norm_backward(sbn_norm *norm, const sbn_tensor *dy, sbn_tensor *dx)
{
    return backward(norm, dy, dx, NULL, "sbn_norm_backward");
}

sbn_status sbn_norm_backward_begin(sbn_norm *norm, const sbn_tensor *dy, sbn_tensor *dx)
{
    return backward_begin(norm, dy, dx, NULL, "sbn_norm_backward_begin");
}

sbn_status sbn_norm_backward_add(sbn_norm *norm, const sbn_tensor *dy, sbn_tensor *dx,
                                 sbn_tensor *dz)
{
    return backward(norm, dy, dx, dz, "sbn_norm_backward_add");
}

sbn_status sbn_norm_backward_add_begin(sbn_norm *norm, const sbn_tensor *dy,
                                       sbn_tensor *dx, sbn_tensor *dz)
{
    return backward_begin(norm, dy, dx, dz, "sbn_norm_backward_add_begin");
}

sbn_status sbn_norm_backward_end(sbn_norm *norm)
{
    SBN_CHECK(norm != NULL, SBN_E_ARG,
              "sbn_norm_backward_end: expected a layer, got NULL");
    SBN_CHECK(norm->phase == SBNI_NORM_BACKWARD, SBN_E_STATE,
              "%s: sbn_norm_backward_end without its begin", norm->name);
    norm->phase = SBNI_NORM_READY;
    SBN_TRY(end_all(norm));
    finish(norm);
    return SBN_OK;
}
