/* Several layers with messages under way at once, and processes that do not agree about
 * which. */
#include "support/harness.h"
#include "support/seat.h"

#include <stdlib.h>
#include <string.h>

#include "norm/scope.h"

/* Alike in size but for the last two, so that mixed-up messages would fit. */
static const struct {
    norm_case shape;
    sbn_dtype dtype;
    layout form;
    bool relu;
} kinds[] = {
    {{40, 5, 1, 3, 0}, SBN_F32, NCHW, false}, {{40, 5, 1, 3, 0}, SBN_F64, NHWC, true},
    {{40, 5, 1, 3, 0}, SBN_F32, NCHW, true},  {{37, 9, 2, 2, 12}, SBN_F64, NCHW, false},
    {{50, 2, 1, 1, 0}, SBN_BF16, NCHW, true},
};
enum { LAYERS = sizeof kinds / sizeof *kinds };

static joined batches[LAYERS];

static seat layer(int k)
{
    sbn_norm_config cfg = joined_config(&batches[k]);
    cfg.relu = kinds[k].relu;
    int64_t first, n;
    sbni_scope_share(kinds[k].shape.n, kinds[k].shape.norm_batch, test_rank, test_size,
                     &first, &n);
    return seat_make(&cfg, test_group, &batches[k], kinds[k].form, first, n);
}

static int make_batches(void **state)
{
    (void)state;
    for (int k = 0; k < LAYERS; k++)
        batches[k] = joined_make(kinds[k].dtype, kinds[k].shape, 141 + (uint64_t)k);
    return 0;
}

static int free_batches(void **state)
{
    (void)state;
    for (int k = 0; k < LAYERS; k++) joined_free(&batches[k]);
    return 0;
}

/* Orders of the layers, the same on all processes. */
static const int orders[][LAYERS] = {
    {0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {2, 0, 4, 1, 3}, {3, 4, 0, 2, 1}, {1, 3, 2, 4, 0}};
enum { ORDERS = sizeof orders / sizeof *orders };

static void begun_and_ended_in_any_order(void **state)
{
    (void)state;
    seat want[LAYERS], blocking = layer(0), calm = layer(0);
    for (int k = 0; k < LAYERS; k++) {
        want[k] = layer(k);
        seat_step(&want[k], true);
    }
    seat_step(&calm, false);
    for (int o = 0; o < ORDERS * ORDERS; o++) {
        const int *there = orders[o / ORDERS], *back = orders[o % ORDERS];
        seat s[LAYERS];
        for (int k = 0; k < LAYERS; k++) s[k] = layer(k);
        for (int k = 0; k < LAYERS; k++) {
            seat *l = &s[there[k]];
            OK(sbn_norm_forward_add_begin(l->norm, &l->x, &l->z, &l->y));
        }
        OK(sbn_norm_forward(blocking.norm, &blocking.x, &blocking.y));
        for (int k = 0; k < LAYERS; k++) OK(sbn_norm_forward_end(s[back[k]].norm));
        for (int k = 0; k < LAYERS; k++) {
            seat *l = &s[back[k]];
            OK(sbn_norm_backward_add_begin(l->norm, &l->dy, &l->dx, &l->dz));
            /* a blocking call while some wait, and one already ended */
            if (k == 2) OK(sbn_norm_backward(blocking.norm, &blocking.dy, &blocking.dx));
            if (k == 3) OK(sbn_norm_backward_end(s[back[0]].norm));
        }
        for (int k = LAYERS - 1; k >= 0; k--)
            if (there[k] != back[0]) OK(sbn_norm_backward_end(s[there[k]].norm));
        seat_same_samples(&blocking, &calm, 0, false);
        for (int k = 0; k < LAYERS; k++) {
            seat_same_samples(&s[k], &want[k], 0, true);
            seat_same_state(&s[k], &want[k]);
            seat_free(&s[k]);
        }
    }
    for (int k = 0; k < LAYERS; k++) seat_free(&want[k]);
    seat_free(&blocking);
    seat_free(&calm);
}

/* All kinds of calls while a forward and a backward of others are under way. */
static void other_calls_while_messages_are_under_way(void **state)
{
    (void)state;
    seat a = layer(0), b = layer(2), want_a = layer(0), want_b = layer(2);
    seat_step(&want_a, false);
    seat_step(&want_b, false);
    OK(sbn_norm_forward(a.norm, &a.x, &a.y));
    OK(sbn_norm_forward_begin(b.norm, &b.x, &b.y));
    OK(sbn_norm_backward_begin(a.norm, &a.dy, &a.dx));
    seat made = layer(1); /* creating one sends messages of its own */
    OK(sbn_norm_precise_begin(made.norm));
    OK(sbn_norm_precise_add(made.norm, &made.x));
    OK(sbn_norm_precise_end(made.norm));
    OK(sbn_norm_set_mode(made.norm, SBN_NORM_EVAL_BATCH));
    OK(sbn_norm_forward(made.norm, &made.x, &made.y));
    EACH_BAD(bad) /* failures send an agreement besides */
    FAILS_ON(bad, SBN_E_ARG,
             sbn_norm_forward(made.norm, IS_BAD(bad) ? NULL : &made.x, &made.y));
    OK(sbn_group_agree(test_group, SBN_OK));
    OK(sbn_norm_forward_end(b.norm));
    OK(sbn_norm_backward_begin(b.norm, &b.dy, &b.dx));
    OK(sbn_norm_backward_end(a.norm));
    OK(sbn_norm_backward_end(b.norm));
    seat_same_samples(&a, &want_a, 0, false);
    seat_same_samples(&b, &want_b, 0, false);
    seat_same_state(&a, &want_a);
    seat_same_state(&b, &want_b);
    seat *owned[] = {&a, &b, &want_a, &want_b, &made};
    for (int k = 0; k < 5; k++) seat_free(owned[k]);
}

/* A begin that fails on one process, among others that do not. */
static void one_of_several_fails(void **state)
{
    (void)state;
    EACH_BAD(bad)
    {
        seat s[LAYERS], want[LAYERS];
        for (int k = 0; k < LAYERS; k++) s[k] = layer(k), want[k] = layer(k);
        for (int k = 0; k < LAYERS; k++) {
            seat_step(&want[k], false);
            sbn_tensor *y = k == 1 && IS_BAD(bad) ? NULL : &s[k].y;
            OK(sbn_norm_forward_begin(s[k].norm, &s[k].x, y));
        }
        for (int k = LAYERS - 1; k >= 0; k--) {
            if (k == 1)
                FAILS_ON(bad, SBN_E_ARG, sbn_norm_forward_end(s[k].norm));
            else
                OK(sbn_norm_forward_end(s[k].norm));
        }
        OK(sbn_norm_forward(s[1].norm, &s[1].x, &s[1].y));
        for (int k = 0; k < LAYERS; k++)
            OK(sbn_norm_backward_begin(s[k].norm, &s[k].dy, &s[k].dx));
        for (int k = 0; k < LAYERS; k++) {
            OK(sbn_norm_backward_end(s[k].norm));
            seat_same_samples(&s[k], &want[k], 0, false);
            seat_same_state(&s[k], &want[k]);
            seat_free(&s[k]);
            seat_free(&want[k]);
        }
    }
}

/* Layers of one size begun in another order on one process: every end notices, nothing is
 * updated, and the layers go on. */
static void trap_17_18_begun_in_another_order(void **state)
{
    (void)state;
    if (test_size == 1) return;
    for (int odd = 0; odd < test_size; odd++) {
        seat a = layer(0), b = layer(1), c = layer(2), want = layer(2);
        seat *s[] = {&a, &b, &c};
        for (int k = 0; k < 3; k++) {
            seat *l = s[test_rank == odd ? (k + 1) % 3 : k];
            OK(sbn_norm_forward_begin(l->norm, &l->x, &l->y));
        }
        for (int k = 0; k < 3; k++) {
            FAILS(SBN_E_MISMATCH, sbn_norm_forward_end(s[k]->norm));
            assert_int_equal(*s[k]->state.num_batches_tracked, 0);
            FAILS(SBN_E_STATE, sbn_norm_backward(s[k]->norm, &s[k]->dy, &s[k]->dx));
        }
        for (int k = 0; k < 3; k++) OK(sbn_norm_forward(s[k]->norm, &s[k]->x, &s[k]->y));
        for (int k = 0; k < 3; k++) {
            seat *l = s[test_rank == odd ? 2 - k : k];
            OK(sbn_norm_backward_begin(l->norm, &l->dy, &l->dx));
        }
        /* the one in the middle met its own kind */
        FAILS(SBN_E_MISMATCH, sbn_norm_backward_end(a.norm));
        OK(sbn_norm_backward_end(b.norm));
        FAILS(SBN_E_MISMATCH, sbn_norm_backward_end(c.norm));
        OK(sbn_norm_backward(c.norm, &c.dy, &c.dx));
        seat_step(&want, false);
        seat_same_samples(&c, &want, 0, false);
        seat_same_state(&c, &want);
        seat *owned[] = {&a, &b, &c, &want};
        for (int k = 0; k < 4; k++) seat_free(owned[k]);
    }
}

/* One process evaluates with batch statistics while the others train. */
static void modes_differ(void **state)
{
    (void)state;
    if (test_size == 1) return;
    for (int odd = 0; odd < test_size; odd++) {
        seat s = layer(0), want = layer(0);
        if (test_rank == odd) OK(sbn_norm_set_mode(s.norm, SBN_NORM_EVAL_BATCH));
        FAILS(SBN_E_MISMATCH, sbn_norm_forward(s.norm, &s.x, &s.y));
        OK(sbn_norm_set_mode(s.norm, SBN_NORM_TRAIN));
        seat_step(&s, false);
        seat_step(&want, false);
        seat_same_samples(&s, &want, 0, false);
        seat_same_state(&s, &want);
        seat_free(&s);
        seat_free(&want);
    }
}

static const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, make_batches, free_batches)
    CASE(begun_and_ended_in_any_order),
    CASE(other_calls_while_messages_are_under_way),
    CASE(one_of_several_fails),
    CASE(trap_17_18_begun_in_another_order),
    CASE(modes_differ),
};
TEST_MAIN(tests)
