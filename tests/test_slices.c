/* The layer slice by slice, as a model calls it, against the layer of whole batches: not
 * a bit differs. */
#include "support/harness.h"

#include <stdlib.h>
#include <string.h>

#include "norm/slices.h"
#include "support/layer.h"

enum { STEPS = 3, MOST = 64 };

typedef struct trial {
    norm_case shape;
    sbn_dtype dtype;
    bool relu, renorm, add;
} trial;

static const trial trials[] = {
    {{37, 3, 1, 5, 0}, SBN_F32, false, false, false},
    {{37, 3, 3, 5, 0}, SBN_F64, true, false, false},
    {{61, 41, 1, 1, 0}, SBN_F32, true, false, true},
    {{50, 9, 1, 1, 24}, SBN_F64, false, false, false},
    {{61, 5, 2, 3, 17}, SBN_F64, true, false, true},
    {{50, 12, 8, 9, 10}, SBN_F32, true, true, true},
    {{5, 2, 4, 4, 0}, SBN_F32, false, true, true},
};
enum { TRIALS = sizeof trials / sizeof *trials };

/* Both layers, and this process's share of the batch. */
typedef struct pair {
    joined b;
    sbn_norm *whole, *sliced;
    int64_t first, n, row_bytes; /* of a sample */
    sbni_slice slices[MOST];
    int64_t slice_count;
    sbn_tensor x;
    bool add; /* dy, as many samples from the other end of the batch */
    char *y, *dx, *dz, *rows, *more; /* of the whole layer; and a slice's of the other */
} pair;

static pair begin(const trial *t, int how)
{
    pair p = {.b = joined_make(t->dtype, t->shape, 1)};
    sbn_norm_config cfg = joined_config(&p.b);
    cfg.relu = t->relu;
    if (t->renorm) {
        cfg.correction = SBN_CORRECTION_RENORM;
        cfg.r_max = 1.4;
        cfg.d_max = 0.3;
    }
    OK(sbn_norm_create(&cfg, test_group, &p.whole));
    OK(sbn_norm_create(&cfg, test_group, &p.sliced));
    joined_load(&p.b, p.whole);
    joined_load(&p.b, p.sliced);
    deal(how, p.b.n, p.b.norm_batch, test_rank, test_size, &p.first, &p.n);
    OK(sbni_norm_slices_reserve(p.sliced, p.n));
    OK(sbn_norm_set_place(p.whole, p.first));
    OK(sbn_norm_set_place(p.sliced, p.first));
    p.slice_count = sbni_scope_cut(p.first, p.n, p.b.norm_batch, p.slices);
    p.x = joined_view(&p.b, p.b.x, p.first, p.n);
    p.row_bytes = p.b.c * p.b.h * p.b.w * sbn_dtype_bytes(t->dtype);
    p.y = calloc((size_t)(4 * p.n + 2 * SBN_SLICE), (size_t)p.row_bytes);
    p.dx = p.y + p.n * p.row_bytes;
    p.dz = p.dx + p.n * p.row_bytes;
    p.rows = p.dz + p.n * p.row_bytes;
    p.more = p.rows + SBN_SLICE * p.row_bytes;
    p.add = t->add;
    assert_non_null(p.y);
    return p;
}

/* What is added to sample `row` of this process and those behind it. */
static void *z_of(const pair *p, int64_t row)
{
    return p->add ? (char *)p->b.dy + (p->b.n - p->first - p->n + row) * p->row_bytes
                  : NULL;
}

static void end(pair *p)
{
    sbn_norm_destroy(&p->whole);
    sbn_norm_destroy(&p->sliced);
    joined_free(&p->b);
    free(p->y);
}

static void same_states(const pair *p)
{
    sbn_norm_state a = sbn_norm_get_state(p->whole), b = sbn_norm_get_state(p->sliced);
    int64_t bytes = p->b.c * sbn_dtype_bytes(p->b.dtype);
    same_bits(a.running_mean, b.running_mean, bytes);
    same_bits(a.running_var, b.running_var, bytes);
    same_bits(a.weight_grad, b.weight_grad, bytes);
    same_bits(a.bias_grad, b.bias_grad, bytes);
    assert_true(*a.num_batches_tracked == *b.num_batches_tracked);
}

/* Every slice's y, from the last to the first: as often as asked, in any order. */
static void same_y(const pair *p, bool fixed, const char *y)
{
    for (int64_t k = p->slice_count - 1; k >= 0; k--) {
        const sbni_slice *s = &p->slices[k];
        memset(p->rows, 0, (size_t)(SBN_SLICE * p->row_bytes));
        sbni_norm_slice_apply(p->sliced, &p->x, s, fixed, z_of(p, s->row), p->rows);
        same_bits(p->rows, y + s->row * p->row_bytes, s->n * p->row_bytes);
    }
}

static void whole_forward(const pair *p, sbn_tensor *y)
{
    sbn_tensor z = joined_view(&p->b, z_of(p, 0), 0, p->n);
    if (p->add)
        OK(sbn_norm_forward_add(p->whole, &p->x, &z, y));
    else
        OK(sbn_norm_forward(p->whole, &p->x, y));
}

static void forward(pair *p, bool split)
{
    sbn_tensor y = joined_view(&p->b, p->y, 0, p->n);
    whole_forward(p, &y);
    sbni_norm_slices_open(p->sliced, &p->x);
    for (int64_t k = p->slice_count - 1; k >= 0; k--)
        sbni_norm_slice_moments(p->sliced, &p->slices[k], k);
    if (split) {
        OK(sbni_norm_slices_forward_begin(p->sliced));
        OK(sbni_norm_slices_forward_end(p->sliced));
    } else {
        OK(sbni_norm_slices_forward(p->sliced));
    }
    same_y(p, false, p->y);
}

/* dx in the place of dy, as a model has it. */
static void backward(pair *p, bool split)
{
    sbn_tensor dy = joined_view(&p->b, p->b.dy, p->first, p->n),
               dx = joined_view(&p->b, p->dx, 0, p->n),
               dz = joined_view(&p->b, p->dz, 0, p->n);
    const char *from = (const char *)p->b.dy + p->first * p->row_bytes;
    if (p->add)
        OK(sbn_norm_backward_add(p->whole, &dy, &dx, &dz));
    else
        OK(sbn_norm_backward(p->whole, &dy, &dx));
    for (int64_t k = 0; k < p->slice_count; k++)
        sbni_norm_slice_sums(p->sliced, &p->slices[k], k, z_of(p, p->slices[k].row),
                             from + p->slices[k].row * p->row_bytes);
    if (split) {
        OK(sbni_norm_slices_backward_begin(p->sliced));
        same_y(p, false, p->y); /* what a model does meanwhile */
        OK(sbni_norm_slices_backward_end(p->sliced));
    } else {
        OK(sbni_norm_slices_backward(p->sliced));
    }
    for (int64_t k = 0; k < p->slice_count; k++) {
        const sbni_slice *s = &p->slices[k];
        memcpy(p->rows, from + s->row * p->row_bytes, (size_t)(s->n * p->row_bytes));
        sbni_norm_slice_dx(p->sliced, s, z_of(p, s->row), p->rows, p->rows,
                           p->add ? p->more : NULL);
        same_bits(p->rows, p->dx + s->row * p->row_bytes, s->n * p->row_bytes);
        if (p->add)
            same_bits(p->more, p->dz + s->row * p->row_bytes, s->n * p->row_bytes);
    }
}

static void evaluate(pair *p)
{
    sbn_tensor y = joined_view(&p->b, p->dx, 0, p->n);
    OK(sbn_norm_set_mode(p->whole, SBN_NORM_EVAL));
    whole_forward(p, &y);
    OK(sbn_norm_set_mode(p->whole, SBN_NORM_TRAIN));
    sbni_norm_slices_fix(p->sliced);
    same_y(p, true, p->dx);
}

static void same_bits_as_whole_batches(void **state)
{
    (void)state;
    for (int i = 0; i < TRIALS; i++)
        for (int how = 0; how < DEALS; how++) {
            pair p = begin(&trials[i], how);
            for (int step = 0; step < STEPS; step++) {
                forward(&p, step % 2 == 0);
                if (step == 1) evaluate(&p); /* backward does not see it */
                backward(&p, step % 2);
                backward(&p, step % 2 == 0); /* again */
                same_states(&p);
            }
            end(&p);
        }
}

static void nan_is_told(void **state)
{
    (void)state;
    for (int back = 0; back < 2; back++) {
        pair p = begin(&trials[3], DEAL_ALL_LAST);
        bool mine = p.n > 0;
        double *at = (double *)(back ? p.b.dy : p.b.x) + 2, kept = *at;
        if (back) forward(&p, false);
        *at = 0.0 / (kept - kept);
        if (back)
            for (int64_t k = 0; k < p.slice_count; k++)
                sbni_norm_slice_sums(p.sliced, &p.slices[k], k, NULL,
                                     (const char *)p.b.dy +
                                         p.slices[k].row * p.row_bytes);
        if (!back) sbni_norm_slices_open(p.sliced, &p.x);
        for (int64_t k = 0; !back && k < p.slice_count; k++)
            sbni_norm_slice_moments(p.sliced, &p.slices[k], k);
        FAILS(mine ? SBN_E_NONFINITE : SBN_E_PEER,
              back ? sbni_norm_slices_backward(p.sliced)
                   : sbni_norm_slices_forward(p.sliced));
        *at = kept;
        forward(&p, true); /* and goes on */
        backward(&p, true);
        end(&p);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(same_bits_as_whole_batches),
    cmocka_unit_test(nan_is_told),
};
TEST_MAIN(tests)
