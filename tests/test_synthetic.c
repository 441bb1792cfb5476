#include "core/memory.h"
#include "data/synthetic.h"
#include "support/harness.h"

#define XXH_INLINE_ALL
#include <math.h>
#include <string.h>
#include <xxhash.h>

enum { PIXELS = SBNI_SYNTHETIC_PIXELS, CLASSES = 10 };

static sbn_dataset *make(sbn_split split, uint64_t seed)
{
    sbn_dataset_info info;
    sbn_dataset *dataset = NULL;
    int64_t bytes = -1;
    OK(sbn_dataset_probe("synthetic", split, &info, &bytes));
    assert_int_equal(bytes, 0);
    OK(sbn_dataset_load("synthetic", split, &info, NULL));
    OK(sbn_dataset_create("synthetic", split, &info, NULL, seed, &dataset));
    return dataset;
}

/* Images are part of every result, so no byte of them changes, on any machine. */
static void known_bytes(void **state)
{
    (void)state;
    uint8_t pixels[PIXELS];
    uint64_t hash = 0;
    for (int64_t i = 0; i < 1000; i++) {
        int32_t label = sbni_synthetic_draw(1, SBN_SPLIT_TRAIN, i, pixels);
        hash = XXH64(pixels, sizeof pixels, hash + (uint64_t)label);
    }
    assert_true(hash == 0xa297c8163e62b3ce);
}

static void shape(void **state)
{
    (void)state;
    for (int split = SBN_SPLIT_TRAIN; split <= SBN_SPLIT_TEST; split++) {
        sbn_dataset *dataset = make((sbn_split)split, 1);
        sbn_dataset_info info = sbn_dataset_get_info(dataset);
        assert_int_equal(info.n, split == SBN_SPLIT_TRAIN ? 60000 : 10000);
        assert_int_equal(info.c, 1);
        assert_int_equal(info.h, 28);
        assert_int_equal(info.w, 28);
        assert_int_equal(info.classes, CLASSES);
        sbn_dataset_destroy(&dataset);
        assert_null(dataset);
    }
}

/* An image does not depend on what is fetched with it or before it. */
static void function_of_index(void **state)
{
    (void)state;
    enum { N = 5 };
    static const int64_t together[N] = {59999, 0, 7, 0, 30000};
    sbn_dataset *dataset = make(SBN_SPLIT_TRAIN, 1);
    float x[N * PIXELS], alone[PIXELS];
    int32_t labels[N], label;
    sbn_dataset_fetch(dataset, together, N, x, labels);
    for (int i = N - 1; i >= 0; i--) {
        sbn_dataset_fetch(dataset, together + i, 1, alone, &label);
        assert_memory_equal(alone, x + i * PIXELS, sizeof alone);
        assert_int_equal(label, labels[i]);
        uint8_t pixels[PIXELS];
        assert_int_equal(sbni_synthetic_draw(1, SBN_SPLIT_TRAIN, together[i], pixels),
                         label);
        for (int j = 0; j < PIXELS; j++)
            assert_true(alone[j] == (float)pixels[j] / 255.0f);
    }
    sbn_dataset_fetch(dataset, together, 1, alone, NULL);
    assert_memory_equal(alone, x, sizeof alone);
    sbn_dataset_destroy(&dataset);
}

static void keys_are_independent(void **state)
{
    (void)state;
    uint8_t a[PIXELS], b[PIXELS];
    sbni_synthetic_draw(1, SBN_SPLIT_TRAIN, 3, a);
    sbni_synthetic_draw(2, SBN_SPLIT_TRAIN, 3, b);
    assert_memory_not_equal(a, b, PIXELS);
    sbni_synthetic_draw(1, SBN_SPLIT_TEST, 3, b);
    assert_memory_not_equal(a, b, PIXELS);
    sbni_synthetic_draw(1, SBN_SPLIT_TRAIN, 4, b);
    assert_memory_not_equal(a, b, PIXELS);
}

static void labels_are_balanced(void **state)
{
    (void)state;
    enum { N = 20000 };
    uint8_t pixels[PIXELS];
    int count[CLASSES] = {0};
    for (int64_t i = 0; i < N; i++)
        count[sbni_synthetic_draw(1, SBN_SPLIT_TRAIN, i, pixels)]++;
    /* five standard deviations of a binomial count */
    for (int c = 0; c < CLASSES; c++) CLOSE(count[c], N / 10.0, 5 * sqrt(N * 0.09));
}

/* Every digit is seen against its ground, and its ink lies inside the frame. */
static void images_show_something(void **state)
{
    (void)state;
    uint8_t pixels[PIXELS];
    double border = 0, centre = 0;
    for (int64_t i = 0; i < 2000; i++) {
        sbni_synthetic_draw(1, SBN_SPLIT_TEST, i, pixels);
        double sum = 0;
        int most = 0;
        for (int j = 0; j < PIXELS; j++) {
            sum += pixels[j];
            if (pixels[j] > most) most = pixels[j];
            int y = j / 28, x = j % 28;
            if (y < 2 || y > 25 || x < 2 || x > 25) border += pixels[j] / 208.0;
            if (y >= 8 && y < 20 && x >= 8 && x < 20) centre += pixels[j] / 144.0;
        }
        assert_true(most > sum / PIXELS + 35);
    }
    assert_true(centre > 2 * border);
}

/* Multinomial logistic regression by stochastic gradient descent, sample by sample. */
static void train_linear(const sbn_dataset *dataset, int64_t n, int epochs, double *w)
{
    float x[PIXELS];
    int32_t label;
    for (int64_t t = 0; t < n * epochs; t++) {
        int64_t i = t % n;
        double z[CLASSES], top = -INFINITY, sum = 0;
        double rate = 0.02 * (1 - (double)t / (double)(n * epochs));
        sbn_dataset_fetch(dataset, &i, 1, x, &label);
        for (int c = 0; c < CLASSES; c++) {
            const double *row = w + c * (PIXELS + 1);
            z[c] = row[PIXELS];
            for (int j = 0; j < PIXELS; j++) z[c] += row[j] * (double)x[j];
            top = fmax(top, z[c]);
        }
        for (int c = 0; c < CLASSES; c++) sum += z[c] = exp(z[c] - top);
        for (int c = 0; c < CLASSES; c++) {
            double *row = w + c * (PIXELS + 1);
            double step = rate * ((c == label) - z[c] / sum);
            row[PIXELS] += step;
            for (int j = 0; j < PIXELS; j++) row[j] += step * (double)x[j];
        }
    }
}

static double linear_accuracy(const sbn_dataset *dataset, int64_t n, const double *w)
{
    float x[PIXELS];
    int32_t label;
    int64_t right = 0;
    for (int64_t i = 0; i < n; i++) {
        double best = -INFINITY;
        int guess = -1;
        sbn_dataset_fetch(dataset, &i, 1, x, &label);
        for (int c = 0; c < CLASSES; c++) {
            const double *row = w + c * (PIXELS + 1);
            double z = row[PIXELS];
            for (int j = 0; j < PIXELS; j++) z += row[j] * (double)x[j];
            if (z > best) best = z, guess = c;
        }
        right += guess == label;
    }
    return (double)right / (double)n;
}

/* The digits carry signal, but not so much that a linear classifier would do. */
static void harder_than_linear(void **state)
{
    (void)state;
    sbn_dataset *train = make(SBN_SPLIT_TRAIN, 1), *test = make(SBN_SPLIT_TEST, 1);
    double *w = NULL;
    OK(sbni_alloc(CLASSES * (PIXELS + 1), sizeof *w, "weights", &w));
    train_linear(train, 10000, 8, w);
    double accuracy = linear_accuracy(test, 5000, w);
    print_message("linear classifier: test accuracy %.4f\n", accuracy);
    assert_true(accuracy > 0.5);
    assert_true(accuracy < 0.95);
    sbni_free(w);
    sbn_dataset_destroy(&train);
    sbn_dataset_destroy(&test);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(known_bytes),         cmocka_unit_test(shape),
    cmocka_unit_test(function_of_index),   cmocka_unit_test(keys_are_independent),
    cmocka_unit_test(labels_are_balanced), cmocka_unit_test(images_show_something),
    cmocka_unit_test(harder_than_linear),
};
TEST_MAIN(tests)
