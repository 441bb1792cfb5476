#include "nn/layer.h"

#include <math.h>
#include <string.h>

#include "core/rng.h"

/* Dropout: y = x/(1 - p) where the element is kept, else 0; the identity in evaluation.
 * An element is kept by a draw of its own, keyed by seed, step, layer, place of the
 * sample in the batch and place in the sample; one bit of it waits for backward. */

static void draw_mask(const sbn_model *m, const sbni_layer *layer, int64_t place,
                      uint8_t *kept)
{
    sbni_rng_key key = {m->cfg.seed, SBNI_RNG_DROPOUT, (uint32_t)m->step};
    uint32_t words[8], least = (uint32_t)ldexp(layer->spec.rate, 32);
    for (int64_t i = 0; i < sbni_mask_bytes(layer->out->count); i++) {
        uint64_t index = (uint64_t)place << 32 | (uint64_t)(2 * i);
        sbni_rng_words(key, index, (uint32_t)layer->draws, words);
        sbni_rng_words(key, index + 1, (uint32_t)layer->draws, words + 4);
        unsigned byte = 0;
        for (int k = 0; k < 8; k++) byte |= (unsigned)(words[k] >= least) << k;
        kept[i] = (uint8_t)byte;
    }
}

/* y of x, or dx of dy: rows of a slice. */
static void mask_rows(const sbn_model *m, const sbni_layer *layer, sbni_task task,
                      const void *from, void *to)
{
    int64_t count = layer->out->count, bytes = sbni_mask_bytes(count);
    for (int64_t r = 0; r < task.slice.n; r++)
        m->kernels->dropout(sbni_at(m, from, r * count),
                            layer->kept + (task.slice.row + r) * bytes, count,
                            1 / (1 - layer->spec.rate), sbni_at(m, to, r * count));
}

static void dropout_forward(sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    int64_t count = layer->out->count, bytes = sbni_mask_bytes(count);
    const void *x = sbni_edge_y(m, layer->in, task);
    void *y = sbni_edge_y(m, layer->out, task);
    if (!task.training) {
        if (x != y)
            memcpy(y, x, (size_t)(task.slice.n * count * sbn_dtype_bytes(m->cfg.dtype)));
        return;
    }
    for (int64_t r = task.slice.row; r < task.slice.row + task.slice.n; r++)
        draw_mask(m, layer, m->first + r, layer->kept + r * bytes);
    mask_rows(m, layer, task, x, y);
}

static void dropout_backward(sbn_model *m, const sbni_layer *layer, sbni_task task,
                             int what)
{
    (void)what;
    if (!layer->wants_dx) return;
    mask_rows(m, layer, task, sbni_edge_dy(m, layer->out, task),
              sbni_edge_dy(m, layer->in, task));
}

const sbni_layer_ops sbni_dropout_ops = {.elementwise = true,
                                         .shape = sbni_same_shape,
                                         .forward = dropout_forward,
                                         .backward = dropout_backward};
