/*
 * Randomness by counter: a draw is a function of (seed, purpose, epoch, index, draw) and
 * of nothing else, so it is the same at any number of processes. Philox 4x32-10, Salmon
 * et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
 */
#ifndef SBNI_RNG_H
#define SBNI_RNG_H

#include <stdint.h>

/* What a draw is for; the numbers are part of every result, so they never change. */
typedef enum sbni_purpose {
    SBNI_RNG_INIT = 1,      /* initial weights: epoch = tensor, index = element */
    SBNI_RNG_SHUFFLE = 2,   /* permutation: epoch = epoch, index = sample */
    SBNI_RNG_SYNTHETIC = 3, /* drawn images: epoch = split, index = sample */
    SBNI_RNG_TEST = 4,      /* inputs of tests and benchmarks */
    SBNI_RNG_DROPOUT = 5,   /* masks: epoch = step, index = place in the batch · 2^32 +
                               four elements, draw = number of the dropout layer */
    SBNI_RNG_CLASSES = 6,   /* classes of a group: epoch = epoch, index = which draw */
    SBNI_RNG_AUGMENT = 7, /* changes of training samples: epoch = epoch, index = sample */
    SBNI_RNG_SHIFT = 8    /* noise of test inputs: epoch = place, index = sample */
} sbni_purpose;

typedef struct sbni_rng_key {
    uint64_t seed;
    sbni_purpose purpose;
    uint32_t epoch;
} sbni_rng_key;

/* Four independent 32-bit words for one (index, draw). draw < 2^28. */
void sbni_rng_words(sbni_rng_key key, uint64_t index, uint32_t draw, uint32_t out[4]);

/* 64 uniform bits. */
uint64_t sbni_rng_u64(sbni_rng_key key, uint64_t index, uint32_t draw);

/* Uniform in [0, 1) with 53 bits. */
double sbni_rng_uniform(sbni_rng_key key, uint64_t index, uint32_t draw);

/* Standard normal (Box-Muller). */
double sbni_rng_normal(sbni_rng_key key, uint64_t index, uint32_t draw);

#endif
