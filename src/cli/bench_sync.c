#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "cli/bench.h"
#include "options/options.h"
#include "comm/bare.h"
#include "comm/group.h"
#include "core/memory.h"
#include "kernels/kernels.h"
#include "norm/norm.h"

enum { MOST_CHANNELS = 1 << 20, MOST_PAIRS = 1000 };
static const double SAMPLE_S = 2e-3;

typedef struct settings {
    const char *channels, *shape, *layout, *dtype, *pass, *isa, *compare;
    int64_t pairs;
    bool json;
} settings;

#define AT(field) offsetof(settings, field)

static const sbni_option options[] = {
    {"Cases: every combination that fits", SBNI_OPTION_TITLE, 0, 0, 0, 0, 0, 0, 0},
    {"channels", SBNI_OPTION_TEXT, AT(channels), "LIST",
     "(default 20,64,256,512,1024,2048)", 0, 0, 0, 0},
    {"shape", SBNI_OPTION_TEXT, AT(shape), "LIST",
     "data of each process without its channels: samples, or samples x height x width, "
     "e.g. 16x4x4 (default 32)",
     0, 0, 0, 0},
    {"layout", SBNI_OPTION_TEXT, AT(layout), "LIST",
     "of nchw, nhwc, nc (default nchw,nc; nc for shapes without height and width)", 0, 0,
     0, 0},
    {"dtype", SBNI_OPTION_TEXT, AT(dtype), "LIST",
     "of f32, f64, bf16, or all (default f32)", 0, 0, 0, 0},
    {"pass", SBNI_OPTION_TEXT, AT(pass), "LIST", "of forward, backward (default all)", 0,
     0, 0, 0},
    {"isa", SBNI_OPTION_TEXT, AT(isa), "NAME",
     "force an instruction set: base, or avx2, avx512 where the machine has it (default: "
     "as the machine chooses)",
     0, 0, 0, 0},
    {"Measuring", SBNI_OPTION_TITLE, 0, 0, 0, 0, 0, 0, 0},
    {"pairs", SBNI_OPTION_INT, AT(pairs), "N",
     "samples of synchronized pass, local pass and sum, in turn (default 21)", 0, 1, 0,
     0},
    {"Results", SBNI_OPTION_TITLE, 0, 0, 0, 0, 0, 0, 0},
    {"json", SBNI_OPTION_FLAG, AT(json), 0, "one JSON object a case, in place of a table",
     0, 0, 0, 0},
    {"compare", SBNI_OPTION_TEXT, AT(compare), "FILE",
     "show seconds over those in FILE, the JSON lines of an earlier run", 0, 0, 0, 0},
    {0},
};

static const sbni_command command = {
    "bench sync", "bench sync [options]",
    "Measure what synchronizing the layer costs: (synchronized pass - the same pass in "
    "groups\nof one process) / a bare MPI_Allreduce of the message's bytes, in turn.",
    options, 0};

typedef struct plan {
    sbni_bench_shapes shapes; /* without channels */
    sbni_bench_numbers channels;
    unsigned layouts, dtypes, passes;
    int rounds;
} plan;

/* One case. */
typedef struct bench {
    const plan *p;
    const sbni_bench_report *report;
    sbn_group *group, *alone;
    sbni_bench_shape shape;
    int layout, pass;
    sbn_dtype dtype;
    void *x, *out, *dy;
    int64_t *send, *sum, words;
    double *seconds; /* [3][rounds], and as many ratios as rounds */
    sbn_norm *all, *one;
    sbn_tensor tx, tout, tdy;
} bench;

/* The data of a process with so many channels. */
static sbni_bench_shape with_channels(const sbni_bench_shape *shape, int64_t c)
{
    if (shape->axes == 1)
        return (sbni_bench_shape){.size = {shape->size[0], c}, .axes = 2};
    return (sbni_bench_shape){.size = {shape->size[0], c, shape->size[1], shape->size[2]},
                              .axes = 4};
}

static sbn_status check_plan(const settings *s, const plan *p)
{
    bool some = false;
    for (int i = 0; i < p->shapes.n; i++) {
        const sbni_bench_shape *shape = &p->shapes.shape[i];
        SBN_CHECK(shape->axes != 2, SBN_E_ARG,
                  "--shape: expected samples, or samples x height x width, got two "
                  "sizes");
        for (int k = 0; k < p->channels.n; k++) {
            sbni_bench_shape full = with_channels(shape, p->channels.value[k]);
            char text[SBNI_BENCH_SHAPE_BYTES];
            sbni_bench_print_shape(&full, text);
            int64_t n = sbni_bench_elements(&full);
            SBN_CHECK(n <= INT64_C(1) << 40, SBN_E_ARG,
                      "--shape: %s has too many elements", text);
            SBN_CHECK(n > full.size[1], SBN_E_ARG,
                      "--shape: %s has one value per channel, which has no variance",
                      text);
            for (int l = 0; sbni_bench_layouts[l]; l++)
                some |= (p->layouts >> l & 1) && sbni_bench_fits(&full, l);
        }
    }
    SBN_CHECK(some, SBN_E_ARG, "--layout %s fits none of the shapes", s->layout);
    SBN_CHECK(s->pairs <= MOST_PAIRS, SBN_E_ARG,
              "--pairs: expected 1 to %d, got %" PRId64, MOST_PAIRS, s->pairs);
    return SBN_OK;
}

static sbn_status make_plan(const settings *s, plan *p)
{
    p->shapes.n = 0;
    SBN_TRY(sbni_bench_parse_shapes("shape", s->shape, 1, 3, "sizes like 32 or 16x4x4",
                                    &p->shapes));
    SBN_TRY(sbni_bench_parse_numbers("channels", s->channels, 1, MOST_CHANNELS,
                                     &p->channels));
    SBN_TRY(sbni_bench_parse_words("layout", s->layout, sbni_bench_layouts, &p->layouts));
    SBN_TRY(sbni_bench_parse_words("dtype", s->dtype, sbni_bench_dtypes, &p->dtypes));
    SBN_TRY(sbni_bench_parse_words("pass", s->pass, sbni_bench_passes, &p->passes));
    SBN_TRY(sbni_bench_force_isa(s->isa));
    p->rounds = (int)s->pairs;
    return check_plan(s, p);
}

static sbn_status run_pass(bench *b, sbn_norm *norm)
{
    return b->pass == SBNI_BENCH_FORWARD ? sbn_norm_forward(norm, &b->tx, &b->tout)
                                         : sbn_norm_backward(norm, &b->tdy, &b->tout);
}

static sbn_status run_all(void *context)
{
    bench *b = context;
    return run_pass(b, b->all);
}

static sbn_status run_one(void *context)
{
    bench *b = context;
    return run_pass(b, b->one);
}

static sbn_status run_sum(void *context)
{
    bench *b = context;
    return sbni_bare_sum(b->group, b->send, b->words, b->sum);
}

static sbn_status report_case(bench *b)
{
    int rounds = b->p->rounds;
    double *all = b->seconds, *one = all + rounds, *sum = one + rounds,
           *ratios = sum + rounds;
    for (int i = 0; i < rounds; i++) ratios[i] = (all[i] - one[i]) / sum[i];
    sbni_bench_spread ratio = sbni_bench_spread_of(ratios, rounds),
                      all_s = sbni_bench_spread_of(all, rounds),
                      one_s = sbni_bench_spread_of(one, rounds),
                      sum_s = sbni_bench_spread_of(sum, rounds);
    const char *isa = sbni_kernels_get(SBN_F32)->isa;
    json_t *facts = json_pack(
        "{s:s s:s s:s s:s s:s s:o s:s s:f s:f s:f s:f s:f s:f s:I s:i s:i s:i}", "kind",
        "bench", "what", "sync", "pass", sbni_bench_passes[b->pass], "layout",
        sbni_bench_layouts[b->layout], "dtype", sbni_bench_dtypes[b->dtype], "shape",
        sbni_bench_shape_json(&b->shape), "isa", isa, "seconds", all_s.median,
        "local_seconds", one_s.median, "allreduce_seconds", sum_s.median, "ratio",
        ratio.median, "ratio_p10", ratio.p10, "ratio_p90", ratio.p90, "bytes",
        (json_int_t)(8 * b->words), "np", sbn_group_size(b->group), "threads",
        omp_get_max_threads(), "pairs", rounds);
    char row[320], shape[SBNI_BENCH_SHAPE_BYTES], cell[4][SBNI_BENCH_CELL];
    sbni_bench_print_shape(&b->shape, shape);
    sbni_bench_print_time(all_s.median, cell[0]);
    sbni_bench_print_time(one_s.median, cell[1]);
    sbni_bench_print_time(sum_s.median, cell[2]);
    sbni_bench_print_spread(ratio, cell[3]);
    snprintf(row, sizeof row,
             "%-8s  %-6s  %-5s  %-14s  %8" PRId64 "  %9s  %9s  %9s  %-19s",
             sbni_bench_passes[b->pass], sbni_bench_layouts[b->layout],
             sbni_bench_dtypes[b->dtype], shape, 8 * b->words, cell[0], cell[1], cell[2],
             cell[3]);
    return sbni_bench_report_case(b->report, facts, row);
}

/* Everything that may fail on one process alone. */
static sbn_status allocate(bench *b)
{
    int64_t n = sbni_bench_elements(&b->shape), size = sbn_dtype_bytes(b->dtype);
    void **const parts[] = {&b->x, &b->out, &b->dy};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        SBN_TRY(sbni_alloc(n, size, "tensor", parts[i]));
    SBN_TRY(sbni_alloc(4 * (int64_t)b->p->rounds, 8, "samples", &b->seconds));
    uint32_t rank = (uint32_t)sbn_group_rank(b->group);
    sbni_bench_fill(b->x, b->dtype, n, 2 * rank, 0);
    sbni_bench_fill(b->dy, b->dtype, n, 2 * rank + 1, 0);
    b->tx = sbni_bench_view(&b->shape, b->layout, b->dtype, b->x);
    b->tout = sbni_bench_view(&b->shape, b->layout, b->dtype, b->out);
    b->tdy = sbni_bench_view(&b->shape, b->layout, b->dtype, b->dy);
    sbn_norm_config cfg = sbn_norm_config_default(b->shape.size[1]);
    cfg.dtype = b->dtype;
    return sbn_norm_create(&cfg, b->alone, &b->one);
}

/* Both passes of a layer; forward comes first, as backward needs one. */
static sbn_status measure_passes(bench *b)
{
    const sbni_bench_work works[] = {{run_all, b}, {run_one, b}, {run_sum, b}};
    for (b->pass = SBNI_BENCH_FORWARD; sbni_bench_passes[b->pass]; b->pass++) {
        SBN_TRY(run_all(b));
        SBN_TRY(run_one(b));
        if (!(b->p->passes >> b->pass & 1)) continue;
        b->words = b->pass == SBNI_BENCH_FORWARD ? b->all->forward.words
                                                 : b->all->backward.words;
        sbn_status status = sbni_alloc(b->words, 8, "message", &b->send);
        if (status == SBN_OK) status = sbni_alloc(b->words, 8, "message", &b->sum);
        SBN_TRY(sbn_group_agree(b->group, status));
        SBN_TRY(
            sbni_bench_measure(works, 3, b->p->rounds, SAMPLE_S, b->group, b->seconds));
        SBN_TRY(sbn_group_agree(b->group, report_case(b)));
        sbni_free(b->send);
        sbni_free(b->sum);
        b->send = b->sum = NULL;
    }
    return SBN_OK;
}

static sbn_status measure(const bench *common)
{
    bench b = *common;
    sbn_status status;
    SBN_GOTO(sbn_group_agree(b.group, allocate(&b)));
    sbn_norm_config cfg = sbn_norm_config_default(b.shape.size[1]);
    cfg.dtype = b.dtype;
    SBN_GOTO(sbn_norm_create(&cfg, b.group, &b.all));
    status = measure_passes(&b);
fail:
    sbn_norm_destroy(&b.all);
    sbn_norm_destroy(&b.one);
    void *parts[] = {b.x, b.out, b.dy, b.send, b.sum, b.seconds};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) sbni_free(parts[i]);
    return status;
}

static sbn_status measure_all(bench *b)
{
    for (int d = 0; sbni_bench_dtypes[d]; d++)
        for (int i = 0; i < b->p->shapes.n; i++)
            for (int k = 0; k < b->p->channels.n; k++)
                for (int l = 0; sbni_bench_layouts[l]; l++) {
                    b->dtype = (sbn_dtype)d;
                    b->layout = l;
                    b->shape =
                        with_channels(&b->p->shapes.shape[i], b->p->channels.value[k]);
                    if ((b->p->dtypes >> d & 1) && (b->p->layouts >> l & 1) &&
                        sbni_bench_fits(&b->shape, l))
                        SBN_TRY(measure(b));
                }
    return SBN_OK;
}

static sbn_status run(const settings *s, const plan *p, sbn_group *group)
{
    sbni_bench_report report;
    bench b = {.p = p, .report = &report, .group = group};
    char about[256], heads[160];
    snprintf(
        about, sizeof about,
        "%d processes; ratio: (synchronized - local) / MPI_Allreduce of the message, "
        "in turn; median, 10 to 90 %% of %d pairs; the slowest process counts",
        sbn_group_size(group), p->rounds);
    snprintf(heads, sizeof heads, "%-8s  %-6s  %-5s  %-14s  %8s  %9s  %9s  %9s  %-19s",
             "pass", "layout", "type", "shape", "bytes", "sync", "local", "allreduce",
             "ratio");
    sbn_status status = sbni_bench_report_open(sbn_group_rank(group) == 0, s->json,
                                               s->compare, about, heads, &report);
    if (status == SBN_OK) status = sbni_group_alone(&b.alone);
    status = sbn_group_agree(group, status);
    if (status == SBN_OK) status = measure_all(&b);
    sbn_group_destroy(&b.alone);
    sbni_bench_report_close(&report);
    return status;
}

sbn_status sbni_bench_sync(int argc, char **argv, sbn_group *group)
{
    settings s = {.channels = "20,64,256,512,1024,2048",
                  .shape = "32",
                  .layout = "nchw,nc",
                  .dtype = "f32",
                  .pass = "all",
                  .pairs = 21};
    sbni_arguments arguments;
    SBN_TRY(sbni_options_parse(&command, argc, argv, &s, &arguments, group));
    if (arguments.help) {
        if (sbn_group_rank(group) == 0) sbni_options_help(&command);
        return SBN_OK;
    }
    plan p;
    SBN_TRY(sbn_group_agree(group, make_plan(&s, &p)));
    SBN_CHECK(
        sbn_group_size(group) > 1, SBN_E_ARG,
        "bench sync: expected 2 processes or more, got 1; start them by mpirun -np 2");
    return run(&s, &p, group);
}
