#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/bench_norm.h"
#include "options/options.h"
#include "comm/group.h"
#include "core/memory.h"
#include "kernels/kernels.h"

enum { MAX_THREADS = 1024, MOST_PAIRS = 1000 };

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
    double mean;
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
     "(default: as the machine chooses, words perhaps wider)",
     0, 0, 0, 0},
    {"relu", SBNI_OPTION_FLAG, AT(relu), 0, "with relu in the same pass", 0, 0, 0, 0},
    {"add", SBNI_OPTION_FLAG, AT(add), 0,
     "with an addition in the same pass, as residual nets do", 0, 0, 0, 0},
    {"mean", SBNI_OPTION_REAL, AT(mean), "X",
     "mean of x in its deviations (default 0); beyond 3 sums of f32 and bf16 take longer",
     0, -1e6, 0, 0},
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

static sbn_status check_plan(const settings *s, const sbni_bench_plan *p)
{
    bool some = false;
    for (int i = 0; i < p->shapes.n; i++) {
        const sbni_bench_shape *shape = &p->shapes.shape[i];
        char text[SBNI_BENCH_SHAPE_BYTES];
        sbni_bench_print_shape(shape, text);
        SBN_CHECK(sbni_bench_elements(shape) <= INT64_C(1) << 40, SBN_E_ARG,
                  "--shape: %s has too many elements", text);
        SBN_CHECK(sbni_bench_elements(shape) > shape->size[1], SBN_E_ARG,
                  "--shape: %s has one value per channel, which has no variance", text);
        for (int l = 0; sbni_bench_layouts[l]; l++)
            some |= (p->layouts >> l & 1) && sbni_bench_fits(shape, l);
    }
    SBN_CHECK(
        some, SBN_E_ARG,
        "--layout %s fits none of the shapes: nc is for samples x channels, nchw and "
        "nhwc for those with height and width",
        s->layout);
    SBN_CHECK(s->mean <= 1e6, SBN_E_ARG, "--mean: expected -1e6 to 1e6, got %g", s->mean);
    SBN_CHECK(s->pairs <= MOST_PAIRS, SBN_E_ARG,
              "--pairs: expected 1 to %d, got %" PRId64, MOST_PAIRS, s->pairs);
    size_t length = s->plot ? strlen(s->plot) : 0;
    SBN_CHECK(!s->plot || (length > 4 && !strcmp(s->plot + length - 4, ".svg")),
              SBN_E_ARG, "--plot: expected a name that ends in .svg, got \"%s\"",
              s->plot);
    return SBN_OK;
}

static sbn_status make_plan(const settings *s, sbni_bench_plan *p)
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
    SBN_TRY(sbni_bench_parse_words("layout", s->layout, sbni_bench_layouts, &p->layouts));
    SBN_TRY(sbni_bench_parse_words("dtype", s->dtype, sbni_bench_dtypes, &p->dtypes));
    SBN_TRY(sbni_bench_parse_words("pass", s->pass, sbni_bench_passes, &p->passes));
    SBN_TRY(sbni_bench_parse_numbers("threads", s->threads, 1, MAX_THREADS, &p->threads));
    p->isas = 0;
    if (s->isa) SBN_TRY(sbni_bench_parse_words("isa", s->isa, isas, &p->isas));
    p->rounds = (int)s->pairs;
    p->speedups = false;
    for (int i = 0; i < p->threads.n; i++) p->speedups |= p->threads.value[i] > 1;
    p->relu = s->relu;
    p->add = s->add;
    p->mean = s->mean;
    p->fused = fusions[(s->relu ? 1 : 0) + (s->add ? 2 : 0)];
    return check_plan(s, p);
}

/* Everything but the picture is there without gnuplot. */
static sbn_status check_picture(const char *path, bool *draws)
{
    bool missing = false;
    if (path) SBN_TRY(sbni_bench_plot_check(path, &missing));
    if (missing)
        fprintf(stderr, "syncbn: no picture is drawn: gnuplot is missing (package "
                        "gnuplot-nox)\n");
    *draws = path && !missing;
    return SBN_OK;
}

static sbn_status run(const settings *s, const sbni_bench_plan *p)
{
    sbni_bench_report report;
    sbni_bench_point *points = NULL;
    int n_points = 0;
    bool draws = false;
    char about[160];
    snprintf(about, sizeof about,
             "time of a pass, and of memcpy of x in turn with it; median, 10 to 90 %% of "
             "%d pairs; fused: %s; mean %g",
             p->rounds, p->fused, p->mean);
    char heads[160];
    snprintf(heads, sizeof heads, "%-8s  %-6s  %-5s  %-6s  %-14s  %3s  %9s  %9s  %-19s%s",
             "pass", "layout", "type", "isa", "shape", "thr", "time", "memcpy", "ratio",
             p->speedups ? "  speed-up        " : "");
    SBN_TRY(check_picture(s->plot, &draws));
    sbn_status status =
        sbni_bench_report_open(true, s->json, s->compare, about, heads, &report);
    if (status == SBN_OK)
        status = sbni_bench_run_passes(p, &report, draws, &points, &n_points);
    if (status == SBN_OK && draws) status = sbni_bench_plot(s->plot, points, n_points);
    sbni_free(points);
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
    sbni_bench_plan p;
    SBN_TRY(sbn_group_agree(group, make_plan(&s, &p)));
    sbn_status status = sbn_group_rank(group) == 0 ? run(&s, &p) : SBN_OK;
    return sbni_group_agree_asleep(group, status);
}
