/*
 * Drawn digits: a data set that needs no file. Pen strokes of ten digits in several
 * shapes, warped, wobbled, thick or thin, on a noisy ground with specks. Hard enough that
 * a linear classifier stays below 95 % and a small convolutional net does not.
 */
#ifndef SBNI_SYNTHETIC_H
#define SBNI_SYNTHETIC_H

#include <stdint.h>

#include "syncbn/data.h"

enum {
    SBNI_SYNTHETIC_SIDE = 28,
    SBNI_SYNTHETIC_PIXELS = SBNI_SYNTHETIC_SIDE * SBNI_SYNTHETIC_SIDE
};

sbn_dataset_info sbni_synthetic_info(sbn_split split);

/* Draw one image into SBNI_SYNTHETIC_PIXELS values and return its label. A function of
 * (seed, split, index): it uses only IEEE operations that round one way, no library
 * function, so the bytes are the same on every machine. */
int32_t sbni_synthetic_draw(uint64_t seed, sbn_split split, int64_t index,
                            uint8_t *pixels);

/* The label that sbni_synthetic_draw returns, without the image. */
int32_t sbni_synthetic_label(uint64_t seed, sbn_split split, int64_t index);

#endif
