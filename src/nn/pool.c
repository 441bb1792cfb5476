#include "nn/layer.h"

static sbn_status check_window(int64_t k, sbni_image in)
{
    SBN_CHECK(k <= in.h && k <= in.w, SBN_E_DATA,
              "window %d is larger than its input of %dx%d", (int)k, (int)in.h,
              (int)in.w);
    return SBN_OK;
}

static sbn_status pool_shape(const sbni_layer_spec *spec, sbni_image in, sbni_image *out)
{
    int64_t k = spec->kernel;
    SBN_TRY(check_window(k, in));
    SBN_CHECK(k <= 15, SBN_E_DATA, "expected a window up to 15, got %d", (int)k);
    *out = (sbni_image){in.c, in.h / k, in.w / k};
    return SBN_OK;
}

static void pool_forward(sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    const char *x = sbni_edge_y(m, layer->in, task);
    char *y = sbni_edge_y(m, layer->out, task);
    for (int64_t r = 0; r < task.slice.n; r++)
        m->kernels->maxpool(sbni_at(m, x, r * layer->in->count), layer->in->shape,
                            layer->spec.kernel, sbni_at(m, y, r * layer->out->count),
                            layer->argmax + (task.slice.row + r) * layer->out->count);
}

static void pool_backward(sbn_model *m, const sbni_layer *layer, sbni_task task, int what)
{
    (void)what;
    if (!layer->wants_dx) return;
    const char *dy = sbni_edge_dy(m, layer->out, task);
    char *dx = sbni_edge_dy(m, layer->in, task);
    for (int64_t r = 0; r < task.slice.n; r++)
        m->kernels->maxpool_backward(
            sbni_at(m, dy, r * layer->out->count),
            layer->argmax + (task.slice.row + r) * layer->out->count, layer->in->shape,
            layer->spec.kernel, sbni_at(m, dx, r * layer->in->count));
}

const sbni_layer_ops sbni_maxpool_ops = {
    .shape = pool_shape, .forward = pool_forward, .backward = pool_backward};

/* Rows and columns of a window. */
static int64_t window_h(const sbni_layer_spec *spec, sbni_image in)
{
    return spec->kernel ? spec->kernel : in.h;
}

static int64_t window_w(const sbni_layer_spec *spec, sbni_image in)
{
    return spec->kernel ? spec->kernel : in.w;
}

static sbn_status avgpool_shape(const sbni_layer_spec *spec, sbni_image in,
                                sbni_image *out)
{
    SBN_TRY(check_window(spec->kernel, in));
    *out = (sbni_image){in.c, in.h / window_h(spec, in), in.w / window_w(spec, in)};
    return SBN_OK;
}

static void avgpool_forward(sbn_model *m, const sbni_layer *layer, sbni_task task)
{
    sbni_image in = layer->in->shape;
    const char *x = sbni_edge_y(m, layer->in, task);
    char *y = sbni_edge_y(m, layer->out, task);
    for (int64_t r = 0; r < task.slice.n; r++)
        m->kernels->avgpool(sbni_at(m, x, r * layer->in->count), in,
                            window_h(&layer->spec, in), window_w(&layer->spec, in),
                            sbni_at(m, y, r * layer->out->count));
}

static void avgpool_backward(sbn_model *m, const sbni_layer *layer, sbni_task task,
                             int what)
{
    (void)what;
    if (!layer->wants_dx) return;
    sbni_image in = layer->in->shape;
    const char *dy = sbni_edge_dy(m, layer->out, task);
    char *dx = sbni_edge_dy(m, layer->in, task);
    for (int64_t r = 0; r < task.slice.n; r++)
        m->kernels->avgpool_backward(
            sbni_at(m, dy, r * layer->out->count), in, window_h(&layer->spec, in),
            window_w(&layer->spec, in), sbni_at(m, dx, r * layer->in->count));
}

const sbni_layer_ops sbni_avgpool_ops = {
    .shape = avgpool_shape, .forward = avgpool_forward, .backward = avgpool_backward};
