#include "kernels/product_tmpl.h"

#ifdef SBNI_FUSES

/* Convolution of stride 1 without its columns: what would be a row of them begins in the
 * image itself, `offset` behind the window's first element, and stays in the nearest
 * cache, where columns would be k² times as large. */

/* The next LANES outputs of a row, or all of a narrower one; a last few are made up to
 * LANES by those before. */
typedef struct cursor {
    int64_t i, j;
} cursor;

static cursor next(cursor at, int64_t ow)
{
    if (at.j + LANES >= ow) return (cursor){at.i + 1, 0};
    at.j = at.j + 2 * LANES <= ow ? at.j + LANES : ow - LANES;
    return at;
}

void K(convolve)(const sbni_windows *w, const void *xv, const void *weight,
                 const void *bias, int64_t out, void *yv)
{
    const T *x = xv;
    T *y = yv;
    int64_t rows = w->rows, columns = w->columns;
    place at = {weight, {NULL}, {NULL}, w->k, 1, 0, rows * columns, w->offset, bias};
    for (cursor to = {0, 0}; to.i < rows;) {
        for (int v = 0; v < VECTORS; v++) {
            /* the last one alone is made twice */
            cursor from = to.i < rows
                              ? to
                              : (cursor){rows - 1, columns > LANES ? columns - LANES : 0};
            at.b[v] = x + from.i * w->stride + from.j;
            at.c[v] = y + from.i * columns + from.j;
            to = next(to, columns);
        }
        if (columns >= LANES)
            strip(at, out, VECTORS, VECTORS, 0, w->k, false, true);
        else
            strip(at, out, VECTORS, 0, columns, w->k, false, true);
    }
}

/* A tile of dW: where its channels begin, and the images that it is a sum over. */
typedef struct weights_tile {
    const sbni_windows *windows;
    const T *x, *dy;
    const int32_t *offset; /* [columns] */
    T *dw;
    int64_t n, x_image, dy_image, dy_channel;
    bool adds;
} weights_tile;

/* single: rows of dy are one vector long. */
INLINE void sum_weights(const weights_tile *t, int rows, int columns, bool single)
{
    dots sum;
    clear_dots(sum, rows, columns);
    const T *first[DOT_COLUMNS];
    for (int j = 0; j < columns; j++) first[j] = t->x + t->offset[j];
    int64_t oh = t->windows->rows, ow = single ? DOT : t->windows->columns,
            stride = t->windows->stride, channel = t->dy_channel;
    for (int64_t r = 0; r < t->n; r++) {
        const T *dy = t->dy + r * t->dy_image;
        int64_t from = r * t->x_image;
        for (int64_t i = 0; i < oh; i++, from += stride, dy += ow) {
            int64_t j = 0;
            for (; j + DOT <= ow; j += DOT)
                add_dots(dy + j, channel, first, from + j, rows, columns, DOT, sum);
            if (j < ow)
                add_dots(dy + j, channel, first, from + j, rows, columns, ow - j, sum);
        }
    }
    store_dots(sum, rows, columns, t->adds, t->dw, t->windows->k);
}

/* Functions of their own, for the sake of registers. */
#define TILE(rows, columns)                                                              \
    static __attribute__((noinline)) void tile_##rows##_##columns(const weights_tile *t) \
    {                                                                                    \
        sum_weights(t, rows, columns, false);                                            \
    }                                                                                    \
    static                                                                               \
        __attribute__((noinline)) void single_##rows##_##columns(const weights_tile *t)  \
    {                                                                                    \
        sum_weights(t, rows, columns, true);                                             \
    }
TILE(1, 1)
TILE(1, 2)
TILE(1, 3)
TILE(1, 4)
TILE(2, 1)
TILE(2, 2)
TILE(2, 3)
TILE(2, 4)
TILE(3, 1)
TILE(3, 2)
TILE(3, 3)
TILE(3, 4)

typedef void tile_function(const weights_tile *t);
#define TILES(name)                                                                      \
    {                                                                                    \
        {name##_1_1, name##_1_2, name##_1_3, name##_1_4},                                \
            {name##_2_1, name##_2_2, name##_2_3, name##_2_4},                            \
        {                                                                                \
            name##_3_1, name##_3_2, name##_3_3, name##_3_4                               \
        }                                                                                \
    }
static tile_function *const tiles[2][DOT_ROWS][DOT_COLUMNS] = {TILES(tile),
                                                               TILES(single)};

/* The next of `left` that go in parts of up to `most`, as even as they come. */
static int64_t next_part(int64_t left, int64_t most)
{
    int64_t parts = (left + most - 1) / most;
    return (left + parts - 1) / parts;
}

void K(convolve_weights)(const sbni_windows *w, int64_t n, const sbni_planes *x,
                         const sbni_planes *dy, int64_t out, bool adds, void *dw)
{
    weights_tile t = {.windows = w,
                      .x = x->data,
                      .n = n,
                      .x_image = x->image,
                      .dy_image = dy->image,
                      .dy_channel = dy->channel,
                      .adds = adds};
    for (int64_t j = 0, columns; j < w->k; j += columns) {
        columns = next_part(w->k - j, DOT_COLUMNS);
        t.offset = w->offset + j;
        for (int64_t i = 0, rows; i < out; i += rows) {
            rows = next_part(out - i, DOT_ROWS);
            t.dy = (const T *)dy->data + i * dy->channel;
            t.dw = (T *)dw + i * w->k + j;
            tiles[w->columns == DOT][rows - 1][columns - 1](&t);
        }
    }
}

#endif
