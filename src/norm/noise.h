/* How far the statistics of norm batches lie from those of the whole batch. */
#ifndef SBNI_NOISE_H
#define SBNI_NOISE_H

#include "syncbn/norm.h"

typedef struct sbni_noise {
    double mean, var;
} sbni_noise;

/*
 * Of the layer's last training forward: root mean squares over norm batches b and
 * channels of (mean_b - mean)/sqrt(var) and of var_b/var - 1, with mean, var (biased) of
 * the whole batch. Each norm batch counts alike, a short one too; channels that are
 * constant over the batch are left out, and NaN is for layers that have no others. 0
 * where the batch is the only norm batch. The same on all processes, to the bit. Local.
 */
sbni_noise sbni_norm_noise(const sbn_norm *norm);

#endif
