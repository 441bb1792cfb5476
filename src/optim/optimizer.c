#include <math.h>
#include <string.h>

#include "core/memory.h"
#include "kernels/kernels.h"
#include "syncbn/optim.h"

enum { STATES = 2 }; /* most arrays that a kind keeps for a tensor */

struct sbn_optimizer {
    sbn_optimizer_config cfg;
    const sbni_kernels *kernels;
    int n;
    sbn_optimizer_tensor *tensors;
    void *(*state)[STATES];
};

int sbn_optimizer_states(const sbn_optimizer *o)
{
    return o->cfg.kind == SBN_OPTIMIZER_SGD ? 1 : 2;
}

const char *sbn_optimizer_state_name(const sbn_optimizer *o, int k)
{
    static const char *const adam[] = {"exp_avg", "exp_avg_sq"};
    return o->cfg.kind == SBN_OPTIMIZER_SGD ? "velocity" : adam[k];
}

static sbn_status create(const sbn_optimizer_tensor *tensors, sbn_optimizer *o)
{
    SBN_TRY(sbni_alloc(o->n, sizeof *o->tensors, "optimizer", &o->tensors));
    SBN_TRY(sbni_alloc(o->n, sizeof *o->state, "optimizer", &o->state));
    for (int i = 0; i < o->n; i++) {
        o->tensors[i] = tensors[i];
        for (int k = 0; k < sbn_optimizer_states(o); k++)
            SBN_TRY(sbni_alloc(tensors[i].count, sbn_dtype_bytes(o->cfg.dtype),
                               "optimizer", &o->state[i][k]));
    }
    return SBN_OK;
}

static sbn_status check(const sbn_optimizer_config *cfg)
{
    SBN_CHECK(cfg->kind >= SBN_OPTIMIZER_SGD && cfg->kind <= SBN_OPTIMIZER_ADAMW,
              SBN_E_ARG, "unknown optimizer %d", (int)cfg->kind);
    SBN_CHECK(cfg->weight_decay >= 0 && isfinite(cfg->weight_decay), SBN_E_ARG,
              "expected weight decay >= 0, got %g", cfg->weight_decay);
    SBN_CHECK(cfg->dtype == SBN_F32 || cfg->dtype == SBN_F64, SBN_E_ARG,
              "unknown element type %d", (int)cfg->dtype);
    if (cfg->kind == SBN_OPTIMIZER_SGD) {
        SBN_CHECK(cfg->momentum >= 0 && cfg->momentum <= 1, SBN_E_ARG,
                  "expected momentum 0 to 1, got %g", cfg->momentum);
        return SBN_OK;
    }
    SBN_CHECK(cfg->beta1 >= 0 && cfg->beta1 < 1 && cfg->beta2 >= 0 && cfg->beta2 < 1,
              SBN_E_ARG, "expected beta1 and beta2 of 0 to below 1, got %g and %g",
              cfg->beta1, cfg->beta2);
    SBN_CHECK(cfg->eps > 0 && isfinite(cfg->eps), SBN_E_ARG,
              "expected Adam's eps above 0, got %g", cfg->eps);
    return SBN_OK;
}

sbn_status sbn_optimizer_create(const sbn_optimizer_config *cfg,
                                const sbn_optimizer_tensor *tensors, int n,
                                sbn_optimizer **optimizer)
{
    SBN_CHECK(cfg && optimizer && n >= 0 && (tensors || n == 0), SBN_E_ARG,
              "sbn_optimizer_create: expected settings, tensors and a place for the "
              "optimizer");
    *optimizer = NULL;
    SBN_TRY(check(cfg));
    SBN_TRY(sbni_alloc(1, sizeof **optimizer, "optimizer", optimizer));
    (*optimizer)->cfg = *cfg;
    (*optimizer)->kernels = sbni_kernels_get(cfg->dtype);
    (*optimizer)->n = n;
    sbn_status status = create(tensors, *optimizer);
    if (status != SBN_OK) sbn_optimizer_destroy(optimizer);
    return status;
}

void sbn_optimizer_destroy(sbn_optimizer **optimizer)
{
    if (!optimizer || !*optimizer) return;
    sbn_optimizer *o = *optimizer;
    for (int i = 0; o->state && i < o->n; i++)
        for (int k = 0; k < STATES; k++) sbni_free(o->state[i][k]);
    sbni_free(o->state);
    sbni_free(o->tensors);
    sbni_free(o);
    *optimizer = NULL;
}

void sbn_optimizer_step(sbn_optimizer *o, int64_t step, double lr)
{
    const sbn_optimizer_config *cfg = &o->cfg;
    double of_mean = 1 - pow(cfg->beta1, (double)step),
           of_square = sqrt(1 - pow(cfg->beta2, (double)step));
    for (int i = 0; i < o->n; i++) {
        const sbn_optimizer_tensor *t = &o->tensors[i];
        double decay = t->decays ? cfg->weight_decay : 0;
        bool apart = cfg->kind == SBN_OPTIMIZER_ADAMW;
        if (cfg->kind == SBN_OPTIMIZER_SGD)
            o->kernels->sgd(t->param, t->grad, o->state[i][0], t->count, lr,
                            cfg->momentum, decay, cfg->nesterov);
        else
            o->kernels->adam(t->param, t->grad, o->state[i][0], o->state[i][1], t->count,
                             cfg->beta1, cfg->beta2, cfg->eps, lr / of_mean, of_square,
                             apart ? 0 : decay, apart ? 1 - lr * decay : 1);
    }
}

void *sbn_optimizer_state(sbn_optimizer *o, int i, int k)
{
    return o->state[i][k];
}
