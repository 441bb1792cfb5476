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

INLINE triple read_sum(const uint64_t *words, int64_t stride, wu *wrong)
{
    wu w[SBNI_SUM_WORDS];
    for (int k = 0; k < SBNI_SUM_WORDS; k++) w[k] = load_u(words + k * stride);
    carry(w, SBNI_SUM_WORDS);
    expect_digit(w[3], wrong);
    wd f[] = {digit(w[0], SUM_MAGIC(0)), digit(w[1], SUM_MAGIC(1)),
              digit(w[2], SUM_MAGIC(2)), digit(w[3], SUM_MAGIC(3))};
    cascade(f, 4);
    cascade(f, 3);
    triple t;
    t.v[0] = quick_sum(f[3], f[2], &t.v[1]);
    t.v[2] = f[1] + f[0];
    return t;
}

INLINE triple read_square(const uint64_t *words, int64_t stride, wu *wrong)
{
    wu w[SBNI_SQUARE_WORDS];
    for (int k = 0; k < SBNI_SQUARE_WORDS; k++) w[k] = load_u(words + k * stride);
    carry(w, SBNI_SQUARE_WORDS);
    expect_digit(w[5], wrong);
    wd f[] = {digit(w[0], SQUARE_MAGIC(0)), digit(w[1], SQUARE_MAGIC(1)),
              digit(w[2], SQUARE_MAGIC(2)), digit(w[3], SQUARE_MAGIC(3)),
              digit(w[4], SQUARE_MAGIC(4)), digit(w[5], SQUARE_MAGIC(5))};
    cascade(f, 6);
    cascade(f, 5);
    triple t;
    t.v[0] = quick_sum(f[5], f[4], &t.v[1]);
    t.v[2] = f[3] + (f[2] + (f[1] + f[0]));
    return t;
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

int64_t K(words_read_moments)(int64_t c, int64_t stride, const uint64_t *words, int64_t n,
                              int64_t slices, double *mean, double *mean_low, double *var)
{
    int64_t left = 0;
    const double count = (double)n;
    wd wn = count - (wd){0};
    for (int64_t i = 0; i < c; i += WIDE) {
        uint64_t last[SBNI_MOMENT_WORDS * WIDE];
        const uint64_t *from = words + i;
        int64_t step = stride;
        if (c - i < WIDE) {
            copy_last(from, stride, c - i, SBNI_MOMENT_WORDS, last);
            from = last;
            step = WIDE;
        }
        wu wrong = {0}, certain;
        triple s = read_sum(from, step, &wrong),
               t = read_square(from + SBNI_SUM_WORDS * step, step, &wrong);

        wd quotient = s.v[0] / count, back = quotient * count;
        wd rest = (s.v[0] - back) - product_rest(quotient, wn, back);
        rest = (rest + (s.v[1] + s.v[2])) / count;
        wd m = quotient + rest;
        put_w(m, c - i, mean + i);
        put_w(rest - (m - quotient), c - i, mean_low + i);

        wd noise = (double)slices * (1.5 * count * UNIT(SBNI_SQUARE_LSB, 0) +
                                     3.0 * magnitude(s.v[0]) * UNIT(SBNI_SUM_LSB, 0));
        wd v = spread_of(&s, &t, wn, noise, &certain) / count / count;
        wu unsure = (wu)(wrong != 0) | ~(certain & is_rounded(&s));
        if (n >= INT64_C(1) << 53) unsure |= ~unsure;
        put_w((wd)((wu)v | (unsure & sign_bit)), c - i, var + i);
        left += count_lanes(unsure, c - i);
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
