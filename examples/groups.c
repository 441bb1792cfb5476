/*
 * Groups of processes that normalize apart, as a node's processes might: statistics are
 * those of a group's samples. What evaluation uses has to be one set in the end, so the
 * groups' running statistics are merged.
 *
 *   mpirun -np 4 groups
 */
#include <math.h>

#include "example.h"

enum { N = 16, C = 3, H = 4, W = 4, SAMPLE = C * H * W };

static float x[N * SAMPLE], y[N * SAMPLE];

/* Samples of group g lie around g, so that the groups' statistics differ. */
static void fill(int g, int rank)
{
    for (int i = 0; i < N * SAMPLE; i++)
        x[i] = (float)g + number((int64_t)rank * N * SAMPLE + i);
}

/* Mean of channel 0 over the processes of a communicator. */
static double mean_over(MPI_Comm comm, const float *values)
{
    double sums[2] = {0, (double)N * H * W}, all[2];
    for (int i = 0; i < N; i++)
        for (int p = 0; p < H * W; p++) sums[0] += (double)values[i * SAMPLE + p];
    MPI_Allreduce(sums, all, 2, MPI_DOUBLE, MPI_SUM, comm);
    return all[0] / all[1];
}

static int run(int rank, int size)
{
    /* consecutive processes in pairs; all alone where they do not pair up */
    int group_size = size % 2 ? 1 : 2, g = rank / group_size, failed = 0;
    sbn_group *group = NULL, *world = NULL;
    TRY(sbn_group_split_size(MPI_COMM_WORLD, group_size, &group));
    TRY(sbn_group_create(MPI_COMM_WORLD, &world));
    MPI_Comm mates;
    MPI_Comm_split(MPI_COMM_WORLD, g, rank, &mates);

    sbn_norm *bn = NULL;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    cfg.momentum = 1; /* the last batch's statistics, to keep the numbers simple */
    TRY(sbn_norm_create(&cfg, group, &bn));
    fill(g, rank);
    sbn_tensor tx = sbn_tensor_nchw(SBN_F32, x, N, C, H, W),
               ty = sbn_tensor_nchw(SBN_F32, y, N, C, H, W);
    TRY(sbn_norm_forward(bn, &tx, &ty));
    failed += claim(fabs(mean_over(mates, y)) < 1e-6,
                    "y has mean 0 over the processes of each group");

    const float *running = sbn_norm_get_state(bn).running_mean;
    failed += claim(fabs((double)running[0] - mean_over(mates, x)) < 1e-6,
                    "before merging, a group's running mean is that of its samples");
    TRY(sbn_norm_merge(bn, world));
    failed += claim(fabs((double)running[0] - mean_over(MPI_COMM_WORLD, x)) < 1e-6,
                    "merged, it is that of all samples, on every process");
    if (rank == 0)
        printf("%d groups of %d: merged running mean %.4f, running var %.4f\n",
               size / group_size, group_size, (double)running[0],
               (double)((float *)sbn_norm_get_state(bn).running_var)[0]);
    sbn_norm_destroy(&bn);
    MPI_Comm_free(&mates);
    sbn_group_destroy(&world);
    sbn_group_destroy(&group);
    return failed;
}

int main(int argc, char **argv)
{
    int rank, size;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    int failed = run(rank, size);
    MPI_Finalize();
    return failed > 0;
}
