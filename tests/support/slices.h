/* Sums of slices to put onto the grid. */
#ifndef SUPPORT_SLICES_H
#define SUPPORT_SLICES_H

#include "core/grid.h"
#include "core/rng.h"
#include "kernels/kernels.h"

enum { M = SBNI_MOMENT_WORDS, S = SBNI_SUM_WORDS, Q = SBNI_SQUARE_WORDS };
enum { MOST_C = 100, MOST_SLICES = 70, GAP = 3, STRIDE = MOST_C + GAP };

/* Arrays [slices][STRIDE]. */
typedef struct slices {
    double m[MOST_SLICES], p[MOST_SLICES * STRIDE], d[MOST_SLICES * STRIDE],
        dd[MOST_SLICES * STRIDE];
} slices;
extern slices in;

static const sbni_rng_key words_key = {.seed = 52, .purpose = SBNI_RNG_TEST};

/* Numbers of slices around those that a kernel takes together. */
static const int64_t slice_counts[] = {1, 2, 31, 32, 33, MOST_SLICES};

/* 0 … n-1, draw `which` of i. */
int64_t below(int64_t n, int64_t i, uint32_t which);

double round_to(sbn_dtype t, double v);

/* Slices of every kind; channels beyond c are poison. */
enum {
    ORDINARY,
    SCALES,
    EQUAL,
    UNEVEN,
    FAR,
    ABOUT_0,
    SCALES_ABOUT_0,
    FIRST_ABOUT_0,
    ZERO,
    MIXED,
    KINDS
};
void draw_slices(sbn_dtype t, int64_t c, int64_t count, int kind);

/* Let a kernel add some of them to words [M][STRIDE]; its flags. */
int add_slices(const sbni_words_kernels *k, int64_t c, int64_t from, int64_t count,
               uint64_t *words);

/* Add v to words on the grid, step by step. */
void put_part(double v, int lsb, int count, uint64_t *words);

#endif
