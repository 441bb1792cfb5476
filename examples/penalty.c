/*
 * A gradient penalty, P = sum of |dx|^2, depends on x and gamma through the backward
 * pass: training with it takes backward of backward. Its gradients are compared with
 * finite differences of P.
 *
 *   mpirun -np 3 penalty
 */
#include <math.h>

#include "example.h"

enum { N = 16, C = 3, H = 4, W = 4, COUNT = N * C * H * W };

static double x[COUNT], dy[COUNT], dx[COUNT], v[COUNT], gx[COUNT];

static sbn_tensor view(double *data)
{
    return sbn_tensor_nchw(SBN_F64, data, N, C, H, W);
}

/* Sum of a·b over all processes. */
static double dot(const double *a, const double *b)
{
    double sum = 0;
    for (int64_t i = 0; i < COUNT; i++) sum += a[i] * b[i];
    MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return sum;
}

/* P at an input, with dx left behind. dx must not take the place of dy: the second
 * backward looks at dy again. */
static double penalty(sbn_norm *bn, double *input)
{
    static double y[COUNT];
    sbn_tensor tx = view(input), ty = view(y), tdy = view(dy), tdx = view(dx);
    TRY(sbn_norm_forward(bn, &tx, &ty));
    TRY(sbn_norm_backward(bn, &tdy, &tdx));
    return dot(dx, dx);
}

/* dP/dx along a direction, by a central difference. */
static double slope_along(sbn_norm *bn, const double *direction, double h)
{
    static double moved[COUNT];
    double p[2];
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < COUNT; i++)
            moved[i] = x[i] + (side ? h : -h) * direction[i];
        p[side] = penalty(bn, moved);
    }
    return (p[1] - p[0]) / (2 * h);
}

/* dP/dgamma of a channel, likewise. */
static double slope_by_gamma(sbn_norm *bn, int c, double h)
{
    double *gamma = &((double *)sbn_norm_get_state(bn).weight)[c], was = *gamma, p[2];
    for (int side = 0; side < 2; side++) {
        *gamma = was + (side ? h : -h);
        p[side] = penalty(bn, x);
    }
    *gamma = was;
    return (p[1] - p[0]) / (2 * h);
}

static bool close(double a, double b)
{
    return fabs(a - b) <= 1e-6 * fabs(b) && fabs(b) > 1e-3;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    sbn_group *group = NULL;
    TRY(sbn_group_create(MPI_COMM_WORLD, &group));
    sbn_norm *bn = NULL;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    cfg.dtype = SBN_F64;
    cfg.second_order = true; /* room for what the second backward needs */
    TRY(sbn_norm_create(&cfg, group, &bn));
    for (int c = 0; c < C; c++)
        ((double *)sbn_norm_get_state(bn).weight)[c] = 1 + 0.25 * c;

    static double direction[COUNT];
    int64_t rank = sbn_group_rank(group);
    for (int64_t i = 0; i < COUNT; i++) {
        x[i] = (double)number(rank * 3 * COUNT + i);
        dy[i] = (double)number((rank * 3 + 1) * COUNT + i);
        direction[i] = (double)number((rank * 3 + 2) * COUNT + i);
    }

    double p = penalty(bn, x);
    for (int64_t i = 0; i < COUNT; i++) v[i] = 2 * dx[i]; /* dP/d(dx) */
    sbn_tensor tv = view(v), tgx = view(gx);
    double ggamma[C];
    /* P has no part in dgamma, dbeta, and dP/d(dy) is not asked for. */
    TRY(sbn_norm_second_backward(bn, &tv, NULL, NULL, NULL, &tgx, ggamma));

    double along = dot(gx, direction), along_fd = slope_along(bn, direction, 1e-5),
           gamma_fd[C];
    for (int c = 0; c < C; c++) gamma_fd[c] = slope_by_gamma(bn, c, 1e-5);
    if (rank == 0) {
        printf("penalty %.6f\n", p);
        printf("dP/dx along a direction %.9f, finite difference %.9f\n", along, along_fd);
        for (int c = 0; c < C; c++)
            printf("dP/dgamma[%d] %.9f, finite difference %.9f\n", c, ggamma[c],
                   gamma_fd[c]);
    }
    int failed = claim(close(along, along_fd), "dP/dx is the slope of P");
    failed += claim(close(ggamma[0], gamma_fd[0]) && close(ggamma[1], gamma_fd[1]) &&
                        close(ggamma[2], gamma_fd[2]),
                    "dP/dgamma is the slope of P, over the whole group");

    sbn_norm_destroy(&bn);
    sbn_group_destroy(&group);
    MPI_Finalize();
    return failed > 0;
}
