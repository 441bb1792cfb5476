#include "norm/read.h"

#include <math.h>

void sbni_read_moments(const sbni_words_kernels *kernels, int64_t c, int64_t stride,
                       const uint64_t *words, int64_t n, int64_t slices, double *mean,
                       double *mean_low, double *var)
{
    int64_t left =
        kernels->read_moments(c, stride, words, n, slices, mean, mean_low, var);
    for (int64_t i = 0; left > 0 && i < c; i++) {
        if (!signbit(var[i])) continue;
        sbni_moments m = sbni_exact_moments(words + i, stride, n, slices);
        mean[i] = m.mean;
        mean_low[i] = m.mean_low;
        var[i] = m.var;
        left--;
    }
}

void sbni_read_sums(const sbni_words_kernels *kernels, int64_t c, int64_t stride,
                    const uint64_t *words, double *v)
{
    int64_t left = kernels->read_sums(c, stride, words, v);
    for (int64_t i = 0; left > 0 && i < c; i++) {
        if (!isnan(v[i])) continue;
        v[i] = sbni_exact_sum(words + i, stride);
        left--;
    }
}
