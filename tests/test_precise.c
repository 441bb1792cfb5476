/* Precise statistics: exact, independent of how the data is cut and dealt, and failing
 * for all when one process could not add. */
#include "support/harness.h"
#include "support/seat.h"
#include "support/tables.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { C = 5, S = 6, SAMPLES = 3200, SLICES = SAMPLES / SBN_SLICE };

static const norm_case data_shape = {SAMPLES, C, 2, 3, 0};

/* Samples [first, first + n) of the data set as one batch of the seat's layer. */
static void add(seat *s, const joined *b, layout form, int64_t first, int64_t n)
{
    sbn_tensor x = tensor_make(form, b->dtype, n, b->c, b->h, b->w);
    tensor_fill(&x, b->x_d, first);
    OK(sbn_norm_precise_add(s->norm, &x));
    tensor_free(&x);
}

/* A layer that trains on a little of the data in between. */
static seat trainer(const joined *b, sbn_group *group)
{
    joined few = *b;
    few.n = 2 * SBN_SLICE;
    sbn_norm_config cfg = joined_config(&few);
    return seat_make(&cfg, group, &few, NCHW, 0, few.n);
}

static void near_the_two_passes(const joined *b, const seat *s)
{
    for (int64_t i = 0; i < C; i++) {
        long double mean = 0, var = 0, n = SAMPLES * S;
        for (int64_t r = 0; r < SAMPLES; r++)
            for (int j = 0; j < S; j++) mean += b->x_d[(r * C + i) * S + j];
        mean /= n;
        for (int64_t r = 0; r < SAMPLES; r++)
            for (int j = 0; j < S; j++) {
                long double d = b->x_d[(r * C + i) * S + j] - mean;
                var += d * d;
            }
        var /= n;
        /* 1e-12 as promised for float64, else one rounding of the state */
        double unit = b->dtype == SBN_F64 ? 1e-12 : rounding(SBN_F32) * 1.001;
        CLOSE(element(state_type(b->dtype), s->state.running_mean, i), (double)mean,
              unit * fabs((double)mean));
        CLOSE(element(state_type(b->dtype), s->state.running_var, i), (double)var,
              unit * (double)var);
    }
}

static void exact_mean_and_variance(void **state)
{
    (void)state;
    for (int k = 0; k < 6; k++) {
        joined b = joined_make((sbn_dtype)(k % 3), data_shape, 111);
        /* far from 0, so that the cancellation of a naive sum would show */
        for (int64_t e = 0; e < SAMPLES * C * S && b.dtype != SBN_BF16; e++)
            b.x_d[e] += 1000;
        joined_store(&b);
        seat s = trainer(&b, test_group);
        int64_t first, n;
        uneven(SAMPLES, k, test_rank, test_size, &first, &n);
        OK(sbn_norm_precise_begin(s.norm));
        for (int64_t at = 0; at < n; at += 100) /* no whole slices */
            add(&s, &b, (layout)(k / 3), first + at, at + 100 < n ? 100 : n - at);
        OK(sbn_norm_precise_end(s.norm));
        near_the_two_passes(&b, &s);
        assert_int_equal(*s.state.num_batches_tracked, 0);
        seat_free(&s);
        joined_free(&b);
    }
}

/* All slices, dealt to the processes in any order, in batches of any size. */
static void cuts_and_deals_do_not_show(void **state)
{
    (void)state;
    sbn_group *self;
    OK(sbn_group_create(MPI_COMM_SELF, &self));
    for (int k = 0; k < 6; k++) {
        joined b = joined_make((sbn_dtype)(k % 3), data_shape, 112);
        layout form = (layout)(k / 3);
        seat whole = trainer(&b, self), s = trainer(&b, test_group);
        OK(sbn_norm_precise_begin(whole.norm));
        add(&whole, &b, form, 0, SAMPLES);
        OK(sbn_norm_precise_end(whole.norm));
        int64_t bytes = C * sbn_dtype_bytes(state_type(b.dtype));
        for (int how = 0; how < 4; how++) {
            seat_draw_running(&s);
            OK(sbn_norm_precise_begin(s.norm));
            for (int64_t at = 0, many; at < SLICES; at += many) {
                many = 1 + (at * 5 + how) % (how == 0 ? 1 : 17);
                if (at + many > SLICES) many = SLICES - at;
                int64_t owner = how == 3 ? test_size - 1 : (at + how) % test_size;
                if (owner == test_rank)
                    add(&s, &b, form, at * SBN_SLICE, many * SBN_SLICE);
                if (how == 2 && at % 64 == 0) add(&s, &b, form, 0, 0);
            }
            OK(sbn_norm_precise_end(s.norm));
            same_bits(s.state.running_mean, whole.state.running_mean, bytes);
            same_bits(s.state.running_var, whole.state.running_var, bytes);
        }
        seat_free(&whole);
        seat_free(&s);
        joined_free(&b);
    }
    sbn_group_destroy(&self);
}

/* Training and evaluation in between have their own bits and leave no trace. */
static void training_in_between(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F64, data_shape, 113);
    seat s = trainer(&b, test_group), alone = trainer(&b, test_group),
         quiet = trainer(&b, test_group);
    seat_step(&alone, false);
    OK(sbn_norm_precise_begin(quiet.norm));
    OK(sbn_norm_precise_begin(s.norm));
    add(&s, &b, NCHW, 160, 64);
    add(&quiet, &b, NCHW, 160, 64);
    OK(sbn_norm_forward_begin(s.norm, &s.x, &s.y));
    add(&s, &b, NCHW, 320, 32); /* also with a message under way */
    add(&quiet, &b, NCHW, 320, 32);
    OK(sbn_norm_forward_end(s.norm));
    OK(sbn_norm_backward_begin(s.norm, &s.dy, &s.dx));
    add(&s, &b, NHWC, 400, 80);
    add(&quiet, &b, NHWC, 400, 80);
    OK(sbn_norm_backward_end(s.norm));
    seat_same_samples(&s, &alone, 0, false);
    seat_same_state(&s, &alone);
    OK(sbn_norm_precise_end(s.norm));
    OK(sbn_norm_precise_end(quiet.norm));
    same_bits(s.state.running_mean, quiet.state.running_mean, C * 8);
    same_bits(s.state.running_var, quiet.state.running_var, C * 8);
    /* backward may come after the end as well, and a begin forgets what was added */
    OK(sbn_norm_backward(s.norm, &s.dy, &s.dx));
    seat_same_samples(&s, &alone, 0, false);
    OK(sbn_norm_precise_begin(s.norm));
    add(&s, &b, NCHW, 0, 500);
    OK(sbn_norm_precise_begin(s.norm));
    add(&s, &b, NCHW, 160, 64);
    add(&s, &b, NCHW, 320, 32);
    add(&s, &b, NHWC, 400, 80);
    OK(sbn_norm_precise_end(s.norm));
    same_bits(s.state.running_var, quiet.state.running_var, C * 8);
    seat_free(&s);
    seat_free(&alone);
    seat_free(&quiet);
    joined_free(&b);
}

static void masks_remove(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, data_shape, 114);
    seat s = trainer(&b, test_group), want = trainer(&b, test_group);
    sbn_tensor x = tensor_make(NCHW, SBN_F32, 50, C, 2, 3),
               cut = tensor_make(NCHW, SBN_F32, 1, C, 2, 3);
    tensor_fill(&x, b.x_d, 100 * test_rank);
    uint8_t keep[50];
    sbn_tensor kept = tensor_make(NCHW, SBN_F32, 50, C, 2, 3);
    kept.n = 0;
    for (int r = 0; r < 50; r++) {
        keep[r] = r % 3 != 0;
        if (!keep[r]) continue;
        tensor_fill(&cut, b.x_d, 100 * test_rank + r);
        memcpy((float *)kept.data + kept.n++ * C * S, cut.data, C * S * 4);
    }
    for (int r = 0; r < 50; r += 3) tensor_set(&x, r, 1, 2, NAN);
    OK(sbn_norm_precise_begin(s.norm));
    OK(sbn_norm_precise_begin(want.norm));
    OK(sbn_norm_set_mask(s.norm, keep, 50));
    OK(sbn_norm_precise_add(s.norm, &x));
    OK(sbn_norm_precise_add(want.norm, &kept));
    OK(sbn_norm_set_mask(s.norm, NULL, 0));
    OK(sbn_norm_precise_add(s.norm, &kept));
    OK(sbn_norm_precise_add(want.norm, &kept));
    OK(sbn_norm_precise_end(s.norm));
    OK(sbn_norm_precise_end(want.norm));
    seat_same_state(&s, &want);
    sbn_tensor *owned[] = {&x, &cut, &kept};
    for (int k = 0; k < 3; k++) tensor_free(owned[k]);
    seat_free(&s);
    seat_free(&want);
    joined_free(&b);
}

/* Local errors of the order of calls, and what cannot have precise statistics. */
static void out_of_order(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, (norm_case){32, C, 2, 3, 0}, 115);
    seat s = trainer(&b, test_group);
    FAILS(SBN_E_STATE, sbn_norm_precise_add(s.norm, &s.x));
    FAILS(SBN_E_STATE, sbn_norm_precise_end(s.norm));
    OK(sbn_norm_precise_begin(s.norm));
    OK(sbn_norm_precise_add(s.norm, &s.x));
    OK(sbn_norm_precise_end(s.norm));
    FAILS(SBN_E_STATE, sbn_norm_precise_end(s.norm));
    FAILS(SBN_E_STATE, sbn_norm_precise_add(s.norm, &s.x));
    FAILS(SBN_E_ARG, sbn_norm_precise_begin(NULL));
    FAILS(SBN_E_ARG, sbn_norm_precise_add(NULL, &s.x));
    FAILS(SBN_E_ARG, sbn_norm_precise_end(NULL));
    /* begun and never ended: destroyed with the layer */
    OK(sbn_norm_precise_begin(s.norm));
    sbn_norm_config cfg = s.cfg;
    cfg.track_running_stats = false;
    sbn_norm *norm;
    OK(sbn_norm_create(&cfg, test_group, &norm));
    FAILS(SBN_E_ARG, sbn_norm_precise_begin(norm));
    sbn_norm_destroy(&norm);
    seat_free(&s);
    joined_free(&b);
}

/* End fails and changes nothing; the next precise statistics are right. */
static void end_fails(seat *s, int bad, sbn_status code)
{
    int64_t bytes = C * sbn_dtype_bytes(s->cfg.dtype);
    double mean[C], var[C];
    memcpy(mean, s->state.running_mean, (size_t)bytes);
    memcpy(var, s->state.running_var, (size_t)bytes);
    FAILS_ON(bad, code, sbn_norm_precise_end(s->norm));
    same_bits(mean, s->state.running_mean, bytes);
    same_bits(var, s->state.running_var, bytes);
    OK(sbn_norm_precise_begin(s->norm));
    OK(sbn_norm_precise_add(s->norm, &s->x));
    OK(sbn_norm_precise_end(s->norm));
}

static void one_process_cannot_add(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, (norm_case){32, C, 2, 3, 0}, 116);
    seat s = trainer(&b, test_group);
    const struct {
        double value;
        sbn_status code;
    } values[] = {
        {NAN, SBN_E_NONFINITE}, {-INFINITY, SBN_E_NONFINITE}, {1e25, SBN_E_RANGE}};
    EACH_BAD(bad)
    {
        sbn_tensor channels = tensor_make(NCHW, SBN_F32, 4, C + 1, 2, 3),
                   type = tensor_make(NCHW, SBN_F64, 4, C, 2, 3), none = s.x, flat = s.x,
                   gaps = s.x;
        none.data = NULL;
        flat.h = 0;
        gaps.stride_s = 2;
        const sbn_tensor *wrong[] = {&channels, &type, &none, &flat, &gaps, NULL};
        for (int k = 0; k < 6; k++) {
            OK(sbn_norm_precise_begin(s.norm));
            OK(sbn_norm_precise_add(s.norm, &s.x));
            if (IS_BAD(bad)) FAILS(SBN_E_ARG, sbn_norm_precise_add(s.norm, wrong[k]));
            OK(sbn_norm_precise_add(s.norm, &s.x)); /* does not make it good */
            end_fails(&s, bad, SBN_E_ARG);
        }
        for (int k = 0; k < 3; k++) {
            sbn_tensor x = tensor_make(NCHW, SBN_F32, 32, C, 2, 3);
            tensor_fill(&x, b.x_d, 0);
            if (IS_BAD(bad)) tensor_set(&x, 20, 3, 4, values[k].value);
            OK(sbn_norm_precise_begin(s.norm));
            OK(sbn_norm_precise_add(s.norm, &x));
            end_fails(&s, bad, values[k].code);
            tensor_free(&x);
        }
        tensor_free(&channels);
        tensor_free(&type);
    }
    seat_free(&s);
    joined_free(&b);
}

static void nothing_or_one_value_added(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F64, (norm_case){32, C, 1, 1, 0}, 117);
    seat s = trainer(&b, test_group), before = trainer(&b, test_group);
    seat_draw_running(&s);
    seat_draw_running(&before);
    OK(sbn_norm_precise_begin(s.norm));
    OK(sbn_norm_precise_end(s.norm));
    OK(sbn_norm_precise_begin(s.norm));
    add(&s, &b, NCHW, 0, 0);
    OK(sbn_norm_precise_end(s.norm));
    same_bits(s.state.running_mean, before.state.running_mean, C * 8);
    same_bits(s.state.running_var, before.state.running_var, C * 8);
    OK(sbn_norm_precise_begin(s.norm));
    if (test_rank == test_size - 1) add(&s, &b, NCHW, 3, 1);
    FAILS(SBN_E_FEW, sbn_norm_precise_end(s.norm));
    same_bits(s.state.running_mean, before.state.running_mean, C * 8);
    same_bits(s.state.running_var, before.state.running_var, C * 8);
    seat_free(&s);
    seat_free(&before);
    joined_free(&b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(exact_mean_and_variance),
    cmocka_unit_test(cuts_and_deals_do_not_show),
    cmocka_unit_test(training_in_between),
    cmocka_unit_test(masks_remove),
    cmocka_unit_test(out_of_order),
    cmocka_unit_test(one_process_cannot_add),
    cmocka_unit_test(nothing_or_one_value_added),
};
TEST_MAIN(tests)
