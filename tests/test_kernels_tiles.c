/* Convolutions by tiles, on every instruction set and type, put together of their kernels
 * as nn/winograd.c does. */
#include "support/harness.h"
#include "support/tables.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/element.h"
#include "support/tiles.h"

static void *at(sbn_dtype t, const void *array, int64_t i)
{
    return (char *)array + bytes_of(t, i);
}

typedef struct layer {
    int64_t n, c, h, w, kernel, pad, out;
} layer;

enum { Y, DX, DW, KINDS, DOWN = SBNI_TILE_OUTPUTS_DOWN };

typedef struct data {
    sbni_tiles tiles;
    sbni_image in, out;
    sbni_frame of_x, of_y;
    int64_t count[KINDS];
    void *x, *weight, *bias, *dy, *result[KINDS];
    /* x and y side by side, a row of tiles, windows and their gradients at the points,
     * and what else is there: of a row of tiles, of one, of all at a row of points */
    void *lanes_x, *lanes_y, *row, *u, *du, *v, *m, *row_v, *row_m;
} data;

static data make(sbn_dtype t, const layer *of)
{
    int64_t across = sbni_tile_outputs_across(of->kernel),
            oh = of->h + 2 * of->pad - of->kernel + 1,
            ow = of->w + 2 * of->pad - of->kernel + 1, pairs = of->c * of->out,
            height = sbni_tile_height(of->kernel), points = sbni_tile_points(of->kernel);
    data d = {.tiles = sbni_tiles_of(of->kernel, (oh + DOWN - 1) / DOWN,
                                     (ow + across - 1) / across),
              .in = {of->c, of->h, of->w},
              .out = {of->out, oh, ow},
              .count = {of->n * of->out * oh * ow, of->n * of->c * of->h * of->w,
                        pairs * of->kernel * of->kernel}};
    const sbni_tiles *tiles = &d.tiles;
    int64_t all = tiles->rows * tiles->columns;
    d.of_x = frame_for(of->c, of->pad, tiles->h, tiles->w);
    d.of_y = frame_for(of->out, 0, tiles->rows * DOWN, tiles->columns * across);
    d.x = exactly(t, d.count[DX], 0);
    d.weight = exactly(t, d.count[DW], 1);
    d.bias = exactly(t, of->out, 2);
    d.dy = exactly(t, d.count[Y], 3);
    for (int kind = 0; kind < KINDS; kind++) d.result[kind] = room(t, d.count[kind]);
    d.lanes_x = unwritten(t, d.of_x.count * IMAGES);
    d.lanes_y = unwritten(t, d.of_y.count * IMAGES);
    d.row = unwritten(t, height * tiles->w * IMAGES);
    d.u = unwritten(t, points * pairs);
    d.du = unwritten(t, points * pairs);
    d.v = unwritten(t, points_size(points, of->c, tiles->columns));
    d.m = unwritten(t, points_size(points, of->out, 1));
    d.row_v = unwritten(t, points_size(WIDTH, of->c, all));
    d.row_m = unwritten(t, points_size(WIDTH, of->out, all));
    return d;
}

static void drop(sbn_dtype t, data *d)
{
    void *all[] = {d->x, d->weight, d->bias, d->dy, d->lanes_x, d->lanes_y, d->row,
                   d->u, d->du,     d->v,    d->m,  d->row_v,   d->row_m};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    for (int kind = 0; kind < KINDS; kind++)
        room_check(t, d->result[kind], d->count[kind]);
}

/* What lies at the points of tile j of a row of them. */
static sbni_points tile_at(sbn_dtype t, void *v, int64_t c, int64_t tiles, int64_t j)
{
    return (sbni_points){at(t, v, j * IMAGES), sbni_points_apart(c, tiles),
                         tiles * IMAGES, 1};
}

static void forward(const sbni_kernels *k, sbn_dtype t, const layer *of, const data *d)
{
    enum { PART = 5 };
    const sbni_tiles *tiles = &d->tiles;
    int64_t channel = d->of_y.channel * IMAGES;
    k->tiles_weights(of->kernel, of->c * of->out, d->weight, d->u);
    k->images_to_lanes(d->x, of->n, d->in, d->of_x, d->lanes_x);
    for (int64_t r = 0; r < tiles->rows; r++) {
        k->tiles_points(tiles, of->c, r, d->lanes_x, d->row, d->v);
        for (int64_t j = 0; j < tiles->columns; j++)
            for (int64_t o = 0, n; o < of->out; o += n) {
                n = of->out - o < PART ? of->out - o : PART;
                sbni_points u = {at(t, d->u, o * of->c), of->c * of->out, of->c, 1},
                            v = tile_at(t, d->v, of->c, tiles->columns, j),
                            m = tile_at(t, d->m, n, 1, 0);
                k->tiles_products(sbni_tile_points(of->kernel), n, of->c, &u, &v, &m);
                k->tiles_outputs(tiles, n, r, j, d->m, at(t, d->bias, o),
                                 at(t, d->lanes_y, o * channel));
            }
    }
    k->images_of_lanes(d->lanes_y, of->n, d->out, d->of_y, d->result[Y]);
}

static void backward_x(const sbni_kernels *k, sbn_dtype t, const layer *of, const data *d)
{
    const sbni_tiles *tiles = &d->tiles;
    sbni_points u = {d->u, of->c * of->out, 1, of->c},
                m = tile_at(t, d->m, of->out, 1, 0);
    k->images_to_lanes(d->dy, of->n, d->out, d->of_y, d->lanes_y);
    for (int64_t r = 0; r < tiles->rows; r++) {
        for (int64_t j = 0; j < tiles->columns; j++) {
            sbni_points v = tile_at(t, d->v, of->c, tiles->columns, j);
            k->tiles_of_outputs(tiles, of->out, r, j, d->lanes_y, d->m);
            k->tiles_products(sbni_tile_points(of->kernel), of->c, of->out, &u, &m, &v);
        }
        k->tiles_add_points(tiles, of->c, r, d->v, d->row, d->lanes_x);
    }
    k->images_of_lanes(d->lanes_x, of->n, d->in, d->of_x, d->result[DX]);
}

static void backward_weight(const sbni_kernels *k, sbn_dtype t, const layer *of,
                            const data *d)
{
    const sbni_tiles *tiles = &d->tiles;
    int64_t all = tiles->rows * tiles->columns, width = all * IMAGES;
    int32_t *offset = malloc(sizeof *offset * (size_t)of->c);
    assert_non_null(offset);
    for (int64_t c = 0; c < of->c; c++) offset[c] = (int32_t)(c * width);
    sbni_windows rows = {offset, of->c, 1, width, 0};
    k->images_to_lanes(d->x, of->n, d->in, d->of_x, d->lanes_x);
    k->images_to_lanes(d->dy, of->n, d->out, d->of_y, d->lanes_y);
    for (int i = 0; i < sbni_tile_height(of->kernel); i++) {
        k->tiles_row_points(tiles, of->c, i, d->lanes_x, d->row, d->row_v);
        k->tiles_row_of_outputs(tiles, of->out, i, d->lanes_y, d->row_m);
        for (int j = 0; j < WIDTH; j++) {
            sbni_planes x = {at(t, d->row_v, j * sbni_points_apart(of->c, all)), 0,
                             width},
                        dy = {at(t, d->row_m, j * sbni_points_apart(of->out, all)), 0,
                              width};
            k->convolve_weights(&rows, 1, &x, &dy, of->out, false,
                                at(t, d->du, (i * WIDTH + j) * of->c * of->out));
        }
    }
    k->tiles_dweights(of->kernel, of->c * of->out, d->du, d->result[DW]);
    free(offset);
}

static void run(const sbni_kernels *k, sbn_dtype t, const layer *of, const data *d)
{
    forward(k, t, of, d);
    backward_x(k, t, of, d);
    backward_weight(k, t, of, d);
}

/* Sums in long double, and one after the other in the type. */
typedef struct reference {
    long double *sum[KINDS];
    double *plain[KINDS];
} reference;

static double fused(sbn_dtype t, double a, double b, double c)
{
    return t == SBN_F32 ? (double)fmaf((float)a, (float)b, (float)c) : fma(a, b, c);
}

static void add(sbn_dtype t, reference *r, int kind, int64_t e, double a, double b)
{
    r->sum[kind][e] += (long double)a * b;
    r->plain[kind][e] = fused(t, a, b, r->plain[kind][e]);
}

/* By the definition: for each output, what each element of its window adds to it, to its
 * own gradient and to that of the weight. */
static reference make_reference(sbn_dtype t, const layer *of, const data *d)
{
    reference r;
    for (int kind = 0; kind < KINDS; kind++) {
        r.sum[kind] = calloc((size_t)d->count[kind], sizeof *r.sum[kind]);
        r.plain[kind] = calloc((size_t)d->count[kind], sizeof *r.plain[kind]);
        assert_true(r.sum[kind] && r.plain[kind]);
    }
    int64_t taps = of->kernel * of->kernel, s = d->out.h * d->out.w;
    for (int64_t y = 0; y < d->count[Y]; y++) {
        int64_t image = y / s / of->out, o = y / s % of->out;
        double dy = element(t, d->dy, y), bias = element(t, d->bias, o);
        for (int64_t p = 0; p < of->c * taps; p++) {
            int64_t i = y % s / d->out.w + p % taps / of->kernel - of->pad,
                    j = y % d->out.w + p % of->kernel - of->pad,
                    x = ((image * of->c + p / taps) * of->h + i) * of->w + j,
                    w = o * of->c * taps + p;
            if (i < 0 || i >= of->h || j < 0 || j >= of->w) continue;
            double weight = element(t, d->weight, w), from = element(t, d->x, x);
            add(t, &r, Y, y, weight, from);
            add(t, &r, DX, x, weight, dy);
            add(t, &r, DW, w, from, dy);
        }
        r.sum[Y][y] += bias;
        r.plain[Y][y] = as(t, r.plain[Y][y] + bias);
    }
    return r;
}

/* Norm of `runs` runs of n elements, `apart` elements from one to the next. */
static double norm(sbn_dtype t, const void *array, int64_t first, int64_t runs,
                   int64_t apart, int64_t n)
{
    double sum = 0;
    for (int64_t e = 0; e < runs * n; e++)
        sum += pow(element(t, array, first + e / n * apart + e % n), 2);
    return sqrt(sum);
}

/* Of all channels of an image within rows i and columns j, from the first on and before
 * the second. */
static double norm_within(sbn_dtype t, const void *images, sbni_image of, int64_t image,
                          const int64_t *i, const int64_t *j)
{
    int64_t top = i[0] < 0 ? 0 : i[0], left = j[0] < 0 ? 0 : j[0],
            below = i[1] > of.h ? of.h : i[1], right = j[1] > of.w ? of.w : j[1];
    double sum = 0;
    if (right <= left) return 0;
    for (; top < below; top++)
        sum += pow(norm(t, images, (image * of.c * of.h + top) * of.w + left, of.c,
                        of.h * of.w, right - left),
                   2);
    return sqrt(sum);
}

/* Of the tiles of so many elements and outputs that show an element, `place` in the
 * frame: the first and the last. */
static void outputs_near(int64_t side, int64_t outputs, int64_t place, int64_t *near)
{
    int64_t first = place - side + outputs;
    near[0] = first < 0 ? 0 : first / outputs * outputs;
    near[1] = (place / outputs + 1) * outputs;
}

/* Norms of what an element is the sum of products of: of the window or windows, and of
 * the tiles that they see. */
static double size_of(sbn_dtype t, const layer *of, const data *d, int kind, int64_t e)
{
    int64_t taps = of->kernel * of->kernel, height = sbni_tile_height(of->kernel),
            across = sbni_tile_outputs_across(of->kernel), window = of->c * taps,
            of_x = of->h * of->w, of_y = d->out.h * d->out.w, i[2], j[2];
    if (kind == DW)
        return norm(t, d->x, e / taps % of->c * of_x, of->n, of->c * of_x, of_x) *
               norm(t, d->dy, e / window * of_y, of->n, of->out * of_y, of_y);
    if (kind == DX) {
        int64_t c = e / of_x % of->c;
        outputs_near(height, DOWN, e % of_x / of->w + of->pad, i);
        outputs_near(WIDTH, across, e % of->w + of->pad, j);
        return norm(t, d->weight, c * taps, of->out, window, taps) *
               norm_within(t, d->dy, d->out, e / of_x / of->c, i, j);
    }
    int64_t o = e / of_y % of->out;
    i[0] = e % of_y / d->out.w / DOWN * DOWN - of->pad, i[1] = i[0] + height;
    j[0] = e % d->out.w / across * across - of->pad, j[1] = j[0] + WIDTH;
    return norm(t, d->weight, o * window, 1, 0, window) *
           norm_within(t, d->x, d->in, e / of_y / of->out, i, j);
}

/*
 * By the norms of the three transforms one rounding at each step may reach 1139 roundings
 * of these sizes, of 5x5 windows 4383; of normal data most cancel, and the largest errors
 * are 6.3 and 14.4. The root of their mean square is at most 3.5 and 5.4 times that of
 * sums one after the other, with as many channels as go by tiles; those of fewer are
 * short.
 */
static double most_roundings(int64_t kernel)
{
    return kernel == 3 ? 12 : 25;
}

static double most_times(int64_t kernel)
{
    return kernel == 3 ? 5.2 : 8;
}

enum { LEAST_CHANNELS = 8 };

static void check_convolution(const sbni_kernels *k, sbn_dtype t, const layer *of)
{
    bool few = of->c < LEAST_CHANNELS || of->out < LEAST_CHANNELS;
    data d = make(t, of);
    run(k, t, of, &d);
    reference r = make_reference(t, of, &d);
    for (int kind = 0; kind < KINDS; kind++) {
        double error = 0, plain = 0;
        for (int64_t e = 0; e < d.count[kind]; e++) {
            long double sum = r.sum[kind][e];
            double off = (double)(element(t, d.result[kind], e) - sum);
            CLOSE(off, 0,
                  most_roundings(of->kernel) * rounding(t) * size_of(t, of, &d, kind, e));
            error += off * off;
            plain += pow((double)(r.plain[kind][e] - sum), 2);
        }
        if (!few) CLOSE(sqrt(error / plain), 0, most_times(of->kernel));
        record(d.result[kind], bytes_of(t, d.count[kind]));
        free(r.sum[kind]);
        free(r.plain[kind]);
    }
    drop(t, &d);
}

/* Images that fill their tiles and that do not, all numbers of lanes, one row of one
 * channel; more channels than those whose sums are made at once. */
static const layer layers[] = {
    {16, 8, 7, 7, 3, 1, 10}, {5, 20, 7, 7, 3, 0, 8},  {3, 3, 9, 11, 3, 2, 13},
    {1, 13, 14, 6, 3, 1, 3}, {12, 1, 3, 4, 3, 0, 1},  {16, 10, 6, 6, 3, 0, 20},
    {9, 8, 7, 7, 5, 2, 10},  {3, 20, 9, 11, 5, 0, 8}, {16, 3, 7, 7, 5, 1, 13},
    {1, 13, 14, 6, 5, 2, 3}, {15, 1, 5, 6, 5, 0, 1},  {2, 10, 12, 12, 5, 0, 20},
};

static void convolutions(const sbni_kernels *k, sbn_dtype t)
{
    if (!has_tiles(k)) return;
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        check_convolution(k, t, &layers[i]);
}

/* y and dx of an image alone are those that it has in any lane among others. */
static void images_alone(const sbni_kernels *k, sbn_dtype t)
{
    if (!has_tiles(k)) return;
    for (int64_t kernel = 3; kernel <= 5; kernel += 2) {
        layer of = {IMAGES, 3, 9, 6, kernel, 1, 4}, one = of;
        data d = make(t, &of);
        run(k, t, &of, &d);
        one.n = 1;
        for (int64_t image = 0; image < of.n; image++) {
            data alone = make(t, &one);
            int64_t x = bytes_of(t, alone.count[DX]), y = bytes_of(t, alone.count[Y]);
            memcpy(alone.x, (char *)d.x + image * x, (size_t)x);
            memcpy(alone.dy, (char *)d.dy + image * y, (size_t)y);
            run(k, t, &one, &alone);
            same_bits(alone.result[Y], (char *)d.result[Y] + image * y, y);
            same_bits(alone.result[DX], (char *)d.result[DX] + image * x, x);
            drop(t, &alone);
        }
        drop(t, &d);
    }
}

static void walk_convolutions(void **state)
{
    (void)state;
    each_table(convolutions);
}

static void walk_images_alone(void **state)
{
    (void)state;
    each_table(images_alone);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(walk_convolutions),
                                          cmocka_unit_test(walk_images_alone)};
TEST_MAIN(tests)
