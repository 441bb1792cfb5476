#include "nn/winograd.h"

/* y = A' [ (G w G') · (B' x B) ] A of tiles, point by point, summed over channels: at
 * each of the points a product of matrices, [out][in] times [in][tiles · images]. dx and
 * dW are the transposes of it. */

enum { WIDTH = SBNI_TILE_WIDTH, IMAGES = SBNI_TILE_IMAGES };

_Static_assert(SBN_SLICE <= SBNI_TILE_IMAGES, "a slice is one row of images");

/* Fewer images leave so many lanes empty that windows one by one are as fast. */
enum { LEAST_IMAGES = 12 };

/* Fewer channels do not pay for the way to the points and back. */
enum { LEAST_CHANNELS = 8 };

/* Eighths of the windows' products that tiles may have, those of outputs in vain counted:
 * windows of 5x5 one by one are slower for each product. */
static int64_t most_eighths(int64_t kernel)
{
    return kernel == 3 ? 3 : 4;
}

static sbni_tiles tiles_of(const sbni_layer *layer)
{
    sbni_image out = layer->out->shape;
    int64_t kernel = layer->spec.kernel, down = SBNI_TILE_OUTPUTS_DOWN,
            across = sbni_tile_outputs_across(kernel);
    return sbni_tiles_of(kernel, (out.h + down - 1) / down,
                         (out.w + across - 1) / across);
}

/* Without gaps between its channels. */
static sbni_frame bare_frame(int64_t c, int64_t pad, int64_t h, int64_t w)
{
    return (sbni_frame){pad, h, w, h * w, c * h * w};
}

/* Of x, and of y with all outputs of the tiles. */
static sbni_frame frame_of_x(const sbni_layer *layer, const sbni_tiles *t)
{
    return bare_frame(layer->in->shape.c, layer->spec.pad, t->h, t->w);
}

static sbni_frame frame_of_y(const sbni_layer *layer, const sbni_tiles *t)
{
    return bare_frame(layer->out->shape.c, 0, t->h - t->kernel + 1, t->w - t->kernel + 1);
}

bool sbni_winograd_fits(const sbn_model *m, const sbni_layer *layer)
{
    const sbni_layer_spec *spec = &layer->spec;
    if (!m->kernels->tiles_points || spec->stride != 1 ||
        (spec->kernel != 3 && spec->kernel != 5) || layer->in->shape.c < LEAST_CHANNELS ||
        layer->out->shape.c < LEAST_CHANNELS)
        return false;
    sbni_tiles t = tiles_of(layer);
    int64_t products = t.rows * t.columns * sbni_tile_points(t.kernel),
            windows = layer->out->shape.h * layer->out->shape.w * t.kernel * t.kernel;
    return 8 * products <= most_eighths(t.kernel) * windows;
}

bool sbni_winograd_takes(const sbni_layer *layer, int64_t n)
{
    return layer->points && n >= LEAST_IMAGES;
}

/* The next of `left` channels that go in parts as even as they come, of as many as a tile
 * of products has rows. */
static int64_t next_part(int64_t left)
{
    const int64_t most = 6;
    int64_t parts = (left + most - 1) / most;
    return (left + parts - 1) / parts;
}

/* Arrays in a thread's work, one behind the other: elements of x and y side by side, of a
 * row of tiles, of what lies at the points of x and of y (of a row of tiles or one tile
 * or, for dW, of all tiles at one row of points) and of dW there. */
typedef struct work {
    sbni_tiles tiles;
    int64_t x, y, row, x_points, y_points, dweight;
} work;

int64_t sbni_winograd_points(const sbni_layer *layer)
{
    return sbni_tile_points(layer->spec.kernel) * layer->in->shape.c *
           layer->out->shape.c;
}

static int64_t most_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static work work_of(const sbni_layer *layer)
{
    work w = {.tiles = tiles_of(layer)};
    int64_t in = layer->in->shape.c, out = layer->out->shape.c,
            all = w.tiles.rows * w.tiles.columns,
            points = sbni_tile_points(w.tiles.kernel);
    w.x = frame_of_x(layer, &w.tiles).count * IMAGES;
    w.y = frame_of_y(layer, &w.tiles).count * IMAGES;
    w.row = sbni_tile_height(w.tiles.kernel) * w.tiles.w * IMAGES;
    w.x_points = most_of(points * sbni_points_apart(in, w.tiles.columns),
                         WIDTH * sbni_points_apart(in, all));
    w.y_points =
        most_of(points * sbni_points_apart(out, 1), WIDTH * sbni_points_apart(out, all));
    w.dweight = sbni_winograd_points(layer);
    return w;
}

int64_t sbni_winograd_work(const sbni_layer *layer)
{
    work w = work_of(layer);
    return w.x + w.y + w.row + w.x_points + w.y_points + w.dweight;
}

/* The same as addresses. */
typedef struct arrays {
    void *x, *y, *row, *x_points, *y_points, *dweight;
} arrays;

static arrays arrays_in(const sbn_model *m, const work *w, void *all)
{
    arrays a = {.x = all};
    a.y = sbni_at(m, a.x, w->x);
    a.row = sbni_at(m, a.y, w->y);
    a.x_points = sbni_at(m, a.row, w->row);
    a.y_points = sbni_at(m, a.x_points, w->x_points);
    a.dweight = sbni_at(m, a.y_points, w->y_points);
    return a;
}

/* What lies at the points of one of `tiles` tiles. */
static sbni_points points_of(void *data, int64_t c, int64_t tiles)
{
    return (sbni_points){data, sbni_points_apart(c, tiles), tiles * IMAGES, 1};
}

void sbni_winograd_prepare(const sbn_model *m, const sbni_layer *layer)
{
    m->kernels->tiles_weights(layer->spec.kernel,
                              layer->in->shape.c * layer->out->shape.c,
                              m->params[layer->weight].tensor.data, layer->points);
}

void sbni_winograd_forward(const sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    const sbni_kernels *k = m->kernels;
    work w = work_of(layer);
    const sbni_tiles *t = &w.tiles;
    arrays a = arrays_in(m, &w, m->scratch[task.thread].col);
    sbni_image in = layer->in->shape, out = layer->out->shape;
    const void *bias = m->params[layer->bias].tensor.data;
    int64_t channel = w.y / out.c;
    k->images_to_lanes(sbni_edge_y(m, layer->in, task), task.slice.n, in,
                       frame_of_x(layer, t), a.x);
    for (int64_t r = 0; r < t->rows; r++) {
        k->tiles_points(t, in.c, r, a.x, a.row, a.x_points);
        for (int64_t j = 0; j < t->columns; j++) {
            sbni_points x =
                points_of(sbni_at(m, a.x_points, j * IMAGES), in.c, t->columns);
            /* a few channels at a time, so that their sums stay in the nearest cache */
            for (int64_t o = 0, n; o < out.c; o += n) {
                n = next_part(out.c - o);
                sbni_points weight = {sbni_at(m, layer->points, o * in.c), in.c * out.c,
                                      in.c, 1},
                            y = points_of(a.y_points, n, 1);
                k->tiles_products(sbni_tile_points(t->kernel), n, in.c, &weight, &x, &y);
                k->tiles_outputs(t, n, r, j, a.y_points, sbni_at(m, bias, o),
                                 sbni_at(m, a.y, o * channel));
            }
        }
    }
    k->images_of_lanes(a.y, task.slice.n, out, frame_of_y(layer, t),
                       sbni_edge_y(m, layer->out, task));
}

void sbni_winograd_take_dy(const sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    work w = work_of(layer);
    arrays a = arrays_in(m, &w, m->scratch[task.thread].col);
    m->kernels->images_to_lanes(sbni_edge_dy(m, layer->out, task), task.slice.n,
                                layer->out->shape, frame_of_y(layer, &w.tiles), a.y);
}

void sbni_winograd_dx(const sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    const sbni_kernels *k = m->kernels;
    work w = work_of(layer);
    const sbni_tiles *t = &w.tiles;
    arrays a = arrays_in(m, &w, m->scratch[task.thread].col);
    sbni_image in = layer->in->shape, out = layer->out->shape;
    const sbni_points weight = {layer->points, in.c * out.c, 1, in.c},
                      dy = points_of(a.y_points, out.c, 1);
    for (int64_t r = 0; r < t->rows; r++) {
        for (int64_t j = 0; j < t->columns; j++) {
            sbni_points dx =
                points_of(sbni_at(m, a.x_points, j * IMAGES), in.c, t->columns);
            k->tiles_of_outputs(t, out.c, r, j, a.y, a.y_points);
            k->tiles_products(sbni_tile_points(t->kernel), in.c, out.c, &weight, &dy,
                              &dx);
        }
        k->tiles_add_points(t, in.c, r, a.x_points, a.row, a.x);
        sbni_model_poke(m, task);
    }
    k->images_of_lanes(a.x, task.slice.n, in, frame_of_x(layer, t),
                       sbni_edge_dy(m, layer->in, task));
}

void sbni_winograd_dweight(const sbn_model *m, const sbni_layer *layer, sbni_task task,
                           void *dweight)
{
    const sbni_kernels *k = m->kernels;
    work w = work_of(layer);
    const sbni_tiles *t = &w.tiles;
    const sbni_scratch *scratch = &m->scratch[task.thread];
    arrays a = arrays_in(m, &w, scratch->col);
    sbni_image in = layer->in->shape, out = layer->out->shape;
    int64_t tiles = t->rows * t->columns, width = tiles * IMAGES;
    /* rows of x are windows of one element, a channel each */
    sbni_windows rows = {scratch->offset, in.c, 1, width, 0};
    for (int64_t c = 0; c < in.c; c++) scratch->offset[c] = (int32_t)(c * width);
    k->images_to_lanes(sbni_edge_y(m, layer->in, task), task.slice.n, in,
                       frame_of_x(layer, t), a.x);
    for (int i = 0; i < sbni_tile_height(t->kernel); i++) {
        k->tiles_row_points(t, in.c, i, a.x, a.row, a.x_points);
        k->tiles_row_of_outputs(t, out.c, i, a.y, a.y_points);
        for (int j = 0; j < WIDTH; j++) {
            sbni_planes x = {sbni_at(m, a.x_points, j * sbni_points_apart(in.c, tiles)),
                             0, width},
                        dy = {sbni_at(m, a.y_points, j * sbni_points_apart(out.c, tiles)),
                              0, width};
            k->convolve_weights(&rows, 1, &x, &dy, out.c, false,
                                sbni_at(m, a.dweight, (i * WIDTH + j) * in.c * out.c));
        }
        sbni_model_poke(m, task);
    }
    k->tiles_dweights(layer->spec.kernel, in.c * out.c, a.dweight, dweight);
}
