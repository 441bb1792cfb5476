/*
 * Times oneDNN's batch normalization, training, forward and backward with scale and
 * shift: primitives and buffers are made once, so this is the library's bare time.
 *
 *   cc -O2 onednn_norm.c pairs.c -ldnnl -fopenmp -lm -o onednn_norm
 */
#include "pairs.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>

static void check(dnnl_status_t status, const char *call)
{
    if (status == dnnl_success) return;
    fprintf(stderr, "onednn_norm: %s gave status %d\n", call, (int)status);
    exit(70);
}
#define DO(call) check((call), #call)

enum { MOST_ARGS = 10 };
typedef struct pass {
    dnnl_primitive_t primitive;
    dnnl_stream_t stream;
    dnnl_exec_arg_t args[MOST_ARGS];
    int count;
} pass;

static void run(void *arg)
{
    pass *p = arg;
    DO(dnnl_primitive_execute(p->primitive, p->stream, p->count, p->args));
    DO(dnnl_stream_wait(p->stream));
}

static void give(pass *p, dnnl_engine_t engine, int which, const dnnl_memory_desc_t *desc,
                 void *data)
{
    p->args[p->count].arg = which;
    DO(dnnl_memory_create(&p->args[p->count++].memory, desc, engine, data));
}

static dnnl_memory_desc_t describe(const batch *b)
{
    static const dnnl_format_tag_t tags[LAYOUTS] = {[NCHW] = dnnl_nchw,
                                                    [NHWC] = dnnl_nhwc,
                                                    [NC] = dnnl_nc,
                                                    [BLOCKED16] = dnnl_nChw16c};
    dnnl_dims_t dims = {b->s.n, b->s.c, b->s.h, b->s.w};
    dnnl_memory_desc_t desc;
    DO(dnnl_memory_desc_init_by_tag(&desc, b->in == NC ? 2 : 4, dims, dnnl_f32,
                                    tags[b->in]));
    return desc;
}

/* Adds the buffers and makes the primitive; `hint` is the forward one's, for backward. */
static dnnl_primitive_desc_t pass_make(pass *p, dnnl_engine_t engine, const batch *b,
                                       bool backward, dnnl_primitive_desc_t hint)
{
    const unsigned flags = dnnl_use_scale | dnnl_use_shift;
    dnnl_memory_desc_t data = describe(b), channel;
    dnnl_dims_t c = {b->s.c};
    DO(dnnl_memory_desc_init_by_tag(&channel, 1, c, dnnl_f32, dnnl_a));
    dnnl_batch_normalization_desc_t desc;
    if (backward)
        DO(dnnl_batch_normalization_backward_desc_init(&desc, dnnl_backward, &data, &data,
                                                       1e-5f, flags));
    else
        DO(dnnl_batch_normalization_forward_desc_init(&desc, dnnl_forward_training, &data,
                                                      1e-5f, flags));
    dnnl_primitive_desc_t made;
    DO(dnnl_primitive_desc_create(&made, &desc, NULL, engine, hint));
    DO(dnnl_primitive_create(&p->primitive, made));
    DO(dnnl_stream_create(&p->stream, engine, dnnl_stream_default_flags));
    give(p, engine, DNNL_ARG_SRC, &data, b->x);
    give(p, engine, DNNL_ARG_MEAN, &channel, b->mean);
    give(p, engine, DNNL_ARG_VARIANCE, &channel, b->var);
    give(p, engine, DNNL_ARG_SCALE, &channel, b->gamma);
    give(p, engine, DNNL_ARG_SHIFT, &channel, b->beta);
    if (backward) {
        give(p, engine, DNNL_ARG_DIFF_DST, &data, b->dy);
        give(p, engine, DNNL_ARG_DIFF_SRC, &data, b->dx);
        give(p, engine, DNNL_ARG_DIFF_SCALE, &channel, b->dgamma);
        give(p, engine, DNNL_ARG_DIFF_SHIFT, &channel, b->dbeta);
    } else {
        give(p, engine, DNNL_ARG_DST, &data, b->y);
    }
    return made;
}

static void pass_free(pass *p)
{
    for (int i = 0; i < p->count; i++) DO(dnnl_memory_destroy(p->args[i].memory));
    DO(dnnl_stream_destroy(p->stream));
    DO(dnnl_primitive_destroy(p->primitive));
}

static void measure(dnnl_engine_t engine, const wishes *w, shape s, layout in)
{
    const dnnl_version_t *v = dnnl_version();
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", v->major, v->minor, v->patch);
    batch b = batch_make(s, in);
    pass forward = {0}, backward = {0};
    dnnl_primitive_desc_t hint = pass_make(&forward, engine, &b, false, NULL);
    run(&forward);
    batch_check(&b, "oneDNN", false);
    if (w->passes[0]) pairs_print(&b, w, "onednn", version, false, run, &forward);
    if (w->passes[1]) {
        dnnl_primitive_desc_t made = pass_make(&backward, engine, &b, true, hint);
        run(&backward);
        batch_check(&b, "oneDNN", true);
        pairs_print(&b, w, "onednn", version, true, run, &backward);
        DO(dnnl_primitive_desc_destroy(made));
        pass_free(&backward);
    }
    DO(dnnl_primitive_desc_destroy(hint));
    pass_free(&forward);
    batch_free(&b);
}

int main(int argc, char **argv)
{
    wishes w = wishes_read(argc, argv);
    omp_set_num_threads(w.threads);
    dnnl_engine_t engine;
    DO(dnnl_engine_create(&engine, dnnl_cpu, 0));
    for (int k = 0; k < w.shape_count; k++)
        for (layout in = 0; in < LAYOUTS; in++) {
            shape s = w.shapes[k];
            bool fits = in == NC ? s.flat : in == BLOCKED16 ? s.c % 16 == 0 : true;
            if (w.layouts[in] && fits) measure(engine, &w, s, in);
        }
    DO(dnnl_engine_destroy(engine));
}
