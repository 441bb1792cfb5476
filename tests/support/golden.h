/* Values of an independent implementation: cases of a golden file, read one at a time. */
#ifndef SUPPORT_GOLDEN_H
#define SUPPORT_GOLDEN_H

#include "syncbn/norm.h"
#include "train/safetensors.h"

/* Open golden/<name>; returns its number of cases. */
int golden_open(const char *name);
void golden_close(void);

/* The case that the calls below speak of. */
void golden_select(int number);

/* Tensor "case<number>.<name>", NULL when there is none. */
const sbni_st_tensor *golden_find(const char *name);

/* Element i of a tensor, which must be there. */
double golden_value(const sbni_st_tensor *t, int64_t i);

/* Largest absolute value of a tensor. */
double golden_largest(const sbni_st_tensor *t);

/* What stands after "key=" in the metadata of the case, or NULL. */
const char *golden_setting(const char *key);
double golden_number(const char *key);

/* A copy that may be written, as the layer's views want it. Free with free(). */
void *golden_copy(const char *name);

/* A layer's settings and the shape of its input from the case's metadata. x has no data.
 */
sbn_norm_config golden_config(sbn_tensor *x);

/* Set gamma and beta of c channels to the case's, where it has them. */
void golden_load(sbn_norm *norm, int64_t c);

/* Samples [*first, *first + *n) of a batch for this process in step `step`: one of
 * several ways to share, of which one gives whole slices, and others end inside slices,
 * leave processes without samples, and change from step to step. */
enum { SHARE_SLICES, SHARE_UNEVEN, SHARE_HOLES, SHARE_LAST, SHARES };
void golden_share(int how, int64_t step, int64_t total, int64_t *first, int64_t *n);

/* Samples `first` … of an array of the case's shape. */
sbn_tensor golden_view(const sbn_tensor *shape, void *array, int64_t first, int64_t n);

/* Elements got[0 … count-1] against the case's tensor from element skip on, within
 * unit·scale[channel] (scale NULL: 1) for c channels of s elements. */
void golden_check(const char *name, sbn_dtype dtype, const void *got, int64_t skip,
                  int64_t count, double unit, const double *scale, int64_t s, int64_t c);

#endif
