#include "pairs.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char *const layout_names[LAYOUTS] = {"nchw", "nhwc", "nc", "nchw16c"};

static const double sample_s = 1e-3; /* least time of a sample */

/* --- options --- */

static _Noreturn void usage(const char *name, int code)
{
    fprintf(code ? stderr : stdout,
            "usage: %s [--shape LIST] [--layout LIST] [--pass LIST] [--threads N]\n"
            "       [--pairs N]\n"
            "lists with commas: shapes such as 64x20x8x8,4096x256; of nchw, nhwc, nc,\n"
            "nchw16c; of forward, backward\n",
            name);
    exit(code);
}

static int number_read(const char *text, const char *name)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (*end || v < 1 || v > 100000) usage(name, 64);
    return (int)v;
}

static shape shape_read(const char *word, const char *name)
{
    long long v[4] = {0, 0, 1, 1};
    char end;
    int got = sscanf(word, "%lldx%lldx%lldx%lld%c", &v[0], &v[1], &v[2], &v[3], &end);
    for (int i = 0; i < 4; i++)
        if (v[i] < 1 || v[i] > 1 << 24) got = 0;
    if (got != 2 && got != 4) usage(name, 64);
    return (shape){v[0], v[1], v[2], v[3], got == 2};
}

static void mark(const char *word, const char *const *names, int n, bool *marks,
                 const char *name)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(word, names[i])) {
            marks[i] = true;
            return;
        }
    usage(name, 64);
}

static void list_read(char option, char *list, wishes *w, const char *name)
{
    static const char *const passes[] = {"forward", "backward"};
    for (char *word = strtok(list, ","); word; word = strtok(NULL, ",")) {
        if (option == 'l') mark(word, layout_names, LAYOUTS, w->layouts, name);
        if (option == 'd') mark(word, passes, 2, w->passes, name);
        if (option != 's') continue;
        if (w->shape_count == MOST_SHAPES) usage(name, 64);
        w->shapes[w->shape_count++] = shape_read(word, name);
    }
}

wishes wishes_read(int argc, char **argv)
{
    static const struct option table[] = {
        {"shape", required_argument, NULL, 's'},
        {"layout", required_argument, NULL, 'l'},
        {"pass", required_argument, NULL, 'd'},
        {"threads", required_argument, NULL, 't'},
        {"pairs", required_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    static const shape standard[] = {{32, 256, 56, 56, false},
                                     {32, 64, 56, 56, false},
                                     {32, 1024, 14, 14, false},
                                     {64, 20, 8, 8, false},
                                     {4096, 256, 1, 1, true}};
    wishes w = {.threads = 1, .pairs = 20};
    const char *name = argv[0];
    for (int o; (o = getopt_long(argc, argv, "", table, NULL)) != -1;) switch (o) {
        case 's':
        case 'l':
        case 'd':
            list_read((char)o, optarg, &w, name);
            break;
        case 't':
            w.threads = number_read(optarg, name);
            break;
        case 'p':
            w.pairs = number_read(optarg, name);
            break;
        default:
            usage(name, o == 'h' ? 0 : 64);
        }
    if (optind != argc) usage(name, 64);
    bool some = false;
    for (layout l = 0; l < LAYOUTS; l++) some |= w.layouts[l];
    for (layout l = 0; l < LAYOUTS && !some; l++) w.layouts[l] = true;
    if (!w.passes[0] && !w.passes[1]) w.passes[0] = w.passes[1] = true;
    if (!w.shape_count) {
        w.shape_count = sizeof standard / sizeof *standard;
        memcpy(w.shapes, standard, sizeof standard);
    }
    return w;
}

/* --- buffers --- */

static float *floats(int64_t n)
{
    size_t bytes = ((size_t)n * sizeof(float) + 63) / 64 * 64;
    float *p = aligned_alloc(64, bytes);
    if (!p) {
        fprintf(stderr, "out of memory: %zu bytes\n", bytes);
        exit(70);
    }
    memset(p, 0, bytes);
    return p;
}

batch batch_make(shape s, layout in)
{
    batch b = {.s = s, .in = in, .count = s.n * s.c * s.h * s.w};
    float **large[] = {&b.x, &b.dy, &b.y, &b.dx},
          **small[] = {&b.gamma, &b.beta, &b.mean, &b.var, &b.dgamma, &b.dbeta};
    for (int i = 0; i < 4; i++) *large[i] = floats(b.count);
    for (int i = 0; i < 6; i++) *small[i] = floats(s.c);
    uint32_t seed = 1;
    for (int64_t i = 0; i < b.count; i++) {
        seed = seed * 1664525u + 1013904223u;
        b.x[i] = (float)(seed >> 8) * 0x1p-23f + 0.5f;
        seed = seed * 1664525u + 1013904223u;
        b.dy[i] = (float)(seed >> 8) * 0x1p-23f - 1;
    }
    for (int64_t i = 0; i < s.c; i++) {
        b.gamma[i] = 1 + 0.5f * (float)(i % 3);
        b.beta[i] = 0.25f * (float)(i % 5);
    }
    return b;
}

void batch_free(batch *b)
{
    float *all[] = {b->x,    b->dy,   b->y,   b->dx,     b->gamma,
                    b->beta, b->mean, b->var, b->dgamma, b->dbeta};
    for (int i = 0; i < 10; i++) free(all[i]);
}

static int64_t place(const batch *b, int64_t n, int64_t c, int64_t s)
{
    int64_t hw = b->s.h * b->s.w;
    switch (b->in) {
    case NCHW:
        return (n * b->s.c + c) * hw + s;
    case BLOCKED16:
        return ((n * (b->s.c / 16) + c / 16) * hw + s) * 16 + c % 16;
    default:
        return (n * hw + s) * b->s.c + c;
    }
}

static void expect(double got, double want, double tolerance, const char *peer,
                   const batch *b, const char *what)
{
    if (fabs(got - want) <= tolerance) return;
    fprintf(stderr, "%s, %s, %lldx%lldx%lldx%lld: %s is %.9g, expected %.9g\n", peer,
            layout_names[b->in], (long long)b->s.n, (long long)b->s.c, (long long)b->s.h,
            (long long)b->s.w, what, got, want);
    exit(70);
}

void batch_check(const batch *b, const char *peer, bool backward)
{
    int64_t hw = b->s.h * b->s.w;
    double m = (double)(b->s.n * hw);
    for (int64_t c = 0; c<b->s.c; c += b->s.c> 1 ? b->s.c - 1 : 1) {
        double sum = 0, squares = 0, sum_dy = 0, sum_dy_xhat = 0;
        for (int64_t i = 0; i < b->s.n * hw; i++)
            sum += (double)b->x[place(b, i / hw, c, i % hw)];
        double mean = sum / m;
        for (int64_t i = 0; i < b->s.n * hw; i++) {
            double d = (double)b->x[place(b, i / hw, c, i % hw)] - mean;
            squares += d * d;
        }
        double rstd = 1 / sqrt(squares / m + 1e-5), gamma = (double)b->gamma[c];
        for (int64_t i = 0; i < b->s.n * hw; i++) {
            int64_t at = place(b, i / hw, c, i % hw);
            double xhat = ((double)b->x[at] - mean) * rstd;
            sum_dy += (double)b->dy[at], sum_dy_xhat += (double)b->dy[at] * xhat;
            if (!backward)
                expect((double)b->y[at], gamma * xhat + (double)b->beta[c], 1e-3, peer, b,
                       "y");
        }
        if (!backward) continue;
        expect((double)b->dbeta[c], sum_dy, 1e-4 * m, peer, b, "dbeta");
        expect((double)b->dgamma[c], sum_dy_xhat, 1e-4 * m, peer, b, "dgamma");
        for (int64_t i = 0; i < b->s.n * hw; i++) {
            int64_t at = place(b, i / hw, c, i % hw);
            double xhat = ((double)b->x[at] - mean) * rstd;
            expect((double)b->dx[at],
                   gamma * rstd *
                       ((double)b->dy[at] - sum_dy / m - xhat * (sum_dy_xhat / m)),
                   1e-3, peer, b, "dx");
        }
    }
}

/* --- timing --- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void copy(void *arg)
{
    const batch *b = arg;
    memcpy(b->y, b->x, (size_t)b->count * sizeof(float));
    /* or the compiler drops copies that the next one overwrites */
    __asm__ volatile("" : : "r"(b->y) : "memory");
}

static double seconds_of(void (*run)(void *), void *arg, int repeats)
{
    double start = now();
    for (int i = 0; i < repeats; i++) run(arg);
    return (now() - start) / repeats;
}

/* Calls that fill a sample, found after some to warm up. */
static int repeats_of(void (*run)(void *), void *arg)
{
    int repeats = 1;
    for (int i = 0; i < 2; i++) run(arg);
    while (repeats < 1 << 20 && seconds_of(run, arg, repeats) * repeats < sample_s)
        repeats *= 2;
    return repeats;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Between the neighbours of place q·(n-1) in a sorted list. */
static double quantile(const double *sorted, int n, double q)
{
    double at = q * (n - 1);
    int low = (int)at, high = low + (low + 1 < n);
    return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

void pairs_print(const batch *b, const wishes *w, const char *peer, const char *version,
                 bool backward, void (*run)(void *), void *arg)
{
    int n = w->pairs, run_repeats = repeats_of(run, arg),
        copy_repeats = repeats_of(copy, (void *)(uintptr_t)b);
    double *times = malloc(3 * (size_t)n * sizeof *times), *copies = times + n,
           *ratios = copies + n;
    if (!times) exit(70);
    for (int i = 0; i < n; i++) {
        /* each first in every second pair: what a pass finds in the cache depends on it
         */
        if (i % 2) copies[i] = seconds_of(copy, (void *)(uintptr_t)b, copy_repeats);
        times[i] = seconds_of(run, arg, run_repeats);
        if (i % 2 == 0) copies[i] = seconds_of(copy, (void *)(uintptr_t)b, copy_repeats);
        ratios[i] = times[i] / copies[i];
    }
    for (int k = 0; k < 3; k++) qsort(times + k * n, (size_t)n, sizeof *times, ascending);
    printf("{\"kind\":\"bench\",\"what\":\"norm\",\"peer\":\"%s\",\"version\":\"%s\","
           "\"pass\":\"%s\",\"layout\":\"%s\",\"dtype\":\"f32\",\"shape\":[%lld,%lld",
           peer, version, backward ? "backward" : "forward", layout_names[b->in],
           (long long)b->s.n, (long long)b->s.c);
    if (!b->s.flat) printf(",%lld,%lld", (long long)b->s.h, (long long)b->s.w);
    printf("],\"threads\":%d,\"pairs\":%d,\"seconds\":%.9g,\"memcpy_seconds\":%.9g,"
           "\"ratio\":%.4f,\"ratio_p10\":%.4f,\"ratio_p90\":%.4f}\n",
           w->threads, n, quantile(times, n, 0.5), quantile(copies, n, 0.5),
           quantile(ratios, n, 0.5), quantile(ratios, n, 0.1), quantile(ratios, n, 0.9));
    fflush(stdout);
    free(times);
}
