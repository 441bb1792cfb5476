#include "syncbn/data.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "data/idx.h"
#include "data/synthetic.h"

struct sbn_dataset {
    sbn_dataset_info info;
    const uint8_t *pixels, *labels; /* NULL: synthetic */
    sbn_split split;
    uint64_t seed;
};

static bool is_synthetic(const char *spec)
{
    return strcmp(spec, "synthetic") == 0;
}

/* What a spec that is not synthetic means. */
static sbni_idx_source find_source(const char *spec, sbn_split split)
{
    if (strcmp(spec, "fashion-mnist") != 0)
        return (sbni_idx_source){
            .folder = spec,
            .split = split,
            .advice = "name a folder with the four IDX files, or use --data synthetic"};
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
              "data: expected synthetic, fashion-mnist or a folder, got nothing");
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
    bool usable = is_synthetic(spec) ? same_info(info, &drawn)
                                     : info->n >= 1 && info->c == 1 && info->h >= 1 &&
                                           info->w >= 1 && info->classes >= 1;
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
        d->labels = d->pixels + info->n * info->h * info->w;
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

void sbn_dataset_fetch(const sbn_dataset *dataset, const int64_t *index, int64_t n,
                       float *x, int32_t *labels)
{
    const int64_t image = dataset->info.h * dataset->info.w;
    for (int64_t i = 0; i < n; i++) {
        uint8_t drawn[SBNI_SYNTHETIC_PIXELS];
        const uint8_t *pixels = drawn;
        int32_t label;
        if (dataset->pixels) {
            pixels = dataset->pixels + index[i] * image;
            label = dataset->labels[index[i]];
        } else {
            label = sbni_synthetic_draw(dataset->seed, dataset->split, index[i], drawn);
        }
        scale(pixels, image, x + i * image);
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
