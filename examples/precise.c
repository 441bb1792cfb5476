/*
 * Running averages mix the batches of many steps, older ones of a net that has changed
 * since. Precise statistics are the mean and variance of a whole data set under the net
 * as it is now: begin, add every batch, end. How the data is cut does not matter.
 *
 *   mpirun -np 3 precise
 */
#include <math.h>
#include <string.h>

#include "example.h"

enum { C = 4, H = 4, W = 4, SAMPLE = C * H * W, DATA = 768, BATCH = 96, EPOCHS = 8 };

static float x[DATA * SAMPLE];

/* What the layer sees: the data through the net's earlier layers, here a scale and a
 * shift that training moves a little each step. */
static void set_inputs(double scale, double shift)
{
    for (int64_t i = 0; i < DATA * SAMPLE; i++)
        x[i] = (float)(shift + scale * (double)number(i));
}

/* This process's share of the samples first … first + n - 1, in whole slices. */
static sbn_tensor share(const sbn_group *group, int64_t first, int64_t n)
{
    int64_t rank = sbn_group_rank(group), size = sbn_group_size(group),
            slices = n / SBN_SLICE, begin = slices * rank / size,
            end = slices * (rank + 1) / size;
    return sbn_tensor_nchw(SBN_F32, x + (first + begin * SBN_SLICE) * SAMPLE,
                           (end - begin) * SBN_SLICE, C, H, W);
}

static void precise(sbn_norm *bn, const sbn_group *group, int64_t batch)
{
    TRY(sbn_norm_precise_begin(bn));
    for (int64_t first = 0; first < DATA; first += batch) {
        sbn_tensor tx = share(group, first, batch);
        TRY(sbn_norm_precise_add(bn, &tx)); /* local: the only message is in end */
    }
    TRY(sbn_norm_precise_end(bn));
}

/* Mean and variance of channel 0 over all data, the schoolbook way. */
static void two_passes(double *mean, double *var)
{
    double n = (double)DATA * H * W;
    *mean = *var = 0;
    for (int64_t i = 0; i < DATA; i++)
        for (int s = 0; s < H * W; s++) *mean += (double)x[i * SAMPLE + s] / n;
    for (int64_t i = 0; i < DATA; i++)
        for (int s = 0; s < H * W; s++)
            *var += pow((double)x[i * SAMPLE + s] - *mean, 2) / n;
}

static double report(const char *what, sbn_norm_state state, double mean, double var,
                     int rank)
{
    double of_mean = (double)((float *)state.running_mean)[0] / mean - 1,
           of_var = (double)((float *)state.running_var)[0] / var - 1;
    if (rank == 0)
        printf("%s: mean off by %+.1e, variance by %+.1e\n", what, of_mean, of_var);
    return fmax(fabs(of_mean), fabs(of_var));
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    sbn_group *group = NULL;
    TRY(sbn_group_create(MPI_COMM_WORLD, &group));
    int rank = sbn_group_rank(group);
    sbn_norm *bn = NULL;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    TRY(sbn_norm_create(&cfg, group, &bn));

    static float out[DATA * SAMPLE];
    for (int64_t step = 0; step < EPOCHS * DATA / BATCH; step++) {
        set_inputs(1 + 0.01 * (double)step, 2 - 0.01 * (double)step);
        sbn_tensor tx = share(group, step * BATCH % DATA, BATCH),
                   ty = sbn_tensor_nchw(SBN_F32, out, tx.n, C, H, W);
        TRY(sbn_norm_forward(bn, &tx, &ty));
    }

    double mean, var;
    two_passes(&mean, &var); /* of the inputs as they are after the last step */
    sbn_norm_state state = sbn_norm_get_state(bn); /* pointers: they show what comes */
    double averages = report("running averages", state, mean, var, rank);
    float by_96[2 * C], by_256[2 * C];
    precise(bn, group, BATCH);
    double exact = report("precise statistics", state, mean, var, rank);
    memcpy(by_96, state.running_mean, sizeof(float[C]));
    memcpy(by_96 + C, state.running_var, sizeof(float[C]));
    precise(bn, group, 256);
    memcpy(by_256, state.running_mean, sizeof(float[C]));
    memcpy(by_256 + C, state.running_var, sizeof(float[C]));

    int failed = claim(averages > 0.05 && exact < 1e-6,
                       "precise statistics are those of the data, the averages are not");
    failed += claim(!memcmp(by_96, by_256, sizeof by_96),
                    "batches of 96 and of 256 give the same bytes");

    sbn_norm_destroy(&bn);
    sbn_group_destroy(&group);
    MPI_Finalize();
    return failed > 0;
}
