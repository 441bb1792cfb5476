/* The kernels of convolutions by tiles one by one, on every instruction set and type. */
#include "support/harness.h"
#include "support/tables.h"

#include <math.h>
#include <stdlib.h>

#include "support/element.h"
#include "support/tiles.h"

/* Where element e of the lanes lies in the images; -1: nowhere. */
static int64_t place_of(int64_t n, sbni_image image, sbni_frame f, int64_t e)
{
    int64_t lane = e % IMAGES, j = e / IMAGES % f.channel % f.w - f.pad,
            i = e / IMAGES % f.channel / f.w - f.pad, c = e / IMAGES / f.channel;
    if (lane >= n || i < 0 || i >= image.h || j < 0 || j >= image.w) return -1;
    return ((lane * image.c + c) * image.h + i) * image.w + j;
}

static void check_lanes(const sbni_kernels *k, sbn_dtype t, int64_t n, sbni_image image,
                        sbni_frame f)
{
    int64_t count = n * image.c * image.h * image.w, all = f.count * IMAGES;
    void *x = exactly(t, count, 0), *lanes = room(t, all), *from = exactly(t, all, 1),
         *back = room(t, count);
    k->images_to_lanes(x, n, image, f, lanes);
    k->images_of_lanes(from, n, image, f, back);
    for (int64_t e = 0; e < all; e++) {
        int64_t place = place_of(n, image, f, e);
        assert_true(element(t, lanes, e) == (place < 0 ? 0 : element(t, x, place)));
        if (place >= 0) assert_true(element(t, back, place) == element(t, from, e));
    }
    record(lanes, bytes_of(t, all));
    record(back, bytes_of(t, count));
    room_check(t, lanes, all);
    room_check(t, back, count);
    free(x);
    free(from);
}

/* Widths on both sides of every vector's; frames that are the image, that are the padding
 * and no more, and with more behind in either direction or both. */
static void lanes_of_images(const sbni_kernels *k, sbn_dtype t)
{
    static const int64_t counts[] = {1, 7, 8, 9, 15, 16};
    if (!has_tiles(k)) return;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (int64_t pad = 0; pad <= 2; pad++)
            for (int64_t w = 1; w <= 17; w++)
                for (int behind = 0; behind < 4; behind++) {
                    sbni_image image = {1 + w % 3, 1 + (w + pad) % 4, w};
                    sbni_frame f =
                        frame_for(image.c, pad, image.h + 2 * pad + 2 * (behind / 2),
                                  w + 2 * pad + 3 * (behind % 2));
                    check_lanes(k, t, counts[i], image, f);
                }
}

/* Products of two arrays, one of which is what became of another, in long double. */
typedef struct dot {
    long double sum;
    double a, b; /* squares */
} dot;

static void add_to(dot *d, double a, double b)
{
    d->sum += (long double)a * b;
    d->a += a * a;
    d->b += b * b;
}

/* <M a, b> = <a, M' b>, but for errors of M a and of M' b: up to 0.71 roundings of their
 * norms. */
static void check_dots(sbn_dtype t, const dot *left, const dot *right)
{
    double size = sqrt(left->a * left->b) + sqrt(right->a * right->b);
    CLOSE((double)(left->sum - right->sum), 0, 1.5 * rounding(t) * size);
}

static void check_weights(const sbni_kernels *k, sbn_dtype t, int64_t kernel,
                          int64_t count)
{
    int64_t taps = kernel * kernel, points = sbni_tile_points(kernel);
    void *g = exactly(t, count * taps, 0), *du = exactly(t, points * count, 1),
         *u = room(t, points * count), *dg = room(t, count * taps);
    k->tiles_weights(kernel, count, g, u);
    k->tiles_dweights(kernel, count, du, dg);
    for (int64_t e = 0; e < count; e++) {
        dot left = {0}, right = {0};
        for (int64_t p = 0; p < points; p++)
            add_to(&left, element(t, u, p * count + e), element(t, du, p * count + e));
        for (int64_t p = 0; p < taps; p++)
            add_to(&right, element(t, g, e * taps + p), element(t, dg, e * taps + p));
        check_dots(t, &left, &right);
    }
    record(u, bytes_of(t, points * count));
    record(dg, bytes_of(t, taps * count));
    room_check(t, u, points * count);
    room_check(t, dg, taps * count);
    free(g);
    free(du);
}

/* Element e, of so many tiles each, of point p. */
static double at_point(sbn_dtype t, const void *v, int64_t c, int64_t tiles, int64_t p,
                       int64_t e)
{
    return element(t, v, p * sbni_points_apart(c, tiles) + e);
}

/* What all tiles have at each row of points is what `some` of them have there, but for
 * the order of sums: up to 3.0 roundings of the largest of them. */
static void check_rows(sbn_dtype t, int64_t points, int64_t c, int64_t all, int64_t first,
                       int64_t some, const void *v, void *const *rows)
{
    int64_t count = c * some * IMAGES;
    double largest = 0;
    for (int64_t e = 0; e < points * count; e++)
        largest = fmax(largest, fabs(at_point(t, v, c, some, e / count, e % count)));
    for (int64_t e = 0; e < points * count; e++) {
        int64_t p = e / count, from = e % count, channel = from / IMAGES / some,
                to = (channel * (all - some) + first) * IMAGES + from;
        CLOSE(at_point(t, rows[p / WIDTH], c, all, p % WIDTH, to),
              at_point(t, v, c, some, p, from), 6 * rounding(t) * largest);
    }
}

/* Of each channel and lane. */
enum { CHANNELS = 3 };
typedef struct dots {
    dot of[CHANNELS * IMAGES];
} dots;

static void add_points(sbn_dtype t, int64_t points, int64_t c, int64_t tiles,
                       const void *a, const void *b, dots *to)
{
    int64_t count = c * tiles * IMAGES;
    for (int64_t e = 0; e < points * count; e++) {
        int64_t p = e / count, from = e % count;
        add_to(&to->of[from / IMAGES / tiles * IMAGES + from % IMAGES],
               at_point(t, a, c, tiles, p, from), at_point(t, b, c, tiles, p, from));
    }
}

static void check_points(const sbni_kernels *k, sbn_dtype t, const sbni_tiles *tiles,
                         int64_t c)
{
    int64_t columns = tiles->columns, all = tiles->rows * columns,
            channel = tiles->h * tiles->w * IMAGES, count = c * channel,
            height = sbni_tile_height(tiles->kernel),
            points = sbni_tile_points(tiles->kernel),
            size = points_size(points, c, columns), row = points_size(WIDTH, c, all);
    void *x = exactly(t, count, 0), *dx = room(t, count),
         *work = unwritten(t, height * tiles->w * IMAGES), *rows[MOST_DOWN];
    dots left = {0}, right = {0};
    for (int i = 0; i < height; i++)
        k->tiles_row_points(tiles, c, i, x, work, rows[i] = room(t, row));
    for (int64_t r = 0; r < tiles->rows; r++) {
        void *v = room(t, size), *dv = exactly(t, size, 2 + (uint32_t)r);
        k->tiles_points(tiles, c, r, x, work, v);
        k->tiles_add_points(tiles, c, r, dv, work, dx);
        check_rows(t, points, c, all, r * columns, columns, v, rows);
        add_points(t, points, c, columns, v, dv, &left);
        record(v, bytes_of(t, size));
        room_check(t, v, size);
        free(dv);
    }
    for (int64_t e = 0; e < count; e++)
        add_to(&right.of[e / channel * IMAGES + e % IMAGES], element(t, x, e),
               element(t, dx, e));
    for (int64_t e = 0; e < c * IMAGES; e++) check_dots(t, &left.of[e], &right.of[e]);
    record(dx, bytes_of(t, count));
    room_check(t, dx, count);
    for (int i = 0; i < height; i++) room_check(t, rows[i], row);
    free(x);
    free(work);
}

static void check_outputs(const sbni_kernels *k, sbn_dtype t, const sbni_tiles *tiles,
                          int64_t c)
{
    int64_t columns = tiles->columns, all = tiles->rows * columns,
            height = sbni_tile_height(tiles->kernel),
            points = sbni_tile_points(tiles->kernel),
            outputs = SBNI_TILE_OUTPUTS_DOWN * sbni_tile_outputs_across(tiles->kernel),
            channel = all * outputs * IMAGES, count = c * channel,
            size = points_size(points, c, 1), row = points_size(WIDTH, c, all);
    void *dy = exactly(t, count, 0), *y = room(t, count), *rows[MOST_DOWN],
         *zero = calloc((size_t)c, sizeof(double));
    dots left = {0}, right = {0};
    assert_non_null(zero);
    for (int i = 0; i < height; i++)
        k->tiles_row_of_outputs(tiles, c, i, dy, rows[i] = room(t, row));
    for (int64_t tile = 0; tile < all; tile++) {
        void *dm = room(t, size), *m = exactly(t, size, 1 + (uint32_t)tile);
        k->tiles_outputs(tiles, c, tile / columns, tile % columns, m, zero, y);
        k->tiles_of_outputs(tiles, c, tile / columns, tile % columns, dy, dm);
        check_rows(t, points, c, all, tile, 1, dm, rows);
        add_points(t, points, c, 1, dm, m, &left);
        record(dm, bytes_of(t, size));
        room_check(t, dm, size);
        free(m);
    }
    for (int64_t e = 0; e < count; e++)
        add_to(&right.of[e / channel * IMAGES + e % IMAGES], element(t, y, e),
               element(t, dy, e));
    for (int64_t e = 0; e < c * IMAGES; e++) check_dots(t, &left.of[e], &right.of[e]);
    record(y, bytes_of(t, count));
    room_check(t, y, count);
    for (int i = 0; i < height; i++) room_check(t, rows[i], row);
    free(dy);
    free(zero);
}

static void transposes(const sbni_kernels *k, sbn_dtype t)
{
    if (!has_tiles(k)) return;
    for (int64_t kernel = 3; kernel <= 5; kernel += 2) {
        for (int64_t count = 1; count <= 13; count++) check_weights(k, t, kernel, count);
        for (int64_t rows = 1; rows <= 3; rows++)
            for (int64_t columns = 1; columns <= 4; columns++) {
                sbni_tiles tiles = sbni_tiles_of(kernel, rows, columns);
                int64_t c = 1 + (rows + columns) % CHANNELS;
                check_points(k, t, &tiles, c);
                check_outputs(k, t, &tiles, c);
            }
    }
}

static void walk_lanes(void **state)
{
    (void)state;
    each_table(lanes_of_images);
}

static void walk_transposes(void **state)
{
    (void)state;
    each_table(transposes);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(walk_lanes),
                                          cmocka_unit_test(walk_transposes)};
TEST_MAIN(tests)
