#include "data/augment.h"

#include <string.h>

#include "core/rng.h"

/* Uniform in -most … most, but for 2^-32 of it. */
static int64_t draw_offset(uint32_t word, int64_t most)
{
    return (int64_t)((uint64_t)word * (uint64_t)(2 * most + 1) >> 32) - most;
}

static void mirror(int64_t rows, int64_t w, float *x)
{
    for (int64_t r = 0; r < rows; r++, x += w)
        for (int64_t i = 0, j = w - 1; i < j; i++, j--) {
            float left = x[i];
            x[i] = x[j];
            x[j] = left;
        }
}

/* Move a plane right by dx and down by dy; rows are taken in the order that reads each
 * before it is written over. */
static void move(int64_t h, int64_t w, int64_t dx, int64_t dy, float *x)
{
    int64_t kept = w - (dx < 0 ? -dx : dx), gap = w - kept;
    for (int64_t k = 0; k < h; k++) {
        int64_t to = dy > 0 ? h - 1 - k : k, from = to - dy;
        float *row = x + to * w;
        if (from < 0 || from >= h) {
            memset(row, 0, (size_t)w * sizeof *row);
            continue;
        }
        memmove(row + (dx > 0 ? dx : 0), x + from * w + (dx < 0 ? -dx : 0),
                (size_t)kept * sizeof *row);
        memset(row + (dx > 0 ? 0 : kept), 0, (size_t)gap * sizeof *row);
    }
}

void sbni_augment_apply(const sbni_augment *augment, int64_t epoch, int64_t index,
                        const sbn_dataset_info *shape, float *x)
{
    if (!augment->flip && augment->shift == 0) return;
    sbni_rng_key key = {
        .seed = augment->seed, .purpose = SBNI_RNG_AUGMENT, .epoch = (uint32_t)epoch};
    uint32_t words[4];
    sbni_rng_words(key, (uint64_t)index, 0, words);
    if (augment->flip && words[0] >> 31) mirror(shape->c * shape->h, shape->w, x);
    int64_t dx = draw_offset(words[1], augment->shift),
            dy = draw_offset(words[2], augment->shift);
    if (dx == 0 && dy == 0) return;
    for (int64_t c = 0; c < shape->c; c++)
        move(shape->h, shape->w, dx, dy, x + c * shape->h * shape->w);
}
