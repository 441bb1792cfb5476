/* Shape arithmetic of tensor views. */
#ifndef SBNI_TENSOR_H
#define SBNI_TENSOR_H

#include "core/status.h"
#include "syncbn/tensor.h"

/* Elements of one channel of one sample: s = h·w. */
static inline int64_t sbni_tensor_s(const sbn_tensor *t)
{
    return t->h * t->w;
}

/* Check that a view is usable: axes in range, data present and aligned where there are
 * elements. */
sbn_status sbni_tensor_check(const sbn_tensor *t, const char *name);

/* Check that two views have one shape and type. */
sbn_status sbni_tensor_check_same(const sbn_tensor *a, const char *name_a,
                                  const sbn_tensor *b, const char *name_b);

#endif
