#include "support/slab.h"

#include <stdlib.h>
#include <string.h>

enum { BLANK = 0xff, BEHIND = 3 };

slab slab_make(sbn_dtype dtype, const int64_t shape[5], slab_layout at)
{
    int64_t size = sbn_dtype_bytes(dtype), s = shape[2] * shape[3] * shape[4];
    slab m = {.t = {.dtype = dtype,
                    .n = shape[0],
                    .c = shape[1],
                    .d = shape[2],
                    .h = shape[3],
                    .w = shape[4],
                    .stride_n = at.stride_n,
                    .stride_c = at.stride_c,
                    .stride_s = at.stride_s}};
    int64_t last = m.t.n ? slab_place(&m.t, m.t.n > 1 ? m.t.n - 1 : 0,
                                      m.t.c > 1 ? m.t.c - 1 : 0, s > 1 ? s - 1 : 0)
                         : -1;
    m.bytes = (at.offset + last + 1 + BEHIND) * size;
    m.block = malloc((size_t)m.bytes);
    memset(m.block, BLANK, (size_t)m.bytes);
    m.t.data = m.t.n || at.offset ? m.block + at.offset * size : NULL;
    return m;
}

void slab_free(slab *m)
{
    free(m->block);
    free(m->before);
    *m = (slab){0};
}

void slab_blank(slab *m)
{
    memset(m->block, BLANK, (size_t)m->bytes);
}

int64_t slab_place(const sbn_tensor *t, int64_t row, int64_t i, int64_t j)
{
    return row * t->stride_n + i * t->stride_c + j * t->stride_s;
}

void slab_keep(slab *m)
{
    if (!m->before) m->before = malloc((size_t)m->bytes);
    memcpy(m->before, m->block, (size_t)m->bytes);
}

bool slab_kept(const slab *m)
{
    return memcmp(m->before, m->block, (size_t)m->bytes) == 0;
}

bool slab_gaps_kept(const slab *m)
{
    int64_t size = sbn_dtype_bytes(m->t.dtype), s = m->t.d * m->t.h * m->t.w;
    char *rest = malloc((size_t)m->bytes);
    memcpy(rest, m->block, (size_t)m->bytes);
    int64_t start = m->t.data ? (char *)m->t.data - m->block : 0;
    for (int64_t row = 0; row < m->t.n; row++)
        for (int64_t i = 0; i < m->t.c; i++)
            for (int64_t j = 0; j < s; j++)
                memset(rest + start + slab_place(&m->t, row, i, j) * size, BLANK,
                       (size_t)size);
    bool kept = true;
    for (int64_t b = 0; b < m->bytes; b++) kept &= (unsigned char)rest[b] == BLANK;
    free(rest);
    return kept;
}
