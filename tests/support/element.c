#include "support/element.h"

#include <math.h>
#include <string.h>

#include "support/harness.h"

double element(sbn_dtype dtype, const void *array, int64_t i)
{
    if (dtype == SBN_F64) return ((const double *)array)[i];
    if (dtype == SBN_F32) return (double)((const float *)array)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)array)[i] << 16;
    float v;
    memcpy(&v, &bits, sizeof v);
    return (double)v;
}

/* To the nearest bfloat16, ties to even, by trying its neighbours. */
static uint16_t nearest_half(double v)
{
    float f = (float)v, best = 0;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (v != v) return (uint16_t)(bits >> 16 | 0x40);
    uint16_t low = (uint16_t)(bits >> 16), found = low;
    for (int k = 0; k < 2; k++) {
        uint16_t half = (uint16_t)(low + k);
        float w = (float)element(SBN_BF16, &half, 0);
        if (k == 0 || fabs((double)w - (double)f) < fabs((double)best - (double)f) ||
            (fabs((double)w - (double)f) == fabs((double)best - (double)f) &&
             half % 2 == 0))
            best = w, found = half;
    }
    return found;
}

void set_element(sbn_dtype dtype, void *array, int64_t i, double v)
{
    if (dtype == SBN_F64)
        ((double *)array)[i] = v;
    else if (dtype == SBN_F32)
        ((float *)array)[i] = (float)v;
    else
        ((uint16_t *)array)[i] = nearest_half(v);
}

void same_bits(const void *a, const void *b, int64_t bytes)
{
    assert_memory_equal(a, b, (size_t)bytes);
}
