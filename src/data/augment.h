/* Random changes of training images that keep their labels: shifts and mirror images
 * (He et al. 2016, arXiv 1512.03385, section 4.2). */
#ifndef SBNI_AUGMENT_H
#define SBNI_AUGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "syncbn/data.h"

typedef struct sbni_augment {
    int64_t shift; /* most pixels up, down, left and right; 0: none */
    bool flip;     /* left and right exchanged, by an even chance */
    uint64_t seed;
} sbni_augment;

/* Change one image (c,h,w) in place: a function of (seed, epoch, index). What is shifted
 * in is 0. */
void sbni_augment_apply(const sbni_augment *augment, int64_t epoch, int64_t index,
                        const sbn_dataset_info *shape, float *x);

#endif
