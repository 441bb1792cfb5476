/* One process at work: a layer, its share of a joined batch in some layout, and room for
 * all that the layer gives. */
#ifndef SUPPORT_SEAT_H
#define SUPPORT_SEAT_H

#include "support/layer.h"

typedef enum layout { NCHW, NHWC, LAYOUTS } layout;

typedef struct seat {
    sbn_norm_config cfg;
    sbn_norm *norm;
    sbn_norm_state state;
    int64_t first, n;
    sbn_tensor x, dy, z, y, dx, dz; /* memory of their own */
} seat;

/* A layer with the batch's gamma and beta, at samples first … first+n-1; z holds the
 * batch's dy from the back. @collective over the group */
seat seat_make(const sbn_norm_config *cfg, sbn_group *group, const joined *b, layout form,
               int64_t first, int64_t n);
void seat_free(seat *s);

/* Running averages that are neither the initial ones nor those of the batch. */
void seat_draw_running(seat *s);

/* Forward and backward with all outputs; add: with z and dz. @collective */
void seat_step(seat *s, bool add);

/* y, dx and, where add, dz of both have the same bits, with `skip` samples of whole
 * before those of part. */
void seat_same_samples(const seat *part, const seat *whole, int64_t skip, bool add);

/* Gradients of gamma and beta and running statistics have the same bits. */
void seat_same_state(const seat *a, const seat *b);

/* Type of the state of a layer for these elements. */
sbn_dtype state_type(sbn_dtype dtype);

/* Samples of this shape in memory of their own: every output not written stays NaN. */
sbn_tensor tensor_make(layout form, sbn_dtype dtype, int64_t n, int64_t c, int64_t h,
                       int64_t w);
sbn_tensor tensor_like(const sbn_tensor *t);
void tensor_free(sbn_tensor *t);

/* Element of sample r, channel i, pixel j. */
double tensor_get(const sbn_tensor *t, int64_t r, int64_t i, int64_t j);
void tensor_set(const sbn_tensor *t, int64_t r, int64_t i, int64_t j, double v);
int64_t tensor_pixels(const sbn_tensor *t);

/* Samples r … of t become samples from … of values, [n][c][pixels]. */
void tensor_fill(const sbn_tensor *t, const double *values, int64_t from);

/* Elements of equal shapes, in any layouts, have the same bits; skip as above. */
void tensor_same(const sbn_tensor *part, const sbn_tensor *whole, int64_t skip);

/* Bytes from the first element to behind the last, without gaps in between. */
int64_t tensor_bytes(const sbn_tensor *t);

/* Shares of `total` that end anywhere, with none on some processes: what a process has in
 * the list that begins at weight `turn`. */
void uneven(int64_t total, int turn, int rank, int size, int64_t *first, int64_t *n);

#endif
