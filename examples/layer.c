/*
 * The layer in an MPI program of your own: each process normalizes its share of a batch
 * with the statistics of all of them, forward and backward. This file needs nothing but
 * the library; the other examples share example.h.
 *
 *   mpirun -np 3 layer
 */
#include <math.h>
#include <mpi.h>
#include <stdio.h>

#include <syncbn.h>

enum { N = 16, C = 4, H = 8, W = 8, COUNT = N * C * H * W };

static float x[COUNT], y[COUNT], dy[COUNT], dx[COUNT]; /* this process's share */

static sbn_tensor view(float *data)
{
    return sbn_tensor_nchw(SBN_F32, data, N, C, H, W);
}

/* One training step of a layer. A failure is one on every process, so all may leave. */
static sbn_status step(sbn_norm *bn)
{
    sbn_tensor tx = view(x), ty = view(y), tdy = view(dy), tdx = view(dx);
    sbn_status status = sbn_norm_forward(bn, &tx, &ty);
    /* … the rest of the net, the loss, and back to here with dy … */
    if (status == SBN_OK) status = sbn_norm_backward(bn, &tdy, &tdx);
    return status;
}

/* y has mean 0 and variance 1 over all processes together, and not within each. */
static int check(void)
{
    int wrong = 0, rank, size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    for (int c = 0; c < C; c++) {
        double mine[3] = {0, 0, N * H * W}, sums[3];
        for (int i = 0; i < N; i++)
            for (int p = 0; p < H * W; p++) {
                double value = (double)y[(i * C + c) * H * W + p];
                mine[0] += value;
                mine[1] += value * value;
            }
        MPI_Allreduce(mine, sums, 3, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
        double mean = sums[0] / sums[2], var = sums[1] / sums[2] - mean * mean;
        if (rank == 0)
            printf("channel %d: y of this process has mean %+.4f, of all %+.0e, variance "
                   "%.4f\n",
                   c, mine[0] / mine[2], mean, var);
        wrong +=
            fabs(mean) > 1e-5 || fabs(var - 1) > 1e-3 ||
            (size > 1 && rank == 0 && mine[0] / mine[2] > -0.5); /* x grows by rank */
    }
    return wrong;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    sbn_group *group = NULL;
    sbn_norm *bn = NULL;
    int rank, wrong = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    for (int i = 0; i < COUNT; i++) {
        x[i] = (float)rank + 0.01f * (float)((i * 37 + rank) % 101);
        dy[i] = (float)(i % 7);
    }

    sbn_norm_config cfg = sbn_norm_config_default(C);
    sbn_status status = sbn_group_create(MPI_COMM_WORLD, &group);
    if (status == SBN_OK) status = sbn_norm_create(&cfg, group, &bn);
    if (status == SBN_OK) status = step(bn);
    if (status == SBN_OK) {
        sbn_norm_state state = sbn_norm_get_state(bn); /* what an optimizer moves */
        wrong = check();
        if (rank == 0)
            printf("dgamma %.4f, dbeta %.1f, running var %.6f of channel 0, over all\n",
                   (double)((float *)state.weight_grad)[0],
                   (double)((float *)state.bias_grad)[0],
                   (double)((float *)state.running_var)[0]);
    } else
        fprintf(stderr, "layer: %s\n", sbn_last_error());
    sbn_norm_destroy(&bn);
    sbn_group_destroy(&group);
    MPI_Finalize();
    return status != SBN_OK || wrong > 0;
}
