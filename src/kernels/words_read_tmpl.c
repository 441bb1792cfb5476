#include "kernels/words_tmpl.h"

/* Numbers from words without wide integers: a value as the sum of three doubles, which
 * with a bound of what they lack tells its rounding in all but rare cases. Those are left
 * to comm/exact.c. */

/* All bits of a lane are set where the quick way does not hold. */
static const uint64_t sign_bit = UINT64_C(1) << 63;

/* Carry what does not fit SBNI_GRID_BITS bits to the next word: w[0 … count-2] become
 * digits of at most half the base. */
INLINE void carry(wu *w, const int count)
{
    const uint64_t half = UINT64_C(1) << (SBNI_GRID_BITS - 1);
    for (int k = 0; k + 1 < count; k++) {
        /* a signed shift: below the sign moved to where 0 is the least */
        wu up =
            ((w[k] + (sign_bit + half)) >> SBNI_GRID_BITS) - (sign_bit >> SBNI_GRID_BITS);
        w[k] -= up << SBNI_GRID_BITS;
        w[k + 1] += up;
    }
}

/* Sum v[0 … count-1], of which each is 0 or above all before it: the rounded sum goes to
 * the last, what each addition lost to the others. */
INLINE void cascade(wd *v, const int count)
{
    wd sum = v[0];
    for (int k = 1; k < count; k++) sum = quick_sum(v[k], sum, &v[k - 1]);
    v[count - 1] = sum;
}

/* A value as v[0] + v[1] + v[2], from the largest down; v[0] is v[0] + v[1] rounded. */
typedef struct triple {
    wd v[3];
} triple;

INLINE wd digit(wu w, const double magic)
{
    return (wd)(w + bits(magic)) - magic;
}

/* Room for three: beyond it the top word has more bits than a digit. */
INLINE void expect_digit(wu top, wu *wrong)
{
    const uint64_t most = UINT64_C(1) << (SBNI_GRID_BITS - 2);
    *wrong |= (top + most) & ~(2 * most - 1);
}

/* Of the words [from, end) of a value; below and above them are zeros. */
INLINE triple read_words(const uint64_t *words, int64_t stride, const int lsb,
                         const int from, const int end, wu *wrong)
{
    enum { MOST = SBNI_SQUARE_WORDS };
    const int count = end - from;
    wu w[MOST];
    wd f[MOST];
#pragma GCC unroll 8
    for (int k = 0; k < count; k++) w[k] = load_u(words + (from + k) * stride);
    carry(w, count);
    expect_digit(w[count - 1], wrong);
#pragma GCC unroll 8
    for (int k = 0; k < count; k++) f[k] = digit(w[k], MAGIC(lsb, from + k));
    cascade(f, count);
    cascade(f, count - 1);
    triple t;
    t.v[0] = quick_sum(f[count - 1], f[count - 2], &t.v[1]);
    t.v[2] = (wd){0};
#pragma GCC unroll 8
    for (int k = 0; k + 2 < count; k++) t.v[2] = f[k] + t.v[2];
    return t;
}

INLINE bool is_zero(const uint64_t *words, int64_t stride, int k)
{
    return !any(load_u(words + k * stride));
}

/* Of ordinary sums the last word is 0, of Σx the first, too. */
INLINE triple read_sum(const uint64_t *words, int64_t stride, wu *wrong)
{
    if (is_zero(words, stride, 3)) {
        wu more = {0};
        triple t = is_zero(words, stride, 0)
                       ? read_words(words, stride, SBNI_SUM_LSB, 1, 3, &more)
                       : read_words(words, stride, SBNI_SUM_LSB, 0, 3, &more);
        if (!any(more)) return t;
    }
    return read_words(words, stride, SBNI_SUM_LSB, 0, SBNI_SUM_WORDS, wrong);
}

INLINE triple read_square(const uint64_t *words, int64_t stride, wu *wrong)
{
    if (is_zero(words, stride, 0) && is_zero(words, stride, 4) &&
        is_zero(words, stride, 5)) {
        wu more = {0};
        triple t = read_words(words, stride, SBNI_SQUARE_LSB, 1, 4, &more);
        if (!any(more)) return t;
    }
    return read_words(words, stride, SBNI_SQUARE_LSB, 0, SBNI_SQUARE_WORDS, wrong);
}

/* Lanes where a + (b ± error) rounds to a, whatever the error. */
INLINE wu is_certain(wd a, wd b, wd error)
{
    return (wu)(a + (b + error) == a + (b - error));
}

/* The same for a sum: its third double can break a tie of the second. */
INLINE wu is_rounded(const triple *s)
{
    wd error = 2 * magnitude(s->v[2]) + 0x1p-50 * magnitude(s->v[1]);
    return is_certain(s->v[0], s->v[1], where((wu)(s->v[2] != 0), error));
}

/* n·Σx² − (Σx)² rounded, and the lanes where it is; 0 where it is not above noise. */
INLINE wd spread_of(const triple *s, const triple *t, wd n, wd noise, wu *certain)
{
    const wd *x = s->v;
    wd a = n * t->v[0], b = n * t->v[1], c = n * t->v[2], p = x[0] * x[0],
       q = 2 * x[0] * x[1], r = 2 * x[0] * x[2], xx = x[1] * x[1];
    wd l0, l1, l2, l3, l4, top, mid;
    top = two_sum(a, -p, &l0);
    mid = two_sum(l0, product_rest(n, t->v[0], a), &l1);
    mid = two_sum(mid, -product_rest(x[0], x[0], p), &l2);
    mid = two_sum(mid, b, &l3);
    mid = two_sum(mid, -q, &l4);
    wd b_rest = product_rest(n, t->v[1], b), q_rest = product_rest(2 * x[0], x[1], q);
    wd low = ((l1 + l2) + (l3 + l4)) + ((b_rest - q_rest) + ((c - r) - xx));
    /* a dozen roundings of the low terms, and products below them */
    wd error =
        ((magnitude(l1) + magnitude(l2)) + (magnitude(l3) + magnitude(l4))) +
        ((magnitude(b_rest) + magnitude(q_rest)) + ((magnitude(c) + magnitude(r)) + xx));
    wd rest, far;
    mid = two_sum(mid, low, &far);
    top = two_sum(top, mid, &rest);
    top = quick_sum(top, rest + far, &rest); /* exact where far is 0, so ties tell */
    error = 0x1p-48 * error + where((wu)(far != 0), 0x1p-50 * magnitude(rest));
    wu nothing =
        (wu)((magnitude(top) + (magnitude(rest) + error)) * (1 + 0x1p-40) <= noise);
    *certain = is_certain(top, rest, error) | nothing;
    return where(~nothing & (wu)(top > noise), top);
}

/* Store v of `width` channels. */
INLINE void put_w(wd v, int64_t width, double *to)
{
    if (width >= WIDE)
        memcpy(to, &v, sizeof v);
    else
        for (int64_t l = 0; l < width; l++) to[l] = v[l];
}

INLINE int64_t count_lanes(wu mask, int64_t width)
{
    int64_t count = 0;
    if (!any(mask)) return 0;
    for (int64_t l = 0; l < WIDE && l < width; l++) count += mask[l] != 0;
    return count;
}

/* The words of the last channels with zeros beside them. */
static __attribute__((noinline)) void copy_last(const uint64_t *words, int64_t stride,
                                                int64_t width, int count, uint64_t *copy)
{
    for (int k = 0; k < count; k++)
        store_u(copy + k * WIDE, load_first_u(words + k * stride, width));
}

/* Vectors of channels that are read in steps: what one waits for, others fill. */
enum { TOGETHER = 64 / WIDE };

/* Where the words of WIDE channels from i on lie; the last ones in a copy. */
INLINE const uint64_t *words_at(const uint64_t *words, int64_t i, int64_t c,
                                const int count, uint64_t *copy, int64_t *stride)
{
    if (c - i >= WIDE) return words + i;
    copy_last(words + i, *stride, c - i, count, copy);
    *stride = WIDE;
    return copy;
}

/* At most TOGETHER vectors. */
INLINE int64_t read_some(int64_t c, int64_t stride, const uint64_t *words, int64_t n,
                         int64_t slices, double *mean, double *mean_low, double *var)
{
    const double count = (double)n;
    const wd wn = count - (wd){0};
    triple sum[TOGETHER], square[TOGETHER];
    wu wrong[TOGETHER];
    int64_t left = 0, k = 0;
    for (int64_t i = 0; i < c; i += WIDE, k++) {
        uint64_t last[SBNI_SUM_WORDS * WIDE];
        int64_t step = stride;
        const uint64_t *from = words_at(words, i, c, SBNI_SUM_WORDS, last, &step);
        wrong[k] = (wu){0};
        sum[k] = read_sum(from, step, &wrong[k]);
    }
    k = 0;
    for (int64_t i = 0; i < c; i += WIDE, k++) {
        uint64_t last[SBNI_SQUARE_WORDS * WIDE];
        int64_t step = stride;
        const uint64_t *from = words_at(words + SBNI_SUM_WORDS * stride, i, c,
                                        SBNI_SQUARE_WORDS, last, &step);
        square[k] = read_square(from, step, &wrong[k]);
    }
    k = 0;
    for (int64_t i = 0; i < c; i += WIDE, k++) {
        const wd *s = sum[k].v;
        wd quotient = s[0] / count, back = quotient * count;
        wd rest = (s[0] - back) - product_rest(quotient, wn, back);
        rest = (rest + (s[1] + s[2])) / count;
        wd m = quotient + rest;
        put_w(m, c - i, mean + i);
        put_w(rest - (m - quotient), c - i, mean_low + i);
    }
    k = 0;
    for (int64_t i = 0; i < c; i += WIDE, k++) {
        wu certain;
        wd noise =
            (double)slices * (1.5 * count * UNIT(SBNI_SQUARE_LSB, 0) +
                              3.0 * magnitude(sum[k].v[0]) * UNIT(SBNI_SUM_LSB, 0));
        wd v = spread_of(&sum[k], &square[k], wn, noise, &certain) / count / count;
        wu unsure = (wu)(wrong[k] != 0) | ~(certain & is_rounded(&sum[k]));
        if (n >= INT64_C(1) << 53) unsure |= ~unsure;
        put_w((wd)((wu)v | (unsure & sign_bit)), c - i, var + i);
        left += count_lanes(unsure, c - i);
    }
    return left;
}

int64_t K(words_read_moments)(int64_t c, int64_t stride, const uint64_t *words, int64_t n,
                              int64_t slices, double *mean, double *mean_low, double *var)
{
    int64_t left = 0;
    for (int64_t i = 0, count; i < c; i += count) {
        count = c - i < TOGETHER * WIDE ? c - i : TOGETHER * WIDE;
        left += read_some(count, stride, words + i, n, slices, mean + i, mean_low + i,
                          var + i);
    }
    return left;
}

int64_t K(words_read_sums)(int64_t c, int64_t stride, const uint64_t *words, double *v)
{
    int64_t left = 0;
    for (int64_t i = 0; i < c; i += WIDE) {
        uint64_t last[SBNI_SUM_WORDS * WIDE];
        const uint64_t *from = words + i;
        int64_t step = stride;
        if (c - i < WIDE) {
            copy_last(from, stride, c - i, SBNI_SUM_WORDS, last);
            from = last;
            step = WIDE;
        }
        wu wrong = {0};
        triple s = read_sum(from, step, &wrong);
        wu unsure = (wu)(wrong != 0) | ~is_rounded(&s);
        put_w((wd)((wu)s.v[0] | unsure), c - i, v + i);
        left += count_lanes(unsure, c - i);
    }
    return left;
}
