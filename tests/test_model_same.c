#include "support/harness.h"

#include <math.h>
#include <mpi.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "support/layer.h"
#include "support/net.h"
#include "syncbn/optim.h"

/* The promise, on gradients: a group of processes gives the bits of one process. */

static sbn_group *alone;

static int make_alone(void **state)
{
    (void)state;
    OK(sbn_group_create(MPI_COMM_SELF, &alone));
    return 0;
}

static int destroy_alone(void **state)
{
    (void)state;
    sbn_group_destroy(&alone);
    return 0;
}

static sbn_optimizer *optimizer(sbn_model *model, sbn_dtype dtype)
{
    int n, params = 0;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    sbn_optimizer_tensor list[64];
    for (; params < n && t[params].grad; params++)
        list[params] = (sbn_optimizer_tensor){t[params].data, t[params].grad,
                                              t[params].count, t[params].decays};
    sbn_optimizer_config cfg = {
        .momentum = 0.9, .weight_decay = 1e-3, .nesterov = true, .dtype = dtype};
    sbn_optimizer *sgd = NULL;
    OK(sbn_optimizer_create(&cfg, list, params, &sgd));
    return sgd;
}

/* Weights, gradients, buffers and exponents of two models have the same bits. */
static void same_models(sbn_model *a, sbn_model *b, sbn_dtype dtype)
{
    int n, n_b;
    const sbn_model_tensor *s = sbn_model_tensors(a, &n), *t = sbn_model_tensors(b, &n_b);
    assert_int_equal(n, n_b);
    for (int i = 0; i < n; i++) {
        int64_t bytes = s[i].count * (s[i].is_integer ? 8 : sbn_dtype_bytes(dtype));
        assert_string_equal(s[i].name, t[i].name);
        if (memcmp(s[i].data, t[i].data, (size_t)bytes))
            fail_msg("process %d: %s differs", test_rank, s[i].name);
        if (s[i].grad && memcmp(s[i].grad, t[i].grad, (size_t)bytes))
            fail_msg("process %d: gradient of %s differs", test_rank, s[i].name);
    }
    const int64_t *e = sbn_model_grad_exponents(a, &n),
                  *f = sbn_model_grad_exponents(b, &n_b);
    same_bits(e, f, 8 * (int64_t)n);
}

/* Short and full batches one after the other on the same models, with a step of the
 * optimizer between, so that each starts from what the others left. */
static void compare(sbn_model_config cfg, int threads, int threads_alone)
{
    static const int64_t totals[] = {64, 60, 37, 5, 16, 64, 18};
    omp_set_num_threads(threads);
    sbn_model *group = net_make(&cfg, test_group);
    omp_set_num_threads(threads_alone);
    sbn_model *self = net_make(&cfg, alone);
    sbn_optimizer *sgd[2] = {optimizer(group, cfg.dtype), optimizer(self, cfg.dtype)};
    for (size_t i = 0; i < sizeof totals / sizeof *totals; i++) {
        net_batch b = net_batch_make(self, totals[i], 20 + i);
        sbn_model_result got, want;
        sbn_model_set_vote(group, (int64_t)i + test_rank);
        OK(sbn_model_set_limits(group, 1 + 0.2 * (double)i, 0.3 * (double)i));
        OK(sbn_model_set_limits(self, 1 + 0.2 * (double)i, 0.3 * (double)i));
        omp_set_num_threads(threads_alone);
        OK(net_gradient(self, cfg.dtype, &b, totals[i], &want));
        omp_set_num_threads(threads);
        OK(net_gradient(group, cfg.dtype, &b, totals[i], &got));
        same_models(group, self, cfg.dtype);
        sbn_norm_clipped a = sbn_model_get_clipped(group),
                         b_self = sbn_model_get_clipped(self);
        same_bits(&a, &b_self, sizeof a);
        same_bits(&got.loss, &want.loss, 8);
        assert_int_equal(got.correct, want.correct);
        assert_int_equal(got.votes,
                         test_size * (int64_t)i + test_size * (test_size - 1) / 2);
        assert_int_equal(want.votes, 0);
        for (int k = 0; k < 2; k++) sbn_optimizer_step(sgd[k], 1, 0.05);
        net_batch_free(&b);
    }
    same_models(group, self, cfg.dtype);
    for (int k = 0; k < 2; k++) sbn_optimizer_destroy(&sgd[k]);
    sbn_model_destroy(&group);
    sbn_model_destroy(&self);
    omp_set_num_threads(1);
}

/* All layers, odd sizes. A norm batch of 10 is no multiple of a slice, 24 cuts slices of
 * 16 and 8; both straddle processes and end short. */
static const char *const net = "input 2x11x9\n"
                               "conv c1 out=5 kernel=3 pad=1\n"
                               "norm n1\n"
                               "maxpool size=2\n"
                               "relu\n"
                               "conv c2 out=7 kernel=3 stride=2\n"
                               "sigmoid\n"
                               "norm n2\n"
                               "linear d1 out=19\n"
                               "norm n3\n"
                               "relu\n"
                               "linear d2 out=6\n"
                               "logsoftmax\n";

/* Norms without weights above them, below them, or both. */
static const char *const bare_net = "input 3x5x4\n"
                                    "norm n1\n"
                                    "norm n2\n"
                                    "relu\n"
                                    "norm n3\n"
                                    "linear d1 out=9\n"
                                    "sigmoid\n"
                                    "linear d2 out=6\n"
                                    "norm n4\n"
                                    "logsoftmax\n";

/* Residual blocks: norms side by side, adds in a norm's pass and apart, both kinds of
 * shortcut. */
static const char *const residual_net = "input 2x11x9\n"
                                        "conv a out=5 kernel=3 pad=1\n"
                                        "norm an\n"
                                        "relu\n"
                                        "block b\n"
                                        "conv b1 out=5 kernel=3 pad=1\n"
                                        "norm bn1\n"
                                        "relu\n"
                                        "dropout p=0.2\n"
                                        "conv b2 out=5 kernel=3 pad=1\n"
                                        "norm bn2\n"
                                        "end\n"
                                        "relu\n"
                                        "block c out=7 stride=2\n"
                                        "conv c1 out=6 kernel=3 stride=2 pad=1\n"
                                        "norm cn1\n"
                                        "relu\n"
                                        "conv c2 out=7 kernel=3 pad=1\n"
                                        "norm cn2\n"
                                        "end\n"
                                        "relu\n"
                                        "block d out=7\n"
                                        "conv d1 out=7 kernel=3 pad=1\n"
                                        "norm dn1\n"
                                        "end\n"
                                        "avgpool size=2\n"
                                        "linear e out=6\n"
                                        "logsoftmax\n";

/* Convolutions by tiles of both kinds in runs that are split: their dx and dW are made
 * one after the other, of all slices each. */
static const char *const tiled_net = "input 8x9x8\n"
                                     "conv a out=8 kernel=3 pad=1\n"
                                     "norm an\n"
                                     "relu\n"
                                     "conv b out=9 kernel=5 pad=2\n"
                                     "norm bn\n"
                                     "relu\n"
                                     "conv c out=8 kernel=3 pad=1\n"
                                     "norm cn\n"
                                     "relu\n"
                                     "linear d out=6\n"
                                     "logsoftmax\n";

static void compare_norm_batches(sbn_dtype dtype)
{
    static const int64_t norm_batches[] = {0, 10, 16, 24};
    sbn_model_config cfg = sbn_model_config_default("test", 64);
    cfg.text = net;
    cfg.dtype = dtype;
    for (int i = 0; i < 4; i++) {
        cfg.norm_batch = norm_batches[i];
        cfg.overlap = i % 2 ? SBN_OVERLAP_NEVER : SBN_OVERLAP_ALWAYS;
        compare(cfg, 1, 1);
        compare(cfg, 2, 1);
    }
    for (int i = 0; i < 4; i++) {
        cfg.norm_batch = norm_batches[i];
        cfg.overlap = i % 2 ? SBN_OVERLAP_ALWAYS : SBN_OVERLAP_NEVER;
        compare(cfg, 2, 1);
        cfg.overlap = i % 2 ? SBN_OVERLAP_NEVER : SBN_OVERLAP_ALWAYS;
        cfg.text = bare_net;
        compare(cfg, 1, 2);
        cfg.text = residual_net;
        compare(cfg, 2, 1);
        cfg.text = tiled_net;
        if (cfg.overlap != SBN_OVERLAP_NEVER)
            compare(cfg, 1, 2); /* else no run is split */
        cfg.text = net;
    }
    cfg.norm = SBN_MODEL_NORM_NONE;
    compare(cfg, 2, 1);
    cfg.norm = SBN_MODEL_NORM_GROUP; /* slices are those of norm batches of 24 */
    compare(cfg, 1, 2);
    cfg.norm_batch = 0;
    compare(cfg, 2, 1);
    cfg.norm = SBN_MODEL_NORM_RENORM;
    compare(cfg, 2, 1);
    cfg.norm_batch = 10;
    compare(cfg, 1, 2);
    cfg.text = residual_net;
    compare(cfg, 2, 1);
    cfg.norm = SBN_MODEL_NORM_GROUP;
    compare(cfg, 1, 2);
    cfg.norm = SBN_MODEL_NORM_NONE;
    compare(cfg, 2, 1);
}

static void float32_at_any_number_of_processes(void **state)
{
    (void)state;
    compare_norm_batches(SBN_F32);
}

static void float64_at_any_number_of_processes(void **state)
{
    (void)state;
    compare_norm_batches(SBN_F64);
}

static void nets_that_come_along(void **state)
{
    (void)state;
    compare(sbn_model_config_default("cnn", 64), 2, 1);
    compare(sbn_model_config_default("mlp", 64), 1, 2);
    sbn_model_config cfg = sbn_model_config_default("cnn", 64);
    cfg.norm = SBN_MODEL_NORM_GROUP;
    cfg.norm_groups = 10;
    compare(cfg, 1, 2);
    cfg.dropout = 0.4;
    compare(cfg, 1, 2);
    cfg.norm = SBN_MODEL_NORM_BATCH;
    compare(cfg, 2, 1);
}

/* The order of a batch's samples decides, not who holds them: the same samples one slice
 * farther give other bits, or the comparisons above would prove nothing. */
static void order_of_samples_matters(void **state)
{
    (void)state;
    sbn_model_config cfg = sbn_model_config_default("test", 64);
    cfg.text = net;
    sbn_model *model = net_make(&cfg, alone);
    net_batch b = net_batch_make(model, 64, 1), turned = net_batch_make(model, 64, 1);
    for (int64_t r = 0; r < 64; r++) {
        int64_t from = (r + 7) % 64;
        memcpy(turned.x + r * b.pixels, b.x + from * b.pixels, (size_t)b.pixels * 8);
        turned.labels[r] = b.labels[from];
    }
    sbn_model_result one, other;
    const sbn_model_tensor *t = net_tensor(model, "c1.weight");
    OK(net_gradient(model, SBN_F32, &b, 64, &one));
    double *grad = net_grads(t, SBN_F32), largest = 0;
    OK(net_gradient(model, SBN_F32, &turned, 64, &other));
    int differ = 0;
    for (int64_t k = 0; k < t->count; k++) {
        differ += grad[k] != element(SBN_F32, t->grad, k);
        largest = fmax(largest, fabs(grad[k]));
    }
    assert_true(differ > 0);
    for (int64_t k = 0; k < t->count; k++)
        CLOSE(element(SBN_F32, t->grad, k), grad[k], 1e-4 * largest);
    free(grad);
    net_batch_free(&b);
    net_batch_free(&turned);
    sbn_model_destroy(&model);
}

/* Loss, hits and statistics of evaluation: process 0 alone, while the others go on to
 * the next case's messages; and the bits of a model that was trained alone. */
static void trap_13_one_process_evaluates(void **state)
{
    (void)state;
    enum { N = 90 };
    sbn_model_config cfg = sbn_model_config_default("test", 64);
    cfg.text = net;
    sbn_model *models[2] = {net_make(&cfg, test_group), net_make(&cfg, alone)};
    net_batch b = net_batch_make(models[0], N, 30);
    sbn_model_result got;
    uint64_t words[2][4] = {{0}};
    int64_t correct[2] = {0};
    for (int k = 0; k < 2; k++) {
        OK(net_gradient(models[k], SBN_F32, &b, 64, &got));
        if (k == 0 && test_rank != 0) continue;
        net_fill(models[k], SBN_F32, &b, 0, N);
        OK(sbn_model_evaluate(models[k], b.labels, N, words[k], &correct[k]));
    }
    if (test_rank == 0) {
        same_bits(words[0], words[1], sizeof words[0]);
        assert_int_equal(correct[0], correct[1]);
    }
    /* training goes on as if nothing had been */
    for (int k = 0; k < 2; k++) OK(net_gradient(models[k], SBN_F32, &b, 37, &got));
    same_models(models[0], models[1], SBN_F32);
    for (int k = 0; k < 2; k++) sbn_model_destroy(&models[k]);
    net_batch_free(&b);
}

/* Pieces of whole slices add up to the bits of one call, in any order. */
static void evaluation_in_pieces(void **state)
{
    (void)state;
    enum { N = 90 };
    static const int64_t cuts[] = {0, 32, 48, N};
    sbn_model_config cfg = sbn_model_config_default("test", 64);
    cfg.text = net;
    sbn_model *model = net_make(&cfg, alone);
    net_batch b = net_batch_make(model, N, 31);
    uint64_t whole[4] = {0}, parts[4] = {0};
    int64_t correct = 0, correct_parts = 0;
    net_fill(model, SBN_F32, &b, 0, N);
    OK(sbn_model_evaluate(model, b.labels, N, whole, &correct));
    for (int i = 2; i >= 0; i--) {
        int64_t n = cuts[i + 1] - cuts[i];
        net_fill(model, SBN_F32, &b, cuts[i], n);
        OK(sbn_model_evaluate(model, b.labels + cuts[i], n, parts, &correct_parts));
    }
    assert_true(sbn_model_loss(whole) == sbn_model_loss(parts));
    assert_int_equal(correct, correct_parts);
    OK(sbn_model_evaluate(model, b.labels, 0, parts, &correct_parts));
    assert_int_equal(correct, correct_parts);
    net_batch_free(&b);
    sbn_model_destroy(&model);
}

/* Without norm, training and evaluation compute the same outputs. */
static void evaluation_is_the_training_loss(void **state)
{
    (void)state;
    for (int type = 0; type < 2; type++) {
        sbn_model_config cfg = sbn_model_config_default("test", 37);
        cfg.text = net;
        cfg.norm = SBN_MODEL_NORM_NONE;
        cfg.dtype = type ? SBN_F64 : SBN_F32;
        sbn_model *model = net_make(&cfg, test_group);
        net_batch b = net_batch_make(model, 37, 32);
        sbn_model_result got;
        OK(net_gradient(model, cfg.dtype, &b, 37, &got));
        uint64_t words[4] = {0};
        int64_t correct = 0;
        net_fill(model, cfg.dtype, &b, 0, 37);
        OK(sbn_model_evaluate(model, b.labels, 37, words, &correct));
        assert_true(sbn_model_loss(words) / 37 == got.loss);
        assert_int_equal(correct, got.correct);
        net_batch_free(&b);
        sbn_model_destroy(&model);
    }
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, make_alone, destroy_alone)

static const struct CMUnitTest tests[] = {
    CASE(float32_at_any_number_of_processes),
    CASE(float64_at_any_number_of_processes),
    CASE(nets_that_come_along),
    CASE(order_of_samples_matters),
    CASE(trap_13_one_process_evaluates),
    CASE(evaluation_in_pieces),
    CASE(evaluation_is_the_training_loss),
};
TEST_MAIN(tests)
