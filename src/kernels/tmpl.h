/* Included first by every template: the element type and names of one (instruction set,
 * type). */
#ifndef SBNI_TMPL_H
#define SBNI_TMPL_H

#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"

/* Outside the kernels' own build (an editor, the header test) the base table of float. */
#ifndef SBNI_TYPE_F64
#define SBNI_TYPE_F64 0
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

#define SBNI_PASTE_(a, b) a##_##b
#define SBNI_PASTE(a, b) SBNI_PASTE_(a, b)
/* The name of a kernel in this table: K(relu) is sbni_relu_avx2_f32. */
#define K(name) SBNI_PASTE(sbni_##name, SBNI_TAG)

/* Eight lanes; the compiler splits them where registers are narrower. The order of a sum
 * is that of the lanes, whatever the machine. */
enum { LANES = 8 };
typedef double vd __attribute__((vector_size(8 * LANES)));
typedef T vt __attribute__((vector_size(sizeof(T) * LANES)));

static inline vt load(const T *p)
{
    vt v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store(T *p, vt v)
{
    memcpy(p, &v, sizeof v);
}

static inline vd widen(vt v)
{
    return __builtin_convertvector(v, vd);
}

/* Sum of the lanes as a fixed tree. */
static inline double lanes_sum(vd v)
{
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

/* Every kernel of the table. */
#define SBNI_KERNEL_LIST(X)                                                              \
    X(norm_moments)                                                                      \
    X(norm_normalize)                                                                    \
    X(norm_backward_sums)                                                                \
    X(norm_backward_dx)                                                                  \
    X(words_add_moments)                                                                 \
    X(words_add_sums) X(grad_quantize) X(grad_dequantize) X(relu) X(relu_backward)       \
        X(sigmoid) X(sigmoid_backward) X(groupnorm) X(groupnorm_backward) X(maxpool)     \
            X(maxpool_backward) X(im2col) X(col2im) X(bias_add) X(bias_grad)             \
                X(bias_add_rows) X(bias_grad_rows) X(log_softmax) X(nll) X(sgd)

#define SBNI_DECLARE(name) extern __typeof__(*((sbni_kernels *)0)->name) K(name);
SBNI_KERNEL_LIST(SBNI_DECLARE)

#endif
