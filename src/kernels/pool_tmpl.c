/* No sums here, and windows of eight. */
#define SBNI_LANES 8
#include "kernels/tmpl.h"

/* The common window, 2, in vectors of 8 or 4 outputs; a row that no width divides ends in
 * a vector that overlaps the one before. Rows shorter than 4 take the general way. */

#if SBNI_TYPE_F64
typedef int64_t Tint;
#else
typedef int32_t Tint;
#endif
typedef Tint vi8 __attribute__((vector_size(8 * sizeof(T))));
typedef T vt4 __attribute__((vector_size(4 * sizeof(T))));
typedef Tint vi4 __attribute__((vector_size(4 * sizeof(T))));
typedef uint8_t vb8 __attribute__((vector_size(8)));
typedef uint8_t vb4 __attribute__((vector_size(4)));

#define EVEN8 0, 2, 4, 6, 8, 10, 12, 14
#define ODD8 1, 3, 5, 7, 9, 11, 13, 15
#define EVEN4 0, 2, 4, 6
#define ODD4 1, 3, 5, 7
#define MIX8_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define MIX8_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#define MIX4_LOW 0, 4, 1, 5
#define MIX4_HIGH 2, 6, 3, 7

/* Where the mask is set a, else b; C has no ?: of vectors. */
#define PICK(V, VI, mask, a, b) ((V)(((VI)(a) & (mask)) | ((VI)(b) & ~(mask))))

/* Places to bytes and back, which gcc 12 would move one by one. */
#if defined __SSE2__ && !SBNI_TYPE_F64
static inline void put_places8(vi8 v, uint8_t *at)
{
    __m128i half[2];
    memcpy(half, &v, sizeof half);
    __m128i words = _mm_packs_epi32(half[0], half[1]);
    _mm_storel_epi64((void *)at, _mm_packus_epi16(words, words));
}

static inline void put_places4(vi4 v, uint8_t *at)
{
    __m128i words = _mm_packs_epi32((__m128i)v, (__m128i)v);
    int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    memcpy(at, &bytes, sizeof bytes);
}

static inline vi8 get_places8(const uint8_t *at)
{
    __m128i bytes = _mm_loadl_epi64((const void *)at);
#if defined __AVX2__
    return (vi8)_mm256_cvtepu8_epi32(bytes);
#else
    const __m128i zero = _mm_setzero_si128(), words = _mm_unpacklo_epi8(bytes, zero);
    __m128i half[2] = {_mm_unpacklo_epi16(words, zero), _mm_unpackhi_epi16(words, zero)};
    vi8 v;
    memcpy(&v, half, sizeof v);
    return v;
#endif
}

static inline vi4 get_places4(const uint8_t *at)
{
    const __m128i zero = _mm_setzero_si128();
    int32_t bytes;
    memcpy(&bytes, at, sizeof bytes);
    return (vi4)_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(bytes), zero),
                                   zero);
}
#else
static inline void put_places8(vi8 v, uint8_t *at)
{
    vb8 place = __builtin_convertvector(v, vb8);
    memcpy(at, &place, sizeof place);
}

static inline void put_places4(vi4 v, uint8_t *at)
{
    vb4 place = __builtin_convertvector(v, vb4);
    memcpy(at, &place, sizeof place);
}

static inline vi8 get_places8(const uint8_t *at)
{
    vb8 place;
    memcpy(&place, at, sizeof place);
    return __builtin_convertvector(place, vi8);
}

static inline vi4 get_places4(const uint8_t *at)
{
    vb4 place;
    memcpy(&place, at, sizeof place);
    return __builtin_convertvector(place, vi4);
}
#endif

/* W outputs from 2W columns of two rows. v != v is NaN, which wins so that it is not
 * lost. */
#define DEFINE_POOL2(W, V, VI, EVEN, ODD, LOW, HIGH)                                     \
    static inline void pool2_##W(const T *top, const T *low, T *to, uint8_t *at)         \
    {                                                                                    \
        V t0, t1, l0, l1;                                                                \
        memcpy(&t0, top, sizeof t0);                                                     \
        memcpy(&t1, top + W, sizeof t1);                                                 \
        memcpy(&l0, low, sizeof l0);                                                     \
        memcpy(&l1, low + W, sizeof l1);                                                 \
        V v0 = __builtin_shufflevector(t0, t1, EVEN),                                    \
          v1 = __builtin_shufflevector(t0, t1, ODD),                                     \
          v2 = __builtin_shufflevector(l0, l1, EVEN),                                    \
          v3 = __builtin_shufflevector(l0, l1, ODD);                                     \
        VI a1 = (v1 > v0) | (v1 != v1), a3 = (v3 > v2) | (v3 != v3);                     \
        V b0 = PICK(V, VI, a1, v1, v0), b1 = PICK(V, VI, a3, v3, v2);                    \
        VI lower = (b1 > b0) | (b1 != b1);                                               \
        V best = PICK(V, VI, lower, b1, b0);                                             \
        memcpy(to, &best, sizeof best);                                                  \
        put_places##W(PICK(VI, VI, lower, 2 - a3, -a1), at);                             \
    }                                                                                    \
    static inline void unpool2_##W(const T *from, const uint8_t *at, T *top, T *low)     \
    {                                                                                    \
        V g;                                                                             \
        memcpy(&g, from, sizeof g);                                                      \
        VI a = get_places##W(at);                                                        \
        V g0 = (V)((VI)g & (a == 0)), g1 = (V)((VI)g & (a == 1)),                        \
          g2 = (V)((VI)g & (a == 2)), g3 = (V)((VI)g & (a == 3));                        \
        V t0 = __builtin_shufflevector(g0, g1, LOW),                                     \
          t1 = __builtin_shufflevector(g0, g1, HIGH),                                    \
          l0 = __builtin_shufflevector(g2, g3, LOW),                                     \
          l1 = __builtin_shufflevector(g2, g3, HIGH);                                    \
        memcpy(top, &t0, sizeof t0);                                                     \
        memcpy(top + W, &t1, sizeof t1);                                                 \
        memcpy(low, &l0, sizeof l0);                                                     \
        memcpy(low + W, &l1, sizeof l1);                                                 \
    }

DEFINE_POOL2(8, vt, vi8, EVEN8, ODD8, MIX8_LOW, MIX8_HIGH)
DEFINE_POOL2(4, vt4, vi4, EVEN4, ODD4, MIX4_LOW, MIX4_HIGH)

static void maxpool2(const T *x, sbni_image in, T *y, uint8_t *argmax)
{
    int64_t oh = in.h / 2, ow = in.w / 2;
    for (int64_t c = 0; c < in.c; c++)
        for (int64_t i = 0; i < oh; i++) {
            const T *top = x + (c * in.h + 2 * i) * in.w, *low = top + in.w;
            T *to = y + (c * oh + i) * ow;
            uint8_t *at = argmax + (c * oh + i) * ow;
            int64_t j = 0;
            for (; j + 8 <= ow; j += 8) pool2_8(top + 2 * j, low + 2 * j, to + j, at + j);
            for (; j < ow; j += 4) {
                if (j + 4 > ow) j = ow - 4;
                pool2_4(top + 2 * j, low + 2 * j, to + j, at + j);
            }
        }
}

static void maxpool2_backward(const T *dy, const uint8_t *argmax, sbni_image in, T *dx)
{
    int64_t oh = in.h / 2, ow = in.w / 2;
    for (int64_t c = 0; c < in.c; c++)
        for (int64_t i = 0; i < oh; i++) {
            T *top = dx + (c * in.h + 2 * i) * in.w, *low = top + in.w;
            const T *from = dy + (c * oh + i) * ow;
            const uint8_t *at = argmax + (c * oh + i) * ow;
            int64_t j = 0;
            for (; j + 8 <= ow; j += 8)
                unpool2_8(from + j, at + j, top + 2 * j, low + 2 * j);
            for (; j < ow; j += 4) {
                if (j + 4 > ow) j = ow - 4;
                unpool2_4(from + j, at + j, top + 2 * j, low + 2 * j);
            }
        }
}

void K(maxpool)(const void *xv, sbni_image in, int64_t k, void *yv, uint8_t *argmax)
{
    const T *x = xv;
    T *y = yv;
    if (k == 2 && in.w >= 8) {
        maxpool2(x, in, y, argmax);
        return;
    }
    int64_t oh = in.h / k, ow = in.w / k;
    for (int64_t c = 0; c < in.c; c++)
        for (int64_t i = 0; i < oh; i++)
            for (int64_t j = 0; j < ow; j++) {
                const T *corner = x + (c * in.h + i * k) * in.w + j * k;
                T best = corner[0];
                int64_t place = 0;
                for (int64_t p = 1; p < k * k; p++) {
                    T v = corner[p / k * in.w + p % k];
                    if (v > best || v != v) best = v, place = p;
                }
                y[(c * oh + i) * ow + j] = best;
                argmax[(c * oh + i) * ow + j] = (uint8_t)place;
            }
}

void K(maxpool_backward)(const void *dyv, const uint8_t *argmax, sbni_image in, int64_t k,
                         void *dxv)
{
    const T *dy = dyv;
    T *dx = dxv;
    int64_t oh = in.h / k, ow = in.w / k;
    /* rows and columns that no window covers stay zero */
    if (k != 2 || in.w < 8 || in.h % 2 || in.w % 2)
        memset(dx, 0, (size_t)(in.c * in.h * in.w) * sizeof *dx);
    if (k == 2 && in.w >= 8) {
        maxpool2_backward(dy, argmax, in, dx);
        return;
    }
    for (int64_t c = 0; c < in.c; c++)
        for (int64_t i = 0; i < oh; i++)
            for (int64_t j = 0; j < ow; j++) {
                int64_t at = (c * oh + i) * ow + j, place = argmax[at];
                dx[(c * in.h + i * k + place / k) * in.w + j * k + place % k] = dy[at];
            }
}

void K(avgpool)(const void *xv, sbni_image in, int64_t kh, int64_t kw, void *yv)
{
    const T *x = xv;
    T *y = yv;
    int64_t oh = in.h / kh, ow = in.w / kw;
    for (int64_t c = 0; c < in.c; c++)
        for (int64_t i = 0; i < oh; i++)
            for (int64_t j = 0; j < ow; j++) {
                const T *corner = x + (c * in.h + i * kh) * in.w + j * kw;
                double sum = 0;
                for (int64_t p = 0; p < kh; p++)
                    for (int64_t q = 0; q < kw; q++) sum += (double)corner[p * in.w + q];
                y[(c * oh + i) * ow + j] = (T)(sum / (double)(kh * kw));
            }
}

void K(avgpool_backward)(const void *dyv, sbni_image in, int64_t kh, int64_t kw,
                         void *dxv)
{
    const T *dy = dyv;
    T *dx = dxv;
    int64_t oh = in.h / kh, ow = in.w / kw;
    /* rows and columns that no window covers stay zero */
    memset(dx, 0, (size_t)(in.c * in.h * in.w) * sizeof *dx);
    for (int64_t c = 0; c < in.c; c++)
        for (int64_t i = 0; i < oh; i++)
            for (int64_t j = 0; j < ow; j++) {
                T share = (T)((double)dy[(c * oh + i) * ow + j] / (double)(kh * kw));
                T *corner = dx + (c * in.h + i * kh) * in.w + j * kw;
                for (int64_t p = 0; p < kh; p++)
                    for (int64_t q = 0; q < kw; q++) corner[p * in.w + q] = share;
            }
}
