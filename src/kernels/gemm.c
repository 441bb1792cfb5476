#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "kernels/gemm.h"

#include <cblas.h>
#include <stdlib.h>
#include <sys/mman.h>

/* What OpenBLAS maps for each thread that is in a product at the same time, and keeps. */
enum { WORK_BYTES = (128 << 20) + (1 << 20), MAX_THREADS = 256, SIDE = 128 };

/* For the kernels: B is read again for every few rows of A, out of a cache. */
enum { SMALL_BYTES = 1 << 20 };

/* Shorter rows are done before their lanes' sums have paid. */
enum { LONG_ROW = 64 };

void sbni_gemm_setup(void)
{
    openblas_set_num_threads(1);
}

int64_t sbni_gemm_reserve(int threads)
{
    static int reserved;
    static const float zeros[SIDE * SIDE];
    void *work[MAX_THREADS];
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    if (threads <= reserved) return 0;
    int got = 0;
    /* as OpenBLAS does: of memory that nobody writes none is used */
    while (got < threads &&
           (work[got] = mmap(NULL, WORK_BYTES, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) != MAP_FAILED)
        got++;
    for (int i = 0; i < got; i++) munmap(work[i], WORK_BYTES);
    if (got < threads) return WORK_BYTES;
    /* now that they are there, at least the first is taken: by a product that is too
     * large for the code that needs none */
    float *product = malloc(SIDE * SIDE * sizeof *product);
    if (!product) return SIDE * SIDE * (int64_t)sizeof *product;
    sbni_gemm(SBN_F32, false, false, SIDE, SIDE, SIDE, zeros, zeros, 0, product);
    free(product);
    reserved = threads;
    return 0;
}

const char *sbni_gemm_version(void)
{
    return openblas_get_config();
}

void sbni_gemm(sbn_dtype dtype, bool transpose_a, bool transpose_b, int64_t m, int64_t n,
               int64_t k, const void *a, const void *b, double beta, void *c)
{
    CBLAS_TRANSPOSE ta = transpose_a ? CblasTrans : CblasNoTrans,
                    tb = transpose_b ? CblasTrans : CblasNoTrans;
    blasint mi = (blasint)m, ni = (blasint)n, ki = (blasint)k;
    blasint lda = transpose_a ? mi : ki, ldb = transpose_b ? ki : ni;
    if (dtype == SBN_F64)
        cblas_dgemm(CblasRowMajor, ta, tb, mi, ni, ki, 1.0, a, lda, b, ldb, beta, c, ni);
    else
        cblas_sgemm(CblasRowMajor, ta, tb, mi, ni, ki, 1.0f, a, lda, b, ldb, (float)beta,
                    c, ni);
}

bool sbni_product_is_small(const sbni_kernels *kernels, sbn_dtype dtype, int64_t n,
                           int64_t k)
{
    return kernels->product && n * k * sbn_dtype_bytes(dtype) <= SMALL_BYTES;
}

void sbni_product(const sbni_kernels *kernels, sbn_dtype dtype, bool transpose_a,
                  bool transpose_b, int64_t m, int64_t n, int64_t k, const void *a,
                  const void *b, bool adds, void *c)
{
    if (!sbni_product_is_small(kernels, dtype, n, k) || (transpose_b && k < LONG_ROW))
        sbni_gemm(dtype, transpose_a, transpose_b, m, n, k, a, b, adds, c);
    else if (transpose_b)
        kernels->product_of_rows(m, n, k, a, b, adds, c);
    else if (transpose_a)
        kernels->product(m, n, k, a, 1, m, b, adds, c);
    else
        kernels->product(m, n, k, a, k, 1, b, adds, c);
}
