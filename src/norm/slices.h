/*
 * The layer for an owner that works through a batch slice by slice: what the layer does
 * to a slice is done while the slice is in the cache, between the owner's own work on it,
 * and y is made anew from x where backward needs it. The bits are those of
 * sbn_norm_forward and sbn_norm_backward. Training and evaluation with running
 * statistics; no masks.
 *
 * x is the whole batch of this process, [n][c][h][w] without gaps, kept till backward is
 * over; slices are those that sbni_scope_cut makes of it, k is the index of one. y, z,
 * dy, dx, dz are rows of one slice, without gaps; z is added before relu, NULL: nothing.
 * Calls for a slice may come from any thread.
 */
#ifndef SBNI_SLICES_H
#define SBNI_SLICES_H

#include "norm/scope.h"
#include "syncbn/norm.h"

/* Room for batches of up to n samples, so that no later call allocates. */
sbn_status sbni_norm_slices_reserve(sbn_norm *norm, int64_t n);

/* What the layer holds then, beside its state. */
void sbni_norm_add_bytes(const sbn_norm *norm, int64_t *work, int64_t *messages);

/* Training: before the first slice; for each slice of x; after the last, with the
 * message, in one call or two.
 * @collective as sbn_norm_forward. */
void sbni_norm_slices_open(sbn_norm *norm, const sbn_tensor *x);
void sbni_norm_slice_moments(sbn_norm *norm, const sbni_slice *slice, int64_t k);
sbn_status sbni_norm_slices_forward(sbn_norm *norm);
sbn_status sbni_norm_slices_forward_begin(sbn_norm *norm);
sbn_status sbni_norm_slices_forward_end(sbn_norm *norm);

/* Evaluation: in place of these, for any x. Local. */
void sbni_norm_slices_fix(sbn_norm *norm);

/* y of a slice; fixed: by running statistics. */
void sbni_norm_slice_apply(const sbn_norm *norm, const sbn_tensor *x,
                           const sbni_slice *slice, bool fixed, const void *z, void *y);

/* What a slice's y is in training at one unit, element `unit` of (c,h,w), before add and
 * relu: [slice->n] of the layer's type. */
void sbni_norm_slice_unit(const sbn_norm *norm, const sbn_tensor *x,
                          const sbni_slice *slice, int64_t unit, void *y);

/* Backward: for each slice; then the message, in one call or two; then for each slice
 * again. z as forward had it. dx, dz: NULL where not wanted; one may be dy. @collective
 * as sbn_norm_backward. */
void sbni_norm_slice_sums(sbn_norm *norm, const sbni_slice *slice, int64_t k,
                          const void *z, const void *dy);
sbn_status sbni_norm_slices_backward(sbn_norm *norm);
sbn_status sbni_norm_slices_backward_begin(sbn_norm *norm);
sbn_status sbni_norm_slices_backward_end(sbn_norm *norm);
void sbni_norm_slice_dx(const sbn_norm *norm, const sbni_slice *slice, const void *z,
                        const void *dy, void *dx, void *dz);

/* Who can tell where the layer's input became NaN or infinite (sbni_reduce.blame). */
void sbni_norm_slices_set_blame(sbn_norm *norm, sbn_status (*blame)(void *), void *owner);

#endif
