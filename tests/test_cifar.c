/* CIFAR-10's binary version, from files made here; from real ones where SYNCBN_CIFAR10
 * names their folder. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"
#include "support/harness.h"
#include "syncbn/data.h"

enum { PIXELS = 3 * 32 * 32, RECORD = 1 + PIXELS, FILES = 6 };

static const char *const names[FILES] = {"data_batch_1.bin", "data_batch_2.bin",
                                         "data_batch_3.bin", "data_batch_4.bin",
                                         "data_batch_5.bin", "test_batch.bin"};
static const int records[FILES] = {3, 1, 4, 2, 2, 5};

static uint8_t label_of(int file, int record)
{
    return (uint8_t)((file * 4 + record) % 10);
}

static uint8_t pixel_of(int file, int record, int p)
{
    return (uint8_t)(p * 7 + p / 32 * 3 + record * 31 + file * 77);
}

/* A fresh folder below the test's. */
static const char *new_folder(void)
{
    static char path[512];
    static int count;
    snprintf(path, sizeof path, "%s/%d", test_folder(), count++);
    assert_int_equal(mkdir(path, 0777), 0);
    return path;
}

static const char *join(const char *folder, const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void put_files(const char *folder)
{
    for (int f = 0; f < FILES; f++) {
        FILE *stream = fopen(join(folder, names[f]), "wb");
        assert_non_null(stream);
        for (int r = 0; r < records[f]; r++) {
            fputc(label_of(f, r), stream);
            for (int p = 0; p < PIXELS; p++) fputc(pixel_of(f, r, p), stream);
        }
        assert_int_equal(fclose(stream), 0);
    }
}

static const char *good_folder(void)
{
    const char *folder = new_folder();
    put_files(folder);
    return folder;
}

static const char *spec_of(const char *folder)
{
    static char spec[1024];
    snprintf(spec, sizeof spec, "cifar10:%s", folder);
    return spec;
}

/* Probe and load; what is accepted must be what was written. */
static sbn_status read_half(const char *folder, sbn_split split)
{
    sbn_dataset_info info;
    int64_t bytes, n = split == SBN_SPLIT_TRAIN ? 12 : 5, at = 0;
    uint8_t *memory = NULL;
    const char *spec = spec_of(folder);
    sbn_status status = sbn_dataset_probe(spec, split, &info, &bytes);
    if (status != SBN_OK) return status;
    OK(sbni_alloc(bytes, 1, "data", &memory));
    status = sbn_dataset_load(spec, split, &info, memory);
    if (status == SBN_OK) {
        assert_int_equal(info.n, n);
        assert_int_equal(info.c, 3);
        assert_int_equal(info.h, 32);
        assert_int_equal(info.w, 32);
        assert_int_equal(info.classes, 10);
        assert_int_equal(bytes, n * RECORD);
        for (int f = split == SBN_SPLIT_TRAIN ? 0 : 5; at < n; f++)
            for (int r = 0; r < records[f]; r++, at++) {
                assert_int_equal(memory[n * PIXELS + at], label_of(f, r));
                for (int p = 0; p < PIXELS; p++)
                    if (memory[at * PIXELS + p] != pixel_of(f, r, p))
                        fail_msg("sample %d, pixel %d", (int)at, p);
            }
    }
    sbni_free(memory);
    return status;
}

/* The call must fail with this code and a text that holds this. */
#define REFUSED(code, call, text)                                                        \
    do {                                                                                 \
        FAILS(code, call);                                                               \
        if (!strstr(sbn_last_error(), (text)))                                           \
            fail_msg("expected '%s' in: %s", (text), sbn_last_error());                  \
    } while (0)

static void both_halves(void **state)
{
    (void)state;
    const char *folder = good_folder();
    OK(read_half(folder, SBN_SPLIT_TRAIN));
    OK(read_half(folder, SBN_SPLIT_TEST));
    folder = new_folder(); /* as the archive is unpacked */
    char below[1024];
    snprintf(below, sizeof below, "%s/cifar-10-batches-bin", folder);
    assert_int_equal(mkdir(below, 0777), 0);
    put_files(below);
    OK(read_half(folder, SBN_SPLIT_TRAIN));
    OK(read_half(folder, SBN_SPLIT_TEST));
}

/* Channel by channel, as nets take them. */
static void fetch(void **state)
{
    (void)state;
    const char *spec = spec_of(good_folder());
    const int64_t index[] = {11, 0, 4};
    static const int from[3][2] = {{4, 1}, {0, 0}, {2, 0}};
    sbn_dataset_info info;
    int64_t bytes;
    uint8_t *memory = NULL;
    sbn_dataset *d = NULL;
    static float x[3 * PIXELS];
    int32_t labels[3], alone[3];
    OK(sbn_dataset_probe(spec, SBN_SPLIT_TRAIN, &info, &bytes));
    OK(sbni_alloc(bytes, 1, "data", &memory));
    OK(sbn_dataset_load(spec, SBN_SPLIT_TRAIN, &info, memory));
    OK(sbn_dataset_create(spec, SBN_SPLIT_TRAIN, &info, memory, 0, &d));
    sbn_dataset_fetch(d, index, 3, x, labels);
    sbn_dataset_labels(d, index, 3, alone);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(labels[i], label_of(from[i][0], from[i][1]));
        assert_int_equal(alone[i], labels[i]);
        for (int p = 0; p < PIXELS; p++)
            assert_true(x[i * PIXELS + p] ==
                        (float)pixel_of(from[i][0], from[i][1], p) / 255.0f);
    }
    sbn_dataset_destroy(&d);
    info.c = 1;
    FAILS(SBN_E_ARG, sbn_dataset_create(spec, SBN_SPLIT_TRAIN, &info, memory, 0, &d));
    sbni_free(memory);
}

static void missing(void **state)
{
    (void)state;
    sbn_dataset_info info;
    int64_t bytes;
    REFUSED(SBN_E_DATA, read_half("/no/such/folder", SBN_SPLIT_TRAIN), "is no folder");
    REFUSED(SBN_E_DATA, read_half(new_folder(), SBN_SPLIT_TRAIN), "data_batch_1.bin");
    for (int f = 0; f < FILES; f++) {
        const char *folder = good_folder();
        assert_int_equal(unlink(join(folder, names[f])), 0);
        REFUSED(SBN_E_DATA, read_half(folder, f < 5 ? SBN_SPLIT_TRAIN : SBN_SPLIT_TEST),
                names[f]);
        OK(read_half(folder, f < 5 ? SBN_SPLIT_TEST : SBN_SPLIT_TRAIN));
    }
    FAILS(SBN_E_ARG, sbn_dataset_probe("cifar10", SBN_SPLIT_TRAIN, &info, &bytes));
    FAILS(SBN_E_ARG, sbn_dataset_probe("cifar10:", SBN_SPLIT_TRAIN, &info, &bytes));
    /* the folder without the word in front */
    REFUSED(SBN_E_DATA, sbn_dataset_probe(good_folder(), SBN_SPLIT_TRAIN, &info, &bytes),
            "--data cifar10:");
}

static void damaged(void **state)
{
    (void)state;
    for (int f = 0; f < FILES; f++) {
        sbn_split split = f < 5 ? SBN_SPLIT_TRAIN : SBN_SPLIT_TEST;
        int64_t size = (int64_t)records[f] * RECORD;
        const int64_t sizes[] = {size - 1, size + 1, RECORD - 1, 1, 0};
        for (int k = 0; k < 5; k++) {
            const char *folder = good_folder();
            assert_int_equal(truncate(join(folder, names[f]), sizes[k]), 0);
            REFUSED(SBN_E_DATA, read_half(folder, split), names[f]);
        }
        static const uint8_t labels[] = {10, 255, 128};
        for (int k = 0; k < 3; k++) {
            const char *folder = good_folder();
            FILE *stream = fopen(join(folder, names[f]), "r+b");
            assert_non_null(stream);
            assert_int_equal(fseek(stream, (long)(records[f] - 1) * RECORD, SEEK_SET), 0);
            fputc(labels[k], stream);
            fclose(stream);
            REFUSED(SBN_E_DATA, read_half(folder, split), "labels of 0 to 9, got");
        }
    }
    const char *folder = good_folder();
    assert_int_equal(unlink(join(folder, names[2])), 0);
    assert_int_equal(mkdir(join(folder, names[2]), 0777), 0);
    REFUSED(SBN_E_IO, read_half(folder, SBN_SPLIT_TRAIN), "got a folder");
    assert_int_equal(rmdir(join(folder, names[2])), 0);
    assert_int_equal(mkfifo(join(folder, names[2]), 0666), 0);
    REFUSED(SBN_E_IO, read_half(folder, SBN_SPLIT_TRAIN), "regular file");
}

/* Files that have another size when they are loaded than when they were probed. */
static void changed_in_between(void **state)
{
    (void)state;
    static uint8_t memory[12 * RECORD];
    static const int sizes[] = {0, 1, 2, 4, 9};
    for (int f = 0; f < 5; f++)
        for (int k = 0; k < 5; k++) {
            const char *folder = good_folder();
            sbn_dataset_info info;
            int64_t bytes;
            OK(sbn_dataset_probe(spec_of(folder), SBN_SPLIT_TRAIN, &info, &bytes));
            if (sizes[k] == records[f]) continue;
            assert_int_equal(truncate(join(folder, names[f]), (off_t)sizes[k] * RECORD),
                             0);
            REFUSED(SBN_E_DATA,
                    sbn_dataset_load(spec_of(folder), SBN_SPLIT_TRAIN, &info, memory),
                    sizes[k] ? "changed while it was read" : names[f]);
        }
}

static void real_files(void **state)
{
    (void)state;
    const char *folder = getenv("SYNCBN_CIFAR10");
    if (!folder || !*folder) skip();
    for (int split = SBN_SPLIT_TRAIN; split <= SBN_SPLIT_TEST; split++) {
        sbn_dataset_info info;
        int64_t bytes;
        int count[10] = {0};
        uint8_t *memory = NULL;
        OK(sbn_dataset_probe(spec_of(folder), (sbn_split)split, &info, &bytes));
        assert_int_equal(info.n, split == SBN_SPLIT_TRAIN ? 50000 : 10000);
        OK(sbni_alloc(bytes, 1, "data", &memory));
        OK(sbn_dataset_load(spec_of(folder), (sbn_split)split, &info, memory));
        for (int64_t i = 0; i < info.n; i++) count[memory[info.n * PIXELS + i]]++;
        for (int c = 0; c < 10; c++) assert_int_equal(count[c], info.n / 10);
        sbni_free(memory);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(both_halves),
    cmocka_unit_test(fetch),
    cmocka_unit_test(missing),
    cmocka_unit_test(damaged),
    cmocka_unit_test(changed_in_between),
    cmocka_unit_test(real_files),
};
TEST_MAIN(tests)
