#include "kernels/tmpl.h"

#include <float.h>
#include <math.h>

#include "core/grid.h"

/* Weight of word k; the compiler folds it. */
#define UNIT(lsb, k) __builtin_ldexp(1.0, (lsb) + SBNI_GRID_BITS * (k))

/* Round v/2^lsb' to an integer, add it to a word, return what is left of v. The rounding
 * constant puts the integer into the low bits, so this needs no conversion instruction.
 */
static inline double peel(double v, double unit, double inverse, uint64_t *word)
{
    double r = v * inverse + SBNI_GRID_ROUND;
    *word += bits(r) - bits(SBNI_GRID_ROUND);
    return v - (r - SBNI_GRID_ROUND) * unit;
}

/* Distribute v over the words of channel i; what is below the grid is rounded away. Step
 * by step, so that every unit is a constant: in a loop they would be calls of ldexp. */
_Static_assert(SBNI_SUM_WORDS == 4 && SBNI_SQUARE_WORDS == 6, "a step for each word");

#define STEP(lsb, k) v = peel(v, UNIT(lsb, k), UNIT(-(lsb), -(k)), words + (k)*c + i)

static inline void add_sum(double v, uint64_t *words, int64_t c, int64_t i)
{
    STEP(SBNI_SUM_LSB, 3);
    STEP(SBNI_SUM_LSB, 2);
    STEP(SBNI_SUM_LSB, 1);
    STEP(SBNI_SUM_LSB, 0);
}

static inline void add_square(double v, uint64_t *words, int64_t c, int64_t i)
{
    STEP(SBNI_SQUARE_LSB, 5);
    STEP(SBNI_SQUARE_LSB, 4);
    STEP(SBNI_SQUARE_LSB, 3);
    STEP(SBNI_SQUARE_LSB, 2);
    STEP(SBNI_SQUARE_LSB, 1);
    STEP(SBNI_SQUARE_LSB, 0);
}

static inline int finite_value(double v)
{
    return fabs(v) <= DBL_MAX;
}

static int add_moments(int64_t c, int64_t stride, double m, const double *pivot,
                       const double *sum_d, const double *sum_dd, uint64_t *words)
{
    const double sum_limit = UNIT(SBNI_SUM_LSB, SBNI_SUM_WORDS),
                 square_limit = UNIT(SBNI_SQUARE_LSB, SBNI_SQUARE_WORDS),
                 square_fine = UNIT(SBNI_SQUARE_LSB, 1);
    uint64_t *squares = words + SBNI_SUM_WORDS * stride;
    int found = 0;
    for (int64_t i = 0; i < c; i++) {
        double p = pivot[i], d = sum_d[i], dd = sum_dd[i];
        /* Σx = Σd + m·p */
        double mp = m * p, mp_low = fma(m, p, -mp);
        /* Σx² = Σd² + 2p·Σd + m·p², every product as a pair that is exact */
        double pd = 2 * p * d, pd_low = fma(2 * p, d, -pd);
        double pp = p * p, pp_low = fma(p, p, -pp);
        double mpp = m * pp, mpp_low = fma(m, pp, -mpp);
        int fits = (fabs(d) < sum_limit) & (fabs(mp) < sum_limit) & (dd < square_limit) &
                   (fabs(pd) < square_limit) & (mpp < square_limit);
        int finite = finite_value(p) & finite_value(d);
        if (!fits) d = dd = mp = mp_low = pd = pd_low = mpp = mpp_low = pp_low = 0;
        found |= !finite ? SBNI_GRID_NONFINITE : !fits ? SBNI_GRID_TOO_LARGE : 0;
        /* the spread about the pivot, or all of it where everything is tiny */
        int fine =
            ((dd > 0) & (dd < square_fine)) | ((mpp > 0) & (mpp + dd < square_fine));
        found |= fine ? SBNI_GRID_TOO_FINE : 0;
        add_sum(d, words, stride, i);
        add_sum(mp, words, stride, i);
        add_sum(mp_low, words, stride, i);
        add_square(dd, squares, stride, i);
        add_square(pd, squares, stride, i);
        add_square(pd_low, squares, stride, i);
        add_square(mpp, squares, stride, i);
#if SBNI_TYPE_F64
        /* p² has up to 106 bits, so m·p² needs a third part; with it a constant channel
         * leaves no remainder. The square of a float fits one double. */
        double rest = m * pp_low, rest_low = fma(m, pp_low, -rest);
        double top = mpp_low + rest, back = top - mpp_low;
        rest_low += (mpp_low - (top - back)) + (rest - back);
        add_square(rest_low, squares, stride, i);
        mpp_low = top;
#endif
        add_square(mpp_low, squares, stride, i);
    }
    return found;
}

int K(words_add_moments)(int64_t c, int64_t slices, int64_t stride, const double *m,
                         const double *pivot, const double *sum_d, const double *sum_dd,
                         uint64_t *words)
{
    int flags = 0;
    for (int64_t k = 0; k < slices; k++)
        flags |= add_moments(c, stride, m[k], pivot + k * stride, sum_d + k * stride,
                             sum_dd + k * stride, words);
    return flags;
}

static int add_sums(int64_t c, int64_t stride, const double *v, const double *factor,
                    uint64_t *words)
{
    const double limit = UNIT(SBNI_SUM_LSB, SBNI_SUM_WORDS),
                 finest = UNIT(SBNI_SUM_LSB, 1);
    int found = 0;
    for (int64_t i = 0; i < c; i++) {
        double a = factor ? v[i] * factor[i] : v[i];
        int fits = fabs(a) < limit;
        found |= !finite_value(a) ? SBNI_GRID_NONFINITE : !fits ? SBNI_GRID_TOO_LARGE : 0;
        found |= (a != 0) & (fabs(a) < finest) ? SBNI_GRID_TOO_FINE : 0;
        add_sum(fits ? a : 0, words, stride, i);
    }
    return found;
}

int K(words_add_sums)(int64_t c, int64_t slices, int64_t stride, const double *v,
                      const double *factor, uint64_t *words)
{
    int flags = 0;
    for (int64_t k = 0; k < slices; k++)
        flags |= add_sums(c, stride, v + k * stride, factor, words);
    return flags;
}
