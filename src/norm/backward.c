#include "norm/norm.h"

#include <inttypes.h>
#include <omp.h>
#include <stddef.h>

/* What was fused into the forward; z is where its view may lie. */
static sbni_fused fused_of(const sbn_norm *norm, int64_t first, sbni_view *z)
{
    if (norm->adds) *z = sbni_norm_view(&norm->z, first);
    return (sbni_fused){norm->cfg.relu, norm->adds ? z : NULL};
}

/* Σdy and Σdy·(x-mean) of slice k. MATH.md (7). */
static void sum_slice(const sbn_norm *norm, sbni_range tile, int64_t k)
{
    const sbni_samples *samples = &norm->samples;
    sbni_view x = sbni_norm_view(&norm->x, tile.first),
              dy = sbni_norm_view(&norm->dy, tile.first), z;
    sbni_fused fused = fused_of(norm, tile.first, &z);
    sbni_channels ch =
        sbni_norm_channels(norm, samples->slices[k].norm_batch, tile.first);
    sbni_block b = sbni_norm_slice_block(samples, k, &norm->x, tile.c, norm->planes);
    int64_t c = norm->cfg.channels;
    double *sum_dy = samples->sums + k * c + tile.first;
    norm->kernels->norm_backward_sums(&b, &dy, &x, &ch, &fused, sum_dy,
                                      sum_dy + samples->slice_count * c);
}

int sbni_norm_add_sums_tile(const sbn_norm *norm, sbni_range tile, int64_t from,
                            int64_t end, const sbni_sink *to)
{
    const sbni_samples *samples = &norm->samples;
    int64_t c = norm->cfg.channels;
    int flags = 0;
    for (int64_t k = from, run; k < end; k += run) {
        run = sbni_samples_run(samples, k, end);
        int64_t g = samples->slices[k].norm_batch;
        const double *sum_dy = samples->sums + k * c + tile.first;
        uint64_t *words = sbni_sink_words(to, c, g, SBNI_BACKWARD_WORDS) + tile.first;
        flags |= norm->words->add_sums(tile.c, run, c, sum_dy, NULL, words);
        flags |= norm->words->add_sums(tile.c, run, c, sum_dy + samples->slice_count * c,
                                       norm->rstd_d + g * c + tile.first,
                                       words + SBNI_SUM_WORDS * c);
    }
    return flags;
}

/* Factors of dx of norm batch g, and its part of dgamma by corrections. */
static void set_factors(sbn_norm *norm, int64_t g, sbni_range tile)
{
    int64_t at = g * norm->cfg.channels + tile.first;
    sbni_gradients sums = {(double)norm->counts[g], norm->sum_dy + at,
                           norm->sum_dy_xhat + at, norm->mean_d + at, NULL};
    if (norm->r) sums.r = norm->r + at;
    for (int64_t i = 0; norm->r && i < tile.c; i++)
        norm->weight_grad_d[tile.first + i] +=
            norm->r[at + i] * sums.dy_xhat[i] + norm->d[at + i] * sums.dy[i];
    sbni_channels ch = sbni_norm_channels(norm, g, tile.first);
    sbni_dx_factors to = sbni_norm_dx_factors(norm, g, tile.first);
    norm->kernels->norm_dx_factors(tile.c, &sums, &ch, &to);
}

/* Sums of a tile from the words, and what follows from them for each norm batch. */
static void read_tile(sbn_norm *norm, sbni_range tile)
{
    int64_t c = norm->cfg.channels;
    for (int64_t i = 0; norm->r && i < tile.c; i++)
        norm->weight_grad_d[tile.first + i] = 0;
    for (int64_t g = 0; g < norm->batches; g++) {
        if (norm->counts[g] == 0) continue;
        const uint64_t *words = norm->backward.sum +
                                sbni_section(c, g, SBNI_BACKWARD_WORDS) +
                                SBNI_SECTION_WORDS + tile.first;
        int64_t first = g * c + tile.first;
        sbni_read_sums(norm->words, tile.c, c, words, norm->sum_dy + first);
        sbni_read_sums(norm->words, tile.c, c, words + SBNI_SUM_WORDS * c,
                       norm->sum_dy_xhat + first);
        set_factors(norm, g, tile);
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
    int64_t c = norm->cfg.channels;
    void *weight_grad = norm->state.weight_grad, *bias_grad = norm->state.bias_grad;
    if (norm->batches == 1 && norm->ran != SBN_NORM_FROZEN && norm->counts[0] > 0) {
        /* sums of one norm batch have been read */
        sbni_norm_put(norm, bias_grad, 0, c, norm->sum_dy);
        sbni_norm_put(norm, weight_grad, 0, c, norm->sum_dy_xhat);
    } else {
        const uint64_t *words =
            sbni_norm_fold(norm, &norm->backward, SBNI_BACKWARD_WORDS) +
            SBNI_SECTION_WORDS;
        double sum[SBNI_READ_CHANNELS];
        for (int64_t i = 0, count; i < c; i += count) {
            count = sbni_read_count(i, c);
            sbni_read_sums(norm->words, count, c, words + i, sum);
            sbni_norm_put(norm, bias_grad, i, count, sum);
            sbni_read_sums(norm->words, count, c, words + SBNI_SUM_WORDS * c + i, sum);
            sbni_norm_put(norm, weight_grad, i, count, sum);
        }
    }
    if (norm->corrects) sbni_norm_put(norm, weight_grad, 0, c, norm->weight_grad_d);
}

static void write_run(const sbn_norm *norm, sbni_range tile, sbni_slice_run run)
{
    const sbni_samples *samples = &norm->samples;
    int64_t first = tile.first, g = samples->slices[run.first].norm_batch;
    sbni_view x = sbni_norm_view(&norm->x, first), dy = sbni_norm_view(&norm->dy, first),
              z, dx = sbni_norm_view(&norm->dx, first),
              dz = sbni_norm_view(&norm->dz, first);
    sbni_fused fused = fused_of(norm, first, &z);
    /* with constant statistics y may lie where x was, and may have changed since */
    bool reads_x = norm->ran != SBN_NORM_FROZEN || norm->cfg.relu;
    sbni_channels ch = sbni_norm_channels(norm, g, first);
    sbni_dx_factors f = sbni_norm_dx_factors(norm, g, first);
    sbni_block b = sbni_norm_run_block(samples, run, &norm->x, tile.c, norm->planes);
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

static void sum_whole_slice(const void *of, int64_t k)
{
    const sbn_norm *norm = of;
    sum_slice(norm, (sbni_range){0, norm->cfg.channels}, k);
}

static int add_slices(const void *of, int64_t from, int64_t end, const sbni_sink *to)
{
    const sbn_norm *norm = of;
    const sbni_range all = {0, norm->cfg.channels};
    return sbni_norm_add_sums_tile(norm, all, from, end, to);
}

static void sum_all(sbn_norm *norm)
{
    if (norm->local != SBN_OK || !wants_sums(norm)) return;
    const sbni_summing how = {sum_whole_slice, add_slices, norm, SBNI_BACKWARD_WORDS};
    sbni_reduce_note(
        &norm->backward,
        sbni_norm_sum_all(&norm->samples, norm->cfg.channels, &how, norm->backward.send));
}

static sbn_status verdict(sbn_norm *norm)
{
    return norm->ran == SBN_NORM_FROZEN
               ? sbni_reduce_alone(&norm->backward, norm->local, norm->name)
               : sbni_reduce_verdict(&norm->backward, norm->local, norm->name);
}

/* Factors of dx, by all threads. */
static void read_all(sbn_norm *norm)
{
    const sbni_range all = {0, norm->cfg.channels};
    int64_t parts = sbni_read_parts(all.c);
    if (omp_get_max_threads() == 1 || parts == 1) {
        read_tile(norm, all);
        return;
    }
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < parts; i++)
        read_tile(norm, sbni_range_part(all, SBNI_READ_CHANNELS, i));
}

static void close_backward(sbn_norm *norm)
{
    if (norm->cfg.affine && norm->cfg.affine_grad) set_gradients(norm);
}

sbn_status sbni_norm_read_backward(sbn_norm *norm)
{
    SBN_TRY(verdict(norm));
    if (norm->ran == SBN_NORM_FROZEN)
        read_constants(norm);
    else
        read_all(norm);
    close_backward(norm);
    return SBN_OK;
}

static void write_whole_run(const void *of, sbni_slice_run run)
{
    const sbn_norm *norm = of;
    write_run(norm, (sbni_range){0, norm->cfg.channels}, run);
}

/* After the message. */
static sbn_status read_and_write(sbn_norm *norm)
{
    SBN_TRY(sbni_norm_read_backward(norm));
    if (wants_elements(norm))
        sbni_norm_each_run(&norm->samples, &norm->x, write_whole_run, norm);
    return SBN_OK;
}

/* As in forward, a group of one process does everything to a tile at once. */
static sbn_status tile_by_tile(sbn_norm *norm, int64_t tiles, int64_t width)
{
    const sbni_range all = {0, norm->cfg.channels};
    const sbni_sink to = {norm->backward.send, SBNI_NONE_APART, NULL};
    int64_t count = norm->samples.slice_count;
    int flags = 0;
#pragma omp parallel for schedule(static) reduction(| : flags)
    for (int64_t t = 0; t < tiles; t++) {
        sbni_range tile = sbni_range_part(all, width, t);
        for (int64_t k = 0; k < count; k++) sum_slice(norm, tile, k);
        flags |= sbni_norm_add_sums_tile(norm, tile, 0, count, &to);
        read_tile(norm, tile);
        if (!wants_elements(norm)) continue;
        for (int64_t k = count; k-- > 0;) write_run(norm, tile, (sbni_slice_run){k, 1});
    }
    sbni_reduce_note(&norm->backward, flags);
    SBN_TRY(verdict(norm));
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
    sbni_reduce_clear(&norm->backward, sbni_norm_tag(norm, SBNI_TAG_BACKWARD));
}

/* Everything before the first sum. A failure is not returned but carried in the
 * message. */
static void prepare(sbn_norm *norm, const sbn_tensor *dy, sbn_tensor *dx, sbn_tensor *dz)
{
    sbni_norm_open_backward(norm);
    norm->local = sbni_norm_check_backward(norm, dy, dx, dz, &norm->planes);
    if (norm->local != SBN_OK) {
        sbni_fail_in(norm->local, "%s", norm->name);
        norm->backward.send[SBNI_HEAD_FAILED] = 1;
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
        int64_t width, bytes = 2 * sbn_dtype_bytes(norm->cfg.dtype),
                       tiles = sbni_norm_tiles(&norm->samples, &norm->x, bytes,
                                               norm->planes, &width);
        if (tiles > 0) return tile_by_tile(norm, tiles, width);
    }
    sum_all(norm);
    if (norm->ran != SBN_NORM_FROZEN) SBN_TRY(sbni_reduce_run(&norm->backward));
    return read_and_write(norm);
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
    sum_all(norm);
    if (norm->ran != SBN_NORM_FROZEN) SBN_TRY(sbni_reduce_begin(&norm->backward));
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
    SBN_TRY(sbni_reduce_end(&norm->backward));
    SBN_TRY(read_and_write(norm));
    finish(norm);
    return SBN_OK;
}
