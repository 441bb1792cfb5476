/* What the passes of a norm cost by moving tensors alone, against memcpy, in turns on one
 * thread, medians of ROUNDS: a pass over planes or pixels that needs all of them before
 * it writes reads its operands twice. build/tests/bench_memory [ROUNDS [MIB ...]]
 *     21 rounds; 12, 25, 98 MiB */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "median.h"

enum { MOST_ROUNDS = 1001, LANES = 4, SUMS = 8, STEP = LANES * SUMS };

typedef float vector __attribute__((vector_size(4 * LANES)));

/* x and dy are read, y is written. */
static float *x, *dy, *y;
static int64_t count;
static volatile float sink;

static vector at(const float *p)
{
    vector v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Past the cache, where there is a way to. */
static void put(float *p, vector v)
{
#if defined __SSE__ && !defined __clang__
    __builtin_ia32_movntps(p, v);
#else
    memcpy(p, &v, sizeof v);
#endif
}

static void copy(void)
{
    memcpy(y, x, sizeof *x * (size_t)count);
}

static void read_one(void)
{
    vector sum[SUMS] = {{0}};
    for (int64_t j = 0; j < count; j += STEP)
        for (int k = 0; k < SUMS; k++) sum[k] += at(x + j + k * LANES);
    for (int k = 1; k < SUMS; k++) sum[0] += sum[k];
    sink = sum[0][0];
}

static void read_two(void)
{
    vector sum[SUMS] = {{0}};
    for (int64_t j = 0; j < count; j += STEP)
        for (int k = 0; k < SUMS; k++)
            sum[k] += at(x + j + k * LANES) * at(dy + j + k * LANES);
    for (int k = 1; k < SUMS; k++) sum[0] += sum[k];
    sink = sum[0][0];
}

static void write_of_one(void)
{
    for (int64_t j = 0; j < count; j += LANES) put(y + j, at(x + j) * 3);
}

static void write_of_two(void)
{
    for (int64_t j = 0; j < count; j += LANES) put(y + j, at(x + j) * 3 + at(dy + j));
}

static void (*const works[])(void) = {copy, read_one, read_two, write_of_one,
                                      write_of_two};
enum { WORKS = sizeof works / sizeof *works };

static void measure(int mib, int rounds)
{
    double s[MOST_ROUNDS][WORKS], value[MOST_ROUNDS];
    count = (int64_t)mib * 1024 * 1024 / (int64_t)sizeof *x;
    for (int r = -1; r < rounds; r++)
        for (int k = 0; k < WORKS; k++) {
            int i = (r + 1 + k) % WORKS;
            double began_s = sbni_clock_s();
            works[i]();
            if (r >= 0) s[r][i] = sbni_clock_s() - began_s;
        }
    for (int r = 0; r < rounds; r++) value[r] = s[r][0];
    printf("| %d MiB | %.2f ms", mib, 1e3 * median(value, rounds));
    /* over memcpy: one pass, two passes; forward, backward */
    for (int backward = 0; backward < 2; backward++)
        for (int twice = 0; twice < 2; twice++) {
            for (int r = 0; r < rounds; r++)
                value[r] =
                    (s[r][3 + backward] + (twice ? s[r][1 + backward] : 0)) / s[r][0];
            printf(" | %.2f", median(value, rounds));
        }
    printf(" |\n");
}

int main(int argc, char **argv)
{
    static const char *const usual[] = {"12", "25", "98"};
    int rounds = argc > 1 ? atoi(argv[1]) : 21, most = 1;
    int n = argc > 2 ? argc - 2 : 3;
    const char *const *sizes = argc > 2 ? (const char *const *)argv + 2 : usual;
    for (int i = 0; i < n; i++) most = atoi(sizes[i]) > most ? atoi(sizes[i]) : most;
    for (int i = 0; i < n; i++)
        if (atoi(sizes[i]) < 1 || atoi(sizes[i]) > 4096) rounds = 0;
    if (rounds < 1 || rounds > MOST_ROUNDS) {
        fprintf(stderr,
                "usage: bench_memory [ROUNDS [MIB ...]], 1 to %d rounds, 1 to 4096 "
                "MiB\n",
                MOST_ROUNDS);
        return 64;
    }
    size_t bytes = (size_t)most << 20;
    x = aligned_alloc(4096, bytes), dy = aligned_alloc(4096, bytes);
    y = aligned_alloc(4096, bytes);
    if (!x || !dy || !y) {
        fprintf(stderr, "bench_memory: no memory for three times %d MiB\n", most);
        return 70;
    }
    memset(x, 1, bytes), memset(dy, 1, bytes), memset(y, 1, bytes);
    printf(
        "| tensor | memcpy | forward, read once | twice | backward, read once | twice |\n"
        "|---|---:|---:|---:|---:|---:|\n");
    for (int i = 0; i < n; i++) measure(atoi(sizes[i]), rounds);
    free(x), free(dy), free(y);
    return 0;
}
