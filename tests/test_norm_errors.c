/* Every failure of the layer, on one process and on all: its code there, SBN_E_PEER
 * elsewhere, nobody waits, nothing changes, and the layer goes on afterwards. Calls out
 * of order (SBN_E_STATE) are local by contract, so they are made by all processes. */
#include "norm/norm.h"
#include "support/harness.h"
#include "support/layer.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 6, C = 3, S = 4, ROW = C * S };

typedef struct setup {
    sbn_norm *norm;
    sbn_norm_state state;
    float x_data[N * ROW], y_data[N * ROW], dy_data[N * ROW], dx_data[N * ROW];
    sbn_tensor x, y, dy, dx;
    float saved[2 * C];
    int64_t saved_count;
} setup;

static setup *begin(void)
{
    setup *t = calloc(1, sizeof *t);
    /* alone, whole calls go by tiles, and calls in halves do not */
    sbni_norm_cached_bytes = 0;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    cfg.name = "conv2_bn";
    OK(sbn_norm_create(&cfg, test_group, &t->norm));
    t->state = sbn_norm_get_state(t->norm);
    for (int e = 0; e < N * ROW; e++) {
        t->x_data[e] = (float)((e * 37 + test_rank) % 11);
        t->dy_data[e] = (float)((e * 5 + test_rank) % 7);
    }
    t->x = sbn_tensor_nchw(SBN_F32, t->x_data, N, C, 2, 2);
    t->y = t->dy = t->dx = t->x;
    t->y.data = t->y_data;
    t->dy.data = t->dy_data;
    t->dx.data = t->dx_data;
    return t;
}

static void end(setup *t)
{
    sbn_norm_destroy(&t->norm);
    free(t);
}

static void save(setup *t)
{
    memcpy(t->saved, t->state.running_mean, C * 4);
    memcpy(t->saved + C, t->state.running_var, C * 4);
    t->saved_count = *t->state.num_batches_tracked;
}

static void check_unchanged(setup *t)
{
    same_bits(t->saved, t->state.running_mean, C * 4);
    same_bits(t->saved + C, t->state.running_var, C * 4);
    assert_int_equal(t->saved_count, *t->state.num_batches_tracked);
}

/* The call failed with `code` on process `bad` alone (-1: on all). */
static void check_failed(sbn_status got, sbn_status code, int bad)
{
    if (bad < 0 || bad == test_rank) {
        test_status(got, code, "the call", __FILE__, __LINE__);
        assert_non_null(strstr(sbn_last_error(), "conv2_bn"));
        return;
    }
    test_status(got, SBN_E_PEER, "the call", __FILE__, __LINE__);
    assert_int_equal(sbn_peer_status(), code);
    char who[32];
    snprintf(who, sizeof who, "process %d: ", bad);
    assert_non_null(strstr(sbn_last_error(), who));
    assert_non_null(strstr(sbn_last_error(), "conv2_bn"));
}

/* What is wrong is told in the terms of the pass. */
static void check_text(sbn_status code, const char *what, const char *limit)
{
    if (code != SBN_E_NONFINITE && code != SBN_E_RANGE) return;
    assert_non_null(strstr(sbn_last_error(), what));
    if (code == SBN_E_RANGE) assert_non_null(strstr(sbn_last_error(), limit));
}

/* Forward fails, changes nothing, leaves no forward to go back from; then all is well. */
static void forward_fails(setup *t, const sbn_tensor *x, sbn_tensor *y, sbn_status code,
                          int bad)
{
    for (int halves = 0; halves < 2; halves++) {
        save(t);
        sbn_status got;
        if (halves) {
            OK(sbn_norm_forward_begin(t->norm, x, y));
            got = sbn_norm_forward_end(t->norm);
        } else {
            got = sbn_norm_forward(t->norm, x, y);
        }
        check_failed(got, code, bad);
        check_text(code, " in its input", "(about 1e13)");
        check_unchanged(t);
        FAILS(SBN_E_STATE, sbn_norm_backward(t->norm, &t->dy, &t->dx));
        float x0 = t->x_data[0];
        if (!(fabsf(x0) < 100)) t->x_data[0] = 1;
        OK(sbn_norm_forward(t->norm, &t->x, &t->y));
        OK(sbn_norm_backward(t->norm, &t->dy, &t->dx));
        t->x_data[0] = x0;
    }
}

static void backward_fails(setup *t, const sbn_tensor *dy, sbn_tensor *dx,
                           sbn_status code, int bad)
{
    OK(sbn_norm_forward(t->norm, &t->x, &t->y));
    for (int halves = 0; halves < 2; halves++) {
        save(t);
        memset(t->state.weight_grad, 7, C * 4);
        float before[C];
        memcpy(before, t->state.weight_grad, sizeof before);
        sbn_status got;
        if (halves) {
            OK(sbn_norm_backward_begin(t->norm, dy, dx));
            got = sbn_norm_backward_end(t->norm);
        } else {
            got = sbn_norm_backward(t->norm, dy, dx);
        }
        check_failed(got, code, bad);
        check_text(code, " in the gradient of its output", "(about a sum of 1e18)");
        check_unchanged(t);
        same_bits(before, t->state.weight_grad, sizeof before);
        float dy0 = t->dy_data[0];
        if (!(fabsf(dy0) < 100)) t->dy_data[0] = 1;
        OK(sbn_norm_backward(t->norm, &t->dy, &t->dx)); /* the forward is remembered */
        t->dy_data[0] = dy0;
    }
}

static void trap_31_not_finite_or_too_large(void **state)
{
    (void)state;
    const struct {
        float value;
        sbn_status code;
    } values[] = {{NAN, SBN_E_NONFINITE},       {INFINITY, SBN_E_NONFINITE},
                  {-INFINITY, SBN_E_NONFINITE}, {1e25f, SBN_E_RANGE},
                  {-FLT_MAX, SBN_E_RANGE},      {1e18f, SBN_E_RANGE}};
    setup *t = begin();
    for (int k = 0; k < 6; k++) EACH_BAD(bad)
        {
            float x0 = t->x_data[0], dy0 = t->dy_data[0];
            if (IS_BAD(bad)) t->x_data[0] = values[k].value;
            forward_fails(t, &t->x, &t->y, values[k].code, bad);
            t->x_data[0] = x0;
            if (values[k].value == 1e18f) continue; /* Σdy up to 1e18 fits */
            if (IS_BAD(bad)) t->dy_data[0] = values[k].value;
            backward_fails(t, &t->dy, &t->dx, values[k].code, bad);
            t->dy_data[0] = dy0;
        }
    end(t);
}

/* Each wrong argument of forward and backward. */
static void wrong_arguments(void **state)
{
    (void)state;
    setup *t = begin();
    double wide[N * ROW];
    sbn_tensor rows = t->x, channels = t->x, type = t->x, none = t->x, minus = t->x,
               flat = t->x, crooked = t->x, huge = t->x;
    rows.n = N - 1;
    channels.c = C - 1;
    type.dtype = SBN_F64;
    type.data = wide;
    none.data = NULL;
    minus.n = -1;
    flat.h = 0;
    crooked.data = (char *)t->x_data + 2;
    huge.n = huge.h = INT64_MAX / 4;
    const sbn_tensor *wrong[] = {NULL,   &rows, &channels, &type, &none,
                                 &minus, &flat, &crooked,  &huge};
    EACH_BAD(bad)
    for (int k = 0; k < 9; k++) {
        sbn_tensor other;
        if (wrong[k]) other = *wrong[k];
        sbn_tensor *given = wrong[k] ? &other : NULL;
        bool is_bad = IS_BAD(bad);
        forward_fails(t, is_bad ? given : &t->x, &t->y, SBN_E_ARG, bad);
        forward_fails(t, &t->x, is_bad ? given : &t->y, SBN_E_ARG, bad);
        backward_fails(t, is_bad ? given : &t->dy, &t->dx, SBN_E_ARG, bad);
        if (given) backward_fails(t, &t->dy, is_bad ? given : &t->dx, SBN_E_ARG, bad);
    }
    EACH_BAD(bad) /* both alike, yet not of the layer's channels; y on top of x */
    {
        sbn_tensor y = channels;
        y.data = t->y_data;
        forward_fails(t, IS_BAD(bad) ? &channels : &t->x, IS_BAD(bad) ? &y : &t->y,
                      SBN_E_ARG, bad);
        sbn_tensor same = t->x;
        forward_fails(t, &t->x, IS_BAD(bad) ? &same : &t->y, SBN_E_ARG, bad);
    }
    end(t);
}

static void trap_07_one_value_in_the_whole_group(void **state)
{
    (void)state;
    sbn_norm_config cfg = sbn_norm_config_default(C);
    for (int owner = 0; owner < test_size; owner++) {
        setup *t = begin();
        int64_t n = owner == test_rank;
        sbn_tensor x = sbn_tensor_nc(SBN_F32, n ? t->x_data : NULL, n, C), y = x;
        y.data = n ? t->y_data : NULL;
        forward_fails(t, &x, &y, SBN_E_FEW, -1);
        end(t);
    }
    /* a short last norm batch of one row, at the last process that has rows */
    sbn_norm *norm;
    cfg.norm_batch = 2;
    cfg.batch = 3;
    OK(sbn_norm_create(&cfg, test_group, &norm));
    int last = test_rank == test_size - 1;
    float data[3 * C] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, out[3 * C];
    sbn_tensor x = sbn_tensor_nc(SBN_F32, data, last ? 3 : 0, C), y = x;
    y.data = out;
    FAILS(SBN_E_FEW, sbn_norm_forward(norm, &x, &y));
    assert_int_equal(*sbn_norm_get_state(norm).num_batches_tracked, 0);
    sbn_norm_destroy(&norm);
}

static void trap_08_no_samples_at_all(void **state)
{
    (void)state;
    setup *t = begin();
    OK(sbn_norm_forward(t->norm, &t->x, &t->y));
    save(t);
    sbn_tensor x = sbn_tensor_nchw(SBN_F32, NULL, 0, C, 2, 2), y = x;
    OK(sbn_norm_forward(t->norm, &x, &y));
    check_unchanged(t);
    OK(sbn_norm_backward(t->norm, &x, &y));
    for (int i = 0; i < C; i++) /* a sum of nothing */
        assert_true(element(SBN_F32, t->state.weight_grad, i) == 0);
    check_unchanged(t);
    OK(sbn_norm_forward(t->norm, &t->x, &t->y));
    assert_int_equal(*t->state.num_batches_tracked, 2);
    end(t);
}

static void calls_out_of_order(void **state)
{
    (void)state;
    setup *t = begin();
    FAILS(SBN_E_STATE, sbn_norm_backward(t->norm, &t->dy, &t->dx));
    FAILS(SBN_E_STATE, sbn_norm_backward_begin(t->norm, &t->dy, &t->dx));
    FAILS(SBN_E_STATE, sbn_norm_forward_end(t->norm));
    FAILS(SBN_E_STATE, sbn_norm_backward_end(t->norm));
    OK(sbn_norm_forward_begin(t->norm, &t->x, &t->y));
    FAILS(SBN_E_STATE, sbn_norm_forward(t->norm, &t->x, &t->y));
    FAILS(SBN_E_STATE, sbn_norm_forward_begin(t->norm, &t->x, &t->y));
    FAILS(SBN_E_STATE, sbn_norm_backward(t->norm, &t->dy, &t->dx));
    FAILS(SBN_E_STATE, sbn_norm_backward_end(t->norm));
    OK(sbn_norm_forward_end(t->norm));
    FAILS(SBN_E_STATE, sbn_norm_forward_end(t->norm));
    OK(sbn_norm_backward_begin(t->norm, &t->dy, &t->dx));
    FAILS(SBN_E_STATE, sbn_norm_forward(t->norm, &t->x, &t->y));
    FAILS(SBN_E_STATE, sbn_norm_backward(t->norm, &t->dy, &t->dx));
    OK(sbn_norm_backward_end(t->norm));
    sbn_norm_set_mode(t->norm, SBN_NORM_EVAL);
    OK(sbn_norm_forward_begin(t->norm, &t->x, &t->y));
    FAILS(SBN_E_STATE, sbn_norm_forward(t->norm, &t->x, &t->y));
    FAILS(SBN_E_STATE, sbn_norm_backward(t->norm, &t->dy, &t->dx));
    OK(sbn_norm_forward_end(t->norm));
    FAILS(SBN_E_ARG, sbn_norm_forward(NULL, &t->x, &t->y));
    FAILS(SBN_E_ARG, sbn_norm_forward_begin(NULL, &t->x, &t->y));
    FAILS(SBN_E_ARG, sbn_norm_forward_end(NULL));
    FAILS(SBN_E_ARG, sbn_norm_backward(NULL, &t->dy, &t->dx));
    FAILS(SBN_E_ARG, sbn_norm_backward_begin(NULL, &t->dy, &t->dx));
    FAILS(SBN_E_ARG, sbn_norm_backward_end(NULL));
    end(t);
}

/* A layer may be destroyed while its message is under way. */
static void destroy_while_begun(void **state)
{
    (void)state;
    setup *t = begin(), *u = begin();
    OK(sbn_norm_forward_begin(t->norm, &t->x, &t->y));
    sbn_norm_destroy(&t->norm);
    OK(sbn_norm_forward(u->norm, &u->x, &u->y));
    end(t);
    end(u);
}

/* Process 0 calls two layers of one size in the other order: all notice. */
static void trap_17_another_order_of_layers(void **state)
{
    (void)state;
    if (test_size == 1) return;
    setup *a = begin(), *b = begin();
    setup *first = test_rank == 0 ? b : a, *second = test_rank == 0 ? a : b;
    FAILS(SBN_E_MISMATCH, sbn_norm_forward(first->norm, &a->x, &a->y));
    FAILS(SBN_E_MISMATCH, sbn_norm_forward(second->norm, &a->x, &a->y));
    assert_int_equal(*a->state.num_batches_tracked, 0);
    assert_int_equal(*b->state.num_batches_tracked, 0);
    /* both were called once everywhere, so they agree again */
    OK(sbn_norm_forward(a->norm, &a->x, &a->y));
    OK(sbn_norm_forward(b->norm, &b->x, &b->y));
    first = test_rank == 0 ? b : a, second = test_rank == 0 ? a : b;
    FAILS(SBN_E_MISMATCH, sbn_norm_backward(first->norm, &a->dy, &a->dx));
    FAILS(SBN_E_MISMATCH, sbn_norm_backward(second->norm, &a->dy, &a->dx));
    OK(sbn_norm_backward(a->norm, &a->dy, &a->dx));
    end(a);
    end(b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(trap_31_not_finite_or_too_large),
    cmocka_unit_test(wrong_arguments),
    cmocka_unit_test(trap_07_one_value_in_the_whole_group),
    cmocka_unit_test(trap_08_no_samples_at_all),
    cmocka_unit_test(calls_out_of_order),
    cmocka_unit_test(destroy_while_begun),
    cmocka_unit_test(trap_17_another_order_of_layers),
};
TEST_MAIN(tests)
