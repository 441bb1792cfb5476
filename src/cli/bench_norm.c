#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/options.h"
#include "comm/bare.h"
#include "comm/group.h"
#include "core/memory.h"
#include "core/rng.h"
#include "kernels/kernels.h"
#include "syncbn/norm.h"

enum { MAX_THREADS = 1024, MOST_PAIRS = 1000, PERIOD = 1000003 };
static const double SAMPLE_S = 1e-3;

enum { NCHW, NHWC, NC };
static const char *const layouts[] = {"nchw", "nhwc", "nc", NULL};
static const char *const dtypes[] = {"f32", "f64", "bf16", NULL}; /* by sbn_dtype */
static const char *const passes[] = {"forward", "backward", NULL};
static const char *const fusions[] = {"none", "relu", "add", "add+relu"};

/* Shapes by name. Those of ResNet-50 at batch 32, and of the nets that come along at two
 * batches; "table": the ones that peers are measured on. */
enum { SHAPES_TABLE, SHAPES_RESNET50, SHAPES_NETS, SHAPES_ALL };
static const char *const named_shapes[] = {
    [SHAPES_TABLE] = "32x256x56x56,32x64x56x56,32x1024x14x14,64x20x8x8,4096x256",
    [SHAPES_RESNET50] = "32x64x112x112,32x64x56x56,32x256x56x56,32x128x56x56,"
                        "32x128x28x28,32x512x28x28,32x256x28x28,32x256x14x14,"
                        "32x1024x14x14,32x512x14x14,32x512x7x7,32x2048x7x7",
    [SHAPES_NETS] = "64x20x8x8,256x20x8x8,64x50,256x50,64x100,256x100",
};

typedef struct settings {
    const char *shape, *layout, *dtype, *pass, *threads, *isa, *compare, *plot;
    int shapes;
    int64_t pairs;
    bool relu, add, json;
} settings;

#define AT(field) offsetof(settings, field)

static const sbni_option options[] = {
    {"Cases: every combination that fits", SBNI_OPTION_TITLE, 0, 0, 0, 0, 0, 0, 0},
    {"shape", SBNI_OPTION_TEXT, AT(shape), "LIST",
     "samples x channels x height x width, or samples x channels, e.g. "
     "32x256x56x56,4096x256 (default: those of --shapes)",
     0, 0, 0, 0},
    {"shapes", SBNI_OPTION_CHOICE, AT(shapes), "table|resnet50|nets|all",
     "shapes by name: those that peers are measured on, of ResNet-50 at batch 32, of the "
     "nets that come along (default table)",
     "table|resnet50|nets|all", 0, 0, 0},
    {"layout", SBNI_OPTION_TEXT, AT(layout), "LIST",
     "of nchw, nhwc, nc (default all; nc for shapes without height and width)", 0, 0, 0,
     0},
    {"dtype", SBNI_OPTION_TEXT, AT(dtype), "LIST",
     "of f32, f64, bf16, or all (default f32)", 0, 0, 0, 0},
    {"pass", SBNI_OPTION_TEXT, AT(pass), "LIST", "of forward, backward (default all)", 0,
     0, 0, 0},
    {"threads", SBNI_OPTION_TEXT, AT(threads), "LIST",
     "threads of the pass, e.g. 1,2 (default 1); above 1 the speed-up is measured too", 0,
     0, 0, 0},
    {"isa", SBNI_OPTION_TEXT, AT(isa), "LIST",
     "force instruction sets: base, and avx2, avx512 where the machine has them, or all "
     "(default: the best)",
     0, 0, 0, 0},
    {"relu", SBNI_OPTION_FLAG, AT(relu), 0, "with relu in the same pass", 0, 0, 0, 0},
    {"add", SBNI_OPTION_FLAG, AT(add), 0,
     "with an addition in the same pass, as residual nets do", 0, 0, 0, 0},
    {"Measuring", SBNI_OPTION_TITLE, 0, 0, 0, 0, 0, 0, 0},
    {"pairs", SBNI_OPTION_INT, AT(pairs), "N",
     "samples of memcpy and pass, in turn (default 21)", 0, 1, 0, 0},
    {"Results", SBNI_OPTION_TITLE, 0, 0, 0, 0, 0, 0, 0},
    {"json", SBNI_OPTION_FLAG, AT(json), 0, "one JSON object a case, in place of a table",
     0, 0, 0, 0},
    {"compare", SBNI_OPTION_TEXT, AT(compare), "FILE",
     "show seconds over those in FILE, the JSON lines of an earlier run", 0, 0, 0, 0},
    {"plot", SBNI_OPTION_TEXT, AT(plot), "FILE.svg",
     "draw bytes per second against size, with memcpy's as the roof (needs gnuplot)", 0,
     0, 0, 0},
    {0},
};

static const sbni_command command = {
    "bench norm", "bench norm [options]",
    "Measure passes of the layer in one process, each against memcpy of x in turn with "
    "it.",
    options, 0};

/* The settings as lists. */
typedef struct plan {
    sbni_bench_shapes shapes;
    sbni_bench_numbers threads;
    unsigned layouts, dtypes, passes, isas;
    int rounds, fused; /* place in fusions */
} plan;

/* One case, and all that measuring takes. Buffers are as large as the largest case. */
typedef struct bench {
    const settings *s;
    const plan *p;
    sbni_bench_report *report;
    sbn_group *alone;
    void *x, *out, *dy, *z, *dz;
    double *seconds; /* [works][rounds], and as many ratios as rounds */
    sbni_bench_point *points;
    int n_points;

    const sbni_bench_shape *shape;
    int layout, pass, threads;
    sbn_dtype dtype;
    sbn_norm *norm;
    int64_t bytes; /* of x */
    sbn_tensor tx, tout, tdy, tz, tdz;
} bench;

static int64_t elements(const sbni_bench_shape *shape)
{
    int64_t n = 1;
    for (int i = 0; i < shape->axes; i++)
        if (__builtin_mul_overflow(n, shape->size[i], &n)) return INT64_MAX;
    return n;
}

static bool fits(const sbni_bench_shape *shape, int layout)
{
    return (shape->axes == 2) == (layout == NC);
}

static sbn_status check_plan(const settings *s, const plan *p)
{
    bool some = false;
    for (int i = 0; i < p->shapes.n; i++) {
        const sbni_bench_shape *shape = &p->shapes.shape[i];
        char text[SBNI_BENCH_SHAPE_BYTES];
        sbni_bench_print_shape(shape, text);
        SBN_CHECK(elements(shape) <= INT64_C(1) << 40, SBN_E_ARG,
                  "--shape: %s has too many elements", text);
        SBN_CHECK(elements(shape) > shape->size[1], SBN_E_ARG,
                  "--shape: %s has one value per channel, which has no variance", text);
        for (int l = 0; layouts[l]; l++) some |= (p->layouts >> l & 1) && fits(shape, l);
    }
    SBN_CHECK(
        some, SBN_E_ARG,
        "--layout %s fits none of the shapes: nc is for samples x channels, nchw and "
        "nhwc for those with height and width",
        s->layout);
    SBN_CHECK(s->pairs <= MOST_PAIRS, SBN_E_ARG,
              "--pairs: expected 1 to %d, got %" PRId64, MOST_PAIRS, s->pairs);
    size_t length = s->plot ? strlen(s->plot) : 0;
    SBN_CHECK(!s->plot || (length > 4 && !strcmp(s->plot + length - 4, ".svg")),
              SBN_E_ARG, "--plot: expected a name that ends in .svg, got \"%s\"",
              s->plot);
    return SBN_OK;
}

static sbn_status make_plan(const settings *s, plan *p)
{
    static const char what[] = "shapes like 32x256x56x56 or 4096x256";
    const char *const *isas = sbni_kernels_isas();
    p->shapes.n = 0;
    for (int i = 0; i < SHAPES_ALL && !s->shape; i++)
        if (s->shapes == i || s->shapes == SHAPES_ALL)
            SBN_TRY(sbni_bench_parse_shapes("shapes", named_shapes[i], 2, 4, what,
                                            &p->shapes));
    if (s->shape)
        SBN_TRY(sbni_bench_parse_shapes("shape", s->shape, 2, 4, what, &p->shapes));
    for (int i = 0; i < p->shapes.n; i++)
        SBN_CHECK(p->shapes.shape[i].axes != 3, SBN_E_ARG,
                  "--shape: expected %s, got one of three sizes", what);
    SBN_TRY(sbni_bench_parse_words("layout", s->layout, layouts, &p->layouts));
    SBN_TRY(sbni_bench_parse_words("dtype", s->dtype, dtypes, &p->dtypes));
    SBN_TRY(sbni_bench_parse_words("pass", s->pass, passes, &p->passes));
    SBN_TRY(sbni_bench_parse_numbers("threads", s->threads, 1, MAX_THREADS, &p->threads));
    const char *isa = s->isa ? s->isa : sbni_kernels_get(SBN_F32)->isa;
    SBN_TRY(sbni_bench_parse_words("isa", isa, isas, &p->isas));
    p->rounds = (int)s->pairs;
    p->fused = (s->relu ? 1 : 0) + (s->add ? 2 : 0);
    return check_plan(s, p);
}

/* Standard normal values, which come back after PERIOD elements: drawing takes longer
 * than any pass. */
static void fill(void *data, sbn_dtype dtype, int64_t n, uint32_t which)
{
    sbni_rng_key key = {1, SBNI_RNG_TEST, which};
    int64_t size = sbn_dtype_bytes(dtype), drawn = n < PERIOD ? n : PERIOD;
    for (int64_t i = 0; i < drawn; i++) {
        double v = sbni_rng_normal(key, (uint64_t)i, 0);
        float f = (float)v;
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        uint16_t half = (uint16_t)(bits >> 16);
        const void *from = dtype == SBN_F64   ? (const void *)&v
                           : dtype == SBN_F32 ? (const void *)&f
                                              : (const void *)&half;
        memcpy((char *)data + i * size, from, (size_t)size);
    }
    for (int64_t i = drawn; i < n; i += PERIOD) {
        int64_t count = n - i < PERIOD ? n - i : PERIOD;
        memcpy((char *)data + i * size, data, (size_t)(count * size));
    }
}

static sbn_status allocate(bench *b)
{
    int64_t most = 0, size = 0, cases = 0;
    for (int i = 0; i < b->p->shapes.n; i++) {
        int64_t n = elements(&b->p->shapes.shape[i]);
        if (n > most) most = n;
        cases += 4 * b->p->threads.n;
    }
    for (int d = 0; dtypes[d]; d++)
        if ((b->p->dtypes >> d & 1) && sbn_dtype_bytes((sbn_dtype)d) > size)
            size = sbn_dtype_bytes((sbn_dtype)d);
    bool backward = b->p->passes & 2;
    SBN_TRY(sbni_alloc(most, size, "x", &b->x));
    SBN_TRY(sbni_alloc(most, size, "y and dx", &b->out));
    if (backward) SBN_TRY(sbni_alloc(most, size, "dy", &b->dy));
    if (b->s->add) SBN_TRY(sbni_alloc(most, size, "z", &b->z));
    if (b->s->add && backward) SBN_TRY(sbni_alloc(most, size, "dz", &b->dz));
    SBN_TRY(
        sbni_alloc(4 * (int64_t)b->p->rounds, sizeof(double), "samples", &b->seconds));
    cases *= 3 * 4; /* types, instruction sets */
    if (b->s->plot) SBN_TRY(sbni_alloc(cases, sizeof *b->points, "points", &b->points));
    return sbni_group_alone(&b->alone);
}

static void free_all(bench *b)
{
    void *parts[] = {b->x, b->out, b->dy, b->z, b->dz, b->seconds, b->points};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) sbni_free(parts[i]);
    sbn_group_destroy(&b->alone);
}

static sbn_status run_copy(void *context)
{
    const bench *b = context;
    memcpy(b->out, b->x, (size_t)b->bytes);
    return SBN_OK;
}

static sbn_status run_pass(bench *b, int threads)
{
    omp_set_num_threads(threads);
    if (b->pass == 0)
        return b->s->add ? sbn_norm_forward_add(b->norm, &b->tx, &b->tz, &b->tout)
                         : sbn_norm_forward(b->norm, &b->tx, &b->tout);
    return b->s->add ? sbn_norm_backward_add(b->norm, &b->tdy, &b->tout, &b->tdz)
                     : sbn_norm_backward(b->norm, &b->tdy, &b->tout);
}

static sbn_status run_threads(void *context)
{
    bench *b = context;
    return run_pass(b, b->threads);
}

static sbn_status run_one(void *context)
{
    return run_pass(context, 1);
}

static sbn_tensor view(const bench *b, void *data)
{
    const int64_t *n = b->shape->size;
    if (b->layout == NC) return sbn_tensor_nc(b->dtype, data, n[0], n[1]);
    return b->layout == NCHW ? sbn_tensor_nchw(b->dtype, data, n[0], n[1], n[2], n[3])
                             : sbn_tensor_nhwc(b->dtype, data, n[0], n[2], n[3], n[1]);
}

/* Bytes that the pass cannot do without: each tensor read or written once. */
static double traffic(const bench *b)
{
    double tensors = b->pass == 0 ? 2 : 3;                           /* x, y; x, dy, dx */
    if (b->s->add) tensors += b->pass == 0 ? 1 : b->s->relu ? 2 : 1; /* z; dz, and z */
    return tensors * (double)b->bytes;
}

static void add_point(bench *b, sbni_bench_spread pass, sbni_bench_spread copy)
{
    sbni_bench_point *at = &b->points[b->n_points++];
    const plan *p = b->p;
    char more[40] = "", dtype[8] = "", isa[12] = "", threads[16] = "";
    /* a series says what others differ in */
    if (p->dtypes & (p->dtypes - 1))
        snprintf(dtype, sizeof dtype, " %s", dtypes[b->dtype]);
    if (p->isas & (p->isas - 1))
        snprintf(isa, sizeof isa, " %s", sbni_kernels_get(SBN_F32)->isa);
    if (p->threads.n > 1) snprintf(threads, sizeof threads, " x%d", b->threads);
    snprintf(more, sizeof more, "%s%s%s", dtype, isa, threads);
    snprintf(at->series, sizeof at->series, "%s %s%s", passes[b->pass],
             layouts[b->layout], more);
    at->backward = b->pass == 1;
    at->bytes = (double)b->bytes;
    at->speed = traffic(b) / pass.median;
    at->copy = 2 * (double)b->bytes / copy.median;
}

static sbn_status report(bench *b)
{
    int rounds = b->p->rounds;
    double *copy = b->seconds, *pass = copy + rounds, *one = pass + rounds,
           *ratios = one + rounds;
    sbni_bench_spread faster = {0};
    for (int i = 0; i < rounds; i++) ratios[i] = one[i] / pass[i];
    if (b->threads > 1) faster = sbni_bench_spread_of(ratios, rounds);
    for (int i = 0; i < rounds; i++) ratios[i] = pass[i] / copy[i];
    sbni_bench_spread ratio = sbni_bench_spread_of(ratios, rounds),
                      pass_s = sbni_bench_spread_of(pass, rounds),
                      copy_s = sbni_bench_spread_of(copy, rounds);
    const char *isa = sbni_kernels_get(SBN_F32)->isa, *fused = fusions[b->p->fused];
    json_t *shape = json_array();
    for (int i = 0; i < b->shape->axes; i++)
        json_array_append_new(shape, json_integer(b->shape->size[i]));
    json_t *facts = json_pack(
        "{s:s s:s s:s s:s s:s s:o s:s s:f s:f s:f s:f s:f s:i s:s s:i}", "kind", "bench",
        "what", "norm", "pass", passes[b->pass], "layout", layouts[b->layout], "dtype",
        dtypes[b->dtype], "shape", shape, "isa", isa, "seconds", pass_s.median,
        "memcpy_seconds", copy_s.median, "ratio", ratio.median, "ratio_p10", ratio.p10,
        "ratio_p90", ratio.p90, "threads", b->threads, "fused", fused, "pairs", rounds);
    if (facts && b->threads > 1) {
        json_object_set_new(facts, "speedup", json_real(faster.median));
        json_object_set_new(facts, "speedup_p10", json_real(faster.p10));
        json_object_set_new(facts, "speedup_p90", json_real(faster.p90));
    }
    char row[320], text[SBNI_BENCH_SHAPE_BYTES], cell[4][SBNI_BENCH_CELL] = {0};
    sbni_bench_print_shape(b->shape, text);
    sbni_bench_print_time(pass_s.median, cell[0]);
    sbni_bench_print_time(copy_s.median, cell[1]);
    sbni_bench_print_spread(ratio, cell[2]);
    if (b->threads > 1) sbni_bench_print_spread(faster, cell[3]);
    snprintf(row, sizeof row, "%-8s  %-6s  %-5s  %-6s  %-14s  %3d  %9s  %9s  %-18s%s%s",
             passes[b->pass], layouts[b->layout], dtypes[b->dtype], isa, text, b->threads,
             cell[0], cell[1], cell[2], b->threads > 1 ? "  " : "", cell[3]);
    if (b->points) add_point(b, pass_s, copy_s);
    return sbni_bench_report_case(b->report, facts, row);
}

static sbn_status measure(bench *b)
{
    b->bytes = elements(b->shape) * sbn_dtype_bytes(b->dtype);
    b->tx = view(b, b->x);
    b->tout = view(b, b->out);
    b->tdy = view(b, b->dy);
    b->tz = view(b, b->z);
    b->tdz = view(b, b->dz);
    sbn_norm_config cfg = sbn_norm_config_default(b->shape->size[1]);
    cfg.dtype = b->dtype;
    cfg.relu = b->s->relu;
    omp_set_num_threads(b->threads);
    SBN_TRY(sbn_norm_create(&cfg, b->alone, &b->norm));
    sbn_status status = SBN_OK;
    if (b->pass == 1) { /* what it is the backward of */
        b->pass = 0;
        status = run_pass(b, b->threads);
        b->pass = 1;
    }
    sbni_bench_work works[] = {{run_copy, b}, {run_threads, b}, {run_one, b}};
    if (status == SBN_OK)
        status = sbni_bench_measure(works, b->threads > 1 ? 3 : 2, b->p->rounds, SAMPLE_S,
                                    NULL, b->seconds);
    if (status == SBN_OK) status = report(b);
    sbn_norm_destroy(&b->norm);
    return status;
}

/* All cases of a shape and a type. */
static sbn_status measure_shape(bench *b)
{
    const char *const *isas = sbni_kernels_isas();
    for (b->layout = 0; layouts[b->layout]; b->layout++) {
        if (!(b->p->layouts >> b->layout & 1) || !fits(b->shape, b->layout)) continue;
        for (b->pass = 0; passes[b->pass]; b->pass++) {
            if (!(b->p->passes >> b->pass & 1)) continue;
            for (int i = 0; isas[i]; i++) {
                if (!(b->p->isas >> i & 1)) continue;
                SBN_TRY(sbni_bench_force_isa(isas[i]));
                for (int t = 0; t < b->p->threads.n; t++) {
                    b->threads = (int)b->p->threads.value[t];
                    SBN_TRY(measure(b));
                }
            }
        }
    }
    return SBN_OK;
}

static sbn_status measure_all(bench *b)
{
    SBN_TRY(allocate(b));
    for (int d = 0; dtypes[d]; d++) {
        if (!(b->p->dtypes >> d & 1)) continue;
        b->dtype = (sbn_dtype)d;
        int64_t most = 0;
        for (int i = 0; i < b->p->shapes.n; i++)
            if (elements(&b->p->shapes.shape[i]) > most)
                most = elements(&b->p->shapes.shape[i]);
        void *const inputs[] = {b->x, b->dy, b->z};
        for (uint32_t i = 0; i < 3; i++)
            if (inputs[i]) fill(inputs[i], b->dtype, most, i);
        for (int i = 0; i < b->p->shapes.n; i++) {
            b->shape = &b->p->shapes.shape[i];
            SBN_TRY(measure_shape(b));
        }
    }
    return SBN_OK;
}

static void tell_missing(void)
{
    fprintf(stderr, "syncbn: no picture is drawn: gnuplot is missing (package "
                    "gnuplot-nox)\n");
}

static sbn_status run(const settings *s, const plan *p)
{
    sbni_bench_report report;
    bench b = {.s = s, .p = p, .report = &report};
    char about[160];
    snprintf(
        about, sizeof about,
        "time of a pass, and of memcpy of x in turn with it; median, 10 to 90 %% of %d "
        "pairs; fused: %s",
        p->rounds, fusions[p->fused]);
    sbn_status status = sbni_bench_report_open(
        true, s->json, s->compare, about,
        "pass      layout  type   isa     shape           thr       time     memcpy  "
        "ratio             ",
        &report);
    bool missing = false;
    if (status == SBN_OK) status = measure_all(&b);
    if (status == SBN_OK && s->plot)
        status = sbni_bench_plot(s->plot, b.points, b.n_points, &missing);
    if (missing) tell_missing();
    free_all(&b);
    sbni_bench_report_close(&report);
    return status;
}

sbn_status sbni_bench_norm(int argc, char **argv, sbn_group *group)
{
    settings s = {
        .layout = "all", .dtype = "f32", .pass = "all", .threads = "1", .pairs = 21};
    sbni_arguments arguments;
    SBN_TRY(sbni_options_parse(&command, argc, argv, &s, &arguments, group));
    if (arguments.help) {
        if (sbn_group_rank(group) == 0) sbni_options_help(&command);
        return SBN_OK;
    }
    SBN_CHECK(!s.shape || !sbni_options_given(&command, &arguments, "shapes"), SBN_E_ARG,
              "--shape and --shapes: expected one of them, got both");
    plan p;
    SBN_TRY(sbn_group_agree(group, make_plan(&s, &p)));
    sbn_status status = sbn_group_rank(group) == 0 ? run(&s, &p) : SBN_OK;
    SBN_TRY(sbni_bare_rest(group));
    return sbn_group_agree(group, status);
}
