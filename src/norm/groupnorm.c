#include "syncbn/groupnorm.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>

#include "core/tensor.h"
#include "kernels/kernels.h"

/* Two views of one shape and type, cut into groups that have a variance. */
static sbn_status check(const sbn_tensor *x, const char *name_x, const sbn_tensor *y,
                        const char *name_y, int64_t groups)
{
    SBN_TRY(sbni_tensor_check(x, name_x));
    SBN_TRY(sbni_tensor_check(y, name_y));
    SBN_TRY(sbni_tensor_check_same(x, name_x, y, name_y));
    SBN_CHECK(x->dtype != SBN_BF16, SBN_E_ARG, "expected float32 or float64 elements");
    SBN_CHECK(sbni_tensor_is_dense(x) && sbni_tensor_is_dense(y), SBN_E_ARG,
              "expected samples, channels, pixels in this order without gaps (NCHW)");
    SBN_CHECK(groups >= 1 && x->c % groups == 0, SBN_E_ARG,
              "expected groups that divide %" PRId64 " channels, got %" PRId64, x->c,
              groups);
    SBN_CHECK(x->c > groups || sbni_tensor_s(x) > 1, SBN_E_FEW,
              "%" PRId64 " groups of %" PRId64
              " channels hold one value each, which has no variance; expected fewer "
              "groups",
              groups, x->c);
    return SBN_OK;
}

static sbn_status check_statistics(int64_t n, const double *mean, const double *rstd)
{
    SBN_CHECK(n == 0 || (mean && rstd), SBN_E_ARG, "expected mean and rstd, got NULL");
    return SBN_OK;
}

static sbn_status check_forward(const sbn_tensor *x, int64_t groups, double eps,
                                const sbn_tensor *y, const double *mean,
                                const double *rstd)
{
    SBN_TRY(check(x, "x", y, "y", groups));
    SBN_CHECK(eps > 0 && isfinite(eps), SBN_E_ARG, "expected eps > 0, got %g", eps);
    return check_statistics(x->n, mean, rstd);
}

sbn_status sbn_groupnorm_forward(const sbn_tensor *x, int64_t groups, double eps,
                                 const void *gamma, const void *beta, sbn_tensor *y,
                                 double *mean, double *rstd)
{
    sbn_status status = check_forward(x, groups, eps, y, mean, rstd);
    if (status != SBN_OK) return sbni_fail_in(status, "sbn_groupnorm_forward");
    if (x->n == 0) return SBN_OK; /* the other axes need not fit memory then */
    sbni_kernels_get(x->dtype)->groupnorm(x->data, x->n, x->c, sbni_tensor_s(x), groups,
                                          eps, gamma, beta, mean, rstd, y->data);
    return SBN_OK;
}

static sbn_status check_backward(const sbn_tensor *dy, const sbn_tensor *x,
                                 int64_t groups, const double *mean, const double *rstd,
                                 const sbn_tensor *dx, const double *dgamma,
                                 const double *dbeta)
{
    SBN_TRY(check(x, "x", dy, "dy", groups));
    if (dx) SBN_TRY(check(x, "x", dx, "dx", groups));
    SBN_CHECK(dgamma && dbeta, SBN_E_ARG, "expected dgamma and dbeta, got NULL");
    return check_statistics(x->n, mean, rstd);
}

sbn_status sbn_groupnorm_backward(const sbn_tensor *dy, const sbn_tensor *x,
                                  int64_t groups, const void *gamma, const double *mean,
                                  const double *rstd, sbn_tensor *dx, double *dgamma,
                                  double *dbeta)
{
    sbn_status status = check_backward(dy, x, groups, mean, rstd, dx, dgamma, dbeta);
    if (status != SBN_OK) return sbni_fail_in(status, "sbn_groupnorm_backward");
    if (x->n == 0) return SBN_OK;
    sbni_kernels_get(x->dtype)->groupnorm_backward(
        dy->data, x->data, x->n, x->c, sbni_tensor_s(x), groups, gamma, mean, rstd,
        dx ? dx->data : NULL, dgamma, dbeta);
    return SBN_OK;
}
