#include <math.h>
#include <string.h>

#include "core/memory.h"
#include "kernels/kernels.h"
#include "syncbn/optim.h"

struct sbn_sgd {
    sbn_sgd_config cfg;
    const sbni_kernels *kernels;
    int n;
    sbn_sgd_tensor *tensors;
    void **velocity;
};

static sbn_status create(const sbn_sgd_tensor *tensors, sbn_sgd *s)
{
    SBN_TRY(sbni_alloc(s->n, sizeof *s->tensors, "optimizer", &s->tensors));
    SBN_TRY(sbni_alloc(s->n, sizeof *s->velocity, "optimizer", &s->velocity));
    for (int i = 0; i < s->n; i++) {
        s->tensors[i] = tensors[i];
        SBN_TRY(sbni_alloc(tensors[i].count, sbn_dtype_bytes(s->cfg.dtype), "optimizer",
                           &s->velocity[i]));
    }
    return SBN_OK;
}

sbn_status sbn_sgd_create(const sbn_sgd_config *cfg, const sbn_sgd_tensor *tensors, int n,
                          sbn_sgd **sgd)
{
    SBN_CHECK(cfg && sgd && n >= 0 && (tensors || n == 0), SBN_E_ARG,
              "sbn_sgd_create: expected settings, tensors and a place for the optimizer");
    *sgd = NULL;
    SBN_CHECK(cfg->momentum >= 0 && cfg->momentum <= 1, SBN_E_ARG,
              "expected momentum 0 to 1, got %g", cfg->momentum);
    SBN_CHECK(cfg->weight_decay >= 0 && isfinite(cfg->weight_decay), SBN_E_ARG,
              "expected weight decay >= 0, got %g", cfg->weight_decay);
    SBN_CHECK(cfg->dtype == SBN_F32 || cfg->dtype == SBN_F64, SBN_E_ARG,
              "unknown element type %d", (int)cfg->dtype);
    SBN_TRY(sbni_alloc(1, sizeof **sgd, "optimizer", sgd));
    (*sgd)->cfg = *cfg;
    (*sgd)->kernels = sbni_kernels_get(cfg->dtype);
    (*sgd)->n = n;
    sbn_status status = create(tensors, *sgd);
    if (status != SBN_OK) sbn_sgd_destroy(sgd);
    return status;
}

void sbn_sgd_destroy(sbn_sgd **sgd)
{
    if (!sgd || !*sgd) return;
    for (int i = 0; (*sgd)->velocity && i < (*sgd)->n; i++)
        sbni_free((*sgd)->velocity[i]);
    sbni_free((*sgd)->velocity);
    sbni_free((*sgd)->tensors);
    sbni_free(*sgd);
    *sgd = NULL;
}

void sbn_sgd_step(sbn_sgd *s, double lr)
{
    for (int i = 0; i < s->n; i++) {
        const sbn_sgd_tensor *t = &s->tensors[i];
        s->kernels->sgd(t->param, t->grad, s->velocity[i], t->count, lr, s->cfg.momentum,
                        t->decays ? s->cfg.weight_decay : 0, s->cfg.nesterov);
    }
}

void *sbn_sgd_velocity(sbn_sgd *s, int i)
{
    return s->velocity[i];
}
