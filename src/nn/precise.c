#include <inttypes.h>

#include "nn/layer.h"
#include "norm/scope.h"

/* Precise statistics, norm layer by norm layer. */

/* Index of norm layer number `norm`, among those that track running statistics. */
static int find(const sbn_model *m, int norm)
{
    for (int i = 0; i < m->layer_count; i++)
        if (m->layers[i].norm && norm-- == 0) return i;
    return -1;
}

int sbn_model_norms(const sbn_model *m)
{
    int n = 0;
    while (find(m, n) >= 0) n++;
    return n;
}

static sbn_status find_checked(const sbn_model *m, int norm, int *layer)
{
    *layer = norm < 0 ? -1 : find(m, norm);
    SBN_CHECK(*layer >= 0, SBN_E_ARG, "expected norm layer 0 to %d, got %d",
              sbn_model_norms(m) - 1, norm);
    return SBN_OK;
}

sbn_status sbn_model_precise_begin(sbn_model *m, int norm)
{
    int i;
    SBN_TRY(find_checked(m, norm, &i));
    return sbn_norm_precise_begin(m->layers[i].norm);
}

sbn_status sbn_model_precise_add(sbn_model *m, int norm, int64_t n)
{
    int i;
    SBN_TRY(find_checked(m, norm, &i));
    SBN_CHECK(n >= 0 && n <= m->capacity, SBN_E_ARG,
              "expected 0 to %" PRId64 " samples, got %" PRId64, m->capacity, n);
    m->slice_count = sbni_scope_cut(0, n, SBN_NORM_BATCH_ALL, m->slices);
    SBN_TRY(sbni_model_forward(m, n, false, m->layers[i].run + 1));
    const sbni_edge *in = m->layers[i].in;
    sbn_tensor x =
        sbn_tensor_nchw(m->cfg.dtype, in->y, n, in->shape.c, in->shape.h, in->shape.w);
    return sbn_norm_precise_add(m->layers[i].norm, &x);
}

sbn_status sbn_model_precise_end(sbn_model *m, int norm)
{
    int i;
    SBN_TRY(find_checked(m, norm, &i));
    return sbn_norm_precise_end(m->layers[i].norm);
}
