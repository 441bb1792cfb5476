/** Data sets of labelled images, and the order in which training visits them. */
#ifndef SYNCBN_DATA_H
#define SYNCBN_DATA_H

#include <stdbool.h>
#include <stdint.h>

#include "syncbn/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Which half of a data set. */
typedef enum sbn_split { SBN_SPLIT_TRAIN, SBN_SPLIT_TEST } sbn_split;

typedef struct sbn_dataset_info {
    int64_t n;       /**< samples */
    int64_t c, h, w; /**< shape of one image */
    int64_t classes; /**< labels are 0 … classes-1 */
} sbn_dataset_info;

typedef struct sbn_dataset sbn_dataset;

/**
 * Look at a data set without reading its samples: find its files and read their headers.
 * @param spec   "synthetic"; "fashion-mnist" (the distribution's package);
 * "cifar10:FOLDER", with the six .bin files of CIFAR-10's binary version in the folder or
 * in cifar-10-batches-bin below it; or a folder with the four IDX files under their usual
 * names, plain or .gz.
 * @param info   receives the shape. classes is 10 for every source.
 * @param bytes  receives the size of the memory that sbn_dataset_load needs; 0 for
 * synthetic. Local: no communication.
 * @errors SBN_E_ARG, SBN_E_DATA (missing file, wrong magic or size, counts of images and
 * labels differ), SBN_E_IO
 */
SBN_API sbn_status sbn_dataset_probe(const char *spec, sbn_split split,
                                     sbn_dataset_info *info, int64_t *bytes);

/**
 * Read and check all samples of a data set into memory of the caller, so that the
 * processes of a host can share one copy. The whole file is checked: sizes, checksum,
 * bytes after the end, labels < classes.
 * @param info    as sbn_dataset_probe gave it.
 * @param memory  the probe's number of bytes; afterwards holds n·c·h·w pixels, then n
 * labels.
 * @errors SBN_E_DATA (truncated, corrupt, trailing bytes, label out of range), SBN_E_IO
 */
SBN_API sbn_status sbn_dataset_load(const char *spec, sbn_split split,
                                    const sbn_dataset_info *info, void *memory);

/**
 * Make a data set over loaded memory (borrowed, must outlive it), or a synthetic one
 * (memory NULL).
 * @param seed  only for synthetic: images are a function of (seed, split, index).
 * @errors SBN_E_ARG, SBN_E_MEMORY. Local.
 */
SBN_API sbn_status sbn_dataset_create(const char *spec, sbn_split split,
                                      const sbn_dataset_info *info, const void *memory,
                                      uint64_t seed, sbn_dataset **dataset);

/** Free and null; NULL is fine. The memory stays the caller's. */
SBN_API void sbn_dataset_destroy(sbn_dataset **dataset);

/** Shape and size. */
SBN_API sbn_dataset_info sbn_dataset_get_info(const sbn_dataset *dataset);

/**
 * Fetch n samples by index.
 * @param index   n indices, 0 … info.n-1.
 * @param x       receives (n,c,h,w) float32, pixels scaled to 0 … 1.
 * @param labels  receives n labels; may be NULL.
 * May be called from several threads at once.
 */
SBN_API void sbn_dataset_fetch(const sbn_dataset *dataset, const int64_t *index,
                               int64_t n, float *x, int32_t *labels);

/**
 * Random changes that sbn_dataset_fetch_augmented makes of this data set's images: shifts
 * and mirror images, with zeros where nothing is left to shift in (He et al. 2016, arXiv
 * 1512.03385, section 4.2).
 * @param shift  most pixels up, down, left and right, each distance as likely as the
 * others; 0 … smallest side - 1; 0: none.
 * @param flip   exchange left and right, by an even chance.
 * @errors SBN_E_ARG. Local.
 */
SBN_API sbn_status sbn_dataset_set_augment(sbn_dataset *dataset, int64_t shift, bool flip,
                                           uint64_t seed);

/**
 * As sbn_dataset_fetch, with the changes that sbn_dataset_set_augment asked for.
 * @param epoch  ≥ 0; below: no changes.
 * @reproducible a sample's change is a function of (seed, epoch, index).
 */
SBN_API void sbn_dataset_fetch_augmented(const sbn_dataset *dataset, int64_t epoch,
                                         const int64_t *index, int64_t n, float *x,
                                         int32_t *labels);

/**
 * Let all that is fetched from now on look as if it came from another source.
 * @param shift  changes in order, KIND:AMOUNT[,KIND:AMOUNT…], at most 8; NULL: none.
 * Kinds, each clipped to 0 … 1 (after Hendrycks & Dietterich 2019, arXiv 1903.12261):
 *   contrast:a  m + a·(x − m), with m the mean of a channel of the image; 0 … 100
 *   noise:a     x + a·z, z standard normal, for every pixel; 0 … 100
 *   blur:a      Gaussian of deviation a pixels, cut at 4a, with the outermost pixels
 *               going on beyond the border; 0 … 16
 *   invert:a    x + a·(1 − 2x): the negative for 1, grey for 0.5; 0 … 1
 * @errors SBN_E_ARG. Local.
 * @reproducible noise is a function of (seed, place in the list, index, pixel).
 */
SBN_API sbn_status sbn_dataset_set_shift(sbn_dataset *dataset, const char *shift,
                                         uint64_t seed);

/**
 * Labels of n samples alone.
 * @param index   n indices, 0 … info.n-1. @param labels  receives n labels.
 */
SBN_API void sbn_dataset_labels(const sbn_dataset *dataset, const int64_t *index,
                                int64_t n, int32_t *labels);

/** The order of one training run: a permutation per (seed, epoch), cut into batches; or
 * batches of few classes, likewise a function of (seed, epoch). */
typedef struct sbn_sampler sbn_sampler;

/**
 * @param n          samples, ≥ 1. @param batch  samples per step, 1 … n.
 * @param drop_last  leave out the last short batch of an epoch (else it is trained).
 * @errors SBN_E_ARG, SBN_E_MEMORY
 */
SBN_API sbn_status sbn_sampler_create(int64_t n, int64_t batch, bool drop_last,
                                      uint64_t seed, sbn_sampler **sampler);

/** Batches that are not independent draws: few classes at a time. */
typedef struct sbn_sampler_classes {
    const int32_t *labels; /**< (n) of the samples, ≥ 0; read at create only */
    int64_t classes; /**< K ≥ 1: classes in one group; as many must have samples */
    int64_t group;   /**< samples of a group, 1 … batch: a norm batch, usually. A
                        batch is cut into groups from its first sample on; K must
                        divide a group, and what is left for the last one of a
                        batch, if anything */
} sbn_sampler_classes;

/**
 * A sampler whose every group holds K classes with equally many samples of each (Ioffe
 * 2017, arXiv 1702.03275, section 4.3).
 *
 * In each epoch the samples of every class stand in a queue, shuffled by (seed, epoch).
 * A group draws its K classes one after another, without repetition, each with a
 * probability that is proportional to the samples that the class still has waiting; where
 * fewer than K classes have any, all others are equally likely. It takes group/K samples
 * from the front of each queue, and they lie in the batch class by class. A queue that
 * ends begins again in the same order. All queues begin anew with the epoch: it has ⌊n /
 * batch⌋ whole batches (no short one), so all but a few samples come once in it and those
 * few not at all, or where classes are uneven some twice.
 * @param classes  borrowed for the call.
 * @errors SBN_E_ARG (as sbn_sampler_create; K does not divide a group, or is above the
 * number of classes that have samples; a negative label), SBN_E_MEMORY
 */
SBN_API sbn_status sbn_sampler_create_classes(int64_t n, int64_t batch,
                                              const sbn_sampler_classes *classes,
                                              uint64_t seed, sbn_sampler **sampler);

/** Free and null; NULL is fine. */
SBN_API void sbn_sampler_destroy(sbn_sampler **sampler);

/** Steps in one epoch. */
SBN_API int64_t sbn_sampler_steps(const sbn_sampler *sampler);

/**
 * Samples of one step, in global order. The same on every process, at any number of
 * processes.
 * @param step   ≥ 0, counted over all epochs. The order of an epoch is made when first
 * needed.
 * @param index  receives a pointer to the indices, owned by the sampler, valid until the
 * next call.
 * @param n      receives how many: batch, or fewer in the last step of an epoch.
 * @reproducible a function of (seed, epoch) and nothing else.
 */
SBN_API void sbn_sampler_batch(sbn_sampler *sampler, int64_t step, const int64_t **index,
                               int64_t *n);

#ifdef __cplusplus
}
#endif
#endif
