/* Dropout: what the masks are a function of, and where they are; its gradients are in
 * test_model, its bits at any number of processes in test_model_same. */
#include "support/harness.h"

#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nn/layer.h"
#include "support/layer.h"
#include "support/net.h"

enum { BATCH = 64, COUNT = 3 * 7 * 5, LAYERS = 2 };
static const char *const net = "input 3x7x5\n"
                               "dropout p=0.25\n"
                               "dropout p=0.25\n"
                               "linear a out=6\n"
                               "logsoftmax\n";

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

static sbn_model *make(const char *text, double rate, uint64_t seed, sbn_group *group)
{
    sbn_model_config cfg = sbn_model_config_default("test", BATCH);
    cfg.text = text;
    cfg.dropout = rate;
    cfg.seed = seed;
    return net_make(&cfg, group);
}

/* Masks of a step, a byte for each element: [n][COUNT] of each layer. */
static uint8_t *masks_of(sbn_model *model, int64_t step, int64_t n)
{
    uint8_t *all = calloc(LAYERS, (size_t)(n * COUNT));
    assert_non_null(all);
    net_batch b = net_batch_make(model, n, 1);
    sbn_model_result got;
    int64_t first, share;
    sbn_model_set_step(model, step);
    OK(net_gradient(model, SBN_F32, &b, n, &got));
    OK(sbn_model_share(model, n, &first, &share));
    for (int layer = 0; layer < LAYERS; layer++)
        for (int64_t r = 0; r < share; r++)
            for (int64_t i = 0; i < COUNT; i++) {
                const uint8_t *row =
                    model->layers[layer].kept + r * sbni_mask_bytes(COUNT);
                all[(layer * n + first + r) * COUNT + i] = row[i / 8] >> i % 8 & 1;
            }
    net_batch_free(&b);
    MPI_Allreduce(MPI_IN_PLACE, all, (int)(LAYERS * n * COUNT), MPI_UINT8_T, MPI_MAX,
                  model->group == alone ? MPI_COMM_SELF : MPI_COMM_WORLD);
    return all;
}

/* Fraction of elements of two masks that agree. */
static double agreement(const uint8_t *a, const uint8_t *b, int64_t n)
{
    int64_t same = 0;
    for (int64_t i = 0; i < n; i++) same += a[i] == b[i];
    return (double)same / (double)n;
}

/* Within five deviations of a mean of n draws that come out with probability p. */
static void about(double got, double p, int64_t n, const char *what)
{
    if (fabs(got - p) > 5 * sqrt(p * (1 - p) / (double)n))
        fail_msg("%s: got %g, expected about %g", what, got, p);
}

static void masks_have_their_rate(void **state)
{
    (void)state;
    static const double rates[] = {0.02, 0.25, 0.5, 0.9};
    for (int k = 0; k < 4; k++) {
        sbn_model *model = make(net, rates[k], 1, test_group);
        uint8_t *mask = masks_of(model, 5, BATCH);
        const int64_t n = (int64_t)LAYERS * BATCH * COUNT;
        double kept = 0, together = 0, p = 1 - rates[k];
        for (int64_t i = 0; i < n; i++) kept += mask[i];
        for (int64_t i = 1; i < n; i++) together += mask[i] & mask[i - 1];
        about(kept / (double)n, p, n, "elements that are kept");
        /* neighbours are independent; pairs overlap, so twice the variance at most */
        about(together / (double)(n - 1), p * p, n / 2, "pairs that are kept");
        free(mask);
        sbn_model_destroy(&model);
    }
}

/* Masks of rate 1/2 agree in about half of their elements unless they are the same. */
static void masks_differ_by_what_names_them(void **state)
{
    (void)state;
    sbn_model *model = make(net, 0.5, 1, test_group),
              *other = make(net, 0.5, 2, test_group);
    const int64_t n = (int64_t)BATCH * COUNT, half = n / 2;
    uint8_t *a = masks_of(model, 5, BATCH), *step = masks_of(model, 6, BATCH),
            *again = masks_of(model, 5, BATCH), *seed = masks_of(other, 5, BATCH),
            *shorter = masks_of(model, 5, 37);
    same_bits(a, again, LAYERS * n);
    assert_memory_equal(a, shorter, 37 * COUNT); /* the place counts, not the batch */
    about(agreement(a, step, n), 0.5, n, "another step");
    about(agreement(a, seed, n), 0.5, n, "another seed");
    about(agreement(a, a + n, n), 0.5, n, "another layer");
    about(agreement(a, a + half, half), 0.5, half, "other samples");
    uint8_t *all[] = {a, step, again, seed, shorter};
    for (int i = 0; i < 5; i++) free(all[i]);
    sbn_model_destroy(&model);
    sbn_model_destroy(&other);
}

static void masks_do_not_depend_on_processes(void **state)
{
    (void)state;
    sbn_model *model = make(net, 0.5, 1, test_group), *self = make(net, 0.5, 1, alone);
    for (int64_t n = 5; n <= BATCH; n += 16) {
        uint8_t *a = masks_of(model, n, n), *b = masks_of(self, n, n);
        same_bits(a, b, LAYERS * n * COUNT);
        free(a);
        free(b);
    }
    sbn_model_destroy(&model);
    sbn_model_destroy(&self);
}

static sbn_model_result gradient(sbn_model *model)
{
    net_batch b = net_batch_make(model, 37, 3);
    sbn_model_result got;
    OK(net_gradient(model, SBN_F32, &b, 37, &got));
    net_batch_free(&b);
    return got;
}

/* The step moves on by itself, and not when a step fails. */
static void steps_count_themselves(void **state)
{
    (void)state;
    sbn_model *a = make(net, 0.5, 1, test_group), *b = make(net, 0.5, 1, test_group);
    double loss[3];
    for (int i = 0; i < 3; i++) loss[i] = gradient(a).loss;
    assert_true(loss[0] != loss[1] && loss[1] != loss[2]);
    sbn_model_set_step(b, 2);
    assert_true(gradient(b).loss == loss[2]);
    sbn_model_set_step(b, 0);
    assert_true(gradient(b).loss == loss[0]);
    net_batch wrong = net_batch_make(b, 37, 3);
    for (int i = 0; i < 37; i++) wrong.labels[i] = 99;
    sbn_model_result got;
    assert_true(net_gradient(b, SBN_F32, &wrong, 37, &got) != SBN_OK);
    assert_true(gradient(b).loss == loss[1]);
    net_batch_free(&wrong);
    sbn_model_destroy(&a);
    sbn_model_destroy(&b);
}

static double evaluated(sbn_model *model)
{
    net_batch b = net_batch_make(model, 37, 3);
    uint64_t words[4] = {0};
    int64_t correct = 0;
    net_fill(model, SBN_F32, &b, 0, 37);
    OK(sbn_model_evaluate(model, b.labels, 37, words, &correct));
    net_batch_free(&b);
    return sbn_model_loss(words);
}

/* The net of masks_of with all layers left out, or dropout wherever memory is shared. */
static const char *const plain = "input 3x7x5\nlinear a out=6\nlogsoftmax\n";
static const char *const between =
    "input 3x7x5\ndropout p=0.5\nlinear a out=9\nnorm n\nrelu\n"
    "dropout p=0.5\nlinear b out=6\nsigmoid\n"
    "dropout p=0.5\nlogsoftmax\n";
static const char *const bare = "input 3x7x5\nlinear a out=9\nnorm n\nrelu\n"
                                "linear b out=6\nsigmoid\nlogsoftmax\n";

static void evaluation_drops_nothing(void **state)
{
    (void)state;
    const char *const nets[][2] = {{net, plain}, {between, bare}};
    for (int k = 0; k < 2; k++) {
        sbn_model *a = make(nets[k][0], SBN_DROPOUT_NET, 1, alone),
                  *b = make(nets[k][1], SBN_DROPOUT_NET, 1, alone);
        assert_true(evaluated(a) == evaluated(b));
        assert_true(gradient(a).loss != gradient(b).loss);
        sbn_model_destroy(&a);
        sbn_model_destroy(&b);
    }
}

static void same_training(const char *text, double rate, const char *other)
{
    sbn_model *a = make(text, rate, 1, test_group),
              *b = make(other, SBN_DROPOUT_NET, 1, test_group);
    int n, n_b;
    const sbn_model_tensor *s = sbn_model_tensors(a, &n), *t = sbn_model_tensors(b, &n_b);
    assert_int_equal(n, n_b);
    for (int step = 0; step < 3; step++)
        assert_true(gradient(a).loss == gradient(b).loss);
    for (int i = 0; i < n && s[i].grad; i++)
        same_bits(s[i].grad, t[i].grad, s[i].count * 4);
    sbn_model_destroy(&a);
    sbn_model_destroy(&b);
}

static void the_setting_stands_for_lines(void **state)
{
    (void)state;
    same_training(net, 0, plain);
    same_training(between, 0, bare);
    same_training(plain, 0.25,
                  "input 3x7x5\ndropout p=0.25\nlinear a out=6\nlogsoftmax\n");
    same_training(bare, 0.3,
                  "input 3x7x5\nlinear a out=9\nnorm n\nrelu\ndropout p=.3\n"
                  "linear b out=6\nsigmoid\nlogsoftmax\n");
    same_training(net, 0.75,
                  "input 3x7x5\ndropout p=0.75\ndropout p=0.75\nlinear a out=6\n"
                  "logsoftmax\n");
    same_training("input 2x3x1\nrelu\nlogsoftmax\n", 0.5,
                  "input 2x3x1\nrelu\nlogsoftmax\n"); /* no linear layer, no place */
}

static void rates_out_of_range(void **state)
{
    (void)state;
    static const double rates[] = {1, 1.5, -0.5, -2, NAN, INFINITY};
    for (int i = 0; i < 6; i++) {
        sbn_model_config cfg = sbn_model_config_default("cnn", BATCH);
        cfg.dropout = rates[i];
        sbn_model *model = NULL;
        FAILS(SBN_E_ARG, sbn_model_create(&cfg, test_group, &model));
        assert_non_null(strstr(sbn_last_error(), "rate of dropout"));
        assert_null(model);
    }
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, make_alone, destroy_alone)

static const struct CMUnitTest tests[] = {
    CASE(masks_have_their_rate),
    CASE(masks_differ_by_what_names_them),
    CASE(masks_do_not_depend_on_processes),
    CASE(steps_count_themselves),
    CASE(evaluation_drops_nothing),
    CASE(the_setting_stands_for_lines),
    CASE(rates_out_of_range),
};
TEST_MAIN(tests)
