#include "train/checkpoint.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"
#include "nn/layer.h"
#include "nn/normkind.h"
#include "train/digests.h"
#include "train/safetensors.h"
#include "train/settings.h"

enum { NAME_BYTES = 128 };

sbn_status sbni_check_text(const sbn_model *model, const char *source)
{
    int number = 1;
    for (const char *line = sbn_model_text(model); *line; number++) {
        size_t bytes = strcspn(line, "\n");
        json_t *json = json_stringn(line, bytes);
        SBN_CHECK(json, SBN_E_DATA,
                  "%s:%d: expected text in UTF-8, got other bytes; save it as UTF-8",
                  source, number);
        json_decref(json);
        line += bytes + (line[bytes] == '\n');
    }
    return SBN_OK;
}

static const char *dtype_name(const sbn_model *model, const sbn_model_tensor *t)
{
    if (t->is_integer) return "I64";
    return sbn_model_input_shape(model).dtype == SBN_F64 ? "F64" : "F32";
}

static int64_t tensor_bytes(const sbn_model *model, const sbn_model_tensor *t)
{
    return t->count *
           (t->is_integer ? 8 : sbn_dtype_bytes(sbn_model_input_shape(model).dtype));
}

static sbni_st_tensor describe(const sbn_model *model, const sbn_model_tensor *t,
                               const char *name, const void *data)
{
    sbni_st_tensor out = {.name = name,
                          .dtype = dtype_name(model, t),
                          .axes = t->axes,
                          .data = data,
                          .bytes = tensor_bytes(model, t)};
    memcpy(out.shape, t->shape, sizeof t->shape);
    return out;
}

/* The model's tensors, 8-byte types first, so that every array is aligned in the file. */
static int list_model(const sbn_model *model, sbni_st_tensor *list)
{
    int n, at = 0;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    for (int wide = 1; wide >= 0; wide--)
        for (int i = 0; i < n; i++)
            if (t[i].is_integer == wide)
                list[at++] = describe(model, &t[i], t[i].name, t[i].data);
    return at;
}

/* Write with digests; the last of the pairs of metadata is free for them. */
static sbn_status write_digested(const char *path, const char *previous,
                                 const sbni_st_tensor *list, int n,
                                 const char *(*metadata)[2], int n_metadata)
{
    char *digests;
    const char *const(*pairs)[2] = (const char *const(*)[2])metadata;
    SBN_TRY(sbni_digests_make(list, n, pairs, n_metadata - 1, &digests));
    metadata[n_metadata - 1][0] = SBNI_DIGESTS_KEY;
    metadata[n_metadata - 1][1] = digests;
    sbn_status status = sbni_st_write_keeping(path, previous, list, n, pairs, n_metadata);
    sbni_free(digests);
    return status;
}

/* Open a file that is whole, as far as its digests tell. */
static sbn_status open_digested(const char *path, bool required, sbni_st_file **file)
{
    SBN_TRY(sbni_st_open(path, file));
    sbn_status status = sbni_digests_check(path, *file, required);
    if (status != SBN_OK) sbni_st_close(file);
    return status;
}

sbn_status sbni_model_save(const char *path, const sbn_model *model)
{
    int n;
    sbn_model_tensors(model, &n);
    sbni_st_tensor *list;
    SBN_TRY(sbni_alloc(n, sizeof *list, "checkpoint", &list));
    n = list_model(model, list);
    char eps[32], norm[SBNI_NORMKIND_BYTES];
    sbni_normkind_print(model->cfg.norm, model->cfg.norm_groups, norm);
    sbni_text_real(model->cfg.eps, eps, sizeof eps);
    const char *metadata[][2] = {{"format", "pt"},
                                 {"net", sbn_model_text(model)},
                                 {"norm", norm},
                                 {"norm-eps", eps},
                                 {NULL, NULL}};
    sbn_status status =
        write_digested(path, NULL, list, n, metadata, sizeof metadata / sizeof *metadata);
    sbni_free(list);
    return status;
}

/* "F32 [20, 10, 5, 5]" */
static void print_kind(const sbni_st_tensor *t, char text[NAME_BYTES])
{
    int at = snprintf(text, NAME_BYTES, "%s [", t->dtype);
    for (int i = 0; i < t->axes && at < NAME_BYTES; i++)
        at += snprintf(text + at, (size_t)(NAME_BYTES - at), "%s%" PRId64, i ? ", " : "",
                       t->shape[i]);
    if (at < NAME_BYTES) snprintf(text + at, (size_t)(NAME_BYTES - at), "]");
}

static sbn_status not_alike(const char *path, const sbni_st_tensor *want,
                            const sbni_st_tensor *have)
{
    char expected[NAME_BYTES], got[NAME_BYTES];
    print_kind(want, expected);
    if (!have)
        return sbni_fail(SBN_E_DATA,
                         "%s: expected a tensor %s of %s, found none: a checkpoint of "
                         "another net",
                         path, want->name, expected);
    print_kind(have, got);
    return sbni_fail(SBN_E_DATA,
                     "%s: tensor %s: expected %s, got %s: a checkpoint of another net",
                     path, want->name, expected, got);
}

static bool alike(const sbni_st_tensor *a, const sbni_st_tensor *b)
{
    bool same = a->axes == b->axes && !strcmp(a->dtype, b->dtype);
    for (int i = 0; same && i < a->axes; i++) same = a->shape[i] == b->shape[i];
    return same;
}

/* Find a tensor of the right type and shape. */
static sbn_status find(const char *path, const sbni_st_file *file, const sbn_model *model,
                       const sbn_model_tensor *t, const char *name, const void **data)
{
    const sbni_st_tensor *have = sbni_st_find(file, name);
    *data = NULL;
    /* frameworks did not always store counts; a checkpoint of ours has them */
    if (!have && t->is_integer && !sbni_st_find(file, "step")) return SBN_OK;
    sbni_st_tensor want = describe(model, t, name, NULL);
    if (!have || !alike(have, &want)) return not_alike(path, &want, have);
    *data = have->data;
    return SBN_OK;
}

/* Check every tensor, then copy: a failure leaves the model as it was. */
static sbn_status fill_model(const char *path, const sbni_st_file *file, sbn_model *model)
{
    int n;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    const void *data;
    for (int i = 0; i < n; i++) SBN_TRY(find(path, file, model, &t[i], t[i].name, &data));
    for (int i = 0; i < n; i++) {
        SBN_TRY(find(path, file, model, &t[i], t[i].name, &data));
        if (data)
            memcpy(t[i].data, data, (size_t)tensor_bytes(model, &t[i]));
        else
            memset(t[i].data, 0, (size_t)tensor_bytes(model, &t[i]));
    }
    return SBN_OK;
}

sbn_status sbni_model_load(const char *path, sbn_model *model)
{
    sbni_st_file *file;
    SBN_TRY(open_digested(path, false, &file));
    sbn_status status = fill_model(path, file, model);
    sbni_st_close(&file);
    return status;
}

sbn_status sbni_model_load_text(const char *path, char **text)
{
    sbni_st_file *file;
    SBN_TRY(sbni_st_open(path, &file));
    const char *net = sbni_st_metadata(file, "net");
    sbn_status status =
        net ? sbni_copy_string(net, text)
            : sbni_fail(SBN_E_DATA, "%s names no net; say which with --net", path);
    sbni_st_close(&file);
    return status;
}

sbn_status sbni_model_load_norm(const char *path, sbn_model_config *cfg)
{
    sbni_st_file *file;
    SBN_TRY(sbni_st_open(path, &file));
    const char *norm = sbni_st_metadata(file, "norm"),
               *eps = sbni_st_metadata(file, "norm-eps");
    sbn_status status = SBN_OK;
    if (norm && sbni_normkind_parse(norm, &cfg->norm, &cfg->norm_groups) != SBN_OK)
        status = sbni_fail(SBN_E_DATA,
                           "%s: expected norm " SBNI_NORMKIND_CHOICES ", got \"%.40s\"",
                           path, norm);
    if (eps && status == SBN_OK) {
        char *end;
        double value = sbni_text_to_real(eps, &end);
        if (*eps && !*end && value > 0 && isfinite(value))
            cfg->eps = value;
        else
            status = sbni_fail(SBN_E_DATA, "%s: expected norm-eps above 0, got \"%.40s\"",
                               path, eps);
    }
    sbni_st_close(&file);
    return status;
}

static void name_state(const sbn_optimizer *optimizer, int k, const char *tensor,
                       char *name)
{
    snprintf(name, NAME_BYTES, "optimizer.%s.%s", sbn_optimizer_state_name(optimizer, k),
             tensor);
}

/* Parameters are the tensors with a gradient; the optimizer's arrays follow their order.
 */
static void list_states(const sbn_model *model, sbn_optimizer *optimizer,
                        char (*names)[NAME_BYTES], sbni_st_tensor *list, int *at)
{
    int n;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    for (int k = 0; k < sbn_optimizer_states(optimizer); k++)
        for (int i = 0; i < n && t[i].grad; i++, names++) {
            name_state(optimizer, k, t[i].name, *names);
            list[(*at)++] =
                describe(model, &t[i], *names, sbn_optimizer_state(optimizer, i, k));
        }
}

sbn_status sbni_checkpoint_save(const char *path, const char *previous, sbn_model *model,
                                sbn_optimizer *optimizer, int64_t step,
                                const sbni_setting *settings, int n_settings)
{
    int n, exponents, states = sbn_optimizer_states(optimizer);
    sbn_model_tensors(model, &n);
    int64_t *exponent = sbn_model_grad_exponents(model, &exponents);
    sbni_st_tensor *list = NULL;
    char(*names)[NAME_BYTES] = NULL;
    sbn_status status;
    SBN_GOTO(sbni_alloc((1 + states) * n + 2, sizeof *list, "checkpoint", &list));
    SBN_GOTO(sbni_alloc(states * n, sizeof *names, "checkpoint", &names));
    int at = 0;
    list[at++] = (sbni_st_tensor){"step", "I64", 0, {0}, &step, 8};
    list[at++] = (sbni_st_tensor){"grad_exponents", "I64",    1,
                                  {exponents},      exponent, 8 * (int64_t)exponents};
    at += list_model(model, list + at);
    list_states(model, optimizer, names, list, &at);
    const char *metadata[SBNI_MAX_SETTINGS + 3][2] = {{"format", "syncbn-checkpoint-1"},
                                                      {"net", sbn_model_text(model)}};
    for (int i = 0; i < n_settings; i++) {
        metadata[i + 2][0] = settings[i].key;
        metadata[i + 2][1] = settings[i].value;
    }
    status = write_digested(path, previous, list, at, metadata, n_settings + 3);
fail:
    sbni_free(list);
    sbni_free(names);
    return status;
}

static sbn_status check_settings(const char *path, const sbni_st_file *file,
                                 const sbn_model *model, const sbni_setting *settings,
                                 int n_settings)
{
    const char *format = sbni_st_metadata(file, "format"),
               *net = sbni_st_metadata(file, "net");
    SBN_CHECK(format && !strcmp(format, "syncbn-checkpoint-1"), SBN_E_DATA,
              "%s: expected a checkpoint, got another kind of file (format %s)", path,
              format ? format : "unknown");
    SBN_CHECK(net && !strcmp(net, sbn_model_text(model)), SBN_E_DATA,
              "%s: a checkpoint of another net; resume with the net it was made with, or "
              "choose "
              "another --out",
              path);
    for (int i = 0; i < n_settings; i++) {
        const char *stored = sbni_st_metadata(file, settings[i].key);
        SBN_CHECK(
            stored && !strcmp(stored, settings[i].value), SBN_E_DATA,
            "%s: was made with %s %s, this run has %s; resume with the same, or choose "
            "another --out",
            path, settings[i].key, stored ? stored : "(none)", settings[i].value);
    }
    return SBN_OK;
}

static sbn_status fill_state(const char *path, const sbni_st_file *file, sbn_model *model,
                             sbn_optimizer *optimizer, int64_t *step)
{
    int n, exponents;
    int64_t *exponent = sbn_model_grad_exponents(model, &exponents);
    const sbni_st_tensor want_exponents = {"grad_exponents", "I64", 1, {exponents}, 0, 0},
                         want_step = {"step", "I64", 0, {0}, 0, 0},
                         *stored = sbni_st_find(file, want_exponents.name),
                         *at = sbni_st_find(file, want_step.name);
    if (!stored || !alike(stored, &want_exponents))
        return not_alike(path, &want_exponents, stored);
    if (!at || !alike(at, &want_step)) return not_alike(path, &want_step, at);
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    const int states = sbn_optimizer_states(optimizer);
    for (int pass = 0; pass < 2; pass++) /* check all, then copy all */
        for (int i = 0; i < n * states; i++) {
            const sbn_model_tensor *param = &t[i % n];
            char name[NAME_BYTES];
            const void *data;
            if (!param->grad) continue;
            name_state(optimizer, i / n, param->name, name);
            SBN_TRY(find(path, file, model, param, name, &data));
            if (pass)
                memcpy(sbn_optimizer_state(optimizer, i % n, i / n), data,
                       (size_t)tensor_bytes(model, param));
        }
    memcpy(step, at->data, 8);
    SBN_CHECK(*step >= 0, SBN_E_DATA, "%s: expected step >= 0, got %" PRId64, path,
              *step);
    for (int i = 0; i < exponents; i++) {
        memcpy(&exponent[i], (const char *)stored->data + 8 * i, 8);
        SBN_CHECK(exponent[i] >= -1000 && exponent[i] <= 1000, SBN_E_DATA,
                  "%s: grad_exponents[%d]: expected -1000 to 1000, got %" PRId64, path, i,
                  exponent[i]);
    }
    return SBN_OK;
}

sbn_status sbni_checkpoint_load(const char *path, sbn_model *model,
                                sbn_optimizer *optimizer, int64_t *step,
                                const sbni_setting *settings, int n_settings)
{
    sbni_st_file *file;
    SBN_TRY(open_digested(path, true, &file));
    sbn_status status = check_settings(path, file, model, settings, n_settings);
    if (status == SBN_OK) status = fill_state(path, file, model, optimizer, step);
    if (status == SBN_OK) status = fill_model(path, file, model);
    sbni_st_close(&file);
    return status;
}

sbn_status sbni_checkpoint_check(const char *path)
{
    sbni_st_file *file;
    SBN_TRY(open_digested(path, true, &file));
    sbni_st_close(&file);
    return SBN_OK;
}
