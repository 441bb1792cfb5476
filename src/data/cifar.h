/*
 * The binary version of CIFAR-10: files of records of 3073 bytes, a label of 0 to 9 and
 * 3x32x32 pixels, channel by channel, row by row. The training half is data_batch_1.bin
 * to data_batch_5.bin, the test half test_batch.bin; 10000 records each as published, but
 * any number from 1 is read.
 */
#ifndef SBNI_CIFAR_H
#define SBNI_CIFAR_H

#include "core/status.h"
#include "syncbn/data.h"

enum { SBNI_CIFAR_CHANNELS = 3, SBNI_CIFAR_SIDE = 32 };

/* Find the files in the folder, or in cifar-10-batches-bin below it, and count records by
 * their sizes. bytes = n·3072 + n. SBN_E_DATA, SBN_E_IO. */
sbn_status sbni_cifar_probe(const char *folder, sbn_split split, sbn_dataset_info *info,
                            int64_t *bytes);

/* Read pixels, then labels, into memory of the probe's size, and check every label. */
sbn_status sbni_cifar_load(const char *folder, sbn_split split,
                           const sbn_dataset_info *info, void *memory);

#endif
