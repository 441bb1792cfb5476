/* Elements of an array of any type. */
#ifndef SUPPORT_ELEMENT_H
#define SUPPORT_ELEMENT_H

#include <stdint.h>

#include "syncbn/tensor.h"

/* Fails unless two blocks have the same bits. */
void same_bits(const void *a, const void *b, int64_t bytes);

/* Element i of an array of the type, as a double. */
double element(sbn_dtype dtype, const void *array, int64_t i);
void set_element(sbn_dtype dtype, void *array, int64_t i, double v);

#endif
