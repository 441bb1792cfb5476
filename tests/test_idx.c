#include "core/memory.h"
#include "support/harness.h"
#include "syncbn/data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum {
    N = 37,
    H = 5,
    W = 4,
    IMAGE_BYTES = 16 + N * H * W,
    LABEL_BYTES = 8 + N,
    FILE_BYTES = 4096
};

static const char IMAGES[] = "train-images-idx3-ubyte",
                  LABELS[] = "train-labels-idx1-ubyte";

/* Content of the good files. */
static uint8_t images[IMAGE_BYTES], labels[LABEL_BYTES];

static void put_word(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static int prepare(void **state)
{
    (void)state;
    static const uint32_t head[] = {0x803, N, H, W}, label_head[] = {0x801, N};
    for (int i = 0; i < 4; i++) put_word(images + 4 * i, head[i]);
    for (int i = 0; i < 2; i++) put_word(labels + 4 * i, label_head[i]);
    for (int i = 0; i < N * H * W; i++) images[16 + i] = (uint8_t)(i * i * 7 + i / 3);
    for (int i = 0; i < N; i++) labels[8 + i] = (uint8_t)(i * 3 % 10);
    return 0;
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

static void put(const char *folder, const char *name, const uint8_t *bytes, size_t n)
{
    FILE *f = fopen(join(folder, name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* The same bytes as a gzip member, into out; returns its size. */
static size_t squeeze(const uint8_t *bytes, size_t n, uint8_t out[FILE_BYTES])
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (uint8_t *)(uintptr_t)bytes;
    z.avail_in = (uInt)n;
    z.next_out = out;
    z.avail_out = FILE_BYTES;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    size_t size = z.total_out;
    deflateEnd(&z);
    return size;
}

static const char *good_folder(void)
{
    const char *folder = new_folder();
    put(folder, IMAGES, images, IMAGE_BYTES);
    put(folder, LABELS, labels, LABEL_BYTES);
    return folder;
}

/* Probe and load; what is accepted must be the good files. */
static sbn_status read_all(const char *spec, sbn_split split)
{
    sbn_dataset_info info;
    int64_t bytes;
    uint8_t *memory = NULL;
    sbn_status status = sbn_dataset_probe(spec, split, &info, &bytes);
    if (status != SBN_OK) return status;
    OK(sbni_alloc(bytes, 1, "data", &memory));
    status = sbn_dataset_load(spec, split, &info, memory);
    if (status == SBN_OK) {
        assert_int_equal(info.n, N);
        assert_int_equal(info.c, 1);
        assert_int_equal(info.h, H);
        assert_int_equal(info.w, W);
        assert_int_equal(info.classes, 10);
        assert_int_equal(bytes, N * H * W + N);
        assert_memory_equal(memory, images + 16, N * H * W);
        assert_memory_equal(memory + N * H * W, labels + 8, N);
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

#define READ(folder) read_all((folder), SBN_SPLIT_TRAIN)

static void all_usual_names(void **state)
{
    (void)state;
    static const char *const halves[] = {"train", "t10k"};
    static const char shapes[][2][28] = {
        {"%s-images-idx3-ubyte", "%s-labels-idx1-ubyte"},
        {"%s-images-idx3-ubyte.gz", "%s-labels-idx1-ubyte.gz"},
        {"%s-images.idx3-ubyte", "%s-labels.idx1-ubyte"},
        {"%s-images.idx3-ubyte.gz", "%s-labels.idx1-ubyte.gz"},
        {"%s-images-idx3-ubyte", "%s-labels.idx1-ubyte.gz"}};
    for (int i = 0; i < 10; i++) {
        const char *folder = new_folder();
        for (int part = 0; part < 2; part++) {
            char name[64];
            uint8_t packed[FILE_BYTES];
            const uint8_t *bytes = part ? labels : images;
            size_t n = part ? LABEL_BYTES : IMAGE_BYTES;
            const char *shape = shapes[i % 5][part];
            snprintf(name, sizeof name, shape, halves[i / 5]);
            if (strstr(shape, ".gz")) n = squeeze(bytes, n, packed), bytes = packed;
            put(folder, name, bytes, n);
        }
        OK(read_all(folder, (sbn_split)(i / 5)));
        REFUSED(SBN_E_DATA, read_all(folder, (sbn_split)(1 - i / 5)), halves[1 - i / 5]);
    }
}

static void fetch(void **state)
{
    (void)state;
    static const int64_t index[] = {36, 0, 5, 36};
    const char *folder = good_folder();
    sbn_dataset_info info;
    int64_t bytes;
    uint8_t *memory = NULL;
    sbn_dataset *dataset = NULL;
    float x[4 * H * W];
    int32_t y[4];
    OK(sbn_dataset_probe(folder, SBN_SPLIT_TRAIN, &info, &bytes));
    OK(sbni_alloc(bytes, 1, "data", &memory));
    OK(sbn_dataset_load(folder, SBN_SPLIT_TRAIN, &info, memory));
    OK(sbn_dataset_create(folder, SBN_SPLIT_TRAIN, &info, memory, 0, &dataset));
    assert_int_equal(sbn_dataset_get_info(dataset).n, N);
    sbn_dataset_fetch(dataset, index, 4, x, y);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(y[i], labels[8 + index[i]]);
        for (int j = 0; j < H * W; j++)
            assert_true(x[i * H * W + j] ==
                        (float)images[16 + index[i] * H * W + j] / 255.0f);
    }
    sbn_dataset_fetch(dataset, index, 4, x, NULL);
    sbn_dataset_destroy(&dataset);
    assert_null(dataset);
    sbni_free(memory);
}

static void missing(void **state)
{
    (void)state;
    REFUSED(SBN_E_DATA, READ("/no/such/folder"), "is no folder");
    const char *folder = new_folder();
    REFUSED(SBN_E_DATA, READ(folder), IMAGES);
    put(folder, IMAGES, images, IMAGE_BYTES);
    REFUSED(SBN_E_DATA, READ(folder), LABELS);
    REFUSED(SBN_E_DATA, READ(join(folder, IMAGES)), "is no folder");
    setenv("SYNCBN_FASHION_MNIST", folder, 1);
    REFUSED(SBN_E_DATA, READ("fashion-mnist"), "dataset-fashion-mnist");
    put(folder, LABELS, labels, LABEL_BYTES);
    OK(READ("fashion-mnist"));
    unsetenv("SYNCBN_FASHION_MNIST");
}

static void unreadable(void **state)
{
    (void)state;
    const char *folder = new_folder();
    put(folder, LABELS, labels, LABEL_BYTES);
    assert_int_equal(mkdir(join(folder, IMAGES), 0777), 0);
    REFUSED(SBN_E_IO, READ(folder), "got a folder");
    assert_int_equal(rmdir(join(folder, IMAGES)), 0);
    /* must not wait for a writer */
    assert_int_equal(mkfifo(join(folder, IMAGES), 0666), 0);
    REFUSED(SBN_E_IO, READ(folder), "regular file");
    assert_int_equal(remove(join(folder, IMAGES)), 0);
    put(folder, IMAGES, images, IMAGE_BYTES);
    OK(READ(folder));
    if (geteuid() == 0) return; /* permissions do not bind this user */
    assert_int_equal(chmod(join(folder, IMAGES), 0), 0);
    REFUSED(SBN_E_IO, READ(folder), "cannot open");
}

static void truncated_anywhere(void **state)
{
    (void)state;
    uint8_t packed[FILE_BYTES];
    const char *folder = good_folder();
    for (size_t n = 0; n < IMAGE_BYTES; n++) {
        put(folder, IMAGES, images, n);
        REFUSED(SBN_E_DATA, READ(folder), "truncated");
    }
    put(folder, IMAGES, images, IMAGE_BYTES);
    for (size_t n = 0; n < LABEL_BYTES; n++) {
        put(folder, LABELS, labels, n);
        REFUSED(SBN_E_DATA, READ(folder), "truncated");
    }
    put(folder, LABELS, labels, LABEL_BYTES);
    size_t size = squeeze(images, IMAGE_BYTES, packed);
    for (size_t n = 0; n < size; n++) {
        put(folder, IMAGES, packed, n);
        REFUSED(SBN_E_DATA, READ(folder), "truncated");
    }
    put(folder, IMAGES, packed, size);
    OK(READ(folder));
}

/* Behind the ten bytes of its header, no byte of a gzip file may change unseen: neither
 * data nor checksum nor length. In the header some mean nothing; read_all sees to it that
 * accepted data are right. */
static void damaged_anywhere(void **state)
{
    (void)state;
    uint8_t packed[FILE_BYTES];
    const char *folder = good_folder();
    size_t size = squeeze(images, IMAGE_BYTES, packed);
    assert_true(size > 400); /* the pixels must not compress away */
    for (size_t i = 0; i < size; i++) {
        packed[i] ^= 0x11;
        put(folder, IMAGES, packed, size);
        sbn_status status = READ(folder);
        if (status != SBN_OK || i >= 10) FAILS(SBN_E_DATA, status);
        packed[i] ^= 0x11;
    }
    packed[size - 8] ^= 1;
    put(folder, IMAGES, packed, size);
    REFUSED(SBN_E_DATA, READ(folder), "incorrect data check");
}

static void trailing_bytes(void **state)
{
    (void)state;
    uint8_t more[FILE_BYTES] = {0}, packed[FILE_BYTES];
    const char *folder = good_folder();
    memcpy(more, images, IMAGE_BYTES);
    put(folder, IMAGES, more, IMAGE_BYTES + 1);
    REFUSED(SBN_E_DATA, READ(folder), "got more");
    put(folder, IMAGES, packed, squeeze(more, IMAGE_BYTES + 1, packed));
    REFUSED(SBN_E_DATA, READ(folder), "got more");
    put(folder, IMAGES, images, IMAGE_BYTES);
    memcpy(more, labels, LABEL_BYTES);
    put(folder, LABELS, more, LABEL_BYTES + 1);
    REFUSED(SBN_E_DATA, READ(folder), "got more");
    put(folder, LABELS, labels, LABEL_BYTES);

    /* behind the compressed data: zeros, text, half a header */
    size_t size = squeeze(images, IMAGE_BYTES, packed);
    static const uint8_t tails[][4] = {{0, 0, 0, 0}, "tail", {0x1f, 0x8b, 8, 0}};
    for (int i = 0; i < 3; i++) {
        memcpy(packed + size, tails[i], 4);
        put(folder, IMAGES, packed, size + 4);
        REFUSED(SBN_E_DATA, READ(folder), i < 2 ? "foreign bytes" : "truncated");
    }
    /* Two members are one content. */
    size = squeeze(images, 100, packed);
    size_t second = squeeze(images + 100, IMAGE_BYTES - 100, more);
    memcpy(packed + size, more, second);
    put(folder, IMAGES, packed, size + second);
    OK(READ(folder));
}

static void wrong_magic(void **state)
{
    (void)state;
    const char *folder = good_folder();
    put(folder, IMAGES, labels, LABEL_BYTES);
    REFUSED(SBN_E_DATA, READ(folder), "expected magic 0x00000803");
    put(folder, IMAGES, images, IMAGE_BYTES);
    put(folder, LABELS, images, IMAGE_BYTES);
    REFUSED(SBN_E_DATA, READ(folder), "expected magic 0x00000801");
    /* int32 values in place of uint8 */
    uint8_t bad[IMAGE_BYTES];
    memcpy(bad, images, sizeof bad);
    bad[2] = 0x0c;
    put(folder, IMAGES, bad, sizeof bad);
    REFUSED(SBN_E_DATA, READ(folder), "got 0x00000c03");
}

static void hostile_header(void **state)
{
    (void)state;
    static const struct {
        uint32_t n, h, w;
        const char *text;
    } cases[] = {
        {0, H, W, "at least one"},
        {N, 0, W, "sides of 1 to 4096"},
        {N, H, 0, "sides of 1 to 4096"},
        {N, 4097, 1, "sides of 1 to 4096"},
        {N, 1, 4097, "sides of 1 to 4096"},
        {N, UINT32_MAX, UINT32_MAX, "sides of 1 to 4096"},
        {UINT32_MAX, 4096, 4096, "can hold at most"},
        {0x80000000, 4096, 2, "can hold at most"}, /* 2^44: wraps around 32 bits to 0 */
        {N + 1, H, W, "truncated"},
        {N - 1, H, W, "labels"},
    };
    uint8_t bad[IMAGE_BYTES], packed[FILE_BYTES];
    memcpy(bad, images, sizeof bad);
    const char *folder = good_folder();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_word(bad + 4, cases[i].n);
        put_word(bad + 8, cases[i].h);
        put_word(bad + 12, cases[i].w);
        put(folder, IMAGES, bad, sizeof bad);
        REFUSED(SBN_E_DATA, READ(folder), cases[i].text);
        put(folder, IMAGES, packed, squeeze(bad, sizeof bad, packed));
        FAILS(SBN_E_DATA, READ(folder));
    }
    put(folder, IMAGES, images, IMAGE_BYTES);
    memcpy(bad, labels, LABEL_BYTES);
    put_word(bad + 4, 0);
    put(folder, LABELS, bad, LABEL_BYTES);
    REFUSED(SBN_E_DATA, READ(folder), "at least one");
}

static void counts_differ(void **state)
{
    (void)state;
    uint8_t bad[LABEL_BYTES];
    const char *folder = good_folder();
    memcpy(bad, labels, sizeof bad);
    put_word(bad + 4, N - 1);
    put(folder, LABELS, bad, sizeof bad - 1);
    REFUSED(SBN_E_DATA, READ(folder), "37 images and 36 labels");
}

static void label_out_of_range(void **state)
{
    (void)state;
    uint8_t bad[LABEL_BYTES];
    const char *folder = good_folder();
    memcpy(bad, labels, sizeof bad);
    bad[8 + 23] = 10;
    put(folder, LABELS, bad, sizeof bad);
    REFUSED(SBN_E_DATA, READ(folder), "got 10 for sample 23");
}

static void changed_since_probe(void **state)
{
    (void)state;
    uint8_t memory[N * H * W + N], more[IMAGE_BYTES + H * W] = {0};
    sbn_dataset_info info;
    int64_t bytes;
    const char *folder = good_folder();
    OK(sbn_dataset_probe(folder, SBN_SPLIT_TRAIN, &info, &bytes));
    memcpy(more, images, IMAGE_BYTES);
    put_word(more + 4, N + 1);
    put(folder, IMAGES, more, sizeof more);
    REFUSED(SBN_E_DATA, sbn_dataset_load(folder, SBN_SPLIT_TRAIN, &info, memory),
            "changed");
}

#define CASE(f) cmocka_unit_test_setup(f, prepare)
static const struct CMUnitTest tests[] = {
    CASE(all_usual_names),
    CASE(fetch),
    CASE(missing),
    CASE(unreadable),
    CASE(counts_differ),
    CASE(truncated_anywhere),
    CASE(wrong_magic),
    CASE(trailing_bytes),
    CASE(damaged_anywhere),
    CASE(hostile_header),
    CASE(label_out_of_range),
    CASE(changed_since_probe),
};
TEST_MAIN(tests)
