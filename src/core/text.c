#include "core/text.h"

#include <stdio.h>
#include <stdlib.h>

void sbni_text_real(double value, char *text, int64_t bytes)
{
    /* %g drops trailing zeros, so 15 digits are also the shortest form of fewer */
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, (size_t)bytes, "%.*g", digits, value);
        if (strtod(text, NULL) == value) return;
    }
}
