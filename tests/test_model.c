#include "syncbn/model.h"
#include "support/harness.h"

#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/layer.h"
#include "support/net.h"

static const char *const conv_net = "input 2x9x8\n"
                                    "conv c1 out=3 kernel=3 stride=2 pad=1\n"
                                    "norm n1\n"
                                    "relu\n"
                                    "conv c2 out=4 kernel=2\n"
                                    "maxpool size=2\n"
                                    "sigmoid\n"
                                    "linear d out=5\n"
                                    "logsoftmax\n";
/* layers that share memory in every way: relu on the input, a sigmoid that may not
 * overwrite the relu before it, a pool that leaves rows out, a relu before the loss */
static const char *const mixed_net = "input 1x10x9\n"
                                     "relu\n"
                                     "conv a out=2 kernel=3 pad=2\n"
                                     "maxpool size=3\n"
                                     "relu\n"
                                     "sigmoid\n"
                                     "norm n\n"
                                     "linear d out=6\n"
                                     "norm m\n"
                                     "relu\n"
                                     "linear e out=4\n"
                                     "relu\n"
                                     "logsoftmax\n";
/* norms first, in a row and behind each other's back */
static const char *const dense_net = "input 6x1x1\n"
                                     "norm first\n"
                                     "linear a out=7\n"
                                     "norm n\n"
                                     "norm o\n"
                                     "sigmoid\n"
                                     "relu\n"
                                     "linear b out=3\n"
                                     "logsoftmax\n";
/* inputs that only the layer's own backward reads again, and a stride that gives dx */
static const char *const plain_net = "input 1x9x8\n"
                                     "conv a out=2 kernel=2\n"
                                     "maxpool size=2\n"
                                     "conv b out=3 kernel=3 stride=2 pad=1\n"
                                     "conv c out=2 kernel=2\n"
                                     "linear d out=5\n"
                                     "linear e out=4\n"
                                     "logsoftmax\n";
/* windows read out of the image: in frames of one width, of two, of none; channels so far
 * apart that they are moved; the same sizes by columns, with a stride */
static const char *const direct_net = "input 2x6x6\n"
                                      "conv a out=3 kernel=3 pad=1\n"
                                      "norm n\n"
                                      "sigmoid\n"
                                      "conv b out=2 kernel=3 pad=1\n"
                                      "conv c out=3 kernel=3 pad=2\n"
                                      "conv d out=4 kernel=1\n"
                                      "norm m\n"
                                      "conv e out=2 kernel=5 pad=1\n"
                                      "conv f out=3 kernel=3 stride=2 pad=1\n"
                                      "linear g out=4\n"
                                      "logsoftmax\n";
static const char *const pool_net = "input 2x7x5\n"
                                    "maxpool size=2\n"
                                    "sigmoid\n"
                                    "conv a out=4 kernel=2 stride=3 pad=1\n"
                                    "logsoftmax\n";

static const double STEP = 0x1p-18;

static sbn_model_config config(const char *text, int64_t batch, int64_t norm_batch,
                               sbn_dtype dtype)
{
    sbn_model_config cfg = sbn_model_config_default("test", batch);
    cfg.text = text;
    cfg.norm_batch = norm_batch;
    cfg.dtype = dtype;
    return cfg;
}

static void differentiate(const char *text, int64_t total, int64_t norm_batch)
{
    net_differentiate(config(text, total + 3, norm_batch, SBN_F64), total, STEP);
}

static void differentiate_net(const char *text, bool images)
{
    static const int64_t cases[][2] = {{37, 0}, {20, 6}, {40, 16}, {5, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        differentiate(text, cases[i][0], cases[i][1]);
    if (images) differentiate(text, 4, 1); /* each sample its own statistics */
}

static void trap_01_differences_of_convolutions(void **state)
{
    (void)state;
    differentiate_net(conv_net, true);
    differentiate_net(direct_net, true);
}

static void trap_01_differences_of_shared_memory(void **state)
{
    (void)state;
    differentiate_net(mixed_net, false);
}

static void trap_01_differences_of_dense_layers(void **state)
{
    (void)state;
    differentiate_net(dense_net, false);
}

static void differences_without_norm(void **state)
{
    (void)state;
    differentiate_net(pool_net, true);
    differentiate_net(plain_net, true);
}

/* A sample alone has gradients here; one group, some, and one for each channel. */
static void differences_of_group_norm(void **state)
{
    (void)state;
    static const char *const nets[] = {"input 2x9x8\n"
                                       "conv c1 out=6 kernel=3 stride=2 pad=1\n"
                                       "norm n1\n"
                                       "relu\n"
                                       "conv c2 out=12 kernel=2\n"
                                       "maxpool size=2\n"
                                       "norm n2\n"
                                       "sigmoid\n"
                                       "linear d out=5\n"
                                       "logsoftmax\n",
                                       "input 12x1x1\n"
                                       "norm first\n"
                                       "linear a out=18\n"
                                       "norm n\n"
                                       "norm o\n"
                                       "sigmoid\n"
                                       "linear b out=3\n"
                                       "logsoftmax\n"};
    static const int64_t groups[] = {1, 2, 3, 6};
    for (int k = 0; k < 8; k++)
        for (int64_t total = 1; total <= 37; total += 36) {
            sbn_model_config cfg = config(nets[k / 4], total + 3, 0, SBN_F64);
            cfg.norm = SBN_MODEL_NORM_GROUP;
            cfg.norm_groups = groups[k % 4];
            net_differentiate(cfg, total, STEP);
        }
}

/* dW out of the dy of a pool: with padding, with outputs that no window has, with a norm
 * or dropout behind the pool. */
static void differences_before_pools(void **state)
{
    (void)state;
    differentiate_net("input 2x10x9\n"
                      "conv a out=3 kernel=5 pad=1\n"
                      "maxpool size=2\n"
                      "relu\n"
                      "conv b out=2 kernel=2\n"
                      "norm n\n"
                      "linear d out=4\n"
                      "logsoftmax\n",
                      true);
    differentiate_net("input 1x9x12\n"
                      "conv a out=4 kernel=3\n"
                      "maxpool size=3\n"
                      "norm n\n"
                      "relu\n"
                      "linear d out=4\n"
                      "logsoftmax\n",
                      true);
    differentiate_net("input 1x9x8\n"
                      "conv a out=2 kernel=5\n"
                      "maxpool size=2\n"
                      "dropout p=0.3\n"
                      "linear d out=4\n"
                      "logsoftmax\n",
                      true);
}

/* Dropout in front of, behind and between layers that share memory with it. */
static void differences_of_dropout(void **state)
{
    (void)state;
    const char *net = "input 2x9x8\n"
                      "dropout p=0.1\n"
                      "conv c1 out=3 kernel=3 stride=2 pad=1\n"
                      "dropout p=0.2\n"
                      "norm n1\n"
                      "relu\n"
                      "dropout p=0.3\n"
                      "conv c2 out=4 kernel=2\n"
                      "sigmoid\n"
                      "dropout p=0.4\n"
                      "linear d out=7\n"
                      "dropout p=0.5\n"
                      "sigmoid\n"
                      "linear e out=5\n"
                      "logsoftmax\n";
    differentiate_net(net, true);
    sbn_model_config cfg = config(net, 40, 0, SBN_F64);
    cfg.norm = SBN_MODEL_NORM_NONE;
    cfg.overlap = SBN_OVERLAP_ALWAYS;
    net_differentiate(cfg, 37, STEP);
    cfg.overlap = SBN_OVERLAP_NEVER;
    cfg.norm = SBN_MODEL_NORM_BATCH;
    net_differentiate(cfg, 37, STEP);
}

static void differences_of_mean_pools(void **state)
{
    (void)state;
    differentiate_net("input 2x9x8\nconv c1 out=3 kernel=2\navgpool size=3\nsigmoid\n"
                      "conv c2 out=6 kernel=2\nnorm n\navgpool\nlogsoftmax\n",
                      false);
}

static void trap_35_differences_of_two_and_three(void **state)
{
    (void)state;
    const char *net = "input 3x1x1\nlinear a out=4\nnorm n\nlinear b out=3\nlogsoftmax\n";
    differentiate(net, 2, 0);
    differentiate(net, 3, 0);
    differentiate(net, 6, 2);
    differentiate(net, 9, 3);
}

/* Softmax of a row of long doubles, in place; returns -log of the label's. */
static long double softmax(long double *row, int64_t classes, int32_t label)
{
    long double largest = row[0], sum = 0;
    for (int64_t i = 1; i < classes; i++) largest = fmaxl(largest, row[i]);
    for (int64_t i = 0; i < classes; i++) sum += expl(row[i] - largest);
    long double loss = logl(sum) - (row[label] - largest);
    for (int64_t i = 0; i < classes; i++) row[i] = expl(row[i] - largest) / sum;
    return loss;
}

enum { IN = 4, OUT = 3 };

/* Loss and gradients of softmax regression over the joined batch: sums divided by the
 * number of all samples. */
static long double regression(const net_batch *b, int64_t total, const double *weight,
                              const double *bias, long double *dweight,
                              long double *dbias, int64_t *correct)
{
    long double loss = 0;
    *correct = 0;
    for (int64_t r = 0; r < total; r++) {
        const double *x = b->x + r * IN;
        long double p[OUT];
        for (int o = 0; o < OUT; o++) {
            p[o] = bias[o];
            for (int i = 0; i < IN; i++) p[o] += (long double)weight[o * IN + i] * x[i];
        }
        loss += softmax(p, OUT, b->labels[r]) / total;
        int best = 0;
        for (int o = 1; o < OUT; o++)
            if (p[o] > p[best]) best = o;
        *correct += best == b->labels[r];
        p[b->labels[r]] -= 1;
        for (int o = 0; o < OUT; o++) {
            dbias[o] += p[o] / total;
            for (int i = 0; i < IN; i++) dweight[o * IN + i] += p[o] * x[i] / total;
        }
    }
    return loss;
}

/*
 * Shares are uneven (37 = 16 + 16 + 5) and samples differ in mean and label, so a mean of
 * processes' means is off by percents. Rounding: float32 2^-24 of terms up to 5 in
 * chains of 24, so 5e-6; float64 1e-14, and the grid.
 */
static void trap_34_loss_is_weighted_by_the_whole_batch(void **state)
{
    (void)state;
    const int64_t totals[] = {37, 5, 64, 1, 17};
    for (int type = 0; type < 2; type++)
        for (int i = 0; i < 5; i++) {
            sbn_dtype dtype = type ? SBN_F64 : SBN_F32;
            double tolerance = type ? 1e-14 : 5e-6;
            sbn_model_config cfg =
                config("input 4x1x1\nlinear d out=3\nlogsoftmax\n", 64, 0, dtype);
            sbn_model *model = net_make(&cfg, test_group);
            net_batch b = net_batch_make(model, totals[i], 4);
            sbn_model_result got;
            OK(net_gradient(model, dtype, &b, totals[i], &got));
            const sbn_model_tensor *w = net_tensor(model, "d.weight"),
                                   *bias = net_tensor(model, "d.bias");
            double *wv = net_values(w, dtype), *bv = net_values(bias, dtype);
            long double dw[OUT * IN] = {0}, db[OUT] = {0};
            int64_t correct;
            long double loss = regression(&b, totals[i], wv, bv, dw, db, &correct);
            CLOSE(got.loss, (double)loss, tolerance);
            assert_int_equal(got.correct, correct);
            OK(net_gradient(model, dtype, &b, totals[i], &got));
            assert_int_equal(got.correct, correct);
            tolerance += net_grid_error(model, "d.weight", 5);
            for (int k = 0; k < OUT * IN; k++)
                CLOSE(element(dtype, w->grad, k), (double)dw[k], tolerance);
            for (int k = 0; k < OUT; k++)
                CLOSE(element(dtype, bias->grad, k), (double)db[k], tolerance);
            free(wv);
            free(bv);
            net_batch_free(&b);
            sbn_model_destroy(&model);
        }
}

/* Of norm and softmax alone: dbeta = Σ(p − label)/N, dgamma = Σ(p − label)·xhat/N. Twice
 * the sum, or its mean over processes, is far off. */
static void trap_03_gamma_and_beta_are_summed_once(void **state)
{
    (void)state;
    enum { TOTAL = 37 };
    sbn_model_config cfg = config("input 3x1x1\nnorm n\nlogsoftmax\n", TOTAL, 0, SBN_F64);
    sbn_model *model = net_make(&cfg, test_group);
    net_batch b = net_batch_make(model, TOTAL, 5);
    sbn_model_result got;
    OK(net_gradient(model, SBN_F64, &b, TOTAL, &got));
    long double mean[OUT] = {0}, var[OUT] = {0}, dgamma[OUT] = {0}, dbeta[OUT] = {0};
    for (int r = 0; r < TOTAL; r++)
        for (int i = 0; i < OUT; i++) mean[i] += (long double)b.x[r * OUT + i] / TOTAL;
    for (int r = 0; r < TOTAL; r++)
        for (int i = 0; i < OUT; i++)
            var[i] += powl(b.x[r * OUT + i] - mean[i], 2) / TOTAL;
    for (int r = 0; r < TOTAL; r++) {
        long double xhat[OUT], p[OUT];
        for (int i = 0; i < OUT; i++)
            p[i] = xhat[i] = (b.x[r * OUT + i] - mean[i]) / sqrtl(var[i] + 1e-5L);
        softmax(p, OUT, b.labels[r]);
        p[b.labels[r]] -= 1;
        for (int i = 0; i < OUT; i++) {
            dbeta[i] += p[i] / TOTAL;
            dgamma[i] += p[i] * xhat[i] / TOTAL;
        }
    }
    for (int i = 0; i < OUT; i++) {
        CLOSE(element(SBN_F64, net_tensor(model, "n.weight")->grad, i), (double)dgamma[i],
              1e-14);
        CLOSE(element(SBN_F64, net_tensor(model, "n.bias")->grad, i), (double)dbeta[i],
              1e-14);
    }
    net_batch_free(&b);
    sbn_model_destroy(&model);
}

/*
 * Gradients from 1e-30 to 1e9, which the sum's first units do not fit: with x·2^k and
 * a.weight·2^-k the outputs are the same, and a.weight's gradient is 2^k times that of
 * k = 0. One model goes through all, so units move both ways. The reference is a float64
 * model at k = 0. float32: products of 2^-24 in chains of 16·6, well below 1e-5 of a
 * tensor's largest gradient; float64: 1e-13 and the grids of both.
 */
static void gradients_of_any_magnitude(void **state)
{
    (void)state;
    static const int powers[] = {0, -40, 20, -100, 33, -8, 0};
    const char *net = "input 6x1x1\nlinear a out=5\nlinear b out=4\nlogsoftmax\n";
    sbn_model_config cfg = config(net, 40, 0, SBN_F64);
    sbn_model *reference = net_make(&cfg, test_group);
    net_batch b = net_batch_make(reference, 40, 6);
    sbn_model_result want, got;
    OK(net_gradient(reference, SBN_F64, &b, 40, &want));
    const sbn_model_tensor *right = net_tensor(reference, "a.weight");
    double largest = 0, grid = net_grid_error(reference, "a.weight", 3);
    for (int64_t k = 0; k < right->count; k++)
        largest = fmax(largest, fabs(((double *)right->grad)[k]));
    for (int type = 0; type < 2; type++) {
        cfg.dtype = type ? SBN_F64 : SBN_F32;
        sbn_model *model = net_make(&cfg, test_group);
        const sbn_model_tensor *a = net_tensor(model, "a.weight");
        double *weight = net_values(a, cfg.dtype);
        for (size_t i = 0; i < sizeof powers / sizeof *powers; i++) {
            double scale = ldexp(1, powers[i]);
            net_batch scaled = net_batch_make(reference, 40, 6);
            for (int64_t k = 0; k < 40 * 6; k++) scaled.x[k] *= scale;
            for (int64_t k = 0; k < a->count; k++)
                set_element(cfg.dtype, a->data, k, weight[k] / scale);
            OK(net_gradient(model, cfg.dtype, &scaled, 40, &got));
            double grids = grid + net_grid_error(model, "a.weight", 3) / scale;
            assert_true(grids < 3 * 0x1p-26 * largest); /* 27 bits at least */
            for (int64_t k = 0; k < a->count; k++)
                CLOSE(element(cfg.dtype, a->grad, k) / scale, ((double *)right->grad)[k],
                      grids + (type ? 1e-13 : 1e-5) * largest);
            CLOSE(got.loss, want.loss, type ? 1e-14 : 1e-6);
            net_batch_free(&scaled);
        }
        free(weight);
        sbn_model_destroy(&model);
    }
    net_batch_free(&b);
    sbn_model_destroy(&reference);
}

/* Dead layers: all gradients before the relu are 0, in one pass and without end. */
static void gradients_of_zero(void **state)
{
    (void)state;
    sbn_model_config cfg =
        config("input 3x1x1\nlinear a out=5\nrelu\nlinear b out=2\nlogsoftmax\n", 20, 0,
               SBN_F32);
    sbn_model *model = net_make(&cfg, test_group);
    const sbn_model_tensor *bias = net_tensor(model, "a.bias");
    for (int64_t k = 0; k < bias->count; k++) set_element(SBN_F32, bias->data, k, -1e3);
    net_batch b = net_batch_make(model, 20, 7);
    int n;
    int64_t before = sbn_model_grad_exponents(model, &n)[0];
    sbn_model_result got;
    OK(net_gradient(model, SBN_F32, &b, 20, &got));
    for (int64_t k = 0; k < 15; k++)
        assert_true(((float *)net_tensor(model, "a.weight")->grad)[k] == 0);
    assert_int_equal(sbn_model_grad_exponents(model, &n)[0], before);
    assert_true(((float *)net_tensor(model, "b.bias")->grad)[0] != 0);
    net_batch_free(&b);
    sbn_model_destroy(&model);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(trap_01_differences_of_convolutions),
    cmocka_unit_test(trap_01_differences_of_shared_memory),
    cmocka_unit_test(trap_01_differences_of_dense_layers),
    cmocka_unit_test(differences_without_norm),
    cmocka_unit_test(differences_before_pools),
    cmocka_unit_test(differences_of_group_norm),
    cmocka_unit_test(differences_of_dropout),
    cmocka_unit_test(differences_of_mean_pools),
    cmocka_unit_test(trap_35_differences_of_two_and_three),
    cmocka_unit_test(trap_34_loss_is_weighted_by_the_whole_batch),
    cmocka_unit_test(trap_03_gamma_and_beta_are_summed_once),
    cmocka_unit_test(gradients_of_any_magnitude),
    cmocka_unit_test(gradients_of_zero),
};
TEST_MAIN(tests)
