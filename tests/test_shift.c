/* Test inputs from another source, against closed forms and long double. */
#include <math.h>
#include <string.h>

#include "support/harness.h"
#include "syncbn/data.h"

enum { MOST = 4096 };

/* A data set of n images of one channel over the pixels; labels 0. */
static sbn_dataset *make(int64_t n, int64_t h, int64_t w, const uint8_t *pixels)
{
    static uint8_t memory[2 * MOST * 64];
    sbn_dataset_info info = {.n = n, .c = 1, .h = h, .w = w, .classes = 10};
    sbn_dataset *d = NULL;
    assert_true(n * (h * w + 1) <= (int64_t)sizeof memory);
    memcpy(memory, pixels, (size_t)(n * h * w));
    memset(memory + n * h * w, 0, (size_t)n);
    OK(sbn_dataset_create("/folder", SBN_SPLIT_TEST, &info, memory, 0, &d));
    return d;
}

static void fetch(const sbn_dataset *d, int64_t index, float *x)
{
    sbn_dataset_fetch(d, &index, 1, x, NULL);
}

/* The same pixels whatever the test, of all grey values. */
static void fill(int64_t n, uint8_t *pixels)
{
    for (int64_t i = 0; i < n; i++) pixels[i] = (uint8_t)(i * i * 7 + i / 3 + i % 5 * 40);
}

static long double clipped(long double v)
{
    return v < 0 ? 0 : v > 1 ? 1 : v;
}

static void contrast(void **state)
{
    (void)state;
    /* mean 1/2: what comes out is exact */
    static const uint8_t halves[4] = {0, 255, 255, 0};
    float x[MOST];
    sbn_dataset *d = make(1, 2, 2, halves);
    OK(sbn_dataset_set_shift(d, "contrast:0.25", 1));
    fetch(d, 0, x);
    for (int i = 0; i < 4; i++) assert_true(x[i] == (halves[i] ? 0.625f : 0.375f));
    OK(sbn_dataset_set_shift(d, "contrast:0", 1));
    fetch(d, 0, x);
    for (int i = 0; i < 4; i++) assert_true(x[i] == 0.5f);
    OK(sbn_dataset_set_shift(d, NULL, 1));
    fetch(d, 0, x);
    for (int i = 0; i < 4; i++) assert_true(x[i] == (float)(halves[i] / 255));
    sbn_dataset_destroy(&d);

    uint8_t pixels[2 * 7 * 9];
    fill(sizeof pixels, pixels);
    d = make(2, 7, 9, pixels);
    static const double amounts[] = {0.3, 1, 2.5};
    static const char *const specs[] = {"contrast:0.3", "contrast:1", "contrast:2.5"};
    for (int k = 0; k < 3; k++) {
        OK(sbn_dataset_set_shift(d, specs[k], 1));
        for (int64_t i = 0; i < 2; i++) {
            const uint8_t *p = pixels + i * 63;
            long double mean = 0;
            for (int j = 0; j < 63; j++) mean += (long double)((float)p[j] / 255.0f) / 63;
            fetch(d, i, x);
            for (int j = 0; j < 63; j++) {
                long double v = (long double)((float)p[j] / 255.0f);
                CLOSE((double)x[j],
                      (double)clipped(mean + (long double)amounts[k] * (v - mean)), 6e-8);
            }
        }
    }
    sbn_dataset_destroy(&d);
}

static void invert(void **state)
{
    (void)state;
    uint8_t pixels[256];
    float x[256];
    for (int i = 0; i < 256; i++) pixels[i] = (uint8_t)i;
    sbn_dataset *d = make(1, 16, 16, pixels);
    OK(sbn_dataset_set_shift(d, "invert:1", 1));
    fetch(d, 0, x);
    for (int i = 0; i < 256; i++) assert_true(x[i] == 1.0f - (float)i / 255.0f);
    OK(sbn_dataset_set_shift(d, "invert:0.5", 1));
    fetch(d, 0, x);
    for (int i = 0; i < 256; i++) assert_true(x[i] == 0.5f);
    OK(sbn_dataset_set_shift(d, "invert:0", 1));
    fetch(d, 0, x);
    for (int i = 0; i < 256; i++) assert_true(x[i] == (float)i / 255.0f);
    sbn_dataset_destroy(&d);
}

/* Mean and mean square of what a shift adds to grey images, and how far the noise of one
 * image and of one pixel goes with that of the next. */
static void moments(const char *shift, uint64_t seed, double *mean, double *square,
                    double *images, double *neighbours)
{
    enum { N = 400, SIDE = 16, PIXELS = SIDE * SIDE };
    static uint8_t pixels[N * PIXELS];
    float x[PIXELS], last[PIXELS] = {0};
    memset(pixels, 102, sizeof pixels); /* 0.4 */
    sbn_dataset *d = make(N, SIDE, SIDE, pixels);
    OK(sbn_dataset_set_shift(d, shift, seed));
    *mean = *square = *images = *neighbours = 0;
    for (int64_t i = 0; i < N; i++) {
        fetch(d, i, x);
        for (int j = 0; j < PIXELS; j++) {
            double z = (double)x[j] - (double)(102 / 255.0f);
            *mean += z / (N * PIXELS);
            *square += z * z / (N * PIXELS);
            *images += z * (double)last[j] / (N * PIXELS);
            if (j > 0) *neighbours += z * ((double)x[j - 1] - 0.4) / (N * PIXELS);
            last[j] = (float)z;
        }
    }
    sbn_dataset_destroy(&d);
}

static void noise(void **state)
{
    (void)state;
    double mean, square, images, neighbours;
    const double n = 400 * 256, s = 0.05, four = 4 / sqrt(n);
    moments("noise:0.05", 3, &mean, &square, &images, &neighbours);
    CLOSE(mean, 0, s * four);
    CLOSE(square, s * s, s * s * sqrt(2) * four);
    CLOSE(images, 0, s * s * four);
    CLOSE(neighbours, 0, s * s * four);
    /* two of them are independent: variances add up */
    moments("noise:0.05,noise:0.05", 3, &mean, &square, &images, &neighbours);
    CLOSE(mean, 0, sqrt(2) * s * four);
    CLOSE(square, 2 * s * s, 2 * s * s * sqrt(2) * four);
    /* clipped to 0 … 1: nearly all of it at the ends */
    moments("noise:100", 3, &mean, &square, &images, &neighbours);
    CLOSE(mean, 0.1, 0.01);
    CLOSE(square, 0.5 * 0.16 + 0.5 * 0.36, 0.01);
}

/* Noise is a function of seed, sample and pixel, not of what else is fetched. */
static void noise_by_counter(void **state)
{
    (void)state;
    enum { N = 12, H = 15, W = 20, PIXELS = H * W };
    uint8_t pixels[N * PIXELS];
    float all[N * PIXELS], one[PIXELS], other[PIXELS];
    int64_t index[N];
    memset(pixels, 102, sizeof pixels);
    for (int64_t i = 0; i < N; i++) index[i] = N - 1 - i;
    sbn_dataset *d = make(N, H, W, pixels);
    OK(sbn_dataset_set_shift(d, "noise:0.1", 9));
    sbn_dataset_fetch(d, index, N, all, NULL);
    for (int64_t i = 0; i < N; i++) {
        fetch(d, index[i], one);
        assert_memory_equal(one, all + i * PIXELS, sizeof one);
        if (i > 0) assert_memory_not_equal(one, all, sizeof one);
    }
    for (int i = 0; i < PIXELS; i++)
        for (int j = 0; j < i; j++) assert_true(one[i] != one[j]);
    OK(sbn_dataset_set_shift(d, "noise:0.1", 10));
    fetch(d, 0, other);
    assert_memory_not_equal(one, other, sizeof one);
    sbn_dataset_destroy(&d);
}

static int64_t within(int64_t i, int64_t n)
{
    return i < 0 ? 0 : i < n ? i : n - 1;
}

/* Every pixel as a sum over its whole square of neighbours. */
static void check_blur(int64_t h, int64_t w, const char *spec, long double sigma)
{
    uint8_t pixels[MOST];
    float x[MOST];
    int64_t reach = (int64_t)ceill(4 * sigma);
    long double line = 0, *weight = NULL, room[256];
    weight = room + reach;
    for (int64_t k = -reach; k <= reach; k++) {
        long double t = (long double)k / sigma;
        line += weight[k] = expl(-t * t / 2);
    }
    fill(h * w, pixels);
    sbn_dataset *d = make(1, h, w, pixels);
    OK(sbn_dataset_set_shift(d, spec, 1));
    fetch(d, 0, x);
    for (int64_t r = 0; r < h; r++)
        for (int64_t c = 0; c < w; c++) {
            long double sum = 0;
            for (int64_t i = -reach; i <= reach; i++)
                for (int64_t j = -reach; j <= reach; j++) {
                    int64_t at = within(r + i, h) * w + within(c + j, w);
                    sum += weight[i] * weight[j] * (long double)pixels[at] / 255;
                }
            CLOSE((double)x[r * w + c], (double)(sum / (line * line)), 2e-7);
        }
    sbn_dataset_destroy(&d);
}

static void blur(void **state)
{
    (void)state;
    check_blur(11, 13, "blur:0.7", 0.7L);
    check_blur(9, 6, "blur:1.5", 1.5L);
    check_blur(5, 4, "blur:4", 4.0L); /* reaches beyond both borders */
    check_blur(1, 17, "blur:1", 1.0L);
    check_blur(17, 1, "blur:1", 1.0L);
    check_blur(1, 1, "blur:16", 16.0L);
    uint8_t pixels[63];
    float x[63], plain[63];
    fill(63, pixels);
    sbn_dataset *d = make(1, 7, 9, pixels);
    fetch(d, 0, plain);
    OK(sbn_dataset_set_shift(d, "blur:0", 1));
    fetch(d, 0, x);
    assert_memory_equal(x, plain, sizeof x);
    sbn_dataset_destroy(&d);
}

/* One after the other, each on what the one before has left. */
static void in_order(void **state)
{
    (void)state;
    static const uint8_t pixels[2] = {0, 204};
    float x[2];
    sbn_dataset *d = make(1, 1, 2, pixels);
    OK(sbn_dataset_set_shift(d, "contrast:3,contrast:0.5", 1));
    fetch(d, 0, x); /* 0 0.8 → 0 1 → 0.25 0.75 */
    assert_true(x[0] == 0.25f && x[1] == 0.75f);
    OK(sbn_dataset_set_shift(d, "contrast:0.5,contrast:3", 1));
    fetch(d, 0, x); /* 0 0.8 → 0.2 0.6 → 0 1 */
    assert_true(x[0] == 0.0f && x[1] == 1.0f);
    OK(sbn_dataset_set_shift(d, "invert:1,contrast:0.5,invert:1", 1));
    fetch(d, 0, x); /* 1 0.2 → 0.8 0.4 → 0.2 0.6 */
    CLOSE((double)x[0], 0.2, 6e-8);
    CLOSE((double)x[1], 0.6, 6e-8);
    sbn_dataset_destroy(&d);
}

/* Means are those of a channel; nothing runs from one into the next. */
static void channels_apart(void **state)
{
    (void)state;
    enum { PLANE = 32 * 32 };
    static uint8_t memory[3 * PLANE + 1];
    static float x[3 * PLANE];
    for (int i = 0; i < 3 * PLANE; i++) memory[i] = (uint8_t)(i / PLANE * 100 + i % 2);
    sbn_dataset_info info = {.n = 1, .c = 3, .h = 32, .w = 32, .classes = 10};
    sbn_dataset *d = NULL;
    OK(sbn_dataset_create("cifar10:/folder", SBN_SPLIT_TEST, &info, memory, 0, &d));
    OK(sbn_dataset_set_shift(d, "contrast:0", 1));
    fetch(d, 0, x);
    for (int i = 0; i < 3 * PLANE; i++)
        CLOSE((double)x[i], (i / PLANE * 100 + 0.5) / 255, 6e-8);
    OK(sbn_dataset_set_shift(d, "blur:3", 1));
    fetch(d, 0, x);
    for (int i = 0; i < 3 * PLANE; i++)
        CLOSE((double)x[i], (i / PLANE * 100 + 0.5) / 255, 0.6 / 255);
    sbn_dataset_destroy(&d);
}

static void arguments(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "contrast",
        "contrast:",
        "contrast:x",
        "contrast:-1",
        "contrast:nan",
        "contrast: 1",
        "contrast:1,",
        ",contrast:1",
        "contrst:1",
        "noise:101",
        "noise:1e999",
        "blur:16.1",
        "invert:2",
        "invert:1 ",
        "invert:1;blur:1",
        "blur:1,,invert:1",
        "contrast:1:2",
        "blur:1,blur:1,blur:1,blur:1,blur:1,blur:1,blur:1,blur:1,blur:1"};
    static const uint8_t pixels[2] = {10, 20};
    float before[2], after[2];
    sbn_dataset *d = make(1, 1, 2, pixels);
    OK(sbn_dataset_set_shift(d, "invert:1", 1));
    fetch(d, 0, before);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        FAILS(SBN_E_ARG, sbn_dataset_set_shift(d, bad[i], 1));
    FAILS(SBN_E_ARG, sbn_dataset_set_shift(NULL, "invert:1", 1));
    fetch(d, 0, after); /* a refusal changes nothing */
    assert_memory_equal(before, after, sizeof before);
    sbn_dataset_destroy(&d);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(contrast),       cmocka_unit_test(invert),
    cmocka_unit_test(noise),          cmocka_unit_test(noise_by_counter),
    cmocka_unit_test(blur),           cmocka_unit_test(in_order),
    cmocka_unit_test(channels_apart), cmocka_unit_test(arguments),
};
TEST_MAIN(tests)
