/* Convolutions of nets, our own unless others are named, on a slice of 16 images, by
 * tiles and window by window, and dW before a maxpool out of its dy and out of all
 * outputs; in turns on one thread, medians of ROUNDS and of the ratios within rounds:
 * build/tests/bench_convolutions [ROUNDS [NET ...]] */
#include <mpi.h>
#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "nn/layer.h"
#include "median.h"

enum { MOST_ROUNDS = 1001, REPEATS = 4 };

static char *ours[] = {"cnn", "resnet8", NULL};

/* What is measured: a pass of a layer, with what it has now. */
typedef struct pass {
    sbn_model *model;
    sbni_layer *layer, *pool;
    int what; /* parts of backward; 0: forward */
} pass;

static double run(const pass *p)
{
    const sbni_layer_ops *ops = sbni_layer_ops_of(p->layer->spec.kind);
    sbni_task task = {p->model->slices[0], 0, 0, true};
    double began_s = sbni_clock_s();
    for (int i = 0; i < REPEATS; i++) {
        if (p->pool && p->pool->wants_dx)
            sbni_maxpool_ops.backward(p->model, p->pool, task, SBNI_DX);
        if (p->what)
            ops->backward(p->model, p->layer, task, p->what);
        else
            ops->forward(p->model, p->layer, task);
    }
    return (sbni_clock_s() - began_s) / REPEATS / SBN_SLICE;
}

/* Window by window, or from all outputs; and as it was made. */
static void choose(const pass *p, void *points, bool plain)
{
    if (p->pool) {
        p->layer->pool = plain ? NULL : p->pool;
        p->pool->wants_dx = plain;
    } else
        p->layer->points = plain ? NULL : points;
}

static void compare(const char *net, const char *what, const pass *p, int rounds)
{
    static double plain[MOST_ROUNDS], tiled[MOST_ROUNDS], ratio[MOST_ROUNDS];
    sbni_image in = p->layer->in->shape, out = p->layer->out->shape;
    void *points = p->layer->points;
    for (int r = -1; r < rounds; r++) {
        for (int side = 0; side < 2; side++) {
            bool is_plain = side == (r & 1);
            choose(p, points, is_plain);
            double s = run(p);
            if (r >= 0) (is_plain ? plain : tiled)[r] = s;
        }
        if (r >= 0) ratio[r] = plain[r] / tiled[r];
    }
    choose(p, points, false);
    printf("| %s %s, %d x %d x %d to %d, %s | %.2f | %.2f | %.2f |\n", net,
           p->layer->spec.name, (int)in.c, (int)in.h, (int)in.w, (int)out.c, what,
           1e6 * median(plain, rounds), 1e6 * median(tiled, rounds),
           median(ratio, rounds));
}

/* All outputs of a layer before a pool have no dy of their own otherwise. */
static void compare_pooled(const char *net, pass p, int rounds)
{
    sbni_edge *out = p.layer->out;
    p.pool = p.model->layers + (p.layer->pool - p.model->layers);
    p.what = SBNI_DWEIGHTS;
    out->dy = calloc((size_t)(SBN_SLICE * out->count), sizeof(float));
    if (!out->dy) {
        fprintf(stderr, "bench_convolutions: no memory for dy of %s\n",
                p.layer->spec.name);
        return;
    }
    compare(net, "dW before a pool", &p, rounds);
    free(out->dy);
    out->dy = NULL;
}

static void compare_layers(const char *net, sbn_model *m, int rounds)
{
    for (int i = 0; i < m->layer_count; i++) {
        pass p = {m, &m->layers[i], NULL, 0};
        if (p.layer->pool) compare_pooled(net, p, rounds);
        if (!p.layer->points) continue;
        compare(net, "forward", &p, rounds);
        p.what = SBNI_DX;
        if (p.layer->wants_dx) compare(net, "dx", &p, rounds);
        p.what = SBNI_DWEIGHTS;
        if (!p.layer->pool) compare(net, "dW", &p, rounds);
    }
}

static sbn_status compare_net(const char *net, sbn_group *group, int rounds)
{
    sbn_model *m = NULL;
    sbn_model_config cfg = sbn_model_config_default(net, SBN_SLICE);
    sbn_status status = sbn_model_create(&cfg, group, &m);
    if (status == SBN_OK) {
        int32_t labels[SBN_SLICE] = {0};
        sbn_model_result result;
        int64_t capacity, count = m->edges[0].count * SBN_SLICE;
        float *x = sbn_model_input(m, &capacity);
        for (int64_t j = 0; j < count; j++) x[j] = (float)(j % 1009) / 1009 - 0.4f;
        status = sbn_model_gradient(m, labels, SBN_SLICE, &result);
    }
    if (status == SBN_OK) compare_layers(net, m, rounds);
    sbn_model_destroy(&m);
    return status;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 21;
    if (rounds < 1 || rounds > MOST_ROUNDS) {
        fprintf(stderr, "bench_convolutions: expected 1 to %d rounds, got %s\n",
                MOST_ROUNDS, argv[1]);
        return 64;
    }
    omp_set_num_threads(1);
    MPI_Init(&argc, &argv);
    sbn_group *group = NULL;
    sbn_status status = sbn_group_create(MPI_COMM_SELF, &group);
    printf("%s; %d rounds, us an image\n\n"
           "| convolution | plain | tiles, or the pool's dy | ratio |\n"
           "|---|---:|---:|---:|\n",
           sbni_kernels_get(SBN_F32)->isa, rounds);
    for (char **net = argc > 2 ? argv + 2 : ours; status == SBN_OK && *net; net++)
        status = compare_net(*net, group, rounds);
    if (status != SBN_OK) fprintf(stderr, "%s\n", sbn_last_error());
    sbn_group_destroy(&group);
    MPI_Finalize();
    return status == SBN_OK ? 0 : 70;
}
