#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "cli/bench_norm.h"
#include "comm/group.h"
#include "core/memory.h"
#include "kernels/kernels.h"
#include "syncbn/norm.h"

enum { MOST_ISAS = 4 };
static const double SAMPLE_S = 1e-3;

/* One case, and all that measuring takes. Buffers are as large as the largest case. */
typedef struct bench {
    const sbni_bench_plan *p;
    const sbni_bench_report *report;
    sbn_group *alone;
    void *x, *out, *dy, *z, *dz;
    double *seconds; /* [works][rounds], and as many ratios as rounds */
    bool plots;
    sbni_bench_point *points;
    int n_points;
    int64_t most; /* elements of the largest case */

    const sbni_bench_shape *shape;
    int layout, pass, threads;
    sbn_dtype dtype;
    sbn_norm *norm;
    int64_t bytes; /* of x */
    sbn_tensor tx, tout, tdy, tz, tdz;
} bench;

static sbn_status allocate(bench *b)
{
    int64_t most = b->most, size = 0;
    /* layouts that fit, passes, types and instruction sets of a shape */
    int64_t cases = (int64_t)b->p->shapes.n * b->p->threads.n * 2 * 2 * 3 * MOST_ISAS;
    for (int d = 0; sbni_bench_dtypes[d]; d++)
        if ((b->p->dtypes >> d & 1) && sbn_dtype_bytes((sbn_dtype)d) > size)
            size = sbn_dtype_bytes((sbn_dtype)d);
    bool backward = b->p->passes >> SBNI_BENCH_BACKWARD & 1;
    SBN_TRY(sbni_alloc(most, size, "x", &b->x));
    SBN_TRY(sbni_alloc(most, size, "y and dx", &b->out));
    if (backward) SBN_TRY(sbni_alloc(most, size, "dy", &b->dy));
    if (b->p->add) SBN_TRY(sbni_alloc(most, size, "z", &b->z));
    if (b->p->add && backward) SBN_TRY(sbni_alloc(most, size, "dz", &b->dz));
    SBN_TRY(
        sbni_alloc(4 * (int64_t)b->p->rounds, sizeof(double), "samples", &b->seconds));
    if (b->plots) SBN_TRY(sbni_alloc(cases, sizeof *b->points, "points", &b->points));
    return sbni_group_alone(&b->alone);
}

static void free_all(bench *b)
{
    void *parts[] = {b->x, b->out, b->dy, b->z, b->dz, b->seconds};
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
    if (b->pass == SBNI_BENCH_FORWARD)
        return b->p->add ? sbn_norm_forward_add(b->norm, &b->tx, &b->tz, &b->tout)
                         : sbn_norm_forward(b->norm, &b->tx, &b->tout);
    return b->p->add ? sbn_norm_backward_add(b->norm, &b->tdy, &b->tout, &b->tdz)
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

/* Bytes that the pass cannot do without: each tensor read or written once. */
static double traffic(const bench *b)
{
    double tensors = b->pass == SBNI_BENCH_FORWARD ? 2 : 3; /* x, y; x, dy, dx */
    if (b->p->add)
        tensors += b->pass == SBNI_BENCH_FORWARD ? 1
                   : b->p->relu                  ? 2
                                                 : 1; /* z; dz, and z */
    return tensors * (double)b->bytes;
}

/* What was measured, of each a sample a round. */
typedef struct result {
    sbni_bench_spread pass_s, copy_s, ratio, speedup;
} result;

static result result_of(const bench *b)
{
    int rounds = b->p->rounds;
    double *copy = b->seconds, *pass = copy + rounds, *one = pass + rounds,
           *ratios = one + rounds;
    result r = {0};
    for (int i = 0; i < rounds; i++) ratios[i] = one[i] / pass[i];
    if (b->threads > 1) r.speedup = sbni_bench_spread_of(ratios, rounds);
    for (int i = 0; i < rounds; i++) ratios[i] = pass[i] / copy[i];
    r.ratio = sbni_bench_spread_of(ratios, rounds);
    r.pass_s = sbni_bench_spread_of(pass, rounds);
    r.copy_s = sbni_bench_spread_of(copy, rounds);
    return r;
}

static json_t *facts_of(const bench *b, const result *r)
{
    json_t *facts = json_pack(
        "{s:s s:s s:s s:s s:s s:o s:s s:f s:f s:f s:f s:f s:i s:s s:i}", "kind", "bench",
        "what", "norm", "pass", sbni_bench_passes[b->pass], "layout",
        sbni_bench_layouts[b->layout], "dtype", sbni_bench_dtypes[b->dtype], "shape",
        sbni_bench_shape_json(b->shape), "isa", sbni_kernels_get(SBN_F32)->isa, "seconds",
        r->pass_s.median, "memcpy_seconds", r->copy_s.median, "ratio", r->ratio.median,
        "ratio_p10", r->ratio.p10, "ratio_p90", r->ratio.p90, "threads", b->threads,
        "fused", b->p->fused, "pairs", b->p->rounds);
    if (facts && b->p->mean != 0)
        json_object_set_new(facts, "mean", json_real(b->p->mean));
    if (!facts || b->threads == 1) return facts;
    json_object_set_new(facts, "speedup", json_real(r->speedup.median));
    json_object_set_new(facts, "speedup_p10", json_real(r->speedup.p10));
    json_object_set_new(facts, "speedup_p90", json_real(r->speedup.p90));
    return facts;
}

static void add_point(bench *b, const result *r)
{
    sbni_bench_point *at = &b->points[b->n_points++];
    const sbni_bench_plan *p = b->p;
    char more[40] = "", dtype[8] = "", isa[12] = "", threads[16] = "";
    /* a series says what others differ in */
    if (p->dtypes & (p->dtypes - 1))
        snprintf(dtype, sizeof dtype, " %s", sbni_bench_dtypes[b->dtype]);
    if (p->isas & (p->isas - 1))
        snprintf(isa, sizeof isa, " %s", sbni_kernels_get(SBN_F32)->isa);
    if (p->threads.n > 1) snprintf(threads, sizeof threads, " x%d", b->threads);
    snprintf(more, sizeof more, "%s%s%s", dtype, isa, threads);
    snprintf(at->series, sizeof at->series, "%s %s%s", sbni_bench_passes[b->pass],
             sbni_bench_layouts[b->layout], more);
    at->backward = b->pass == SBNI_BENCH_BACKWARD;
    at->bytes = (double)b->bytes;
    at->speed = traffic(b) / r->pass_s.median;
    at->copy = 2 * (double)b->bytes / r->copy_s.median;
}

static sbn_status report_case(bench *b)
{
    result r = result_of(b);
    char row[320], shape[SBNI_BENCH_SHAPE_BYTES], pass[SBNI_BENCH_CELL],
        copy[SBNI_BENCH_CELL], ratio[SBNI_BENCH_CELL], faster[SBNI_BENCH_CELL] = "";
    sbni_bench_print_shape(b->shape, shape);
    sbni_bench_print_time(r.pass_s.median, pass);
    sbni_bench_print_time(r.copy_s.median, copy);
    sbni_bench_print_spread(r.ratio, ratio);
    if (b->threads > 1) sbni_bench_print_spread(r.speedup, faster);
    int n =
        snprintf(row, sizeof row, "%-8s  %-6s  %-5s  %-6s  %-14s  %3d  %9s  %9s  %-19s",
                 sbni_bench_passes[b->pass], sbni_bench_layouts[b->layout],
                 sbni_bench_dtypes[b->dtype], sbni_kernels_get(SBN_F32)->isa, shape,
                 b->threads, pass, copy, ratio);
    if (b->p->speedups) snprintf(row + n, sizeof row - (size_t)n, "  %-16s", faster);
    if (b->points) add_point(b, &r);
    return sbni_bench_report_case(b->report, facts_of(b, &r), row);
}

static sbn_status measure(bench *b)
{
    b->bytes = sbni_bench_elements(b->shape) * sbn_dtype_bytes(b->dtype);
    b->tx = sbni_bench_view(b->shape, b->layout, b->dtype, b->x);
    b->tout = sbni_bench_view(b->shape, b->layout, b->dtype, b->out);
    b->tdy = sbni_bench_view(b->shape, b->layout, b->dtype, b->dy);
    b->tz = sbni_bench_view(b->shape, b->layout, b->dtype, b->z);
    b->tdz = sbni_bench_view(b->shape, b->layout, b->dtype, b->dz);
    sbn_norm_config cfg = sbn_norm_config_default(b->shape->size[1]);
    cfg.dtype = b->dtype;
    cfg.relu = b->p->relu;
    omp_set_num_threads(b->threads);
    SBN_TRY(sbn_norm_create(&cfg, b->alone, &b->norm));
    sbn_status status = SBN_OK;
    if (b->pass == SBNI_BENCH_BACKWARD) { /* what it is the backward of */
        b->pass = SBNI_BENCH_FORWARD;
        status = run_pass(b, b->threads);
        b->pass = SBNI_BENCH_BACKWARD;
    }
    sbni_bench_work works[] = {{run_copy, b}, {run_threads, b}, {run_one, b}};
    if (status == SBN_OK)
        status = sbni_bench_measure(works, b->threads > 1 ? 3 : 2, b->p->rounds, SAMPLE_S,
                                    NULL, b->seconds);
    if (status == SBN_OK) status = report_case(b);
    sbn_norm_destroy(&b->norm);
    return status;
}

/* All cases of a shape and a type. */
static sbn_status measure_shape(bench *b)
{
    const char *const *isas = sbni_kernels_isas();
    for (b->layout = 0; sbni_bench_layouts[b->layout]; b->layout++) {
        if (!(b->p->layouts >> b->layout & 1) || !sbni_bench_fits(b->shape, b->layout))
            continue;
        for (b->pass = 0; sbni_bench_passes[b->pass]; b->pass++) {
            if (!(b->p->passes >> b->pass & 1)) continue;
            for (int i = 0; isas[i]; i++) {
                if (b->p->isas ? !(b->p->isas >> i & 1) : i > 0) continue;
                if (b->p->isas) SBN_TRY(sbni_bench_force_isa(isas[i]));
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
    for (int i = 0; i < b->p->shapes.n; i++) {
        int64_t n = sbni_bench_elements(&b->p->shapes.shape[i]);
        if (n > b->most) b->most = n;
    }
    SBN_TRY(allocate(b));
    for (int d = 0; sbni_bench_dtypes[d]; d++) {
        if (!(b->p->dtypes >> d & 1)) continue;
        b->dtype = (sbn_dtype)d;
        void *const inputs[] = {b->x, b->dy, b->z};
        for (uint32_t i = 0; i < 3; i++)
            if (inputs[i])
                sbni_bench_fill(inputs[i], b->dtype, b->most, i, i == 0 ? b->p->mean : 0);
        for (int i = 0; i < b->p->shapes.n; i++) {
            b->shape = &b->p->shapes.shape[i];
            SBN_TRY(measure_shape(b));
        }
    }
    return SBN_OK;
}

sbn_status sbni_bench_run_passes(const sbni_bench_plan *plan,
                                 const sbni_bench_report *report, bool plots,
                                 sbni_bench_point **points, int *n_points)
{
    bench b = {.p = plan, .report = report, .plots = plots};
    sbn_status status = measure_all(&b);
    free_all(&b);
    *points = b.points;
    *n_points = b.n_points;
    return status;
}
