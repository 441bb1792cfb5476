/* Which samples of a call take part, in which slices. */
#ifndef SBNI_SAMPLES_H
#define SBNI_SAMPLES_H

#include "norm/scope.h"

typedef struct sbni_samples {
    int64_t *rows; /* the samples kept, in order, then those left out */
    int64_t kept, dropped;
    sbni_slice *slices; /* their rows count the samples kept */
    int64_t slice_count;
    double *sums;    /* [3][slice_count][c] room for what kernels sum */
    double *values;  /* [slice_count] values per channel */
    uint64_t *words; /* [threads - 1][SBNI_MOMENT_WORDS][c] room for the words of threads
                        but the first */
    int threads;     /* that may sum */
    int64_t rows_room, slice_room, sums_room;
} sbni_samples;

/*
 * Cut n samples into slices; keep NULL keeps all. first: place of the
 * first kept one in the batch. Memory grows only when a call is larger than all before.
 */
sbn_status sbni_samples_cut(sbni_samples *samples, int64_t n, const uint8_t *keep,
                            int64_t first, int64_t norm_batch);

/* Room for the sums of the slices' c channels by up to so many threads, of which each has
 * words of its own; slices are not shared out to more threads than there are slices. */
sbn_status sbni_samples_make_sums(sbni_samples *samples, int64_t c, int threads);

/* How many slices from k on, before end, are of one norm batch. */
int64_t sbni_samples_run(const sbni_samples *samples, int64_t k, int64_t end);

void sbni_samples_free(sbni_samples *samples);

#endif
