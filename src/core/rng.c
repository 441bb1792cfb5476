#include "core/rng.h"

#include <Random123/philox.h>
#include <math.h>

void sbni_rng_words(sbni_rng_key key, uint64_t index, uint32_t draw, uint32_t out[4])
{
    philox4x32_key_t k = {{(uint32_t)key.seed, (uint32_t)(key.seed >> 32)}};
    /* purpose fills the top 4 bits of the draw word: 16 purposes, 2^28 draws each */
    philox4x32_ctr_t c = {{(uint32_t)index, (uint32_t)(index >> 32), key.epoch,
                           ((uint32_t)key.purpose << 28) | (draw & 0x0fffffffu)}};
    philox4x32_ctr_t r = philox4x32(c, k);
    for (int i = 0; i < 4; i++) out[i] = r.v[i];
}

uint64_t sbni_rng_u64(sbni_rng_key key, uint64_t index, uint32_t draw)
{
    uint32_t w[4];
    sbni_rng_words(key, index, draw, w);
    return (uint64_t)w[0] << 32 | w[1];
}

double sbni_rng_uniform(sbni_rng_key key, uint64_t index, uint32_t draw)
{
    return (double)(sbni_rng_u64(key, index, draw) >> 11) * 0x1p-53;
}

double sbni_rng_normal(sbni_rng_key key, uint64_t index, uint32_t draw)
{
    uint32_t w[4];
    sbni_rng_words(key, index, draw, w);
    /* u in (0, 1], so that the logarithm is finite */
    double u = (double)(((uint64_t)w[0] << 21 ^ w[1] >> 11) + 1) * 0x1p-53;
    double v = (double)((uint64_t)w[2] << 21 ^ w[3] >> 11) * 0x1p-53;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}
