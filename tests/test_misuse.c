/* Random misuse of a layer on one process: an error on all processes of the call, nobody
 * waits, nothing changes, and the right call behind it gives the right bits. Trials and
 * environment as in test_property.c. */
#include "support/harness.h"
#include "support/duo.h"
#include "support/layer.h"

#include <math.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

/* What may be wrong with a tensor. */
typedef enum fault {
    FAULT_NULL,
    FAULT_TYPE,
    FAULT_NO_TYPE,
    FAULT_CHANNELS,
    FAULT_SAMPLES,
    FAULT_MINUS,
    FAULT_EMPTY_AXIS,
    FAULT_HUGE,
    /* from here on only where there are elements */
    FAULT_NO_DATA,
    FAULT_CROOKED,
    FAULT_SHARED,
    FAULT_APART,
    FAULTS
} fault;

/* Whether a tensor of this shape can have the fault. */
static bool applies(fault f, const sbn_tensor *t)
{
    if (f < FAULT_NO_DATA) return true;
    if (t->n == 0) return false;
    if (f == FAULT_SHARED) return t->n > 1 || t->c > 1;
    return f != FAULT_APART || (t->c > 1 && t->d * t->h * t->w > 1);
}

static void spoil(fault f, sbn_tensor *t)
{
    int64_t s = t->d * t->h * t->w;
    if (f == FAULT_TYPE) t->dtype = t->dtype == SBN_F32 ? SBN_BF16 : SBN_F32;
    if (f == FAULT_NO_TYPE) t->dtype = (sbn_dtype)9;
    if (f == FAULT_CHANNELS) t->c++;
    if (f == FAULT_SAMPLES) t->n++;
    if (f == FAULT_MINUS) t->n = -1;
    if (f == FAULT_EMPTY_AXIS) t->h = 0;
    if (f == FAULT_HUGE) t->n = t->d = INT64_MAX / 4;
    if (f == FAULT_NO_DATA) t->data = NULL;
    if (f == FAULT_CROOKED) t->data = (char *)t->data + 1;
    if (f == FAULT_SHARED && t->n > 1)
        t->stride_n = 0;
    else if (f == FAULT_SHARED)
        t->stride_c = 0;
    if (f == FAULT_APART) {
        t->stride_s = 2;
        t->stride_c = 2 * s;
        t->stride_n = 2 * s * t->c;
    }
}

/* Tensors of the group's side that may be spoiled without harm to it. */
typedef struct wrong {
    side s;
    sbn_tensor copy[TRIAL_TENSORS];
    sbn_status code;
    const char *what;
    char *byte; /* an element overwritten, and what it was */
    char was[8];
} wrong;

static void take(wrong *w, const duo *d)
{
    *w = (wrong){.s = d->group, .code = SBN_E_ARG};
    for (int i = 0; i < TRIAL_TENSORS; i++) {
        if (!w->s.t[i]) continue;
        w->copy[i] = *w->s.t[i];
        w->s.t[i] = &w->copy[i];
    }
}

static bool spoil_one(dice *k, wrong *w, const int *which, int count)
{
    int i = which[dice_below(k, count)];
    fault f = (fault)dice_below(k, FAULTS);
    /* dx and dz NULL are not wanted, z NULL is the other call */
    bool optional = i == TRIAL_DX || i == TRIAL_DZ;
    if (!w->s.t[i] || (f == FAULT_NULL && optional) || !applies(f, w->s.t[i]))
        return false;
    w->what = "a tensor";
    if (f == FAULT_NULL)
        w->s.t[i] = NULL;
    else
        spoil(f, &w->copy[i]);
    return true;
}

/* A kept element that is NaN or too large. */
static bool spoil_value(dice *k, wrong *w, int which)
{
    const sbn_tensor *t = w->s.t[which];
    const trial_share *p = &w->s.share;
    int64_t row = 0;
    while (row < p->n && !p->keep[row]) row++;
    if (row == p->n) return false;
    int64_t at =
        slab_place(t, row, dice_below(k, t->c), dice_below(k, t->d * t->h * t->w));
    bool nan = dice_chance(k, 50);
    w->byte = (char *)t->data + at * sbn_dtype_bytes(t->dtype);
    memcpy(w->was, w->byte, (size_t)sbn_dtype_bytes(t->dtype));
    set_element(t->dtype, w->byte, 0, nan ? (double)NAN : 1e30);
    w->code = nan ? SBN_E_NONFINITE : SBN_E_RANGE;
    w->what = "a value";
    return true;
}

/* All tensors of the call alike, but not what the layer takes. */
static bool spoil_all(dice *k, wrong *w)
{
    fault f = dice_chance(k, 50) ? FAULT_TYPE : FAULT_CHANNELS;
    for (int i = TRIAL_X; i <= TRIAL_Y; i++)
        if (w->s.t[i]) spoil(f, &w->copy[i]);
    w->what = "all tensors";
    return true;
}

/* Shape-true tensors that may not go together. */
static bool spoil_places(const trial_step *k, wrong *w, dice *d)
{
    sbn_tensor *x = w->s.t[TRIAL_X], *y = w->s.t[TRIAL_Y];
    if (x->n == 0) return false;
    w->what = "places";
    if (k->mode == SBN_NORM_TRAIN && dice_chance(d, 50)) {
        *y = *x;
        return true;
    }
    if (x->n > 1 && dice_chance(d, 50)) {
        /* in x's place, but further on elsewhere */
        *y = *x;
        y->stride_n += (y->stride_n + 1) * x->c * x->d * x->h * x->w;
        return true;
    }
    if (x->c == 1 || x->d * x->h * x->w == 1) return false;
    int64_t s = x->d * x->h * x->w;
    y->stride_c = k->planes ? 1 : s;
    y->stride_s = k->planes ? x->c : 1;
    y->stride_n = x->c * s;
    return true;
}

/* A mask of another length, a place behind the batch, nothing to add. */
static bool spoil_settings(const duo *d, dice *k, wrong *w)
{
    const trial_step *step = &d->t->step[d->step];
    const trial_share *p = &w->s.share;
    int how = (int)dice_below(k, 3);
    if (how == 0) {
        uint8_t keep[TRIAL_ROWS + TRIAL_DROPPED + 1] = {0};
        OK(sbn_norm_set_mask(w->s.norm, keep, p->n + 1));
        w->what = "a mask";
    } else if (how == 1) {
        if (!d->t->cfg.norm_batch || p->kept == 0 || trial_is_fixed(d->t, step))
            return false;
        OK(sbn_norm_set_place(w->s.norm, d->t->cfg.batch));
        FAILS(SBN_E_ARG, sbn_norm_set_place(w->s.norm, d->t->cfg.batch + 1));
        w->what = "a place";
    } else {
        if (!step->add) return false;
        w->s.t[TRIAL_Z] = NULL;
        w->what = "no z";
    }
    return true;
}

static void spoil_forward(const duo *d, dice *k, wrong *w)
{
    const trial_step *step = &d->t->step[d->step];
    static const int inputs[] = {TRIAL_X, TRIAL_Y, TRIAL_Z};
    for (bool done = false; !done;) {
        take(w, d);
        switch (dice_below(k, 6)) {
        case 0:
            done = spoil_all(k, w);
            break;
        case 1:
            done = spoil_places(step, w, k);
            break;
        case 2:
            done = spoil_settings(d, k, w);
            break;
        case 3:
            /* constants are not summed, so nobody looks at the values */
            done = !trial_is_fixed(d->t, step) && spoil_value(k, w, TRIAL_X);
            break;
        default:
            done = spoil_one(k, w, inputs, 3);
        }
    }
}

static bool spoil_gradient_places(const trial_step *k, wrong *w, dice *d)
{
    sbn_tensor *dy = w->s.t[TRIAL_DY], *dx = w->s.t[TRIAL_DX], *dz = w->s.t[TRIAL_DZ];
    w->what = "places of gradients";
    if (!k->add) { /* nothing was added */
        w->copy[TRIAL_DZ] = *dy;
        w->s.t[TRIAL_DZ] = &w->copy[TRIAL_DZ];
        return true;
    }
    if (!dx || dy->n == 0) return false;
    if (dz && dice_chance(d, 50)) {
        *dz = *dx;
        return true;
    }
    *dx = *dy;
    dx->stride_n += (dx->stride_n + 1) * dx->c * dx->d * dx->h * dx->w;
    return dy->n > 1;
}

static void spoil_backward(const duo *d, dice *k, wrong *w)
{
    const trial_step *step = &d->t->step[d->step];
    static const int gradients[] = {TRIAL_DY, TRIAL_DX, TRIAL_DZ};
    for (bool done = false; !done;) {
        take(w, d);
        int how = (int)dice_below(k, 5);
        if (how == 0)
            done = spoil_gradient_places(step, w, k);
        else if (how == 1) /* relu may leave the value out, constants need no sums */
            done = !d->t->cfg.relu && step->mode == SBN_NORM_TRAIN &&
                   spoil_value(k, w, TRIAL_DY);
        else
            done = spoil_one(k, w, gradients, 3);
    }
}

/* The call of backward_add also where the trial adds nothing. */
static sbn_status wrong_backward(const trial_step *k, wrong *w)
{
    trial_step adds = *k;
    adds.add = w->s.t[TRIAL_DZ] != NULL;
    return side_backward(&adds, &w->s, k->halves);
}

/* One process calls wrongly, the others as they should: all hear of it. Without a message
 * only that process calls. */
static void call(duo *d, dice *k, bool forward)
{
    const trial_step *step = &d->t->step[d->step];
    bool fixed = trial_is_fixed(d->t, step);
    int bad = (int)dice_below(k, test_size), code = 0;
    bool mine = bad == test_rank;
    if (fixed && !mine) return;
    int64_t bytes;
    char *before = side_state(d->t, &d->group, &bytes);
    dice own = *k; /* what does not fit one process's share is drawn again there alone */
    wrong w;
    take(&w, d);
    w.what = "a right call";
    if (mine) forward ? spoil_forward(d, &own, &w) : spoil_backward(d, &own, &w);
    sbn_status got = forward ? side_forward(step, &w.s, step->halves, false)
                             : wrong_backward(step, &w);
    if (w.byte) memcpy(w.byte, w.was, (size_t)sbn_dtype_bytes(d->t->cfg.dtype));
    duo_expect(d, got, mine ? w.code : SBN_E_PEER, w.what);
    code = mine ? (int)w.code : (int)sbn_peer_status();
    if (!fixed) {
        int theirs = code;
        MPI_Bcast(&theirs, 1, MPI_INT, bad, MPI_COMM_WORLD);
        if (theirs != code)
            duo_fail(d, "expected the other's status %d, got %d", theirs, code);
    }
    char *after = side_state(d->t, &d->group, &bytes);
    if (memcmp(before, after, (size_t)bytes) != 0)
        duo_fail(d, "%s changed the state", w.what);
    free(before);
    free(after);
}

static void run(const trial *t, sbn_group *self)
{
    duo d;
    dice k = dice_make(t->seed, t->number, 2);
    duo_open(&d, t, test_group, self);
    for (int i = 0; i < t->steps; i++) {
        const trial_step *step = &t->step[i];
        duo_begin(&d, i);
        if (i > 0 || dice_chance(&k, 50)) call(&d, &k, true);
        k.at += 1000;
        side_set(t, step, &d.group);
        if (duo_forward(&d) && step->backward) {
            if (dice_chance(&k, 70)) call(&d, &k, false);
            k.at += 1000;
            duo_backward(&d);
        }
        duo_end(&d);
    }
    duo_close(&d);
}

static void any_misuse(void **state)
{
    (void)state;
    duo_each(test_size > 4 ? 250 : 1000, run);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(any_misuse),
};
TEST_MAIN(tests)
