/*
 * The end of a residual block, y = relu(norm(x) + z), in one pass over channels-last
 * data, and its backward with both gradients, dx and dz. Compared with the three
 * operations one after the other.
 *
 *   mpirun -np 2 residual
 */
#include <math.h>

#include "example.h"

enum { N = 16, H = 8, W = 8, C = 16, COUNT = N * H * W * C };

static float x[COUNT], z[COUNT], dy[COUNT];
static float y[COUNT], dx[COUNT], dz[COUNT];                   /* fused */
static float y_apart[COUNT], dx_apart[COUNT], dz_apart[COUNT]; /* one after the other */

static sbn_tensor view(float *data)
{
    return sbn_tensor_nhwc(SBN_F32, data, N, H, W, C);
}

/* A layer whose gamma and beta are not 1 and 0, as in the midst of training. */
static sbn_norm *create(sbn_group *group, bool relu)
{
    sbn_norm *bn = NULL;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    cfg.relu = relu;
    TRY(sbn_norm_create(&cfg, group, &bn));
    sbn_norm_state state = sbn_norm_get_state(bn);
    for (int c = 0; c < C; c++) {
        ((float *)state.weight)[c] = 1 + 0.5f * number(c);
        ((float *)state.bias)[c] = 0.5f * number(C + c);
    }
    return bn;
}

static void fused(sbn_norm *bn)
{
    sbn_tensor tx = view(x), tz = view(z), ty = view(y), tdy = view(dy), tdx = view(dx),
               tdz = view(dz);
    TRY(sbn_norm_forward_add(bn, &tx, &tz,
                             &ty)); /* x and z stay until backward has run */
    TRY(sbn_norm_backward_add(bn, &tdy, &tdx, &tdz));
}

static void apart(sbn_norm *bn)
{
    sbn_tensor tx = view(x), ty = view(y_apart), tdz = view(dz_apart),
               tdx = view(dx_apart);
    TRY(sbn_norm_forward(bn, &tx, &ty));
    for (int64_t i = 0; i < COUNT; i++) y_apart[i] += z[i];
    for (int64_t i = 0; i < COUNT; i++) y_apart[i] = fmaxf(0, y_apart[i]);

    /* dz is dy where relu let y through, and what arrives at norm is the same. */
    for (int64_t i = 0; i < COUNT; i++) dz_apart[i] = y_apart[i] > 0 ? dy[i] : 0;
    TRY(sbn_norm_backward(bn, &tdz, &tdx));
}

/* The largest |a - b|, as a part of the largest |b|. */
static double difference(const float *a, const float *b, int64_t n)
{
    double difference = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        difference = fmax(difference, fabs((double)a[i] - (double)b[i]));
        scale = fmax(scale, fabs((double)b[i]));
    }
    return difference / scale;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    sbn_group *group = NULL;
    TRY(sbn_group_create(MPI_COMM_WORLD, &group));
    int64_t rank = sbn_group_rank(group);
    for (int64_t i = 0; i < COUNT; i++) {
        x[i] = number(rank * 3 * COUNT + i);
        z[i] = number((rank * 3 + 1) * COUNT + i);
        dy[i] = number((rank * 3 + 2) * COUNT + i);
    }

    sbn_norm *one = create(group, true), *three = create(group, false);
    fused(one);
    apart(three);
    sbn_norm_state a = sbn_norm_get_state(one), b = sbn_norm_get_state(three);
    double by_y = difference(y, y_apart, COUNT), by_dx = difference(dx, dx_apart, COUNT),
           by_dz = difference(dz, dz_apart, COUNT),
           by_dgamma = difference(a.weight_grad, b.weight_grad, C),
           by_dbeta = difference(a.bias_grad, b.bias_grad, C);
    int64_t off = 0;
    for (int64_t i = 0; i < COUNT; i++) off += y[i] <= 0;
    if (rank == 0)
        printf(
            "relu switches %.1f %% off; largest differences: y %.1e, dx %.1e, dz %.1e, "
            "dgamma %.1e, dbeta %.1e\n",
            100.0 * (double)off / COUNT, by_y, by_dx, by_dz, by_dgamma, by_dbeta);
    int failed = claim(by_y < 1e-6, "one pass forward gives what three operations give");
    failed += claim(by_dx < 1e-5 && by_dz <= 0 && by_dgamma < 1e-5 && by_dbeta < 1e-5,
                    "one pass backward gives dx, dz, dgamma, dbeta of the three");

    sbn_norm_destroy(&three);
    sbn_norm_destroy(&one);
    sbn_group_destroy(&group);
    MPI_Finalize();
    return failed > 0;
}
