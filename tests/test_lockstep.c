/* Check mode: a collective out of order, of another length or left out on one process is
 * named on all of them, and nobody waits. */
#include "support/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/group.h"
#include "syncbn/norm.h"

enum { ROWS = 4, MOST = 9 };

typedef struct world {
    sbn_group *group;
    sbn_norm *a, *b, *wide; /* a and b alike, by the same name */
    float x[ROWS * MOST], y[ROWS * MOST];
} world;

static sbn_norm *layer(sbn_group *group, int64_t channels, const char *name)
{
    sbn_norm_config cfg = sbn_norm_config_default(channels);
    sbn_norm *norm;
    cfg.name = name;
    OK(sbn_norm_create(&cfg, group, &norm));
    return norm;
}

/* One process that asks for check mode suffices. */
static world begin(void)
{
    world w = {0};
    if (test_rank == test_size - 1) setenv("SBN_CHECK_COLLECTIVES", "1", 1);
    OK(sbn_group_create(MPI_COMM_WORLD, &w.group));
    unsetenv("SBN_CHECK_COLLECTIVES");
    w.a = layer(w.group, 3, "bn");
    w.b = layer(w.group, 3, "bn");
    w.wide = layer(w.group, MOST, "wide");
    for (int i = 0; i < ROWS * MOST; i++) w.x[i] = (float)(i * i % 7);
    return w;
}

static void end(world *w)
{
    sbn_norm_destroy(&w->a);
    sbn_norm_destroy(&w->b);
    sbn_norm_destroy(&w->wide);
    sbn_group_destroy(&w->group);
}

static sbn_status forward(world *w, sbn_norm *norm)
{
    int64_t c = norm == w->wide ? MOST : 3;
    sbn_tensor x = sbn_tensor_nc(SBN_F32, w->x, ROWS, c),
               y = sbn_tensor_nc(SBN_F32, w->y, ROWS, c);
    return sbn_norm_forward(norm, &x, &y);
}

static sbn_status begin_forward(world *w, sbn_norm *norm)
{
    int64_t c = norm == w->wide ? MOST : 3;
    sbn_tensor x = sbn_tensor_nc(SBN_F32, w->x, ROWS, c),
               y = sbn_tensor_nc(SBN_F32, w->y, ROWS, c);
    return sbn_norm_forward_begin(norm, &x, &y);
}

/* "… on process(es) …" of the process `bad`, and of all others. */
static void names(int bad, const char *of_bad, const char *of_others)
{
    const char *text = sbn_last_error(), *a = strstr(text, of_bad),
               *b = strstr(text, of_others);
    char at[32];
    if (!a || !b) fail_msg("%s", text);
    snprintf(at, sizeof at, " on process %d", bad);
    a = strstr(a, " on process");
    assert_memory_equal(a, at, strlen(at));
    assert_memory_not_equal(strstr(b, " on process"), at, strlen(at));
}

static void same_results(void **state)
{
    (void)state;
    world w = begin();
    assert_int_equal(w.group->checks, test_size > 1);
    float sound[ROWS * 3];
    sbn_norm *plain = layer(test_group, 3, "bn");
    sbn_tensor x = sbn_tensor_nc(SBN_F32, w.x, ROWS, 3),
               y = sbn_tensor_nc(SBN_F32, sound, ROWS, 3);
    OK(sbn_norm_forward(plain, &x, &y));
    for (int i = 0; i < 3; i++) OK(forward(&w, w.a));
    assert_memory_equal(sound, w.y, sizeof sound);
    assert_false(test_group->checks);
    sbn_norm_destroy(&plain);
    end(&w);
}

/* Layers of one length and name, then of other lengths, in another order. */
static void out_of_order(void **state)
{
    (void)state;
    if (test_size == 1) return;
    for (int bad = 0; bad < test_size; bad++)
        for (int wide = 0; wide < 2; wide++) {
            if (test_size == 2 && bad == 0) continue; /* who is bad, of two? */
            world w = begin();
            bool is_bad = test_rank == bad;
            sbn_norm *other = wide ? w.wide : w.b;
            OK(forward(&w, w.a));
            FAILS(SBN_E_MISMATCH, forward(&w, is_bad ? other : w.a));
            names(bad,
                  wide ? "wide forward (layer 3, call 1, 96 words)"
                       : "bn forward (layer 2, call 1, 36 words)",
                  "bn forward (layer 1, call 2, 36 words)");
            /* nobody knows where the others are now */
            FAILS(SBN_E_MISMATCH, forward(&w, w.a));
            FAILS(SBN_E_MISMATCH, sbn_group_agree(w.group, SBN_OK));
            end(&w);
        }
}

/* One goes forward again where the others go back. */
static void another_phase(void **state)
{
    (void)state;
    if (test_size == 1) return;
    int bad = test_size - 1;
    world w = begin();
    float dx[ROWS * 3];
    sbn_tensor dy = sbn_tensor_nc(SBN_F32, w.x, ROWS, 3),
               out = sbn_tensor_nc(SBN_F32, dx, ROWS, 3);
    OK(forward(&w, w.a));
    FAILS(SBN_E_MISMATCH,
          test_rank == bad ? forward(&w, w.a) : sbn_norm_backward(w.a, &dy, &out));
    names(bad, "bn forward (layer 1, call 2, 36 words)",
          "bn backward (layer 1, call 1, 30 words)");
    end(&w);
}

static void split_calls(void **state)
{
    (void)state;
    if (test_size == 1) return;
    int bad = test_size - 1;
    bool is_bad = test_rank == bad;
    world w = begin();
    OK(begin_forward(&w, w.a));
    OK(begin_forward(&w, w.wide));
    OK(sbn_norm_forward_end(w.wide));
    OK(sbn_norm_forward_end(w.a));
    OK(begin_forward(&w, w.a));
    FAILS(SBN_E_MISMATCH, begin_forward(&w, is_bad ? w.b : w.wide));
    names(bad, "bn forward (layer 2, call 1, ", "wide forward (layer 3, call 2, ");
    OK(sbn_norm_forward_end(w.a)); /* what all had begun is whole */
    end(&w);
}

/* Another kind of collective, one that is left out, and an early end. */
static void left_out(void **state)
{
    (void)state;
    if (test_size == 1) return;
    int bad = test_size - 1;
    bool is_bad = test_rank == bad;
    world w = begin();
    OK(forward(&w, w.a));
    FAILS(SBN_E_MISMATCH, is_bad ? sbn_group_agree(w.group, SBN_OK) : forward(&w, w.a));
    names(bad, "agreement (", "bn forward (layer 1, call 2, ");
    end(&w);
    w = begin();
    OK(forward(&w, w.a));
    if (!is_bad) {
        FAILS(SBN_E_MISMATCH, forward(&w, w.a));
        names(bad, "sbn_group_destroy (", "bn forward (layer 1, call 2, ");
    }
    end(&w);
}

/* Groups that are split from one in check mode are in it too. */
static void split_groups(void **state)
{
    (void)state;
    sbn_group *half;
    setenv("SBN_CHECK_COLLECTIVES", "1", 1);
    OK(sbn_group_split(MPI_COMM_WORLD, test_rank % 2, 0, &half));
    unsetenv("SBN_CHECK_COLLECTIVES");
    assert_int_equal(half->checks, sbn_group_size(half) > 1);
    OK(sbn_group_agree(half, SBN_OK));
    sbn_group_destroy(&half);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(same_results), cmocka_unit_test(out_of_order),
    cmocka_unit_test(split_calls),  cmocka_unit_test(left_out),
    cmocka_unit_test(split_groups), cmocka_unit_test(another_phase),
};
TEST_MAIN(tests)
