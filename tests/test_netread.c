/* Texts of nets, by name and from files. */
#include "nn/netfile.h"
#include "support/harness.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"
#include "support/net.h"

#define IN "input 1x8x8\n"

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

static const char *const resnet8 = "conv stem 16 3 1 1 @5\n"
                                   "norm stem_bn 0 0 1 0 @6\n"
                                   "relu  0 0 1 0 @7\n"
                                   "block stage1 0 0 1 0 @8\n"
                                   "conv stage1_conv1 16 3 1 1 @9\n"
                                   "norm stage1_bn1 0 0 1 0 @10\n"
                                   "relu  0 0 1 0 @11\n"
                                   "conv stage1_conv2 16 3 1 1 @12\n"
                                   "norm stage1_bn2 0 0 1 0 @13\n"
                                   "end stage1 0 0 1 0 @14\n"
                                   "relu  0 0 1 0 @15\n"
                                   "block stage2 32 0 2 0 @16\n"
                                   "conv stage2_conv 32 1 2 0 beside @16\n"
                                   "norm stage2_bn 0 0 1 0 beside @16\n"
                                   "conv stage2_conv1 32 3 2 1 @17\n"
                                   "norm stage2_bn1 0 0 1 0 @18\n"
                                   "relu  0 0 1 0 @19\n"
                                   "conv stage2_conv2 32 3 1 1 @20\n"
                                   "norm stage2_bn2 0 0 1 0 @21\n"
                                   "end stage2 0 0 1 0 @22\n"
                                   "relu  0 0 1 0 @23\n"
                                   "block stage3 64 0 2 0 @24\n"
                                   "conv stage3_conv 64 1 2 0 beside @24\n"
                                   "norm stage3_bn 0 0 1 0 beside @24\n"
                                   "conv stage3_conv1 64 3 2 1 @25\n"
                                   "norm stage3_bn1 0 0 1 0 @26\n"
                                   "relu  0 0 1 0 @27\n"
                                   "conv stage3_conv2 64 3 1 1 @28\n"
                                   "norm stage3_bn2 0 0 1 0 @29\n"
                                   "end stage3 0 0 1 0 @30\n"
                                   "relu  0 0 1 0 @31\n"
                                   "avgpool  0 0 1 0 @32\n"
                                   "linear dense 10 0 1 0 @33\n"
                                   "logsoftmax  0 0 1 0 @34\n";

static void nets_that_come_along(void **state)
{
    (void)state;
    const struct {
        const char *name, *layers;
    } cases[] = {{"article", article}, {"cnn", cnn}, {"mlp", mlp}, {"resnet8", resnet8}};
    for (int i = 0; i < 4; i++) {
        char *text;
        sbni_net net;
        OK(sbni_net_read(cases[i].name, &text));
        OK(sbni_net_parse(cases[i].name, text, &net));
        assert_true(net.c == 1 && net.h == 28 && net.w == 28);
        net_expect_layers(&net, cases[i].layers);
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
                "expected article, cnn, mlp, resnet8, cnn-cifar or a file that ends in");
    expect_read(SBN_E_ARG, "", "unknown net \"\"");
    expect_read(SBN_E_ARG, "cnn.txt", "unknown net \"cnn.txt\"");
    const char *secret = write_net("secret.net", IN, strlen(IN));
    assert_int_equal(chmod(secret, 0), 0);
    if (access(secret, R_OK) != 0) expect_read(SBN_E_IO, secret, "Permission denied");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(nets_that_come_along),
    cmocka_unit_test(files),
    cmocka_unit_test(files_that_are_none),
};
TEST_MAIN(tests)
