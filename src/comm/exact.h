/* Reading exact sums: from words on the grid (core/grid.h) back to mean, variance and
 * doubles. */
#ifndef SBNI_EXACT_H
#define SBNI_EXACT_H

#include <stdint.h>

#include "core/grid.h"

typedef struct sbni_moments {
    double mean, mean_low; /* the mean is mean + mean_low */
    double var;            /* biased, ≥ 0 */
} sbni_moments;

/*
 * Mean and biased variance of n values whose sum and sum of squares are held by
 * words[k·stride], k = 0 … SBNI_MOMENT_WORDS-1. The variance comes from the exact integer
 * n·Σx² − (Σx)²; where that is not above what rounding to the grid can leave, it is 0.
 * slices is how many sums were added. MATH.md (4), (5).
 */
sbni_moments sbni_exact_moments(const uint64_t *words, int64_t stride, int64_t n,
                                int64_t slices);

/* The value of words[k·stride], k = 0 … SBNI_SUM_WORDS-1, rounded once. */
double sbni_exact_sum(const uint64_t *words, int64_t stride);

/* Add v to words[0 … SBNI_SUM_WORDS-1]. Returns SBNI_GRID_ flags; a flagged value adds
 * nothing. */
int sbni_exact_add(double v, uint64_t *words);

#endif
