#include "norm/norm.h"

#include <inttypes.h>
#include <omp.h>
#include <stddef.h>

void sbni_norm_count(sbni_samples *samples, int64_t s, int64_t c, sbni_reduce *message)
{
    for (int64_t k = 0; k < samples->slice_count; k++) {
        sbni_slice slice = samples->slices[k];
        uint64_t *section =
            message->send + sbni_section(c, slice.norm_batch, SBNI_MOMENT_WORDS);
        section[SBNI_SECTION_N] += (uint64_t)(slice.n * s);
        section[SBNI_SECTION_COUNTS] += 1 + ((uint64_t)slice.n << SBNI_SAMPLES_BIT);
        samples->values[k] = (double)(slice.n * s);
    }
}

void sbni_norm_sum_slice(const sbn_norm *norm, const sbni_samples *samples,
                         const sbn_tensor *x, bool planes, sbni_range tile, int64_t k)
{
    int64_t next = samples->slice_count * x->c;
    double *pivot = samples->sums + k * x->c + tile.first;
    sbni_view view = sbni_norm_view(x, tile.first);
    sbni_block b = sbni_norm_slice_block(samples, k, x, tile.c, planes);
    norm->kernels->norm_moments(&b, &view, pivot, pivot + next, pivot + 2 * next);
}

int sbni_norm_add_tile(const sbn_norm *norm, const sbni_samples *samples, sbni_range tile,
                       int64_t from, int64_t end, const sbni_sink *to)
{
    int64_t c = norm->cfg.channels, next = samples->slice_count * c;
    int flags = 0;
    for (int64_t k = from, run; k < end; k += run) {
        run = sbni_samples_run(samples, k, end);
        const double *pivot = samples->sums + k * c + tile.first;
        uint64_t *words =
            sbni_sink_words(to, c, samples->slices[k].norm_batch, SBNI_MOMENT_WORDS) +
            tile.first;
        flags |= norm->words->add_moments(tile.c, run, c, samples->values + k, pivot,
                                          pivot + next, pivot + 2 * next, words);
    }
    return flags;
}

/* What is summed in a call. */
typedef struct input {
    const sbn_norm *norm;
    const sbni_samples *samples;
    const sbn_tensor *x;
    bool planes;
} input;

static void sum_slice(const void *of, int64_t k)
{
    const input *in = of;
    const sbni_range all = {0, in->x->c};
    sbni_norm_sum_slice(in->norm, in->samples, in->x, in->planes, all, k);
}

static int add_slices(const void *of, int64_t from, int64_t end, const sbni_sink *to)
{
    const input *in = of;
    const sbni_range all = {0, in->x->c};
    return sbni_norm_add_tile(in->norm, in->samples, all, from, end, to);
}

void sbni_norm_add_moments(const sbn_norm *norm, sbni_samples *samples,
                           const sbn_tensor *x, bool planes, sbni_reduce *message)
{
    const input in = {norm, samples, x, planes};
    const sbni_summing how = {sum_slice, add_slices, &in, SBNI_MOMENT_WORDS};
    sbni_norm_count(samples, sbni_tensor_s(x), x->c, message);
    sbni_reduce_note(message, sbni_norm_sum_all(samples, x->c, &how, message->send));
}

/* Counts of the summed message. */
static sbn_status read_counts(sbn_norm *norm)
{
    int64_t slices = 0;
    for (int64_t g = 0; g < norm->batches; g++) {
        const uint64_t *section =
            norm->forward.sum + sbni_section(norm->cfg.channels, g, SBNI_MOMENT_WORDS);
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
        norm->counts[g] = n;
    }
    return SBN_OK;
}

/* Statistics and factors of a tile from the summed words. */
static void read_tile(sbn_norm *norm, sbni_range tile)
{
    int64_t c = norm->cfg.channels;
    for (int64_t g = 0; g < norm->batches; g++) {
        const uint64_t *section =
            norm->forward.sum + sbni_section(c, g, SBNI_MOMENT_WORDS);
        if (section[SBNI_SECTION_N] == 0) continue;
        for (int64_t i = tile.first, end = tile.first + tile.c, count; i < end;
             i += count) {
            double low[SBNI_READ_CHANNELS], *mean = norm->mean_d + g * c + i,
                                            *var = norm->var_d + g * c + i;
            const sbni_statistics statistics = {mean, low, var};
            count = sbni_read_count(i, end);
            sbni_norm_read_moments(norm, section, c, i, count, mean, low, var);
            sbni_norm_correct(norm, g, i, count, &statistics);
            sbni_norm_set_factors(norm, g, i, count, &statistics);
        }
    }
}

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

static sbni_elements elements_of(const sbn_norm *norm)
{
    return (sbni_elements){&norm->x, norm->adds ? &norm->z : NULL, &norm->y, norm->planes,
                           SBNI_OWN_SET};
}

void sbni_norm_open_forward(sbn_norm *norm)
{
    norm->calls++;
    norm->phase = SBNI_NORM_IDLE;
    norm->second.ready = false;
    norm->second.message.fine = false;
    norm->ran = norm->mode;
    uint32_t tag = sbni_norm_tag(norm, norm->ran == SBN_NORM_TRAIN ? SBNI_TAG_TRAIN
                                                                   : SBNI_TAG_EVAL) ^
                   sbni_norm_correction_digest(norm);
    norm->backward.fine = false;
    sbni_reduce_clear(&norm->forward, tag);
}

/* Everything before the first sum. A failure is not returned but carried in the
 * message. */
static void prepare(sbn_norm *norm, const sbn_tensor *x, const sbn_tensor *z,
                    sbn_tensor *y)
{
    sbni_norm_open_forward(norm);
    norm->local = sbni_norm_check_forward(norm, x, z, y, &norm->planes);
    if (norm->local == SBN_OK)
        norm->local = sbni_norm_take(norm, x, norm->first, norm->cfg.norm_batch,
                                     omp_get_max_threads(), &norm->samples);
    if (norm->local != SBN_OK) {
        sbni_fail_in(norm->local, "%s", norm->name);
        norm->forward.send[SBNI_HEAD_FAILED] = 1;
        return;
    }
    norm->x = *x;
    norm->adds = z != NULL;
    if (z) norm->z = *z;
    norm->y = *y;
}

static void sum_all(sbn_norm *norm)
{
    if (norm->local == SBN_OK)
        sbni_norm_add_moments(norm, &norm->samples, &norm->x, norm->planes,
                              &norm->forward);
}

static sbn_status verdict(sbn_norm *norm)
{
    return sbni_reduce_verdict(&norm->forward, norm->local, norm->name);
}

/* Before the first factors. Evaluation leaves alone what the last training forward
 * counted. */
static void open_factors(sbn_norm *norm)
{
    if (norm->ran == SBN_NORM_TRAIN) norm->clips = (sbni_clips){0};
    norm->corrects = false;
}

/* After the last. */
static void close_factors(sbn_norm *norm)
{
    bool any = false;
    for (int64_t g = 0; g < norm->batches; g++) any |= norm->counts[g] > 0;
    if (norm->ran != SBN_NORM_TRAIN) return;
    if (any && norm->cfg.track_running_stats) sbni_norm_track(norm);
    norm->phase = SBNI_NORM_READY;
}

sbn_status sbni_norm_read_forward(sbn_norm *norm)
{
    SBN_TRY(verdict(norm));
    SBN_TRY(read_counts(norm));
    open_factors(norm);
    read_all(norm);
    close_factors(norm);
    return SBN_OK;
}

/* After the message. */
static sbn_status read_and_write(sbn_norm *norm)
{
    SBN_TRY(sbni_norm_read_forward(norm));
    sbni_elements e = elements_of(norm);
    sbni_norm_apply_all(norm, &norm->samples, &e);
    return SBN_OK;
}

/* A group of one process needs no message: each tile goes through everything while it is
 * in a cache. */
static sbn_status tile_by_tile(sbn_norm *norm, int64_t tiles, int64_t width)
{
    sbni_reduce *message = &norm->forward;
    const sbni_range all = {0, norm->cfg.channels};
    const sbni_samples *samples = &norm->samples;
    const sbni_sink to = {message->send, SBNI_NONE_APART, NULL};
    sbni_elements e = elements_of(norm);
    int flags = 0;
    sbni_norm_count(&norm->samples, sbni_tensor_s(&norm->x), all.c, message);
    SBN_TRY(read_counts(norm));
    open_factors(norm);
#pragma omp parallel for schedule(static) reduction(| : flags)
    for (int64_t t = 0; t < tiles; t++) {
        sbni_range tile = sbni_range_part(all, width, t);
        for (int64_t k = 0; k < samples->slice_count; k++)
            sbni_norm_sum_slice(norm, samples, &norm->x, norm->planes, tile, k);
        flags |= sbni_norm_add_tile(norm, samples, tile, 0, samples->slice_count, &to);
        read_tile(norm, tile);
        for (int64_t k = samples->slice_count; k-- > 0;)
            sbni_norm_apply_run(norm, samples, &e, tile, (sbni_slice_run){k, 1});
    }
    sbni_reduce_note(message, flags);
    SBN_TRY(verdict(norm));
    close_factors(norm);
    return SBN_OK;
}

/* Whether y may be written before all sums are known to be good: what it lies over would
 * be lost to a failure. */
static bool is_apart(const sbn_norm *norm)
{
    return norm->y.data != norm->x.data && !(norm->adds && norm->y.data == norm->z.data);
}

/* A norm batch of one value is an error, before which nothing may be written. */
static bool has_lone_value(const sbn_norm *norm)
{
    const sbni_samples *samples = &norm->samples;
    if (sbni_tensor_s(&norm->x) > 1) return false;
    for (int64_t k = 0, run; k < samples->slice_count; k += run) {
        run = sbni_samples_run(samples, k, samples->slice_count);
        if (run == 1 && samples->slices[k].n == 1) return true;
    }
    return false;
}

static sbn_status run(sbn_norm *norm)
{
    bool apart = norm->local == SBN_OK && is_apart(norm);
    if (apart && norm->group->size == 1 && !has_lone_value(norm)) {
        int64_t width, bytes = sbn_dtype_bytes(norm->cfg.dtype),
                       tiles = sbni_norm_tiles(&norm->samples, &norm->x, bytes,
                                               norm->planes, &width);
        if (tiles > 0) return tile_by_tile(norm, tiles, width);
    }
    sum_all(norm);
    SBN_TRY(sbni_reduce_run(&norm->forward));
    return read_and_write(norm);
}

static sbn_status forward(sbn_norm *norm, const sbn_tensor *x, const sbn_tensor *z,
                          sbn_tensor *y, const char *call)
{
    SBN_TRY(sbni_norm_check_free(norm, call));
    if (sbni_norm_is_fixed(norm)) return sbni_norm_fixed_forward(norm, x, z, y);
    prepare(norm, x, z, y);
    sbni_clips before = norm->clips;
    sbn_status status = run(norm);
    if (status != SBN_OK) norm->clips = before;
    if (status == SBN_OK) sbni_norm_clear(norm, &norm->samples, y, norm->planes);
    return status;
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
    sum_all(norm);
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
    SBN_TRY(read_and_write(norm));
    sbni_norm_clear(norm, &norm->samples, &norm->y, norm->planes);
    return SBN_OK;
}
