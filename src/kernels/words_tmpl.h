/* Vectors of channels, and sums of two doubles without error, for the kernels of exact
 * words. */
#ifndef SBNI_WORDS_TMPL_H
#define SBNI_WORDS_TMPL_H

#include "kernels/tmpl.h"

#ifdef __FMA__
#include <immintrin.h>
#endif

#include "core/grid.h"

/* As wide as a register. Channels do not mix, so the width leaves no trace. */
enum { WIDE = SBNI_WIDE };
typedef double wd __attribute__((vector_size(8 * WIDE)));
typedef uint64_t wu __attribute__((vector_size(8 * WIDE)));

/* Weight of word k; the compiler folds it. */
#define UNIT(lsb, k) __builtin_ldexp(1.0, (lsb) + SBNI_GRID_BITS * (k))

/* Added to a value below 2^51 units of a word, this rounds it to a whole number of them
 * and leaves that number in the low bits. */
#define MAGIC(lsb, k) (SBNI_GRID_ROUND * UNIT(lsb, k))

/* Word k of Σx, and of Σx². */
#define SUM_AT(k) (k)
#define SQUARE_AT(k) (SBNI_SUM_WORDS + (k))
#define SUM_MAGIC(k) MAGIC(SBNI_SUM_LSB, k)
#define SQUARE_MAGIC(k) MAGIC(SBNI_SQUARE_LSB, k)
_Static_assert(SBNI_SUM_WORDS == 4 && SBNI_SQUARE_WORDS == 6, "steps are written out");

INLINE wd load_w(const double *p)
{
    wd v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE wu load_u(const uint64_t *p)
{
    wu v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store_u(uint64_t *p, wu v)
{
    memcpy(p, &v, sizeof v);
}

INLINE void store_w(double *p, wu v)
{
    memcpy(p, &v, sizeof v);
}

/* The first n < WIDE words or doubles, with 0 beside them; nothing else is read. */
INLINE wu load_first_u(const void *p, int64_t n)
{
#if defined __AVX512F__
    return (wu)_mm512_maskz_loadu_epi64((__mmask8)((1u << n) - 1), p);
#elif defined __AVX2__
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    return (wu)_mm256_maskload_epi64(p, _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), lane));
#else
    wu v = {0};
    memcpy(&v, p, (size_t)n * sizeof v[0]);
    return v;
#endif
}

/* Add the first n to words. */
INLINE void add_first_u(uint64_t *to, wu v, int64_t n)
{
    for (int64_t l = 0; l < n; l++) to[l] += v[l];
}

INLINE bool any(wu v)
{
#if defined __AVX512F__
    return _mm512_test_epi64_mask((__m512i)v, (__m512i)v) != 0;
#elif defined __AVX__
    return !_mm256_testz_si256((__m256i)v, (__m256i)v);
#else
    uint64_t all = 0;
    for (int l = 0; l < WIDE; l++) all |= v[l];
    return all != 0;
#endif
}

INLINE wd magnitude(wd v)
{
    return (wd)((wu)v & ~(UINT64_C(1) << 63));
}

/* v where the mask is set, else 0. */
INLINE wd where(wu mask, wd v)
{
    return (wd)((wu)v & mask);
}

/* a + b = sum + rest */
INLINE wd two_sum(wd a, wd b, wd *rest)
{
    wd sum = a + b, of_b = sum - a;
    *rest = (a - (sum - of_b)) + (b - of_b);
    return sum;
}

/* The same where |a| >= |b| or a = 0. */
INLINE wd quick_sum(wd a, wd b, wd *rest)
{
    wd sum = a + b;
    *rest = b - (sum - a);
    return sum;
}

/* a·b - ab for ab = a·b rounded. */
#ifdef __FMA__
INLINE wd product_rest(wd a, wd b, wd ab)
{
#ifdef __AVX512F__
    return (wd)_mm512_fmsub_pd((__m512d)a, (__m512d)b, (__m512d)ab);
#else
    return (wd)_mm256_fmsub_pd((__m256d)a, (__m256d)b, (__m256d)ab);
#endif
}
#else
INLINE wd upper_half(wd a)
{
    wd t = a * 0x1.0000002p27;
    return t - (t - a);
}

INLINE wd product_rest(wd a, wd b, wd ab)
{
    wd ah = upper_half(a), al = a - ah, bh = upper_half(b), bl = b - bh;
    return ((ah * bh - ab) + ah * bl + al * bh) + al * bl;
}
#endif

#endif
