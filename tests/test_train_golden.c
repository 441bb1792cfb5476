#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/layer.h"
#include "support/net.h"
#include "syncbn/optim.h"
#include "train/safetensors.h"

/*
 * Twenty steps of article, mlp and a small residual net against PyTorch's in float64;
 * golden/README.md has the files. Tolerances:
 *
 * float32: what float32 can reach is measured, not derived: PyTorch's own float32 run
 * deviates from its float64 run by metadata "deviation.…". Our sums are ordered
 * otherwise, so we may deviate differently but not much more: SLACK times as far.
 *
 * float64: PyTorch and we round at 2^-53; a chain of a few thousand products and sums,
 * through norms that divide by deviations near 1, leaves below 1e-12 of the largest
 * gradient. Beside it stands the grid of the gradient sums: each of SLICES slices is
 * rounded to 2^exponent, at most half a unit wrong. An exponent leaves the largest slice
 * at least 27 bits, so that is at most SLICES/2·2^-27 = 2^-27 of a tensor's largest
 * gradient in the worst case; the test takes the exponent that the model really has
 * (here up to 4e-11 of the largest). Such gradients, about 0.1, move the weights in 20
 * steps by at most 20·lr/(1 - momentum)·4e-12 = 4e-11, and losses, means and variances
 * by no more than twice that: FAR.
 */
enum { BATCH = 24, BATCHES = 4, STEPS = 20, SLICES = 2 };
static const double SLACK = 4, ROUND_OFF = 1e-12, FAR = 1e-10;

/* The net of train_residual.safetensors. */
static const char *const residual = "input 1x28x28\n"
                                    "conv stem out=4 kernel=3 stride=2 pad=1\n"
                                    "norm stem_bn\n"
                                    "relu\n"
                                    "block one\n"
                                    "conv one_conv1 out=4 kernel=3 pad=1\n"
                                    "norm one_bn1\n"
                                    "relu\n"
                                    "conv one_conv2 out=4 kernel=3 pad=1\n"
                                    "norm one_bn2\n"
                                    "end\n"
                                    "relu\n"
                                    "block two out=8 stride=2\n"
                                    "conv two_conv1 out=8 kernel=3 stride=2 pad=1\n"
                                    "norm two_bn1\n"
                                    "relu\n"
                                    "conv two_conv2 out=8 kernel=3 pad=1\n"
                                    "norm two_bn2\n"
                                    "end\n"
                                    "relu\n"
                                    "avgpool\n"
                                    "linear dense out=10\n"
                                    "logsoftmax\n";

typedef struct golden {
    const char *net;
    sbn_dtype dtype;
    sbni_st_file *file;
    sbn_model *model;
    net_batch batch[BATCHES];
} golden;

static const sbni_st_tensor *stored(const golden *g, const char *prefix, const char *name,
                                    const char *dtype)
{
    char key[128];
    snprintf(key, sizeof key, "%s%s", prefix, name);
    const sbni_st_tensor *t = sbni_st_find(g->file, key);
    if (!t) fail_msg("%s is not in the golden file", key);
    if (dtype) assert_string_equal(t->dtype, dtype);
    return t;
}

/* Element i of a stored tensor of either float type. */
static double stored_value(const sbni_st_tensor *t, int64_t i)
{
    return element(strcmp(t->dtype, "F64") ? SBN_F32 : SBN_F64, t->data, i);
}

static double metadata(const golden *g, const char *prefix, const char *name)
{
    char key[128];
    snprintf(key, sizeof key, "%s%s", prefix, name);
    const char *text = sbni_st_metadata(g->file, key);
    if (!text) fail_msg("%s is not in the golden file", key);
    return strtod(text, NULL);
}

static void load_state(const golden *g)
{
    int n;
    const sbn_model_tensor *t = sbn_model_tensors(g->model, &n);
    for (int i = 0; i < n; i++) {
        const sbni_st_tensor *s =
            stored(g, "", t[i].name, t[i].is_integer ? "I64" : "F32");
        assert_int_equal(s->axes, t[i].axes);
        for (int a = 0; a < s->axes; a++) assert_int_equal(s->shape[a], t[i].shape[a]);
        if (t[i].is_integer)
            memcpy(t[i].data, s->data, 8);
        else
            for (int64_t k = 0; k < t[i].count; k++)
                set_element(g->dtype, t[i].data, k, stored_value(s, k));
    }
}

static void load_batches(golden *g)
{
    const uint8_t *images = stored(g, "", "images", "U8")->data;
    const int64_t *labels = stored(g, "", "labels", "I64")->data;
    for (int b = 0; b < BATCHES; b++) {
        g->batch[b] = net_batch_make(g->model, BATCH, 1);
        int64_t pixels = g->batch[b].pixels;
        for (int64_t i = 0; i < BATCH * pixels; i++)
            g->batch[b].x[i] = (double)((float)images[b * BATCH * pixels + i] / 255.0f);
        for (int i = 0; i < BATCH; i++)
            g->batch[b].labels[i] = (int32_t)labels[b * BATCH + i];
    }
}

static golden begin(const char *net, sbn_dtype dtype)
{
    golden g = {.net = net, .dtype = dtype};
    char path[512];
    snprintf(path, sizeof path, "%s/train_%s.safetensors", GOLDEN_DIR, net);
    OK(sbni_st_open(path, &g.file));
    sbn_model_config cfg = sbn_model_config_default(net, BATCH);
    cfg.dtype = dtype;
    if (!strcmp(net, "residual")) cfg.text = residual;
    g.model = net_make(&cfg, test_group);
    load_state(&g);
    load_batches(&g);
    return g;
}

static void end(golden *g)
{
    for (int b = 0; b < BATCHES; b++) net_batch_free(&g->batch[b]);
    sbn_model_destroy(&g->model);
    sbni_st_close(&g->file);
}

/* Largest stored gradient of the layer of a parameter, its weight's and its bias'. */
static double layer_unit(const golden *g, const char *name)
{
    static const char *const parts[] = {"weight", "bias"};
    double unit = 0;
    for (int p = 0; p < 2; p++) {
        char other[64];
        snprintf(other, sizeof other, "%.*s.%s", (int)strcspn(name, "."), name, parts[p]);
        const sbni_st_tensor *t = stored(g, "grad.", other, NULL);
        for (int64_t i = 0; i < net_tensor(g->model, other)->count; i++)
            unit = fmax(unit, fabs(stored_value(t, i)));
    }
    return unit;
}

/* The larger of the deviations of a layer's weight and bias. */
static double layer_deviation(const golden *g, const char *name)
{
    char weight[64], bias[64];
    snprintf(weight, sizeof weight, "%.*s.weight", (int)strcspn(name, "."), name);
    snprintf(bias, sizeof bias, "%.*s.bias", (int)strcspn(name, "."), name);
    return fmax(metadata(g, "deviation.grad.", weight),
                metadata(g, "deviation.grad.", bias));
}

static double show(const char *what, const char *name, double worst, double allowed)
{
    print_message("%s %s: %.3g, allowed %.3g\n", what, name, worst, allowed);
    return worst;
}

static void compare_gradients(const golden *g)
{
    int n;
    const sbn_model_tensor *t = sbn_model_tensors(g->model, &n);
    for (int i = 0; i < n && t[i].grad; i++) {
        const sbni_st_tensor *want = stored(g, "grad.", t[i].name, NULL);
        double unit = layer_unit(g, t[i].name), worst = 0;
        double grid = net_grid_error(g->model, t[i].name, SLICES);
        double allowed = g->dtype == SBN_F64
                             ? ROUND_OFF * unit + grid
                             : SLACK * layer_deviation(g, t[i].name) * unit;
        /* the expected value itself is rounded to float32 in one tensor */
        if (!strcmp(want->dtype, "F32")) allowed += 0x1p-24 * unit;
        for (int64_t k = 0; k < t[i].count; k++)
            worst = fmax(worst,
                         fabs(element(g->dtype, t[i].grad, k) - stored_value(want, k)));
        show("gradient of", t[i].name, worst / unit, allowed / unit);
        assert_true(worst <= allowed);
    }
}

/* Steps of SGD, each with the loss before it. */
static void compare_steps(const golden *g, int steps)
{
    int n, params = 0;
    const sbn_model_tensor *t = sbn_model_tensors(g->model, &n);
    sbn_optimizer_tensor list[32];
    for (; t[params].grad; params++)
        list[params] = (sbn_optimizer_tensor){t[params].data, t[params].grad,
                                              t[params].count, t[params].decays};
    sbn_optimizer_config cfg = {.momentum = 0.9, .dtype = g->dtype};
    sbn_optimizer *sgd = NULL;
    OK(sbn_optimizer_create(&cfg, list, params, &sgd));
    const double *losses = stored(g, "", "losses", "F64")->data;
    double worst = 0;
    double allowed =
        g->dtype == SBN_F64 ? FAR : SLACK * metadata(g, "deviation.", "losses");
    for (int step = 0; step < steps; step++) {
        sbn_model_result got;
        OK(net_gradient(g->model, g->dtype, &g->batch[step % BATCHES], BATCH, &got));
        if (step == 0) compare_gradients(g);
        worst = fmax(worst, fabs(got.loss - losses[step]) / losses[step]);
        sbn_optimizer_step(sgd, 1, 0.05);
    }
    show(g->net, "losses", worst, allowed);
    assert_true(worst <= allowed);
    sbn_optimizer_destroy(&sgd);
}

static void compare_buffers(const golden *g)
{
    int n;
    const sbn_model_tensor *t = sbn_model_tensors(g->model, &n);
    for (int i = 0; i < n; i++) {
        if (t[i].grad) continue;
        const sbni_st_tensor *want = stored(g, "final.", t[i].name, NULL);
        if (t[i].is_integer) {
            assert_memory_equal(t[i].data, want->data, 8);
            continue;
        }
        double unit = 0, worst = 0;
        for (int64_t k = 0; k < t[i].count; k++) {
            unit = fmax(unit, fabs(stored_value(want, k)));
            worst = fmax(worst,
                         fabs(element(g->dtype, t[i].data, k) - stored_value(want, k)));
        }
        double allowed =
            g->dtype == SBN_F64 ? FAR : SLACK * metadata(g, "deviation.", "final");
        show("final", t[i].name, worst / unit, allowed);
        assert_true(worst <= allowed * unit);
    }
}

/* Every process evaluates the whole batches alone. */
static void compare_evaluation(const golden *g)
{
    const double *losses = stored(g, "", "eval_losses", "F64")->data;
    double worst = 0;
    double allowed =
        g->dtype == SBN_F64 ? FAR : SLACK * metadata(g, "deviation.", "eval_losses");
    for (int b = 0; b < BATCHES; b++) {
        uint64_t words[4] = {0};
        int64_t correct = 0;
        net_fill(g->model, g->dtype, &g->batch[b], 0, BATCH);
        OK(sbn_model_evaluate(g->model, g->batch[b].labels, BATCH, words, &correct));
        worst = fmax(worst, fabs(sbn_model_loss(words) / BATCH - losses[b]) / losses[b]);
    }
    show(g->net, "evaluation", worst, allowed);
    assert_true(worst <= allowed);
}

static void compare(const char *net, sbn_dtype dtype)
{
    golden g = begin(net, dtype);
    compare_steps(&g, STEPS);
    compare_buffers(&g);
    compare_evaluation(&g);
    end(&g);
}

/* Twenty steps have a relu or other that float32's rounding decides. */
static void residual_in_float32(void **state)
{
    (void)state;
    golden g = begin("residual", SBN_F32);
    compare_steps(&g, 1);
    end(&g);
}

static void residual_in_float64(void **state)
{
    (void)state;
    compare("residual", SBN_F64);
}

static void article_in_float32(void **state)
{
    (void)state;
    compare("article", SBN_F32);
}

static void article_in_float64(void **state)
{
    (void)state;
    compare("article", SBN_F64);
}

static void mlp_in_float32(void **state)
{
    (void)state;
    compare("mlp", SBN_F32);
}

static void mlp_in_float64(void **state)
{
    (void)state;
    compare("mlp", SBN_F64);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(article_in_float32),  cmocka_unit_test(article_in_float64),
    cmocka_unit_test(mlp_in_float32),      cmocka_unit_test(mlp_in_float64),
    cmocka_unit_test(residual_in_float32), cmocka_unit_test(residual_in_float64),
};
TEST_MAIN(tests)
