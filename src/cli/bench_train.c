#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "cli/bench.h"
#include "options/options.h"
#include "core/memory.h"
#include "data/synthetic.h"
#include "kernels/gemm.h"
#include "nn/layer.h"
#include "syncbn/data.h"
#include "syncbn/optim.h"
#include "train/evaluate.h"

enum {
    MOST_BLOCKS = 1000,
    MOST_BATCH = 1 << 16,
    SQUARE = 1024,
    NET_BYTES = 256,
    POOL = 4096
};
static const double BLOCK_S = 0.1;

typedef struct settings {
    const char *net, *batch, *isa, *compare;
    int64_t blocks;
    bool json;
} settings;

#define AT(field) offsetof(settings, field)

static const sbni_option options[] = {
    {"Cases: every combination", SBNI_OPTION_TITLE, 0, 0, 0, 0, 0, 0, 0},
    {"net", SBNI_OPTION_TEXT, AT(net), "LIST",
     "article, cnn, mlp, resnet8, or .net files for 1x28x28 images (default "
     "cnn,article,mlp)",
     0, 0, 0, 0},
    {"batch", SBNI_OPTION_TEXT, AT(batch), "LIST",
     "samples per step, over all processes (default 64,256)", 0, 0, 0, 0},
    {"isa", SBNI_OPTION_TEXT, AT(isa), "NAME",
     "force an instruction set: base, or avx2, avx512 where the machine has it (default: "
     "as the machine chooses); products that are BLAS's keep theirs",
     0, 0, 0, 0},
    {"Measuring", SBNI_OPTION_TITLE, 0, 0, 0, 0, 0, 0, 0},
    {"blocks", SBNI_OPTION_INT, AT(blocks), "N",
     "blocks of steps, in turn with what they are held against (default 21)", 0, 1, 0, 0},
    {"Results", SBNI_OPTION_TITLE, 0, 0, 0, 0, 0, 0, 0},
    {"json", SBNI_OPTION_FLAG, AT(json), 0, "one JSON object a case, in place of a table",
     0, 0, 0, 0},
    {"compare", SBNI_OPTION_TEXT, AT(compare), "FILE",
     "show seconds over those in FILE, the JSON lines of an earlier run", 0, 0, 0, 0},
    {0},
};

static const sbni_command command = {
    "bench train", "bench train [options]",
    "Measure training steps on images drawn in memory: fetch, forward, backward, sum, "
    "update;\nthe fraction of the machine's matrix products that they reach; and, of "
    "several\nprocesses, their rate over that of one alone times their number, beside "
    "that of as\nmany that train apart, each its share of the batch, and the rate of "
    "steps whose\nmessages overlap with backward over that of steps that wait.",
    options, 0};

/* A model in training. */
typedef struct trainee {
    sbn_dataset *dataset; /* of the bench */
    sbn_model *model;
    sbn_optimizer *optimizer;
    sbn_sampler *sampler;
    int32_t *labels;
    int64_t step;
} trainee;

/* What all cases share, and one of them. */
typedef struct bench {
    const sbni_bench_report *report;
    sbn_group *group, *self;
    int blocks, threads;
    uint8_t *images; /* pixels, then labels */
    sbn_dataset *dataset;
    float *square;   /* factors, and a product for each thread */
    double *seconds; /* [WORKS][blocks], and as many ratios as blocks */

    const char *net;
    int64_t batch, share;            /* share: of a process that trains apart */
    trainee together, single, other; /* other: that overlaps where together does not */
} bench;

/* What is measured in turn; the last three where there are several processes. */
enum { TOGETHER, PRODUCTS, ALONE, APART, OTHER, WORKS };

/* Multiplications and additions of the layers' matrix products, forward and backward, in
 * a step, window by window (tiles, and dW before a pool, do with fewer): what SGEMM's own
 * rate can be held against. */
static double step_flops(const bench *b)
{
    double sum = 0;
    const sbn_model *model = b->together.model;
    for (int i = 0; i < model->layer_count; i++) {
        const sbni_layer *layer = &model->layers[i];
        const sbni_layer_spec *spec = &layer->spec;
        double products = layer->wants_dx ? 3 : 2; /* y, dW, dx */
        int64_t k = 0;
        if (spec->kind == SBNI_LAYER_CONV)
            k = layer->in->shape.c * spec->kernel * spec->kernel;
        if (spec->kind == SBNI_LAYER_LINEAR) k = layer->in->count;
        sum += products * 2.0 * (double)(k * layer->out->count);
    }
    return sum * (double)b->batch;
}

static double square_flops(const bench *b)
{
    return 2.0 * SQUARE * SQUARE * SQUARE * b->threads * sbn_group_size(b->group);
}

/* A step on the first `size` samples of the next batch. */
static sbn_status train(trainee *t, int64_t size)
{
    const int64_t *index;
    int64_t total, first, n, capacity;
    sbn_model_result result;
    sbn_sampler_batch(t->sampler, t->step++, &index, &total);
    SBN_TRY(sbn_model_share(t->model, size, &first, &n));
    sbni_fetch(t->dataset, index + first, n, sbn_model_input(t->model, &capacity),
               t->labels);
    SBN_TRY(sbn_model_gradient(t->model, t->labels, size, &result));
    sbn_optimizer_step(t->optimizer, 1, 0.05);
    return SBN_OK;
}

static sbn_status run_together(void *context)
{
    bench *b = context;
    return train(&b->together, b->batch);
}

static sbn_status run_other(void *context)
{
    bench *b = context;
    return train(&b->other, b->batch);
}

/* One process does all, the others wait. */
static sbn_status run_alone(void *context)
{
    bench *b = context;
    return sbn_group_rank(b->group) == 0 ? train(&b->single, b->batch) : SBN_OK;
}

/* All at once, without a message. */
static sbn_status run_apart(void *context)
{
    bench *b = context;
    return train(&b->single, b->share);
}

/* Every thread of every process, since all of them share the machine in a step. */
static sbn_status run_products(void *context)
{
    const bench *b = context;
    const int64_t n = (int64_t)SQUARE * SQUARE;
#pragma omp parallel num_threads(b->threads)
    sbni_gemm(SBN_F32, false, false, SQUARE, SQUARE, SQUARE, b->square, b->square + n, 0,
              b->square + (2 + omp_get_thread_num()) * n);
    return SBN_OK;
}

/* Images as files have them, drawn beforehand: drawing takes longer than training. */
static sbn_status draw_images(bench *b, int64_t n)
{
    sbn_dataset_info info = sbni_synthetic_info(SBN_SPLIT_TRAIN);
    info.n = n;
    SBN_TRY(sbni_alloc(n, SBNI_SYNTHETIC_PIXELS + 1, "images", &b->images));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++)
        b->images[n * SBNI_SYNTHETIC_PIXELS + i] = (uint8_t)sbni_synthetic_draw(
            1, SBN_SPLIT_TRAIN, i, b->images + i * SBNI_SYNTHETIC_PIXELS);
    return sbn_dataset_create("drawn", SBN_SPLIT_TRAIN, &info, b->images, 1, &b->dataset);
}

static sbn_status prepare(bench *b, int64_t most_batch)
{
    const int64_t n = (int64_t)SQUARE * SQUARE;
    SBN_TRY(draw_images(b, most_batch > POOL ? most_batch : POOL));
    SBN_TRY(sbni_alloc((2 + b->threads) * n, sizeof *b->square, "matrix", &b->square));
    sbni_bench_fill(b->square, SBN_F32, 2 * n, 0, 0);
    SBN_TRY(sbni_alloc((WORKS + 1) * (int64_t)b->blocks, sizeof *b->seconds, "samples",
                       &b->seconds));
    return sbni_group_alone(&b->self);
}

static void clean_up(bench *b)
{
    sbn_group_destroy(&b->self);
    sbn_dataset_destroy(&b->dataset);
    sbni_free(b->images);
    sbni_free(b->square);
    sbni_free(b->seconds);
}

static sbn_status fill_trainee(const bench *b, trainee *t)
{
    int n, params = 0;
    int64_t capacity;
    sbn_dataset_info info = sbn_dataset_get_info(b->dataset);
    SBN_TRY(sbni_check_fit(t->model, &info));
    const sbn_model_tensor *tensors = sbn_model_tensors(t->model, &n);
    sbn_optimizer_tensor *list;
    SBN_TRY(sbni_alloc(n, sizeof *list, "optimizer", &list));
    for (; params < n && tensors[params].grad; params++)
        list[params] =
            (sbn_optimizer_tensor){tensors[params].data, tensors[params].grad,
                                   tensors[params].count, tensors[params].decays};
    const sbn_optimizer_config cfg = {.momentum = 0.9, .dtype = SBN_F32};
    sbn_status status = sbn_optimizer_create(&cfg, list, params, &t->optimizer);
    sbni_free(list);
    SBN_TRY(status);
    sbn_model_input(t->model, &capacity);
    SBN_TRY(sbni_alloc(capacity, sizeof *t->labels, "labels", &t->labels));
    /* every step is of a whole batch */
    return sbn_sampler_create(info.n, b->batch, true, 1, &t->sampler);
}

/* Over the group: with all processes of it, or of this one alone. */
static sbn_status create_trainee(const bench *b, sbn_group *group, sbn_overlap overlap,
                                 trainee *t)
{
    sbn_model_config cfg = sbn_model_config_default(b->net, b->batch);
    cfg.overlap = overlap;
    *t = (trainee){.dataset = b->dataset};
    SBN_TRY(sbn_model_create(&cfg, group, &t->model));
    return sbn_group_agree(group, fill_trainee(b, t));
}

static void destroy_trainee(trainee *t)
{
    sbn_sampler_destroy(&t->sampler);
    sbn_optimizer_destroy(&t->optimizer);
    sbn_model_destroy(&t->model);
    sbni_free(t->labels);
    t->labels = NULL;
}

/* Rates of processes over that of one alone times their number; of steps with overlap
 * over those without. */
typedef struct efficiency {
    sbni_bench_spread together, apart, overlap;
} efficiency;

static efficiency efficiency_of(const bench *b, double *values)
{
    const double *together = b->seconds + TOGETHER * b->blocks,
                 *other = b->seconds + OTHER * b->blocks,
                 *alone = b->seconds + ALONE * b->blocks,
                 *apart = b->seconds + APART * b->blocks, np = sbn_group_size(b->group),
                 part = (double)b->share / (double)b->batch;
    efficiency e;
    for (int i = 0; i < b->blocks; i++) values[i] = alone[i] / (np * together[i]);
    e.together = sbni_bench_spread_of(values, b->blocks);
    for (int i = 0; i < b->blocks; i++) values[i] = part * alone[i] / apart[i];
    e.apart = sbni_bench_spread_of(values, b->blocks);
    const bool overlaps = b->together.model->overlaps;
    for (int i = 0; i < b->blocks; i++)
        values[i] = overlaps ? other[i] / together[i] : together[i] / other[i];
    e.overlap = sbni_bench_spread_of(values, b->blocks);
    return e;
}

/* NULL where there was no memory for all. */
static json_t *with_efficiency(json_t *facts, const efficiency *e)
{
    json_t *more = json_pack(
        "{s:f s:f s:f s:f s:f s:f s:f s:f s:f}", "efficiency", e->together.median,
        "efficiency_p10", e->together.p10, "efficiency_p90", e->together.p90,
        "efficiency_apart", e->apart.median, "efficiency_apart_p10", e->apart.p10,
        "efficiency_apart_p90", e->apart.p90, "overlap", e->overlap.median, "overlap_p10",
        e->overlap.p10, "overlap_p90", e->overlap.p90);
    bool whole = facts && more && json_object_update(facts, more) == 0;
    json_decref(more);
    if (whole) return facts;
    json_decref(facts);
    return NULL;
}

static void print_efficiency(const efficiency *e, char *row, size_t room)
{
    char cell[3][SBNI_BENCH_CELL];
    sbni_bench_print_spread(e->together, cell[0]);
    sbni_bench_print_spread(e->apart, cell[1]);
    sbni_bench_print_spread(e->overlap, cell[2]);
    size_t used = strlen(row);
    snprintf(row + used, room - used, "  %-17s  %-19s  %-17s", cell[0], cell[1], cell[2]);
}

static sbn_status report_case(bench *b)
{
    int blocks = b->blocks, np = sbn_group_size(b->group);
    double *step = b->seconds + TOGETHER * blocks,
           *square = b->seconds + PRODUCTS * blocks,
           *values = b->seconds + WORKS * blocks, flops = step_flops(b),
           peak = square_flops(b), batch = (double)b->batch;
    efficiency e = {0};
    if (np > 1) e = efficiency_of(b, values);
    for (int i = 0; i < blocks; i++) values[i] = flops / step[i] / (peak / square[i]);
    sbni_bench_spread fraction = sbni_bench_spread_of(values, blocks);
    for (int i = 0; i < blocks; i++) values[i] = batch / step[i];
    sbni_bench_spread rate = sbni_bench_spread_of(values, blocks),
                      step_s = sbni_bench_spread_of(step, blocks),
                      square_s = sbni_bench_spread_of(square, blocks);
    json_t *facts = json_pack(
        "{s:s s:s s:s s:I s:s s:f s:f s:f s:f s:f s:f s:f s:f s:f s:i s:i s:i}", "kind",
        "bench", "what", "train", "net", b->net, "batch", (json_int_t)b->batch, "isa",
        b->together.model->kernels->isa, "seconds", step_s.median, "images_per_s",
        rate.median, "images_per_s_p10", rate.p10, "images_per_s_p90", rate.p90,
        "step_flops", flops, "peak_flops_per_s", peak / square_s.median, "peak_fraction",
        fraction.median, "peak_fraction_p10", fraction.p10, "peak_fraction_p90",
        fraction.p90, "np", np, "threads", b->threads, "blocks", blocks);
    if (np > 1) facts = with_efficiency(facts, &e);
    char row[512], cell[2][SBNI_BENCH_CELL], rates[3 * SBNI_BENCH_CELL];
    snprintf(rates, sizeof rates, "%.0f (%.0f-%.0f)", rate.median, rate.p10, rate.p90);
    sbni_bench_print_time(step_s.median, cell[0]);
    sbni_bench_print_spread(fraction, cell[1]);
    snprintf(row, sizeof row, "%-10s  %6" PRId64 "  %9s  %-22s  %8.3f  %7.1f  %-17s",
             b->net, b->batch, cell[0], rates, flops * 1e-9,
             peak / square_s.median * 1e-9, cell[1]);
    if (np > 1) print_efficiency(&e, row, sizeof row);
    return sbni_bench_report_case(b->report, facts, row);
}

/* dry: only whether the case is one. */
static sbn_status measure(bench *b, bool dry)
{
    const sbni_bench_work works[WORKS] = {[TOGETHER] = {run_together, b},
                                          [PRODUCTS] = {run_products, b},
                                          [ALONE] = {run_alone, b},
                                          [APART] = {run_apart, b},
                                          [OTHER] = {run_other, b}};
    int np = sbn_group_size(b->group);
    bool several = np > 1;
    sbn_status status;
    b->share = b->batch / np > 1 ? b->batch / np : 2; /* one has no variance */
    b->single = b->other = (trainee){0};
    SBN_GOTO(create_trainee(b, b->group, SBN_OVERLAP_NETWORK, &b->together));
    if (several) {
        SBN_GOTO(create_trainee(b, b->group,
                                b->together.model->overlaps ? SBN_OVERLAP_NEVER
                                                            : SBN_OVERLAP_ALWAYS,
                                &b->other));
        SBN_GOTO(sbn_group_agree(
            b->group, create_trainee(b, b->self, SBN_OVERLAP_NEVER, &b->single)));
    }
    if (dry) goto fail;
    SBN_GOTO(sbni_bench_measure(works, several ? WORKS : ALONE, b->blocks, BLOCK_S,
                                b->group, b->seconds));
    status = sbn_group_agree(b->group, report_case(b));
fail:
    destroy_trainee(&b->single);
    destroy_trainee(&b->other);
    destroy_trainee(&b->together);
    return status;
}

/* Whether the word stands in the list before its own place. */
static bool comes_again(const char *list, const char *word, int length)
{
    int n;
    for (const char *w; (w = sbni_bench_next_word(&list, &n)) && w < word;)
        if (n == length && !strncmp(w, word, (size_t)n)) return true;
    return false;
}

static sbn_status measure_all(bench *b, const char *nets,
                              const sbni_bench_numbers *batches, bool dry)
{
    int length;
    const char *list = nets;
    for (const char *word; (word = sbni_bench_next_word(&list, &length));) {
        char net[NET_BYTES];
        SBN_CHECK(length > 0 && length < NET_BYTES, SBN_E_ARG,
                  "--net: expected names with commas between, got \"%s\"", nets);
        if (comes_again(nets, word, length)) continue;
        snprintf(net, sizeof net, "%.*s", length, word);
        b->net = net;
        for (int i = 0; i < batches->n; i++) {
            b->batch = batches->value[i];
            SBN_TRY(measure(b, dry));
        }
    }
    return SBN_OK;
}

static sbn_status run(const settings *s, const sbni_bench_numbers *batches,
                      sbn_group *group)
{
    sbni_bench_report report = {0};
    bench b = {.report = &report,
               .group = group,
               .blocks = (int)s->blocks,
               .threads = omp_get_max_threads()};
    char about[256], heads[160];
    int64_t most = 0;
    for (int i = 0; i < batches->n; i++)
        if (batches->value[i] > most) most = batches->value[i];
    snprintf(about, sizeof about,
             "%d processes of %d threads; median, 10 to 90 %% of %d blocks; of peak: "
             "matrix products of a step, over %d x %d ones on all threads in turn",
             sbn_group_size(group), b.threads, b.blocks, SQUARE, SQUARE);
    snprintf(heads, sizeof heads, "%-10s  %6s  %9s  %-22s  %8s  %7s  %-17s%s", "net",
             "batch", "step", "images/s", "GFLOP", "peak/s", "of peak",
             sbn_group_size(group) > 1
                 ? "  efficiency         that of steps apart  overlap"
                 : "");
    sbn_status status = sbn_group_agree(group, prepare(&b, most));
    if (status == SBN_OK) status = measure_all(&b, s->net, batches, true);
    if (status == SBN_OK)
        status = sbn_group_agree(group, sbni_bench_report_open(sbn_group_rank(group) == 0,
                                                               s->json, s->compare, about,
                                                               heads, &report));
    if (status == SBN_OK) status = measure_all(&b, s->net, batches, false);
    clean_up(&b);
    sbni_bench_report_close(&report);
    return status;
}

sbn_status sbni_bench_train(int argc, char **argv, sbn_group *group)
{
    settings s = {.net = "cnn,article,mlp", .batch = "64,256", .blocks = 21};
    sbni_arguments arguments;
    SBN_TRY(sbni_options_parse(&command, argc, argv, &s, &arguments, group));
    if (arguments.help) {
        if (sbn_group_rank(group) == 0) sbni_options_help(&command);
        return SBN_OK;
    }
    sbni_bench_numbers batches;
    SBN_TRY(sbni_bench_parse_numbers("batch", s.batch, 2, MOST_BATCH, &batches));
    SBN_TRY(sbn_group_agree(group, sbni_bench_force_isa(s.isa)));
    SBN_CHECK(s.blocks <= MOST_BLOCKS, SBN_E_ARG,
              "--blocks: expected 1 to %d, got %" PRId64, MOST_BLOCKS, s.blocks);
    return run(&s, &batches, group);
}
