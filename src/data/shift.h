/*
 * Inputs from another source: what a camera, a screen or the weather do to images, one
 * after the other (kinds as in Hendrycks & Dietterich 2019, arXiv 1903.12261). Pixels are
 * 0 … 1 before and after each; what would leave that range is clipped.
 */
#ifndef SBNI_SHIFT_H
#define SBNI_SHIFT_H

#include "core/status.h"
#include "syncbn/data.h"

typedef enum sbni_shift_kind {
    SBNI_SHIFT_CONTRAST, /* m + a·(x − m), m the mean of the channel in the image */
    SBNI_SHIFT_NOISE,    /* x + a·z, z standard normal for every pixel */
    SBNI_SHIFT_BLUR,     /* Gaussian of deviation a pixels, cut at 4a; the outermost
                            pixels go on beyond the border */
    SBNI_SHIFT_INVERT    /* x + a·(1 − 2x) */
} sbni_shift_kind;

enum { SBNI_SHIFT_STEPS = 8, SBNI_SHIFT_REACH = 64 };

typedef struct sbni_shift_step {
    sbni_shift_kind kind;
    double amount;
    int reach; /* blur: pixels to each side */
    double weight[SBNI_SHIFT_REACH + 1];
} sbni_shift_step;

typedef struct sbni_shift {
    int n; /* 0: nothing is done */
    sbni_shift_step step[SBNI_SHIFT_STEPS];
} sbni_shift;

/* Read KIND:AMOUNT[,KIND:AMOUNT…]; NULL is the empty list. SBN_E_ARG. */
sbn_status sbni_shift_parse(const char *text, sbni_shift *shift);

/* Change one image (c,h,w) in place; sides are at most SBNI_IDX_MOST_SIDE. Noise is a
 * function of (seed, place in the list, index, pixel). */
void sbni_shift_apply(const sbni_shift *shift, uint64_t seed, int64_t index,
                      const sbn_dataset_info *shape, float *x);

#endif
