/* What tests of convolutions by tiles share. */
#ifndef SUPPORT_TILES_H
#define SUPPORT_TILES_H

#include <stdbool.h>

#include "kernels/kernels.h"

enum {
    WIDTH = SBNI_TILE_WIDTH,
    MOST_DOWN = SBNI_TILE_MOST_DOWN,
    IMAGES = SBNI_TILE_IMAGES
};

/* Whether a table has their kernels: all of them, where it has product, or else none, and
 * then it is not compared. */
bool has_tiles(const sbni_kernels *k);

/* Where images of c channels lie among zeros. */
sbni_frame frame_for(int64_t c, int64_t pad, int64_t h, int64_t w);

/* Elements from the first to the last at so many points. */
int64_t points_size(int64_t points, int64_t c, int64_t tiles);

/* NaN, in memory of their own: what is read before it is written shows, and sanitizers
 * see what is read beyond. Free with free(). */
void *unwritten(sbn_dtype t, int64_t n);

#endif
