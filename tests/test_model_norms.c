/* The kinds of normalization in a model, and the limits of batch renormalization. */
#include "support/harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn/layer.h"
#include "nn/normkind.h"
#include "support/layer.h"
#include "support/net.h"

static const char *const net = "input 2x6x6\n"
                               "conv c out=3 kernel=3\n"
                               "norm n\n"
                               "relu\n"
                               "linear d out=13\n"
                               "norm m\n"
                               "linear e out=4\n"
                               "logsoftmax\n";
enum { TOTAL = 48 };

static sbn_model *make(sbn_model_norm norm)
{
    sbn_model_config cfg = sbn_model_config_default("test", TOTAL);
    cfg.text = net;
    cfg.norm = norm;
    /* whole slices for group norm: as many rows in each product as in evaluation, since
     * with another number of rows some BLAS kernels round another way */
    cfg.norm_batch = norm == SBN_MODEL_NORM_GROUP ? SBN_NORM_BATCH_ALL : 8;
    return net_make(&cfg, test_group);
}

/* Every gradient of a is that of b. */
static bool alike(const sbn_model *a, const sbn_model *b)
{
    int n, n_b;
    const sbn_model_tensor *s = sbn_model_tensors(a, &n), *t = sbn_model_tensors(b, &n_b);
    bool same = n == n_b;
    for (int i = 0; same && i < n && s[i].grad; i++)
        same = !memcmp(s[i].grad, t[i].grad, (size_t)s[i].count * 4);
    return same;
}

/* Closed limits are batch norm to the bit, also beside open ones before and after; open
 * ones change the gradients. */
static void trap_38_open_limits_are_not_batch_norm(void **state)
{
    (void)state;
    static const double limits[][2] = {{1, 0},   {1.2, 0}, {1, 0},
                                       {1, 0.1}, {3, 5},   {1, 0}};
    sbn_model *renorm = make(SBN_MODEL_NORM_RENORM), *batch = make(SBN_MODEL_NORM_BATCH);
    net_batch b = net_batch_make(renorm, TOTAL, 3);
    for (int i = 0; i < 6; i++) {
        double r_max = limits[i][0], d_max = limits[i][1];
        sbn_model_result got, want;
        OK(sbn_model_set_limits(renorm, r_max, d_max));
        OK(net_gradient(renorm, SBN_F32, &b, TOTAL, &got));
        OK(net_gradient(batch, SBN_F32, &b, TOTAL, &want));
        bool closed = r_max == 1 && d_max == 0;
        assert_int_equal(got.loss == want.loss, closed);
        assert_int_equal(alike(renorm, batch), closed);
        sbn_norm_clipped clipped = sbn_model_get_clipped(renorm);
        assert_true(clipped.r_max == r_max && clipped.d_max == d_max);
        if (closed) assert_true(clipped.r == 1 && clipped.d == 1);
        if (r_max == 3) assert_true(clipped.d == 0); /* |mean| is below 5 deviations */
    }
    net_batch_free(&b);
    sbn_model_destroy(&renorm);
    sbn_model_destroy(&batch);
}

/* Every layer has the limits; the model's fractions are those of its 3 and 13 channels.
 */
static void trap_38_limits_reach_every_layer(void **state)
{
    (void)state;
    sbn_model *model = make(SBN_MODEL_NORM_RENORM);
    net_batch b = net_batch_make(model, TOTAL, 3);
    sbn_norm_clipped got = sbn_model_get_clipped(model), of[2];
    assert_true(got.r_max == 1 && got.d_max == 0 && got.r == 0 && got.d == 0);
    sbn_model_result gradient;
    OK(sbn_model_set_limits(model, 1.25, 0.25));
    OK(net_gradient(model, SBN_F32, &b, TOTAL, &gradient));
    int layers = 0;
    for (int i = 0; i < model->layer_count; i++) {
        if (!model->layers[i].norm) continue;
        of[layers] = sbn_norm_get_clipped(model->layers[i].norm);
        assert_true(of[layers].r_max == 1.25 && of[layers].d_max == 0.25);
        layers++;
    }
    assert_int_equal(layers, 2);
    assert_true(of[0].d != of[1].d);
    got = sbn_model_get_clipped(model);
    CLOSE(got.r, (3 * of[0].r + 13 * of[1].r) / 16, 1e-15);
    CLOSE(got.d, (3 * of[0].d + 13 * of[1].d) / 16, 1e-15);
    assert_true(got.d > 0 && got.d < 1);
    net_batch_free(&b);
    sbn_model_destroy(&model);
}

static void limits_out_of_range(void **state)
{
    (void)state;
    sbn_model *model = make(SBN_MODEL_NORM_RENORM);
    FAILS(SBN_E_ARG, sbn_model_set_limits(model, 0.5, 1));
    FAILS(SBN_E_ARG, sbn_model_set_limits(model, 2, -1));
    FAILS(SBN_E_ARG, sbn_model_set_limits(model, NAN, 1));
    assert_true(sbn_model_get_clipped(model).r_max == 1);
    sbn_model_destroy(&model);
    static const sbn_model_norm others[] = {SBN_MODEL_NORM_NONE, SBN_MODEL_NORM_BATCH,
                                            SBN_MODEL_NORM_GROUP};
    for (int i = 0; i < 3; i++) {
        model = make(others[i]);
        OK(sbn_model_set_limits(model, 2, 1));
        sbn_norm_clipped got = sbn_model_get_clipped(model);
        assert_true(got.r_max == 1 && got.d_max == 0 && got.r == 0 && got.d == 0);
        sbn_model_destroy(&model);
    }
}

/* What a sample becomes depends on no other: its loss alone is its loss in a batch. */
static void group_norm_samples_do_not_meet(void **state)
{
    (void)state;
    sbn_model *model = make(SBN_MODEL_NORM_GROUP);
    net_batch b = net_batch_make(model, TOTAL, 3);
    uint64_t all[4] = {0}, one[4] = {0};
    int64_t correct = 0, correct_one = 0;
    net_fill(model, SBN_F32, &b, 0, TOTAL);
    OK(sbn_model_evaluate(model, b.labels, TOTAL, all, &correct));
    for (int64_t r = 0; r < TOTAL; r++) {
        net_fill(model, SBN_F32, &b, r, 1);
        OK(sbn_model_evaluate(model, b.labels + r, 1, one, &correct_one));
    }
    /* linear layers round otherwise with another number of rows */
    CLOSE(sbn_model_loss(one), sbn_model_loss(all), 1e-6 * sbn_model_loss(all));
    assert_int_equal(correct, correct_one);
    sbn_model_result gradient;
    OK(net_gradient(model, SBN_F32, &b, TOTAL, &gradient));
    CLOSE(gradient.loss * TOTAL, sbn_model_loss(all), 1e-12); /* evaluation is no other */
    net_batch_free(&b);
    sbn_model_destroy(&model);
}

static void kinds_as_text(void **state)
{
    (void)state;
    static const struct {
        sbn_model_norm norm;
        int64_t groups;
        const char *text;
    } cases[] = {{SBN_MODEL_NORM_NONE, 1, "none"},
                 {SBN_MODEL_NORM_BATCH, 1, "batch"},
                 {SBN_MODEL_NORM_RENORM, 1, "renorm"},
                 {SBN_MODEL_NORM_GROUP, 1, "group:1"},
                 {SBN_MODEL_NORM_GROUP, 32, "group:32"},
                 {SBN_MODEL_NORM_GROUP, INT64_MAX, "group:9223372036854775807"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[SBNI_NORMKIND_BYTES];
        sbni_normkind_print(cases[i].norm, cases[i].groups, text);
        assert_string_equal(text, cases[i].text);
        sbn_model_norm norm;
        int64_t groups = 1;
        OK(sbni_normkind_parse(text, &norm, &groups));
        assert_true(norm == cases[i].norm && groups == cases[i].groups);
    }
    static const char *const bad[] = {"",
                                      "Batch",
                                      "batchnorm",
                                      "batch:2",
                                      "group",
                                      "group:",
                                      "group:0",
                                      "group:-1",
                                      "group: 1",
                                      "group:+1",
                                      "group:1x",
                                      "group:1.5",
                                      "group:9223372036854775808",
                                      "nonesuch"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sbn_model_norm norm = SBN_MODEL_NORM_BATCH;
        int64_t groups = 7;
        FAILS(SBN_E_ARG, sbni_normkind_parse(bad[i], &norm, &groups));
        assert_true(norm == SBN_MODEL_NORM_BATCH && groups == 7);
        assert_non_null(strstr(sbn_last_error(), bad[i]));
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(trap_38_open_limits_are_not_batch_norm),
    cmocka_unit_test(trap_38_limits_reach_every_layer),
    cmocka_unit_test(limits_out_of_range),
    cmocka_unit_test(group_norm_samples_do_not_meet),
    cmocka_unit_test(kinds_as_text),
};
TEST_MAIN(tests)
