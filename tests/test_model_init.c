#include "support/harness.h"

#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/layer.h"
#include "support/net.h"

/* Initial weights: uniform in ±1/sqrt(fan_in), a function of seed and tensor alone. */

static const char *const net = "input 3x8x8\n"
                               "conv c out=40 kernel=5\n"
                               "norm n\n"
                               "relu\n"
                               "linear d out=60\n"
                               "norm m\n"
                               "linear e out=10\n"
                               "logsoftmax\n";
static const struct {
    const char *weight, *bias;
    int64_t out, fan_in;
} layers[] = {{"c.weight", "c.bias", 40, 75},
              {"d.weight", "d.bias", 60, 640},
              {"e.weight", "e.bias", 10, 60}};

static sbn_model *make(const char *text, sbn_model_norm norm, uint64_t seed,
                       sbn_dtype dtype)
{
    sbn_model_config cfg = sbn_model_config_default("test", 32);
    cfg.text = text;
    cfg.norm = norm;
    cfg.seed = seed;
    cfg.dtype = dtype;
    return net_make(&cfg, test_group);
}

static void expect_uniform(const sbn_model_tensor *t, int64_t fan_in)
{
    double *v = net_values(t, SBN_F64), n = (double)t->count,
           bound = 1 / sqrt((double)fan_in);
    double sum = 0, sum_square = 0, largest = 0;
    for (int64_t i = 0; i < t->count; i++) {
        sum += v[i];
        sum_square += v[i] * v[i];
        largest = fmax(largest, fabs(v[i]));
    }
    assert_true(largest <= bound);
    /* the largest of n is below bound·(1 - 20/n) once in e^20 */
    assert_true(largest > bound * (1 - 20 / n));
    /* five standard errors: variances bound²/3 of a value, 4/45·bound⁴ of its square */
    CLOSE(sum / n, 0, 5 * bound / sqrt(3 * n));
    CLOSE(sum_square / n, bound * bound / 3, 5 * bound * bound * sqrt(4 / (45 * n)));
    free(v);
}

static void uniform_by_fan_in(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        sbn_model *model = make(net, SBN_MODEL_NORM_BATCH, seed, SBN_F64);
        for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
            const sbn_model_tensor *w = net_tensor(model, layers[i].weight),
                                   *b = net_tensor(model, layers[i].bias);
            assert_int_equal(w->count, layers[i].out * layers[i].fan_in);
            assert_int_equal(b->count, layers[i].out);
            assert_true(w->decays && !b->decays);
            expect_uniform(w, layers[i].fan_in);
            expect_uniform(b, layers[i].fan_in);
        }
        sbn_model_destroy(&model);
    }
}

/* A scale multiplies the weights and nothing else, to the bit where it is a power of 2.
 */
static void scaled_weights(void **state)
{
    (void)state;
    sbn_model_config cfg = sbn_model_config_default("test", 32);
    cfg.text = net;
    sbn_model *plain = net_make(&cfg, test_group);
    cfg.init_scale = 0.25;
    sbn_model *scaled = net_make(&cfg, test_group);
    int n;
    const sbn_model_tensor *a = sbn_model_tensors(plain, &n),
                           *b = sbn_model_tensors(scaled, &n);
    for (int i = 0; i < n && a[i].grad; i++) {
        const float *p = a[i].data, *s = b[i].data;
        for (int64_t k = 0; k < a[i].count; k++)
            assert_true(s[k] == (a[i].decays ? 0.25f * p[k] : p[k]));
    }
    sbn_model_destroy(&plain);
    sbn_model_destroy(&scaled);
}

static void gaussian_weights(void **state)
{
    (void)state;
    const double sigma = 0.05;
    sbn_model_config cfg = sbn_model_config_default("test", 32);
    cfg.text = net;
    cfg.dtype = SBN_F64;
    cfg.init_sigma = sigma;
    sbn_model *model = net_make(&cfg, test_group);
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        const sbn_model_tensor *w = net_tensor(model, layers[i].weight),
                               *b = net_tensor(model, layers[i].bias);
        const double *v = w->data, *bias = b->data;
        double n = (double)w->count, sum = 0, square = 0, fourth = 0;
        for (int64_t k = 0; k < w->count; k++) {
            sum += v[k];
            square += v[k] * v[k];
            fourth += pow(v[k], 4);
        }
        /* five standard errors of the moments of a Gaussian */
        CLOSE(sum / n, 0, 5 * sigma / sqrt(n));
        CLOSE(square / n, sigma * sigma, 5 * sigma * sigma * sqrt(2 / n));
        CLOSE(fourth / n, 3 * pow(sigma, 4), 5 * pow(sigma, 4) * sqrt(96 / n));
        for (int64_t k = 0; k < b->count; k++) assert_true(bias[k] == 0);
    }
    sbn_model_destroy(&model);
}

static void norm_starts_as_the_identity(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double value;
    } cases[] = {{"n.weight", 1},       {"n.bias", 0},       {"n.running_mean", 0},
                 {"n.running_var", 1},  {"m.weight", 1},     {"m.bias", 0},
                 {"m.running_mean", 0}, {"m.running_var", 1}};
    sbn_model *model = make(net, SBN_MODEL_NORM_BATCH, 1, SBN_F32);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const sbn_model_tensor *t = net_tensor(model, cases[i].name);
        assert_false(t->decays);
        assert_int_equal(t->count, cases[i].name[0] == 'n' ? 40 : 60);
        assert_true((t->grad != NULL) == (strstr(cases[i].name, "running") == NULL));
        for (int64_t k = 0; k < t->count; k++)
            assert_true(((float *)t->data)[k] == (float)cases[i].value);
    }
    const sbn_model_tensor *tracked = net_tensor(model, "m.num_batches_tracked");
    assert_true(tracked->is_integer && tracked->axes == 0 && tracked->count == 1);
    assert_true(*(int64_t *)tracked->data == 0);
    sbn_model_destroy(&model);
}

/* All parameters, then all buffers, each in the net's order and framework's shapes. */
static void names_and_shapes(void **state)
{
    (void)state;
    static const char *const want =
        "c.weight 40,3,5,5\nc.bias 40\nn.weight 40\nn.bias 40\nd.weight 60,640\n"
        "d.bias 60\nm.weight 60\nm.bias 60\ne.weight 10,60\ne.bias 10\n"
        "n.running_mean 40\nn.running_var 40\nn.num_batches_tracked\n"
        "m.running_mean 60\nm.running_var 60\nm.num_batches_tracked\n";
    sbn_model *model = make(net, SBN_MODEL_NORM_BATCH, 1, SBN_F32);
    char got[1024] = "";
    int n;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    for (int i = 0; i < n; i++) {
        strcat(got, t[i].name);
        for (int a = 0; a < t[i].axes; a++) {
            char axis[24];
            snprintf(axis, sizeof axis, "%c%d", a ? ',' : ' ', (int)t[i].shape[a]);
            strcat(got, axis);
        }
        strcat(got, "\n");
    }
    assert_string_equal(got, want);
    assert_string_equal(sbn_model_text(model), net);
    assert_int_equal(sbn_model_classes(model), 10);
    sbn_tensor in = sbn_model_input_shape(model);
    assert_true(in.n == 0 && in.c == 3 && in.h == 8 && in.w == 8);
    sbn_model_destroy(&model);
}

/* The parameters of batch norm, in the same places, and no buffer. */
static void group_norm_has_no_buffers(void **state)
{
    (void)state;
    sbn_model_config cfg = sbn_model_config_default("test", 32);
    cfg.text = net;
    cfg.norm = SBN_MODEL_NORM_GROUP;
    cfg.norm_groups = 20;
    sbn_model *group = net_make(&cfg, test_group),
              *batch = make(net, SBN_MODEL_NORM_BATCH, 1, SBN_F32);
    int n, n_batch, exponents;
    const sbn_model_tensor *t = sbn_model_tensors(group, &n),
                           *want = sbn_model_tensors(batch, &n_batch);
    assert_int_equal(n, 10);
    for (int i = 0; i < n; i++) {
        assert_string_equal(t[i].name, want[i].name);
        assert_true(t[i].grad && t[i].decays == want[i].decays);
        assert_int_equal(t[i].count, want[i].count);
        same_bits(t[i].data, want[i].data, t[i].count * 4);
    }
    sbn_model_grad_exponents(group, &exponents);
    assert_int_equal(exponents, 10);
    sbn_model_destroy(&group);
    sbn_model_destroy(&batch);
}

static void same_values(const sbn_model *a, const sbn_model *b, const char *name,
                        bool same)
{
    const sbn_model_tensor *s = net_tensor(a, name), *t = net_tensor(b, name);
    assert_int_equal(s->count, t->count);
    int64_t equal = 0;
    for (int64_t i = 0; i < s->count; i++)
        equal += ((float *)s->data)[i] == ((float *)t->data)[i];
    assert_int_equal(equal, same ? s->count : 0);
}

/* A layer's draws don't move when others come, go or change places. */
static void draws_belong_to_the_name(void **state)
{
    (void)state;
    const char *other = "input 3x8x8\n"
                        "sigmoid\n"
                        "conv c out=40 kernel=5\n"
                        "linear extra out=640\n"
                        "linear d out=60\n"
                        "linear e out=10\n"
                        "linear again out=60\n"
                        "linear e2 out=10\n"
                        "logsoftmax\n";
    sbn_model *first = make(net, SBN_MODEL_NORM_BATCH, 7, SBN_F32),
              *bare = make(net, SBN_MODEL_NORM_NONE, 7, SBN_F32),
              *changed = make(other, SBN_MODEL_NORM_BATCH, 7, SBN_F32),
              *seed = make(net, SBN_MODEL_NORM_BATCH, 8, SBN_F32);
    int n;
    sbn_model_tensors(bare, &n);
    assert_int_equal(n, 6);
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        for (int k = 0; k < 2; k++) {
            const char *name = k ? layers[i].bias : layers[i].weight;
            same_values(first, bare, name, true);
            same_values(first, changed, name, true);
            same_values(first, seed, name, false);
        }
    /* tensors of one shape draw apart */
    const float *e = net_tensor(changed, "e.weight")->data,
                *e2 = net_tensor(changed, "e2.weight")->data;
    int equal = 0;
    for (int i = 0; i < 600; i++) equal += e[i] == e2[i];
    assert_int_equal(equal, 0);
    sbn_model_destroy(&first);
    sbn_model_destroy(&bare);
    sbn_model_destroy(&changed);
    sbn_model_destroy(&seed);
}

static void float32_rounds_float64(void **state)
{
    (void)state;
    sbn_model *narrow = make(net, SBN_MODEL_NORM_BATCH, 3, SBN_F32),
              *wide = make(net, SBN_MODEL_NORM_BATCH, 3, SBN_F64);
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        const sbn_model_tensor *s = net_tensor(narrow, layers[i].weight),
                               *t = net_tensor(wide, layers[i].weight);
        for (int64_t k = 0; k < s->count; k++)
            assert_true(((float *)s->data)[k] == (float)((double *)t->data)[k]);
    }
    sbn_model_destroy(&narrow);
    sbn_model_destroy(&wide);
}

static void trap_33_alike_on_all_processes(void **state)
{
    (void)state;
    sbn_model *model = make(net, SBN_MODEL_NORM_BATCH, 5, SBN_F32);
    int n;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    for (int i = 0; i < n && t[i].grad; i++) {
        float *first = malloc((size_t)t[i].count * sizeof *first);
        memcpy(first, t[i].data, (size_t)t[i].count * sizeof *first);
        MPI_Bcast(first, (int)t[i].count, MPI_FLOAT, 0, MPI_COMM_WORLD);
        same_bits(first, t[i].data, t[i].count * 4);
        free(first);
    }
    sbn_model_destroy(&model);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(uniform_by_fan_in),
    cmocka_unit_test(scaled_weights),
    cmocka_unit_test(gaussian_weights),
    cmocka_unit_test(norm_starts_as_the_identity),
    cmocka_unit_test(names_and_shapes),
    cmocka_unit_test(group_norm_has_no_buffers),
    cmocka_unit_test(draws_belong_to_the_name),
    cmocka_unit_test(float32_rounds_float64),
    cmocka_unit_test(trap_33_alike_on_all_processes),
};
TEST_MAIN(tests)
