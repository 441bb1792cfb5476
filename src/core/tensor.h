/* Shape arithmetic of tensor views. */
#ifndef SBNI_TENSOR_H
#define SBNI_TENSOR_H

#include <stdbool.h>

#include "core/status.h"
#include "syncbn/tensor.h"

/* Elements of one channel of one sample: s = d·h·w. */
static inline int64_t sbni_tensor_s(const sbn_tensor *t)
{
    return t->d * t->h * t->w;
}

/* Check that a view is usable: axes in range, strides as promised, data present and
 * aligned where there are elements. */
sbn_status sbni_tensor_check(const sbn_tensor *t, const char *name);

/* Check that two views have one shape and type; strides may differ. */
sbn_status sbni_tensor_check_same(const sbn_tensor *a, const char *name_a,
                                  const sbn_tensor *b, const char *name_b);

/* Check that two usable views of one shape share no element, or, where `same` allows it,
 * lie exactly in the same place. Views cut out of one array may interleave. */
sbn_status sbni_tensor_check_apart(const sbn_tensor *a, const char *name_a,
                                   const sbn_tensor *b, const char *name_b, bool same);

/* Whether the elements lie in the order of sbn_tensor_ncdhw, without gaps. */
bool sbni_tensor_is_dense(const sbn_tensor *t);

/* Whether the pixels of a channel, or the channels of a pixel, are neighbours. */
bool sbni_tensor_has_planes(const sbn_tensor *t);
bool sbni_tensor_has_rows(const sbn_tensor *t);

#endif
