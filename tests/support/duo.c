#include "support/duo.h"

#include <inttypes.h>
#include <mpi.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/harness.h"
#include "support/layer.h"

static const char *const names[] = {"x", "z", "y", "dy", "dx", "dz"};

void duo_fail(const duo *d, const char *format, ...)
{
    /* in one piece, as all processes may fail at once */
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    va_list list;
    va_start(list, format);
    fprintf(out, "process %d, case %u, step %d: ", test_rank, (unsigned)d->t->number,
            d->step);
    vfprintf(out, format, list);
    fputc('\n', out);
    va_end(list);
    trial_print(d->t, out);
    fclose(out);
    fputs(text, stderr);
    free(text);
    fail();
}

void duo_expect(const duo *d, sbn_status got, sbn_status want, const char *call)
{
    if (got == want) return;
    duo_fail(d, "%s gave %s, expected %s: %s", call, sbn_status_name(got),
             sbn_status_name(want), sbn_last_error());
}

static sbn_dtype state_type(const trial *t)
{
    return t->cfg.dtype == SBN_F64 ? SBN_F64 : SBN_F32;
}

enum { UNTOUCHED = 7 }; /* gradients before the first backward */

/* Values of the state as drawn; they are floats, so all types hold them. */
static void load_state(const trial *t, sbn_norm *norm)
{
    sbn_norm_state state = sbn_norm_get_state(norm);
    sbn_dtype type = state_type(t);
    dice d = dice_make(t->seed, t->number, 1);
    for (int64_t i = 0; i < t->cfg.channels; i++) {
        /* with beta 0 a constant channel lies on the border of relu */
        double gamma = (double)(dice_below(&d, 17) - 6) / 8,
               beta = (double)(dice_below(&d, 9) - 4) / 4,
               mean = (double)(dice_below(&d, 41) - 20) / 8,
               var = (double)(1 + dice_below(&d, 40)) / 16;
        if (state.weight) {
            set_element(type, state.weight, i, gamma);
            set_element(type, state.bias, i, beta);
            set_element(type, state.weight_grad, i, UNTOUCHED);
            set_element(type, state.bias_grad, i, UNTOUCHED);
        }
        if (!state.running_mean || t->warm_batches < 0) continue;
        set_element(type, state.running_mean, i, mean);
        set_element(type, state.running_var, i, var);
    }
    if (state.num_batches_tracked && t->warm_batches >= 0)
        *state.num_batches_tracked = t->warm_batches;
}

void duo_open(duo *d, const trial *t, sbn_group *group, sbn_group *self)
{
    *d = (duo){.t = t};
    duo_expect(d, sbn_norm_create(&t->cfg, group, &d->group.norm), SBN_OK, "create");
    duo_expect(d, sbn_norm_create(&t->cfg, self, &d->alone.norm), SBN_OK, "create");
    load_state(t, d->group.norm);
    load_state(t, d->alone.norm);
}

void duo_close(duo *d)
{
    sbn_norm_destroy(&d->group.norm);
    sbn_norm_destroy(&d->alone.norm);
}

/* The samples kept, in order, into the rows that are kept; the others stay NaN, or get a
 * number that would show. */
static void fill(const trial *t, const trial_step *k, const trial_share *p,
                 const double *from, sbn_tensor *to)
{
    int64_t c = t->cfg.channels, s = trial_pixels(k), sample = p->first;
    for (int64_t row = 0; row < p->n; row++) {
        for (int64_t i = 0; i < c; i++)
            for (int64_t j = 0; j < s; j++) {
                double v = 1234;
                if (p->keep[row])
                    v = from[(sample * c + i) * s + j];
                else if (k->poison)
                    continue;
                set_element(t->cfg.dtype, to->data, slab_place(to, row, i, j), v);
            }
        sample += p->keep[row];
    }
}

static void side_make(const trial *t, const trial_step *k, const trial_batch *b, side *s)
{
    const trial_share *p = &s->share;
    const int64_t shape[5] = {p->n, t->cfg.channels, k->shape[0], k->shape[1],
                              k->shape[2]};
    const int place[] = {TRIAL_X,  k->add ? TRIAL_Z : -1, p->y_place,
                         TRIAL_DY, p->dx_place,           p->dz_place};
    for (int i = 0; i < TRIAL_TENSORS; i++)
        s->slabs[i] = slab_make(t->cfg.dtype, shape, p->layout[i]);
    for (int i = 0; i < TRIAL_TENSORS; i++)
        s->t[i] = place[i] < 0 ? NULL : &s->slabs[place[i]].t;
    fill(t, k, p, b->x, &s->slabs[TRIAL_X].t);
    fill(t, k, p, b->z, &s->slabs[TRIAL_Z].t);
    fill(t, k, p, b->dy, &s->slabs[TRIAL_DY].t);
    for (int i = 0; i < TRIAL_TENSORS; i++) slab_keep(&s->slabs[i]);
}

void side_set(const trial *t, const trial_step *k, side *s)
{
    const trial_share *p = &s->share;
    OK(sbn_norm_set_mode(s->norm, k->mode));
    OK(sbn_norm_set_mask(s->norm, k->masked ? p->keep : NULL, p->n));
    OK(sbn_norm_set_place(s->norm, p->first));
    if (t->cfg.correction == SBN_CORRECTION_RENORM)
        OK(sbn_norm_set_limits(s->norm, k->r_max, k->d_max));
}

/* All samples of the batch, or with constant statistics those of the process, in the
 * plainest memory of the same form. */
static trial_share plain_share(const trial *t, const trial_step *k)
{
    const trial_share *own = &k->share[test_rank];
    bool fixed = trial_is_fixed(t, k);
    int64_t c = t->cfg.channels, s = trial_pixels(k);
    trial_share p = {.first = fixed ? own->first : 0,
                     .kept = fixed ? own->kept : k->n,
                     .y_place = TRIAL_Y,
                     .dx_place = TRIAL_DX,
                     .dz_place = k->add ? TRIAL_DZ : -1};
    p.n = p.kept;
    memset(p.keep, 1, sizeof p.keep);
    /* one channel is rows only where its pixels are no neighbours */
    int64_t apart = c == 1 ? 2 : c;
    for (int i = 0; i < TRIAL_TENSORS; i++)
        p.layout[i] = k->planes || s == 1 ? (slab_layout){c * s, s, 1, 0}
                                          : (slab_layout){apart * s, 1, apart, 0};
    return p;
}

void duo_begin(duo *d, int step)
{
    const trial_step *k = &d->t->step[step];
    d->step = step;
    d->batch = trial_batch_make(d->t, step);
    d->group.share = k->share[test_rank];
    d->alone.share = plain_share(d->t, k);
    side_make(d->t, k, &d->batch, &d->group);
    side_make(d->t, k, &d->batch, &d->alone);
    side_set(d->t, k, &d->group);
    trial_step plain = *k;
    plain.masked = false;
    side_set(d->t, &plain, &d->alone);
    OK(sbn_norm_set_place(d->alone.norm, 0));
}

void duo_end(duo *d)
{
    for (int i = 0; i < TRIAL_TENSORS; i++) {
        slab_free(&d->group.slabs[i]);
        slab_free(&d->alone.slabs[i]);
    }
    trial_batch_free(&d->batch);
    free(d->peeked);
    d->peeked = NULL;
}

sbn_status side_forward(const trial_step *k, side *s, bool halves, bool meddle)
{
    sbn_tensor *x = s->t[TRIAL_X], *z = s->t[TRIAL_Z], *y = s->t[TRIAL_Y];
    if (!halves)
        return k->add ? sbn_norm_forward_add(s->norm, x, z, y)
                      : sbn_norm_forward(s->norm, x, y);
    sbn_status status = k->add ? sbn_norm_forward_add_begin(s->norm, x, z, y)
                               : sbn_norm_forward_begin(s->norm, x, y);
    if (status != SBN_OK) return status;
    /* a call under way keeps its mode */
    if (meddle)
        OK(sbn_norm_set_mode(s->norm,
                             k->mode == SBN_NORM_TRAIN ? SBN_NORM_EVAL : SBN_NORM_TRAIN));
    status = sbn_norm_forward_end(s->norm);
    if (meddle) OK(sbn_norm_set_mode(s->norm, k->mode));
    return status;
}

sbn_status side_backward(const trial_step *k, side *s, bool halves)
{
    sbn_tensor *dy = s->t[TRIAL_DY], *dx = s->t[TRIAL_DX], *dz = s->t[TRIAL_DZ];
    bool add = k->add && dz;
    if (!halves)
        return add ? sbn_norm_backward_add(s->norm, dy, dx, dz)
                   : sbn_norm_backward(s->norm, dy, dx);
    sbn_status status = add ? sbn_norm_backward_add_begin(s->norm, dy, dx, dz)
                            : sbn_norm_backward_begin(s->norm, dy, dx);
    return status == SBN_OK ? sbn_norm_backward_end(s->norm) : status;
}

static const char *bytes_at(const sbn_tensor *t, int64_t row, int64_t i, int64_t j)
{
    return (const char *)t->data + slab_place(t, row, i, j) * sbn_dtype_bytes(t->dtype);
}

void duo_same_tensor(const duo *d, int which)
{
    const trial_share *p = &d->group.share;
    const sbn_tensor *mine = d->group.t[which], *whole = d->alone.t[which];
    if (!mine) return;
    int64_t size = sbn_dtype_bytes(mine->dtype), s = d->batch.s,
            sample = p->first - d->alone.share.first;
    static const char zero[8];
    for (int64_t row = 0; row < p->n; row++) {
        for (int64_t i = 0; i < mine->c; i++)
            for (int64_t j = 0; j < s; j++) {
                const char *got = bytes_at(mine, row, i, j),
                           *want = p->keep[row] ? bytes_at(whole, sample, i, j) : zero;
                if (memcmp(got, want, (size_t)size) == 0) continue;
                duo_fail(d,
                         "%s of sample %d (row %d), channel %d, pixel %d is %.17g, "
                         "expected the bits of %.17g",
                         names[which], (int)sample, (int)row, (int)i, (int)j,
                         element(mine->dtype, got, 0), element(mine->dtype, want, 0));
            }
        sample += p->keep[row];
    }
}

/* Inputs as they were, and nothing written between the elements of outputs. */
static void check_memory(const duo *d)
{
    const side *s = &d->group;
    for (int i = 0; i < TRIAL_TENSORS; i++) {
        bool output = false;
        for (int k = TRIAL_Y; k < TRIAL_TENSORS; k++)
            if (k != TRIAL_DY) output |= s->t[k] == &s->slabs[i].t;
        if (output ? !slab_gaps_kept(&s->slabs[i]) : !slab_kept(&s->slabs[i]))
            duo_fail(d, "memory of %s outside of its elements, or an input, was written",
                     names[i]);
    }
}

char *side_state(const trial *t, const side *s, int64_t *bytes)
{
    sbn_norm_state state = sbn_norm_get_state(s->norm);
    int64_t block = t->cfg.channels * sbn_dtype_bytes(state_type(t));
    const void *from[] = {state.running_mean, state.running_var, state.weight_grad,
                          state.bias_grad};
    char *copy = calloc(4, (size_t)block + 8);
    for (int i = 0; i < 4; i++)
        if (from[i]) memcpy(copy + i * block, from[i], (size_t)block);
    if (state.num_batches_tracked) memcpy(copy + 4 * block, state.num_batches_tracked, 8);
    *bytes = 4 * block + 8;
    return copy;
}

void duo_same_state(const duo *d)
{
    static const char *const parts[] = {"running_mean", "running_var", "dgamma", "dbeta",
                                        "num_batches_tracked"};
    int64_t bytes;
    char *a = side_state(d->t, &d->group, &bytes),
         *b = side_state(d->t, &d->alone, &bytes);
    for (int64_t i = 0; i < bytes; i++)
        if (a[i] != b[i])
            duo_fail(d, "%s differs from that of one process",
                     parts[i / ((bytes - 8) / 4)]);
    sbn_norm_state state = sbn_norm_get_state(d->group.norm);
    for (int64_t i = 0; state.weight && !d->t->cfg.affine_grad && i < d->t->cfg.channels;
         i++)
        if (element(state_type(d->t), state.weight_grad, i) != UNTOUCHED ||
            element(state_type(d->t), state.bias_grad, i) != UNTOUCHED)
            duo_fail(d, "gradients were written that nobody wants");
    sbn_norm_clipped c = sbn_norm_get_clipped(d->group.norm),
                     e = sbn_norm_get_clipped(d->alone.norm);
    if (c.r != e.r || c.d != e.d || c.r_max != e.r_max || c.d_max != e.d_max)
        duo_fail(d, "clipped %g %g, one process %g %g", c.r, c.d, e.r, e.d);
    free(a);
    free(b);
}

/* Evaluate x on one side, into fresh memory of y's layout; the tensor takes y's place. */
static slab peek(const duo *d, side *s)
{
    const trial_step *k = &d->t->step[d->step];
    sbn_tensor *x = s->t[TRIAL_X];
    slab y = slab_make(x->dtype, (int64_t[]){x->n, x->c, x->d, x->h, x->w},
                       s->share.layout[TRIAL_Y]);
    OK(sbn_norm_set_mode(s->norm, SBN_NORM_EVAL));
    duo_expect(d, sbn_norm_forward(s->norm, x, &y.t), SBN_OK, "evaluation in between");
    OK(sbn_norm_set_mode(s->norm, k->mode));
    return y;
}

static void compare_peeks(duo *d, slab *seen)
{
    sbn_tensor *kept[2] = {d->group.t[TRIAL_Y], d->alone.t[TRIAL_Y]};
    slab plain = peek(d, &d->alone);
    d->group.t[TRIAL_Y] = &seen->t;
    d->alone.t[TRIAL_Y] = &plain.t;
    duo_same_tensor(d, TRIAL_Y);
    if (!slab_gaps_kept(seen)) duo_fail(d, "evaluation wrote between elements");
    d->group.t[TRIAL_Y] = kept[0];
    d->alone.t[TRIAL_Y] = kept[1];
    slab_free(&plain);
}

void duo_backward(duo *d)
{
    const trial_step *k = &d->t->step[d->step];
    bool peeks = k->peek == test_rank && d->group.share.y_place != TRIAL_X;
    slab seen = {0};
    if (peeks) seen = peek(d, &d->group);
    /* y in the place of x is the caller's to change: no backward may read it */
    side *s = &d->group;
    if (s->share.y_place == TRIAL_X && k->meddle) slab_blank(&s->slabs[TRIAL_X]);
    if (s->share.y_place == TRIAL_Z && k->meddle) slab_blank(&s->slabs[TRIAL_Z]);
    if (k->meddle) { /* backward goes by what held for its forward */
        OK(sbn_norm_set_mask(d->group.norm, NULL, 0));
        OK(sbn_norm_set_place(d->group.norm, 0));
    }
    omp_set_num_threads(k->threads);
    duo_expect(d, side_backward(k, &d->group, k->halves), SBN_OK, "backward");
    omp_set_num_threads(1);
    duo_expect(d, side_backward(k, &d->alone, false), SBN_OK, "backward of one process");
    duo_same_tensor(d, TRIAL_DX);
    duo_same_tensor(d, TRIAL_DZ);
    duo_same_state(d);
    if (peeks) compare_peeks(d, &seen);
    slab_free(&seen);
    check_memory(d);
}

bool duo_forward(duo *d)
{
    const trial_step *k = &d->t->step[d->step];
    sbn_status want = trial_status(d->t, k);
    int64_t bytes;
    char *before = side_state(d->t, &d->group, &bytes);
    omp_set_num_threads(k->threads);
    duo_expect(d, side_forward(k, &d->group, k->halves, k->meddle), want, "forward");
    omp_set_num_threads(1);
    duo_expect(d, side_forward(k, &d->alone, false, false), want,
               "forward of one process");
    duo_same_state(d);
    if (want != SBN_OK || k->n == 0 || k->mode != SBN_NORM_TRAIN) {
        char *after = side_state(d->t, &d->group, &bytes);
        if (memcmp(before, after, (size_t)bytes) != 0) duo_fail(d, "the state changed");
        free(after);
    }
    free(before);
    if (want == SBN_OK) {
        duo_same_tensor(d, TRIAL_Y);
    } else {
        duo_expect(d, side_backward(k, &d->group, false), SBN_E_STATE,
                   "backward without forward");
    }
    check_memory(d);
    return want == SBN_OK;
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

void duo_each(uint64_t cases, void (*run)(const trial *t, sbn_group *self))
{
    uint64_t seed = setting("SBN_TEST_SEED", 1),
             one = setting("SBN_TEST_CASE", UINT64_MAX), first = 0;
    cases = setting("SBN_TEST_CASES", cases);
    if (one != UINT64_MAX) first = one, cases = one + 1;
    printf("SBN_TEST_SEED=%" PRIu64 " SBN_TEST_CASES=%" PRIu64 "\n", seed, cases);
    sbn_group *self;
    OK(sbn_group_create(MPI_COMM_SELF, &self));
    for (uint64_t k = first; k < cases; k++) {
        trial *t = trial_draw(seed, (uint32_t)k, test_size);
        run(t, self);
        free(t);
    }
    sbn_group_destroy(&self);
}
