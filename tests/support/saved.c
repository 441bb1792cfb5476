#include "support/saved.h"

#include <stdio.h>
#include <unistd.h>

#include "support/harness.h"
#include "support/net.h"

static const char *const text = "input 1x6x6\n"
                                "conv c out=3 kernel=3\n"
                                "norm n\n"
                                "relu\n"
                                "linear d out=4\n"
                                "logsoftmax\n";

const sbni_setting saved_settings[SAVED_SETTINGS] = {
    {"seed", "3"}, {"lr", "0.05"}, {"batch", "16"}};
sbn_model *saved_model;
sbn_optimizer *saved_optimizer;

const char *saved_path(const char *name)
{
    static char path[2][1024];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", test_folder(), name);
    return path[turn];
}

void saved_write(const char *path, const char *bytes, int64_t n)
{
    /* some file systems wait for the disk where a file is emptied and written anew */
    unlink(path);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, (size_t)n, f), n);
    assert_int_equal(fclose(f), 0);
}

int64_t saved_read(const char *path, char *bytes)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(bytes, 1, SAVED_ROOM, f);
    fclose(f);
    assert_true(n < SAVED_ROOM);
    return (int64_t)n;
}

void saved_set(double mark)
{
    int n, exponents;
    int64_t *exponent = sbn_model_grad_exponents(saved_model, &exponents);
    const sbn_model_tensor *t = sbn_model_tensors(saved_model, &n);
    for (int i = 0; i < exponents; i++) exponent[i] = (int64_t)mark - i;
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < t[i].count; k++) {
            if (t[i].is_integer)
                ((int64_t *)t[i].data)[k] = (int64_t)mark + k;
            else
                ((float *)t[i].data)[k] = (float)(mark + (double)i + 1e-3 * (double)k);
            if (t[i].grad)
                ((float *)sbn_optimizer_state(saved_optimizer, i, 0))[k] =
                    (float)(-mark - (double)i - 1e-3 * (double)k);
        }
}

bool saved_are(double mark)
{
    int n, exponents;
    int64_t *exponent = sbn_model_grad_exponents(saved_model, &exponents);
    const sbn_model_tensor *t = sbn_model_tensors(saved_model, &n);
    bool same = true;
    for (int i = 0; i < exponents; i++) same &= exponent[i] == (int64_t)mark - i;
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < t[i].count; k++) {
            float value = (float)(mark + (double)i + 1e-3 * (double)k),
                  state = (float)(-mark - (double)i - 1e-3 * (double)k);
            same &= t[i].is_integer ? ((int64_t *)t[i].data)[k] == (int64_t)mark + k
                                    : ((float *)t[i].data)[k] == value;
            if (t[i].grad)
                same &= ((float *)sbn_optimizer_state(saved_optimizer, i, 0))[k] == state;
        }
    return same;
}

int saved_make(void **state)
{
    (void)state;
    sbn_model_config cfg = sbn_model_config_default("test", 16);
    cfg.text = text;
    cfg.dtype = SBN_F32;
    saved_model = net_make(&cfg, test_group);
    int n, params = 0;
    const sbn_model_tensor *t = sbn_model_tensors(saved_model, &n);
    sbn_optimizer_tensor list[16];
    for (; params < n && t[params].grad; params++)
        list[params] =
            (sbn_optimizer_tensor){t[params].data, t[params].grad, t[params].count, 0};
    sbn_optimizer_config sgd = {.momentum = 0.9, .dtype = SBN_F32};
    OK(sbn_optimizer_create(&sgd, list, params, &saved_optimizer));
    return 0;
}

int saved_destroy(void **state)
{
    (void)state;
    sbn_optimizer_destroy(&saved_optimizer);
    sbn_model_destroy(&saved_model);
    return 0;
}
