/* Whose samples: how a batch is cut into norm batches and slices, and which slices a
 * process owns. */
#ifndef SBNI_SCOPE_H
#define SBNI_SCOPE_H

#include <stdint.h>

#include "syncbn/norm.h"

/* Consecutive samples of one norm batch that one thread of one process sums in one go. */
typedef struct sbni_slice {
    int64_t row;        /* first sample, counted from this process's first */
    int64_t n;          /* samples, 1 … SBN_SLICE */
    int64_t norm_batch; /* index in the whole batch */
} sbni_slice;

/* Norm batches that a batch of n samples is cut into; norm_batch SBN_NORM_BATCH_ALL gives
 * one. */
int64_t sbni_scope_norm_batches(int64_t n, int64_t norm_batch);

/*
 * Cut the samples [first, first + n) of a batch: at the borders of norm batches, and
 * every SBN_SLICE samples from such a border. slices may be NULL to count only. Returns
 * how many.
 */
int64_t sbni_scope_cut(int64_t first, int64_t n, int64_t norm_batch, sbni_slice *slices);

/* The samples of a batch of total that process rank of size owns: whole consecutive
 * slices, as many as its neighbours or one more or less; none when there are too few. */
void sbni_scope_share(int64_t total, int64_t norm_batch, int rank, int size,
                      int64_t *first, int64_t *n);

#endif
