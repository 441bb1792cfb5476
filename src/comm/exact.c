#include "comm/exact.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

__extension__ typedef unsigned __int128 u128;

/* Magnitude and sign; limb[0] is the lowest. 512 bits hold n·Σx² aligned with (Σx)². */
enum { LIMBS = 8 };
typedef struct big {
    uint64_t limb[LIMBS];
    bool negative;
} big;

static void add_limb(big *a, int at, uint64_t v)
{
    for (; at < LIMBS && v; at++) {
        a->limb[at] += v;
        v = a->limb[at] < v;
    }
}

/* Carry each word's excess upward, make the top's sign the number's, and pack. */
static big big_from_words(const uint64_t *words, int64_t stride, int count)
{
    int64_t digit[SBNI_SQUARE_WORDS];
    const int64_t base = INT64_C(1) << SBNI_GRID_BITS;
    big a = {{0}, false};
    for (int pass = 0; pass < 2; pass++) {
        int64_t carry = 0;
        for (int k = 0; k < count; k++) {
            int64_t word = (int64_t)words[k * stride];
            /* |word| < 2^63 - 2^23, so neither the sign nor the carry overflows */
            int64_t v = (a.negative ? -word : word) + carry;
            if (k == count - 1) {
                digit[k] = v;
                break;
            }
            digit[k] = v & (base - 1);
            carry = (v - digit[k]) / base;
        }
        if (digit[count - 1] >= 0) break;
        a.negative = true; /* a negative top: negate and carry again */
    }
    for (int k = 0; k < count; k++) {
        int bit = k * SBNI_GRID_BITS, at = bit / 64, shift = bit % 64;
        uint64_t v = (uint64_t)digit[k];
        add_limb(&a, at, v << shift);
        if (shift) add_limb(&a, at + 1, v >> (64 - shift));
    }
    return a;
}

static int big_length(const big *a)
{
    int n = LIMBS;
    while (n > 0 && a->limb[n - 1] == 0) n--;
    return n;
}

/* |a|·|b|; the caller knows that it fits. */
static big big_multiply(const big *a, const big *b)
{
    big r = {{0}, a->negative != b->negative};
    int na = big_length(a), nb = big_length(b);
    for (int i = 0; i < na; i++) {
        uint64_t carry = 0;
        for (int j = 0; j < nb && i + j < LIMBS; j++) {
            u128 t = (u128)a->limb[i] * b->limb[j] + r.limb[i + j] + carry;
            r.limb[i + j] = (uint64_t)t;
            carry = (uint64_t)(t >> 64);
        }
        if (i + nb < LIMBS) r.limb[i + nb] = carry;
    }
    return r;
}

static big big_shift_left(const big *a, int by)
{
    big r = {{0}, a->negative};
    int limbs = by / 64, shift = by % 64;
    for (int i = LIMBS - 1; i >= limbs; i--) {
        r.limb[i] = a->limb[i - limbs] << shift;
        if (shift && i > limbs) r.limb[i] |= a->limb[i - limbs - 1] >> (64 - shift);
    }
    return r;
}

static int big_compare(const big *a, const big *b)
{
    for (int i = LIMBS - 1; i >= 0; i--)
        if (a->limb[i] != b->limb[i]) return a->limb[i] < b->limb[i] ? -1 : 1;
    return 0;
}

/* |a| - |b| with sign. */
static big big_subtract(const big *a, const big *b)
{
    bool less = big_compare(a, b) < 0;
    if (less) {
        const big *t = a;
        a = b;
        b = t;
    }
    big r = {{0}, less};
    uint64_t borrow = 0;
    for (int i = 0; i < LIMBS; i++) {
        u128 t = (u128)a->limb[i] - b->limb[i] - borrow;
        r.limb[i] = (uint64_t)t;
        borrow = (uint64_t)(t >> 64) & 1;
    }
    return r;
}

/* a·2^exponent rounded to double; the bits below the top 128 only decide ties, and are
 * kept as one. */
static double big_to_double(const big *a, int exponent)
{
    int n = big_length(a);
    if (n == 0) return 0.0;
    u128 top = a->limb[n - 1];
    int low = 64 * (n - 1);
    if (n > 1) {
        top = top << 64 | a->limb[n - 2];
        low -= 64;
        for (int i = 0; i < n - 2; i++) top |= a->limb[i] != 0;
    }
    double v = ldexp((double)top, exponent + low);
    return a->negative ? -v : v;
}

/* a - v·2^-exponent for v that came from a: what rounding cut off. */
static double big_rest(const big *a, double v, int exponent)
{
    int e;
    double m = frexp(fabs(v), &e); /* |v| = m·2^e, 53 bits */
    if (m == 0) return 0.0;
    big b = {{(uint64_t)ldexp(m, 53)}, false};
    int shift = e - 53 - exponent;
    if (shift < 0) return 0.0; /* a has fewer than 53 bits: nothing was cut off */
    b = big_shift_left(&b, shift);
    big r = big_subtract(a, &b);
    r.negative ^= a->negative;
    return big_to_double(&r, exponent);
}

sbni_moments sbni_exact_moments(const uint64_t *words, int64_t stride, int64_t n,
                                int64_t slices)
{
    sbni_moments m;
    big sum = big_from_words(words, stride, SBNI_SUM_WORDS);
    big squares =
        big_from_words(words + SBNI_SUM_WORDS * stride, stride, SBNI_SQUARE_WORDS);

    double high = big_to_double(&sum, SBNI_SUM_LSB),
           low = big_rest(&sum, high, SBNI_SUM_LSB);
    double count = (double)n;
    /* the quotient of the rounded sum, what that lacks, and both parts summed anew: so
     * the mean alone is rounded once, and of a constant channel it is the constant */
    double quotient = high / count, rest = (fma(-quotient, count, high) + low) / count;
    m.mean = quotient + rest;
    m.mean_low = rest - (m.mean - quotient);

    big count_big = {{(uint64_t)n}, false};
    big left = big_multiply(&squares, &count_big), right = big_multiply(&sum, &sum);
    left = big_shift_left(&left, SBNI_SQUARE_LSB - 2 * SBNI_SUM_LSB);
    big spread = big_subtract(&left, &right);
    double v = big_to_double(&spread, 2 * SBNI_SUM_LSB);
    /* each slice rounds up to 3 parts of Σx and of Σx² by half a grid unit */
    double noise = (double)slices * (1.5 * count * ldexp(1, SBNI_SQUARE_LSB) +
                                     3.0 * fabs(high) * ldexp(1, SBNI_SUM_LSB));
    /* divided twice: n² may not fit 53 bits */
    m.var = v > noise ? v / count / count : 0.0;
    return m;
}

double sbni_exact_sum(const uint64_t *words, int64_t stride)
{
    big sum = big_from_words(words, stride, SBNI_SUM_WORDS);
    return big_to_double(&sum, SBNI_SUM_LSB);
}

int sbni_exact_add(double v, uint64_t *words)
{
    if (!(fabs(v) < ldexp(1, SBNI_SUM_LSB + SBNI_GRID_BITS * SBNI_SUM_WORDS)))
        return isfinite(v) ? SBNI_GRID_TOO_LARGE : SBNI_GRID_NONFINITE;
    for (int k = SBNI_SUM_WORDS - 1; k >= 0; k--) {
        int unit = SBNI_SUM_LSB + SBNI_GRID_BITS * k;
        double r = nearbyint(ldexp(v, -unit));
        words[k] += (uint64_t)(int64_t)r;
        v -= ldexp(r, unit);
    }
    return 0;
}
