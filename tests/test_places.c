/* Who may share memory with whom in a call: what overlaps is refused on all processes,
 * what only interleaves is not. */
#include "support/harness.h"

#include <stdlib.h>
#include <string.h>

#include "support/layer.h"

enum { N = 3, C = 2, S = 4, SIZE = N * C * S, ROOM = 8 * SIZE };

typedef struct desk {
    sbn_norm *norm;
    double *room; /* ROOM values, drawn alike by all processes */
} desk;

static desk desk_make(bool relu, bool second)
{
    desk d = {.room = malloc(ROOM * sizeof(double))};
    assert_non_null(d.room);
    sbn_norm_config cfg = sbn_norm_config_default(C);
    cfg.dtype = SBN_F64;
    cfg.relu = relu;
    cfg.second_order = second;
    OK(sbn_norm_create(&cfg, test_group, &d.norm));
    for (int i = 0; i < ROOM; i++) d.room[i] = (double)(i * 37 % 101) / 10 - 5;
    return d;
}

static void desk_free(desk *d)
{
    sbn_norm_destroy(&d->norm);
    free(d->room);
}

/* Contiguous images from element `at` on. */
static sbn_tensor images(const desk *d, int64_t at)
{
    return sbn_tensor_nchw(SBN_F64, d->room + at, N, C, 2, 2);
}

static void forward(void **state)
{
    (void)state;
    static const sbn_norm_mode modes[] = {SBN_NORM_TRAIN, SBN_NORM_EVAL,
                                          SBN_NORM_EVAL_BATCH, SBN_NORM_FROZEN};
    /* one element, one channel, one sample further, and all but one element */
    static const int64_t shifts[] = {1, S, C * S, SIZE - 1, -1, -(SIZE - 1)};
    desk d = desk_make(false, false);
    sbn_tensor x = images(&d, 2 * SIZE), good = images(&d, 0), z = images(&d, 4 * SIZE);
    EACH_BAD(bad)
    for (int m = 0; m < 4; m++)
        for (int k = 0; k < 6; k++) {
            sbn_norm_set_mode(d.norm, modes[m]);
            bool fixed = modes[m] == SBN_NORM_EVAL || modes[m] == SBN_NORM_FROZEN;
            sbn_tensor y = images(&d, 2 * SIZE + shifts[k]),
                       at_z = images(&d, 4 * SIZE + shifts[k]);
            sbn_status want = IS_BAD(bad) ? SBN_E_ARG : fixed ? SBN_OK : SBN_E_PEER;
            FAILS(want, sbn_norm_forward(d.norm, &x, IS_BAD(bad) ? &y : &good));
            FAILS(want,
                  sbn_norm_forward_add(d.norm, &x, &z, IS_BAD(bad) ? &at_z : &good));
        }
    /* neighbours do not overlap */
    sbn_tensor before = images(&d, SIZE), after = images(&d, 3 * SIZE);
    sbn_norm_set_mode(d.norm, SBN_NORM_TRAIN);
    OK(sbn_norm_forward(d.norm, &x, &before));
    OK(sbn_norm_forward(d.norm, &x, &after));
    desk_free(&d);
}

static void backward(void **state)
{
    (void)state;
    for (int relu = 0; relu < 2; relu++) {
        desk d = desk_make(relu, false);
        sbn_tensor x = images(&d, 0), z = images(&d, SIZE), y = images(&d, 2 * SIZE),
                   dy = images(&d, 3 * SIZE), dx = images(&d, 4 * SIZE),
                   dz = images(&d, 5 * SIZE), over_dy = images(&d, 3 * SIZE + 1),
                   over_dx = images(&d, 4 * SIZE - 1), over_x = images(&d, 1);
        OK(sbn_norm_forward_add(d.norm, &x, &z, &y));
        EACH_BAD(bad)
        {
            bool mine = IS_BAD(bad);
#define REFUSED(call) FAILS(mine ? SBN_E_ARG : SBN_E_PEER, call)
            REFUSED(sbn_norm_backward_add(d.norm, &dy, mine ? &over_dy : &dx, &dz));
            REFUSED(sbn_norm_backward_add(d.norm, &dy, &dx, mine ? &over_dy : &dz));
            REFUSED(sbn_norm_backward_add(d.norm, &dy, &dx, mine ? &over_dx : &dz));
            /* x is read again by the next backward, and so is z behind relu */
            REFUSED(sbn_norm_backward_add(d.norm, &dy, mine ? &x : &dx, &dz));
            REFUSED(sbn_norm_backward_add(d.norm, &dy, mine ? &over_x : &dx, &dz));
            REFUSED(sbn_norm_backward_add(d.norm, &dy, &dx, mine ? &x : &dz));
            if (relu) REFUSED(sbn_norm_backward_add(d.norm, &dy, &dx, mine ? &z : &dz));
        }
        if (!relu) OK(sbn_norm_backward_add(d.norm, &dy, &dx, &z));
        OK(sbn_norm_backward_add(d.norm, &dy, &dx, &dy)); /* dz exactly over dy */
        desk_free(&d);
    }
}

static void second(void **state)
{
    (void)state;
    desk d = desk_make(false, true);
    sbn_tensor x = images(&d, 0), y = images(&d, SIZE), dy = images(&d, 2 * SIZE),
               dx = images(&d, 3 * SIZE), v = images(&d, 4 * SIZE),
               ddy = images(&d, 5 * SIZE), gx = images(&d, 6 * SIZE);
    OK(sbn_norm_forward(d.norm, &x, &y));
    OK(sbn_norm_backward(d.norm, &dy, &dx));
    static const int64_t inputs[] = {0, 2 * SIZE, 4 * SIZE};
    EACH_BAD(bad)
    for (int k = 0; k < 3; k++)
        for (int64_t shift = 0; shift < 2; shift++) {
            bool mine = IS_BAD(bad);
            sbn_tensor over = images(&d, inputs[k] + shift);
            REFUSED(sbn_norm_second_backward(d.norm, &v, NULL, NULL, mine ? &over : &ddy,
                                             &gx, NULL));
            REFUSED(sbn_norm_second_backward(d.norm, &v, NULL, NULL, &ddy,
                                             mine ? &over : &gx, NULL));
            REFUSED(sbn_norm_second_backward(d.norm, &v, NULL, NULL, &ddy,
                                             mine ? &ddy : &gx, NULL));
        }
    OK(sbn_norm_second_backward(d.norm, &v, NULL, NULL, &ddy, &gx, NULL));
    desk_free(&d);
}

/* x and y cut out of one array, channel beside channel or sample beside sample, in both
 * layouts: every cut that shares no element works, every one that does is refused. */
static void cut_out_of_one_array(void **state)
{
    (void)state;
    const int64_t shape[5] = {N, C, 1, 2, 2};
    for (int last = 0; last < 2; last++) {
        desk d = desk_make(false, false);
        int64_t wide = 3 * C * S;
        const int64_t nchw[5] = {wide, S, S, 2, 1},
                      nhwc[5] = {wide, 1, 6 * C, 6 * C, 3 * C};
        sbn_tensor x = sbn_tensor_strided(SBN_F64, d.room, shape, last ? nhwc : nchw);
        int refused = 0, taken = 0;
        for (int64_t shift = 1; shift < 2 * C * (last ? 1 : S); shift++) {
            bool used[ROOM] = {false}, clash = false;
            sbn_tensor y = x;
            y.data = d.room + shift;
            for (int64_t e = 0; e < SIZE; e++) {
                int64_t n = e / (C * S), c = e / S % C, s = e % S;
                used[n * x.stride_n + c * x.stride_c + s * x.stride_s] = true;
            }
            for (int64_t e = 0; e < SIZE; e++) {
                int64_t n = e / (C * S), c = e / S % C, s = e % S;
                clash |= used[shift + n * x.stride_n + c * x.stride_c + s * x.stride_s];
            }
            sbn_status want = clash ? SBN_E_ARG : SBN_OK;
            FAILS(want, sbn_norm_forward(d.norm, &x, &y));
            refused += clash, taken += !clash;
        }
        assert_true(refused > 0 && taken > 0);
        desk_free(&d);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(forward),
    cmocka_unit_test(backward),
    cmocka_unit_test(second),
    cmocka_unit_test(cut_out_of_one_array),
};
TEST_MAIN(tests)
