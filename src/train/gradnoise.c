#include "train/gradnoise.h"

#include "core/memory.h"

static int64_t count_of(const sbn_model *model)
{
    int n;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    int64_t count = 0;
    for (int i = 0; i < n; i++)
        if (t[i].grad) count += t[i].count;
    return count;
}

sbn_status sbni_gradnoise_create(const sbn_model *model, sbni_gradnoise *noise)
{
    *noise = (sbni_gradnoise){.count = count_of(model)};
    return sbni_alloc(noise->count, sizeof *noise->sum, "sums of gradients", &noise->sum);
}

void sbni_gradnoise_free(sbni_gradnoise *noise)
{
    sbni_free(noise->sum);
    *noise = (sbni_gradnoise){0};
}

void sbni_gradnoise_clear(sbni_gradnoise *noise)
{
    noise->squares = 0;
    noise->batches = 0;
}

void sbni_gradnoise_add(const sbn_model *model, sbni_gradnoise *noise)
{
    int n;
    const sbn_model_tensor *t = sbn_model_tensors(model, &n);
    bool wide = sbn_model_input_shape(model).dtype == SBN_F64, first = !noise->batches;
    double *sum = noise->sum;
    for (int i = 0; i < n; i++) {
        if (!t[i].grad) continue;
        for (int64_t k = 0; k < t[i].count; k++, sum++) {
            double g = wide ? ((const double *)t[i].grad)[k]
                            : (double)((const float *)t[i].grad)[k];
            *sum = first ? g : *sum + g;
            noise->squares += g * g;
        }
    }
    noise->batches++;
}

sbni_noise_scale sbni_gradnoise_read(const sbni_gradnoise *noise, int64_t b)
{
    double m = (double)noise->batches, small = noise->squares / m, big = 0;
    for (int64_t k = 0; k < noise->count; k++) big += noise->sum[k] * noise->sum[k];
    big /= m * m;
    /* with B = m·b */
    double grad_sq = (m * big - small) / (m - 1),
           trace = (small - big) * (double)b * m / (m - 1);
    return (sbni_noise_scale){b, noise->batches * b, grad_sq, trace, trace / grad_sq};
}
