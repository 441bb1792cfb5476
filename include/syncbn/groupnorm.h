/**
 * Group normalization: every sample has statistics of its own, one set for each group of
 * neighbouring channels, so nothing depends on the batch and no message is sent.
 *
 *   y = gamma·(x − mean)/sqrt(var + eps) + beta
 *
 * mean and (biased) var over the c/groups channels and all pixels of one group of one
 * sample; gamma and beta per channel. One group is layer normalization, c groups instance
 * normalization. Training and evaluation are the same, and there is no state: these are
 * functions of their arguments.
 * @source Wu & He 2018 (arXiv 1803.08494), equations 1, 2, 6 and 7; src/norm/MATH.md
 * (14).
 */
#ifndef SYNCBN_GROUPNORM_H
#define SYNCBN_GROUPNORM_H

#include <stdint.h>

#include "syncbn/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Normalize.
 * @param x       (n,c), (n,c,h,w) or (n,c,d,h,w) without gaps, SBN_F32 or SBN_F64; n may
 * be 0.
 * @param groups  1 … c, a divisor of c.
 * @param eps     > 0, finite, added to var inside the root; 1e-5 is usual.
 * @param gamma   [c] of x's type; NULL: 1.
 * @param beta    [c] of x's type; NULL: 0.
 * @param y       same shape and type as x; may be x when no backward follows.
 * @param mean    [n][groups], written.
 * @param rstd    [n][groups], written: 1/sqrt(var + eps). Both are what backward needs.
 * Nothing is kept; all arrays stay the caller's. Local, on the calling thread; threads
 * may work on samples of their own.
 * @errors SBN_E_ARG (shape, type, groups, eps or null), SBN_E_FEW (a group of one value
 * has no variance). Nothing is written then. NaN and infinity in a group of x, or values
 * whose squares overflow (1e154), become NaN in that group of y.
 * @reproducible the same bits however samples are dealt to calls, threads and processes.
 */
SBN_API sbn_status sbn_groupnorm_forward(const sbn_tensor *x, int64_t groups, double eps,
                                         const void *gamma, const void *beta,
                                         sbn_tensor *y, double *mean, double *rstd);

/**
 * Gradient of a forward, for g = gamma·dy and the m values of a group:
 *
 *   dx = rstd·(g − Σg/m − xhat·Σ(g·xhat)/m)
 *   dgamma += Σ dy·xhat,  dbeta += Σ dy   over samples and pixels
 *
 * @param dy      gradient by y, shape and type of x.
 * @param x, groups, gamma, mean, rstd  as forward had and gave them.
 * @param dx      gradient by x, may be dy; NULL when not wanted.
 * @param dgamma, dbeta  [c], to which the sums over these samples are added, in the order
 * of the samples: clear them first. Sums of several calls or processes are the caller's
 * to add.
 * Local, as forward.
 * @errors as forward.
 * @reproducible dx as forward's y; dgamma and dbeta where the same samples are in a call.
 */
SBN_API sbn_status sbn_groupnorm_backward(const sbn_tensor *dy, const sbn_tensor *x,
                                          int64_t groups, const void *gamma,
                                          const double *mean, const double *rstd,
                                          sbn_tensor *dx, double *dgamma, double *dbeta);

#ifdef __cplusplus
}
#endif
#endif
