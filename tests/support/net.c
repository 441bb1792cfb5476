#include "support/net.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "support/harness.h"
#include "support/layer.h"

net_batch net_batch_make(const sbn_model *model, int64_t n, uint64_t seed)
{
    sbn_tensor in = sbn_model_input_shape(model);
    int64_t pixels = in.c * in.h * in.w, classes = sbn_model_classes(model);
    net_batch b = {n, pixels, calloc((size_t)(n * pixels + 1), sizeof *b.x),
                   calloc((size_t)(n + 1), sizeof *b.labels)};
    sbni_rng_key key = {.seed = seed, .purpose = SBNI_RNG_TEST};
    for (int64_t r = 0; r < n; r++) {
        double mean = sbni_rng_normal(key, (uint64_t)r, 0);
        b.labels[r] = (int32_t)(sbni_rng_u64(key, (uint64_t)r, 1) % (uint64_t)classes);
        for (int64_t i = 0; i < pixels; i++)
            b.x[r * pixels + i] =
                (double)(float)(mean +
                                sbni_rng_normal(key, (uint64_t)(r * pixels + i), 2));
    }
    return b;
}

void net_batch_free(net_batch *b)
{
    free(b->x);
    free(b->labels);
}

sbn_model *net_make(const sbn_model_config *cfg, sbn_group *group)
{
    sbn_model *model = NULL;
    OK(sbn_model_create(cfg, group, &model));
    return model;
}

void net_fill(sbn_model *model, sbn_dtype dtype, const net_batch *b, int64_t first,
              int64_t n)
{
    int64_t capacity;
    void *to = sbn_model_input(model, &capacity);
    assert_true(n <= capacity);
    for (int64_t i = 0; i < n * b->pixels; i++)
        set_element(dtype, to, i, b->x[first * b->pixels + i]);
}

sbn_status net_gradient(sbn_model *model, sbn_dtype dtype, const net_batch *b,
                        int64_t total, sbn_model_result *got)
{
    int64_t first, n;
    OK(sbn_model_share(model, total, &first, &n));
    net_fill(model, dtype, b, first, n);
    return sbn_model_gradient(model, b->labels + first, total, got);
}

const sbn_model_tensor *net_tensor(const sbn_model *model, const char *name)
{
    int n;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    for (int i = 0; i < n; i++)
        if (!strcmp(t[i].name, name)) return &t[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static double *copy(const void *from, int64_t n, sbn_dtype dtype)
{
    double *to = calloc((size_t)n + 1, sizeof *to);
    for (int64_t i = 0; i < n; i++) to[i] = element(dtype, from, i);
    return to;
}

double *net_values(const sbn_model_tensor *t, sbn_dtype dtype)
{
    return copy(t->data, t->count, dtype);
}

double *net_grads(const sbn_model_tensor *t, sbn_dtype dtype)
{
    return copy(t->grad, t->count, dtype);
}

double net_grid_error(sbn_model *model, const char *name, int64_t slices)
{
    int n, exponents, at = 0;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    const int64_t *exponent = sbn_model_grad_exponents(model, &exponents);
    int params = 0;
    while (params < n && t[params].grad) params++;
    bool groups = exponents == params; /* group norm's gradients are summed like others */
    for (int i = 0; i < params; i++) {
        /* one exponent for each weight and bias of conv and linear, in the net's order;
         * the weight of a norm layer has one axis and does not decay */
        bool norm = t[i].decays ? false : i % 2 == 0 || !t[i - 1].decays;
        norm &= !groups;
        if (!strcmp(t[i].name, name))
            return norm ? 0 : 0.5 * (double)slices * ldexp(1, (int)exponent[at]);
        at += !norm;
    }
    fail_msg("no parameter %s", name);
    return 0;
}

static double loss_with(sbn_model *model, const net_batch *b, int64_t total,
                        double *weight, double value)
{
    sbn_model_result got;
    double old = *weight;
    *weight = value;
    sbn_model_set_step(model, 3); /* masks of dropout are held fixed */
    OK(net_gradient(model, SBN_F64, b, total, &got));
    *weight = old;
    return got.loss;
}

void net_differentiate(sbn_model_config cfg, int64_t total, double h)
{
    sbn_model *model = net_make(&cfg, test_group);
    net_batch b = net_batch_make(model, total, 4);
    sbn_model_result got;
    int n;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    for (int i = 0; i < n && t[i].grad; i++) {
        sbn_model_set_step(model, 3);
        OK(net_gradient(model, SBN_F64, &b, total, &got));
        double *grad = net_grads(&t[i], SBN_F64), *weight = t[i].data;
        double grid = net_grid_error(model, t[i].name, total);
        for (int64_t k = 0; k < t[i].count; k += 1 + t[i].count / 7) {
            double slope[2];
            for (int s = 0; s < 2; s++) {
                double step = h / (2 - s), w = weight[k];
                double up = loss_with(model, &b, total, weight + k, w + step),
                       down = loss_with(model, &b, total, weight + k, w - step);
                slope[s] = (up - down) / (2 * step);
            }
            test_close(grad[k], (4 * slope[0] - slope[1]) / 3, 2e-8 + grid, t[i].name,
                       cfg.text, (int)total);
        }
        free(grad);
    }
    net_batch_free(&b);
    sbn_model_destroy(&model);
}

void net_expect_layers(const sbni_net *net, const char *want)
{
    static const char *const kinds[] = {"conv",    "linear", "norm",      "maxpool",
                                        "avgpool", "relu",   "sigmoid",   "dropout",
                                        "block",   "end",    "logsoftmax"};
    char got[4096] = "";
    for (int i = 0; i < net->count; i++) {
        const sbni_layer_spec *l = &net->layers[i];
        char line[128];
        char rate[32] = "";
        if (l->kind == SBNI_LAYER_DROPOUT) snprintf(rate, sizeof rate, "p=%g ", l->rate);
        snprintf(line, sizeof line, "%s %s %d %d %d %d %s%s@%d\n", kinds[l->kind],
                 l->name, (int)l->out, (int)l->kernel, (int)l->stride, (int)l->pad, rate,
                 l->shortcut ? "beside " : "", l->line);
        strcat(got, line);
    }
    assert_string_equal(got, want);
}

int64_t *net_exponents(sbn_model *model, int *n)
{
    const int64_t *exponent = sbn_model_grad_exponents(model, n);
    int64_t *to = calloc((size_t)*n + 1, sizeof *to);
    memcpy(to, exponent, (size_t)*n * sizeof *to);
    return to;
}
