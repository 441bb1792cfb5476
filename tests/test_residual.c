/* Residual blocks: their gradients, and how they become runs, arrays and messages. Their
 * bits at any number of processes are in test_model_same, golden gradients in
 * test_train_golden. */
#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nn/layer.h"
#include "support/layer.h"
#include "support/net.h"

/* As resnet8: both kinds of blocks, add and relu in the pass of a norm. */
static const char *const blocks_net = "input 2x9x7\n"
                                      "conv a out=3 kernel=3 pad=1\n"
                                      "norm an\n"
                                      "relu\n"
                                      "block b\n"
                                      "conv b1 out=4 kernel=3 pad=1\n"
                                      "norm bn1\n"
                                      "relu\n"
                                      "conv b2 out=3 kernel=3 pad=1\n"
                                      "norm bn2\n"
                                      "end\n"
                                      "relu\n"
                                      "block c out=5 stride=2\n"
                                      "conv c1 out=4 kernel=3 stride=2 pad=1\n"
                                      "norm cn1\n"
                                      "relu\n"
                                      "conv c2 out=5 kernel=3 pad=1\n"
                                      "norm cn2\n"
                                      "end\n"
                                      "relu\n"
                                      "avgpool\n"
                                      "linear d out=6\n"
                                      "logsoftmax\n";
/* The norm before the add, not behind it; layers first in a branch that would overwrite
 * what goes past; blocks one behind the other; a last norm that adds without relu. */
static const char *const before_net = "input 2x6x5\n"
                                      "conv a out=3 kernel=2\n"
                                      "block b\n"
                                      "norm bn1\n"
                                      "relu\n"
                                      "conv b1 out=3 kernel=3 pad=1\n"
                                      "norm bn2\n"
                                      "relu\n"
                                      "conv b2 out=3 kernel=3 pad=1\n"
                                      "end\n"
                                      "block c\n"
                                      "sigmoid\n"
                                      "conv c1 out=3 kernel=3 pad=1\n"
                                      "end\n"
                                      "sigmoid\n"
                                      "block e\n"
                                      "sigmoid\n"
                                      "norm en\n"
                                      "end\n"
                                      "linear d out=6\n"
                                      "logsoftmax\n";
/* A block of one norm beside one with a norm of its own, whose sums must not wait for
 * each other; and blocks that differ in how many norms lie in the branch. */
static const char *const levels_net = "input 2x6x5\n"
                                      "block a out=4\n"
                                      "conv a1 out=4 kernel=3 pad=1\n"
                                      "norm an\n"
                                      "end\n"
                                      "relu\n"
                                      "block b out=3 stride=2\n"
                                      "conv b1 out=3 kernel=3 stride=2 pad=1\n"
                                      "end\n"
                                      "sigmoid\n"
                                      "block c out=5\n"
                                      "conv c1 out=4 kernel=2 pad=1\n"
                                      "norm cn1\n"
                                      "norm cn2\n"
                                      "relu\n"
                                      "conv c2 out=5 kernel=2\n"
                                      "norm cn3\n"
                                      "end\n"
                                      "norm n\n"
                                      "relu\n"
                                      "linear d out=6\n"
                                      "logsoftmax\n";
/* Dense layers, dropout and pools in branches; a block on the input, and before the loss;
 * a norm in front of a block, whose y two layers read. */
static const char *const dense_net = "input 8x1x1\n"
                                     "block a\n"
                                     "linear a1 out=5\n"
                                     "norm an\n"
                                     "dropout p=0.3\n"
                                     "relu\n"
                                     "linear a2 out=8\n"
                                     "dropout p=0.2\n"
                                     "end\n"
                                     "norm n\n"
                                     "block b\n"
                                     "linear b1 out=8\n"
                                     "norm bn\n"
                                     "end\n"
                                     "relu\n"
                                     "block c out=6\n"
                                     "linear c1 out=6\n"
                                     "end\n"
                                     "logsoftmax\n";
static const char *const pools_net = "input 2x8x6\n"
                                     "conv a out=3 kernel=1\n"
                                     "sigmoid\n"
                                     "block b out=4 stride=2\n"
                                     "avgpool size=2\n"
                                     "conv b1 out=4 kernel=1\n"
                                     "end\n"
                                     "maxpool size=2\n"
                                     "block c\n"
                                     "relu\n"
                                     "end\n"
                                     "linear d out=5\n"
                                     "logsoftmax\n";

static const char *const nets[] = {blocks_net, before_net, levels_net, dense_net,
                                   pools_net};
enum { NETS = sizeof nets / sizeof *nets };

static const double STEP = 0x1p-22;

static sbn_model_config config(const char *text, int64_t batch, sbn_dtype dtype)
{
    sbn_model_config cfg = sbn_model_config_default("test", batch);
    cfg.text = text;
    cfg.dtype = dtype;
    return cfg;
}

static void differences(void **state)
{
    (void)state;
    static const int64_t cases[][2] = {{37, 0}, {20, 6}, {40, 16}};
    for (int k = 0; k < NETS; k++)
        for (int i = 0; i < 2; i++) {
            sbn_model_config cfg = config(nets[k], cases[(k + i) % 3][0] + 3, SBN_F64);
            cfg.norm_batch = cases[(k + i) % 3][1];
            cfg.overlap = (k + i) % 2 ? SBN_OVERLAP_ALWAYS : SBN_OVERLAP_NEVER;
            net_differentiate(cfg, cases[(k + i) % 3][0], STEP);
        }
}

static void differences_without_norm(void **state)
{
    (void)state;
    for (int k = 0; k < NETS; k++) {
        sbn_model_config cfg = config(nets[k], 24, SBN_F64);
        cfg.norm = SBN_MODEL_NORM_NONE;
        cfg.overlap = k % 2 ? SBN_OVERLAP_ALWAYS : SBN_OVERLAP_NEVER;
        net_differentiate(cfg, 20, STEP);
    }
}

static void differences_of_group_norm(void **state)
{
    (void)state;
    for (int k = 0; k < NETS; k++) {
        sbn_model_config cfg = config(nets[k], 24, SBN_F64);
        cfg.norm = SBN_MODEL_NORM_GROUP;
        cfg.overlap = k % 2 ? SBN_OVERLAP_ALWAYS : SBN_OVERLAP_NEVER;
        net_differentiate(cfg, 20, STEP);
    }
}

static int count_kind(const sbn_model *m, sbni_layer_kind kind)
{
    int n = 0;
    for (int i = 0; i < m->layer_count; i++) n += m->layers[i].spec.kind == kind;
    return n;
}

/* A pool of 1 in front of an end keeps the norm from adding, and changes no value. */
static char *apart(const char *text)
{
    char *out = calloc(4, strlen(text) + 1), *to = out;
    if (!out) abort();
    for (const char *line = text; *line;) {
        size_t n = strcspn(line, "\n") + 1; /* every line has its end */
        if (!strncmp(line, "end\n", 4)) to = stpcpy(to, "avgpool size=1\n");
        memcpy(to, line, n);
        to += n;
        line += n;
    }
    return out;
}

/* Also of batch renormalization with its limits open, whose gradient takes r and d for
 * constants. The same sums in the same order, so only relu's zero may have another sign.
 */
static void adding_in_a_norm_is_adding(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++)
        for (int norm = SBN_MODEL_NORM_BATCH; norm <= SBN_MODEL_NORM_RENORM; norm++) {
            char *text = apart(nets[k]);
            sbn_model_config cfg = config(nets[k], 40, SBN_F64), other = cfg;
            cfg.norm = other.norm = (sbn_model_norm)norm;
            other.text = text;
            sbn_model *a = net_make(&cfg, test_group), *b = net_make(&other, test_group);
            assert_true(count_kind(a, SBNI_LAYER_ADD) < count_kind(b, SBNI_LAYER_ADD));
            net_batch batch = net_batch_make(a, 40, 5);
            int n;
            const sbn_model_tensor *s = sbn_model_tensors(a, &n),
                                   *t = sbn_model_tensors(b, &n);
            for (int step = 0; step < 3; step++) {
                sbn_model_result got, want;
                OK(sbn_model_set_limits(a, 1 + 0.5 * step, step));
                OK(sbn_model_set_limits(b, 1 + 0.5 * step, step));
                OK(net_gradient(a, SBN_F64, &batch, 40, &got));
                OK(net_gradient(b, SBN_F64, &batch, 40, &want));
                CLOSE(got.loss, want.loss, 1e-13);
                for (int i = 0; i < n && s[i].grad; i++)
                    for (int64_t e = 0; e < s[i].count; e++)
                        CLOSE(element(SBN_F64, s[i].grad, e),
                              element(SBN_F64, t[i].grad, e),
                              1e-12 + net_grid_error(a, s[i].name, 3));
            }
            net_batch_free(&batch);
            sbn_model_destroy(&a);
            sbn_model_destroy(&b);
            free(text);
        }
}

/* Runs, and adds that are layers of their own: few of the first means that norms side by
 * side exchange their sums at once. */
static void expect_plan(sbn_model_config cfg, int runs, int adds)
{
    sbn_model *m = net_make(&cfg, test_group);
    assert_int_equal(m->run_count, runs);
    assert_int_equal(count_kind(m, SBNI_LAYER_ADD), adds);
    int applied = 0, moments = 0, sums = 0, dx = 0;
    for (int r = 0; r < m->run_count; r++) {
        const sbni_run *run = &m->runs[r];
        for (int i = 0; i < run->forward.count; i++) {
            applied += run->forward.at[i].kind == SBNI_OP_APPLY;
            moments += run->forward.at[i].kind == SBNI_OP_MOMENTS;
        }
        for (int i = 0; i < run->backward.count; i++) {
            sums += run->backward.at[i].kind == SBNI_OP_SUMS;
            dx += run->backward.at[i].kind == SBNI_OP_DX;
        }
    }
    int norms = count_kind(m, SBNI_LAYER_NORM);
    assert_true(applied == norms && moments == norms && sums == norms && dx == norms);
    sbn_model_destroy(&m);
}

static void plans(void **state)
{
    (void)state;
    sbn_model_config cfg = sbn_model_config_default("resnet8", 32);
    expect_plan(cfg, 8, 0); /* nine norms, two of them beside others */
    cfg.norm = SBN_MODEL_NORM_NONE;
    expect_plan(cfg, 1, 3);
    cfg.norm = SBN_MODEL_NORM_GROUP;
    cfg.norm_groups = 4;
    expect_plan(cfg, 1, 3);
    expect_plan(config(blocks_net, 32, SBN_F32), 6, 0);
    expect_plan(config(before_net, 32, SBN_F32), 4, 2);
    expect_plan(config(levels_net, 32, SBN_F32), 7, 2);
}

static void shapes_that_do_not_meet(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"input 2x6x5\nblock b\nconv a out=3 kernel=1\nend\nlogsoftmax\n",
         "n:4:1: block \"b\": its layers make 3x6x5, what goes past them has 2x6x5"},
        {"input 2x6x5\nblock b out=3\nconv a out=3 kernel=2\nend\nlogsoftmax\n",
         "n:4:1: block \"b\": its layers make 3x5x4, what goes past them has 3x6x5"},
        {"input 2x6x5\nblock b out=3 stride=2\nlinear a out=27\nend\nlogsoftmax\n",
         "n:4:1: block \"b\": its layers make 27x1x1, what goes past them has 3x3x3"},
        {"input 65536x20x20\nblock b out=65536\nrelu\nend\nlogsoftmax\n",
         "n:2:1: b_conv has too many weights"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sbn_model_config cfg = config(bad[i][0], 4, SBN_F32);
        cfg.net = "n";
        sbn_model *model = NULL;
        FAILS(SBN_E_DATA, sbn_model_create(&cfg, test_group, &model));
        if (strncmp(sbn_last_error(), bad[i][1], strlen(bad[i][1])))
            fail_msg("got \"%s\", expected \"%s\"", sbn_last_error(), bad[i][1]);
        assert_null(model);
    }
}

/* NaN in what one process puts in: all fail, at the first norm, two messages under way.
 */
static void nan_is_told(void **state)
{
    (void)state;
    sbn_model_config cfg = config(levels_net, 64, SBN_F64);
    sbn_model *model = net_make(&cfg, test_group);
    net_batch b = net_batch_make(model, 64, 1);
    sbn_model_result got;
    double kept = b.x[3];
    b.x[3] = NAN;
    FAILS(test_rank == 0 ? SBN_E_NONFINITE : SBN_E_PEER,
          net_gradient(model, SBN_F64, &b, 64, &got));
    b.x[3] = kept;
    OK(net_gradient(model, SBN_F64, &b, 64, &got)); /* and goes on */
    net_batch_free(&b);
    sbn_model_destroy(&model);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(differences),
    cmocka_unit_test(differences_without_norm),
    cmocka_unit_test(differences_of_group_norm),
    cmocka_unit_test(adding_in_a_norm_is_adding),
    cmocka_unit_test(plans),
    cmocka_unit_test(shapes_that_do_not_meet),
    cmocka_unit_test(nan_is_told),
};
TEST_MAIN(tests)
