#include "syncbn/state.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "comm/alike.h"
#include "comm/group.h"
#include "core/memory.h"
#include "norm/norm.h"
#include "train/safetensors.h"

enum { MAX_PREFIX = 200, NAME_BYTES = MAX_PREFIX + 32 };

/* The arrays of a layer; its count comes apart. */
enum { WEIGHT, BIAS, MEAN, VAR, ARRAYS };
static const char *const fields[ARRAYS] = {"weight", "bias", "running_mean",
                                           "running_var"};
static const char count_field[] = "num_batches_tracked";

/* NULL where the layer has none. */
static void *array_of(const sbn_norm *norm, int field)
{
    void *const arrays[ARRAYS] = {norm->state.weight, norm->state.bias,
                                  norm->state.running_mean, norm->state.running_var};
    return arrays[field];
}

static int64_t element_bytes(const sbn_norm *norm)
{
    return sbn_dtype_bytes(norm->state_dtype);
}

static void name_of(const char *prefix, const char *field, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, "%s%s%s", prefix, *prefix ? "." : "", field);
}

static sbn_status check_entries(const char *call, const sbn_state_entry *entries, int n)
{
    SBN_CHECK(entries && n >= 1, SBN_E_ARG, "%s: expected at least one layer, got %d",
              call, entries ? n : 0);
    for (int i = 0; i < n; i++) {
        const char *prefix = entries[i].prefix;
        const sbn_norm *norm = entries[i].norm;
        SBN_CHECK(prefix && norm, SBN_E_ARG, "%s: entry %d: expected a %s, got NULL",
                  call, i, prefix ? "layer" : "prefix");
        SBN_CHECK(strlen(prefix) <= MAX_PREFIX, SBN_E_ARG,
                  "%s: entry %d: expected a prefix of at most %d bytes, got %zu", call, i,
                  MAX_PREFIX, strlen(prefix));
        SBN_TRY(sbni_norm_check_free(norm, call));
    }
    return SBN_OK;
}

/* One number that differs when name, kind or (with values) state of a layer does. */
static int64_t entry_digest(const sbn_state_entry *e, bool values)
{
    const sbn_norm *norm = e->norm;
    int64_t kind[4] = {norm->cfg.channels, norm->cfg.dtype, norm->cfg.affine,
                       norm->cfg.track_running_stats};
    uint64_t h = XXH3_64bits(e->prefix, strlen(e->prefix));
    h = XXH3_64bits_withSeed(kind, sizeof kind, h);
    for (int k = 0; values && k < ARRAYS; k++)
        if (array_of(norm, k))
            h = XXH3_64bits_withSeed(
                array_of(norm, k), (size_t)(norm->cfg.channels * element_bytes(norm)), h);
    if (values && norm->cfg.track_running_stats)
        h = XXH3_64bits_withSeed(norm->state.num_batches_tracked, 8, h);
    return (int64_t)(h >> 1);
}

/* Fails on all processes or on none. */
static sbn_status check_alike(const char *call, const sbn_state_entry *entries, int n,
                              sbn_group *group, bool values, const char *hint)
{
    int64_t digest[SBNI_GROUP_RANGES], least[SBNI_GROUP_RANGES],
        greatest[SBNI_GROUP_RANGES];
    SBN_TRY(sbn_group_agree(group, check_entries(call, entries, n)));
    char what[64];
    snprintf(what, sizeof what, "%s: the number of layers", call);
    SBN_TRY(sbni_group_check_same(group, n, what));
    for (int i = 0; i < n; i += SBNI_GROUP_RANGES) {
        int m = n - i < SBNI_GROUP_RANGES ? n - i : SBNI_GROUP_RANGES;
        for (int k = 0; k < m; k++) digest[k] = entry_digest(&entries[i + k], values);
        SBN_TRY(sbni_group_ranges(group, digest, m, least, greatest));
        for (int k = 0; k < m; k++)
            SBN_CHECK(least[k] == greatest[k], SBN_E_MISMATCH,
                      "%s: entry %d, %s, differs between processes; %s", call, i + k,
                      entries[i + k].prefix, hint);
    }
    return SBN_OK;
}

/* Wide elements first, so that every array is aligned in the file. */
static int list_tensors(const sbn_state_entry *entries, int n, char (*names)[NAME_BYTES],
                        sbni_st_tensor *list)
{
    int at = 0;
    for (int i = 0; i < n; i++) {
        const sbn_norm *norm = entries[i].norm;
        if (!norm->cfg.track_running_stats) continue;
        name_of(entries[i].prefix, count_field, names[at]);
        list[at] = (sbni_st_tensor){
            names[at], "I64", 0, {0}, norm->state.num_batches_tracked, 8};
        at++;
    }
    for (int bytes = 8; bytes >= 4; bytes -= 4)
        for (int i = 0; i < n; i++)
            for (int k = 0; k < ARRAYS; k++) {
                const sbn_norm *norm = entries[i].norm;
                const void *data = array_of(norm, k);
                int64_t c = norm->cfg.channels;
                if (!data || element_bytes(norm) != bytes) continue;
                name_of(entries[i].prefix, fields[k], names[at]);
                list[at] = (sbni_st_tensor){
                    names[at], bytes == 8 ? "F64" : "F32", 1, {c}, data, c * bytes};
                at++;
            }
    return at;
}

static sbn_status write_file(const char *path, const sbn_state_entry *entries, int n)
{
    static const char *const metadata[][2] = {{"format", "pt"}};
    SBN_CHECK(path, SBN_E_ARG, "sbn_state_save: expected a path, got NULL");
    sbni_st_tensor *list = NULL;
    char(*names)[NAME_BYTES] = NULL;
    sbn_status status;
    SBN_GOTO(sbni_alloc((int64_t)n * (ARRAYS + 1), sizeof *list, "state", &list));
    SBN_GOTO(sbni_alloc((int64_t)n * (ARRAYS + 1), sizeof *names, "state", &names));
    status =
        sbni_st_write(path, list, list_tensors(entries, n, names, list), metadata, 1);
fail:
    sbni_free(list);
    sbni_free(names);
    return status;
}

sbn_status sbn_state_save(const char *path, const sbn_state_entry *entries, int n,
                          sbn_group *group)
{
    static const char call[] = "sbn_state_save";
    SBN_CHECK(group, SBN_E_ARG, "%s: expected a group, got NULL", call);
    SBN_TRY(check_alike(call, entries, n, group, true,
                        "save what all share: merge running statistics first "
                        "(sbn_norm_merge), or save with a group of the processes alike"));
    return sbn_group_agree(group,
                           group->rank == 0 ? write_file(path, entries, n) : SBN_OK);
}

static double from_f16(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double v = exponent == 31  ? (double)(fraction ? NAN : INFINITY)
               : exponent == 0 ? ldexp(fraction, -24)
                               : ldexp(1024 + fraction, exponent - 25);
    return bits >> 15 ? -v : v;
}

/* Element i of a tensor of any real type. */
static double value_at(const sbni_st_tensor *t, int64_t i)
{
    if (!strcmp(t->dtype, "F64")) return ((const double *)t->data)[i];
    if (!strcmp(t->dtype, "F32")) return (double)((const float *)t->data)[i];
    uint16_t half = ((const uint16_t *)t->data)[i];
    if (!strcmp(t->dtype, "F16")) return from_f16(half);
    uint32_t bits = (uint32_t)half << 16; /* BF16: the upper half of a float */
    float v;
    memcpy(&v, &bits, sizeof v);
    return (double)v;
}

static bool is_real(const char *dtype)
{
    static const char *const real[] = {"F64", "F32", "F16", "BF16"};
    for (int i = 0; i < 4; i++)
        if (!strcmp(dtype, real[i])) return true;
    return false;
}

static void shape_text(const sbni_st_tensor *t, char *text, size_t bytes)
{
    size_t at = (size_t)snprintf(text, bytes, "[");
    for (int i = 0; i < t->axes && at < bytes; i++)
        at += (size_t)snprintf(text + at, bytes - at, "%s%" PRId64, i ? "," : "",
                               t->shape[i]);
    if (at < bytes) snprintf(text + at, bytes - at, "]");
}

/* Check one array and convert it to doubles. */
static sbn_status read_array(const char *path, const sbni_st_file *file, const char *name,
                             const sbn_norm *norm, int field, double *values)
{
    int64_t c = norm->cfg.channels;
    const sbni_st_tensor *t = sbni_st_find(file, name);
    if (!array_of(norm, field)) {
        SBN_CHECK(!t || field == MEAN || field == VAR, SBN_E_DATA,
                  "%s: has a tensor %s, but this layer is not affine", path, name);
        return SBN_OK;
    }
    SBN_CHECK(t, SBN_E_DATA,
              "%s: expected a tensor %s of shape [%" PRId64 "], found none", path, name,
              c);
    char shape[128];
    shape_text(t, shape, sizeof shape);
    SBN_CHECK(t->axes == 1 && t->shape[0] == c, SBN_E_DATA,
              "%s: %s: expected shape [%" PRId64 "], got %s", path, name, c, shape);
    SBN_CHECK(is_real(t->dtype), SBN_E_DATA,
              "%s: %s: expected elements F64, F32, F16 or BF16, got %s", path, name,
              t->dtype);
    double limit = norm->cfg.dtype == SBN_F64 ? DBL_MAX : (double)FLT_MAX;
    for (int64_t i = 0; i < c; i++) {
        double v = values[i] = value_at(t, i);
        SBN_CHECK(fabs(v) <= limit, SBN_E_DATA,
                  "%s: %s: expected finite values within the layer's type, got %g in "
                  "channel %" PRId64,
                  path, name, v, i);
        SBN_CHECK(field != VAR || v >= 0, SBN_E_DATA,
                  "%s: %s: expected variances >= 0, got %g in channel %" PRId64, path,
                  name, v, i);
    }
    return SBN_OK;
}

/* -1: the file has none, as those written before batches were counted. */
static sbn_status read_count(const char *path, const sbni_st_file *file, const char *name,
                             int64_t *count)
{
    const sbni_st_tensor *t = sbni_st_find(file, name);
    *count = -1;
    if (!t) return SBN_OK;
    char shape[128];
    shape_text(t, shape, sizeof shape);
    SBN_CHECK(t->axes == 0 && !strcmp(t->dtype, "I64"), SBN_E_DATA,
              "%s: %s: expected one I64 of shape [], got %s of shape %s", path, name,
              t->dtype, shape);
    memcpy(count, t->data, 8);
    SBN_CHECK(*count >= 0, SBN_E_DATA, "%s: %s: expected a count >= 0, got %" PRId64,
              path, name, *count);
    return SBN_OK;
}

/* What travels from process 0: a count for each layer, then the arrays that it has. */
typedef struct content {
    int64_t *counts; /* [n], and owns the memory */
    double *values;
    int64_t bytes;
} content;

static sbn_status content_create(const sbn_state_entry *entries, int n, content *all)
{
    int64_t words = n;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < ARRAYS; k++)
            if (array_of(entries[i].norm, k)) words += entries[i].norm->cfg.channels;
    all->bytes = 8 * words;
    SBN_TRY(sbni_alloc(words, 8, "state", &all->counts));
    all->values = (double *)(void *)(all->counts + n);
    return SBN_OK;
}

static sbn_status read_entries(const char *path, const sbni_st_file *file,
                               const sbn_state_entry *entries, int n, const content *all)
{
    double *values = all->values;
    for (int i = 0; i < n; i++) {
        const sbn_norm *norm = entries[i].norm;
        char name[NAME_BYTES];
        for (int k = 0; k < ARRAYS; k++) {
            name_of(entries[i].prefix, fields[k], name);
            SBN_TRY(read_array(path, file, name, norm, k, values));
            if (array_of(norm, k)) values += norm->cfg.channels;
        }
        if (!norm->cfg.track_running_stats) continue;
        name_of(entries[i].prefix, count_field, name);
        SBN_TRY(read_count(path, file, name, &all->counts[i]));
    }
    return SBN_OK;
}

static sbn_status read_file(const char *path, const sbn_state_entry *entries, int n,
                            const content *all)
{
    SBN_CHECK(path, SBN_E_ARG, "sbn_state_load: expected a path, got NULL");
    sbni_st_file *file;
    SBN_TRY(sbni_st_open(path, &file));
    sbn_status status = read_entries(path, file, entries, n, all);
    sbni_st_close(&file);
    return status;
}

/* Nothing here can fail. */
static void apply(sbn_state_entry *entries, int n, const content *all)
{
    const double *values = all->values;
    for (int i = 0; i < n; i++) {
        sbn_norm *norm = entries[i].norm;
        for (int k = 0; k < ARRAYS; k++) {
            void *array = array_of(norm, k);
            if (!array) continue;
            for (int64_t j = 0; j < norm->cfg.channels; j++)
                sbni_norm_set(norm, array, j, *values++);
        }
        entries[i].count_missing = all->counts[i] < 0;
        if (norm->cfg.track_running_stats)
            *norm->state.num_batches_tracked = all->counts[i] < 0 ? 0 : all->counts[i];
    }
}

sbn_status sbn_state_load(const char *path, sbn_state_entry *entries, int n,
                          sbn_group *group)
{
    static const char call[] = "sbn_state_load";
    SBN_CHECK(group, SBN_E_ARG, "%s: expected a group, got NULL", call);
    SBN_TRY(check_alike(call, entries, n, group, false,
                        "give the same prefixes and kinds of layers on all"));
    content all = {0};
    sbn_status status = content_create(entries, n, &all);
    if (status == SBN_OK && group->rank == 0) status = read_file(path, entries, n, &all);
    status = sbn_group_agree(group, status);
    if (status == SBN_OK) status = sbni_group_broadcast(group, all.counts, all.bytes, 0);
    if (status == SBN_OK) apply(entries, n, &all);
    sbni_free(all.counts);
    return status;
}
