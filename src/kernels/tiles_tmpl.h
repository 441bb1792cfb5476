/*
 * The points at which tiles of convolutions are multiplied: 0, some pairs ±p, ∞; two
 * pairs where a side has six elements and three where it has eight. They lie around 1,
 * where their powers grow and shrink least (Barabasz et al. 2020, doi:10.1145/3412380),
 * and float holds them and all products of them here exactly.
 */
#ifndef SBNI_TILES_TMPL_H
#define SBNI_TILES_TMPL_H

#include <stdint.h>

enum { MOST_PAIRS = 3 };

/* Polynomials of x², from the constant on. */
typedef struct points {
    int pairs;
    double of[MOST_PAIRS];                /* p */
    double other[MOST_PAIRS][MOST_PAIRS]; /* Π(x² - q²) over the other pairs q */
    double all[MOST_PAIRS + 1];           /* Π(x² - p²) */
} points;

#define TWO(q, r)                                                                        \
    {                                                                                    \
        (q) * (q) * (r) * (r), -(q) * (q) - (r) * (r), 1                                 \
    }

#define PAIRS_2(p, q)                                                                    \
    {                                                                                    \
        2, {p, q}, {{-(q) * (q), 1}, {-(p) * (p), 1}}, TWO(p, q)                         \
    }

#define PAIRS_3(p, q, r)                                                                 \
    {                                                                                    \
        3, {p, q, r}, {TWO(q, r), TWO(p, r), TWO(p, q)},                                 \
        {                                                                                \
            -(p) * (p) * (q) * (q) * (r) * (r),                                          \
                (p) * (p) * (q) * (q) + (p) * (p) * (r) * (r) + (q) * (q) * (r) * (r),   \
                -(p) * (p) - (q) * (q) - (r) * (r), 1                                    \
        }                                                                                \
    }

static const points SIX = PAIRS_2(0.75, 1.5), EIGHT = PAIRS_3(0.5, 1.0, 2.0);

/* Elements of a side, and so many points. */
static inline __attribute__((always_inline)) int side_of(const points *at)
{
    return 2 * at->pairs + 2;
}

/* Those down a tile of a kernel, sbni_tile_height of them; across there are SIX. */
static inline __attribute__((always_inline)) const points *points_down(int64_t kernel)
{
    return kernel == 3 ? &SIX : &EIGHT;
}

#endif
