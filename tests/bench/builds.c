/* Two builds of the library beside each other in one process, as the tree now and before
 * a change that left include/ alone: their passes in turns of 0.1 ms, so that the machine
 * treats both alike. Threads as OMP_NUM_THREADS says.
 *     build/tests/bench_builds OLD/libsyncbn.so NEW/libsyncbn.so [SHAPES [ROUNDS]]
 *         64x20x8x8,64x50,256x100,4096x256; 2001 rounds
 * Prints the time of both, medians, and new/old within rounds with its quartiles. */
#include <dlfcn.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/bench.h"
#include "syncbn/norm.h"

enum { MOST_ROUNDS = 100001, BUILDS = 2, TENSORS = 4 };
static const double SAMPLE_S = 1e-4;

typedef sbn_status (*pass)(sbn_norm *, const sbn_tensor *, sbn_tensor *);

/* What is called of a build, and its layer of a case. */
typedef struct build {
    sbn_status (*group_create)(MPI_Comm, sbn_group **);
    sbn_norm_config (*config)(int64_t);
    sbn_status (*create)(const sbn_norm_config *, sbn_group *, sbn_norm **);
    void (*destroy)(sbn_norm **);
    void (*group_destroy)(sbn_group **);
    pass forward, backward;
    const char *(*error)(void);
    sbn_group *group;
    sbn_norm *norm;
} build;

/* x, y, dy, dx */
static void *memory[TENSORS];
static sbn_tensor tensor[TENSORS];

_Noreturn static void leave(const char *what, const char *why)
{
    fprintf(stderr, "bench_builds: %s: %s\n", what, why);
    exit(70);
}

static void check(const build *b, sbn_status status)
{
    if (status != SBN_OK) leave("a call", b->error());
}

/* POSIX has functions come as void *. */
static void find(void *library, const char *name, void *function)
{
    void *found = dlsym(library, name);
    if (!found) leave(name, "not in that library");
    *(void **)function = found;
}

static void open_build(const char *path, build *b)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) leave(path, dlerror());
    find(library, "sbn_group_create", &b->group_create);
    find(library, "sbn_norm_config_default", &b->config);
    find(library, "sbn_norm_create", &b->create);
    find(library, "sbn_norm_destroy", &b->destroy);
    find(library, "sbn_group_destroy", &b->group_destroy);
    find(library, "sbn_norm_forward", &b->forward);
    find(library, "sbn_norm_backward", &b->backward);
    find(library, "sbn_last_error", &b->error);
    check(b, b->group_create(MPI_COMM_SELF, &b->group));
}

static sbn_status run_forward(void *context)
{
    const build *b = context;
    check(b, b->forward(b->norm, &tensor[0], &tensor[1]));
    return SBN_OK;
}

static sbn_status run_backward(void *context)
{
    const build *b = context;
    check(b, b->backward(b->norm, &tensor[2], &tensor[3]));
    return SBN_OK;
}

static void report(const char *shape, int layout, const char *name, double *seconds,
                   int rounds)
{
    double *ratio = malloc((size_t)rounds * sizeof *ratio);
    if (!ratio) leave(shape, "no memory");
    for (int r = 0; r < rounds; r++) ratio[r] = seconds[rounds + r] / seconds[r];
    char times[BUILDS][SBNI_BENCH_CELL];
    for (int i = 0; i < BUILDS; i++)
        sbni_bench_print_time(sbni_bench_spread_of(seconds + i * rounds, rounds).median,
                              times[i]);
    double middle = sbni_bench_spread_of(ratio, rounds).median;
    printf("%-14s %-5s %-9s %-9s %-9s %.3f (%.3f-%.3f)\n", shape,
           sbni_bench_layouts[layout], name, times[0], times[1], middle,
           ratio[rounds / 4], ratio[rounds - 1 - rounds / 4]);
    free(ratio);
}

static void measure(const sbni_bench_shape *shape, int layout, build *b, int rounds)
{
    char text[SBNI_BENCH_SHAPE_BYTES];
    sbni_bench_print_shape(shape, text);
    for (int i = 0; i < TENSORS; i++)
        tensor[i] = sbni_bench_view(shape, layout, SBN_F32, memory[i]);
    double *seconds = malloc((size_t)(BUILDS * rounds) * sizeof *seconds);
    if (!seconds) leave(text, "no memory");
    sbni_bench_work works[2][BUILDS];
    for (int i = 0; i < BUILDS; i++) {
        sbn_norm_config config = b[i].config(shape->size[1]);
        check(&b[i], b[i].create(&config, b[i].group, &b[i].norm));
        works[0][i] = (sbni_bench_work){run_forward, &b[i]};
        works[1][i] = (sbni_bench_work){run_backward, &b[i]};
    }
    for (int p = 0; p < 2; p++) {
        if (sbni_bench_measure(works[p], BUILDS, rounds, SAMPLE_S, NULL, seconds))
            leave(text, "no memory");
        report(text, layout, sbni_bench_passes[p], seconds, rounds);
    }
    for (int i = 0; i < BUILDS; i++) b[i].destroy(&b[i].norm);
    free(seconds);
}

/* One memory for both builds and all shapes; the tensors of a page's begin. */
static void fill(const sbni_bench_shapes *shapes)
{
    int64_t most = 0;
    for (int i = 0; i < shapes->n; i++) {
        int64_t n = sbni_bench_elements(&shapes->shape[i]);
        if (n > most) most = n;
    }
    if (most > INT64_C(1) << 30) leave("SHAPES", "more than 4 GiB");
    for (int i = 0; i < TENSORS; i++) {
        memory[i] =
            aligned_alloc(4096, ((size_t)most * sizeof(float) + 4095) / 4096 * 4096);
        if (!memory[i]) leave("tensors", "no memory");
        sbni_bench_fill(memory[i], SBN_F32, most, (uint32_t)i, 0);
    }
}

int main(int argc, char **argv)
{
    sbni_bench_shapes shapes = {.n = 0};
    const char *list = argc > 3 ? argv[3] : "64x20x8x8,64x50,256x100,4096x256";
    int rounds = argc > 4 ? atoi(argv[4]) : 2001;
    if (argc < 3 || argc > 5 || rounds < 1 || rounds > MOST_ROUNDS ||
        sbni_bench_parse_shapes("SHAPES", list, 2, 4, "64x20x8x8", &shapes) != SBN_OK) {
        fprintf(stderr,
                "usage: bench_builds OLD.so NEW.so [SHAPES [ROUNDS]], shapes like "
                "64x20x8x8,64x50, 1 to %d rounds\n",
                MOST_ROUNDS);
        return 64;
    }
    MPI_Init(&argc, &argv);
    build b[BUILDS] = {{0}};
    for (int i = 0; i < BUILDS; i++) open_build(argv[1 + i], &b[i]);
    if (b[0].forward == b[1].forward) leave(argv[2], "the same library as the other");
    fill(&shapes);
    printf("shape          layout pass    old       new       new/old\n");
    for (int i = 0; i < shapes.n; i++)
        for (int layout = SBNI_BENCH_NCHW; layout <= SBNI_BENCH_NC; layout++)
            if (shapes.shape[i].axes != 3 && sbni_bench_fits(&shapes.shape[i], layout))
                measure(&shapes.shape[i], layout, b, rounds);
    for (int i = 0; i < TENSORS; i++) free(memory[i]);
    for (int i = 0; i < BUILDS; i++) b[i].group_destroy(&b[i].group);
    return MPI_Finalize();
}
