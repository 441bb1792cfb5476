#include "kernels/tiles_tmpl.h"
#include "kernels/tmpl.h"

#ifdef SBNI_FUSES

/* Windows of a convolution at the points of its tiles (tiles_tmpl.c), and the gradients
 * there as those of the windows: in double, as each is used for every tile and float does
 * not hold the factors. */

enum { SIDE = SBNI_TILE_SIDE, MOST = 5, FOUR = 4 };
typedef double four __attribute__((vector_size(8 * FOUR)));

/* One over the product of a point's distances from the others: of 0, ±P, ±Q. */
static const double FROM_0 = 1 / PRODUCT, FROM_P = 1 / (2 * PP * (PP - QQ)),
                    FROM_Q = 1 / (2 * QQ * (QQ - PP));

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

/* G·g: the values of a polynomial at the points, over their distances from the others. */
INLINE void window_to_points(const four *g, int64_t kernel, four *u)
{
    four even_p = g[0] + PP * g[2], odd_p = P * g[1], even_q = g[0] + QQ * g[2],
         odd_q = Q * g[1];
    if (kernel == 5) {
        even_p += PPPP * g[4], odd_p += PPP * g[3];
        even_q += QQQQ * g[4], odd_q += QQQ * g[3];
    }
    u[0] = g[0] * FROM_0;
    u[1] = (even_p + odd_p) * FROM_P;
    u[2] = (even_p - odd_p) * FROM_P;
    u[3] = (even_q + odd_q) * FROM_Q;
    u[4] = (even_q - odd_q) * FROM_Q;
    u[5] = g[kernel - 1];
}

/* G'·u, its transpose. */
INLINE void window_from_points(const four *u, int64_t kernel, four *g)
{
    four even_p = (u[1] + u[2]) * FROM_P, odd_p = (u[1] - u[2]) * FROM_P,
         even_q = (u[3] + u[4]) * FROM_Q, odd_q = (u[3] - u[4]) * FROM_Q;
    g[0] = u[0] * FROM_0 + even_p + even_q;
    g[1] = P * odd_p + Q * odd_q;
    g[2] = PP * even_p + QQ * even_q;
    if (kernel == 5) {
        g[3] = PPP * odd_p + QQQ * odd_q;
        g[4] = PPPP * even_p + QQQQ * even_q;
    }
    g[kernel - 1] += u[5];
}

INLINE void windows_to_points(int64_t kernel, int64_t count, const T *weight, T *u)
{
    int64_t taps = kernel * kernel;
    for (int64_t at = 0; at < count; at += FOUR) {
        int64_t n = count - at < FOUR ? count - at : FOUR;
        four g[MOST * MOST] = {0}, half[SIDE][MOST];
        for (int64_t k = 0; k < n; k++)
            for (int64_t i = 0; i < taps; i++)
                g[i][k] = (double)weight[(at + k) * taps + i];
        for (int64_t j = 0; j < kernel; j++) {
            four column[MOST], to[SIDE];
            for (int64_t i = 0; i < kernel; i++) column[i] = g[i * kernel + j];
            window_to_points(column, kernel, to);
            for (int64_t i = 0; i < SIDE; i++) half[i][j] = to[i];
        }
        for (int64_t i = 0; i < SIDE; i++) {
            four to[SIDE];
            window_to_points(half[i], kernel, to);
            for (int64_t j = 0; j < SIDE; j++)
                store_four(u + (i * SIDE + j) * count + at, n, to[j]);
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
    int64_t taps = kernel * kernel;
    for (int64_t at = 0; at < count; at += FOUR) {
        int64_t n = count - at < FOUR ? count - at : FOUR;
        four half[MOST][SIDE];
        for (int64_t j = 0; j < SIDE; j++) {
            four column[SIDE], to[MOST];
            for (int64_t i = 0; i < SIDE; i++)
                column[i] = load_four(du + (i * SIDE + j) * count + at, n);
            window_from_points(column, kernel, to);
            for (int64_t i = 0; i < kernel; i++) half[i][j] = to[i];
        }
        for (int64_t i = 0; i < kernel; i++) {
            four to[MOST];
            window_from_points(half[i], kernel, to);
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
