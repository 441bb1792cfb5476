#include "core/memory.h"
#include "support/harness.h"
#include "syncbn/data.h"

#include <stdlib.h>
#include <unistd.h>

static void arguments(void **state)
{
    (void)state;
    static const char FOLDER[] = "/no/such/folder";
    const sbn_split train = SBN_SPLIT_TRAIN;
    sbn_dataset_info info = {.n = 2, .c = 1, .h = 2, .w = 1, .classes = 10}, bad;
    int64_t bytes;
    sbn_dataset *d = NULL;
    uint8_t memory[2 * 2 * 1 + 2] = {0};
    FAILS(SBN_E_ARG, sbn_dataset_probe(NULL, train, &info, &bytes));
    FAILS(SBN_E_ARG, sbn_dataset_probe("", train, &info, &bytes));
    FAILS(SBN_E_ARG, sbn_dataset_probe(FOLDER, (sbn_split)2, &info, &bytes));
    FAILS(SBN_E_ARG, sbn_dataset_probe(FOLDER, train, NULL, &bytes));
    FAILS(SBN_E_ARG, sbn_dataset_probe(FOLDER, train, &info, NULL));
    FAILS(SBN_E_ARG, sbn_dataset_load(FOLDER, train, NULL, memory));
    FAILS(SBN_E_ARG, sbn_dataset_load(FOLDER, train, &info, NULL));
    FAILS(SBN_E_ARG, sbn_dataset_create(FOLDER, train, &info, memory, 0, NULL));
    FAILS(SBN_E_ARG, sbn_dataset_create(FOLDER, train, &info, NULL, 0, &d));
    bad = info;
    bad.n = 0;
    FAILS(SBN_E_ARG, sbn_dataset_create(FOLDER, train, &bad, memory, 0, &d));
    bad = info;
    bad.h = -2;
    FAILS(SBN_E_ARG, sbn_dataset_create(FOLDER, train, &bad, memory, 0, &d));
    FAILS(SBN_E_ARG, sbn_dataset_create("synthetic", train, &info, NULL, 0, &d));
    OK(sbn_dataset_probe("synthetic", train, &info, &bytes));
    FAILS(SBN_E_ARG, sbn_dataset_create("synthetic", train, &info, memory, 0, &d));
    assert_null(d);
    sbn_dataset_destroy(&d);
    sbn_dataset_destroy(NULL);
}

/* Labels alone are those that come with the images. */
static void labels_alone(void **state)
{
    (void)state;
    enum { N = 40, SIDE = 28 };
    static float x[N * SIDE * SIDE];
    for (int split = SBN_SPLIT_TRAIN; split <= SBN_SPLIT_TEST; split++) {
        sbn_dataset_info info;
        int64_t bytes, index[N];
        int32_t fetched[N], alone[N];
        sbn_dataset *d = NULL;
        OK(sbn_dataset_probe("synthetic", (sbn_split)split, &info, &bytes));
        OK(sbn_dataset_create("synthetic", (sbn_split)split, &info, NULL, 7, &d));
        for (int i = 0; i < N; i++) index[i] = (N - i) * 13;
        sbn_dataset_fetch(d, index, N, x, fetched);
        sbn_dataset_labels(d, index, N, alone);
        assert_memory_equal(fetched, alone, sizeof alone);
        sbn_dataset_destroy(&d);
    }
    uint8_t memory[6] = {1, 2, 3, 4, 9, 0};
    sbn_dataset_info info = {.n = 2, .c = 1, .h = 2, .w = 1, .classes = 10};
    sbn_dataset *d = NULL;
    int32_t alone[3];
    OK(sbn_dataset_create("/folder", SBN_SPLIT_TRAIN, &info, memory, 0, &d));
    sbn_dataset_labels(d, (int64_t[]){1, 0, 1}, 3, alone);
    assert_int_equal(alone[0], 0);
    assert_int_equal(alone[1], 9);
    assert_int_equal(alone[2], 0);
    sbn_dataset_destroy(&d);
}

/* The distribution's package, where it is installed. */
static void fashion_mnist(void **state)
{
    (void)state;
    if (access("/usr/share/datasets/fashion-mnist", R_OK) != 0) skip();
    unsetenv("SYNCBN_FASHION_MNIST");
    for (int split = SBN_SPLIT_TRAIN; split <= SBN_SPLIT_TEST; split++) {
        sbn_dataset_info info;
        int64_t bytes;
        int count[10] = {0};
        uint8_t *memory = NULL;
        OK(sbn_dataset_probe("fashion-mnist", (sbn_split)split, &info, &bytes));
        assert_int_equal(info.n, split == SBN_SPLIT_TRAIN ? 60000 : 10000);
        assert_int_equal(info.h, 28);
        assert_int_equal(info.w, 28);
        OK(sbni_alloc(bytes, 1, "data", &memory));
        OK(sbn_dataset_load("fashion-mnist", (sbn_split)split, &info, memory));
        for (int64_t i = 0; i < info.n; i++) count[memory[info.n * 784 + i]]++;
        for (int c = 0; c < 10; c++) assert_int_equal(count[c], info.n / 10);
        sbni_free(memory);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(arguments),
    cmocka_unit_test(labels_alone),
    cmocka_unit_test(fashion_mnist),
};
TEST_MAIN(tests)
