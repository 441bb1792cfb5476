/* One step of the layer in long double and two passes over the whole batch, with a bound
 * on how far the layer's roundings may carry each value; shares no line with the library.
 */
#ifndef SUPPORT_REFERENCE_H
#define SUPPORT_REFERENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "syncbn/norm.h"

typedef struct ref_channel ref_channel;

/* A value, and how far from it the layer may end. */
typedef struct bounded {
    long double v, e;
} bounded;

typedef struct reference {
    /* in; values of n samples [n][c][s], those left out not among them */
    int64_t n, c, s;
    const double *x, *z, *dy;   /* z NULL: nothing is added */
    const double *gamma, *beta; /* [c]; NULL: 1 and 0 */
    sbn_norm_config cfg;
    bool constant;            /* running statistics in place of the batch's */
    bool corrects;            /* renorm is in force */
    const double *mean, *var; /* [c] running, before the step; NULL where not tracked */
    int64_t tracked;          /* batches so far, this one included */

    /* out */
    bounded *pre; /* [n][c][s] before relu, bound without storage */
    bounded *y;
    bounded *dx;
    bounded *dz;
    bounded *dgamma, *dbeta;             /* [c] */
    bounded *running_mean, *running_var; /* [c] after the step */

    ref_channel *channels; /* [norm batches][c] */
} reference;

/* Allocate the outputs for n, c, s set before. */
void reference_make(reference *r);
void reference_free(reference *r);

/* Samples [*from, *to) of norm batch g; false behind the last. */
bool reference_norm_batch(const reference *r, int64_t g, int64_t *from, int64_t *to);

/* y and running statistics. No norm batch has one value per channel. */
void reference_forward(reference *r);

/* dx, dz, dgamma, dbeta. open [n][c][s]: where relu lets through; NULL without relu. */
void reference_backward(reference *r, const uint8_t *open);

#endif
