/*
 * The layer in a program of your own: each process normalizes its share of a batch with
 * the statistics of all of them, forward and backward. Processes may hold different
 * numbers of samples, or none.
 *
 *   mpirun -np 3 layer
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include <syncbn.h>

enum { C = 4, H = 8, W = 8 };

/* Sample `index` of the whole batch: a function of its index, so that any split holds the
 * same batch. */
static void fill(float *sample, int index)
{
    for (int i = 0; i < C * H * W; i++)
        sample[i] = (float)(index % 5) + 0.01f * (float)((index * 37 + i * 11) % 101);
}

static sbn_status run(sbn_group *group)
{
    int rank = sbn_group_rank(group), n = rank == 1 ? 0 : 16; /* process 1 has nothing */
    sbn_norm *bn = NULL;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    sbn_status status = sbn_norm_create(&cfg, group, &bn);
    size_t count = (size_t)n * C * H * W;
    float *x = calloc(count + 1, sizeof *x), *y = calloc(count + 1, sizeof *y),
          *dy = calloc(count + 1, sizeof *dy);
    if (status == SBN_OK && x && y && dy) {
        for (int i = 0; i < n; i++) fill(x + (size_t)i * C * H * W, 16 * rank + i);
        for (size_t i = 0; i < count; i++) dy[i] = (float)(i % 7);
        sbn_tensor tx = sbn_tensor_nchw(SBN_F32, x, n, C, H, W),
                   ty = sbn_tensor_nchw(SBN_F32, y, n, C, H, W),
                   tdy = sbn_tensor_nchw(SBN_F32, dy, n, C, H, W);
        status = sbn_norm_forward(bn, &tx, &ty);
        if (status == SBN_OK) status = sbn_norm_backward(bn, &tdy, &tdy); /* dx over dy */
        sbn_norm_state state = sbn_norm_get_state(bn);
        if (status == SBN_OK && rank == 0)
            for (int c = 0; c < C; c++)
                printf("channel %d: running mean %.6f, running var %.6f, dgamma %.4f, "
                       "dbeta %.1f\n",
                       c, (double)((float *)state.running_mean)[c],
                       (double)((float *)state.running_var)[c],
                       (double)((float *)state.weight_grad)[c],
                       (double)((float *)state.bias_grad)[c]);
    }
    free(x);
    free(y);
    free(dy);
    sbn_norm_destroy(&bn);
    return status;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    sbn_group *group = NULL;
    sbn_status status = sbn_group_create(MPI_COMM_WORLD, &group);
    if (status == SBN_OK) status = run(group);
    if (status != SBN_OK) fprintf(stderr, "layer: %s\n", sbn_last_error());
    sbn_group_destroy(&group);
    MPI_Finalize();
    return status != SBN_OK;
}
