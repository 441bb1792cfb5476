/* Numbers from summed words, many channels at a time: by the kernels, and exactly by
 * comm/exact.h where they are not certain of a rounding. The bits are always those of
 * comm/exact.h. */
#ifndef SBNI_READ_H
#define SBNI_READ_H

#include "comm/exact.h"
#include "kernels/kernels.h"

/* Channels that callers read at a time, onto their stack. */
enum { SBNI_READ_CHANNELS = 64 };

static inline int64_t sbni_read_count(int64_t from, int64_t c)
{
    return c - from < SBNI_READ_CHANNELS ? c - from : SBNI_READ_CHANNELS;
}

static inline int64_t sbni_read_parts(int64_t c)
{
    return (c + SBNI_READ_CHANNELS - 1) / SBNI_READ_CHANNELS;
}

/* mean, mean_low, var [c], any c, of words [SBNI_MOMENT_WORDS][stride]; n, slices as for
 * sbni_exact_moments. */
void sbni_read_moments(const sbni_words_kernels *kernels, int64_t c, int64_t stride,
                       const uint64_t *words, int64_t n, int64_t slices, double *mean,
                       double *mean_low, double *var);

/* v [c], any c, of words [SBNI_SUM_WORDS][stride]. */
void sbni_read_sums(const sbni_words_kernels *kernels, int64_t c, int64_t stride,
                    const uint64_t *words, double *v);

#endif
