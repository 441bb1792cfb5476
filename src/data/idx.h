/*
 * The IDX format of the MNIST family: big-endian uint32 words (magic, then one size per
 * axis), then uint8 values. One file holds images (n,h,w), another labels (n). Plain or
 * gzip.
 */
#ifndef SBNI_IDX_H
#define SBNI_IDX_H

#include "core/status.h"
#include "syncbn/data.h"

enum { SBNI_IDX_MOST_SIDE = 4096 }; /* pixels */

typedef struct sbni_idx_source {
    const char *folder;
    const char *advice; /* ends the error about a missing file: what to do */
    sbn_split split;
} sbni_idx_source;

/* Find both files and read their headers. bytes = n·h·w + n. */
sbn_status sbni_idx_probe(const sbni_idx_source *source, sbn_dataset_info *info,
                          int64_t *bytes);

/* Read pixels, then labels, into memory of the probe's size, and check all of both
 * files. */
sbn_status sbni_idx_load(const sbni_idx_source *source, const sbn_dataset_info *info,
                         void *memory);

#endif
