#include "kernels/product_tmpl.h"

#ifdef SBNI_FUSES

/* Matrix products as small nets have them: the operands lie in the cache, and to pack
 * them as a library does for large ones would take as long as the product. An element is
 * one chain of fused multiply-adds in the order of p, so its bits depend on no tile. */

static void move(place *at, int64_t columns)
{
    for (int v = 0; v < VECTORS; v++) {
        at->b[v] += columns;
        at->c[v] += columns;
    }
}

void K(product)(int64_t m, int64_t n, int64_t k, const void *av, int64_t a_row,
                int64_t a_col, const void *bv, bool adds, void *cv)
{
    const T *b = bv;
    T *c = cv;
    place at = {av, {b, b + LANES}, {c, c + LANES}, a_row, a_col, n, n, NULL, NULL};
    for (; n >= VECTORS * LANES; n -= VECTORS * LANES) {
        strip(at, m, VECTORS, VECTORS, 0, k, adds, false);
        move(&at, VECTORS * LANES);
    }
    if (n > LANES)
        strip(at, m, 2, 1, n - LANES, k, adds, false);
    else if (n == LANES)
        strip(at, m, 1, 1, 0, k, adds, false);
    else if (n > 0 && at.ldc > LANES && !adds) {
        /* once more some columns of the strip before */
        move(&at, n - LANES);
        strip(at, m, 1, 1, 0, k, adds, false);
    } else if (n > 0)
        strip(at, m, 1, 0, n, k, adds, false);
}

void K(tiles_products)(int64_t points, int64_t m, int64_t k, const sbni_points *a,
                       const sbni_points *b, const sbni_points *c)
{
    for (int64_t p = 0; p < points; p++) {
        const T *from = (const T *)b->data + p * b->point;
        T *to = (T *)c->data + p * c->point;
        for (int64_t at = 0; at < SBNI_TILE_IMAGES; at += VECTORS * LANES) {
            enum { COUNT = SBNI_TILE_IMAGES / LANES < VECTORS ? 1 : VECTORS };
            place here = {(const T *)a->data + p * a->point,
                          {from + at, from + at + LANES},
                          {to + at, to + at + LANES},
                          a->row,
                          a->column,
                          b->row,
                          c->row,
                          NULL,
                          NULL};
            strip(here, m, COUNT, COUNT, 0, k, false, false);
        }
    }
}

INLINE void tile_of_dots(const T *a, const T *b, int rows, int columns, int64_t k,
                         bool adds, T *c, int64_t ldc)
{
    dots sum;
    clear_dots(sum, rows, columns);
    const T *row[DOT_COLUMNS];
    for (int j = 0; j < columns; j++) row[j] = b + j * k;
    int64_t p = 0;
    for (; p + DOT <= k; p += DOT) add_dots(a + p, k, row, p, rows, columns, DOT, sum);
    if (p < k) add_dots(a + p, k, row, p, rows, columns, k - p, sum);
    store_dots(sum, rows, columns, adds, c, ldc);
}

/* All columns of some rows. */
INLINE void strip_of_dots(const T *a, const T *b, int rows, int64_t n, int64_t k,
                          bool adds, T *c)
{
    int64_t j = 0;
    for (; j + DOT_COLUMNS <= n; j += DOT_COLUMNS)
        tile_of_dots(a, b + j * k, rows, DOT_COLUMNS, k, adds, c + j, n);
    for (; j < n; j++) tile_of_dots(a, b + j * k, rows, 1, k, adds, c + j, n);
}

void K(product_of_rows)(int64_t m, int64_t n, int64_t k, const void *av, const void *bv,
                        bool adds, void *cv)
{
    const T *a = av, *b = bv;
    T *c = cv;
    int64_t i = 0;
    for (; i + DOT_ROWS <= m; i += DOT_ROWS)
        strip_of_dots(a + i * k, b, DOT_ROWS, n, k, adds, c + i * n);
    for (; i < m; i++) strip_of_dots(a + i * k, b, 1, n, k, adds, c + i * n);
}

#endif
