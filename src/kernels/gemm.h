/* Matrix products: small ones by the kernels, others by BLAS on one thread. The bits of a
 * product depend on its shape alone. */
#ifndef SBNI_GEMM_H
#define SBNI_GEMM_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "syncbn/tensor.h"

/* Make BLAS use one thread in this process; call before the first product. */
void sbni_gemm_setup(void);

/* Make sure that BLAS has its work memory for so many threads. A product that does not
 * get it asks again for ever. Returns 0, or the bytes that a thread's need and are not
 * there.
 */
int64_t sbni_gemm_reserve(int threads);

/* Name, version and kernel of the BLAS in use. */
const char *sbni_gemm_version(void);

/* Whether a product with B of k·n elements is one for the kernels: they have it, and B
 * fits the cache. */
bool sbni_product_is_small(const sbni_kernels *kernels, sbn_dtype dtype, int64_t n,
                           int64_t k);

/* C [m,n] = op(A) op(B), added to C where `adds`, row-major without gaps; op(A) [m,k] is
 * A or its transpose. By the kernels where they have it and B fits the cache; not both A
 * and B are transposed. */
void sbni_product(const sbni_kernels *kernels, sbn_dtype dtype, bool transpose_a,
                  bool transpose_b, int64_t m, int64_t n, int64_t k, const void *a,
                  const void *b, bool adds, void *c);

/* The same by BLAS: C = op(A) op(B) + beta·C, row-major without gaps; op(A) [m,k] is A or
 * its transpose. */
void sbni_gemm(sbn_dtype dtype, bool transpose_a, bool transpose_b, int64_t m, int64_t n,
               int64_t k, const void *a, const void *b, double beta, void *c);

#endif
