#include "support/reference.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

/*
 * Bounds are sums of first-order terms: each operation of the layer adds half a unit of
 * its type (U, or D for its doubles) times the magnitude that it rounds. SECOND covers
 * products of roundings; GRID what the binary grid cuts off (2^-100 per part).
 */
#define D (DBL_EPSILON / 2)
#define SECOND 1.001L
#define GRID 0x1p-90L

/* Statistics of a norm batch in one channel. x - mean is (x - pivot) - rest, where the
 * first difference loses nothing that matters when the mean is large. */
struct ref_channel {
    long double pivot, rest;
    long double mean, mean_e, var, var_e;
    long double rstd, rstd_rel; /* with relative error */
    long double r, r_rel, d, d_e;
    long double sum_dy, sum_dy_e, sum_dyx, sum_dyx_e, size_dyx;
};

static long double rounding(const reference *k)
{
    return k->cfg.dtype == SBN_F64 ? D : (double)FLT_EPSILON / 2;
}

/* Storing an element in bfloat16 rounds once more, to 8 bits. */
static bounded stored(const reference *k, bounded a)
{
    a.e *= SECOND;
    if (k->cfg.dtype == SBN_BF16) a.e += 0x1p-8L * (fabsl(a.v) + a.e);
    return a;
}

static void *zeros(int64_t count, size_t size)
{
    return calloc((size_t)count + 1, size);
}

static int64_t norm_batches(const reference *k)
{
    int64_t m = k->cfg.norm_batch;
    return k->constant || !m ? 1 : (k->n + m - 1) / m;
}

void reference_make(reference *k)
{
    int64_t all = k->n * k->c * k->s;
    bounded **values[] = {&k->pre, &k->y, &k->dx, &k->dz};
    for (int i = 0; i < 4; i++) *values[i] = zeros(all, sizeof(bounded));
    bounded **rows[] = {&k->dgamma, &k->dbeta, &k->running_mean, &k->running_var};
    for (int i = 0; i < 4; i++) *rows[i] = zeros(k->c, sizeof(bounded));
    k->channels = zeros(norm_batches(k) * k->c, sizeof *k->channels);
}

void reference_free(reference *k)
{
    void *owned[] = {k->pre,          k->y,           k->dx,
                     k->dz,           k->dgamma,      k->dbeta,
                     k->running_mean, k->running_var, k->channels};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
}

bool reference_norm_batch(const reference *k, int64_t g, int64_t *from, int64_t *to)
{
    int64_t m = k->constant || !k->cfg.norm_batch ? k->n : k->cfg.norm_batch;
    *from = g * m;
    *to = *from + m < k->n ? *from + m : k->n;
    return *from < k->n;
}

static int64_t place(const reference *k, int64_t row, int64_t i, int64_t j)
{
    return (row * k->c + i) * k->s + j;
}

static long double deviation(const reference *k, const ref_channel *ch, int64_t at)
{
    return ((long double)k->x[at] - ch->pivot) - ch->rest;
}

/* The part of the mean that the layer does not subtract from x but from what is added to
 * the product: all of it up to three deviations, in float. */
static long double left_in(const reference *k, const ref_channel *ch)
{
    bool near = k->cfg.dtype != SBN_F64 && ch->mean * ch->mean <= 9.001L * ch->var;
    return near ? fabsl(ch->mean) : 0;
}

/* How far the layer's x - mean may be off: two subtractions in its type, a mean of two
 * parts of that type, and the error of the mean. */
static long double deviation_e(const reference *k, const ref_channel *ch, long double dev)
{
    long double u = rounding(k);
    return 2 * u * fabsl(dev) + 2 * u * u * fabsl(ch->mean) + ch->mean_e;
}

/* Mean and variance of channel i of samples [from, to), with bounds on the layer's. */
static void moments(const reference *k, int64_t from, int64_t to, int64_t i,
                    int64_t slice_samples, ref_channel *ch)
{
    long double count = (long double)((to - from) * k->s), sum = 0, squares = 0, far = 0;
    ch->pivot = (long double)k->x[place(k, from, i, 0)];
    ch->rest = 0;
    for (int pass = 0; pass < 2; pass++, sum = 0) {
        for (int64_t row = from; row < to; row++)
            for (int64_t j = 0; j < k->s; j++)
                sum += deviation(k, ch, place(k, row, i, j));
        ch->rest += sum / count;
    }
    for (int64_t row = from; row < to; row++)
        for (int64_t j = 0; j < k->s; j++) {
            long double dev = deviation(k, ch, place(k, row, i, j));
            squares += dev * dev;
            far = fmaxl(far, fabsl(dev));
        }
    ch->mean = ch->pivot + ch->rest;
    ch->var = squares / count;
    /* A slice sums m values x - p in double, |x - p| <= 2·far; so each of them carries at
     * most m+1 roundings of it into the mean, m+2 of (x - p)² <= 4·far² and twice
     * |p - mean| times those of the mean into the variance. */
    long double m = (long double)(slice_samples * k->s);
    ch->mean_e = (m + 1) * D * 2 * far;
    ch->var_e = (m + 3) * D * 8 * far * far + 4 * D * ch->var;
}

/* Where the mean is one double and not two, the sum and the quotient are rounded. */
static long double mean_of_one_part_e(const ref_channel *ch)
{
    return ch->mean_e + 2 * D * fabsl(ch->mean);
}

static long double clip(long double v, long double low, long double high)
{
    return v < low ? low : v > high ? high : v;
}

/* r and d from the averages before the step; their errors do not grow by clipping. */
static void correct(const reference *k, int64_t i, ref_channel *ch)
{
    long double eps = (long double)k->cfg.eps, s = sqrtl((long double)k->var[i] + eps),
                off = (ch->mean - (long double)k->mean[i]) / s,
                r_max = (long double)k->cfg.r_max, d_max = (long double)k->cfg.d_max;
    ch->r = clip(sqrtl(ch->var + eps) / s, 1 / r_max, r_max);
    ch->r_rel = ch->rstd_rel + 6 * D;
    ch->d = clip(off, -d_max, d_max);
    if (d_max > 0) ch->d_e = mean_of_one_part_e(ch) / s + 6 * D * fabsl(off);
}

static void statistics(reference *k, int64_t from, int64_t to, int64_t i, ref_channel *ch)
{
    *ch = (ref_channel){.r = 1};
    if (k->constant) {
        ch->pivot = ch->mean = (long double)k->mean[i];
        ch->var = (long double)k->var[i];
    } else {
        int64_t rows = to - from < SBN_SLICE ? to - from : SBN_SLICE;
        moments(k, from, to, i, rows, ch);
    }
    long double spread = ch->var + (long double)k->cfg.eps;
    ch->rstd = 1 / sqrtl(spread);
    ch->rstd_rel = ch->var_e / spread / 2 + 3 * D;
    if (k->corrects) correct(k, i, ch);
}

/* gamma·(xhat·r + d) + beta, then z, relu. */
static void forward_channel(reference *k, int64_t from, int64_t to, int64_t i,
                            const ref_channel *ch)
{
    long double u = rounding(k), gamma = k->gamma ? (long double)k->gamma[i] : 1,
                beta = k->beta ? (long double)k->beta[i] : 0;
    long double scale = gamma * ch->rstd * ch->r, shift = beta + gamma * ch->d;
    long double shift_e = u * fabsl(shift) + D * (fabsl(beta) + fabsl(gamma * ch->d)) +
                          fabsl(gamma) * ch->d_e;
    /* scale·x and shift - scale·mean are larger by scale·mean each */
    shift_e += 2 * (u + D) * fabsl(scale) * left_in(k, ch);
    for (int64_t row = from; row < to; row++)
        for (int64_t j = 0; j < k->s; j++) {
            int64_t at = place(k, row, i, j);
            long double dev = deviation(k, ch, at), product = scale * dev,
                        sum = product + shift;
            /* scale, the product, the sum */
            bounded y = {sum,
                         fabsl(scale) * deviation_e(k, ch, dev) +
                             fabsl(product) * (2 * u + ch->rstd_rel + ch->r_rel + 2 * D) +
                             shift_e + u * fabsl(sum)};
            if (k->z) {
                y.v += (long double)k->z[at];
                y.e += u * fabsl(y.v);
            }
            y.e *= SECOND;
            k->pre[at] = y;
            if (k->cfg.relu && y.v < 0) y.v = 0;
            k->y[at] = stored(k, y);
        }
}

/* (1 - w)·old + w·new. */
static bounded average(const reference *k, double old, bounded value)
{
    long double w =
        k->cfg.momentum < 0 ? 1 / (long double)k->tracked : (long double)k->cfg.momentum;
    bounded a = {(1 - w) * (long double)old + w * value.v, 0};
    a.e = rounding(k) * fabsl(a.v) + w * value.e +
          4 * D * (fabsl((long double)old) + fabsl(w * value.v));
    a.e *= SECOND;
    return a;
}

/* Unbiased variance, and the mean, of samples [from, to). */
static void track(const reference *k, int64_t from, int64_t to, const ref_channel *ch,
                  bounded *mean, bounded *var)
{
    long double n = (long double)((to - from) * k->s);
    *mean = (bounded){ch->mean, mean_of_one_part_e(ch)};
    *var = (bounded){ch->var * n / (n - 1), n / (n - 1) * (ch->var_e + 3 * D * ch->var)};
}

static void running(reference *k, int64_t i)
{
    bounded mean = {0, 0}, var = {0, 0}, one_mean, one_var;
    int64_t from, to, count = norm_batches(k);
    if (k->cfg.running == SBN_RUNNING_WHOLE_BATCH) {
        /* slices do not cross norm batches, so none is longer than one of them */
        int64_t rows = k->n < SBN_SLICE ? k->n : SBN_SLICE;
        ref_channel all = {0};
        moments(k, 0, k->n, i, rows, &all);
        track(k, 0, k->n, &all, &mean, &var);
    } else {
        for (int64_t g = 0; reference_norm_batch(k, g, &from, &to); g++) {
            long double part = (long double)(to - from) / (long double)k->n,
                        sums = (long double)(count + 2) * D;
            track(k, from, to, &k->channels[g * k->c + i], &one_mean, &one_var);
            mean.v += part * one_mean.v;
            mean.e += part * (one_mean.e + sums * fabsl(one_mean.v));
            var.v += part * one_var.v;
            var.e += part * (one_var.e + sums * one_var.v);
        }
    }
    k->running_mean[i] = average(k, k->mean[i], mean);
    k->running_var[i] = average(k, k->var[i], var);
}

void reference_forward(reference *k)
{
    int64_t from, to;
    for (int64_t g = 0; reference_norm_batch(k, g, &from, &to); g++)
        for (int64_t i = 0; i < k->c; i++) {
            ref_channel *ch = &k->channels[g * k->c + i];
            statistics(k, from, to, i, ch);
            forward_channel(k, from, to, i, ch);
        }
    if (k->constant || !k->mean || k->n == 0) return;
    for (int64_t i = 0; i < k->c; i++) running(k, i);
}

/* Σdy and Σdy·xhat of a norm batch, dy behind relu. */
static void sums(reference *k, int64_t from, int64_t to, int64_t i, ref_channel *ch)
{
    long double m = (long double)((to - from < SBN_SLICE ? to - from : SBN_SLICE) * k->s),
                size_dy = 0, off = 0;
    ch->sum_dy = ch->sum_dyx = ch->size_dyx = 0;
    for (int64_t row = from; row < to; row++)
        for (int64_t j = 0; j < k->s; j++) {
            int64_t at = place(k, row, i, j);
            long double g = k->dz[at].v, dev = deviation(k, ch, at);
            ch->sum_dy += g;
            ch->sum_dyx += g * dev * ch->rstd;
            size_dy += fabsl(g);
            ch->size_dyx += fabsl(g * dev) * ch->rstd;
            off += fabsl(g) * deviation_e(k, ch, dev) * ch->rstd;
        }
    /* m additions in a slice; the products, and rstd on the slice's sum */
    ch->sum_dy_e = m * D * size_dy + GRID;
    ch->sum_dyx_e =
        off + (m + 2 + 2) * D * ch->size_dyx + ch->rstd_rel * ch->size_dyx + GRID;
}

/* dx = a·dy - b - k·(x - mean), with a, b, k rounded to the layer's type; or
 * a·dy - (b - k·mean) - k·x. */
static void backward_channel(reference *k, int64_t from, int64_t to, int64_t i,
                             const ref_channel *ch)
{
    long double u = rounding(k), n = (long double)((to - from) * k->s),
                gamma = k->gamma ? (long double)k->gamma[i] : 1;
    long double a = gamma * ch->rstd * ch->r, rel = ch->rstd_rel + ch->r_rel + 3 * D;
    bounded b = {0, 0}, c = {0, 0};
    if (!k->constant) {
        b.v = a * ch->sum_dy / n;
        b.e = fabsl(a) * ch->sum_dy_e / n + fabsl(b.v) * (u + rel + 2 * D);
        c.v = a * ch->rstd * ch->sum_dyx / n;
        c.e = fabsl(a) * ch->rstd * ch->sum_dyx_e / n +
              fabsl(c.v) * (u + rel + ch->rstd_rel + 3 * D);
        /* b - k·mean, the first difference and k·x are larger by k·mean each */
        b.e += 3 * (u + D) * fabsl(c.v) * left_in(k, ch);
    }
    for (int64_t row = from; row < to; row++)
        for (int64_t j = 0; j < k->s; j++) {
            int64_t at = place(k, row, i, j);
            long double g = k->dz[at].v, dev = deviation(k, ch, at);
            long double first = a * g - b.v, dx = first - c.v * dev;
            long double e = fabsl(a * g) * (2 * u + rel) + b.e + u * fabsl(first) +
                            c.e * fabsl(dev) + fabsl(c.v) * deviation_e(k, ch, dev) +
                            u * fabsl(c.v * dev) + u * fabsl(dx);
            k->dx[at] = stored(k, (bounded){dx, e});
        }
}

void reference_backward(reference *k, const uint8_t *open)
{
    int64_t from, to, count = norm_batches(k);
    long double u = rounding(k);
    for (int64_t e = 0; e < k->n * k->c * k->s; e++)
        k->dz[e].v = !open || open[e] ? (long double)k->dy[e] : 0;
    for (int64_t i = 0; i < k->c; i++) {
        bounded dgamma = {0, 0}, dbeta = {0, 0};
        long double size = 0;
        for (int64_t g = 0; reference_norm_batch(k, g, &from, &to); g++) {
            ref_channel *ch = &k->channels[g * k->c + i];
            sums(k, from, to, i, ch);
            backward_channel(k, from, to, i, ch);
            dbeta.v += ch->sum_dy;
            dbeta.e += ch->sum_dy_e;
            dgamma.v += ch->r * ch->sum_dyx + ch->d * ch->sum_dy;
            dgamma.e += ch->r * ch->sum_dyx_e + fabsl(ch->d) * ch->sum_dy_e +
                        ch->r * ch->r_rel * fabsl(ch->sum_dyx) +
                        ch->d_e * fabsl(ch->sum_dy);
            size += fabsl(ch->r * ch->sum_dyx) + fabsl(ch->d * ch->sum_dy);
        }
        dbeta.e = (dbeta.e + u * fabsl(dbeta.v)) * SECOND;
        dgamma.e += u * fabsl(dgamma.v) + (long double)(count + 3) * D * size;
        dgamma.e *= SECOND;
        k->dbeta[i] = dbeta;
        k->dgamma[i] = dgamma;
    }
}
