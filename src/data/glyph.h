/* The shapes of the ten digits as pen strokes. */
#ifndef SBNI_GLYPH_H
#define SBNI_GLYPH_H

#include <stdbool.h>
#include <stdint.h>

enum { SBNI_STROKE_POINTS = 11, SBNI_GLYPH_STROKES = 3, SBNI_GLYPH_SHAPES = 3 };

/* The pen goes through these points: x to the right, y down, the digit fills -100 … 100
 * of the height. */
typedef struct sbni_stroke {
    int n;
    bool smooth; /* a curve through the points, else straight lines */
    int8_t at[SBNI_STROKE_POINTS][2];
} sbni_stroke;

typedef struct sbni_glyph {
    int n; /* strokes */
    sbni_stroke stroke[SBNI_GLYPH_STROKES];
} sbni_glyph;

typedef struct sbni_digit {
    int n; /* shapes */
    sbni_glyph shape[SBNI_GLYPH_SHAPES];
} sbni_digit;

extern const sbni_digit sbni_digits[10];

#endif
