/* Random layers, batches, masks, layouts, splits and orders of calls. Every process finds
 * the bits of one process that is given the samples kept, in plain memory; and what that
 * one finds lies within the roundings of the long double reference.
 *
 * SBN_TEST_SEED, SBN_TEST_CASES: which draws and how many. SBN_TEST_CASE: this one alone.
 */
#include "support/harness.h"
#include "support/duo.h"
#include "support/layer.h"
#include "support/reference.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

static double *doubles(const trial *t, const void *array)
{
    if (!array) return NULL;
    double *v = calloc((size_t)t->cfg.channels, sizeof *v);
    for (int64_t i = 0; i < t->cfg.channels; i++)
        v[i] = element(t->cfg.dtype == SBN_F64 ? SBN_F64 : SBN_F32, array, i);
    return v;
}

/* The reference's view of what the process alone is about to do. */
static reference *expect(const duo *d)
{
    const trial *t = d->t;
    const trial_step *k = &t->step[d->step];
    const trial_share *p = &d->alone.share;
    sbn_norm_state state = sbn_norm_get_state(d->alone.norm);
    int64_t skip = p->first * d->batch.c * d->batch.s;
    reference *r = calloc(1, sizeof *r);
    *r = (reference){.n = p->kept,
                     .c = d->batch.c,
                     .s = d->batch.s,
                     .x = d->batch.x + skip,
                     .z = k->add ? d->batch.z + skip : NULL,
                     .dy = d->batch.dy + skip,
                     .gamma = doubles(t, state.weight),
                     .beta = doubles(t, state.bias),
                     .cfg = t->cfg,
                     .constant = trial_is_fixed(t, k),
                     .corrects = t->cfg.correction == SBN_CORRECTION_RENORM &&
                                 k->mode == SBN_NORM_TRAIN,
                     .mean = doubles(t, state.running_mean),
                     .var = doubles(t, state.running_var)};
    r->cfg.r_max = k->r_max;
    r->cfg.d_max = k->d_max;
    if (state.num_batches_tracked) r->tracked = *state.num_batches_tracked + 1;
    reference_make(r);
    return r;
}

static void drop(reference *r)
{
    const void *owned[] = {r->gamma, r->beta, r->mean, r->var};
    for (int i = 0; i < 4; i++) free((void *)(uintptr_t)owned[i]);
    reference_free(r);
    free(r);
}

static void near(const duo *d, const char *what, int64_t at, double got, bounded want)
{
    if (fabsl((long double)got - want.v) <= want.e) return;
    duo_fail(d, "%s[%" PRId64 "] is %.17g, expected %.20Lg within %.3Lg", what, at, got,
             want.v, want.e);
}

static void near_tensor(const duo *d, const char *what, const reference *r, int which,
                        const bounded *want)
{
    const sbn_tensor *t = d->alone.t[which];
    if (!t) return;
    int64_t at = 0;
    for (int64_t row = 0; row < r->n; row++)
        for (int64_t i = 0; i < r->c; i++)
            for (int64_t j = 0; j < r->s; j++, at++)
                near(d, what, at, element(t->dtype, t->data, slab_place(t, row, i, j)),
                     want[at]);
}

static void near_channels(const duo *d, const char *what, const void *array,
                          const bounded *want)
{
    double *got = doubles(d->t, array);
    for (int64_t i = 0; i < d->batch.c; i++) near(d, what, i, got[i], want[i]);
    free(got);
}

/* Where relu lets through: by the sign of the sum before it, or by the layer's y where
 * that sum is too near 0 to have one. */
static uint8_t *gates(const duo *d, const reference *r)
{
    const sbn_tensor *y = d->alone.t[TRIAL_Y];
    uint8_t *open = calloc((size_t)(r->n * r->c * r->s) + 1, 1);
    int64_t at = 0;
    for (int64_t row = 0; row < r->n; row++)
        for (int64_t i = 0; i < r->c; i++)
            for (int64_t j = 0; j < r->s; j++, at++) {
                bool sure = fabsl(r->pre[at].v) > r->pre[at].e;
                open[at] = sure
                               ? r->pre[at].v > 0
                               : element(y->dtype, y->data, slab_place(y, row, i, j)) > 0;
            }
    return open;
}

static void compare_forward(const duo *d, reference *r)
{
    const trial_step *k = &d->t->step[d->step];
    sbn_norm_state state = sbn_norm_get_state(d->alone.norm);
    reference_forward(r);
    near_tensor(d, "y", r, TRIAL_Y, r->y);
    if (k->mode == SBN_NORM_TRAIN && state.running_mean && k->n > 0) {
        near_channels(d, "running_mean", state.running_mean, r->running_mean);
        near_channels(d, "running_var", state.running_var, r->running_var);
        if (*state.num_batches_tracked != r->tracked)
            duo_fail(d, "num_batches_tracked is %" PRId64 ", expected %" PRId64,
                     *state.num_batches_tracked, r->tracked);
    }
}

static void compare_backward(const duo *d, reference *r)
{
    sbn_norm_state state = sbn_norm_get_state(d->alone.norm);
    uint8_t *open = d->t->cfg.relu ? gates(d, r) : NULL;
    reference_backward(r, open);
    near_tensor(d, "dx", r, TRIAL_DX, r->dx);
    near_tensor(d, "dz", r, TRIAL_DZ, r->dz);
    if (state.weight_grad && d->t->cfg.affine_grad) {
        near_channels(d, "dgamma", state.weight_grad, r->dgamma);
        near_channels(d, "dbeta", state.bias_grad, r->dbeta);
    }
    free(open);
}

static void run(const trial *t, sbn_group *self)
{
    duo d;
    duo_open(&d, t, test_group, self);
    for (int i = 0; i < t->steps; i++) {
        duo_begin(&d, i);
        reference *r = expect(&d);
        if (duo_forward(&d)) {
            compare_forward(&d, r);
            if (t->step[i].backward) {
                duo_backward(&d);
                compare_backward(&d, r);
            }
        }
        drop(r);
        duo_end(&d);
    }
    duo_close(&d);
}

static void any_configuration(void **state)
{
    (void)state;
    duo_each(test_size > 4 ? 500 : 2000, run);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(any_configuration),
};
TEST_MAIN(tests)
