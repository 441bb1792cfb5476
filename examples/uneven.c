/*
 * Processes may hold different numbers of samples, or none: every value counts once, and
 * the result is that of one process with the joined batch. It is so to the last bit when
 * every process but the last starts and ends with a slice of SBN_SLICE (16) samples.
 *
 *   mpirun -np 3 uneven
 */
#include <math.h>
#include <string.h>

#include "example.h"

enum { C = 4, H = 6, W = 6, SAMPLE = C * H * W, MOST = 64 };

/* The joined batch. Every process makes all of it, to have something to compare with. */
static double x[MOST * SAMPLE], dy[MOST * SAMPLE];

typedef struct results {
    double y[MOST * SAMPLE], dx[MOST * SAMPLE];
    struct layer {
        double running_mean[C], running_var[C], dgamma[C], dbeta[C];
    } layer;
} results;

/* One training step of the samples first … first + n - 1. */
static void step(sbn_group *group, int64_t first, int64_t n, results *to)
{
    sbn_norm *bn = NULL;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    cfg.dtype = SBN_F64; /* with float32, rounding to 24 bits would hide what differs */
    sbn_tensor tx = sbn_tensor_nchw(SBN_F64, x + first * SAMPLE, n, C, H, W),
               tdy = sbn_tensor_nchw(SBN_F64, dy + first * SAMPLE, n, C, H, W),
               ty = sbn_tensor_nchw(SBN_F64, to->y + first * SAMPLE, n, C, H, W),
               tdx = sbn_tensor_nchw(SBN_F64, to->dx + first * SAMPLE, n, C, H, W);
    TRY(sbn_norm_create(&cfg, group, &bn));
    TRY(sbn_norm_forward(bn, &tx, &ty)); /* also where n is 0: it is collective */
    TRY(sbn_norm_backward(bn, &tdy, &tdx));
    sbn_norm_state state = sbn_norm_get_state(bn);
    memcpy(to->layer.running_mean, state.running_mean, sizeof to->layer.running_mean);
    memcpy(to->layer.running_var, state.running_var, sizeof to->layer.running_var);
    memcpy(to->layer.dgamma, state.weight_grad, sizeof to->layer.dgamma);
    memcpy(to->layer.dbeta, state.bias_grad, sizeof to->layer.dbeta);
    sbn_norm_destroy(&bn);
}

static double largest_difference(const double *a, const double *b, int64_t n)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs(a[i] - b[i]));
    return largest;
}

/* What averaging the processes' means, each counted alike, would give for channel 0, less
 * what is right. */
static double error_of_mean_of_means(int64_t first, int64_t n, int64_t total)
{
    double mine = 0, all = 0, with_samples = n > 0, sums[2];
    for (int64_t i = 0; i < total; i++)
        for (int p = 0; p < H * W; p++) {
            double value = x[i * SAMPLE + p];
            all += value / (double)(total * H * W);
            if (i >= first && i < first + n) mine += value / (double)(n * H * W);
        }
    MPI_Allreduce((double[]){mine, with_samples}, sums, 2, MPI_DOUBLE, MPI_SUM,
                  MPI_COMM_WORLD);
    return sums[0] / sums[1] - all;
}

static int compare(sbn_group *world, sbn_group *self, const int *counts, bool whole)
{
    static results ours, one; /* static: too large for a stack */
    int rank = sbn_group_rank(world), size = sbn_group_size(world);
    int64_t first = 0, total = 0, n = counts[rank];
    for (int r = 0; r < size; r++) {
        if (r < rank) first += counts[r];
        total += counts[r];
    }
    step(world, first, n, &ours);
    step(self, 0, total, &one);

    const double *y = ours.y + first * SAMPLE, *y_one = one.y + first * SAMPLE,
                 *dx = ours.dx + first * SAMPLE, *dx_one = one.dx + first * SAMPLE;
    size_t share_bytes = (size_t)(n * SAMPLE) * sizeof *y;
    bool same = !memcmp(y, y_one, share_bytes) && !memcmp(dx, dx_one, share_bytes) &&
                !memcmp(&ours.layer, &one.layer, sizeof ours.layer);
    double apart = fmax(largest_difference(y, y_one, n * SAMPLE),
                        largest_difference(dx, dx_one, n * SAMPLE));
    MPI_Allreduce(MPI_IN_PLACE, &apart, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    double error = error_of_mean_of_means(first, n, total);
    if (rank == 0) {
        printf("samples per process:");
        for (int r = 0; r < size; r++) printf(" %d", counts[r]);
        printf("; y and dx are %.1e from those of one process\n", apart);
        printf("  (a mean of the processes' means would be off by %.3f)\n", error);
    }
    if (whole) return claim(same, "whole slices: all results have the same bytes");
    return claim(apart < 1e-12, "cut anywhere: results differ by rounding only");
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    sbn_group *world = NULL, *self = NULL;
    TRY(sbn_group_create(MPI_COMM_WORLD, &world));
    TRY(sbn_group_create(MPI_COMM_SELF, &self));
    if (sbn_group_size(world) > 4) { /* as many as the counts below */
        fprintf(stderr, "uneven: expected at most 4 processes\n");
        MPI_Abort(MPI_COMM_WORLD, 1);
    }

    for (int64_t i = 0; i < MOST * SAMPLE; i++) {
        x[i] = (double)number(i) +
               0.1 * (double)(i / SAMPLE); /* later samples are brighter */
        dy[i] = (double)number(i + MOST * SAMPLE);
    }
    int failed = compare(world, self, (int[]){5, 0, 3, 7}, false);
    failed += compare(world, self, (int[]){32, 0, 16, 8}, true);

    sbn_group_destroy(&self);
    sbn_group_destroy(&world);
    MPI_Finalize();
    return failed > 0;
}
