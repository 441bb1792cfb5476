#include "kernels/gemm.h"

#include <cblas.h>

void sbni_gemm_setup(void)
{
    openblas_set_num_threads(1);
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
