#include "nn/netfile.h"
#include "support/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"
#include "syncbn/model.h"

static void expect_text(const char *want)
{
    if (!strncmp(sbn_last_error(), want, strlen(want))) return;
    fail_msg("got \"%s\", expected \"%s…\"", sbn_last_error(), want);
}

typedef struct bad {
    const char *text, *error; /* error: its beginning */
} bad;

static void expect_errors(const bad *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        sbni_net net;
        FAILS(SBN_E_DATA, sbni_net_parse("n", cases[i].text, &net));
        expect_text(cases[i].error);
        assert_null(net.layers);
    }
}

#define IN "input 1x8x8\n"

static void bad_input_lines(void **state)
{
    (void)state;
    const bad cases[] = {
        {"", "n:1:1: expected input as the first line, got the end of the file"},
        {"# nothing\n\n", "n:3:1: expected input as the first line, got the end"},
        {"relu\n" IN, "n:1:1: expected input as the first line, got \"relu\""},
        {"\n  inputs 1x8x8\n", "n:2:3: expected input as the first line, got \"inputs\""},
        {"input\n", "n:1:6: expected channels as a number from 1 to 65536, got \"\""},
        {"input 1x8\n", "n:1:10: expected channels x height x width like 1x28x28, got"},
        {"input 1,8,8\n", "n:1:8: expected channels x height x width"},
        {"input 1X8X8\n", "n:1:8: expected channels x height x width"},
        {"input 1x8x\n", "n:1:11: expected width as a number from 1 to 65536"},
        {"input 1xax8\n",
         "n:1:9: expected height as a number from 1 to 65536, got \"ax8\""},
        {"input 0x8x8\n", "n:1:7: expected channels as a number from 1 to 65536"},
        {"input -1x8x8\n", "n:1:7: expected channels as a number"},
        {"input 1x65537x8\n", "n:1:9: expected height as a number from 1 to 65536"},
        {"input 1x8x99999999999999999999999\n", "n:1:11: expected width as a number"},
        {"input 1x8x8x8\n", "n:1:12: unexpected \"x8\""},
        {"input 1x8x8 8\n", "n:1:13: unexpected \"8\""},
        {"input 1 x 8 x 8\n", "n:1:8: expected channels x height x width"},
        {IN "input 1x8x8\n", "n:2:1: a second input"},
        {IN "relu\n\tinput 1x8x8\n", "n:3:2: a second input"},
    };
    expect_errors(cases, sizeof cases / sizeof *cases);
}

static void bad_layers(void **state)
{
    (void)state;
    const bad cases[] = {
        {IN "  tanh\n",
         "n:2:3: unknown layer \"tanh\"; expected conv, linear, norm, maxpool, "
         "avgpool, relu, sigmoid, dropout or logsoftmax"},
        {IN "Relu\n", "n:2:1: unknown layer \"Relu\""},
        {IN "rel\n", "n:2:1: unknown layer \"rel\""},
        {IN "relu;\n", "n:2:1: unknown layer \"relu;\""},
        {IN "\x1b[2J\x7f\n", "n:2:1: unknown layer \"?[2J?\""},
        {IN "linear\n", "n:2:7: expected a name for this layer"},
        {IN "linear out=3\n", "n:2:8: expected a name for this layer"},
        {IN "norm # no name\n", "n:2:6: expected a name for this layer"},
        {IN "linear a.b out=3\n", "n:2:9: a name holds letters, digits and _ only"},
        {IN "linear \xc3\xa9 out=3\n", "n:2:8: a name holds letters, digits"},
        {IN "norm a23456789012345678901234567890123456789012345678\n",
         "n:2:6: a name has at most 47 bytes"},
        {IN "linear a out=3\n\nnorm  a\n", "n:4:7: the name \"a\" is taken by line 2"},
        {IN "relu\n", "n:3:1: expected logsoftmax as the last layer, got the end"},
        {IN, "n:2:1: expected logsoftmax as the last layer, got the end"},
        {"input 1x8x8", "n:2:1: expected logsoftmax as the last layer"},
        {IN "logsoftmax\nrelu\n", "n:3:1: nothing may follow logsoftmax"},
        {IN "logsoftmax\nlogsoftmax\n", "n:3:1: nothing may follow logsoftmax"},
        {IN "logsoftmax\nwhat\n", "n:3:1: nothing may follow logsoftmax"},
    };
    expect_errors(cases, sizeof cases / sizeof *cases);
}

static void bad_keys(void **state)
{
    (void)state;
    const bad cases[] = {
        {IN "linear a\n", "n:2:9: linear needs out=N"},
        {IN "linear a   # no size\n", "n:2:12: linear needs out=N"},
        {IN "conv a out=3\n", "n:2:13: conv needs kernel=N"},
        {IN "conv a kernel=3\n", "n:2:16: conv needs out=N"},
        {IN "maxpool\n", "n:2:8: maxpool needs size=N"},
        {IN "maxpool 2\n", "n:2:9: unexpected \"2\"; maxpool takes: size"},
        {IN "relu 2\n", "n:2:6: unexpected \"2\"; relu takes: nothing"},
        {IN "logsoftmax out=2\n",
         "n:2:12: unexpected \"out=2\"; logsoftmax takes: nothing"},
        {IN "norm a eps=1\n", "n:2:8: unexpected \"eps=1\"; norm takes: NAME"},
        {IN "linear a out=3 out=4\n", "n:2:16: out is given twice"},
        {IN "dropout\n", "n:2:8: dropout needs p=N"},
        {IN "dropout 0.5\n", "n:2:9: unexpected \"0.5\"; dropout takes: p"},
        {IN "dropout p=1\n",
         "n:2:11: expected p as a number from 0 to below 1, got \"1\""},
        {IN "dropout p=0.99999999999999999\n", "n:2:11: expected p as a number from 0"},
        {IN "dropout p=-0.1\n", "n:2:11: expected p as a number from 0 to below 1"},
        {IN "dropout p=.\n", "n:2:11: expected p as a number"},
        {IN "dropout p=\n", "n:2:11: expected p as a number"},
        {IN "dropout p=0.1.2\n", "n:2:11: expected p as a number"},
        {IN "dropout p=nan\n", "n:2:11: expected p as a number"},
        {IN "dropout p=0.1234567890123456789012\n", "n:2:11: expected p as a number"},
        {IN "dropout p=0.5e-1\n", "n:2:14: unexpected \"e-1\""},
        {IN "dropout p=0.5 p=0.5\n", "n:2:15: p is given twice"},
        {IN "avgpool 2\n", "n:2:9: unexpected \"2\"; avgpool takes: [size]"},
        {IN "avgpool size=0\n", "n:2:14: expected size as a number from 1"},
        {IN "conv a out=3 kernel=3 stride=1 pad=0 pad=1\n", "n:2:38: pad is given twice"},
        {IN "linear a kernel=3\n",
         "n:2:10: unexpected \"kernel=3\"; linear takes: NAME out"},
        {IN "linear a ou=3\n", "n:2:10: unexpected \"ou=3\""},
        {IN "linear a =3\n", "n:2:10: unexpected \"=3\""},
        {IN "linear a out =3\n", "n:2:10: unexpected \"out\""},
        {IN "conv a out=3 kernel=3 size=2\n",
         "n:2:23: unexpected \"size=2\"; conv takes: NAME out kernel [stride] [pad]"},
        {IN "linear a out=\n",
         "n:2:14: expected out as a number from 1 to 65536, got \"\""},
        {IN "linear a out=0\n", "n:2:14: expected out as a number from 1"},
        {IN "linear a out=-3\n", "n:2:14: expected out as a number"},
        {IN "linear a out=ten\n",
         "n:2:14: expected out as a number from 1 to 65536, got \"ten\""},
        {IN "linear a out=65537\n", "n:2:14: expected out as a number from 1 to 65536"},
        {IN "linear a out=3x\n", "n:2:15: unexpected \"x\""},
        {IN "linear a out=1.5\n", "n:2:15: unexpected \".5\""},
        {IN "conv a out=3 kernel=0\n", "n:2:21: expected kernel as a number from 1"},
        {IN "conv a out=3 kernel=3 stride=0\n",
         "n:2:30: expected stride as a number from 1"},
        {IN "conv a out=3 kernel=3 pad=\n", "n:2:27: expected pad as a number from 0"},
        {IN "maxpool size=0\n", "n:2:14: expected size as a number from 1"},
    };
    expect_errors(cases, sizeof cases / sizeof *cases);
}

static void too_many_layers(void **state)
{
    (void)state;
    enum { LINE = 5 };
    char *text = calloc(1, 16 + LINE * (SBNI_NET_MAX_LAYERS + 1) + 16);
    strcpy(text, IN);
    for (int i = 0; i < SBNI_NET_MAX_LAYERS - 1; i++)
        strcpy(text + strlen(IN) + LINE * i, "relu\n");
    char *end = text + strlen(text);
    sbni_net net;
    strcpy(end, "logsoftmax\n");
    OK(sbni_net_parse("n", text, &net));
    assert_int_equal(net.count, SBNI_NET_MAX_LAYERS);
    sbni_net_free(&net);
    strcpy(end, "relu\nlogsoftmax\n");
    FAILS(SBN_E_DATA, sbni_net_parse("n", text, &net));
    expect_text("n:1002:1: more than 1000 layers");
    free(text);
}

/* Kind, name, out, kernel, stride, pad, line of each layer, as one text. */
static void expect_layers(const sbni_net *net, const char *want)
{
    static const char *const kinds[] = {"conv",    "linear",  "norm",
                                        "maxpool", "avgpool", "relu",
                                        "sigmoid", "dropout", "logsoftmax"};
    char got[4096] = "";
    for (int i = 0; i < net->count; i++) {
        const sbni_layer_spec *l = &net->layers[i];
        char line[128];
        char rate[32] = "";
        if (l->kind == SBNI_LAYER_DROPOUT) snprintf(rate, sizeof rate, "p=%g ", l->rate);
        snprintf(line, sizeof line, "%s %s %d %d %d %d %s@%d\n", kinds[l->kind], l->name,
                 (int)l->out, (int)l->kernel, (int)l->stride, (int)l->pad, rate, l->line);
        strcat(got, line);
    }
    assert_string_equal(got, want);
}

static void every_layer_as_written(void **state)
{
    (void)state;
    const char *text = "# a net\n"
                       "input 3x9x8 # channels first\n"
                       "conv c_1 kernel=3 out=4 pad=1 stride=2\n"
                       "conv C2 out=65536 kernel=1\n"
                       "norm n\n"
                       "maxpool size=2#no space\n"
                       "relu\n"
                       "sigmoid\n"
                       "\n"
                       "linear 0 out=10\n"
                       "avgpool size=3\n"
                       "dropout p=0.25\n"
                       "avgpool\n"
                       "dropout p=0\n"
                       "logsoftmax";
    const char *layers = "conv c_1 4 3 2 1 @3\n"
                         "conv C2 65536 1 1 0 @4\n"
                         "norm n 0 0 1 0 @5\n"
                         "maxpool  0 2 1 0 @6\n"
                         "relu  0 0 1 0 @7\n"
                         "sigmoid  0 0 1 0 @8\n"
                         "linear 0 10 0 1 0 @10\n"
                         "avgpool  0 3 1 0 @11\n"
                         "dropout  0 0 1 0 p=0.25 @12\n"
                         "avgpool  0 0 1 0 @13\n"
                         "dropout  0 0 1 0 p=0 @14\n"
                         "logsoftmax  0 0 1 0 @15\n";
    sbni_net net;
    OK(sbni_net_parse("n", text, &net));
    assert_int_equal(net.c, 3);
    assert_int_equal(net.h, 9);
    assert_int_equal(net.w, 8);
    assert_int_equal(net.input_line, 2);
    expect_layers(&net, layers);
    sbni_net_free(&net);

    /* the same with the line ends and blanks of other editors */
    char windows[512], *to = windows;
    for (const char *at = text; *at; at++) {
        if (*at == '\n') to = stpcpy(to, " \t\r");
        *to++ = *at;
        if (*at == ' ') *to++ = '\t';
    }
    *to = 0;
    OK(sbni_net_parse("n", windows, &net));
    expect_layers(&net, layers);
    sbni_net_free(&net);
}

static void columns_count_bytes(void **state)
{
    (void)state;
    const bad cases[] = {
        {"input 1x8x8\r\n\t \tx\r\n", "n:2:4: unknown layer \"x\""},
        {"input 1x8x8\r\nlinear a out=1\r\nlinear a out=1\r\n",
         "n:3:8: the name \"a\" is taken by line 2"},
        {"#\xc3\xa9\ninput\t1x8x8\nmaxpool\tsize=q\n", "n:3:14: expected size"},
    };
    expect_errors(cases, sizeof cases / sizeof *cases);
}

static const char *const article = "conv conv1 10 5 1 0 @4\n"
                                   "maxpool  0 2 1 0 @5\n"
                                   "relu  0 0 1 0 @6\n"
                                   "conv conv2 20 5 1 0 @7\n"
                                   "norm conv2_bn 0 0 1 0 @8\n"
                                   "maxpool  0 2 1 0 @9\n"
                                   "relu  0 0 1 0 @10\n"
                                   "linear dense1 50 0 1 0 @11\n"
                                   "norm dense1_bn 0 0 1 0 @12\n"
                                   "relu  0 0 1 0 @13\n"
                                   "linear dense2 10 0 1 0 @14\n"
                                   "relu  0 0 1 0 @15\n"
                                   "logsoftmax  0 0 1 0 @16\n";
static const char *const cnn = "conv conv1 10 5 1 0 @3\n"
                               "maxpool  0 2 1 0 @4\n"
                               "relu  0 0 1 0 @5\n"
                               "conv conv2 20 5 1 0 @6\n"
                               "norm conv2_bn 0 0 1 0 @7\n"
                               "maxpool  0 2 1 0 @8\n"
                               "relu  0 0 1 0 @9\n"
                               "linear dense1 50 0 1 0 @10\n"
                               "norm dense1_bn 0 0 1 0 @11\n"
                               "relu  0 0 1 0 @12\n"
                               "linear dense2 10 0 1 0 @13\n"
                               "logsoftmax  0 0 1 0 @14\n";
static const char *const mlp = "linear dense1 100 0 1 0 @3\n"
                               "norm dense1_bn 0 0 1 0 @4\n"
                               "sigmoid  0 0 1 0 @5\n"
                               "linear dense2 100 0 1 0 @6\n"
                               "norm dense2_bn 0 0 1 0 @7\n"
                               "sigmoid  0 0 1 0 @8\n"
                               "linear dense3 100 0 1 0 @9\n"
                               "norm dense3_bn 0 0 1 0 @10\n"
                               "sigmoid  0 0 1 0 @11\n"
                               "linear dense4 10 0 1 0 @12\n"
                               "logsoftmax  0 0 1 0 @13\n";

static void nets_that_come_along(void **state)
{
    (void)state;
    const struct {
        const char *name, *layers;
    } cases[] = {{"article", article}, {"cnn", cnn}, {"mlp", mlp}};
    for (int i = 0; i < 3; i++) {
        char *text;
        sbni_net net;
        OK(sbni_net_read(cases[i].name, &text));
        OK(sbni_net_parse(cases[i].name, text, &net));
        assert_true(net.c == 1 && net.h == 28 && net.w == 28);
        expect_layers(&net, cases[i].layers);
        sbni_net_free(&net);
        sbni_free(text);
    }
}

static const char *write_net(const char *name, const char *text, size_t bytes)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
    return path;
}

static void expect_read(sbn_status status, const char *path, const char *part)
{
    char *text = NULL;
    FAILS(status, sbni_net_read(path, &text));
    assert_null(text);
    assert_non_null(strstr(sbn_last_error(), path));
    if (!strstr(sbn_last_error(), part))
        fail_msg("got \"%s\", expected \"%s\" in it", sbn_last_error(), part);
}

static void files(void **state)
{
    (void)state;
    char *text;
    OK(sbni_net_read(write_net("ok.net", IN "logsoftmax\n", 23), &text));
    assert_string_equal(text, IN "logsoftmax\n");
    sbni_free(text);
    OK(sbni_net_read(write_net("empty.net", "", 0), &text));
    assert_string_equal(text, "");
    sbni_free(text);

    static char large[(1 << 20) + 1];
    memset(large, '\n', sizeof large);
    OK(sbni_net_read(write_net("full.net", large, sizeof large - 1), &text));
    assert_int_equal(strlen(text), sizeof large - 1);
    sbni_free(text);
    expect_read(SBN_E_DATA, write_net("large.net", large, sizeof large),
                "at most 1048576 bytes");
    expect_read(SBN_E_DATA, write_net("nul.net", IN "re\0lu\n", 18),
                "nul.net:2:3: expected text, got a NUL byte");
    expect_read(SBN_E_DATA, write_net("first.net", "\0", 1), "first.net:1:1:");
}

static void files_that_are_none(void **state)
{
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s/missing.net", test_folder());
    expect_read(SBN_E_ARG, path, "No such file or directory; nets that come along:");
    snprintf(path, sizeof path, "%s/folder.net", test_folder());
    assert_int_equal(mkdir(path, 0700), 0);
    expect_read(SBN_E_IO, path, "Is a directory");
    expect_read(SBN_E_ARG, "resnet",
                "expected article, cnn, mlp, cnn-cifar or a file that ends in");
    expect_read(SBN_E_ARG, "", "unknown net \"\"");
    expect_read(SBN_E_ARG, "cnn.txt", "unknown net \"cnn.txt\"");
    const char *secret = write_net("secret.net", IN, strlen(IN));
    assert_int_equal(chmod(secret, 0), 0);
    if (access(secret, R_OK) != 0) expect_read(SBN_E_IO, secret, "Permission denied");
}

static void shapes_that_do_not_fit(void **state)
{
    (void)state;
    const bad cases[] = {
        {IN "relu\nconv a out=1 kernel=9\nlogsoftmax\n",
         "n:3:1: kernel 9 is larger than its input of 8x8"},
        {IN "conv a out=1 kernel=3 pad=3\nlogsoftmax\n",
         "n:2:1: expected pad < kernel 3, got 3"},
        {IN "maxpool size=2\nmaxpool size=5\nlogsoftmax\n",
         "n:3:1: window 5 is larger than its input of 4x4"},
        {IN "avgpool size=9\nlogsoftmax\n",
         "n:2:1: window 9 is larger than its input of 8x8"},
        {"input 1x20x20\nmaxpool size=16\nlogsoftmax\n",
         "n:2:1: expected a window up to 15, got 16"},
        {"# big\ninput 65536x65536x65536\nlogsoftmax\n",
         "n:2:1: a layer of 65536x65536x65536 is too large"},
        {"input 1x65536x8\nconv a out=65536 kernel=1\nlogsoftmax\n",
         "n:2:1: a layer of 65536x65536x8 is too large"},
        {"input 65536x16x16\nlinear a out=65536\nlogsoftmax\n",
         "n:2:1: a has too many weights: 16777216 for each of 65536 outputs"},
        {"input 65536x20x20\nconv a out=1 kernel=60000 pad=30000\nlogsoftmax\n",
         "n:2:1: a has too many weights"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sbn_model_config cfg = sbn_model_config_default("n", 4);
        cfg.text = cases[i].text;
        sbn_model *model = NULL;
        FAILS(SBN_E_DATA, sbn_model_create(&cfg, test_group, &model));
        expect_text(cases[i].error);
        assert_null(model);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(bad_input_lines),
    cmocka_unit_test(bad_layers),
    cmocka_unit_test(bad_keys),
    cmocka_unit_test(too_many_layers),
    cmocka_unit_test(every_layer_as_written),
    cmocka_unit_test(columns_count_bytes),
    cmocka_unit_test(nets_that_come_along),
    cmocka_unit_test(files),
    cmocka_unit_test(files_that_are_none),
    cmocka_unit_test(shapes_that_do_not_fit),
};
TEST_MAIN(tests)
