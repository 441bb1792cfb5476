/*
 * A program with buffers of a fixed size pads the last, short batch. A mask leaves the
 * padding out, whatever lies there: the result has the bytes of a batch without it. Then
 * one process alone evaluates.
 *
 *   mpirun -np 3 padding
 */
#include <math.h>
#include <string.h>

#include "example.h"

enum { C = 4, H = 5, W = 5, SAMPLE = C * H * W, ROOM = 16, LEFT = 9 };

/* This process's buffer: ROOM samples. In the last batch, LEFT are real. */
static float x[ROOM * SAMPLE], dy[ROOM * SAMPLE];

typedef struct results {
    float y[ROOM * SAMPLE], dx[ROOM * SAMPLE];
    struct layer {
        float running_mean[C], running_var[C], dgamma[C], dbeta[C];
    } layer;
} results;

static sbn_tensor view(float *data, int64_t n)
{
    return sbn_tensor_nchw(SBN_F32, data, n, C, H, W);
}

/* A full batch, then the short one: n samples of which keep says which count. */
static void train(sbn_norm *bn, int64_t n, const uint8_t *keep, results *to)
{
    static float full[ROOM * SAMPLE], out[ROOM * SAMPLE];
    for (int64_t i = 0; i < ROOM * SAMPLE; i++) full[i] = 2 + number(i);
    sbn_tensor tfull = view(full, ROOM), tout = view(out, ROOM), tx = view(x, n),
               tdy = view(dy, n), ty = view(to->y, n), tdx = view(to->dx, n);
    TRY(sbn_norm_forward(bn, &tfull, &tout));
    TRY(sbn_norm_set_mask(bn, keep, n));
    TRY(sbn_norm_forward(bn, &tx, &ty));
    TRY(sbn_norm_backward(bn, &tdy, &tdx));
    TRY(sbn_norm_set_mask(bn, NULL, 0)); /* a mask stays until it is taken off */

    sbn_norm_state state = sbn_norm_get_state(bn);
    memcpy(to->layer.running_mean, state.running_mean, sizeof to->layer.running_mean);
    memcpy(to->layer.running_var, state.running_var, sizeof to->layer.running_var);
    memcpy(to->layer.dgamma, state.weight_grad, sizeof to->layer.dgamma);
    memcpy(to->layer.dbeta, state.bias_grad, sizeof to->layer.dbeta);
}

/* Evaluation uses running averages: no messages, so one process may do it by itself. */
static bool evaluate_alone(sbn_norm *bn, const struct layer *layer)
{
    float y[SAMPLE];
    double error = 0;
    sbn_tensor tx = view(x, 1), ty = view(y, 1);
    TRY(sbn_norm_set_mode(bn, SBN_NORM_EVAL));
    TRY(sbn_norm_forward(bn, &tx, &ty));
    TRY(sbn_norm_set_mode(bn, SBN_NORM_TRAIN)); /* again with the others */
    for (int64_t i = 0; i < SAMPLE; i++) {
        int64_t c = i / (H * W);
        double mean = (double)layer->running_mean[c], var = (double)layer->running_var[c];
        error =
            fmax(error, fabs((double)y[i] - ((double)x[i] - mean) / sqrt(var + 1e-5)));
    }
    printf("process 0 alone: (x - running mean)/sqrt(running var + eps) to %.1e\n",
           error);
    return error < 1e-5;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    sbn_group *group = NULL;
    sbn_norm *padded = NULL, *cut = NULL;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    TRY(sbn_group_create(MPI_COMM_WORLD, &group));
    TRY(sbn_norm_create(&cfg, group, &padded));
    TRY(sbn_norm_create(&cfg, group, &cut));

    int64_t rank = sbn_group_rank(group);
    uint8_t keep[ROOM];
    for (int64_t i = 0; i < ROOM; i++) keep[i] = i < LEFT;
    for (int64_t i = 0; i < ROOM * SAMPLE; i++) {
        bool real = keep[i / SAMPLE];
        x[i] =
            real ? number(rank * ROOM * SAMPLE + i) : NAN; /* padding may be anything */
        dy[i] = real ? number(-rank * ROOM * SAMPLE - i) : NAN;
    }

    static results masked, removed;
    train(padded, ROOM, keep, &masked);
    train(cut, LEFT, NULL, &removed);
    if (rank == 0)
        printf("%d of %d samples count; running var %.6f masked, %.6f removed\n", LEFT,
               ROOM, (double)masked.layer.running_var[0],
               (double)removed.layer.running_var[0]);
    size_t real_bytes = sizeof(float[LEFT * SAMPLE]);
    bool zero = true;
    for (int64_t i = LEFT * SAMPLE; i < ROOM * SAMPLE; i++)
        zero = zero && fpclassify(masked.y[i]) == FP_ZERO &&
               fpclassify(masked.dx[i]) == FP_ZERO;
    int failed = claim(!memcmp(masked.y, removed.y, real_bytes) &&
                           !memcmp(masked.dx, removed.dx, real_bytes) &&
                           !memcmp(&masked.layer, &removed.layer, sizeof masked.layer),
                       "masked samples leave the bytes that removed samples leave");
    failed += claim(zero, "y and dx of the padding are 0, though x and dy are NaN there");
    failed += claim(rank != 0 || evaluate_alone(padded, &masked.layer),
                    "one process evaluates while the others do something else");

    sbn_norm_destroy(&cut);
    sbn_norm_destroy(&padded);
    sbn_group_destroy(&group);
    MPI_Finalize();
    return failed > 0;
}
