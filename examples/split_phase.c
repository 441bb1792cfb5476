/*
 * Begin a forward or backward, do other work while its message travels, end it. Two
 * layers may be under way at once. Numbers are those of the plain calls; only the waiting
 * differs.
 *
 *   mpirun -np 4 split_phase
 */
#include <math.h>
#include <string.h>

#include "example.h"

enum { N = 16, C = 64, H = 14, W = 14, COUNT = N * C * H * W, BRANCHES = 2, ROUNDS = 20 };

/* Two branches of a net that see the same kind of input, each with a layer. */
typedef struct branch {
    sbn_norm *bn;
    float x[COUNT], y[COUNT], dy[COUNT], dx[COUNT];
} branch;

static branch plain[BRANCHES], split[BRANCHES];

static sbn_tensor view(float *data)
{
    return sbn_tensor_nchw(SBN_F32, data, N, C, H, W);
}

/* What a program has to do besides: here, sums over data of its own and a message of its
 * own, which the library's never meet, because a group has its own communicator. */
static double other_work(void)
{
    static float next[COUNT];
    double sum = 0;
    for (int64_t i = 0; i < COUNT; i++) {
        next[i] = number(i);
        sum += (double)next[i];
    }
    MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return sum;
}

static double step_plain(branch *b)
{
    for (int k = 0; k < BRANCHES; k++) {
        sbn_tensor x = view(b[k].x), y = view(b[k].y);
        TRY(sbn_norm_forward(b[k].bn, &x, &y));
    }
    double work = other_work();
    for (int k = 0; k < BRANCHES; k++) {
        sbn_tensor dy = view(b[k].dy), dx = view(b[k].dx);
        TRY(sbn_norm_backward(b[k].bn, &dy, &dx));
    }
    return work;
}

/* The same calls in two halves. Every process begins its layers in the same order; it may
 * end them in any. */
static double step_split(branch *b)
{
    for (int k = 0; k < BRANCHES; k++) {
        sbn_tensor x = view(b[k].x),
                   y = view(b[k].y); /* the data must stay, views need not */
        TRY(sbn_norm_forward_begin(b[k].bn, &x, &y));
    }
    double work = other_work();
    for (int k = 0; k < BRANCHES; k++) TRY(sbn_norm_forward_end(b[k].bn));

    for (int k = 0; k < BRANCHES; k++) {
        sbn_tensor dy = view(b[k].dy), dx = view(b[k].dx);
        TRY(sbn_norm_backward_begin(b[k].bn, &dy, &dx));
    }
    for (int k = BRANCHES; k-- > 0;) TRY(sbn_norm_backward_end(b[k].bn));
    return work;
}

static double seconds(double (*step)(branch *), branch *b)
{
    double best = INFINITY;
    for (int round = 0; round < ROUNDS; round++) {
        MPI_Barrier(MPI_COMM_WORLD);
        double start = MPI_Wtime();
        step(b);
        best = fmin(best, MPI_Wtime() - start);
    }
    return best;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    sbn_group *group = NULL;
    TRY(sbn_group_create(MPI_COMM_WORLD, &group));
    int64_t rank = sbn_group_rank(group);
    for (int k = 0; k < BRANCHES; k++) {
        sbn_norm_config cfg = sbn_norm_config_default(C);
        cfg.name = k == 0 ? "left" : "right"; /* errors say which */
        TRY(sbn_norm_create(&cfg, group, &plain[k].bn));
        TRY(sbn_norm_create(&cfg, group, &split[k].bn));
        for (int64_t i = 0; i < COUNT; i++) {
            plain[k].x[i] = split[k].x[i] = number((rank * 2 + k) * COUNT + i);
            plain[k].dy[i] = split[k].dy[i] = number(-(rank * 2 + k) * COUNT - i);
        }
    }

    double plain_s = seconds(step_plain, plain), split_s = seconds(step_split, split);
    if (rank == 0)
        printf("best step: plain %.2f ms, split %.2f ms (for information)\n",
               1e3 * plain_s, 1e3 * split_s);
    int failed = 0;
    for (int k = 0; k < BRANCHES; k++) {
        sbn_norm_state a = sbn_norm_get_state(plain[k].bn),
                       b = sbn_norm_get_state(split[k].bn);
        failed += claim(!memcmp(plain[k].y, split[k].y, sizeof plain[k].y) &&
                            !memcmp(plain[k].dx, split[k].dx, sizeof plain[k].dx) &&
                            !memcmp(a.running_var, b.running_var, C * sizeof(float)) &&
                            !memcmp(a.weight_grad, b.weight_grad, C * sizeof(float)),
                        k == 0 ? "left: split gives the bytes of plain"
                               : "right: split gives the bytes of plain");
        sbn_norm_destroy(&plain[k].bn);
        sbn_norm_destroy(&split[k].bn);
    }
    sbn_group_destroy(&group);
    MPI_Finalize();
    return failed > 0;
}
