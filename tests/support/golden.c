#include "support/golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "norm/scope.h"
#include "support/harness.h"
#include "support/layer.h"

static sbni_st_file *file;
static int selected;

int golden_open(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", GOLDEN_DIR, name);
    OK(sbni_st_open(path, &file));
    const char *cases = sbni_st_metadata(file, "cases");
    assert_non_null(cases);
    return atoi(cases);
}

void golden_close(void)
{
    sbni_st_close(&file);
}

void golden_select(int number)
{
    selected = number;
}

const sbni_st_tensor *golden_find(const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "case%d.%s", selected, name);
    return sbni_st_find(file, full);
}

double golden_value(const sbni_st_tensor *t, int64_t i)
{
    assert_non_null(t);
    return element(strcmp(t->dtype, "F32") ? SBN_F64 : SBN_F32, t->data, i);
}

double golden_largest(const sbni_st_tensor *t)
{
    assert_non_null(t);
    double most = 0;
    int64_t count = 1;
    for (int a = 0; a < t->axes; a++) count *= t->shape[a];
    for (int64_t i = 0; i < count; i++) most = fmax(most, fabs(golden_value(t, i)));
    return most;
}

const char *golden_setting(const char *key)
{
    char name[16];
    snprintf(name, sizeof name, "case%d", selected);
    const char *text = sbni_st_metadata(file, name);
    assert_non_null(text);
    size_t length = strlen(key);
    for (; text; text = strchr(text, ' ')) {
        text += *text == ' ';
        if (!strncmp(text, key, length) && text[length] == '=') return text + length + 1;
    }
    return NULL;
}

double golden_number(const char *key)
{
    const char *text = golden_setting(key);
    assert_non_null(text);
    return strtod(text, NULL);
}

void *golden_copy(const char *name)
{
    const sbni_st_tensor *t = golden_find(name);
    assert_non_null(t);
    void *to = malloc((size_t)t->bytes + 1);
    memcpy(to, t->data, (size_t)t->bytes);
    return to;
}

/* (n,c), or images of one, two or three axes as h rows. */
static sbn_tensor read_shape(sbn_dtype dtype)
{
    const char *text = golden_setting("shape");
    assert_non_null(text);
    int64_t size[5], axes = 0, pixels = 1;
    for (char *end = (char *)text; *end && *end != ' ' && axes < 5; axes++)
        size[axes] = strtoll(end + (axes > 0), &end, 10);
    if (axes == 2) return sbn_tensor_nc(dtype, NULL, size[0], size[1]);
    for (int64_t a = 2; a < axes - 1; a++) pixels *= size[a];
    return sbn_tensor_nchw(dtype, NULL, size[0], size[1], pixels, size[axes - 1]);
}

sbn_norm_config golden_config(sbn_tensor *x)
{
    const char *dtype = golden_setting("dtype"), *momentum = golden_setting("momentum"),
               *track = golden_setting("track");
    assert_true(dtype && momentum);
    *x = read_shape(strncmp(dtype, "f32", 3) ? SBN_F64 : SBN_F32);
    sbn_norm_config cfg = sbn_norm_config_default(x->c);
    cfg.dtype = x->dtype;
    cfg.affine = golden_number("affine") != 0;
    cfg.eps = golden_number("eps");
    cfg.momentum = strncmp(momentum, "none", 4) ? golden_number("momentum")
                                                : SBN_MOMENTUM_CUMULATIVE;
    cfg.track_running_stats = !track || *track != '0';
    return cfg;
}

void golden_load(sbn_norm *norm, int64_t c)
{
    sbn_norm_state state = sbn_norm_get_state(norm);
    const sbni_st_tensor *gamma = golden_find("gamma"), *beta = golden_find("beta");
    for (int64_t i = 0; gamma && i < c; i++) {
        sbn_dtype dtype = strcmp(gamma->dtype, "F32") ? SBN_F64 : SBN_F32;
        set_element(dtype, state.weight, i, golden_value(gamma, i));
        set_element(dtype, state.bias, i, golden_value(beta, i));
    }
}

void golden_share(int how, int64_t step, int64_t total, int64_t *first, int64_t *n)
{
    static const int weight[] = {5, 1, 3, 2};
    if (how == SHARE_SLICES) {
        sbni_scope_share(total, 0, test_rank, test_size, first, n);
        return;
    }
    int64_t below = 0, mine = 0, all = 0;
    for (int r = 0; r < test_size; r++) {
        int64_t turned = (r + step) % test_size,
                w = how == SHARE_UNEVEN  ? weight[turned % 4]
                    : how == SHARE_HOLES ? turned % 2 == test_size % 2 || test_size == 1
                                         : r == test_size - 1;
        all += w;
        below += r < test_rank ? w : 0;
        mine += r == test_rank ? w : 0;
    }
    *first = total * below / all;
    *n = total * (below + mine) / all - *first;
}

sbn_tensor golden_view(const sbn_tensor *shape, void *array, int64_t first, int64_t n)
{
    int64_t row = shape->c * shape->h * shape->w * sbn_dtype_bytes(shape->dtype);
    void *at = (char *)array + first * row;
    return shape->h * shape->w == 1
               ? sbn_tensor_nc(shape->dtype, at, n, shape->c)
               : sbn_tensor_nchw(shape->dtype, at, n, shape->c, shape->h, shape->w);
}

void golden_check(const char *name, sbn_dtype dtype, const void *got, int64_t skip,
                  int64_t count, double unit, const double *scale, int64_t s, int64_t c)
{
    const sbni_st_tensor *want = golden_find(name);
    assert_non_null(want);
    char what[64];
    snprintf(what, sizeof what, "case %d: %s", selected, name);
    for (int64_t e = 0; e < count; e++) {
        double limit = unit * (scale ? scale[(skip + e) / s % c] : 1);
        test_close(element(dtype, got, e), golden_value(want, skip + e), limit, what,
                   __FILE__, __LINE__);
    }
}
