#include <limits.h>
#include <stdint.h>
#include <stdio.h>

#include "cli/startup.h"
#include "core/grid.h"
#include "norm/scope.h"
#include "version.h"

const char *sbni_build_version(void)
{
    return SBNI_VERSION " (" SBNI_REVISION ")";
}

const char *sbni_build_words(void)
{
    static char text[128];
    const uint16_t one = 1;
    snprintf(text, sizeof text,
             "int %d, long %d, pointer %d, long double %d bytes, %s-endian, slices of "
             "%d, sums of %d words",
             (int)sizeof(int), (int)sizeof(long), (int)sizeof(void *),
             (int)sizeof(long double), *(const unsigned char *)&one ? "little" : "big",
             SBN_SLICE, SBNI_SUM_WORDS);
    return text;
}
