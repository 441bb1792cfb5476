#include "syncbn/data.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/memory.h"
#include "data/augment.h"
#include "data/cifar.h"
#include "data/idx.h"
#include "data/shift.h"
#include "data/synthetic.h"

struct sbn_dataset {
    sbn_dataset_info info;
    const uint8_t *pixels, *labels; /* NULL: synthetic */
    sbn_split split;
    uint64_t seed;
    sbni_augment augment;
    sbni_shift shift;
    uint64_t shift_seed;
};

static bool is_synthetic(const char *spec)
{
    return strcmp(spec, "synthetic") == 0;
}

/* The folder of a spec cifar10:FOLDER; NULL: it is none. */
static const char *cifar_folder(const char *spec)
{
    static const char prefix[] = "cifar10:";
    size_t length = sizeof prefix - 1;
    return strncmp(spec, prefix, length) == 0 ? spec + length : NULL;
}

static bool has_cifar(const char *folder)
{
    char path[4096];
    struct stat s;
    return snprintf(path, sizeof path, "%s/data_batch_1.bin", folder) <
               (int)sizeof path &&
           stat(path, &s) == 0;
}

/* What a spec of IDX files means. */
static sbni_idx_source find_source(const char *spec, sbn_split split)
{
    if (strcmp(spec, "fashion-mnist") != 0)
        return (sbni_idx_source){
            .folder = spec,
            .split = split,
            .advice = has_cifar(spec)
                          ? "it holds CIFAR-10, which is --data cifar10:FOLDER"
                          : "name a folder with the four IDX files, or use --data "
                            "synthetic"};
    const char *folder = getenv("SYNCBN_FASHION_MNIST");
    if (folder && *folder)
        return (sbni_idx_source){.folder = folder,
                                 .split = split,
                                 .advice =
                                     "correct SYNCBN_FASHION_MNIST, install the package "
                                     "dataset-fashion-mnist or use --data synthetic"};
    return (sbni_idx_source){
        .folder = "/usr/share/datasets/fashion-mnist",
        .split = split,
        .advice = "install the package dataset-fashion-mnist or use --data synthetic"};
}

static sbn_status check_spec(const char *spec, sbn_split split)
{
    SBN_CHECK(spec != NULL && *spec, SBN_E_ARG,
              "data: expected synthetic, fashion-mnist, cifar10:FOLDER or a folder, got "
              "nothing");
    SBN_CHECK(strcmp(spec, "cifar10") != 0 && strcmp(spec, "cifar10:") != 0, SBN_E_ARG,
              "data: expected cifar10:FOLDER with the folder of data_batch_1.bin, got %s",
              spec);
    SBN_CHECK(split == SBN_SPLIT_TRAIN || split == SBN_SPLIT_TEST, SBN_E_ARG,
              "data: expected the train or the test split, got %d", (int)split);
    return SBN_OK;
}

static bool same_info(const sbn_dataset_info *a, const sbn_dataset_info *b)
{
    return a->n == b->n && a->c == b->c && a->h == b->h && a->w == b->w &&
           a->classes == b->classes;
}

static sbn_status check_info(const char *spec, sbn_split split,
                             const sbn_dataset_info *info)
{
    SBN_CHECK(info != NULL, SBN_E_ARG, "data: expected the info of sbn_dataset_probe");
    sbn_dataset_info drawn = sbni_synthetic_info(split);
    bool usable = info->n >= 1 && info->classes >= 1;
    if (is_synthetic(spec))
        usable = same_info(info, &drawn);
    else if (cifar_folder(spec))
        usable = usable && info->c == SBNI_CIFAR_CHANNELS && info->h == SBNI_CIFAR_SIDE &&
                 info->w == SBNI_CIFAR_SIDE;
    else
        usable = usable && info->c == 1 && info->h >= 1 && info->w >= 1 &&
                 info->h <= SBNI_IDX_MOST_SIDE && info->w <= SBNI_IDX_MOST_SIDE;
    SBN_CHECK(usable, SBN_E_ARG,
              "data %s: expected the info of sbn_dataset_probe, got %" PRId64
              " images of %" PRId64 "x%" PRId64 "x%" PRId64 " in %" PRId64 " classes",
              spec, info->n, info->c, info->h, info->w, info->classes);
    return SBN_OK;
}

sbn_status sbn_dataset_probe(const char *spec, sbn_split split, sbn_dataset_info *info,
                             int64_t *bytes)
{
    SBN_TRY(check_spec(spec, split));
    SBN_CHECK(info != NULL && bytes != NULL, SBN_E_ARG,
              "sbn_dataset_probe: expected a place for info and bytes");
    if (is_synthetic(spec)) {
        *info = sbni_synthetic_info(split);
        *bytes = 0;
        return SBN_OK;
    }
    if (cifar_folder(spec))
        return sbni_cifar_probe(cifar_folder(spec), split, info, bytes);
    sbni_idx_source source = find_source(spec, split);
    return sbni_idx_probe(&source, info, bytes);
}

sbn_status sbn_dataset_load(const char *spec, sbn_split split,
                            const sbn_dataset_info *info, void *memory)
{
    SBN_TRY(check_spec(spec, split));
    SBN_TRY(check_info(spec, split, info));
    if (is_synthetic(spec)) return SBN_OK;
    SBN_CHECK(memory != NULL, SBN_E_ARG,
              "sbn_dataset_load: expected the memory that sbn_dataset_probe asks for");
    if (cifar_folder(spec))
        return sbni_cifar_load(cifar_folder(spec), split, info, memory);
    sbni_idx_source source = find_source(spec, split);
    return sbni_idx_load(&source, info, memory);
}

sbn_status sbn_dataset_create(const char *spec, sbn_split split,
                              const sbn_dataset_info *info, const void *memory,
                              uint64_t seed, sbn_dataset **dataset)
{
    SBN_CHECK(dataset != NULL, SBN_E_ARG,
              "sbn_dataset_create: expected a place for the data set");
    *dataset = NULL;
    SBN_TRY(check_spec(spec, split));
    SBN_TRY(check_info(spec, split, info));
    SBN_CHECK((memory == NULL) == is_synthetic(spec), SBN_E_ARG,
              "sbn_dataset_create: expected loaded memory for files and NULL for "
              "synthetic, got %s for %s",
              memory ? "memory" : "NULL", spec);
    sbn_dataset *d;
    SBN_TRY(sbni_alloc(1, sizeof *d, "data set", &d));
    d->info = *info;
    d->split = split;
    d->seed = seed;
    if (memory) {
        d->pixels = memory;
        d->labels = d->pixels + info->n * info->c * info->h * info->w;
    }
    *dataset = d;
    return SBN_OK;
}

void sbn_dataset_destroy(sbn_dataset **dataset)
{
    if (!dataset) return;
    sbni_free(*dataset);
    *dataset = NULL;
}

sbn_dataset_info sbn_dataset_get_info(const sbn_dataset *dataset)
{
    return dataset->info;
}

/* The one place where pixels become numbers. */
static void scale(const uint8_t *pixels, int64_t n, float *x)
{
    for (int64_t i = 0; i < n; i++) x[i] = (float)pixels[i] / 255.0f;
}

/* Sample `index` as the file has it. Returns its label. */
static int32_t read_sample(const sbn_dataset *dataset, int64_t index, float *x)
{
    const int64_t image = dataset->info.c * dataset->info.h * dataset->info.w;
    if (dataset->pixels) {
        scale(dataset->pixels + index * image, image, x);
        return dataset->labels[index];
    }
    uint8_t drawn[SBNI_SYNTHETIC_PIXELS];
    int32_t label = sbni_synthetic_draw(dataset->seed, dataset->split, index, drawn);
    scale(drawn, image, x);
    return label;
}

sbn_status sbn_dataset_set_augment(sbn_dataset *dataset, int64_t shift, bool flip,
                                   uint64_t seed)
{
    SBN_CHECK(dataset != NULL, SBN_E_ARG, "augment: expected a data set, got NULL");
    const sbn_dataset_info *info = &dataset->info;
    int64_t side = info->h < info->w ? info->h : info->w;
    SBN_CHECK(shift >= 0 && shift < side, SBN_E_ARG,
              "augment: expected a shift of 0 to %" PRId64 " pixels in images of %" PRId64
              "x%" PRId64 ", got %" PRId64,
              side - 1, info->h, info->w, shift);
    dataset->augment = (sbni_augment){shift, flip, seed};
    return SBN_OK;
}

sbn_status sbn_dataset_set_shift(sbn_dataset *dataset, const char *shift, uint64_t seed)
{
    SBN_CHECK(dataset != NULL, SBN_E_ARG, "shift: expected a data set, got NULL");
    sbni_shift parsed;
    SBN_TRY(sbni_shift_parse(shift, &parsed));
    dataset->shift = parsed;
    dataset->shift_seed = seed;
    return SBN_OK;
}

void sbn_dataset_fetch(const sbn_dataset *dataset, const int64_t *index, int64_t n,
                       float *x, int32_t *labels)
{
    sbn_dataset_fetch_augmented(dataset, -1, index, n, x, labels);
}

void sbn_dataset_fetch_augmented(const sbn_dataset *dataset, int64_t epoch,
                                 const int64_t *index, int64_t n, float *x,
                                 int32_t *labels)
{
    const sbn_dataset_info *info = &dataset->info;
    const int64_t image = info->c * info->h * info->w;
    for (int64_t i = 0; i < n; i++, x += image) {
        int32_t label = read_sample(dataset, index[i], x);
        if (epoch >= 0) sbni_augment_apply(&dataset->augment, epoch, index[i], info, x);
        sbni_shift_apply(&dataset->shift, dataset->shift_seed, index[i], info, x);
        if (labels) labels[i] = label;
    }
}

void sbn_dataset_labels(const sbn_dataset *dataset, const int64_t *index, int64_t n,
                        int32_t *labels)
{
    for (int64_t i = 0; i < n; i++)
        labels[i] = dataset->labels
                        ? dataset->labels[index[i]]
                        : sbni_synthetic_label(dataset->seed, dataset->split, index[i]);
}
