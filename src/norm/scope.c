#include "norm/scope.h"

#include <stddef.h>

static int64_t ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b > 0); /* a + b may not fit */
}

int64_t sbni_scope_norm_batches(int64_t n, int64_t norm_batch)
{
    return norm_batch == SBN_NORM_BATCH_ALL ? 1 : ceil_div(n, norm_batch);
}

/* First sample behind the slice that holds sample `at`. */
static int64_t slice_end(int64_t at, int64_t norm_batch)
{
    if (norm_batch == SBN_NORM_BATCH_ALL) return (at / SBN_SLICE + 1) * SBN_SLICE;
    int64_t start = at / norm_batch * norm_batch;
    int64_t end = start + ((at - start) / SBN_SLICE + 1) * SBN_SLICE;
    return end < start + norm_batch ? end : start + norm_batch;
}

int64_t sbni_scope_cut(int64_t first, int64_t n, int64_t norm_batch, sbni_slice *slices)
{
    int64_t count = 0;
    for (int64_t at = first, end; at < first + n; at = end, count++) {
        end = slice_end(at, norm_batch);
        if (end > first + n) end = first + n;
        if (!slices) continue;
        int64_t which = norm_batch == SBN_NORM_BATCH_ALL ? 0 : at / norm_batch;
        slices[count] = (sbni_slice){at - first, end - at, which};
    }
    return count;
}

/* Sample at which slice k of a batch begins; the batch's end when there are fewer. */
static int64_t slice_start(int64_t k, int64_t total, int64_t norm_batch)
{
    int64_t m = norm_batch == SBN_NORM_BATCH_ALL ? total : norm_batch;
    int64_t per = ceil_div(m, SBN_SLICE); /* slices of a full norm batch */
    if (per == 0) return 0;
    int64_t at = k / per * m + k % per * SBN_SLICE;
    return at < total ? at : total;
}

/* Slices of a whole batch, without walking over it. */
static int64_t count_slices(int64_t total, int64_t norm_batch)
{
    if (norm_batch == SBN_NORM_BATCH_ALL) return ceil_div(total, SBN_SLICE);
    return total / norm_batch * ceil_div(norm_batch, SBN_SLICE) +
           ceil_div(total % norm_batch, SBN_SLICE);
}

void sbni_scope_share(int64_t total, int64_t norm_batch, int rank, int size,
                      int64_t *first, int64_t *n)
{
    int64_t slices = count_slices(total, norm_batch);
    /* slices·rank/size where the product may not fit */
    int64_t each = slices / size, rest = slices % size;
    int64_t from = each * rank + rest * rank / size,
            to = each * (rank + 1) + rest * (rank + 1) / size;
    *first = slice_start(from, total, norm_batch);
    *n = slice_start(to, total, norm_batch) - *first;
}
