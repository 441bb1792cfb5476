#include "data/shift.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "core/rng.h"
#include "core/text.h"
#include "data/idx.h"

static const struct {
    const char *word;
    double most;
} kinds[] = {[SBNI_SHIFT_CONTRAST] = {"contrast", 100},
             [SBNI_SHIFT_NOISE] = {"noise", 100},
             [SBNI_SHIFT_BLUR] = {"blur", SBNI_SHIFT_REACH / 4},
             [SBNI_SHIFT_INVERT] = {"invert", 1}};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* Weights of a Gaussian from its middle outwards; both sides add up to 1. */
static void fill_weights(sbni_shift_step *step)
{
    double sigma = step->amount, sum = 0;
    step->reach = (int)ceil(4 * sigma);
    for (int i = 0; i <= step->reach; i++) {
        step->weight[i] = i == 0 ? 1 : exp(-0.5 * (i / sigma) * (i / sigma));
        sum += (i == 0 ? 1 : 2) * step->weight[i];
    }
    for (int i = 0; i <= step->reach; i++) step->weight[i] /= sum;
}

static sbn_status parse_step(const char *text, size_t length, sbni_shift_step *step)
{
    size_t word = 0;
    int kind = 0;
    while (word < length && text[word] != ':') word++;
    while (kind < KINDS && (strlen(kinds[kind].word) != word ||
                            strncmp(kinds[kind].word, text, word) != 0))
        kind++;
    SBN_CHECK(kind < KINDS, SBN_E_ARG,
              "shift: expected contrast:X, noise:SIGMA, blur:SIGMA or invert:A, got "
              "\"%.*s\"",
              length < 40 ? (int)length : 40, text);
    const char *start = text + word + (word < length);
    bool number = word < length && strspn(start, ".0123456789") > 0;
    char *end = NULL;
    double amount = number ? sbni_text_to_real(start, &end) : 0;
    SBN_CHECK(number && end == text + length && amount >= 0 && amount <= kinds[kind].most,
              SBN_E_ARG,
              "shift: expected %s:AMOUNT with a number from 0 to %g, got \"%.*s\"",
              kinds[kind].word, kinds[kind].most, length < 40 ? (int)length : 40, text);
    step->kind = (sbni_shift_kind)kind;
    step->amount = amount;
    if (kind == SBNI_SHIFT_BLUR) fill_weights(step);
    return SBN_OK;
}

sbn_status sbni_shift_parse(const char *text, sbni_shift *shift)
{
    shift->n = 0;
    while (text) {
        size_t length = strcspn(text, ",");
        SBN_CHECK(shift->n < SBNI_SHIFT_STEPS, SBN_E_ARG,
                  "shift: expected at most %d changes, got more", SBNI_SHIFT_STEPS);
        SBN_TRY(parse_step(text, length, &shift->step[shift->n]));
        shift->n++;
        text = text[length] ? text + length + 1 : NULL;
    }
    return SBN_OK;
}

static float clip(double v)
{
    return (float)(v < 0 ? 0 : v > 1 ? 1 : v);
}

static void contrast(double amount, int64_t n, float *x)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i];
    double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) x[i] = clip(mean + amount * ((double)x[i] - mean));
}

static void noise(double amount, sbni_rng_key key, int64_t index, int64_t n, float *x)
{
    for (int64_t i = 0; i < n; i++) {
        double z = sbni_rng_normal(key, (uint64_t)index, (uint32_t)i);
        x[i] = clip((double)x[i] + amount * z);
    }
}

static void invert(double amount, int64_t n, float *x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = clip((double)x[i] + amount * (1 - 2 * (double)x[i]));
}

/* One row or column of n values, `stride` apart. */
static void blur_line(const sbni_shift_step *step, int64_t n, int64_t stride, float *x)
{
    double line[SBNI_IDX_MOST_SIDE];
    for (int64_t i = 0; i < n; i++) line[i] = (double)x[i * stride];
    for (int64_t i = 0; i < n; i++) {
        double sum = step->weight[0] * line[i];
        for (int64_t k = 1; k <= step->reach; k++) {
            double before = line[i < k ? 0 : i - k],
                   after = line[i + k < n ? i + k : n - 1];
            sum += step->weight[k] * (before + after);
        }
        x[i * stride] = clip(sum);
    }
}

static void blur(const sbni_shift_step *step, int64_t h, int64_t w, float *x)
{
    for (int64_t r = 0; r < h; r++) blur_line(step, w, 1, x + r * w);
    for (int64_t i = 0; i < w; i++) blur_line(step, h, w, x + i);
}

void sbni_shift_apply(const sbni_shift *shift, uint64_t seed, int64_t index,
                      const sbn_dataset_info *shape, float *x)
{
    const int64_t plane = shape->h * shape->w, image = shape->c * plane;
    for (int s = 0; s < shift->n; s++) {
        const sbni_shift_step *step = &shift->step[s];
        sbni_rng_key key = {
            .seed = seed, .purpose = SBNI_RNG_SHIFT, .epoch = (uint32_t)s};
        switch (step->kind) {
        case SBNI_SHIFT_CONTRAST:
            for (int64_t c = 0; c < shape->c; c++)
                contrast(step->amount, plane, x + c * plane);
            break;
        case SBNI_SHIFT_NOISE:
            noise(step->amount, key, index, image, x);
            break;
        case SBNI_SHIFT_BLUR:
            for (int64_t c = 0; c < shape->c; c++)
                blur(step, shape->h, shape->w, x + c * plane);
            break;
        case SBNI_SHIFT_INVERT:
            invert(step->amount, image, x);
            break;
        }
    }
}
