/*
 * What matrix products and convolutions share: tiles of a result that stay in registers.
 * No order of lanes here but in products of rows, whose vectors have 32 bytes.
 */
#ifndef SBNI_PRODUCT_TMPL_H
#define SBNI_PRODUCT_TMPL_H

#define SBNI_LANES (SBNI_WIDE * (2 - SBNI_TYPE_F64))
#include "kernels/lanes_tmpl.h"

#ifdef SBNI_FUSES

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

/* Where a tile's operands begin, its vectors of B and C each for itself. Row p of B lies
 * p·ldb behind the first or, in a direct convolution, offset[p]. */
typedef struct place {
    const T *a, *b[VECTORS];
    T *c[VECTORS];
    int64_t a_row, a_col, ldb, ldc;
    const int32_t *offset;
    const T *bias; /* of a row, added to its sums; NULL: none */
} place;

/* The first `whole` vectors are; the others have `last` lanes. */
INLINE void tile(place at, int rows, int vectors, int whole, int64_t last, int64_t k,
                 bool adds, bool direct)
{
    vt sum[ROWS][VECTORS];
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            const T *from = at.c[v] + i * at.ldc;
            sum[i][v] = !adds ? (vt){0} : v < whole ? load(from) : load_first(from, last);
        }
    for (int64_t p = 0; p < k; p++, at.a += at.a_col) {
        int64_t row = direct ? at.offset[p] : p * at.ldb;
        vt b[VECTORS];
        for (int v = 0; v < vectors; v++)
            b[v] = v < whole ? load(at.b[v] + row) : load_first(at.b[v] + row, last);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            vt a = all_lanes(at.a[i * at.a_row]);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) sum[i][v] = fused(a, b[v], sum[i][v]);
        }
    }
    /* unrolled, so that the compiler keeps no sum in memory for the sake of an index */
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
        vt bias = all_lanes(at.bias ? at.bias[i] : 0);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            T *to = at.c[v] + i * at.ldc;
            if (at.bias) sum[i][v] += bias;
            if (v < whole)
                store(to, sum[i][v]);
            else
                store_first(to, sum[i][v], last);
        }
    }
}

/* m rows of some columns, in tiles as even as they come: one of few rows takes as long as
 * its chains. */
INLINE void strip(place at, int64_t m, int vectors, int whole, int64_t last, int64_t k,
                  bool adds, bool direct)
{
    const int64_t most = whole == vectors ? ROWS : ROWS - 1; /* a mask is in a register */
    for (int64_t tiles = (m + most - 1) / most; tiles > 0; tiles--) {
        int64_t rows = (m + tiles - 1) / tiles;
        switch (rows) {
        case 6:
            tile(at, 6, vectors, whole, last, k, adds, direct);
            break;
        case 5:
            tile(at, 5, vectors, whole, last, k, adds, direct);
            break;
        case 4:
            tile(at, 4, vectors, whole, last, k, adds, direct);
            break;
        case 3:
            tile(at, 3, vectors, whole, last, k, adds, direct);
            break;
        case 2:
            tile(at, 2, vectors, whole, last, k, adds, direct);
            break;
        default:
            tile(at, 1, vectors, whole, last, k, adds, direct);
        }
        m -= rows;
        at.a += rows * at.a_row;
        for (int v = 0; v < vectors; v++) at.c[v] += rows * at.ldc;
        if (at.bias) at.bias += rows;
    }
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

/* The sums of `columns` vectors, in their order; two and three go with those that fill up
 * DOT_COLUMNS, which takes less than one by one. */
INLINE void dot_sums(const vdot *v, int columns, T *sum)
{
#if defined __AVX__ && !SBNI_TYPE_F64
    if (columns == 1) {
        sum[0] = dot_sum(v[0]);
        return;
    }
    __m128 half[DOT_COLUMNS];
#pragma GCC unroll 4
    for (int j = 0; j < DOT_COLUMNS; j++) {
        __m256 from = (__m256)v[j < columns ? j : 0];
        half[j] =
            _mm_add_ps(_mm256_castps256_ps128(from), _mm256_extractf128_ps(from, 1));
    }
    __m128 ab = _mm_add_ps(_mm_movelh_ps(half[0], half[1]),
                           _mm_movehl_ps(half[1], half[0])),
           cd = _mm_add_ps(_mm_movelh_ps(half[2], half[3]),
                           _mm_movehl_ps(half[3], half[2]));
    _mm_storeu_ps(sum,
                  _mm_add_ps(_mm_shuffle_ps(ab, cd, 0x88), _mm_shuffle_ps(ab, cd, 0xdd)));
#else
    for (int j = 0; j < columns; j++) sum[j] = dot_sum(v[j]);
#endif
}

/* The sums of a tile of products of rows. */
typedef vdot dots[DOT_ROWS][DOT_COLUMNS];

INLINE void clear_dots(dots sum, int rows, int columns)
{
#pragma GCC unroll 3
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < columns; j++) sum[i][j] = (vdot){0};
}

/* DOT values of p, or n: rows of A are lda apart, those of B begin at b. */
INLINE void add_dots(const T *a, int64_t lda, const T *const *b, int64_t at, int rows,
                     int columns, int64_t n, dots sum)
{
    vdot x[DOT_ROWS];
#pragma GCC unroll 3
    for (int i = 0; i < rows; i++) x[i] = load_dot(a + i * lda, n);
#pragma GCC unroll 4
    for (int j = 0; j < columns; j++) {
        vdot y = load_dot(b[j] + at, n);
#pragma GCC unroll 3
        for (int i = 0; i < rows; i++) sum[i][j] = fused_dot(x[i], y, sum[i][j]);
    }
}

INLINE void store_dots(dots sum, int rows, int columns, bool adds, T *c, int64_t ldc)
{
#pragma GCC unroll 3
    for (int i = 0; i < rows; i++) {
        T sums[DOT_COLUMNS];
        dot_sums(sum[i], columns, sums);
        for (int j = 0; j < columns; j++)
            c[i * ldc + j] = adds ? c[i * ldc + j] + sums[j] : sums[j];
    }
}

#endif
#endif
