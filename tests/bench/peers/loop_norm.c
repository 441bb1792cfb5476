/*
 * Times what anybody would write: batch normalization as two passes over float32 data,
 * sums in float, or in double with -DSUM=double, then the result. The compiler vectorizes
 * both.
 *
 *   cc -O3 -march=native -fopenmp loop_norm.c pairs.c -lm -o loop_norm
 */
#include "pairs.h"

#ifndef SUM
#define SUM float
#endif

#include <math.h>
#include <omp.h>

static void forward_channels(void *arg)
{
    const batch *b = arg;
    int64_t c = b->s.c, s = b->s.h * b->s.w;
#pragma omp parallel for
    for (int64_t i = 0; i < c; i++) {
        double sum = 0, squares = 0, m = (double)(b->s.n * s);
        for (int64_t n = 0; n < b->s.n; n++) {
            const float *x = b->x + (n * c + i) * s;
            SUM part = 0, part_squares = 0;
#pragma omp simd reduction(+ : part, part_squares)
            for (int64_t j = 0; j < s; j++) {
                part += x[j];
                part_squares += (SUM)x[j] * x[j];
            }
            sum += (double)part;
            squares += (double)part_squares;
        }
        double mean = sum / m, var = squares / m - mean * mean;
        b->mean[i] = (float)mean;
        b->var[i] = (float)var;
        float scale = b->gamma[i] * (float)(1 / sqrt(var + 1e-5)),
              shift = b->beta[i] - (float)mean * scale;
        for (int64_t n = 0; n < b->s.n; n++) {
            const float *x = b->x + (n * c + i) * s;
            float *y = b->y + (n * c + i) * s;
#pragma omp simd
            for (int64_t j = 0; j < s; j++) y[j] = x[j] * scale + shift;
        }
    }
}

static void backward_channels(void *arg)
{
    const batch *b = arg;
    int64_t c = b->s.c, s = b->s.h * b->s.w;
#pragma omp parallel for
    for (int64_t i = 0; i < c; i++) {
        double sum = 0, sum_d = 0, m = (double)(b->s.n * s);
        float mean = b->mean[i], rstd = 1 / sqrtf(b->var[i] + 1e-5f);
        for (int64_t n = 0; n < b->s.n; n++) {
            const float *x = b->x + (n * c + i) * s, *dy = b->dy + (n * c + i) * s;
            SUM part = 0, part_d = 0;
#pragma omp simd reduction(+ : part, part_d)
            for (int64_t j = 0; j < s; j++) {
                part += dy[j];
                part_d += dy[j] * ((SUM)x[j] - (SUM)mean);
            }
            sum += (double)part;
            sum_d += (double)part_d;
        }
        b->dbeta[i] = (float)sum;
        b->dgamma[i] = (float)sum_d * rstd;
        float a = b->gamma[i] * rstd, k = a * rstd * rstd * (float)(sum_d / m),
              shift = k * mean - a * (float)(sum / m);
        for (int64_t n = 0; n < b->s.n; n++) {
            const float *x = b->x + (n * c + i) * s, *dy = b->dy + (n * c + i) * s;
            float *dx = b->dx + (n * c + i) * s;
#pragma omp simd
            for (int64_t j = 0; j < s; j++) dx[j] = a * dy[j] - k * x[j] + shift;
        }
    }
}

/* Sums and factors of the channels where they are not the outer loop. */
enum { MOST_C = 1 << 14 };
static struct {
    float a[MOST_C], b[MOST_C], k[MOST_C];
    SUM sum[MOST_C], sum2[MOST_C];
} f;

static void forward_factors(const batch *b)
{
    SUM m = (SUM)(b->count / b->s.c);
    for (int64_t i = 0; i < b->s.c; i++) {
        SUM mean = f.sum[i] / m, var = f.sum2[i] / m - mean * mean;
        b->mean[i] = (float)mean;
        b->var[i] = (float)var;
        f.a[i] = b->gamma[i] / sqrtf(b->var[i] + 1e-5f);
        f.b[i] = b->beta[i] - b->mean[i] * f.a[i];
    }
}

static void backward_factors(const batch *b)
{
    float m = (float)(b->count / b->s.c);
    for (int64_t i = 0; i < b->s.c; i++) {
        float rstd = 1 / sqrtf(b->var[i] + 1e-5f), sum = (float)f.sum[i],
              sum_d = (float)f.sum2[i];
        b->dbeta[i] = sum;
        b->dgamma[i] = sum_d * rstd;
        f.a[i] = b->gamma[i] * rstd;
        f.k[i] = f.a[i] * rstd * rstd * sum_d / m;
        f.b[i] = f.k[i] * b->mean[i] - f.a[i] * sum / m;
    }
}

/* In the order of memory: faster where planes are small. */
static void forward_samples(void *arg)
{
    const batch *b = arg;
    int64_t c = b->s.c, s = b->s.h * b->s.w;
    SUM *sum = f.sum, *squares = f.sum2;
    for (int64_t i = 0; i < c; i++) sum[i] = squares[i] = 0;
#pragma omp parallel for reduction(+ : sum[:c], squares[:c])
    for (int64_t n = 0; n < b->s.n; n++)
        for (int64_t i = 0; i < c; i++) {
            const float *x = b->x + (n * c + i) * s;
            SUM part = 0, part_squares = 0;
#pragma omp simd reduction(+ : part, part_squares)
            for (int64_t j = 0; j < s; j++) {
                part += x[j];
                part_squares += (SUM)x[j] * x[j];
            }
            sum[i] += part;
            squares[i] += part_squares;
        }
    forward_factors(b);
#pragma omp parallel for
    for (int64_t p = 0; p < b->s.n * c; p++) {
        const float *x = b->x + p * s;
        float *y = b->y + p * s, a = f.a[p % c], shift = f.b[p % c];
#pragma omp simd
        for (int64_t j = 0; j < s; j++) y[j] = x[j] * a + shift;
    }
}

static void backward_samples(void *arg)
{
    const batch *b = arg;
    int64_t c = b->s.c, s = b->s.h * b->s.w;
    SUM *sum = f.sum, *sum_d = f.sum2;
    for (int64_t i = 0; i < c; i++) sum[i] = sum_d[i] = 0;
#pragma omp parallel for reduction(+ : sum[:c], sum_d[:c])
    for (int64_t n = 0; n < b->s.n; n++)
        for (int64_t i = 0; i < c; i++) {
            const float *x = b->x + (n * c + i) * s, *dy = b->dy + (n * c + i) * s;
            SUM part = 0, part_d = 0, mean = b->mean[i];
#pragma omp simd reduction(+ : part, part_d)
            for (int64_t j = 0; j < s; j++) {
                part += dy[j];
                part_d += dy[j] * ((SUM)x[j] - (SUM)mean);
            }
            sum[i] += part;
            sum_d[i] += part_d;
        }
    backward_factors(b);
#pragma omp parallel for
    for (int64_t p = 0; p < b->s.n * c; p++) {
        const float *x = b->x + p * s, *dy = b->dy + p * s;
        float *dx = b->dx + p * s, a = f.a[p % c], k = f.k[p % c], shift = f.b[p % c];
#pragma omp simd
        for (int64_t j = 0; j < s; j++) dx[j] = a * dy[j] - k * x[j] + shift;
    }
}

static void forward_rows(void *arg)
{
    const batch *b = arg;
    int64_t c = b->s.c, rows = b->s.n * b->s.h * b->s.w;
    SUM *sum = f.sum, *squares = f.sum2;
    for (int64_t i = 0; i < c; i++) sum[i] = squares[i] = 0;
#pragma omp parallel for reduction(+ : sum[:c], squares[:c])
    for (int64_t r = 0; r < rows; r++) {
        const float *x = b->x + r * c;
#pragma omp simd
        for (int64_t i = 0; i < c; i++) {
            sum[i] += x[i];
            squares[i] += (SUM)x[i] * x[i];
        }
    }
    forward_factors(b);
#pragma omp parallel for
    for (int64_t r = 0; r < rows; r++) {
        const float *x = b->x + r * c;
        float *y = b->y + r * c;
#pragma omp simd
        for (int64_t i = 0; i < c; i++) y[i] = x[i] * f.a[i] + f.b[i];
    }
}

static void backward_rows(void *arg)
{
    const batch *b = arg;
    int64_t c = b->s.c, rows = b->s.n * b->s.h * b->s.w;
    SUM *sum = f.sum, *sum_d = f.sum2;
    for (int64_t i = 0; i < c; i++) sum[i] = sum_d[i] = 0;
#pragma omp parallel for reduction(+ : sum[:c], sum_d[:c])
    for (int64_t r = 0; r < rows; r++) {
        const float *x = b->x + r * c, *dy = b->dy + r * c;
#pragma omp simd
        for (int64_t i = 0; i < c; i++) {
            sum[i] += dy[i];
            sum_d[i] += dy[i] * ((SUM)x[i] - b->mean[i]);
        }
    }
    backward_factors(b);
#pragma omp parallel for
    for (int64_t r = 0; r < rows; r++) {
        const float *x = b->x + r * c, *dy = b->dy + r * c;
        float *dx = b->dx + r * c;
#pragma omp simd
        for (int64_t i = 0; i < c; i++) dx[i] = f.a[i] * dy[i] - f.k[i] * x[i] + f.b[i];
    }
}

/* The order of the loops stands in place of a version. */
static const struct {
    const char *order;
    bool planes;
    void (*forward)(void *), (*backward)(void *);
} kinds[] = {
    {"channels outside", true, forward_channels, backward_channels},
    {"samples outside", true, forward_samples, backward_samples},
    {"pixels outside", false, forward_rows, backward_rows},
};

static void measure(const wishes *w, shape s, layout in)
{
    const char *name = sizeof(SUM) == sizeof(double) ? "loop64" : "loop";
    for (int k = 0; k < 3; k++) {
        if (kinds[k].planes != (in == NCHW)) continue;
        batch b = batch_make(s, in);
        kinds[k].forward(&b);
        batch_check(&b, name, false);
        kinds[k].backward(&b);
        batch_check(&b, name, true);
        for (int p = 0; p < 2; p++)
            if (w->passes[p])
                pairs_print(&b, w, name, kinds[k].order, p,
                            p ? kinds[k].backward : kinds[k].forward, &b);
        batch_free(&b);
    }
}

int main(int argc, char **argv)
{
    wishes w = wishes_read(argc, argv);
    omp_set_num_threads(w.threads);
    for (int k = 0; k < w.shape_count; k++)
        for (layout in = 0; in < BLOCKED16; in++) {
            shape s = w.shapes[k];
            bool fits = s.flat == (in == NC) && s.c <= MOST_C;
            if (w.layouts[in] && fits) measure(&w, s, in);
        }
}
