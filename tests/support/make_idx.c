/* Write a small data set of digits-like images in the four IDX files:
 * make_idx FOLDER TRAIN TEST [SIDE]; or coloured ones in CIFAR-10's six files:
 * make_idx --cifar FOLDER TRAIN TEST. The same arguments give the same bytes. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Segments of a seven-segment display that each digit lights, top first, clockwise, then
 * the middle. */
static const unsigned char lit[10] = {0x3f, 0x06, 0x5b, 0x4f, 0x66,
                                      0x6d, 0x7d, 0x07, 0x7f, 0x6f};

static uint32_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* Whether a point of the unit square lies on a segment of the digit. */
static int on_segment(int digit, double x, double y, double thickness)
{
    static const double ends[7][4] = {
        {.3, .2, .7, .2}, {.7, .2, .7, .5}, {.7, .5, .7, .8}, {.3, .8, .7, .8},
        {.3, .5, .3, .8}, {.3, .2, .3, .5}, {.3, .5, .7, .5}};
    for (int s = 0; s < 7; s++) {
        const double *e = ends[s];
        if (lit[digit] >> s & 1 && x > e[0] - thickness && x < e[2] + thickness &&
            y > e[1] - thickness && y < e[3] + thickness)
            return 1;
    }
    return 0;
}

static void write_image(FILE *f, int digit, int side, uint64_t *state)
{
    double dx = (double)(draw(state) % 200) / 1000 - .1;
    double dy = (double)(draw(state) % 200) / 1000 - .1;
    double thickness = .03 + (double)(draw(state) % 50) / 1000;
    for (int i = 0; i < side * side; i++) {
        double x = (i % side + .5) / side + dx, y = (i / side + .5) / side + dy;
        uint32_t noise = draw(state) % 60;
        fputc((int)(on_segment(digit, x, y, thickness) ? 255 - noise : noise), f);
    }
}

static void write_word(FILE *f, uint32_t word)
{
    for (int shift = 24; shift >= 0; shift -= 8) fputc((int)(word >> shift & 255), f);
}

static FILE *create(const char *folder, const char *half, const char *rest)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s%s", folder, half, rest);
    FILE *f = fopen(path, "wb");
    if (f) return f;
    perror(path);
    exit(1);
}

static int write_half(const char *folder, const char *half, uint32_t n, int side,
                      uint64_t state)
{
    FILE *images = create(folder, half, "-images-idx3-ubyte");
    FILE *labels = create(folder, half, "-labels-idx1-ubyte");
    write_word(images, 0x803);
    write_word(images, n);
    write_word(images, (uint32_t)side);
    write_word(images, (uint32_t)side);
    write_word(labels, 0x801);
    write_word(labels, n);
    for (uint32_t i = 0; i < n; i++) {
        int digit = (int)(draw(&state) % 10);
        fputc(digit, labels);
        write_image(images, digit, side, &state);
    }
    return fclose(images) | fclose(labels);
}

static int write_records(const char *folder, const char *half, const char *rest,
                         uint32_t n, uint64_t state)
{
    FILE *f = create(folder, half, rest);
    for (uint32_t i = 0; i < n; i++) {
        int digit = (int)(draw(&state) % 10);
        fputc(digit, f);
        for (int c = 0; c < 3; c++) write_image(f, digit, 32, &state);
    }
    return fclose(f);
}

/* The five training files hold a record more or less than each other. */
static int write_cifar(const char *folder, uint32_t train, uint32_t test)
{
    int failed = write_records(folder, "test_batch", ".bin", test, 9);
    for (uint32_t k = 0; k < 5; k++) {
        const char rest[] = {'_', (char)('1' + k), '.', 'b', 'i', 'n', 0};
        uint32_t n = train * (k + 1) / 5 - train * k / 5;
        failed |= write_records(folder, "data_batch", rest, n, k + 1);
    }
    return failed;
}

int main(int argc, char **argv)
{
    if (argc == 5 && !strcmp(argv[1], "--cifar"))
        return write_cifar(argv[2], (uint32_t)atoi(argv[3]), (uint32_t)atoi(argv[4]));
    if (argc < 4) {
        fprintf(stderr, "make_idx FOLDER TRAIN TEST [SIDE]\n"
                        "make_idx --cifar FOLDER TRAIN TEST\n");
        return 64;
    }
    int side = argc > 4 ? atoi(argv[4]) : 28;
    return write_half(argv[1], "train", (uint32_t)atoi(argv[2]), side, 1) |
           write_half(argv[1], "t10k", (uint32_t)atoi(argv[3]), side, 2);
}
