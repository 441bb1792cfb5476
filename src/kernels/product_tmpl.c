/* No order of lanes here but in the products of rows, whose vectors have 32 bytes. */
#define SBNI_LANES (SBNI_WIDE * (2 - SBNI_TYPE_F64))
#include "kernels/lanes_tmpl.h"

#ifdef SBNI_FUSES

/* Matrix products as small nets have them: the operands lie in the cache, and to pack
 * them as a library does for large ones would take as long as the product. An element is
 * one chain of fused multiply-adds in the order of p, so its bits depend on no tile. */

/* A tile of C: its rows and vectors of columns, the sums of which stay in registers
 * beside a row of B and a value of A. */
enum { ROWS = 6, VECTORS = 2 };

INLINE vt all_lanes(T v)
{
#if defined __AVX512F__ && SBNI_TYPE_F64
    return (vt)_mm512_set1_pd(v);
#elif defined __AVX512F__
    return (vt)_mm512_set1_ps(v);
#elif defined __AVX__ && SBNI_TYPE_F64
    return (vt)_mm256_set1_pd(v);
#elif defined __AVX__
    return (vt)_mm256_set1_ps(v);
#else
    vt all;
    for (int k = 0; k < LANES; k++) all[k] = v;
    return all;
#endif
}

/* a·b + c, rounded once. */
INLINE vt fused(vt a, vt b, vt c)
{
#if defined __AVX512F__ && SBNI_TYPE_F64
    return (vt)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined __AVX512F__
    return (vt)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined __AVX__ && SBNI_TYPE_F64
    return (vt)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined __AVX__
    return (vt)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif SBNI_TYPE_F64
    return (vt)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
    return (vt)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#endif
}

/* Where a tile's operands begin. */
typedef struct place {
    const T *a, *b;
    T *c;
    int64_t a_row, a_col, ldb, ldc;
} place;

/* vectors of columns, the last of which has `last` lanes where it is not whole. */
INLINE void tile(place at, int rows, int vectors, bool whole, int64_t last, int64_t k,
                 bool adds)
{
    vt sum[ROWS][VECTORS];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) {
            const T *from = at.c + i * at.ldc + v * LANES;
            bool part = !whole && v == vectors - 1;
            sum[i][v] = !adds ? (vt){0} : part ? load_first(from, last) : load(from);
        }
    for (int64_t p = 0; p < k; p++, at.a += at.a_col, at.b += at.ldb) {
        vt b[VECTORS];
        for (int v = 0; v < vectors; v++) {
            bool part = !whole && v == vectors - 1;
            b[v] = part ? load_first(at.b + v * LANES, last) : load(at.b + v * LANES);
        }
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            vt a = all_lanes(at.a[i * at.a_row]);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) sum[i][v] = fused(a, b[v], sum[i][v]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) {
            T *to = at.c + i * at.ldc + v * LANES;
            if (!whole && v == vectors - 1)
                store_first(to, sum[i][v], last);
            else
                store(to, sum[i][v]);
        }
}

/* All rows of some columns. */
INLINE void strip(place at, int64_t m, int vectors, bool whole, int64_t last, int64_t k,
                  bool adds)
{
    for (; m >= ROWS; m -= ROWS) {
        tile(at, ROWS, vectors, whole, last, k, adds);
        at.a += ROWS * at.a_row;
        at.c += ROWS * at.ldc;
    }
    switch (m) {
    case 5:
        tile(at, 5, vectors, whole, last, k, adds);
        break;
    case 4:
        tile(at, 4, vectors, whole, last, k, adds);
        break;
    case 3:
        tile(at, 3, vectors, whole, last, k, adds);
        break;
    case 2:
        tile(at, 2, vectors, whole, last, k, adds);
        break;
    case 1:
        tile(at, 1, vectors, whole, last, k, adds);
    }
}

void K(product)(int64_t m, int64_t n, int64_t k, const void *a, int64_t a_row,
                int64_t a_col, const void *b, bool adds, void *c)
{
    place at = {a, b, c, a_row, a_col, n, n};
    for (; n >= VECTORS * LANES; n -= VECTORS * LANES) {
        strip(at, m, VECTORS, true, 0, k, adds);
        at.b += VECTORS * LANES;
        at.c += VECTORS * LANES;
    }
    if (n > LANES)
        strip(at, m, 2, false, n - LANES, k, adds);
    else if (n == LANES)
        strip(at, m, 1, true, 0, k, adds);
    else if (n > 0 && at.ldc > LANES && !adds) {
        /* once more some columns of the strip before */
        at.b -= LANES - n;
        at.c -= LANES - n;
        strip(at, m, 1, true, 0, k, adds);
    } else if (n > 0)
        strip(at, m, 1, false, n, k, adds);
}

/* Products of rows: vectors go along p, value p joins lane p % DOT on every machine, and
 * the lanes are added up as a fixed tree. */
enum {
    DOT = 32 / sizeof(T),
    DOT_ROWS = 3,
    DOT_COLUMNS = 4,
    DOT_PARTS = DOT / LANES > 1 ? DOT / LANES : 1
};

#if defined __AVX__
typedef T vdot __attribute__((vector_size(32)));

INLINE vdot fused_dot(vdot a, vdot b, vdot c)
{
#if SBNI_TYPE_F64
    return (vdot)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
    return (vdot)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#endif
}
#else
typedef struct vdot {
    vt part[DOT_PARTS];
} vdot;

INLINE vdot fused_dot(vdot a, vdot b, vdot c)
{
    for (int h = 0; h < DOT_PARTS; h++)
        c.part[h] = fused(a.part[h], b.part[h], c.part[h]);
    return c;
}
#endif

/* n of DOT values, 0 in the lanes behind them. */
INLINE vdot load_dot(const T *from, int64_t n)
{
    vdot v = {0};
    if (n == DOT) {
        memcpy(&v, from, sizeof v);
        return v;
    }
#if defined __AVX2__ && SBNI_TYPE_F64
    __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    return (vdot)_mm256_maskload_pd(from,
                                    _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), lane));
#elif defined __AVX2__
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return (vdot)_mm256_maskload_ps(from,
                                    _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane));
#else
    for (int64_t k = 0; k < n; k++) v.part[k / LANES][k % LANES] = from[k];
    return v;
#endif
}

INLINE T dot_sum(vdot lanes)
{
    T v[DOT];
    memcpy(v, &lanes, sizeof v);
#if SBNI_TYPE_F64
    return (v[0] + v[2]) + (v[1] + v[3]);
#else
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
#endif
}

/* The sums of DOT_COLUMNS vectors, in their order. */
INLINE void dot_sums(const vdot *v, T *sum)
{
#if defined __AVX__ && !SBNI_TYPE_F64
    __m128 half[DOT_COLUMNS];
    for (int j = 0; j < DOT_COLUMNS; j++)
        half[j] = _mm_add_ps(_mm256_castps256_ps128((__m256)v[j]),
                             _mm256_extractf128_ps((__m256)v[j], 1));
    __m128 ab = _mm_add_ps(_mm_movelh_ps(half[0], half[1]),
                           _mm_movehl_ps(half[1], half[0])),
           cd = _mm_add_ps(_mm_movelh_ps(half[2], half[3]),
                           _mm_movehl_ps(half[3], half[2]));
    _mm_storeu_ps(sum,
                  _mm_add_ps(_mm_shuffle_ps(ab, cd, 0x88), _mm_shuffle_ps(ab, cd, 0xdd)));
#else
    for (int j = 0; j < DOT_COLUMNS; j++) sum[j] = dot_sum(v[j]);
#endif
}

/* DOT values of p, or the last n. */
INLINE void add_dots(const T *a, const T *b, int rows, int columns, int64_t k, int64_t n,
                     vdot sum[DOT_ROWS][DOT_COLUMNS])
{
    vdot x[DOT_ROWS];
    for (int i = 0; i < rows; i++) x[i] = load_dot(a + i * k, n);
#pragma GCC unroll 4
    for (int j = 0; j < columns; j++) {
        vdot y = load_dot(b + j * k, n);
#pragma GCC unroll 3
        for (int i = 0; i < rows; i++) sum[i][j] = fused_dot(x[i], y, sum[i][j]);
    }
}

INLINE void tile_of_dots(const T *a, const T *b, int rows, int columns, int64_t k,
                         bool adds, T *c, int64_t ldc)
{
    vdot sum[DOT_ROWS][DOT_COLUMNS] = {0};
    int64_t p = 0;
    for (; p + DOT <= k; p += DOT) add_dots(a + p, b + p, rows, columns, k, DOT, sum);
    if (p < k) add_dots(a + p, b + p, rows, columns, k, k - p, sum);
    for (int i = 0; i < rows; i++) {
        T sums[DOT_COLUMNS];
        dot_sums(sum[i], sums);
        for (int j = 0; j < columns; j++)
            c[i * ldc + j] = adds ? c[i * ldc + j] + sums[j] : sums[j];
    }
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
