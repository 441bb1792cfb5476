/*
 * Statistics of tiny norm batches are noisy, and evaluation, which uses running averages,
 * sees another function than training did. Batch renormalization pulls the batch's
 * statistics to the running averages, within limits that a schedule opens: r_max = 1 and
 * d_max = 0 is batch normalization, no limits is what evaluation does.
 *
 *   mpirun -np 2 renorm
 */
#include <math.h>
#include <string.h>

#include "example.h"

/* The schedule, in small, of Ioffe 2017, section 4: none at first, until the averages
 * have settled, then slowly more. */
enum { C = 16, BATCH = 32, NORM_BATCH = 4, PLAIN_STEPS = 60, STEPS = 120 };

static float x[BATCH * C], y[BATCH * C], y_plain[BATCH * C], y_eval[BATCH * C];

/* Root mean square of a - b over the whole batch. */
static double distance(const float *a, const float *b, int64_t n)
{
    double sums[2] = {0, (double)n};
    for (int64_t i = 0; i < n; i++) sums[0] += pow((double)a[i] - (double)b[i], 2);
    MPI_Allreduce(MPI_IN_PLACE, sums, 2, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return sqrt(sums[0] / sums[1]);
}

/* This process's samples of one step's batch: features around 3. */
static void draw(int64_t step, int64_t first, int64_t n)
{
    for (int64_t i = 0; i < n * C; i++)
        x[i] = 3 + 2 * number((step * BATCH + first) * C + i);
}

static sbn_norm *create(sbn_group *group, sbn_correction correction, int64_t first)
{
    sbn_norm *bn = NULL;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    cfg.norm_batch = NORM_BATCH;
    cfg.batch = BATCH;
    cfg.correction = correction;
    TRY(sbn_norm_create(&cfg, group, &bn));
    TRY(sbn_norm_set_place(bn, first));
    return bn;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    sbn_group *group = NULL;
    TRY(sbn_group_create(MPI_COMM_WORLD, &group));
    int64_t rank = sbn_group_rank(group), size = sbn_group_size(group),
            norm_batches = BATCH / NORM_BATCH,
            first = norm_batches * rank / size * NORM_BATCH,
            n = norm_batches * (rank + 1) / size * NORM_BATCH - first;
    sbn_norm *renorm = create(group, SBN_CORRECTION_RENORM, first),
             *plain = create(group, SBN_CORRECTION_NONE, first);
    sbn_tensor tx = sbn_tensor_nc(SBN_F32, x, n, C), ty = sbn_tensor_nc(SBN_F32, y, n, C),
               ty_plain = sbn_tensor_nc(SBN_F32, y_plain, n, C),
               ty_eval = sbn_tensor_nc(SBN_F32, y_eval, n, C);

    bool same = true; /* as batch normalization, while the limits are closed */
    double gap = 0, first_gap = 0;
    for (int64_t step = 1; step <= STEPS + 1; step++) {
        double open = fmax(0, (double)(step - PLAIN_STEPS) / (STEPS - PLAIN_STEPS));
        if (step <= STEPS)
            TRY(sbn_norm_set_limits(renorm, 1 + 2 * open, 5 * open)); /* to 3 and 5 */
        else
            TRY(sbn_norm_set_limits(renorm, INFINITY, INFINITY));
        draw(step, first, n);

        TRY(sbn_norm_set_mode(renorm,
                              SBN_NORM_EVAL)); /* what would evaluation say now? */
        TRY(sbn_norm_forward(renorm, &tx, &ty_eval));
        TRY(sbn_norm_set_mode(renorm, SBN_NORM_TRAIN));
        TRY(sbn_norm_forward(renorm, &tx, &ty));
        TRY(sbn_norm_forward(plain, &tx, &ty_plain));

        gap = distance(y, y_eval, n * C);
        if (step == PLAIN_STEPS) first_gap = gap;
        if (step <= PLAIN_STEPS)
            same = same && !memcmp(y, y_plain, (size_t)(n * C) * sizeof *y);
        sbn_norm_clipped clipped = sbn_norm_get_clipped(renorm);
        if (rank == 0 && (step % 20 == 0 || step > STEPS))
            printf("step %3lld: r_max %.2f clips %5.1f %%, d_max %.2f clips %5.1f %%; "
                   "training and evaluation differ by %.6f\n",
                   (long long)step, clipped.r_max, 100 * clipped.r, clipped.d_max,
                   100 * clipped.d, gap);
    }
    int failed = claim(same, "r_max 1, d_max 0: the bytes of batch normalization");
    failed += claim(first_gap > 0.2 && gap < 1e-6,
                    "no limits: training computes what evaluation computes");

    sbn_norm_destroy(&plain);
    sbn_norm_destroy(&renorm);
    sbn_group_destroy(&group);
    MPI_Finalize();
    return failed > 0;
}
