/* Memory of one strided tensor, with gaps that nobody may read or write. */
#ifndef SUPPORT_SLAB_H
#define SUPPORT_SLAB_H

#include <stdbool.h>

#include "syncbn/tensor.h"

/* Where the elements of a tensor lie, and how far its first is from the block's start. */
typedef struct slab_layout {
    int64_t stride_n, stride_c, stride_s, offset;
} slab_layout;

typedef struct slab {
    sbn_tensor t;
    char *block;  /* all bytes outside of elements are 0xff: NaN in every type */
    char *before; /* copy of it; NULL until slab_keep */
    int64_t bytes;
} slab;

/* Elements are NaN at first. n = 0: data is NULL when the offset is 0. */
slab slab_make(sbn_dtype dtype, const int64_t shape[5], slab_layout at);
void slab_free(slab *m);

/* Make everything NaN again. */
void slab_blank(slab *m);

int64_t slab_place(const sbn_tensor *t, int64_t row, int64_t i, int64_t j);

/* Note what is there, and whether every byte still is. */
void slab_keep(slab *m);
bool slab_kept(const slab *m);

/* Whether nothing but elements was written. */
bool slab_gaps_kept(const slab *m);

#endif
