#include "nn/netfile.h"
#include "support/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/net.h"
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
         "avgpool, relu, sigmoid, dropout, block, end or logsoftmax"},
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
    net_expect_layers(&net, layers);
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
    net_expect_layers(&net, layers);
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

static void blocks(void **state)
{
    (void)state;
    sbni_net net;
    OK(sbni_net_parse("n",
                      "input 3x9x8\n"
                      "block one\n"
                      "  relu\n"
                      "end\n"
                      "block two out=7 # beside it two layers\n"
                      "relu\n"
                      "\tend\n"
                      "block three stride=2 out=5\n"
                      "linear a out=9\n"
                      "norm b\n"
                      "end\n"
                      "logsoftmax\n",
                      &net));
    net_expect_layers(&net, "block one 0 0 1 0 @2\n"
                            "relu  0 0 1 0 @3\n"
                            "end one 0 0 1 0 @4\n"
                            "block two 7 0 1 0 @5\n"
                            "conv two_conv 7 1 1 0 beside @5\n"
                            "norm two_bn 0 0 1 0 beside @5\n"
                            "relu  0 0 1 0 @6\n"
                            "end two 0 0 1 0 @7\n"
                            "block three 5 0 2 0 @8\n"
                            "conv three_conv 5 1 2 0 beside @8\n"
                            "norm three_bn 0 0 1 0 beside @8\n"
                            "linear a 9 0 1 0 @9\n"
                            "norm b 0 0 1 0 @10\n"
                            "end three 0 0 1 0 @11\n"
                            "logsoftmax  0 0 1 0 @12\n");
    sbni_net_free(&net);
}

static void bad_blocks(void **state)
{
    (void)state;
    const bad cases[] = {
        {IN "block\n", "n:2:6: expected a name for this layer"},
        {IN "block out=3\n", "n:2:7: expected a name for this layer"},
        {IN "block a kernel=3\n",
         "n:2:9: unexpected \"kernel=3\"; block takes: NAME [out] [stride]"},
        {IN "block a stride=2\n", "n:2:1: a block with a stride needs out=N"},
        {IN "relu\n  end\n", "n:3:3: an end without a block"},
        {IN "block a\nrelu\nend a\n", "n:4:5: unexpected \"a\"; end takes: nothing"},
        {IN "block a\nend\n", "n:3:1: block \"a\" of line 2 has no layers"},
        {IN "block a out=3\nend\n", "n:3:1: block \"a\" of line 2 has no layers"},
        {IN "block a\nrelu\n block b\n", "n:4:2: a block within block \"a\" of line 2"},
        {IN "block a\nrelu\nlogsoftmax\n", "n:4:1: block \"a\" of line 2 has no end"},
        {IN "block a\nrelu\nend\nend\n", "n:5:1: an end without a block"},
        {IN "block a\nrelu\nend\nblock a\n", "n:5:7: the name \"a\" is taken by line 2"},
        {IN "block a out=1\nnorm a_bn\n", "n:3:6: the name \"a_bn\" is taken by line 2"},
        {IN "norm a_conv\nblock a out=1\n",
         "n:3:1: the name \"a_conv\" is taken by line 2"},
        {IN "block a234567890123456789012345678901234567890123 out=1\n",
         "n:2:1: a name has at most 47 bytes, a2345678901234567890123456789012345678901"
         "23_conv has 48"},
        {IN "block a\nrelu\n", "n:4:1: expected logsoftmax as the last layer"},
    };
    expect_errors(cases, sizeof cases / sizeof *cases);
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
    cmocka_unit_test(blocks),
    cmocka_unit_test(bad_blocks),
    cmocka_unit_test(shapes_that_do_not_fit),
};
TEST_MAIN(tests)
