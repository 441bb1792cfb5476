/* What each mode uses, updates and sends; running statistics on every path. */
#include "support/harness.h"
#include "support/seat.h"
#include "support/tables.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const norm_case shape = {44, 5, 1, 3, 0};

static seat share(const sbn_norm_config *cfg, const joined *b, layout form)
{
    int64_t first, n;
    uneven(b->n, 0, test_rank, test_size, &first, &n);
    return seat_make(cfg, test_group, b, form, first, n);
}

static void *copy(const void *from, int64_t bytes)
{
    void *to = malloc((size_t)bytes + 1);
    assert_non_null(to);
    memcpy(to, from, (size_t)bytes);
    return to;
}

/* gamma·rstd·dy in the type's arithmetic. */
static double constant_dx(sbn_dtype dtype, double gamma, double var, double dy)
{
    double a = gamma * (1 / sqrt(var + 1e-5)), out;
    if (dtype == SBN_F64) return a * dy;
    set_element(dtype, &out, 0, (double)((float)a * (float)dy));
    return element(dtype, &out, 0);
}

/* dx to the bit; dgamma and dbeta those of this process's samples alone. */
static void check_frozen(const seat *s, const joined *b)
{
    sbn_dtype type = s->cfg.dtype, state = state_type(type);
    int64_t pixels = b->h * b->w;
    double unit = 8 * rounding(state) + 16 * (double)pixels * DBL_EPSILON / 2;
    for (int64_t i = 0; i < b->c; i++) {
        double mean = element(state, s->state.running_mean, i),
               var = element(state, s->state.running_var, i);
        long double sum = 0, sum_xhat = 0, size = 0, size_xhat = 0;
        for (int64_t r = 0; r < s->n; r++)
            for (int64_t j = 0; j < pixels; j++) {
                double dy = tensor_get(&s->dy, r, i, j), x = tensor_get(&s->x, r, i, j);
                long double xhat = ((long double)x - mean) / sqrtl(var + 1e-5L);
                sum += dy;
                size += fabs(dy);
                sum_xhat += dy * xhat;
                size_xhat += fabs(dy) * (4 + fabsl(xhat));
                double want = constant_dx(type, b->gamma_d[i], var, dy);
                assert_true(tensor_get(&s->dx, r, i, j) == want);
            }
        CLOSE(element(state, s->state.weight_grad, i), (double)sum_xhat,
              unit * (double)size_xhat);
        CLOSE(element(state, s->state.bias_grad, i), (double)sum, unit * (double)size);
    }
}

static void frozen_is_evaluation_with_a_gradient(void **state)
{
    (void)state;
    for (int k = 0; k < 12; k++) {
        joined b = joined_make((sbn_dtype)(k % 3), shape, 91);
        sbn_norm_config cfg = joined_config(&b);
        cfg.norm_batch = k / 6 ? 12 : 0;
        seat s = share(&cfg, &b, (layout)(k / 3 % 2)), before = share(&cfg, &b, NCHW);
        seat_draw_running(&s);
        seat_draw_running(&before);
        OK(sbn_norm_set_mode(s.norm, SBN_NORM_EVAL));
        OK(sbn_norm_forward(s.norm, &s.x, &s.z));
        OK(sbn_norm_set_mode(s.norm, SBN_NORM_FROZEN));
        /* one process after the other, so that a message would wait for ever */
        for (int turn = 0; turn < test_size; turn++) {
            if (turn == test_rank) {
                seat_step(&s, false);
                check_frozen(&s, &b);
                void *dx = copy(s.dx.data, tensor_bytes(&s.dx));
                memset(s.y.data, 0xff, (size_t)tensor_bytes(&s.y));
                OK(sbn_norm_forward_begin(s.norm, &s.x, &s.y));
                OK(sbn_norm_forward_end(s.norm));
                OK(sbn_norm_backward_begin(s.norm, &s.dy, &s.dy));
                OK(sbn_norm_backward_end(s.norm));
                same_bits(s.dy.data, dx, tensor_bytes(&s.dx));
                free(dx);
            }
            MPI_Barrier(MPI_COMM_WORLD);
        }
        same_bits(s.y.data, s.z.data, tensor_bytes(&s.y));
        int64_t bytes = b.c * sbn_dtype_bytes(state_type(b.dtype));
        same_bits(s.state.running_mean, before.state.running_mean, bytes);
        same_bits(s.state.running_var, before.state.running_var, bytes);
        assert_int_equal(*s.state.num_batches_tracked, 0);
        seat_free(&s);
        seat_free(&before);
        joined_free(&b);
    }
}

static void gradients_of_gamma_and_beta_not_wanted(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, shape, 92);
    for (int frozen = 0; frozen < 2; frozen++) {
        sbn_norm_config cfg = joined_config(&b);
        seat with = share(&cfg, &b, NCHW);
        cfg.affine_grad = false;
        seat s = share(&cfg, &b, NCHW);
        sbn_norm_mode mode = frozen ? SBN_NORM_FROZEN : SBN_NORM_TRAIN;
        OK(sbn_norm_set_mode(with.norm, mode));
        OK(sbn_norm_set_mode(s.norm, mode));
        memset(s.state.weight_grad, 7, 5 * 4);
        memset(s.state.bias_grad, 7, 5 * 4);
        void *before = copy(s.state.weight_grad, 5 * 4);
        seat_step(&with, false);
        seat_step(&s, false);
        seat_same_samples(&s, &with, 0, false);
        same_bits(s.state.weight_grad, before, 5 * 4);
        same_bits(s.state.bias_grad, before, 5 * 4);
        free(before);
        seat_free(&s);
        seat_free(&with);
    }
    joined_free(&b);
}

/* y in the place of x: where the header allows it, with the bits of y elsewhere. */
static void in_place(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, shape, 93);
    for (int k = 0; k < 4 * 8; k++) {
        sbn_norm_mode mode = (sbn_norm_mode)(k % 4);
        sbn_norm_config cfg = joined_config(&b);
        cfg.relu = k & 4;
        cfg.affine_grad = k & 8;
        cfg.affine = k & 16;
        bool keeps_x =
            mode == SBN_NORM_TRAIN ||
            (mode == SBN_NORM_FROZEN && (cfg.relu || (cfg.affine && cfg.affine_grad)));
        seat s = share(&cfg, &b, NHWC), want = share(&cfg, &b, NHWC);
        OK(sbn_norm_set_mode(s.norm, mode));
        OK(sbn_norm_set_mode(want.norm, mode));
        OK(sbn_norm_forward(want.norm, &want.x, &want.y));
        sbn_status got = sbn_norm_forward(s.norm, &s.x, &s.x);
        if (keeps_x) { /* empty shares have no place */
            bool fixed = mode == SBN_NORM_FROZEN;
            FAILS(s.n > 0 ? SBN_E_ARG : fixed ? SBN_OK : SBN_E_PEER, got);
        } else {
            OK(got);
            tensor_same(&s.x, &want.y, 0);
            if (mode == SBN_NORM_FROZEN) {
                OK(sbn_norm_backward(s.norm, &s.dy, &s.dx));
                OK(sbn_norm_backward(want.norm, &want.dy, &want.dx));
                tensor_same(&s.dx, &want.dx, 0);
            }
        }
        seat_free(&s);
        seat_free(&want);
    }
    joined_free(&b);
}

static void batch_statistics_at_evaluation(void **state)
{
    (void)state;
    for (int k = 0; k < 8; k++) {
        joined b = joined_make(k % 2 ? SBN_F64 : SBN_F32, shape, 94);
        sbn_norm_config cfg = joined_config(&b);
        cfg.norm_batch = k & 2 ? 11 : 0;
        cfg.track_running_stats = k & 4;
        seat s = share(&cfg, &b, NCHW), train = share(&cfg, &b, NCHW);
        OK(sbn_norm_forward(train.norm, &train.x, &train.y));
        OK(sbn_norm_set_mode(s.norm, SBN_NORM_EVAL_BATCH));
        OK(sbn_norm_forward(s.norm, &s.x, &s.y));
        tensor_same(&s.y, &train.y, 0);
        FAILS(SBN_E_STATE, sbn_norm_backward(s.norm, &s.dy, &s.dx));
        OK(sbn_norm_forward_begin(s.norm, &s.x, &s.x));
        OK(sbn_norm_forward_end(s.norm));
        tensor_same(&s.x, &train.y, 0);
        FAILS(SBN_E_STATE, sbn_norm_backward_begin(s.norm, &s.dy, &s.dx));
        if (cfg.track_running_stats) {
            assert_int_equal(*s.state.num_batches_tracked, 0);
            for (int64_t i = 0; i < b.c; i++) {
                assert_true(element(b.dtype, s.state.running_mean, i) == 0);
                assert_true(element(b.dtype, s.state.running_var, i) == 1);
            }
        }
        seat_free(&s);
        seat_free(&train);
        joined_free(&b);
    }
}

/* What the limits did is that of the last training forward, whatever ran since. */
static void evaluation_keeps_what_was_clipped(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, shape, 95);
    sbn_norm_config cfg = joined_config(&b);
    cfg.correction = SBN_CORRECTION_RENORM;
    cfg.r_max = 1.01;
    cfg.d_max = 0.01;
    seat s = share(&cfg, &b, NCHW);
    seat_step(&s, false);
    sbn_norm_clipped before = sbn_norm_get_clipped(s.norm);
    assert_true(before.r > 0 && before.d > 0);
    const sbn_norm_mode modes[] = {SBN_NORM_EVAL, SBN_NORM_EVAL_BATCH, SBN_NORM_FROZEN};
    for (int k = 0; k < 3; k++) {
        OK(sbn_norm_set_mode(s.norm, modes[k]));
        OK(sbn_norm_forward(s.norm, &s.x, &s.y));
        sbn_norm_clipped after = sbn_norm_get_clipped(s.norm);
        assert_true(after.r == before.r && after.d == before.d);
    }
    seat_free(&s);
    joined_free(&b);
}

/* Evaluation of other samples, in another layout, under another mask, and precise
 * statistics: none of it shows in the backward that follows. */
static void evaluation_between_the_passes(void **state)
{
    (void)state;
    for (int k = 0; k < 8; k++) {
        joined b = joined_make(k % 2 ? SBN_F64 : SBN_F32, shape, 96),
               other = joined_make(b.dtype, (norm_case){100, 5, 1, 3, 0}, 97);
        sbn_norm_config cfg = joined_config(&b);
        cfg.norm_batch = k & 2 ? 12 : 0;
        cfg.relu = k & 4;
        seat s = share(&cfg, &b, NCHW), want = share(&cfg, &b, NCHW);
        uint8_t keep[100];
        for (int r = 0; r < 100; r++) keep[r] = r % 4 != 2;
        if (k & 1) OK(sbn_norm_set_mask(s.norm, keep + 1, s.n));
        if (k & 1) OK(sbn_norm_set_mask(want.norm, keep + 1, s.n));
        seat_step(&want, true);
        OK(sbn_norm_forward_add(s.norm, &s.x, &s.z, &s.y));
        OK(sbn_norm_set_mode(s.norm, SBN_NORM_EVAL));
        OK(sbn_norm_set_mask(s.norm, keep, 100));
        sbn_tensor many = tensor_make(NHWC, b.dtype, 100, 5, 1, 3);
        tensor_fill(&many, other.x_d, 0);
        OK(sbn_norm_forward(s.norm, &many, &many));
        OK(sbn_norm_precise_begin(s.norm));
        OK(sbn_norm_precise_add(s.norm, &many));
        OK(sbn_norm_set_mode(s.norm, SBN_NORM_TRAIN));
        OK(sbn_norm_backward_add(s.norm, &s.dy, &s.dx, &s.dz));
        seat_same_samples(&s, &want, 0, true);
        seat_same_state(&s, &want);
        OK(sbn_norm_precise_end(s.norm));
        tensor_free(&many);
        seat_free(&s);
        seat_free(&want);
        joined_free(&b);
        joined_free(&other);
    }
}

/* Every pair: a forward begun in one mode ends in it, whatever was chosen since. */
static void the_mode_is_that_of_the_begin(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F64, shape, 98);
    sbn_norm_config cfg = joined_config(&b);
    for (int k = 0; k < 16; k++) {
        sbn_norm_mode mode = (sbn_norm_mode)(k % 4), later = (sbn_norm_mode)(k / 4);
        seat s = share(&cfg, &b, NCHW), want = share(&cfg, &b, NCHW);
        OK(sbn_norm_set_mode(s.norm, mode));
        OK(sbn_norm_set_mode(want.norm, mode));
        OK(sbn_norm_forward(want.norm, &want.x, &want.y));
        OK(sbn_norm_forward_begin(s.norm, &s.x, &s.y));
        OK(sbn_norm_set_mode(s.norm, later));
        OK(sbn_norm_forward_end(s.norm));
        if (mode == SBN_NORM_TRAIN || mode == SBN_NORM_FROZEN) {
            OK(sbn_norm_backward(want.norm, &want.dy, &want.dx));
            OK(sbn_norm_backward_begin(s.norm, &s.dy, &s.dx));
            OK(sbn_norm_set_mode(s.norm, mode));
            OK(sbn_norm_backward_end(s.norm));
        } else {
            FAILS(SBN_E_STATE, sbn_norm_backward(s.norm, &s.dy, &s.dx));
        }
        seat_same_samples(&s, &want, 0, false);
        seat_same_state(&s, &want);
        seat_free(&s);
        seat_free(&want);
    }
    sbn_norm *norm;
    cfg.track_running_stats = false;
    OK(sbn_norm_create(&cfg, test_group, &norm));
    FAILS(SBN_E_ARG, sbn_norm_set_mode(norm, SBN_NORM_FROZEN));
    FAILS(SBN_E_ARG, sbn_norm_set_mode(norm, (sbn_norm_mode)4));
    FAILS(SBN_E_ARG, sbn_norm_set_mode(NULL, SBN_NORM_EVAL));
    sbn_norm_destroy(&norm);
    joined_free(&b);
}

static void trap_22_evaluation_knows_no_norm_batch(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F32, shape, 99);
    sbn_norm_config cfg = joined_config(&b);
    seat plain = share(&cfg, &b, NCHW);
    seat_draw_running(&plain);
    OK(sbn_norm_set_mode(plain.norm, SBN_NORM_EVAL));
    OK(sbn_norm_forward(plain.norm, &plain.x, &plain.y));
    for (int64_t m = 1; m <= 44; m += 6) {
        cfg.norm_batch = m;
        seat s = share(&cfg, &b, NCHW);
        OK(sbn_norm_set_mode(s.norm, SBN_NORM_EVAL));
        seat_draw_running(&s);
        OK(sbn_norm_forward(s.norm, &s.x, &s.y));
        tensor_same(&s.y, &plain.y, 0);
        seat_free(&s);
    }
    seat_free(&plain);
    joined_free(&b);
}

/* Mean and variance that the policy documents, in long double. */
static void policy(const joined *b, const sbn_norm_config *cfg, int64_t i,
                   long double *mean, long double *var)
{
    bool whole = cfg->running == SBN_RUNNING_WHOLE_BATCH || !cfg->norm_batch;
    int64_t s = b->h * b->w, m = whole ? b->n : cfg->norm_batch;
    *mean = *var = 0;
    for (int64_t from = 0; from < b->n; from += m) {
        int64_t to = from + m < b->n ? from + m : b->n;
        long double n = (long double)((to - from) * s), sum = 0, squares = 0;
        for (int64_t e = from * s; e < to * s; e++)
            sum += b->x_d[(e / s * b->c + i) * s + e % s];
        for (int64_t e = from * s; e < to * s; e++) {
            long double d = b->x_d[(e / s * b->c + i) * s + e % s] - sum / n;
            squares += d * d;
        }
        long double weight = n / (long double)(b->n * s);
        *mean += weight * (sum / n);
        *var += weight * (squares / (n - 1));
    }
}

/* Blocking and halves, each momentum, in three steps; the last norm batch is short. */
static void trap_22_23_running_statistics_of_norm_batches(void **state)
{
    (void)state;
    const double momenta[] = {1, 0.1, SBN_MOMENTUM_CUMULATIVE};
    const int64_t norm_batches[] = {0, 16, 12, 7, 43};
    for (int k = 0; k < 2 * 3 * 5 * 2; k++) {
        joined b = joined_make(k % 2 ? SBN_F64 : SBN_F32, shape, 100);
        sbn_norm_config cfg = joined_config(&b);
        cfg.momentum = momenta[k / 2 % 3];
        cfg.norm_batch = norm_batches[k / 6 % 5];
        cfg.running = (sbn_running)(k / 30);
        seat s = share(&cfg, &b, NCHW);
        for (int step = 1; step <= 3; step++) {
            if (step == 2) {
                OK(sbn_norm_forward_begin(s.norm, &s.x, &s.y));
                OK(sbn_norm_forward_end(s.norm));
            } else {
                OK(sbn_norm_forward(s.norm, &s.x, &s.y));
            }
        }
        /* three roundings of the state and slice sums of 48 values */
        double unit = 6 * rounding(b.dtype) + 100 * DBL_EPSILON;
        for (int64_t i = 0; i < b.c; i++) {
            long double mean, var, m = 0, v = 1;
            policy(&b, &cfg, i, &mean, &var);
            for (int step = 1; step <= 3; step++) {
                m = naive_track(m, mean, cfg.momentum, step);
                v = naive_track(v, var, cfg.momentum, step);
            }
            CLOSE(element(b.dtype, s.state.running_mean, i), (double)m,
                  unit * (1 + fabs((double)m)));
            CLOSE(element(b.dtype, s.state.running_var, i), (double)v,
                  unit * (1 + (double)v));
        }
        seat_free(&s);
        joined_free(&b);
    }
}

/* One batch gives one unbiased variance, to the bit, by every path with whole slices;
 * precise statistics are the biased ones. */
static void trap_23_one_running_variance_on_every_path(void **state)
{
    (void)state;
    joined b = joined_make(SBN_F64, (norm_case){64, 5, 1, 3, 0}, 101);
    sbn_norm_config cfg = joined_config(&b);
    cfg.momentum = 1;
    int64_t first, n;
    deal(DEAL_EVEN, b.n, 0, test_rank, test_size, &first, &n);
    seat want = seat_make(&cfg, test_group, &b, NCHW, first, n);
    seat_step(&want, false);
    uint8_t keep[64];
    memset(keep, 1, sizeof keep);
    for (int path = 0; path < 7; path++) {
        sbn_norm_config other = cfg;
        if (path == 1) other.norm_batch = 32;
        if (path == 2) other.momentum = SBN_MOMENTUM_CUMULATIVE;
        if (path == 3) other.correction = SBN_CORRECTION_RENORM, other.r_max = 2;
        if (path == 4) other.relu = true;
        if (path == 5) other.affine = false;
        seat s = seat_make(&other, test_group, &b, NCHW, first, n);
        if (path == 6) OK(sbn_norm_set_mask(s.norm, keep, n));
        OK(sbn_norm_forward_begin(s.norm, &s.x, &s.y));
        OK(sbn_norm_forward_end(s.norm));
        same_bits(s.state.running_var, want.state.running_var, b.c * 8);
        same_bits(s.state.running_mean, want.state.running_mean, b.c * 8);
        OK(sbn_norm_precise_begin(s.norm));
        OK(sbn_norm_precise_add(s.norm, &s.x));
        OK(sbn_norm_precise_end(s.norm));
        same_bits(s.state.running_mean, want.state.running_mean, b.c * 8);
        for (int64_t i = 0; i < b.c; i++) {
            double unbiased = element(SBN_F64, want.state.running_var, i);
            CLOSE(element(SBN_F64, s.state.running_var, i) * (192.0 / 191), unbiased,
                  4 * DBL_EPSILON * unbiased);
        }
        seat_free(&s);
    }
    seat_free(&want);
    joined_free(&b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(frozen_is_evaluation_with_a_gradient),
    cmocka_unit_test(gradients_of_gamma_and_beta_not_wanted),
    cmocka_unit_test(in_place),
    cmocka_unit_test(batch_statistics_at_evaluation),
    cmocka_unit_test(evaluation_keeps_what_was_clipped),
    cmocka_unit_test(evaluation_between_the_passes),
    cmocka_unit_test(the_mode_is_that_of_the_begin),
    cmocka_unit_test(trap_22_evaluation_knows_no_norm_batch),
    cmocka_unit_test(trap_22_23_running_statistics_of_norm_batches),
    cmocka_unit_test(trap_23_one_running_variance_on_every_path),
};
TEST_MAIN(tests)
