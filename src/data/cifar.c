#include "data/cifar.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
    PATH_BYTES = 4096,
    TRAIN_FILES = 5,
    CLASSES = 10,
    PIXELS = SBNI_CIFAR_CHANNELS * SBNI_CIFAR_SIDE * SBNI_CIFAR_SIDE,
    RECORD_BYTES = 1 + PIXELS
};

static int count_files(sbn_split split)
{
    return split == SBN_SPLIT_TRAIN ? TRAIN_FILES : 1;
}

/* The path of file number i of a half, and how many records it has by its size. */
static sbn_status find_file(const char *folder, sbn_split split, int i, char *path,
                            int64_t *records)
{
    static const char *const folders[] = {"%s/%s", "%s/cifar-10-batches-bin/%s"};
    char name[32] = "test_batch.bin";
    struct stat s;
    if (split == SBN_SPLIT_TRAIN) snprintf(name, sizeof name, "data_batch_%d.bin", i + 1);
    for (int k = 0; k < 2; k++) {
        int length = snprintf(path, PATH_BYTES, folders[k], folder, name);
        SBN_CHECK(length < PATH_BYTES, SBN_E_DATA,
                  "data folder: expected a path below %d bytes, got %d", PATH_BYTES,
                  length);
        if (stat(path, &s) == 0) {
            /* Opening a pipe would wait for its writer. */
            SBN_CHECK(S_ISREG(s.st_mode), SBN_E_IO,
                      "cannot read %s: expected a regular file, %s", path,
                      S_ISDIR(s.st_mode) ? "got a folder" : "got something else");
            SBN_CHECK(s.st_size > 0 && s.st_size % RECORD_BYTES == 0, SBN_E_DATA,
                      "%s: expected CIFAR-10 records of %d bytes, got %" PRId64
                      " bytes in all; it is truncated, packed or not the binary version",
                      path, RECORD_BYTES, (int64_t)s.st_size);
            *records = (int64_t)s.st_size / RECORD_BYTES;
            return SBN_OK;
        }
        SBN_CHECK(errno == ENOENT || errno == ENOTDIR, SBN_E_IO, "cannot look at %s: %s",
                  path, strerror(errno));
    }
    int is_folder = stat(folder, &s) == 0 && S_ISDIR(s.st_mode);
    return sbni_fail(SBN_E_DATA,
                     "%s%s: expected %s there or in cifar-10-batches-bin, found neither; "
                     "unpack cifar-10-binary.tar.gz and name the folder",
                     folder, is_folder ? "" : " is no folder", name);
}

sbn_status sbni_cifar_probe(const char *folder, sbn_split split, sbn_dataset_info *info,
                            int64_t *bytes)
{
    char path[PATH_BYTES];
    int64_t n = 0, records;
    for (int i = 0; i < count_files(split); i++) {
        SBN_TRY(find_file(folder, split, i, path, &records));
        n += records;
    }
    *info = (sbn_dataset_info){.n = n,
                               .c = SBNI_CIFAR_CHANNELS,
                               .h = SBNI_CIFAR_SIDE,
                               .w = SBNI_CIFAR_SIDE,
                               .classes = CLASSES};
    *bytes = n * RECORD_BYTES;
    return SBN_OK;
}

static sbn_status read_records(FILE *stream, const char *path, int64_t n, uint8_t *pixels,
                               uint8_t *labels)
{
    errno = 0;
    for (int64_t i = 0; i < n; i++) {
        bool whole = fread(labels + i, 1, 1, stream) == 1 &&
                     fread(pixels + i * PIXELS, 1, PIXELS, stream) == PIXELS;
        SBN_CHECK(whole || !ferror(stream), SBN_E_IO, "cannot read %s: %s", path,
                  strerror(errno));
        SBN_CHECK(whole, SBN_E_DATA,
                  "%s changed while it was read: expected %" PRId64
                  " records, got %" PRId64 "; run again",
                  path, n, i);
        SBN_CHECK(labels[i] < CLASSES, SBN_E_DATA,
                  "%s: expected labels of 0 to %d, got %d in record %" PRId64, path,
                  CLASSES - 1, labels[i], i);
    }
    return SBN_OK;
}

sbn_status sbni_cifar_load(const char *folder, sbn_split split,
                           const sbn_dataset_info *info, void *memory)
{
    uint8_t *pixels = memory, *labels = pixels + info->n * PIXELS;
    int64_t at = 0, records;
    for (int i = 0; i < count_files(split); i++) {
        char path[PATH_BYTES];
        SBN_TRY(find_file(folder, split, i, path, &records));
        /* memory has the size that the probe saw, the files may not */
        SBN_CHECK(records <= info->n - at, SBN_E_DATA,
                  "%s changed while it was read: expected at most %" PRId64
                  " records, got %" PRId64 "; run again",
                  path, info->n - at, records);
        FILE *stream = fopen(path, "rb");
        SBN_CHECK(stream, SBN_E_IO, "cannot open %s: %s", path, strerror(errno));
        sbn_status status =
            read_records(stream, path, records, pixels + at * PIXELS, labels + at);
        fclose(stream);
        SBN_TRY(status);
        at += records;
    }
    SBN_CHECK(at == info->n, SBN_E_DATA,
              "%s changed while it was read: expected %" PRId64 " records, got %" PRId64
              "; run again",
              folder, info->n, at);
    return SBN_OK;
}
