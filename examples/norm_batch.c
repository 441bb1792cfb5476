/*
 * How many samples share statistics (the norm batch) is a setting of its own, whatever
 * the number of processes. A batch of 64 with norm batches of 8 is eight "ghost" batches;
 * with norm batches of 32 some straddle processes. Run it with 1, 2, 3 and 4 processes:
 * it prints the same lines.
 *
 *   mpirun -np 3 norm_batch
 */
#include <string.h>

#include "example.h"

enum { C = 3, H = 5, W = 5, SAMPLE = C * H * W, BATCH = 64 };

static float x[BATCH * SAMPLE], dy[BATCH * SAMPLE];

typedef struct results {
    float y[BATCH * SAMPLE], dx[BATCH * SAMPLE];
    float running_var[C], dgamma[C];
} results;

/* One training step of the samples first … first + n - 1, of a batch of `batch`. */
static void step(sbn_group *group, int64_t batch, int64_t norm_batch, int64_t first,
                 int64_t n, results *to)
{
    sbn_norm *bn = NULL;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    cfg.norm_batch = norm_batch;
    cfg.batch = batch; /* norm batches in one call: batch / norm_batch, rounded up */
    sbn_tensor tx = sbn_tensor_nchw(SBN_F32, x + first * SAMPLE, n, C, H, W),
               tdy = sbn_tensor_nchw(SBN_F32, dy + first * SAMPLE, n, C, H, W),
               ty = sbn_tensor_nchw(SBN_F32, to->y + first * SAMPLE, n, C, H, W),
               tdx = sbn_tensor_nchw(SBN_F32, to->dx + first * SAMPLE, n, C, H, W);
    TRY(sbn_norm_create(&cfg, group, &bn));
    /* Tells in which norm batches this process's samples are. Left out, each process's
     * would count from sample 0, and strangers would share statistics without an error.
     */
    TRY(sbn_norm_set_place(bn, first));
    TRY(sbn_norm_forward(bn, &tx, &ty));
    TRY(sbn_norm_backward(bn, &tdy, &tdx));
    sbn_norm_state state = sbn_norm_get_state(bn);
    memcpy(to->running_var, state.running_var, sizeof to->running_var);
    memcpy(to->dgamma, state.weight_grad, sizeof to->dgamma);
    sbn_norm_destroy(&bn);
}

/* Some of the samples, as if they were a whole batch. */
static void forward_alone(sbn_group *self, int64_t first, int64_t n, float *y)
{
    sbn_norm *bn = NULL;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    sbn_tensor tx = sbn_tensor_nchw(SBN_F32, x + first * SAMPLE, n, C, H, W),
               ty = sbn_tensor_nchw(SBN_F32, y, n, C, H, W);
    TRY(sbn_norm_create(&cfg, self, &bn));
    TRY(sbn_norm_forward(bn, &tx, &ty));
    sbn_norm_destroy(&bn);
}

static bool same(const float *a, const float *b, int64_t n)
{
    return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

/* A number that changes when any bit of y changes, however the samples are dealt. */
static uint64_t digest(const float *y, int64_t first, int64_t n)
{
    uint64_t sum = 0;
    for (int64_t i = first * SAMPLE; i < (first + n) * SAMPLE; i++) {
        uint32_t bits;
        memcpy(&bits, &y[i], sizeof bits);
        sum += bits * (0x9e3779b97f4a7c15u * (uint64_t)(2 * i + 1));
    }
    MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
    return sum;
}

static int compare(sbn_group *world, sbn_group *self, int64_t batch, int64_t norm_batch)
{
    static results ours, one; /* static: too large for a stack */
    static float alone[BATCH * SAMPLE];

    /* Whole slices of 16 for each process; the last one takes what is left. */
    int64_t rank = sbn_group_rank(world), size = sbn_group_size(world),
            slices = (batch + SBN_SLICE - 1) / SBN_SLICE,
            first = slices * rank / size * SBN_SLICE,
            end = rank == size - 1 ? batch : slices * (rank + 1) / size * SBN_SLICE,
            n = end - first;
    step(world, batch, norm_batch, first, n, &ours);
    step(self, batch, norm_batch, 0, batch, &one);
    uint64_t sum = digest(ours.y, first, n);
    if (rank == 0)
        printf(
            "batch %lld in norm batches of %lld: running var %.6f, digest of y %016llx\n",
            (long long)batch, (long long)norm_batch, (double)ours.running_var[0],
            (unsigned long long)sum);
    int failed =
        claim(same(ours.y + first * SAMPLE, one.y + first * SAMPLE, n * SAMPLE) &&
                  same(ours.dx + first * SAMPLE, one.dx + first * SAMPLE, n * SAMPLE) &&
                  same(ours.running_var, one.running_var, C) &&
                  same(ours.dgamma, one.dgamma, C),
              "the same bytes as from one process");

    /* A norm batch knows nothing of the others: as a batch of its own it gives the same.
     * The last one may be short. */
    int64_t last = (batch - 1) / norm_batch * norm_batch, samples = batch - last;
    forward_alone(self, last, samples, alone);
    char text[80];
    snprintf(text, sizeof text, "its last norm batch, of %lld, is a batch of its own",
             (long long)samples);
    return failed + claim(same(alone, one.y + last * SAMPLE, samples * SAMPLE), text);
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    sbn_group *world = NULL, *self = NULL;
    TRY(sbn_group_create(MPI_COMM_WORLD, &world));
    TRY(sbn_group_create(MPI_COMM_SELF, &self));
    for (int64_t i = 0; i < BATCH * SAMPLE; i++) {
        x[i] = number(i) + 0.05f * (float)(i / SAMPLE);
        dy[i] = number(i + BATCH * SAMPLE);
    }
    int failed = compare(world, self, 64, 8) + compare(world, self, 64, 32) +
                 compare(world, self, 60, 8);
    sbn_group_destroy(&self);
    sbn_group_destroy(&world);
    MPI_Finalize();
    return failed > 0;
}
