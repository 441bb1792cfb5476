/*
 * The fixed binary grid on which sums are exact. A value is held by several int64 words
 * of which each carries SBNI_GRID_BITS bits of it:
 *
 *   value = 2^lsb · Σ_k word[k] · 2^(SBNI_GRID_BITS·k)
 *
 * The bits above leave room for SBNI_GRID_ADDS additions, so words add without carries,
 * in any order and by any algorithm, with the same result.
 */
#ifndef SBNI_GRID_H
#define SBNI_GRID_H

enum {
    SBNI_GRID_BITS = 40,

    /* Σx, Σdy, Σdy·xhat, losses: resolution 2^-100, parts and slices below 2^60 */
    SBNI_SUM_WORDS = 4,
    SBNI_SUM_LSB = -100,

    /* Σx²: resolution 2^-130, slices below 2^110 */
    SBNI_SQUARE_WORDS = 6,
    SBNI_SQUARE_LSB = -130,

    SBNI_MOMENT_WORDS = SBNI_SUM_WORDS + SBNI_SQUARE_WORDS,

    /* Slices that may be added: each brings up to 3 parts of at most 2^40 to a word, so
     * half of its range stays free. */
    SBNI_GRID_ADDS = 1 << 20
};

/* What a conversion to the grid found; the flags of a message. Too fine: not zero, but
 * below the second word, so that rounding to the grid cuts into its leading bits. */
enum { SBNI_GRID_NONFINITE = 1, SBNI_GRID_TOO_LARGE = 2, SBNI_GRID_TOO_FINE = 4 };

/* Adding and subtracting this rounds |v| < 2^51 to an integer, and leaves it in the low
 * bits. */
#define SBNI_GRID_ROUND 0x1.8p52

#endif
