/* Included first by every template: the element type and names of one (instruction set,
 * type). */
#ifndef SBNI_TMPL_H
#define SBNI_TMPL_H

#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <immintrin.h>
#elif defined __aarch64__
#include <arm_neon.h>
#endif

#include "kernels/kernels.h"

/* Outside the kernels' own build (an editor, the header test) the base table of float. */
#ifndef SBNI_TYPE_F64
#define SBNI_TYPE_F64 0
#endif
#ifndef SBNI_STORE_BF16
#define SBNI_STORE_BF16 0
#endif
#ifndef SBNI_TAG
#define SBNI_TAG base_f32
#endif

#if SBNI_TYPE_F64
typedef double T;
typedef uint64_t Tbits;
#else
typedef float T;
typedef uint32_t Tbits;
#endif

/* What elements are stored as. */
#if SBNI_STORE_BF16
typedef uint16_t S;
#else
typedef T S;
#endif

#define INLINE static inline __attribute__((always_inline))

#define SBNI_PASTE_(a, b) a##_##b
#define SBNI_PASTE(a, b) SBNI_PASTE_(a, b)
/* The name of a kernel in this table: K(relu) is sbni_relu_avx2_f32. */
#define K(name) SBNI_PASTE(sbni_##name, SBNI_TAG)

/* Doubles of a register. */
#if defined __AVX512F__
#define SBNI_WIDE 8
#elif defined __AVX__
#define SBNI_WIDE 4
#else
#define SBNI_WIDE 2
#endif

/* Whether a·b + c is one instruction. */
#if defined __FMA__ || defined __aarch64__
#define SBNI_FUSES 1
#endif

/* Lanes of the vectors of a template: as many as a register has doubles, or, in templates
 * without sums, values of T. The compiler keeps wider vectors in memory. */
#ifndef SBNI_LANES
#define SBNI_LANES SBNI_WIDE
#endif
enum { LANES = SBNI_LANES };
typedef double vd __attribute__((vector_size(8 * LANES)));
typedef T vt __attribute__((vector_size(sizeof(T) * LANES)));

#if SBNI_STORE_BF16
static inline T get(S v)
{
    uint32_t b = (uint32_t)v << 16;
    float f;
    memcpy(&f, &b, sizeof f);
    return f;
}

/* To the nearest, ties to even; NaN stays one. */
static inline S put(T v)
{
    uint32_t b;
    memcpy(&b, &v, sizeof b);
    uint32_t rounded = (b + 0x7fff + (b >> 16 & 1)) >> 16;
    return (S)(v != v ? b >> 16 | 0x40 : rounded);
}

static inline vt load(const S *p)
{
    typedef uint16_t half __attribute__((vector_size(2 * LANES)));
    typedef uint32_t word __attribute__((vector_size(4 * LANES)));
    half v;
    memcpy(&v, p, sizeof v);
    return (vt)(__builtin_convertvector(v, word) << 16);
}
#else
static inline T get(S v)
{
    return v;
}

static inline S put(T v)
{
    return v;
}

static inline vt load(const S *p)
{
    vt v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store(T *p, vt v)
{
    memcpy(p, &v, sizeof v);
}
#endif

/* gcc 12 makes several instructions of a conversion that is one. */
static inline vd widen(vt v)
{
#if defined __AVX512F__ && !SBNI_TYPE_F64 && SBNI_LANES == 8
    return (vd)_mm512_cvtps_pd((__m256)v);
#elif defined __AVX__ && !SBNI_TYPE_F64 && SBNI_LANES == 4
    return (vd)_mm256_cvtps_pd((__m128)v);
#elif defined __x86_64__ && !SBNI_TYPE_F64 && SBNI_LANES == 2
    int64_t both;
    memcpy(&both, &v, sizeof both);
    return (vd)_mm_cvtps_pd(_mm_castsi128_ps(_mm_cvtsi64_si128(both)));
#else
    return __builtin_convertvector(v, vd);
#endif
}

static inline uint64_t bits(double v)
{
    uint64_t b;
    memcpy(&b, &v, sizeof b);
    return b;
}

/* The order of a sum is that of ROUND lanes on every machine: value j of a run joins lane
 * j % ROUND, and the lanes are added up as a fixed tree. */
enum { ROUND = 8, PARTS = ROUND / LANES > 0 ? ROUND / LANES : 1 };

static inline double lanes_sum(const vd *part)
{
    typedef double four __attribute__((vector_size(32)));
    typedef double two __attribute__((vector_size(16)));
    four low, high;
    two even, odd;
    memcpy(&low, part, sizeof low);
    memcpy(&high, (const char *)part + sizeof low, sizeof high);
    low += high;
    memcpy(&even, &low, sizeof even);
    memcpy(&odd, (const char *)&low + sizeof even, sizeof odd);
    even += odd;
    return even[0] + even[1];
}

/* The same of 2·PARTS, as runs that are summed two rounds at a time leave them. */
static inline double both_sum(const vd *part)
{
    vd all[PARTS];
    for (int k = 0; k < PARTS; k++) all[k] = part[k] + part[PARTS + k];
    return lanes_sum(all);
}

/* Every kernel of the tables. */
#define SBNI_NORM_KERNEL_LIST(X)                                                         \
    X(norm_moments)                                                                      \
    X(norm_factors)                                                                      \
    X(norm_normalize)                                                                    \
    X(norm_backward_sums)                                                                \
    X(norm_dx_factors)                                                                   \
    X(norm_backward_dx)                                                                  \
    X(norm_second_sums)                                                                  \
    X(norm_second_apply)                                                                 \
    X(norm_clear)

#define SBNI_WORDS_KERNEL_LIST(X)                                                        \
    X(add_moments)                                                                       \
    X(add_sums)                                                                          \
    X(read_moments)                                                                      \
    X(read_sums)

#define SBNI_KERNEL_LIST(X)                                                              \
    X(grad_quantize)                                                                     \
    X(grad_dequantize)                                                                   \
    X(relu)                                                                              \
    X(relu_backward)                                                                     \
    X(sigmoid)                                                                           \
    X(sigmoid_backward)                                                                  \
    X(add)                                                                               \
    X(dropout)                                                                           \
    X(groupnorm)                                                                         \
    X(groupnorm_backward)                                                                \
    X(maxpool)                                                                           \
    X(maxpool_backward)                                                                  \
    X(avgpool)                                                                           \
    X(avgpool_backward)                                                                  \
    X(im2col)                                                                            \
    X(col2im)                                                                            \
    X(bias_add)                                                                          \
    X(bias_grad) X(bias_add_rows) X(bias_grad_rows) X(log_softmax) X(nll) X(sgd) X(adam)

/* Those that need a·b + c in one instruction. */
#define SBNI_FUSING_KERNEL_LIST(X)                                                       \
    X(product)                                                                           \
    X(product_of_rows)                                                                   \
    X(convolve)                                                                          \
    X(convolve_weights)                                                                  \
    X(pooled_add)                                                                        \
    X(pooled_dweights)                                                                   \
    X(images_to_lanes)                                                                   \
    X(images_of_lanes)                                                                   \
    X(tiles_weights)                                                                     \
    X(tiles_dweights)                                                                    \
    X(tiles_products)                                                                    \
    X(tiles_points)                                                                      \
    X(tiles_row_points)                                                                  \
    X(tiles_add_points) X(tiles_outputs) X(tiles_of_outputs) X(tiles_row_of_outputs)

#define SBNI_DECLARE_NORM(name)                                                          \
    extern __typeof__(*((sbni_norm_kernels *)0)->name) K(name);
SBNI_NORM_KERNEL_LIST(SBNI_DECLARE_NORM)
#define SBNI_DECLARE_WORDS(name)                                                         \
    extern __typeof__(*((sbni_words_kernels *)0)->name) K(words_##name);
SBNI_WORDS_KERNEL_LIST(SBNI_DECLARE_WORDS)
#define SBNI_DECLARE(name) extern __typeof__(*((sbni_kernels *)0)->name) K(name);
SBNI_KERNEL_LIST(SBNI_DECLARE)
#ifdef SBNI_FUSES
SBNI_FUSING_KERNEL_LIST(SBNI_DECLARE)
#endif

#endif
