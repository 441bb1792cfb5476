#include "kernels/tiles_tmpl.h"
#include "kernels/tmpl.h"

#ifdef SBNI_FUSES

/* Windows of a convolution at the points of its tiles (tiles_tmpl.c), and the gradients
 * there as those of the windows: in double, as each is used for every tile and float does
 * not hold the factors. */

enum {
    WIDTH = SBNI_TILE_WIDTH,
    MOST_DOWN = SBNI_TILE_MOST_DOWN,
    MOST_TAPS = 5,
    FOUR = 4
};
typedef double four __attribute__((vector_size(8 * FOUR)));

/* n <= FOUR neighbours. */
INLINE four load_four(const T *from, int64_t n)
{
    typedef T narrow __attribute__((vector_size(FOUR * sizeof(T))));
    narrow v = {0};
    if (n == FOUR)
        memcpy(&v, from, sizeof v);
    else
        for (int64_t k = 0; k < n; k++) v[k] = from[k];
    return __builtin_convertvector(v, four);
}

INLINE void store_four(T *to, int64_t n, four v)
{
    typedef T narrow __attribute__((vector_size(FOUR * sizeof(T))));
    narrow all = __builtin_convertvector(v, narrow);
    if (n == FOUR)
        memcpy(to, &all, sizeof all);
    else
        for (int64_t k = 0; k < n; k++) to[k] = all[k];
}

/* One over the product of a pair's distances from the other points. */
INLINE double over_distances(const points *at, int i)
{
    double square = at->of[i] * at->of[i], product = 2 * square;
#pragma GCC unroll 3
    for (int j = 0; j < at->pairs; j++)
        if (j != i) product *= square - at->of[j] * at->of[j];
    return 1 / product;
}

/* G·g: the values of a polynomial at the points, over their distances from the others. */
INLINE void window_to_points(const points *at, const four *g, int64_t kernel, four *u)
{
#pragma GCC unroll 3
    for (int i = 0; i < at->pairs; i++) {
        double p = at->of[i], scale = over_distances(at, i);
        four even = g[0] + p * p * g[2], odd = p * g[1];
        if (kernel == 5) even += p * p * p * p * g[4], odd += p * p * p * g[3];
        u[2 * i + 1] = (even + odd) * scale;
        u[2 * i + 2] = (even - odd) * scale;
    }
    u[0] = g[0] * (1 / at->all[0]);
    u[side_of(at) - 1] = g[kernel - 1];
}

/* G'·u, its transpose. */
INLINE void window_from_points(const points *at, const four *u, int64_t kernel, four *g)
{
    g[0] = u[0] * (1 / at->all[0]);
#pragma GCC unroll 4
    for (int64_t k = 1; k < kernel; k++) g[k] = (four){0};
#pragma GCC unroll 3
    for (int i = 0; i < at->pairs; i++) {
        double p = at->of[i], scale = over_distances(at, i);
        four even = (u[2 * i + 1] + u[2 * i + 2]) * scale,
             odd = (u[2 * i + 1] - u[2 * i + 2]) * scale;
        g[0] += even;
        g[1] += p * odd;
        g[2] += p * p * even;
        if (kernel == 5) g[3] += p * p * p * odd, g[4] += p * p * p * p * even;
    }
    g[kernel - 1] += u[side_of(at) - 1];
}

INLINE void windows_to_points(int64_t kernel, int64_t count, const T *weight, T *u)
{
    const points *down = points_down(kernel);
    const int height = side_of(down);
    int64_t taps = kernel * kernel;
    for (int64_t at = 0; at < count; at += FOUR) {
        int64_t n = count - at < FOUR ? count - at : FOUR;
        four g[MOST_TAPS * MOST_TAPS] = {0}, half[MOST_DOWN][MOST_TAPS];
        for (int64_t k = 0; k < n; k++)
            for (int64_t i = 0; i < taps; i++)
                g[i][k] = (double)weight[(at + k) * taps + i];
        for (int64_t j = 0; j < kernel; j++) {
            four column[MOST_TAPS], to[MOST_DOWN];
            for (int64_t i = 0; i < kernel; i++) column[i] = g[i * kernel + j];
            window_to_points(down, column, kernel, to);
            for (int64_t i = 0; i < height; i++) half[i][j] = to[i];
        }
        for (int64_t i = 0; i < height; i++) {
            four to[WIDTH];
            window_to_points(&SIX, half[i], kernel, to);
            for (int64_t j = 0; j < WIDTH; j++)
                store_four(u + (i * WIDTH + j) * count + at, n, to[j]);
        }
    }
}

void K(tiles_weights)(int64_t kernel, int64_t count, const void *weight, void *u)
{
    if (kernel == 3)
        windows_to_points(3, count, weight, u);
    else
        windows_to_points(5, count, weight, u);
}

INLINE void windows_from_points(int64_t kernel, int64_t count, const T *du, T *dweight)
{
    const points *down = points_down(kernel);
    const int height = side_of(down);
    int64_t taps = kernel * kernel;
    for (int64_t at = 0; at < count; at += FOUR) {
        int64_t n = count - at < FOUR ? count - at : FOUR;
        four half[MOST_TAPS][WIDTH];
        for (int64_t j = 0; j < WIDTH; j++) {
            four column[MOST_DOWN], to[MOST_TAPS];
            for (int64_t i = 0; i < height; i++)
                column[i] = load_four(du + (i * WIDTH + j) * count + at, n);
            window_from_points(down, column, kernel, to);
            for (int64_t i = 0; i < kernel; i++) half[i][j] = to[i];
        }
        for (int64_t i = 0; i < kernel; i++) {
            four to[MOST_TAPS];
            window_from_points(&SIX, half[i], kernel, to);
            for (int64_t j = 0; j < kernel; j++)
                for (int64_t k = 0; k < n; k++)
                    dweight[(at + k) * taps + i * kernel + j] = (T)to[j][k];
        }
    }
}

void K(tiles_dweights)(int64_t kernel, int64_t count, const void *du, void *dweight)
{
    if (kernel == 3)
        windows_from_points(3, count, du, dweight);
    else
        windows_from_points(5, count, du, dweight);
}

#endif
