#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/group.h"
#include "support/layer.h"
#include "support/net.h"

/* A failure on one process: it gets its code, the others SBN_E_PEER with its name and
 * text, nobody waits, and the model can be used again. */

static const char *const net = "input 2x6x6\n"
                               "conv c out=3 kernel=3\n"
                               "norm n\n"
                               "relu\n"
                               "linear d out=5\n"
                               "norm m\n"
                               "linear e out=4\n"
                               "logsoftmax\n";

/* The same failures whether messages overlap with work or not. */
static sbn_overlap overlap;

static int with_overlap(void **state)
{
    (void)state;
    overlap = SBN_OVERLAP_ALWAYS;
    return 0;
}

static int without_overlap(void **state)
{
    (void)state;
    overlap = SBN_OVERLAP_NEVER;
    return 0;
}

static sbn_model_config config(const char *text, sbn_dtype dtype)
{
    sbn_model_config cfg = sbn_model_config_default("test", 64);
    cfg.overlap = overlap;
    cfg.text = text;
    cfg.dtype = dtype;
    return cfg;
}

/* The last process always has samples; with 37 samples and 4 processes the first has
 * none. */
static bool guilty(void)
{
    return test_rank == test_size - 1;
}

static void expect(sbn_status got, sbn_status code, const char *text)
{
    test_status(got, guilty() ? code : SBN_E_PEER, text, __FILE__, __LINE__);
    if (!strstr(sbn_last_error(), text))
        fail_msg("got \"%s\", expected \"%s\" in it", sbn_last_error(), text);
    if (guilty()) return;
    assert_int_equal(sbn_peer_status(), code);
    char name[32];
    snprintf(name, sizeof name, "process %d: ", test_size - 1);
    assert_memory_equal(sbn_last_error(), name, strlen(name));
}

/* Gradients by 37 samples, of which the guilty process's second begins with a bad pixel.
 */
static sbn_status spoiled(sbn_model *model, sbn_dtype dtype, const net_batch *b,
                          double bad)
{
    int64_t first, n, capacity;
    sbn_model_result got;
    OK(sbn_model_share(model, 37, &first, &n));
    net_fill(model, dtype, b, first, n);
    if (guilty()) set_element(dtype, sbn_model_input(model, &capacity), b->pixels, bad);
    return sbn_model_gradient(model, b->labels + first, 37, &got);
}

static void trap_31_bad_values_name_their_layer(void **state)
{
    (void)state;
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int type = 0; type < 2; type++)
        for (int i = 0; i < 3; i++) {
            sbn_dtype dtype = type ? SBN_F64 : SBN_F32;
            sbn_model_config cfg = config(net, dtype);
            sbn_model *model = net_make(&cfg, test_group);
            net_batch b = net_batch_make(model, 37, 1);
            const sbn_model_tensor *t = net_tensor(model, "e.weight");
            double *before = net_values(t, dtype);
            expect(spoiled(model, dtype, &b, bad[i]), SBN_E_NONFINITE,
                   "the net: NaN or infinity in its input, sample ");
            double *after = net_values(t, dtype);
            same_bits(before, after, 8 * t->count);
            const int64_t *seen = net_tensor(model, "n.num_batches_tracked")->data;
            assert_int_equal(*seen, 0);
            sbn_model_result got;
            OK(net_gradient(model, dtype, &b, 37, &got));
            assert_int_equal(*seen, 1);
            free(before);
            free(after);
            net_batch_free(&b);
            sbn_model_destroy(&model);
        }
}

static void trap_31_bad_loss(void **state)
{
    (void)state;
    sbn_model_config cfg = config(net, SBN_F32);
    cfg.norm = SBN_MODEL_NORM_NONE;
    sbn_model *model = net_make(&cfg, test_group);
    net_batch b = net_batch_make(model, 37, 1);
    expect(spoiled(model, SBN_F32, &b, NAN), SBN_E_NONFINITE,
           "the net: NaN or infinity in its input, sample ");
    /* finite, and beyond its type behind the first layer */
    const sbn_model_tensor *weight = net_tensor(model, "c.weight");
    for (int64_t i = 0; i < weight->count; i++) ((float *)weight->data)[i] *= 1e4f;
    expect(spoiled(model, SBN_F32, &b, 3.4e38), SBN_E_NONFINITE,
           "c: NaN or infinity in its output, sample ");
    sbn_model_result got;
    OK(net_gradient(model, SBN_F32, &b, 37, &got));
    net_batch_free(&b);
    sbn_model_destroy(&model);
}

/* A hidden value of 3e8 and a loss of 6e11, both finite, but a gradient of 54·3e38. */
static void trap_31_bad_gradient(void **state)
{
    (void)state;
    sbn_model_config cfg =
        config("input 1x1x1\nlinear a out=1\nlinear b out=2\nlogsoftmax\n", SBN_F32);
    sbn_model *model = net_make(&cfg, test_group);
    net_batch b = net_batch_make(model, 37, 1);
    float *a = net_tensor(model, "a.weight")->data,
          *w = net_tensor(model, "b.weight")->data;
    *a = 1e-30f;
    w[0] = 1e3f;
    w[1] = -1e3f;
    for (int i = 0; i < 37; i++) b.labels[i] = 1;
    expect(spoiled(model, SBN_F32, &b, 3e38), SBN_E_NONFINITE,
           "gradient of a.weight is NaN or infinite");
    w[0] = 1e13f;
    expect(spoiled(model, SBN_F32, &b, 3e38), SBN_E_RANGE,
           "a loss of 3e+21 is too large");
    net_batch_free(&b);
    sbn_model_destroy(&model);
}

/* Found by a norm on the way back, when sums of gradients may be under way: they are
 * waited for, and the model goes on. */
static void trap_31_bad_values_on_the_way_back(void **state)
{
    (void)state;
    sbn_model_config cfg = config(net, SBN_F32);
    sbn_model *model = net_make(&cfg, test_group);
    net_batch b = net_batch_make(model, 37, 1);
    float *weight = net_tensor(model, "e.weight")->data, kept = *weight;
    sbn_model_result got;
    for (int i = 0; i < 3; i++) {
        if (guilty()) *weight = NAN;
        expect(net_gradient(model, SBN_F32, &b, 37, &got), SBN_E_NONFINITE,
               "m: NaN or infinity");
        assert_null(test_group->outstanding);
        *weight = kept;
        OK(net_gradient(model, SBN_F32, &b, 37, &got));
        assert_null(test_group->outstanding);
    }
    net_batch_free(&b);
    sbn_model_destroy(&model);
}

static void too_large_for_the_sums(void **state)
{
    (void)state;
    sbn_model_config cfg = config("input 2x1x1\nnorm n\nlogsoftmax\n", SBN_F32);
    sbn_model *model = net_make(&cfg, test_group);
    net_batch b = net_batch_make(model, 37, 1);
    int64_t first, n, capacity;
    sbn_model_result got;
    OK(sbn_model_share(model, 37, &first, &n));
    net_fill(model, SBN_F32, &b, first, n);
    if (guilty()) set_element(SBN_F32, sbn_model_input(model, &capacity), 1, 1e30);
    expect(sbn_model_gradient(model, b.labels + first, 37, &got), SBN_E_RANGE,
           "n: a value too large for the exact sums");
    net_batch_free(&b);
    sbn_model_destroy(&model);
}

static void labels_outside_the_classes(void **state)
{
    (void)state;
    const int32_t bad[] = {4, -1, INT32_MAX, INT32_MIN};
    for (int type = 0; type < 2; type++)
        for (int i = 0; i < 4; i++) {
            sbn_dtype dtype = type ? SBN_F64 : SBN_F32;
            sbn_model_config cfg = config(net, dtype);
            sbn_model *model = net_make(&cfg, test_group);
            net_batch b = net_batch_make(model, 37, 1);
            int32_t old = b.labels[36];
            b.labels[36] = bad[i];
            sbn_model_result got;
            expect(net_gradient(model, dtype, &b, 37, &got), SBN_E_ARG,
                   "expected 0 to 3, got ");
            uint64_t words[4] = {0};
            int64_t correct = 0;
            net_fill(model, dtype, &b, 0, 37);
            FAILS(SBN_E_ARG, sbn_model_evaluate(model, b.labels, 37, words, &correct));
            assert_true(sbn_model_loss(words) == 0 && correct == 0);
            b.labels[36] = old;
            OK(net_gradient(model, dtype, &b, 37, &got));
            net_batch_free(&b);
            sbn_model_destroy(&model);
        }
}

/* All processes see these alike. */
static void one_value_per_channel(void **state)
{
    (void)state;
    sbn_model_config cfg = config(net, SBN_F32);
    cfg.norm_batch = 16;
    sbn_model *model = net_make(&cfg, test_group);
    net_batch b = net_batch_make(model, 33, 1);
    sbn_model_result got;
    FAILS(SBN_E_FEW, net_gradient(model, SBN_F32, &b, 33, &got));
    assert_non_null(
        strstr(sbn_last_error(), "m: norm batch 2 has one value per channel"));
    OK(net_gradient(model, SBN_F32, &b, 32, &got));
    net_batch_free(&b);
    sbn_model_destroy(&model);
}

static void batches_outside_the_settings(void **state)
{
    (void)state;
    sbn_model_config cfg = config(net, SBN_F32);
    sbn_model *model = net_make(&cfg, test_group);
    sbn_model_result got;
    int64_t first, n, correct = 0, capacity;
    uint64_t words[4] = {0};
    const int64_t bad[] = {0, -1, 65, INT64_MAX};
    for (int i = 0; i < 4; i++) {
        FAILS(SBN_E_ARG, sbn_model_share(model, bad[i], &first, &n));
        FAILS(SBN_E_ARG, sbn_model_gradient(model, NULL, bad[i], &got));
    }
    sbn_model_input(model, &capacity);
    FAILS(SBN_E_ARG, sbn_model_evaluate(model, NULL, capacity + 1, words, &correct));
    FAILS(SBN_E_ARG, sbn_model_evaluate(model, NULL, -1, words, &correct));
    FAILS(SBN_E_ARG, sbn_model_evaluate(model, NULL, 1, words, &correct));
    OK(sbn_model_evaluate(model, NULL, 0, words, &correct));
    sbn_model_destroy(&model);
    sbn_model_destroy(&model);
    sbn_model_destroy(NULL);
}

static void refuses(sbn_model_config cfg, sbn_status code, const char *text)
{
    sbn_model *model = NULL;
    FAILS(code, sbn_model_create(&cfg, test_group, &model));
    assert_null(model);
    if (!strstr(sbn_last_error(), text))
        fail_msg("got \"%s\", expected \"%s\" in it", sbn_last_error(), text);
}

static void settings_out_of_range(void **state)
{
    (void)state;
    const sbn_model_config good = config(net, SBN_F32);
    sbn_model_config c = good;
    c.net = NULL;
    refuses(c, SBN_E_ARG, "expected a net");
    c = good, c.batch = 0;
    refuses(c, SBN_E_ARG, "expected batch 1 to 1048560, got 0");
    c = good, c.batch = INT64_MAX;
    refuses(c, SBN_E_ARG, "expected batch 1 to 1048560, got");
    c = good, c.batch = 70000, c.norm_batch = 1;
    refuses(c, SBN_E_ARG, "70000 slices; expected at most 65535");
    c = good, c.norm_batch = 65;
    refuses(c, SBN_E_ARG, "expected norm batch 1 to batch 64, got 65");
    c = good, c.norm_batch = -1;
    refuses(c, SBN_E_ARG, "expected norm batch 1 to batch 64, got -1");
    c = good, c.dtype = (sbn_dtype)5;
    refuses(c, SBN_E_ARG, "unknown element type 5");
    c = good, c.eps = 0;
    refuses(c, SBN_E_ARG, "n: expected eps > 0, got 0");
    c = good, c.momentum = 2;
    refuses(c, SBN_E_ARG, "n: expected momentum 0 to 1");
    c = good, c.norm = (sbn_model_norm)4;
    refuses(c, SBN_E_ARG, "unknown kind of normalization 4");
    c.norm = SBN_MODEL_NORM_GROUP, c.norm_groups = 0;
    refuses(c, SBN_E_ARG, "expected 1 group of channels or more, got 0");
    c.norm_groups = 2;
    refuses(c, SBN_E_ARG,
            "test:3:1: norm n: expected groups that divide its 3 channels, got 2");
    c.norm_groups = 3;
    refuses(c, SBN_E_ARG,
            "test:6:1: norm m: expected groups that divide its 5 channels, got 3");
    c.text = "input 6x1x1\nnorm first\nlogsoftmax\n", c.norm_groups = 6;
    refuses(c, SBN_E_FEW, "test:2:1: norm first: 6 groups of 6 channels hold one value");
    c.norm_groups = 1, c.eps = 0;
    refuses(c, SBN_E_ARG, "norm first: expected eps > 0, got 0");
    c = good, c.overlap = (sbn_overlap)3;
    refuses(c, SBN_E_ARG, "unknown choice 3 of overlap");
    c = good, c.label_smoothing = 1;
    refuses(c, SBN_E_ARG, "expected label smoothing of 0 to below 1, got 1");
    c = good, c.init_scale = 0;
    refuses(c, SBN_E_ARG, "expected a scale above 0 and a deviation >= 0 of initial");
    c = good, c.init_sigma = -1;
    refuses(c, SBN_E_ARG, "expected a scale above 0 and a deviation >= 0 of initial");
    c = good, c.text = NULL, c.net = "nothing";
    refuses(c, SBN_E_ARG, "unknown net \"nothing\"");
    sbn_model *model = NULL;
    FAILS(SBN_E_ARG, sbn_model_create(NULL, test_group, &model));
    FAILS(SBN_E_ARG, sbn_model_create(&good, NULL, &model));
    FAILS(SBN_E_ARG, sbn_model_create(&good, test_group, NULL));
}

static void net_bad_on_one_process(void **state)
{
    (void)state;
    sbn_model_config cfg = config(guilty() ? "input 1x2x2\nwhat\n" : net, SBN_F32);
    sbn_model *model = NULL;
    expect(sbn_model_create(&cfg, test_group, &model), SBN_E_DATA,
           "test:2:1: unknown layer \"what\"");
    assert_null(model);
}

/* Nets without norm layers too: nobody else compares them. */
static void trap_17_processes_that_differ(void **state)
{
    (void)state;
    if (test_size == 1) skip();
    const sbn_model_config good =
        config("input 2x1x1\nlinear a out=3\nlogsoftmax\n", SBN_F32);
    sbn_model_config cases[11];
    for (int i = 0; i < 11; i++) cases[i] = good;
    cases[0].text = "input 2x1x1\nlinear a out=4\nlogsoftmax\n";
    cases[1].dtype = SBN_F64;
    cases[2].seed = 2;
    cases[3].batch = 65;
    cases[4].norm_batch = 8;
    cases[5].norm = SBN_MODEL_NORM_NONE;
    cases[6].eps = 1e-4;
    cases[7].momentum = 0.2;
    cases[8].norm = SBN_MODEL_NORM_GROUP;
    cases[9].norm_groups = 2;
    cases[10].overlap = SBN_OVERLAP_NETWORK;
    for (int i = 0; i < 11; i++)
        refuses(guilty() ? cases[i] : good, SBN_E_MISMATCH,
                i ? "digest of the model's settings" : "digest of the net's text");
}

#define BOTH(f)                                                                          \
    cmocka_unit_test_setup(f, with_overlap), cmocka_unit_test_setup(f, without_overlap)

static const struct CMUnitTest tests[] = {
    BOTH(trap_31_bad_values_name_their_layer),
    BOTH(trap_31_bad_loss),
    BOTH(trap_31_bad_gradient),
    BOTH(trap_31_bad_values_on_the_way_back),
    BOTH(too_large_for_the_sums),
    BOTH(labels_outside_the_classes),
    BOTH(one_value_per_channel),
    BOTH(batches_outside_the_settings),
    BOTH(settings_out_of_range),
    BOTH(net_bad_on_one_process),
    BOTH(trap_17_processes_that_differ),
};
TEST_MAIN(tests)
