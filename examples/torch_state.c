/*
 * A norm layer of a PyTorch checkpoint in a program of your own. Process 0 reads the
 * file; every process then evaluates images of its own, which sends no message.
 *
 *   mpirun -np 2 torch_state FILE.safetensors PREFIX CHANNELS
 *
 * PREFIX is the layer's name in the checkpoint, e.g. features.1 for features.1.weight.
 * From a pickled checkpoint, in Python:
 *   safetensors.torch.save_file(torch.load("net.pt"), "net.safetensors")
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include <syncbn.h>

enum { N = 2, H = 4, W = 4 };

/* Images with values from 0 to 3, other ones on every process. */
static void fill(float *x, int64_t c, int rank)
{
    for (int64_t i = 0; i < N * c * H * W; i++)
        x[i] = (float)((i + rank) * 7 % 31) / 10.0f;
}

static sbn_status evaluate(sbn_norm *bn, int64_t c, int rank)
{
    float *x = malloc((size_t)(N * c * H * W) * sizeof *x);
    if (!x) return SBN_E_MEMORY;
    fill(x, c, rank);
    sbn_tensor images = sbn_tensor_nchw(SBN_F32, x, N, c, H, W);
    sbn_status status = sbn_norm_forward(bn, &images, &images); /* in place */
    for (int64_t i = 0; status == SBN_OK && i < c; i++)
        printf("process %d, channel %d: first value becomes %.6f\n", rank, (int)i,
               (double)x[i * H * W]);
    free(x);
    return status;
}

static sbn_status run(const char *path, const char *prefix, int64_t c, sbn_group *group)
{
    /* eps and momentum are in no checkpoint; these are PyTorch's. 0.9 of a system that
     * weighs the old value would be sbn_momentum_from(0.9, SBN_MOMENTUM_OF_OLD). */
    sbn_norm_config cfg = sbn_norm_config_default(c);
    cfg.eps = 1e-5;
    cfg.momentum = sbn_momentum_from(0.1, SBN_MOMENTUM_OF_NEW);
    cfg.name = prefix;
    sbn_norm *bn = NULL;
    sbn_status status = sbn_norm_create(&cfg, group, &bn);
    sbn_state_entry layer = {prefix, bn, false};
    if (status == SBN_OK) status = sbn_state_load(path, &layer, 1, group);
    if (status == SBN_OK) {
        int rank = sbn_group_rank(group);
        if (rank == 0)
            printf("%s has seen %lld batches%s\n", prefix,
                   (long long)*sbn_norm_get_state(bn).num_batches_tracked,
                   layer.count_missing ? " (the file does not say)" : "");
        sbn_norm_set_mode(bn, SBN_NORM_EVAL);
        status = evaluate(bn, c, rank);
    }
    sbn_norm_destroy(&bn);
    return status;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    sbn_group *group = NULL;
    sbn_status status = SBN_E_ARG;
    if (argc == 4) {
        status = sbn_group_create(MPI_COMM_WORLD, &group);
        if (status == SBN_OK) status = run(argv[1], argv[2], atoi(argv[3]), group);
        if (status != SBN_OK) fprintf(stderr, "torch_state: %s\n", sbn_last_error());
    } else {
        fprintf(stderr, "usage: torch_state FILE.safetensors PREFIX CHANNELS\n");
    }
    sbn_group_destroy(&group);
    MPI_Finalize();
    return status != SBN_OK;
}
