/* Changes of training samples, against images moved by hand. */
#include <string.h>

#include "support/harness.h"
#include "syncbn/data.h"

enum { H = 6, W = 9, IMAGE = H * W, N = 40, P = 2, OFFSETS = 2 * P + 1 };

static uint8_t pixels[N * (IMAGE + 1)];

/* No pixel is 0, and no two of an image are alike. */
static sbn_dataset *make(int64_t shift, bool flip, uint64_t seed)
{
    sbn_dataset_info info = {.n = N, .c = 1, .h = H, .w = W, .classes = 10};
    sbn_dataset *d = NULL;
    for (int i = 0; i < N * IMAGE; i++)
        pixels[i] = (uint8_t)(1 + (i % IMAGE * 4 + i / IMAGE) % 255);
    OK(sbn_dataset_create("/folder", SBN_SPLIT_TRAIN, &info, pixels, 0, &d));
    OK(sbn_dataset_set_augment(d, shift, flip, seed));
    return d;
}

/* Pixel (r, c) of an image that was mirrored, then moved right by dx and down by dy. */
static float pixel(const uint8_t *image, bool flip, int dx, int dy, int r, int c)
{
    int from_r = r - dy, from_c = c - dx;
    if (from_r < 0 || from_r >= H || from_c < 0 || from_c >= W) return 0;
    return (float)image[from_r * W + (flip ? W - 1 - from_c : from_c)] / 255.0f;
}

static bool is_moved(const float *x, const uint8_t *image, bool flip, int dx, int dy)
{
    for (int i = 0; i < IMAGE; i++)
        if (x[i] != pixel(image, flip, dx, dy, i / W, i % W)) return false;
    return true;
}

/* Which of all changes a fetched image shows. */
static int find_change(const float *x, const uint8_t *image, int most)
{
    for (int flip = 0; flip < 2; flip++)
        for (int dy = -most; dy <= most; dy++)
            for (int dx = -most; dx <= most; dx++)
                if (is_moved(x, image, flip, dx, dy))
                    return (flip * OFFSETS + dy + P) * OFFSETS + dx + P;
    fail_msg("an image that no change explains");
    return -1;
}

/* All 50 changes come equally often over epochs and samples. */
static void changes_are_uniform(void **state)
{
    (void)state;
    enum { EPOCHS = 500, CHANGES = 2 * OFFSETS * OFFSETS };
    int count[CHANGES] = {0};
    sbn_dataset *d = make(P, true, 5);
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++)
        for (int64_t i = 0; i < N; i++) {
            float x[IMAGE];
            int32_t label;
            sbn_dataset_fetch_augmented(d, epoch, &i, 1, x, &label);
            count[find_change(x, pixels + i * IMAGE, P)]++;
        }
    double chi2 = 0, each = (double)EPOCHS * N / CHANGES;
    for (int i = 0; i < CHANGES; i++)
        chi2 += (count[i] - each) * (count[i] - each) / each;
    /* chi square of 49 degrees of freedom: 49 ± 9.9 */
    CLOSE(chi2, 49, 4 * 9.9);
    sbn_dataset_destroy(&d);
}

static void each_alone(void **state)
{
    (void)state;
    sbn_dataset *flips = make(0, true, 5), *moves = make(P, false, 5);
    int flipped = 0, moved = 0;
    const int stays = P * OFFSETS + P;
    for (int64_t epoch = 0; epoch < 25; epoch++)
        for (int64_t i = 0; i < N; i++) {
            float x[IMAGE];
            sbn_dataset_fetch_augmented(flips, epoch, &i, 1, x, NULL);
            int change = find_change(x, pixels + i * IMAGE, 0);
            assert_true(change == stays || change == stays + OFFSETS * OFFSETS);
            flipped += change != stays;
            sbn_dataset_fetch_augmented(moves, epoch, &i, 1, x, NULL);
            change = find_change(x, pixels + i * IMAGE, P);
            assert_true(change < OFFSETS * OFFSETS);
            moved += change != stays;
        }
    CLOSE(flipped, 500, 4 * 15.8);
    CLOSE(moved, 960, 4 * 6.2);
    sbn_dataset_destroy(&flips);
    sbn_dataset_destroy(&moves);
}

/* A function of seed, epoch and sample; plain fetches and epoch -1 show what is there. */
static void changes_by_counter(void **state)
{
    (void)state;
    static float a[N * IMAGE], b[N * IMAGE], plain[N * IMAGE];
    int64_t index[N];
    int32_t labels[N];
    sbn_dataset *d = make(P, true, 5), *other = make(P, true, 6);
    for (int64_t i = 0; i < N; i++) index[i] = i * 7 % N;
    sbn_dataset_fetch_augmented(d, 3, index, N, a, labels);
    for (int64_t i = 0; i < N; i++) {
        float x[IMAGE];
        sbn_dataset_fetch_augmented(d, 3, &index[i], 1, x, NULL);
        assert_memory_equal(x, a + i * IMAGE, sizeof x);
    }
    sbn_dataset_fetch_augmented(d, 4, index, N, b, labels);
    assert_memory_not_equal(a, b, sizeof a);
    sbn_dataset_fetch_augmented(other, 3, index, N, b, labels);
    assert_memory_not_equal(a, b, sizeof a);
    sbn_dataset_fetch(d, index, N, plain, labels);
    for (int64_t i = 0; i < N; i++)
        assert_true(is_moved(plain + i * IMAGE, pixels + index[i] * IMAGE, false, 0, 0));
    sbn_dataset_fetch_augmented(d, -1, index, N, b, labels);
    assert_memory_equal(plain, b, sizeof b);
    OK(sbn_dataset_set_augment(d, 0, false, 5));
    sbn_dataset_fetch_augmented(d, 3, index, N, b, labels);
    assert_memory_equal(plain, b, sizeof b);
    sbn_dataset_destroy(&d);
    sbn_dataset_destroy(&other);
}

/* Channels move together. */
static void channels_together(void **state)
{
    (void)state;
    enum { PLANE = 32 * 32 };
    static uint8_t memory[3 * PLANE + 1];
    static float x[3 * PLANE];
    const int64_t zero = 0;
    for (int i = 0; i < 3 * PLANE; i++) memory[i] = (uint8_t)(1 + i * i / 3 % 200);
    memcpy(memory + PLANE, memory, PLANE);
    memcpy(memory + 2 * PLANE, memory, PLANE);
    sbn_dataset_info info = {.n = 1, .c = 3, .h = 32, .w = 32, .classes = 10};
    sbn_dataset *d = NULL;
    OK(sbn_dataset_create("cifar10:/folder", SBN_SPLIT_TRAIN, &info, memory, 0, &d));
    OK(sbn_dataset_set_augment(d, 31, true, 1));
    for (int64_t epoch = 0; epoch < 20; epoch++) {
        sbn_dataset_fetch_augmented(d, epoch, &zero, 1, x, NULL);
        assert_memory_equal(x, x + PLANE, PLANE * sizeof *x);
        assert_memory_equal(x, x + 2 * PLANE, PLANE * sizeof *x);
    }
    sbn_dataset_destroy(&d);
}

static void arguments(void **state)
{
    (void)state;
    sbn_dataset *d = make(5, true, 1);
    FAILS(SBN_E_ARG, sbn_dataset_set_augment(NULL, 0, true, 1));
    FAILS(SBN_E_ARG, sbn_dataset_set_augment(d, -1, true, 1));
    FAILS(SBN_E_ARG, sbn_dataset_set_augment(d, 6, true, 1));
    sbn_dataset_destroy(&d);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(changes_are_uniform), cmocka_unit_test(each_alone),
    cmocka_unit_test(changes_by_counter),  cmocka_unit_test(channels_together),
    cmocka_unit_test(arguments),
};
TEST_MAIN(tests)
