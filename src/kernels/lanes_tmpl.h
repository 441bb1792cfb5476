/*
 * Vectors at the edges: the first lanes of one alone, and stores that pass the cache by.
 * Intrinsics where the compiler has no portable word for it; every build gives the same
 * values.
 */
#ifndef SBNI_LANES_TMPL_H
#define SBNI_LANES_TMPL_H

#include "kernels/tmpl.h"

/* All bits of a lane set where a comparison holds. */
typedef __typeof__((vt){0} > (vt){0}) vm;

/* Elements of a cache line. */
enum { LINE = 64 / sizeof(S) };

/* a + b, to the bit, by the processor's multipliers where its adders have more to do. */
INLINE vd plus(vd a, vd b)
{
#if defined __AVX512F__ && SBNI_LANES == 8
    __m512d one = _mm512_set1_pd(1);
    __asm__("" : "+x"(one)); /* else the compiler makes an addition of it */
    return (vd)_mm512_fmadd_pd((__m512d)b, one, (__m512d)a);
#elif defined __AVX2__ && SBNI_LANES == 4
    __m256d one = _mm256_set1_pd(1);
    __asm__("" : "+x"(one)); /* the same */
    return (vd)_mm256_fmadd_pd((__m256d)b, one, (__m256d)a);
#else
    return a + b;
#endif
}

/* sum + a·b where a·b is a double. */
INLINE vd plus_product(vd sum, vd a, vd b)
{
#if defined __AVX512F__ && SBNI_LANES == 8
    return (vd)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)sum);
#elif defined __FMA__ && SBNI_LANES == 4
    return (vd)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)sum);
#else
    return sum + a * b;
#endif
}

/* v in the first n lanes, 0 in the others. */
INLINE vd keep_first(vd v, int64_t n)
{
    typedef int64_t mask __attribute__((vector_size(8 * LANES)));
    mask lane = {0};
    for (int k = 0; k < LANES; k++) lane[k] = k;
    return (vd)((mask)v & (mask)(lane < n));
}

#if SBNI_STORE_BF16
/* As put does, lane by lane. */
INLINE void store(S *p, vt v)
{
    typedef uint16_t half __attribute__((vector_size(2 * LANES)));
    typedef uint32_t word __attribute__((vector_size(4 * LANES)));
    word b = (word)v, rounded = (b + 0x7fff + (b >> 16 & 1)) >> 16, nan = (word)(v != v);
    half h = __builtin_convertvector((rounded & ~nan) | ((b >> 16 | 0x40) & nan), half);
    memcpy(p, &h, sizeof h);
}
#endif

/* The first n < LANES elements, with 0 behind them; nothing else is read or written. */
#if defined(__AVX512VL__) && defined(__AVX512BW__)
#define FIRST(n) ((1u << (n)) - 1)
#if SBNI_STORE_BF16 && SBNI_LANES == 16
INLINE vt load_first(const S *p, int64_t n)
{
    __m256i v = _mm256_maskz_loadu_epi16((__mmask16)FIRST(n), p);
    return (vt)_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16);
}

INLINE void store_first(S *p, vt v, int64_t n)
{
    S all[LANES];
    store(all, v);
    _mm256_mask_storeu_epi16(p, (__mmask16)FIRST(n),
                             _mm256_loadu_si256((const void *)all));
}
#elif SBNI_LANES == 16
INLINE vt load_first(const S *p, int64_t n)
{
    return (vt)_mm512_maskz_loadu_ps((__mmask16)FIRST(n), p);
}

INLINE void store_first(S *p, vt v, int64_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)FIRST(n), (__m512)v);
}
#elif SBNI_STORE_BF16
INLINE vt load_first(const S *p, int64_t n)
{
    __m128i v = _mm_maskz_loadu_epi16((__mmask8)FIRST(n), p);
    return (vt)_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16);
}

INLINE void store_first(S *p, vt v, int64_t n)
{
    S all[LANES];
    store(all, v);
    _mm_mask_storeu_epi16(p, (__mmask8)FIRST(n), _mm_loadu_si128((const void *)all));
}
#elif SBNI_TYPE_F64
INLINE vt load_first(const S *p, int64_t n)
{
    return (vt)_mm512_maskz_loadu_pd((__mmask8)FIRST(n), p);
}

INLINE void store_first(S *p, vt v, int64_t n)
{
    _mm512_mask_storeu_pd(p, (__mmask8)FIRST(n), (__m512d)v);
}
#else
INLINE vt load_first(const S *p, int64_t n)
{
    return (vt)_mm256_maskz_loadu_ps((__mmask8)FIRST(n), p);
}

INLINE void store_first(S *p, vt v, int64_t n)
{
    _mm256_mask_storeu_ps(p, (__mmask8)FIRST(n), (__m256)v);
}
#endif
#else
#if defined __AVX2__ && !SBNI_STORE_BF16
INLINE vt load_first(const S *p, int64_t n)
{
#if SBNI_TYPE_F64
    __m256i mask =
        _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
    return (vt)_mm256_maskload_pd(p, mask);
#elif SBNI_LANES == 8
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return (vt)_mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane));
#else
    __m128i lane = _mm_setr_epi32(0, 1, 2, 3);
    return (vt)_mm_maskload_ps(p, _mm_cmpgt_epi32(_mm_set1_epi32((int)n), lane));
#endif
}
#else
INLINE vt load_first(const S *p, int64_t n)
{
    S all[LANES] = {0};
    for (int64_t k = 0; k < n; k++) all[k] = p[k];
    return load(all);
}
#endif

/* By halves: masked stores are slow where they exist at all. */
INLINE void store_first(S *p, vt v, int64_t n)
{
    S all[LANES];
    store(all, v);
    int64_t k = 0;
    if (LANES > 4 && n & 4) memcpy(p, all, 4 * sizeof(S)), k = 4;
    if (LANES > 2 && n & 2) memcpy(p + k, all + k, 2 * sizeof(S)), k += 2;
    if (n & 1) p[k] = all[k];
}
#endif

/* The same of doubles. */
#if defined __AVX512F__ && SBNI_LANES == 8
INLINE vd load_first_d(const double *p, int64_t n)
{
    return (vd)_mm512_maskz_loadu_pd((__mmask8)FIRST(n), p);
}

INLINE void store_first_d(double *p, vd v, int64_t n)
{
    _mm512_mask_storeu_pd(p, (__mmask8)FIRST(n), (__m512d)v);
}
#else
INLINE vd load_first_d(const double *p, int64_t n)
{
    vd v = {0};
    for (int64_t k = 0; k < n; k++) v[k] = p[k];
    return v;
}

INLINE void store_first_d(double *p, vd v, int64_t n)
{
    for (int64_t k = 0; k < n; k++) p[k] = v[k];
}
#endif

/* Past the cache, where p is the place of a whole vector in a line that is all written
 * so. past_end before anybody else reads. */
INLINE void store_past(S *p, vt v)
{
#ifdef __SSE2__
    enum { COUNT = LANES * sizeof(S) / 16 };
    if (!COUNT) store(p, v);
    S all[LANES];
    store(all, v);
#ifdef __AVX2__
    if (COUNT > 1) {
        for (int k = 0; k < (int)COUNT; k += 2)
            _mm256_stream_si256((void *)((char *)p + 16 * k),
                                _mm256_loadu_si256((const void *)((char *)all + 16 * k)));
        return;
    }
#endif
    for (int k = 0; k < (int)COUNT; k++)
        _mm_stream_si128((void *)((char *)p + 16 * k),
                         _mm_loadu_si128((const void *)((char *)all + 16 * k)));
#else
    store(p, v);
#endif
}

INLINE void past_end(void)
{
#ifdef __SSE2__
    _mm_sfence();
#endif
}

/* Elements of a run of n before the first whole line. */
INLINE int64_t to_line(const S *p, int64_t n)
{
    int64_t head = (int64_t)((-(uintptr_t)p & 63) / sizeof(S));
    return head < n ? head : n;
}

#endif
