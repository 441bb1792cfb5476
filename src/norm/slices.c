#include "norm/slices.h"

#include <stddef.h>

#include "norm/norm.h"

_Static_assert(SBN_SLICE == 16, "a row for each sample");
static const int64_t rows[SBN_SLICE] = {0, 1, 2,  3,  4,  5,  6,  7,
                                        8, 9, 10, 11, 12, 13, 14, 15};

/* The slice alone: its first sample is row 0 of every view. */
static sbni_block block_of(const sbn_tensor *x, const sbni_slice *slice)
{
    int64_t s = sbni_tensor_s(x);
    return (sbni_block){rows, slice->n, x->c, s, s > 1, false, true};
}

/* Rows of a slice; all lie as those of x do. */
static sbni_view view_of(const sbn_tensor *x, const void *data)
{
    sbni_view view = sbni_norm_view(x, 0);
    view.data = (void *)(uintptr_t)data;
    return view;
}

static sbni_view slice_of(const sbn_tensor *x, const sbni_slice *slice)
{
    int64_t first = slice->row * x->stride_n;
    return view_of(x, (const char *)x->data + first * sbn_dtype_bytes(x->dtype));
}

/* view: where that of z may lie. */
static sbni_fused fused_of(const sbn_norm *norm, const sbn_tensor *x, const void *z,
                           sbni_view *view)
{
    if (z) *view = view_of(x, z);
    return (sbni_fused){norm->cfg.relu, z ? view : NULL};
}

sbn_status sbni_norm_slices_reserve(sbn_norm *norm, int64_t n)
{
    /* from another place there may be a slice more */
    SBN_TRY(sbni_samples_cut(&norm->samples, n + 2 * SBN_SLICE, NULL, 0,
                             norm->cfg.norm_batch));
    return sbni_samples_make_sums(&norm->samples, norm->cfg.channels, 1);
}

void sbni_norm_add_bytes(const sbn_norm *norm, int64_t *work, int64_t *messages)
{
    const sbni_samples *samples = &norm->samples;
    int64_t c = norm->cfg.channels, all = (norm->batches + 1) * c,
            factors = 9 * sbn_dtype_bytes(norm->state_dtype) + (norm->r ? 4 : 2) * 8,
            sums = 4 * norm->batches * c + (norm->r ? c : 0);
    *messages += sbni_reduce_bytes(&norm->forward) + sbni_reduce_bytes(&norm->backward);
    *work += all * factors + 8 * (sums + norm->batches + sbni_norm_folded_words(norm)) +
             8 * (samples->rows_room + samples->sums_room) +
             (int64_t)sizeof *samples->slices * samples->slice_room;
}

void sbni_norm_slices_open(sbn_norm *norm, const sbn_tensor *x)
{
    sbni_norm_open_forward(norm);
    norm->local =
        sbni_norm_take(norm, x, norm->first, norm->cfg.norm_batch, 1, &norm->samples);
    norm->x = *x;
    norm->adds = false;
}

void sbni_norm_slice_moments(sbn_norm *norm, const sbni_slice *slice, int64_t k)
{
    if (norm->local != SBN_OK) return; /* no room */
    int64_t c = norm->cfg.channels, count = norm->samples.slice_count;
    double *pivot = norm->samples.sums, *sum_d = pivot + count * c,
           *sum_dd = sum_d + count * c;
    sbni_block b = block_of(&norm->x, slice);
    sbni_view x = slice_of(&norm->x, slice);
    norm->kernels->norm_moments(&b, &x, pivot + k * c, sum_d + k * c, sum_dd + k * c);
}

static sbni_reduce *fill_forward(sbn_norm *norm)
{
    const sbni_range all = {0, norm->cfg.channels};
    sbni_reduce *message = &norm->forward;
    const sbni_sink to = {message->send, SBNI_NONE_APART, NULL};
    if (norm->local == SBN_OK) {
        sbni_norm_count(&norm->samples, sbni_tensor_s(&norm->x), all.c, message);
        sbni_reduce_note(message, sbni_norm_add_tile(norm, &norm->samples, all, 0,
                                                     norm->samples.slice_count, &to));
    } else {
        message->send[SBNI_HEAD_FAILED] = 1;
    }
    return message;
}

sbn_status sbni_norm_slices_forward(sbn_norm *norm)
{
    SBN_TRY(sbni_reduce_run(fill_forward(norm)));
    return sbni_norm_read_forward(norm);
}

sbn_status sbni_norm_slices_forward_begin(sbn_norm *norm)
{
    return sbni_reduce_begin(fill_forward(norm));
}

sbn_status sbni_norm_slices_forward_end(sbn_norm *norm)
{
    SBN_TRY(sbni_reduce_end(&norm->forward));
    return sbni_norm_read_forward(norm);
}

void sbni_norm_slices_fix(sbn_norm *norm)
{
    sbni_norm_fix_factors(norm, norm->batches);
}

void sbni_norm_slice_apply(const sbn_norm *norm, const sbn_tensor *x,
                           const sbni_slice *slice, bool fixed, const void *z, void *y)
{
    sbni_channels ch =
        sbni_norm_channels(norm, fixed ? norm->batches : slice->norm_batch, 0);
    sbni_block b = block_of(x, slice);
    sbni_view vx = slice_of(x, slice), vy = view_of(x, y), vz;
    sbni_fused fused = fused_of(norm, x, z, &vz);
    norm->kernels->norm_normalize(&b, &vx, &ch, &fused, &vy);
}

void sbni_norm_slice_unit(const sbn_norm *norm, const sbn_tensor *x,
                          const sbni_slice *slice, int64_t unit, void *y)
{
    sbni_channels ch =
        sbni_norm_channels(norm, slice->norm_batch, unit / sbni_tensor_s(x));
    sbni_block b = {rows, slice->n, 1, 1, false, false, true};
    sbni_view vx = slice_of(x, slice), vy = {y, 1, 1, 1};
    vx.data = (char *)vx.data + unit * sbn_dtype_bytes(x->dtype);
    sbni_fused plain = {false, NULL};
    norm->kernels->norm_normalize(&b, &vx, &ch, &plain, &vy);
}

void sbni_norm_slice_sums(sbn_norm *norm, const sbni_slice *slice, int64_t k,
                          const void *z, const void *dy)
{
    int64_t c = norm->cfg.channels;
    double *sum_dy = norm->samples.sums,
           *sum_dy_d = sum_dy + norm->samples.slice_count * c;
    sbni_channels ch = sbni_norm_channels(norm, slice->norm_batch, 0);
    sbni_block b = block_of(&norm->x, slice);
    sbni_view x = slice_of(&norm->x, slice), vdy = view_of(&norm->x, dy), vz;
    sbni_fused fused = fused_of(norm, &norm->x, z, &vz);
    norm->kernels->norm_backward_sums(&b, &vdy, &x, &ch, &fused, sum_dy + k * c,
                                      sum_dy_d + k * c);
}

static sbni_reduce *fill_backward(sbn_norm *norm)
{
    const sbni_range all = {0, norm->cfg.channels};
    norm->local = SBN_OK;
    sbni_norm_open_backward(norm);
    const sbni_sink to = {norm->backward.send, SBNI_NONE_APART, NULL};
    sbni_reduce_note(&norm->backward, sbni_norm_add_sums_tile(
                                          norm, all, 0, norm->samples.slice_count, &to));
    return &norm->backward;
}

sbn_status sbni_norm_slices_backward(sbn_norm *norm)
{
    SBN_TRY(sbni_reduce_run(fill_backward(norm)));
    return sbni_norm_read_backward(norm);
}

sbn_status sbni_norm_slices_backward_begin(sbn_norm *norm)
{
    return sbni_reduce_begin(fill_backward(norm));
}

sbn_status sbni_norm_slices_backward_end(sbn_norm *norm)
{
    SBN_TRY(sbni_reduce_end(&norm->backward));
    return sbni_norm_read_backward(norm);
}

void sbni_norm_slice_dx(const sbn_norm *norm, const sbni_slice *slice, const void *z,
                        const void *dy, void *dx, void *dz)
{
    sbni_channels ch = sbni_norm_channels(norm, slice->norm_batch, 0);
    sbni_dx_factors f = sbni_norm_dx_factors(norm, slice->norm_batch, 0);
    sbni_block b = block_of(&norm->x, slice);
    sbni_view x = slice_of(&norm->x, slice), vdy = view_of(&norm->x, dy),
              vdx = view_of(&norm->x, dx), vdz = view_of(&norm->x, dz), vz;
    sbni_fused fused = fused_of(norm, &norm->x, z, &vz);
    norm->kernels->norm_backward_dx(&b, &vdy, &x, &ch, &f, &fused, dx ? &vdx : NULL,
                                    dz ? &vdz : NULL);
}

void sbni_norm_slices_set_blame(sbn_norm *norm, sbn_status (*blame)(void *), void *owner)
{
    norm->forward.blame = blame;
    norm->forward.owner = owner;
}
