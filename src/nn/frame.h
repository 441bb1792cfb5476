/* Images among zeros: the padding of a convolution, and what it reads behind an image. */
#ifndef SBNI_FRAME_H
#define SBNI_FRAME_H

#include "nn/layer.h"

/* Of h x w with room for an image pad below and right of its corner. */
sbni_frame sbni_frame_of(const sbn_model *model, int64_t c, int64_t pad, int64_t h,
                         int64_t w);

/* With a layer's padding; the image itself where there is none. */
sbni_frame sbni_frame_padded(const sbn_model *model, sbni_image image, int64_t pad);

/* Zeros around the images that are filled in there, one after the other. */
void sbni_frame_clear(const sbn_model *model, sbni_image image, sbni_frame frame,
                      void *to);

/* The image within a frame that was cleared, in `to`, or what is there where the image is
 * all of it; and n images, one behind the other, frames and all. */
sbni_planes sbni_frame_fill(const sbn_model *model, const void *x, sbni_image image,
                            sbni_frame frame, void *to);
sbni_planes sbni_frame_fill_all(const sbn_model *model, const void *x, sbni_image image,
                                sbni_frame frame, int64_t n, void *to);

/* The windows of an image of c channels in its frame. */
sbni_windows sbni_frame_windows(int64_t c, sbni_frame frame, int64_t kernel,
                                int32_t *offset);

#endif
