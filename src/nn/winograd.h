/* Convolutions of 3x3 and 5x5 windows by tiles, which take 36 products where there were
 * 144, and 48 where there were 200 (Winograd's; Lavin & Gray 2016, arXiv:1509.09308): all
 * images of a slice at once, in a thread's work. */
#ifndef SBNI_WINOGRAD_H
#define SBNI_WINOGRAD_H

#include "nn/layer.h"

/* Whether a layer that is read without columns goes by tiles; and then whether a slice of
 * n images does: of few, windows one by one are as fast. */
bool sbni_winograd_fits(const sbn_model *model, const sbni_layer *layer);
bool sbni_winograd_takes(const sbni_layer *layer, int64_t n);

/* Elements of scratch.col that it needs, and of the layer's points. */
int64_t sbni_winograd_work(const sbni_layer *layer);
int64_t sbni_winograd_points(const sbni_layer *layer);

/* The layer's windows at the points of tiles, before the first slice of a forward. */
void sbni_winograd_prepare(const sbn_model *model, const sbni_layer *layer);

/* Of a slice: y; and dx, dW, either or both in any order, behind take_dy, which puts the
 * slice's dy side by side in the thread's work, where both leave it. */
void sbni_winograd_forward(const sbn_model *model, const sbni_layer *layer,
                           sbni_task task);
void sbni_winograd_take_dy(const sbn_model *model, const sbni_layer *layer,
                           sbni_task task);
void sbni_winograd_dx(const sbn_model *model, const sbni_layer *layer, sbni_task task);
void sbni_winograd_dweight(const sbn_model *model, const sbni_layer *layer,
                           sbni_task task, void *dweight);

#endif
