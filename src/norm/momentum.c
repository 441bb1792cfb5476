#include <math.h>

#include "syncbn/norm.h"

double sbn_momentum_from(double value, sbn_momentum_convention convention)
{
    /* 2 as the weight of the old value must not become -1, which says "cumulative" */
    if (!(value >= 0 && value <= 1)) return NAN;
    if (convention == SBN_MOMENTUM_OF_NEW) return value;
    if (convention != SBN_MOMENTUM_OF_OLD) return NAN;
    /* 1 - 0.9 is 0.09999999999999998: the decimal number that was meant is near */
    return round((1 - value) * 1e15) / 1e15;
}
