#include "kernels/words_tmpl.h"

#include <float.h>

/* Sums of slices become words in a full way, or in quick ones with the same result. Those
 * know which words ordinary sums reach and that some remainders are 0, and note where
 * that was wrong; then what they did to a few slices is dropped and done in full. */

/* What a few slices add to the words of some channels. */
typedef struct bins {
    wu word[SBNI_MOMENT_WORDS];
    wu wrong; /* not 0: the quick way does not hold */
    wu fine;  /* sign bit set: the same */
} bins;

enum { SLICES = 32 }; /* done anew at most */

/* Below this many units nothing reaches the word above. */
#define REACH (UINT64_C(1) << (SBNI_GRID_BITS - 2))

/* Add v rounded to a word, whose magic the caller subtracts at last, and return what is
 * left. */
INLINE wd step(wd v, const double magic, wu *word)
{
    wd t = v + magic;
    *word += (wu)t;
    return v - (t - magic);
}

/* The first step of a part: it must not reach the word above. */
INLINE wd first(wd v, const double magic, wu *word, wu *wrong)
{
    wu at = (wu)(v + magic) - (bits(magic) - REACH);
    *wrong |= at & ~(2 * REACH - 1);
    return step(v, magic, word);
}

/* a + b is sum without rounding. */
INLINE void expect_exact(wd a, wd b, wd sum, wu *wrong)
{
    *wrong |= ((wu)(sum - a) ^ (wu)b) | ((wu)(sum - b) ^ (wu)a);
}

/* One way for all sums of a slice, MATH.md (2) and (3):
 *   Σx = D + m·p,  E = Σx + D,  Σx² = Q + p·E
 * each as its double, what that lacks, and what both lack. */
typedef struct parts {
    wd sum[3], square[3];
} parts;

INLINE parts all_parts(double m, wd p, wd d, wd dd)
{
    parts v;
    wd mm = m - (wd){0}, mp = p * mm + 0.0, mp_rest = product_rest(p, mm, mp);
    wd s, e, r1, r2, r3;
    v.sum[0] = two_sum(d, mp, &s);
    v.sum[1] = two_sum(s, mp_rest, &v.sum[2]);
    /* E = e + r1 + r2 + r3 */
    e = two_sum(v.sum[0], d, &r1);
    r1 = two_sum(r1, s, &r2);
    r1 = two_sum(r1, mp_rest, &r3);
    wd pe = p * e, pe_rest = product_rest(p, e, pe), pr = p * r1,
       pr_rest = product_rest(p, r1, pr);
    wd q, q1, q2;
    v.square[0] = two_sum(dd, pe, &q);
    q = two_sum(q, pe_rest, &q1);
    v.square[1] = two_sum(q, pr, &q2);
    v.square[2] = ((q1 + q2) + pr_rest) + p * (r2 + r3);
    return v;
}

/* Every word, at any size. Returns the flags. */
INLINE int full_moments(double m, wd p, wd d, wd dd, bins *b)
{
    const double sum_limit = UNIT(SBNI_SUM_LSB, SBNI_SUM_WORDS),
                 square_limit = UNIT(SBNI_SQUARE_LSB, SBNI_SQUARE_WORDS),
                 square_fine = UNIT(SBNI_SQUARE_LSB, 1);
    parts v = all_parts(m, p, d, dd);
    wu fits = (wu)(magnitude(v.sum[0]) < sum_limit) &
              (wu)(magnitude(v.square[0]) < square_limit);
    wu finite = (wu)(magnitude(p) <= DBL_MAX) & (wu)(magnitude(d) <= DBL_MAX);
    /* the spread about the pivot, or all of it where everything is tiny */
    wd mpp = m * p * p;
    wu fine = ((wu)(dd > 0) & (wu)(dd < square_fine)) |
              ((wu)(mpp > 0) & (wu)(mpp + dd < square_fine));
    for (int k = 0; k < 3; k++) {
        wd s = where(fits, v.sum[k]), q = where(fits, v.square[k]);
        s = step(s, SUM_MAGIC(3), &b->word[SUM_AT(3)]);
        s = step(s, SUM_MAGIC(2), &b->word[SUM_AT(2)]);
        s = step(s, SUM_MAGIC(1), &b->word[SUM_AT(1)]);
        step(s, SUM_MAGIC(0), &b->word[SUM_AT(0)]);
        q = step(q, SQUARE_MAGIC(5), &b->word[SQUARE_AT(5)]);
        q = step(q, SQUARE_MAGIC(4), &b->word[SQUARE_AT(4)]);
        q = step(q, SQUARE_MAGIC(3), &b->word[SQUARE_AT(3)]);
        q = step(q, SQUARE_MAGIC(2), &b->word[SQUARE_AT(2)]);
        q = step(q, SQUARE_MAGIC(1), &b->word[SQUARE_AT(1)]);
        step(q, SQUARE_MAGIC(0), &b->word[SQUARE_AT(0)]);
    }
    return (any(~finite) ? SBNI_GRID_NONFINITE : 0) |
           (any(finite & ~fits) ? SBNI_GRID_TOO_LARGE : 0) |
           (any(fine) ? SBNI_GRID_TOO_FINE : 0);
}

/* Nothing, or enough for the second word; size is not negative. */
INLINE void expect_not_fine(wd size, const double finest, wu *fine)
{
    *fine |= ((wu)size - bits(finest)) & (0 - (wu)size);
}

#if SBNI_TYPE_F64
/* Sums of |Σx| < 2^18, Σx² < 2^28 that end above 2^-90. */
static const int quick_steps[SBNI_MOMENT_WORDS] = {3, 2, 2, 0, 2, 3, 2, 1, 0, 0};
static const double quick_m = DBL_MAX;

INLINE void quick_moments(double m, wd p, wd d, wd dd, bins *b)
{
    parts v = all_parts(m, p, d, dd);
    wd s = first(v.sum[0], SUM_MAGIC(2), &b->word[SUM_AT(2)], &b->wrong);
    s = step(s, SUM_MAGIC(1), &b->word[SUM_AT(1)]);
    step(s, SUM_MAGIC(0), &b->word[SUM_AT(0)]);
    s = first(v.sum[1], SUM_MAGIC(2), &b->word[SUM_AT(2)], &b->wrong);
    s = step(s, SUM_MAGIC(1), &b->word[SUM_AT(1)]);
    step(s, SUM_MAGIC(0), &b->word[SUM_AT(0)]);
    first(v.sum[2], SUM_MAGIC(0), &b->word[SUM_AT(0)], &b->wrong);

    wd q = first(v.square[0], SQUARE_MAGIC(3), &b->word[SQUARE_AT(3)], &b->wrong);
    q = step(q, SQUARE_MAGIC(2), &b->word[SQUARE_AT(2)]);
    b->wrong |= (wu)step(q, SQUARE_MAGIC(1), &b->word[SQUARE_AT(1)]);
    q = first(v.square[1], SQUARE_MAGIC(2), &b->word[SQUARE_AT(2)], &b->wrong);
    q = step(q, SQUARE_MAGIC(1), &b->word[SQUARE_AT(1)]);
    step(q, SQUARE_MAGIC(0), &b->word[SQUARE_AT(0)]);
    q = first(v.square[2], SQUARE_MAGIC(1), &b->word[SQUARE_AT(1)], &b->wrong);
    step(q, SQUARE_MAGIC(0), &b->word[SQUARE_AT(0)]);
    expect_not_fine(dd, UNIT(SBNI_SQUARE_LSB, 1), &b->fine);
}
#else
/* The same where moreover D, m·p, Σx, E and 53 bits more than Σx² has suffice, as sums of
 * floats of ordinary sizes do. m·p is then exact, p being a float. */
static const int quick_steps[SBNI_MOMENT_WORDS] = {0, 1, 1, 0, 1, 2, 2, 1, 0, 0};
static const double quick_m = 0x1p29;

INLINE void quick_moments(double m, wd p, wd d, wd dd, bins *b)
{
    wd mp = p * m + 0.0, sum = d + mp, e = sum + d;
    expect_exact(d, mp, sum, &b->wrong);
    expect_exact(sum, d, e, &b->wrong);
    wd pe = p * e, pe_rest = product_rest(p, e, pe), rest;
    wd square = two_sum(dd, pe, &rest), low = rest + pe_rest;
    expect_exact(rest, pe_rest, low, &b->wrong);

    wd s = first(sum, SUM_MAGIC(2), &b->word[SUM_AT(2)], &b->wrong);
    b->wrong |= (wu)step(s, SUM_MAGIC(1), &b->word[SUM_AT(1)]);
    wd q = first(square, SQUARE_MAGIC(3), &b->word[SQUARE_AT(3)], &b->wrong);
    q = step(q, SQUARE_MAGIC(2), &b->word[SQUARE_AT(2)]);
    b->wrong |= (wu)step(q, SQUARE_MAGIC(1), &b->word[SQUARE_AT(1)]);
    q = first(low, SQUARE_MAGIC(2), &b->word[SQUARE_AT(2)], &b->wrong);
    q = step(q, SQUARE_MAGIC(1), &b->word[SQUARE_AT(1)]);
    step(q, SQUARE_MAGIC(0), &b->word[SQUARE_AT(0)]);
    expect_not_fine(dd, UNIT(SBNI_SQUARE_LSB, 1), &b->fine);
}
#endif

/* The same of sums about p = 0: Σx = D, Σx² = Q. Of a Q that is too fine a remainder is
 * left. */
static const int plain_steps[SBNI_MOMENT_WORDS] = {0, 1, 1, 0, 0, 1, 1, 1, 0, 0};

INLINE void plain_moments(wd p, wd d, wd dd, bins *b)
{
    b->wrong |= (wu)p;
    wd s = first(d, SUM_MAGIC(2), &b->word[SUM_AT(2)], &b->wrong);
    b->wrong |= (wu)step(s, SUM_MAGIC(1), &b->word[SUM_AT(1)]);
    wd q = first(dd, SQUARE_MAGIC(3), &b->word[SQUARE_AT(3)], &b->wrong);
    q = step(q, SQUARE_MAGIC(2), &b->word[SQUARE_AT(2)]);
    b->wrong |= (wu)step(q, SQUARE_MAGIC(1), &b->word[SQUARE_AT(1)]);
}

/* Move bins to words of WIDE channels. The magics wrap away with the rest. */
INLINE void flush(const bins *b, uint64_t slices, const int *steps, int from, int to,
                  int lsb, int64_t stride, uint64_t *words)
{
    for (int k = from; k < to; k++) {
        if (!steps[k]) continue;
        uint64_t magics = slices * (uint64_t)steps[k] * bits(MAGIC(lsb, k - from));
        uint64_t *at = words + k * stride;
        store_u(at, load_u(at) + b->word[k] - magics);
    }
}

INLINE void flush_moments(const bins *b, int64_t slices, const int *steps, int64_t stride,
                          uint64_t *words)
{
    enum { SQUARES = SBNI_SUM_WORDS };
    flush(b, (uint64_t)slices, steps, 0, SQUARES, SBNI_SUM_LSB, stride, words);
    flush(b, (uint64_t)slices, steps, SQUARES, SBNI_MOMENT_WORDS, SBNI_SQUARE_LSB, stride,
          words);
}

/* Sums of WIDE channels. */
typedef struct sums {
    const double *m, *pivot, *d, *dd;
    int64_t stride;
} sums;

static __attribute__((noinline)) int add_in_full(int64_t slices, const sums *in,
                                                 int64_t words_stride, uint64_t *words)
{
    static const int steps[SBNI_MOMENT_WORDS] = {3, 3, 3, 3, 3, 3, 3, 3, 3, 3};
    bins b = {0};
    int found = 0;
    for (int64_t k = 0; k < slices; k++) {
        int64_t at = k * in->stride;
        found |= full_moments(in->m[k], load_w(in->pivot + at), load_w(in->d + at),
                              load_w(in->dd + at), &b);
    }
    flush_moments(&b, slices, steps, words_stride, words);
    return found;
}

INLINE int add_some(int64_t slices, const sums *in, int64_t words_stride, uint64_t *words)
{
    bins b = {0};
    double most = 0;
    if (!any((wu)load_w(in->pivot))) {
        for (int64_t k = 0; k < slices; k++) {
            int64_t at = k * in->stride;
            plain_moments(load_w(in->pivot + at), load_w(in->d + at), load_w(in->dd + at),
                          &b);
        }
        if (!any(b.wrong)) {
            flush_moments(&b, slices, plain_steps, words_stride, words);
            return 0;
        }
        b = (bins){0};
    }
    for (int64_t k = 0; k < slices; k++) {
        int64_t at = k * in->stride;
        most = in->m[k] > most ? in->m[k] : most;
        quick_moments(in->m[k], load_w(in->pivot + at), load_w(in->d + at),
                      load_w(in->dd + at), &b);
    }
    if (any(b.wrong | b.fine >> 63) || !(most <= quick_m))
        return add_in_full(slices, in, words_stride, words);
    flush_moments(&b, slices, quick_steps, words_stride, words);
    return 0;
}

/* The last channels, fewer than WIDE, with zeros beside them. */
static __attribute__((noinline)) int
add_last(int64_t width, int64_t slices, const sums *in, int64_t stride, uint64_t *words)
{
    double p[SLICES * WIDE], d[SLICES * WIDE], dd[SLICES * WIDE];
    uint64_t out[SBNI_MOMENT_WORDS * WIDE] = {0};
    for (int64_t k = 0; k < slices; k++) {
        int64_t from = k * stride, to = k * WIDE;
        store_w(p + to, load_first_u(in->pivot + from, width));
        store_w(d + to, load_first_u(in->d + from, width));
        store_w(dd + to, load_first_u(in->dd + from, width));
    }
    sums copy = {in->m, p, d, dd, WIDE};
    int found = add_some(slices, &copy, WIDE, out);
    for (int w = 0; w < SBNI_MOMENT_WORDS; w++)
        add_first_u(words + w * stride, load_u(out + w * WIDE), width);
    return found;
}

int K(words_add_moments)(int64_t c, int64_t slices, int64_t stride, const double *m,
                         const double *pivot, const double *sum_d, const double *sum_dd,
                         uint64_t *words)
{
    int found = 0;
    for (int64_t k = 0; k < slices; k += SLICES) {
        int64_t count = slices - k < SLICES ? slices - k : SLICES, at = k * stride, i = 0;
        for (; i + WIDE <= c; i += WIDE) {
            sums in = {m + k, pivot + at + i, sum_d + at + i, sum_dd + at + i, stride};
            found |= add_some(count, &in, stride, words + i);
        }
        if (i == c) continue;
        sums in = {m + k, pivot + at + i, sum_d + at + i, sum_dd + at + i, stride};
        found |= add_last(c - i, count, &in, stride, words + i);
    }
    return found;
}

/* What is added of WIDE channels: v [slices][stride] times factor, unless that is NULL.
 */
typedef struct terms {
    const double *v, *factor;
    int64_t stride;
} terms;

INLINE wd term(const terms *in, int64_t k)
{
    wd v = load_w(in->v + k * in->stride);
    return in->factor ? v * load_w(in->factor) : v;
}

/* A value that does not fit adds nothing. */
static __attribute__((noinline)) int terms_in_full(int64_t slices, const terms *in,
                                                   int64_t stride, uint64_t *words)
{
    static const int steps[SBNI_SUM_WORDS] = {1, 1, 1, 1};
    const double limit = UNIT(SBNI_SUM_LSB, SBNI_SUM_WORDS),
                 finest = UNIT(SBNI_SUM_LSB, 1);
    bins b = {0};
    int found = 0;
    for (int64_t k = 0; k < slices; k++) {
        wd v = term(in, k), size = magnitude(v);
        wu fits = (wu)(size < limit), finite = (wu)(size <= DBL_MAX),
           fine = (wu)(size > 0) & (wu)(size < finest);
        v = where(fits, v);
        v = step(v, SUM_MAGIC(3), &b.word[3]);
        v = step(v, SUM_MAGIC(2), &b.word[2]);
        v = step(v, SUM_MAGIC(1), &b.word[1]);
        step(v, SUM_MAGIC(0), &b.word[0]);
        found |= (any(~finite) ? SBNI_GRID_NONFINITE : 0) |
                 (any(finite & ~fits) ? SBNI_GRID_TOO_LARGE : 0) |
                 (any(fine) ? SBNI_GRID_TOO_FINE : 0);
    }
    flush(&b, (uint64_t)slices, steps, 0, SBNI_SUM_WORDS, SBNI_SUM_LSB, stride, words);
    return found;
}

/* Ordinary ones do not reach the last word. */
INLINE int add_terms(int64_t slices, const terms *in, int64_t stride, uint64_t *words)
{
    static const int steps[SBNI_SUM_WORDS] = {1, 1, 1, 0};
    bins b = {0};
    for (int64_t k = 0; k < slices; k++) {
        wd v = term(in, k);
        expect_not_fine(magnitude(v), UNIT(SBNI_SUM_LSB, 1), &b.fine);
        v = first(v, SUM_MAGIC(2), &b.word[2], &b.wrong);
        v = step(v, SUM_MAGIC(1), &b.word[1]);
        step(v, SUM_MAGIC(0), &b.word[0]);
    }
    if (any(b.wrong | b.fine >> 63)) return terms_in_full(slices, in, stride, words);
    flush(&b, (uint64_t)slices, steps, 0, SBNI_SUM_WORDS, SBNI_SUM_LSB, stride, words);
    return 0;
}

/* As add_last. */
static __attribute__((noinline)) int add_last_terms(int64_t width, int64_t slices,
                                                    const terms *in, int64_t stride,
                                                    uint64_t *words)
{
    double v[SLICES * WIDE], factor[WIDE];
    uint64_t out[SBNI_SUM_WORDS * WIDE] = {0};
    for (int64_t k = 0; k < slices; k++)
        store_w(v + k * WIDE, load_first_u(in->v + k * in->stride, width));
    if (in->factor) store_w(factor, load_first_u(in->factor, width));
    terms copy = {v, in->factor ? factor : NULL, WIDE};
    int found = add_terms(slices, &copy, WIDE, out);
    for (int w = 0; w < SBNI_SUM_WORDS; w++)
        add_first_u(words + w * stride, load_u(out + w * WIDE), width);
    return found;
}

int K(words_add_sums)(int64_t c, int64_t slices, int64_t stride, const double *v,
                      const double *factor, uint64_t *words)
{
    int found = 0;
    for (int64_t k = 0; k < slices; k += SLICES) {
        int64_t count = slices - k < SLICES ? slices - k : SLICES, i = 0;
        for (; i < c; i += WIDE) {
            terms in = {v + k * stride + i, factor ? factor + i : NULL, stride};
            found |= i + WIDE <= c ? add_terms(count, &in, stride, words + i)
                                   : add_last_terms(c - i, count, &in, stride, words + i);
        }
    }
    return found;
}
