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
    cmocka_unit_test(fashion_mnist),
};
TEST_MAIN(tests)
