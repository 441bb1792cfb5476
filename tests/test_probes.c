/* What a run records of itself, against the same computed from its samples and weights in
 * long double. */
#include "support/harness.h"
#include "support/layer.h"
#include "support/net.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "syncbn/data.h"
#include "syncbn/trainer.h"

enum {
    TRAIN = 90,
    BATCH = 40,
    GHOST = 12, /* 12, 12, 12 and 4 samples */
    GHOSTS = 4,
    PIXELS = 28 * 28,
    HIDDEN = 6,
    CLASSES = 10,
    SEED = 5
};

static const char net_text[] = "input 1x28x28\nnorm a\nlinear d out=6\nnorm b\nsigmoid\n"
                               "linear e out=10\nlogsoftmax\n";

static char net_path[4096], out_path[4096];

/* One step of training, and what it recorded; read by process 0 alone. */
static json_t *records_of(sbn_trainer_config cfg)
{
    snprintf(net_path, sizeof net_path, "%s/probes.net", test_folder());
    snprintf(out_path, sizeof out_path, "%s/run", test_folder());
    if (test_rank == 0) {
        FILE *f = fopen(net_path, "w");
        assert_non_null(f);
        fputs(net_text, f);
        fclose(f);
    }
    OK(sbn_group_agree(test_group, SBN_OK)); /* the file is there */
    cfg.net = net_path;
    cfg.out = out_path;
    sbn_trainer_result got;
    OK(sbn_train(&cfg, test_group, &got));
    if (test_rank) return NULL;
    char path[4200], line[1024];
    snprintf(path, sizeof path, "%s/metrics.jsonl", out_path);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    json_t *all = json_array();
    while (fgets(line, sizeof line, f))
        json_array_append_new(all, json_loads(line, 0, 0));
    fclose(f);
    return all;
}

/* Record number `which` of a kind. */
static json_t *record(json_t *all, const char *kind, int which)
{
    size_t i;
    json_t *one;
    json_array_foreach(all, i, one)
    {
        const char *here = json_string_value(json_object_get(one, "kind"));
        if (!strcmp(here, kind) && which-- == 0) return one;
    }
    fail_msg("no record of kind %s", kind);
    return NULL;
}

static double number(json_t *one, const char *key)
{
    json_t *value = json_object_get(one, key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static sbn_trainer_config config(void)
{
    sbn_trainer_config cfg = sbn_trainer_config_default();
    cfg.data = "synthetic";
    cfg.limit_train = TRAIN;
    cfg.limit_test = 10;
    cfg.batch = BATCH;
    cfg.norm_batch = GHOST;
    cfg.steps = 1;
    cfg.seed = SEED;
    cfg.progress = SBN_PROGRESS_NONE;
    return cfg;
}

/* The samples of the first step, and the net before it. */
typedef struct start {
    sbn_model *model;
    float x[BATCH * PIXELS];
    int32_t labels[BATCH];
} start;

static sbn_group *self;

static sbn_model *fresh_model(sbn_model_norm norm)
{
    sbn_model_config cfg = sbn_model_config_default("probes", BATCH);
    cfg.text = net_text;
    cfg.seed = SEED;
    cfg.norm = norm;
    cfg.norm_batch = GHOST;
    return net_make(&cfg, self);
}

static start *start_make(sbn_model_norm norm)
{
    start *s = calloc(1, sizeof *s);
    assert_non_null(s);
    if (!self) OK(sbn_group_create(MPI_COMM_SELF, &self));
    s->model = fresh_model(norm);
    sbn_dataset *data;
    sbn_sampler *sampler;
    const int64_t *index;
    int64_t n;
    sbn_dataset_info info;
    int64_t bytes;
    OK(sbn_dataset_probe("synthetic", SBN_SPLIT_TRAIN, &info, &bytes));
    OK(sbn_dataset_create("synthetic", SBN_SPLIT_TRAIN, &info, NULL, SEED, &data));
    OK(sbn_sampler_create(TRAIN, BATCH, false, SEED, &sampler));
    sbn_sampler_batch(sampler, 0, &index, &n);
    assert_int_equal(n, BATCH);
    sbn_dataset_fetch(data, index, n, s->x, s->labels);
    sbn_sampler_destroy(&sampler);
    sbn_dataset_destroy(&data);
    return s;
}

static void start_free(start *s)
{
    sbn_model_destroy(&s->model);
    free(s);
}

/* One channel's values x[i·stride], BATCH·s of them, s to a sample. */
typedef struct channel {
    const long double *x;
    int64_t s, stride;
} channel;

typedef struct moments {
    long double mean, var;
} moments;

/* Over samples [first, end), value number i of which lies at k·s + i. */
static moments moments_of(channel c, int64_t first, int64_t end)
{
    moments m = {0, 0};
    long double n = (long double)((end - first) * c.s);
    for (int64_t k = first * c.s; k < end * c.s; k++) m.mean += c.x[k * c.stride];
    m.mean /= n;
    for (int64_t k = first * c.s; k < end * c.s; k++)
        m.var += (c.x[k * c.stride] - m.mean) * (c.x[k * c.stride] - m.mean);
    m.var /= n;
    return m;
}

static int64_t end_of(int g)
{
    return (g + 1) * GHOST < BATCH ? (g + 1) * GHOST : BATCH;
}

static void normalize(channel c, long double *y)
{
    for (int g = 0; g < GHOSTS; g++) {
        moments m = moments_of(c, g * GHOST, end_of(g));
        for (int64_t k = g * GHOST * c.s; k < end_of(g) * c.s; k++)
            y[k * c.stride] = (c.x[k * c.stride] - m.mean) / sqrtl(m.var + 1e-5L);
    }
}

/* The net up to its second norm. */
typedef struct values {
    long double x[BATCH * PIXELS], a[BATCH * PIXELS], d[BATCH * HIDDEN],
        b[BATCH * HIDDEN];
} values;

static values *values_of(const start *s)
{
    values *v = calloc(1, sizeof *v);
    assert_non_null(v);
    double *w = net_values(net_tensor(s->model, "d.weight"), SBN_F32),
           *bias = net_values(net_tensor(s->model, "d.bias"), SBN_F32);
    for (int i = 0; i < BATCH * PIXELS; i++) v->x[i] = s->x[i];
    normalize((channel){v->x, PIXELS, 1}, v->a);
    for (int k = 0; k < BATCH; k++)
        for (int o = 0; o < HIDDEN; o++) {
            long double sum = bias[o];
            for (int i = 0; i < PIXELS; i++)
                sum += (long double)w[o * PIXELS + i] * v->a[k * PIXELS + i];
            v->d[k * HIDDEN + o] = sum;
        }
    for (int o = 0; o < HIDDEN; o++) normalize((channel){v->d + o, 1, HIDDEN}, v->b + o);
    free(w);
    free(bias);
    return v;
}

static void check_noise(json_t *one, const char *layer, const long double *x, int64_t s,
                        int channels)
{
    long double mean = 0, var = 0;
    for (int i = 0; i < channels; i++) {
        channel c = {x + i, s, channels};
        moments whole = moments_of(c, 0, BATCH);
        for (int g = 0; g < GHOSTS; g++) {
            moments m = moments_of(c, g * GHOST, end_of(g));
            mean += (m.mean - whole.mean) * (m.mean - whole.mean) / whole.var;
            var += (m.var / whole.var - 1) * (m.var / whole.var - 1);
        }
    }
    int n = GHOSTS * channels;
    assert_string_equal(json_string_value(json_object_get(one, "layer")), layer);
    assert_int_equal((int)number(one, "step"), 1);
    assert_true(mean > 0 && var > 0);
    /* the first layer sees what the test sees, the other float32 of it */
    double tolerance = s > 1 ? 1e-12 : 1e-5;
    CLOSE(number(one, "mean_noise"), (double)sqrtl(mean / n), tolerance);
    CLOSE(number(one, "var_noise"), (double)sqrtl(var / n), tolerance);
}

static void noise_of_statistics(void **state)
{
    (void)state;
    sbn_trainer_config cfg = config();
    cfg.stat_noise = true;
    json_t *all = records_of(cfg);
    if (test_rank) return;
    start *s = start_make(SBN_MODEL_NORM_BATCH);
    values *v = values_of(s);
    check_noise(record(all, "statistics", 0), "a", v->x, PIXELS, 1);
    check_noise(record(all, "statistics", 1), "b", v->d, 1, HIDDEN);
    free(v);
    start_free(s);
    json_decref(all);
}

/* A batch that is its only norm batch differs in nothing from itself. */
static void no_noise_in_one_norm_batch(void **state)
{
    (void)state;
    sbn_trainer_config cfg = config();
    cfg.stat_noise = true;
    cfg.norm_batch = SBN_NORM_BATCH_ALL;
    json_t *all = records_of(cfg);
    for (int k = 0; k < 2 && !test_rank; k++) {
        assert_true(number(record(all, "statistics", k), "mean_noise") == 0);
        assert_true(number(record(all, "statistics", k), "var_noise") == 0);
    }
    json_decref(all);
}

static int ascending(const void *a, const void *b)
{
    long double x = *(const long double *)a, y = *(const long double *)b;
    return (x > y) - (x < y);
}

static void check_percentiles(json_t *one, const long double *x, int64_t stride)
{
    long double sorted[BATCH];
    for (int k = 0; k < BATCH; k++) sorted[k] = x[k * stride];
    qsort(sorted, BATCH, sizeof *sorted, ascending);
    static const char *const keys[] = {"p15", "p50", "p85"};
    /* of 40 values: 5.85, 19.5, 33.15 of the 39 steps between them */
    static const int below[] = {5, 19, 33};
    static const long double part[] = {0.85L, 0.5L, 0.15L};
    for (int i = 0; i < 3; i++) {
        long double want =
            (1 - part[i]) * sorted[below[i]] + part[i] * sorted[below[i] + 1];
        CLOSE(number(one, keys[i]), (double)want, 2e-5);
    }
}

static void percentiles_of_a_unit(void **state)
{
    (void)state;
    const struct {
        const char *track, *layer;
        int unit;
    } cases[] = {{"b:3", "b", 3}, {"b", "b", 0}, {"d:5", "d", 5}, {"a:405", "a", 405}};
    for (int i = 0; i < 4; i++) {
        sbn_trainer_config cfg = config();
        cfg.track = cases[i].track;
        cfg.track_every = 1;
        json_t *all = records_of(cfg);
        if (test_rank) continue;
        start *s = start_make(SBN_MODEL_NORM_BATCH);
        values *v = values_of(s);
        json_t *one = record(all, "activations", 0);
        assert_string_equal(json_string_value(json_object_get(one, "layer")),
                            cases[i].layer);
        assert_int_equal((int)number(one, "unit"), cases[i].unit);
        assert_int_equal((int)number(one, "step"), 1);
        const long double *of = i < 2 ? v->b : i < 3 ? v->d : v->a;
        check_percentiles(one, of + cases[i].unit, i < 3 ? HIDDEN : PIXELS);
        free(v);
        start_free(s);
        json_decref(all);
    }
}

/* Square of a model's gradients, which are added to sum. */
static long double add_gradients(sbn_model *model, long double *sum)
{
    int n;
    long double square = 0;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    for (int i = 0; i < n; i++) {
        if (!t[i].grad) continue;
        double *g = net_grads(&t[i], SBN_F32);
        for (int64_t k = 0; k < t[i].count; k++, sum++) {
            square += (long double)g[k] * g[k];
            *sum += g[k];
        }
        free(g);
    }
    return square;
}

/* By the public calls, a fresh model for each norm batch, and the textbook's equations.
 */
static void check_noise_scale(json_t *one, const start *s, sbn_model_norm norm,
                              const sbn_renorm_schedule *limits)
{
    enum { ROOM = HIDDEN * PIXELS + HIDDEN * CLASSES + 100 };
    long double *sum = calloc(ROOM, sizeof *sum), small = 0, big = 0;
    const int m = BATCH / GHOST;
    for (int g = 0; g < m; g++) {
        sbn_model *model = fresh_model(norm);
        double r_max, d_max;
        sbn_schedule_limits(limits, 1, &r_max, &d_max);
        OK(sbn_model_set_limits(model, r_max, d_max));
        int64_t capacity;
        memcpy(sbn_model_input(model, &capacity), s->x + g * GHOST * PIXELS,
               GHOST * PIXELS * sizeof *s->x);
        sbn_model_result got;
        OK(sbn_model_gradient(model, s->labels + g * GHOST, GHOST, &got));
        small += add_gradients(model, sum) / m;
        sbn_model_destroy(&model);
    }
    for (int k = 0; k < ROOM; k++) big += sum[k] / m * (sum[k] / m);
    free(sum);
    long double b = GHOST, B = m * GHOST, grad_sq = (B * big - b * small) / (B - b),
                trace = (small - big) / (1 / b - 1 / B);
    assert_int_equal((int)number(one, "step"), 1);
    assert_int_equal((int)number(one, "small"), GHOST);
    assert_int_equal((int)number(one, "big"), m * GHOST);
    CLOSE(number(one, "grad_sq"), (double)grad_sq, 1e-9 * (double)(small + big));
    CLOSE(number(one, "trace"), (double)trace, 1e-9 * (double)trace);
    CLOSE(number(one, "noise_scale"), number(one, "trace") / number(one, "grad_sq"), 0);
}

static void noise_of_gradients(void **state)
{
    (void)state;
    static const sbn_model_norm norms[] = {SBN_MODEL_NORM_BATCH, SBN_MODEL_NORM_RENORM,
                                           SBN_MODEL_NORM_NONE};
    for (int i = 0; i < 3; i++) {
        sbn_trainer_config cfg = config();
        cfg.norm = norms[i];
        cfg.renorm = (sbn_renorm_schedule){3, 5, 0, 0, 0}; /* open from the first step */
        cfg.noise_scale = 1;
        json_t *all = records_of(cfg);
        if (test_rank) continue;
        start *s = start_make(norms[i]);
        check_noise_scale(record(all, "noise_scale", 0), s, norms[i], &cfg.renorm);
        start_free(s);
        json_decref(all);
    }
}

static void what_cannot_be_measured(void **state)
{
    (void)state;
    sbn_trainer_result got;
    static const char *const tracks[] = {"c", "", ":3", "b:", "b:6", "b:-1", "b:2x"};
    for (size_t i = 0; i < sizeof tracks / sizeof *tracks; i++) {
        sbn_trainer_config cfg = config();
        cfg.net = net_path;
        cfg.track = tracks[i];
        FAILS(SBN_E_ARG, sbn_train(&cfg, test_group, &got));
        assert_non_null(strstr(sbn_last_error(), "track: expected "));
    }
    for (int i = 0; i < 3; i++) {
        sbn_trainer_config cfg = config();
        cfg.net = net_path;
        cfg.noise_scale = i < 2 ? 1 : -1;
        cfg.norm_batch = i ? BATCH / 2 + 1 : SBN_NORM_BATCH_ALL;
        FAILS(SBN_E_ARG, sbn_train(&cfg, test_group, &got));
    }
    sbn_trainer_config cfg = config();
    cfg.track_every = 0;
    FAILS(SBN_E_ARG, sbn_train(&cfg, test_group, &got));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(noise_of_statistics),
    cmocka_unit_test(no_noise_in_one_norm_batch),
    cmocka_unit_test(percentiles_of_a_unit),
    cmocka_unit_test(noise_of_gradients),
    cmocka_unit_test(what_cannot_be_measured),
};
TEST_MAIN(tests)
