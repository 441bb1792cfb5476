#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/commands.h"
#include "options/options.h"
#include "comm/group.h"
#include "core/memory.h"
#include "nn/netfile.h"
#include "syncbn/data.h"
#include "syncbn/model.h"
#include "train/digests.h"
#include "train/safetensors.h"

static const sbni_option options[] = {{0}};

static const sbni_command command = {
    "inspect", "inspect WHAT",
    "Summarize a data set (fashion-mnist, synthetic, a folder, cifar10:DIR), a net (name "
    "or\n.net file), a weights file or checkpoint (.safetensors), metrics (.jsonl), or a "
    "run's folder.",
    options, 1};

static sbn_status inspect_split(const char *spec, sbn_split split)
{
    sbn_dataset_info info;
    int64_t bytes;
    void *memory = NULL;
    sbn_dataset *dataset = NULL;
    float *x = NULL;
    sbn_status status;
    SBN_GOTO(sbn_dataset_probe(spec, split, &info, &bytes));
    SBN_GOTO(sbni_alloc(bytes, 1, "data set", &memory));
    if (bytes) SBN_GOTO(sbn_dataset_load(spec, split, &info, memory));
    SBN_GOTO(sbn_dataset_create(spec, split, &info, bytes ? memory : NULL, 1, &dataset));
    int64_t pixels = info.c * info.h * info.w, classes[256] = {0};
    SBN_GOTO(sbni_alloc(pixels, sizeof *x, "image", &x));
    double sum = 0, sum_square = 0;
    for (int64_t i = 0; i < info.n; i++) {
        int32_t label;
        sbn_dataset_fetch(dataset, &i, 1, x, &label);
        classes[label & 255]++;
        for (int64_t p = 0; p < pixels; p++) {
            sum += (double)x[p];
            sum_square += (double)x[p] * (double)x[p];
        }
    }
    double n = (double)(info.n * pixels), mean = sum / n;
    printf("%s: %" PRId64 " images of %" PRId64 "x%" PRId64 "x%" PRId64
           ", pixel mean %.4f deviation %.4f\n  samples per class:",
           split == SBN_SPLIT_TRAIN ? "train" : "test", info.n, info.c, info.h, info.w,
           mean, sqrt(fmax(sum_square / n - mean * mean, 0)));
    for (int64_t c = 0; c < info.classes; c++) printf(" %" PRId64, classes[c]);
    printf("\n");
fail:
    sbni_free(x);
    sbn_dataset_destroy(&dataset);
    sbni_free(memory);
    return status;
}

static sbn_status inspect_data(const char *spec)
{
    SBN_TRY(inspect_split(spec, SBN_SPLIT_TRAIN));
    return inspect_split(spec, SBN_SPLIT_TEST);
}

static void print_shape(int axes, const int64_t *shape)
{
    char text[96] = "scalar";
    for (int i = 0, at = 0; i < axes && at < 80; i++)
        at += snprintf(text + at, sizeof text - (size_t)at, "%s%" PRId64, i ? "x" : "",
                       shape[i]);
    printf("%-16s", text);
}

static sbn_status inspect_net(const char *net, sbn_group *group)
{
    sbn_model_config cfg = sbn_model_config_default(net, SBN_SLICE);
    sbn_model *model;
    SBN_TRY(sbn_model_create(&cfg, group, &model));
    int n;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    int64_t params = 0;
    printf("%s\n", sbn_model_text(model));
    for (int i = 0; i < n; i++) {
        printf("  %-30s ", t[i].name);
        print_shape(t[i].axes, t[i].shape);
        printf("%s\n", t[i].grad ? "" : "buffer");
        if (t[i].grad) params += t[i].count;
    }
    printf("%" PRId64 " parameters\n", params);
    sbn_model_destroy(&model);
    return SBN_OK;
}

static void print_range(const sbni_st_tensor *t)
{
    bool f32 = !strcmp(t->dtype, "F32");
    if ((!f32 && strcmp(t->dtype, "F64") != 0) || t->bytes == 0) {
        if (!strcmp(t->dtype, "I64") && t->bytes == 8)
            printf("%" PRId64, *(const int64_t *)t->data);
        return;
    }
    double least = INFINITY, most = -INFINITY, sum = 0;
    int64_t n = t->bytes / (f32 ? 4 : 8), odd = 0;
    for (int64_t i = 0; i < n; i++) {
        double v =
            f32 ? (double)((const float *)t->data)[i] : ((const double *)t->data)[i];
        odd += !isfinite(v);
        sum += v;
        if (v < least) least = v;
        if (v > most) most = v;
    }
    printf("%10.4g to %-10.4g mean %.4g", least, most, sum / (double)n);
    if (odd) printf("  %" PRId64 " NOT FINITE", odd);
}

static sbn_status inspect_tensors(const char *path)
{
    sbni_st_file *file;
    SBN_TRY(sbni_st_open(path, &file));
    static const char *const keys[] = {
        "format",         "batch",        "norm-batch",    "norm",
        "renorm-r-max",   "renorm-d-max", "renorm-warmup", "renorm-r-steps",
        "renorm-d-steps", "norm-eps",     "norm-momentum", "lr",
        "schedule",       "momentum",     "seed",          "train-samples"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *value = sbni_st_metadata(file, keys[i]);
        if (value) printf("%s: %s\n", keys[i], value);
    }
    for (int i = 0; i < sbni_st_count(file); i++) {
        const sbni_st_tensor *t = sbni_st_at(file, i);
        printf("  %-38s %-4s ", t->name, t->dtype);
        print_shape(t->axes, t->shape);
        print_range(t);
        printf("\n");
    }
    /* last, since what a damaged file holds may be worth a look */
    sbn_status status = sbni_digests_check(path, file, false);
    if (status == SBN_OK && sbni_st_metadata(file, SBNI_DIGESTS_KEY))
        printf("digests of header and tensors: as written\n");
    sbni_st_close(&file);
    return status;
}

/* Running summary of the lines of a metrics file. */
typedef struct metrics_summary {
    int64_t lines, steps, evals;
    double first_loss, last_loss, best, last_accuracy;
    bool done;
} metrics_summary;

static sbn_status add_line(const char *path, int64_t line, const char *text,
                           metrics_summary *s)
{
    json_error_t error;
    json_t *o = json_loads(text, 0, &error);
    if (!json_is_object(o)) {
        const char *got = o ? "another value" : error.text;
        sbn_status status =
            sbni_fail(SBN_E_DATA, "%s:%" PRId64 ": expected a JSON object, got %s", path,
                      line, got);
        json_decref(o);
        return status;
    }
    const char *kind = json_string_value(json_object_get(o, "kind"));
    s->lines++;
    if (kind && !strcmp(kind, "step")) {
        double loss = json_number_value(json_object_get(o, "loss"));
        if (s->steps++ == 0) s->first_loss = loss;
        s->last_loss = loss;
    } else if (kind && !strcmp(kind, "eval")) {
        double accuracy = json_number_value(json_object_get(o, "test_accuracy"));
        printf("  epoch %" JSON_INTEGER_FORMAT ": test loss %.4f, test accuracy %.4f\n",
               json_integer_value(json_object_get(o, "epoch")),
               json_number_value(json_object_get(o, "test_loss")), accuracy);
        s->evals++;
        s->last_accuracy = accuracy;
        if (accuracy > s->best) s->best = accuracy;
    } else if (kind && !strcmp(kind, "done")) {
        s->done = true;
        printf("  done: %.1f s, %.0f img/s\n",
               json_number_value(json_object_get(o, "seconds")),
               json_number_value(json_object_get(o, "images_per_s")));
    }
    json_decref(o);
    return SBN_OK;
}

static sbn_status inspect_metrics(const char *path)
{
    FILE *f = fopen(path, "r");
    SBN_CHECK(f, SBN_E_IO, "cannot open %s: %s", path, strerror(errno));
    metrics_summary s = {0};
    char *text = NULL;
    size_t room = 0;
    sbn_status status = SBN_OK;
    for (int64_t line = 1; status == SBN_OK && getline(&text, &room, f) > 0; line++)
        status = add_line(path, line, text, &s);
    if (status == SBN_OK && ferror(f))
        status = sbni_fail(SBN_E_IO, "cannot read %s: %s", path, strerror(errno));
    free(text);
    fclose(f);
    SBN_TRY(status);
    printf("%" PRId64 " steps, loss %.4f to %.4f; %" PRId64
           " evaluations, accuracy %.4f, best %.4f%s\n",
           s.steps, s.first_loss, s.last_loss, s.evals, s.last_accuracy, s.best,
           s.done ? "" : "; not finished");
    return SBN_OK;
}

static bool ends_in(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static sbn_status inspect(const char *what, sbn_group *group)
{
    if (ends_in(what, ".safetensors")) return inspect_tensors(what);
    if (ends_in(what, ".jsonl")) return inspect_metrics(what);
    if (!strcmp(what, "fashion-mnist") || !strcmp(what, "synthetic") ||
        !strncmp(what, "cifar10:", 8))
        return inspect_data(what);
    if (ends_in(what, ".net")) return inspect_net(what, group);
    struct stat info;
    if (stat(what, &info) != 0) {
        int reason = errno;
        /* a word without a path may be a net that comes along */
        if (reason == ENOENT && !strchr(what, '/') && inspect_net(what, group) == SBN_OK)
            return SBN_OK;
        return sbni_fail(
            SBN_E_IO,
            "cannot look at %s: %s; expected a data set, a net, a folder or a "
            "file; syncbn inspect --help",
            what, strerror(reason));
    }
    SBN_CHECK(S_ISDIR(info.st_mode), SBN_E_ARG,
              "%s: expected a folder, a net or a file that ends in .net, .safetensors or "
              ".jsonl",
              what);
    char path[4096];
    if (snprintf(path, sizeof path, "%s/metrics.jsonl", what) < (int)sizeof path &&
        stat(path, &info) == 0) {
        SBN_TRY(inspect_metrics(path));
        snprintf(path, sizeof path, "%s/model.safetensors", what);
        return stat(path, &info) == 0 ? inspect_tensors(path) : SBN_OK;
    }
    return inspect_data(what);
}

sbn_status sbni_command_inspect(int argc, char **argv, sbn_group *group)
{
    sbni_arguments arguments;
    SBN_TRY(sbni_options_parse(&command, argc, argv, NULL, &arguments, group));
    bool speaks = sbn_group_rank(group) == 0;
    if (arguments.help) {
        if (speaks) sbni_options_help(&command);
        return SBN_OK;
    }
    SBN_CHECK(arguments.count == 1, SBN_E_ARG,
              "expected what to inspect; syncbn inspect --help");
    /* one process reads and prints; a group of its own, since the others do not take part
     */
    sbn_group *alone = NULL;
    sbn_status status = SBN_OK;
    if (speaks) status = sbni_group_alone(&alone);
    if (speaks && status == SBN_OK) status = inspect(arguments.words[0], alone);
    sbn_group_destroy(&alone);
    return sbni_group_agree_asleep(group, status);
}
