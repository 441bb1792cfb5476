/* Random configurations of a layer and of some steps with it: a function of (seed,
 * number), so all processes draw the same one. */
#ifndef SUPPORT_TRIAL_H
#define SUPPORT_TRIAL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/rng.h"
#include "support/slab.h"
#include "syncbn/norm.h"

enum { TRIAL_STEPS = 3, TRIAL_SIZE = 16, TRIAL_ROWS = 70, TRIAL_DROPPED = 6 };

/* A sequence of draws. */
typedef struct dice {
    sbni_rng_key key;
    uint64_t at;
} dice;

dice dice_make(uint64_t seed, uint32_t number, int which);
int64_t dice_below(dice *d, int64_t n); /* 0 … n-1 */
bool dice_chance(dice *d, int percent);

/* Tensors of a process in a step. */
enum { TRIAL_X, TRIAL_Z, TRIAL_Y, TRIAL_DY, TRIAL_DX, TRIAL_DZ, TRIAL_TENSORS };

/* What one process does in a step. */
typedef struct trial_share {
    int64_t first, kept, n; /* place of its first kept sample; n with those left out */
    uint8_t keep[TRIAL_ROWS + TRIAL_DROPPED];
    int y_place, dx_place, dz_place; /* a tensor in whose place it is, its own index, or
                                        -1 where not wanted */
    slab_layout layout[TRIAL_TENSORS];
} trial_share;

typedef struct trial_step {
    sbn_norm_mode mode;
    int64_t n;        /* samples kept on all processes */
    int64_t shape[3]; /* d, h, w */
    bool planes;      /* neighbouring pixels; else channels */
    bool add, masked, backward, halves, meddle, warm;
    bool poison;       /* samples left out are NaN; else another number */
    int threads, peek; /* peek: process that evaluates before backward, or -1 */
    double r_max, d_max;
    trial_share share[TRIAL_SIZE];
} trial_step;

typedef struct trial {
    uint64_t seed;
    uint32_t number;
    int size;
    sbn_norm_config cfg;
    int64_t warm_batches; /* tracked before the first step; -1: averages as created */
    int steps;
    trial_step step[TRIAL_STEPS];
} trial;

trial *trial_draw(uint64_t seed, uint32_t number, int size);

/* The whole configuration, readable. */
void trial_print(const trial *t, FILE *out);

/* Whether the step takes running statistics as constants, without a message. */
bool trial_is_fixed(const trial *t, const trial_step *k);

static inline int64_t trial_pixels(const trial_step *k)
{
    return k->shape[0] * k->shape[1] * k->shape[2];
}

/* SBN_E_FEW where some norm batch has one value per channel. */
sbn_status trial_status(const trial *t, const trial_step *k);

/* The batch of a step: exact values of its elements [n][c][s], alike everywhere. */
typedef struct trial_batch {
    int64_t n, c, s;
    double *x, *z, *dy;
} trial_batch;

trial_batch trial_batch_make(const trial *t, int step);
void trial_batch_free(trial_batch *b);

#endif
